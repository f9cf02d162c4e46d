//! `keras.layers.ConvLSTM1D`, `ConvLSTM2D` and `ConvLSTM3D`: an [LSTM](super::lstm) whose products are convolutions.
//!
//! With `z = conv(x, kernel) + conv(h', recurrent_kernel) + bias` in four blocks of filters i, f, c and o, states and output
//! are those of an LSTM. The first convolution has the layer's strides, padding and dilation; the second keeps the size
//! (stride 1, `same`, no dilation).
//!
//! Shapes: xs `(batch, time, spatial…, channels)`, or `(batch, time, channels, spatial…)` with `channels_first`; kernel
//! `(window…, channels, 4·filters)`, recurrent_kernel `(window…, filters, 4·filters)`, bias `(4·filters,)`; states as the
//! output of the first convolution, `filters` channels; result as in [`recurrent`](super::recurrent). With kernels 0 and a
//! bias of 0 but for a large one of the block c, every cell is `0.5·tanh 0.5 = 0.231` after the first step.
//!
//! Source: keras/src/layers/rnn/conv_lstm.py.

use candle_core::{D, Result, Tensor};

use super::{
    cell::{Cell, TRAINING_ONLY, gates, weight},
    simple_rnn::activated,
};
use crate::{
    Activation, Fields, Function, Layout, Shape, Weight,
    math::{
        convolution::convolution,
        window::{Padding, Window, lengths},
    },
};

/// The cell over `RANK` spatial axes.
#[derive(Debug)]
pub(super) struct ConvLstmCell<const RANK: usize> {
    filters: usize,
    window: Vec<usize>,
    strides: Vec<usize>,
    dilation: Vec<usize>,
    padding: Padding,
    channels_first: bool,
    use_bias: bool,
    activation: Activation,
    recurrent_activation: Activation,
}

impl<const RANK: usize> Cell for ConvLstmCell<RANK> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(TRAINING_ONLY);
        // Keras: the forget gate's bias starts at 1; what it became is in the file.
        fields.training_only(&["unit_forget_bias"]);
        let window = fields.optional_sizes("kernel_size", RANK);
        if window.is_none() && !fields.holds("kernel_size") {
            fields.wrong("kernel_size is missing");
        }
        let (strides, dilation) = (fields.sizes("strides", RANK, 1), fields.sizes("dilation_rate", RANK, 1));
        if strides.iter().any(|stride| *stride > 1) && dilation.iter().any(|rate| *rate > 1) {
            fields.wrong(format!("expected strides or dilation_rate of 1, found {strides:?} and {dilation:?}"));
        }
        let paddings = [("valid", Padding::Valid), ("same", Padding::Same)];
        Self {
            filters: fields.size("filters"),
            window: window.unwrap_or_else(|| vec![1; RANK]),
            strides,
            dilation,
            padding: fields.choice("padding", &paddings).unwrap_or(Padding::Valid),
            channels_first: fields.channels_first(),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation_or("activation", Function::Tanh),
            recurrent_activation: fields.activation_or("recurrent_activation", Function::Sigmoid),
        }
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let (_, channels) = self.axes(input)?;
        let channels = channels.ok_or("the number of its input's channels is not known")?;
        let gates = gates(4, self.filters)?;
        let named = |keras, shape| Weight::new(keras, shape, format!("{keras}{suffix}"), Layout::AsIs);
        let kernel = |inner| [self.window.as_slice(), &[inner, gates]].concat();
        let mut weights = vec![named("kernel", kernel(channels)), named("recurrent_kernel", kernel(self.filters))];
        if self.use_bias {
            weights.push(named("bias", vec![gates]));
        }
        Ok(weights)
    }

    fn weight_count(&self) -> usize {
        2 + usize::from(self.use_bias)
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        let (spatial, _) = self.axes(input)?;
        if spatial.contains(&None) {
            // Keras: the zero states are made when the layer is built.
            return Err(format!("expected known spatial sizes, found {input} at each step"));
        }
        let windows = Window::all(&self.window, &self.strides, &self.dilation)?;
        let spatial = lengths(&spatial, &windows, self.padding)?;
        let (batch, filters) = ([input.0.first().copied().flatten()], [Some(self.filters)]);
        let axes = match self.channels_first {
            true => [&batch, &filters, spatial.as_slice()].concat(),
            false => [&batch, spatial.as_slice(), &filters].concat(),
        };
        Ok(vec![Shape(axes); 2])
    }

    fn state_count(&self) -> usize {
        2
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        let kernel = weight(weights, 0)?;
        let zs = convolution(&self.channels_last(xs)?, kernel, &self.strides, self.padding, &self.dilation, 1)?;
        if self.use_bias { zs.broadcast_add(weight(weights, 2)?) } else { Ok(zs) }
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        let (state, carry) = (self.channels_last(weight(states, 0)?)?, weight(states, 1)?);
        let ones = vec![1; RANK];
        let zs = (projected + convolution(&state, weight(weights, 1)?, &ones, Padding::Same, &ones, 1)?)?;
        // Activations work on tensors in the layer's own order of axes.
        let gate = |number: usize| self.back(&zs.narrow(D::Minus1, number * self.filters, self.filters)?);
        let open = |number: usize| activated(&self.recurrent_activation, gate(number)?);
        let candidate = activated(&self.activation, gate(2)?)?;
        let carry = ((open(1)? * carry)? + (open(0)? * candidate)?)?;
        let output = (open(3)? * activated(&self.activation, carry.clone())?)?;
        Ok(vec![output, carry])
    }
}

impl<const RANK: usize> ConvLstmCell<RANK> {
    /// The spatial axes of one step's input, and its channels.
    fn axes(&self, input: &Shape) -> std::result::Result<(Vec<Option<usize>>, Option<usize>), String> {
        let (channels, spatial) = match (self.channels_first, input.0.as_slice()) {
            (true, [_, channels, spatial @ ..]) => (*channels, spatial),
            (false, [_, spatial @ .., channels]) => (*channels, spatial),
            _ => (None, [].as_slice()),
        };
        if spatial.len() != RANK {
            return Err(format!("expected {RANK} spatial axes at each step, found {input}"));
        }
        Ok((spatial.to_vec(), channels))
    }

    /// A tensor in the layer's order of axes, with its channels last.
    fn channels_last(&self, xs: &Tensor) -> Result<Tensor> {
        if !self.channels_first {
            return Ok(xs.clone());
        }
        let order: Vec<usize> = std::iter::once(0).chain(2..xs.rank()).chain([1]).collect();
        xs.permute(order)?.contiguous()
    }

    /// A tensor with its channels last, in the layer's order of axes.
    fn back(&self, xs: &Tensor) -> Result<Tensor> {
        if !self.channels_first {
            return Ok(xs.clone());
        }
        let last = xs.rank().saturating_sub(1);
        let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
        xs.permute(order)?.contiguous()
    }
}
