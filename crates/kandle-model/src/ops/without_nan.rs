//! Reductions that leave NaN out. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Tensor};
use kandle_format::Dtype;

use super::{
    Integers, Node, Operation, Setting,
    elementwise::{X, or_number, same},
    floats, operation, ordering,
    reduction::{
        AXIS, KEEPDIMS, folding, largest, over, place, planned, planned_place, product_of, shaped, smallest, sum_of,
        summed, variance_dtype,
    },
    result_type, rounded,
    rounding::{finite, through},
};
use crate::{Value, numeric::wide};

fn numbers(xs: &Tensor) -> Result<Tensor> {
    xs.eq(xs)
}

/// `xs` with `number` in place of NaN.
fn filled(xs: &Tensor, number: f64) -> Result<Tensor> {
    or_number(&numbers(xs)?, xs, number)
}

/// How many numbers there are over `axes`, in the dtype of `xs`.
fn count(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    sum_of(&numbers(xs)?.to_dtype(xs.dtype())?, axes)
}

/// What is the furthest `of` the numbers over `axes`, and NaN where there is none.
fn furthest(xs: &Tensor, axes: &[usize], nothing: f64, of: fn(&Tensor, &[usize]) -> Result<Tensor>) -> Result<Tensor> {
    let count = count(xs, axes)?;
    if axes.iter().map(|axis| xs.dim(*axis)).collect::<Result<Vec<_>>>()?.contains(&0) {
        return crate::numeric::constant_like(&count, f64::NAN);
    }
    or_number(&count.gt(0.0)?, &of(&filled(xs, nothing)?, axes)?, f64::NAN)
}

/// Where the largest number (or the smallest) is, and -1 where there is none.
fn place_of(node: &Node<'_, Value>, sign: f64) -> Result<Vec<Value>> {
    let (value, found) = (node.value("x")?, place(node, sign)?);
    if !value.dtype.is_float() {
        return Ok(found);
    }
    let axes = over(node, value.tensor.rank())?;
    let numbers = shaped(node, &count(&floats(&value, value.dtype)?, &axes)?, &axes)?.gt(0.0)?;
    let nowhere = Integers::of_tensor(&numbers)?;
    let or_nowhere = |place: &Value| {
        let places = Integers::of(place)?.zip(&nowhere, |place, any| Ok(if any == 0 { -1 } else { place }))?;
        places.value(Dtype::Int32, value.tensor.device())
    };
    found.iter().map(or_nowhere).collect()
}

/// Keras: over no axis at all, it is the operand, whatever its dtype.
fn mean(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    if node.settings.integers("axis").is_some_and(<[i64]>::is_empty) {
        return Ok(vec![value]);
    }
    let dtype = variance_dtype(value.dtype);
    let xs = floats(&value, dtype)?;
    let axes = over(node, xs.rank())?;
    Ok(vec![rounded(&shaped(node, &mean_of(&xs, &axes, dtype)?, &axes)?, dtype)?])
}

/// Keras: in half precision the sum is rounded before it is divided, and overflows; that of `Mean` does not.
fn mean_of(xs: &Tensor, axes: &[usize], dtype: Dtype) -> Result<Tensor> {
    through(&sum_of(&filled(xs, 0.0)?, axes)?, dtype)? / through(&count(xs, axes)?, dtype)?
}

fn variance_of(xs: &Tensor, axes: &[usize], dtype: Dtype) -> Result<Tensor> {
    let whole = |xs: &Tensor| {
        let apart = xs.broadcast_sub(&mean_of(xs, axes, dtype)?)?;
        // Beside an infinity every number is NaN away from the mean, and counts.
        let apart = numbers(xs)?.where_cond(&apart, &apart.zeros_like()?)?;
        sum_of(&apart.sqr()?, axes)? / count(xs, axes)?
    };
    // Half precision rounds on the way.
    if matches!(dtype, Dtype::Float32 | Dtype::Float64) { wide(xs, whole) } else { whole(xs) }
}

fn spread(node: &Node<'_, Value>, f: fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = variance_dtype(value.dtype);
    let xs = floats(&value, dtype)?;
    let axes = over(node, xs.rank())?;
    Ok(vec![rounded(&f(&shaped(node, &variance_of(&xs, &axes, dtype)?, &axes)?)?, dtype)?])
}

/// A running sum or product. Keras: infinities become the largest numbers on the way.
fn running(node: &Node<'_, Value>, nan: f64, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let of_integers = if nan == 0.0 { i64::wrapping_add } else { i64::wrapping_mul };
    ordering::running(node, |value| finite(value, nan, None, None), f, of_integers)
}

const RUNNING: &[(&str, Setting)] = &[("axis", Setting::Integers), ("dtype", Setting::Dtype)];
const OVER: &[(&str, Setting)] = &[AXIS, KEEPDIMS];

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "Nansum",
        X,
        |node| planned(node, |dtype| result_type(&[summed(dtype).into()])),
        |node| folding(node, summed, |xs, axes| sum_of(&filled(xs, 0.0)?, axes), 0, i64::wrapping_add),
    )
    .with(OVER),
    operation(
        "Nanprod",
        X,
        |node| planned(node, summed),
        |node| folding(node, summed, |xs, axes| product_of(&filled(xs, 1.0)?, axes), 1, i64::wrapping_mul),
    )
    .with(OVER),
    operation(
        "Nanmax",
        X,
        |node| planned(node, |dtype| result_type(&[dtype.into()])),
        |node| folding(node, same, |xs, axes| furthest(xs, axes, f64::NEG_INFINITY, largest), i64::MIN, i64::max),
    )
    .with(OVER),
    operation(
        "Nanmin",
        X,
        |node| planned(node, |dtype| result_type(&[dtype.into()])),
        |node| folding(node, same, |xs, axes| furthest(xs, axes, f64::INFINITY, smallest), i64::MAX, i64::min),
    )
    .with(OVER),
    operation("Nanmean", X, |node| planned(node, variance_dtype), mean).with(OVER),
    operation("Nanvar", X, |node| planned(node, variance_dtype), |node| spread(node, |xs| Ok(xs.clone()))).with(OVER),
    operation("Nanstd", X, |node| planned(node, variance_dtype), |node| spread(node, Tensor::sqrt)).with(OVER),
    operation("Nanargmax", X, planned_place, |node| place_of(node, 1.0)).with(OVER),
    operation("Nanargmin", X, planned_place, |node| place_of(node, -1.0)).with(OVER),
    operation("Nancumsum", X, ordering::planned_running, |node| running(node, 0.0, |a, b| a + b)).with(RUNNING),
    operation("Nancumprod", X, ordering::planned_running, |node| running(node, 1.0, |a, b| a * b)).with(RUNNING),
];
