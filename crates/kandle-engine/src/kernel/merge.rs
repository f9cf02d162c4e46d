//! Several tensors number by number.

use kandle_model::primitive::Merging;
use rten_simd::{Isa, SimdOp};

use super::{Kernel, Run, map::Map};
use crate::{
    Failure,
    dims::{Dims, MOST_AXES},
    threads::MOVED,
};

/// Tensors of one rank, one after the other; axes of size 1 stretch.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) how: Merging,
    pub(crate) map: Option<Map>,
}

struct Into<'a> {
    how: Merging,
    out: &'a mut [f32],
    more: &'a [f32],
}

impl SimdOp for Into<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let pairs = self.out.iter_mut().zip(self.more);
        match self.how {
            Merging::Add | Merging::Average => pairs.for_each(|(out, x)| *out += x),
            Merging::Subtract => pairs.for_each(|(out, x)| *out -= x),
            Merging::Multiply => pairs.for_each(|(out, x)| *out *= x),
            Merging::Divide => pairs.for_each(|(out, x)| *out /= x),
            Merging::Maximum => pairs.for_each(|(out, x)| *out = if *x > *out { *x } else { *out }),
            Merging::Minimum => pairs.for_each(|(out, x)| *out = if *x < *out { *x } else { *out }),
        }
    }
}

/// `out` and `more`, number by number; for an average their sum.
pub(crate) fn merge(how: Merging, out: &mut [f32], more: &[f32]) {
    Into { how, out, more }.dispatch();
}

/// Whether there is what is no number, which has rules of its own in an order.
fn has_nan(numbers: &[f32]) -> bool {
    numbers.chunks(64).any(|numbers| numbers.iter().fold(false, |any, x| any | x.is_nan()))
}

/// An operand that is broadcast: `out` has the shape `dims`, and from one index of an axis to the next it is `strides` numbers
/// further, 0 where it has one for all.
struct Spread<'a> {
    how: Merging,
    out: &'a mut [f32],
    more: &'a [f32],
    dims: &'a [usize],
    strides: [usize; MOST_AXES],
}

impl SimdOp for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Some((width, outer)) = self.dims.split_last().filter(|(width, _)| **width > 0) else { return };
        let (step, mut index) = (self.strides[outer.len()], [0; MOST_AXES]);
        for out in self.out.chunks_exact_mut(*width) {
            let at: usize =
                index.iter().zip(self.strides).take(outer.len()).map(|(index, stride)| index * stride).sum();
            if step == 1 {
                Into { how: self.how, out, more: &self.more[at..at + width] }.eval(isa);
            } else {
                for out in out.chunks_mut(1) {
                    Into { how: self.how, out, more: &self.more[at..=at] }.eval(isa);
                }
            }
            super::moves::next(&mut index, outer);
        }
    }
}

/// The numbers of `more`, of shape `dims`, into `out`, of shape `made`.
fn spread(how: Merging, out: &mut [f32], made: Dims, more: &[f32], dims: Dims) {
    let (mut strides, mut step) = ([0; MOST_AXES], 1);
    for (axis, (size, whole)) in dims.as_slice().iter().zip(made.as_slice()).enumerate().rev() {
        strides[axis] = if size == whole { step } else { 0 };
        step *= size;
    }
    Spread { how, out, more, dims: made.as_slice(), strides }.dispatch();
}

impl Kernel for Merge {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let mut sizes = [0; MOST_AXES];
        let rank = super::only(inputs)?.rank();
        for dims in inputs {
            if dims.rank() != rank {
                return Err(Failure::unforeseen("operands of several ranks"));
            }
            for (size, other) in sizes.iter_mut().zip(dims.as_slice()) {
                match (*size, *other) {
                    (0 | 1, other) => *size = other,
                    (size, other) if size == other || other == 1 => {}
                    _ => return Err(Failure::unforeseen("operands that do not fit together")),
                }
            }
        }
        Dims::new(&sizes[..rank])
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        if matches!(self.how, Merging::Maximum | Merging::Minimum) {
            let at = usize::from(run.in_place);
            let mut read = run.inputs.iter().skip(at).filter_map(|input| input.data.floats().ok());
            if read.any(has_nan) || run.in_place && has_nan(run.out) {
                return Err(Failure::unforeseen("a largest or smallest number of what is no number"));
            }
        }
        let first = run.operand(0)?.dims;
        let others = run.inputs.get(1..).unwrap_or_default();
        let more = || others.iter().map(|other| (other.data.floats().unwrap_or_default(), other.dims));
        others.iter().try_for_each(|other| other.data.floats().map(drop))?;
        if run.inputs.iter().any(|operand| operand.dims != run.dims) {
            if run.in_place {
                return Err(Failure::unforeseen("operands of several shapes"));
            }
            if first == run.dims {
                run.out.copy_from_slice(run.floats(0)?);
            } else {
                run.out.fill(0.0);
                spread(Merging::Add, run.out, run.dims, run.floats(0)?, first);
            }
            for (more, dims) in more() {
                spread(self.how, run.out, run.dims, more, dims);
            }
            self.finish(run.out, run.inputs.len());
            return Ok(());
        }
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        let operations = MOVED * run.out.len();
        run.threads.rows(run.out, 1, 64, operations, |range, out| {
            if let Some(from) = from {
                out.copy_from_slice(&from[range.clone()]);
            }
            for (more, _) in more() {
                merge(self.how, out, &more[range.clone()]);
            }
            self.finish(out, run.inputs.len());
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }
}

impl Merge {
    fn finish(&self, out: &mut [f32], operands: usize) {
        if self.how == Merging::Average {
            let count = operands as f32;
            out.iter_mut().for_each(|x| *x /= count);
        }
        if let Some(map) = self.map {
            map.apply(out);
        }
    }
}
