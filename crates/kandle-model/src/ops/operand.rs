//! What an operation is called on: tensors, Python's numbers, and lists.

use candle_core::{Device, Tensor};
use kandle_format::{
    Dtype,
    json::{self, Value as Json},
};

use super::{Kind, convert};
use crate::{Argument, Given, Shape, Spec, Value, numeric};

/// A Python number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl Scalar {
    /// The number that `value` is, if it is one.
    pub(crate) fn read(value: &Json) -> Option<Self> {
        match value {
            Json::Bool(flag) => Some(Self::Bool(*flag)),
            value => value.as_i64().map(Self::Int).or_else(|| json::number(value).map(Self::Float)),
        }
    }

    /// It as a float.
    pub(crate) fn number(self) -> f64 {
        match self {
            Self::Bool(flag) => f64::from(u8::from(flag)),
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// It as a whole number, unless it is a float.
    pub(crate) fn integer(self) -> Option<i64> {
        match self {
            Self::Bool(flag) => Some(i64::from(flag)),
            Self::Int(number) => Some(number),
            Self::Float(_) => None,
        }
    }

    /// The dtype that TensorFlow gives it where nobody says one.
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Bool(_) => Dtype::Bool,
            Self::Int(_) => Dtype::Int32,
            Self::Float(_) => Dtype::Float32,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Strong(Dtype::Bool),
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
        }
    }

    /// It as a tensor without axes. An integer that `dtype` has not is an error, as in TensorFlow.
    pub(crate) fn value(self, dtype: Dtype, device: &Device) -> candle_core::Result<Value> {
        let value = match self.integer() {
            Some(number) => Value::new(Tensor::new(number, device)?, Dtype::Int64),
            None => Value::new(Tensor::new(self.number(), device)?, Dtype::Float64),
        };
        numeric::cast(&value, dtype)
    }
}

/// One argument of an operation. `T` is [`Spec`] when it is planned, [`Value`] when it runs.
#[derive(Debug, Clone)]
pub(crate) enum Operand<'a, T> {
    /// A tensor of the graph.
    Tensor(&'a T),
    /// A Python number.
    Scalar(Scalar),
    /// A list of numbers.
    Constant(Value),
}

/// What is known of an operand either way.
pub(crate) trait Known {
    fn dtype(&self) -> Dtype;
    fn shape(&self) -> Shape;
}

impl Known for Spec {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }
}

impl Known for Value {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> Shape {
        Shape(self.tensor.dims().iter().copied().map(Some).collect())
    }
}

impl<'a, T: Known> Operand<'a, T> {
    /// What `argument` is.
    pub(super) fn of(argument: &Argument, given: Given<'a, T>) -> Result<Self, String> {
        match argument {
            Argument::Tensor(_) => given.at(argument).map(Self::Tensor).ok_or_else(|| "a tensor is missing".to_owned()),
            Argument::Constant(value) => match Scalar::read(value) {
                Some(scalar) => Ok(Self::Scalar(scalar)),
                None if value.is_array() => numeric::constant(value, None).map(Self::Constant),
                None => Err(format!("expected a number, found {}", json::shown(value))),
            },
            _ => Err("expected a tensor or a number, found a list of tensors".to_owned()),
        }
    }

    /// What it counts as where dtypes are combined and Python's numbers take the dtype of what they meet.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Scalar(scalar) => scalar.kind(),
            other => Kind::Strong(other.dtype()),
        }
    }

    /// Its dtype, once it is a tensor of its own.
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Tensor(tensor) => tensor.dtype(),
            Self::Scalar(scalar) => scalar.dtype(),
            Self::Constant(value) => value.dtype,
        }
    }

    /// Its axes.
    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Tensor(tensor) => tensor.shape(),
            Self::Scalar(_) => Shape(Vec::new()),
            Self::Constant(value) => value.shape(),
        }
    }

    /// The Python number it is, if it is one.
    pub(crate) fn scalar(&self) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar) => Some(*scalar),
            _ => None,
        }
    }
}

impl Operand<'_, Value> {
    /// It as a tensor of `dtype`.
    pub(crate) fn cast(&self, dtype: Dtype, device: &Device) -> candle_core::Result<Value> {
        match self {
            Self::Tensor(value) => convert(value, dtype),
            Self::Scalar(scalar) => scalar.value(dtype, device),
            Self::Constant(value) => {
                let value = Value::new(value.tensor.to_device(device)?, value.dtype);
                convert(&value, dtype)
            }
        }
    }

    /// It as a tensor of its own dtype.
    pub(crate) fn value(&self, device: &Device) -> candle_core::Result<Value> {
        self.cast(self.dtype(), device)
    }
}
