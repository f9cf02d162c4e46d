//! `keras.layers.AdaptiveMaxPooling1D` to `3D` and `AdaptiveAveragePooling1D` to `3D`: as many windows as the output has
//! cells, spread evenly.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`, floats; integers too
//! for the largest. Window `i` of `o` over `n` cells is `⌊i · n / o⌋ .. ⌈(i + 1) · n / o⌉`, and the axis has `o` cells in the
//! result. With `output_size = 2`, `[[[1], [2], [6]]]` has the means `[[[1.5], [4]]]`.
//!
//! Source: keras/src/layers/pooling/base_adaptive_pooling.py, keras/src/backend/tensorflow/nn.py.

use candle_core::bail;
use kandle_format::Problem;

use super::{Image, bounded, pooled_spec};
use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::{
        cannot,
        spatial::{from_channels_last, to_channels_last},
    },
    math::pooling::{adaptive_average, adaptive_max},
};

/// Adaptive pooling over `AXES` spatial axes, of the largest number (`MAX`) or the mean.
#[derive(Debug)]
pub(crate) struct AdaptivePooling<const AXES: usize, const MAX: bool> {
    output_size: Vec<usize>,
    channels_first: bool,
}

impl<const AXES: usize, const MAX: bool> KerasLayer for AdaptivePooling<AXES, MAX> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        if fields.take("output_size").is_none() {
            fields.wrong("output_size is missing");
        }
        Self { output_size: fields.sizes("output_size", AXES, 1), channels_first: fields.channels_first() }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = pooled_spec::<MAX>(given)?;
        let image = Image::of(input, AXES, self.channels_first)?;
        if image.spatial.contains(&Some(0)) {
            return Err(cannot(format!("an axis without cells cannot be pooled: {}", input.shape)));
        }
        let spatial = self.output_size.iter().copied().map(Some).collect();
        Ok(vec![input.with_shape(Image { spatial, ..image }.shape(self.channels_first))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        if input.tensor.rank() != AXES + 2 {
            bail!("expected an input of rank {}, found {:?}", AXES + 2, input.tensor.dims());
        }
        let xs = to_channels_last(&input.tensor, self.channels_first)?;
        let ys = if MAX {
            bounded(&adaptive_max(&xs, &self.output_size)?, call.given.policy())?
        } else {
            adaptive_average(&xs, &self.output_size)?
        };
        Ok(vec![input.with_tensor(from_channels_last(&ys, self.channels_first)?)])
    }
}
