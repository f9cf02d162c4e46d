//! Where the numbers of a weight come from: one array of the file as a rule; in old files several, or one in another order.

use std::borrow::Cow;

use kandle_format::{Array, Bytes, Dtype, Error, ErrorKind, Result};

/// The numbers of a weight in the order of Keras 3, made of what the file has.
#[derive(Debug, Clone)]
pub(crate) struct Source<'a> {
    /// The first array, and those that are joined to it along the last axis.
    first: Array<'a>,
    more: Vec<Array<'a>>,
    form: Form,
}

/// How the numbers in the file become those of Keras 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are those already.
    AsIs,
    /// The axes of the array have another order: `axes[i]` is the one that comes as number i. Axes of size 1 may be missing. The
    /// first `flipped` of the axes that come run backwards.
    Moved {
        /// Where each axis is in the file.
        axes: Vec<usize>,
        /// How many of the first axes run backwards.
        flipped: usize,
    },
    /// A kernel as cuDNN has it, of so many gates: the block of columns of each gate holds the numbers of its transpose.
    CudnnKernel {
        /// The number of gates.
        gates: usize,
        /// Whether each block is its transpose itself, `(units, units)`.
        square: bool,
    },
    /// The two biases of cuDNN, one behind the other, as two rows.
    CudnnRows,
    /// The two biases of cuDNN, one behind the other, summed.
    CudnnSum,
}

impl<'a> Source<'a> {
    /// The array as it is.
    pub(crate) fn of(array: Array<'a>) -> Self {
        Self { first: array, more: Vec::new(), form: Form::AsIs }
    }

    /// Several arrays, side by side along their last axis.
    pub(crate) fn joined(first: Array<'a>, more: Vec<Array<'a>>) -> Self {
        Self { first, more, form: Form::AsIs }
    }

    /// The same array in another form.
    pub(crate) fn in_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Whether it is one array, in Keras 3's order.
    pub(crate) fn is_as_it_is(&self) -> bool {
        self.more.is_empty() && self.form == Form::AsIs
    }

    /// The numbers where they lie in the file, if they lie there in the order of Keras 3.
    pub(crate) fn in_file(&self) -> Option<Bytes> {
        if self.is_as_it_is() { self.first.in_file() } else { None }
    }

    /// Where the array lies, or the first of several.
    pub(crate) fn path(&self) -> &'a str {
        self.first.path()
    }

    /// Every array it is made of.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array<'a>> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The same with arrays that are known to be of `dtype`, where the file leaves that open.
    pub(crate) fn known_as(self, dtype: Dtype) -> Self {
        match self.first.known_as(dtype) {
            Some(first) => Self { first, ..self },
            None => self,
        }
    }

    /// The dtype of the numbers.
    ///
    /// # Errors
    /// As [`Array::dtype`].
    pub(crate) fn dtype(&self) -> Result<Dtype> {
        self.first.dtype()
    }

    /// The shape of what comes out.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.first.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last += self.more.iter().filter_map(|array| array.shape().last()).sum::<usize>();
        }
        match &self.form {
            Form::AsIs | Form::CudnnKernel { .. } => shape,
            Form::Moved { axes, .. } => axes.iter().filter_map(|axis| shape.get(*axis).copied()).collect(),
            Form::CudnnRows => vec![2, shape.first().map_or(0, |size| size / 2)],
            Form::CudnnSum => vec![shape.first().map_or(0, |size| size / 2)],
        }
    }

    /// The numbers in the order of Keras 3, row-major and little-endian: borrowed where they lie so in the file.
    ///
    /// # Errors
    /// As [`Array::bytes`]; and for dtypes in which nothing can be summed.
    pub(crate) fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        let bytes = self.joined_bytes()?;
        let size = self.dtype()?.size();
        let shape = self.first.shape();
        Ok(match &self.form {
            Form::AsIs | Form::CudnnRows => bytes,
            Form::Moved { axes, flipped } => Cow::Owned(moved(&bytes, size, shape, axes, *flipped)),
            Form::CudnnKernel { gates, square } => Cow::Owned(transposed_blocks(&bytes, size, shape, *gates, *square)),
            Form::CudnnSum => Cow::Owned(self.summed(&bytes)?),
        })
    }

    fn joined_bytes(&self) -> Result<Cow<'a, [u8]>> {
        if self.more.is_empty() {
            return self.first.bytes();
        }
        let size = self.dtype()?.size();
        let parts = self.arrays().map(Array::bytes).collect::<Result<Vec<_>>>()?;
        let rows: usize = self.first.shape().split_last().map_or(1, |(_, rows)| rows.iter().product());
        let widths: Vec<usize> = self.arrays().map(|array| array.shape().last().copied().unwrap_or(1) * size).collect();
        let mut joined = Vec::new();
        for row in 0..rows {
            for (part, width) in parts.iter().zip(&widths) {
                joined.extend(part.get(row * width..(row + 1) * width).unwrap_or_default());
            }
        }
        Ok(Cow::Owned(joined))
    }

    fn summed(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let (a, b) = bytes.split_at(bytes.len() / 2);
        macro_rules! sum {
            ($number:ty) => {{
                let numbers = |half: &[u8]| -> Vec<$number> {
                    half.as_chunks().0.iter().map(|number| <$number>::from_le_bytes(*number)).collect()
                };
                numbers(a).into_iter().zip(numbers(b)).flat_map(|(a, b)| (a + b).to_le_bytes()).collect()
            }};
        }
        match self.dtype()? {
            Dtype::Float32 => Ok(sum!(f32)),
            Dtype::Float64 => Ok(sum!(f64)),
            Dtype::Float16 => Ok(sum!(half::f16)),
            other => {
                let what = format!("two biases of cuDNN in {other}, which cannot be summed");
                Err(Error::new(ErrorKind::Unsupported, self.path(), what))
            }
        }
    }
}

/// The numbers of `size` bytes of an array of `shape`, with its axes in the order `axes`, the first `flipped` of them backwards.
fn moved(bytes: &[u8], size: usize, shape: &[usize], axes: &[usize], flipped: usize) -> Vec<u8> {
    let stride = |axis: usize| shape.iter().skip(axis + 1).product::<usize>();
    let sizes: Vec<usize> = axes.iter().map(|axis| shape.get(*axis).copied().unwrap_or(1)).collect();
    let mut out = Vec::with_capacity(bytes.len());
    for number in 0..sizes.iter().product::<usize>() {
        let (mut rest, mut place) = (number, 0);
        for (at, (axis, length)) in axes.iter().zip(&sizes).enumerate().rev() {
            let index = rest % length.max(&1);
            rest /= length.max(&1);
            place += stride(*axis) * if at < flipped { length - 1 - index } else { index };
        }
        out.extend(bytes.get(place * size..(place + 1) * size).unwrap_or_default());
    }
    out
}

/// A matrix of `shape` whose columns are blocks of `gates` gates, each replaced by what its numbers are when they are read as
/// those of its transpose; or, `square`, by its transpose.
///
/// Source: tf_keras/src/saving/legacy/hdf5_format.py (`_convert_rnn_weights`).
fn transposed_blocks(bytes: &[u8], size: usize, shape: &[usize], gates: usize, square: bool) -> Vec<u8> {
    let [rows, columns] = shape else { return bytes.to_vec() };
    let units = columns / gates.max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for row in 0..*rows {
        for column in 0..*columns {
            let (gate, unit) = (column / units.max(1), column % units.max(1));
            // The block's numbers, row by row, are those of (units, rows).
            let flat = unit * rows + row;
            let (from_row, from_unit) = if square { (unit, row) } else { (flat / units.max(1), flat % units.max(1)) };
            let place = from_row * columns + gate * units + from_unit;
            out.extend(bytes.get(place * size..(place + 1) * size).unwrap_or_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{moved, transposed_blocks};

    #[test]
    fn axes_change_places_and_run_backwards() {
        // A kernel (out, in, rows, columns) of Theano becomes (rows, columns, in, out), turned round.
        let bytes: Vec<u8> = (0..12).collect();
        assert_eq!(moved(&bytes, 1, &[1, 2, 2, 3], &[2, 3, 1, 0], 0), [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]);
        assert_eq!(moved(&bytes, 1, &[1, 2, 2, 3], &[2, 3, 1, 0], 2), [5, 11, 4, 10, 3, 9, 2, 8, 1, 7, 0, 6]);
        // An axis of size 1 is left out.
        assert_eq!(moved(&[1, 2, 3, 4], 2, &[1, 1, 2], &[0, 2], 0), [1, 2, 3, 4]);
    }

    #[test]
    fn blocks_of_cudnn_are_read_as_transposes() {
        // Two gates of two units and three rows: block [[0, 1], [2, 3], [4, 5]] holds (2, 3), [[0, 1, 2], [3, 4, 5]].
        let bytes = [0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15];
        assert_eq!(transposed_blocks(&bytes, 1, &[3, 4], 2, false), [0, 3, 10, 13, 1, 4, 11, 14, 2, 5, 12, 15]);
        let square = [0, 1, 10, 11, 2, 3, 12, 13];
        assert_eq!(transposed_blocks(&square, 1, &[2, 4], 2, true), [0, 2, 10, 12, 1, 3, 11, 13]);
    }
}
