//! Numbers at even steps, powers, integrals, and functions by the number. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Kind, Node, Operand, Operation, Setting, convert,
    elementwise::{X, X1_X2, apart, floating_or_double, planned, planned_pair, stretched},
    floats, host, invalid, one, operation,
    reduction::{sum_of, variance_dtype},
    result_type, rounded,
    rounding::through,
    shapes,
};
use crate::{
    Shape, Spec, Value,
    numeric::{self, constant_like, wide},
};

/// The numbers between two ends, evenly spaced along a new `axis`, each step rounded to `dtype`: the first is `start`, the
/// last of several is `stop` itself.
fn evenly(start: &Tensor, stop: &Tensor, count: usize, axis: usize, dtype: Dtype) -> Result<Tensor> {
    let (start, stop) = stretched(start, stop)?;
    let (start, stop) = (start.unsqueeze(axis)?.contiguous()?, stop.unsqueeze(axis)?.contiguous()?);
    let steps = count.saturating_sub(1).max(1);
    let delta = part_of(&(&stop - &start)?, steps, dtype)?;
    let mut parts = vec![start.clone()];
    for at in 1..steps {
        let factor = through(&constant_like(&delta, at as f64)?, dtype)?;
        parts.push(through(&(&start + through(&(&delta * factor)?, dtype)?)?, dtype)?);
    }
    parts.push(stop);
    parts.truncate(count);
    match parts.is_empty() {
        true => start.narrow(axis, 0, 0),
        false => Tensor::cat(&parts, axis),
    }
}

/// `xs` divided by a whole number, each rounded to `dtype`. candle's own quotient by a number is a product.
fn part_of(xs: &Tensor, count: usize, dtype: Dtype) -> Result<Tensor> {
    let xs = through(xs, dtype)?;
    through(&xs.div(&through(&constant_like(&xs, count as f64)?, dtype)?)?, dtype)
}

fn count<T>(node: &Node<'_, T>) -> std::result::Result<usize, String> {
    let count = node.settings.integer("num").and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count < 1 << 24).ok_or_else(|| "num: expected a whole number of at least 0".to_owned())
}

/// Keras: the plan has the dtype of `start` or the one asked for, as floats; what comes out has that of both.
fn planned_space(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (start, stop) = (node.operand("start")?, node.operand("stop")?);
    let Shape(mut axes) = shapes::broadcast(&start.shape(), &stop.shape())?;
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(0), axes.len() + 1).map_err(invalid)?;
    axes.insert(axis, Some(count(node).map_err(invalid)?));
    let asked = node.settings.dtype("dtype");
    if asked.is_some_and(|dtype| !dtype.is_float() && !matches!(dtype, Dtype::Int32 | Dtype::Int64)) {
        return Err(Problem::new(ErrorKind::Unsupported, "", "dtype: only floats, int32 and int64 are supported"));
    }
    let own = asked.map_or_else(|| start.kind(), Kind::from);
    one(Shape(axes), result_type(&[own, Kind::Float]))
}

/// The dtype of a space: that of both ends as floats, or the one asked for.
fn space_dtype(node: &Node<'_, Value>) -> Result<Dtype> {
    let together = result_type(&[node.operand("start")?.kind(), node.operand("stop")?.kind(), Kind::Float]);
    Ok(node.settings.dtype("dtype").unwrap_or(together))
}

/// From `start` to `stop` in floats; of integers in float64.
fn space(node: &Node<'_, Value>, start: &Value, stop: &Value, dtype: Dtype) -> Result<(Tensor, Dtype)> {
    let arithmetic = if dtype.is_float() { dtype } else { Dtype::Float64 };
    let (start, mut stop) = (floats(start, arithmetic)?, floats(stop, arithmetic)?);
    let count = count(node).map_err(candle_core::Error::msg)?;
    if !node.settings.flag("endpoint") && count > 1 {
        let (from, to) = stretched(&start, &stop)?;
        let step = part_of(&(&to - &from)?, count, arithmetic)?;
        stop = through(&(to - step)?, arithmetic)?;
    }
    let rank = start.rank().max(stop.rank());
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(0), rank + 1).map_err(candle_core::Error::msg)?;
    Ok((evenly(&start, &stop, count, axis, arithmetic)?, arithmetic))
}

/// Keras: integers are rounded down.
fn finished(xs: &Tensor, arithmetic: Dtype, dtype: Dtype) -> Result<Value> {
    match dtype.is_float() {
        true => rounded(xs, dtype),
        false => convert(&rounded(&host::steps(xs, f64::floor)?, arithmetic)?, dtype),
    }
}

fn linspace(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (dtype, device) = (space_dtype(node)?, node.device());
    let (start, stop) = (node.operand("start")?.cast(dtype, &device)?, node.operand("stop")?.cast(dtype, &device)?);
    let (found, arithmetic) = space(node, &start, &stop, dtype)?;
    Ok(vec![finished(&found, arithmetic, dtype)?])
}

/// `base` to the power of what [`space`] gives.
fn power_of(node: &Node<'_, Value>, base: f64, found: &Tensor, arithmetic: Dtype, dtype: Dtype) -> Result<Value> {
    let exponents = finished(found, arithmetic, dtype)?;
    if !dtype.is_float() {
        let base = numeric::cast(&Value::new(Tensor::new(base, &node.device())?, Dtype::Float64), dtype)?;
        let base = Integers::of(&base)?;
        let power = |exponent: i64, base: i64| match u32::try_from(exponent) {
            Ok(exponent) => Ok(base.wrapping_pow(exponent)),
            Err(_) => bail!("an integer to the power of {exponent} is no integer"),
        };
        return Integers::of(&exponents)?.zip(&base, power)?.value(dtype, &node.device());
    }
    let xs = floats(&exponents, dtype)?;
    let base = through(&constant_like(&xs, base)?, dtype)?;
    let found = host::zip(&base, &xs, f64::powf, |base, xs| {
        let power = host::zip(base, xs, f64::powf, |base, _| Ok((base.zeros_like()?, base.zeros_like()?)))?;
        Ok((base.zeros_like()?, (power * base.log()?)?))
    })?;
    rounded(&found, dtype)
}

fn logspace(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (dtype, device) = (space_dtype(node)?, node.device());
    let (start, stop) = (node.operand("start")?.cast(dtype, &device)?, node.operand("stop")?.cast(dtype, &device)?);
    let (found, arithmetic) = space(node, &start, &stop, dtype)?;
    Ok(vec![power_of(node, node.settings.number("base").unwrap_or(10.0), &found, arithmetic, dtype)?])
}

/// Keras: through decimal logarithms, so that the ends themselves are rounded, and in float32 whatever comes in; the signs
/// are those of `start`, stretched as if the new axis were the first.
fn geomspace(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = node.settings.dtype("dtype").unwrap_or(Dtype::Float32);
    if !dtype.is_float() {
        bail!("dtype: expected a dtype of floats, found {dtype}");
    }
    let log = |xs: &Tensor| through(&wide(xs, Tensor::log)?, dtype);
    let end = |name: &str| -> Result<(Value, Tensor)> {
        let own = floats(&node.value(name)?, dtype)?;
        let base = log(&constant_like(&own, 10.0)?)?;
        Ok((rounded(&(log(&own.abs()?)? / base)?, dtype)?, own))
    };
    let ((start, own), (stop, _)) = (end("start")?, end("stop")?);
    let (found, arithmetic) = space(node, &start, &stop, dtype)?;
    let found = floats(&power_of(node, 10.0, &found, arithmetic, dtype)?, dtype)?;
    let sign = own.gt(&own.zeros_like()?)?.to_dtype(own.dtype())?;
    let sign = (sign - own.lt(&own.zeros_like()?)?.to_dtype(own.dtype())?)?;
    Ok(vec![rounded(&found.broadcast_mul(&sign)?, dtype)?])
}

fn planned_vander(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let count = node.settings.integer("N").map(usize::try_from).transpose();
    let count = count.map_err(|_| invalid("N: expected a whole number of at least 0"))?;
    match xs.shape.0.as_slice() {
        [size] => one(Shape(vec![*size, count.or(*size)]), xs.dtype),
        _ => Err(invalid(format!("expected an input of rank 1, found {}", xs.shape))),
    }
}

/// The powers of each number, the highest first. Keras: those of integers are computed in float32.
fn vander(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    const EXACT: f64 = 16_777_216.0;
    let value = node.value("x")?;
    let size = value.tensor.elem_count();
    let count = node.settings.integer("N").map_or(Ok(size), usize::try_from)?;
    if count > 1 << 16 {
        bail!("{count} powers");
    }
    let arithmetic = result_type(&[value.dtype.into(), Dtype::Float32.into()]);
    let xs = floats(&value, arithmetic)?;
    let mut powers: Vec<f64> = (0..count).map(|power| power as f64).collect();
    if !node.settings.flag("increasing") {
        powers.reverse();
    }
    let powers = Tensor::from_vec(powers, (1, count), xs.device())?.to_dtype(xs.dtype())?;
    let (xs, powers) = stretched(&xs.unsqueeze(1)?, &powers)?;
    let found = host::zip(&xs, &powers, f64::powf, |xs, powers| {
        let less = (powers - 1.0)?;
        let power = host::zip(xs, &less, f64::powf, |xs, _| Ok((xs.zeros_like()?, xs.zeros_like()?)))?;
        let constant = powers.eq(&powers.zeros_like()?)?;
        Ok((constant.where_cond(&xs.zeros_like()?, &(powers * power)?)?, xs.zeros_like()?))
    })?;
    if !value.dtype.is_float() {
        let numbers = found.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        if numbers.iter().any(|number| number.abs() > EXACT) {
            bail!("powers of integers beyond {EXACT} are not supported: float32 has not all of them");
        }
    }
    Ok(vec![convert(&rounded(&found, arithmetic)?, value.dtype)?])
}

/// The numbers of a setting, one or a list.
fn setting<T>(node: &Node<'_, T>, key: &str) -> std::result::Result<Option<Value>, String> {
    let found = node.settings.any(key).map(|value| numeric::constant(value, None));
    found.transpose().map_err(|what| format!("{key}: {what}"))
}

fn planned_integral(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let ys = node.spec("y")?;
    let Shape(mut axes) = ys.shape;
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), axes.len()).map_err(invalid)?;
    axes.remove(axis);
    setting(node, "x").and(setting(node, "dx")).map_err(invalid)?;
    one(Shape(axes), variance_dtype(ys.dtype))
}

/// The integral of what is straight between the numbers, at steps `dx` or at the places `x`.
fn integral(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("y")?;
    let dtype = variance_dtype(value.dtype);
    let axis = node.settings.integer("axis").unwrap_or(-1);
    let to_last = |xs: &Tensor| -> Result<Tensor> {
        let from = shapes::axis(axis, xs.rank()).map_err(candle_core::Error::msg)?;
        let order: Vec<usize> = (0..xs.rank()).filter(|at| *at != from).chain([from]).collect();
        xs.permute(order)?.contiguous()
    };
    let part = |xs: &Tensor, from: usize| -> Result<Tensor> {
        let last = xs.rank() - 1;
        let Some(size) = xs.dim(last)?.checked_sub(1) else { bail!("an empty axis has no integral") };
        xs.narrow(last, from, size)
    };
    let ys = to_last(&floats(&value, dtype)?)?;
    let own = |key: &str| setting(node, key).map_err(candle_core::Error::msg);
    let steps = match own("x")? {
        Some(places) => {
            let places = to_last(&floats(&places, dtype)?)?.to_device(ys.device())?;
            through(&(part(&places, 1)? - part(&places, 0)?)?, dtype)?
        }
        None => match own("dx")? {
            Some(step) => floats(&step, dtype)?.to_device(ys.device())?,
            None => Tensor::ones((), ys.dtype(), ys.device())?,
        },
    };
    let heights = (through(&(part(&ys, 1)? + part(&ys, 0)?)?, dtype)? * 0.5)?;
    let areas = through(&heights.broadcast_mul(&steps)?, dtype)?;
    let last = areas.rank() - 1;
    Ok(vec![rounded(&sum_of(&areas, &[last])?.squeeze(last)?, dtype)?])
}

/// Σ (x/2)²ᵏ⁺ᵒ / (k! (k+o)!), the modified Bessel functions of order o, 0 or 1. All terms have one sign.
fn bessel(x: f64, order: u8) -> f64 {
    let half = x / 2.0;
    let mut term = if order == 0 { 1.0 } else { half };
    let mut sum = term;
    for k in 1..2000 {
        let k = f64::from(k);
        term *= half * half / (k * (k + f64::from(order)));
        sum += term;
        if term.abs() <= sum.abs() * 1e-18 {
            break;
        }
    }
    sum
}

/// Keras: at an infinity it is NaN, and infinite from where e^x is.
fn bessel_0(x: f64, overflow: f64) -> f64 {
    if x.is_nan() || x.is_infinite() {
        f64::NAN
    } else if x.abs() > overflow {
        f64::INFINITY
    } else {
        bessel(x, 0)
    }
}

fn i0(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = floating_or_double(value.dtype);
    // The logarithms of the largest float32 and the largest float64.
    let f: fn(f64) -> f64 = match dtype {
        Dtype::Float64 => |x| bessel_0(x, 709.782_712_893_384),
        _ => |x| bessel_0(x, 88.722_839),
    };
    let xs = floats(&value, dtype)?;
    Ok(vec![rounded(&host::map(&xs, f, |xs| host::map(xs, |x| bessel(x, 1), Tensor::zeros_like))?, dtype)?])
}

/// The next float64 from `a` towards `b`. Keras: it is rounded to float32 again, and lost.
fn next(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        b
    } else if a < b {
        a.next_up()
    } else {
        a.next_down()
    }
}

fn next_after(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = variance_dtype(apart(&node.operand("x1")?, &node.operand("x2")?));
    let device = node.device();
    let own = |operand: Operand<'_, Value>| floats(&operand.value(&device)?, Dtype::Float64);
    let (a, b) = stretched(&own(node.operand("x1")?)?, &own(node.operand("x2")?)?)?;
    let found = host::zip(&a, &b, next, |a, b| Ok((a.ones_like()?, b.zeros_like()?)))?;
    Ok(vec![rounded(&found, dtype)?])
}

fn planned_correlation(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.spec("x1")?, node.spec("x2")?);
    let ([n], [m]) = (a.shape.0.as_slice(), b.shape.0.as_slice()) else {
        return Err(invalid(format!("expected two inputs of rank 1, found {} and {}", a.shape, b.shape)));
    };
    let size = n.zip(*m).map(|(n, m)| match node.settings.text("mode") {
        "same" => n.max(m),
        "full" => (n + m).saturating_sub(1),
        _ => n.abs_diff(m) + 1,
    });
    one(Shape(vec![size]), correlated(a.dtype, b.dtype))
}

fn correlated(a: Dtype, b: Dtype) -> Dtype {
    match result_type(&[a.into(), b.into()]) {
        Dtype::Int64 => Dtype::Float64,
        dtype if dtype.is_float() => dtype,
        _ => Dtype::Float32,
    }
}

/// The sums of products of `x2` with what it covers of `x1` as it is moved along.
fn correlate(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    const MOST: usize = 1 << 28;
    let (a, b) = (node.value("x1")?, node.value("x2")?);
    let dtype = correlated(a.dtype, b.dtype);
    let (xs, filter) = (floats(&a, dtype)?, floats(&b, dtype)?);
    let (n, m) = (xs.dim(0)?, filter.dim(0)?);
    let around = match node.settings.text("mode") {
        "same" | "full" => m.saturating_sub(1),
        _ => 0,
    };
    let count = (n + 2 * around + 1).saturating_sub(m);
    if m == 0 || n == 0 || n + 2 * around < m || count.saturating_mul(m) > MOST {
        bail!("a correlation of {n} numbers with {m}");
    }
    let padded = crate::math::window::pad(&xs, 0, around, around, 0.0)?;
    let cells: Vec<usize> = (0..count).flat_map(|at| at..at + m).collect();
    let windows = crate::math::window::select(&padded, 0, &cells)?.reshape((count, m))?;
    let filter = filter.unsqueeze(1)?.to_dtype(candle_core::DType::F64)?;
    let sums = wide(&windows, |windows| windows.to_dtype(filter.dtype())?.matmul(&filter)?.squeeze(1))?;
    let sums = match node.settings.text("mode") {
        "same" => sums.narrow(0, (n + m - 1 - n.max(m)) / 2, n.max(m))?,
        _ => sums,
    };
    Ok(vec![rounded(&sums, dtype)?])
}

fn planned_noise(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.spec("x1")?, node.spec("x2")?);
    if a.shape.rank() != b.shape.rank() || a.dtype != b.dtype || !a.dtype.is_float() {
        let what = format!("{} of {} and {} of {}: only floats of one dtype", a.shape, a.dtype, b.shape, b.dtype);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    one(Shape(Vec::new()), Dtype::Float32)
}

/// `20 log₁₀(max_val) − 10 log₁₀(mean (x1 − x2)²)`. Keras: plans float32, whatever comes in.
fn noise(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (a, b) = (node.value("x1")?, node.value("x2")?);
    if a.tensor.dims() != b.tensor.dims() {
        bail!("expected two inputs of one shape, found {:?} and {:?}", a.tensor.dims(), b.tensor.dims());
    }
    let Some(largest) = node.settings.number("max_val") else { bail!("max_val is missing") };
    let dtype = a.dtype;
    let decibels = |xs: &Tensor, factor: f64| -> Result<Tensor> {
        let log = through(&wide(xs, |xs| xs.log()? / std::f64::consts::LN_10)?, dtype)?;
        through(&(log * factor)?, dtype)
    };
    let apart = through(&(floats(&a, dtype)? - floats(&b, dtype)?)?, dtype)?;
    let axes: Vec<usize> = (0..apart.rank()).collect();
    let count = apart.elem_count() as f64;
    let squares = through(&apart.sqr()?, dtype)?;
    let mean = wide(&squares, |xs| xs.sum(axes.as_slice())? / count)?;
    let largest = through(&constant_like(&mean, largest)?, dtype)?;
    let found = (decibels(&largest, 20.0)? - decibels(&through(&mean, dtype)?, 10.0)?)?;
    Ok(vec![rounded(&found, dtype)?])
}

const ENDS: &[&str] = &["start", "stop"];
const AXIS: (&str, Setting) = ("axis", Setting::Integer(0));
const NUM: (&str, Setting) = ("num", Setting::Integer(50));
const ENDPOINT: (&str, Setting) = ("endpoint", Setting::Flag(true));
const DTYPE: (&str, Setting) = ("dtype", Setting::Dtype);

pub(super) static OPERATIONS: &[Operation] = &[
    // Keras: the step has no plan, and a graph has no such node.
    operation("Linspace", ENDS, planned_space, linspace).with(&[
        NUM,
        ENDPOINT,
        ("retstep", Setting::Only("false")),
        DTYPE,
        AXIS,
    ]),
    operation("Logspace", ENDS, planned_space, logspace).with(&[
        NUM,
        ENDPOINT,
        ("base", Setting::Number(10.0)),
        DTYPE,
        AXIS,
    ]),
    operation("Geomspace", ENDS, planned_space, geomspace).with(&[NUM, ENDPOINT, DTYPE, AXIS]),
    operation("Vander", X, planned_vander, vander)
        .with(&[("N", Setting::Integers), ("increasing", Setting::Flag(false))]),
    operation("Trapezoid", &["y"], planned_integral, integral).with(&[
        ("x", Setting::Any),
        ("dx", Setting::Any),
        ("axis", Setting::Integer(-1)),
    ]),
    operation("I0", X, |node| planned(node, floating_or_double), i0),
    operation("Nextafter", X1_X2, |node| planned_pair(node, variance_dtype), next_after),
    operation("Correlate", X1_X2, planned_correlation, correlate)
        .with(&[("mode", Setting::Choice(&["valid", "same", "full"]))]),
    operation("PSNR", X1_X2, planned_noise, noise).with(&[("max_val", Setting::Scalar)]),
];
