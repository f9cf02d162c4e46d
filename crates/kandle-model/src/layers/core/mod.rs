//! Core layers.

mod dense;
mod einsum_dense;
mod embedding;
mod identity;
mod masking;
mod reversible_embedding;

use crate::registry::{Family, Registered, layer};
use dense::Dense;
use einsum_dense::EinsumDense;
use embedding::Embedding;
use identity::Identity;
use masking::MaskingLayer;
use reversible_embedding::ReversibleEmbedding;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Dense>("Dense", Family::Core),
    layer::<EinsumDense>("EinsumDense", Family::Core),
    layer::<Embedding>("Embedding", Family::Core),
    layer::<Identity>("Identity", Family::Core),
    layer::<MaskingLayer>("Masking", Family::Core),
    layer::<ReversibleEmbedding>("ReversibleEmbedding", Family::Core),
];
