//! The product that everything else is made of: rows of numbers, found through pointers, times packed columns.
//!
//! A tile is a few rows and [`PANEL`] vectors of columns; its sums stay in registers from the first number to the last. Rows are
//! pointers, one for each tap and row, so that a convolution reads its patches where they lie and nothing is copied. With
//! one tap and rows one behind the other it is a matrix product.
//!
//! The order of summation is that of the kernel's rows, in one run, as candle's product has it.

#![allow(
    unsafe_code,
    reason = "a measured kernel: 150 GFLOP/s on a core with AVX-512, where checked slices reach a third"
)]

use std::{marker::PhantomData, mem::MaybeUninit};

use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::map::clip;
use crate::{
    memory::{Numbers, Store},
    threads::Threads,
};

/// Vectors of columns in a panel.
const PANEL: usize = 2;
/// The most columns of a panel.
pub(crate) const PANEL_COLUMNS: usize = 16 * PANEL;
/// The most rows of a tile.
pub(crate) const MOST_ROWS: usize = 12;
/// Panels that are used for all rows before the next ones are touched: half of a second-level cache of 2 MiB.
const GROUP_BYTES: usize = 1 << 20;

/// Rows that are packed together.
const ROWS_AT_ONCE: usize = 16;

/// How many rows of a panel ahead it is asked for.
const AHEAD: usize = 32;
/// Numbers in a cache line.
const LINE: usize = 16;

/// How many columns a panel has, and how many rows a tile: by the processor's vectors and registers.
struct Geometry;

impl SimdOp for Geometry {
    type Output = (usize, usize);

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> (usize, usize) {
        let lanes = isa.f32().len();
        (lanes * PANEL, rows_of(lanes))
    }
}

/// 24 sums, a vector of the rows and two of the columns fit into 32 registers; with AVX2 there are 16.
#[inline(always)]
fn rows_of(lanes: usize) -> usize {
    if lanes == 16 { MOST_ROWS } else { MOST_ROWS / 2 }
}

/// A matrix `(depth, columns)` packed by panels: all rows of the first columns, then of the next. Missing columns are zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    data: Numbers,
    depth: usize,
    columns: usize,
    width: usize,
}

impl Packed {
    /// Packs the columns of several matrices, each with `depth` rows, one after the other.
    ///
    /// # Panics
    /// Where a matrix has other rows: a caller's error.
    pub(crate) fn new(store: &mut Store, depth: usize, matrices: &[Columns<'_>]) -> Self {
        let columns = matrices.iter().map(|matrix| matrix.count).sum();
        let mut packed = Self { depth, columns, ..Self::empty() };
        packed.data = store.zeros(packed.room());
        let mut first = 0;
        for matrix in matrices {
            packed.put(first, matrix);
            first += matrix.count;
        }
        packed
    }

    /// Nothing, to be filled.
    pub(crate) fn empty() -> Self {
        Self { data: Numbers::default(), depth: 0, columns: 0, width: Geometry.dispatch().0 }
    }

    /// Packs a matrix, into memory of its own that is kept.
    pub(crate) fn fill(&mut self, depth: usize, matrix: &Columns<'_>) {
        (self.depth, self.columns) = (depth, matrix.count);
        self.data.grow(self.room());
        self.put(0, matrix);
    }

    /// Packs the transposed of rows: column `n` of it is row `n` of them.
    pub(crate) fn fill_transposed(&mut self, rows: &Matrix<'_>) {
        (self.depth, self.columns) = (rows.depth, rows.rows);
        self.data.grow(self.room());
        if self.depth == 0 {
            return;
        }
        let (depth, width) = (self.depth, self.width);
        for (number, panel) in self.data.chunks_exact_mut(depth * width).take(rows.rows.div_ceil(width)).enumerate() {
            let from = number * width;
            let to = (from + width).min(rows.rows);
            if to - from < width {
                panel.fill(0.0);
            }
            for (column, row) in (from..to).enumerate() {
                let row = &rows.numbers[row * rows.stride..][..depth];
                for (to, x) in panel[column..].iter_mut().step_by(width).zip(row) {
                    *to = *x;
                }
            }
        }
    }

    /// Numbers that it takes.
    fn room(&self) -> usize {
        self.panels() * self.depth * self.width
    }

    /// Puts the columns of a matrix to its own from `first` on, in whole runs of numbers: some rows for all panels at a time, so
    /// that what is read lies together.
    fn put(&mut self, first: usize, matrix: &Columns<'_>) {
        let (depth, width, last) = (self.depth, self.width, first + matrix.count);
        for rows in (0..depth).step_by(ROWS_AT_ONCE).map(|row| row..(row + ROWS_AT_ONCE).min(depth)) {
            let mut column = first;
            while column < last {
                let (panel, within) = (column / width, column % width);
                let run = (width - within).min(last - column);
                // Columns that are missing behind the last one are zeros.
                let blank = if last == self.columns { width - within - run } else { 0 };
                let scale = matrix.scale.map(|scale| &scale[column - first..][..run]);
                let panel = &mut self.data[panel * depth * width..][rows.start * width..rows.end * width];
                for (row, to) in rows.clone().zip(panel.chunks_exact_mut(width)) {
                    let (to, from) = (&mut to[within..], row * matrix.stride + column - first);
                    let from = &matrix.numbers[from..from + run];
                    match scale {
                        Some(scale) => {
                            to.iter_mut().zip(from).zip(scale).for_each(|((to, from), scale)| *to = from * scale);
                        }
                        None => to[..run].copy_from_slice(from),
                    }
                    to[run..run + blank].fill(0.0);
                }
                column += run;
            }
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// Columns of a matrix that lies row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// From the first of them on.
    pub(crate) numbers: &'a [f32],
    /// How many there are.
    pub(crate) count: usize,
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// A factor for each column.
    pub(crate) scale: Option<&'a [f32]>,
}

impl<'a> Columns<'a> {
    /// All `count` columns of a matrix.
    pub(crate) fn all(numbers: &'a [f32], count: usize) -> Self {
        Self { numbers, count, stride: count, scale: None }
    }
}

/// Where the rows of a product lie.
pub(crate) trait Rows: Sync {
    /// Whether all rows lie in lines.
    const IN_LINES: bool;

    /// How many there are.
    fn count(&self) -> usize;

    /// How many runs of numbers a row is made of.
    fn taps(&self) -> usize;

    /// The length of each run.
    fn run(&self) -> usize;

    /// The line in which the rows from `first` on lie, if it is one.
    fn line(&self, first: usize) -> Option<Line<'_>>;

    /// The runs of the rows from `first` on, which need not lie in a line, one for each place of `places`, which is
    /// `taps · rows`: those of the first tap first.
    fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]);
}

/// Rows that are equally far apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// From the first run of the first row on.
    numbers: &'a [f32],
    /// How many rows there are.
    rows: usize,
    /// Numbers from one row to the next.
    step: usize,
    /// How far each run of a row is from its first.
    offsets: &'a [usize],
    /// The largest of them.
    reach: usize,
}

impl<'a> Line<'a> {
    pub(crate) fn new(numbers: &'a [f32], rows: usize, step: usize, offsets: &'a [usize]) -> Self {
        Self { numbers, rows, step, offsets, reach: offsets.iter().max().copied().unwrap_or(0) }
    }

    /// What is left of it behind so many rows.
    fn behind(self, rows: usize) -> Option<Self> {
        let left = self.rows.checked_sub(rows).filter(|left| *left > 0)?;
        Some(Self { numbers: self.numbers.get(rows * self.step..)?, rows: left, ..self })
    }
}

/// Rows one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// The numbers.
    pub(crate) numbers: &'a [f32],
    /// How many rows.
    pub(crate) rows: usize,
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// Numbers in a row.
    pub(crate) depth: usize,
}

impl Rows for Matrix<'_> {
    const IN_LINES: bool = true;

    fn count(&self) -> usize {
        self.rows
    }

    fn taps(&self) -> usize {
        1
    }

    fn run(&self) -> usize {
        self.depth
    }

    fn line(&self, first: usize) -> Option<Line<'_>> {
        let numbers = self.numbers.get(first * self.stride..)?;
        Some(Line::new(numbers, self.rows - first, self.stride, &[0]))
    }

    fn find<'a>(&'a self, _: usize, _: usize, _: &mut [&'a [f32]]) {}
}

/// What is done with the sums of a tile while they are in registers, and where they go.
pub(crate) struct Target<'a> {
    /// `(rows, stride)`, of which the columns of the product are filled.
    pub(crate) out: &'a mut [f32],
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// One number for each column, added.
    pub(crate) bias: Option<&'a [f32]>,
    /// Laid out as `out`, added.
    pub(crate) more: Option<&'a [f32]>,
    /// The largest of 0 and the sum, at most this. None: the sum.
    pub(crate) relu: Option<f32>,
}

/// `rows · packed`, of rows `from..to`, into the rows of the target that stand for them (its first row is `from`).
///
/// # Panics
/// Where sizes do not fit: a caller's error.
pub(crate) fn multiply<R: Rows>(rows: &R, range: std::ops::Range<usize>, packed: &Packed, target: Target<'_>) {
    let panels = 0..packed.panels();
    if let Some(product) = Product::new(rows, range, packed, target) {
        Product { panels, ..product }.dispatch();
    }
}

/// Bytes of a kernel from which on it pays to share its columns among threads.
const SHARED: usize = 256 << 10;

/// All rows times `packed`, where there are few rows and many columns: then each thread reads the weights of its own columns,
/// and no other. Whether it was done so, and `target` filled.
///
/// # Panics
/// As [`multiply`].
pub(crate) fn multiply_by_columns<R: Rows>(threads: &Threads, rows: &R, packed: &Packed, target: Target<'_>) -> bool {
    let panels = packed.panels();
    let pays = packed.columns > rows.count() && packed.bytes() >= SHARED && panels >= threads.count();
    if threads.count() < 2 || !pays {
        return false;
    }
    if let Some(product) = Product::new(rows, 0..rows.count(), packed, target) {
        threads.split(panels, 1, |panels| Product { panels, range: product.range.clone(), ..product }.dispatch());
    }
    true
}

/// Some rows of a product, for the columns of some panels.
struct Product<'a, R> {
    rows: &'a R,
    range: std::ops::Range<usize>,
    packed: &'a Packed,
    panels: std::ops::Range<usize>,
    finish: Finish<'a>,
    out: Out<'a>,
}

/// Where the sums go.
#[derive(Clone, Copy)]
struct Out<'a>(*mut f32, PhantomData<&'a mut [f32]>);

// Safety: several threads have it at once, but write columns of their own.
unsafe impl Send for Out<'_> {}
// Safety: as above.
unsafe impl Sync for Out<'_> {}

/// What is done with the sums, and how far their rows are apart: a [`Target`] without its output.
#[derive(Clone, Copy)]
struct Finish<'a> {
    stride: usize,
    bias: Option<&'a [f32]>,
    more: Option<&'a [f32]>,
    relu: Option<f32>,
}

impl<'a, R: Rows> Product<'a, R> {
    /// No panels yet; none where nothing comes out.
    ///
    /// # Panics
    /// Where sizes do not fit.
    fn new(rows: &'a R, range: std::ops::Range<usize>, packed: &'a Packed, target: Target<'a>) -> Option<Self> {
        let Target { out, stride, bias, more, relu } = target;
        let last = range.len().checked_sub(1).filter(|_| packed.columns > 0)? * stride + packed.columns;
        assert_eq!(rows.taps() * rows.run(), packed.depth, "rows and columns of a product");
        assert!(range.end <= rows.count() && stride >= packed.columns, "rows of a product");
        assert!(out.len() >= last, "room for a product");
        assert!(bias.is_none_or(|bias| bias.len() == packed.columns), "the bias of a product");
        assert!(more.is_none_or(|more| more.len() >= last), "a summand");
        let finish = Finish { stride, bias, more, relu };
        Some(Self { rows, range, packed, panels: 0..0, finish, out: Out(out.as_mut_ptr(), PhantomData) })
    }
}

/// Runs of a block of rows, as many as fit without asking for memory.
const PLACES: usize = MOST_ROWS * 64;

impl<R: Rows> SimdOp for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let lanes = isa.f32().len();
        let Self { rows, range, packed, panels, finish: target, out: Out(out, _) } = self;
        let (most, width) = (rows_of(lanes), lanes * PANEL);
        assert_eq!(width, packed.width, "columns packed for another processor");
        let (taps, run, depth) = (rows.taps(), rows.run(), packed.depth);
        let group = (GROUP_BYTES / (depth * width * size_of::<f32>()).max(1)).max(1);
        let mut few: [MaybeUninit<&[f32]>; PLACES] = [MaybeUninit::uninit(); PLACES];
        let mut many = Vec::new();
        let empty: &[f32] = &[];
        let places: &mut [&[f32]] = if R::IN_LINES {
            &mut []
        } else if taps * MOST_ROWS <= PLACES {
            let few = &mut few[..taps * MOST_ROWS];
            few.fill(MaybeUninit::new(empty));
            // Safety: every one of these places was just filled.
            unsafe { &mut *(&raw mut *few as *mut [&[f32]]) }
        } else {
            many.resize(taps * MOST_ROWS, empty);
            &mut many
        };
        for first_panel in panels.clone().step_by(group) {
            let last_panel = (first_panel + group).min(panels.end);
            let (mut from, mut begun) = (range.start, None);
            while from < range.end {
                let rest = range.end - from;
                let line = begun.take().or_else(|| rows.line(from));
                let together = line.map_or(rest, |line| line.rows.min(rest));
                // Tiles of a line are of about one size.
                let size = together.div_ceil(together.div_ceil(most));
                let row = from - range.start;
                let tile = |panel: usize| {
                    let column = panel * width;
                    Tile {
                        panel: &packed.data[panel * depth * width..][..depth * width],
                        at: row * target.stride + column,
                        columns: (packed.columns - column).min(width),
                        column,
                    }
                };
                macro_rules! of_size {
                    ($tile:expr, $rows:expr, $($size:literal)*) => {
                        match size {
                            // Safety: the sizes were checked above and in `multiply`.
                            $($size if $size <= rows_of(lanes) && $tile.columns > lanes => unsafe {
                                $tile.sum::<I, _, $size, 2>(isa, $rows, (taps, run), &target, out);
                            },
                            $size if $size <= rows_of(lanes) => unsafe {
                                $tile.sum::<I, _, $size, 1>(isa, $rows, (taps, run), &target, out);
                            },)*
                            _ => unreachable!("a tile of {size} rows"),
                        }
                    };
                }
                match line {
                    Some(line) => {
                        let last = line.reach + (size - 1) * line.step + run;
                        assert!(line.offsets.len() == taps && last <= line.numbers.len(), "a line beyond its numbers");
                        for panel in first_panel..last_panel {
                            let tile = tile(panel);
                            of_size!(tile, &line, 1 2 3 4 5 6 7 8 9 10 11 12);
                        }
                        begun = line.behind(size);
                    }
                    None if R::IN_LINES => unreachable!("rows beyond their matrix"),
                    None => {
                        let places = &mut places[..taps * size];
                        rows.find(from, size, places);
                        assert!(places.iter().all(|place| place.len() >= run), "a row is shorter than its kernel");
                        let places = Found(places);
                        for panel in first_panel..last_panel {
                            let tile = tile(panel);
                            of_size!(tile, &places, 1 2 3 4 5 6 7 8 9 10 11 12);
                        }
                    }
                }
                from += size;
            }
        }
    }
}

/// Where the runs of a tile's rows lie.
trait Runs {
    /// That of a tap of each row.
    ///
    /// # Safety
    /// There are so many rows, and the tap.
    unsafe fn of_tap<const ROWS: usize>(&self, tap: usize) -> [*const f32; ROWS];
}

impl Runs for Line<'_> {
    #[inline(always)]
    unsafe fn of_tap<const ROWS: usize>(&self, tap: usize) -> [*const f32; ROWS] {
        // Safety: by the caller; the last run of the last row is within the numbers.
        unsafe {
            let first = self.numbers.as_ptr().add(*self.offsets.get_unchecked(tap));
            std::array::from_fn(|row| first.add(row * self.step))
        }
    }
}

/// Runs one by one, tap by tap.
struct Found<'a>(&'a [&'a [f32]]);

impl Runs for Found<'_> {
    #[inline(always)]
    unsafe fn of_tap<const ROWS: usize>(&self, tap: usize) -> [*const f32; ROWS] {
        // Safety: by the caller.
        std::array::from_fn(|row| unsafe { self.0.get_unchecked(tap * ROWS + row) }.as_ptr())
    }
}

/// Asks for a cache line into the second-level cache: more of them are under way at once there than into the first.
#[inline(always)]
fn prefetch(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // Safety: every processor of this kind has it, and it reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The columns of one panel, for a few rows.
struct Tile<'a> {
    panel: &'a [f32],
    /// Where its first number goes.
    at: usize,
    /// How many of the panel's columns there are.
    columns: usize,
    /// The first of them.
    column: usize,
}

impl Tile<'_> {
    /// # Safety
    /// `runs` has `ROWS` rows of `taps` runs of at least `run` numbers, `panel` `taps · run` rows of [`PANEL`] vectors, and the
    /// target has, from `at` on, `ROWS` rows with `columns` numbers at its stride, its summand too; the bias has
    /// `column + columns`. `out` is the beginning of the target's output, borrowed for as long as this runs.
    #[inline(always)]
    unsafe fn sum<I: Isa, R: Runs, const ROWS: usize, const VECTORS: usize>(
        &self,
        isa: I,
        runs: &R,
        (taps, run): (usize, usize),
        target: &Finish<'_>,
        out: *mut f32,
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut sums = [[ops.zero(); VECTORS]; ROWS];
        let mut panel = self.panel.as_ptr();
        for tap in 0..taps {
            // Safety: by the caller.
            let rows: [*const f32; ROWS] = unsafe { runs.of_tap(tap) };
            for at in 0..run {
                let mut columns = [ops.zero(); VECTORS];
                for (vector, column) in columns.iter_mut().enumerate() {
                    // Safety: the panel has PANEL ≥ VECTORS vectors for each of `taps · run` numbers.
                    *column = unsafe { ops.load_ptr(panel.add(vector * lanes)) };
                }
                // A panel is read once: asked for ahead, it is there when it is needed. Beyond its end nothing is read.
                for line in (0..PANEL * lanes).step_by(LINE) {
                    prefetch(panel.wrapping_add(AHEAD * PANEL * lanes + line));
                }
                // Safety: at most one past the end, after the last.
                panel = unsafe { panel.add(PANEL * lanes) };
                for (sums, row) in sums.iter_mut().zip(rows) {
                    // Safety: each run has at least `run` numbers.
                    let number = ops.splat(unsafe { *row.add(at) });
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = ops.mul_add(number, column, *sum);
                    }
                }
            }
        }
        // No loop over the vectors: sums that are indexed by a variable are kept in memory, where each of them is written at every
        // step above.
        const { assert!(VECTORS == 1 || VECTORS == 2) };
        // Safety: by the caller.
        unsafe { self.finish(isa, sums.map(|sums| sums[0]), 0, target, out) };
        if VECTORS == 2 {
            // Safety: by the caller.
            unsafe { self.finish(isa, sums.map(|sums| sums[VECTORS - 1]), lanes, target, out) };
        }
    }

    /// Writes the sums of one vector of columns, those from `from` on.
    ///
    /// # Safety
    /// As [`sum`](Self::sum).
    #[inline(always)]
    unsafe fn finish<I: Isa, const ROWS: usize>(
        &self,
        isa: I,
        sums: [I::F32; ROWS],
        from: usize,
        target: &Finish<'_>,
        out: *mut f32,
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let here = (self.columns - from).min(lanes);
        let mask = ops.first_n_mask(here);
        let bias = match target.bias {
            // Safety: the masked lanes are columns of the product.
            Some(bias) => unsafe { ops.load_ptr_mask(bias.as_ptr().add(self.column + from), mask) },
            None => ops.zero(),
        };
        for (row, sum) in sums.into_iter().enumerate() {
            let at = self.at + row * target.stride + from;
            let mut sum = if target.bias.is_some() { ops.add(sum, bias) } else { sum };
            if let Some(more) = target.more {
                // Safety: laid out as the output.
                sum = ops.add(sum, unsafe { ops.load_ptr_mask(more.as_ptr().add(at), mask) });
            }
            if let Some(most) = target.relu {
                sum = clip(isa, sum, 0.0, most);
            }
            // Safety: `out` has room for these columns of this row.
            unsafe {
                if here == lanes {
                    ops.store_ptr(sum, out.add(at));
                } else {
                    ops.store_ptr_mask(sum, out.add(at), mask);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, Line, Matrix, Packed, Rows, Store, Target, Threads, multiply, multiply_by_columns};

    fn packed(matrix: &[f32], depth: usize, columns: usize) -> Packed {
        Packed::new(&mut Store::default(), depth, &[Columns::all(matrix, columns)])
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 31 + seed * 17) % 23) as f32 / 8.0 - 1.4).collect()
    }

    /// Sums in float64, and what is done with them.
    fn naive(
        a: &[f32],
        b: &[f32],
        (rows, depth, columns): (usize, usize, usize),
        bias: &[f32],
        more: &[f32],
    ) -> Vec<f32> {
        let sum = |row: usize, column: usize| -> f64 {
            (0..depth).map(|at| f64::from(a[row * depth + at]) * f64::from(b[at * columns + column])).sum()
        };
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let of = |(row, column)| {
            (sum(row, column) + f64::from(bias[column]) + f64::from(more[row * columns + column])) as f32
        };
        places.map(|place| of(place).clamp(0.0, 6.0)).collect()
    }

    #[test]
    fn products_of_every_size_are_those_of_the_naive_loop() {
        for (rows, depth, columns) in [
            (1, 1, 1),
            (1, 7, 33),
            (2, 3, 16),
            (3, 5, 17),
            (5, 8, 31),
            (12, 9, 32),
            (13, 4, 64),
            (25, 16, 5),
            (40, 300, 70),
        ] {
            let (a, b) = (numbers(rows * depth, 1), numbers(depth * columns, 2));
            let (bias, more) = (numbers(columns, 3), numbers(rows * columns, 4));
            let mut out = vec![f32::NAN; rows * columns];
            let matrix = Matrix { numbers: &a, rows, stride: depth, depth };
            let packed = packed(&b, depth, columns);
            // In two parts, as two threads would.
            for range in [0..rows / 2, rows / 2..rows] {
                let from = range.start * columns;
                let to = range.end * columns;
                let target = Target {
                    out: &mut out[from..to],
                    stride: columns,
                    bias: Some(&bias),
                    more: Some(&more[from..to]),
                    relu: Some(6.0),
                };
                multiply(&matrix, range, &packed, target);
            }
            let expected = naive(&a, &b, (rows, depth, columns), &bias, &more);
            for (ours, expected) in out.iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-4, "{rows}x{depth}x{columns}: {ours} {expected}");
            }
        }
    }

    /// Rows of two runs of two numbers each, in lines of two, or found one by one.
    struct Halves<'a, const LINES: bool>(&'a [f32]);

    impl<const LINES: bool> Rows for Halves<'_, LINES> {
        const IN_LINES: bool = LINES;

        fn count(&self) -> usize {
            3
        }

        fn taps(&self) -> usize {
            2
        }

        fn run(&self) -> usize {
            2
        }

        fn line(&self, first: usize) -> Option<Line<'_>> {
            let rows = 2 - first % 2;
            LINES.then(|| Line::new(&self.0[first * 4..], rows, 4, &[0, 2]))
        }

        fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]) {
            for row in 0..rows {
                for tap in 0..2 {
                    places[tap * rows + row] = &self.0[(first + row) * 4 + tap * 2..][..2];
                }
            }
        }
    }

    #[test]
    fn rows_of_several_runs_are_one_row() {
        let (a, b) = (numbers(12, 1), numbers(4 * 3, 2));
        let packed = packed(&b, 4, 3);
        let mut out = [[0.0; 9], [0.0; 9], [0.0; 9]];
        let target = |out| Target { out, stride: 3, bias: None, more: None, relu: None };
        let [found, lines, whole] = &mut out;
        multiply(&Halves::<false>(&a), 0..3, &packed, target(found));
        multiply(&Halves::<true>(&[a.as_slice(), &[0.0; 4]].concat()), 0..3, &packed, target(lines));
        multiply(&Matrix { numbers: &a, rows: 3, stride: 4, depth: 4 }, 0..3, &packed, target(whole));
        assert_eq!(out[0], out[2]);
        assert_eq!(out[1], out[2]);
    }

    #[test]
    fn transposed_rows_are_columns() {
        for (rows, depth) in [(3, 5), (40, 8), (64, 3)] {
            let numbers = numbers(rows * depth, 3);
            let mut ours = Packed::empty();
            ours.fill_transposed(&Matrix { numbers: &numbers, rows, stride: depth, depth });
            let transposed: Vec<f32> = (0..depth)
                .flat_map(|row| (0..rows).map(move |column| (row, column)))
                .map(|(r, c)| numbers[c * depth + r])
                .collect();
            assert_eq!(ours.data[..], packed(&transposed, depth, rows).data[..]);
        }
    }

    #[test]
    fn columns_of_several_matrices_are_one_behind_the_other() {
        let (one, other) = (numbers(3 * 5, 1), numbers(3 * 40, 2));
        let rows = one.chunks(5).zip(other.chunks(40));
        let both: Vec<f32> = rows.flat_map(|(one, other)| [one, other].concat()).collect();
        let matrices = [Columns::all(&one, 5), Columns::all(&other, 40)];
        let ours = Packed::new(&mut Store::default(), 3, &matrices);
        assert_eq!(ours.data[..], packed(&both, 3, 45).data[..]);
    }

    #[test]
    fn columns_that_threads_share_are_those_of_one_thread() {
        let (rows, depth, columns) = (9, 300, 330);
        let (a, b, bias) = (numbers(rows * depth, 1), numbers(depth * columns, 2), numbers(columns, 3));
        let (matrix, packed) = (Matrix { numbers: &a, rows, stride: depth, depth }, packed(&b, depth, columns));
        let mut out = [vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]];
        let [one, several] = &mut out;
        fn target<'a>(out: &'a mut [f32], bias: &'a [f32]) -> Target<'a> {
            Target { out, stride: bias.len(), bias: Some(bias), more: None, relu: Some(1.0) }
        }
        multiply(&matrix, 0..rows, &packed, target(one, &bias));
        assert!(!multiply_by_columns(&Threads::default(), &matrix, &packed, target(several, &bias)));
        assert!(multiply_by_columns(&Threads::new(3).unwrap(), &matrix, &packed, target(several, &bias)));
        assert_eq!(out[0], out[1]);
    }

    #[test]
    fn what_is_not_a_number_stays_so_through_relu() {
        let packed = packed(&[1.0], 1, 1);
        let mut out = [0.0; 2];
        let matrix = Matrix { numbers: &[f32::NAN, -3.0], rows: 2, stride: 1, depth: 1 };
        multiply(&matrix, 0..2, &packed, Target { out: &mut out, stride: 1, bias: None, more: None, relu: Some(6.0) });
        assert!(out[0].is_nan() && out[1] == 0.0);
    }
}
