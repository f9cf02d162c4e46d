//! `keras.layers.Masking`: masks the steps whose numbers are all `mask_value`, and makes them 0.
//!
//! Shapes: xs `(batch, …, features)` of numbers; the result has the same shape and carries a mask `(batch, …)`. With
//! `mask_value = 0`, `[[[0, 0], [0, 5]]]` has the mask `[[false, true]]`. NaN is equal to nothing, so that a `mask_value` of
//! NaN masks nothing.
//!
//! Source: keras/src/layers/core/masking.py.

use candle_core::{D, DType, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem, json::Value as Json};

use crate::{
    Call, Fields, Given, KerasLayer, Masking, Spec, Value, dialect,
    layers::{cannot, one},
    numeric::constant,
};

#[derive(Debug)]
pub(crate) struct MaskingLayer {
    /// What is masked (`None` where it could not be read): one number, or as many as broadcast to the features. Keras: float32 where nothing else is said, so
    /// that 0.1 masks no number of a half-precision input, none of which is 0.1 in float32.
    mask_value: Option<Tensor>,
    /// Whether what is masked is multiplied with 0, as in Keras 1 and 2, where NaN stays NaN.
    multiplies: bool,
}

impl KerasLayer for MaskingLayer {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let zero = Json::from(0.0);
        let value = fields.take("mask_value").unwrap_or(&zero);
        let part = |key: &str| value.get("config").and_then(|config| config.get(key));
        let read = match part("value") {
            Some(numbers) => constant(numbers, part("dtype").and_then(Json::as_str)),
            None => constant(value, None),
        };
        let mask_value = match read {
            Ok(Value { tensor, dtype, .. }) if dtype != Dtype::String => Some(tensor),
            _ => {
                fields.invalid("mask_value", value, "a number or an array of numbers");
                None
            }
        };
        Self { mask_value, multiplies: dialect::is_legacy(fields.keras_major()) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.shape.rank() == 0 || self.mask_value.as_ref().is_some_and(|value| value.rank() > input.shape.rank()) {
            return Err(cannot(format!("an input of {} has not enough axes", input.shape)));
        }
        if matches!(input.dtype, Dtype::Bool | Dtype::String) {
            return Err(Problem::new(
                ErrorKind::Unsupported,
                "",
                format!("an input of {} is not supported", input.dtype),
            ));
        }
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let xs = &input.tensor;
        let Some(mask_value) = &self.mask_value else { bail!("no mask_value") };
        let dtype = match (xs.dtype(), mask_value.dtype()) {
            (DType::F64, _) | (_, DType::F64) => DType::F64,
            (one, other) if one.is_float() || other.is_float() => DType::F32,
            _ => DType::I64,
        };
        let value = mask_value.to_device(xs.device())?.to_dtype(dtype)?.broadcast_as(xs.shape())?.contiguous()?;
        let kept = xs.to_dtype(dtype)?.ne(&value)?.max_keepdim(D::Minus1)?;
        let ys = match self.multiplies {
            true => xs.broadcast_mul(&kept.to_dtype(xs.dtype())?)?,
            false => kept.broadcast_as(xs.shape())?.contiguous()?.where_cond(xs, &xs.zeros_like()?)?,
        };
        Ok(vec![input.with_tensor(ys).with_mask(Some(kept.squeeze(D::Minus1)?))])
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }
}
