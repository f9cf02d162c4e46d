//! Sorting, counting and running sums. Source: keras/src/backend/tensorflow/numpy.py.

use std::cmp::Ordering;

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Node, Operation, Setting, convert,
    elementwise::{X, counted, same},
    floats, invalid, one, operation, rounded, shapes,
};
use crate::{Shape, Spec, Value};

/// The numbers with `axis` last, flattened, and the sizes of the other axes.
pub(super) fn rows(tensor: &Tensor, axis: usize) -> Result<(Tensor, Vec<usize>)> {
    let mut order: Vec<usize> = (0..tensor.rank()).filter(|at| *at != axis).collect();
    let others = order.iter().map(|at| tensor.dim(*at)).collect::<Result<Vec<usize>>>()?;
    order.push(axis);
    Ok((tensor.permute(order)?.contiguous()?.flatten_all()?, others))
}

fn planned(
    node: &Node<'_, Spec>,
    absent: Option<i64>,
    dtype: impl Fn(Dtype) -> Dtype,
) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    match node.settings.integer("axis").or(absent) {
        Some(axis) => {
            shapes::axis(axis, xs.shape.rank()).map_err(invalid)?;
            one(xs.shape, dtype(xs.dtype))
        }
        None => one(Shape(vec![shapes::elements(&xs.shape)]), dtype(xs.dtype)),
    }
}

/// `x`, flattened where no axis is given, and the axis.
fn along(node: &Node<'_, Value>) -> Result<(Value, usize)> {
    let value = node.value("x")?;
    match node.settings.integer("axis") {
        Some(axis) => {
            let axis = shapes::axis(axis, value.tensor.rank()).map_err(candle_core::Error::msg)?;
            Ok((value, axis))
        }
        None => Ok((value.with_tensor(value.tensor.flatten_all()?), 0)),
    }
}

/// Where the numbers of each row stand in ascending order, equal ones in the order they came in; in the shape of `value`.
pub(super) fn order(value: &Value, axis: usize) -> Result<Integers> {
    let (rows, _) = rows(&value.tensor, axis)?;
    let width = value.tensor.dim(axis)?.max(1);
    let sorted = if value.dtype.is_float() {
        let numbers = rows.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        // Keras: TensorFlow leaves a row that holds NaN half sorted.
        if numbers.iter().any(|number| number.is_nan()) {
            bail!("a row that holds NaN has no order that could be reproduced");
        }
        orders(&numbers, width, |a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal))
    } else {
        orders(&Integers::of_tensor(&rows)?.numbers, width, i64::cmp)
    };
    let mut dims = value.tensor.dims().to_vec();
    if axis < dims.len() {
        let size = dims.remove(axis);
        dims.push(size);
    }
    let mut back: Vec<usize> = (0..axis).collect();
    back.push(dims.len().saturating_sub(1));
    back.extend(axis..dims.len().saturating_sub(1));
    let places = Tensor::from_vec(sorted, dims, &Device::Cpu)?.permute(back)?.contiguous()?;
    Integers::of_tensor(&places)
}

fn orders<T>(numbers: &[T], width: usize, compare: impl Fn(&T, &T) -> Ordering) -> Vec<i64> {
    let mut found = Vec::with_capacity(numbers.len());
    for row in numbers.chunks(width) {
        let mut pairs: Vec<(i64, &T)> = (0_i64..).zip(row).collect();
        pairs.sort_by(|a, b| compare(a.1, b.1));
        found.extend(pairs.into_iter().map(|(at, _)| at));
    }
    found
}

fn sort(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, axis) = along(node)?;
    let order = order(&value, axis)?;
    let places = Tensor::from_vec(order.numbers, order.dims, &Device::Cpu)?.to_device(value.tensor.device())?;
    Ok(vec![value.with_tensor(value.tensor.contiguous()?.gather(&places, axis)?)])
}

fn argsort(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, axis) = along(node)?;
    Ok(vec![order(&value, axis)?.value(Dtype::Int32, value.tensor.device())?])
}

/// A running sum or product along an axis, of what `prepared` makes of the operand.
pub(super) fn running(
    node: &Node<'_, Value>,
    prepared: impl Fn(&Value) -> Result<Value>,
    of_floats: fn(&Tensor, &Tensor) -> Result<Tensor>,
    of_integers: fn(i64, i64) -> i64,
) -> Result<Vec<Value>> {
    let (value, axis) = along(node)?;
    let value = prepared(&value)?;
    let dtype = match node.settings.dtype("dtype") {
        // Keras: a tensor that is asked to be of another dtype is cast.
        Some(dtype) => counted(dtype),
        None => counted(value.dtype),
    };
    let value = convert(&value, dtype)?;
    if dtype.is_float() {
        let xs = floats(&value, dtype)?;
        let mut parts: Vec<Tensor> = Vec::new();
        for at in 0..xs.dim(axis)? {
            let next = xs.narrow(axis, at, 1)?;
            parts.push(match parts.last() {
                // Half precision rounds at each step, and may overflow.
                Some(before) => super::rounding::through(&of_floats(before, &next)?, dtype)?,
                None => next,
            });
        }
        let found = if parts.is_empty() { xs } else { Tensor::cat(&parts, axis)? };
        return Ok(vec![rounded(&found, dtype)?]);
    }
    let inner: usize = value.tensor.dims().iter().skip(axis + 1).product();
    let width = value.tensor.dim(axis)?;
    let mut integers = Integers::of(&value)?;
    for place in 0..integers.numbers.len() {
        if inner > 0 && !(place / inner).is_multiple_of(width.max(1)) {
            let before = place.checked_sub(inner).and_then(|before| integers.numbers.get(before)).copied();
            if let (Some(before), Some(number)) = (before, integers.numbers.get_mut(place)) {
                *number = super::integers::wrapped(of_integers(before, *number), dtype)?;
            }
        }
    }
    Ok(vec![integers.value(dtype, value.tensor.device())?])
}

fn as_it_is(value: &Value) -> Result<Value> {
    Ok(value.with_tensor(value.tensor.clone()))
}

pub(super) fn planned_running(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let dtype = node.settings.dtype("dtype");
    planned(node, None, |own| counted(dtype.unwrap_or(own)))
}

fn planned_bincount(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let rows = xs.shape.rank().checked_sub(1).ok_or_else(|| invalid("x has no axes"))?;
    let axes = xs.shape.0.into_iter().take(rows).chain([None]).collect();
    let dtype = match node.settings.any("weights") {
        Some(_) => {
            return Err(Problem::new(kandle_format::ErrorKind::Unsupported, "", "weights is not supported"));
        }
        None => Dtype::Int32,
    };
    one(Shape(axes), dtype)
}

/// How often each number occurs in every row.
fn bincount(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    const MOST: i64 = 1 << 28;
    let value = node.value("x")?;
    let value = if value.dtype == Dtype::Int64 { value } else { convert(&value, Dtype::Int32)? };
    let numbers = Integers::of(&value)?;
    if numbers.numbers.iter().any(|number| *number < 0 || *number > MOST) || value.tensor.rank() > 2 {
        bail!("expected numbers from 0 to {MOST} in at most 2 axes");
    }
    let largest = numbers.numbers.iter().max().map_or(0, |largest| largest + 1);
    let bins = usize::try_from(largest.max(node.settings.integer("minlength").unwrap_or_default()))?;
    let width = value.tensor.dims().last().copied().unwrap_or(1).max(1);
    let mut counts = Vec::new();
    for row in numbers.numbers.chunks(width) {
        let mut found = vec![0_i64; bins];
        for number in row {
            if let Some(count) = found.get_mut(usize::try_from(*number)?) {
                *count += 1;
            }
        }
        counts.extend(found);
    }
    if numbers.numbers.is_empty() {
        counts = vec![0; bins];
    }
    let rank = value.tensor.rank();
    let dims = value.tensor.dims().iter().take(rank.saturating_sub(1)).copied().chain([bins]).collect();
    Ok(vec![Integers { numbers: counts, dims }.value(Dtype::Int32, value.tensor.device())?])
}

/// Where each number belongs among `edges`, ascending: before the first that is larger, or not smaller.
fn places(numbers: &[f64], edges: &[f64], after_equal: bool) -> Vec<i64> {
    let place = |number: &f64| {
        let before = |edge: &f64| if after_equal { edge <= number } else { edge < number };
        i64::try_from(edges.partition_point(before)).unwrap_or(i64::MAX)
    };
    numbers.iter().map(place).collect()
}

fn doubles(value: &Value) -> Result<Vec<f64>> {
    let numbers = value.tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if numbers.iter().any(|number| number.is_nan()) {
        bail!("NaN has no place that could be reproduced");
    }
    Ok(numbers)
}

fn searchsorted(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (edges, values) = (node.value("sorted_sequence")?, node.value("values")?);
    if edges.dtype != values.dtype || matches!(edges.dtype, Dtype::Int64 | Dtype::Uint64) {
        // float64 has not every int64.
        let (largest, own) = (1_i64 << 53, [&edges, &values]);
        for value in own.into_iter().filter(|value| !value.dtype.is_float()) {
            if Integers::of(value)?.numbers.iter().any(|number| number.abs() > largest) {
                bail!("numbers beyond {largest} are not supported");
            }
        }
    }
    let found = places(&doubles(&values)?, &doubles(&edges)?, node.settings.text("side") == "right");
    let dims = values.tensor.dims().to_vec();
    Ok(vec![Integers { numbers: found, dims }.value(Dtype::Int32, values.tensor.device())?])
}

fn digitize(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let bins = node.value("bins")?;
    // Keras: the boundaries are float32, whatever they came as.
    let edges: Vec<f64> = doubles(&bins)?.into_iter().map(|edge| f64::from(edge as f32)).collect();
    if edges.windows(2).any(|pair| matches!(pair, [a, b] if a > b)) {
        bail!("bins: expected ascending numbers");
    }
    let found = places(&doubles(&value)?, &edges, true);
    let dims = value.tensor.dims().to_vec();
    Ok(vec![Integers { numbers: found, dims }.value(Dtype::Int32, value.tensor.device())?])
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Sort", X, |node| planned(node, None, same), sort).with(&[("axis", Setting::IntegerOr(-1))]),
    operation("Argsort", X, |node| planned(node, None, |_| Dtype::Int32), argsort)
        .with(&[("axis", Setting::IntegerOr(-1))]),
    operation("Cumsum", X, planned_running, |node| running(node, as_it_is, |a, b| a + b, i64::wrapping_add))
        .with(&[("axis", Setting::Integers), ("dtype", Setting::Dtype)]),
    operation("Cumprod", X, planned_running, |node| running(node, as_it_is, |a, b| a * b, i64::wrapping_mul))
        .with(&[("axis", Setting::Integers), ("dtype", Setting::Dtype)]),
    operation("Bincount", X, planned_bincount, bincount).with(&[
        ("weights", Setting::Any),
        ("minlength", Setting::Integer(0)),
        ("sparse", Setting::Only("false")),
    ]),
    operation(
        "SearchSorted",
        &["sorted_sequence", "values"],
        |node| {
            let (edges, values) = (node.spec("sorted_sequence")?, node.spec("values")?);
            // Keras: the plan takes an unknown length for a long one.
            let dtype = if edges.shape.last().is_some() { Dtype::Int32 } else { Dtype::Int64 };
            one(values.shape, dtype)
        },
        searchsorted,
    )
    .with(&[("side", Setting::Choice(&["left", "right"]))]),
    operation("Digitize", &["x", "bins"], |node| one(node.spec("x")?.shape, Dtype::Int32), digitize),
];
