//! A tensor as bytes, of any dtype a Keras model takes or gives.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::TensorView;

use crate::number::{Dtype, Number, keras_name, with_number};
use crate::text;

/// A tensor of any of Keras's dtypes, little-endian and row-major: what is compared.
///
/// candle's own tensors have no BOOL, I8, U16 or U64, which Keras's files hold; so the judge has a tensor of its own, converted from and to candle's. A clone shares the bytes.
/// Equality (`==`) is that of dtype, shape and every bit; use [`compare`](crate::compare) to judge numbers.
///
/// ```
/// # use kandle_parity::{Array, Dtype};
/// let mask = Array::from_slice(&[true, false], &[2, 1])?;
/// assert_eq!((mask.dtype(), mask.shape(), mask.value(0)), (Dtype::BOOL, &[2, 1][..], Some(1.0)));
/// # Ok::<(), kandle_parity::ArrayError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Arc<Vec<u8>>,
    /// Where each text begins in the bytes, and where the last one ends; empty for numbers.
    offsets: Arc<Vec<usize>>,
}

/// Why bytes are no [`Array`], or why one can't be read as another dtype: `what: expected X, found Y`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct ArrayError {
    what: &'static str,
    expected: String,
    found: String,
}

impl Array {
    /// The tensor of these little-endian bytes.
    ///
    /// # Errors
    /// Strings, which [`from_texts`](Array::from_texts) takes, a number of bytes other than the shape's, or a BOOL that is neither 0 nor 1.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Array, ArrayError> {
        let fail = |what, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
            Err(ArrayError { what, expected: expected.to_string(), found: found.to_string() })
        };
        let Some(width) = with_number!(dtype, T => Some(size_of::<T>()), None) else {
            return fail("dtype", &"a dtype of numbers", &dtype);
        };
        let wanted = shape.iter().try_fold(width, |size, axis| size.checked_mul(*axis));
        if wanted != Some(bytes.len()) {
            let wanted = wanted.map_or("fewer".to_owned(), |size| size.to_string());
            return fail(
                "size",
                &format_args!("{wanted} bytes for shape {shape:?}"),
                &format_args!("{} bytes", bytes.len()),
            );
        }
        if let (Dtype::BOOL, Some(byte)) = (dtype, bytes.iter().find(|byte| **byte > 1)) {
            return fail("bool", &"0 or 1", byte);
        }
        Ok(Array { dtype, shape, bytes: Arc::new(bytes), offsets: Arc::default() })
    }

    /// The numbers of a tensor in a safetensors file.
    ///
    /// # Errors
    /// A dtype that no Keras model takes or gives (float8, complex), and those of [`new`](Array::new).
    pub fn read(view: &TensorView<'_>) -> Result<Array, ArrayError> {
        match Dtype::of(view.dtype()) {
            Some(dtype) => Array::new(dtype, view.shape().to_vec(), view.data().to_vec()),
            None => Err(ArrayError {
                what: "dtype",
                expected: "a bool, an integer or a float of 16 to 64 bits".to_owned(),
                found: view.dtype().to_string(),
            }),
        }
    }

    /// The tensor of these texts in row-major order; they need not be UTF-8.
    ///
    /// ```
    /// # use kandle_parity::{Array, Dtype};
    /// let words = Array::from_texts(&["one", "zwei"], &[2, 1])?;
    /// assert_eq!((words.dtype(), words.text(1)), (Dtype::STRING, Some(&b"zwei"[..])));
    /// # Ok::<(), kandle_parity::ArrayError>(())
    /// ```
    ///
    /// # Errors
    /// As many texts as the shape has are needed.
    pub fn from_texts<T: AsRef<[u8]>>(texts: &[T], shape: &[usize]) -> Result<Array, ArrayError> {
        let ends = texts.iter().scan(0, |end, text| {
            *end += text.as_ref().len();
            Some(*end)
        });
        let offsets = std::iter::once(0).chain(ends).collect();
        let bytes = texts.iter().flat_map(|text| text.as_ref()).copied().collect();
        Array::of_texts(shape.to_vec(), bytes, offsets)
    }

    fn of_texts(shape: Vec<usize>, bytes: Vec<u8>, offsets: Vec<usize>) -> Result<Array, ArrayError> {
        let found = offsets.len().saturating_sub(1);
        if shape.iter().try_fold(1_usize, |size, axis| size.checked_mul(*axis)) != Some(found) {
            let expected = format!("as many texts as shape {shape:?} has");
            return Err(ArrayError { what: "size", expected, found: found.to_string() });
        }
        Ok(Array { dtype: Dtype::STRING, shape, bytes: Arc::new(bytes), offsets: Arc::new(offsets) })
    }

    /// The texts whose bytes, one after another, `self` has, each from one of the `offsets` (I64) to the next: how a file that knows no strings stores them. One axis.
    ///
    /// # Errors
    /// Bytes that are no U8, and offsets that do not go from 0 to the end of the bytes.
    pub fn split(&self, offsets: &Array) -> Result<Array, ArrayError> {
        if (self.dtype, offsets.dtype) != (Dtype::U8, Dtype::I64) {
            let found = format!("{} and {}", self.dtype, offsets.dtype);
            return Err(ArrayError { what: "strings", expected: "uint8 bytes and int64 offsets".to_owned(), found });
        }
        let offsets: Vec<i64> = i64::read_all(&offsets.bytes).collect();
        let end = i64::try_from(self.bytes.len()).ok();
        if offsets.first() != Some(&0) || offsets.last().copied() != end || !offsets.is_sorted() {
            let expected = format!("rising from 0 to {}", self.bytes.len());
            let found = format!("{:?}", offsets.get(..5).unwrap_or(&offsets));
            return Err(ArrayError { what: "offsets", expected, found });
        }
        let offsets: Vec<usize> = offsets.into_iter().filter_map(|offset| usize::try_from(offset).ok()).collect();
        Array::of_texts(vec![offsets.len() - 1], Vec::clone(&self.bytes), offsets)
    }

    /// How a file that knows no strings stores these texts, see [`split`](Array::split): their bytes and their offsets; none of numbers.
    pub fn stored_texts(&self) -> Option<(Array, Array)> {
        let offsets: Vec<i64> = self.offsets.iter().filter_map(|offset| i64::try_from(*offset).ok()).collect();
        let bytes = Array::from_slice(&self.bytes, &[self.bytes.len()]).ok()?;
        Some((bytes, Array::from_slice(&offsets, &[offsets.len()]).ok()?)).filter(|_| self.dtype == Dtype::STRING)
    }

    /// The same numbers or texts in another shape.
    ///
    /// # Errors
    /// As many as there are must fit the shape.
    pub fn reshaped(self, shape: &[usize]) -> Result<Array, ArrayError> {
        match self.dtype {
            Dtype::STRING => {
                Array::of_texts(shape.to_vec(), Arc::unwrap_or_clone(self.bytes), Arc::unwrap_or_clone(self.offsets))
            }
            dtype => Array::new(dtype, shape.to_vec(), Arc::unwrap_or_clone(self.bytes)),
        }
    }

    /// The tensor of these numbers in row-major order.
    ///
    /// # Errors
    /// As many numbers as the shape has are needed.
    pub fn from_slice<T: Number>(numbers: &[T], shape: &[usize]) -> Result<Array, ArrayError> {
        Array::new(T::DTYPE, shape.to_vec(), to_bytes(numbers.iter().copied()))
    }

    /// The dtype of every number.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The axes' lengths; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers' little-endian bytes in row-major order; the texts one after another.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many numbers there are: the product of the shape, 1 for a scalar.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an axis has length 0, so that there is no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at a row-major position, a bool as 0 or 1; none past the end. Exact but for I64 and U64 beyond 2⁵³.
    pub fn value(&self, position: usize) -> Option<f64> {
        with_number!(self.dtype, T => T::read(&self.bytes, position).map(Number::to_f64), None)
    }

    /// The text at a row-major position; none past the end, and none of numbers.
    pub fn text(&self, position: usize) -> Option<&[u8]> {
        let (from, to) = (self.offsets.get(position)?, self.offsets.get(position + 1)?);
        self.bytes.get(*from..*to)
    }

    /// S, the largest finite |number|: what tolerances are scaled by; 0 where there is none.
    pub fn scale(&self) -> f64 {
        with_number!(self.dtype, T => {
            T::read_all(&self.bytes).map(|number| number.to_f64().abs()).filter(|size| size.is_finite()).fold(0.0, f64::max)
        }, 0.0)
    }

    /// The candle tensor of these numbers: BOOL as U8 (0 or 1), I8 as I16, U16 as U32 and U64 as I64, which candle does not have; all others as they are.
    ///
    /// # Errors
    /// A U64 beyond the range of I64, or what the device says.
    pub fn to_tensor(&self, device: &Device) -> candle_core::Result<Tensor> {
        let (bytes, shape) = (self.bytes(), self.shape());
        macro_rules! stored {
            ($from:ty) => {
                Tensor::from_vec(<$from>::read_all(bytes).collect::<Vec<_>>(), shape, device)
            };
            ($from:ty, $wider:ty) => {
                Tensor::from_vec(<$from>::read_all(bytes).map(<$wider>::from).collect::<Vec<_>>(), shape, device)
            };
        }
        match self.dtype {
            Dtype::BOOL => stored!(u8),
            Dtype::I8 => stored!(i8, i16),
            Dtype::U8 => stored!(u8),
            Dtype::I16 => stored!(i16),
            Dtype::U16 => stored!(u16, u32),
            Dtype::I32 => stored!(i32),
            Dtype::U32 => stored!(u32),
            Dtype::I64 => stored!(i64),
            Dtype::U64 => {
                let numbers: Result<Vec<i64>, _> = u64::read_all(bytes).map(i64::try_from).collect();
                Tensor::from_vec(numbers.map_err(candle_core::Error::wrap)?, shape, device)
            }
            Dtype::F16 => stored!(f16),
            Dtype::BF16 => stored!(bf16),
            Dtype::F32 => stored!(f32),
            Dtype::F64 => stored!(f64),
            Dtype::STRING => candle_core::bail!("dtype string: candle has no tensor for it"),
        }
    }

    /// The same numbers in the dtype Keras gives them, where candle had to store it wider (see [`Array::to_tensor`]): U8 to BOOL, I16 to I8, U32 to U16, I64 to U64. Its own dtype changes nothing.
    ///
    /// # Errors
    /// Any other pair of dtypes (a wrong dtype is not to be hidden), or a number out of the narrower dtype's range.
    pub fn with_dtype(self, dtype: Dtype) -> Result<Array, ArrayError> {
        let bytes = match (self.dtype, dtype) {
            (from, to) if from == to => return Ok(self),
            (Dtype::U8, Dtype::BOOL) => return Array::new(dtype, self.shape, Arc::unwrap_or_clone(self.bytes)),
            (Dtype::I16, Dtype::I8) => narrowed::<i16, i8>(&self.bytes),
            (Dtype::U32, Dtype::U16) => narrowed::<u32, u16>(&self.bytes),
            (Dtype::I64, Dtype::U64) => narrowed::<i64, u64>(&self.bytes),
            (from, to) => {
                let (expected, found) = (keras_name(to).to_owned(), keras_name(from).to_owned());
                return Err(ArrayError { what: "dtype", expected, found });
            }
        }?;
        Array::new(dtype, self.shape, bytes)
    }
}

fn to_bytes<T: Number>(numbers: impl Iterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.size_hint().0 * size_of::<T>());
    numbers.for_each(|number| number.write(&mut bytes));
    bytes
}

fn narrowed<Wide: Number, Narrow: Number + TryFrom<Wide>>(bytes: &[u8]) -> Result<Vec<u8>, ArrayError> {
    let mut narrow = Vec::with_capacity(bytes.len());
    for wide in Wide::read_all(bytes) {
        match Narrow::try_from(wide) {
            Ok(number) => number.write(&mut narrow),
            Err(_) => {
                let expected = format!("the range of {}", keras_name(Narrow::DTYPE));
                return Err(ArrayError { what: "number", expected, found: wide.to_f64().to_string() });
            }
        }
    }
    Ok(narrow)
}

/// Copies the numbers from any device and layout.
///
/// # Errors
/// A dtype of candle's that Keras does not have (the 8-bit floats and smaller), or what the device says.
impl TryFrom<&Tensor> for Array {
    type Error = candle_core::Error;

    fn try_from(tensor: &Tensor) -> candle_core::Result<Array> {
        let flat = tensor.flatten_all()?;
        let (dtype, bytes) = match tensor.dtype() {
            DType::U8 => (Dtype::U8, flat.to_vec1::<u8>()?),
            DType::U32 => (Dtype::U32, to_bytes(flat.to_vec1::<u32>()?.into_iter())),
            DType::I16 => (Dtype::I16, to_bytes(flat.to_vec1::<i16>()?.into_iter())),
            DType::I32 => (Dtype::I32, to_bytes(flat.to_vec1::<i32>()?.into_iter())),
            DType::I64 => (Dtype::I64, to_bytes(flat.to_vec1::<i64>()?.into_iter())),
            DType::F16 => (Dtype::F16, to_bytes(flat.to_vec1::<f16>()?.into_iter())),
            DType::BF16 => (Dtype::BF16, to_bytes(flat.to_vec1::<bf16>()?.into_iter())),
            DType::F32 => (Dtype::F32, to_bytes(flat.to_vec1::<f32>()?.into_iter())),
            DType::F64 => (Dtype::F64, to_bytes(flat.to_vec1::<f64>()?.into_iter())),
            other => candle_core::bail!("dtype {}: the judge does not compare it", other.as_str()),
        };
        Array::new(dtype, tensor.dims().to_vec(), bytes).map_err(candle_core::Error::wrap)
    }
}

impl TryFrom<Tensor> for Array {
    type Error = candle_core::Error;

    fn try_from(tensor: Tensor) -> candle_core::Result<Array> {
        Array::try_from(&tensor)
    }
}

/// The dtype, the shape and the first few numbers or texts.
impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = 0..self.len().min(8);
        let more = if self.len() > first.len() { " …" } else { "" };
        write!(f, "{} {:?} ", keras_name(self.dtype), self.shape)?;
        match self.dtype {
            Dtype::STRING => {
                write!(f, "{:?}{more}", first.filter_map(|at| Some(text::bytes(self.text(at)?))).collect::<Vec<_>>())
            }
            _ => write!(f, "{:?}{more}", first.filter_map(|at| self.value(at)).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candle_and_back_keeps_every_dtype() {
        let halves = [f16::from_f32(1.5), f16::NAN];
        let arrays = [
            (Array::from_slice(&[true, false], &[2]), Dtype::U8),
            (Array::from_slice(&[-128i8, 127], &[2, 1]), Dtype::I16),
            (Array::from_slice(&[0u8, 255], &[2]), Dtype::U8),
            (Array::from_slice(&[i16::MIN, i16::MAX], &[2]), Dtype::I16),
            (Array::from_slice(&[0u16, u16::MAX], &[1, 2]), Dtype::U32),
            (Array::from_slice(&[i32::MIN, i32::MAX], &[2]), Dtype::I32),
            (Array::from_slice(&[u32::MAX], &[]), Dtype::U32),
            (Array::from_slice(&[i64::MIN, i64::MAX], &[2]), Dtype::I64),
            (Array::from_slice(&[0u64, i64::MAX as u64], &[2]), Dtype::I64),
            (Array::from_slice(&halves, &[2]), Dtype::F16),
            (Array::from_slice(&[bf16::from_f32(-2.0)], &[1]), Dtype::BF16),
            (Array::from_slice(&[0.1f32, f32::NAN, -0.0], &[3]), Dtype::F32),
            (Array::from_slice(&[0.1f64, f64::INFINITY], &[2]), Dtype::F64),
            (Array::from_slice::<f32>(&[], &[0, 3]), Dtype::F32),
        ];
        for (array, stored) in arrays {
            let array = array.unwrap();
            let back = Array::try_from(&array.to_tensor(&Device::Cpu).unwrap()).unwrap();
            assert_eq!(back.dtype(), stored, "{array:?}");
            assert_eq!(back.with_dtype(array.dtype()).unwrap(), array);
        }
    }

    #[test]
    fn a_transposed_tensor_is_read_in_its_own_order() {
        let tensor = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap().t().unwrap();
        assert_eq!(Array::try_from(tensor).unwrap(), Array::from_slice(&[1f32, 3., 2., 4.], &[2, 2]).unwrap());
    }

    #[test]
    fn no_number_is_narrowed_wrongly_and_no_dtype_hidden() {
        let cases = [
            (Array::from_slice(&[0u8, 2], &[2]), Dtype::BOOL, "bool: expected 0 or 1, found 2"),
            (Array::from_slice(&[128i16], &[1]), Dtype::I8, "number: expected the range of int8, found 128"),
            (Array::from_slice(&[65536u32], &[1]), Dtype::U16, "number: expected the range of uint16, found 65536"),
            (Array::from_slice(&[-1i64], &[1]), Dtype::U64, "number: expected the range of uint64, found -1"),
            (Array::from_slice(&[1f32], &[1]), Dtype::F16, "dtype: expected float16, found float32"),
            (Array::from_slice(&[1u8], &[1]), Dtype::I64, "dtype: expected int64, found uint8"),
        ];
        for (array, dtype, says) in cases {
            assert_eq!(array.unwrap().with_dtype(dtype).unwrap_err().to_string(), says);
        }
        assert!(Array::from_slice(&[u64::MAX], &[1]).unwrap().to_tensor(&Device::Cpu).is_err());
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let cases = [
            (Dtype::F32, vec![2, 2], 15, "size: expected 16 bytes for shape [2, 2], found 15 bytes"),
            (
                Dtype::F32,
                vec![usize::MAX, 2],
                8,
                &*format!("size: expected fewer bytes for shape [{}, 2], found 8 bytes", usize::MAX),
            ),
            (Dtype::F32, vec![0], 4, "size: expected 0 bytes for shape [0], found 4 bytes"),
            (Dtype::STRING, vec![1], 8, "dtype: expected a dtype of numbers, found string"),
        ];
        for (dtype, shape, size, says) in cases {
            assert_eq!(Array::new(dtype, shape, vec![0; size]).unwrap_err().to_string(), says);
        }
        let complex = TensorView::new(safetensors::Dtype::C64, vec![1], &[0; 8]).unwrap();
        let says = "dtype: expected a bool, an integer or a float of 16 to 64 bits, found C64";
        assert_eq!(Array::read(&complex).unwrap_err().to_string(), says);
    }

    #[test]
    fn texts_are_stored_as_bytes_and_offsets_and_come_back() {
        let texts: [&[u8]; 4] = ["z\u{fc}rich".as_bytes(), b"", b"\xff\0", b"a"];
        let array = Array::from_texts(&texts, &[2, 2]).unwrap();
        assert_eq!((0..5).map(|i| array.text(i)).collect::<Vec<_>>(), [&texts.map(Some)[..], &[None]].concat());
        assert_eq!((array.len(), array.value(0), array.scale()), (4, None, 0.0));
        let (bytes, offsets) = array.stored_texts().unwrap();
        assert_eq!(offsets, Array::from_slice(&[0i64, 7, 7, 9, 10], &[5]).unwrap());
        assert_eq!(bytes.split(&offsets).unwrap().reshaped(&[2, 2]).unwrap(), array);
        assert!(bytes.stored_texts().is_none() && bytes.text(0).is_none());
        let none = Array::from_texts::<&str>(&[], &[0, 3]).unwrap();
        let (bytes, offsets) = none.stored_texts().unwrap();
        assert_eq!(bytes.split(&offsets).unwrap().reshaped(&[0, 3]).unwrap(), none);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let bytes = Array::from_slice(b"abcd", &[4]).unwrap();
        let split = |offsets: &[i64]| bytes.split(&Array::from_slice(offsets, &[offsets.len()]).unwrap());
        let cases = [
            (split(&[]), "offsets: expected rising from 0 to 4, found []"),
            (split(&[0, 5]), "offsets: expected rising from 0 to 4, found [0, 5]"),
            (split(&[1, 4]), "offsets: expected rising from 0 to 4, found [1, 4]"),
            (split(&[0, 3]), "offsets: expected rising from 0 to 4, found [0, 3]"),
            (split(&[0, 3, 2, 4]), "offsets: expected rising from 0 to 4, found [0, 3, 2, 4]"),
            (split(&[0, -1, 4]), "offsets: expected rising from 0 to 4, found [0, -1, 4]"),
            (bytes.split(&bytes), "strings: expected uint8 bytes and int64 offsets, found uint8 and uint8"),
            (Array::from_texts(&["a"], &[2]), "size: expected as many texts as shape [2] has, found 1"),
            (split(&[0, 4]).unwrap().reshaped(&[2]), "size: expected as many texts as shape [2] has, found 1"),
            (bytes.clone().reshaped(&[5]), "size: expected 5 bytes for shape [5], found 4 bytes"),
        ];
        for (array, says) in cases {
            assert_eq!(array.unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn the_scale_is_of_finite_numbers() {
        let array = Array::from_slice(&[1f32, -3., f32::NAN, f32::NEG_INFINITY], &[4]).unwrap();
        assert_eq!(array.scale(), 3.0);
        assert_eq!(Array::from_slice(&[f32::NAN], &[1]).unwrap().scale(), 0.0);
    }
}
