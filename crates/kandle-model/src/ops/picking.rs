//! Picking numbers out of a tensor by place: items, rows, diagonals; and tensors filled with one number.
//! Source: keras/src/backend/tensorflow/numpy.py, and `GetItem` in keras/src/ops/numpy.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{
    Dtype, Problem,
    json::{self, Value as Json},
};

use super::{
    Integers, Kind, Known, Node, Operation, Setting, convert,
    elementwise::X,
    floats, invalid, one, operation, probe,
    reduction::{sum_of, summed},
    result_type, rounded, shapes,
};
use crate::{Shape, Spec, Value};

const AXIS: (&str, Setting) = ("axis", Setting::Integers);
const DTYPE: (&str, Setting) = ("dtype", Setting::Dtype);
const K: (&str, Setting) = ("k", Setting::Integer(0));
const OF_AXES: &[(&str, Setting)] =
    &[("offset", Setting::Integer(0)), ("axis1", Setting::Integer(0)), ("axis2", Setting::Integer(1))];

/// One part of `x[…]`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key {
    At(i64),
    Slice(Option<i64>, Option<i64>, i64),
    NewAxis,
    Ellipsis,
}

fn read_key(value: &Json) -> std::result::Result<Key, String> {
    let unknown = || format!("key: {} is not supported: only numbers, slices, None and ...", json::shown(value));
    match value {
        Json::Null => Ok(Key::NewAxis),
        Json::Object(object) => match object.get("class_name").and_then(Json::as_str) {
            Some("__ellipsis__") => Ok(Key::Ellipsis),
            Some("__slice__") => {
                let part = |key: &str| match object.get("config").and_then(|config| config.get(key)) {
                    None | Some(Json::Null) => Ok(None),
                    Some(number) => number.as_i64().map(Some).ok_or_else(unknown),
                };
                let step = part("step")?.unwrap_or(1);
                if step == 0 {
                    return Err("key: a slice with a step of 0".to_owned());
                }
                Ok(Key::Slice(part("start")?, part("stop")?, step))
            }
            _ => Err(unknown()),
        },
        number => number.as_i64().map(Key::At).ok_or_else(unknown),
    }
}

/// The parts of the key for a tensor of `rank`, an ellipsis as as many whole slices as it stands for.
fn keys<T: Known>(node: &Node<'_, T>, rank: usize) -> std::result::Result<Vec<Key>, String> {
    let read: Vec<Key> = match node.given.argument("key") {
        None => vec![Key::NewAxis],
        Some(crate::Argument::Constant(Json::Array(items))) => {
            items.iter().map(read_key).collect::<std::result::Result<_, _>>()?
        }
        Some(crate::Argument::Constant(one)) => vec![read_key(one)?],
        Some(_) => return Err("key: a tensor as a key is not supported".to_owned()),
    };
    let taken = read.iter().filter(|key| matches!(key, Key::At(_) | Key::Slice(..))).count();
    let rest = rank.checked_sub(taken).ok_or_else(|| format!("key: {taken} indices for {rank} axes"))?;
    let mut ellipses = read.iter().filter(|key| **key == Key::Ellipsis);
    let implied = match (ellipses.next(), ellipses.next()) {
        (None, _) => Some(Key::Ellipsis),
        (Some(_), None) => None,
        _ => return Err("key: expected one ellipsis, found several".to_owned()),
    };
    let whole = Key::Slice(None, None, 1);
    let spread = |key: Key| if key == Key::Ellipsis { vec![whole; rest] } else { vec![key] };
    Ok(read.into_iter().chain(implied).flat_map(spread).collect())
}

/// The first place of a slice of an axis of `size`, and how many there are, as Python counts.
fn slice(start: Option<i64>, stop: Option<i64>, step: i64, size: usize) -> (i64, usize) {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let (least, most) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let bound = |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(least, most);
    let start = start.map_or(if step > 0 { least } else { most }, bound);
    let stop = stop.map_or(if step > 0 { most } else { least }, bound);
    let span = if step > 0 { stop - start } else { start - stop };
    let count = if span > 0 { (span - 1) / step.saturating_abs() + 1 } else { 0 };
    (start, usize::try_from(count).unwrap_or_default())
}

fn place(at: i64, size: usize) -> std::result::Result<usize, String> {
    let wrong = || format!("index {at} does not exist: the axis has {size}");
    let from_start = if at < 0 { at.checked_add(i64::try_from(size).map_err(|_| wrong())?) } else { Some(at) };
    from_start.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < size).ok_or_else(wrong)
}

fn planned_item(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let (mut axes, mut sizes) = (Vec::new(), xs.shape.0.iter().copied());
    for key in keys(node, xs.shape.rank()).map_err(invalid)? {
        match key {
            Key::NewAxis => axes.push(Some(1)),
            Key::At(at) => {
                if let Some(Some(size)) = sizes.next() {
                    place(at, size).map_err(invalid)?;
                }
            }
            // Keras: a slice of an unknown axis is unknown.
            Key::Slice(start, stop, step) => {
                axes.push(sizes.next().flatten().map(|size| slice(start, stop, step, size).1));
            }
            Key::Ellipsis => {}
        }
    }
    one(Shape(axes), xs.dtype)
}

fn item(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let (mut xs, mut axis) = (value.tensor.clone(), 0);
    for key in keys(node, xs.rank()).map_err(candle_core::Error::msg)? {
        match key {
            Key::NewAxis => {
                xs = xs.unsqueeze(axis)?;
                axis += 1;
            }
            Key::At(at) => {
                xs = xs.narrow(axis, place(at, xs.dim(axis)?).map_err(candle_core::Error::msg)?, 1)?.squeeze(axis)?;
            }
            Key::Slice(start, stop, step) => {
                let (first, count) = slice(start, stop, step, xs.dim(axis)?);
                xs = match step {
                    1 => xs.narrow(axis, usize::try_from(first).unwrap_or_default(), count)?,
                    _ if count == 0 => xs.narrow(axis, 0, 0)?,
                    _ => {
                        let places = (0..i64::try_from(count)?).map(|place| first + place * step).collect::<Vec<_>>();
                        xs.contiguous()?.index_select(&Tensor::from_vec(places, count, xs.device())?, axis)?
                    }
                };
                axis += 1;
            }
            Key::Ellipsis => {}
        }
    }
    Ok(vec![value.with_tensor(xs.contiguous()?)])
}

/// The places that `indices` name on an axis of `size`, where negative ones count from the end.
fn places(indices: &Value, size: usize) -> Result<Tensor> {
    let named = Integers::of(&convert(indices, Dtype::Int64)?)?;
    let found = named.numbers.iter().map(|at| place(*at, size).map_err(candle_core::Error::msg));
    let found = found.map(|at| Ok(i64::try_from(at?)?)).collect::<Result<Vec<i64>>>()?;
    Tensor::from_vec(found, named.dims.as_slice(), indices.tensor.device())
}

fn axis_of(settings: &super::Settings, rank: usize) -> std::result::Result<usize, String> {
    settings.integer("axis").map_or(Ok(0), |axis| shapes::axis(axis, rank))
}

fn planned_take(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, indices) = (node.spec("x")?, node.spec("indices")?);
    if node.settings.integer("axis").is_none() {
        return one(indices.shape, xs.dtype);
    }
    let axis = axis_of(node.settings, xs.shape.rank()).map_err(invalid)?;
    let (before, after) = (xs.shape.0.iter().take(axis), xs.shape.0.iter().skip(axis + 1));
    one(Shape(before.chain(&indices.shape.0).chain(after).copied().collect()), xs.dtype)
}

fn take(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, indices) = (node.value("x")?, node.value("indices")?);
    let xs = match node.settings.integer("axis") {
        None => value.tensor.flatten_all()?,
        Some(_) => value.tensor.contiguous()?,
    };
    let axis = axis_of(node.settings, xs.rank()).map_err(candle_core::Error::msg)?;
    let places = places(&indices, xs.dim(axis)?)?;
    let (before, after) = (xs.dims().iter().take(axis), xs.dims().iter().skip(axis + 1));
    let dims: Vec<usize> = before.chain(places.dims()).chain(after).copied().collect();
    Ok(vec![value.with_tensor(xs.index_select(&places.flatten_all()?, axis)?.reshape(dims)?)])
}

fn take_along(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, indices) = (node.value("x")?, node.value("indices")?);
    let xs = match node.settings.integer("axis") {
        None => value.tensor.flatten_all()?,
        Some(_) => value.tensor.clone(),
    };
    let axis = axis_of(node.settings, xs.rank()).map_err(candle_core::Error::msg)?;
    let size = xs.dim(axis)?;
    let places = places(&indices, size)?;
    if places.rank() != xs.rank() {
        bail!("indices of {} axes for {}", places.rank(), xs.rank())
    }
    let with = |dims: &[usize], size: usize| -> Vec<usize> {
        dims.iter().enumerate().map(|(at, own)| if at == axis { size } else { *own }).collect()
    };
    let shared = shapes::broadcast_dims(&with(xs.dims(), 1), &with(places.dims(), 1))?;
    let xs = xs.broadcast_as(with(&shared, size))?.contiguous()?;
    let places = places.broadcast_as(with(&shared, places.dim(axis)?))?.contiguous()?;
    Ok(vec![value.with_tensor(xs.gather(&places, axis)?)])
}

/// The diagonal `offset` of the axes `first` and `second`, as the last axis.
fn diagonal_of(xs: &Tensor, offset: i64, first: i64, second: i64) -> Result<Tensor> {
    let axis = |axis: i64| shapes::axis(axis, xs.rank()).map_err(candle_core::Error::msg);
    let (first, second) = (axis(first)?, axis(second)?);
    if first == second {
        bail!("axis1 and axis2 are both {first}")
    }
    let others: Vec<usize> = (0..xs.rank()).filter(|axis| *axis != first && *axis != second).collect();
    let (rows, columns) = (xs.dim(first)?, xs.dim(second)?);
    let axes: Vec<usize> = others.iter().copied().chain([first, second]).collect();
    let mut dims: Vec<usize> = others.iter().map(|axis| xs.dim(*axis)).collect::<Result<_>>()?;
    let flat = xs.permute(axes)?.contiguous()?.reshape([dims.as_slice(), &[rows * columns]].concat())?;
    let (rows, columns) = (i64::try_from(rows)?, i64::try_from(columns)?);
    let on_diagonal = |row: i64| {
        let column = row.checked_add(offset).filter(|column| (0..columns).contains(column))?;
        Some(row * columns + column)
    };
    let cells: Vec<i64> = (0..rows).filter_map(on_diagonal).collect();
    let count = cells.len();
    dims.push(count);
    if count == 0 {
        return flat.narrow(others.len(), 0, 0)?.reshape(dims);
    }
    flat.index_select(&Tensor::from_vec(cells, count, xs.device())?, others.len())
}

fn diagonal(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let setting = |key: &str| node.settings.integer(key).unwrap_or_default();
    let ys = diagonal_of(&value.tensor, setting("offset"), setting("axis1"), setting("axis2"))?;
    Ok(vec![value.with_tensor(ys)])
}

fn trace(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = summed(value.dtype);
    let setting = |key: &str| node.settings.integer(key).unwrap_or_default();
    let of = |xs: &Tensor| diagonal_of(xs, setting("offset"), setting("axis1"), setting("axis2"));
    if dtype.is_float() {
        let ys = of(&floats(&value, dtype)?)?;
        let last = ys.rank() - 1;
        return Ok(vec![rounded(&sum_of(&ys, &[last])?.squeeze(last)?, dtype)?]);
    }
    let ys = of(&convert(&value, Dtype::Int64)?.tensor)?;
    let (last, dims) = (ys.rank() - 1, ys.dims().iter().take(ys.rank() - 1).copied().collect());
    let sums = Integers::of_tensor(&ys)?.fold(&[last], 0, i64::wrapping_add);
    Ok(vec![Integers { dims, ..sums }.value(dtype, ys.device())?])
}

/// A matrix with `xs` `(size,)` on diagonal `k`, zeros elsewhere.
fn matrix(xs: &Tensor, k: i64) -> Result<Tensor> {
    let size = i64::try_from(xs.dim(0)?)?;
    let wide = k.checked_abs().and_then(|k| k.checked_add(size)).filter(|wide| *wide < 1 << 16);
    let Some(wide) = wide else { bail!("diagonal {k} of {size} numbers makes too large a matrix") };
    let (down, right) = ((-k).max(0), k.max(0));
    // Number `size` stands for zero.
    let cell = |row: i64, column: i64| {
        let at = row - down;
        if at == column - right && (0..size).contains(&at) { at } else { size }
    };
    let cells: Vec<i64> = (0..wide).flat_map(|row| (0..wide).map(move |column| cell(row, column))).collect();
    let zero = Tensor::zeros(1, xs.dtype(), xs.device())?;
    let (count, wide) = (cells.len(), usize::try_from(wide)?);
    let cells = Tensor::from_vec(cells, count, xs.device())?;
    Tensor::cat(&[xs, &zero], 0)?.index_select(&cells, 0)?.reshape((wide, wide))
}

fn diag(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, k) = (node.value("x")?, node.settings.integer("k").unwrap_or_default());
    let ys = match value.tensor.rank() {
        1 => matrix(&value.tensor, k)?,
        2 => diagonal_of(&value.tensor, k, 0, 1)?,
        rank => bail!("expected 1 or 2 axes, found {rank}"),
    };
    Ok(vec![value.with_tensor(ys)])
}

fn diagflat(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, k) = (node.value("x")?, node.settings.integer("k").unwrap_or_default());
    Ok(vec![value.with_tensor(matrix(&value.tensor.flatten_all()?, k)?)])
}

fn diff(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("a")?;
    let axis = node.settings.integer("axis").unwrap_or(-1);
    let axis = shapes::axis(axis, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    let times = usize::try_from(node.settings.integer("n").unwrap_or(1))
        .map_err(|_| candle_core::Error::msg("n is negative"))?;
    let mut value = value;
    for _ in 0..times.min(value.tensor.dim(axis)?) {
        let size = value.tensor.dim(axis)?.saturating_sub(1);
        let part = |from: usize| Ok::<_, candle_core::Error>(value.with_tensor(value.tensor.narrow(axis, from, size)?));
        let (after, before) = (part(1.min(value.tensor.dim(axis)? - size))?, part(0)?);
        value = match value.dtype {
            dtype if dtype.is_float() => rounded(&(floats(&after, dtype)? - floats(&before, dtype)?)?, dtype)?,
            Dtype::Bool => Integers::of(&after)?
                .zip(&Integers::of(&before)?, |a, b| Ok(a ^ b))?
                .value(Dtype::Bool, value.tensor.device())?,
            dtype => {
                let difference = Integers::of(&after)?.zip(&Integers::of(&before)?, |a, b| Ok(a.wrapping_sub(b)))?;
                difference.value(dtype, value.tensor.device())?
            }
        };
    }
    Ok(vec![value])
}

fn planned_diff(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("a")?;
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), xs.shape.rank()).map_err(invalid)?;
    let times = usize::try_from(node.settings.integer("n").unwrap_or(1)).map_err(|_| invalid("n is negative"))?;
    let mut axes = xs.shape.0;
    if let Some(Some(size)) = axes.get_mut(axis) {
        *size = size.saturating_sub(times);
    }
    one(Shape(axes), xs.dtype)
}

/// `fill` in every place of `dims`.
fn filled(fill: &Value, dims: &[usize]) -> Result<Vec<Value>> {
    Ok(vec![fill.with_tensor(fill.tensor.broadcast_as(dims)?.contiguous()?)])
}

fn full_dims(settings: &super::Settings) -> std::result::Result<Vec<usize>, Problem> {
    let size = |size: &i64| usize::try_from(*size).map_err(|_| invalid(format!("shape: {size} is no size")));
    settings.required("shape")?.iter().map(size).collect()
}

fn full(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dims = full_dims(node.settings).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    let dtype = node.settings.dtype("dtype").unwrap_or(Dtype::Float32);
    filled(&node.operand("fill_value")?.cast(dtype, &node.device())?, &dims)
}

fn like_dtype(node_dtype: Option<Dtype>, own: Dtype) -> Dtype {
    node_dtype.map_or(own, |dtype| result_type(&[Kind::Strong(dtype)]))
}

fn planned_like(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    one(xs.shape, like_dtype(node.settings.dtype("dtype"), xs.dtype))
}

fn full_like(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let xs = node.value("x")?;
    let dtype = like_dtype(node.settings.dtype("dtype"), xs.dtype);
    filled(&node.operand("fill_value")?.cast(dtype, &node.device())?, xs.tensor.dims())
}

fn number_like(node: &Node<'_, Value>, number: i64) -> Result<Vec<Value>> {
    let xs = node.value("x")?;
    let dtype = like_dtype(node.settings.dtype("dtype"), xs.dtype);
    filled(&super::Scalar::Int(number).value(dtype, xs.tensor.device())?, xs.tensor.dims())
}

fn size(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let count = i32::try_from(value.tensor.elem_count())?;
    Ok(vec![Value::new(Tensor::new(count, value.tensor.device())?, Dtype::Int32)])
}

/// The order of the axes of a grid: the first two exchanged where it is indexed as x and y.
fn meshgrid(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let device = node.device();
    let values = node.operands("x")?.iter().map(|operand| operand.value(&device)).collect::<Result<Vec<_>>>()?;
    let rank = values.len();
    let place = |at: usize| match at {
        0 | 1 if rank > 1 && node.settings.text("indexing") == "xy" => 1 - at,
        at => at,
    };
    let mut dims = vec![1; rank];
    for (at, value) in values.iter().enumerate() {
        if let Some(size) = dims.get_mut(place(at)) {
            *size = value.tensor.elem_count();
        }
    }
    let stretched = |(at, value): (usize, &Value)| {
        let mut own = vec![1; rank];
        if let Some(size) = own.get_mut(place(at)) {
            *size = value.tensor.elem_count();
        }
        Ok(value.with_tensor(value.tensor.reshape(own)?.broadcast_as(dims.as_slice())?.contiguous()?))
    };
    values.iter().enumerate().map(stretched).collect()
}

pub(super) const OPERATIONS: &[Operation] = &[
    operation("GetItem", &["x", "key"], planned_item, item),
    operation("Take", &["x", "indices"], planned_take, take).with(&[AXIS]),
    operation("TakeAlongAxis", &["x", "indices"], |node| probe(node, take_along), take_along).with(&[AXIS]),
    operation("Diagonal", X, |node| probe(node, diagonal), diagonal).with(OF_AXES),
    operation("Trace", X, |node| probe(node, trace), trace).with(OF_AXES),
    operation("Diag", X, |node| probe(node, diag), diag).with(&[K]),
    operation("Diagflat", X, |node| probe(node, diagflat), diagflat).with(&[K]),
    operation("Diff", &["a"], planned_diff, diff).with(&[("n", Setting::Integer(1)), ("axis", Setting::Integer(-1))]),
    operation(
        "Full",
        &["fill_value"],
        |node| {
            let axes = full_dims(node.settings)?.into_iter().map(Some).collect();
            one(Shape(axes), node.settings.dtype("dtype").unwrap_or(Dtype::Float32))
        },
        full,
    )
    .with(&[("shape", Setting::Sizes), DTYPE]),
    operation("FullLike", &["x", "fill_value"], planned_like, full_like).with(&[DTYPE]),
    operation("OnesLike", X, planned_like, |node| number_like(node, 1)).with(&[DTYPE]),
    operation("ZerosLike", X, planned_like, |node| number_like(node, 0)).with(&[DTYPE]),
    // Keras: what TensorFlow leaves empty is 0.
    operation("EmptyLike", X, planned_like, |node| number_like(node, 0)).with(&[DTYPE]),
    operation("Imag", X, |node| Ok(vec![node.spec("x")?]), |node| number_like(node, 0)),
    // Keras: plans a float32 for each axis, and gives a Python int.
    operation(
        "Ndim",
        X,
        |node| one(Shape(vec![Some(node.spec("x")?.shape.rank())]), Dtype::Float32),
        |node| {
            let xs = node.value("x")?.tensor;
            Ok(vec![Value::new(Tensor::new(i64::try_from(xs.rank())?, xs.device())?, Dtype::Int64)])
        },
    ),
    operation("Size", X, |_| one(Shape(Vec::new()), Dtype::Int32), size),
    operation("Meshgrid", &["*x"], |node| probe(node, meshgrid), meshgrid)
        .with(&[("indexing", Setting::Choice(&["xy", "ij"]))]),
];
