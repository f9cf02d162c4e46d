//! `keras.layers.ReLU`: `max(x, 0)`, optionally with a ceiling, a slope below and a threshold.
//!
//! With `t = threshold`, `s = negative_slope`, `m = max_value`: `min(x, m)` where `x > t`, else 0, less `s · max(t − x, 0)`.
//! Shapes: xs of any shape, floats or integers; the result has the same shape. With t = 1, s = 0.1, m = 6: `[0.5, 1, 2]` gives
//! `[-0.05, 0, 2]`.
//!
//! Source: keras/src/layers/activations/relu.py, keras/src/activations/activations.py (`ReLU.static_call`).

use candle_core::Tensor;
use kandle_format::{Dtype, Problem};

use super::leaky_relu::refuse_steep;
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value,
    activation::{clip, leaky_relu, relu, relu_of_integers},
    layers::{cannot, one, one_float},
    numeric::cast,
    primitive::Curve,
};

#[derive(Debug)]
pub(crate) struct Relu {
    max_value: Option<f64>,
    negative_slope: f64,
    threshold: f64,
    passes_masks: bool,
}

impl KerasLayer for Relu {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let max_value = fields.not_negative("max_value", f64::INFINITY);
        let negative_slope = fields.not_negative("negative_slope", 0.0);
        refuse_steep(fields, negative_slope);
        Self {
            max_value: (max_value < f64::INFINITY).then_some(max_value),
            negative_slope,
            threshold: fields.not_negative("threshold", 0.0),
            // Keras: in TensorFlow up to 2.4 a mask ends here.
            passes_masks: fields.is_older_than_tensorflows() || fields.is_from([2, 5, 0]),
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if !input.dtype.is_integer() {
            return Ok(vec![one_float(given)?.clone()]);
        }
        match (self.is_leaky(), self.negative_slope == 0.0) {
            (true, _) => Ok(vec![Spec { dtype: Dtype::Float32, ..input.clone() }]),
            (false, true) => Ok(vec![input.clone()]),
            (false, false) => Err(cannot("negative_slope together with max_value or threshold takes floats only")),
        }
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let mut input = call.input()?.clone();
        if input.dtype.is_integer() {
            if !self.is_leaky() {
                let most = self.max_value.unwrap_or(f64::INFINITY);
                return Ok(vec![relu_of_integers(&input, self.threshold, most)?]);
            }
            // Keras: as LeakyReLU, whatever the policy.
            input = cast(&input, Dtype::Float32)?;
        }
        Ok(vec![input.with_tensor(self.apply(&input.tensor)?)])
    }

    fn keeps_float32(&self, inputs: &[Dtype]) -> bool {
        inputs.first().is_some_and(|dtype| dtype.is_integer())
    }

    fn masking(&self) -> Masking {
        if self.passes_masks { Masking::Passes } else { Masking::Drops }
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let most = self.max_value.unwrap_or(f64::INFINITY) as f32;
        let curve = match (self.threshold == 0.0, self.negative_slope == 0.0) {
            (true, true) => Curve::Relu { most },
            _ if self.is_leaky() => Curve::LeakyRelu { slope: self.negative_slope as f32 },
            _ => return Ok(None),
        };
        Ok(Some(vec![Primitive::Map(curve)]))
    }
}

impl Relu {
    /// The function of these parameters.
    pub(crate) fn new(max_value: Option<f64>, negative_slope: f64, threshold: f64) -> Self {
        Self { max_value, negative_slope, threshold, passes_masks: true }
    }

    /// Whether there is a slope, and nothing else.
    fn is_leaky(&self) -> bool {
        self.negative_slope != 0.0 && self.max_value.is_none() && self.threshold == 0.0
    }

    /// The operations in Keras's own order, so that the rounding is Keras's too.
    pub(crate) fn apply(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let Self { max_value, negative_slope: slope, threshold, .. } = *self;
        if self.is_leaky() {
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
