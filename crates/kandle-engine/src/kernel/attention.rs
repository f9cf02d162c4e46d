//! Attention with heads: products of packed keys a block of queries at a time, so that no matrix of all pairs is ever there.
//!
//! Query, key and value come out of one product where they are made of one tensor. The sum of a row's weights divides what the
//! row gives, not every weight.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use kandle_model::primitive;
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::{
    Data, Kernel, Operand, Run,
    normalize::{exponentials, largest, scale},
    numbers,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{Failure, dims::Dims, memory::Store};

/// Queries whose weights are there at once.
pub(super) const BLOCK: usize = 4 * MOST_ROWS;
/// How far below a row's largest product one has to be for its weight to be 0.
const NOTHING: f32 = 110.0;

/// Attention with its projections packed.
#[derive(Debug)]
pub(crate) struct Attention {
    /// The tensors that are projected, each once.
    sources: Vec<Source>,
    /// Of query, value and key: their source, and their first column there.
    parts: [(usize, usize); 3],
    mask: Option<usize>,
    output: (Packed, Option<Vec<f32>>),
    heads: usize,
    key_heads: usize,
    /// Numbers of a head of query and key, and of one of the value.
    size: usize,
    of_value: usize,
    causal: bool,
    forbidden: f32,
    zeroed: bool,
    /// Whether the last input is added to what comes out.
    adds: bool,
    /// Memory of heads, as many as ran at once.
    idle: Mutex<Vec<Head>>,
}

/// A tensor that is projected.
#[derive(Debug)]
struct Source {
    input: usize,
    kernel: Packed,
    bias: Option<Vec<f32>>,
}

/// Memory of one head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) keys: Packed,
    pub(super) values: Packed,
    pub(super) weights: Vec<f32>,
    /// What each row of weights sums to, inverted.
    pub(super) shares: Vec<f32>,
}

impl Head {
    pub(super) fn new() -> Self {
        Self { keys: Packed::empty(), values: Packed::empty(), weights: Vec::new(), shares: Vec::new() }
    }
}

/// Which pairs count: those that are not 0.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    numbers: &'a [f32],
    /// Numbers from one batch, head, query and key to the next; 0 where the mask has one for all.
    strides: [usize; 4],
}

impl<'a> Pairs<'a> {
    /// A mask of this shape that broadcasts to `sizes`: batch, heads, queries, keys.
    fn new(numbers: &'a [f32], dims: Dims, sizes: [usize; 4]) -> Result<Self, Failure> {
        let wrong = || Failure::unforeseen("a mask of another shape");
        let axes = dims.as_slice();
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
        if numbers.len() != step {
            return Err(wrong());
        }
        Ok(Self { numbers, strides })
    }

    /// Those of one query: a number for each key, or one for all.
    #[inline(always)]
    fn of(&self, batch: usize, head: usize, query: usize, keys: usize) -> &'a [f32] {
        let at = batch * self.strides[0] + head * self.strides[1] + query * self.strides[2];
        &self.numbers[at..at + if self.strides[3] == 0 { 1 } else { keys }]
    }
}

/// Makes weights of products: `e` to their power, and in `shares` what each row sums to, inverted.
pub(super) struct Weigh<'a> {
    pub(super) weights: &'a mut [f32],
    pub(super) shares: &'a mut [f32],
    pub(super) keys: usize,
    /// The first query.
    pub(super) from: usize,
    /// As [`primitive::Attention`] has them.
    pub(super) causal: bool,
    pub(super) forbidden: f32,
    pub(super) zeroed: bool,
    pub(super) pairs: Option<Pairs<'a>>,
    pub(super) batch: usize,
    pub(super) head: usize,
}

impl SimdOp for Weigh<'_> {
    /// Whether all is as Keras has it.
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let Self { causal, forbidden, zeroed, .. } = self;
        let mut fine = true;
        for ((row, weights), share) in
            (self.from..).zip(self.weights.chunks_exact_mut(self.keys)).zip(self.shares.iter_mut())
        {
            let (seen, unseen) = weights.split_at_mut(if causal { (row + 1).min(self.keys) } else { self.keys });
            let pairs = self.pairs.map(|pairs| pairs.of(self.batch, self.head, row, self.keys));
            let any = match pairs {
                Some([counts]) if self.keys > 1 => *counts != 0.0,
                Some(pairs) => forbid(isa, seen, pairs, forbidden),
                None => true,
            };
            if !any {
                // All products are the same then.
                seen.fill(1.0);
                unseen.fill(1.0);
                *share = if zeroed { 0.0 } else { 1.0 / self.keys as f32 };
                continue;
            }
            let largest = largest(isa, seen);
            fine &= largest - forbidden > NOTHING;
            let sum = exponentials(isa, seen, largest);
            unseen.fill(0.0);
            fine &= sum.is_finite();
            *share = 1.0 / sum;
        }
        fine
    }
}

/// Puts `number` where a pair does not count. Whether any does.
#[inline(always)]
fn forbid<I: Isa>(isa: I, products: &mut [f32], pairs: &[f32], number: f32) -> bool {
    let ops = isa.f32();
    let (forbidden, mut most) = (ops.splat(number), ops.zero());
    let (mut vectors, of_pairs) = (products.chunks_exact_mut(ops.len()), pairs.chunks_exact(ops.len()));
    for (vector, pairs) in (&mut vectors).zip(of_pairs) {
        let pairs = ops.load(pairs);
        let not = ops.eq(pairs, ops.zero());
        most = ops.select(most, ops.one(), not);
        ops.store(ops.select(forbidden, ops.load(vector), not), vector);
    }
    let mut any = ops.sum(most) > 0.0;
    let from = products.len() - products.len() % ops.len();
    for (x, pair) in products[from..].iter_mut().zip(&pairs[from..]) {
        any |= *pair != 0.0;
        *x = if *pair == 0.0 { number } else { *x };
    }
    any
}

/// The first `width` numbers of each row of `stride` times its share.
pub(super) struct Share<'a> {
    pub(super) rows: &'a mut [f32],
    pub(super) shares: &'a [f32],
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl SimdOp for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for (row, share) in self.rows.chunks_mut(self.stride).zip(self.shares) {
            scale(isa, &mut row[..self.width], *share);
        }
    }
}

/// A tensor with heads: `(batch, steps, columns)`, of which it has some.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) steps: usize,
    pub(super) stride: usize,
}

impl<'a> Part<'a> {
    /// The rows of one head of `size` numbers.
    pub(super) fn head(self, batch: usize, head: usize, size: usize) -> Matrix<'a> {
        let numbers = &self.numbers[batch * self.steps * self.stride + head * size..];
        Matrix { numbers, rows: self.steps, stride: self.stride, depth: size }
    }
}

impl Attention {
    /// # Errors
    /// What candle reports.
    pub(crate) fn new(attention: &primitive::Attention, adds: bool, store: &mut Store) -> candle_core::Result<Self> {
        let primitive::Attention { inputs, mask, scale, heads: (heads, key_heads), .. } = *attention;
        let mut projections = Vec::with_capacity(inputs.len());
        for (kernel, bias) in [&attention.query, &attention.value, &attention.key] {
            let (depth, columns) = kernel.dims2()?;
            projections.push((depth, columns, numbers(kernel)?, bias.as_ref().map(numbers).transpose()?));
        }
        // Scaled once and for all.
        if let Some((_, _, kernel, bias)) = projections.first_mut() {
            let all = kernel.iter_mut().chain(bias.iter_mut().flatten());
            all.for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
        let size = projections.first().map_or(0, |(_, columns, ..)| columns / heads.max(1));
        let of_value = projections.get(1).map_or(0, |(_, columns, ..)| columns / key_heads.max(1));
        let (mut sources, mut parts) = (Vec::new(), [(0, 0); 3]);
        for (first, input) in inputs.iter().enumerate() {
            if inputs[..first].contains(input) {
                continue;
            }
            let (mut matrices, mut bias, mut column, mut depth) = (Vec::new(), Vec::new(), 0, 0);
            for (number, (of_depth, columns, kernel, of_bias)) in projections.iter().enumerate() {
                if inputs[number] == *input {
                    parts[number] = (sources.len(), column);
                    matrices.push(Columns::all(kernel, *columns));
                    bias.extend(of_bias.clone().unwrap_or_else(|| vec![0.0; *columns]));
                    (column, depth) = (column + columns, *of_depth);
                }
            }
            let bias = Some(bias).filter(|bias| bias.iter().any(|x| *x != 0.0));
            sources.push(Source { input: *input, kernel: Packed::new(store, depth, &matrices), bias });
        }
        let (kernel, bias) = &attention.output;
        let (depth, columns) = kernel.dims2()?;
        let output = Packed::new(store, depth, &[Columns::all(&numbers(kernel)?, columns)]);
        Ok(Self {
            sources,
            parts,
            mask,
            output: (output, bias.as_ref().map(numbers).transpose()?),
            heads,
            key_heads,
            size,
            of_value,
            causal: attention.causal,
            forbidden: attention.forbidden,
            zeroed: attention.zeroed,
            adds,
            idle: Mutex::default(),
        })
    }

    /// What one head of one batch row gives for some of its queries, with its keys and values packed in `memory`, into the first
    /// numbers of each row of `out`.
    fn of_head(&self, memory: &mut Head, at: HeadOf<'_>, out: &mut [f32]) -> Result<(), Failure> {
        let HeadOf { batch, head, query, queries, keys, pairs } = at;
        let rows = query.head(batch, head, self.size);
        let (block, stride) = (BLOCK.min(queries.len()), self.heads * self.of_value);
        memory.weights.resize(block * keys, 0.0);
        memory.shares.resize(block, 0.0);
        for from in queries.clone().step_by(BLOCK) {
            let to = (from + BLOCK).min(queries.end);
            let weights = &mut memory.weights[..(to - from) * keys];
            let shares = &mut memory.shares[..to - from];
            let target = Target { out: weights, stride: keys, bias: None, more: None, relu: None };
            multiply(&rows, from..to, &memory.keys, target);
            let Self { causal, forbidden, zeroed, .. } = *self;
            if !(Weigh { weights, shares, keys, from, causal, forbidden, zeroed, pairs, batch, head }).dispatch() {
                return Err(Failure::unforeseen("an attention to what is no number"));
            }
            let weights = Matrix { numbers: weights, rows: to - from, stride: keys, depth: keys };
            let out = &mut out[(from - queries.start) * stride..];
            multiply(
                &weights,
                0..to - from,
                &memory.values,
                Target { out, stride, bias: None, more: None, relu: None },
            );
            Share { rows: out, shares, width: self.of_value, stride }.dispatch();
        }
        Ok(())
    }
}

/// One head of one batch row, some of its queries, and what it reads.
struct HeadOf<'a> {
    batch: usize,
    head: usize,
    query: Part<'a>,
    queries: Range<usize>,
    keys: usize,
    pairs: Option<Pairs<'a>>,
}

impl Kernel for Attention {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let wrong = || Failure::unforeseen("query, value and key of other shapes");
        for source in &self.sources {
            if inputs.get(source.input).ok_or_else(wrong)?.last()? != source.kernel.depth() {
                return Err(wrong());
            }
        }
        let of = |part: usize| inputs.get(self.sources[self.parts[part].0].input).map(Dims::as_slice);
        match (of(0), of(1), of(2)) {
            (Some([batch, queries, _]), Some([of_value, steps, _]), Some([of_key, keys, _]))
                if steps == keys && batch == of_value && batch == of_key && *keys > 0 =>
            {
                let dims = Dims::new(&[*batch, *queries, self.output.0.columns()])?;
                if self.adds && inputs.last() != Some(&dims) {
                    return Err(Failure::unforeseen("a summand of another shape"));
                }
                Ok(dims)
            }
            _ => Err(wrong()),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let steps_of = |source: &Source| -> Result<(usize, usize), Failure> {
            match run.operand(source.input)?.dims.as_slice() {
                [batch, steps, _] => Ok((*batch, *steps)),
                _ => Err(Failure::unforeseen("query, value and key of other shapes")),
            }
        };
        let mut sizes = [0; 5];
        for (size, source) in sizes.iter_mut().zip(&self.sources) {
            let (batch, steps) = steps_of(source)?;
            *size = batch * steps * source.kernel.columns();
        }
        let (batch, queries) = steps_of(&self.sources[self.parts[0].0])?;
        let (_, keys) = steps_of(&self.sources[self.parts[1].0])?;
        let mask = self.mask.map(|mask| run.operand(mask)).transpose()?;
        let of_heads = self.heads * self.of_value;
        sizes[3] = batch * queries * of_heads;
        sizes[4] = mask.filter(|mask| !matches!(mask.data, Data::F32(_))).map_or(0, |mask| mask.data.len());
        let more = match run.inputs.last() {
            Some(last) if self.adds => Some(last.data.floats()?),
            _ => None,
        };
        let [first, second, third, all, counted] = run.scratch.buffers(sizes);
        let mut projected: [&mut [f32]; 3] = [first, second, third];
        for (source, out) in self.sources.iter().zip(&mut projected) {
            let Operand { dims, data } =
                run.inputs.get(source.input).copied().ok_or_else(|| Failure::unforeseen("an operand is missing"))?;
            let (depth, columns) = (source.kernel.depth(), source.kernel.columns());
            let matrix = Matrix { numbers: data.floats()?, rows: dims.count() / depth.max(1), stride: depth, depth };
            run.threads.rows(out, columns, MOST_ROWS, 2 * matrix.rows * depth * columns, |range, out| {
                let bias = source.bias.as_deref();
                multiply(&matrix, range, &source.kernel, Target { out, stride: columns, bias, more: None, relu: None });
            });
        }
        let part = |number: usize, steps: usize| {
            let (source, first) = self.parts[number];
            let numbers = projected[source].get(first..).unwrap_or_default();
            Part { numbers, steps, stride: self.sources[source].kernel.columns() }
        };
        let (query, value, key) = (part(0, queries), part(1, keys), part(2, keys));
        let pairs = match mask {
            Some(mask) => {
                let numbers = match mask.data {
                    Data::F32(numbers) => numbers,
                    Data::I32(numbers) => counting(numbers, counted, |x| *x != 0),
                    Data::I64(numbers) => counting(numbers, counted, |x| *x != 0),
                };
                Some(Pairs::new(numbers, mask.dims, [batch, self.heads, queries, keys])?)
            }
            None => None,
        };
        let wrong = Mutex::new(None);
        let operations = 2 * batch * self.heads * queries * keys * (self.size + self.of_value);
        // All heads of some queries of a batch row at a time, so that what they give lies side by side; of as many queries as can
        // be, since the keys are packed for them.
        let threads = run.threads.count();
        let block = if batch < threads { queries.div_ceil(threads).next_multiple_of(MOST_ROWS) } else { queries };
        run.threads.rows(all, of_heads, block, operations, |range, out| {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut memory = kept.unwrap_or_else(Head::new);
            // Where there are no queries, there is no range.
            for batch in range.start / queries.max(1)..range.end.div_ceil(queries.max(1)) {
                let (from, to) = (range.start.max(batch * queries), range.end.min((batch + 1) * queries));
                let out = &mut out[(from - range.start) * of_heads..(to - range.start) * of_heads];
                for head in 0..self.heads {
                    let each = self.heads / self.key_heads.max(1);
                    if head % each.max(1) == 0 {
                        let shared = head / each.max(1);
                        memory.keys.fill_transposed(&key.head(batch, shared, self.size));
                        let Matrix { numbers, stride, depth, .. } = value.head(batch, shared, self.of_value);
                        memory.values.fill(keys, &Columns { numbers, count: depth, stride, scale: None });
                    }
                    let queries = from - batch * queries..to - batch * queries;
                    let at = HeadOf { batch, head, query, queries, keys, pairs };
                    if let Err(failure) = self.of_head(&mut memory, at, &mut out[head * self.of_value..]) {
                        *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    }
                }
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        });
        if let Some(failure) = wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let (kernel, bias) = (&self.output.0, self.output.1.as_deref());
        let (depth, columns) = (kernel.depth(), kernel.columns());
        let all = Matrix { numbers: all, rows: batch * queries, stride: depth, depth };
        run.threads.rows(run.out, columns, MOST_ROWS, 2 * batch * queries * depth * columns, |range, out| {
            let more = more.map(|more| &more[range.start * columns..range.end * columns]);
            multiply(&all, range, kernel, Target { out, stride: columns, bias, more, relu: None });
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        let projections = self.sources.iter().map(|source| (&source.kernel, &source.bias));
        let all = projections.chain([(&self.output.0, &self.output.1)]);
        all.map(|(kernel, bias)| kernel.bytes() + bias.as_ref().map_or(0, Vec::len) * size_of::<f32>()).sum()
    }
}

/// 1 where a number counts, else 0.
fn counting<'a, T>(numbers: &[T], counted: &'a mut [f32], counts: impl Fn(&T) -> bool) -> &'a [f32] {
    for (out, number) in counted.iter_mut().zip(numbers) {
        *out = if counts(number) { 1.0 } else { 0.0 };
    }
    counted
}
