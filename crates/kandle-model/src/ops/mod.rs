//! The operations of `keras.ops` that occur as nodes of a Functional graph, in files by what they do.
//!
//! An operation is one line of a table, [`Operation`]: its class, what it is called on, the keys of its configuration, the
//! rule of what comes out, and what it computes. Keras's own rule for the planned dtype and what TensorFlow gives may
//! differ; each is reproduced where it counts, in `output` and in `forward`.

mod activations;
mod arithmetic;
mod attention;
mod bitwise;
mod blocks;
mod comparison;
mod core;
mod ctc;
mod curves;
mod elementwise;
mod found;
mod fourier;
mod functions;
pub(crate) mod host;
mod image;
mod integers;
mod joining;
mod linear_algebra;
mod losses;
mod lowered;
mod matrices;
mod moving;
mod normalization;
mod operand;
mod operation;
mod ordering;
mod picking;
mod products;
mod promotion;
mod quantiles;
mod reduction;
mod rounding;
mod sampling;
mod scaling;
mod settings;
mod shapes;
mod singular;
mod spaces;
pub(crate) mod tensorflow;
mod views;
mod windows;
mod without_nan;

use kandle_format::{ErrorKind, Problem};

pub(crate) use integers::Integers;
pub(crate) use operand::{Known, Operand, Scalar};
pub(crate) use operation::{Node, Operation, convert, floats, one, operation, probe, rounded};
pub(crate) use promotion::{Kind, result_type};
pub(crate) use settings::{Setting, Settings};

/// Every operation that is reproduced, a table for each file.
pub(crate) static OPERATIONS: &[&[Operation]] = &[
    arithmetic::OPERATIONS,
    curves::OPERATIONS,
    rounding::OPERATIONS,
    comparison::OPERATIONS,
    bitwise::OPERATIONS,
    moving::OPERATIONS,
    joining::OPERATIONS,
    ordering::OPERATIONS,
    reduction::OPERATIONS,
    products::OPERATIONS,
    picking::OPERATIONS,
    activations::OPERATIONS,
    windows::OPERATIONS,
    losses::OPERATIONS,
    normalization::OPERATIONS,
    attention::OPERATIONS,
    functions::OPERATIONS,
    core::OPERATIONS,
    image::OPERATIONS,
    sampling::OPERATIONS,
    without_nan::OPERATIONS,
    quantiles::OPERATIONS,
    spaces::OPERATIONS,
    found::OPERATIONS,
    fourier::OPERATIONS,
    linear_algebra::OPERATIONS,
    blocks::OPERATIONS,
    views::OPERATIONS,
    ctc::OPERATIONS,
    scaling::OPERATIONS,
];

/// Something that Keras itself would not accept.
pub(crate) fn invalid(what: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "", what)
}
