//! Attention without heads and projections: each query takes a weighted mean of the values, by how well it scores with their
//! keys.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use kandle_model::primitive::{self, Score};
use rten_simd::{
    Isa, SimdOp, SimdUnaryOp,
    ops::{BitOps, NumOps},
};
use rten_vecmath::Tanh;

use super::{
    Kernel, Run,
    attention::{BLOCK, Head, Part, Share, Weigh},
    normalize::{largest, scale},
    numbers,
    tile::{Columns, MOST_ROWS, Matrix, Target, multiply},
};
use crate::{Failure, dims::Dims};

/// What Keras takes from the score of a pair that does not count.
const FORBIDDEN: f32 = -1e9;
/// Scores up to this size, less that, weigh nothing.
const LARGE: f32 = 1e8;

/// `(batch, queries, features)`, `(batch, keys, width)` and `(batch, keys, features)` become `(batch, queries, width)`.
#[derive(Debug)]
pub(crate) struct PlainAttention {
    inputs: [usize; 3],
    score: Score,
    /// The weights of the score's features, none where they are 1.
    weights: Option<Vec<f32>>,
    causal: bool,
    /// Memory, of as many as ran at once.
    idle: Mutex<Vec<Head>>,
}

/// Scores of some queries with all keys: `Σ weights · tanh(scale · (query + key))`.
struct Sums<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    features: usize,
    scale: f32,
    weights: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl SimdOp for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, scale) = (ops.len(), ops.splat(self.scale));
        let keys = self.keys.len() / self.features;
        let queries = self.queries.chunks_exact(self.features);
        for (query, scores) in queries.zip(self.out.chunks_exact_mut(keys)) {
            for (key, score) in self.keys.chunks_exact(self.features).zip(scores) {
                let mut sum = ops.zero();
                let mut at = 0;
                while at < self.features {
                    let end = (at + lanes).min(self.features);
                    // Lanes beyond the features are zeros, and so is their tanh.
                    let x = ops.add(ops.load_pad(&query[at..end]).0, ops.load_pad(&key[at..end]).0);
                    let x = Tanh {}.eval(isa, ops.mul(x, scale));
                    sum = match self.weights {
                        Some(weights) => ops.mul_add(x, ops.load_pad(&weights[at..end]).0, sum),
                        None => ops.add(sum, x),
                    };
                    at = end;
                }
                *score = ops.sum(sum);
            }
        }
    }
}

/// Every number times `factor`; whether all are of a size at which `FORBIDDEN` is far away.
struct Scaled<'a> {
    scores: &'a mut [f32],
    factor: f32,
}

impl SimdOp for Scaled<'_> {
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        if self.factor.to_bits() != 1.0_f32.to_bits() {
            scale(isa, self.scores, self.factor);
        }
        let most = largest(isa, self.scores);
        let least = self.scores.iter().fold(f32::INFINITY, |least, x| if *x < least { *x } else { least });
        most < LARGE && least > -LARGE
    }
}

impl PlainAttention {
    /// # Errors
    /// What candle reports of the weights.
    pub(crate) fn new(attention: &primitive::PlainAttention) -> candle_core::Result<Self> {
        let weights = match &attention.score {
            Score::Tanh { weights, .. } => weights.as_ref().map(numbers).transpose()?,
            Score::Product { .. } => None,
        };
        let primitive::PlainAttention { inputs, ref score, causal } = *attention;
        Ok(Self { inputs, score: score.clone(), weights, causal, idle: Mutex::default() })
    }

    /// Query, value and key.
    fn parts<T: Copy>(&self, inputs: &[T]) -> Result<[T; 3], Failure> {
        match self.inputs.map(|number| inputs.get(number).copied()) {
            [Some(query), Some(value), Some(key)] => Ok([query, value, key]),
            _ => Err(Failure::unforeseen("an operand is missing")),
        }
    }

    /// What some queries of one batch row give, whose keys and values are packed in `memory`.
    fn of_queries(
        &self,
        memory: &mut Head,
        [query, value, key]: [Part<'_>; 3],
        (batch, queries): (usize, Range<usize>),
        out: &mut [f32],
    ) -> Result<(), Failure> {
        let (features, keys, width) = (query.stride, key.steps, value.stride);
        let block = BLOCK.min(queries.len());
        memory.weights.resize(block * keys, 0.0);
        memory.shares.resize(block, 0.0);
        let rows = query.head(batch, 0, features);
        for from in queries.clone().step_by(BLOCK) {
            let to = (from + BLOCK).min(queries.end);
            let weights = &mut memory.weights[..(to - from) * keys];
            let shares = &mut memory.shares[..to - from];
            let factor = match self.score {
                Score::Product { scale } => {
                    let target = Target { out: weights, stride: keys, bias: None, more: None, relu: None };
                    multiply(&rows, from..to, &memory.keys, target);
                    scale
                }
                Score::Tanh { scale, factor, .. } => {
                    let keys = &key.head(batch, 0, features).numbers[..keys * features];
                    let queries = &rows.numbers[from * features..to * features];
                    Sums { queries, keys, features, scale, weights: self.weights.as_deref(), out: weights }.dispatch();
                    factor
                }
            };
            let plain = Scaled { scores: weights, factor }.dispatch();
            let weigh = Weigh {
                weights,
                shares,
                keys,
                from,
                causal: self.causal,
                forbidden: FORBIDDEN,
                zeroed: false,
                pairs: None,
                batch,
                head: 0,
            };
            if !plain || !weigh.dispatch() {
                return Err(Failure::unforeseen("an attention to what is no number"));
            }
            let weights = Matrix { numbers: weights, rows: to - from, stride: keys, depth: keys };
            let out = &mut out[(from - queries.start) * width..(to - queries.start) * width];
            let target = Target { out, stride: width, bias: None, more: None, relu: None };
            multiply(&weights, 0..to - from, &memory.values, target);
            Share { rows: out, shares, width, stride: width }.dispatch();
        }
        Ok(())
    }
}

impl Kernel for PlainAttention {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let [query, value, key] = self.parts(inputs)?;
        match (query.as_slice(), value.as_slice(), key.as_slice()) {
            ([batch, queries, features], [of_value, steps, width], [of_key, keys, of_features])
                if batch == of_value
                    && batch == of_key
                    && steps == keys
                    && features == of_features
                    && *keys > 0
                    && *features > 0
                    && *width > 0
                    && self.weights.as_ref().is_none_or(|weights| weights.len() == *features) =>
            {
                Dims::new(&[*batch, *queries, *width])
            }
            _ => Err(Failure::unforeseen("query, value and key of other shapes")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let operands = self.parts(run.inputs)?;
        let mut parts = [Part { numbers: &[], steps: 0, stride: 0 }; 3];
        for (part, operand) in parts.iter_mut().zip(operands) {
            let [_, steps, stride] = *operand.dims.as_slice() else {
                return Err(Failure::unforeseen("query, value and key of other shapes"));
            };
            *part = Part { numbers: operand.data.floats()?, steps, stride };
        }
        let [query, value, key] = parts;
        let (batch, queries, keys, features) = (run.dims.as_slice()[0], query.steps, key.steps, query.stride);
        let width = value.stride;
        let of_score = if matches!(self.score, Score::Tanh { .. }) { 16 } else { 2 };
        let operations = batch * queries * keys * (of_score * features + 2 * width);
        let threads = run.threads.count();
        let block = if batch < threads { queries.div_ceil(threads).next_multiple_of(MOST_ROWS) } else { queries };
        let wrong = Mutex::new(None);
        run.threads.rows(run.out, width, block, operations, |range, out| {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut memory = kept.unwrap_or_else(Head::new);
            // Where there are no queries, there is no range.
            for batch in range.start / queries.max(1)..range.end.div_ceil(queries.max(1)) {
                let (from, to) = (range.start.max(batch * queries), range.end.min((batch + 1) * queries));
                let out = &mut out[(from - range.start) * width..(to - range.start) * width];
                if matches!(self.score, Score::Product { .. }) {
                    memory.keys.fill_transposed(&key.head(batch, 0, features));
                }
                let values = value.head(batch, 0, width);
                let (numbers, stride) = (values.numbers, values.stride);
                memory.values.fill(keys, &Columns { numbers, count: width, stride, scale: None });
                let at = (batch, from - batch * queries..to - batch * queries);
                if let Err(failure) = self.of_queries(&mut memory, parts, at, out) {
                    *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                }
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        });
        wrong.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn bytes(&self) -> usize {
        self.weights.as_ref().map_or(0, Vec::len) * size_of::<f32>()
    }
}
