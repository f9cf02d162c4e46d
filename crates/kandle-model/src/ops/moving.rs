//! Numbers moved as they are: other shapes, other orders, copies and borders. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Device, Result, Tensor, bail};
use kandle_format::{Problem, json::Value as Json};

use super::{
    Node, Operation, Scalar, Setting,
    elementwise::{X, planned, same},
    invalid, one, operation, shapes,
};
use crate::{Shape, Spec, Value, math::window::select};

const AXIS: (&str, Setting) = ("axis", Setting::Integers);

type Planned = std::result::Result<Vec<Spec>, Problem>;

fn failed(what: String) -> candle_core::Error {
    candle_core::Error::Msg(what)
}

/// `x` through `f`, in the dtype it has.
pub(super) fn moved(node: &Node<'_, Value>, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    Ok(vec![value.with_tensor(f(&value.tensor)?)])
}

/// The plan of an operation that changes the shape of `x` only.
pub(super) fn shaped(
    node: &Node<'_, Spec>,
    f: impl Fn(&[Option<usize>]) -> std::result::Result<Vec<Option<usize>>, String>,
) -> Planned {
    let xs = node.spec("x")?;
    one(Shape(f(&xs.shape.0).map_err(invalid)?), xs.dtype)
}

fn planned_reshape(node: &Node<'_, Spec>) -> Planned {
    let sizes = node.settings.required("newshape")?;
    if sizes.iter().any(|size| *size < -1) || sizes.iter().filter(|size| **size == -1).count() > 1 {
        return Err(invalid(format!("newshape {sizes:?}: expected sizes, and -1 once at most")));
    }
    shaped(node, |axes| {
        let known = sizes.iter().map(|size| usize::try_from(*size).ok());
        let rest = known.clone().flatten().try_fold(1_usize, usize::checked_mul).ok_or("newshape is too large")?;
        let Some(elements) = shapes::elements(&Shape(axes.to_vec())) else { return Ok(known.collect()) };
        let free = if rest == 0 { None } else { (elements % rest == 0).then_some(elements / rest) };
        let fits = if sizes.contains(&-1) { free.is_some() } else { rest == elements };
        if !fits {
            return Err(format!("{elements} elements do not fill {sizes:?}"));
        }
        Ok(known.map(|size| size.or(free)).collect())
    })
}

fn reshape(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let sizes = node.settings.required("newshape").map_err(|problem| failed(problem.what))?;
    moved(node, |xs| {
        let rest = sizes.iter().filter_map(|size| usize::try_from(*size).ok()).product::<usize>().max(1);
        let free = xs.elem_count() / rest;
        let dims: Vec<usize> = sizes.iter().map(|size| usize::try_from(*size).unwrap_or(free)).collect();
        xs.contiguous()?.reshape(dims)
    })
}

/// Where each axis of the result comes from.
fn transposition(node_axes: Option<&[i64]>, rank: usize) -> std::result::Result<Vec<usize>, String> {
    match node_axes {
        Some(axes) => {
            let found =
                axes.iter().map(|axis| shapes::axis(*axis, rank)).collect::<std::result::Result<Vec<_>, _>>()?;
            if shapes::axes(Some(axes), rank)?.len() != rank {
                return Err(format!("axes {axes:?}: expected each of {rank} once"));
            }
            Ok(found)
        }
        None => Ok((0..rank).rev().collect()),
    }
}

/// As [`transposition`], for `moveaxis`.
fn moves(source: &[i64], destination: &[i64], rank: usize) -> std::result::Result<Vec<usize>, String> {
    let find =
        |axes: &[i64]| axes.iter().map(|axis| shapes::axis(*axis, rank)).collect::<std::result::Result<Vec<_>, _>>();
    let (from, to) = (find(source)?, find(destination)?);
    shapes::axes(Some(source), rank)?;
    shapes::axes(Some(destination), rank)?;
    if from.len() != to.len() {
        return Err(format!("source {source:?} and destination {destination:?} are of different lengths"));
    }
    let mut order: Vec<usize> = (0..rank).filter(|axis| !from.contains(axis)).collect();
    let mut pairs: Vec<(usize, usize)> = to.into_iter().zip(from).collect();
    pairs.sort_unstable();
    for (to, from) in pairs {
        order.insert(to.min(order.len()), from);
    }
    Ok(order)
}

fn swap(a: i64, b: i64, rank: usize) -> std::result::Result<Vec<usize>, String> {
    let (a, b) = (shapes::axis(a, rank)?, shapes::axis(b, rank)?);
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(a, b);
    Ok(order)
}

type Order = std::result::Result<Vec<usize>, String>;

/// The order of axes that the operation's settings ask for.
fn order_of<T>(node: &Node<'_, T>, rank: usize, order: fn(&super::Settings, usize) -> Order) -> Order {
    order(node.settings, rank)
}

fn planned_order(node: &Node<'_, Spec>, order: fn(&super::Settings, usize) -> Order) -> Planned {
    shaped(node, |axes| {
        Ok(order_of(node, axes.len(), order)?.into_iter().filter_map(|axis| axes.get(axis).copied()).collect())
    })
}

fn ordered(node: &Node<'_, Value>, order: fn(&super::Settings, usize) -> Order) -> Result<Vec<Value>> {
    moved(node, |xs| xs.permute(order_of(node, xs.rank(), order).map_err(failed)?)?.contiguous())
}

pub(super) fn by_axes(settings: &super::Settings, rank: usize) -> Order {
    // Keras: an empty list of axes is no list.
    transposition(settings.integers("axes").filter(|axes| !axes.is_empty() || rank == 0), rank)
}

pub(super) fn by_moves(settings: &super::Settings, rank: usize) -> Order {
    moves(
        settings.integers("source").ok_or("source is missing")?,
        settings.integers("destination").ok_or("destination is missing")?,
        rank,
    )
}

pub(super) fn by_swap(settings: &super::Settings, rank: usize) -> Order {
    swap(
        settings.integer("axis1").ok_or("axis1 is missing")?,
        settings.integer("axis2").ok_or("axis2 is missing")?,
        rank,
    )
}

fn squeezed(axes: Option<&[i64]>, sizes: &[Option<usize>]) -> std::result::Result<Vec<usize>, String> {
    let Some(axes) = axes else {
        return Ok(sizes.iter().enumerate().filter(|(_, size)| **size == Some(1)).map(|(axis, _)| axis).collect());
    };
    let found = shapes::axes(Some(axes), sizes.len())?;
    match found.iter().find(|axis| sizes.get(**axis) != Some(&Some(1))) {
        Some(axis) => Err(format!("axis {axis} of {} is not 1", Shape(sizes.to_vec()))),
        None => Ok(found),
    }
}

fn planned_squeeze(node: &Node<'_, Spec>) -> Planned {
    shaped(node, |sizes| {
        let gone = squeezed(node.settings.integers("axis"), sizes)?;
        Ok(sizes.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, size)| *size).collect())
    })
}

fn squeeze(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    moved(node, |xs| {
        let sizes: Vec<Option<usize>> = xs.dims().iter().copied().map(Some).collect();
        let gone = squeezed(node.settings.integers("axis"), &sizes).map_err(failed)?;
        let kept = xs.dims().iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
        let dims: Vec<usize> = kept.map(|(_, size)| *size).collect();
        xs.contiguous()?.reshape(dims)
    })
}

fn expanded(axes: &[i64], sizes: &[Option<usize>]) -> std::result::Result<Vec<Option<usize>>, String> {
    let rank = sizes.len() + axes.len();
    let new = shapes::axes(Some(axes), rank)?;
    let mut old = sizes.iter().copied();
    Ok((0..rank).map(|axis| if new.contains(&axis) { Some(1) } else { old.next().flatten() }).collect())
}

fn expand_dims(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let axes = node.settings.required("axis").map_err(|problem| failed(problem.what))?;
    moved(node, |xs| {
        let sizes: Vec<Option<usize>> = xs.dims().iter().copied().map(Some).collect();
        let dims: Vec<usize> = expanded(axes, &sizes).map_err(failed)?.into_iter().flatten().collect();
        xs.contiguous()?.reshape(dims)
    })
}

fn planned_broadcast(node: &Node<'_, Spec>) -> Planned {
    let sizes = node.settings.required("shape")?;
    let target = Shape(sizes.iter().map(|size| usize::try_from(*size).ok()).collect());
    let xs = node.spec("x")?;
    shapes::broadcast(&xs.shape, &target)?;
    one(target, xs.dtype)
}

fn broadcast_to(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let sizes = node.settings.required("shape").map_err(|problem| failed(problem.what))?;
    let dims = sizes.iter().map(|size| usize::try_from(*size)).collect::<std::result::Result<Vec<_>, _>>()?;
    moved(node, |xs| xs.broadcast_as(dims.as_slice())?.contiguous())
}

/// `xs` with the cells of these axes in reverse.
pub(super) fn reversed(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    axes.iter().try_fold(xs.clone(), |xs, axis| {
        let cells: Vec<usize> = (0..xs.dim(*axis)?).rev().collect();
        select(&xs, *axis, &cells)
    })
}

fn flip(node: &Node<'_, Value>, axes: Option<&[i64]>) -> Result<Vec<Value>> {
    moved(node, |xs| reversed(xs, &shapes::axes(axes, xs.rank()).map_err(failed)?))
}

fn planned_flip(node: &Node<'_, Spec>, axes: Option<&[i64]>) -> Planned {
    let xs = node.spec("x")?;
    shapes::axes(axes, xs.shape.rank()).map_err(invalid)?;
    one(xs.shape, xs.dtype)
}

fn rotation(settings: &super::Settings, rank: usize) -> std::result::Result<(usize, usize, i64), String> {
    let axes = settings.integers("axes").unwrap_or(&[0, 1]);
    let [a, b] = axes else { return Err(format!("axes {axes:?}: expected two")) };
    let (a, b) = (shapes::axis(*a, rank)?, shapes::axis(*b, rank)?);
    if a == b {
        return Err(format!("axes {axes:?}: expected two"));
    }
    Ok((a, b, settings.integer("k").unwrap_or(1).rem_euclid(4)))
}

/// Keras: the plan swaps the axes however often is turned.
fn planned_rot90(node: &Node<'_, Spec>) -> Planned {
    let xs = node.spec("array")?;
    let (a, b, _) = rotation(node.settings, xs.shape.rank()).map_err(invalid)?;
    let mut axes = xs.shape.0;
    axes.swap(a, b);
    one(Shape(axes), xs.dtype)
}

fn rot90(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("array")?;
    let (a, b, turns) = rotation(node.settings, value.tensor.rank()).map_err(failed)?;
    let turned =
        (0..turns).try_fold(value.tensor.clone(), |xs, _| reversed(&xs, &[b])?.transpose(a, b)?.contiguous())?;
    Ok(vec![value.with_tensor(turned)])
}

fn roll(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let shifts = node.settings.required("shift").map_err(|problem| failed(problem.what))?;
    let rolled = |xs: &Tensor, axis: usize, shift: i64| -> Result<Tensor> {
        let size = i64::try_from(xs.dim(axis)?)?;
        let cells: Vec<usize> =
            (0..size).filter_map(|at| usize::try_from((at - shift % size).rem_euclid(size)).ok()).collect();
        select(xs, axis, &cells)
    };
    moved(node, |xs| match node.settings.integers("axis") {
        None => rolled(&xs.flatten_all()?, 0, shifts.iter().sum())?.reshape(xs.dims()),
        Some(axes) if axes.len() == shifts.len() => {
            axes.iter().zip(shifts).try_fold(xs.clone(), |xs, (axis, shift)| {
                rolled(&xs, shapes::axis(*axis, xs.rank()).map_err(failed)?, *shift)
            })
        }
        Some(axes) => bail!("expected a shift for each of {} axes, found {}", axes.len(), shifts.len()),
    })
}

fn tiled(repeats: &[i64], sizes: &[Option<usize>]) -> std::result::Result<(Vec<Option<usize>>, Vec<usize>), String> {
    let rank = repeats.len().max(sizes.len());
    let counts = repeats
        .iter()
        .map(|count| usize::try_from(*count).map_err(|_| format!("repeats: expected sizes, found {count}")))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let padded = [vec![Some(1); rank - sizes.len()], sizes.to_vec()].concat();
    Ok((padded, [vec![1; rank - repeats.len()], counts].concat()))
}

fn planned_tile(node: &Node<'_, Spec>) -> Planned {
    let repeats = node.settings.required("repeats")?;
    shaped(node, |sizes| {
        let (sizes, counts) = tiled(repeats, sizes)?;
        let size = |(size, count): (Option<usize>, usize)| match size {
            Some(size) => size.checked_mul(count).map(Some).ok_or_else(|| "repeats is too large".to_owned()),
            None => Ok(None),
        };
        sizes.into_iter().zip(counts).map(size).collect()
    })
}

fn tile(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let repeats = node.settings.required("repeats").map_err(|problem| failed(problem.what))?;
    moved(node, |xs| {
        let sizes: Vec<Option<usize>> = xs.dims().iter().copied().map(Some).collect();
        let (sizes, counts) = tiled(repeats, &sizes).map_err(failed)?;
        let dims: Vec<usize> = sizes.into_iter().flatten().collect();
        let xs = xs.contiguous()?.reshape(dims)?;
        counts.into_iter().enumerate().try_fold(xs, |xs, (axis, count)| {
            let cells: Vec<usize> = (0..count).flat_map(|_| 0..xs.dims().get(axis).copied().unwrap_or(0)).collect();
            if count == 1 { Ok(xs) } else { select(&xs, axis, &cells) }
        })
    })
}

/// The size of an axis whose entries are repeated.
fn repeated(size: Option<usize>, counts: &[i64]) -> std::result::Result<Option<usize>, String> {
    let counts = counts
        .iter()
        .map(|count| usize::try_from(*count).map_err(|_| format!("repeats: expected sizes, found {count}")))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let large = || "repeats is too large".to_owned();
    match (size, counts.as_slice()) {
        (None, _) => Ok(None),
        (Some(size), [count]) => size.checked_mul(*count).map(Some).ok_or_else(large),
        (Some(size), counts) if size == counts.len() => {
            counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count)).map(Some).ok_or_else(large)
        }
        (Some(size), counts) => Err(format!("{} repeats for an axis of {size}", counts.len())),
    }
}

fn planned_repeat(node: &Node<'_, Spec>) -> Planned {
    let counts = node.settings.required("repeats")?;
    shaped(node, |sizes| match node.settings.integer("axis") {
        None => Ok(vec![repeated(shapes::elements(&Shape(sizes.to_vec())), counts)?]),
        Some(axis) => {
            let axis = shapes::axis(axis, sizes.len())?;
            let mut sizes = sizes.to_vec();
            if let Some(size) = sizes.get_mut(axis) {
                *size = repeated(*size, counts)?;
            }
            Ok(sizes)
        }
    })
}

fn repeat(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let counts = node.settings.required("repeats").map_err(|problem| failed(problem.what))?;
    moved(node, |xs| {
        let (xs, axis) = match node.settings.integer("axis") {
            None => (xs.flatten_all()?, 0),
            Some(axis) => (xs.clone(), shapes::axis(axis, xs.rank()).map_err(failed)?),
        };
        let size = xs.dim(axis)?;
        repeated(Some(size), counts).map_err(failed)?;
        let count = |at: usize| counts.get(if counts.len() == 1 { 0 } else { at }).copied().unwrap_or_default();
        let cells: Vec<usize> =
            (0..size).flat_map(|at| std::iter::repeat_n(at, usize::try_from(count(at)).unwrap_or(0))).collect();
        select(&xs, axis, &cells)
    })
}

/// How many cells go before and after each of `rank` axes.
fn borders(pad_width: Option<&Json>, rank: usize) -> std::result::Result<Vec<(usize, usize)>, String> {
    let wrong = || "pad_width: expected a pair of sizes for each axis".to_owned();
    let size = |value: &Json| value.as_u64().and_then(|size| usize::try_from(size).ok()).ok_or_else(wrong);
    let pair = |value: &Json| match value.as_array().map(Vec::as_slice) {
        Some([both]) => Ok((size(both)?, size(both)?)),
        Some([before, after]) => Ok((size(before)?, size(after)?)),
        _ => Err(wrong()),
    };
    let pairs = match pad_width.ok_or("pad_width is missing")? {
        Json::Array(items) if items.iter().all(Json::is_array) => {
            items.iter().map(pair).collect::<std::result::Result<_, _>>()?
        }
        Json::Array(items) => vec![pair(&Json::Array(items.clone()))?],
        both => vec![(size(both)?, size(both)?)],
    };
    match pairs.as_slice() {
        [only] => Ok(vec![*only; rank]),
        pairs if pairs.len() == rank => Ok(pairs.to_vec()),
        pairs => Err(format!("pad_width of {} pairs for {rank} axes", pairs.len())),
    }
}

fn planned_pad(node: &Node<'_, Spec>) -> Planned {
    let mode = node.settings.text("mode");
    if node.optional("constant_values")?.is_some() && mode != "constant" {
        return Err(invalid(format!("constant_values is given, and mode is {mode}")));
    }
    shaped(node, |sizes| {
        let padded = |(size, (before, after)): (&Option<usize>, (usize, usize))| match size {
            Some(size) => size
                .checked_add(before)
                .and_then(|size| size.checked_add(after))
                .map(Some)
                .ok_or("pad_width is too large".to_owned()),
            None => Ok(None),
        };
        sizes.iter().zip(borders(node.settings.any("pad_width"), sizes.len())?).map(padded).collect()
    })
}

fn pad(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let borders = borders(node.settings.any("pad_width"), value.tensor.rank()).map_err(failed)?;
    let fill = match node.optional("constant_values")? {
        Some(fill) => fill.cast(value.dtype, &node.device())?,
        None => Scalar::Int(0).value(value.dtype, &node.device())?,
    };
    let mode = node.settings.text("mode").to_ascii_lowercase();
    let padded = borders.into_iter().enumerate().try_fold(value.tensor.clone(), |xs, (axis, (before, after))| {
        let size = xs.dim(axis)?;
        if mode == "constant" {
            let cells = |count: usize| {
                let dims: Vec<usize> =
                    xs.dims().iter().enumerate().map(|(at, size)| if at == axis { count } else { *size }).collect();
                fill.tensor.broadcast_as(dims)
            };
            return Tensor::cat(&[&cells(before)?, &xs, &cells(after)?], axis);
        }
        let edge = usize::from(mode == "reflect");
        if before + edge > size || after + edge > size {
            bail!("an axis of {size} cannot be padded by {before} and {after} with mode {mode}");
        }
        let front = (0..before).rev().map(|at| at + edge);
        let back = (0..after).map(|at| size - 1 - edge - at);
        let cells: Vec<usize> = front.chain(0..size).chain(back).collect();
        select(&xs, axis, &cells)
    })?;
    Ok(vec![value.with_tensor(padded)])
}

/// `x` where row and column are as `keep` says, else 0.
fn triangle(node: &Node<'_, Value>, keep: fn(i64, i64) -> bool) -> Result<Vec<Value>> {
    let k = node.settings.integer("k").unwrap_or_default();
    moved(node, |xs| {
        let [.., rows, columns] = xs.dims() else { bail!("expected two axes at least, found {}", xs.rank()) };
        let mask: Vec<u8> = (0_i64..)
            .take(*rows)
            .flat_map(|row| (0_i64..).take(*columns).map(move |column| u8::from(keep(column - row, k))))
            .collect();
        let mask = Tensor::from_vec(mask, (*rows, *columns), &Device::Cpu)?.to_device(xs.device())?;
        mask.broadcast_as(xs.dims())?.contiguous()?.where_cond(&xs.contiguous()?, &xs.zeros_like()?.contiguous()?)
    })
}

fn planned_ravel(node: &Node<'_, Spec>) -> Planned {
    shaped(node, |sizes| Ok(vec![shapes::elements(&Shape(sizes.to_vec()))]))
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Reshape", X, planned_reshape, reshape).with(&[("newshape", Setting::Sizes)]),
    operation("Ravel", X, planned_ravel, |node| moved(node, Tensor::flatten_all)),
    operation("Transpose", X, |node| planned_order(node, by_axes), |node| ordered(node, by_axes))
        .with(&[("axes", Setting::Integers)]),
    operation("Moveaxis", X, |node| planned_order(node, by_moves), |node| ordered(node, by_moves))
        .with(&[("source", Setting::Integers), ("destination", Setting::Integers)])
        .giving_back(|node| node.settings.integers("source") == node.settings.integers("destination")),
    operation("Swapaxes", X, |node| planned_order(node, by_swap), |node| ordered(node, by_swap))
        .with(&[("axis1", Setting::Integers), ("axis2", Setting::Integers)])
        .giving_back(|node| node.settings.integer("axis1") == node.settings.integer("axis2")),
    operation("Squeeze", X, planned_squeeze, squeeze).with(&[AXIS]),
    operation(
        "ExpandDims",
        X,
        |node| {
            let axes = node.settings.required("axis")?;
            shaped(node, |sizes| expanded(axes, sizes))
        },
        expand_dims,
    )
    .with(&[AXIS]),
    operation("BroadcastTo", X, planned_broadcast, broadcast_to).with(&[("shape", Setting::Sizes)]),
    operation(
        "Flip",
        X,
        |node| planned_flip(node, node.settings.integers("axis")),
        |node| flip(node, node.settings.integers("axis")),
    )
    .with(&[AXIS]),
    operation("Fliplr", X, |node| planned_flip(node, Some(&[1])), |node| flip(node, Some(&[1]))),
    operation("Flipud", X, |node| planned_flip(node, Some(&[0])), |node| flip(node, Some(&[0]))),
    operation("Rot90", &["array"], planned_rot90, rot90)
        .with(&[("k", Setting::Integer(1)), ("axes", Setting::Integers)]),
    operation("Roll", X, |node| planned_flip(node, node.settings.integers("axis")), roll)
        .with(&[("shift", Setting::Integers), AXIS]),
    operation("Tile", X, planned_tile, tile).with(&[("repeats", Setting::Integers)]),
    operation("Repeat", X, planned_repeat, repeat).with(&[("repeats", Setting::Integers), AXIS]),
    operation("Pad", &["x", "constant_values"], planned_pad, pad)
        .with(&[("pad_width", Setting::Any), ("mode", Setting::Choice(&["constant", "reflect", "symmetric"]))]),
    operation("Tril", X, |node| planned(node, same), |node| triangle(node, |diagonal, k| diagonal <= k))
        .with(&[("k", Setting::Integer(0))]),
    operation("Triu", X, |node| planned(node, same), |node| triangle(node, |diagonal, k| diagonal >= k))
        .with(&[("k", Setting::Integer(0))]),
];
