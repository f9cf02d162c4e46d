//! Keras's files as named arrays and JSON.
//!
//! [`Archive::open`] recognises a file by its content (never by its name), reads the words (versions and the
//! configuration) and lists the arrays. Array data stays in the memory-mapped file until it is asked for.
//!
//! | file | holds |
//! |---|---|
//! | `.keras` | a zip of `metadata.json`, `config.json` and `model.weights.h5` |
//! | `.weights.h5` | arrays only, in HDF5 |
//! | legacy whole-model `.h5` | configuration and arrays, in HDF5 |
//!
//! This crate knows no layer and no candle. Its input is bytes from anywhere: it never panics on them, what it
//! allocates is bounded by [`Limits`], and everything that goes wrong is an [`Error`] with coordinates.

mod archive;
mod bytes;
mod config;
mod dtype;
mod error;
mod hdf5_file;
pub mod json;
mod limits;
mod text;
mod zip_file;

pub use archive::{Archive, Container};
pub use bytes::Bytes;
pub use config::{LayerConfig, ModelConfig, keras_major};
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Problem, Result};
pub use hdf5_file::{Array, Hdf5File};
pub use limits::Limits;
pub use text::{nearest, shown};
