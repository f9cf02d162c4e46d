//! Layers of images, `(batch, height, width, channels)` or one image without the batch axis, or channels before height.
//!
//! They take a tensor of images, or a dict of `images` with what belongs to them: `bounding_boxes` (a dict of `boxes` and
//! `labels`), `labels`, `segmentation_masks`. A dict comes out as it went in.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/base_image_preprocessing_layer.py.

mod augmentation;
mod auto_contrast;
mod bounding_boxes;
mod center_crop;
mod clahe;
mod max_num_bounding_boxes;
mod resizing;

use candle_core::Tensor;
use kandle_format::{Dtype, ErrorKind, Problem};

pub(super) use augmentation::{Augmentation, RandomCrop};
pub(super) use auto_contrast::AutoContrast;
pub(super) use center_crop::CenterCrop;
pub(super) use clahe::ContrastLimitedAdaptiveHistogramEqualization;
pub(super) use max_num_bounding_boxes::MaxNumBoundingBoxes;
pub(super) use resizing::Resizing;

use super::converted;
use crate::{Argument, Call, Fields, Given, Policy, Spec, Value, dialect, layers::cannot, numeric::cast};

/// What a tensor of the argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Images,
    Boxes,
    BoxLabels,
    Labels,
    Masks,
    Other,
}

/// The tensors a layer is called on, in flattened order, with what each is.
fn parts(argument: Option<&Argument>) -> Result<Vec<(Part, usize)>, String> {
    let numbers = |argument: &Argument| argument.tensors().into_iter().flatten().collect::<Vec<usize>>();
    match argument {
        Some(Argument::Tensor(number)) => Ok(vec![(Part::Images, *number)]),
        Some(Argument::Mapping(items)) if items.contains_key("images") => {
            let mut parts = Vec::new();
            for (key, item) in items {
                match (key.as_str(), item) {
                    ("bounding_boxes", Argument::Mapping(boxes)) => {
                        if !boxes.contains_key("boxes") || !boxes.contains_key("labels") {
                            return Err("bounding_boxes: expected boxes and labels".to_owned());
                        }
                        for (key, item) in boxes {
                            let part = match key.as_str() {
                                "boxes" => Part::Boxes,
                                "labels" => Part::BoxLabels,
                                _ => Part::Other,
                            };
                            parts.extend(numbers(item).into_iter().map(|number| (part, number)));
                        }
                    }
                    (key, item) => {
                        let part = match key {
                            "images" => Part::Images,
                            "labels" => Part::Labels,
                            "segmentation_masks" => Part::Masks,
                            _ => Part::Other,
                        };
                        parts.extend(numbers(item).into_iter().map(|number| (part, number)));
                    }
                }
            }
            Ok(parts)
        }
        _ => Err("expected images, or a dict with images".to_owned()),
    }
}

/// What a layer can take beside images, and the settings all have.
#[derive(Debug, Clone, Copy)]
struct Takes {
    dicts: bool,
    boxes: bool,
    labels: bool,
}

impl Takes {
    const ALL: Self = Self { dicts: true, boxes: true, labels: true };
}

/// The settings that all layers of images have.
#[derive(Debug, Clone)]
struct Common {
    takes: Takes,
    /// Whether the layer runs inside a Pipeline, which never asks for its `compute_output_shape`.
    is_inner: bool,
    /// Whether a format of bounding boxes is set; the layer refuses boxes without.
    has_format: bool,
    channels_first: bool,
    /// Whether Keras casts floats before the layer runs.
    converts: bool,
    /// Whether integer images are computed by the rules of Keras 2, which differ from layer to layer and are not reproduced.
    only_floats: bool,
}

impl Common {
    fn read(fields: &mut Fields<'_>, takes: Takes) -> Self {
        let has_format = fields.take("bounding_box_format").is_some();
        let is_inner = fields.context().is_inner;
        let takes = Takes { dicts: takes.dicts || is_inner, ..takes };
        Self {
            takes,
            is_inner,
            has_format,
            channels_first: fields.channels_first(),
            converts: true,
            only_floats: dialect::is_legacy(fields.keras_major()),
        }
    }

    /// What the layer is called on, checked.
    fn parts<T>(&self, given: Given<'_, T>) -> Result<Vec<(Part, usize)>, String> {
        let argument = given.argument("data");
        let parts = parts(argument)?;
        let has = |part: Part| parts.iter().any(|(found, _)| *found == part);
        let dict = matches!(argument, Some(Argument::Mapping(_)));
        for (refused, what) in [
            (dict && !self.takes.dicts, "a dict"),
            (has(Part::Boxes) && !self.takes.boxes, "bounding_boxes"),
            (has(Part::Labels) && !self.takes.labels, "labels"),
        ] {
            if refused {
                return Err(format!("called with {what}, which this layer does not take, in Keras neither"));
            }
        }
        if has(Part::Boxes) && !self.has_format {
            return Err("bounding_boxes: the layer has no bounding_box_format".to_owned());
        }
        Ok(parts)
    }

    /// Refuses integers that Keras 2 would take otherwise than Keras 3.
    fn check_dtype(&self, input: &Spec) -> Result<(), Problem> {
        if self.only_floats && !input.dtype.is_float() {
            let what = format!("images of {} in a file of Keras 2 are not supported (only floats)", input.dtype);
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        Ok(())
    }

    /// The boxes, in float32, and the height and width of the images they lie in.
    fn boxes(&self, call: Call<'_>) -> candle_core::Result<(Tensor, [usize; 2])> {
        let parts = self.parts(call.given).map_err(candle_core::Error::msg)?;
        let find = |wanted: Part| {
            let number = parts.iter().find(|(part, _)| *part == wanted).map(|(_, number)| *number);
            let found = number.and_then(|number| call.given.at(&Argument::Tensor(number)));
            found.ok_or_else(|| candle_core::Error::msg("an input is missing"))
        };
        let (boxes, images) = (find(Part::Boxes)?, find(Part::Images)?);
        let (row, column) = places(images.tensor.rank(), self.channels_first);
        let boxes = cast(&converted(boxes, call.given.policy().compute)?, Dtype::Float32)?;
        Ok((boxes.tensor, [images.tensor.dim(row)?, images.tensor.dim(column)?]))
    }

    /// What comes out, where `image` says it of images and `mask` of segmentation masks.
    fn output(
        &self,
        given: Given<'_, Spec>,
        image: impl Fn(&Spec) -> Result<Spec, Problem>,
        mask: impl Fn(&Spec) -> Result<Spec, Problem>,
    ) -> Result<Vec<Spec>, Problem> {
        let compute = given.policy().compute;
        let spec = |(part, number): (Part, usize)| {
            let input = given.at(&Argument::Tensor(number)).ok_or_else(|| cannot("an input is missing"))?;
            self.check_dtype(input)?;
            let dtype = if self.converts { converted_dtype(input.dtype, compute) } else { input.dtype };
            let input = Spec { dtype, ..input.clone() };
            match part {
                Part::Images => {
                    if !matches!(input.shape.rank(), 3 | 4) {
                        return Err(cannot(format!("expected images of rank 3 or 4, found {}", input.shape)));
                    }
                    image(&input)
                }
                Part::Masks => mask(&input),
                Part::Boxes => Ok(Spec { dtype: Dtype::Float32, ..input }),
                Part::BoxLabels | Part::Labels | Part::Other => Ok(input),
            }
        };
        self.parts(given).map_err(cannot)?.into_iter().map(spec).collect()
    }

    /// Runs `image` on images and `mask` on segmentation masks; all else only changes its dtype.
    fn forward(
        &self,
        call: Call<'_>,
        image: impl Fn(&Value) -> candle_core::Result<Value>,
        mask: impl Fn(&Value) -> candle_core::Result<Value>,
    ) -> candle_core::Result<Vec<Value>> {
        let compute = call.given.policy().compute;
        let run = |(part, number): (Part, usize)| {
            let Some(input) = call.given.at(&Argument::Tensor(number)) else {
                candle_core::bail!("an input is missing")
            };
            let input = if self.converts { converted(input, compute)? } else { input.clone() };
            match part {
                Part::Images => image(&input),
                Part::Masks => mask(&input),
                Part::Boxes => cast(&input, Dtype::Float32),
                Part::BoxLabels | Part::Labels | Part::Other => Ok(input),
            }
        };
        self.parts(call.given).map_err(candle_core::Error::msg)?.into_iter().map(run).collect()
    }
}

/// The dtype of an input after Keras's cast of floats.
fn converted_dtype(dtype: Dtype, compute: Dtype) -> Dtype {
    if dtype.is_float() { compute } else { dtype }
}

/// Refuses policies under which the layer would compute in integers.
fn float_policy(fields: &mut Fields<'_>) {
    super::float_policy(fields);
}

fn cast_to_compute(value: &Value, policy: &Policy) -> candle_core::Result<Value> {
    cast(value, policy.compute)
}

/// Height and width of images of `rank` axes: their places.
fn places(rank: usize, channels_first: bool) -> (usize, usize) {
    let height = rank.saturating_sub(if channels_first { 2 } else { 3 });
    (height, height + 1)
}

/// Images as `(batch, height, width, channels)`.
fn batched(images: &Tensor, channels_first: bool) -> candle_core::Result<Tensor> {
    let images = if images.rank() == 3 { images.unsqueeze(0)? } else { images.clone() };
    if channels_first { images.permute((0, 2, 3, 1))?.contiguous() } else { Ok(images) }
}

/// The way back from [`batched`].
fn unbatched(images: &Tensor, rank: usize, channels_first: bool) -> candle_core::Result<Tensor> {
    let images = if channels_first { images.permute((0, 3, 1, 2))?.contiguous()? } else { images.clone() };
    if rank == 3 { images.squeeze(0) } else { Ok(images) }
}
