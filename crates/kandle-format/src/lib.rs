//! Keras's files as named arrays and JSON.
//!
//! [`Archive::open`] recognises a file by its content (never by its name), reads the words (versions and the
//! configuration) and lists the arrays. Array data stays in the memory-mapped file until it is asked for.
//!
//! | file | holds |
//! |---|---|
//! | `.keras` | a zip of `metadata.json`, `config.json` and `model.weights.h5`, or a folder of them |
//! | `.weights.h5`, or `.weights.json` with the files it names | arrays only, in HDF5 |
//! | legacy whole-model `.h5` | configuration and arrays, in HDF5 |
//! | legacy `.h5` of weights alone | arrays only, in HDF5 |
//! | the text of `model.to_json()` | configuration only |
//!
//! This crate knows no layer and no candle. Its input is bytes from anywhere: it never panics on them, what it
//! allocates is bounded by [`Limits`], and everything that goes wrong is an [`Error`] with coordinates.

mod archive;
mod arrays;
mod bytes;
mod config;
mod container;
mod digest;
mod dtype;
mod error;
mod folder;
mod hdf5_file;
pub mod json;
mod limits;
mod members;
mod shards;
mod text;
mod zip_file;

pub use archive::Archive;
pub use arrays::Arrays;
pub use bytes::Bytes;
pub use config::{LayerConfig, ModelConfig, keras_major};
pub use container::Container;
pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Problem, Result};
pub use hdf5_file::Array;
use hdf5_file::Hdf5File;
pub use limits::Limits;
pub use text::{nearest, shown};
