//! keras/src/layers/regularization

mod dropout;

pub(crate) use dropout::Dropout;
