use crate::{
    Fields, KerasLayer,
    layers::{
        activations::{ActivationLayer, LeakyRelu, Relu},
        core::{Dense, Embedding},
        regularization::Dropout,
        reshaping::{Flatten, Reshape},
    },
};

/// A layer class that is reproduced.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// Keras's name of the class.
    pub class: &'static str,
    /// The folder Keras has it in.
    pub family: Family,
    pub(crate) read: fn(&mut Fields<'_>) -> Box<dyn KerasLayer>,
}

/// Keras's folders of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the folder it prints")]
pub enum Family {
    Core,
    Activations,
    Reshaping,
    Regularization,
}

impl Family {
    /// The folder's name: `core`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Activations => "activations",
            Self::Reshaping => "reshaping",
            Self::Regularization => "regularization",
        }
    }
}

/// Every layer class that is reproduced, one line each. `InputLayer` computes nothing and is the plan's own.
const LAYERS: &[Registered] = &[
    layer::<Dense>("Dense", Family::Core),
    layer::<Embedding>("Embedding", Family::Core),
    layer::<ActivationLayer>("Activation", Family::Activations),
    layer::<Relu>("ReLU", Family::Activations),
    layer::<LeakyRelu>("LeakyReLU", Family::Activations),
    layer::<Flatten>("Flatten", Family::Reshaping),
    layer::<Reshape>("Reshape", Family::Reshaping),
    layer::<Dropout>("Dropout", Family::Regularization),
];

const fn layer<L: KerasLayer + 'static>(class: &'static str, family: Family) -> Registered {
    Registered { class, family, read: |fields| Box::new(L::read(fields)) }
}

/// Every layer class that is reproduced, in the order of the README.
#[must_use]
pub fn layers() -> &'static [Registered] {
    LAYERS
}

pub(crate) fn find(class: &str) -> Option<&'static Registered> {
    LAYERS.iter().find(|layer| layer.class == class)
}
