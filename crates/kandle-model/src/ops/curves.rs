//! Curved functions of one operand: exponentials, logarithms, trigonometry. Source: keras/src/backend/tensorflow/numpy.py.

use std::f64::consts::PI;

use candle_core::{Result, Tensor};
use kandle_format::Dtype;

use super::{
    Operation,
    elementwise::{X, curve, floating, floating_or_double, plain, planned},
    host, operation,
};
use crate::numeric::constant_like;

/// Floats as they are, float32 for anything else.
fn float_or_single(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { Dtype::Float32 }
}

/// `number` as `xs` has it: a constant of a graph is rounded to the dtype it is used in.
fn constant(number: f64, xs: &Tensor) -> Result<f64> {
    constant_like(xs, number)?.flatten_all()?.get(0)?.to_dtype(candle_core::DType::F64)?.to_scalar()
}

/// 1 / √(1 − x²), and the like: `sign` is that of x², `minus` what it is added to.
fn inverse_root(xs: &Tensor, sign: f64, one: f64) -> Result<Tensor> {
    (xs.sqr()? * sign)?.affine(1.0, one)?.sqrt()?.recip()
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Exp", X, |node| planned(node, float_or_single), |node| curve(node, float_or_single, Tensor::exp)),
    operation(
        "Exp2",
        X,
        |node| planned(node, float_or_single),
        |node| {
            plain(node, float_or_single, |xs| {
                host::map(xs, f64::exp2, |xs| (xs * std::f64::consts::LN_2)?.exp()? * std::f64::consts::LN_2)
            })
        },
    ),
    operation(
        "Expm1",
        X,
        |node| planned(node, float_or_single),
        |node| plain(node, float_or_single, |xs| host::map(xs, f64::exp_m1, Tensor::exp)),
    ),
    operation("Log", X, |node| planned(node, floating), |node| curve(node, floating, Tensor::log)),
    operation(
        "Log10",
        X,
        |node| planned(node, floating),
        |node| curve(node, floating, |xs| xs.log()? * std::f64::consts::LOG10_E),
    ),
    operation(
        "Log2",
        X,
        |node| planned(node, floating),
        |node| curve(node, floating, |xs| xs.log()? * std::f64::consts::LOG2_E),
    ),
    operation(
        "Log1p",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::ln_1p, |xs| (xs + 1.0)?.recip())),
    ),
    operation("Sqrt", X, |node| planned(node, floating), |node| plain(node, floating, Tensor::sqrt)),
    operation(
        "Cbrt",
        X,
        |node| planned(node, floating_or_double),
        |node| {
            plain(node, floating_or_double, |xs| {
                // Keras: sign(x) · |x|^(1/3), which is 0.0 at −0.0.
                host::map(
                    xs,
                    |x| f64::cbrt(x) + 0.0,
                    |xs| (host::map(xs, f64::cbrt, Tensor::zeros_like)?.sqr()? * 3.0)?.recip(),
                )
            })
        },
    ),
    operation("Sin", X, |node| planned(node, floating), |node| curve(node, floating, Tensor::sin)),
    operation("Cos", X, |node| planned(node, floating), |node| curve(node, floating, Tensor::cos)),
    operation(
        "Tan",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::tan, |xs| xs.cos()?.sqr()?.recip())),
    ),
    operation("Tanh", X, |node| planned(node, floating), |node| curve(node, floating, Tensor::tanh)),
    operation(
        "Sinh",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::sinh, |xs| (xs.exp()? + xs.neg()?.exp()?)? * 0.5)),
    ),
    operation(
        "Cosh",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::cosh, |xs| (xs.exp()? - xs.neg()?.exp()?)? * 0.5)),
    ),
    operation(
        "Arcsin",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::asin, |xs| inverse_root(xs, -1.0, 1.0))),
    ),
    operation(
        "Arccos",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::acos, |xs| inverse_root(xs, -1.0, 1.0)?.neg())),
    ),
    operation(
        "Arctan",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::atan, |xs| (xs.sqr()? + 1.0)?.recip())),
    ),
    operation(
        "Arcsinh",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::asinh, |xs| inverse_root(xs, 1.0, 1.0))),
    ),
    operation(
        "Arccosh",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::acosh, |xs| inverse_root(xs, 1.0, -1.0))),
    ),
    operation(
        "Arctanh",
        X,
        |node| planned(node, floating),
        |node| plain(node, floating, |xs| host::map(xs, f64::atanh, |xs| (xs.sqr()?.neg()? + 1.0)?.recip())),
    ),
    operation(
        "Deg2rad",
        X,
        |node| planned(node, floating_or_double),
        |node| {
            plain(node, floating_or_double, |xs| {
                let factor = constant(constant(PI, xs)? / 180.0, xs)?;
                xs * factor
            })
        },
    ),
    operation(
        "Rad2deg",
        X,
        |node| planned(node, floating_or_double),
        |node| {
            plain(node, floating_or_double, |xs| {
                let factor = constant(180.0 / constant(PI, xs)?, xs)?;
                xs * factor
            })
        },
    ),
    operation(
        "Sinc",
        X,
        |node| planned(node, floating),
        |node| {
            plain(node, floating, |xs| {
                let zero = xs.eq(&xs.zeros_like()?)?;
                let angle = (xs * PI)?;
                let safe = zero.where_cond(&xs.ones_like()?, &angle)?;
                let ratio = crate::numeric::wide(&safe, |angle| angle.sin()?.div(angle))?;
                zero.where_cond(&xs.ones_like()?, &ratio)
            })
        },
    ),
];
