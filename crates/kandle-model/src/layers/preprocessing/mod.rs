//! Preprocessing layers.

mod category_encoding;
mod discretization;
mod encode;
mod feature_space;
mod fingerprint;
mod hashed_crossing;
mod hashing;
mod image;
mod index_lookup;
mod mel_spectrogram;
mod normalization;
mod pipeline;
mod rescaling;
mod stft_spectrogram;
mod text_vectorization;

use kandle_format::Dtype;

use crate::{
    Fields, Policy, Value,
    numeric::cast,
    registry::{Family, Registered, layer},
};
use category_encoding::CategoryEncoding;
use discretization::Discretization;
use feature_space::{TfdConcat, TfdIdentity};
use hashed_crossing::HashedCrossing;
use hashing::Hashing;
use image::{
    Augmentation, AutoContrast, CenterCrop, ContrastLimitedAdaptiveHistogramEqualization, MaxNumBoundingBoxes,
    RandomCrop, Resizing,
};
use index_lookup::{IndexLookup, IntegerLookup, StringLookup};
use mel_spectrogram::MelSpectrogram;
use normalization::Normalization;
use pipeline::Pipeline;
use rescaling::Rescaling;
use stft_spectrogram::StftSpectrogram;
use text_vectorization::TextVectorization;

/// The augmentation of line `CLASS` of its table.
const fn augmentation<const CLASS: usize>() -> Registered {
    layer::<Augmentation<CLASS>>(Augmentation::<CLASS>::NAME, Family::Preprocessing)
}

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Rescaling>("Rescaling", Family::Preprocessing),
    layer::<Normalization>("Normalization", Family::Preprocessing),
    layer::<Discretization>("Discretization", Family::Preprocessing),
    layer::<CategoryEncoding>("CategoryEncoding", Family::Preprocessing),
    layer::<Hashing>("Hashing", Family::Preprocessing),
    layer::<HashedCrossing>("HashedCrossing", Family::Preprocessing),
    layer::<IndexLookup>("IndexLookup", Family::Preprocessing),
    layer::<IntegerLookup>("IntegerLookup", Family::Preprocessing),
    layer::<StringLookup>("StringLookup", Family::Preprocessing),
    layer::<TextVectorization>("TextVectorization", Family::Preprocessing),
    layer::<MelSpectrogram>("MelSpectrogram", Family::Preprocessing),
    layer::<StftSpectrogram>("STFTSpectrogram", Family::Preprocessing),
    layer::<TfdConcat>("TFDConcat", Family::Preprocessing),
    layer::<TfdIdentity>("TFDIdentity", Family::Preprocessing),
    layer::<Pipeline>("Pipeline", Family::Preprocessing),
    layer::<CenterCrop>("CenterCrop", Family::Preprocessing),
    layer::<Resizing>("Resizing", Family::Preprocessing),
    layer::<MaxNumBoundingBoxes>("MaxNumBoundingBoxes", Family::Preprocessing),
    layer::<AutoContrast>("AutoContrast", Family::Preprocessing),
    layer::<ContrastLimitedAdaptiveHistogramEqualization>(
        "ContrastLimitedAdaptiveHistogramEqualization",
        Family::Preprocessing,
    ),
    layer::<RandomCrop>("RandomCrop", Family::Preprocessing),
    augmentation::<0>(),
    augmentation::<1>(),
    augmentation::<2>(),
    augmentation::<3>(),
    augmentation::<4>(),
    augmentation::<5>(),
    augmentation::<6>(),
    augmentation::<7>(),
    augmentation::<8>(),
    augmentation::<9>(),
    augmentation::<10>(),
    augmentation::<11>(),
    augmentation::<12>(),
    augmentation::<13>(),
    augmentation::<14>(),
    augmentation::<15>(),
    augmentation::<16>(),
    augmentation::<17>(),
    augmentation::<18>(),
    augmentation::<19>(),
    augmentation::<20>(),
    augmentation::<21>(),
    augmentation::<22>(),
    augmentation::<23>(),
    augmentation::<24>(),
];

/// An input as Keras's layers get it: floats in the compute dtype, integers too where that is one of these.
fn converted(value: &Value, compute: Dtype) -> candle_core::Result<Value> {
    match value.dtype.is_float() && value.dtype != compute {
        true => Ok(cast(value, compute)?.with_mask(None)),
        false => Ok(value.clone()),
    }
}

/// An input in the compute dtype, whatever it was.
fn computed(value: &Value, policy: &Policy) -> candle_core::Result<Value> {
    Ok(cast(value, policy.compute)?.with_mask(None))
}

/// Refuses policies under which the layer would compute in integers.
fn float_policy(fields: &mut Fields<'_>) {
    if !fields.policy().compute.is_float() {
        let compute = fields.policy().compute;
        fields.refuse(format!("dtype = {compute} is not supported for this layer (only floats)"));
    }
}
