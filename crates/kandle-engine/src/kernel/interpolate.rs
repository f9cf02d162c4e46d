//! Images made larger, each cell of the result between four.

#![allow(unsafe_code, reason = "channels that are no whole number of vectors are read and written through masks")]

use kandle_model::primitive::{Neighbours, Position};
use rten_simd::{
    Isa, SimdOp,
    ops::{BitOps, NumOps},
};

use super::{Kernel, Run};
use crate::{Failure, dims::Dims, threads::MOVED};

/// `(batch, height, width, channels)` so many times as high and wide.
#[derive(Debug)]
pub(crate) struct Interpolate {
    pub(crate) times: [usize; 2],
    pub(crate) at: Position,
}

struct Lines<'a> {
    image: &'a [f32],
    /// Height and width of the image, and its channels.
    sizes: [usize; 3],
    kernel: &'a Interpolate,
    /// The first line, over all images.
    from: usize,
    out: &'a mut [f32],
}

impl SimdOp for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let [height, width, channels] = self.sizes;
        let [high, wide] = [height * self.kernel.times[0], width * self.kernel.times[1]];
        for (number, line) in self.out.chunks_exact_mut(wide * channels).enumerate() {
            let (batch, y) = ((self.from + number) / high, (self.from + number) % high);
            let rows = Neighbours::of(y, height, high, self.kernel.at);
            let of_row = |row: usize| &self.image[(batch * height + row) * width * channels..][..width * channels];
            let (lower, upper) = (of_row(rows.lower), of_row(rows.upper));
            let down = ops.splat(rows.fraction);
            for (x, out) in line.chunks_exact_mut(channels).enumerate() {
                let columns = Neighbours::of(x, width, wide, self.kernel.at);
                let of_cell = |row: &'_ [f32], column: usize| row[column * channels..][..channels].as_ptr();
                let cells = [
                    of_cell(lower, columns.lower),
                    of_cell(lower, columns.upper),
                    of_cell(upper, columns.lower),
                    of_cell(upper, columns.upper),
                ];
                let along = ops.splat(columns.fraction);
                for at in (0..channels).step_by(lanes) {
                    let mask = ops.first_n_mask((channels - at).min(lanes));
                    // Safety: each cell, and what comes out, has the lanes of the mask from there on.
                    unsafe {
                        let [a, b, c, d] = cells.map(|cell| ops.load_ptr_mask(cell.add(at), mask));
                        // Keras multiplies and adds one after the other.
                        let first = ops.add(a, ops.mul(ops.sub(b, a), along));
                        let second = ops.add(c, ops.mul(ops.sub(d, c), along));
                        let between = ops.add(first, ops.mul(ops.sub(second, first), down));
                        ops.store_ptr_mask(between, out.as_mut_ptr().add(at), mask);
                    }
                }
            }
        }
    }
}

impl Kernel for Interpolate {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        match super::only(inputs)?.as_slice() {
            [batch, height, width, channels] if *height > 0 && *width > 0 => {
                Dims::new(&[*batch, height * self.times[0], width * self.times[1], *channels])
            }
            _ => Err(Failure::unforeseen("an image of another rank")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (image, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let [_, height, width, channels] = dims.as_slice().try_into().map_err(Failure::told)?;
        let line = width * self.times[1] * channels;
        if line == 0 {
            return Ok(());
        }
        let operations = 2 * MOVED * run.out.len();
        run.threads.rows(run.out, line, 1, operations, |range, out| {
            Lines { image, sizes: [height, width, channels], kernel: self, from: range.start, out }.dispatch();
        });
        Ok(())
    }
}
