//! What moves numbers and computes none.

use super::{Kernel, Run};
use crate::{
    Failure,
    dims::{Dims, MOST_AXES},
    threads::MOVED,
};

/// Several tensors one behind the other along an axis.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) axis: usize,
}

/// The numbers of the axes from `axis` on.
fn inner(dims: Dims, axis: usize) -> usize {
    dims.as_slice().iter().skip(axis).product()
}

impl Kernel for Join {
    fn keeps_rows_apart(&self) -> bool {
        self.axis > 0
    }

    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let first = super::only(inputs)?;
        let wrong = || Failure::unforeseen("operands that cannot be joined");
        let mut sizes = first.as_slice().to_vec();
        for other in &inputs[1..] {
            let fits = |(axis, (one, other)): (usize, (&usize, &usize))| axis == self.axis || one == other;
            let pairs = first.as_slice().iter().zip(other.as_slice());
            if other.rank() != first.rank() || !pairs.enumerate().all(fits) {
                return Err(wrong());
            }
            *sizes.get_mut(self.axis).ok_or_else(wrong)? += other.as_slice().get(self.axis).ok_or_else(wrong)?;
        }
        Dims::new(&sizes)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let size = inner(run.dims, self.axis);
        if size == 0 {
            return Ok(());
        }
        let parts = |number: usize| Ok((run.floats(number)?, inner(run.operand(number)?.dims, self.axis)));
        let parts = (0..run.inputs.len()).map(parts).collect::<Result<Vec<_>, Failure>>()?;
        let operations = MOVED * run.out.len();
        run.threads.rows(run.out, size, 1, operations, |range, out| {
            let mut at = 0;
            for (from, part) in parts.iter().filter(|(_, part)| *part > 0) {
                let from = &from[range.start * part..range.end * part];
                for (out, from) in out.chunks_exact_mut(size).zip(from.chunks_exact(*part)) {
                    out[at..at + part].copy_from_slice(from);
                }
                at += part;
            }
        });
        Ok(())
    }
}

/// Axes in another order.
#[derive(Debug)]
pub(crate) struct Permute {
    pub(crate) order: Vec<usize>,
}

impl Kernel for Permute {
    fn keeps_rows_apart(&self) -> bool {
        self.order.first() == Some(&0)
    }

    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        let sizes = self.order.iter().map(|axis| dims.as_slice().get(*axis).copied()).collect::<Option<Vec<_>>>();
        match sizes.filter(|sizes| sizes.len() == dims.rank()) {
            Some(sizes) => Dims::new(&sizes),
            None => Err(Failure::unforeseen("another number of axes")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (from, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let mut strides = [0; MOST_AXES];
        for (axis, stride) in self.order.iter().zip(&mut strides) {
            *stride = inner(dims, axis + 1);
        }
        let rank = run.dims.rank();
        if run.out.is_empty() || rank == 0 {
            run.out.copy_from_slice(from);
            return Ok(());
        }
        let (outer, width, step) = (&run.dims.as_slice()[..rank - 1], run.dims.last()?, strides[rank - 1]);
        let mut index = [0; MOST_AXES];
        for out in run.out.chunks_exact_mut(width) {
            let first: usize = index.iter().zip(&strides).take(rank - 1).map(|(index, stride)| index * stride).sum();
            if step == 1 {
                out.copy_from_slice(&from[first..first + width]);
            } else {
                for (at, out) in out.iter_mut().enumerate() {
                    *out = from[first + at * step];
                }
            }
            next(&mut index, outer);
        }
        Ok(())
    }
}

/// The next index of `sizes`, the last axis first.
pub(crate) fn next(index: &mut [usize; MOST_AXES], sizes: &[usize]) {
    for (axis, size) in sizes.iter().enumerate().rev() {
        index[axis] += 1;
        if index[axis] < *size {
            return;
        }
        index[axis] = 0;
    }
}

/// The index of a number of `sizes`.
fn index_of(number: usize, sizes: &[usize]) -> [usize; MOST_AXES] {
    let (mut index, mut rest) = ([0; MOST_AXES], number);
    for (axis, size) in sizes.iter().enumerate().rev() {
        (index[axis], rest) = (rest % size, rest / size);
    }
    index
}

/// Zeros around, or a part from within: each axis so much before and after.
#[derive(Debug)]
pub(crate) struct Margins {
    pub(crate) margins: Vec<(usize, usize)>,
    /// Whether they are taken off.
    pub(crate) crops: bool,
}

impl Kernel for Margins {
    fn keeps_rows_apart(&self) -> bool {
        self.margins.first() == Some(&(0, 0))
    }

    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.rank() != self.margins.len() {
            return Err(Failure::unforeseen("another number of axes"));
        }
        let size = |(size, (before, after)): (&usize, &(usize, usize))| match self.crops {
            true => size.checked_sub(before + after).filter(|left| *left > 0),
            false => Some(size + before + after),
        };
        let sizes = dims.as_slice().iter().zip(&self.margins).map(size).collect::<Option<Vec<_>>>();
        Dims::new(&sizes.ok_or_else(|| Failure::unforeseen("a crop that leaves nothing"))?)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (from, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let (small, large) = if self.crops { (run.dims, dims) } else { (dims, run.dims) };
        if run.out.is_empty() {
            return Ok(());
        }
        // Axes that keep their size are one with the axis before them: lines are long.
        let rank = self.margins.iter().rposition(|margins| *margins != (0, 0)).map_or(1, |last| last + 1);
        let (of_small, of_large) = (&small.as_slice()[..rank - 1], &large.as_slice()[..rank - 1]);
        let cell = inner(small, rank);
        let (width, wide) = (inner(small, rank - 1), inner(large, rank - 1));
        let before = self.margins[rank - 1].0 * cell;
        // The line of one for a line of the other, its index given.
        let place = |index: &[usize; MOST_AXES]| {
            let mut axes = of_small.iter().zip(of_large).zip(index).zip(&self.margins);
            axes.try_fold(0, |at, (((small, large), index), (before, _))| match self.crops {
                true => Some(at * large + index + before),
                false => index.checked_sub(*before).filter(|index| index < small).map(|index| at * small + index),
            })
        };
        let (outer, size) = if self.crops { (of_small, width) } else { (of_large, wide) };
        let operations = MOVED * run.out.len();
        run.threads.rows(run.out, size, 1, operations, |range, out| {
            let mut index = index_of(range.start, outer);
            for out in out.chunks_exact_mut(size) {
                match place(&index) {
                    Some(line) if self.crops => out.copy_from_slice(&from[line * wide + before..][..width]),
                    Some(line) => {
                        let (zeros, rest) = out.split_at_mut(before);
                        let (copied, more) = rest.split_at_mut(width);
                        zeros.fill(0.0);
                        copied.copy_from_slice(&from[line * width..][..width]);
                        more.fill(0.0);
                    }
                    None => out.fill(0.0),
                }
                next(&mut index, outer);
            }
        });
        Ok(())
    }
}

/// Each cell of the axes behind the batch so often in a row.
#[derive(Debug)]
pub(crate) struct Repeat {
    pub(crate) times: Vec<usize>,
}

/// The rows of `from`, so many numbers each, so often in a row; each number of a row `times.1` times.
fn repeat(from: &[f32], width: usize, times: (usize, usize), out: &mut [f32]) {
    let whole = width * times.1;
    for (from, out) in from.chunks_exact(width).zip(out.chunks_exact_mut(whole * times.0)) {
        for out in out.chunks_exact_mut(whole) {
            match times.1 {
                1 => out.copy_from_slice(from),
                often => out.chunks_exact_mut(often).zip(from).for_each(|(out, x)| out.fill(*x)),
            }
        }
    }
}

impl Kernel for Repeat {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        let [batch, axes @ ..] = dims.as_slice() else { return Err(Failure::unforeseen("a tensor without axes")) };
        if axes.len() != self.times.len() || axes.is_empty() {
            return Err(Failure::unforeseen("a tensor of another rank"));
        }
        axes.iter().zip(&self.times).try_fold(Dims::new(&[*batch])?, |made, (size, times)| made.and(size * times))
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (from, dims) = (run.floats(0)?, run.operand(0)?.dims);
        // Lines along the last axis of cells, of which one or several come of one line.
        let (last, outer) = (dims.last()?, self.times.len().saturating_sub(2));
        let along = if self.times.len() > 1 { dims.as_slice()[outer + 1] } else { 1 };
        let of_last = self.times.last().copied().unwrap_or(1);
        let of_cells = if self.times.len() > 1 { self.times[outer] } else { 1 };
        let (read, written) = (along * last, along * last * of_cells * of_last);
        if run.out.is_empty() {
            return Ok(());
        }
        let sizes = &run.dims.as_slice()[..=outer];
        let operations = MOVED * run.out.len();
        run.threads.rows(run.out, written, 1, operations, |range, out| {
            let mut index = index_of(range.start, sizes);
            for out in out.chunks_exact_mut(written) {
                let mut line = index[0];
                for (axis, times) in self.times[..outer].iter().enumerate() {
                    line = line * dims.as_slice()[axis + 1] + index[axis + 1] / times;
                }
                repeat(&from[line * read..][..read], last, (of_cells, of_last), out);
                next(&mut index, sizes);
            }
        });
        Ok(())
    }
}
