//! Blocks of images, taken out and put back. Source: `unfold` and `fold` in keras/src/backend/tensorflow/nn.py.

use candle_core::{Result, Tensor};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{Integers, Node, Operation, Setting, convert, elementwise::X, floats, invalid, one, operation, rounded};
use crate::{
    Shape, Spec, Value,
    math::window::{pad, select},
};

fn unsupported(what: String) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

/// The windows of `Unfold` and `Fold` along the two axes of an image.
struct Blocks {
    kernel: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 2],
    stride: [usize; 2],
}

fn two<T>(node: &Node<'_, T>, key: &str, default: usize, least: usize) -> std::result::Result<[usize; 2], String> {
    let wrong = || format!("{key}: expected one or two whole numbers of at least {least}");
    let size = |number: &i64| usize::try_from(*number).ok().filter(|size| *size >= least && *size < 1 << 24);
    match node.settings.integers(key) {
        None => Ok([default; 2]),
        Some([a]) => size(a).map(|a| [a, a]).ok_or_else(wrong),
        Some([a, b]) => size(a).zip(size(b)).map(|(a, b)| [a, b]).ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

impl Blocks {
    fn of<T>(node: &Node<'_, T>) -> std::result::Result<Self, String> {
        Ok(Self {
            kernel: two(node, "kernel_size", 0, 1)?,
            dilation: two(node, "dilation", 1, 1)?,
            padding: two(node, "padding", 0, 0)?,
            stride: two(node, "stride", 1, 1)?,
        })
    }

    /// How many blocks there are along an axis of `size`, before it is padded.
    fn count(&self, axis: usize, size: usize) -> std::result::Result<usize, String> {
        let at = |numbers: &[usize; 2]| numbers.get(axis).copied().unwrap_or(1);
        let span = at(&self.dilation) * (at(&self.kernel) - 1) + 1;
        let padded = size + 2 * at(&self.padding);
        let rest =
            padded.checked_sub(span).ok_or_else(|| format!("a block of {span} does not fit into {padded} cells"))?;
        Ok(rest / at(&self.stride) + 1)
    }

    /// The cells of the padded axis that all blocks see: of each place in the block, every block.
    fn cells(&self, axis: usize, count: usize) -> Vec<usize> {
        let at = |numbers: &[usize; 2]| numbers.get(axis).copied().unwrap_or(1);
        let (dilation, stride) = (at(&self.dilation), at(&self.stride));
        (0..at(&self.kernel)).flat_map(|tap| (0..count).map(move |block| block * stride + tap * dilation)).collect()
    }
}

fn is_number(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::Bool | Dtype::String)
}

/// The numbers of `value` as they are moved and added: floats, or int64.
fn numbers(value: &Value) -> Result<Tensor> {
    if value.dtype.is_float() { floats(value, value.dtype) } else { Ok(convert(value, Dtype::Int64)?.tensor) }
}

/// The way back to the dtype of `value`.
fn as_it_came(value: &Value, found: &Tensor) -> Result<Value> {
    match value.dtype.is_float() {
        true => rounded(found, value.dtype),
        false => Integers::of_tensor(found)?.value(value.dtype, value.tensor.device()),
    }
}

fn planned_unfold(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, blocks) = (node.spec("x")?, Blocks::of(node).map_err(invalid)?);
    match xs.shape.0.as_slice() {
        [batch, Some(channels), Some(height), Some(width)] if is_number(xs.dtype) => {
            let [kernel_height, kernel_width] = blocks.kernel;
            let rows = blocks.count(0, *height).map_err(invalid)?;
            let columns = blocks.count(1, *width).map_err(invalid)?;
            let size = channels.checked_mul(kernel_height * kernel_width);
            one(Shape(vec![*batch, size, rows.checked_mul(columns)]), xs.dtype)
        }
        _ => Err(unsupported(format!("{} of {} (only numbers of rank 4 and known size)", xs.shape, xs.dtype))),
    }
}

/// What every block of an image `(batch, channels, height, width)` sees, `(batch, channels · kernel, blocks)`.
fn unfold(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, blocks) = (node.value("x")?, Blocks::of(node).map_err(candle_core::Error::msg)?);
    let (batch, channels, height, width) = value.tensor.dims4()?;
    let count = |axis: usize, size: usize| blocks.count(axis, size).map_err(candle_core::Error::msg);
    let (rows, columns) = (count(0, height)?, count(1, width)?);
    let ([kernel_height, kernel_width], [top, left]) = (blocks.kernel, blocks.padding);
    let xs = pad(&pad(&numbers(&value)?, 2, top, top, 0.0)?, 3, left, left, 0.0)?;
    let xs = select(&select(&xs, 2, &blocks.cells(0, rows))?, 3, &blocks.cells(1, columns))?;
    let xs = xs.reshape((batch, channels, kernel_height, rows, kernel_width, columns))?;
    let xs = xs.permute((0, 1, 2, 4, 3, 5))?.contiguous()?;
    let found = xs.reshape((batch, channels * kernel_height * kernel_width, rows * columns))?;
    Ok(vec![as_it_came(&value, &found)?])
}

fn planned_fold(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, blocks) = (node.spec("x")?, Blocks::of(node).map_err(invalid)?);
    let [height, width] = two(node, "output_size", 0, 1).map_err(invalid)?;
    let kernel: usize = blocks.kernel.iter().product();
    let count = blocks.count(0, height).map_err(invalid)? * blocks.count(1, width).map_err(invalid)?;
    match xs.shape.0.as_slice() {
        [batch, Some(size), own] if is_number(xs.dtype) && size.is_multiple_of(kernel) => {
            if own.is_some_and(|own| own != count) {
                return Err(invalid(format!("{} blocks make no image of {count}", own.unwrap_or_default())));
            }
            one(Shape(vec![*batch, Some(size / kernel), Some(height), Some(width)]), xs.dtype)
        }
        _ => Err(unsupported(format!("{} of {} (only numbers, a multiple of the kernel)", xs.shape, xs.dtype))),
    }
}

/// `axis` of blocks added up at the `cells` they come from, of `size`.
pub(super) fn added(xs: &Tensor, axis: usize, cells: &[usize], size: usize) -> Result<Tensor> {
    let mut sources: Vec<Vec<usize>> = vec![Vec::new(); size];
    for (source, cell) in cells.iter().enumerate() {
        if let Some(own) = sources.get_mut(*cell) {
            own.push(source);
        }
    }
    // One cell more is what adds nothing.
    let padded = pad(xs, axis, 0, 1, 0.0)?;
    let taps = sources.iter().map(Vec::len).max().unwrap_or_default().max(1);
    let tap = |tap: usize| {
        let own: Vec<usize> = sources.iter().map(|own| own.get(tap).copied().unwrap_or(cells.len())).collect();
        select(&padded, axis, &own)
    };
    (1..taps).try_fold(tap(0)?, |sum, at| sum + tap(at)?)
}

/// The way back from `unfold`: an image of `output_size`, where blocks overlap their sum.
fn fold(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, blocks) = (node.value("x")?, Blocks::of(node).map_err(candle_core::Error::msg)?);
    let [height, width] = two(node, "output_size", 0, 1).map_err(candle_core::Error::msg)?;
    let count = |axis: usize, size: usize| blocks.count(axis, size).map_err(candle_core::Error::msg);
    let (rows, columns) = (count(0, height)?, count(1, width)?);
    let ([kernel_height, kernel_width], [top, left]) = (blocks.kernel, blocks.padding);
    let xs = numbers(&value)?;
    let (batch, size, _) = xs.dims3()?;
    let channels = size / (kernel_height * kernel_width);
    let xs = xs.reshape((batch, channels, kernel_height, kernel_width, rows, columns))?;
    let xs = xs.permute((0, 1, 2, 4, 3, 5))?.contiguous()?;
    let xs = xs.reshape((batch, channels, kernel_height * rows, kernel_width * columns))?;
    let summed = crate::numeric::wide(&xs, |xs| {
        let xs = added(xs, 3, &blocks.cells(1, columns), width + 2 * left)?;
        added(&xs, 2, &blocks.cells(0, rows), height + 2 * top)
    })?;
    let image = summed.narrow(2, top, height)?.narrow(3, left, width)?.contiguous()?;
    Ok(vec![as_it_came(&value, &image)?])
}

const BLOCKS: &[(&str, Setting)] = &[
    ("kernel_size", Setting::Integers),
    ("dilation", Setting::Integers),
    ("padding", Setting::Integers),
    ("stride", Setting::Integers),
];

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Unfold", X, planned_unfold, unfold).with(BLOCKS),
    operation("Fold", X, planned_fold, fold).with(&[
        ("output_size", Setting::Integers),
        ("kernel_size", Setting::Integers),
        ("dilation", Setting::Integers),
        ("padding", Setting::Integers),
        ("stride", Setting::Integers),
    ]),
];
