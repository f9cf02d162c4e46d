//! One file a layer, in the folders that Keras has them in.

pub(crate) mod activations;
pub(crate) mod core;
pub(crate) mod regularization;
pub(crate) mod reshaping;

use kandle_format::{ErrorKind, Problem};

use crate::Spec;

/// The input of a layer that takes one.
fn one(inputs: &[Spec]) -> Result<&Spec, Problem> {
    match inputs {
        [input] => Ok(input),
        inputs => Err(cannot(format!("expected one input, found {}", inputs.len()))),
    }
}

/// The input of a layer that takes one, of floats.
fn one_float(inputs: &[Spec]) -> Result<&Spec, Problem> {
    let input = one(inputs)?;
    if input.dtype.is_float() {
        return Ok(input);
    }
    Err(Problem::new(ErrorKind::Unsupported, "", format!("an input of {} is not supported (only floats)", input.dtype)))
}

/// A problem that Keras would have with these inputs too.
fn cannot(what: String) -> Problem {
    Problem::new(ErrorKind::Invalid, "", what)
}
