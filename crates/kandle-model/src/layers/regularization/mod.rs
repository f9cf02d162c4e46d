//! Regularization layers.

mod dropout;

use crate::registry::{Family, Registered, layer};
use dropout::Dropout;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[layer::<Dropout>("Dropout", Family::Regularization)];
