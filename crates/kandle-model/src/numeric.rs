//! The few places where candle and Keras count differently: dtypes candle lacks, casts, and precision.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::Dtype;

use crate::Value;

/// The candle dtype that stores numbers of Keras's `dtype`.
pub(crate) fn storage(dtype: Dtype) -> Result<DType> {
    Ok(match dtype {
        Dtype::Bool | Dtype::Uint8 => DType::U8,
        Dtype::Int8 | Dtype::Int16 => DType::I16,
        Dtype::Int32 => DType::I32,
        Dtype::Int64 => DType::I64,
        Dtype::Uint16 | Dtype::Uint32 => DType::U32,
        Dtype::Float16 => DType::F16,
        Dtype::Bfloat16 => DType::BF16,
        Dtype::Float32 => DType::F32,
        Dtype::Float64 => DType::F64,
        other => bail!("candle has no dtype that holds {other}"),
    })
}

/// The Keras dtype of a plain candle tensor.
pub(crate) fn dtype_of(tensor: &Tensor) -> Result<Dtype> {
    Ok(match tensor.dtype() {
        DType::U8 => Dtype::Uint8,
        DType::U32 => Dtype::Uint32,
        DType::I16 => Dtype::Int16,
        DType::I32 => Dtype::Int32,
        DType::I64 => Dtype::Int64,
        DType::F16 => Dtype::Float16,
        DType::BF16 => Dtype::Bfloat16,
        DType::F32 => Dtype::Float32,
        DType::F64 => Dtype::Float64,
        other => bail!("Keras has no dtype for candle's {other:?}"),
    })
}

/// `value` as Keras's `dtype`. Floats become integers by truncation toward zero, as in Keras; what has no integer
/// (NaN, an infinity, a number beyond int64) is an error.
pub(crate) fn cast(value: &Value, dtype: Dtype) -> Result<Value> {
    if value.dtype == dtype {
        return Ok(value.clone());
    }
    if dtype == Dtype::Bool {
        let tensor = value.tensor.ne(&value.tensor.zeros_like()?)?;
        return Ok(Value { tensor, dtype, mask: value.mask.clone() });
    }
    if value.dtype.is_float() && !dtype.is_float() {
        check_has_integers(&value.tensor)?;
    }
    let tensor = value.tensor.to_dtype(storage(dtype)?)?;
    Ok(Value { tensor, dtype, mask: value.mask.clone() })
}

fn check_has_integers(tensor: &Tensor) -> Result<()> {
    // The largest power of two below which every f64 has an i64.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let numbers = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match numbers.iter().position(|number| number.is_nan() || number.abs() >= BEYOND) {
        None => Ok(()),
        Some(flat) => {
            let number = numbers.get(flat).copied().unwrap_or(f64::NAN);
            bail!("{number} at {:?} has no integer", position(flat, tensor.dims()))
        }
    }
}

/// The index of number `flat` of a row-major tensor of shape `dims`.
pub(crate) fn position(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = dims
        .iter()
        .rev()
        .map(|size| {
            let at = flat % (*size).max(1);
            flat /= (*size).max(1);
            at
        })
        .collect();
    index.reverse();
    index
}

/// Computes `f` in float64 where the device has it, and rounds the result once.
///
/// For what is curved (exp, tanh, erf, log): Keras's two backends differ there by a few units in the last place, and the
/// float64 result lies between them. What is only added, multiplied and compared is computed as Keras does, in float32.
pub(crate) fn wide(xs: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match (xs.device(), xs.dtype()) {
        (Device::Metal(_), _) | (_, DType::F64) => f(xs),
        (_, dtype) => f(&xs.to_dtype(DType::F64)?)?.to_dtype(dtype),
    }
}

/// A tensor of `number`, like `xs` in shape, dtype and device.
pub(crate) fn constant_like(xs: &Tensor, number: f64) -> Result<Tensor> {
    Tensor::full(number, xs.shape(), xs.device())?.to_dtype(xs.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use kandle_format::Dtype;

    use super::{cast, position};
    use crate::Value;

    #[test]
    fn floats_are_truncated_toward_zero_and_never_guessed() {
        let floats = |numbers: &[f32]| Value::new(Tensor::new(numbers, &Device::Cpu).unwrap(), Dtype::Float32);
        let ints = cast(&floats(&[1.9, -0.5, -1.9, 0.0]), Dtype::Int32).unwrap();
        assert_eq!(ints.tensor.to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap(), [1, 0, -1, 0]);
        for wrong in [f32::NAN, f32::INFINITY, 1e30] {
            let error = cast(&floats(&[0.0, wrong]), Dtype::Int32).unwrap_err().to_string();
            assert!(error.contains("at [1] has no integer"), "{error}");
        }
    }

    #[test]
    fn a_flat_number_has_an_index() {
        assert_eq!(position(0, &[]), Vec::<usize>::new());
        assert_eq!(position(5, &[2, 3]), [1, 2]);
        assert_eq!(position(23, &[2, 3, 4]), [1, 2, 3]);
    }
}
