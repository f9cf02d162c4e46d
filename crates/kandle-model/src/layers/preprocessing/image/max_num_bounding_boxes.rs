//! `keras.layers.MaxNumBoundingBoxes`: as many bounding boxes for every image, cut off or filled up.
//!
//! Shapes: boxes `(batch, boxes, 4)` to `(batch, max_number, 4)`, float32; labels `(batch, boxes)` to
//! `(batch, max_number)`. What is filled up is −1. All else stays.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/max_num_bounding_box.py.

use candle_core::Tensor;
use kandle_format::{Dtype, Problem};

use crate::{
    Argument, Call, Fields, Given, KerasLayer, Shape, Spec, Value,
    layers::cannot,
    numeric::{cast, storage},
};

use super::{Common, Part, Takes, converted, converted_dtype};

#[derive(Debug)]
pub(in super::super) struct MaxNumBoundingBoxes {
    common: Common,
    most: usize,
    fill: i64,
}

impl KerasLayer for MaxNumBoundingBoxes {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["factor"]);
        // Keras: fill_value is not saved, so that a file always has its default.
        let (most, fill) = (fields.size("max_number"), fields.integer("fill_value", -1));
        Self { common: Common::read(fields, Takes::ALL), most, fill }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let compute = given.policy().compute;
        let spec = |(part, number): (Part, usize)| {
            let input = given.at(&Argument::Tensor(number)).ok_or_else(|| cannot("an input is missing"))?;
            let spec = Spec { dtype: converted_dtype(input.dtype, compute), ..input.clone() };
            let Some(axis) = Self::axis(part, input.shape.rank()).map_err(cannot)? else { return Ok(spec) };
            let Shape(mut axes) = spec.shape;
            if let Some(size) = axes.get_mut(axis) {
                *size = Some(self.most);
            }
            let dtype = if part == Part::Boxes { Dtype::Float32 } else { spec.dtype };
            Ok(Spec { shape: Shape(axes), dtype })
        };
        self.common.parts(given).map_err(cannot)?.into_iter().map(spec).collect()
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let compute = call.given.policy().compute;
        let run = |(part, number): (Part, usize)| {
            let Some(input) = call.given.at(&Argument::Tensor(number)) else {
                candle_core::bail!("an input is missing")
            };
            let mut value = converted(input, compute)?;
            if part == Part::Boxes {
                value = cast(&value, Dtype::Float32)?;
            }
            match Self::axis(part, value.tensor.rank()).map_err(candle_core::Error::msg)? {
                Some(axis) => Ok(value.with_tensor(self.counted(&value, axis)?)),
                None => Ok(value),
            }
        };
        self.common.parts(call.given).map_err(candle_core::Error::msg)?.into_iter().map(run).collect()
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl MaxNumBoundingBoxes {
    /// Which axis counts the boxes.
    fn axis(part: Part, rank: usize) -> Result<Option<usize>, String> {
        match (part, rank) {
            (Part::Boxes, 2 | 3) => Ok(Some(rank - 2)),
            (Part::BoxLabels, 1 | 2) => Ok(Some(rank - 1)),
            (Part::Boxes | Part::BoxLabels, rank) => Err(format!("boxes or their labels of rank {rank}")),
            _ => Ok(None),
        }
    }

    fn counted(&self, value: &Value, axis: usize) -> candle_core::Result<Tensor> {
        let xs = &value.tensor;
        let found = xs.dim(axis)?;
        if found >= self.most {
            return xs.narrow(axis, 0, self.most)?.contiguous();
        }
        let mut shape = xs.dims().to_vec();
        if let Some(size) = shape.get_mut(axis) {
            *size = self.most - found;
        }
        let fill = Tensor::full(self.fill, (), xs.device())?.to_dtype(storage(value.dtype)?)?;
        Tensor::cat(&[xs, &fill.broadcast_as(shape)?.contiguous()?], axis)
    }
}
