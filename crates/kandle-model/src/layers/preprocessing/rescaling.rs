//! `keras.layers.Rescaling`: `inputs · scale + offset`, in the compute dtype.
//!
//! Shapes: any; a list of scales or offsets lies along the last axes. With scale ½ and offset 1, `[2, 3]` gives `[2, 2.5]`.
//!
//! Source: keras/src/layers/preprocessing/rescaling.py.

use candle_core::{DType, Tensor};
use kandle_format::{Problem, json::Value as Json};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Policy, Primitive, Spec, Value,
    layers::one,
    numeric::{constant, storage},
};

use super::{computed, float_policy};

#[derive(Debug)]
pub(crate) struct Rescaling {
    scale: Option<Number>,
    offset: Option<Number>,
    passes_masks: bool,
}

/// A number or an array of them, in float64 as it stands in the file.
#[derive(Debug)]
struct Number {
    tensor: Tensor,
    /// Whether Keras has it as an array of float64, not as numbers of Python.
    wide: bool,
}

impl Number {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<Self> {
        let value = fields.take(key)?;
        let array = value.get("class_name").and_then(Json::as_str);
        let config = value.get("config");
        let (numbers, wide) = match (array, config.and_then(|config| config.get("value"))) {
            (Some("__numpy__" | "__tensor__"), Some(numbers)) => {
                (numbers, config.and_then(|config| config.get("dtype")).and_then(Json::as_str) == Some("float64"))
            }
            _ => (value, false),
        };
        match constant(numbers, Some("float64")) {
            Ok(Value { tensor, .. }) => Some(Self { tensor, wide }),
            Err(_) => {
                fields.invalid(key, value, "a number or an array of them");
                None
            }
        }
    }

    /// Keras: numbers of Python pass through float32, also where the layer computes in float64.
    fn cast(&self, policy: &Policy) -> candle_core::Result<Tensor> {
        let tensor = if self.wide { self.tensor.clone() } else { self.tensor.to_dtype(DType::F32)? };
        tensor.to_dtype(storage(policy.compute)?)
    }
}

impl KerasLayer for Rescaling {
    fn read(fields: &mut Fields<'_>) -> Self {
        float_policy(fields);
        let (scale, offset) = (Number::read(fields, "scale"), Number::read(fields, "offset"));
        if scale.is_none() {
            fields.wrong("scale is missing");
        }
        // Keras: before version 3 a mask ends here.
        Self { scale, offset, passes_masks: fields.keras_major() >= 3 }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![Spec { dtype: given.policy().compute, ..one(given)?.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        let input = computed(call.input()?, policy)?;
        let mut ys = input.tensor.clone();
        if let Some(scale) = &self.scale {
            ys = ys.broadcast_mul(&scale.cast(policy)?.to_device(ys.device())?)?;
        }
        if let Some(offset) = &self.offset {
            ys = ys.broadcast_add(&offset.cast(policy)?.to_device(ys.device())?)?;
        }
        Ok(vec![input.with_tensor(ys)])
    }

    fn masking(&self) -> Masking {
        if self.passes_masks { Masking::Passes } else { Masking::Drops }
    }

    fn casts_itself(&self) -> bool {
        true
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let number = |number: &Option<Number>| -> candle_core::Result<Option<Tensor>> {
            let cast = number.as_ref().map(|number| number.cast(lowered.given.policy())).transpose()?;
            cast.map(|tensor| if tensor.rank() == 0 { tensor.reshape(1) } else { Ok(tensor) }).transpose()
        };
        let (scale, shift) = (number(&self.scale)?, number(&self.offset)?);
        let plain = scale.iter().chain(&shift).all(|tensor| tensor.rank() == 1);
        Ok(plain.then(|| vec![Primitive::Affine { scale, shift }]))
    }
}
