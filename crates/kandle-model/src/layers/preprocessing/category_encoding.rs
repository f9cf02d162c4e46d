//! `keras.layers.CategoryEncoding`: category numbers as one-hot, multi-hot or counts.
//!
//! Shapes: numbers `(batch, samples)` to `(batch, num_tokens)`; one-hot keeps all axes. With 3 tokens, `[[0, 2, 2]]` is
//! `[[1, 0, 1]]` multi-hot and `[[1, 0, 2]]` counted.
//!
//! Source: keras/src/layers/preprocessing/category_encoding.py.

use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::cannot,
    numeric::{cast, storage},
};

use super::encode::{OutputMode, encode};

#[derive(Debug)]
pub(crate) struct CategoryEncoding {
    tokens: usize,
    mode: OutputMode,
}

impl KerasLayer for CategoryEncoding {
    fn read(fields: &mut Fields<'_>) -> Self {
        let mode = OutputMode::read(
            fields,
            &[
                ("multi_hot", OutputMode::MultiHot),
                // Keras: the old name.
                ("binary", OutputMode::MultiHot),
                ("one_hot", OutputMode::OneHot),
                ("count", OutputMode::Count),
            ],
        );
        Self { tokens: fields.size("num_tokens"), mode }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "count_weights"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = given.tensor("inputs").ok_or_else(|| cannot("expected one input"))?;
        if input.dtype == Dtype::String {
            return Err(cannot("expected numbers, found string"));
        }
        if given.tensor("count_weights").is_some() && self.mode != OutputMode::Count {
            return Err(cannot("count_weights are for output_mode count"));
        }
        Ok(vec![self.mode.spec(&input.shape, self.tokens, Self::dtype(given))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Some(input) = call.given.tensor("inputs") else { candle_core::bail!("expected one input") };
        let numbers = cast(input, Dtype::Int64)?.tensor.flatten_all()?.to_vec1::<i64>()?;
        let dtype = Self::dtype(call.given);
        let weights = match call.given.tensor("count_weights") {
            Some(weights) => Some(weights.tensor.to_dtype(storage(call.given.policy().compute)?)?),
            None => None,
        };
        Ok(vec![encode(&numbers, input.tensor.dims(), self.mode, self.tokens, dtype, weights.as_ref())?])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl CategoryEncoding {
    /// Keras: the dtype is that of weights, also where the policy computes in another; weights bring the latter.
    fn dtype<T>(given: Given<'_, T>) -> Dtype {
        let weighted = given.tensor("count_weights").is_some();
        if weighted { given.policy().compute } else { given.policy().variable }
    }
}
