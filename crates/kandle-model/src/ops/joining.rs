//! Tensors joined and taken apart. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{Known, Node, Operand, Operation, Setting, elementwise::X, invalid, one, operation, result_type, shapes};
use crate::{Shape, Spec, Value};

const XS: &[&str] = &["xs"];
const SECTIONS: (&str, Setting) = ("indices_or_sections", Setting::Integers);

type Planned = std::result::Result<Vec<Spec>, Problem>;

fn failed(what: String) -> candle_core::Error {
    candle_core::Error::Msg(what)
}

fn dtype_of<T: Known>(operands: &[Operand<'_, T>]) -> Dtype {
    let kinds: Vec<super::Kind> = operands.iter().map(Operand::kind).collect();
    result_type(&kinds)
}

/// The shape of `shapes` one after another along `axis`.
fn joined(shapes: &[Vec<Option<usize>>], axis: usize) -> std::result::Result<Vec<Option<usize>>, String> {
    let first = shapes.first().ok_or("nothing to join")?;
    let mut sum = Some(0_usize);
    for shape in shapes {
        let fits = shape.len() == first.len()
            && shape
                .iter()
                .zip(first)
                .enumerate()
                .all(|(at, (size, other))| at == axis || size.is_none() || other.is_none() || size == other);
        if !fits {
            return Err(format!("{} and {} cannot be joined", Shape(first.clone()), Shape(shape.clone())));
        }
        sum = sum.and_then(|sum| sum.checked_add(shape.get(axis).copied().flatten()?));
    }
    let mut joined = first.clone();
    if let Some(size) = joined.get_mut(axis) {
        *size = sum;
    }
    Ok(joined)
}

/// The plan of a join along `axis`, of operands whose shapes are changed by `prepare` first.
fn planned(
    node: &Node<'_, Spec>,
    name: &str,
    axis: impl Fn(usize) -> std::result::Result<usize, String>,
    prepare: fn(Vec<Option<usize>>) -> Vec<Option<usize>>,
) -> Planned {
    let operands = node.operands(name)?;
    let shapes: Vec<Vec<Option<usize>>> = operands.iter().map(|operand| prepare(operand.shape().0)).collect();
    let axis = axis(shapes.first().map_or(0, Vec::len)).map_err(invalid)?;
    one(Shape(joined(&shapes, axis).map_err(invalid)?), dtype_of(&operands))
}

/// The operands as tensors of one dtype.
fn alike(node: &Node<'_, Value>, name: &str) -> Result<(Vec<Tensor>, Dtype)> {
    let operands = node.operands(name)?;
    let dtype = match operands.as_slice() {
        [only] => only.dtype(),
        all if all.iter().all(|operand| operand.dtype() == all.first().map_or(Dtype::Float32, Operand::dtype)) => {
            all.first().map_or(Dtype::Float32, Operand::dtype)
        }
        all => dtype_of(all),
    };
    let device = node.device();
    let tensors = operands.iter().map(|operand| Ok(operand.cast(dtype, &device)?.tensor)).collect::<Result<_>>()?;
    Ok((tensors, dtype))
}

fn join(tensors: &[Tensor], axis: usize, dtype: Dtype) -> Result<Vec<Value>> {
    let tensors = tensors.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    Ok(vec![Value::new(Tensor::cat(&tensors, axis)?, dtype)])
}

fn concatenate(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (tensors, dtype) = alike(node, "xs")?;
    let rank = tensors.first().map_or(0, Tensor::rank);
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or_default(), rank).map_err(failed)?;
    join(&tensors, axis, dtype)
}

fn planned_stack(node: &Node<'_, Spec>) -> Planned {
    let operands = node.operands("x")?;
    let first = operands.first().ok_or_else(|| invalid("nothing to stack"))?.shape().0;
    for operand in &operands {
        let shape = operand.shape().0;
        let same = shape.len() == first.len()
            && shape.iter().zip(&first).all(|(size, other)| size.is_none() || other.is_none() || size == other);
        if !same {
            return Err(invalid(format!("{} and {} cannot be stacked", Shape(first), Shape(shape))));
        }
    }
    let axis = node.settings.integer("axis").unwrap_or_default();
    let axis = shapes::axis(axis, first.len() + 1).map_err(invalid)?;
    let mut stacked = first;
    stacked.insert(axis, Some(operands.len()));
    one(Shape(stacked), dtype_of(&operands))
}

fn stack(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (tensors, dtype) = alike(node, "x")?;
    let rank = tensors.first().map_or(0, Tensor::rank);
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or_default(), rank + 1).map_err(failed)?;
    Ok(vec![Value::new(Tensor::stack(&tensors, axis)?, dtype)])
}

fn planned_append(node: &Node<'_, Spec>) -> Planned {
    let (a, b) = (node.operand("x1")?, node.operand("x2")?);
    let dtype = super::elementwise::meeting(&a, &b);
    let (a, b) = (a.shape(), b.shape());
    match node.settings.integer("axis") {
        None => {
            let sum = shapes::elements(&a).zip(shapes::elements(&b)).and_then(|(a, b)| a.checked_add(b));
            one(Shape(vec![sum]), dtype)
        }
        Some(axis) => {
            let axis = shapes::axis(axis, a.rank()).map_err(invalid)?;
            one(Shape(joined(&[a.0, b.0], axis).map_err(invalid)?), dtype)
        }
    }
}

fn append(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = super::elementwise::apart(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = super::elementwise::pair(node, dtype)?;
    match node.settings.integer("axis") {
        None => join(&[a.tensor.flatten_all()?, b.tensor.flatten_all()?], 0, dtype),
        Some(axis) => join(&[a.tensor.clone(), b.tensor], shapes::axis(axis, a.tensor.rank()).map_err(failed)?, dtype),
    }
}

fn in_depth(axes: Vec<Option<usize>>) -> Vec<Option<usize>> {
    match axes.as_slice() {
        [] => vec![Some(1); 3],
        [only] => vec![Some(1), *only, Some(1)],
        [rows, columns] => vec![*rows, *columns, Some(1)],
        _ => axes,
    }
}

fn dstack(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (tensors, dtype) = alike(node, "xs")?;
    let deep = |tensor: &Tensor| {
        let dims: Vec<usize> =
            in_depth(tensor.dims().iter().copied().map(Some).collect()).into_iter().flatten().collect();
        tensor.reshape(dims)
    };
    join(&tensors.iter().map(deep).collect::<Result<Vec<_>>>()?, 2, dtype)
}

/// Where an axis is cut: the sizes of the parts, unknown where the axis is.
fn parts(cuts: &[i64], single: bool, size: Option<usize>) -> std::result::Result<Vec<Option<usize>>, String> {
    const MOST: usize = 1 << 16;
    if let ([count], true) = (cuts, single) {
        let count = usize::try_from(*count).ok().filter(|count| (1..=MOST).contains(count));
        let count = count.ok_or_else(|| format!("indices_or_sections: expected 1 to {MOST} parts"))?;
        return match size {
            Some(size) if size % count != 0 => Err(format!("an axis of {size} has no {count} equal parts")),
            size => Ok(vec![size.map(|size| size / count); count]),
        };
    }
    let mut sizes = Vec::new();
    let mut from = Some(0_usize);
    for cut in cuts.iter().map(|cut| usize::try_from(*cut).ok()).chain([size]) {
        let part = match (from, cut) {
            (Some(from), Some(to)) => Some(to.checked_sub(from).ok_or_else(|| format!("cuts {cuts:?} do not ascend"))?),
            _ => None,
        };
        sizes.push(part);
        from = cut;
    }
    if cuts.iter().any(|cut| *cut < 0) {
        return Err(format!("cuts {cuts:?}: expected places from the start"));
    }
    Ok(sizes)
}

fn cuts<'a, T>(node: &'a Node<'_, T>) -> std::result::Result<(&'a [i64], bool), Problem> {
    let cuts = node.settings.required("indices_or_sections")?;
    Ok((cuts, node.settings.integer("indices_or_sections").is_some()))
}

fn planned_split(node: &Node<'_, Spec>, axis: fn(&super::Settings, usize) -> i64) -> Planned {
    let xs = node.spec("x")?;
    let rank = xs.shape.rank();
    let axis = shapes::axis(axis(node.settings, rank), rank).map_err(invalid)?;
    let (cuts, single) = cuts(node)?;
    let part = |size: Option<usize>| {
        let mut axes = xs.shape.0.clone();
        if let Some(place) = axes.get_mut(axis) {
            *place = size;
        }
        Spec { shape: Shape(axes), dtype: xs.dtype }
    };
    let size = xs.shape.0.get(axis).copied().flatten();
    Ok(parts(cuts, single, size).map_err(invalid)?.into_iter().map(part).collect())
}

fn split(node: &Node<'_, Value>, axis: fn(&super::Settings, usize) -> i64) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let rank = value.tensor.rank();
    let axis = shapes::axis(axis(node.settings, rank), rank).map_err(failed)?;
    let (cuts, single) = cuts(node).map_err(|problem| failed(problem.what))?;
    let mut from = 0;
    let mut found = Vec::new();
    for size in parts(cuts, single, Some(value.tensor.dim(axis)?)).map_err(failed)?.into_iter().flatten() {
        found.push(value.with_tensor(value.tensor.narrow(axis, from, size)?.contiguous()?));
        from += size;
    }
    Ok(found)
}

fn by_axis(settings: &super::Settings, _: usize) -> i64 {
    settings.integer("axis").unwrap_or_default()
}

/// The sizes of parts that are as equal as can be.
fn even_parts(count: i64, size: Option<usize>) -> std::result::Result<Vec<Option<usize>>, String> {
    let count = usize::try_from(count).ok().filter(|count| (1..=1 << 16).contains(count));
    let count = count.ok_or("indices_or_sections: expected 1 to 65536 parts")?;
    Ok((0..count).map(|at| size.map(|size| size / count + usize::from(at < size % count))).collect())
}

fn planned_array_split(node: &Node<'_, Spec>) -> Planned {
    let xs = node.spec("x")?;
    let axis = shapes::axis(by_axis(node.settings, 0), xs.shape.rank()).map_err(invalid)?;
    let count = node.settings.integer("indices_or_sections").ok_or_else(|| invalid("expected a number of parts"))?;
    let size = xs.shape.0.get(axis).copied().flatten();
    let part = |size: Option<usize>| {
        let axes = xs.shape.0.iter().enumerate().map(|(at, own)| if at == axis { size } else { *own });
        Spec { shape: Shape(axes.collect()), dtype: xs.dtype }
    };
    Ok(even_parts(count, size).map_err(invalid)?.into_iter().map(part).collect())
}

fn array_split(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let axis = shapes::axis(by_axis(node.settings, 0), value.tensor.rank()).map_err(failed)?;
    let Some(count) = node.settings.integer("indices_or_sections") else { bail!("expected a number of parts") };
    let mut from = 0;
    let mut found = Vec::new();
    for size in even_parts(count, Some(value.tensor.dim(axis)?)).map_err(failed)?.into_iter().flatten() {
        found.push(value.with_tensor(value.tensor.narrow(axis, from, size)?.contiguous()?));
        from += size;
    }
    Ok(found)
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "Concatenate",
        XS,
        |node| {
            let axis = node.settings.integer("axis").unwrap_or_default();
            planned(node, "xs", |rank| shapes::axis(axis, rank), |axes| axes)
        },
        concatenate,
    )
    .with(&[("axis", Setting::Integer(0))]),
    operation("Stack", X, planned_stack, stack).with(&[("axis", Setting::Integer(0))]),
    operation("Append", &["x1", "x2"], planned_append, append).with(&[("axis", Setting::Integers)]),
    // Keras: vectors can be joined, but not planned.
    operation(
        "Hstack",
        XS,
        |node| planned(node, "xs", |rank| shapes::axis(1, rank), |axes| axes),
        |node| {
            let (tensors, dtype) = alike(node, "xs")?;
            let axis = usize::from(tensors.first().is_some_and(|first| first.rank() != 1));
            join(&tensors, axis, dtype)
        },
    ),
    operation(
        "Vstack",
        XS,
        |node| planned(node, "xs", |rank| shapes::axis(0, rank), |axes| axes),
        |node| {
            let (tensors, dtype) = alike(node, "xs")?;
            join(&tensors, 0, dtype)
        },
    ),
    operation("Dstack", XS, |node| planned(node, "xs", |rank| shapes::axis(2, rank), in_depth), dstack),
    operation("Split", X, |node| planned_split(node, by_axis), |node| split(node, by_axis))
        .with(&[SECTIONS, ("axis", Setting::Integer(0))]),
    operation(
        "Hsplit",
        X,
        |node| planned_split(node, |_, rank| i64::from(rank != 1)),
        |node| split(node, |_, rank| i64::from(rank != 1)),
    )
    .with(&[SECTIONS]),
    operation("Vsplit", X, |node| planned_split(node, |_, _| 0), |node| split(node, |_, _| 0)).with(&[SECTIONS]),
    operation("Dsplit", X, |node| planned_split(node, |_, _| 2), |node| split(node, |_, _| 2)).with(&[SECTIONS]),
    operation("ArraySplit", X, planned_array_split, array_split).with(&[SECTIONS, ("axis", Setting::Integer(0))]),
];
