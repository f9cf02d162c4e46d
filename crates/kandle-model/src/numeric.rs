//! The few places where candle and Keras count differently: dtypes candle lacks, casts, and precision.

use std::ops::RangeInclusive;

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{
    Dtype,
    json::{self, Value as Json},
};

use crate::{Policy, Value};

/// The candle dtype that stores numbers of Keras's `dtype`.
pub(crate) fn storage(dtype: Dtype) -> Result<DType> {
    Ok(match dtype {
        Dtype::Bool | Dtype::Uint8 => DType::U8,
        Dtype::Int8 | Dtype::Int16 => DType::I16,
        Dtype::Int32 => DType::I32,
        Dtype::Int64 | Dtype::Uint64 => DType::I64,
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

/// `value` as Keras's `dtype`. Floats become integers by truncation toward zero, as in Keras; what the integer dtype does
/// not have (NaN, an infinity, a number beyond its range) is an error, where Keras would give some other number.
pub(crate) fn cast(value: &Value, dtype: Dtype) -> Result<Value> {
    if value.dtype == dtype {
        return Ok(value.clone());
    }
    if value.dtype == Dtype::String || dtype == Dtype::String {
        bail!("{} cannot become {dtype}", value.dtype)
    }
    if dtype == Dtype::Bool {
        let tensor = value.tensor.ne(&value.tensor.zeros_like()?)?;
        return Ok(Value { tensor, dtype, mask: value.mask.clone(), strings: None });
    }
    if let Some(range) = range(dtype) {
        check_fits(&value.tensor, dtype, &range)?;
    }
    let tensor = value.tensor.to_dtype(storage(dtype)?)?;
    Ok(Value { tensor, dtype, mask: value.mask.clone(), strings: None })
}

/// The numbers of an integer dtype, as far as int64 has them.
fn range(dtype: Dtype) -> Option<RangeInclusive<i64>> {
    Some(match dtype {
        Dtype::Int8 => i8::MIN.into()..=i8::MAX.into(),
        Dtype::Int16 => i16::MIN.into()..=i16::MAX.into(),
        Dtype::Int32 => i32::MIN.into()..=i32::MAX.into(),
        Dtype::Int64 => i64::MIN..=i64::MAX,
        Dtype::Uint8 => 0..=u8::MAX.into(),
        Dtype::Uint16 => 0..=u16::MAX.into(),
        Dtype::Uint32 => 0..=u32::MAX.into(),
        Dtype::Uint64 => 0..=i64::MAX,
        _ => return None,
    })
}

fn check_fits(tensor: &Tensor, dtype: Dtype, range: &RangeInclusive<i64>) -> Result<()> {
    let flat = tensor.flatten_all()?;
    let outside = if tensor.dtype().is_float() {
        // Twice this is the first power of two that no int64 reaches.
        const HALF: f64 = (1_i64 << 62) as f64;
        let fits = |number: &f64| number.abs() / 2.0 < HALF && range.contains(&(*number as i64));
        let numbers = flat.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let outside = numbers.iter().enumerate().find(|(_, number)| !fits(number));
        outside.map(|(flat, number)| (flat, number.to_string()))
    } else {
        let numbers = flat.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let outside = numbers.iter().enumerate().find(|(_, number)| !range.contains(number));
        outside.map(|(flat, number)| (flat, number.to_string()))
    };
    match outside {
        None => Ok(()),
        Some((flat, number)) => bail!("{number} at {:?} does not fit {dtype}", position(flat, tensor.dims())),
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

/// The dtype of floats of `a` and floats of `b` together; anything else counts as what it meets.
///
/// Source: keras/src/backend/common/dtypes.py (`result_type`).
pub(crate) fn floats_together(a: Dtype, b: Dtype) -> Dtype {
    let half = |dtype| matches!(dtype, Dtype::Float16 | Dtype::Bfloat16);
    match (a, b) {
        (a, b) if a == b || !b.is_float() => a,
        (a, b) if !a.is_float() || (half(a) && !half(b)) => b,
        (Dtype::Float64, _) | (_, Dtype::Float64) => Dtype::Float64,
        (a, b) if half(a) && half(b) => Dtype::Float32,
        (a, _) => a,
    }
}

/// Floats rounded to the dtype that a layer computes in, in the dtype they came in: what each operation of Keras does in
/// half precision.
pub(crate) fn rounded(xs: &Tensor, policy: &Policy) -> Result<Tensor> {
    policy.rounded(xs.clone())
}

/// `xs · factor`. candle's own product of a tensor and a number adds 0 to it, which makes 0.0 of −0.0.
pub(crate) fn times(xs: &Tensor, factor: f64) -> Result<Tensor> {
    xs.affine(factor, -0.0)
}

/// A tensor of `number`, like `xs` in shape, dtype and device.
pub(crate) fn constant_like(xs: &Tensor, number: f64) -> Result<Tensor> {
    Tensor::full(number, xs.shape(), xs.device())?.to_dtype(xs.dtype())
}

/// The tensor that a nest of numbers in a configuration stands for, row-major on the CPU. Without a dtype, what numpy would
/// make of it and Keras of that: float32, int32 or bool.
pub(crate) fn constant(value: &Json, dtype: Option<&str>) -> std::result::Result<Value, String> {
    fn walk(
        value: &Json,
        depth: usize,
        shape: &mut Vec<usize>,
        numbers: &mut Vec<Json>,
    ) -> std::result::Result<(), String> {
        let uneven = || "a constant whose lists are of different lengths".to_owned();
        match value {
            Json::Array(items) => {
                match shape.get(depth) {
                    None if numbers.is_empty() => shape.push(items.len()),
                    Some(size) if *size == items.len() => {}
                    _ => return Err(uneven()),
                }
                items.iter().try_for_each(|item| walk(item, depth + 1, shape, numbers))
            }
            number if depth == shape.len() => {
                numbers.push(number.clone());
                Ok(())
            }
            _ => Err(uneven()),
        }
    }
    let (mut shape, mut numbers) = (Vec::new(), Vec::new());
    walk(value, 0, &mut shape, &mut numbers)?;
    let dtype = match dtype {
        Some(name) => {
            Dtype::from_name(name).ok_or_else(|| format!("a constant of dtype {}", kandle_format::shown(name)))?
        }
        None if numbers.iter().all(Json::is_boolean) => Dtype::Bool,
        None if numbers.iter().all(Json::is_i64) => Dtype::Int32,
        None => Dtype::Float32,
    };
    let said = |error: candle_core::Error| error.to_string();
    if dtype == Dtype::String {
        let texts = numbers.iter().map(|text| text.as_str().map(|text| text.as_bytes().to_vec()));
        let texts = texts.collect::<Option<Vec<_>>>().ok_or("a constant of strings that holds something else")?;
        return Value::from_strings(texts, &shape).map_err(said);
    }
    let wrong = || "a constant that holds something else than numbers".to_owned();
    let tensor = if dtype.is_float() {
        let number =
            |value: &Json| json::number(value).or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))));
        let numbers = numbers.iter().map(number).collect::<Option<Vec<f64>>>().ok_or_else(wrong)?;
        // From float64 through float32 to half precision, as Keras's own float32 numbers go.
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).map_err(said)?;
        if dtype == Dtype::Float64 { Ok(tensor) } else { tensor.to_dtype(DType::F32) }
    } else {
        let number = |value: &Json| {
            let float = || {
                json::number(value)
                    .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)
                    .map(|number| number as i64)
            };
            value.as_i64().or_else(|| value.as_bool().map(i64::from)).or_else(float)
        };
        let numbers = numbers.iter().map(number).collect::<Option<Vec<i64>>>().ok_or_else(wrong)?;
        Tensor::from_vec(numbers, shape, &Device::Cpu)
    };
    let tensor = tensor.and_then(|tensor| tensor.to_dtype(storage(dtype)?)).map_err(said)?;
    Ok(Value::new(tensor, dtype))
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
        for wrong in [f32::NAN, f32::INFINITY, 1e30, 9_223_372_036_854_775_807.0] {
            for dtype in [Dtype::Int32, Dtype::Int64] {
                let error = cast(&floats(&[0.0, wrong]), dtype).unwrap_err().to_string();
                assert!(error.contains(&format!("at [1] does not fit {dtype}")), "{error}");
            }
        }
        assert!(cast(&floats(&[-9_223_372_036_854_775_808.0]), Dtype::Int64).is_err(), "the edge is left to nobody");
        let wide = Value::new(Tensor::new(&[1_i64, 1 << 32], &Device::Cpu).unwrap(), Dtype::Int64);
        let error = cast(&wide, Dtype::Int32).unwrap_err().to_string();
        assert!(error.contains("4294967296 at [1] does not fit int32"), "{error}");
        let wrapped = Value::new(Tensor::new(&[u32::MAX], &Device::Cpu).unwrap(), Dtype::Uint32);
        assert!(cast(&wrapped, Dtype::Int32).is_err(), "u32::MAX is not -1");
    }

    #[test]
    fn a_flat_number_has_an_index() {
        assert_eq!(position(0, &[]), Vec::<usize>::new());
        assert_eq!(position(5, &[2, 3]), [1, 2]);
        assert_eq!(position(23, &[2, 3, 4]), [1, 2, 3]);
    }
}
