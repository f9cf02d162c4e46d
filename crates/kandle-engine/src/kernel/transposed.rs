//! Transposed convolutions of `(batch, spatial…, channels)`: one product of all cells and taps, then sums for each cell of what
//! comes out.

use candle_core::{DType, Device, Tensor};
use kandle_model::primitive::{self, Window};
use rten_simd::{Isa, SimdOp};

use super::{
    Kernel, Run,
    convolution::Three,
    map::Map,
    numbers,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{Failure, dims::Dims, memory::Store, threads::MOVED};

/// A transposed convolution with its kernel packed.
#[derive(Debug)]
pub(crate) struct Transposed {
    /// The layer without its weights, which are packed.
    layer: primitive::Transposed,
    kernel: Packed,
    bias: Vec<f32>,
    map: Option<Map>,
}

/// One axis: how many cells go in and come out, and how far in the sums the latter begin.
#[derive(Clone, Copy)]
struct Axis {
    input: usize,
    output: usize,
    begin: usize,
    window: Window,
}

const WHOLE: Axis = Axis { input: 1, output: 1, begin: 0, window: Window { kernel: 1, stride: 1, dilation: 1 } };

impl Axis {
    /// The cells that contribute to cell `index` of what comes out, each with the tap that does.
    #[inline(always)]
    fn contributing(self, index: usize) -> impl Iterator<Item = (usize, usize)> {
        let Self { input, begin, window, .. } = self;
        (0..window.kernel).filter_map(move |tap| {
            let at = (index + begin).checked_sub(tap * window.dilation)?;
            let cell = at / window.stride;
            (at % window.stride == 0 && cell < input).then_some((cell, tap))
        })
    }
}

impl Transposed {
    /// # Errors
    /// What candle reports.
    pub(crate) fn new(layer: &primitive::Transposed, map: Option<Map>, store: &mut Store) -> candle_core::Result<Self> {
        let (depth, columns) = layer.kernel.dims2()?;
        let kernel = Packed::new(store, depth, &[Columns::all(&numbers(&layer.kernel)?, columns)]);
        let taps: usize = layer.windows.iter().map(|window| window.kernel).product();
        let bias = match &layer.bias {
            Some(bias) => numbers(bias)?,
            None => vec![0.0; columns / taps.max(1)],
        };
        let none = Tensor::zeros((0, 0), DType::F32, &Device::Cpu)?;
        let layer = primitive::Transposed { kernel: none, bias: None, ..layer.clone() };
        Ok(Self { layer, kernel, bias, map })
    }

    fn axes(&self, dims: Dims) -> Result<Three<Axis>, Failure> {
        let windows = &self.layer.windows;
        let (_, spatial, channels) = dims.image(windows.len())?;
        if channels != self.kernel.depth() {
            return Err(Failure::unforeseen("another number of channels"));
        }
        let mut axes = [WHOLE; 3];
        let skipped = 3_usize.checked_sub(windows.len()).ok_or_else(|| Failure::unforeseen("more than three axes"))?;
        for (number, (axis, (input, window))) in axes[skipped..].iter_mut().zip(spatial.iter().zip(windows)).enumerate()
        {
            let (output, begin) = self.layer.axis(number, *input).map_err(Failure::told)?;
            *axis = Axis { input: *input, output, begin, window: *window };
        }
        Ok(axes)
    }
}

/// Sums the products of lines of cells.
struct Lines<'a> {
    products: &'a [f32],
    bias: &'a [f32],
    axes: Three<Axis>,
    /// The first line, over all images.
    from: usize,
    out: &'a mut [f32],
}

impl SimdOp for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let [z_axis, y_axis, x_axis] = self.axes;
        let filters = self.bias.len();
        let row = z_axis.window.kernel * y_axis.window.kernel * x_axis.window.kernel * filters;
        for (number, line) in self.out.chunks_exact_mut(x_axis.output * filters).enumerate() {
            let line_number = self.from + number;
            let (y, rest) = (line_number % y_axis.output, line_number / y_axis.output);
            let (z, batch) = (rest % z_axis.output, rest / z_axis.output);
            for (x, out) in line.chunks_exact_mut(filters).enumerate() {
                out.copy_from_slice(self.bias);
                for (at_z, of_z) in z_axis.contributing(z) {
                    for (at_y, of_y) in y_axis.contributing(y) {
                        for (at_x, of_x) in x_axis.contributing(x) {
                            let cell = ((batch * z_axis.input + at_z) * y_axis.input + at_y) * x_axis.input + at_x;
                            let tap = (of_z * y_axis.window.kernel + of_y) * x_axis.window.kernel + of_x;
                            let products = &self.products[cell * row + tap * filters..][..filters];
                            out.iter_mut().zip(products).for_each(|(out, x)| *out += x);
                        }
                    }
                }
            }
        }
    }
}

impl Kernel for Transposed {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        let axes = self.axes(dims)?;
        let made = Dims::new(&dims.as_slice()[..1])?;
        let lengths = axes[3 - self.layer.windows.len()..].iter().map(|axis| axis.output);
        lengths.chain([self.bias.len()]).try_fold(made, Dims::and)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (numbers, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let axes = self.axes(dims)?;
        let (depth, columns) = (self.kernel.depth(), self.kernel.columns());
        let matrix = Matrix { numbers, rows: numbers.len() / depth.max(1), stride: depth, depth };
        let [products] = run.scratch.buffers([matrix.rows * columns]);
        run.threads.rows(products, columns, MOST_ROWS, 2 * matrix.rows * depth * columns, |range, out| {
            multiply(&matrix, range, &self.kernel, Target { out, stride: columns, bias: None, more: None, relu: None });
        });
        let (products, line) = (&*products, axes[2].output * self.bias.len());
        let operations = MOVED * products.len();
        run.threads.rows(run.out, line, 1, operations, |range, out| {
            Lines { products, bias: &self.bias, axes, from: range.start, out }.dispatch();
            if let Some(map) = self.map {
                map.apply(out);
            }
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.kernel.bytes() + self.bias.len() * size_of::<f32>()
    }
}
