//! A convolution over the rows of an embedding: sums of what a token gives at each tap, which is computed when the token is first
//! seen, and kept.

#![allow(unsafe_code, reason = "rows of a table are written once, while others are read")]

use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

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
    tile::{MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{Failure, dims::Dims, memory::Numbers, threads::MOVED};

/// `(batch, steps)` ids become `(batch, windows, filters)`.
#[derive(Debug)]
pub(crate) struct TapRows {
    pub(crate) table: Products,
    pub(crate) filters: usize,
    pub(crate) from_the_end: bool,
    pub(crate) window: Window,
    pub(crate) placed: Placed,
    /// `(filters,)`.
    pub(crate) bias: Vec<f32>,
    pub(crate) map: Option<Map>,
}

/// Rows of a table times a kernel, each computed when it is asked for first.
#[derive(Debug)]
pub(crate) struct Products {
    /// `(vocabulary, channels)`, which other kernels may have too.
    table: Arc<Numbers>,
    /// `(channels, columns)`.
    kernel: Packed,
    /// `(vocabulary, columns)`, the rows in the order in which they were asked for: of much memory nothing is touched before it is
    /// needed. They are reached through `first` alone.
    _products: Numbers,
    first: NonNull<f32>,
    /// For each row of the table its place among the products, from 1 on; 0 where it was not computed yet.
    places: Vec<AtomicUsize>,
    writing: Mutex<Together>,
}

/// Rows that are computed together, and what comes out.
#[derive(Debug, Default)]
struct Together {
    rows: Vec<f32>,
    products: Vec<f32>,
    /// How many were computed so far.
    computed: usize,
}

// Safety: a row of the products is written once, by whoever holds `writing`, before its place is told, and only read after that.
unsafe impl Send for Products {}
// Safety: as above.
unsafe impl Sync for Products {}

impl Products {
    /// None of them computed yet.
    ///
    /// # Panics
    /// Where the table has not rows of as many numbers as the kernel: a caller's error.
    pub(crate) fn new(table: Arc<Numbers>, kernel: Packed) -> Self {
        let vocabulary = table.len() / kernel.depth();
        assert_eq!(table.len(), vocabulary * kernel.depth(), "whole rows");
        let mut products = Numbers::zeros(vocabulary * kernel.columns());
        let first = NonNull::from(&mut *products).cast();
        let places = (0..vocabulary).map(|_| AtomicUsize::new(0)).collect();
        Self { table, kernel, _products: products, first, places, writing: Mutex::default() }
    }

    fn vocabulary(&self) -> usize {
        self.places.len()
    }

    fn is_computed(&self, number: usize) -> bool {
        self.places[number].load(Ordering::Acquire) > 0
    }

    /// The products of a row, which are computed if they were not before.
    ///
    /// # Panics
    /// Where there is no such row.
    fn row(&self, number: usize) -> &[f32] {
        if !self.is_computed(number) {
            self.compute(&[number]);
        }
        let (place, width) = (self.places[number].load(Ordering::Acquire) - 1, self.kernel.columns());
        // Safety: there are as many rows as places, and to one whose place is told nobody writes any more.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr().add(place * width), width) }
    }

    /// Computes the products of those rows that were not before, some of them at once.
    fn prepare(&self, numbers: impl Iterator<Item = usize>) {
        let (mut missing, mut count) = ([0; MOST_ROWS], 0);
        for number in numbers {
            if !self.is_computed(number) && !missing[..count].contains(&number) {
                missing[count] = number;
                count += 1;
                if count == MOST_ROWS {
                    self.compute(&missing);
                    count = 0;
                }
            }
        }
        if count > 0 {
            self.compute(&missing[..count]);
        }
    }

    #[cold]
    fn compute(&self, numbers: &[usize]) {
        let mut together = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Together { rows, products, computed } = &mut *together;
        let (depth, width) = (self.kernel.depth(), self.kernel.columns());
        rows.clear();
        numbers.iter().for_each(|number| rows.extend_from_slice(&self.table[number * depth..][..depth]));
        products.resize(numbers.len() * width, 0.0);
        let matrix = Matrix { numbers: rows, rows: numbers.len(), stride: depth, depth };
        let target = Target { out: products, stride: width, bias: None, more: None, relu: None };
        multiply(&matrix, 0..numbers.len(), &self.kernel, target);
        for (number, products) in numbers.iter().zip(products.chunks_exact(width)) {
            if self.is_computed(*number) {
                continue;
            }
            // Safety: each row takes one place, so that there is one; nobody reads it before it is told, and nobody else writes.
            let out = unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr().add(*computed * width), width) };
            out.copy_from_slice(products);
            *computed += 1;
            self.places[*number].store(*computed, Ordering::Release);
        }
    }

    fn bytes(&self) -> usize {
        (self.table.len() + self.vocabulary() * self.kernel.columns()) * size_of::<f32>() + self.kernel.bytes()
    }
}

/// Windows most of whose taps are found without asking for memory.
const FEW: usize = 32;

/// The sum of the bias and of some rows.
struct Sum<'a> {
    rows: &'a [&'a [f32]],
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
            for row in self.rows {
                sum = ops.add(sum, ops.load(&row[at..at + lanes]));
            }
            ops.store(sum, &mut self.out[at..at + lanes]);
        }
        for at in whole..width {
            self.out[at] = self.rows.iter().fold(self.bias[at], |sum, row| sum + row[at]);
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
        let empty: &[f32] = &[];
        let (mut few, mut many) = ([empty; FEW], Vec::new());
        let Window { kernel, stride, dilation } = self.window;
        let rows: &mut [&[f32]] = if kernel <= FEW {
            &mut few
        } else {
            many.resize(kernel, empty);
            &mut many
        };
        for (number, out) in (from..).zip(out.chunks_exact_mut(self.filters)) {
            let ids = &ids[number / windows * steps..][..steps];
            let (first, mut seen) = (number % windows * stride, 0);
            for tap in 0..kernel {
                let step = (first + tap * dilation).wrapping_sub(before);
                // What lies before or behind all steps is zeros. Which id is wrong was found before.
                let id = ids.get(step).and_then(|id| index(integer(*id), self.table.vocabulary(), self.from_the_end));
                if let Some(id) = id {
                    rows[seen] = &self.table.row(id)[tap * self.filters..][..self.filters];
                    seen += 1;
                }
            }
            Sum { rows: &rows[..seen], bias: &self.bias, out }.dispatch();
        }
        if let Some(map) = self.map {
            map.apply(out);
        }
    }

    /// Makes ready what these ids need; whether all are of the vocabulary.
    fn prepare<T: Copy>(&self, ids: &[T], integer: impl Fn(T) -> i64) -> bool {
        let rows = || ids.iter().map(|id| index(integer(*id), self.table.vocabulary(), self.from_the_end));
        let all = rows().all(|row| row.is_some());
        if all {
            self.table.prepare(rows().flatten());
        }
        all
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
            Data::F32(ids) => self.prepare(ids, truncated),
            Data::I32(ids) => self.prepare(ids, i64::from),
            Data::I64(ids) => self.prepare(ids, |id| id),
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
        self.table.bytes() + self.bias.len() * size_of::<f32>()
    }

    fn bytes_read(&self) -> usize {
        0
    }
}
