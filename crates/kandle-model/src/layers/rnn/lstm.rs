//! `keras.layers.LSTM` and `LSTMCell`. With `z = x · kernel + h' · recurrent_kernel + bias` in four blocks of units i, f, c
//! and o, and h' and c' the states of the step before:
//!
//! `c = recurrent_activation(z_f) · c' + recurrent_activation(z_i) · activation(z_c)`,
//! `h = recurrent_activation(z_o) · activation(c)`; h is the output, h and c are the new states.
//!
//! Shapes: xs `(batch, time, features)`, kernel `(features, 4·units)`, recurrent_kernel `(units, 4·units)`, bias
//! `(4·units,)`, states `(batch, units)`; result as in [`recurrent`](super::recurrent). With tanh and sigmoid these are the
//! weights of `candle_nn::lstm`, whose gates have the same order, without its second bias. With kernels 0 and a bias of 0
//! but for a large one of the block c, the first step gives `c = 0.5·0 + 0.5·1 = 0.5` and `h = 0.5·tanh 0.5 = 0.231`.
//!
//! Source: keras/src/layers/rnn/lstm.py.

use candle_core::{D, Result, Tensor};

use super::{
    cell::{Cell, TRAINING_ONLY, features, functions, gates, product, state, weight},
    simple_rnn::activated,
};
use crate::{
    Activation, Fields, Function, Layout, Shape, Weight, dialect,
    primitive::{Gates, Recurrent},
};

#[derive(Debug)]
pub(super) struct LstmCell {
    units: usize,
    use_bias: bool,
    activation: Activation,
    recurrent_activation: Activation,
    /// Whether the weights are those of cuDNN, with two biases.
    cudnn: bool,
}

impl Cell for LstmCell {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(TRAINING_ONLY);
        // Keras: the forget gate's bias starts at 1; what it became is in the file.
        fields.training_only(&["unit_forget_bias"]);
        Self {
            units: fields.size("units"),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation_or("activation", Function::Tanh),
            recurrent_activation: fields.activation_or("recurrent_activation", Function::Sigmoid),
            cudnn: of_cudnn(fields),
        }
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let (features, gates) = (features(input)?, gates(4, self.units)?);
        if self.cudnn {
            let named =
                |keras, shape, candle: &str, layout| Weight::new(keras, shape, format!("{candle}{suffix}"), layout);
            let blocks = Layout::Cudnn { gates: 4 };
            return Ok(vec![
                named("kernel", vec![features, gates], "weight_ih_l0", blocks),
                named("recurrent_kernel", vec![self.units, gates], "weight_hh_l0", blocks),
                named("bias", vec![gates], "bias_ih_l0", Layout::AsIs).part(0, 2).flat(),
                named("bias", vec![gates], "bias_hh_l0", Layout::AsIs).part(1, 2).flat(),
            ]);
        }
        let named = |keras, shape, candle: &str, layout| match self.is_candles() {
            true => Weight::new(keras, shape, format!("{candle}{suffix}"), layout),
            false => Weight::new(keras, shape, format!("{keras}{suffix}"), Layout::AsIs),
        };
        let mut weights = vec![
            named("kernel", vec![features, gates], "weight_ih_l0", Layout::Transposed),
            named("recurrent_kernel", vec![self.units, gates], "weight_hh_l0", Layout::Transposed),
        ];
        if self.use_bias {
            weights.push(named("bias", vec![gates], "bias_ih_l0", Layout::AsIs));
        }
        Ok(weights)
    }

    fn weight_count(&self) -> usize {
        2 + usize::from(self.use_bias) + usize::from(self.cudnn)
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        features(input)?;
        Ok(vec![state(input, self.units); 2])
    }

    fn state_count(&self) -> usize {
        2
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        let zs = product(xs, weight(weights, 0)?, self.is_candles())?;
        let zs = if self.use_bias { zs.broadcast_add(weight(weights, 2)?)? } else { zs };
        if self.cudnn { zs.broadcast_add(weight(weights, 3)?) } else { Ok(zs) }
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let zs = (projected + product(weight(states, 0)?, weight(weights, 1)?, self.is_candles())?)?;
        let gate = |number: usize| zs.narrow(D::Minus1, number * self.units, self.units);
        let open = |number: usize| activated(&self.recurrent_activation, gate(number)?);
        let candidate = activated(&self.activation, gate(2)?)?;
        let carry = ((open(1)? * weight(states, 1)?)? + (open(0)? * candidate)?)?;
        let output = (open(3)? * activated(&self.activation, carry.clone())?)?;
        Ok(vec![output, carry])
    }

    fn lowered(&self, weights: &[Tensor]) -> Result<Option<Recurrent>> {
        if self.cudnn {
            return Ok(None);
        }
        let functions = functions(&self.activation, &self.recurrent_activation);
        let Some((activation, recurrent_activation)) = functions else { return Ok(None) };
        let as_keras = |kernel: &Tensor| if self.is_candles() { kernel.t()?.contiguous() } else { Ok(kernel.clone()) };
        Ok(Some(Recurrent {
            kernel: Some(as_keras(weight(weights, 0)?)?),
            recurrent_kernel: as_keras(weight(weights, 1)?)?,
            bias: if self.use_bias { Some(weight(weights, 2)?.clone()) } else { None },
            ..Recurrent::of(Gates::Lstm, activation, recurrent_activation)?
        }))
    }
}

impl LstmCell {
    /// Whether candle-nn has this cell, and with it names and a layout for the weights.
    fn is_candles(&self) -> bool {
        is_candles(&self.activation, &self.recurrent_activation)
    }
}

/// Whether a layer of Keras 2 was one of cuDNN, which stores its weights otherwise.
pub(super) fn of_cudnn(fields: &mut Fields<'_>) -> bool {
    dialect::is_legacy(fields.keras_major()) && fields.flag("cudnn", false)
}

/// Whether these are the activations of candle-nn's cells.
pub(super) fn is_candles(activation: &Activation, recurrent_activation: &Activation) -> bool {
    matches!(activation, Activation::Function(Function::Tanh))
        && matches!(recurrent_activation, Activation::Function(Function::Sigmoid))
}
