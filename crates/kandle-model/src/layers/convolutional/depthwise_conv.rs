//! `keras.layers.DepthwiseConv1D` and `DepthwiseConv2D`: each channel is convolved with filters of its own.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; kernel
//! `(spatial…, channels, depth_multiplier)`, bias `(channels · depth_multiplier,)`; the axes of the result are those of
//! Conv1D. Filter `m` of channel `c` gives channel `c · depth_multiplier + m`. With kernel `[[[1], [10]]]` and no bias,
//! `[[[1, 2]]]` gives `[[[1, 20]]]`.
//!
//! Source: keras/src/layers/convolutional/base_depthwise_conv.py.

use kandle_format::{Dtype, Problem};

use super::settings::{Both, ByChannel, Settings, keras_depthwise_kernel};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Spec, Value, Weight, layers::cannot,
    math::convolution::depthwise,
};

#[derive(Debug)]
pub(crate) struct DepthwiseConv<const AXES: usize> {
    depth_multiplier: usize,
    settings: Settings,
}

impl<const AXES: usize> KerasLayer for DepthwiseConv<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["depthwise_initializer", "depthwise_regularizer", "depthwise_constraint"]);
        // Keras 2 writes the groups of a convolution for depthwise ones too.
        fields.only("groups", &1.into());
        Self {
            depth_multiplier: fields.optional_size("depth_multiplier").unwrap_or(1),
            settings: Settings::read(fields, AXES, false, Both::Allowed),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let channels = self.settings.channels(given)?;
        let shape = self.settings.kernel_shape(channels, self.depth_multiplier);
        let layout = Layout::DepthwiseKernel { multiplier: self.depth_multiplier };
        let kernel = Weight::new("kernel", shape, "weight", layout);
        Ok(self.settings.with_bias(vec![kernel], self.filters(channels)?))
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let channels = self.settings.channels(given).map_err(cannot)?;
        self.settings.output(given, self.filters(channels).map_err(cannot)?)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Settings { strides, padding, dilation_rate, .. } = &self.settings;
        let kernel = keras_depthwise_kernel(call.weight(0)?, self.depth_multiplier)?;
        self.settings.forward(call, 1, |xs| depthwise(xs, &kernel, strides, *padding, dilation_rate))
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.settings.keeps_float32()
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let convolution = ByChannel::new(lowered.weight(0)?, self.depth_multiplier)?;
        self.settings.lowered(lowered, 1, |bias, windows, padding| convolution.chain(bias, windows, padding))
    }
}

impl<const AXES: usize> DepthwiseConv<AXES> {
    fn filters(&self, channels: usize) -> Result<usize, String> {
        let filters = channels.checked_mul(self.depth_multiplier);
        filters.ok_or_else(|| format!("depth_multiplier {} of {channels} channels is too large", self.depth_multiplier))
    }
}
