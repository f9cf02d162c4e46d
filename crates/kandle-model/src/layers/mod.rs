//! One file a layer, in the folders that Keras has them in.

mod activations;
mod applications;
mod attention;
mod convolutional;
mod core;
mod legacy;
mod merging;
mod normalization;
mod pooling;
mod preprocessing;
mod regularization;
mod reshaping;
mod rnn;
mod spatial;

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
    applications::LAYERS,
    legacy::LAYERS,
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
pub(crate) fn cannot(what: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "", what.into())
}

/// The place of axis number `axis` among `rank`, where a negative one counts from the end.
fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let found = if axis < 0 { axis.checked_add(i64::try_from(rank).unwrap_or(i64::MAX)) } else { Some(axis) };
    let found = found.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
    found.ok_or_else(|| format!("axis {axis} does not exist in {rank} axes"))
}

/// The places of `axes` among `rank`, each once.
pub(crate) fn axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let places = axes.iter().map(|number| axis(*number, rank)).collect::<Result<Vec<_>, _>>()?;
    if places.is_empty() {
        return Err("expected axes, found none".to_owned());
    }
    match places.iter().enumerate().find(|(number, place)| places.iter().take(*number).any(|before| before == *place)) {
        Some((_, place)) => Err(format!("axis {place} is given twice")),
        None => Ok(places),
    }
}
