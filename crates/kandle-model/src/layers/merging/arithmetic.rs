//! Arithmetic of two tensors as Keras does it: dtypes promoted, sizes broadcast, half precision rounded at each step.
//!
//! Source: keras/src/backend/common/dtypes.py (`result_type`), keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Shape, Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Policy, Value,
    layers::cannot,
    numeric::{rounded, storage},
};

/// The two-operand operations that merging layers are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Maximum,
    Minimum,
}

/// Bits of an integer dtype and whether it is signed.
fn integer(dtype: Dtype) -> Option<(u32, bool)> {
    Some(match dtype {
        Dtype::Int8 => (8, true),
        Dtype::Int16 => (16, true),
        Dtype::Int32 => (32, true),
        Dtype::Int64 => (64, true),
        Dtype::Uint8 => (8, false),
        Dtype::Uint16 => (16, false),
        Dtype::Uint32 => (32, false),
        Dtype::Uint64 => (64, false),
        _ => return None,
    })
}

/// The dtype that Keras computes in where `a` meets `b`, both as a layer gets them: all floats are of one dtype there.
pub(crate) fn result_type(a: Dtype, b: Dtype) -> std::result::Result<Dtype, Problem> {
    if a == b && a != Dtype::String {
        return Ok(a);
    }
    let pair = (integer(a), integer(b));
    Ok(match pair {
        _ if a == Dtype::String || b == Dtype::String => return Err(cannot("strings cannot be merged")),
        _ if a == Dtype::Bool => b,
        _ if b == Dtype::Bool => a,
        (None, None) | (None, Some(_)) => a,
        (Some(_), None) => b,
        (Some((left, signed)), Some((right, other))) if signed == other => {
            if left > right {
                a
            } else {
                b
            }
        }
        (Some((left, signed)), Some((right, _))) => {
            let (of_signed, of_unsigned) = if signed { (left, right) } else { (right, left) };
            match of_signed.max(of_unsigned.saturating_mul(2)) {
                16 => Dtype::Int16,
                32 => Dtype::Int32,
                64 => Dtype::Int64,
                // Keras: no integer holds both, and they become float32.
                _ => return Err(cannot(format!("{a} together with {b} is not supported"))),
            }
        }
    })
}

/// `value` in the dtype it was promoted to; integers that become floats are rounded to the compute dtype.
pub(crate) fn promoted(value: &Value, dtype: Dtype, policy: &Policy) -> Result<Tensor> {
    if value.dtype == dtype {
        return Ok(value.tensor.clone());
    }
    let tensor = value.tensor.to_dtype(storage(dtype)?)?;
    if dtype.is_float() { rounded(&tensor, policy) } else { Ok(tensor) }
}

/// Both operands in the dtype they meet in, and that dtype.
fn pair(a: &Value, b: &Value, policy: &Policy) -> Result<(Tensor, Tensor, Dtype)> {
    let dtype = result_type(a.dtype, b.dtype).map_err(|problem| candle_core::Error::Msg(problem.what.clone()))?;
    Ok((promoted(a, dtype, policy)?, promoted(b, dtype, policy)?, dtype))
}

/// The shape that all of `tensors` are broadcast to.
pub(crate) fn broadcast_shape(tensors: &[&Tensor]) -> Result<Shape> {
    let first = tensors.first().map_or_else(|| Shape::from(()), |tensor| tensor.shape().clone());
    tensors.iter().skip(1).try_fold(first, |shape, tensor| shape.broadcast_shape_binary_op(tensor.shape(), "merge"))
}

/// `condition` as 0 or 1 where it is: `a` where it holds, else `b`.
pub(crate) fn choose(condition: &Tensor, a: &Value, b: &Value, policy: &Policy) -> Result<Value> {
    let (left, right, dtype) = pair(a, b, policy)?;
    let shape = broadcast_shape(&[condition, &left, &right])?;
    let spread = |tensor: &Tensor| tensor.broadcast_as(&shape)?.contiguous();
    Ok(Value::new(spread(condition)?.where_cond(&spread(&left)?, &spread(&right)?)?, dtype))
}

/// Either of two masks.
pub(crate) fn either(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.broadcast_maximum(b)
}

impl Binary {
    /// The result for `a` and `b`, broadcast.
    pub(crate) fn apply(self, a: &Value, b: &Value, policy: &Policy) -> Result<Value> {
        let (left, right, dtype) = pair(a, b, policy)?;
        if !dtype.is_float() {
            return Ok(Value::new(self.of_integers(&left, &right, dtype)?, dtype));
        }
        let tensor = match self {
            Self::Add => left.broadcast_add(&right)?,
            Self::Subtract => left.broadcast_sub(&right)?,
            Self::Multiply => left.broadcast_mul(&right)?,
            Self::Maximum | Self::Minimum => {
                let shape = broadcast_shape(&[&left, &right])?;
                let (left, right) = (left.broadcast_as(&shape)?, right.broadcast_as(&shape)?);
                let (left, right) = (left.contiguous()?, right.contiguous()?);
                let first = if self == Self::Maximum { left.ge(&right)? } else { left.le(&right)? };
                // NaN in either operand is NaN: a comparison with it does not hold, and the second operand is taken.
                first.maximum(&left.ne(&left)?)?.where_cond(&left, &right)?
            }
        };
        Ok(Value::new(rounded(&tensor, policy)?, dtype))
    }

    /// Integers wrap around as in Keras.
    fn of_integers(self, left: &Tensor, right: &Tensor, dtype: Dtype) -> Result<Tensor> {
        let Some((bits, signed)) = integer(dtype) else { bail!("{dtype} numbers cannot be merged") };
        let shape = broadcast_shape(&[left, right])?;
        let numbers = |tensor: &Tensor| {
            tensor.broadcast_as(&shape)?.to_dtype(candle_core::DType::I64)?.flatten_all()?.to_vec1::<i64>()
        };
        let of_two = |(a, b): (i64, i64)| match self {
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::Multiply => a.wrapping_mul(b),
            Self::Maximum => a.max(b),
            Self::Minimum => a.min(b),
        };
        let wrapped = |number: i64| wrap(number, bits, signed);
        let result: Vec<i64> = numbers(left)?.into_iter().zip(numbers(right)?).map(of_two).map(wrapped).collect();
        Tensor::from_vec(result, &shape, left.device())?.to_dtype(storage(dtype)?)
    }
}

/// The lowest `bits` of `number`.
pub(crate) fn wrap(number: i64, bits: u32, signed: bool) -> i64 {
    let unused = 64_u32.saturating_sub(bits);
    let high = number << unused;
    if signed || unused == 0 { high >> unused } else { number & (i64::MAX >> unused.saturating_sub(1)) }
}

/// Wraps integers to what `dtype` holds.
pub(crate) fn wrapped(number: i64, dtype: Dtype) -> i64 {
    integer(dtype).map_or(number, |(bits, signed)| wrap(number, bits, signed))
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn integers_wrap_around() {
        for (number, bits, signed, expected) in [
            (200, 8, true, -56),
            (200, 8, false, 200),
            (300, 8, false, 44),
            (-1, 8, false, 255),
            (-1, 32, false, 4_294_967_295),
            (1 << 31, 32, true, -(1 << 31)),
            (i64::MIN, 64, true, i64::MIN),
            (i64::MAX, 64, false, i64::MAX),
        ] {
            assert_eq!(wrap(number, bits, signed), expected, "{number} in {bits} bits");
        }
    }
}
