//! Reshaping layers.

mod cropping;
mod flatten;
mod margins;
mod permute;
mod repeat_vector;
mod reshape;
mod up_sampling;
mod zero_padding;

use crate::registry::{Family, Registered, layer};
use cropping::Cropping;
use flatten::Flatten;
use permute::Permute;
use repeat_vector::RepeatVector;
use reshape::Reshape;
use up_sampling::UpSampling;
use zero_padding::ZeroPadding;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Cropping<1>>("Cropping1D", Family::Reshaping),
    layer::<Cropping<2>>("Cropping2D", Family::Reshaping),
    layer::<Cropping<3>>("Cropping3D", Family::Reshaping),
    layer::<Flatten>("Flatten", Family::Reshaping),
    layer::<Permute>("Permute", Family::Reshaping),
    layer::<RepeatVector>("RepeatVector", Family::Reshaping),
    layer::<Reshape>("Reshape", Family::Reshaping),
    layer::<UpSampling<1>>("UpSampling1D", Family::Reshaping),
    layer::<UpSampling<2>>("UpSampling2D", Family::Reshaping),
    layer::<UpSampling<3>>("UpSampling3D", Family::Reshaping),
    layer::<ZeroPadding<1>>("ZeroPadding1D", Family::Reshaping),
    layer::<ZeroPadding<2>>("ZeroPadding2D", Family::Reshaping),
    layer::<ZeroPadding<3>>("ZeroPadding3D", Family::Reshaping),
];
