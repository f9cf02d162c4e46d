//! Integers and truth values, computed on the host: candle's own integer operations panic or err in places, and wrap in
//! none that is documented.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::Dtype;

use crate::{Value, numeric::storage};

/// An array of integers, row-major.
#[derive(Debug, Clone)]
pub(crate) struct Integers {
    pub(crate) numbers: Vec<i64>,
    pub(crate) dims: Vec<usize>,
}

impl Integers {
    /// The integers of `value`; true is 1.
    pub(crate) fn of(value: &Value) -> Result<Self> {
        if value.dtype.is_float() || value.dtype == Dtype::String {
            bail!("expected integers, found {}", value.dtype);
        }
        Self::of_tensor(&value.tensor)
    }

    /// The integers of a tensor.
    pub(crate) fn of_tensor(tensor: &Tensor) -> Result<Self> {
        let numbers = tensor.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        Ok(Self { numbers, dims: tensor.dims().to_vec() })
    }

    /// The same numbers as if they were of shape `dims`, by numpy's rules.
    pub(crate) fn broadcast(&self, dims: &[usize]) -> Result<Self> {
        if self.dims == dims {
            return Ok(self.clone());
        }
        let tensor = Tensor::from_slice(&self.numbers, self.dims.as_slice(), &Device::Cpu)?.broadcast_as(dims)?;
        Self::of_tensor(&tensor)
    }

    /// Every number through `f`.
    pub(crate) fn map(mut self, f: impl Fn(i64) -> Result<i64>) -> Result<Self> {
        for number in &mut self.numbers {
            *number = f(*number)?;
        }
        Ok(self)
    }

    /// Every pair of numbers through `f`, by numpy's rules of shapes.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(i64, i64) -> Result<i64>) -> Result<Self> {
        let dims = super::shapes::broadcast_dims(&self.dims, &other.dims)?;
        let (a, b) = (self.broadcast(&dims)?, other.broadcast(&dims)?);
        let numbers = a.numbers.iter().zip(&b.numbers).map(|(a, b)| f(*a, *b)).collect::<Result<_>>()?;
        Ok(Self { numbers, dims })
    }

    /// They as a tensor of `dtype`: what it has no room for wraps around; nothing but 0 is false.
    pub(crate) fn value(self, dtype: Dtype, device: &Device) -> Result<Value> {
        let numbers = self.numbers.into_iter().map(|number| wrapped(number, dtype)).collect::<Result<Vec<i64>>>()?;
        let tensor = match dtype.is_float() {
            true => Tensor::from_vec(numbers, self.dims, &Device::Cpu)?.to_dtype(storage(dtype)?)?,
            // candle's own cast from int64 to a narrower dtype would saturate.
            false => narrow(numbers, &self.dims, dtype)?,
        };
        Ok(Value::new(tensor.to_device(device)?, dtype))
    }
}

fn narrow(numbers: Vec<i64>, dims: &[usize], dtype: Dtype) -> Result<Tensor> {
    let cpu = &Device::Cpu;
    match storage(dtype)? {
        DType::U8 => Tensor::from_vec(numbers.into_iter().map(|number| number as u8).collect::<Vec<_>>(), dims, cpu),
        DType::I16 => Tensor::from_vec(numbers.into_iter().map(|number| number as i16).collect::<Vec<_>>(), dims, cpu),
        DType::U32 => Tensor::from_vec(numbers.into_iter().map(|number| number as u32).collect::<Vec<_>>(), dims, cpu),
        DType::I32 => Tensor::from_vec(numbers.into_iter().map(|number| number as i32).collect::<Vec<_>>(), dims, cpu),
        _ => Tensor::from_vec(numbers, dims, cpu),
    }
}

/// `number` as an integer `dtype` has it: modulo two to the number of its bits, as TensorFlow computes.
///
/// # Errors
/// Where it is a uint64 that int64, in which those are kept, has not.
pub(crate) fn wrapped(number: i64, dtype: Dtype) -> Result<i64> {
    Ok(match dtype {
        Dtype::Bool => i64::from(number != 0),
        Dtype::Int8 => i64::from(number as i8),
        Dtype::Int16 => i64::from(number as i16),
        Dtype::Int32 => i64::from(number as i32),
        Dtype::Uint8 => i64::from(number as u8),
        Dtype::Uint16 => i64::from(number as u16),
        Dtype::Uint32 => i64::from(number as u32),
        Dtype::Uint64 if number < 0 => bail!("a uint64 beyond {} is not supported", i64::MAX),
        _ => number,
    })
}
