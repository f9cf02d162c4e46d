//! Pooling of `(batch, spatial…, channels)`, all channels of a cell at a time.

use kandle_model::primitive::{Geometry, Window};
use rten_simd::{Isa, SimdOp};

use super::{
    Kernel, Run,
    convolution::{Placed, Three, output, three},
};
use crate::{Failure, dims::Dims};

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
}

/// The places of a window that lie within the axis.
#[inline(always)]
fn seen((size, geometry, window): (usize, Geometry, Window), index: usize) -> impl Iterator<Item = usize> {
    let first = index * window.stride;
    (0..window.kernel)
        .map(move |tap| (first + tap * window.dilation).wrapping_sub(geometry.before))
        .filter(move |at| *at < size)
}

impl SimdOp for Cells<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let [z_axis, y_axis, x_axis] = self.axes;
        let (height, width, channels) = (y_axis.0, x_axis.0, self.channels);
        for (number, out) in self.out.chunks_exact_mut(channels).enumerate() {
            let cell = self.from + number;
            let (x, rest) = (cell % x_axis.1.output, cell / x_axis.1.output);
            let (y, rest) = (rest % y_axis.1.output, rest / y_axis.1.output);
            let (z, batch) = (rest % z_axis.1.output, rest / z_axis.1.output);
            // Keras: where a window holds nothing but NaN and −∞, the lowest finite number.
            out.fill(if self.largest { f32::MIN } else { 0.0 });
            let mut count = 0;
            for at_z in seen(z_axis, z) {
                for at_y in seen(y_axis, y) {
                    let line = ((batch * z_axis.0 + at_z) * height + at_y) * width;
                    for at_x in seen(x_axis, x) {
                        let cell = &self.image[(line + at_x) * channels..][..channels];
                        count += 1;
                        if self.largest {
                            for (out, x) in out.iter_mut().zip(cell) {
                                *out = if *x > *out { *x } else { *out };
                            }
                        } else {
                            for (out, x) in out.iter_mut().zip(cell) {
                                *out += x;
                            }
                        }
                    }
                }
            }
            if !self.largest {
                let count = count as f32;
                out.iter_mut().for_each(|out| *out /= count);
            }
        }
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
        let axes = three(spatial, &self.windows, &self.placed)?;
        if channels == 0 {
            return Ok(());
        }
        let operations = run.out.len() * self.windows.iter().map(|window| window.kernel).product::<usize>();
        run.threads.rows(run.out, channels, 1, operations, |range, out| {
            let cells = Cells { largest: self.largest, image, channels, axes, from: range.start, out };
            cells.dispatch();
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
        for rows in self.image.chunks(channels * RUN) {
            self.sums.fill(0.0);
            for row in rows.chunks_exact(channels) {
                for (sum, x) in self.sums.iter_mut().zip(row) {
                    *sum += x;
                }
            }
            for (out, sum) in self.out.iter_mut().zip(&*self.sums) {
                *out += sum;
            }
        }
        let count = (self.image.len() / channels) as f32;
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
        let size = image.len() / (run.out.len() / channels);
        let [sums, ..] = run.scratch.buffers([channels, 0, 0, 0]);
        for (image, out) in image.chunks_exact(size).zip(run.out.chunks_exact_mut(channels)) {
            All { largest: self.largest, image, out, sums }.dispatch();
        }
        Ok(())
    }
}
