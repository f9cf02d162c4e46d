//! `keras.layers.SeparableConv1D` and `SeparableConv2D`: a depthwise convolution, then a product over the channels.
//!
//! Strides, dilation and padding are those of the depthwise step; there is no bias and no activation in between.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; depthwise kernel
//! `(spatial…, channels, depth_multiplier)`, pointwise kernel `(1…, channels · depth_multiplier, filters)`, bias
//! `(filters,)`; the axes of the result are those of Conv1D. With kernels `[[[1], [10]]]` and `[[[1], [1]]]` and no bias,
//! `[[[1, 2]]]` gives `[[[21]]]`.
//!
//! Source: keras/src/layers/convolutional/base_separable_conv.py.

use kandle_format::{Dtype, Problem};

use super::settings::{Both, ByChannel, Settings, keras_depthwise_kernel, pointwise};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Spec, Value, Weight, math::convolution::depthwise,
};

#[derive(Debug)]
pub(crate) struct SeparableConv<const AXES: usize> {
    filters: usize,
    depth_multiplier: usize,
    settings: Settings,
}

impl<const AXES: usize> KerasLayer for SeparableConv<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "depthwise_initializer",
            "depthwise_regularizer",
            "depthwise_constraint",
            "pointwise_initializer",
            "pointwise_regularizer",
            "pointwise_constraint",
        ]);
        // Keras 2 writes the groups of a convolution for separable ones too.
        fields.only("groups", &1.into());
        Self {
            filters: fields.size("filters"),
            depth_multiplier: fields.optional_size("depth_multiplier").unwrap_or(1),
            settings: Settings::read(fields, AXES, false, Both::Allowed),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let channels = self.settings.channels(given)?;
        let Some(between) = channels.checked_mul(self.depth_multiplier) else {
            return Err(format!("depth_multiplier {} of {channels} channels is too large", self.depth_multiplier));
        };
        let depthwise = self.settings.kernel_shape(channels, self.depth_multiplier);
        let pointwise = [vec![1; AXES], vec![between, self.filters]].concat();
        let layout = Layout::DepthwiseKernel { multiplier: self.depth_multiplier };
        let kernels = vec![
            Weight::new("depthwise_kernel", depthwise, "depthwise.weight", layout),
            Weight::new("pointwise_kernel", pointwise, "pointwise.weight", Layout::ConvKernel),
        ];
        Ok(self.settings.with_bias(kernels, self.filters))
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        self.settings.output(given, self.filters)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Settings { strides, padding, dilation_rate, .. } = &self.settings;
        let kernel = keras_depthwise_kernel(call.weight(0)?, self.depth_multiplier)?;
        let filters = call.weight(1)?;
        self.settings
            .forward(call, 2, |xs| pointwise(&depthwise(xs, &kernel, strides, *padding, dilation_rate)?, filters))
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.settings.keeps_float32()
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let by_channel = ByChannel::new(lowered.weight(0)?, self.depth_multiplier)?;
        let pointwise = lowered.weight(1)?;
        let pointwise = pointwise.reshape((pointwise.dim(0)?, pointwise.dim(1)?))?.t()?.contiguous()?;
        self.settings.lowered(lowered, 2, |bias, windows, padding| {
            let mut chain = by_channel.chain(None, windows, padding);
            chain.push(Primitive::Product { kernel: pointwise, bias });
            chain
        })
    }
}
