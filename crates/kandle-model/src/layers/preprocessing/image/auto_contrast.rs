//! `keras.layers.AutoContrast`: each channel of each image stretched over the value range.
//!
//! Shapes: any images; the two axes after the batch axis are those of a channel, in every data format. With value range
//! `[0, 255]`, a channel of 10, 20 and 30 becomes 0, 127.5 and 255; one of a single value stays as it is.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/auto_contrast.py.

use candle_core::{Device, Tensor};
use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Policy, Spec, Value, numeric::constant_like};

use super::{Common, Takes, cast_to_compute, float_policy};

/// The range that Keras stretches in.
const FULL: [f64; 2] = [0.0, 255.0];

#[derive(Debug)]
pub(in super::super) struct AutoContrast {
    common: Common,
    range: [f64; 2],
}

impl KerasLayer for AutoContrast {
    fn read(fields: &mut Fields<'_>) -> Self {
        float_policy(fields);
        let [low, high] = super::clahe::value_range(fields);
        Self { common: Common::read(fields, Takes::ALL), range: [low.min(high), low.max(high)] }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let compute = given.policy().compute;
        self.common.output(given, |input| Ok(Spec { dtype: compute, ..input.clone() }), |input| Ok(input.clone()))
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        self.common.forward(call, |input| self.stretched(input, policy), |input| Ok(input.clone()))
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl AutoContrast {
    fn stretched(&self, input: &Value, policy: &Policy) -> candle_core::Result<Value> {
        let original = cast_to_compute(input, policy)?;
        let rank = original.tensor.rank();
        let xs = if rank == 3 { original.tensor.unsqueeze(0)? } else { original.tensor.clone() };
        let ys = moved(&xs, self.range, FULL)?;
        let per_channel = |xs: &Tensor, smallest: bool| {
            let reduce = |xs: &Tensor, axis| if smallest { xs.min_keepdim(axis) } else { xs.max_keepdim(axis) };
            reduce(&reduce(xs, 1)?, 2)
        };
        let (low, high) = (per_channel(&ys, true)?, per_channel(&ys, false)?);
        let scale = constant_like(&low, 255.0)?.div(&(high - &low)?)?;
        let offset = (low.neg()? * &scale)?;
        let ys = ys.broadcast_mul(&scale)?.broadcast_add(&offset)?;
        let (least, most) = (constant_like(&ys, 0.0)?, constant_like(&ys, 255.0)?);
        let ys = ys.lt(&least)?.where_cond(&least, &ys)?;
        let ys = ys.gt(&most)?.where_cond(&most, &ys)?;
        let ys = moved(&ys, FULL, self.range)?;
        // Keras: a channel of one value, and one with NaN, is left as it was.
        let has_nan = xs.ne(&xs)?.to_dtype(xs.dtype())?;
        let has_nan = per_channel(&has_nan, false)?.broadcast_as(ys.shape())?;
        let left = (ys.ne(&ys)? + has_nan.ne(&has_nan.zeros_like()?)?)?;
        let ys = left.where_cond(&xs, &ys)?;
        Ok(original.with_tensor(if rank == 3 { ys.squeeze(0)? } else { ys }))
    }
}

/// Numbers of the range `from` in the range `to`, computed in their own dtype.
fn moved(xs: &Tensor, from: [f64; 2], to: [f64; 2]) -> candle_core::Result<Tensor> {
    if from == to {
        return Ok(xs.clone());
    }
    let number = |number: f64| Tensor::new(number, &Device::Cpu)?.to_dtype(xs.dtype())?.to_device(xs.device());
    let [from_low, from_high] = [number(from[0])?, number(from[1])?];
    let [to_low, to_high] = [number(to[0])?, number(to[1])?];
    let unit = xs.broadcast_sub(&from_low)?.broadcast_div(&(from_high - &from_low)?)?;
    unit.broadcast_mul(&(to_high - &to_low)?)?.broadcast_add(&to_low)
}
