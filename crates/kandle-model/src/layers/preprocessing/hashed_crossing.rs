//! `keras.layers.HashedCrossing`: the bucket of several features together.
//!
//! Shapes: two or more features `(batch,)` or `(batch, 1)` of strings or integers, buckets of the same shape, int64, or
//! one-hot `(batch, num_bins)`. In 5 buckets, `["A", "B"]` with `[101, 101]` are `[1, 4]`.
//!
//! Source: keras/src/layers/preprocessing/hashed_crossing.py; tensorflow/core/kernels/sparse_cross_op.cc.

use kandle_format::{Dtype, Problem};

use crate::{Call, Fields, Given, KerasLayer, Spec, Value, layers::cannot, numeric::cast};

use super::{
    encode::{OutputMode, encode},
    fingerprint::{concatenated, fingerprint},
};

/// What the first feature is hashed with, of `tensorflow/python/ops/sparse_ops.py`.
const KEY: u64 = 0x00de_cafc_affe;

#[derive(Debug)]
pub(crate) struct HashedCrossing {
    bins: usize,
    mode: OutputMode,
    /// Whether the dtype is left to Keras.
    defaulted: bool,
}

impl KerasLayer for HashedCrossing {
    fn read(fields: &mut Fields<'_>) -> Self {
        let mode = OutputMode::read(fields, &[("int", OutputMode::Int), ("one_hot", OutputMode::OneHot)]);
        Self { bins: fields.size("num_bins"), mode, defaulted: !fields.holds("dtype") }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let [first, _, ..] = inputs.as_slice() else {
            return Err(cannot(format!("expected two inputs or more, found {}", inputs.len())));
        };
        let flat = match first.shape.0.as_slice() {
            [_] => true,
            [_, last] => *last == Some(1),
            _ => false,
        };
        if !flat || inputs.iter().any(|input| input.shape.rank() != first.shape.rank()) {
            let shapes: Vec<String> = inputs.iter().map(|input| input.shape.to_string()).collect();
            return Err(cannot(format!("expected inputs of (batch,) or (batch, 1), found {}", shapes.join(", "))));
        }
        if let Some(input) = inputs.iter().find(|input| input.dtype.is_float() || input.dtype == Dtype::Bool) {
            return Err(cannot(format!("expected integers or strings, found {}", input.dtype)));
        }
        Ok(vec![self.mode.spec(&first.shape, self.bins, self.dtype(given))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let inputs = call.given.inputs();
        let Some(dims) = inputs.first().map(|input| input.tensor.dims()) else { candle_core::bail!("no inputs") };
        let mut hashes = vec![KEY; dims.iter().product()];
        for input in &inputs {
            if input.tensor.dims() != dims {
                candle_core::bail!("inputs of {dims:?} and {:?} cannot be crossed", input.tensor.dims())
            }
            // Keras: a whole number is its own hash.
            let features: Vec<u64> = match input.dtype {
                Dtype::String => input.texts()?.into_iter().map(fingerprint).collect(),
                _ => {
                    let numbers = cast(input, Dtype::Int64)?.tensor.flatten_all()?.to_vec1::<i64>()?;
                    numbers.into_iter().map(i64::cast_unsigned).collect()
                }
            };
            for (hash, feature) in hashes.iter_mut().zip(features) {
                *hash = concatenated(*hash, feature);
            }
        }
        let bins = self.bins as u64;
        let buckets = hashes.into_iter().map(|hash| Ok(i64::try_from(hash % bins.max(1))?));
        let buckets = buckets.collect::<candle_core::Result<Vec<i64>>>()?;
        Ok(vec![encode(&buckets, dims, self.mode, self.bins, self.dtype(call.given), None)?])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl HashedCrossing {
    fn dtype<T>(&self, given: Given<'_, T>) -> Dtype {
        match self.mode {
            OutputMode::Int if self.defaulted => Dtype::Int64,
            _ => given.policy().compute,
        }
    }
}
