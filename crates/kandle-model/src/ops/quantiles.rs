//! Medians, quantiles and percentiles. Source: `_quantile` and `nanquantile` in keras/src/backend/tensorflow/numpy.py.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Node, Operand, Operation, Setting, convert,
    elementwise::{X, or_number},
    floats, invalid, operation, ordering,
    reduction::{AXIS, KEEPDIMS, planned, variance_dtype},
    rounded,
    rounding::through,
    shapes,
};
use crate::{Argument, Shape, Spec, Value, numeric::constant_like};

/// How a place between two numbers is read.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    Linear,
    Lower,
    Higher,
    Midpoint,
    Nearest,
}

impl Method {
    fn of(node: &Node<'_, Value>) -> Self {
        match node.settings.text("method") {
            "lower" => Self::Lower,
            "higher" => Self::Higher,
            "midpoint" => Self::Midpoint,
            "nearest" => Self::Nearest,
            _ => Self::Linear,
        }
    }
}

/// What is read of each row: the parts, as float64 has them, and the axes they have.
struct Parts {
    parts: Vec<f64>,
    dims: Vec<usize>,
}

/// The argument `q`, read as TensorFlow reads it: Python's floats are float32.
fn parts(node: &Node<'_, Value>, percent: bool, single: bool) -> Result<Parts> {
    let value = node.value("q")?;
    let value = if percent || single { convert(&value, Dtype::Float32)? } else { value };
    let tensor = value.tensor.flatten_all()?;
    // Divided as float32 divides: candle would multiply by a hundredth.
    let tensor = if percent { tensor.div(&constant_like(&tensor, 100.0)?)? } else { tensor };
    Ok(Parts { parts: tensor.to_dtype(DType::F64)?.to_vec1::<f64>()?, dims: value.tensor.dims().to_vec() })
}

fn median() -> Parts {
    Parts { parts: vec![0.5], dims: Vec::new() }
}

/// The two cells of `count` ascending numbers that part `q` lies between, and the weight of the first.
fn between(q: f64, count: usize, method: Method) -> (usize, usize, f64) {
    let last = count.saturating_sub(1);
    let exact = last as f64 * q;
    // No place is so far that a float64 has not every whole number there.
    let cell = |at: f64| (at.max(0.0) as usize).min(last);
    match method {
        Method::Lower => (cell(exact.floor()), cell(exact.floor()), 0.0),
        Method::Higher => (cell(exact.ceil()), cell(exact.ceil()), 0.0),
        Method::Nearest => (cell(exact.round_ties_even()), cell(exact.round_ties_even()), 0.0),
        Method::Midpoint => (cell(exact.floor()), cell(exact.ceil()), 0.5),
        Method::Linear => {
            let smaller = cell(exact.ceil()).saturating_sub(1);
            let larger = (smaller + 1).min(last);
            (smaller, larger, larger as f64 - exact)
        }
    }
}

/// The quantiles of `value` over the axes of the node, in the order `q`, then the axes that are left.
fn quantiles(
    node: &Node<'_, Value>,
    value: &Value,
    q: &Parts,
    method: Method,
    without_nan: bool,
) -> Result<Vec<Value>> {
    let dtype = variance_dtype(value.dtype);
    let xs = floats(value, dtype)?;
    let axes = shapes::axes(node.settings.integers("axis"), xs.rank()).map_err(candle_core::Error::msg)?;
    let others: Vec<usize> = (0..xs.rank()).filter(|axis| !axes.contains(axis)).collect();
    let width: usize = axes.iter().map(|axis| xs.dim(*axis)).product::<Result<usize>>()?;
    let rows = xs.permute([others.as_slice(), axes.as_slice()].concat())?.contiguous()?;
    let height = rows.elem_count().checked_div(width).unwrap_or_default();
    if width == 0 {
        bail!("there is no quantile of nothing");
    }
    let rows = rows.reshape((height, width))?;
    let numbers = rows.eq(&rows)?;
    let counts = numbers.to_dtype(DType::F64)?.sum(1)?.to_vec1::<f64>()?;
    let whole = width as f64;
    if without_nan && counts.contains(&0.0) && !q.dims.is_empty() {
        bail!("several quantiles of nothing but NaN: TensorFlow has no such result");
    }
    let rows = or_number(&numbers, &rows, f64::INFINITY)?;
    let order = ordering::order(&Value::new(rows.clone(), dtype_of(dtype)), 1)?;
    let order = Tensor::from_vec(order.numbers, (height, width), &Device::Cpu)?.to_device(rows.device())?;
    let sorted = rows.gather(&order, 1)?;
    let (mut first, mut second, mut weights, mut wrong) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for count in &counts {
        let none = if without_nan { *count == 0.0 } else { *count != whole };
        for part in &q.parts {
            if part.is_nan() {
                bail!("q is NaN");
            }
            let (smaller, larger, weight) = between(*part, if without_nan { *count as usize } else { width }, method);
            first.push(i64::try_from(smaller)?);
            second.push(i64::try_from(larger)?);
            weights.push(weight);
            wrong.push(u8::from(!none));
        }
    }
    let dims = (height, q.parts.len());
    let cells = |places: Vec<i64>| sorted.gather(&Tensor::from_vec(places, dims, rows.device())?, 1);
    let (smaller, larger) = (cells(first)?, cells(second)?);
    let found = match method {
        Method::Linear => {
            let weights = Tensor::from_vec(weights, dims, rows.device())?.to_dtype(rows.dtype())?;
            let weights = through(&weights, dtype)?;
            let others = through(&(1.0 - &weights)?, dtype)?;
            (through(&(larger * others)?, dtype)? + through(&(smaller * weights)?, dtype)?)?
        }
        Method::Midpoint => (through(&(smaller + larger)?, dtype)? * 0.5)?,
        _ => smaller,
    };
    let found = or_number(&Tensor::from_vec(wrong, dims, rows.device())?, &found, f64::NAN)?;
    let size = |axis: usize| if axes.contains(&axis) { Ok(1) } else { xs.dim(axis) };
    let left = match node.settings.flag("keepdims") {
        true => (0..xs.rank()).map(size).collect::<Result<Vec<_>>>()?,
        false => others.into_iter().map(size).collect::<Result<Vec<_>>>()?,
    };
    let found = found.t()?.contiguous()?.reshape([q.dims.as_slice(), left.as_slice()].concat())?;
    Ok(vec![rounded(&found, dtype)?])
}

/// The dtype whose numbers are sorted: half precision is computed in float32.
fn dtype_of(dtype: Dtype) -> Dtype {
    if dtype == Dtype::Float64 { dtype } else { Dtype::Float32 }
}

/// As [`quantiles`] of the numbers that are not NaN.
fn of_numbers(node: &Node<'_, Value>, q: &Parts, method: Method) -> Result<Vec<Value>> {
    quantiles(node, &node.value("x")?, q, method, true)
}

/// The plan of what has an argument `q`. Keras: a list of one part is planned as if it were that part, but of percentiles.
fn planned_parts(
    node: &Node<'_, Spec>,
    percent: bool,
    dtype: fn(Dtype) -> Dtype,
) -> std::result::Result<Vec<Spec>, Problem> {
    let q = node.operand("q")?;
    let count = match (&q, node.given.argument("q")) {
        (Operand::Constant(value), Some(Argument::Constant(_))) if value.tensor.elem_count() == 1 && !percent => None,
        _ => q.shape().0.first().copied(),
    };
    let mut found = planned(node, dtype)?;
    for spec in &mut found {
        spec.shape = Shape(count.into_iter().chain(spec.shape.0.iter().copied()).collect());
    }
    Ok(found)
}

/// Keras: TensorFlow has no quantiles without NaN of integers over an axis, and of a table of parts mixes them up.
fn planned_without_nan(
    node: &Node<'_, Spec>,
    specs: std::result::Result<Vec<Spec>, Problem>,
) -> std::result::Result<Vec<Spec>, Problem> {
    if !node.spec("x")?.dtype.is_float() && node.settings.integers("axis").is_some_and(|axes| !axes.is_empty()) {
        return Err(invalid("integers over an axis: only floats, as in Keras's TensorFlow backend"));
    }
    if node.optional("q")?.is_some_and(|q| q.shape().rank() > 1) {
        return Err(Problem::new(ErrorKind::Unsupported, "", "q of more than one axis is not supported"));
    }
    specs
}

fn percentile_dtype(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { Dtype::Float32 }
}

const OF_PARTS: &[&str] = &["x", "q"];
const METHODS: (&str, Setting) = ("method", Setting::Choice(&["linear", "lower", "higher", "midpoint", "nearest"]));

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "Median",
        X,
        |node| planned(node, variance_dtype),
        |node| quantiles(node, &node.value("x")?, &median(), Method::Linear, false),
    )
    .with(&[AXIS, KEEPDIMS]),
    // Keras: the operation computes every method as linear.
    operation(
        "Quantile",
        OF_PARTS,
        |node| planned_parts(node, false, variance_dtype),
        |node| quantiles(node, &node.value("x")?, &parts(node, false, false)?, Method::Linear, false),
    )
    .with(&[AXIS, METHODS, KEEPDIMS]),
    operation(
        "Percentile",
        OF_PARTS,
        |node| planned_parts(node, true, percentile_dtype),
        |node| quantiles(node, &node.value("x")?, &parts(node, true, true)?, Method::of(node), false),
    )
    .with(&[AXIS, METHODS, KEEPDIMS]),
    operation(
        "Nanmedian",
        X,
        |node| planned_without_nan(node, planned(node, variance_dtype)),
        |node| match node.settings.integers("axis") {
            // Keras: over no axis at all, it is the operand, whatever its dtype.
            Some([]) => Ok(vec![node.value("x")?]),
            _ => of_numbers(node, &median(), Method::Linear),
        },
    )
    .with(&[AXIS, KEEPDIMS]),
    operation(
        "Nanquantile",
        OF_PARTS,
        |node| planned_without_nan(node, planned_parts(node, false, variance_dtype)),
        |node| of_numbers(node, &parts(node, false, true)?, Method::of(node)),
    )
    .with(&[AXIS, METHODS, KEEPDIMS]),
    operation(
        "Nanpercentile",
        OF_PARTS,
        |node| planned_without_nan(node, planned_parts(node, true, variance_dtype)),
        |node| of_numbers(node, &parts(node, true, true)?, Method::of(node)),
    )
    .with(&[AXIS, METHODS, KEEPDIMS]),
];
