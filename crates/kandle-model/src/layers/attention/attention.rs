//! `keras.layers.Attention` and `keras.layers.AdditiveAttention`: each query takes a weighted mean of the values, by how well
//! it scores with their keys.
//!
//! Shapes: query `(batch, queries, features)`, value `(batch, values, width)`, key as value (value itself where it is not
//! given) with the features of query; result `(batch, queries, width)`, and with `return_attention_scores` the weights,
//! `(batch, queries, values)`. Scores are `query · keyᵀ`, times `scale` where there is one; with `score_mode = "concat"`
//! they are `concat_score_weight · Σ tanh(scale · (query + key))`, and in AdditiveAttention `Σ scale · tanh(query + key)` with
//! a scale for each feature. The weights are their softmax.
//!
//! Keras: a masked value has 1e9 (65504 in float16) subtracted from its scores; where all values of a query are masked the
//! weights are nearly equal, not zero. A masked query comes out as 0.
//!
//! Source: keras/src/layers/attention/attention.py, additive_attention.py.

use candle_core::{D, Tensor};
use kandle_format::{Dtype, Problem};

use super::scores::{causal, softmax, truth};
use crate::{
    Argument, Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Policy, Primitive, Shape, Spec, Value, Weight,
    layers::cannot,
    math::einsum::{matmul, matmul_shape},
    numeric::{rounded, wide},
    primitive::{PlainAttention, Score},
};

#[derive(Debug)]
pub(crate) struct Attention<const ADDITIVE: bool> {
    use_scale: bool,
    concat: bool,
    causal: bool,
    /// Whether masked rows are multiplied with 0, so that their zeros have signs and NaN stays: before Keras 3.15.
    multiplies: bool,
}

impl<const ADDITIVE: bool> KerasLayer for Attention<ADDITIVE> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["dropout", "seed", "activity_regularizer"]);
        // Keras 2 has it as a setting, Keras 3 as an argument of the call.
        let causal = fields.flag("causal", false);
        let concat = !ADDITIVE && fields.choice("score_mode", &[("dot", false), ("concat", true)]).unwrap_or(false);
        Self { use_scale: fields.flag("use_scale", ADDITIVE), concat, causal, multiplies: !fields.is_from([3, 15, 0]) }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask", "return_attention_scores", "use_causal_mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = Vec::new();
        if self.use_scale {
            let query = given.inputs().first().and_then(|query| query.shape.last());
            let features = || query.ok_or("the size of the query's last axis is not known");
            let shape = if ADDITIVE { vec![features()?] } else { Vec::new() };
            weights.push(Weight::new("scale", shape, "scale", Layout::AsIs));
        }
        if self.concat {
            weights.push(Weight::new("concat_score_weight", Vec::new(), "concat_score_weight", Layout::AsIs));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let (query, value, key) = of_inputs(&given.inputs()).map_err(cannot)?;
        for input in [query, value, key] {
            if !input.dtype.is_float() || input.shape.rank() < 2 {
                let what = format!("expected floats of rank 2 or more, found {} of {}", input.dtype, input.shape);
                return Err(cannot(what));
            }
        }
        let turned = |shape: &Shape| {
            let mut axes = shape.0.clone();
            let last = axes.len().saturating_sub(1);
            axes.swap(last.saturating_sub(1), last);
            axes
        };
        let weights = matmul_shape(&query.shape.0, &turned(&key.shape)).map_err(cannot)?;
        let output = matmul_shape(&weights, &value.shape.0).map_err(cannot)?;
        let spec = |axes: Vec<Option<usize>>| Spec { shape: Shape(axes), dtype: given.policy().arithmetic() };
        let scores = given.flag("return_attention_scores").map_err(cannot)?;
        given.flag("use_causal_mask").map_err(cannot)?;
        Ok(std::iter::once(spec(output)).chain(scores.then(|| spec(weights))).collect())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        let (query, value, key) = of_inputs(&call.given.inputs()).map_err(candle_core::Error::msg)?;
        let masks = call.given.masks();
        let mask = |number: usize| masks.get(number).copied().flatten();
        let flag = |name: &str| call.given.flag(name).map_err(candle_core::Error::msg);
        let scores = self.scores(&query.tensor, &key.tensor, call.weights, policy)?;
        let of_values = match mask(1) {
            Some(mask) => Some(truth(mask)?.unsqueeze(D::Minus2)?),
            None => None,
        };
        let allowed = if flag("use_causal_mask")? || self.causal {
            let causal = causal(scores.dim(D::Minus2)?, scores.dim(D::Minus1)?, scores.device())?;
            Some(super::scores::both(of_values, &causal)?)
        } else {
            of_values
        };
        let scores = match allowed {
            None => scores,
            Some(allowed) => {
                let far = if policy.compute == Dtype::Float16 { 65504.0 } else { 1e9 };
                let below = rounded(&(&scores - far)?, policy)?;
                allowed.broadcast_as(scores.shape())?.contiguous()?.where_cond(&scores, &below)?
            }
        };
        let weights = softmax(&scores, policy)?;
        let mut ys = rounded(&matmul(&weights, &value.tensor)?, policy)?;
        if let Some(mask) = mask(0) {
            let mask = truth(mask)?.unsqueeze(D::Minus1)?.broadcast_as(ys.shape())?.contiguous()?;
            ys = match self.multiplies {
                true => (&ys * mask.to_dtype(ys.dtype())?)?,
                false => mask.where_cond(&ys, &ys.zeros_like()?)?,
            };
        }
        let weights = flag("return_attention_scores")?.then(|| query.with_tensor(weights));
        Ok(std::iter::once(query.with_tensor(ys)).chain(weights).collect())
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let given = lowered.given;
        let flag = |name: &str| given.flag(name).map_err(candle_core::Error::msg);
        let Some(places) = given.argument("inputs").map(Argument::tensors) else { return Ok(None) };
        let inputs = match places.as_slice() {
            [Some(query), Some(value)] => [*query, *value, *value],
            [Some(query), Some(value), Some(key)] => [*query, *value, *key],
            _ => return Ok(None),
        };
        let plain = given.argument("mask").is_none()
            && !flag("return_attention_scores")?
            && inputs.iter().all(|input| given.tensors.get(*input).is_some_and(|spec| spec.shape.rank() == 3));
        if !plain {
            return Ok(None);
        }
        let number =
            |weight: Option<Tensor>| weight.map_or(Ok(1.0), |weight| weight.flatten_all()?.get(0)?.to_scalar());
        let scale = lowered.weight_if(self.use_scale, 0)?;
        let score = if ADDITIVE {
            Score::Tanh { scale: 1.0, weights: scale, factor: 1.0 }
        } else if self.concat {
            let factor = number(lowered.weights.last().cloned())?;
            Score::Tanh { scale: number(scale)?, weights: None, factor }
        } else {
            Score::Product { scale: number(scale)? }
        };
        let causal = flag("use_causal_mask")? || self.causal;
        Ok(Some(vec![Primitive::PlainAttention(PlainAttention { inputs, score, causal })]))
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }

    /// The query's.
    fn compute_mask(&self, _: Call<'_>, previous: &[Option<&Tensor>]) -> candle_core::Result<Vec<Option<Tensor>>> {
        Ok(vec![previous.first().copied().flatten().cloned()])
    }
}

impl<const ADDITIVE: bool> Attention<ADDITIVE> {
    fn scores(&self, query: &Tensor, key: &Tensor, weights: &[Tensor], policy: &Policy) -> candle_core::Result<Tensor> {
        let scale = if self.use_scale { weights.first() } else { None };
        if !ADDITIVE && !self.concat {
            let scores = rounded(&matmul(query, &key.transpose(D::Minus2, D::Minus1)?)?, policy)?;
            return match scale {
                Some(scale) => rounded(&scores.broadcast_mul(scale)?, policy),
                None => Ok(scores),
            };
        }
        let sums = query.unsqueeze(D::Minus2)?.broadcast_add(&key.unsqueeze(key.rank().saturating_sub(2))?)?;
        let mut sums = rounded(&sums, policy)?;
        if let (Some(scale), false) = (scale, ADDITIVE) {
            sums = rounded(&sums.broadcast_mul(scale)?, policy)?;
        }
        let mut curved = rounded(&wide(&sums, Tensor::tanh)?, policy)?;
        if let (Some(scale), true) = (scale, ADDITIVE) {
            curved = rounded(&curved.broadcast_mul(scale)?, policy)?;
        }
        let scores = rounded(&curved.sum(D::Minus1)?, policy)?;
        match weights.last().filter(|_| self.concat) {
            Some(weight) => rounded(&scores.broadcast_mul(weight)?, policy),
            None => Ok(scores),
        }
    }
}

/// Query, value and key; the value is the key where there is none.
fn of_inputs<'a, T>(inputs: &[&'a T]) -> Result<(&'a T, &'a T, &'a T), String> {
    match inputs {
        [query, value] => Ok((query, value, value)),
        [query, value, key] => Ok((query, value, key)),
        inputs => Err(format!("expected 2 or 3 inputs, found {}", inputs.len())),
    }
}
