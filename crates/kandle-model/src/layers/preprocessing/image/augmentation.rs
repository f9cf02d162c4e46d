//! The layers that change images in training only. At inference they give back what they are given, some of them in the
//! compute dtype.
//!
//! Shapes: any images. Source: keras/src/layers/preprocessing/image_preprocessing/{random_*,mix_up,cut_mix,aug_mix,
//! rand_augment,solarization,equalization}.py.

use kandle_format::{Dtype, Problem};

use crate::{
    Argument, Call, Fields, Given, KerasLayer, Policy, Shape, Spec, Value,
    layers::cannot,
    math::resize::{Interpolation, resize},
    numeric::{cast, dtype_of},
};

use super::{Common, Part, Takes, batched, cast_to_compute, places, resizing::resized_spec, unbatched};

/// What tells one class from another.
struct Class {
    name: &'static str,
    /// Its settings, all of which are for training.
    settings: &'static [&'static str],
    /// Whether images come out in the compute dtype; else integers stay what they are.
    casts: bool,
    /// Whether segmentation masks do.
    casts_masks: bool,
    /// Whether Keras casts floats before the layer runs.
    converts: bool,
    takes: Takes,
}

impl Class {
    const fn new(name: &'static str, settings: &'static [&'static str]) -> Self {
        Self { name, settings, casts: false, casts_masks: false, converts: true, takes: Takes::ALL }
    }

    const fn casting(self) -> Self {
        Self { casts: true, ..self }
    }

    const fn casting_masks(self) -> Self {
        Self { casts_masks: true, ..self }
    }

    /// Keras: it has `_convert_input_args = False`.
    const fn not_converting(self) -> Self {
        Self { converts: false, ..self }
    }

    const fn without_boxes(self) -> Self {
        Self { takes: Takes { boxes: false, ..self.takes }, ..self }
    }

    /// Keras: its `compute_output_shape` or spec does not know dicts, so that no graph has it called on one.
    const fn without_dicts(self) -> Self {
        Self { takes: Takes { dicts: false, ..self.takes }, ..self }
    }
}

const CLASSES: [Class; 25] = [
    Class::new("AugMix", &["value_range", "num_chains", "chain_depth", "factor", "alpha", "all_ops", "interpolation"])
        .casting(),
    Class::new("CutMix", &["factor"]).casting().casting_masks().without_boxes(),
    Class::new("Equalization", &["value_range", "bins"]),
    Class::new("MixUp", &["alpha"]),
    Class::new("RandAugment", &["value_range", "num_ops", "factor", "interpolation"]).casting(),
    Class::new("RandomBrightness", &["factor", "value_range"]),
    Class::new("RandomColorDegeneration", &["factor", "value_range"]).without_dicts(),
    Class::new(
        "RandomColorJitter",
        &["value_range", "brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"],
    ),
    Class::new("RandomContrast", &["factor", "value_range"]),
    Class::new(
        "RandomElasticTransform",
        &["factor", "scale", "interpolation", "fill_mode", "fill_value", "value_range"],
    )
    .casting()
    .without_boxes(),
    Class::new("RandomErasing", &["factor", "scale", "fill_value", "value_range"]).casting(),
    Class::new("RandomFlip", &["mode"]).casting().casting_masks().not_converting(),
    Class::new("RandomGaussianBlur", &["factor", "kernel_size", "sigma", "value_range"]).casting(),
    Class::new("RandomGrayscale", &["factor"]).without_dicts(),
    Class::new("RandomHue", &["factor", "value_range"]),
    Class::new("RandomInvert", &["factor", "value_range"]),
    Class::new("RandomPerspective", &["factor", "scale", "interpolation", "fill_value"]).casting(),
    Class::new("RandomPosterization", &["factor", "value_range"]),
    Class::new("RandomRotation", &["factor", "fill_mode", "fill_value", "interpolation"]).casting(),
    Class::new("RandomSaturation", &["factor", "value_range"]),
    Class::new("RandomSharpness", &["factor", "value_range"]).casting(),
    Class::new("RandomShear", &["x_factor", "y_factor", "interpolation", "fill_mode", "fill_value"]).casting(),
    Class::new("RandomTranslation", &["height_factor", "width_factor", "fill_mode", "interpolation", "fill_value"])
        .casting(),
    Class::new("RandomZoom", &["height_factor", "width_factor", "fill_mode", "interpolation", "fill_value"]).casting(),
    Class::new("Solarization", &["value_range", "addition_factor", "threshold_factor"]).casting(),
];

/// A layer of class number `CLASS` of the table.
#[derive(Debug)]
pub(in super::super) struct Augmentation<const CLASS: usize> {
    common: Common,
}

impl<const CLASS: usize> Augmentation<CLASS> {
    #[allow(clippy::indexing_slicing, reason = "checked when the program is built")]
    const CLASS_OF: &'static Class = &CLASSES[CLASS];
    /// Keras's name of the class.
    pub(in super::super) const NAME: &'static str = Self::CLASS_OF.name;
}

impl<const CLASS: usize> KerasLayer for Augmentation<CLASS> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(Self::CLASS_OF.settings);
        fields.training_only(&["seed"]);
        let common = Common::read(fields, Self::CLASS_OF.takes);
        Self { common: Common { converts: Self::CLASS_OF.converts, ..common } }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let compute = given.policy().compute;
        let part = |casts: bool| {
            move |input: &Spec| Ok(if casts { Spec { dtype: compute, ..input.clone() } } else { input.clone() })
        };
        self.common.output(given, part(Self::CLASS_OF.casts), part(Self::CLASS_OF.casts_masks))
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        let part =
            |casts: bool| move |input: &Value| if casts { cast_to_compute(input, policy) } else { Ok(input.clone()) };
        self.common.forward(call, part(Self::CLASS_OF.casts), part(Self::CLASS_OF.casts_masks))
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

/// `keras.layers.RandomCrop`: nothing either, in any dtype.
///
/// Keras: at inference the images are not cropped, though the layer says they are of the size it crops to. Of a dict of two
/// keys, with channels first, the first tensor comes out, and no other dict has a graph. Keras 2 took a centred crop of the
/// target's aspect ratio and resized it, which is refused. Inside a Pipeline all of a dict comes out.
#[derive(Debug)]
pub(in super::super) struct RandomCrop {
    height: usize,
    width: usize,
    common: Common,
}

impl KerasLayer for RandomCrop {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["seed", "factor"]);
        if fields.keras_major() < 3 {
            fields.refuse("before Keras 2.7 it resizes and crops images, which is not supported");
        }
        let (height, width) = (fields.size("height"), fields.size("width"));
        Self { height, width, common: Common::read(fields, Takes::ALL) }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let spec = |(part, number): (Part, usize)| {
            let input = given.at(&Argument::Tensor(number)).ok_or_else(|| cannot("an input is missing"))?;
            match part {
                Part::Images => {}
                Part::Masks if self.common.is_inner => {
                    let spec = Spec { dtype: given.policy().compute, ..input.clone() };
                    return Ok(resized_spec(&spec, self.height, self.width, self.common.channels_first));
                }
                Part::Boxes => return Ok(Spec { dtype: Dtype::Float32, ..input.clone() }),
                _ => return Ok(input.clone()),
            }
            let Shape(mut axes) = input.shape.clone();
            let (row, column) = places(axes.len(), self.common.channels_first);
            for (place, size) in [(row, self.height), (column, self.width)] {
                if let Some(axis @ None) = axes.get_mut(place) {
                    *axis = Some(size);
                }
            }
            Ok(input.with_shape(Shape(axes)))
        };
        self.parts(given).map_err(cannot)?.into_iter().map(spec).collect()
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let run = |(part, number): (Part, usize)| match call.given.at(&Argument::Tensor(number)) {
            Some(boxes) if part == Part::Boxes => cast(boxes, Dtype::Float32),
            Some(masks) if part == Part::Masks && self.common.is_inner => self.cropped(masks, call.given.policy()),
            Some(input) => Ok(input.clone()),
            None => candle_core::bail!("an input is missing"),
        };
        self.parts(call.given).map_err(candle_core::Error::msg)?.into_iter().map(run).collect()
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl RandomCrop {
    fn parts<T>(&self, given: Given<'_, T>) -> Result<Vec<(Part, usize)>, String> {
        let mut parts = self.common.parts(given)?;
        if let Some(Argument::Mapping(items)) = given.argument("data")
            && !self.common.is_inner
        {
            if items.len() != 2 || !self.common.channels_first {
                return Err("called with a dict that Keras cannot plan either".to_owned());
            }
            parts.truncate(1);
        }
        Ok(parts)
    }

    /// Keras: segmentation masks are cropped and resized at inference too, though their images are not: from where a crop of
    /// the target's aspect ratio begins, as far as it would reach in training.
    fn cropped(&self, masks: &Value, policy: &Policy) -> candle_core::Result<Value> {
        let masks = cast(masks, policy.compute)?;
        let images = batched(&masks.tensor, self.common.channels_first)?;
        let (_, height, width, _) = images.dims4()?;
        let scaled = |size: usize, by: usize, over: usize| (size as f64 * by as f64 / over as f64) as usize;
        let start = |size: usize, crop: usize| size.saturating_sub(crop.min(size).max(1)) / 2;
        let row = start(height, scaled(width, self.height, self.width));
        let column = start(width, scaled(height, self.width, self.height));
        let images = images.narrow(1, row, self.height.min(height - row))?;
        let images = images.narrow(2, column, self.width.min(width - column))?.contiguous()?;
        let (_, height, width, _) = images.dims4()?;
        let images = match (height, width) == (self.height, self.width) {
            true => images,
            false => resize(&images, self.height, self.width, Interpolation::Bilinear, false)?,
        };
        let images = unbatched(&images, masks.tensor.rank(), self.common.channels_first)?;
        cast(&Value::new(images.clone(), dtype_of(&images)?), policy.compute)
    }
}
