//! Merging layers.

mod arithmetic;
mod concatenate;
mod dot;
mod elementwise;

use crate::{
    Fields,
    registry::{Family, Registered, layer},
};
use concatenate::Concatenate;
use dot::Dot;
use elementwise::{Add, Average, Elementwise, Maximum, Minimum, Multiply, Subtract};

/// What the version of Keras that wrote a layer makes of the masks of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masks {
    /// An entry counts where any mask allows it, and masks change values; from 3.4 on.
    Any,
    /// Nothing; from 3.0 to 3.3.
    None,
    /// An entry counts where all masks that there are allow it; before 3.
    All,
}

impl Masks {
    fn read(fields: &Fields<'_>) -> Self {
        match (fields.is_from([3, 4, 0]), fields.keras_major()) {
            (true, _) => Self::Any,
            (false, 3..) => Self::None,
            (false, _) => Self::All,
        }
    }
}

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Elementwise<Add>>("Add", Family::Merging),
    layer::<Elementwise<Average>>("Average", Family::Merging),
    layer::<Concatenate>("Concatenate", Family::Merging),
    layer::<Dot>("Dot", Family::Merging),
    layer::<Elementwise<Maximum>>("Maximum", Family::Merging),
    layer::<Elementwise<Minimum>>("Minimum", Family::Merging),
    layer::<Elementwise<Multiply>>("Multiply", Family::Merging),
    layer::<Elementwise<Subtract>>("Subtract", Family::Merging),
];
