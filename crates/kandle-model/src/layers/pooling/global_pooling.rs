//! `keras.layers.GlobalMaxPooling1D` to `3D` and `GlobalAveragePooling1D` to `3D`: the largest number, or the mean, of
//! each channel.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; result
//! `(batch, channels)`, or with `keepdims` all axes of xs, the spatial ones of size 1. `[[[1], [2], [6]]]` has the mean
//! `[[3]]`.
//!
//! GlobalAveragePooling1D takes a mask `(batch, steps)` and counts only the steps it keeps: with `[[1, 1, 0]]`, the mean
//! is `[[1.5]]`, and with `[[0, 0, 0]]`, NaN. The others see masked cells like any.
//!
//! Source: keras/src/layers/pooling/base_global_pooling.py, global_average_pooling1d.py.

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::Image;
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, one, spatial::to_channels_last},
    numeric::{cast, constant_like, wide},
};

/// Pooling of all of `AXES` spatial axes, of the largest number (`MAX`) or the mean.
#[derive(Debug)]
pub(crate) struct GlobalPooling<const AXES: usize, const MAX: bool> {
    keepdims: bool,
    channels_first: bool,
}

impl<const AXES: usize, const MAX: bool> KerasLayer for GlobalPooling<AXES, MAX> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { keepdims: fields.flag("keepdims", false), channels_first: fields.channels_first() }
    }

    fn parameters(&self) -> &'static [&'static str] {
        if AXES == 1 && !MAX { &["inputs", "mask"] } else { &["inputs"] }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.dtype == Dtype::String {
            return Err(cannot("strings cannot be pooled"));
        }
        let image = Image::of(input, AXES, self.channels_first)?;
        let shape = if self.keepdims {
            Image { spatial: vec![Some(1); AXES], ..image }.shape(self.channels_first)
        } else {
            Shape(vec![image.batch, image.channels])
        };
        let dtype = if MAX || input.dtype.is_float() { input.dtype } else { Dtype::Float32 };
        Ok(vec![Spec { shape, dtype }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        if input.tensor.rank() != AXES + 2 {
            bail!("expected an input of rank {}, found {:?}", AXES + 2, input.tensor.dims());
        }
        let xs = to_channels_last(&input.tensor, self.channels_first)?;
        let (batch, channels) = (xs.dim(0)?, xs.dim(AXES + 1)?);
        let cells = xs.dims().iter().skip(1).take(AXES).product::<usize>();
        let xs = input.with_tensor(xs.reshape((batch, cells, channels))?);
        let ys = match call.given.mask() {
            _ if MAX => input.with_tensor(largest(&xs.tensor)?),
            Some(mask) => masked_mean(&xs, mask)?,
            None => mean(&xs)?,
        };
        if !self.keepdims {
            return Ok(vec![ys]);
        }
        let ones = [1; AXES];
        let shape = match self.channels_first {
            true => [&[batch, channels], ones.as_slice()].concat(),
            false => [&[batch], ones.as_slice(), &[channels]].concat(),
        };
        Ok(vec![ys.with_tensor(ys.tensor.reshape(shape)?)])
    }

    fn keeps_float32(&self, inputs: &[Dtype]) -> bool {
        !MAX && inputs.first().is_some_and(|dtype| !dtype.is_float())
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let pool = Primitive::PoolAll { largest: MAX, keeps_axes: self.keepdims };
        Ok((!self.channels_first).then(|| vec![pool]))
    }
}

/// The largest number over axis 1 of `(batch, cells, channels)`. Keras: NaN if there is one, unlike MaxPooling.
fn largest(xs: &Tensor) -> candle_core::Result<Tensor> {
    if xs.elem_count() == 0 {
        bail!("an input of {:?} has no largest number", xs.dims());
    }
    if !xs.dtype().is_float() {
        // Integers need no gradient, and int64 holds them all.
        return xs.to_dtype(DType::I64)?.max(1)?.to_dtype(xs.dtype());
    }
    let nan = xs.ne(xs)?;
    let numbers = nan.where_cond(&constant_like(xs, f64::NEG_INFINITY)?, xs)?.max(1)?;
    nan.max(1)?.where_cond(&constant_like(&numbers, f64::NAN)?, &numbers)
}

/// The mean over axis 1 of `(batch, cells, channels)`; NaN where there are no cells.
fn mean(xs: &Value) -> candle_core::Result<Value> {
    // Keras: the mean of integers is float32, whatever the policy.
    let xs = if xs.dtype.is_float() { xs.clone() } else { cast(xs, Dtype::Float32)? };
    let (batch, cells, channels) = xs.tensor.dims3()?;
    if cells == 0 || batch == 0 {
        let none = Tensor::full(f64::NAN, (batch, channels), xs.tensor.device())?.to_dtype(xs.tensor.dtype())?;
        return Ok(xs.with_tensor(none));
    }
    let count = Tensor::full(cells as f64, (), xs.tensor.device())?;
    // In float64: a sum of thousands in float32 is worse than TensorFlow's, which adds in parts.
    let ys = wide(&xs.tensor, |xs| xs.sum(1)?.broadcast_div(&count.to_dtype(xs.dtype())?))?;
    Ok(xs.with_tensor(ys))
}

/// The mean over the steps of `(batch, steps, channels)` that `mask` `(batch, steps)` keeps.
fn masked_mean(xs: &Value, mask: &Tensor) -> candle_core::Result<Value> {
    // Keras: TensorFlow divides the sum of integers by their count in float64.
    let xs = if xs.dtype.is_float() { xs.clone() } else { cast(xs, Dtype::Float64)? };
    let kept = mask.ne(&mask.zeros_like()?)?.unsqueeze(2)?;
    // Chosen and not multiplied: what is masked may be NaN.
    let zeros = xs.tensor.zeros_like()?;
    let numbers = kept.broadcast_as(xs.tensor.shape())?.where_cond(&xs.tensor, &zeros)?;
    let ys = wide(&numbers, |numbers| numbers.sum(1)?.broadcast_div(&kept.to_dtype(numbers.dtype())?.sum(1)?))?;
    Ok(xs.with_tensor(ys))
}
