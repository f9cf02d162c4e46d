//! Normalizations and norms. Source: keras/src/ops/nn.py, keras/src/ops/linalg.py, keras/src/backend/tensorflow/linalg.py.

use candle_core::{DType, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem, json::Value as Json};

use super::{
    Node, Operation, Setting, convert,
    elementwise::{X, floating, or_number, stretched},
    floats, invalid,
    losses::EPSILON,
    one, operation, result_type, rounded, shapes, singular,
};
use crate::{
    Shape, Spec, Value,
    activation::clip,
    numeric::{constant_like, wide},
};

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("Moments", X, planned_moments, moments).with(&[
        ("axes", Setting::Integers),
        ("keepdims", Setting::Flag(false)),
        // Devices that compute together: there is one.
        ("synchronized", Setting::Flag(false)),
    ]),
    operation("BatchNorm", &["x", "mean", "variance", "offset", "scale"], planned_batch, batch)
        .with(&[("axis", Setting::Integer(-1)), ("epsilon", Setting::Number(1e-3))]),
    operation("LayerNorm", &["x", "gamma", "beta"], with_axes, layer).with(&[
        ("axis", Setting::Integers),
        ("epsilon", Setting::Scalar),
        ("rms_scaling", Setting::Flag(false)),
    ]),
    operation("RMSNorm", &["x", "scale"], with_axes, root_mean_square)
        .with(&[("axis", Setting::Integers), ("epsilon", Setting::Scalar)]),
    // Keras: plans float32, whatever comes in.
    operation("Normalize", X, planned_normalize, normalize).with(&[
        ("axis", Setting::Integers),
        ("order", Setting::Integer(2)),
        ("epsilon", Setting::Scalar),
    ]),
    operation("Norm", X, planned_norm, norm).with(&[
        ("ord", Setting::Any),
        ("axis", Setting::Integers),
        ("keepdims", Setting::Flag(false)),
    ]),
];

/// The sum over `axes`, which stay as axes of 1.
fn sum(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    wide(xs, |xs| xs.sum_keepdim(axes))
}

fn mean(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let count: usize = axes.iter().map(|axis| xs.dim(*axis)).product::<Result<usize>>()?;
    wide(xs, |xs| xs.sum_keepdim(axes)? / count as f64)
}

/// The largest, or the smallest, over `axes`, which stay as axes of 1; NaN where one of them is.
pub(super) fn extreme(xs: &Tensor, axes: &[usize], largest: bool) -> Result<Tensor> {
    let mut found = xs.clone();
    for axis in axes {
        if found.dim(*axis)? == 0 {
            bail!("the largest or smallest of no numbers");
        }
        let nan = found.ne(&found)?.to_dtype(DType::U8)?.max_keepdim(*axis)?;
        let one = if largest { found.max_keepdim(*axis)? } else { found.min_keepdim(*axis)? };
        found = nan.where_cond(&constant_like(&one, f64::NAN)?, &one)?;
    }
    Ok(found)
}

/// `xs`, whose `axes` are of 1, without them.
fn without(xs: Tensor, axes: &[usize], keepdims: bool) -> Result<Tensor> {
    if keepdims {
        return Ok(xs);
    }
    let kept: Vec<usize> =
        xs.dims().iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| *size).collect();
    xs.reshape(kept)
}

fn rsqrt(xs: &Tensor) -> Result<Tensor> {
    wide(xs, |xs| xs.sqrt()?.recip())
}

fn planned_moments(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    if !xs.dtype.is_float() {
        return Err(unsupported(format!("the moments of {} are not supported (only floats)", xs.dtype)));
    }
    let axes = shapes::axes(node.settings.integers("axes"), xs.shape.rank()).map_err(invalid)?;
    let spec = xs.with_shape(shapes::reduced(&xs.shape, &axes, node.settings.flag("keepdims")));
    Ok(vec![spec.clone(), spec])
}

/// Mean and variance. Half precision is held between float16's bounds, bfloat16 too.
fn moments(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    const MOST: f64 = 65504.0;
    let value = node.value("x")?;
    let xs = floats(&value, value.dtype)?;
    let axes = shapes::axes(node.settings.integers("axes"), xs.rank()).map_err(candle_core::Error::msg)?;
    let (mean, variance) = mean_and_variance(&xs, &axes)?;
    let keepdims = node.settings.flag("keepdims");
    let half = matches!(value.dtype, Dtype::Float16 | Dtype::Bfloat16);
    let finish = |xs: Tensor| {
        let xs = if half { clip(&xs, -MOST, MOST)? } else { xs };
        rounded(&without(xs, &axes, keepdims)?, value.dtype)
    };
    Ok(vec![finish(mean)?, finish(variance)?])
}

fn mean_and_variance(xs: &Tensor, axes: &[usize]) -> Result<(Tensor, Tensor)> {
    let centre = mean(xs, axes)?;
    let variance = mean(&xs.broadcast_sub(&centre)?.sqr()?, axes)?;
    Ok((centre, variance))
}

fn unsupported(what: String) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

fn planned_batch(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), xs.shape.rank()).map_err(invalid)?;
    if !xs.dtype.is_float() {
        return Err(unsupported(format!("an input of {} is not supported (only floats)", xs.dtype)));
    }
    let expected = Shape(xs.shape.0.get(axis).copied().into_iter().collect());
    for name in ["mean", "variance", "offset", "scale"] {
        let required = matches!(name, "mean" | "variance");
        let operand = if required { Some(node.operand(name)?) } else { node.optional(name)? };
        if let Some(found) = operand.map(|operand| operand.shape()).filter(|found| *found != expected) {
            return Err(invalid(format!("{name}: expected shape {expected}, found {found}")));
        }
    }
    Ok(vec![xs])
}

/// `x · s + (offset − mean · s)` with `s = scale / √(variance + ε)`.
fn batch(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let xs = floats(&value, value.dtype)?;
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), xs.rank()).map_err(candle_core::Error::msg)?;
    let mut dims = vec![1; xs.rank()];
    if let Some(size) = dims.get_mut(axis) {
        *size = xs.dim(axis)?;
    }
    let vector = |name: &str| -> Result<Option<Tensor>> {
        let Some(operand) = node.optional(name)? else { return Ok(None) };
        floats(&operand.cast(value.dtype, xs.device())?, value.dtype)?.reshape(dims.as_slice()).map(Some)
    };
    let (Some(mean), Some(variance)) = (vector("mean")?, vector("variance")?) else {
        bail!("mean or variance is missing")
    };
    let mut factor = rsqrt(&(variance + node.settings.number("epsilon").unwrap_or(1e-3))?)?;
    if let Some(scale) = vector("scale")? {
        factor = (factor * scale)?;
    }
    let offset = match vector("offset")? {
        Some(offset) => (offset - (mean * &factor)?)?,
        None => (mean * &factor)?.neg()?,
    };
    Ok(vec![rounded(&xs.broadcast_mul(&factor)?.broadcast_add(&offset)?, value.dtype)?])
}

fn with_axes(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let axes = node.settings.integers("axis");
    if axes.is_none() {
        return Err(invalid("axis is missing"));
    }
    shapes::axes(axes, xs.shape.rank()).map_err(invalid)?;
    match xs.dtype {
        Dtype::Bool | Dtype::String => Err(invalid(format!("expected numbers, found {}", xs.dtype))),
        _ => Ok(vec![xs]),
    }
}

fn epsilon<T>(node: &Node<'_, T>) -> f64 {
    node.settings.number("epsilon").unwrap_or(EPSILON)
}

/// `x`, its axes, and the dtype it is computed in: half precision and integers in float32.
fn normalized(node: &Node<'_, Value>) -> Result<(Tensor, Vec<usize>, Dtype, Dtype)> {
    let value = node.value("x")?;
    let compute = result_type(&[value.dtype.into(), Dtype::Float32.into()]);
    let xs = floats(&value, compute)?;
    let axes = shapes::axes(node.settings.integers("axis"), xs.rank()).map_err(candle_core::Error::msg)?;
    Ok((xs, axes, compute, value.dtype))
}

/// `x · s + (beta − mean · s)` with `s = gamma / √(variance + ε)`.
///
/// Keras: `rms_scaling` divides by the deviation from the mean, but does not take the mean away, and adds no beta.
fn layer(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, axes, compute, dtype) = normalized(node)?;
    let dims: Vec<usize> =
        xs.dims().iter().enumerate().map(|(axis, size)| if axes.contains(&axis) { *size } else { 1 }).collect();
    let last = axes == [xs.rank().saturating_sub(1)];
    let vector = |name: &str| -> Result<Option<Tensor>> {
        let Some(operand) = node.optional(name)? else { return Ok(None) };
        let vector = floats(&operand.cast(compute, xs.device())?, compute)?;
        if vector.rank() == xs.rank() || last { Ok(Some(vector)) } else { vector.reshape(dims.as_slice()).map(Some) }
    };
    let (mean, variance) = mean_and_variance(&xs, &axes)?;
    let mut factor = rsqrt(&(variance + epsilon(node))?)?;
    let ys = if node.settings.flag("rms_scaling") {
        let ys = xs.broadcast_mul(&factor)?;
        match vector("gamma")? {
            Some(gamma) => ys.broadcast_mul(&gamma)?,
            None => ys,
        }
    } else {
        if let Some(gamma) = vector("gamma")? {
            factor = factor.broadcast_mul(&gamma)?;
        }
        let mut rest = mean.neg()?.broadcast_mul(&factor)?;
        if let Some(beta) = vector("beta")? {
            rest = rest.broadcast_add(&beta)?;
        }
        xs.broadcast_mul(&factor)?.broadcast_add(&rest)?
    };
    Ok(vec![convert(&rounded(&ys, compute)?, dtype)?])
}

/// `x / √(mean x² + ε) · scale`.
fn root_mean_square(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, axes, compute, dtype) = normalized(node)?;
    let factor = rsqrt(&(mean(&xs.sqr()?, &axes)? + epsilon(node))?)?;
    let mut ys = xs.broadcast_mul(&factor)?;
    if let Some(scale) = node.optional("scale")? {
        let scale = floats(&scale.cast(compute, xs.device())?, compute)?;
        let (stretched_ys, scale) = stretched(&ys, &scale)?;
        ys = (stretched_ys * scale)?;
    }
    Ok(vec![convert(&rounded(&ys, compute)?, dtype)?])
}

fn planned_normalize(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    shapes::axes(node.settings.integers("axis"), xs.shape.rank()).map_err(invalid)?;
    match node.settings.integer("order") {
        Some(1..) if xs.dtype.is_float() => one(xs.shape, Dtype::Float32),
        Some(1..) => Err(unsupported(format!("an input of {} is not supported (only floats)", xs.dtype))),
        _ => Err(invalid("order: expected a whole number of at least 1")),
    }
}

/// `x · min(1 / √Σx², 1 / ε)`; of other orders, `x / max(norm, ε)`.
fn normalize(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let xs = floats(&value, value.dtype)?;
    let axes = shapes::axes(node.settings.integers("axis"), xs.rank()).map_err(candle_core::Error::msg)?;
    let order = node.settings.integer("order").unwrap_or(2);
    let ys = if order == 2 {
        let factor = rsqrt(&sum(&xs.sqr()?, &axes)?)?;
        xs.broadcast_mul(&clip(&factor, f64::NEG_INFINITY, 1.0 / epsilon(node))?)?
    } else {
        let listed = ordered(node, xs.rank()).map_err(candle_core::Error::msg)?;
        let norm = norm_of(&xs, &listed, Order::Power(order as f64))?;
        xs.broadcast_div(&clip(&norm, epsilon(node), f64::INFINITY)?)?
    };
    Ok(vec![rounded(&ys, value.dtype)?])
}

/// The axes in the order they are named in, all of them where none are.
fn ordered<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<Vec<usize>, String> {
    match node.settings.integers("axis") {
        None => Ok((0..rank).collect()),
        Some(named) => named.iter().map(|axis| shapes::axis(*axis, rank)).collect(),
    }
}

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    /// The default, and `fro`.
    Euclidean,
    /// `nuc`: the sum of the singular values.
    Nuclear,
    /// A number, infinities included.
    Power(f64),
}

fn order(value: Option<&Json>, axes: usize) -> std::result::Result<Order, String> {
    let unknown = |value: &Json| format!("ord: {} is no norm over {axes} axes", kandle_format::json::shown(value));
    let Some(value) = value else { return Ok(Order::Euclidean) };
    let order = match (value.as_str(), kandle_format::json::number(value)) {
        (_, Some(number)) => Order::Power(number),
        (Some("fro"), None) if axes == 2 => Order::Euclidean,
        (Some("nuc"), None) if axes == 2 => Order::Nuclear,
        _ => return Err(unknown(value)),
    };
    match order {
        Order::Power(power) if axes == 2 && !(power.abs() == 1.0 || power.abs() == 2.0 || power.is_infinite()) => {
            Err(unknown(value))
        }
        order => Ok(order),
    }
}

/// The dtype a norm is computed in, and the one Keras plans. Keras: it plans float32 for every integer.
fn planned_norm(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let rank = xs.shape.rank();
    let axes = ordered(node, rank).map_err(invalid)?;
    if !(1..=2).contains(&axes.len()) {
        return Err(invalid(format!("a norm over {} axes (only over 1 or 2)", axes.len())));
    }
    order(node.settings.any("ord"), axes.len()).map_err(invalid)?;
    let over = shapes::axes(node.settings.integers("axis"), rank).map_err(invalid)?;
    let dtype = if xs.dtype.is_float() { xs.dtype } else { Dtype::Float32 };
    one(shapes::reduced(&xs.shape, &over, node.settings.flag("keepdims")), dtype)
}

fn norm(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = floating(value.dtype);
    let xs = floats(&value, dtype)?;
    let axes = ordered(node, xs.rank()).map_err(candle_core::Error::msg)?;
    let order = order(node.settings.any("ord"), axes.len()).map_err(candle_core::Error::msg)?;
    let found = norm_of(&xs, &axes, order)?;
    Ok(vec![rounded(&without(found, &axes, node.settings.flag("keepdims"))?, dtype)?])
}

/// The norm over `axes`, which stay as axes of 1.
fn norm_of(xs: &Tensor, axes: &[usize], order: Order) -> Result<Tensor> {
    match (axes, order) {
        ([_] | [_, _], Order::Euclidean) | ([_], Order::Power(2.0)) => sum(&xs.sqr()?, axes)?.sqrt(),
        ([_], Order::Power(power)) if power.is_infinite() => extreme(&xs.abs()?, axes, power > 0.0),
        ([_], Order::Power(0.0)) => sum(&or_number(&xs.eq(0.0)?, &xs.zeros_like()?, 1.0)?, axes),
        ([_], Order::Power(power)) => {
            let powers = wide(&xs.abs()?, |xs| raised(xs, power))?;
            wide(&sum(&powers, axes)?, |sums| raised(sums, 1.0 / power))
        }
        ([rows, columns], Order::Power(power)) if power.abs() == 1.0 || power.is_infinite() => {
            let (inner, outer) = if power.is_infinite() { (*columns, *rows) } else { (*rows, *columns) };
            extreme(&sum(&xs.abs()?, &[inner])?, &[outer], power > 0.0)
        }
        ([rows, columns], Order::Nuclear | Order::Power(_)) => {
            let values = singular::values(xs, *rows, *columns)?;
            let last = [values.rank() - 1];
            let found = match order {
                Order::Power(power) => extreme(&values, &last, power > 0.0)?,
                _ => sum(&values, &last)?,
            };
            let dims: Vec<usize> =
                xs.dims().iter().enumerate().map(|(axis, size)| if axes.contains(&axis) { 1 } else { *size }).collect();
            found.reshape(dims)
        }
        _ => bail!("a norm over {} axes", axes.len()),
    }
}

/// `xs`, which are not negative, to `power`.
fn raised(xs: &Tensor, power: f64) -> Result<Tensor> {
    if power == 1.0 { Ok(xs.clone()) } else { xs.powf(power) }
}
