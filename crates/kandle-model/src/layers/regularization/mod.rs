//! Regularization layers.

mod inactive;
mod spatial_dropout;

use crate::registry::{Family, Registered, layer};
use inactive::Inactive;
use spatial_dropout::SpatialDropout;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Inactive>("ActivityRegularization", Family::Regularization),
    layer::<Inactive>("AlphaDropout", Family::Regularization),
    layer::<Inactive>("Dropout", Family::Regularization),
    layer::<Inactive>("GaussianDropout", Family::Regularization),
    layer::<Inactive>("GaussianNoise", Family::Regularization),
    layer::<SpatialDropout<1>>("SpatialDropout1D", Family::Regularization),
    layer::<SpatialDropout<2>>("SpatialDropout2D", Family::Regularization),
    layer::<SpatialDropout<3>>("SpatialDropout3D", Family::Regularization),
];
