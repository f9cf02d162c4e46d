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

use std::mem::MaybeUninit;

use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

/// Vectors of columns in a panel.
const PANEL: usize = 2;
/// The most rows of a tile.
pub(crate) const MOST_ROWS: usize = 12;
/// Panels that are used for all rows before the next ones are touched: half of a second-level cache of 2 MiB.
const GROUP_BYTES: usize = 1 << 20;

/// How many rows of a panel ahead it is asked for.
const AHEAD: usize = 16;

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
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    data: Vec<f32>,
    depth: usize,
    columns: usize,
    width: usize,
}

impl Packed {
    /// Packs `matrix`, `(depth, columns)` row-major.
    pub(crate) fn new(matrix: &[f32], depth: usize, columns: usize) -> Self {
        let mut packed = Self::empty();
        packed.fill(depth, columns, |row, column| matrix.get(row * columns + column).copied().unwrap_or_default());
        packed
    }

    /// Nothing, to be filled.
    pub(crate) fn empty() -> Self {
        Self { data: Vec::new(), depth: 0, columns: 0, width: Geometry.dispatch().0 }
    }

    /// Packs what `number` gives for each row and column, into the memory that is there.
    pub(crate) fn fill(&mut self, depth: usize, columns: usize, number: impl Fn(usize, usize) -> f32) {
        (self.depth, self.columns) = (depth, columns);
        let panels = columns.div_ceil(self.width);
        self.data.clear();
        self.data.reserve(panels * depth * self.width);
        for panel in 0..panels {
            let from = panel * self.width;
            let to = (from + self.width).min(columns);
            for row in 0..depth {
                self.data.extend((from..to).map(|column| number(row, column)));
                self.data.extend(std::iter::repeat_n(0.0, self.width - (to - from)));
            }
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// Where the rows of a product lie.
pub(crate) trait Rows: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// How many runs of numbers a row is made of.
    fn taps(&self) -> usize;

    /// The length of each run.
    fn run(&self) -> usize;

    /// The runs of the rows from `first` on, one for each place of `places`, which is `taps · rows`: those of the first tap
    /// first.
    fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]);
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
    fn count(&self) -> usize {
        self.rows
    }

    fn taps(&self) -> usize {
        1
    }

    fn run(&self) -> usize {
        self.depth
    }

    fn find<'a>(&'a self, first: usize, _: usize, places: &mut [&'a [f32]]) {
        for (row, place) in places.iter_mut().enumerate() {
            let from = (first + row) * self.stride;
            *place = self.numbers.get(from..from + self.depth).unwrap_or_default();
        }
    }
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
    let count = range.len();
    if count == 0 || packed.columns == 0 {
        return;
    }
    assert_eq!(rows.taps() * rows.run(), packed.depth, "rows and columns of a product");
    assert!(range.end <= rows.count() && target.stride >= packed.columns, "rows of a product");
    assert!(target.out.len() >= (count - 1) * target.stride + packed.columns, "room for a product");
    assert!(target.bias.is_none_or(|bias| bias.len() == packed.columns), "the bias of a product");
    assert!(target.more.is_none_or(|more| more.len() >= (count - 1) * target.stride + packed.columns), "a summand");
    Product { rows, range, packed, target }.dispatch();
}

struct Product<'a, R> {
    rows: &'a R,
    range: std::ops::Range<usize>,
    packed: &'a Packed,
    target: Target<'a>,
}

/// Runs of a block of rows, as many as fit without asking for memory.
const PLACES: usize = MOST_ROWS * 64;

impl<R: Rows> SimdOp for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let lanes = isa.f32().len();
        let Self { rows, range, packed, target } = self;
        let out = target.out.as_mut_ptr();
        let (most, width) = (rows_of(lanes), lanes * PANEL);
        assert_eq!(width, packed.width, "columns packed for another processor");
        let (taps, run, depth) = (rows.taps(), rows.run(), packed.depth);
        let panels = packed.columns.div_ceil(width);
        let group = (GROUP_BYTES / (depth * width * size_of::<f32>()).max(1)).max(1);
        let mut few: [MaybeUninit<&[f32]>; PLACES] = [MaybeUninit::uninit(); PLACES];
        let mut many = Vec::new();
        let empty: &[f32] = &[];
        let places: &mut [&[f32]] = if taps * MOST_ROWS <= PLACES {
            let few = &mut few[..taps * MOST_ROWS];
            few.fill(MaybeUninit::new(empty));
            // Safety: every one of these places was just filled.
            unsafe { &mut *(&raw mut *few as *mut [&[f32]]) }
        } else {
            many.resize(taps * MOST_ROWS, empty);
            &mut many
        };
        for first_panel in (0..panels).step_by(group) {
            let last_panel = (first_panel + group).min(panels);
            let (mut from, count) = (range.start, range.len());
            let blocks = count.div_ceil(most);
            for block in 0..blocks {
                let size = (range.end - from).div_ceil(blocks - block);
                let places = &mut places[..taps * size];
                rows.find(from, size, places);
                assert!(places.iter().all(|place| place.len() >= run), "a row is shorter than its kernel");
                let row = from - range.start;
                for panel in first_panel..last_panel {
                    let column = panel * width;
                    let tile = Tile {
                        taps,
                        run,
                        rows: places,
                        panel: &packed.data[panel * depth * width..][..depth * width],
                        at: row * target.stride + column,
                        columns: (packed.columns - column).min(width),
                        column,
                    };
                    macro_rules! of_size {
                        ($($size:literal)*) => {
                            match size {
                                // Safety: the sizes were checked above and in `multiply`.
                                $($size if tile.columns > lanes => unsafe { tile.sum::<I, $size, 2>(isa, &target, out) },
                                $size => unsafe { tile.sum::<I, $size, 1>(isa, &target, out) },)*
                                _ => unreachable!("a tile of {size} rows"),
                            }
                        };
                    }
                    of_size!(1 2 3 4 5 6 7 8 9 10 11 12);
                }
                from += size;
            }
        }
    }
}

/// A few rows and the columns of one panel.
struct Tile<'a> {
    taps: usize,
    run: usize,
    /// The runs of the rows, tap by tap.
    rows: &'a [&'a [f32]],
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
    /// `rows` has `taps · ROWS` runs of at least `run` numbers, `panel` `taps · run` rows of [`PANEL`] vectors, and the target
    /// has, from `at` on, `ROWS` rows with `columns` numbers at its stride, its summand too; the bias has `column + columns`. `out` is the
    /// beginning of the target's output, borrowed for as long as this runs.
    #[inline(always)]
    unsafe fn sum<I: Isa, const ROWS: usize, const VECTORS: usize>(&self, isa: I, target: &Target<'_>, out: *mut f32) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mut sums = [[ops.zero(); VECTORS]; ROWS];
        let mut panel = self.panel.as_ptr();
        for tap in 0..self.taps {
            let mut rows = [std::ptr::null::<f32>(); ROWS];
            for (row, place) in rows.iter_mut().enumerate() {
                // Safety: of `taps · ROWS` runs.
                *place = unsafe { self.rows.get_unchecked(tap * ROWS + row) }.as_ptr();
            }
            for at in 0..self.run {
                let mut columns = [ops.zero(); VECTORS];
                for (vector, column) in columns.iter_mut().enumerate() {
                    // Safety: the panel has PANEL ≥ VECTORS vectors for each of `taps · run` numbers.
                    *column = unsafe { ops.load_ptr(panel.add(vector * lanes)) };
                }
                // A panel is read once: asked for ahead, it is there when it is needed. Beyond its end nothing is read.
                for vector in 0..PANEL {
                    ops.prefetch(panel.wrapping_add((AHEAD * PANEL + vector) * lanes));
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
        for vector in 0..VECTORS {
            let from = vector * lanes;
            let here = (self.columns - from).min(lanes);
            let mask = ops.first_n_mask(here);
            let bias = match target.bias {
                // Safety: the masked lanes are columns of the product.
                Some(bias) => unsafe { ops.load_ptr_mask(bias.as_ptr().add(self.column + from), mask) },
                None => ops.zero(),
            };
            for (row, sums) in sums.iter().enumerate() {
                let at = self.at + row * target.stride + from;
                let mut sum = if target.bias.is_some() { ops.add(sums[vector], bias) } else { sums[vector] };
                if let Some(more) = target.more {
                    // Safety: laid out as the output.
                    sum = ops.add(sum, unsafe { ops.load_ptr_mask(more.as_ptr().add(at), mask) });
                }
                if let Some(most) = target.relu {
                    // NaN is not below anything, and stays.
                    sum = ops.select(ops.zero(), sum, ops.le(sum, ops.zero()));
                    if most < f32::INFINITY {
                        let most = ops.splat(most);
                        sum = ops.select(most, sum, ops.gt(sum, most));
                    }
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
}

#[cfg(test)]
mod tests {
    use super::{Matrix, Packed, Rows, Target, multiply};

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
            let packed = Packed::new(&b, depth, columns);
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

    #[test]
    fn rows_of_several_runs_are_one_row() {
        struct Halves<'a>(&'a [f32]);
        impl Rows for Halves<'_> {
            fn count(&self) -> usize {
                3
            }
            fn taps(&self) -> usize {
                2
            }
            fn run(&self) -> usize {
                2
            }
            fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]) {
                for row in 0..rows {
                    for tap in 0..2 {
                        places[tap * rows + row] = &self.0[(first + row) * 4 + tap * 2..][..2];
                    }
                }
            }
        }
        let (a, b) = (numbers(12, 1), numbers(4 * 3, 2));
        let packed = Packed::new(&b, 4, 3);
        let mut out = [[0.0; 9], [0.0; 9]];
        let target = |out| Target { out, stride: 3, bias: None, more: None, relu: None };
        let [halves, whole] = &mut out;
        multiply(&Halves(&a), 0..3, &packed, target(halves));
        multiply(&Matrix { numbers: &a, rows: 3, stride: 4, depth: 4 }, 0..3, &packed, target(whole));
        assert_eq!(out[0], out[1]);
    }

    #[test]
    fn what_is_not_a_number_stays_so_through_relu() {
        let packed = Packed::new(&[1.0], 1, 1);
        let mut out = [0.0; 2];
        let matrix = Matrix { numbers: &[f32::NAN, -3.0], rows: 2, stride: 1, depth: 1 };
        multiply(&matrix, 0..2, &packed, Target { out: &mut out, stride: 1, bias: None, more: None, relu: Some(6.0) });
        assert!(out[0].is_nan() && out[1] == 0.0);
    }
}
