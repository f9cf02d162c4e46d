//! Attention layers.

#[expect(clippy::module_inception, reason = "Keras's folder and its layer have one name")]
mod attention;
mod multi_head_attention;
mod scores;

use crate::registry::{Family, Registered, layer};
use attention::Attention;
use multi_head_attention::MultiHeadAttention;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Attention<true>>("AdditiveAttention", Family::Attention),
    layer::<Attention<false>>("Attention", Family::Attention),
    layer::<MultiHeadAttention<true>>("GroupQueryAttention", Family::Attention),
    // Keras: the name of the Python class, which legacy files have.
    layer::<MultiHeadAttention<true>>("GroupedQueryAttention", Family::Attention),
    layer::<MultiHeadAttention<false>>("MultiHeadAttention", Family::Attention),
];
