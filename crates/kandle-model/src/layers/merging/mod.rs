//! Merging layers.

mod arithmetic;
mod concatenate;
mod dot;
mod elementwise;

use crate::registry::{Family, Registered, layer};
use concatenate::Concatenate;
use dot::Dot;
use elementwise::{Add, Average, Elementwise, Maximum, Minimum, Multiply, Subtract};

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
