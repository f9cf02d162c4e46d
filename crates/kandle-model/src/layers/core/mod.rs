//! keras/src/layers/core

mod dense;
mod embedding;

pub(crate) use dense::Dense;
pub(crate) use embedding::Embedding;
