//! Pooling of `(batch, spatial…, channels)`, all channels of a cell at a time.

use kandle_model::primitive::{Geometry, Window};
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, FloatOps, NumOps},
};

use super::{
    Kernel, Run,
    convolution::{Offsets, Placed, Three, output, three},
};
use crate::{Failure, dims::Dims, threads::MOVED};

/// The largest number or the mean of each window.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) largest: bool,
    pub(crate) windows: Vec<Window>,
    pub(crate) placed: Placed,
}

struct Cells<'a> {
    largest: bool,
    image: &'a [f32],
    channels: usize,
    axes: Three<(usize, Geometry, Window)>,
    from: usize,
    out: &'a mut [f32],
    /// How far each tap of a window is from the first, where all are within the image.
    offsets: &'a [usize],
}

/// The places of a window that lie within the axis.
#[inline(always)]
fn seen((size, geometry, window): (usize, Geometry, Window), index: usize) -> impl Iterator<Item = usize> {
    let first = index * window.stride;
    (0..window.kernel)
        .map(move |tap| (first + tap * window.dilation).wrapping_sub(geometry.before))
        .filter(move |at| *at < size)
}

/// Where the window begins, if it lies within the axis.
#[inline(always)]
fn within((size, geometry, window): (usize, Geometry, Window), index: usize) -> Option<usize> {
    let first = (index * window.stride).checked_sub(geometry.before)?;
    (first + (window.kernel - 1) * window.dilation < size).then_some(first)
}

impl SimdOp for Cells<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let [z_axis, y_axis, x_axis] = self.axes;
        let (height, width, channels) = (y_axis.0, x_axis.0, self.channels);
        let mut x = self.from % x_axis.1.output;
        let rest = self.from / x_axis.1.output;
        let mut y = rest % y_axis.1.output;
        let rest = rest / y_axis.1.output;
        let (mut z, mut batch) = (rest % z_axis.1.output, rest / z_axis.1.output);
        for out in self.out.chunks_exact_mut(channels) {
            match (within(z_axis, z), within(y_axis, y), within(x_axis, x)) {
                (Some(z), Some(y), Some(x)) => {
                    let from = (((batch * z_axis.0 + z) * height + y) * width + x) * channels;
                    let mut channel = 0;
                    let lanes = isa.f32().len();
                    while channel + 2 * lanes <= channels {
                        whole::<I, 2>(
                            isa,
                            self.largest,
                            &self.image[from + channel..],
                            self.offsets,
                            &mut out[channel..],
                        );
                        channel += 2 * lanes;
                    }
                    while channel + lanes <= channels {
                        whole::<I, 1>(
                            isa,
                            self.largest,
                            &self.image[from + channel..],
                            self.offsets,
                            &mut out[channel..],
                        );
                        channel += lanes;
                    }
                    let taps = self
                        .offsets
                        .iter()
                        .map(|offset| &self.image[from + offset + channel..from + offset + channels]);
                    one_by_one(self.largest, taps, &mut out[channel..]);
                }
                _ => {
                    let taps = seen(z_axis, z).flat_map(|at_z| {
                        seen(y_axis, y).flat_map(move |at_y| {
                            let line = ((batch * z_axis.0 + at_z) * height + at_y) * width;
                            seen(x_axis, x).map(move |at_x| (line + at_x) * channels)
                        })
                    });
                    one_by_one(self.largest, taps.map(|at| &self.image[at..at + channels]), out);
                }
            }
            x += 1;
            if x == x_axis.1.output {
                (x, y) = (0, y + 1);
                if y == y_axis.1.output {
                    (y, z) = (0, z + 1);
                    if z == z_axis.1.output {
                        (z, batch) = (0, batch + 1);
                    }
                }
            }
        }
    }
}

/// Vectors of channels of a cell whose window lies within the image, which begins at its first tap.
#[inline(always)]
fn whole<I: Isa, const VECTORS: usize>(isa: I, largest: bool, image: &[f32], offsets: &[usize], out: &mut [f32]) {
    let ops = isa.f32();
    let lanes = ops.len();
    let mut made = [ops.splat(if largest { f32::MIN } else { 0.0 }); VECTORS];
    for offset in offsets {
        let cell = &image[*offset..][..VECTORS * lanes];
        for (made, cell) in made.iter_mut().zip(cell.chunks_exact(lanes)) {
            let x = ops.load(cell);
            *made = if largest { ops.select(x, *made, ops.gt(x, *made)) } else { ops.add(*made, x) };
        }
    }
    let count = ops.splat(offsets.len() as f32);
    for (made, out) in made.into_iter().zip(out.chunks_exact_mut(lanes)) {
        ops.store(if largest { made } else { ops.div(made, count) }, out);
    }
}

/// The same for any number of channels, and for windows of which some taps are seen.
#[inline(always)]
fn one_by_one<'a>(largest: bool, taps: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) {
    // Keras: where a window holds nothing but NaN and −∞, the lowest finite number.
    out.fill(if largest { f32::MIN } else { 0.0 });
    let mut count = 0.0;
    for cell in taps {
        count += 1.0;
        for (out, x) in out.iter_mut().zip(cell) {
            *out = if !largest {
                *out + x
            } else if *x > *out {
                *x
            } else {
                *out
            };
        }
    }
    if !largest {
        out.iter_mut().for_each(|out| *out /= count);
    }
}

impl Kernel for Pool {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        output(dims, &self.windows, &self.placed, dims.last()?)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let image = run.floats(0)?;
        let dims = run.operand(0)?.dims;
        let (_, spatial, channels) = dims.image(self.windows.len())?;
        // TensorFlow has other rules for what is no number along three axes.
        if self.largest && spatial.len() > 2 && !super::all_are_finite(image) {
            return Err(Failure::unforeseen("the largest of numbers that are not finite"));
        }
        let axes = three(spatial, &self.windows, &self.placed)?;
        if channels == 0 {
            return Ok(());
        }
        let taps: usize = self.windows.iter().map(|window| window.kernel).product();
        // It is the reading that takes the time.
        let operations = MOVED * run.out.len() * taps / 4;
        let offsets = Offsets::new(&axes, channels, axes[2].2.kernel, taps);
        run.threads.rows(run.out, channels, 1, operations, |range, out| {
            let (largest, from, offsets) = (self.largest, range.start, offsets.all());
            Cells { largest, image, channels, axes, from, out, offsets }.dispatch();
        });
        Ok(())
    }
}

/// The largest number or the mean of all cells.
#[derive(Debug)]
pub(crate) struct PoolAll {
    pub(crate) largest: bool,
    pub(crate) keeps_axes: bool,
}

struct All<'a> {
    largest: bool,
    /// `(cells, channels)` of one image.
    image: &'a [f32],
    /// 1 for each cell that counts for the mean; none for all.
    mask: Option<&'a [u8]>,
    out: &'a mut [f32],
    /// As many numbers as channels.
    sums: &'a mut [f32],
}

/// Rows that are added in float32 before their sum is.
const RUN: usize = 16;

impl SimdOp for All<'_> {
    type Output = ();

    /// Keras: the largest is NaN if there is one, unlike that of a window.
    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let channels = self.out.len();
        if self.largest {
            self.out.fill(f32::NEG_INFINITY);
            for row in self.image.chunks_exact(channels) {
                for (out, x) in self.out.iter_mut().zip(row) {
                    *out = if *x > *out || x.is_nan() { *x } else { *out };
                }
            }
            return;
        }
        // Sums of sums: as exact as pairs of halves, and a vector at a time.
        self.out.fill(0.0);
        for (run, rows) in self.image.chunks(channels * RUN).enumerate() {
            self.sums.fill(0.0);
            for (cell, row) in (run * RUN..).zip(rows.chunks_exact(channels)) {
                // Keras: what does not count is multiplied with 0, so NaN stays.
                let counts = self.mask.map_or(1.0, |mask| f32::from(mask[cell]));
                for (sum, x) in self.sums.iter_mut().zip(row) {
                    *sum += x * counts;
                }
            }
            for (out, sum) in self.out.iter_mut().zip(&*self.sums) {
                *out += sum;
            }
        }
        let count = match self.mask {
            Some(mask) => mask.iter().map(|counts| f32::from(*counts)).sum(),
            None => (self.image.len() / channels) as f32,
        };
        self.out.iter_mut().for_each(|out| *out /= count);
    }
}

impl Kernel for PoolAll {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        let (batch, spatial, channels) = dims.image(dims.rank().saturating_sub(2))?;
        if spatial.iter().product::<usize>() == 0 {
            return Err(Failure::unforeseen("an image without cells"));
        }
        let made = Dims::new(&[batch])?;
        let kept = if self.keeps_axes { spatial.len() } else { 0 };
        (0..kept).try_fold(made, |made, _| made.and(1))?.and(channels)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let image = run.floats(0)?;
        let channels = run.dims.last()?;
        if channels == 0 || run.out.is_empty() {
            return Ok(());
        }
        let (batch, size) = (run.out.len() / channels, image.len() / (run.out.len() / channels));
        let cells = size / channels;
        if run.mask.is_some_and(|mask| mask.bytes.len() != batch * cells || mask.dims.rank() != 2) {
            return Err(Failure::unforeseen("a mask of another shape"));
        }
        let [sums] = run.scratch.buffers([channels]);
        for (row, (image, out)) in image.chunks_exact(size).zip(run.out.chunks_exact_mut(channels)).enumerate() {
            let mask = run.mask.and_then(|mask| mask.bytes.get(row * cells..(row + 1) * cells));
            All { largest: self.largest, image, mask, out, sums }.dispatch();
        }
        Ok(())
    }
}
