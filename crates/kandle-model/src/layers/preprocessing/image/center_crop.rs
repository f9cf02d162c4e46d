//! `keras.layers.CenterCrop`: the middle of images; images too small are cut to the target's aspect ratio and resized.
//!
//! Shapes: images `(batch, height, width, channels)` to `(batch, height', width', channels)`, in any data format, in the
//! compute dtype.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/center_crop.py, keras/src/utils/image_utils.py
//! (`smart_resize`).

use candle_core::bail;
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::cannot,
    math::resize::{Interpolation, resize},
};

use super::{
    Common, Part, Takes, batched,
    bounding_boxes::{self, Format, Moved},
    cast_to_compute, places,
    resizing::{Fit, fitted, resized_spec},
    unbatched,
};

#[derive(Debug)]
pub(in super::super) struct CenterCrop {
    common: Common,
    format: Option<Format>,
    height: usize,
    width: usize,
}

impl KerasLayer for CenterCrop {
    fn read(fields: &mut Fields<'_>) -> Self {
        // Keras: its `compute_output_shape` does not know dicts, so that only a Pipeline has one for it.
        let takes = Takes { dicts: false, ..Takes::ALL };
        Self {
            format: Format::read(fields),
            common: Common::read(fields, takes),
            height: fields.size("height"),
            width: fields.size("width"),
        }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let compute = given.policy().compute;
        let cropped = |input: &Spec| {
            if !matches!(input.shape.rank(), 3 | 4) {
                return Err(cannot(format!("expected images of rank 3 or 4, found {}", input.shape)));
            }
            let (row, column) = places(input.shape.rank(), self.common.channels_first);
            let size = |place: usize| input.shape.0.get(place).copied().flatten();
            let dtype = match (size(row), size(column)) {
                (Some(height), Some(width)) if self.resizes(height, width) => Dtype::Float32,
                _ => compute,
            };
            let spec = Spec { dtype, ..input.clone() };
            Ok(resized_spec(&spec, self.height, self.width, self.common.channels_first))
        };
        self.common.output(given, cropped, cropped)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let cropped = |input: &Value| self.cropped(&cast_to_compute(input, call.given.policy())?);
        let mut outputs = self.common.forward(call, cropped, cropped)?;
        let parts = self.common.parts(call.given).map_err(candle_core::Error::msg)?;
        for ((part, _), output) in parts.into_iter().zip(&mut outputs) {
            match part {
                Part::Boxes => *output = Value::new(self.boxes(call)?.boxes, Dtype::Float32),
                Part::BoxLabels => *output = self.boxes(call)?.labels(output)?,
                _ => {}
            }
        }
        Ok(outputs)
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl CenterCrop {
    fn boxes(&self, call: Call<'_>) -> candle_core::Result<Moved> {
        let Some(format) = self.format else { bail!("bounding_boxes: the layer has no bounding_box_format") };
        let (boxes, from) = self.common.boxes(call)?;
        bounding_boxes::cropped(&boxes, format, from, [self.height, self.width])
    }

    fn cropped(&self, input: &Value) -> candle_core::Result<Value> {
        let rank = input.tensor.rank();
        let images = batched(&input.tensor, self.common.channels_first)?;
        let (_, height, width, _) = images.dims4()?;
        let (ys, dtype) = if self.resizes(height, width) {
            let images = fitted(&images, self.height, self.width, Fit::Crop, 0.0)?;
            // Keras: what is resized stays in float32, whatever the policy.
            (resize(&images, self.height, self.width, Interpolation::Bilinear, false)?, Dtype::Float32)
        } else {
            let rows = images.narrow(1, (height - self.height) / 2, self.height)?;
            (rows.narrow(2, (width - self.width) / 2, self.width)?.contiguous()?, input.dtype)
        };
        Ok(Value::new(unbatched(&ys, rank, self.common.channels_first)?, dtype))
    }

    fn resizes(&self, height: usize, width: usize) -> bool {
        height < self.height || width < self.width
    }
}
