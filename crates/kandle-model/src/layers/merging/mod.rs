//! Merging layers.

use crate::registry::Registered;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[];
