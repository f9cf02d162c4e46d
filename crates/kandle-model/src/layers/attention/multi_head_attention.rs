//! `keras.layers.MultiHeadAttention` and `keras.layers.GroupQueryAttention`: attention in several heads, between projections.
//!
//! Shapes: query `(batch, …, features)`, value and key (value itself where it is not given) of as many axes; result as query,
//! or with the axes of `output_shape` last; with `return_attention_scores` the weights too, `(batch, heads, queries, values)`.
//! The kernels are `(features, heads, size)`, that of the result `(heads, size, …)`. Each head computes
//! `softmax(query · keyᵀ / √key_dim) · value`; with `use_gate`, the heads are multiplied by a sigmoid of another projection of
//! query. In GroupQueryAttention several heads of the query share one of key and value. With more than one axis inside,
//! attention goes along `attention_axes`, all of them unless given.
//!
//! Masks: a pair counts where the query's, the value's and the key's mask allow it, and `attention_mask`, the causal order
//! (`use_causal_mask`) and `sliding_window`. Keras: where nothing is allowed, the weights are all the same; but all 0 with
//! `dropout` in the settings, with `return_attention_scores`, or with more than one axis inside. MultiHeadAttention takes
//! the masks off query, value and key for everyone who reads them later; before 3.8 it left them, and before 2.10 it asked for
//! none.
//!
//! Source: keras/src/layers/attention/multi_head_attention.py, grouped_query_attention.py.

use candle_core::{D, Tensor, bail};
use kandle_format::{Problem, json::Value as Json};

use super::scores::{both, causal, expanded, filled, project, scaled, sliding, softmax, truth};
use crate::{
    Argument, Call, Fields, Function, Given, KerasLayer, Layout, Lowered, Masking, Policy, Primitive, Shape, Spec,
    Value, Weight,
    layers::{
        activations::{self, Masked},
        axes, cannot,
    },
    math::einsum::{Equation, einsum},
    numeric::rounded,
    primitive::Attention,
};

/// What differs from version to version of Keras.
#[derive(Debug, Clone, Copy)]
struct Version {
    /// Whether the masks that came with query, value and key count: from 2.10 on.
    asks_masks: bool,
    /// Whether they are taken off them: from 3.8 on.
    erases_masks: bool,
    /// Whether what has three axes is computed by one operation, with a rule of its own for queries that are allowed nothing:
    /// from 3.7 on.
    has_operation: bool,
    /// What the Softmax layer does with what is masked.
    masked: Masked,
    /// Whether the parts are saved under names that begin with `_`: in 2.
    hides_parts: bool,
}

impl Version {
    fn read(fields: &Fields<'_>) -> Self {
        Self {
            asks_masks: fields.is_from([2, 10, 0]),
            erases_masks: fields.is_from([3, 8, 0]),
            has_operation: fields.is_from([3, 7, 0]),
            masked: Masked::of(fields),
            hides_parts: fields.keras_major() < 3,
        }
    }
}

/// What the logits of a pair that is not allowed are replaced with.
const FORBIDDEN: f64 = -0.7 * 3.389_53e38;

#[derive(Debug)]
pub(crate) struct MultiHeadAttention<const GROUPED: bool> {
    /// Heads of the query, and of key and value.
    heads: (usize, usize),
    key_dim: usize,
    value_dim: usize,
    use_bias: bool,
    use_gate: bool,
    /// Whether the settings have dropout: it decides how fully masked queries come out.
    has_dropout: bool,
    output_shape: Option<Vec<usize>>,
    attention_axes: Option<Vec<i64>>,
    sliding_window: Option<usize>,
    version: Version,
}

/// The tensors of a call.
struct Inputs<'a, T> {
    query: &'a T,
    value: &'a T,
    key: &'a T,
}

impl<const GROUPED: bool> KerasLayer for MultiHeadAttention<GROUPED> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "seed",
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
            // Another way to compute the same.
            "flash_attention",
        ]);
        let has_dropout = fields.number("dropout", 0.0) > 0.0;
        let (use_bias, use_gate) = (fields.flag("use_bias", true), fields.flag("use_gate", false));
        let sliding_window = fields.optional_size("sliding_window");
        let common = (has_dropout, use_bias, use_gate, sliding_window, Version::read(fields));
        if GROUPED { Self::grouped(fields, common) } else { Self::of_heads(fields, common) }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &[
            "query",
            "value",
            "key",
            "query_mask",
            "value_mask",
            "key_mask",
            "attention_mask",
            "return_attention_scores",
            "use_causal_mask",
        ]
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let Inputs { query, value, key } = inputs(given)?;
        let features = |name: &str, spec: &Spec| {
            spec.shape.last().ok_or_else(|| format!("the size of the last axis of {name} is not known"))
        };
        let (query, value, key) = (features("query", query)?, features("value", value)?, features("key", key)?);
        let (heads, kv_heads) = self.heads;
        let made = self.output_shape.clone().unwrap_or_else(|| vec![query]);
        let mut weights = Vec::new();
        let mut dense = |name: &str, file: &str, kernel: Vec<usize>, bias: Vec<usize>| {
            let of = |keras, shape| {
                let weight = Weight::new(keras, shape, format!("{name}.{keras}"), Layout::AsIs);
                Weight { owner: file.to_owned(), ..weight }
            };
            weights.push(of("kernel", kernel));
            if self.use_bias {
                weights.push(of("bias", bias));
            }
        };
        // Keras: what a class keeps for itself is saved under a name of its own.
        let prefix = if GROUPED || self.version.hides_parts { "_" } else { "" };
        let mut to_heads = |name: &str, file: &str, features: usize, heads: usize, size: usize| {
            dense(name, file, vec![features, heads, size], vec![heads, size]);
        };
        to_heads("query_dense", &format!("{prefix}query_dense"), query, heads, self.key_dim);
        to_heads("key_dense", &format!("{prefix}key_dense"), key, kv_heads, self.key_dim);
        if self.use_gate {
            to_heads("gate_dense", "_gate_dense", query, heads, self.value_dim);
        }
        to_heads("value_dense", &format!("{prefix}value_dense"), value, kv_heads, self.value_dim);
        let kernel = [vec![heads, self.value_dim], made.clone()].concat();
        dense("output_dense", &format!("{prefix}output_dense"), kernel, made);
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let Inputs { query, value, key } = inputs(given).map_err(cannot)?;
        let inner = |spec: &Spec| spec.shape.0.get(1..spec.shape.rank().saturating_sub(1)).map(<[_]>::to_vec);
        for input in [query, value, key] {
            let rank = input.shape.rank();
            if !input.dtype.is_float() || rank < 3 || rank != query.shape.rank() || (GROUPED && rank != 3) {
                let wanted = if GROUPED { "3" } else { "3 or more, the same for all" };
                let what = format!("expected floats of rank {wanted}, found {} of {}", input.dtype, input.shape);
                return Err(cannot(what));
            }
        }
        let differ = |(a, b): (&Option<usize>, &Option<usize>)| a.is_some() && b.is_some() && a != b;
        let (of_value, of_key) = (inner(value).unwrap_or_default(), inner(key).unwrap_or_default());
        if of_value.iter().zip(&of_key).any(differ) {
            return Err(cannot(format!("value of {} and key of {} do not fit together", value.shape, key.shape)));
        }
        let attended = self.attended(query.shape.rank()).map_err(cannot)?;
        let mut shape = query.shape.0.clone();
        if let Some(made) = &self.output_shape {
            shape.pop();
            shape.extend(made.iter().copied().map(Some));
        }
        let dtype = given.policy().arithmetic();
        let mut outputs = vec![Spec { shape: Shape(shape), dtype }];
        given.flag("use_causal_mask").map_err(cannot)?;
        if given.flag("return_attention_scores").map_err(cannot)? {
            let batch = (0..query.shape.rank() - 1).filter(|place| !attended.contains(place));
            let size = |spec: &Spec, place: usize| spec.shape.0.get(place).copied().flatten();
            let shape = batch.map(|place| size(query, place)).chain([Some(self.heads.0)]);
            let shape = shape.chain(attended.iter().map(|place| size(query, *place)));
            let shape = shape.chain(attended.iter().map(|place| size(key, *place))).collect();
            outputs.push(Spec { shape: Shape(shape), dtype });
        }
        Ok(outputs)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let policy = call.given.policy();
        let Inputs { query, value, key } = inputs(call.given).map_err(candle_core::Error::msg)?;
        let flag = |name: &str| call.given.flag(name).map_err(candle_core::Error::msg);
        let scores_too = flag("return_attention_scores")?;
        let mask = self.mask(call, query, value)?;
        let mut weights = call.weights.iter();
        let mut dense = |xs: &Tensor, bound: usize| {
            let Some(kernel) = weights.next() else { bail!("a weight was not given") };
            let bias = if self.use_bias { weights.next() } else { None };
            project(xs, kernel, bias, bound, policy)
        };
        let of_query = dense(&query.tensor, 1)?;
        let of_key = self.repeated(dense(&key.tensor, 1)?)?;
        let gate = match self.use_gate {
            true => Some(rounded(&Function::Sigmoid.apply(&dense(&query.tensor, 1)?)?, policy)?),
            false => None,
        };
        let of_value = self.repeated(dense(&value.tensor, 1)?)?;
        let simple = self.version.has_operation && !self.has_dropout && !scores_too && of_query.rank() == 4;
        let (mut ys, scores) = match simple {
            true => (self.attend(&of_query, &of_key, &of_value, mask.as_ref(), policy)?, None),
            false => {
                let (ys, scores, mask) =
                    self.attend_along_axes(&of_query, &of_key, &of_value, mask.as_ref(), policy)?;
                // Keras: the scores keep the mask that the Softmax inside was called with.
                (ys, Some(query.with_tensor(scores).with_mask(mask)))
            }
        };
        if let Some(gate) = gate {
            ys = rounded(&(ys * gate)?, policy)?;
        }
        let ys = query.with_tensor(dense(&ys, 2)?);
        Ok(std::iter::once(ys).chain(scores.filter(|_| scores_too)).collect())
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let given = lowered.given;
        let place = |name: &str| match given.argument(name) {
            Some(Argument::Tensor(number)) => Some(*number),
            _ => None,
        };
        let flag = |name: &str| given.flag(name).map_err(candle_core::Error::msg);
        let (Some(query), Some(value)) = (place("query"), place("value")) else { return Ok(None) };
        let inputs = [query, value, place("key").unwrap_or(value)];
        let masks = ["query_mask", "value_mask", "key_mask"];
        let plain = !self.use_gate
            && self.sliding_window.is_none()
            && self.attended(3).is_ok_and(|places| places == [1])
            && !flag("return_attention_scores")?
            && self.output_shape.as_ref().is_none_or(|shape| shape.len() == 1)
            && masks.iter().all(|name| given.argument(name).is_none())
            && inputs.iter().all(|input| given.tensors.get(*input).is_some_and(|spec| spec.shape.rank() == 3));
        let mask = place("attention_mask");
        let simple = self.version.has_operation && !self.has_dropout;
        // The kinds of masking before 3.10 that the way of many axes has.
        let old = !simple && self.version.masked == Masked::Lowered;
        let causal = flag("use_causal_mask")?;
        if !plain || (old && (mask.is_some() || causal)) {
            return Ok(None);
        }
        let mut weights = lowered.weights.iter();
        let mut dense = |bound: usize| -> candle_core::Result<(Tensor, Option<Tensor>)> {
            let Some(kernel) = weights.next() else { bail!("a weight was not given") };
            let bias = if self.use_bias { weights.next().map(Tensor::flatten_all).transpose()? } else { None };
            let (summed, made) = kernel.dims().split_at_checked(bound).unwrap_or_default();
            Ok((kernel.reshape((summed.iter().product::<usize>(), made.iter().product::<usize>()))?, bias))
        };
        let (query, key, value, output) = (dense(1)?, dense(1)?, dense(1)?, dense(2)?);
        Ok(Some(vec![Primitive::Attention(Attention {
            inputs,
            mask,
            takes_padding: !old,
            query,
            key,
            value,
            output,
            heads: self.heads,
            scale: 1.0 / f64::from(u32::try_from(self.key_dim)?).sqrt(),
            causal,
            forbidden: if simple { FORBIDDEN as f32 } else { -1e9 },
            zeroed: !simple,
        })]))
    }

    fn masking(&self) -> Masking {
        // Keras: before 2.10 a mask ends here.
        if self.version.asks_masks { Masking::Passes } else { Masking::Drops }
    }

    fn erases_masks_of(&self) -> &'static [&'static str] {
        if GROUPED || !self.version.erases_masks { &[] } else { &["query", "value", "key"] }
    }
}

/// Whether there is dropout, a bias and a gate, the sliding window, and the version.
type Common = (bool, bool, bool, Option<usize>, Version);

impl<const GROUPED: bool> MultiHeadAttention<GROUPED> {
    fn of_heads(fields: &mut Fields<'_>, (has_dropout, use_bias, use_gate, sliding_window, version): Common) -> Self {
        let (heads, key_dim) = (fields.size("num_heads"), fields.size("key_dim"));
        // Keras: 0 stands for key_dim here too.
        let value_dim = fields.optional_size("value_dim").unwrap_or(key_dim);
        let output_shape = match fields.take("output_shape") {
            None => None,
            Some(Json::Array(sizes)) if sizes.is_empty() => None,
            Some(_) => fields.axes("output_shape", false).into_iter().collect::<Option<Vec<usize>>>(),
        };
        Self {
            heads: (heads, heads),
            key_dim,
            value_dim,
            use_bias,
            use_gate,
            has_dropout,
            output_shape,
            attention_axes: fields.integers("attention_axes"),
            sliding_window,
            version,
        }
    }

    fn grouped(fields: &mut Fields<'_>, (has_dropout, use_bias, use_gate, sliding_window, version): Common) -> Self {
        let heads = (fields.size("num_query_heads"), fields.size("num_key_value_heads"));
        if !heads.0.is_multiple_of(heads.1) {
            fields
                .wrong(format!("num_query_heads of {} is no multiple of num_key_value_heads of {}", heads.0, heads.1));
        }
        let size = fields.size("head_dim");
        Self {
            heads,
            key_dim: size,
            value_dim: size,
            use_bias,
            use_gate,
            has_dropout,
            output_shape: None,
            attention_axes: None,
            sliding_window,
            version,
        }
    }

    /// The axes of an input of `rank` that attention goes along.
    fn attended(&self, rank: usize) -> Result<Vec<usize>, String> {
        let Some(given) = &self.attention_axes else { return Ok((1..rank.saturating_sub(1)).collect()) };
        // Keras: negative ones are counted from the end of what the projections give, which has an axis more for the heads.
        let places = axes(given, rank)?;
        match places.iter().find(|place| **place == 0 || **place + 1 == rank) {
            Some(place) => Err(format!("attention_axes: axis {place} is no axis between batch and features")),
            None => Ok(places),
        }
    }

    /// Each head of key or value as often as heads of the query share it.
    fn repeated(&self, xs: Tensor) -> candle_core::Result<Tensor> {
        let (heads, kv_heads) = self.heads;
        if heads == kv_heads {
            return Ok(xs);
        }
        let (batch, steps, _, size) = xs.dims4()?;
        let repeats = heads / kv_heads.max(1);
        let shape = (batch, steps, kv_heads, repeats, size);
        xs.unsqueeze(3)?.broadcast_as(shape)?.contiguous()?.reshape((batch, steps, heads, size))
    }

    /// The pairs that are allowed, as Keras puts them together: `None` where all are.
    fn mask(&self, call: Call<'_>, query: &Value, value: &Value) -> candle_core::Result<Option<Tensor>> {
        let (rows, columns) = (query.tensor.dim(1)?, value.tensor.dim(1)?);
        let device = query.tensor.device();
        // Keras: MultiHeadAttention takes the mask that came with the query, whatever was given for query_mask.
        let of_query = if GROUPED { call.given.mask_of("query") } else { query.mask.as_ref() };
        let counts = self.version.asks_masks;
        let mut all = None;
        if let Some(mask) = of_query.filter(|_| counts) {
            all = Some(truth(mask)?.unsqueeze(D::Minus1)?);
        }
        for name in ["value", "key"] {
            if let Some(mask) = call.given.mask_of(name).filter(|_| counts) {
                all = Some(both(all, &truth(mask)?.unsqueeze(mask.rank().saturating_sub(1))?)?);
            }
        }
        if call.given.flag("use_causal_mask").map_err(candle_core::Error::msg)? {
            all = Some(both(all, &causal(rows, columns, device)?)?);
        }
        if let Some(window) = self.sliding_window {
            all = Some(both(all, &sliding(rows, columns, window, device)?)?);
        }
        match call.given.tensor("attention_mask") {
            Some(given) => Ok(Some(both(all, &truth(&given.tensor)?)?)),
            None => Ok(all),
        }
    }

    /// Keras's `dot_product_attention`, of `(batch, steps, heads, size)` each.
    fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
        policy: &Policy,
    ) -> candle_core::Result<Tensor> {
        let heads_first = |xs: &Tensor| xs.transpose(1, 2)?.contiguous();
        let (query, key, value) = (heads_first(query)?, heads_first(key)?, heads_first(value)?);
        let logits = rounded(&query.matmul(&key.transpose(2, 3)?.contiguous()?)?, policy)?;
        let mut logits = (logits * (1.0 / f64::from(u32::try_from(self.key_dim)?).sqrt()))?;
        if let Some(mask) = mask {
            logits = filled(&logits, &expanded(mask, 2, 4)?, FORBIDDEN)?;
        }
        let ys = rounded(&softmax(&logits, policy)?.matmul(&value)?, policy)?;
        ys.transpose(1, 2)?.contiguous()
    }

    /// The way of any number of axes, which has the weights too.
    fn attend_along_axes(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
        policy: &Policy,
    ) -> candle_core::Result<(Tensor, Tensor, Option<Tensor>)> {
        let rank = query.rank();
        let attended = self.attended(rank - 1).map_err(candle_core::Error::msg)?;
        // Letters for the axes of query, and others for those of key and value that attention goes along.
        let letter = |number: usize| char::from(b'a'.saturating_add(u8::try_from(number).unwrap_or(u8::MAX)));
        let of_query: String = (0..rank).map(letter).collect();
        let of_key = |place: usize| {
            let before = (0..place).filter(|place| attended.contains(place)).count();
            if attended.contains(&place) { letter(rank + before) } else { letter(place) }
        };
        let source: String = (0..rank).map(of_key).collect();
        let batch = (0..rank - 1).filter(|place| !attended.contains(place)).map(letter);
        let scores: String =
            batch.chain(attended.iter().copied().map(letter)).chain(attended.iter().copied().map(of_key)).collect();
        let equation = |text: String| Equation::parse(&text).map_err(candle_core::Error::msg);
        let query = scaled(query, self.key_dim, policy)?;
        let logits = einsum(&equation(format!("{source},{of_query}->{scores}"))?, &[key, &query])?;
        let logits = rounded(&logits, policy)?;
        let last: Vec<usize> = (logits.rank() - attended.len()..logits.rank()).collect();
        let mask = mask.map(|mask| expanded(mask, 2 * attended.len(), logits.rank())).transpose()?;
        let of_softmax = mask.as_ref().map(|mask| (mask, self.version.masked));
        let weights = activations::softmax(&logits, &last, of_softmax, policy)?;
        let ys = einsum(&equation(format!("{scores},{source}->{of_query}"))?, &[&weights, value])?;
        Ok((rounded(&ys, policy)?, weights, mask))
    }
}

fn inputs<'a, T>(given: Given<'a, T>) -> Result<Inputs<'a, T>, String> {
    let of = |name: &str| given.tensor(name).ok_or_else(|| format!("{name} is not given"));
    let value = of("value")?;
    Ok(Inputs { query: of("query")?, value, key: given.tensor("key").unwrap_or(value) })
}
