//! keras/src/layers/reshaping

mod flatten;
mod reshape;

pub(crate) use flatten::Flatten;
pub(crate) use reshape::Reshape;
