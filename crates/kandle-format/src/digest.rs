//! The digest of the weights: whether two files hold the same numbers, whatever else is in them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::{Archive, Array, Dtype, Result};

/// What a file keeps for training: the state of the optimizer and of metrics.
const FOR_TRAINING: [&str; 4] = ["optimizer", "optimizer_weights", "metrics", "_metrics"];

impl Archive {
    /// The digest of the weights, `sha256:` and 64 hexadecimal digits: equal where every array has the same path, dtype, shape
    /// and bits. How the file is packed does not count, and neither do the configuration and what is kept for training.
    ///
    /// SHA-256 over the arrays, sorted by path: for each the path, a zero byte, numpy's name of the dtype (`<f4`), a zero
    /// byte, the shape (`128,64`), a zero byte, and the numbers, little-endian and row-major. Paths are those in the file of
    /// weights, without `model_weights/` in a legacy file. Vocabularies and other assets stand among them with their bytes as
    /// numbers (`|u1`). `reference_outputs/record.py` computes the same.
    ///
    /// It reads all numbers: about a second for 1 GB.
    ///
    /// # Errors
    /// As [`Array::dtype`] and [`Array::bytes`].
    pub fn weights_digest(&self) -> Result<String> {
        let arrays = self.arrays();
        let within = |path: &str| arrays.stored(path).strip_prefix(self.legacy_root()).map(str::to_owned);
        let mut entries: Vec<(String, Entry<'_>)> = arrays
            .paths()
            .filter_map(|path| Some((within(path)?, Entry::Array(arrays.array(path)?))))
            .filter(|(path, _)| !FOR_TRAINING.contains(&path.split('/').next().unwrap_or_default()))
            .chain(self.own_assets().map(|(path, bytes)| (format!("assets/{path}"), Entry::Asset(bytes))))
            .collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut digest = Sha256::new();
        for (path, entry) in entries {
            let mut add = |dtype: &str, shape: &[usize], bytes: &[u8]| {
                let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                for part in [path.as_bytes(), dtype.as_bytes(), shape.as_bytes()] {
                    digest.update(part);
                    digest.update([0]);
                }
                digest.update(bytes);
            };
            match entry {
                Entry::Array(array) => add(numpy_name(array.dtype()?), array.shape(), &array.bytes()?),
                Entry::Asset(bytes) => add("|u1", &[bytes.len()], bytes),
            }
        }
        let mut text = "sha256:".to_owned();
        digest.finalize().iter().try_for_each(|byte| write!(text, "{byte:02x}")).unwrap_or_default();
        Ok(text)
    }
}

enum Entry<'a> {
    Array(Array<'a>),
    Asset(&'a [u8]),
}

/// What numpy calls the little-endian dtype as h5py reads it; a bfloat16 is two opaque bytes.
fn numpy_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "|b1",
        Dtype::Int8 => "|i1",
        Dtype::Int16 => "<i2",
        Dtype::Int32 => "<i4",
        Dtype::Int64 => "<i8",
        Dtype::Uint8 => "|u1",
        Dtype::Uint16 => "<u2",
        Dtype::Uint32 => "<u4",
        Dtype::Uint64 => "<u8",
        Dtype::Float16 => "<f2",
        Dtype::Bfloat16 => "|V2",
        Dtype::Float32 => "<f4",
        Dtype::Float64 => "<f8",
        Dtype::String => "|O",
    }
}
