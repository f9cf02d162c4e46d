//! `keras.layers.Conv1D`, `Conv2D` and `Conv3D`: each window of the input times a kernel, never flipped.
//!
//! `y[i, f] = bias[f] + Σ x[i · stride + tap · dilation − before, c] · kernel[tap, c, f]` over taps and the channels of the
//! filter's group.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; kernel
//! `(spatial…, channels / groups, filters)`, bias `(filters,)`. An axis of `n` cells has `⌊(n − span) / stride⌋ + 1` with
//! `padding = "valid"`, where `span = (kernel_size − 1) · dilation_rate + 1`, else `⌈n / stride⌉`. With kernel
//! `[[[1]], [[10]]]` and no bias, `[[[1], [2], [3]]]` gives `[[[21], [32]]]`.
//!
//! Source: keras/src/layers/convolutional/base_conv.py, conv1d.py.

use kandle_format::{Dtype, Problem};

use super::settings::{Both, Settings, keras_kernel};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Spec, Value, Weight,
    math::{convolution::convolution, einsum::matmul},
    primitive::Convolution,
};

#[derive(Debug)]
pub(crate) struct Conv<const AXES: usize> {
    filters: usize,
    groups: usize,
    /// Rank and factor of LoRA weights.
    lora: Option<(usize, f64)>,
    settings: Settings,
}

impl<const AXES: usize> KerasLayer for Conv<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        let lora = fields.lora();
        let (filters, groups) = (fields.size("filters"), fields.optional_size("groups").unwrap_or(1));
        if !filters.is_multiple_of(groups) {
            fields.wrong(format!("filters: {filters} cannot be split into {groups} groups"));
        }
        Self { filters, groups, lora, settings: Settings::read(fields, AXES, AXES == 1, Both::Refused) }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let channels = self.settings.channels(given)?;
        if !channels.is_multiple_of(self.groups) {
            return Err(format!("{channels} channels cannot be split into {} groups", self.groups));
        }
        let shape = self.settings.kernel_shape(channels / self.groups, self.filters);
        let lora = self.lora.map(|(rank, _)| {
            let of_kernel: Vec<usize> = shape.iter().take(AXES + 1).copied().chain([rank]).collect();
            let (a, b) = (Weight::as_keras("lora_kernel_a", of_kernel), vec![rank, self.filters]);
            [a.of(Dtype::Float32), Weight::as_keras("lora_kernel_b", b).of(Dtype::Float32)]
        });
        let kernel = Weight::new("kernel", shape, "weight", Layout::ConvKernel);
        let kernel = kernel.with_old_axes(self.settings.old_axes(false));
        let mut weights = self.settings.with_bias(vec![kernel], self.filters);
        weights.extend(lora.into_iter().flatten());
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        self.settings.output(given, self.filters)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Settings { strides, padding, dilation_rate, .. } = &self.settings;
        let mut kernel = keras_kernel(call.weight(0)?)?;
        if let (Some((_, factor)), [.., a, b]) = (self.lora, call.weights) {
            kernel = (kernel + (matmul(a, b)? * factor)?)?;
        }
        self.settings.forward(call, 1, |xs| convolution(xs, &kernel, strides, *padding, dilation_rate, self.groups))
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.settings.keeps_float32()
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let mut kernel = keras_kernel(lowered.weight(0)?)?;
        if let (Some((_, factor)), [.., a, b]) = (self.lora, lowered.weights) {
            kernel = (kernel + (matmul(a, b)? * factor)?)?;
        }
        let convolution = |bias, windows, padding| Convolution {
            kernel,
            bias,
            windows,
            padding,
            margins: None,
            groups: self.groups,
            depthwise: false,
        };
        self.settings.lowered(lowered, 1, |bias, windows, padding| {
            vec![Primitive::Convolution(convolution(bias, windows, padding))]
        })
    }
}
