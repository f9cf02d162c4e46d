//! What is computed over axes: sums, means, extremes and what is found there. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Kind, Node, Operation, Setting, convert,
    elementwise::{X, same},
    floats, invalid, one, operation, result_type, rounded, shapes,
};
use crate::{Spec, Value, numeric::wide};

pub(super) const AXIS: (&str, Setting) = ("axis", Setting::Integers);
pub(super) const KEEPDIMS: (&str, Setting) = ("keepdims", Setting::Flag(false));

/// The dtype of a sum or a product of narrow numbers.
pub(super) fn summed(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Bool | Dtype::Int8 | Dtype::Int16 => Dtype::Int32,
        Dtype::Uint8 | Dtype::Uint16 => Dtype::Uint32,
        dtype => dtype,
    }
}

/// The dtype of a mean.
pub(super) fn mean_dtype(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { result_type(&[dtype.into(), Dtype::Float32.into()]) }
}

/// Floats as they are, float32 for anything else.
pub(super) fn single(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { Dtype::Float32 }
}

pub(super) fn variance_dtype(dtype: Dtype) -> Dtype {
    result_type(&[dtype.into(), Kind::Float])
}

pub(super) fn planned(node: &Node<'_, Spec>, dtype: fn(Dtype) -> Dtype) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let over = shapes::axes(node.settings.integers("axis"), xs.shape.rank()).map_err(invalid)?;
    one(shapes::reduced(&xs.shape, &over, node.settings.flag("keepdims")), dtype(xs.dtype))
}

/// The axes that are reduced.
pub(super) fn over(node: &Node<'_, Value>, rank: usize) -> Result<Vec<usize>> {
    shapes::axes(node.settings.integers("axis"), rank).map_err(candle_core::Error::msg)
}

/// What was reduced with its axes kept as 1, in the shape that is asked for.
pub(super) fn shaped(node: &Node<'_, Value>, reduced: &Tensor, over: &[usize]) -> Result<Tensor> {
    if node.settings.flag("keepdims") {
        return Ok(reduced.clone());
    }
    let kept = reduced.dims().iter().enumerate().filter(|(axis, _)| !over.contains(axis));
    let dims: Vec<usize> = kept.map(|(_, size)| *size).collect();
    reduced.reshape(dims)
}

impl Integers {
    /// The numbers over `axes` folded together; those axes are kept as 1.
    pub(super) fn fold(&self, axes: &[usize], first: i64, f: impl Fn(i64, i64) -> i64) -> Self {
        let kept = |axis: usize| !axes.contains(&axis);
        let dims: Vec<usize> =
            self.dims.iter().enumerate().map(|(axis, size)| if kept(axis) { *size } else { 1 }).collect();
        let mut numbers = vec![first; dims.iter().product()];
        for (flat, number) in self.numbers.iter().enumerate() {
            let index = crate::numeric::position(flat, &self.dims);
            let place = index.iter().zip(&dims).fold(0, |place, (at, size)| place * size + at.min(&(size - 1)));
            if let Some(folded) = numbers.get_mut(place) {
                *folded = f(*folded, *number);
            }
        }
        Self { numbers, dims }
    }
}

/// The sum of floats over `axes`, in float64 and rounded once.
pub(super) fn sum_of(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    wide(xs, |xs| xs.sum_keepdim(axes.to_vec()))
}

/// The mean of floats over `axes`, in float64 and rounded once.
fn mean_of(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let count: usize = axes.iter().map(|axis| xs.dim(*axis)).product::<Result<usize>>()?;
    wide(xs, |xs| xs.sum_keepdim(axes.to_vec())? / count as f64)
}

fn variance_of(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    wide(xs, |xs| mean_of(&xs.broadcast_sub(&mean_of(xs, axes)?)?.sqr()?, axes))
}

/// The largest of floats over `axes`, NaN where one is.
pub(super) fn largest(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    if axes.iter().map(|axis| xs.dim(*axis)).collect::<Result<Vec<_>>>()?.contains(&0) {
        // Of nothing, as TensorFlow has it, and `initial` after it.
        let dims = xs.dims().iter().enumerate().map(|(axis, size)| if axes.contains(&axis) { 1 } else { *size });
        let least = Tensor::full(f64::NEG_INFINITY, dims.collect::<Vec<usize>>(), xs.device())?;
        return least.to_dtype(xs.dtype());
    }
    let numbers = xs.eq(xs)?;
    let safe = numbers.where_cond(xs, &xs.zeros_like()?)?;
    let largest = axes.iter().try_fold(safe, |xs, axis| xs.max_keepdim(*axis))?;
    let wrong = sum_of(&numbers.to_dtype(xs.dtype())?.affine(-1.0, 1.0)?, axes)?;
    let nan = crate::numeric::constant_like(&largest, f64::NAN)?;
    wrong.gt(0.0)?.where_cond(&nan, &largest)
}

/// The product of floats over `axes`: axis by axis, number by number.
pub(super) fn product_of(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    wide(xs, |xs| {
        axes.iter().try_fold(xs.clone(), |xs, axis| {
            let ones = || xs.narrow(*axis, 0, 0)?.sum_keepdim(*axis)? + 1.0;
            (0..xs.dim(*axis)?).try_fold(ones()?, |product, at| product * xs.narrow(*axis, at, 1)?)
        })
    })
}

fn floating(
    node: &Node<'_, Value>,
    compute: fn(Dtype) -> Dtype,
    dtype: fn(Dtype) -> Dtype,
    f: fn(&Tensor, &[usize]) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let over = over(node, value.tensor.rank())?;
    let xs = floats(&value, compute(value.dtype))?;
    Ok(vec![rounded(&shaped(node, &f(&xs, &over)?, &over)?, dtype(value.dtype))?])
}

/// A reduction of floats, or of integers cast by `dtype`.
pub(super) fn folding(
    node: &Node<'_, Value>,
    dtype: fn(Dtype) -> Dtype,
    of_floats: fn(&Tensor, &[usize]) -> Result<Tensor>,
    first: i64,
    of_integers: fn(i64, i64) -> i64,
) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = dtype(value.dtype);
    if dtype.is_float() {
        return floating(node, same, same, of_floats);
    }
    let over = over(node, value.tensor.rank())?;
    let folded = Integers::of(&convert(&value, dtype)?)?.fold(&over, first, of_integers);
    let folded = folded.value(dtype, value.tensor.device())?;
    Ok(vec![folded.with_tensor(shaped(node, &folded.tensor, &over)?)])
}

fn not_empty(node: &Node<'_, Value>) -> Result<()> {
    if node.value("x")?.tensor.elem_count() == 0 && node.settings.scalar("initial").is_none() {
        bail!("an empty tensor has no largest and no smallest number");
    }
    Ok(())
}

/// `found`, or the number that `initial` is, if that is larger (or smaller).
fn with_initial(node: &Node<'_, Value>, found: Vec<Value>, larger: bool) -> Result<Vec<Value>> {
    let Some(initial) = node.settings.scalar("initial") else { return Ok(found) };
    let choose = |value: &Value| -> Result<Value> {
        if value.dtype.is_float() {
            let xs = floats(value, value.dtype)?;
            let other = super::rounding::through(&crate::numeric::constant_like(&xs, initial.number())?, value.dtype)?;
            let f = if larger { super::arithmetic::larger } else { super::arithmetic::smaller };
            return rounded(&f(&xs, &other)?, value.dtype);
        }
        let Some(initial) = initial.integer() else { bail!("initial: expected a whole number for {}", value.dtype) };
        let choose = |number: i64| Ok(if larger { number.max(initial) } else { number.min(initial) });
        Integers::of(value)?.map(choose)?.value(value.dtype, value.tensor.device())
    };
    found.iter().map(choose).collect()
}

fn max(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    not_empty(node)?;
    with_initial(node, folding(node, same, largest, i64::MIN, i64::max)?, true)
}

pub(super) fn smallest(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    largest(&xs.neg()?, axes)?.neg()
}

fn min(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    not_empty(node)?;
    with_initial(node, folding(node, same, smallest, i64::MAX, i64::min)?, false)
}

fn truths(node: &Node<'_, Value>, first: bool, f: fn(i64, i64) -> i64) -> Result<Vec<Value>> {
    let value = convert(&node.value("x")?, Dtype::Bool)?;
    let over = over(node, value.tensor.rank())?;
    let folded = Integers::of(&value)?.fold(&over, i64::from(first), f).value(Dtype::Bool, value.tensor.device())?;
    Ok(vec![folded.with_tensor(shaped(node, &folded.tensor, &over)?)])
}

fn planned_average(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let weights = node.optional("weights")?;
    let dtypes: Vec<Kind> =
        [xs.dtype.into(), Kind::Float].into_iter().chain(weights.iter().map(super::Operand::kind)).collect();
    let over = shapes::axes(node.settings.integers("axis"), xs.shape.rank()).map_err(invalid)?;
    one(shapes::reduced(&xs.shape, &over, false), result_type(&dtypes))
}

fn average(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let over = over(node, value.tensor.rank())?;
    let Some(weights) = node.optional("weights")? else {
        return floating(node, variance_dtype, variance_dtype, mean_of);
    };
    let weights = weights.value(&node.device())?;
    let dtype = result_type(&[value.dtype.into(), weights.dtype.into(), Kind::Float]);
    let (xs, mut weights) = (floats(&value, dtype)?, floats(&weights, dtype)?);
    if let (Some(axis), true) = (node.settings.integer("axis"), xs.rank() != weights.rank()) {
        let axis = shapes::axis(axis, xs.rank()).map_err(candle_core::Error::msg)?;
        let dims: Vec<usize> = (0..xs.rank()).map(|at| if at == axis { weights.elem_count() } else { 1 }).collect();
        weights = weights.reshape(dims)?;
    }
    let sum = |xs: &Tensor| sum_of(xs, &over);
    let average = sum(&xs.broadcast_mul(&weights)?)?.broadcast_div(&sum(&weights)?)?;
    Ok(vec![rounded(&shaped(node, &average, &over)?, dtype)?])
}

/// Where the largest number (or the smallest) of every row is, the first of several. Keras: NaN counts as less (or more)
/// than any number, and -0 as less than 0.
pub(super) fn place(node: &Node<'_, Value>, sign: f64) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let keepdims = node.settings.flag("keepdims");
    let rank = value.tensor.rank();
    let (tensor, axis) = match node.settings.integer("axis") {
        Some(axis) => (value.tensor.clone(), shapes::axis(axis, rank).map_err(candle_core::Error::msg)?),
        None => (value.tensor.flatten_all()?, 0),
    };
    let (rows, kept) = super::ordering::rows(&tensor, axis)?;
    let width = tensor.dim(axis)?;
    if width == 0 {
        bail!("an empty axis has no largest and no smallest number");
    }
    let found = if value.dtype.is_float() {
        let numbers = rows.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let tiny = if value.dtype == Dtype::Float64 { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) };
        let number = |x: f64| sign * if x == 0.0 && x.is_sign_negative() { -tiny } else { x };
        numbers.chunks(width).map(|row| first_above(row.iter().map(|x| number(*x)), f64::MIN)).collect()
    } else {
        let numbers = Integers::of_tensor(&rows)?.numbers;
        let smallest = sign < 0.0;
        let number = |x: i64| if smallest { !x } else { x };
        numbers.chunks(width).map(|row| first_above(row.iter().map(|x| number(*x)), i64::MIN)).collect::<Vec<i64>>()
    };
    let dims: Vec<usize> = match (keepdims, node.settings.integer("axis")) {
        (true, None) => vec![1; rank],
        (true, Some(_)) => {
            value.tensor.dims().iter().enumerate().map(|(at, size)| if at == axis { 1 } else { *size }).collect()
        }
        (false, _) => kept,
    };
    Ok(vec![Integers { numbers: found, dims }.value(Dtype::Int32, value.tensor.device())?])
}

fn first_above<T: PartialOrd>(row: impl Iterator<Item = T>, lowest: T) -> i64 {
    let (mut best, mut found) = (lowest, 0);
    for (at, number) in (0_i64..).zip(row) {
        if number > best {
            (best, found) = (number, at);
        }
    }
    found
}

pub(super) fn planned_place(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    planned(node, |_| Dtype::Int32)
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "Sum",
        X,
        |node| planned(node, |dtype| result_type(&[summed(dtype).into()])),
        |node| folding(node, summed, sum_of, 0, i64::wrapping_add),
    )
    .with(&[AXIS, KEEPDIMS]),
    // Keras: the dtype that is asked for is planned, and not computed in.
    operation(
        "Prod",
        X,
        |node| {
            let dtype = node.settings.dtype("dtype");
            let planned = planned(node, summed)?;
            Ok(planned.into_iter().map(|spec| Spec { dtype: dtype.unwrap_or(spec.dtype), ..spec }).collect())
        },
        |node| {
            let dtype = if node.settings.dtype("dtype").is_some() { same } else { summed };
            super::arithmetic::no_truths(dtype(node.value("x")?.dtype))?;
            folding(node, dtype, product_of, 1, i64::wrapping_mul)
        },
    )
    .with(&[AXIS, KEEPDIMS, ("dtype", Setting::Dtype)]),
    operation("Mean", X, |node| planned(node, mean_dtype), |node| floating(node, mean_dtype, mean_dtype, mean_of))
        .with(&[AXIS, KEEPDIMS]),
    operation(
        "Var",
        X,
        |node| planned(node, variance_dtype),
        |node| floating(node, variance_dtype, variance_dtype, variance_of),
    )
    .with(&[AXIS, KEEPDIMS]),
    operation(
        "Std",
        X,
        |node| planned(node, single),
        |node| floating(node, single, single, |xs, axes| variance_of(xs, axes)?.sqrt()),
    )
    .with(&[AXIS, KEEPDIMS]),
    operation("Max", X, |node| planned(node, same), max).with(&[AXIS, KEEPDIMS, ("initial", Setting::Scalar)]),
    operation("Min", X, |node| planned(node, same), min).with(&[AXIS, KEEPDIMS, ("initial", Setting::Scalar)]),
    operation("Amax", X, |node| planned(node, same), max).with(&[AXIS, KEEPDIMS]),
    operation("Amin", X, |node| planned(node, same), min).with(&[AXIS, KEEPDIMS]),
    operation(
        "Ptp",
        X,
        |node| planned(node, same),
        |node| {
            let value = node.value("x")?;
            super::arithmetic::no_truths(value.dtype)?;
            let (most, least) = (max(node)?, min(node)?);
            match (most.first(), least.first()) {
                (Some(most), Some(least)) if value.dtype.is_float() => {
                    let (most, least) = (floats(most, value.dtype)?, floats(least, value.dtype)?);
                    Ok(vec![rounded(&(most - least)?, value.dtype)?])
                }
                (Some(most), Some(least)) => {
                    let range = Integers::of(most)?.zip(&Integers::of(least)?, |a, b| Ok(a.wrapping_sub(b)))?;
                    Ok(vec![range.value(value.dtype, value.tensor.device())?])
                }
                _ => bail!("nothing was found"),
            }
        },
    )
    .with(&[AXIS, KEEPDIMS]),
    operation("All", X, |node| planned(node, |_| Dtype::Bool), |node| truths(node, true, |a, b| a & b))
        .with(&[AXIS, KEEPDIMS]),
    operation("Any", X, |node| planned(node, |_| Dtype::Bool), |node| truths(node, false, |a, b| a | b))
        .with(&[AXIS, KEEPDIMS]),
    operation(
        "CountNonzero",
        X,
        |node| planned(node, |_| Dtype::Int32),
        |node| {
            let value = convert(&node.value("x")?, Dtype::Bool)?;
            let over = over(node, value.tensor.rank())?;
            let counts =
                Integers::of(&value)?.fold(&over, 0, |a, b| a + b).value(Dtype::Int32, value.tensor.device())?;
            Ok(vec![counts.with_tensor(shaped(node, &counts.tensor, &over)?)])
        },
    )
    .with(&[AXIS]),
    operation("Average", &["x", "weights"], planned_average, average).with(&[AXIS]),
    operation("Argmax", X, planned_place, |node| place(node, 1.0)).with(&[AXIS, KEEPDIMS]),
    operation("Argmin", X, planned_place, |node| place(node, -1.0)).with(&[AXIS, KEEPDIMS]),
];
