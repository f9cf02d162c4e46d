//! The numbers a tensor may hold, and the one table from dtype to Rust type.

use half::{bf16, f16};
use safetensors::Dtype;

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

/// `with_number!(dtype, T => expression, otherwise)`: the expression with `T` as the dtype's Rust type, or `otherwise` for a dtype that an `Array` can't hold.
macro_rules! with_number {
    ($dtype:expr, $number:ident => $known:expr, $unknown:expr) => {{
        macro_rules! known {
            ($rust:ty) => {{
                type $number = $rust;
                $known
            }};
        }
        match $dtype {
            safetensors::Dtype::BOOL => known!(bool),
            safetensors::Dtype::I8 => known!(i8),
            safetensors::Dtype::U8 => known!(u8),
            safetensors::Dtype::I16 => known!(i16),
            safetensors::Dtype::U16 => known!(u16),
            safetensors::Dtype::I32 => known!(i32),
            safetensors::Dtype::U32 => known!(u32),
            safetensors::Dtype::I64 => known!(i64),
            safetensors::Dtype::U64 => known!(u64),
            safetensors::Dtype::F16 => known!(half::f16),
            safetensors::Dtype::BF16 => known!(half::bf16),
            safetensors::Dtype::F32 => known!(f32),
            safetensors::Dtype::F64 => known!(f64),
            _ => $unknown,
        }
    }};
}
pub(crate) use with_number;

/// Keras's names of the dtypes an `Array` holds.
const NAMES: [(Dtype, &str); 13] = [
    (Dtype::BOOL, "bool"),
    (Dtype::I8, "int8"),
    (Dtype::U8, "uint8"),
    (Dtype::I16, "int16"),
    (Dtype::U16, "uint16"),
    (Dtype::I32, "int32"),
    (Dtype::U32, "uint32"),
    (Dtype::I64, "int64"),
    (Dtype::U64, "uint64"),
    (Dtype::F16, "float16"),
    (Dtype::BF16, "bfloat16"),
    (Dtype::F32, "float32"),
    (Dtype::F64, "float64"),
];

/// Keras's name of a dtype, `float32` for F32; `unsupported dtype` for one that an `Array` can't hold.
pub(crate) fn keras_name(dtype: Dtype) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == dtype).map_or("unsupported dtype", |(_, name)| name)
}

/// The dtype of Keras's name; none for `string` and what else an `Array` can't hold.
pub(crate) fn dtype_of(keras_name: &str) -> Option<Dtype> {
    NAMES.iter().find(|(_, name)| *name == keras_name).map(|(dtype, _)| *dtype)
}

pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_of_the_type_in_the_table() {
        for (dtype, name) in NAMES {
            let from_table = with_number!(dtype, T => Some(T::DTYPE), None);
            assert_eq!(from_table, Some(dtype), "{name}");
            assert_eq!(dtype_of(name), Some(dtype));
            assert_eq!(keras_name(dtype), name);
        }
        assert_eq!(dtype_of("string"), None);
        assert_eq!(with_number!(Dtype::C64, T => Some(T::DTYPE), None), None);
    }
}
