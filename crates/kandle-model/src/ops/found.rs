//! What is found among numbers: which are different, which are not 0; and indices taken apart.
//! Source: keras/src/backend/tensorflow/numpy.py.

use std::cmp::Ordering;

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{Integers, Node, Operation, Setting, convert, elementwise::X, invalid, one, operation, shapes};
use crate::{Shape, Spec, Value, math::window::select, numeric::position};

fn unsupported(what: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

fn planned_nonzero(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    match node.spec("x")?.shape.rank() {
        0 => Err(invalid("x has no axes")),
        rank => Ok(vec![Spec { shape: Shape(vec![None]), dtype: Dtype::Int32 }; rank]),
    }
}

/// The places of what is not 0, row by row: of each axis the indices.
fn nonzero(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let truths = Integers::of(&convert(&node.value("x")?, Dtype::Bool)?)?;
    let own = truths.numbers.iter().enumerate().filter(|(_, truth)| **truth != 0);
    let places: Vec<Vec<usize>> = own.map(|(flat, _)| position(flat, &truths.dims)).collect();
    let of_axis = |axis: usize| {
        let numbers = places.iter().map(|place| i64::try_from(place.get(axis).copied().unwrap_or_default()));
        let numbers = numbers.collect::<std::result::Result<Vec<i64>, _>>()?;
        Integers { dims: vec![numbers.len()], numbers }.value(Dtype::Int32, &node.device())
    };
    (0..truths.dims.len()).map(of_axis).collect()
}

/// The different ones among slices.
struct Different {
    /// For each of them the slice that has it first.
    first: Vec<usize>,
    /// For each slice which one it is.
    which: Vec<usize>,
    /// How many slices each of them is.
    counts: Vec<usize>,
}

impl Different {
    /// Of `slices` in ascending order, or in the order they came in. Numbers compare from the first on.
    fn of<T: PartialOrd>(slices: &[Vec<T>], ascending: bool) -> Self {
        let compare = |a: &Vec<T>, b: &Vec<T>| a.partial_cmp(b).unwrap_or(Ordering::Equal);
        let mut order: Vec<(usize, &Vec<T>)> = slices.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| compare(a, b));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut before: Option<&Vec<T>> = None;
        for (index, slice) in order {
            match (groups.last_mut(), before) {
                (Some(group), Some(before)) if compare(before, slice) == Ordering::Equal => group.push(index),
                _ => groups.push(vec![index]),
            }
            before = Some(slice);
        }
        if !ascending {
            groups.sort_by_key(|group| group.first().copied());
        }
        let mut which = vec![0; slices.len()];
        for (at, group) in groups.iter().enumerate() {
            for index in group {
                if let Some(which) = which.get_mut(*index) {
                    *which = at;
                }
            }
        }
        let first = groups.iter().filter_map(|group| group.first().copied()).collect();
        Self { first, which, counts: groups.iter().map(Vec::len).collect() }
    }
}

fn size_of<T>(node: &Node<'_, T>) -> std::result::Result<Option<usize>, String> {
    let size = node.settings.integer("size").map(usize::try_from).transpose();
    size.map_err(|_| "size: expected a whole number of at least 0".to_owned())
}

fn planned_unique(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, size) = (node.spec("x")?, size_of(node).map_err(invalid)?);
    if xs.dtype == Dtype::Bool && node.settings.flag("sorted") {
        return Err(invalid("bool cannot be sorted"));
    }
    let (shape, inverse) = match node.settings.integer("axis") {
        None => (Shape(vec![size]), xs.shape.clone()),
        Some(axis) => {
            let (Shape(mut axes), axis) = (xs.shape.clone(), shapes::axis(axis, xs.shape.rank()).map_err(invalid)?);
            let own = axes.get(axis).copied().flatten();
            if let Some(place) = axes.get_mut(axis) {
                *place = size;
            }
            (Shape(axes), Shape(vec![own]))
        }
    };
    let counted = |shape: Shape| Spec { shape, dtype: Dtype::Int32 };
    let mut found = vec![Spec { shape, dtype: xs.dtype }];
    if node.settings.flag("return_index") {
        found.push(counted(Shape(vec![size])));
    }
    if node.settings.flag("return_inverse") {
        found.push(counted(inverse));
    }
    if node.settings.flag("return_counts") {
        found.push(counted(Shape(vec![size])));
    }
    Ok(found)
}

/// The different numbers, or slices of an axis; and where each is first, which each one is, how often each occurs.
///
/// Keras: where `size` asks for more than there are, the indices are filled with 1, the counts with 0.
fn unique(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let own = node.value("x")?;
    let own_dims = own.tensor.dims().to_vec();
    let (value, axis) = match node.settings.integer("axis") {
        None => (own.with_tensor(own.tensor.flatten_all()?), 0),
        Some(axis) => {
            let axis = shapes::axis(axis, own_dims.len()).map_err(candle_core::Error::msg)?;
            (own, axis)
        }
    };
    // Keras: the axis changes places with the first; that is the order in which slices compare.
    let slices = value.tensor.transpose(0, axis)?.contiguous()?;
    let count = slices.dim(0)?;
    if slices.elem_count() == 0 {
        bail!("nothing has no different numbers that could be reproduced");
    }
    let width = slices.elem_count() / count.max(1);
    let ascending = node.settings.flag("sorted");
    let different = if value.dtype.is_float() {
        let numbers = slices.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if numbers.iter().any(|number| number.is_nan()) {
            bail!("the different ones of numbers with NaN among them are not defined");
        }
        Different::of(&numbers.chunks(width).map(<[f64]>::to_vec).collect::<Vec<_>>(), ascending)
    } else {
        let numbers = Integers::of_tensor(&slices)?.numbers;
        Different::of(&numbers.chunks(width).map(<[i64]>::to_vec).collect::<Vec<_>>(), ascending)
    };
    let Different { mut first, which, mut counts } = different;
    let size = size_of(node).map_err(candle_core::Error::msg)?.unwrap_or(first.len());
    first.truncate(size);
    counts.truncate(size);
    let missing = size - first.len();
    let mut values = select(&value.tensor, axis, &first)?;
    if missing > 0 {
        let fill = node.settings.scalar("fill_value").unwrap_or(super::Scalar::Int(0));
        let mut dims = values.dims().to_vec();
        if let Some(place) = dims.get_mut(axis) {
            *place = missing;
        }
        let fill = fill.value(value.dtype, value.tensor.device())?.tensor.broadcast_as(dims)?.contiguous()?;
        values = Tensor::cat(&[values, fill], axis)?;
    }
    let integers = |numbers: Vec<usize>, fill: i64, missing: usize, dims: Option<Vec<usize>>| -> Result<Value> {
        let numbers = numbers.into_iter().map(i64::try_from).collect::<std::result::Result<Vec<i64>, _>>()?;
        let numbers: Vec<i64> = numbers.into_iter().chain(std::iter::repeat_n(fill, missing)).collect();
        let dims = dims.unwrap_or_else(|| vec![numbers.len()]);
        Integers { numbers, dims }.value(Dtype::Int32, value.tensor.device())
    };
    let mut found = vec![value.with_tensor(values)];
    if node.settings.flag("return_index") {
        found.push(integers(first, 1, missing, None)?);
    }
    if node.settings.flag("return_inverse") {
        let dims = node.settings.integer("axis").is_none().then_some(own_dims);
        found.push(integers(which, 0, 0, dims)?);
    }
    if node.settings.flag("return_counts") {
        found.push(integers(counts, 0, missing, None)?);
    }
    Ok(found)
}

fn planned_unravelled(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (indices, sizes) = (node.spec("indices")?, node.settings.required("shape")?);
    if indices.dtype.is_float() || matches!(indices.dtype, Dtype::Bool | Dtype::String) {
        return Err(unsupported(format!("indices of {} (only integers)", indices.dtype)));
    }
    if sizes.iter().any(|size| *size < 1 || super::integers::wrapped(*size, indices.dtype).ok() != Some(*size)) {
        return Err(invalid(format!("shape: expected sizes of at least 1 that {} has", indices.dtype)));
    }
    Ok(vec![indices; sizes.len()])
}

/// The index along each axis of `shape` that a flat index means.
///
/// Keras: indices that are not in one list are taken apart from the first axis on, as if the first turned fastest.
fn unravelled(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("indices")?;
    let sizes = node.settings.integers("shape").unwrap_or_default();
    let mut rest = Integers::of(&value)?;
    let mut found = Vec::new();
    let listed = rest.dims.len() == 1;
    let fastest_first: Vec<i64> = if listed { sizes.iter().rev().copied().collect() } else { sizes.to_vec() };
    for size in fastest_first {
        found.push(rest.clone().map(|index| Ok(index.rem_euclid(size)))?.value(value.dtype, value.tensor.device())?);
        rest = rest.map(|index| Ok(index.div_euclid(size)))?;
    }
    found.reverse();
    Ok(found)
}

/// Where the largest `count` of each row of `size` are, of equal ones that which comes first.
fn largest(numbers: &[i64], size: usize, count: usize) -> Vec<Vec<usize>> {
    let of_row = |row: &[i64]| {
        let mut entries: Vec<(usize, &i64)> = row.iter().enumerate().collect();
        entries.sort_by(|(_, a), (_, b)| b.cmp(a));
        entries.into_iter().take(count).map(|(index, _)| index).collect()
    };
    numbers.chunks(size.max(1)).map(of_row).collect()
}

/// The places of the `kth + 1` smallest, then those of the rest.
///
/// Keras: the rest is found among the numbers as int32, the largest first, with 0 in place of the smallest; where there are
/// several rows the smallest of all rows are marked in the first of them, or nowhere, which is an error.
fn argpartition(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = convert(&node.value("x")?, Dtype::Int32)?;
    let (tensor, axis) = match node.settings.integer("axis") {
        None => (value.tensor.flatten_all()?, 0),
        Some(axis) => (value.tensor.clone(), shapes::axis(axis, value.tensor.rank()).map_err(candle_core::Error::msg)?),
    };
    let last = tensor.rank() - 1;
    let xs = Integers::of_tensor(&tensor.transpose(axis, last)?.contiguous()?)?;
    let size = xs.dims.last().copied().unwrap_or(1);
    if xs.numbers.is_empty() {
        bail!("an empty axis has no smallest numbers");
    }
    let kth = node.settings.integer("kth").unwrap_or_default().clamp(0, i64::try_from(size)? - 1);
    let below = usize::try_from(kth)? + 1;
    let negated = xs.clone().map(|number| Ok(i64::from((number as i32).wrapping_neg())))?;
    let smallest = largest(&negated.numbers, size, below);
    // The marks have the axes of all rows but the first, then the smallest, then their places.
    let inner: usize = if xs.dims.len() > 1 { xs.dims.iter().take(last).skip(1).product() } else { 1 };
    let mark_dims: Vec<usize> = match xs.dims.len() {
        1 => vec![size],
        _ => xs.dims.iter().take(last).skip(1).copied().chain([below, size]).collect(),
    };
    let mut rest = xs.numbers.clone();
    for (row, own) in smallest.iter().enumerate() {
        for (at, place) in own.iter().enumerate() {
            let flat = if xs.dims.len() == 1 { *place } else { ((row % inner) * below + at) * size + place };
            let index = position(flat, &mark_dims);
            if index.iter().zip(&xs.dims).any(|(at, size)| at >= size) {
                bail!("Keras's TensorFlow backend has no partition of an input of {:?} at {kth}", xs.dims);
            }
            let flat = index.iter().zip(&xs.dims).fold(0, |flat, (at, size)| flat * size + at);
            if let Some(number) = rest.get_mut(flat) {
                *number = 0;
            }
        }
    }
    let others = largest(&rest, size, size - below);
    let places = smallest.into_iter().zip(others).flat_map(|(a, b)| a.into_iter().chain(b));
    let places = places.map(i64::try_from).collect::<std::result::Result<Vec<i64>, _>>()?;
    let places = Tensor::from_vec(places, xs.dims, &Device::Cpu)?.transpose(axis, last)?.contiguous()?;
    Ok(vec![Integers::of_tensor(&places)?.value(Dtype::Int32, value.tensor.device())?])
}

fn planned_partition(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    match node.settings.integer("axis") {
        None => one(Shape(vec![shapes::elements(&xs.shape)]), Dtype::Int32),
        Some(axis) => {
            shapes::axis(axis, xs.shape.rank()).map_err(invalid)?;
            one(xs.shape, Dtype::Int32)
        }
    }
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Nonzero", X, planned_nonzero, nonzero),
    operation("Unique", X, planned_unique, unique).with(&[
        ("sorted", Setting::Flag(true)),
        ("return_index", Setting::Flag(false)),
        ("return_inverse", Setting::Flag(false)),
        ("return_counts", Setting::Flag(false)),
        ("axis", Setting::Integers),
        ("size", Setting::Integers),
        ("fill_value", Setting::Scalar),
    ]),
    operation("UnravelIndex", &["indices"], planned_unravelled, unravelled).with(&[("shape", Setting::Integers)]),
    operation("Argpartition", X, planned_partition, argpartition)
        .with(&[("kth", Setting::Integer(0)), ("axis", Setting::IntegerOr(-1))]),
];
