//! keras/src/layers/activations

mod activation;
mod leaky_relu;
mod relu;

pub(crate) use activation::ActivationLayer;
pub(crate) use leaky_relu::LeakyRelu;
pub(crate) use relu::Relu;
