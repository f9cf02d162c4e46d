//! `keras.layers.Cropping1D`, `Cropping2D` and `Cropping3D`: spatial axes without their first and last cells.
//!
//! Shapes: xs `(batch, spatial…, channels)` of any dtype, or with `channels_first` `(batch, channels, spatial…)`; an axis of
//! `n` cells has `n − before − after` in the result. With `cropping = (1, 0)`, `[[[1], [2], [3]]]` gives `[[[2], [3]]]`.
//!
//! Source: keras/src/layers/reshaping/cropping{1,2,3}d.py.

use candle_core::bail;
use kandle_format::Problem;

use super::margins::{self, Margin};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Spec, Value,
    layers::{cannot, one, spatial::Image},
};

#[derive(Debug)]
pub(crate) struct Cropping<const AXES: usize> {
    cropping: Vec<Margin>,
    channels_first: bool,
}

impl<const AXES: usize> KerasLayer for Cropping<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        // Keras: a sequence loses a cell at each end by default, an image nothing; sequences are channels-last only.
        let default = if AXES == 2 { (0, 0) } else { (1, 1) };
        Self {
            cropping: margins::read(fields, "cropping", AXES, default),
            channels_first: AXES > 1 && fields.channels_first(),
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let mut image = Image::of(input, AXES, self.channels_first)?;
        for (size, margin) in image.spatial.iter_mut().zip(&self.cropping) {
            *size = size.map(|size| left(size, *margin)).transpose().map_err(cannot)?;
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
        for (axis, margin) in self.cropping.iter().enumerate() {
            let size = left(xs.dim(first + axis)?, *margin).map_err(candle_core::Error::msg)?;
            xs = xs.narrow(first + axis, margin.0, size)?;
        }
        Ok(vec![input.with_tensor(xs.contiguous()?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Crop(margins::of_all_axes(&self.cropping, self.channels_first))]))
    }
}

/// The cells of an axis that cropping leaves, at least one.
fn left(size: usize, (before, after): Margin) -> Result<usize, String> {
    let left = size.checked_sub(before).and_then(|size| size.checked_sub(after)).filter(|left| *left > 0);
    left.ok_or_else(|| format!("cropping ({before}, {after}) leaves nothing of an axis of {size}"))
}
