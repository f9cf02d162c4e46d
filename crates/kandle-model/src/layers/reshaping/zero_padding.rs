//! `keras.layers.ZeroPadding1D`, `ZeroPadding2D` and `ZeroPadding3D`: zeros before and after spatial axes.
//!
//! Shapes: xs `(batch, spatial…, channels)` of any dtype, or with `channels_first` `(batch, channels, spatial…)`; an axis of
//! `n` cells has `before + n + after` in the result. With `padding = (1, 0)`, `[[[2], [3]]]` gives `[[[0], [2], [3]]]`.
//!
//! Source: keras/src/layers/reshaping/zero_padding{1,2,3}d.py.

use candle_core::bail;
use kandle_format::{Dtype, Problem};

use super::margins::{self, Margin};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Spec, Value,
    layers::{cannot, one, spatial::Image},
    math::window::pad,
};

#[derive(Debug)]
pub(crate) struct ZeroPadding<const AXES: usize> {
    padding: Vec<Margin>,
    channels_first: bool,
}

impl<const AXES: usize> KerasLayer for ZeroPadding<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { padding: margins::read(fields, "padding", AXES, (1, 1)), channels_first: fields.channels_first() }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.dtype == Dtype::String {
            return Err(cannot("strings cannot be padded with zeros"));
        }
        let mut image = Image::of(input, AXES, self.channels_first)?;
        for (size, (before, after)) in image.spatial.iter_mut().zip(&self.padding) {
            let padded = |size: usize| {
                let padded = size.checked_add(*before).and_then(|size| size.checked_add(*after));
                padded.ok_or_else(|| cannot(format!("padding ({before}, {after}) is too large")))
            };
            *size = size.map(padded).transpose()?;
        }
        Ok(vec![input.with_shape(image.shape(self.channels_first))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let mut xs = input.tensor.clone();
        let first = if self.channels_first { 2 } else { 1 };
        if xs.rank() != AXES + 2 {
            bail!("expected an input of rank {}, found {:?}", AXES + 2, xs.dims());
        }
        for (axis, (before, after)) in self.padding.iter().enumerate() {
            xs = pad(&xs, first + axis, *before, *after, 0.0)?;
        }
        Ok(vec![input.with_tensor(xs)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Pad(margins::of_all_axes(&self.padding, self.channels_first))]))
    }
}
