//! `keras.layers.GRU` and `GRUCell`. With `x = input · kernel + bias` in three blocks of units z, r and h, R the same blocks
//! of recurrent_kernel, and h' the state of the step before:
//!
//! `z = recurrent_activation(x_z + h' · R_z)`, `r = recurrent_activation(x_r + h' · R_r)`,
//! `h = z · h' + (1 − z) · activation(x_h + (r · h') · R_h)`; h is the output and the new state.
//!
//! With `reset_after` (the default) the reset gate comes after the product, `r · (h' · R_h)`, and the products of h' have a
//! bias of their own: `h' · R + bias[1]` beside `input · kernel + bias[0]`.
//!
//! Shapes: xs `(batch, time, features)`, kernel `(features, 3·units)`, recurrent_kernel `(units, 3·units)`, bias
//! `(2, 3·units)` with `reset_after`, else `(3·units,)`, state `(batch, units)`; result as in [`recurrent`](super::recurrent).
//! With `reset_after`, tanh and sigmoid these are the weights of `candle_nn::gru`, which has the reset gate first and two
//! biases. With kernels 0 and a bias of 0 but for a large one of the block h, the steps give 0.5, 0.75, 0.875, ….
//!
//! Source: keras/src/layers/rnn/gru.py.

use candle_core::{D, Result, Tensor};

use super::{
    cell::{Cell, TRAINING_ONLY, features, functions, gates, product, state, weight},
    lstm::{is_candles, of_cudnn},
    simple_rnn::activated,
};
use crate::{
    Activation, Fields, Function, Layout, Shape, Weight,
    primitive::{Gates, Recurrent},
};

#[derive(Debug)]
pub(super) struct GruCell {
    units: usize,
    use_bias: bool,
    reset_after: bool,
    activation: Activation,
    recurrent_activation: Activation,
    /// Whether the weights are those of cuDNN.
    cudnn: bool,
}

impl Cell for GruCell {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(TRAINING_ONLY);
        // Keras: files from before there was a choice have the reset gate before the product.
        let reset_after = fields.keras_major() >= 3;
        Self {
            units: fields.size("units"),
            use_bias: fields.flag("use_bias", true),
            reset_after: fields.flag("reset_after", reset_after),
            activation: fields.activation_or("activation", Function::Tanh),
            recurrent_activation: fields.activation_or("recurrent_activation", Function::Sigmoid),
            cudnn: of_cudnn(fields),
        }
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let (features, gates) = (features(input)?, gates(3, self.units)?);
        if self.cudnn {
            let named =
                |keras, shape, candle: &str, layout| Weight::new(keras, shape, format!("{candle}{suffix}"), layout);
            let blocks = Layout::Cudnn { gates: 3 };
            return Ok(vec![
                named("kernel", vec![features, gates], "weight_ih_l0", blocks),
                named("recurrent_kernel", vec![self.units, gates], "weight_hh_l0", blocks),
                named("bias", vec![gates], "bias_ih_l0", Layout::ResetGateFirst).part(0, 2).flat(),
                named("bias", vec![gates], "bias_hh_l0", Layout::ResetGateFirst).part(1, 2).flat(),
            ]);
        }
        let named = |keras, shape, candle: &str| match self.is_candles() {
            true => Weight::new(keras, shape, format!("{candle}{suffix}"), Layout::ResetGateFirst),
            false => Weight::new(keras, shape, format!("{keras}{suffix}"), Layout::AsIs),
        };
        let mut weights = vec![
            named("kernel", vec![features, gates], "weight_ih_l0"),
            named("recurrent_kernel", vec![self.units, gates], "weight_hh_l0"),
        ];
        match (self.use_bias, self.is_candles(), self.reset_after) {
            (false, ..) => {}
            (true, true, _) => weights.extend([
                named("bias", vec![gates], "bias_ih_l0").part(0, 2),
                named("bias", vec![gates], "bias_hh_l0").part(1, 2),
            ]),
            (true, false, true) => weights.push(named("bias", vec![2, gates], "")),
            (true, false, false) => weights.push(named("bias", vec![gates], "")),
        }
        Ok(weights)
    }

    fn weight_count(&self) -> usize {
        2 + usize::from(self.use_bias) + usize::from(self.use_bias && self.is_candles())
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        features(input)?;
        Ok(vec![state(input, self.units)])
    }

    fn state_count(&self) -> usize {
        1
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        self.with_bias(product(xs, weight(weights, 0)?, self.is_candles())?, weights, 0)
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let (state, kernel) = (weight(states, 0)?, weight(weights, 1)?);
        // The reset gate is candle's first block and Keras's second.
        let (reset_block, update_block) = if self.is_candles() { (0, 1) } else { (1, 0) };
        let of = |xs: &Tensor, block: usize| xs.narrow(D::Minus1, block * self.units, self.units);
        let gate =
            |block, inner: &Tensor| activated(&self.recurrent_activation, (of(projected, block)? + of(inner, block)?)?);
        let (inner, recurrent) = if self.reset_after {
            let inner = self.with_bias(product(state, kernel, self.is_candles())?, weights, 1)?;
            let recurrent = (gate(reset_block, &inner)? * of(&inner, 2)?)?;
            (inner, recurrent)
        } else {
            let inner = product(state, &kernel.narrow(1, 0, 2 * self.units)?, false)?;
            let reset = gate(reset_block, &inner)?;
            (inner, product(&(reset * state)?, &of(kernel, 2)?, false)?)
        };
        let update = gate(update_block, &inner)?;
        let candidate = activated(&self.activation, (of(projected, 2)? + recurrent)?)?;
        Ok(vec![((&update * state)? + ((1.0 - &update)? * candidate)?)?])
    }

    fn lowered(&self, weights: &[Tensor]) -> Result<Option<Recurrent>> {
        if self.cudnn {
            return Ok(None);
        }
        let functions = functions(&self.activation, &self.recurrent_activation);
        let Some((activation, recurrent_activation)) = functions else { return Ok(None) };
        // candle has the reset gate first, and units first.
        let as_keras = |tensor: &Tensor| {
            if !self.is_candles() {
                return Ok(tensor.clone());
            }
            let block = |number: usize| tensor.narrow(0, number * self.units, self.units);
            let blocks = Tensor::cat(&[block(1)?, block(0)?, block(2)?], 0)?;
            if blocks.rank() == 2 { blocks.t()?.contiguous() } else { Ok(blocks) }
        };
        let (bias, recurrent_bias) = match (self.use_bias, self.is_candles(), self.reset_after) {
            (false, ..) => (None, None),
            (true, true, _) => (Some(as_keras(weight(weights, 2)?)?), Some(as_keras(weight(weights, 3)?)?)),
            (true, false, true) => (Some(weight(weights, 2)?.get(0)?), Some(weight(weights, 2)?.get(1)?)),
            (true, false, false) => (Some(weight(weights, 2)?.clone()), None),
        };
        Ok(Some(Recurrent {
            kernel: Some(as_keras(weight(weights, 0)?)?),
            recurrent_kernel: as_keras(weight(weights, 1)?)?,
            bias,
            recurrent_bias,
            ..Recurrent::of(Gates::Gru { reset_after: self.reset_after }, activation, recurrent_activation)?
        }))
    }
}

impl GruCell {
    /// Whether candle-nn has this cell, and with it names and a layout for the weights.
    fn is_candles(&self) -> bool {
        self.reset_after && is_candles(&self.activation, &self.recurrent_activation)
    }

    /// `xs` plus the bias of the products of the input (`number` 0) or of the state (1).
    fn with_bias(&self, xs: Tensor, weights: &[Tensor], number: usize) -> Result<Tensor> {
        if !self.use_bias {
            return Ok(xs);
        }
        if self.is_candles() {
            return xs.broadcast_add(weight(weights, 2 + number)?);
        }
        let bias = weight(weights, 2)?;
        xs.broadcast_add(&if self.reset_after { bias.get(number)? } else { bias.clone() })
    }
}
