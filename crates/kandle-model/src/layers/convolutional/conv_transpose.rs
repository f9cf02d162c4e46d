//! `keras.layers.Conv1DTranspose`, `Conv2DTranspose` and `Conv3DTranspose`: each cell of the input, times a kernel, is
//! added to a window of the output.
//!
//! `full[i · stride + tap · dilation, f] += x[i, c] · kernel[tap, f, c]`, of which the output is a part; see
//! [`transposed`](crate::math::convolution::transposed).
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; kernel
//! `(spatial…, filters, channels)`, bias `(filters,)`. An axis of `n` cells has `n · stride` with `padding = "same"`, and
//! `(n − 1) · stride + max(span, stride)` with `"valid"`, where `span = (kernel_size − 1) · dilation_rate + 1`; with
//! `output_padding`, `(n − 1) · stride + output_padding` and `span mod 2` or `span` more. With kernel `[[[1]], [[10]]]`,
//! `strides = 2` and no bias, `[[[1], [2]]]` gives `[[[1], [10], [2], [20]]]`.
//!
//! Source: keras/src/layers/convolutional/base_conv_transpose.py.

use kandle_format::{Dtype, ErrorKind, Problem};

use super::settings::{Both, Settings, keras_kernel};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Shape, Spec, Value, Weight,
    math::convolution::{transposed, transposed_lengths},
    plan::shape,
    primitive::Transposed,
};

#[derive(Debug)]
pub(crate) struct ConvTranspose<const AXES: usize> {
    filters: usize,
    /// How many cells longer than the shortest the output is; `None` where Keras takes the longest.
    output_padding: Option<Vec<usize>>,
    /// The output's axes where the file says them, but for the batch.
    output_shape: Option<Vec<Option<usize>>>,
    settings: Settings,
}

impl<const AXES: usize> KerasLayer for ConvTranspose<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        // Keras 2 writes the groups of a convolution for transposed ones too.
        fields.only("groups", &1.into());
        let settings = Settings::read(fields, AXES, false, Both::Refused);
        let output_padding = fields.integers("output_padding").map(|given| {
            let given = if given.len() == 1 { given.repeat(AXES) } else { given };
            let less = |(cells, stride): (&i64, &usize)| usize::try_from(*cells).ok().filter(|cells| cells < stride);
            let sizes: Option<Vec<usize>> = given.iter().zip(&settings.strides).map(less).collect();
            sizes.filter(|_| given.len() == AXES).unwrap_or_else(|| {
                let strides = &settings.strides;
                fields.wrong(format!(
                    "output_padding {given:?} is not at least 0 and less than strides {strides:?} on each axis"
                ));
                vec![0; AXES]
            })
        });
        let output_shape = if fields.keras_major() < 2 { fields.take("output_shape").and_then(shape) } else { None };
        let output_shape = output_shape.map(|Shape(axes)| axes.into_iter().skip(1).collect());
        Self { filters: fields.size("filters"), output_padding, output_shape, settings }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let shape = self.settings.kernel_shape(self.filters, self.settings.channels(given)?);
        let kernel = Weight::new("kernel", shape, "weight", Layout::ConvKernel);
        let kernel = kernel.with_old_axes(self.settings.old_axes(true));
        Ok(self.settings.with_bias(vec![kernel], self.filters))
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let (windows, extra) = (self.settings.windows()?, self.output_padding.as_deref());
        let lengths = |spatial: &[Option<usize>]| transposed_lengths(spatial, &windows, self.settings.padding, extra);
        let outputs = self.settings.output_of(given, self.filters, lengths)?;
        // Keras: version 1 had to be told the shape of the output, of which there are several that fit.
        let differs = |output: &Spec, told: &[Option<usize>]| {
            output.shape.0.iter().skip(1).zip(told).any(|(axis, told)| told.is_some() && axis != told)
        };
        if let (Some(told), [output]) = (&self.output_shape, outputs.as_slice())
            && differs(output, told)
        {
            let what = format!("output_shape is not supported where it is not {} without the batch", output.shape);
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        Ok(outputs)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Settings { strides, padding, dilation_rate, .. } = &self.settings;
        let (kernel, extra) = (keras_kernel(call.weight(0)?)?, self.output_padding.as_deref());
        self.settings.forward(call, 1, |xs| transposed(xs, &kernel, strides, *padding, extra, dilation_rate))
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.settings.keeps_float32()
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let kernel = keras_kernel(lowered.weight(0)?)?.flatten_to(AXES)?.t()?.contiguous()?;
        let output_padding = self.output_padding.clone();
        self.settings.lowered(lowered, 1, |bias, windows, padding| {
            vec![Primitive::Transposed(Transposed { kernel, bias, windows, padding, output_padding })]
        })
    }
}
