//! A convolution over the rows of an embedding, which are what it gives for a token at each tap: sums of rows of a table.

use kandle_model::primitive::Window;
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::{
    Data, Kernel, Run,
    convolution::{Placed, three},
    map::Map,
    rows::{index, truncated},
};
use crate::{Failure, dims::Dims, memory::Numbers, threads::MOVED};

/// `(batch, steps)` ids become `(batch, windows, filters)`.
#[derive(Debug)]
pub(crate) struct TapRows {
    /// `(vocabulary, taps, filters)`.
    pub(crate) table: Numbers,
    pub(crate) vocabulary: usize,
    pub(crate) filters: usize,
    pub(crate) from_the_end: bool,
    pub(crate) window: Window,
    pub(crate) placed: Placed,
    /// `(filters,)`.
    pub(crate) bias: Vec<f32>,
    pub(crate) map: Option<Map>,
}

/// Windows most of whose taps are found without asking for memory.
const FEW: usize = 32;

/// The sum of the bias and of some rows of a table, each of which begins at a place.
struct Sum<'a> {
    table: &'a [f32],
    places: &'a [usize],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl SimdOp for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, width) = (ops.len(), self.out.len());
        let whole = width - width % lanes;
        for at in (0..whole).step_by(lanes) {
            let mut sum = ops.load(&self.bias[at..at + lanes]);
            for place in self.places {
                sum = ops.add(sum, ops.load(&self.table[place + at..place + at + lanes]));
            }
            ops.store(sum, &mut self.out[at..at + lanes]);
        }
        for at in whole..width {
            self.out[at] = self.places.iter().fold(self.bias[at], |sum, place| sum + self.table[place + at]);
        }
    }
}

impl TapRows {
    /// Some windows of all, the first of which is number `from`.
    fn sums<T: Copy>(
        &self,
        ids: &[T],
        (steps, windows): (usize, usize),
        before: usize,
        from: usize,
        out: &mut [f32],
        integer: impl Fn(T) -> i64,
    ) {
        let (mut few, mut many) = ([0; FEW], Vec::new());
        let Window { kernel, stride, dilation } = self.window;
        let places: &mut [usize] = if kernel <= FEW {
            &mut few
        } else {
            many.resize(kernel, 0);
            &mut many
        };
        for (number, out) in (from..).zip(out.chunks_exact_mut(self.filters)) {
            let ids = &ids[number / windows * steps..][..steps];
            let (first, mut seen) = (number % windows * stride, 0);
            for tap in 0..kernel {
                let step = (first + tap * dilation).wrapping_sub(before);
                // What lies before or behind all steps is zeros. Which id is wrong was found before.
                let id = ids.get(step).and_then(|id| index(integer(*id), self.vocabulary, self.from_the_end));
                if let Some(id) = id {
                    places[seen] = (id * kernel + tap) * self.filters;
                    seen += 1;
                }
            }
            Sum { table: &self.table, places: &places[..seen], bias: &self.bias, out }.dispatch();
        }
        if let Some(map) = self.map {
            map.apply(out);
        }
    }

    fn all_are_known<T: Copy>(&self, ids: &[T], integer: impl Fn(T) -> i64) -> bool {
        ids.iter().all(|id| index(integer(*id), self.vocabulary, self.from_the_end).is_some())
    }
}

impl Kernel for TapRows {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        match super::only(inputs)?.as_slice() {
            [batch, steps] => {
                let [.., (_, geometry, _)] = three(&[*steps], &[self.window], &self.placed)?;
                Dims::new(&[*batch, geometry.output, self.filters])
            }
            _ => Err(Failure::unforeseen("ids of another rank")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (operand, windows) = (run.operand(0)?, run.dims.as_slice()[1]);
        let steps = operand.dims.last()?;
        let [.., (_, geometry, _)] = three(&[steps], &[self.window], &self.placed)?;
        let (ids, sizes, before) = (operand.data, (steps, windows), geometry.before);
        let known = match ids {
            Data::F32(ids) => self.all_are_known(ids, truncated),
            Data::I32(ids) => self.all_are_known(ids, i64::from),
            Data::I64(ids) => self.all_are_known(ids, |id| id),
        };
        if !known {
            // The model says which id it is.
            return Err(Failure::unforeseen("an id that is not in the vocabulary"));
        }
        let operations = MOVED * run.out.len() * self.window.kernel;
        run.threads.rows(run.out, self.filters, 1, operations, |range, out| match ids {
            Data::F32(ids) => self.sums(ids, sizes, before, range.start, out, truncated),
            Data::I32(ids) => self.sums(ids, sizes, before, range.start, out, i64::from),
            Data::I64(ids) => self.sums(ids, sizes, before, range.start, out, |id| id),
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        (self.table.len() + self.bias.len()) * size_of::<f32>()
    }

    fn bytes_read(&self) -> usize {
        0
    }
}
