//! `keras.layers.UpSampling1D`, `UpSampling2D` and `UpSampling3D`: spatial axes that are `size` times as long.
//!
//! Shapes: xs `(batch, spatial…, channels)`, or with `channels_first` `(batch, channels, spatial…)`; an axis of `n` cells has
//! `n · size` in the result. With `size = 2`, `[[[1], [2]]]` gives `[[[1], [1], [2], [2]]]`. On two axes there are other
//! interpolations than `nearest`, those of `keras.ops.image.resize`.
//!
//! Keras: in version 2 what these give is float32, whatever goes in; later it is cast back.
//! Keras: what is bilinear was `tf.image.resize_bilinear` before it became part of TensorFlow, and there up to 1.14.
//!
//! Source: keras/src/layers/reshaping/up_sampling{1,2,3}d.py, keras/src/ops/image.py (`_resize`).

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Spec, Value,
    layers::{
        cannot, one,
        spatial::{Image, from_channels_last, repeat, to_channels_last},
    },
    math::resize::{Interpolation, Position, resize},
    numeric::{constant_like, storage},
};

#[derive(Debug)]
pub(crate) struct UpSampling<const AXES: usize> {
    size: Vec<usize>,
    channels_first: bool,
    interpolation: Interpolation,
    casts_back: bool,
}

impl<const AXES: usize> KerasLayer for UpSampling<AXES> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let nearest = Interpolation::Nearest;
        let mut interpolation = match AXES {
            2 => fields.choice("interpolation", Interpolation::NAMES).unwrap_or(nearest),
            _ => nearest,
        };
        // Keras: until TensorFlow 1.15, and in all versions before it became part of TensorFlow.
        let old = fields.is_older_than_tensorflows() || !fields.is_from([2, 2, 4]);
        if interpolation == Interpolation::Bilinear && old {
            interpolation = Interpolation::BilinearOfCorners;
        }
        Self {
            size: fields.sizes("size", AXES, 2),
            // Keras: sequences are channels-last only.
            channels_first: AXES > 1 && fields.channels_first(),
            interpolation,
            casts_back: fields.keras_major() >= 3,
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if self.interpolation != Interpolation::Nearest && limits(input.dtype).is_none() {
            let what = format!("an input of {} is not supported where pixels are interpolated", input.dtype);
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        let mut image = Image::of(input, AXES, self.channels_first)?;
        for (cells, size) in image.spatial.iter_mut().zip(&self.size) {
            let longer = |cells: usize| {
                cells.checked_mul(*size).ok_or_else(|| cannot(format!("size {size} over {cells} cells is too large")))
            };
            *cells = cells.map(longer).transpose()?;
        }
        let dtype = if self.gives_float32() { Dtype::Float32 } else { input.dtype };
        Ok(vec![Spec { shape: image.shape(self.channels_first), dtype }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        if input.tensor.rank() != AXES + 2 {
            bail!("expected an input of rank {}, found {:?}", AXES + 2, input.tensor.dims());
        }
        if self.interpolation == Interpolation::Nearest {
            let first = if self.channels_first { 2 } else { 1 };
            let mut xs = input.tensor.clone();
            for (axis, size) in self.size.iter().enumerate() {
                xs = repeat(&xs, first + axis, *size)?;
            }
            return Ok(vec![input.with_tensor(xs)]);
        }
        let xs = to_channels_last(&input.tensor, self.channels_first)?;
        let (_, height, width, _) = xs.dims4()?;
        let [rows, columns] = self.size.as_slice() else { bail!("{:?} is no size of an image", self.size) };
        let (Some(height), Some(width)) = (height.checked_mul(*rows), width.checked_mul(*columns)) else {
            bail!("size {:?} over {:?} is too large", self.size, xs.dims())
        };
        let ys = resize(&xs, height, width, self.interpolation, false)?;
        if self.gives_float32() {
            let ys = from_channels_last(&ys, self.channels_first)?;
            return Ok(vec![Value::new(ys, Dtype::Float32)]);
        }
        // The runner rounds to half precision, what goes beyond it is bounded here.
        let dtype = if input.dtype == Dtype::Float32 { call.given.policy().compute } else { input.dtype };
        let ys = saturated(&ys, dtype)?.to_dtype(storage(input.dtype)?)?;
        Ok(vec![input.with_tensor(from_channels_last(&ys, self.channels_first)?)])
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.gives_float32()
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let at = match self.interpolation {
            _ if self.channels_first => return Ok(None),
            Interpolation::Nearest => {
                let times = self.size.iter().copied().chain([1]).collect();
                return Ok(Some(vec![Primitive::Repeat(times)]));
            }
            Interpolation::Bilinear => Position::Centres,
            Interpolation::BilinearOfCorners => Position::Corners,
            _ => return Ok(None),
        };
        let times = self.size.as_slice().try_into().ok();
        Ok(times.map(|times| vec![Primitive::Interpolate { times, at }]))
    }
}

impl<const AXES: usize> UpSampling<AXES> {
    fn gives_float32(&self) -> bool {
        !self.casts_back && self.interpolation != Interpolation::Nearest
    }
}

/// The range of float32 numbers that Keras casts to `dtype`, which may be narrower than that of the dtype.
///
/// Source: keras/src/ops/core.py (`_saturate_cast`).
fn limits(dtype: Dtype) -> Option<(f32, f32)> {
    // The largest float32 below a power of two that float32 has and the integer dtype has not.
    let below = |power: f32| f32::from_bits(power.to_bits() - 1);
    Some(match dtype {
        Dtype::Int8 => (-128.0, 127.0),
        Dtype::Uint8 => (0.0, 255.0),
        Dtype::Int16 => (-32_768.0, 32_767.0),
        Dtype::Uint16 => (0.0, 65_535.0),
        Dtype::Int32 => (-2_147_483_648.0, below(2_147_483_648.0)),
        Dtype::Int64 => (-9_223_372_036_854_775_808.0, below(9_223_372_036_854_775_808.0)),
        Dtype::Float16 => (-65_504.0, 65_504.0),
        Dtype::Bfloat16 => (-f32::from_bits(0x7f7f_0000), f32::from_bits(0x7f7f_0000)),
        Dtype::Float32 | Dtype::Float64 => (f32::MIN, f32::MAX),
        _ => return None,
    })
}

/// Float32 numbers as Keras casts them to `dtype`: rounded for integers, ties to even, and bounded by the dtype's range.
///
/// Keras: float32 is not cast, so that infinities stay; float64 is, and has none left.
fn saturated(xs: &Tensor, dtype: Dtype) -> candle_core::Result<Tensor> {
    if dtype == Dtype::Float32 {
        return Ok(xs.clone());
    }
    let Some((lowest, highest)) = limits(dtype) else { bail!("an image of {dtype} is not resized") };
    if !dtype.is_float() {
        let numbers = xs.flatten_all()?.to_vec1::<f32>()?.into_iter();
        let numbers: Vec<i64> = numbers.map(|x| x.round_ties_even().clamp(lowest, highest) as i64).collect();
        return Tensor::from_vec(numbers, xs.dims(), xs.device());
    }
    let (lowest, highest) = (constant_like(xs, lowest.into())?, constant_like(xs, highest.into())?);
    let xs = xs.lt(&lowest)?.where_cond(&lowest, xs)?;
    xs.gt(&highest)?.where_cond(&highest, &xs)?.to_dtype(DType::F32)
}
