//! `keras.layers.SimpleRNN` and `SimpleRNNCell`: `h = activation(x · kernel + bias + h' · recurrent_kernel)`, with h' the
//! state of the step before; h is the output and the new state.
//!
//! Shapes: xs `(batch, time, features)`, kernel `(features, units)`, recurrent_kernel `(units, units)`, bias `(units,)`,
//! state `(batch, units)`; result as in [`recurrent`](super::recurrent). With kernel `[[2]]`, recurrent_kernel `[[10]]`,
//! bias `[1]` and no activation, `[[1], [2]]` gives `2·1 + 1 = 3`, then `2·2 + 1 + 10·3 = 35`.
//!
//! Source: keras/src/layers/rnn/simple_rnn.py.

use candle_core::{Result, Tensor};
use kandle_format::Dtype;

use super::cell::{Cell, TRAINING_ONLY, features, functions, product, state, weight};
use crate::{
    Activation, Fields, Function, Layout, Policy, Shape, Value, Weight,
    primitive::{Gates, Recurrent},
};

#[derive(Debug)]
pub(super) struct SimpleRnnCell {
    units: usize,
    use_bias: bool,
    activation: Activation,
}

/// One unit without an activation, the stand-in for a cell that could not be read.
impl Default for SimpleRnnCell {
    fn default() -> Self {
        Self { units: 1, use_bias: false, activation: Activation::Function(Function::Linear) }
    }
}

impl Cell for SimpleRnnCell {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(TRAINING_ONLY);
        Self {
            units: fields.size("units"),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation_or("activation", Function::Tanh),
        }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["sequence", "states"]
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let named = |keras, shape| Weight::new(keras, shape, format!("{keras}{suffix}"), Layout::AsIs);
        let mut weights = vec![
            named("kernel", vec![features(input)?, self.units]),
            named("recurrent_kernel", vec![self.units, self.units]),
        ];
        if self.use_bias {
            weights.push(named("bias", vec![self.units]));
        }
        Ok(weights)
    }

    fn weight_count(&self) -> usize {
        2 + usize::from(self.use_bias)
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        features(input)?;
        Ok(vec![state(input, self.units)])
    }

    fn state_count(&self) -> usize {
        1
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        let ys = product(xs, weight(weights, 0)?, false)?;
        if self.use_bias { ys.broadcast_add(weight(weights, 2)?) } else { Ok(ys) }
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let sum = (projected + product(weight(states, 0)?, weight(weights, 1)?, false)?)?;
        Ok(vec![activated(&self.activation, sum)?])
    }

    fn lowered(&self, weights: &[Tensor]) -> Result<Option<Recurrent>> {
        let Some((activation, _)) = functions(&self.activation, &self.activation) else { return Ok(None) };
        Ok(Some(Recurrent {
            kernel: Some(weight(weights, 0)?.clone()),
            recurrent_kernel: weight(weights, 1)?.clone(),
            bias: if self.use_bias { Some(weight(weights, 2)?.clone()) } else { None },
            ..Recurrent::of(Gates::Simple, activation, activation)?
        }))
    }
}

/// `activation(xs)`, in the dtype of xs: half precision is widened again.
pub(super) fn activated(activation: &Activation, xs: Tensor) -> Result<Tensor> {
    let wide = xs.dtype();
    let dtype = if wide == candle_core::DType::F64 { Dtype::Float64 } else { Dtype::Float32 };
    // What comes in is not rounded before the activation rounds it.
    activation.apply(&Value::new(xs, dtype), &Policy::default())?.tensor.to_dtype(wide)
}
