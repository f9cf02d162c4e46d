//! Rounding, signs, and what is special about floats. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{DType, Result, Tensor};
use kandle_format::Dtype;

use super::{
    Integers, Node, Operation, Setting, convert,
    elementwise::{X, floating, number, or_number, plain, planned, same, truth, truths},
    floats, host, operation, rounded,
};
use crate::{Value, numeric::storage};

/// What was computed in floats, rounded to `dtype` on the way.
pub(super) fn through(xs: &Tensor, dtype: Dtype) -> Result<Tensor> {
    xs.to_dtype(storage(dtype)?)?.to_dtype(xs.dtype())
}

/// The remainder that has the sign of the dividend. Keras: the product of that sign and a remainder, which is NaN where
/// the dividend is not finite.
pub(super) fn fmod(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let f = |a: f64, b: f64| sign(a) * (a.abs() % b.abs());
    host::zip(a, b, f, |a, b| Ok((a.ones_like()?, host::steps(&(a / b)?, f64::trunc)?.neg()?)))
}

fn sign(number: f64) -> f64 {
    if number > 0.0 {
        1.0
    } else if number < 0.0 {
        -1.0
    } else if number.is_nan() {
        number
    } else {
        0.0
    }
}

fn round(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let (dtype, decimals) = (value.dtype, node.settings.integer("decimals").unwrap_or_default());
    if decimals == 0 {
        return number(node, same, |xs| host::steps(xs, f64::round_ties_even), Ok);
    }
    if !dtype.is_float() && decimals > 0 {
        return Ok(vec![value.with_tensor(value.tensor.clone())]);
    }
    // Keras: integers are rounded to tens as float32.
    let arithmetic = if dtype.is_float() { dtype } else { Dtype::Float32 };
    let xs = floats(&value, arithmetic)?;
    let factor = through(
        &Tensor::full(10_f64.powi(i32::try_from(decimals)?), xs.shape(), xs.device())?.to_dtype(xs.dtype())?,
        arithmetic,
    )?;
    let scaled = host::steps(&through(&(&xs * &factor)?, arithmetic)?, f64::round_ties_even)?;
    let result = (scaled / factor)?;
    match dtype.is_float() {
        true => Ok(vec![rounded(&result, dtype)?]),
        false => Ok(vec![convert(&Value::new(result, Dtype::Float32), dtype)?]),
    }
}

/// Whether each number is what `f` says of it; `of_integers` where there are no floats.
fn is(node: &Node<'_, Value>, f: fn(&Tensor) -> Result<Tensor>, of_integers: bool) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    if !value.dtype.is_float() {
        let (dims, device) = (value.tensor.dims(), value.tensor.device());
        return Ok(vec![truths(Tensor::full(u8::from(of_integers), dims, device)?)]);
    }
    Ok(vec![truths(f(&floats(&value, value.dtype)?)?)])
}

fn nan_to_num(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let setting = |key: &str| node.settings.number(key);
    let nan = setting("nan").unwrap_or_default();
    Ok(vec![finite(&node.value("x")?, nan, setting("posinf"), setting("neginf"))?])
}

/// `value` with numbers in place of NaN and the infinities: of those, the largest and the smallest where none is given.
pub(super) fn finite(value: &Value, nan: f64, above: Option<f64>, below: Option<f64>) -> Result<Value> {
    let dtype = value.dtype;
    if !dtype.is_float() {
        return Ok(value.with_tensor(value.tensor.clone()));
    }
    let largest = match dtype {
        Dtype::Float16 => half::f16::MAX.to_f64(),
        Dtype::Bfloat16 => half::bf16::MAX.to_f64(),
        Dtype::Float64 => f64::MAX,
        _ => f64::from(f32::MAX),
    };
    let xs = floats(value, dtype)?;
    let xs = or_number(&xs.eq(&xs)?, &xs, nan)?;
    let xs = or_number(&xs.ne(f64::INFINITY)?, &xs, above.unwrap_or(largest))?;
    let xs = or_number(&xs.ne(f64::NEG_INFINITY)?, &xs, below.unwrap_or(-largest))?;
    rounded(&xs, dtype)
}

fn signbit(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let negative = match value.dtype.is_float() {
        true => {
            let signs = value.tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            Integers {
                numbers: signs.into_iter().map(|number| i64::from(number.is_sign_negative())).collect(),
                dims: value.tensor.dims().to_vec(),
            }
        }
        false => Integers::of(&value)?.map(|number| Ok(i64::from(number < 0)))?,
    };
    Ok(vec![negative.value(Dtype::Bool, value.tensor.device())?])
}

fn identity(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    Ok(vec![value.with_tensor(value.tensor.clone())])
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "Floor",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::steps(xs, f64::floor)),
    ),
    operation("Ceil", X, |node| planned(node, floating), |node| plain(node, floating, |xs| host::steps(xs, f64::ceil))),
    operation("Trunc", X, |node| planned(node, same), |node| number(node, same, |xs| host::steps(xs, f64::trunc), Ok)),
    operation("Round", X, |node| planned(node, same), round).with(&[("decimals", Setting::Integer(0))]),
    operation(
        "Sign",
        X,
        |node| planned(node, same),
        |node| {
            super::arithmetic::no_truths(node.value("x")?.dtype)?;
            number(node, same, |xs| host::steps(xs, sign), |number| Ok(number.signum()))
        },
    ),
    operation("Signbit", X, |node| planned(node, truth), signbit),
    operation("NanToNum", X, |node| planned(node, same), nan_to_num).with(&[
        ("nan", Setting::Number(0.0)),
        ("posinf", Setting::Scalar),
        ("neginf", Setting::Scalar),
    ]),
    operation("Isfinite", X, |node| planned(node, truth), |node| is(node, |xs| xs.abs()?.lt(f64::INFINITY), true)),
    operation("Isinf", X, |node| planned(node, truth), |node| is(node, |xs| xs.abs()?.eq(f64::INFINITY), false)),
    operation("Isnan", X, |node| planned(node, truth), |node| is(node, |xs| xs.ne(xs), false)),
    operation("Isneginf", X, |node| planned(node, truth), |node| is(node, |xs| xs.eq(f64::NEG_INFINITY), false)),
    operation("Isposinf", X, |node| planned(node, truth), |node| is(node, |xs| xs.eq(f64::INFINITY), false)),
    operation(
        "Isreal",
        X,
        |node| planned(node, truth),
        |node| is(node, |xs| Tensor::ones(xs.dims(), DType::U8, xs.device()), true),
    ),
    operation("Copy", X, |node| planned(node, same), identity),
    operation("Real", X, |node| planned(node, same), identity).giving_back(|_| true),
    operation("Conj", X, |node| planned(node, same), identity).giving_back(|_| true),
    operation("Conjugate", X, |node| planned(node, same), identity).giving_back(|_| true),
    operation(
        "Angle",
        X,
        |node| planned(node, floating),
        |node| {
            plain(node, floating, |xs| host::steps(xs, |number| if number < 0.0 { std::f64::consts::PI } else { 0.0 }))
        },
    ),
];
