//! Convolutions of 3 × 3 taps with 4 products for each number instead of 9.
//!
//! Four cells of what comes out, 2 × 2 of them, see 4 × 4 of what goes in. Both the patch and the filter are turned into 16 numbers
//! by sums and differences; their products, summed over the channels, are turned back into the four. The sums over the channels
//! are 16 matrix products of all patches that are worked on together. Source: Lavin and Gray, Fast Algorithms for Convolutional
//! Neural Networks (2015), F(2 × 2, 3 × 3).
//!
//! A number is rounded as the largest of its patch is, which may lie one cell beyond its own window. And what is not finite in a
//! patch would show in all four cells: then the run goes to the model.

#![allow(unsafe_code, reason = "vectors of channels are read and written through pointers, as in tile.rs")]

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kandle_model::primitive::{self, Geometry, Window};
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::{
    Kernel, Run,
    convolution::{Placed, output, three},
    map::{Map, clip},
    product::apart,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{
    Failure,
    dims::Dims,
    memory::{Numbers, Store},
};

/// Numbers of a transformed patch, or filter: 4 × 4.
const PATCH: usize = 16;
/// Numbers of transformed patches, and of their products, that are worked on together: they stay in a second-level cache.
const TOGETHER: usize = 96 << 10;
/// The most bytes of transformed filters: they are read again for each few patches.
const MOST_BYTES: usize = 1 << 20;
/// With fewer channels, going in or coming out, sums and differences take longer than is won.
const FEWEST: usize = 32;
/// Fewer patches of an image are too few rows for filters that are nearly twice as large as they were.
const FEWEST_PATCHES: usize = 32;
/// A cache line between what is of one number of patches and of the next, which else would lie in the same few places of a cache.
const APART: usize = 16;

/// A convolution by patches.
#[derive(Debug)]
pub(crate) struct Winograd {
    /// `(channels, filters)` for each of the 16 numbers.
    filters: Vec<Packed>,
    bias: Option<Vec<f32>>,
    windows: Vec<Window>,
    placed: Placed,
    /// Whether the last input is added before the map.
    pub(crate) adds: bool,
    pub(crate) map: Option<Map>,
    /// A cell outside of the image.
    zeros: Vec<f32>,
    /// Memory for patches, for as many threads as were at it at once.
    idle: Mutex<Vec<Numbers>>,
}

/// Whether a convolution of images of `spatial` cells is faster by patches. Where their size is not known they are taken to be
/// large, and the filters must be small enough for that to cost little where they are not.
pub(crate) fn pays(convolution: &primitive::Convolution, placed: &Placed, spatial: Option<&[usize]>) -> bool {
    let [3, 3, channels, filters] = *convolution.kernel.dims() else { return false };
    let plain = |window: &Window| window.stride == 1 && window.dilation == 1;
    if convolution.depthwise || convolution.groups != 1 || !convolution.windows.iter().all(plain) {
        return false;
    }
    let bytes = PATCH * channels * filters * size_of::<f32>();
    if channels.min(filters) < FEWEST || bytes > MOST_BYTES {
        return false;
    }
    let Some(spatial) = spatial else { return bytes <= MOST_BYTES / 4 };
    let Ok([_, (_, high, _), (_, wide, _)]) = three(spatial, &convolution.windows, placed) else { return false };
    let (cells, patches) = (high.output * wide.output, high.output.div_ceil(2) * wide.output.div_ceil(2));
    // Of the cells of all patches at least 5 of 7 have to be of the image.
    patches >= FEWEST_PATCHES && 7 * cells >= 5 * 4 * patches
}

/// `G g Gᵀ` for the filter of each channel: number `number` of them, `(channels, filters)`.
fn transformed(kernel: &[f32], scale: Option<&[f32]>, filters: usize, number: usize) -> Vec<f32> {
    const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    let mut sums = vec![0.0; kernel.len() / 9];
    for (tap, numbers) in kernel.chunks_exact(sums.len()).enumerate() {
        let factor = G[number / 4][tap / 3] * G[number % 4][tap % 3];
        if factor != 0.0 {
            sums.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += factor * f64::from(*x));
        }
    }
    if let Some(scale) = scale {
        for row in sums.chunks_exact_mut(filters) {
            row.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= f64::from(*scale));
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

impl Winograd {
    /// `kernel` is `(3, 3, channels, filters)`, row-major, and is scaled by `(filters,)`.
    pub(crate) fn new(
        store: &mut Store,
        (kernel, scale, bias): (&[f32], Option<&[f32]>, Option<Vec<f32>>),
        (channels, filters): (usize, usize),
        (windows, placed): (Vec<Window>, Placed),
    ) -> Self {
        let packed = (0..PATCH).map(|number| {
            let numbers = transformed(kernel, scale, filters, number);
            Packed::new(store, channels, &[Columns::all(&numbers, filters)])
        });
        Self {
            filters: packed.collect(),
            bias,
            windows,
            placed,
            adds: false,
            map: None,
            zeros: vec![0.0; channels],
            idle: Mutex::default(),
        }
    }

    fn channels(&self) -> usize {
        self.zeros.len()
    }

    fn columns(&self) -> usize {
        self.filters.first().map_or(0, Packed::columns)
    }

    /// How many patches are worked on together.
    fn together(&self) -> usize {
        let rows = TOGETHER / (PATCH * (self.channels() + self.columns())).max(1);
        (rows / MOST_ROWS * MOST_ROWS).max(MOST_ROWS)
    }
}

/// Where patches lie.
#[derive(Clone, Copy)]
struct Patches {
    /// The cells of an image that goes in.
    size: [usize; 2],
    /// Zeros above it and before it.
    before: [usize; 2],
    /// The cells of one that comes out.
    made: [usize; 2],
}

impl Patches {
    fn of_image(self) -> usize {
        self.made[0].div_ceil(2) * self.made[1].div_ceil(2)
    }

    /// The image of a patch, and its first cell of what comes out.
    #[inline(always)]
    fn place(self, patch: usize) -> (usize, [usize; 2]) {
        let wide = self.made[1].div_ceil(2);
        let (image, within) = (patch / self.of_image(), patch % self.of_image());
        (image, [within / wide * 2, within % wide * 2])
    }
}

/// `Bᵀ d B` of patches, each of the 16 numbers `(patches, channels)`.
struct Forward<'a> {
    image: &'a [f32],
    zeros: &'a [f32],
    patches: Patches,
    range: Range<usize>,
    out: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, channels) = (ops.len(), self.zeros.len());
        let apart = self.range.len() * channels + APART;
        assert!(self.out.len() >= PATCH * apart, "room for patches");
        let Patches { size: [height, width], before, .. } = self.patches;
        for (row, patch) in self.range.enumerate() {
            let (image, [y, x]) = self.patches.place(patch);
            let mut cells = [self.zeros.as_ptr(); PATCH];
            for (number, cell) in cells.iter_mut().enumerate() {
                // What lies before the image is beyond it once it has wrapped around.
                let at_y = (y + number / 4).wrapping_sub(before[0]);
                let at_x = (x + number % 4).wrapping_sub(before[1]);
                if at_y < height && at_x < width {
                    let first = ((image * height + at_y) * width + at_x) * channels;
                    *cell = self.image[first..first + channels].as_ptr();
                }
            }
            let out = self.out[row * channels..].as_mut_ptr();
            for at in (0..channels).step_by(lanes) {
                let mask = ops.first_n_mask((channels - at).min(lanes));
                // Macros: what a closure does that is called in several places is no part of this function, and not for its
                // processor. And sixteen names: an array would be kept in memory.
                macro_rules! column {
                    ($x:literal) => {{
                        // Safety: each cell has the channels that the mask leaves.
                        let [a, b, c, d] = unsafe {
                            [
                                ops.load_ptr_mask(cells[$x].add(at), mask),
                                ops.load_ptr_mask(cells[4 + $x].add(at), mask),
                                ops.load_ptr_mask(cells[8 + $x].add(at), mask),
                                ops.load_ptr_mask(cells[12 + $x].add(at), mask),
                            ]
                        };
                        (ops.sub(a, c), ops.add(b, c), ops.sub(c, b), ops.sub(b, d))
                    }};
                }
                let (a, b, c, d) = (column!(0), column!(1), column!(2), column!(3));
                macro_rules! line {
                    ($first:literal, $y:tt) => {
                        let (a, b, c, d) = (a.$y, b.$y, c.$y, d.$y);
                        // Safety: there is room for all patches of each number, as was checked.
                        unsafe {
                            ops.store_ptr_mask(ops.sub(a, c), out.add($first * apart + at), mask);
                            ops.store_ptr_mask(ops.add(b, c), out.add(($first + 1) * apart + at), mask);
                            ops.store_ptr_mask(ops.sub(c, b), out.add(($first + 2) * apart + at), mask);
                            ops.store_ptr_mask(ops.sub(b, d), out.add(($first + 3) * apart + at), mask);
                        }
                    };
                }
                line!(0, 0);
                line!(4, 1);
                line!(8, 2);
                line!(12, 3);
            }
        }
    }
}

/// `Aᵀ m A` of the products of patches, with bias, summand and the least of 0 and `relu`, to where they belong.
struct Back<'a> {
    products: &'a [f32],
    patches: Patches,
    range: Range<usize>,
    filters: usize,
    bias: Option<&'a [f32]>,
    /// Laid out as `out`.
    more: Option<&'a [f32]>,
    relu: Option<f32>,
    /// From cell `first` on, of all images one after the other.
    out: &'a mut [f32],
    first: usize,
}

impl SimdOp for Back<'_> {
    /// Whether all numbers are finite.
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let ops = isa.f32();
        let (lanes, filters) = (ops.len(), self.filters);
        let apart = self.range.len() * filters + APART;
        assert!(self.products.len() >= PATCH * apart - APART, "products of patches");
        assert!(self.bias.is_none_or(|bias| bias.len() == filters), "the bias of a convolution");
        assert!(self.more.is_none_or(|more| more.len() >= self.out.len()), "a summand");
        let [height, width] = self.patches.made;
        let mut finite = ops.zero();
        for (row, patch) in self.range.enumerate() {
            let (image, [y, x]) = self.patches.place(patch);
            let (high, wide) = ((height - y).min(2), (width - x).min(2));
            let first = ((image * height + y) * width + x - self.first) * filters;
            let last = first + ((high - 1) * width + wide) * filters;
            assert!(last <= self.out.len(), "cells of a patch beyond what comes out");
            for at in (0..filters).step_by(lanes) {
                let mask = ops.first_n_mask((filters - at).min(lanes));
                let from = row * filters + at;
                // Macros and names, as in `Forward`.
                macro_rules! column {
                    ($x:literal) => {{
                        let first = self.products.as_ptr();
                        // Safety: there are so many products of each number, as was checked.
                        let [a, b, c, d] = unsafe {
                            [
                                ops.load_ptr_mask(first.add($x * apart + from), mask),
                                ops.load_ptr_mask(first.add((4 + $x) * apart + from), mask),
                                ops.load_ptr_mask(first.add((8 + $x) * apart + from), mask),
                                ops.load_ptr_mask(first.add((12 + $x) * apart + from), mask),
                            ]
                        };
                        (ops.add(ops.add(a, b), c), ops.sub(ops.sub(b, c), d))
                    }};
                }
                let (a, b, c, d) = (column!(0), column!(1), column!(2), column!(3));
                let bias = match self.bias {
                    // Safety: as many as filters.
                    Some(bias) => unsafe { ops.load_ptr_mask(bias.as_ptr().add(at), mask) },
                    None => ops.zero(),
                };
                macro_rules! put {
                    ($dy:literal, $dx:literal, $sum:expr) => {
                        if $dy < high && $dx < wide {
                            let to = first + ($dy * width + $dx) * filters + at;
                            let mut sum = ops.add($sum, bias);
                            // 0, but for what is not finite.
                            finite = ops.mul_add(sum, ops.zero(), finite);
                            if let Some(more) = self.more {
                                // Safety: laid out as the output.
                                sum = ops.add(sum, unsafe { ops.load_ptr_mask(more.as_ptr().add(to), mask) });
                            }
                            if let Some(most) = self.relu {
                                sum = clip(isa, sum, 0.0, most);
                            }
                            // Safety: the cells of the patch are within, as was checked.
                            unsafe { ops.store_ptr_mask(sum, self.out.as_mut_ptr().add(to), mask) };
                        }
                    };
                }
                put!(0, 0, ops.add(ops.add(a.0, b.0), c.0));
                put!(0, 1, ops.sub(ops.sub(b.0, c.0), d.0));
                put!(1, 0, ops.add(ops.add(a.1, b.1), c.1));
                put!(1, 1, ops.sub(ops.sub(b.1, c.1), d.1));
            }
        }
        ops.sum(finite) == 0.0
    }
}

impl Kernel for Winograd {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.last()? != self.channels() {
            return Err(Failure::unforeseen("another number of channels"));
        }
        super::same_as_added(self.adds, inputs, output(dims, &self.windows, &self.placed, self.columns())?)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let image = run.floats(0)?;
        let more = if self.adds { Some(run.floats(1)?) } else { None };
        let dims = run.operand(0)?.dims;
        let (batch, spatial, channels) = dims.image(2)?;
        let [_, (height, of_height, _), (width, of_width, _)] = three(spatial, &self.windows, &self.placed)?;
        let made = |geometry: Geometry| (geometry.before, geometry.output);
        let ((above, high), (left, wide)) = (made(of_height), made(of_width));
        let patches = Patches { size: [height, width], before: [above, left], made: [high, wide] };
        let (filters, (relu, map)) = (self.columns(), apart(self.map));
        if run.out.is_empty() {
            return Ok(());
        }
        let (together, finite) = (self.together(), AtomicBool::new(true));
        // Images, or pairs of lines of the only one.
        let (cells, block) = if batch > 1 { (high * wide, 1) } else { (wide, 2) };
        let per_line = wide.div_ceil(2);
        let operations = PATCH * 2 * batch * patches.of_image() * channels * filters;
        run.threads.rows(run.out, cells * filters, block, operations, |range, out| {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (mut memory, first) = (kept.unwrap_or_default(), range.start * cells);
            memory.grow(PATCH * (together * (channels + filters) + 2 * APART));
            let (inner, products) = memory.split_at_mut(PATCH * (together * channels + APART));
            let more = more.map(|more| &more[first * filters..first * filters + out.len()]);
            let range = match batch > 1 {
                true => range.start * patches.of_image()..range.end * patches.of_image(),
                false => range.start / 2 * per_line..range.end.div_ceil(2) * per_line,
            };
            for from in range.clone().step_by(together) {
                let range = from..(from + together).min(range.end);
                Forward { image, zeros: &self.zeros, patches, range: range.clone(), out: inner }.dispatch();
                let (rows, apart) = (range.len(), range.len() * filters + APART);
                for (number, kernel) in self.filters.iter().enumerate() {
                    let numbers = &inner[number * (rows * channels + APART)..][..rows * channels];
                    let matrix = Matrix { numbers, rows, stride: channels, depth: channels };
                    let out = &mut products[number * apart..][..rows * filters];
                    let target = Target { out, stride: filters, bias: None, more: None, relu: None };
                    multiply(&matrix, 0..rows, kernel, target);
                }
                let bias = self.bias.as_deref();
                let back = Back { products, patches, range, filters, bias, more, relu, out: &mut *out, first };
                if !back.dispatch() {
                    finite.store(false, Ordering::Relaxed);
                }
            }
            if let Some(map) = map {
                map.apply(out);
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        });
        match finite.into_inner() {
            true => Ok(()),
            false => Err(Failure::unforeseen("a convolution of numbers that are not finite")),
        }
    }

    fn bytes(&self) -> usize {
        let filters = self.filters.iter().map(Packed::bytes).sum::<usize>();
        filters + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use kandle_model::primitive::{Convolution, Padding, Window};

    use super::{FEWEST, Placed, Winograd, pays};
    use crate::{
        dims::Dims,
        kernel::{Data, Kernel, Operand, Run, Scratch, map::Map},
        memory::Store,
        threads::Threads,
    };

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    const WINDOW: Window = Window { kernel: 3, stride: 1, dilation: 1 };

    /// What a convolution gives, in float64.
    fn expected(
        image: &[f32],
        [batch, height, width, channels]: [usize; 4],
        (kernel, scale, bias): (&[f32], &[f32], &[f32]),
        (above, left): (usize, usize),
        (high, wide): (usize, usize),
    ) -> Vec<f64> {
        let (filters, mut out) = (bias.len(), vec![]);
        for cell in 0..batch * high * wide {
            let (image_number, y, x) = (cell / wide / high, cell / wide % high, cell % wide);
            for filter in 0..filters {
                let mut sum = f64::from(bias[filter]);
                for tap in 0..9 {
                    let (at_y, at_x) = ((y + tap / 3).wrapping_sub(above), (x + tap % 3).wrapping_sub(left));
                    if at_y >= height || at_x >= width {
                        continue;
                    }
                    for channel in 0..channels {
                        let x = image[((image_number * height + at_y) * width + at_x) * channels + channel];
                        let weight = f64::from(kernel[(tap * channels + channel) * filters + filter]);
                        sum += f64::from(x) * weight * f64::from(scale[filter]);
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn patches_give_what_windows_give() {
        let kinds = [
            (Placed::By(Padding::Same), (1, 1), (2, 2)),
            (Placed::By(Padding::Valid), (0, 0), (0, 0)),
            (Placed::Within(vec![(2, 0), (0, 1)]), (2, 0), (2, 1)),
        ];
        let sizes = [[1, 12, 12, 32, 32], [1, 7, 9, 5, 3], [2, 5, 4, 17, 40], [3, 3, 3, 33, 1], [1, 30, 31, 8, 20]];
        for ([batch, height, width, channels, filters], threads) in sizes.into_iter().zip([1, 1, 2, 2, 2]) {
            for (placed, before, more) in kinds.clone() {
                for (adds, map) in [(false, None), (true, Some(Map::Relu { most: 1.5 })), (true, Some(Map::Tanh))] {
                    let (high, wide) = (height + more.0 - 2, width + more.1 - 2);
                    let image = numbers(batch * height * width * channels, 1);
                    let kernel: Vec<f32> = numbers(9 * channels * filters, 2).iter().map(|x| x * 0.2).collect();
                    let (scale, bias) = (numbers(filters, 3), numbers(filters, 4));
                    let summand = numbers(batch * high * wide * filters, 5);
                    let form = (vec![WINDOW; 2], placed.clone());
                    let weights = (kernel.as_slice(), Some(scale.as_slice()), Some(bias.clone()));
                    let mut ours = Winograd::new(&mut Store::default(), weights, (channels, filters), form);
                    (ours.adds, ours.map) = (adds, map);
                    let dims = Dims::new(&[batch, height, width, channels]).unwrap();
                    let made = Dims::new(&[batch, high, wide, filters]).unwrap();
                    let inputs =
                        [Operand { dims, data: Data::F32(&image) }, Operand { dims: made, data: Data::F32(&summand) }];
                    let shapes = [dims, made];
                    assert_eq!(ours.dims(&shapes[..1 + usize::from(adds)]).unwrap(), made);
                    let mut out = vec![f32::NAN; made.count()];
                    let (mut scratch, threads) = (Scratch::default(), Threads::new(threads).unwrap());
                    // Twice, so that what is left of the first run would show.
                    for _ in 0..2 {
                        let (scratch, threads) = (&mut scratch, &threads);
                        let out = out.as_mut_slice();
                        let run =
                            Run { inputs: &inputs, out, dims: made, in_place: false, mask: None, scratch, threads };
                        ours.run(run).unwrap();
                    }
                    let sizes = [batch, height, width, channels];
                    let theirs = expected(&image, sizes, (&kernel, &scale, &bias), before, (high, wide));
                    for ((ours, sum), more) in out.iter().zip(theirs).zip(&summand) {
                        let sum = if adds { sum + f64::from(*more) } else { sum };
                        let theirs = match map {
                            Some(Map::Tanh) => sum.tanh(),
                            Some(_) => sum.clamp(0.0, 1.5),
                            None => sum,
                        };
                        assert!((f64::from(*ours) - theirs).abs() < 1e-5, "{ours} for {theirs}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_left_to_the_model() {
        let kernel = numbers(9 * 4 * 4, 1);
        let form = (vec![WINDOW; 2], Placed::By(Padding::Same));
        let ours = Winograd::new(&mut Store::default(), (&kernel, None, None), (4, 4), form);
        let dims = Dims::new(&[1, 6, 6, 4]).unwrap();
        for (wrong, fits) in [(0.0, true), (f32::NAN, false), (f32::INFINITY, false), (3e38, false)] {
            let (mut image, mut out) = (numbers(6 * 6 * 4, 2), vec![0.0; 6 * 6 * 4]);
            image[17..21].fill(wrong);
            let inputs = [Operand { dims, data: Data::F32(&image) }];
            let (scratch, threads) = (&mut Scratch::default(), &Threads::default());
            let out = out.as_mut_slice();
            let run = Run { inputs: &inputs, out, dims, in_place: false, mask: None, scratch, threads };
            assert_eq!(ours.run(run).is_ok(), fits, "{wrong}");
        }
    }

    #[test]
    fn it_pays_for_many_cells_and_channels_alone() {
        let same = Placed::By(Padding::Same);
        let of = |shape: [usize; 4], stride: usize, groups: usize| Convolution {
            kernel: Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap(),
            bias: None,
            windows: vec![Window { kernel: shape[0], stride, dilation: 1 }; 2],
            padding: Padding::Same,
            margins: None,
            groups,
            depthwise: false,
        };
        assert!(pays(&of([3, 3, 64, FEWEST], 1, 1), &same, Some(&[24, 24])));
        assert!(!pays(&of([3, 3, 64, FEWEST], 1, 1), &same, Some(&[6, 6])), "few cells");
        assert!(pays(&of([3, 3, 64, 64], 1, 1), &same, None));
        assert!(!pays(&of([3, 3, 128, 128], 1, 1), &same, None), "filters too large for any image");
        assert!(!pays(&of([3, 3, FEWEST - 1, 64], 1, 1), &same, Some(&[24, 24])), "few channels");
        assert!(!pays(&of([3, 3, 512, 512], 1, 1), &same, Some(&[24, 24])), "large filters");
        assert!(!pays(&of([3, 3, 64, 64], 2, 1), &same, Some(&[24, 24])), "a stride");
        assert!(!pays(&of([3, 3, 64, 64], 1, 2), &same, Some(&[24, 24])), "groups");
        assert!(!pays(&of([5, 5, 64, 64], 1, 1), &same, Some(&[24, 24])), "another window");
    }
}
