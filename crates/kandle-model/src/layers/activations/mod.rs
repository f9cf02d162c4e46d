//! Activation layers.

mod activation;
mod elu;
mod leaky_relu;
mod prelu;
mod relu;
mod softmax;

use crate::registry::{Family, Registered, layer};
use activation::ActivationLayer;
use elu::Elu;
use leaky_relu::LeakyRelu;
use prelu::PRelu;
pub(crate) use relu::Relu;
use softmax::Softmax;
pub(crate) use softmax::{Masked, softmax};

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<ActivationLayer>("Activation", Family::Activations),
    layer::<Elu>("ELU", Family::Activations),
    layer::<LeakyRelu>("LeakyReLU", Family::Activations),
    layer::<PRelu>("PReLU", Family::Activations),
    layer::<Relu>("ReLU", Family::Activations),
    layer::<Softmax>("Softmax", Family::Activations),
];
