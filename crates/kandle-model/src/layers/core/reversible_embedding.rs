//! `keras.layers.ReversibleEmbedding`: an Embedding that also goes back, from features to a score for each id.
//!
//! Shapes: forward, ids `(batch, …)`, result `(batch, …, features)`, as Embedding. With `reverse`, xs `(batch, …, features)`
//! and embeddings `(vocabulary, features)` give `xs · embeddingsᵀ`, `(batch, …, vocabulary)`; where weights are not tied, the
//! matrix is `reverse_embeddings (features, vocabulary)`. With `logit_soft_cap` c, scores become `c · tanh(score / c)`.
//! With embeddings `[[1, 2], [3, 4]]`, `[[1, 1]]` reversed gives `[[3, 7]]`.
//!
//! Source: keras/src/layers/core/reversible_embedding.py.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::embedding::Embedding;
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Masking, Policy, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::{cast, constant_like, floats_together, rounded, storage, wide},
};

#[derive(Debug)]
pub(crate) struct ReversibleEmbedding {
    embedding: Embedding,
    tie_weights: bool,
    /// The dtype that scores are computed in; the compute dtype where it is not given.
    reverse_dtype: Option<Dtype>,
    logit_soft_cap: Option<f64>,
}

impl KerasLayer for ReversibleEmbedding {
    fn read(fields: &mut Fields<'_>) -> Self {
        let dtypes =
            [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Float64].map(|dtype| (dtype.name(), dtype));
        let reverse_dtype = match fields.take("reverse_dtype") {
            None => None,
            Some(_) => fields.choice("reverse_dtype", &dtypes),
        };
        Self {
            embedding: Embedding::read(fields),
            tie_weights: fields.flag("tie_weights", true),
            reverse_dtype,
            logit_soft_cap: fields.optional_number("logit_soft_cap"),
        }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "reverse"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = self.embedding.weights(given)?;
        if !self.tie_weights {
            let shape = vec![self.embedding.features(), self.embedding.vocabulary()];
            weights.push(Weight::new("reverse_embeddings", shape, "reverse_embeddings", Layout::AsIs));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        if !given.flag("reverse").map_err(cannot)? {
            let outputs = self.embedding.output(given)?;
            return Ok(outputs.into_iter().map(|spec| Spec { dtype: given.policy().compute, ..spec }).collect());
        }
        let input = one(given)?;
        match input.shape.last() {
            Some(size) if size != self.embedding.features() => {
                return Err(cannot(format!("expected {} features, found {}", self.embedding.features(), input.shape)));
            }
            _ if input.shape.rank() < 1 => return Err(cannot("a scalar has no features")),
            _ => {}
        }
        let dtype = self.scores(input.dtype, given.policy());
        Ok(vec![Spec { shape: input.shape.clone().with_last(Some(self.embedding.vocabulary())), dtype }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        if !call.given.flag("reverse").map_err(candle_core::Error::msg)? {
            let masks = match self.embedding.masking() {
                Masking::Computes => self.embedding.compute_mask(call, &[])?,
                _ => Vec::new(),
            };
            let masks = masks.into_iter().chain(std::iter::repeat(None));
            let outputs = self.embedding.forward(call)?.into_iter().zip(masks);
            return outputs.map(|(output, mask)| Ok(cast(&output, policy.compute)?.with_mask(mask))).collect();
        }
        let input = call.input()?;
        let dtype = self.scores(input.dtype, policy);
        let computing = Policy { compute: dtype, ..policy.clone() };
        let arithmetic = storage(computing.arithmetic())?;
        let prepared = |tensor: &Tensor| rounded(&tensor.to_dtype(arithmetic)?, &computing);
        let xs = prepared(&input.tensor)?;
        let matrix = prepared(&match self.tie_weights {
            true => call.weight(0)?.t()?.contiguous()?,
            false => call.weight(1)?.clone(),
        })?;
        let Some((features, outer)) = xs.dims().split_last() else { bail!("a scalar has no features") };
        let rows = outer.iter().product::<usize>();
        let shape: Vec<usize> = outer.iter().copied().chain([self.embedding.vocabulary()]).collect();
        let mut logits = rounded(&xs.reshape((rows, *features))?.matmul(&matrix)?, &computing)?;
        if let Some(cap) = self.logit_soft_cap {
            let bounded = rounded(&(&logits / constant_like(&logits, cap)?)?, &computing)?;
            let bounded = rounded(&wide(&bounded, Tensor::tanh)?, &computing)?;
            logits = rounded(&(bounded * cap)?, &computing)?;
        }
        Ok(vec![Value::new(logits.reshape(shape)?.to_dtype(storage(dtype)?)?, dtype)])
    }

    /// Keras: a mask of zeros is attached on the way forward only, by the call itself.
    fn masking(&self) -> Masking {
        Masking::Drops
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl ReversibleEmbedding {
    /// The dtype of scores. Keras: not the compute dtype, but that of features and embeddings together.
    fn scores(&self, input: Dtype, policy: &Policy) -> Dtype {
        self.reverse_dtype.unwrap_or_else(|| floats_together(input, policy.compute))
    }
}
