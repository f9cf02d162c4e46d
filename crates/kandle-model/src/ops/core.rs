//! `keras.ops` of ops/core.py and ops/einops.py: casts, slices, scattering, rearranging.
//!
//! What runs a Python function (`Map`, `Scan`, `WhileLoop`, `Cond`, …) is not here: the function is not in the file.
//!
//! Source: keras/src/ops/core.py, keras/src/ops/einops.py, keras/src/backend/tensorflow/core.py.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Known, Node, Operand, Operation, Setting, convert, elementwise::X, floats, invalid, one, operation,
    rounded, shapes,
};
use crate::{Argument, Shape, Spec, Value, activation::clip, numeric::storage};

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("Cast", X, planned_cast, cast).with(&[("dtype", Setting::Dtype)]).giving_back(is_of_its_dtype),
    operation("SaturateCast", X, planned_saturate, saturate).with(&[("dtype", Setting::Dtype)]),
    operation("ConvertToTensor", X, planned_cast, cast)
        .with(&[("dtype", Setting::Dtype), ("sparse", Setting::Only("false")), ("ragged", Setting::Only("false"))])
        .giving_back(is_of_its_dtype),
    operation("Array", X, planned_cast, cast).with(&[("dtype", Setting::Dtype)]),
    operation(
        "StopGradient",
        &["variable"],
        |node| Ok(vec![node.spec("variable")?]),
        |node| {
            let value = node.value("variable")?;
            Ok(vec![value.with_tensor(value.tensor.detach())])
        },
    ),
    operation("Slice", &["inputs", "start_indices"], planned_slice, slice).with(&[("shape", Setting::Sizes)]),
    operation("SliceUpdate", &["inputs", "start_indices", "updates"], planned_inputs, slice_update),
    operation("Scatter", &["indices", "values"], planned_scatter, scatter).with(&[("shape", Setting::Sizes)]),
    operation("ScatterUpdate", &["inputs", "indices", "updates"], planned_inputs, scatter_update)
        .with(&[("reduction", Setting::Text)]),
    operation("Unstack", X, planned_unstack, unstack)
        .with(&[("num", Setting::Integers), ("axis", Setting::Integer(0))]),
    operation("Rearrange", &["tensor", "pattern", "**axes_lengths"], planned_rearranged, rearrange),
];

fn planned_cast(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    one(xs.shape, node.settings.dtype("dtype").unwrap_or(xs.dtype))
}

/// Whether there is nothing to cast.
fn is_of_its_dtype(node: &Node<'_, Spec>) -> bool {
    let dtype = node.settings.dtype("dtype");
    node.spec("x").is_ok_and(|xs| dtype.is_none_or(|dtype| dtype == xs.dtype))
}

/// Keras: the bounds of a float dtype overflow as int64, and everything becomes the smallest int64.
fn planned_saturate(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (from, to) = (node.spec("x")?.dtype, node.settings.dtype("dtype"));
    if matches!(from, Dtype::Int64 | Dtype::Uint64) && to.is_some_and(|to| to.is_float() && to != Dtype::Float16) {
        let what = format!("a saturating cast from {from} to floats is not supported");
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    planned_cast(node)
}

fn cast(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    Ok(vec![convert(&value, node.settings.dtype("dtype").unwrap_or(value.dtype))?])
}

/// The smallest and the largest number of a dtype.
fn bounds(dtype: Dtype) -> Option<(i128, i128)> {
    Some(match dtype {
        Dtype::Bool => (0, 1),
        Dtype::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Dtype::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Dtype::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Dtype::Int64 => (i64::MIN.into(), i64::MAX.into()),
        Dtype::Uint8 => (0, u8::MAX.into()),
        Dtype::Uint16 => (0, u16::MAX.into()),
        Dtype::Uint32 => (0, u32::MAX.into()),
        Dtype::Uint64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// The largest finite number of a float dtype.
fn largest(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Float16 => 65504.0,
        Dtype::Bfloat16 => 3.389_531_389_251_535e38,
        Dtype::Float64 => f64::MAX,
        _ => f64::from(f32::MAX),
    }
}

/// `bound` as numbers of the float dtype have it.
///
/// Keras: int32's largest number is 2³¹ in float32, which no int32 is: what is held there has no cast, an error here.
fn within(bound: i128, dtype: Dtype) -> Result<f64> {
    let near = (bound as f64).clamp(-largest(dtype), largest(dtype));
    Tensor::new(near, &Device::Cpu)?.to_dtype(storage(dtype)?)?.to_dtype(DType::F64)?.to_scalar::<f64>()
}

/// A cast that holds what the dtype has no room for at its bounds.
fn saturate(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = node.settings.dtype("dtype").unwrap_or(value.dtype);
    Ok(vec![saturated(&value, dtype)?])
}

/// As [`saturate`].
pub(super) fn saturated(value: &Value, dtype: Dtype) -> Result<Value> {
    match (bounds(value.dtype), bounds(dtype)) {
        // Keras: a float64 that float32 has no room for is held at its largest number; so is an infinity.
        (None, None) => {
            let most = largest(dtype).min(largest(value.dtype));
            let xs = clip(&floats(value, value.dtype)?, -most, most)?;
            convert(&rounded(&xs, value.dtype)?, dtype)
        }
        (None, Some((least, most))) => {
            let (least, most) = (within(least, value.dtype)?, within(most, value.dtype)?);
            let xs = clip(&floats(value, value.dtype)?, least, most)?;
            convert(&rounded(&xs, value.dtype)?, dtype)
        }
        (Some(_), to) => {
            // Up to its bound, an int128 has every whole number that a float32 has.
            let (least, most) = to.unwrap_or((-(largest(dtype) as i128), largest(dtype) as i128));
            let integers =
                Integers::of(value)?.map(|number| Ok(i64::try_from(i128::from(number).clamp(least, most))?))?;
            integers.value(dtype, value.tensor.device())
        }
    }
}

fn sizes<T>(node: &Node<'_, T>) -> std::result::Result<Vec<i64>, Problem> {
    Ok(node.settings.required("shape")?.to_vec())
}

/// The whole numbers that an argument is where it holds no tensor.
fn starts<T: Known>(operand: &Operand<'_, T>) -> Option<Vec<i64>> {
    match operand {
        Operand::Tensor(_) => None,
        Operand::Scalar(scalar) => scalar.integer().map(|number| vec![number]),
        Operand::Constant(value) => Integers::of(value).ok().map(|integers| integers.numbers),
    }
}

/// Keras: the rest of an axis is unknown where the start is a tensor.
fn planned_slice(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (inputs, sizes) = (node.spec("inputs")?, sizes(node)?);
    let starts = match node.given.tensors("start_indices").len() {
        0 => starts(&node.operand("start_indices")?),
        _ => None,
    };
    let rank = inputs.shape.rank();
    if sizes.len() != rank || starts.as_ref().is_some_and(|starts| starts.len() != rank) {
        return Err(invalid(format!("a slice of {} axes of an input of {}", sizes.len(), inputs.shape)));
    }
    let mut axes = Vec::new();
    for (axis, (size, own)) in sizes.iter().zip(&inputs.shape.0).enumerate() {
        let start = starts.as_ref().and_then(|starts| starts.get(axis)).copied();
        let wrong = || invalid(format!("a slice of {size} from {start:?} of an axis of {own:?}"));
        let known = start.map(usize::try_from).transpose().map_err(|_| wrong())?;
        axes.push(match (usize::try_from(*size), own, known) {
            (Ok(size), Some(own), Some(start)) if start.checked_add(size).is_none_or(|end| end > *own) => {
                return Err(wrong());
            }
            (Ok(size), _, _) => Some(size),
            (Err(_), _, _) if *size != -1 => return Err(wrong()),
            (Err(_), Some(own), Some(start)) => Some(own.checked_sub(start).ok_or_else(wrong)?),
            (Err(_), _, _) => None,
        });
    }
    one(Shape(axes), inputs.dtype)
}

/// The whole numbers of the argument `name`: a list, a tensor, or a list with tensors in it.
fn indices(node: &Node<'_, Value>, name: &str) -> Result<Vec<i64>> {
    if let Ok(operand) = node.operand(name) {
        return Ok(Integers::of(&operand.value(&Device::Cpu)?)?.numbers);
    }
    let each = |operand: &Operand<'_, Value>| Ok(Integers::of(&operand.value(&Device::Cpu)?)?.numbers);
    Ok(node.operands(name)?.iter().map(each).collect::<Result<Vec<_>>>()?.concat())
}

fn slice(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("inputs")?;
    let sizes = sizes(node).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    let starts = indices(node, "start_indices")?;
    if sizes.len() != value.tensor.rank() || starts.len() != sizes.len() {
        bail!("a slice of {} axes of an input of {:?}", sizes.len(), value.tensor.dims());
    }
    let mut found = value.tensor.clone();
    for (axis, (start, size)) in starts.iter().zip(&sizes).enumerate() {
        let own = found.dim(axis)?;
        let part = usize::try_from(*start).ok().filter(|start| *start <= own).and_then(|start| {
            let size = if *size == -1 { Some(own - start) } else { usize::try_from(*size).ok() };
            size.filter(|size| *size <= own - start).map(|size| (start, size))
        });
        let Some((start, size)) = part else { bail!("a slice of {size} from {start} of an axis of {own}") };
        found = found.narrow(axis, start, size)?;
    }
    Ok(vec![value.with_tensor(found.contiguous()?)])
}

fn planned_inputs(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (inputs, updates) = (node.spec("inputs")?, node.operand("updates")?);
    if updates.dtype() != inputs.dtype {
        return Err(invalid(format!("updates of {} to an input of {}", updates.dtype(), inputs.dtype)));
    }
    if !matches!(node.settings.text("reduction"), "" | "add" | "max" | "min" | "mul") {
        return Err(invalid(format!(
            "reduction: expected add, max, min or mul, found {}",
            node.settings.text("reduction")
        )));
    }
    Ok(vec![inputs])
}

/// `inputs` with `updates` written at `start_indices`; a start from which they would not fit is moved to where they do.
fn slice_update(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, updates, starts) = (node.value("inputs")?, node.value("updates")?, indices(node, "start_indices")?);
    let (dims, sizes) = (value.tensor.dims(), updates.tensor.dims());
    if sizes.len() != dims.len() || starts.len() != dims.len() || sizes.iter().zip(dims).any(|(size, own)| size > own) {
        bail!("updates of {sizes:?} at {starts:?} of an input of {dims:?}");
    }
    let mut written = updates.tensor.clone();
    // From the last axis outwards, what lies around the updates is put around them.
    for axis in (0..dims.len()).rev() {
        let (own, size) = (value.tensor.dim(axis)?, updates.tensor.dim(axis)?);
        let mut around = value.tensor.clone();
        for outer in 0..axis {
            let start = start_within(starts.get(outer).copied(), value.tensor.dim(outer)?, updates.tensor.dim(outer)?)?;
            around = around.narrow(outer, start, updates.tensor.dim(outer)?)?;
        }
        let start = start_within(starts.get(axis).copied(), own, size)?;
        let before = around.narrow(axis, 0, start)?;
        let after = around.narrow(axis, start + size, own - start - size)?;
        let parts: Vec<Tensor> =
            [before, written, after].into_iter().filter(|part| part.dims().get(axis) != Some(&0)).collect();
        written = match parts.is_empty() {
            true => around,
            false => Tensor::cat(&parts.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?, axis)?,
        };
    }
    Ok(vec![value.with_tensor(written)])
}

fn start_within(start: Option<i64>, own: usize, size: usize) -> Result<usize> {
    let last = i64::try_from(own - size)?;
    Ok(usize::try_from(start.unwrap_or_default().clamp(0, last))?)
}

fn planned_scatter(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let sizes =
        sizes(node)?.iter().map(|size| usize::try_from(*size).map(Some)).collect::<std::result::Result<Vec<_>, _>>();
    one(Shape(sizes.map_err(|_| invalid("shape: expected sizes of at least 0"))?), node.operand("values")?.dtype())
}

/// Where in a flat tensor of shape `dims` each row of `indices` points, and how many numbers it points to.
fn places(indices: &Integers, dims: &[usize]) -> Result<(Vec<usize>, usize)> {
    let Some((depth, _)) = indices.dims.split_last() else { bail!("expected indices of rank 1 or more") };
    if *depth > dims.len() {
        bail!("indices of {depth} numbers into a shape of {dims:?}");
    }
    let (outer, inner) = dims.split_at(*depth);
    let size: usize = inner.iter().product();
    let rows = if *depth == 0 { 1 } else { indices.numbers.len() / depth };
    let mut found = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut flat = 0;
        for (axis, own) in outer.iter().enumerate() {
            let index = indices.numbers.get(row * depth + axis).copied().unwrap_or_default();
            let Some(index) = usize::try_from(index).ok().filter(|index| index < own) else {
                bail!("index {index} of an axis of {own}");
            };
            flat = flat * own + index;
        }
        found.push(flat);
    }
    Ok((found, size))
}

/// `values` added up at `indices` of zeros.
fn scatter(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (indices, values) = (Integers::of(&node.value("indices")?)?, node.value("values")?);
    let dims = sizes(node).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    let dims = dims.iter().map(|size| Ok(usize::try_from(*size)?)).collect::<Result<Vec<usize>>>()?;
    let zeros = Value::new(Tensor::zeros(dims, storage(values.dtype)?, values.tensor.device())?, values.dtype);
    Ok(vec![written(&zeros, &indices, &values, "add")?])
}

fn scatter_update(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (inputs, updates) = (node.value("inputs")?, node.value("updates")?);
    let indices = Integers::of(&node.value("indices")?)?;
    Ok(vec![written(&inputs, &indices, &updates, node.settings.text("reduction"))?])
}

/// `into` with `updates` at `indices`, one after the other.
fn written(into: &Value, indices: &Integers, updates: &Value, reduction: &str) -> Result<Value> {
    let dims = into.tensor.dims();
    let (places, size) = places(indices, dims)?;
    let count: usize = dims.iter().product::<usize>().checked_div(size).unwrap_or_default();
    if updates.tensor.elem_count() != places.len() * size {
        bail!("updates of shape {:?} at indices of shape {:?} of {dims:?}", updates.tensor.dims(), indices.dims);
    }
    if size == 0 || places.is_empty() {
        return Ok(into.with_tensor(into.tensor.clone()));
    }
    let dtype = into.dtype;
    // Floats as they are, everything else as int64.
    let numbers = |value: &Value| -> Result<Tensor> {
        let numbers = match dtype.is_float() {
            true => floats(value, dtype)?,
            false => Integers::of(value)?.value(Dtype::Int64, &Device::Cpu)?.tensor,
        };
        numbers.reshape(((), size))
    };
    let (rows, updates) = (numbers(into)?.reshape((count, size))?, numbers(updates)?);
    // Each row in the end is one of the rows and updates, or combines several of them.
    let mut sources: Vec<Vec<usize>> = (0..count).map(|row| vec![row]).collect();
    for (index, place) in places.iter().enumerate() {
        if let Some(source) = sources.get_mut(*place) {
            match reduction {
                "" => *source = vec![count + index],
                _ => source.push(count + index),
            }
        }
    }
    let all = Tensor::cat(&[rows, updates], 0)?;
    let longest = sources.iter().map(Vec::len).max().unwrap_or(1);
    let pick = |at: usize| -> Result<Tensor> {
        let rows = sources.iter().map(|source| source.get(at).or_else(|| source.first()).copied().unwrap_or_default());
        let rows = rows.map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>()?;
        all.index_select(&Tensor::new(rows.as_slice(), all.device())?, 0)
    };
    let mut found = pick(0)?;
    for at in 1..longest {
        let here: Vec<u8> = sources.iter().map(|source| u8::from(source.len() > at)).collect();
        let here = Tensor::from_vec(here, (count, 1), all.device())?.broadcast_as((count, size))?;
        let other = pick(at)?;
        let combined = match reduction {
            "add" => (&found + &other)?,
            "mul" => (&found * &other)?,
            "max" => other.gt(&found)?.where_cond(&other, &found)?,
            _ => other.lt(&found)?.where_cond(&other, &found)?,
        };
        found = here.where_cond(&combined, &found)?;
    }
    let found = found.reshape(dims)?;
    match dtype.is_float() {
        true => rounded(&found, dtype),
        false => Integers::of_tensor(&found)?.value(dtype, into.tensor.device()),
    }
}

/// The parts of `axis`, all of them.
fn unstacked<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<(usize, Option<usize>), String> {
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(0), rank)?;
    let count = node.settings.integer("num").map(usize::try_from).transpose();
    Ok((axis, count.map_err(|_| "num: expected a whole number of at least 0".to_owned())?))
}

fn planned_unstack(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let Spec { shape: Shape(mut axes), dtype } = node.spec("x")?;
    let (axis, count) = unstacked(node, axes.len()).map_err(invalid)?;
    let own = axes.remove(axis);
    let count = match (count, own) {
        (Some(count), Some(own)) if count != own => return Err(invalid(format!("num: expected {own}, found {count}"))),
        (count, own) => {
            count.or(own).ok_or_else(|| invalid("num is missing, and the size of the axis is not known"))?
        }
    };
    if count > 1 << 16 {
        return Err(invalid(format!("{count} outputs")));
    }
    Ok(vec![Spec { shape: Shape(axes), dtype }; count])
}

fn unstack(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let (axis, count) = unstacked(node, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    let own = value.tensor.dim(axis)?;
    if count.is_some_and(|count| count != own) {
        bail!("num: expected {own}, found {}", count.unwrap_or_default());
    }
    (0..own).map(|at| Ok(value.with_tensor(value.tensor.narrow(axis, at, 1)?.squeeze(axis)?.contiguous()?))).collect()
}

/// A pattern of einops: names of axes, in groups.
type Groups = Vec<Vec<String>>;

fn groups(text: &str) -> std::result::Result<Groups, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('(') {
            Some(inner) => {
                inner.split_once(')').ok_or_else(|| format!("pattern: a group that does not end in {text}"))?
            }
            None => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        let names: Vec<String> = group.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() || names.iter().any(|name| !name.chars().all(|c| c.is_alphanumeric() || c == '_')) {
            return Err(format!("pattern: {text} is not understood"));
        }
        found.push(names);
        rest = after.trim_start();
    }
    Ok(found)
}

/// What a pattern does to a shape: the sizes of all axes apart, their order, and the sizes of what comes out. `None` for a
/// size that the input leaves open.
struct Rearrangement {
    apart: Vec<Option<usize>>,
    order: Vec<usize>,
    output: Vec<Option<usize>>,
}

fn rearrangement<T: Known>(node: &Node<'_, T>, dims: &[Option<usize>]) -> std::result::Result<Rearrangement, String> {
    let pattern =
        node.given.constant("pattern").and_then(|pattern| pattern.as_str()).ok_or("pattern: expected a text")?;
    let (from, to) = pattern.split_once("->").ok_or_else(|| format!("pattern: no -> in {pattern}"))?;
    let (from, to) = (groups(from)?, groups(to)?);
    if from.len() != dims.len() {
        return Err(format!("pattern: {pattern} has {} axes, the input {}", from.len(), dims.len()));
    }
    let given = |name: &str| match node.given.argument("**axes_lengths") {
        Some(Argument::Mapping(lengths)) => match lengths.get(name) {
            Some(Argument::Constant(value)) => value.as_u64().and_then(|size| usize::try_from(size).ok()),
            _ => None,
        },
        _ => None,
    };
    let (mut names, mut apart) = (Vec::new(), Vec::new());
    for (group, size) in from.iter().zip(dims) {
        let lengths: Vec<Option<usize>> = match group.as_slice() {
            [_] => vec![*size],
            names => names.iter().map(|name| given(name)).collect(),
        };
        names.extend(group.iter().cloned());
        let Some(size) = size else {
            apart.extend(lengths);
            continue;
        };
        let known = lengths.iter().flatten().try_fold(1_usize, |product, length| product.checked_mul(*length));
        let open = lengths.iter().filter(|length| length.is_none()).count();
        let rest = known.filter(|known| *known > 0 && size % known == 0 && open <= 1).map(|known| size / known);
        let rest = rest.filter(|rest| open == 1 || *rest == 1);
        let rest = rest.ok_or_else(|| format!("pattern: {} does not divide an axis of {size}", group.join(" ")))?;
        apart.extend(lengths.into_iter().map(|length| length.or(Some(rest))));
    }
    let place = |name: &String| {
        names.iter().position(|own| own == name).ok_or_else(|| format!("pattern: {name} is not on the left"))
    };
    let order = to.iter().flatten().map(place).collect::<std::result::Result<Vec<_>, _>>()?;
    if order.len() != apart.len() || (0..apart.len()).any(|axis| !order.contains(&axis)) {
        return Err(format!("pattern: {pattern} does not name the same axes on both sides"));
    }
    let sized = |group: &Vec<String>| -> std::result::Result<Option<usize>, String> {
        let mut product = Some(1_usize);
        for name in group {
            let size = apart.get(place(name)?).copied().flatten();
            product = match (product, size) {
                (Some(product), Some(size)) => {
                    Some(product.checked_mul(size).ok_or("pattern: an axis that is too large")?)
                }
                _ => None,
            };
        }
        Ok(product)
    };
    let output = to.iter().map(sized).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Rearrangement { apart, order, output })
}

fn planned_rearranged(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let tensor = node.spec("tensor")?;
    let plan = rearrangement(node, &tensor.shape.0).map_err(invalid)?;
    one(Shape(plan.output), tensor.dtype)
}

fn rearrange(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("tensor")?;
    let dims: Vec<Option<usize>> = value.tensor.dims().iter().copied().map(Some).collect();
    let plan = rearrangement(node, &dims).map_err(candle_core::Error::msg)?;
    let known = |sizes: Vec<Option<usize>>| sizes.into_iter().map(Option::unwrap_or_default).collect::<Vec<usize>>();
    let moved = value.tensor.contiguous()?.reshape(known(plan.apart))?.permute(plan.order)?.contiguous()?;
    Ok(vec![value.with_tensor(moved.reshape(known(plan.output))?)])
}
