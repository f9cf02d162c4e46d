//! Core layers.

mod dense;
mod embedding;

use crate::registry::{Family, Registered, layer};
use dense::Dense;
use embedding::Embedding;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] =
    &[layer::<Dense>("Dense", Family::Core), layer::<Embedding>("Embedding", Family::Core)];
