//! `keras.layers.MaxPooling1D` to `3D` and `AveragePooling1D` to `3D`: the largest number, or the mean, of each window.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`, floats; integers too
//! for the largest. An axis of `n` cells has `⌊(n − pool_size) / strides⌋ + 1` with `padding = "valid"` and
//! `⌈n / strides⌉` with `"same"`, where windows reach beyond the axis and see only what is in it. With `pool_size = 2`,
//! `padding = "same"`, `[[[1], [2], [5]]]` has the means `[[[1.5], [5]]]`.
//!
//! Source: keras/src/layers/pooling/base_pooling.py.

use candle_core::bail;
use kandle_format::Problem;

use super::{Image, bounded, pooled_spec};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Spec, Value,
    layers::{
        cannot,
        spatial::{from_channels_last, to_channels_last},
    },
    math::{
        pooling::{average, max},
        window::{Padding, Window, lengths},
    },
};

/// Pooling over `AXES` spatial axes, of the largest number (`MAX`) or the mean.
#[derive(Debug)]
pub(crate) struct Pooling<const AXES: usize, const MAX: bool> {
    pool_size: Vec<usize>,
    strides: Vec<usize>,
    padding: Padding,
    channels_first: bool,
}

impl<const AXES: usize, const MAX: bool> KerasLayer for Pooling<AXES, MAX> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let pool_size = fields.sizes("pool_size", AXES, 2);
        let paddings = [("valid", Padding::Valid), ("same", Padding::Same)];
        Self {
            strides: fields.optional_sizes("strides", AXES).unwrap_or_else(|| pool_size.clone()),
            pool_size,
            padding: fields.choice("padding", &paddings).unwrap_or(Padding::Valid),
            channels_first: fields.channels_first(),
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = pooled_spec::<MAX>(given)?;
        let image = Image::of(input, AXES, self.channels_first)?;
        let windows = Window::all(&self.pool_size, &self.strides, &[1; AXES]).map_err(cannot)?;
        let spatial = lengths(&image.spatial, &windows, self.padding).map_err(cannot)?;
        Ok(vec![input.with_shape(Image { spatial, ..image }.shape(self.channels_first))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        if input.tensor.rank() != AXES + 2 {
            bail!("expected an input of rank {}, found {:?}", AXES + 2, input.tensor.dims());
        }
        let xs = to_channels_last(&input.tensor, self.channels_first)?;
        let ys = if MAX {
            bounded(&max(&xs, &self.pool_size, &self.strides, self.padding)?, call.given.policy())?
        } else {
            average(&xs, &self.pool_size, &self.strides, self.padding)?
        };
        Ok(vec![input.with_tensor(from_channels_last(&ys, self.channels_first)?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        if self.channels_first && AXES > 0 {
            return Ok(None);
        }
        let windows = Window::all(&self.pool_size, &self.strides, &[1; AXES]).map_err(candle_core::Error::msg)?;
        Ok(Some(vec![Primitive::Pool { largest: MAX, windows, padding: self.padding }]))
    }
}
