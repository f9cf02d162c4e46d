//! Regularization layers.

mod dropout;
mod noise;
mod spatial_dropout;

use crate::registry::{Family, Registered, layer};
use dropout::Dropout;
use noise::{ActivityRegularization, Noise};
use spatial_dropout::SpatialDropout;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<ActivityRegularization>("ActivityRegularization", Family::Regularization),
    layer::<Noise>("AlphaDropout", Family::Regularization),
    layer::<Dropout>("Dropout", Family::Regularization),
    layer::<Noise>("GaussianDropout", Family::Regularization),
    layer::<Noise>("GaussianNoise", Family::Regularization),
    layer::<SpatialDropout<1>>("SpatialDropout1D", Family::Regularization),
    layer::<SpatialDropout<2>>("SpatialDropout2D", Family::Regularization),
    layer::<SpatialDropout<3>>("SpatialDropout3D", Family::Regularization),
];
