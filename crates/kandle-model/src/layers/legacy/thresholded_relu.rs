//! `ThresholdedReLU` of Keras 1 and 2: `x` where it is above `theta`, else 0.
//!
//! Shapes: xs of any shape, floats; the result has the same shape. With the default `theta` of 1, `[0.5, 1, 2]` gives
//! `[0, 0, 2]`. Keras: what is not above is multiplied with 0, so NaN and −∞ give NaN.
//!
//! Source: tf_keras/src/layers/activation/thresholded_relu.py.

use kandle_format::Problem;

use super::only_in_old_files;
use crate::{Call, Fields, Given, KerasLayer, Masking, Spec, Value, layers::one_float, numeric::constant_like};

#[derive(Debug)]
pub(super) struct ThresholdedRelu {
    theta: f64,
}

impl KerasLayer for ThresholdedRelu {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        Self { theta: fields.number("theta", 1.0) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one_float(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let xs = &input.tensor;
        let above = xs.gt(&constant_like(xs, self.theta)?)?.to_dtype(xs.dtype())?;
        Ok(vec![input.with_tensor((xs * above)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
