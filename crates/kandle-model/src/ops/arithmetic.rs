//! Sums, products, quotients, remainders and powers. Source: keras/src/backend/tensorflow/numpy.py.
//!
//! Integers wrap around, as TensorFlow's do; dividing one by zero is an error there and here.

use candle_core::{Result, Tensor, bail};
use kandle_format::Dtype;

use super::{
    Integers, Kind, Node, Operation, convert,
    elementwise::{
        X, X1_X2, apart, counted, floating_or_double, meeting, number, of_floats, of_numbers, pair, plain, planned,
        planned_pair, same, stretched,
    },
    floats, host, operation, result_type, rounded,
    rounding::{fmod, through},
};
use crate::{
    Spec, Value,
    numeric::{constant_like, wide},
};

/// The dtype of a quotient.
fn quotient(dtype: Dtype) -> Dtype {
    result_type(&[dtype.into(), Kind::Float])
}

/// Keras: a vector that fits the second or the last axis of a tensor is added as the bias of a convolution is, along the
/// last axis if it fits there, wherever numpy would put it.
fn add(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = pair(node, dtype)?;
    let long: Vec<usize> = b.tensor.dims().iter().copied().filter(|size| *size > 1).collect();
    let (rank, second, last) = (a.tensor.rank(), a.tensor.dims().get(1), a.tensor.dims().last());
    let bias = match (long.as_slice(), second, last) {
        ([size], _, Some(last)) if rank > 1 && size == last => Some(rank - 1),
        ([size], Some(second), _) if rank > 1 && size == second => Some(1),
        _ => None,
    };
    let b = match bias {
        Some(axis) => {
            let dims: Vec<usize> = (0..rank).map(|at| if at == axis { b.tensor.elem_count() } else { 1 }).collect();
            b.with_tensor(b.tensor.reshape(dims)?)
        }
        None => b,
    };
    if dtype.is_float() {
        let (a, b) = stretched(&floats(&a, dtype)?, &floats(&b, dtype)?)?;
        return Ok(vec![rounded(&(a + b)?, dtype)?]);
    }
    no_truths(dtype)?;
    let sum = Integers::of(&a)?.zip(&Integers::of(&b)?, |a, b| Ok(a.wrapping_add(b)))?;
    Ok(vec![sum.value(dtype, a.tensor.device())?])
}

pub(super) fn no_truths(dtype: Dtype) -> Result<()> {
    if dtype == Dtype::Bool {
        bail!("bool: expected numbers, as Keras's TensorFlow backend does");
    }
    Ok(())
}

/// An operation of two numbers in the dtype in which Python's numbers meet tensors.
fn met(
    node: &Node<'_, Value>,
    of_floats: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    of_integers: impl Fn(i64, i64) -> Result<i64>,
) -> Result<Vec<Value>> {
    let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
    no_truths(dtype)?;
    of_numbers(node, dtype, of_floats, of_integers)
}

fn divide(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = quotient(meeting(&node.operand("x1")?, &node.operand("x2")?));
    of_floats(node, dtype, |a, b| a / b)
}

fn divisor(number: i64) -> Result<i64> {
    if number == 0 {
        bail!("an integer is divided by zero");
    }
    Ok(number)
}

fn floor_quotient(a: i64, b: i64) -> Result<i64> {
    let b = divisor(b)?;
    let (quotient, remainder) = (a.wrapping_div(b), a.wrapping_rem(b));
    Ok(if remainder != 0 && (remainder < 0) != (b < 0) { quotient - 1 } else { quotient })
}

pub(super) fn floor_remainder(a: i64, b: i64) -> Result<i64> {
    let b = divisor(b)?;
    let remainder = a.wrapping_rem(b);
    Ok(if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder })
}

/// The remainder that has the sign of the divisor.
fn modulo(a: f64, b: f64) -> f64 {
    let remainder = a % b;
    if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
}

fn floor_of_quotient(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    host::steps(&(a / b)?, f64::floor)
}

pub(super) fn modulo_of(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    host::zip(a, b, modulo, |a, b| Ok((a.ones_like()?, floor_of_quotient(a, b)?.neg()?)))
}

fn remainder(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = counted(apart(&node.operand("x1")?, &node.operand("x2")?));
    of_numbers(node, dtype, modulo_of, floor_remainder)
}

fn power(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let integer = |base: i64, exponent: i64| -> Result<i64> {
        let Ok(exponent) = u32::try_from(exponent) else {
            bail!("an integer to the power of {exponent} is no integer");
        };
        Ok(base.wrapping_pow(exponent))
    };
    met(
        node,
        |a, b| {
            host::zip(a, b, f64::powf, |a, b| {
                let by_base =
                    (b * host::zip(a, &(b - 1.0)?, f64::powf, |_, b| Ok((b.zeros_like()?, b.zeros_like()?)))?)?;
                let positive = a.gt(&a.zeros_like()?)?;
                let safe = positive.where_cond(a, &a.ones_like()?)?;
                let power = host::zip(a, b, f64::powf, |_, b| Ok((b.zeros_like()?, b.zeros_like()?)))?;
                Ok((by_base, (power * safe.log()?)?))
            })
        },
        integer,
    )
}

/// The larger one; NaN where either is. Keras: NaN is passed on, which candle's own maximum does not do.
pub(super) fn larger(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    nan_first(&a.ge(b)?, a, b)
}

/// The smaller one; NaN where either is.
pub(super) fn smaller(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    nan_first(&a.le(b)?, a, b)
}

fn nan_first(chosen: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.ne(a)?.where_cond(a, &chosen.where_cond(a, b)?)
}

/// The one that is a number, where only one is.
fn ignoring_nan(a: &Tensor, b: &Tensor, choose: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    a.ne(a)?.where_cond(b, &b.ne(b)?.where_cond(a, &choose(a, b)?)?)
}

/// Keras: `x` itself where it cannot be negative.
fn absolute(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    number(node, same, Tensor::abs, |number| Ok(number.wrapping_abs()))
}

fn clip(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = counted(value.dtype);
    let bound = |key: &str| {
        let scalar = node.settings.scalar(key);
        scalar.ok_or_else(|| candle_core::Error::Msg(format!("{key} is missing")))
    };
    let (low, high) = (bound("x_min")?, bound("x_max")?);
    if dtype.is_float() {
        let xs = floats(&value, dtype)?;
        let bound = |number: f64| through(&constant_like(&xs, number)?, dtype);
        let (low, high) = (bound(low.number())?, bound(high.number())?);
        return Ok(vec![rounded(&larger(&smaller(&xs, &high)?, &low)?, dtype)?]);
    }
    let (Some(low), Some(high)) = (low.integer(), high.integer()) else {
        bail!("x_min and x_max: expected whole numbers for {dtype}");
    };
    let clipped = Integers::of(&convert(&value, dtype)?)?.map(|number| Ok(number.min(high).max(low)))?;
    Ok(vec![clipped.value(dtype, value.tensor.device())?])
}

/// The plan of an operation of `x1` and `x2` that always gives floats, of Python's numbers too.
fn planned_floats(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, kandle_format::Problem> {
    planned_pair(node, quotient)
}

/// A function of two operands as floats, computed in float64 and rounded once.
fn curve_of_two(node: &Node<'_, Value>, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let dtype = quotient(apart(&node.operand("x1")?, &node.operand("x2")?));
    of_floats(node, dtype, |a, b| wide_of_two(a, b, f))
}

fn wide_of_two(a: &Tensor, b: &Tensor, f: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let b = b.clone();
    let both = Tensor::stack(&[a, &b], 0)?;
    wide(&both, |both| f(&both.get(0)?, &both.get(1)?))
}

/// log(eᵃ + eᵇ), in base e or 2: `scale` is the logarithm of the base.
fn log_of_sum(a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    let delta = (a - b)?;
    let log = ((delta.abs()? * -scale)?.exp()? + 1.0)?.log()?;
    let sum = (larger(a, b)? + (log / scale)?)?;
    delta.ne(&delta)?.where_cond(&(a + b)?, &sum)
}

fn heaviside(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = floating_or_double(apart(&node.operand("x1")?, &node.operand("x2")?));
    of_floats(node, dtype, |a, b| {
        let zero = a.zeros_like()?;
        a.lt(&zero)?.where_cond(&zero, &a.gt(&zero)?.where_cond(&a.ones_like()?, b)?)
    })
}

fn hypot(a: f64, b: f64) -> f64 {
    // Keras: two infinities have a ratio that is no number.
    match a.is_infinite() && b.is_infinite() {
        true => f64::NAN,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => a.hypot(b),
    }
}

fn greatest_divisor(a: i64, b: i64) -> Result<i64> {
    let (mut a, mut b) = (a.wrapping_abs(), b.wrapping_abs());
    while b != 0 {
        (a, b) = (b, a.wrapping_rem(b));
    }
    Ok(a)
}

fn ldexp(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let exponent = node.operand("x2")?;
    if exponent.dtype().is_float() || exponent.dtype() == Dtype::Bool {
        bail!("x2: expected integers, found {}", exponent.dtype());
    }
    let dtype = quotient(apart(&node.operand("x1")?, &exponent));
    of_floats(node, dtype, |a, b| {
        let power = host::map(b, f64::exp2, |b| b.zeros_like())?;
        let own = (a.abs()?.eq(f64::INFINITY)? + a.eq(0.0)?)?;
        own.where_cond(a, &(a * power)?)
    })
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Add", X1_X2, |node| planned_pair(node, same), add),
    operation(
        "Subtract",
        X1_X2,
        |node| planned_pair(node, same),
        |node| met(node, |a, b| a - b, |a, b| Ok(a.wrapping_sub(b))),
    ),
    operation(
        "Multiply",
        X1_X2,
        |node| planned_pair(node, same),
        |node| met(node, |a, b| a * b, |a, b| Ok(a.wrapping_mul(b))),
    ),
    operation("Divide", X1_X2, planned_floats, divide),
    operation("TrueDivide", X1_X2, planned_floats, divide),
    operation("DivideNoNan", X1_X2, planned_floats, |node| {
        let dtype = quotient(meeting(&node.operand("x1")?, &node.operand("x2")?));
        of_floats(node, dtype, |a, b| {
            let zero = b.eq(&b.zeros_like()?)?;
            let safe = zero.where_cond(&b.ones_like()?, b)?;
            zero.where_cond(&a.zeros_like()?, &(a / safe)?)
        })
    }),
    operation(
        "FloorDivide",
        X1_X2,
        |node| planned_pair(node, same),
        |node| met(node, floor_of_quotient, floor_quotient),
    ),
    operation("Mod", X1_X2, |node| planned_pair(node, counted), remainder),
    operation(
        "Fmod",
        X1_X2,
        |node| planned_pair(node, counted),
        |node| {
            let dtype = counted(apart(&node.operand("x1")?, &node.operand("x2")?));
            let integer = |a: i64, b: i64| Ok(a.signum() * floor_remainder(a.wrapping_abs(), b.wrapping_abs())?);
            of_numbers(node, dtype, fmod, integer)
        },
    ),
    operation("Power", X1_X2, |node| planned_pair(node, same), power),
    operation("Maximum", X1_X2, |node| planned_pair(node, same), |node| met(node, larger, |a, b| Ok(a.max(b)))),
    operation("Minimum", X1_X2, |node| planned_pair(node, same), |node| met(node, smaller, |a, b| Ok(a.min(b)))),
    operation(
        "Fmax",
        X1_X2,
        |node| planned_pair(node, same),
        |node| met(node, |a, b| ignoring_nan(a, b, larger), |a, b| Ok(a.max(b))),
    ),
    operation(
        "Fmin",
        X1_X2,
        |node| planned_pair(node, same),
        |node| met(node, |a, b| ignoring_nan(a, b, smaller), |a, b| Ok(a.min(b))),
    ),
    operation(
        "Negative",
        X,
        |node| planned(node, same),
        |node| {
            no_truths(node.value("x")?.dtype)?;
            number(node, same, Tensor::neg, |number| Ok(number.wrapping_neg()))
        },
    ),
    operation("Absolute", X, |node| planned(node, same), absolute),
    operation("Abs", X, |node| planned(node, same), absolute),
    operation("Fabs", X, |node| planned(node, single), |node| plain(node, single, Tensor::abs)),
    operation(
        "Square",
        X,
        |node| planned(node, counted),
        |node| number(node, counted, Tensor::sqr, |number| Ok(number.wrapping_mul(number))),
    ),
    // Keras: the plan says float32, whatever comes in.
    operation(
        "Reciprocal",
        X,
        |node| planned(node, |_| Dtype::Float32),
        |node| {
            let dtype = node.value("x")?.dtype;
            if !dtype.is_float() {
                bail!("expected floats, found {dtype}");
            }
            plain(node, same, |xs| xs.ones_like()? / xs)
        },
    ),
    operation("Clip", X, |node| planned(node, counted), clip)
        .with(&[("x_min", super::Setting::Scalar), ("x_max", super::Setting::Scalar)]),
    operation("Heaviside", X1_X2, |node| planned_pair(node, floating_or_double), heaviside),
    operation(
        "Hypot",
        X1_X2,
        |node| planned_pair(node, floating_or_double),
        |node| {
            let dtype = floating_or_double(apart(&node.operand("x1")?, &node.operand("x2")?));
            of_floats(node, dtype, |a, b| {
                host::zip(a, b, hypot, |a, b| {
                    let norm = (a.sqr()? + b.sqr()?)?.sqrt()?;
                    Ok(((a / &norm)?, (b / &norm)?))
                })
            })
        },
    ),
    operation("Arctan2", X1_X2, planned_floats, |node| {
        let dtype = quotient(apart(&node.operand("x1")?, &node.operand("x2")?));
        of_floats(node, dtype, |a, b| {
            host::zip(a, b, f64::atan2, |a, b| {
                let norm = (a.sqr()? + b.sqr()?)?;
                Ok(((b / &norm)?, (a / &norm)?.neg()?))
            })
        })
    }),
    operation("Logaddexp", X1_X2, planned_floats, |node| curve_of_two(node, |a, b| log_of_sum(a, b, 1.0))),
    operation("Logaddexp2", X1_X2, planned_floats, |node| {
        curve_of_two(node, |a, b| log_of_sum(a, b, std::f64::consts::LN_2))
    }),
    operation("Ldexp", X1_X2, planned_floats, ldexp),
    operation(
        "Gcd",
        X1_X2,
        |node| planned_pair(node, same),
        |node| {
            let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
            let floats = |_: &Tensor, _: &Tensor| bail!("expected integers");
            no_truths(dtype)?;
            of_numbers(node, dtype, floats, greatest_divisor)
        },
    ),
    operation(
        "Lcm",
        X1_X2,
        |node| planned_pair(node, same),
        |node| {
            let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
            let floats = |_: &Tensor, _: &Tensor| bail!("expected integers");
            no_truths(dtype)?;
            of_numbers(node, dtype, floats, |a, b| match greatest_divisor(a, b)? {
                0 => Ok(0),
                divisor => Ok(a.wrapping_abs().wrapping_mul(b.wrapping_abs() / divisor)),
            })
        },
    ),
];

fn single(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { Dtype::Float32 }
}
