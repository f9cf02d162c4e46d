use std::fmt;

/// The dtype of an array, in Keras's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the Keras name it prints")]
pub enum Dtype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float16,
    Bfloat16,
    Float32,
    Float64,
    String,
}

impl Dtype {
    /// Every dtype, with Keras's name and the size of one number in bytes.
    const ALL: [(Self, &'static str, usize); 14] = [
        (Self::Bool, "bool", 1),
        (Self::Int8, "int8", 1),
        (Self::Int16, "int16", 2),
        (Self::Int32, "int32", 4),
        (Self::Int64, "int64", 8),
        (Self::Uint8, "uint8", 1),
        (Self::Uint16, "uint16", 2),
        (Self::Uint32, "uint32", 4),
        (Self::Uint64, "uint64", 8),
        (Self::Float16, "float16", 2),
        (Self::Bfloat16, "bfloat16", 2),
        (Self::Float32, "float32", 4),
        (Self::Float64, "float64", 8),
        (Self::String, "string", 0),
    ];

    /// The dtype that Keras calls `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|entry| entry.1 == name).map(|entry| entry.0)
    }

    /// Keras's name: `float32`, `int64`, `bool`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or("", |entry| entry.1)
    }

    /// Bytes of one number; 0 for strings, which have no size of their own.
    #[must_use]
    pub fn size(self) -> usize {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or(0, |entry| entry.2)
    }

    /// Whether this is one of the four floating-point dtypes.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Bfloat16 | Self::Float32 | Self::Float64)
    }

    /// Whether this is an integer dtype; bool and strings are none.
    #[must_use]
    pub fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool | Self::String)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn every_dtype_has_one_name_and_a_size() {
        for (dtype, name, size) in Dtype::ALL {
            assert_eq!(Dtype::from_name(name), Some(dtype));
            assert_eq!((dtype.name(), dtype.size()), (name, size));
        }
        assert_eq!(Dtype::from_name("float128"), None);
    }
}
