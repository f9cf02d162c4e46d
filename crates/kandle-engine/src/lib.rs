//! Keras models compiled for the CPU.
//!
//! [`Model`](kandle_model::Model) says what a model means, one candle operation after the other; an [`Engine`] gives the same
//! numbers fast. The way from the one to the other, a file each:
//!
//! model → `graph.rs` (layers as [primitives](kandle_model::primitive), masks resolved) → `passes/` (folded and fused) →
//! `choose.rs` (kernels with packed weights), `placing.rs` (where everything lies) → `program.rs` (put together and run) →
//! `engine.rs` (what others see)
//!
//! What has no primitives is called as the model calls it, between kernels: an engine runs every model that runs at all.

mod choose;
mod compiled;
mod dims;
mod engine;
mod graph;
mod kernel;
mod masks;
mod memory;
mod passes;
mod placing;
mod program;
mod threads;

use std::fmt;

pub use compiled::{Compiled, Instruction};
pub use engine::{Compile, CompileFile, Engine, Options, View};

/// Why a program stopped. The caller then asks the model, which says it with the layer's name, or knows better.
#[derive(Debug, Clone)]
pub(crate) struct Failure(String);

impl Failure {
    /// Something that was not foreseen when the program was made.
    pub(crate) fn unforeseen(what: &str) -> Self {
        Self(what.to_owned())
    }

    /// What somebody else said.
    pub(crate) fn told(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::told(error)
    }
}
