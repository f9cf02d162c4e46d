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
use serde_json::json;

use super::embedding::Embedding;
use crate::{
    Call, Fields, Given, KerasLayer, Masking, Policy, Quantization, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::{cast, constant_like, floats_together, rounded, storage, wide},
    quantized::{AbsMax, Quantized, dequantized, integer_product, unpack_int4},
};

#[derive(Debug)]
pub(crate) struct ReversibleEmbedding {
    embedding: Embedding,
    /// How features are quantized on the way back, where the embeddings are.
    inputs: Option<AbsMax>,
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
        let config = fields.take("quantization_config");
        let embedding = Embedding::read(fields);
        if embedding.has_lora() {
            fields.refuse(
                "LoRA weights that are not merged into the embeddings: save the model as .keras, which merges them",
            );
        }
        // Keras: the quantizer's own axis counts here, as the call names none.
        let of_inputs =
            config.and_then(|config| config.get("config")?.get("activation_quantizer")?.get("config")?.get("axis"));
        if let Some(axis) = of_inputs.filter(|axis| ![json!(null), json!(-1), json!([-1])].contains(axis)) {
            fields.unsupported("activation_quantizer's axis", axis, "-1");
        }
        let inputs = match embedding.quantized() {
            Some(quantized) if config.is_some() => quantized.inputs,
            Some(_) => Some(AbsMax::eight_bits()),
            None => None,
        };
        Self {
            embedding,
            inputs,
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
        if self.tie_weights {
            return Ok(weights);
        }
        let (features, vocabulary) = (self.embedding.features(), self.embedding.vocabulary());
        let reverse = |rows: usize| Weight::as_keras("reverse_embeddings", vec![rows, vocabulary]);
        let scale = |shape| Weight::as_keras("reverse_embeddings_scale", shape).not_trained();
        let eight_bits = |weight: Weight| weight.of(Dtype::Int8).not_trained();
        match self.embedding.quantized().map(|quantized| quantized.mode) {
            None => weights.push(reverse(features)),
            Some(Quantization::Int4 { block: Some(block) }) => {
                let groups = vec![features.div_ceil(block), vocabulary];
                weights.extend([eight_bits(reverse(features.div_ceil(2))), scale(groups.clone())]);
                weights.push(Weight::as_keras("reverse_embeddings_zero", groups).not_trained());
            }
            Some(Quantization::Int4 { block: None }) => {
                weights.extend([eight_bits(reverse(features.div_ceil(2))), scale(vec![vocabulary])]);
            }
            Some(_) => weights.extend([eight_bits(reverse(features)), scale(vec![vocabulary])]),
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
        let Some((features, outer)) = xs.dims().split_last() else { bail!("a scalar has no features") };
        let rows = outer.iter().product::<usize>();
        let shape: Vec<usize> = outer.iter().copied().chain([self.embedding.vocabulary()]).collect();
        let xs = xs.reshape((rows, *features))?;
        let product = match self.embedding.quantized() {
            Some(quantized) => self.quantized_product(&xs, *quantized, call.weights, &computing)?,
            None => xs.matmul(&prepared(&match self.tie_weights {
                true => call.weight(0)?.t()?.contiguous()?,
                false => call.weight(1)?.clone(),
            })?)?,
        };
        let mut logits = rounded(&product, &computing)?;
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

    fn quantizes(&self) -> bool {
        true
    }
}

impl ReversibleEmbedding {
    /// The dtype of scores. Keras: not the compute dtype, but that of features and embeddings together.
    fn scores(&self, input: Dtype, policy: &Policy) -> Dtype {
        match (self.embedding.quantized(), self.reverse_dtype) {
            // Keras: quantized embeddings know nothing of reverse_dtype.
            (None, Some(dtype)) => dtype,
            _ => floats_together(input, policy.compute),
        }
    }

    /// `xs · matrix` for xs `(rows, features)` and a quantized matrix.
    fn quantized_product(
        &self,
        xs: &Tensor,
        quantized: Quantized,
        weights: &[Tensor],
        policy: &Policy,
    ) -> candle_core::Result<Tensor> {
        let arithmetic = storage(policy.arithmetic())?;
        let (features, four_bits) = (self.embedding.features(), matches!(quantized.mode, Quantization::Int4 { .. }));
        // `(vocabulary, features)`, whichever way round it is stored.
        let unpacked = |table: &Tensor| match four_bits {
            true => unpack_int4(&table.contiguous()?, features, arithmetic),
            false => table.to_dtype(arithmetic),
        };
        let as_computed = |tensor: &Tensor| tensor.to_dtype(arithmetic);
        let turned = |tensor: &Tensor| tensor.t()?.contiguous();
        match (quantized.mode, self.tie_weights, weights) {
            (Quantization::Int4 { block: Some(_) }, tied, [table, scale, zero, groups, reverse @ ..]) => {
                let matrix = match (tied, reverse) {
                    (true, _) => turned(&dequantized(&unpacked(table)?, &as_computed(scale)?, zero, groups, 1)?)?,
                    (false, [matrix, scale, zero]) => {
                        dequantized(&turned(&unpacked(&matrix.t()?)?)?, &as_computed(scale)?, zero, groups, 0)?
                    }
                    _ => bail!("quantized embeddings without their reverse"),
                };
                match self.inputs {
                    None => xs.matmul(&matrix),
                    Some(inputs) => {
                        let (integers, scale) = inputs.quantize(xs, policy)?;
                        policy.rounded(integers.matmul(&matrix)?)?.broadcast_div(&scale)
                    }
                }
            }
            (_, true, [table, scale]) => {
                integer_product(xs, self.inputs, &turned(&unpacked(table)?)?, &as_computed(scale)?, policy)
            }
            (_, false, [_, _, matrix, scale]) => {
                let matrix = turned(&unpacked(&matrix.t()?)?)?;
                integer_product(xs, self.inputs, &matrix, &as_computed(scale)?, policy)
            }
            _ => bail!("expected other weights of quantized embeddings, found {}", weights.len()),
        }
    }
}
