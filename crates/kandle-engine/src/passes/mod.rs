//! What makes a graph smaller before it becomes a program. One file a pass; each keeps every number but for rounding.

mod affine;
mod common;
mod constants;
mod identities;
mod maps;
mod once;
mod pads;
mod projections;
mod rows;
mod sums;
mod taps;

use kandle_model::Model;

use crate::{Options, graph::Graph};

/// All passes, in the order that serves them.
///
/// # Errors
/// What candle reports of the weights.
pub(crate) fn apply(graph: &mut Graph, model: &Model, options: &Options) -> candle_core::Result<()> {
    identities::remove(graph);
    constants::fold(graph, model);
    common::share(graph, model.plan());
    affine::fold(graph)?;
    pads::fuse(graph);
    once::give(graph);
    sums::fuse(graph);
    maps::fuse(graph);
    projections::take_out(graph, options)?;
    rows::fold(graph, options)?;
    taps::fold(graph, options)
}
