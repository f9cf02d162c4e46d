//! What looks at whole rows: layer normalisation and softmax, in one pass over memory each.

#![allow(unsafe_code, reason = "rows that are no whole number of vectors are read and written through masks")]

use rten_simd::{
    Isa, Simd, SimdOp, SimdUnaryOp,
    ops::{BitOps, FloatOps, NumOps},
};
use rten_vecmath::Exp;

use super::{Kernel, Run, map::Map};
use crate::{Failure, dims::Dims};

/// `(xs − mean) / √(variance + epsilon) · gamma + beta` over the last axis, or without the mean.
#[derive(Debug)]
pub(crate) struct Normalize {
    pub(crate) centered: bool,
    pub(crate) epsilon: f32,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Option<Vec<f32>>,
    pub(crate) map: Option<Map>,
}

/// The vectors of a row, the last one perhaps not whole.
#[inline(always)]
fn vectors<I: Isa>(isa: I, count: usize) -> impl Iterator<Item = (usize, I::M32)> {
    let ops = isa.f32();
    let lanes = ops.len();
    (0..count).step_by(lanes).map(move |at| (at, ops.first_n_mask((count - at).min(lanes))))
}

/// # Safety
/// The row has the lanes of `mask` from `at` on.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, row: &[f32], at: usize, mask: I::M32) -> I::F32 {
    let ops = isa.f32();
    if at + ops.len() <= row.len() {
        // Safety: there is a whole vector.
        unsafe { ops.load_ptr(row.as_ptr().add(at)) }
    } else {
        // Safety: by the caller.
        unsafe { ops.load_ptr_mask(row.as_ptr().add(at), mask) }
    }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, x: I::F32, row: &mut [f32], at: usize, mask: I::M32) {
    let ops = isa.f32();
    if at + ops.len() <= row.len() {
        // Safety: there is a whole vector.
        unsafe { ops.store_ptr(x, row.as_mut_ptr().add(at)) }
    } else {
        // Safety: by the caller.
        unsafe { ops.store_ptr_mask(x, row.as_mut_ptr().add(at), mask) }
    }
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
        let Normalize { centered, epsilon, gamma, beta, .. } = self.kernel;
        let width = gamma.len();
        let count = width as f32;
        for (number, out) in self.out.chunks_exact_mut(width).enumerate() {
            if let Some(from) = self.from {
                out.copy_from_slice(&from[number * width..][..width]);
            }
            let mean = if *centered {
                let mut sum = ops.zero();
                for (at, mask) in vectors(isa, width) {
                    // Safety: the lanes of the mask are in the row, here and below; masked lanes are zeros.
                    sum = ops.add(sum, unsafe { load(isa, out, at, mask) });
                }
                ops.sum(sum) / count
            } else {
                0.0
            };
            let center = ops.splat(mean);
            let mut squares = ops.zero();
            for (at, mask) in vectors(isa, width) {
                // Safety: as above.
                let x = ops.sub(unsafe { load(isa, out, at, mask) }, center);
                let x = ops.select(x, ops.zero(), mask);
                squares = ops.mul_add(x, x, squares);
            }
            let factor = 1.0 / (ops.sum(squares) / count + epsilon).sqrt();
            let factor = ops.splat(factor);
            for (at, mask) in vectors(isa, width) {
                // Safety: as above; gamma and beta are as long as the row.
                unsafe {
                    let x = ops.mul(ops.sub(load(isa, out, at, mask), center), factor);
                    let x = ops.mul(x, load(isa, gamma, at, mask));
                    let x = match beta {
                        Some(beta) => ops.add(x, load(isa, beta, at, mask)),
                        None => x,
                    };
                    store(isa, x, out, at, mask);
                }
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
        let operations = run.out.len() * 8;
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

struct SoftmaxRows<'a> {
    out: &'a mut [f32],
    width: usize,
}

impl SimdOp for SoftmaxRows<'_> {
    type Output = bool;

    /// Whether every sum was a number.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let ops = isa.f32();
        let mut all = true;
        for out in self.out.chunks_exact_mut(self.width) {
            let none = ops.splat(f32::NEG_INFINITY);
            let mut largest = none;
            for (at, mask) in vectors(isa, self.width) {
                // Safety: the lanes of the mask are in the row, here and below.
                let x = ops.select(unsafe { load(isa, out, at, mask) }, none, mask);
                largest = ops.select(x, largest, ops.gt(x, largest));
            }
            let largest = ops.splat(largest.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max));
            let mut sum = ops.zero();
            for (at, mask) in vectors(isa, self.width) {
                // Safety: as above.
                unsafe {
                    let x = Exp {}.eval(isa, ops.sub(load(isa, out, at, mask), largest));
                    sum = ops.add(sum, ops.select(x, ops.zero(), mask));
                    store(isa, x, out, at, mask);
                }
            }
            let sum = ops.sum(sum);
            all &= sum.is_finite();
            let sum = ops.splat(sum);
            for (at, mask) in vectors(isa, self.width) {
                // Safety: as above.
                unsafe { store(isa, ops.div(load(isa, out, at, mask), sum), out, at, mask) };
            }
        }
        all
    }
}

/// Softmax of every row of `rows`.
///
/// # Errors
/// Where there are numbers that Keras treats by rules of its own: the model knows them.
pub(crate) fn softmax(rows: &mut [f32], width: usize) -> Result<(), Failure> {
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
