//! What looks at whole rows: layer normalisation and softmax, in one pass over memory each.

#![allow(unsafe_code, reason = "rows that are no whole number of vectors are written through masks")]

use rten_simd::{
    Isa, Simd, SimdOp, SimdUnaryOp,
    ops::{BitOps, NumOps},
};
use rten_vecmath::Exp;

use super::{Kernel, Run, map::Map};
use crate::{Failure, dims::Dims, threads::MOVED};

/// `(xs − mean) / √(variance + epsilon) · gamma + beta` over the last axis, or without the mean.
#[derive(Debug)]
pub(crate) struct Normalize {
    pub(crate) centered: bool,
    pub(crate) epsilon: f32,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Option<Vec<f32>>,
    pub(crate) map: Option<Map>,
}

/// The largest of a vector's lanes.
#[inline(always)]
fn largest_lane<I: Isa>(x: I::F32) -> f32 {
    const MOST_LANES: usize = 16;
    let lanes = x.to_array();
    let (lanes, mut few) = (lanes.as_ref(), [f32::NEG_INFINITY; MOST_LANES]);
    few[..lanes.len()].copy_from_slice(lanes);
    for half in [8, 4, 2, 1] {
        for at in 0..half {
            few[at] = if few[at + half] > few[at] { few[at + half] } else { few[at] };
        }
    }
    few[0]
}

/// The largest number of a row, of those that are numbers.
#[inline(always)]
pub(super) fn largest<I: Isa>(isa: I, row: &[f32]) -> f32 {
    let ops = isa.f32();
    let none = ops.splat(f32::NEG_INFINITY);
    let (mut most, vectors) = (none, row.chunks_exact(ops.len()));
    let (rest, mask) = ops.load_pad(vectors.remainder());
    for vector in vectors {
        let x = ops.load(vector);
        most = ops.select(x, most, ops.gt(x, most));
    }
    let rest = ops.select(rest, none, mask);
    largest_lane::<I>(ops.select(rest, most, ops.gt(rest, most)))
}

/// `e` to the power of `x`, 0 where that is 0 in float32. `Exp` has the same numbers, but computes with such that are as small as
/// they can be on the way, where a multiplication takes a hundred times as long: for every pair that a mask leaves out.
#[inline(always)]
fn power<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const NOTHING: f32 = -104.0;
    let ops = isa.f32();
    let nothing = ops.le(x, ops.splat(NOTHING));
    ops.select(ops.zero(), Exp {}.eval(isa, ops.select(ops.zero(), x, nothing)), nothing)
}

/// `e` to the power of every number less `largest`, where they are, and the sum of that.
#[inline(always)]
pub(super) fn exponentials<I: Isa>(isa: I, row: &mut [f32], largest: f32) -> f32 {
    let ops = isa.f32();
    let (largest, mut sum) = (ops.splat(largest), ops.zero());
    let mut vectors = row.chunks_exact_mut(ops.len());
    for vector in &mut vectors {
        let x = power(isa, ops.sub(ops.load(vector), largest));
        sum = ops.add(sum, x);
        ops.store(x, vector);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        let (x, mask) = ops.load_pad(rest);
        let x = ops.select(power(isa, ops.sub(x, largest)), ops.zero(), mask);
        sum = ops.add(sum, x);
        put(isa, x, rest);
    }
    ops.sum(sum)
}

/// Every number of a row times `factor`.
#[inline(always)]
pub(super) fn scale<I: Isa>(isa: I, row: &mut [f32], factor: f32) {
    let ops = isa.f32();
    let by = ops.splat(factor);
    let mut vectors = row.chunks_exact_mut(ops.len());
    for vector in &mut vectors {
        ops.store(ops.mul(ops.load(vector), by), vector);
    }
    vectors.into_remainder().iter_mut().for_each(|x| *x *= factor);
}

/// The first lanes of a vector, as many as there are numbers.
#[inline(always)]
fn put<I: Isa>(isa: I, x: I::F32, numbers: &mut [f32]) {
    let ops = isa.f32();
    let mask = ops.first_n_mask(numbers.len().min(ops.len()));
    // Safety: the lanes of the mask are there.
    unsafe { ops.store_ptr_mask(x, numbers.as_mut_ptr(), mask) };
}

/// Softmax of rows of a few numbers, of which a vector takes several. Whether every sum was a number.
#[inline(always)]
fn short<I: Isa>(isa: I, rows: &mut [f32], width: usize) -> bool {
    let ops = isa.f32();
    for row in rows.chunks_exact_mut(width) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |largest, x| if *x > largest { *x } else { largest });
        row.iter_mut().for_each(|x| *x -= largest);
    }
    let mut vectors = rows.chunks_exact_mut(ops.len());
    for vector in &mut vectors {
        ops.store(power(isa, ops.load(vector)), vector);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        put(isa, power(isa, ops.load_pad(rest).0), rest);
    }
    let mut all = true;
    for row in rows.chunks_exact_mut(width) {
        let sum: f32 = row.iter().sum();
        all &= sum.is_finite();
        let share = 1.0 / sum;
        row.iter_mut().for_each(|x| *x *= share);
    }
    all
}

struct NormalizeRows<'a> {
    kernel: &'a Normalize,
    from: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl SimdOp for NormalizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let Normalize { centered, epsilon, gamma, beta, .. } = self.kernel;
        let width = gamma.len();
        let count = width as f32;
        for (number, out) in self.out.chunks_exact_mut(width).enumerate() {
            if let Some(from) = self.from {
                out.copy_from_slice(&from[number * width..][..width]);
            }
            let mean = if *centered {
                let (mut sum, vectors) = (ops.zero(), out.chunks_exact(lanes));
                // Lanes beyond the row are zeros.
                let (rest, _) = ops.load_pad(vectors.remainder());
                for vector in vectors {
                    sum = ops.add(sum, ops.load(vector));
                }
                ops.sum(ops.add(sum, rest)) / count
            } else {
                0.0
            };
            let center = ops.splat(mean);
            let (mut squares, vectors) = (ops.zero(), out.chunks_exact(lanes));
            let (rest, mask) = ops.load_pad(vectors.remainder());
            for vector in vectors {
                let x = ops.sub(ops.load(vector), center);
                squares = ops.mul_add(x, x, squares);
            }
            let rest = ops.select(ops.sub(rest, center), ops.zero(), mask);
            squares = ops.mul_add(rest, rest, squares);
            let factor = ops.splat(1.0 / (ops.sum(squares) / count + epsilon).sqrt());
            let scaled = |x: I::F32, gamma: I::F32, beta: Option<I::F32>| {
                let x = ops.mul(ops.mul(ops.sub(x, center), factor), gamma);
                beta.map_or(x, |beta| ops.add(x, beta))
            };
            let mut vectors = out.chunks_exact_mut(lanes);
            let mut at = 0;
            for vector in &mut vectors {
                let beta = beta.as_ref().map(|beta| ops.load(&beta[at..at + lanes]));
                ops.store(scaled(ops.load(vector), ops.load(&gamma[at..at + lanes]), beta), vector);
                at += lanes;
            }
            let rest = vectors.into_remainder();
            if !rest.is_empty() {
                let beta = beta.as_ref().map(|beta| ops.load_pad(&beta[at..]).0);
                let x = scaled(ops.load_pad(rest).0, ops.load_pad(&gamma[at..]).0, beta);
                put(isa, x, rest);
            }
        }
    }
}

impl Kernel for Normalize {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.last()? != self.gamma.len() || self.beta.as_ref().is_some_and(|beta| beta.len() != self.gamma.len()) {
            return Err(Failure::unforeseen("another number of features"));
        }
        Ok(dims)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        let width = self.gamma.len();
        let operations = 2 * MOVED * run.out.len();
        run.threads.rows(run.out, width, 1, operations, |range, out| {
            let from = from.map(|from| &from[range.start * width..range.end * width]);
            NormalizeRows { kernel: self, from, out }.dispatch();
            if let Some(map) = self.map {
                map.apply(out);
            }
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        (self.gamma.len() + self.beta.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
    }
}

/// The softmax along the last axis.
#[derive(Debug)]
pub(crate) struct Softmax;

/// Every row of so many numbers.
struct SoftmaxRows<'a> {
    out: &'a mut [f32],
    width: usize,
}

impl SimdOp for SoftmaxRows<'_> {
    type Output = bool;

    /// Whether every sum was a number.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let mut all = true;
        let ops = isa.f32();
        if self.width <= ops.len() / 2 {
            return short(isa, self.out, self.width);
        }
        if self.width <= ops.len() {
            // A row of one vector.
            for out in self.out.chunks_exact_mut(self.width) {
                let (x, mask) = ops.load_pad(out);
                let largest = largest_lane::<I>(ops.select(x, ops.splat(f32::NEG_INFINITY), mask));
                let x = ops.select(Exp {}.eval(isa, ops.sub(x, ops.splat(largest))), ops.zero(), mask);
                let sum = ops.sum(x);
                all &= sum.is_finite();
                put(isa, ops.mul(x, ops.splat(1.0 / sum)), out);
            }
            return all;
        }
        for out in self.out.chunks_exact_mut(self.width) {
            let largest = largest(isa, out);
            let sum = exponentials(isa, out, largest);
            all &= sum.is_finite();
            scale(isa, out, 1.0 / sum);
        }
        all
    }
}

/// Softmax of every row of `rows`.
///
/// # Errors
/// Where there are numbers that Keras treats by rules of its own: the model knows them.
fn softmax(rows: &mut [f32], width: usize) -> Result<(), Failure> {
    if width == 0 || (SoftmaxRows { out: rows, width }).dispatch() {
        return Ok(());
    }
    Err(Failure::unforeseen("a softmax of what is no number"))
}

impl Kernel for Softmax {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        super::only(inputs)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        if !run.in_place {
            run.out.copy_from_slice(run.floats(0)?);
        }
        softmax(run.out, run.dims.last()?)
    }

    fn works_in_place(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use rten_simd::{Isa, Simd, SimdOp, SimdUnaryOp, ops::BitOps};
    use rten_vecmath::Exp;

    use super::power;

    /// The bits of `power` and of `Exp` for each of some numbers.
    struct Both<'a>(&'a [f32]);

    impl SimdOp for Both<'_> {
        type Output = Vec<(u32, u32)>;

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> Self::Output {
            let bits = |x: I::F32| x.to_array().as_ref()[0].to_bits();
            let of = |x: &f32| {
                let x = isa.f32().splat(*x);
                (bits(power(isa, x)), bits(Exp {}.eval(isa, x)))
            };
            self.0.iter().map(of).collect()
        }
    }

    #[test]
    fn powers_are_those_of_exp_also_where_nothing_is_left() {
        let steps = (-1200..=0_i16).map(|step| f32::from(step) / 10.0);
        let numbers: Vec<f32> = steps.chain([-1e9, f32::MIN, f32::NEG_INFINITY, -103.99, -104.01]).collect();
        let both = Both(&numbers).dispatch();
        assert!(both.iter().all(|(ours, exp)| ours == exp));
        assert!(both[0].0 == 0 && both[1200].0 == 1.0_f32.to_bits() && both[161..].iter().any(|(ours, _)| *ours != 0));
        assert!(f32::from_bits(Both(&[f32::NAN]).dispatch()[0].0).is_nan());
    }
}
