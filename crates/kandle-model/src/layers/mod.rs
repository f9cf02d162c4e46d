//! One file a layer, in the folders that Keras has them in.

mod activations;
mod attention;
mod convolutional;
mod core;
mod merging;
mod normalization;
mod pooling;
mod preprocessing;
mod regularization;
mod reshaping;
mod rnn;

pub(crate) use activations::Relu;
use kandle_format::{ErrorKind, Problem};

use crate::{Given, Spec, registry::Registered};

/// Every layer class that is reproduced, a table for each folder. `InputLayer` computes nothing and is the plan's own.
pub(crate) const FAMILIES: &[&[Registered]] = &[
    core::LAYERS,
    activations::LAYERS,
    convolutional::LAYERS,
    pooling::LAYERS,
    normalization::LAYERS,
    merging::LAYERS,
    reshaping::LAYERS,
    regularization::LAYERS,
    rnn::LAYERS,
    attention::LAYERS,
    preprocessing::LAYERS,
];

/// The input of a layer that takes one.
fn one<'a>(given: Given<'a, Spec>) -> Result<&'a Spec, Problem> {
    given.input().map_err(cannot)
}

/// The input of a layer that takes one, of floats.
fn one_float<'a>(given: Given<'a, Spec>) -> Result<&'a Spec, Problem> {
    let input = one(given)?;
    if input.dtype.is_float() {
        return Ok(input);
    }
    Err(Problem::new(ErrorKind::Unsupported, "", format!("an input of {} is not supported (only floats)", input.dtype)))
}

/// A problem that Keras would have with these inputs too.
fn cannot(what: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "", what.into())
}
