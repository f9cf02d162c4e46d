//! Attention with heads: products of packed keys a block of queries at a time, so that no matrix of all pairs is ever there.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use kandle_model::primitive;

use super::{
    Data, Kernel, Operand, Run,
    normalize::softmax,
    numbers,
    tile::{MOST_ROWS, Matrix, Packed, Rows, Target, multiply},
};
use crate::{Failure, dims::Dims};

/// Queries whose weights are there at once.
const BLOCK: usize = 4 * MOST_ROWS;

/// Attention with its projections packed.
#[derive(Debug)]
pub(crate) struct Attention {
    inputs: [usize; 3],
    mask: Option<usize>,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    heads: usize,
    key_heads: usize,
    causal: bool,
    forbidden: f32,
    zeroed: bool,
    /// Memory of heads, as many as ran at once.
    idle: Mutex<Vec<Head>>,
}

#[derive(Debug)]
struct Projection {
    kernel: Packed,
    bias: Option<Vec<f32>>,
}

impl Projection {
    fn new((kernel, bias): &(Tensor, Option<Tensor>), scale: f64) -> candle_core::Result<Self> {
        let (features, units) = kernel.dims2()?;
        let scaled = |tensor: &Tensor| if scale == 1.0 { Ok(tensor.clone()) } else { tensor * scale };
        let bias = bias.as_ref().map(|bias| numbers(&scaled(bias)?)).transpose()?;
        Ok(Self { kernel: Packed::new(&numbers(&scaled(kernel)?)?, features, units), bias })
    }

    fn bytes(&self) -> usize {
        self.kernel.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}

/// Memory of one head.
#[derive(Debug)]
struct Head {
    keys: Packed,
    values: Packed,
    weights: Vec<f32>,
}

/// Which pairs count.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    data: Data<'a>,
    /// Numbers from one batch, head, query and key to the next; 0 where the mask has one for all.
    strides: [usize; 4],
}

impl<'a> Pairs<'a> {
    /// A mask that broadcasts to `sizes`: batch, heads, queries, keys.
    fn new(mask: Operand<'a>, sizes: [usize; 4]) -> Result<Self, Failure> {
        let wrong = || Failure::unforeseen("a mask of another shape");
        let axes = mask.dims.as_slice();
        // Axes of size 1 before the last two, until there are four.
        let at = axes.len().checked_sub(2).ok_or_else(wrong)?;
        let missing = 4_usize.checked_sub(axes.len()).ok_or_else(wrong)?;
        let mut all = [1; 4];
        all[..at].copy_from_slice(&axes[..at]);
        all[at + missing..].copy_from_slice(&axes[at..]);
        let (mut strides, mut step) = ([0; 4], 1);
        for axis in (0..4).rev() {
            if all[axis] == sizes[axis] {
                strides[axis] = step;
            } else if all[axis] != 1 {
                return Err(wrong());
            }
            step *= all[axis];
        }
        if mask.data.len() != step {
            return Err(wrong());
        }
        Ok(Self { data: mask.data, strides })
    }

    /// Puts `number` where a pair of this batch row, head and query does not count. Whether any does.
    fn put(&self, number: f32, weights: &mut [f32], index: [usize; 3]) -> bool {
        let at: usize = index.iter().zip(self.strides).map(|(index, stride)| index * stride).sum();
        let step = self.strides[3];
        match self.data {
            Data::F32(numbers) => put(number, weights, numbers[at..].iter().step_by(step.max(1)), step, |x| *x != 0.0),
            Data::I32(numbers) => put(number, weights, numbers[at..].iter().step_by(step.max(1)), step, |x| *x != 0),
            Data::I64(numbers) => put(number, weights, numbers[at..].iter().step_by(step.max(1)), step, |x| *x != 0),
        }
    }
}

/// As [`Pairs::put`], for the numbers from there on; one for all where `step` is 0.
fn put<'a, T: 'a>(
    number: f32,
    weights: &mut [f32],
    mut mask: impl Iterator<Item = &'a T>,
    step: usize,
    counts: impl Fn(&T) -> bool,
) -> bool {
    if step == 0 {
        let counts = mask.next().is_some_and(counts);
        if !counts {
            weights.fill(number);
        }
        return counts;
    }
    let mut any = false;
    for (weight, mask) in weights.iter_mut().zip(mask) {
        let counts = counts(mask);
        any |= counts;
        *weight = if counts { *weight } else { number };
    }
    any
}

/// What all heads gave, `(batch, heads, queries, size)`, as rows `(batch, queries)` of `heads · size`.
struct Joined<'a> {
    numbers: &'a [f32],
    heads: usize,
    queries: usize,
    size: usize,
    count: usize,
}

impl Rows for Joined<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn taps(&self) -> usize {
        self.heads
    }

    fn run(&self) -> usize {
        self.size
    }

    fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]) {
        for row in 0..rows {
            let (batch, query) = ((first + row) / self.queries, (first + row) % self.queries);
            for head in 0..self.heads {
                let from = ((batch * self.heads + head) * self.queries + query) * self.size;
                places[head * rows + row] = &self.numbers[from..from + self.size];
            }
        }
    }
}

impl Attention {
    /// # Errors
    /// What candle reports.
    pub(crate) fn new(attention: &primitive::Attention) -> candle_core::Result<Self> {
        Ok(Self {
            inputs: attention.inputs,
            mask: attention.mask,
            // Scaled once and for all.
            query: Projection::new(&attention.query, attention.scale)?,
            key: Projection::new(&attention.key, 1.0)?,
            value: Projection::new(&attention.value, 1.0)?,
            output: Projection::new(&attention.output, 1.0)?,
            heads: attention.heads.0,
            key_heads: attention.heads.1,
            causal: attention.causal,
            forbidden: attention.forbidden,
            zeroed: attention.zeroed,
            idle: Mutex::default(),
        })
    }

    /// The sizes of a head of query and key, and of one of the value.
    fn sizes(&self) -> (usize, usize) {
        (self.query.kernel.columns() / self.heads.max(1), self.value.kernel.columns() / self.key_heads.max(1))
    }

    fn of_head(&self, memory: &mut Head, at: HeadOf<'_>, out: &mut [f32]) -> Result<(), Failure> {
        let HeadOf { batch, head, queries, keys, query, key, value, pairs } = at;
        let (size, of_value) = self.sizes();
        let shared = head / (self.heads / self.key_heads.max(1)).max(1);
        let (key_width, value_width) = (self.key_heads * size, self.key_heads * of_value);
        let key = &key[batch * keys * key_width + shared * size..];
        let value = &value[batch * keys * value_width + shared * of_value..];
        memory.keys.fill(size, keys, |row, column| key[column * key_width + row]);
        memory.values.fill(keys, of_value, |row, column| value[row * value_width + column]);
        memory.weights.resize(BLOCK.min(queries) * keys, 0.0);
        let width = self.heads * size;
        let rows = Matrix {
            numbers: &query[batch * queries * width + head * size..],
            rows: queries,
            stride: width,
            depth: size,
        };
        for from in (0..queries).step_by(BLOCK) {
            let to = (from + BLOCK).min(queries);
            let weights = &mut memory.weights[..(to - from) * keys];
            let target = Target { out: weights, stride: keys, bias: None, more: None, relu: None };
            multiply(&rows, from..to, &memory.keys, target);
            let mut alone = 0;
            if self.causal || pairs.is_some() {
                for (row, weights) in (from..to).zip(weights.chunks_exact_mut(keys)) {
                    let (seen, unseen) = weights.split_at_mut(if self.causal { (row + 1).min(keys) } else { keys });
                    unseen.fill(self.forbidden);
                    if pairs.is_some_and(|pairs| !pairs.put(self.forbidden, seen, [batch, head, row])) {
                        alone += 1;
                    }
                }
            }
            softmax(weights, keys)?;
            if alone > 0 && self.zeroed {
                // Where a pair counts, the others are 0 already: so far below it are they.
                for (row, weights) in (from..to).zip(weights.chunks_exact_mut(keys)) {
                    let (seen, unseen) = weights.split_at_mut(if self.causal { (row + 1).min(keys) } else { keys });
                    if pairs.is_some_and(|pairs| !pairs.put(0.0, seen, [batch, head, row])) {
                        unseen.fill(0.0);
                    }
                }
            }
            let weights = Matrix { numbers: weights, rows: to - from, stride: keys, depth: keys };
            let out = &mut out[from * of_value..to * of_value];
            let target = Target { out, stride: of_value, bias: None, more: None, relu: None };
            multiply(&weights, 0..to - from, &memory.values, target);
        }
        Ok(())
    }
}

/// One head of one batch row, and what it reads.
struct HeadOf<'a> {
    batch: usize,
    head: usize,
    queries: usize,
    keys: usize,
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    pairs: Option<Pairs<'a>>,
}

impl Kernel for Attention {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let wrong = || Failure::unforeseen("query, value and key of other shapes");
        let [query, value, key] = self.inputs.map(|input| inputs.get(input).map(Dims::as_slice));
        let (Some([batch, queries, features]), Some([of_value, steps, value]), Some([of_key, keys, key])) =
            (query, value, key)
        else {
            return Err(wrong());
        };
        let depths = (self.query.kernel.depth(), self.value.kernel.depth(), self.key.kernel.depth());
        if (*features, *value, *key) != depths || steps != keys || batch != of_value || batch != of_key || *keys == 0 {
            return Err(wrong());
        }
        Dims::new(&[*batch, *queries, self.output.kernel.columns()])
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let inputs = run.inputs;
        let missing = || Failure::unforeseen("an operand is missing");
        let operand = |place: usize| inputs.get(self.inputs[place]).copied().ok_or_else(missing);
        let [batch, queries, _] = operand(0)?.dims.as_slice().try_into().map_err(Failure::told)?;
        let keys = operand(1)?.dims.as_slice()[1];
        let (size, of_value) = self.sizes();
        let sizes = [batch, self.heads, queries, keys];
        let pairs = self.mask.map(|mask| Pairs::new(*inputs.get(mask).ok_or_else(missing)?, sizes)).transpose()?;
        let widths = [self.heads * size, self.key_heads * size, self.key_heads * of_value, self.heads * of_value];
        let [query, key, value, all] = run.scratch.buffers([
            batch * queries * widths[0],
            batch * keys * widths[1],
            batch * keys * widths[2],
            batch * queries * widths[3],
        ]);
        for (place, projection, out) in
            [(0, &self.query, &mut *query), (2, &self.key, &mut *key), (1, &self.value, &mut *value)]
        {
            let (numbers, depth) = (operand(place)?.data.floats()?, projection.kernel.depth());
            let columns = projection.kernel.columns();
            let matrix = Matrix { numbers, rows: out.len() / columns.max(1), stride: depth, depth };
            run.threads.rows(out, columns, MOST_ROWS, 2 * matrix.rows * depth * columns, |range, out| {
                let bias = projection.bias.as_deref();
                multiply(
                    &matrix,
                    range,
                    &projection.kernel,
                    Target { out, stride: columns, bias, more: None, relu: None },
                );
            });
        }
        let (query, key, value) = (&*query, &*key, &*value);
        let wrong = Mutex::new(None);
        let operations = 2 * batch * self.heads * queries * keys * (size + of_value);
        run.threads.rows(all, queries * of_value, 1, operations, |range, out| {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let new = || Head { keys: Packed::empty(), values: Packed::empty(), weights: Vec::new() };
            let mut memory = kept.unwrap_or_else(new);
            for (number, out) in range.zip(out.chunks_exact_mut((queries * of_value).max(1))) {
                let (batch, head) = (number / self.heads, number % self.heads);
                let at = HeadOf { batch, head, queries, keys, query, key, value, pairs };
                if let Err(failure) = self.of_head(&mut memory, at, out) {
                    *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                }
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        });
        if let Some(failure) = wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let joined = Joined { numbers: all, heads: self.heads, queries, size: of_value, count: batch * queries };
        let (columns, depth) = (self.output.kernel.columns(), self.output.kernel.depth());
        run.threads.rows(run.out, columns, MOST_ROWS, 2 * batch * queries * depth * columns, |range, out| {
            let bias = self.output.bias.as_deref();
            multiply(
                &joined,
                range,
                &self.output.kernel,
                Target { out, stride: columns, bias, more: None, relu: None },
            );
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        [&self.query, &self.key, &self.value, &self.output].iter().map(|projection| projection.bytes()).sum()
    }
}
