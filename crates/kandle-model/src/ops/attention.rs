//! Dot product attention. Source: keras/src/ops/nn.py, keras/src/backend/tensorflow/nn.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{Node, Operation, Setting, elementwise::stretched, floats, invalid, one, operation, result_type, rounded};
use crate::{Spec, Value, activation::Function, numeric::constant_like};

/// What a masked logit becomes.
const MASKED: f64 = 3.38953e38 * -0.7;

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] =
    &[operation("DotProductAttention", &["query", "key", "value", "bias", "mask", "scale"], planned, attend).with(&[
        ("is_causal", Setting::Flag(false)),
        // How it is computed, not what; TensorFlow has no other way.
        ("flash_attention", Setting::Only("false")),
        ("attn_logits_soft_cap", Setting::Only("null")),
    ])];

/// Keras: plans the shape of the query, also where the value has another number of features.
fn planned(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let specs = ["query", "key", "value"].map(|name| node.spec(name));
    let mut dtypes = Vec::new();
    for (name, spec) in ["query", "key", "value"].iter().zip(&specs) {
        let spec = spec.as_ref().map_err(|problem| invalid(problem.what.clone()))?;
        if spec.shape.rank() != 4 || !spec.dtype.is_float() {
            return Err(invalid(format!("{name}: expected floats of rank 4, found {} of {}", spec.shape, spec.dtype)));
        }
        dtypes.push(spec.dtype.into());
    }
    if let Some(mask) = node.optional("mask")?
        && mask.dtype() != Dtype::Bool
    {
        return Err(invalid(format!("mask: expected truth values, found {}", mask.dtype())));
    }
    one(node.spec("query")?.shape, result_type(&dtypes))
}

/// `softmax(query · key · scale + bias) · value`, with `(batch, time, heads, features)` of each. A key's heads are each
/// used by as many of the query's heads as there are more of those.
fn attend(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (query, key, value) = (node.value("query")?, node.value("key")?, node.value("value")?);
    let dtype = result_type(&[query.dtype.into(), key.dtype.into(), value.dtype.into()]);
    let heads_first = |value: &Value| floats(value, dtype)?.transpose(1, 2)?.contiguous();
    let (query, key, value) = (heads_first(&query)?, heads_first(&key)?, heads_first(&value)?);
    let (_, heads, times, features) = query.dims4()?;
    let (key, value) = (repeated(&key, heads)?, repeated(&value, heads)?);
    let scale = match node.optional("scale")? {
        Some(scale) => floats(&scale.value(query.device())?, Dtype::Float32)?,
        None => Tensor::new(1.0 / (features as f32).sqrt(), query.device())?,
    };
    let mut logits = query.matmul(&key.transpose(2, 3)?.contiguous()?)?;
    logits = logits.broadcast_mul(&scale.to_dtype(logits.dtype())?)?;
    if let Some(bias) = node.optional("bias")? {
        logits = logits.broadcast_add(&floats(&bias.cast(dtype, logits.device())?, dtype)?)?;
    }
    if let Some(mask) = node.optional("mask")? {
        let mask = mask.value(logits.device())?;
        logits = masked(&logits, &mask.tensor)?;
    }
    if node.settings.flag("is_causal") {
        let seen = logits.dim(3)?;
        let row = Tensor::arange(0, i64::try_from(seen)?, logits.device())?;
        let column = Tensor::arange(0, i64::try_from(times)?, logits.device())?.unsqueeze(1)?;
        logits = masked(&logits, &row.broadcast_le(&column)?)?;
    }
    let probabilities = Function::Softmax.apply(&logits)?;
    let attended = probabilities.matmul(&value)?.transpose(1, 2)?.contiguous()?;
    Ok(vec![rounded(&attended, dtype)?])
}

/// `xs` `(batch, heads, time, features)` with each head as often as `heads` needs.
fn repeated(xs: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, own, time, features) = xs.dims4()?;
    if own == heads {
        return Ok(xs.clone());
    }
    if own <= 1 || heads < own || !heads.is_multiple_of(own) {
        bail!("{own} heads of keys do not fit {heads} heads of the query");
    }
    let stretched = xs.unsqueeze(2)?.broadcast_as((batch, own, heads / own, time, features))?.contiguous()?;
    stretched.reshape((batch, heads, time, features))
}

fn masked(logits: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (logits, mask) = stretched(logits, mask)?;
    mask.where_cond(&logits, &constant_like(&logits, MASKED)?)
}
