//! What elementwise operations share: the dtype that comes out, the cast of what goes in, and the shape of both together.

use candle_core::{Result, Tensor};
use kandle_format::{Dtype, Problem};

use super::{Kind, Node, Operand, convert, floats, integers::Integers, one, result_type, rounded, shapes};
use crate::{Spec, Value, numeric::wide};

/// What most operations of one operand take.
pub(crate) const X: &[&str] = &["x"];
/// What most operations of two operands take.
pub(crate) const X1_X2: &[&str] = &["x1", "x2"];

/// The dtype it came in.
pub(crate) fn same(dtype: Dtype) -> Dtype {
    dtype
}

/// A float, float32 for integers. Keras: where its rule would make an int64 a float64, it does not.
pub(crate) fn floating(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Int64 => Dtype::Float32,
        dtype => result_type(&[dtype.into(), Kind::Float]),
    }
}

/// A float, float32 for integers, float64 for int64.
pub(crate) fn floating_or_double(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Int64 => Dtype::Float64,
        dtype if dtype.is_float() => dtype,
        _ => Dtype::Float32,
    }
}

/// An integer, int32 for truth values.
pub(crate) fn counted(dtype: Dtype) -> Dtype {
    if dtype == Dtype::Bool { Dtype::Int32 } else { dtype }
}

/// bool.
pub(crate) fn truth(_: Dtype) -> Dtype {
    Dtype::Bool
}

/// The plan of an operation of one operand, `x`.
pub(crate) fn planned(node: &Node<'_, Spec>, dtype: fn(Dtype) -> Dtype) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    one(xs.shape, dtype(xs.dtype))
}

/// A curved function of `x`: cast by `dtype`, computed in float64 and rounded once.
pub(crate) fn curve(
    node: &Node<'_, Value>,
    dtype: fn(Dtype) -> Dtype,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    plain(node, dtype, |xs| wide(xs, &f))
}

/// A function of `x` in floats: cast by `dtype`, computed in float32 or, for float64, in float64.
pub(crate) fn plain(
    node: &Node<'_, Value>,
    dtype: fn(Dtype) -> Dtype,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = dtype(value.dtype);
    Ok(vec![rounded(&f(&floats(&value, dtype)?)?, dtype)?])
}

/// A function of `x` cast by `dtype`: of floats where that is a float, else of integers, which wrap around.
pub(crate) fn number(
    node: &Node<'_, Value>,
    dtype: fn(Dtype) -> Dtype,
    of_floats: impl Fn(&Tensor) -> Result<Tensor>,
    of_integers: impl Fn(i64) -> Result<i64>,
) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = dtype(value.dtype);
    if dtype.is_float() {
        return Ok(vec![rounded(&of_floats(&floats(&value, dtype)?)?, dtype)?]);
    }
    let integers = Integers::of(&convert(&value, dtype)?)?.map(of_integers)?;
    Ok(vec![integers.value(dtype, value.tensor.device())?])
}

/// The dtype of two operands together, where Python's numbers take the dtype of what they meet.
pub(crate) fn meeting<T: super::Known>(a: &Operand<'_, T>, b: &Operand<'_, T>) -> Dtype {
    result_type(&[a.kind(), b.kind()])
}

/// The dtype of two operands together, where Python's numbers are tensors of their own: int32, float32 or bool.
pub(crate) fn apart<T: super::Known>(a: &Operand<'_, T>, b: &Operand<'_, T>) -> Dtype {
    result_type(&[a.dtype().into(), b.dtype().into()])
}

/// The plan of an operation of two operands, `x1` and `x2`. Keras plans Python's numbers as [`meeting`], whatever it
/// computes.
pub(crate) fn planned_pair(
    node: &Node<'_, Spec>,
    dtype: fn(Dtype) -> Dtype,
) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.operand("x1")?, node.operand("x2")?);
    one(shapes::broadcast(&a.shape(), &b.shape())?, dtype(meeting(&a, &b)))
}

/// Two float tensors stretched to one shape.
pub(crate) fn stretched(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let dims = shapes::broadcast_dims(a.dims(), b.dims())?;
    Ok((a.broadcast_as(dims.as_slice())?, b.broadcast_as(dims.as_slice())?))
}

/// The two operands `x1` and `x2` as `dtype`.
pub(crate) fn pair(node: &Node<'_, Value>, dtype: Dtype) -> Result<(Value, Value)> {
    let device = node.device();
    Ok((node.operand("x1")?.cast(dtype, &device)?, node.operand("x2")?.cast(dtype, &device)?))
}

/// A function of two operands as floats of `dtype`.
pub(crate) fn of_floats(
    node: &Node<'_, Value>,
    dtype: Dtype,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    let (a, b) = pair(node, dtype)?;
    let (a, b) = stretched(&floats(&a, dtype)?, &floats(&b, dtype)?)?;
    Ok(vec![rounded(&f(&a, &b)?, dtype)?])
}

/// A function of two operands as `dtype`: of floats where that is a float, else of integers, which wrap around.
pub(crate) fn of_numbers(
    node: &Node<'_, Value>,
    dtype: Dtype,
    of_floats: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    of_integers: impl Fn(i64, i64) -> Result<i64>,
) -> Result<Vec<Value>> {
    if dtype.is_float() {
        return self::of_floats(node, dtype, of_floats);
    }
    let (a, b) = pair(node, dtype)?;
    let integers = Integers::of(&a)?.zip(&Integers::of(&b)?, of_integers)?;
    Ok(vec![integers.value(dtype, a.tensor.device())?])
}

/// `x` where `condition` holds, a number where it does not.
pub(crate) fn or_number(condition: &Tensor, xs: &Tensor, number: f64) -> Result<Tensor> {
    condition.where_cond(xs, &crate::numeric::constant_like(xs, number)?)
}

/// Truth values of a tensor of 0 and 1.
pub(crate) fn truths(tensor: Tensor) -> Value {
    Value::new(tensor, Dtype::Bool)
}
