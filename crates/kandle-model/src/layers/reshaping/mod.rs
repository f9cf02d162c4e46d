//! Reshaping layers.

mod flatten;
mod reshape;

use crate::registry::{Family, Registered, layer};
use flatten::Flatten;
use reshape::Reshape;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] =
    &[layer::<Flatten>("Flatten", Family::Reshaping), layer::<Reshape>("Reshape", Family::Reshaping)];
