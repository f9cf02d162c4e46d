//! Convolutions of each channel by itself, a vector of channels at a time.

#![allow(
    unsafe_code,
    reason = "a measured kernel: taps are read through pointers, which were checked once for all channels"
)]

use kandle_model::primitive::{Geometry, Window};
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::{
    Kernel, Run,
    convolution::{Placed, Three, output, three},
    map::{Map, clip},
};
use crate::{Failure, dims::Dims, threads::MOVED};

/// One filter for each channel.
#[derive(Debug)]
pub(crate) struct Depthwise {
    /// `(taps, channels)`, row-major.
    pub(crate) kernel: Vec<f32>,
    pub(crate) channels: usize,
    pub(crate) bias: Vec<f32>,
    pub(crate) windows: Vec<Window>,
    pub(crate) placed: Placed,
    pub(crate) map: Option<Map>,
}

struct Lines<'a> {
    kernel: &'a Depthwise,
    image: &'a [f32],
    axes: Three<(usize, Geometry, Window)>,
    /// The first line of cells, of all lines of the batch.
    from: usize,
    out: &'a mut [f32],
}

/// Most taps of a window that are found without asking for memory.
const FEW: usize = 64;
/// Cells of a line that are computed together: each weight is then loaded once for all of them.
const CELLS: usize = 4;

impl SimdOp for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let channels = self.kernel.channels;
        let [(depth, of_depth, z_window), (height, of_height, y_window), (width, of_width, x_window)] = self.axes;
        let (mut few, mut many) = ([(0, 0); FEW], Vec::new());
        let count = z_window.kernel * y_window.kernel * x_window.kernel;
        let places: &mut [(usize, usize)] = if count <= FEW {
            &mut few
        } else {
            many.resize(count, (0, 0));
            &mut many
        };
        // The cells whose windows lie within the line.
        let span = (x_window.kernel - 1) * x_window.dilation;
        let first = of_width.before.div_ceil(x_window.stride).min(of_width.output);
        let last = match (width + of_width.before).checked_sub(span + 1) {
            Some(most) => (most / x_window.stride + 1).clamp(first, of_width.output),
            None => first,
        };
        for (number, out) in self.out.chunks_exact_mut(of_width.output * channels).enumerate() {
            let line = self.from + number;
            let (y, rest) = (line % of_height.output, line / of_height.output);
            let (z, batch) = (rest % of_depth.output, rest / of_depth.output);
            let mut seen = 0;
            for dz in 0..z_window.kernel {
                let at_z = (z * z_window.stride + dz * z_window.dilation).wrapping_sub(of_depth.before);
                for dy in 0..y_window.kernel {
                    let at_y = (y * y_window.stride + dy * y_window.dilation).wrapping_sub(of_height.before);
                    if at_z < depth && at_y < height {
                        let line = ((batch * depth + at_z) * height + at_y) * width;
                        places[seen] = (line, (dz * y_window.kernel + dy) * x_window.kernel);
                        seen += 1;
                    }
                }
            }
            // Lines that are seen, then the taps of each.
            let lines = seen;
            for line in (0..lines).rev() {
                let (at, tap) = places[line];
                for dx in (0..x_window.kernel).rev() {
                    places[line * x_window.kernel + dx] =
                        ((at + dx * x_window.dilation) * channels, (tap + dx) * channels);
                }
            }
            let inner = &places[..lines * x_window.kernel];
            let taps = Taps { image: self.image, kernel: self.kernel, step: x_window.stride * channels };
            let mut x = 0;
            while x < of_width.output {
                let shift = |x: usize| (x * x_window.stride).wrapping_sub(of_width.before).wrapping_mul(channels);
                if x >= first && x + CELLS <= last {
                    taps.cells::<I, CELLS>(isa, inner, shift(x), &mut out[x * channels..(x + CELLS) * channels]);
                    x += CELLS;
                    continue;
                }
                let out = &mut out[x * channels..(x + 1) * channels];
                if x >= first && x < last {
                    taps.cells::<I, 1>(isa, inner, shift(x), out);
                } else {
                    // At the ends of a line only some taps are seen.
                    let mut few = [(0, 0); FEW];
                    let inside = inner.iter().filter(|(_, tap)| {
                        let dx = tap / channels % x_window.kernel;
                        (x * x_window.stride + dx * x_window.dilation).wrapping_sub(of_width.before) < width
                    });
                    if inner.len() <= FEW {
                        let mut seen = 0;
                        for tap in inside {
                            few[seen] = *tap;
                            seen += 1;
                        }
                        taps.cells::<I, 1>(isa, &few[..seen], shift(x), out);
                    } else {
                        taps.cells::<I, 1>(isa, &inside.copied().collect::<Vec<_>>(), shift(x), out);
                    }
                }
                x += 1;
            }
        }
    }
}

/// What cells of a line are computed from.
#[derive(Clone, Copy)]
struct Taps<'a> {
    image: &'a [f32],
    kernel: &'a Depthwise,
    /// Numbers from what a cell sees to what the next one does.
    step: usize,
}

impl Taps<'_> {
    /// `CELLS` cells beside each other: `taps` says where each tap of the first one lies, but for `shift`, and its weights.
    #[inline(always)]
    fn cells<I: Isa, const CELLS: usize>(self, isa: I, taps: &[(usize, usize)], shift: usize, out: &mut [f32]) {
        let lanes = isa.f32().len();
        let (channels, weights) = (self.kernel.channels, &self.kernel.kernel);
        // A shift before the line is one below zero, which wraps around.
        let inside = |(image_at, kernel_at): &(usize, usize)| {
            let first = image_at.wrapping_add(shift);
            first < self.image.len()
                && first + (CELLS - 1) * self.step + channels <= self.image.len()
                && kernel_at + channels <= weights.len()
        };
        assert!(taps.iter().all(inside) && out.len() == CELLS * channels, "a tap outside of its image");
        assert!(self.kernel.bias.len() == channels, "the bias of a depthwise convolution");
        let mut channel = 0;
        // Safety: every tap of every cell has `channels` numbers in both, and so have bias and output.
        unsafe {
            while channel + 2 * lanes <= channels {
                self.sums::<I, CELLS, 2>(isa, taps, shift, out, channel);
                channel += 2 * lanes;
            }
            while channel + lanes <= channels {
                self.sums::<I, CELLS, 1>(isa, taps, shift, out, channel);
                channel += lanes;
            }
        }
        for cell in 0..CELLS {
            for at in channel..channels {
                let from = shift.wrapping_add(cell * self.step + at);
                let product = |(i, k): &(usize, usize)| self.image[i.wrapping_add(from)] * weights[k + at];
                let sum = taps.iter().map(product).sum::<f32>() + self.kernel.bias[at];
                out[cell * channels + at] = match self.kernel.map.and_then(Map::as_relu) {
                    Some(_) if sum <= 0.0 => 0.0,
                    Some(most) if sum > most => most,
                    _ => sum,
                };
            }
        }
    }

    /// The sums of a few vectors of channels of each cell.
    ///
    /// # Safety
    /// From `channel` on, each tap has `VECTORS` vectors in the image, for every cell, and in the kernel, and so have bias and
    /// output.
    #[inline(always)]
    unsafe fn sums<I: Isa, const CELLS: usize, const VECTORS: usize>(
        self,
        isa: I,
        taps: &[(usize, usize)],
        shift: usize,
        out: &mut [f32],
        channel: usize,
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let (image, weights) = (self.image.as_ptr(), self.kernel.kernel.as_ptr());
        let mut sums = [[ops.zero(); VECTORS]; CELLS];
        for (image_at, kernel_at) in taps {
            let first = image_at.wrapping_add(shift) + channel;
            for vector in 0..VECTORS {
                // Safety: by the caller.
                let weight = unsafe { ops.load_ptr(weights.add(kernel_at + channel + vector * lanes)) };
                for (cell, sums) in sums.iter_mut().enumerate() {
                    // Safety: by the caller.
                    let x = unsafe { ops.load_ptr(image.add(first + cell * self.step + vector * lanes)) };
                    sums[vector] = ops.mul_add(x, weight, sums[vector]);
                }
            }
        }
        // Vector by vector, without a loop: see Tile::sum.
        const { assert!(VECTORS == 1 || VECTORS == 2) };
        // Safety: by the caller.
        unsafe { self.finish(isa, sums.map(|sums| sums[0]), out, channel) };
        if VECTORS == 2 {
            // Safety: by the caller.
            unsafe { self.finish(isa, sums.map(|sums| sums[VECTORS - 1]), out, channel + lanes) };
        }
    }

    /// Writes the sums of one vector of channels of each cell.
    ///
    /// # Safety
    /// As [`sums`](Self::sums), with the vector that begins at `channel`.
    #[inline(always)]
    unsafe fn finish<I: Isa, const CELLS: usize>(self, isa: I, sums: [I::F32; CELLS], out: &mut [f32], channel: usize) {
        let ops = isa.f32();
        let relu = self.kernel.map.and_then(Map::as_relu);
        // Safety: by the caller.
        let bias = unsafe { ops.load_ptr(self.kernel.bias.as_ptr().add(channel)) };
        for (cell, sum) in sums.into_iter().enumerate() {
            let mut sum = ops.add(sum, bias);
            if let Some(most) = relu {
                sum = clip(isa, sum, 0.0, most);
            }
            // Safety: by the caller.
            unsafe { ops.store_ptr(sum, out.as_mut_ptr().add(cell * self.kernel.channels + channel)) };
        }
    }
}

impl Kernel for Depthwise {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.last()? != self.channels {
            return Err(Failure::unforeseen("another number of channels"));
        }
        output(dims, &self.windows, &self.placed, self.channels)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let image = run.floats(0)?;
        let dims = run.operand(0)?.dims;
        let (_, spatial, channels) = dims.image(self.windows.len())?;
        let axes = three(spatial, &self.windows, &self.placed)?;
        // A vector is read for each product.
        let taps: usize = self.windows.iter().map(|window| window.kernel).product();
        let operations = MOVED * run.out.len() * taps / 2;
        let [.., (_, of_width, _)] = axes;
        // A line of cells.
        let line = of_width.output * channels;
        if line == 0 {
            return Ok(());
        }
        run.threads.rows(run.out, line, 1, operations, |range, out| {
            // In parts that stay in the cache until the map is done.
            let step = (16_384 / line).max(1);
            for from in range.clone().step_by(step) {
                let to = (from + step).min(range.end);
                let out = &mut out[(from - range.start) * line..(to - range.start) * line];
                Lines { kernel: self, image, axes, from, out }.dispatch();
                if let Some(map) = self.map.filter(|map| map.as_relu().is_none()) {
                    map.apply(out);
                }
            }
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        (self.kernel.len() + self.bias.len()) * size_of::<f32>()
    }
}
