//! `keras.layers.ReLU`: `max(x, 0)`, optionally with a ceiling, a slope below and a threshold.
//!
//! With `t = threshold`, `s = negative_slope`, `m = max_value`: `min(x, m)` where `x > t`, else 0, less `s · max(t − x, 0)`.
//! Shapes: xs of any shape, float32; the result has the same shape. With t = 1, s = 0.1, m = 6: `[0.5, 1, 2]` gives
//! `[-0.05, 0, 2]`.
//!
//! Source: keras/src/layers/activations/relu.py, keras/src/activations/activations.py (`ReLU.static_call`).

use candle_core::Tensor;
use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Masking, Spec, Value,
    activation::{clip, leaky_relu, relu},
    layers::one_float,
};

#[derive(Debug)]
pub(crate) struct Relu {
    max_value: Option<f64>,
    negative_slope: f64,
    threshold: f64,
}

impl KerasLayer for Relu {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let max_value = fields.not_negative("max_value", f64::INFINITY);
        Self {
            max_value: (max_value < f64::INFINITY).then_some(max_value),
            negative_slope: fields.not_negative("negative_slope", 0.0),
            threshold: fields.not_negative("threshold", 0.0),
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one_float(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        Ok(vec![input.with_tensor(self.apply(&input.tensor)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}

impl Relu {
    /// The function of these parameters.
    pub(crate) fn new(max_value: Option<f64>, negative_slope: f64, threshold: f64) -> Self {
        Self { max_value, negative_slope, threshold }
    }

    /// The operations in Keras's own order, so that the rounding is Keras's too.
    pub(crate) fn apply(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let Self { max_value, negative_slope: slope, threshold } = *self;
        if slope != 0.0 && max_value.is_none() && threshold == 0.0 {
            return leaky_relu(xs, slope);
        }
        // Keras: with a threshold, NaN is not above it and becomes 0; without one, NaN stays NaN.
        let mut ys = if threshold == 0.0 { relu(xs)? } else { xs.gt(threshold)?.where_cond(xs, &xs.zeros_like()?)? };
        if let Some(max_value) = max_value {
            ys = clip(&ys, 0.0, max_value)?;
        }
        if slope == 0.0 {
            return Ok(ys);
        }
        ys - (relu(&(xs.neg()? + threshold)?)? * slope)?
    }
}
