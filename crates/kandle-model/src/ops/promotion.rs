//! Keras's rules of which dtype comes out where operands of several dtypes go in.
//!
//! Source: keras/src/backend/common/dtypes.py, on TensorFlow (int64 and float64 stay as they are) with float32 as `floatx`.

use kandle_format::Dtype;

/// What an operand counts as when dtypes are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tensor of this dtype, or a Python bool.
    Strong(Dtype),
    /// A Python int, which takes the dtype of what it meets.
    Int,
    /// A Python float, which takes the float dtype of what it meets.
    Float,
}

impl From<Dtype> for Kind {
    fn from(dtype: Dtype) -> Self {
        Self::Strong(dtype)
    }
}

impl Kind {
    /// The dtype Keras names first. Keras: a Python int is an int64 until it meets something.
    fn dtype(self) -> Dtype {
        match self {
            Self::Strong(dtype) => dtype,
            Self::Int => Dtype::Int64,
            Self::Float => Dtype::Float32,
        }
    }

    /// What is directly above this in the lattice.
    fn above(self) -> &'static [Self] {
        use Dtype::{
            Bfloat16, Bool, Float16, Float32, Float64, Int8, Int16, Int32, Int64, String, Uint8, Uint16, Uint32, Uint64,
        };
        const FLOAT: &[Kind] = &[Kind::Float];
        const HALVES: &[Kind] = &[Kind::Strong(Bfloat16), Kind::Strong(Float16)];
        match self {
            Self::Int => &[Self::Strong(Uint8), Self::Strong(Int8)],
            Self::Float => HALVES,
            Self::Strong(Bool) => &[Self::Int],
            Self::Strong(Uint8) => &[Self::Strong(Int16), Self::Strong(Uint16)],
            Self::Strong(Uint16) => &[Self::Strong(Int32), Self::Strong(Uint32)],
            Self::Strong(Uint32) => &[Self::Strong(Int64), Self::Strong(Uint64)],
            Self::Strong(Int8) => &[Self::Strong(Int16)],
            Self::Strong(Int16) => &[Self::Strong(Int32)],
            Self::Strong(Int32) => &[Self::Strong(Int64)],
            Self::Strong(Uint64 | Int64) => FLOAT,
            Self::Strong(Bfloat16 | Float16) => &[Self::Strong(Float32)],
            Self::Strong(Float32) => &[Self::Strong(Float64)],
            Self::Strong(Float64 | String | _) => &[],
        }
    }

    /// Everything above this, itself included.
    fn upper_bounds(self) -> Vec<Self> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(node) = found.get(next).copied() {
            for above in node.above() {
                if !found.contains(above) {
                    found.push(*above);
                }
            }
            next += 1;
        }
        found
    }
}

/// The least of what is above all of `nodes`. `None` where there is none (strings).
fn least_upper_bound(nodes: &[Kind]) -> Option<Kind> {
    let (first, others) = nodes.split_first()?;
    let mut common = first.upper_bounds();
    for other in others {
        let bounds = other.upper_bounds();
        common.retain(|node| bounds.contains(node));
    }
    let least = |node: &&Kind| {
        let bounds = node.upper_bounds();
        common.iter().all(|other| bounds.contains(other))
    };
    common.iter().find(least).copied()
}

/// The dtype of what is computed from `operands`. Strings combine with nothing, and stay strings.
pub(crate) fn result_type(operands: &[Kind]) -> Dtype {
    let Some(first) = operands.first() else { return Dtype::Float32 };
    let weak = operands.iter().all(|operand| !matches!(operand, Kind::Strong(_)));
    let same = operands.iter().all(|operand| operand.dtype() == first.dtype());
    let found = if same && !weak {
        Kind::Strong(first.dtype())
    } else if weak {
        match operands.contains(&Kind::Float) {
            true => Kind::Float,
            false => Kind::Int,
        }
    } else {
        least_upper_bound(operands).unwrap_or(*first)
    };
    match found {
        Kind::Int => Dtype::Int32,
        Kind::Float => Dtype::Float32,
        // Keras: no result is a uint64, as in JAX.
        Kind::Strong(Dtype::Uint64) => Dtype::Uint32,
        Kind::Strong(dtype) => dtype,
    }
}

#[cfg(test)]
mod tests {
    use kandle_format::Dtype;

    use super::{Kind, result_type};

    /// Each line: an operand, and the result with each of them in turn, as Keras 3.15.1 says (`dtypes.result_type`).
    const TABLE: &[(&str, &str)] = &[
        (
            "bool",
            "bool int8 int16 int32 int64 uint8 uint16 uint32 uint32 float16 bfloat16 float32 float64 int32 float32",
        ),
        ("int8", "int8 int8 int16 int32 int64 int16 int32 int64 float32 float16 bfloat16 float32 float64 int8 float32"),
        (
            "int16",
            "int16 int16 int16 int32 int64 int16 int32 int64 float32 float16 bfloat16 float32 float64 int16 float32",
        ),
        (
            "int32",
            "int32 int32 int32 int32 int64 int32 int32 int64 float32 float16 bfloat16 float32 float64 int32 float32",
        ),
        (
            "int64",
            "int64 int64 int64 int64 int64 int64 int64 int64 float32 float16 bfloat16 float32 float64 int64 float32",
        ),
        (
            "uint8",
            "uint8 int16 int16 int32 int64 uint8 uint16 uint32 uint32 float16 bfloat16 float32 float64 uint8 float32",
        ),
        (
            "uint16",
            "uint16 int32 int32 int32 int64 uint16 uint16 uint32 uint32 float16 bfloat16 float32 float64 uint16 float32",
        ),
        (
            "uint32",
            "uint32 int64 int64 int64 int64 uint32 uint32 uint32 uint32 float16 bfloat16 float32 float64 uint32 float32",
        ),
        (
            "uint64",
            "uint32 float32 float32 float32 float32 uint32 uint32 uint32 uint32 float16 bfloat16 float32 float64 uint32 float32",
        ),
        (
            "float16",
            "float16 float16 float16 float16 float16 float16 float16 float16 float16 float16 float32 float32 float64 float16 float16",
        ),
        (
            "bfloat16",
            "bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 bfloat16 float32 bfloat16 float32 float64 bfloat16 bfloat16",
        ),
        (
            "float32",
            "float32 float32 float32 float32 float32 float32 float32 float32 float32 float32 float32 float32 float64 float32 float32",
        ),
        (
            "float64",
            "float64 float64 float64 float64 float64 float64 float64 float64 float64 float64 float64 float64 float64 float64 float64",
        ),
        (
            "int",
            "int32 int8 int16 int32 int64 uint8 uint16 uint32 uint32 float16 bfloat16 float32 float64 int32 float32",
        ),
        (
            "float",
            "float32 float32 float32 float32 float32 float32 float32 float32 float32 float16 bfloat16 float32 float64 float32 float32",
        ),
    ];

    fn kind(name: &str) -> Kind {
        match name {
            "int" => Kind::Int,
            "float" => Kind::Float,
            name => Kind::Strong(Dtype::from_name(name).unwrap()),
        }
    }

    #[test]
    fn pairs_combine_as_keras_combines_them() {
        for (a, row) in TABLE {
            assert_eq!(row.split(' ').count(), TABLE.len());
            for ((b, _), keras) in TABLE.iter().zip(row.split(' ')) {
                assert_eq!(result_type(&[kind(a), kind(b)]).name(), keras, "{a} with {b}");
            }
        }
    }
}
