//! Activation layers.

mod activation;
mod leaky_relu;
mod relu;

use crate::registry::{Family, Registered, layer};
use activation::ActivationLayer;
use leaky_relu::LeakyRelu;
pub(crate) use relu::Relu;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<ActivationLayer>("Activation", Family::Activations),
    layer::<LeakyRelu>("LeakyReLU", Family::Activations),
    layer::<Relu>("ReLU", Family::Activations),
];
