//! `keras.layers.Resizing`: images of another size, cut or filled up to the target's aspect ratio first where that is set.
//!
//! Shapes: images `(batch, height, width, channels)` to `(batch, height', width', channels)`, in any data format; the same
//! dtype comes out, integers rounded.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/resizing.py, keras/src/backend/tensorflow/image.py
//! (`resize`).

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Argument, Call, Fields, Given, KerasLayer, Shape, Spec, Value,
    layers::cannot,
    math::resize::{Interpolation, resize},
    numeric::storage,
};

use super::{
    Common, Part, Takes, batched,
    bounding_boxes::{self, Format, Moved},
    converted, converted_dtype, places, unbatched,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Stretch,
    Crop,
    Pad,
}

#[derive(Debug)]
pub(in super::super) struct Resizing {
    common: Common,
    format: Option<Format>,
    height: usize,
    width: usize,
    interpolation: Interpolation,
    fit: Fit,
    fill: f64,
    antialias: bool,
}

impl KerasLayer for Resizing {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.only("fill_mode", &"constant".into());
        let (crops, pads) = (fields.flag("crop_to_aspect_ratio", false), fields.flag("pad_to_aspect_ratio", false));
        let fit = match (crops, pads) {
            (false, false) => Fit::Stretch,
            (true, false) => Fit::Crop,
            (false, true) => Fit::Pad,
            (true, true) => {
                fields.wrong("only one of crop_to_aspect_ratio and pad_to_aspect_ratio can be true");
                Fit::Crop
            }
        };
        Self {
            format: Format::read(fields),
            common: Common::read(fields, Takes::ALL),
            height: fields.size("height"),
            width: fields.size("width"),
            interpolation: interpolation(fields),
            fit,
            fill: fields.number("fill_value", 0.0),
            antialias: fields.flag("antialias", false),
        }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let spec = |(part, number): (Part, usize)| {
            let input = given.at(&Argument::Tensor(number)).ok_or_else(|| cannot("an input is missing"))?;
            self.common.check_dtype(input)?;
            let spec = Spec { dtype: converted_dtype(input.dtype, given.policy().compute), ..input.clone() };
            match part {
                Part::Images | Part::Masks => {
                    if !matches!(spec.shape.rank(), 3 | 4) {
                        return Err(cannot(format!("expected images of rank 3 or 4, found {}", spec.shape)));
                    }
                    Ok(resized_spec(&spec, self.height, self.width, self.common.channels_first))
                }
                Part::Boxes => Ok(Spec { dtype: Dtype::Float32, ..spec }),
                _ => Ok(spec),
            }
        };
        self.parts(given).map_err(cannot)?.into_iter().map(spec).collect()
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let compute = call.given.policy().compute;
        let input = |number: usize| match call.given.at(&Argument::Tensor(number)) {
            Some(input) => converted(input, compute),
            None => bail!("an input is missing"),
        };
        let run = |(part, number): (Part, usize)| {
            let value = input(number)?;
            match part {
                Part::Images => self.resized(&value, self.interpolation),
                Part::Masks => self.resized(&value, Interpolation::Nearest),
                Part::Boxes => Ok(Value::new(self.boxes(call)?.boxes, Dtype::Float32)),
                Part::BoxLabels => self.boxes(call)?.labels(&value),
                _ => Ok(value),
            }
        };
        self.parts(call.given).map_err(candle_core::Error::msg)?.into_iter().map(run).collect()
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl Resizing {
    /// What comes out. Keras: of a dict only the first tensor does, as the layer takes the dict's two keys for the shape of
    /// one image; no graph has it called on a dict of another size. Inside a Pipeline all of it does.
    fn parts<T>(&self, given: Given<'_, T>) -> Result<Vec<(Part, usize)>, String> {
        let mut parts = self.common.parts(given)?;
        if let Some(Argument::Mapping(items)) = given.argument("data")
            && !self.common.is_inner
        {
            if items.len() != 2 {
                return Err(format!(
                    "expected a dict of two keys, found {}, which Keras cannot plan either",
                    items.len()
                ));
            }
            parts.truncate(1);
        }
        Ok(parts)
    }

    fn boxes(&self, call: Call<'_>) -> candle_core::Result<Moved> {
        let Some(format) = self.format else { bail!("bounding_boxes: the layer has no bounding_box_format") };
        let (boxes, from) = self.common.boxes(call)?;
        bounding_boxes::resized(&boxes, format, self.fit, from, [self.height, self.width])
    }

    /// Images, or their masks, of the target size in the dtype they have.
    fn resized(&self, value: &Value, interpolation: Interpolation) -> candle_core::Result<Value> {
        let images = batched(&value.tensor, self.common.channels_first)?;
        let images = fitted(&images, self.height, self.width, self.fit, self.fill)?;
        let ys = resize(&images, self.height, self.width, interpolation, self.antialias)?;
        let exact = interpolation == Interpolation::Nearest || value.dtype == Dtype::Float32;
        let ys = if exact { ys } else { saturated(&ys, value.dtype)? };
        Ok(value.with_tensor(unbatched(&ys, value.tensor.rank(), self.common.channels_first)?))
    }
}

/// Float32 numbers in the dtype of the images: integers rounded half to even; what is out of range becomes the last number
/// of `dtype` that float32 has.
///
/// Source: keras/src/ops/core.py (`_saturate_cast`).
fn saturated(ys: &Tensor, dtype: Dtype) -> candle_core::Result<Tensor> {
    let most = match dtype {
        Dtype::Float16 => 65504.0,
        Dtype::Bfloat16 => 3.389_531_4e38,
        Dtype::Float64 => f64::from(f32::MAX),
        _ => {
            let ends: (f32, f32) = match dtype {
                Dtype::Int8 => (-128.0, 127.0),
                Dtype::Int16 => (-32768.0, 32767.0),
                Dtype::Int32 => (-2_147_483_648.0, 2_147_483_520.0),
                Dtype::Int64 => (-9_223_372_036_854_775_808.0, 9_223_371_487_098_961_920.0),
                Dtype::Uint8 => (0.0, 255.0),
                Dtype::Uint16 => (0.0, 65535.0),
                Dtype::Uint32 => (0.0, 4_294_967_040.0),
                dtype => bail!("images of {dtype} are not resized"),
            };
            let whole = |y: &f32| y.round_ties_even().clamp(ends.0, ends.1) as i64;
            let numbers: Vec<i64> = ys.flatten_all()?.to_vec1::<f32>()?.iter().map(whole).collect();
            return Tensor::from_vec(numbers, ys.shape(), ys.device())?.to_dtype(storage(dtype)?);
        }
    };
    let limit = |ys: &Tensor, number: f64| Tensor::full(number as f32, ys.shape(), ys.device());
    let (low, high) = (limit(ys, -most)?, limit(ys, most)?);
    let ys = ys.lt(&low)?.where_cond(&low, ys)?;
    ys.gt(&high)?.where_cond(&high, &ys)?.to_dtype(storage(dtype)?)
}

pub(super) fn resized_spec(spec: &Spec, height: usize, width: usize, channels_first: bool) -> Spec {
    let Shape(mut axes) = spec.shape.clone();
    let (row, column) = places(axes.len(), channels_first);
    for (place, size) in [(row, height), (column, width)] {
        if let Some(axis) = axes.get_mut(place) {
            *axis = Some(size);
        }
    }
    spec.with_shape(Shape(axes))
}

/// `(batch, height, width, channels)` cut, or filled up with `fill`, to the aspect ratio of `height` and `width`; in the
/// middle.
pub(super) fn fitted(images: &Tensor, height: usize, width: usize, fit: Fit, fill: f64) -> candle_core::Result<Tensor> {
    let (_, from_height, from_width, _) = images.dims4()?;
    // Keras computes these in float32, by truncation.
    let scaled = |size: usize, by: usize, over: usize| ((size * by) as f32 / over as f32) as usize;
    match fit {
        Fit::Stretch => Ok(images.clone()),
        Fit::Crop => {
            let rows = scaled(from_width, height, width).min(from_height).max(1);
            let columns = scaled(from_height, width, height).min(from_width).max(1);
            let images = images.narrow(1, (from_height - rows) / 2, rows)?;
            images.narrow(2, (from_width - columns) / 2, columns)?.contiguous()
        }
        Fit::Pad => {
            let above = (scaled(from_width, height, width).max(from_height) - from_height) / 2;
            let before = (scaled(from_height, width, height).max(from_width) - from_width) / 2;
            filled(&filled(images, 1, above, fill)?, 2, before, fill)
        }
    }
}

/// As much before as after.
fn filled(images: &Tensor, axis: usize, count: usize, fill: f64) -> candle_core::Result<Tensor> {
    if count == 0 {
        return Ok(images.clone());
    }
    if !images.dtype().is_float() && fill.fract() != 0.0 {
        bail!("fill_value {fill} is no whole number, and the images are")
    }
    let mut shape = images.dims().to_vec();
    if let Some(size) = shape.get_mut(axis) {
        *size = count;
    }
    let fill = Tensor::full(fill, (), images.device())?.to_dtype(images.dtype())?.broadcast_as(shape)?.contiguous()?;
    Tensor::cat(&[&fill, images, &fill], axis)
}

fn interpolation(fields: &mut Fields<'_>) -> Interpolation {
    let Some(value) = fields.take("interpolation") else { return Interpolation::Bilinear };
    // Those of Keras 3; the others were Keras 2's.
    let found = value.as_str().and_then(Interpolation::named);
    found.unwrap_or_else(|| {
        let names: Vec<&str> = Interpolation::NAMES.iter().map(|(name, _)| *name).collect();
        fields.unsupported("interpolation", value, &names.join(", "));
        Interpolation::Bilinear
    })
}
