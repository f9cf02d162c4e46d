//! What a tensor may hold: the dtypes, and the one table from dtype to Rust type.

use half::{bf16, f16};

/// What a tensor holds: the dtypes that a Keras model takes or gives, named as in safetensors, which has no strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the type it names")]
pub enum Dtype {
    BOOL,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    BF16,
    F32,
    F64,
    STRING,
}

impl Dtype {
    /// The dtype of a tensor that safetensors calls `stored`; none for those that no Keras model takes or gives: float8, complex.
    pub fn of(stored: safetensors::Dtype) -> Option<Dtype> {
        NAMES.iter().find(|entry| entry.2 == Some(stored)).map(|entry| entry.0)
    }

    /// What safetensors calls it; none for strings, which it does not have.
    pub fn stored(self) -> Option<safetensors::Dtype> {
        NAMES.iter().find(|entry| entry.0 == self).and_then(|entry| entry.2)
    }
}

/// Keras's name: `float32`.
impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(keras_name(*self))
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A number of one of the dtypes that an [`Array`](crate::Array) holds: `bool`, `i8` to `i64`, `u8` to `u64`, [`half::f16`], [`half::bf16`], `f32`, `f64`.
pub trait Number: Copy + sealed::Sealed + 'static {
    /// The dtype of a tensor of such numbers.
    const DTYPE: Dtype;

    #[doc(hidden)]
    fn write(self, bytes: &mut Vec<u8>);

    /// All numbers of a tensor's little-endian bytes, in row-major order.
    #[doc(hidden)]
    fn read_all(bytes: &[u8]) -> impl Iterator<Item = Self>;

    #[doc(hidden)]
    fn read(bytes: &[u8], position: usize) -> Option<Self>;

    /// Exact for every dtype but I64 and U64, whose numbers beyond 2⁵³ are rounded.
    #[doc(hidden)]
    fn to_f64(self) -> f64;
}

macro_rules! number {
    ($($number:ty, $dtype:ident, $to_f64:expr;)*) => {$(
        impl sealed::Sealed for $number {}
        impl Number for $number {
            const DTYPE: Dtype = Dtype::$dtype;
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn read_all(bytes: &[u8]) -> impl Iterator<Item = Self> {
                bytes.as_chunks().0.iter().map(|chunk| Self::from_le_bytes(*chunk))
            }
            fn read(bytes: &[u8], position: usize) -> Option<Self> {
                bytes.as_chunks().0.get(position).map(|chunk| Self::from_le_bytes(*chunk))
            }
            fn to_f64(self) -> f64 {
                $to_f64(self)
            }
        }
    )*};
}

number! {
    i8, I8, f64::from;
    u8, U8, f64::from;
    i16, I16, f64::from;
    u16, U16, f64::from;
    i32, I32, f64::from;
    u32, U32, f64::from;
    i64, I64, |number| number as f64;
    u64, U64, |number| number as f64;
    f16, F16, f64::from;
    bf16, BF16, f64::from;
    f32, F32, f64::from;
    f64, F64, |number| number;
}

impl sealed::Sealed for bool {}
impl Number for bool {
    const DTYPE: Dtype = Dtype::BOOL;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self));
    }
    fn read_all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.iter().map(|byte| *byte != 0)
    }
    fn read(bytes: &[u8], position: usize) -> Option<Self> {
        bytes.get(position).map(|byte| *byte != 0)
    }
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// `with_number!(dtype, T => expression, otherwise)`: the expression with `T` as the dtype's Rust type, or `otherwise` for strings.
macro_rules! with_number {
    ($dtype:expr, $number:ident => $known:expr, $unknown:expr) => {{
        macro_rules! known {
            ($rust:ty) => {{
                type $number = $rust;
                $known
            }};
        }
        match $dtype {
            crate::number::Dtype::BOOL => known!(bool),
            crate::number::Dtype::I8 => known!(i8),
            crate::number::Dtype::U8 => known!(u8),
            crate::number::Dtype::I16 => known!(i16),
            crate::number::Dtype::U16 => known!(u16),
            crate::number::Dtype::I32 => known!(i32),
            crate::number::Dtype::U32 => known!(u32),
            crate::number::Dtype::I64 => known!(i64),
            crate::number::Dtype::U64 => known!(u64),
            crate::number::Dtype::F16 => known!(half::f16),
            crate::number::Dtype::BF16 => known!(half::bf16),
            crate::number::Dtype::F32 => known!(f32),
            crate::number::Dtype::F64 => known!(f64),
            crate::number::Dtype::STRING => $unknown,
        }
    }};
}
pub(crate) use with_number;

/// Every dtype, with Keras's name and that of safetensors.
const NAMES: [(Dtype, &str, Option<safetensors::Dtype>); 14] = [
    (Dtype::BOOL, "bool", Some(safetensors::Dtype::BOOL)),
    (Dtype::I8, "int8", Some(safetensors::Dtype::I8)),
    (Dtype::U8, "uint8", Some(safetensors::Dtype::U8)),
    (Dtype::I16, "int16", Some(safetensors::Dtype::I16)),
    (Dtype::U16, "uint16", Some(safetensors::Dtype::U16)),
    (Dtype::I32, "int32", Some(safetensors::Dtype::I32)),
    (Dtype::U32, "uint32", Some(safetensors::Dtype::U32)),
    (Dtype::I64, "int64", Some(safetensors::Dtype::I64)),
    (Dtype::U64, "uint64", Some(safetensors::Dtype::U64)),
    (Dtype::F16, "float16", Some(safetensors::Dtype::F16)),
    (Dtype::BF16, "bfloat16", Some(safetensors::Dtype::BF16)),
    (Dtype::F32, "float32", Some(safetensors::Dtype::F32)),
    (Dtype::F64, "float64", Some(safetensors::Dtype::F64)),
    (Dtype::STRING, "string", None),
];

/// Keras's name of a dtype, `float32` for F32.
pub(crate) fn keras_name(dtype: Dtype) -> &'static str {
    NAMES.iter().find(|entry| entry.0 == dtype).map_or("", |entry| entry.1)
}

/// The dtype of Keras's name.
pub(crate) fn dtype_of(keras_name: &str) -> Option<Dtype> {
    NAMES.iter().find(|entry| entry.1 == keras_name).map(|entry| entry.0)
}

pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_the_type_in_the_table() {
        for (dtype, name, stored) in NAMES {
            let from_table = with_number!(dtype, T => Some(T::DTYPE), None);
            assert_eq!(from_table, Some(dtype).filter(|dtype| *dtype != Dtype::STRING), "{name}");
            assert_eq!(dtype_of(name), Some(dtype));
            assert_eq!((keras_name(dtype), dtype.to_string().as_str()), (name, name));
            assert_eq!((dtype.stored(), stored.and_then(Dtype::of)), (stored, from_table));
        }
        assert_eq!(dtype_of("float8"), None);
        assert_eq!(Dtype::of(safetensors::Dtype::C64), None);
    }
}
