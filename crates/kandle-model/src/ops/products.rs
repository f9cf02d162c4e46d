//! Products: of matrices, of tensors, and of numbers by other rules. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{DType, Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Kind, Known, Node, Operand, Operation, Setting, convert, elementwise::X1_X2, floats, invalid, one,
    operation, probe, result_type, rounded, shapes,
};
use crate::{
    Shape, Spec, Value,
    math::einsum::{self, Equation, matmul, tensordot},
};

const AXES: (&str, Setting) = ("axes", Setting::Any);

/// The dtype of a product. Keras: int8 by int8 is int32, so that nothing overflows.
fn widened(dtypes: &[Dtype]) -> Dtype {
    if dtypes.iter().all(|dtype| *dtype == Dtype::Int8) { Dtype::Int32 } else { plain(dtypes) }
}

fn plain(dtypes: &[Dtype]) -> Dtype {
    let kinds: Vec<Kind> = dtypes.iter().map(|dtype| (*dtype).into()).collect();
    result_type(&kinds)
}

/// `f` of `values` in floats; of integers in float64, where sums of products are exact up to 2⁵³.
fn of(values: &[Value], dtype: Dtype, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Value>> {
    if dtype.is_float() {
        let tensors = values.iter().map(|value| floats(value, dtype)).collect::<Result<Vec<_>>>()?;
        return Ok(vec![rounded(&f(&tensors)?, dtype)?]);
    }
    let wide = |value: &Value| convert(value, Dtype::Int64)?.tensor.to_dtype(DType::F64);
    let ys = f(&values.iter().map(wide).collect::<Result<Vec<_>>>()?)?;
    Ok(vec![Integers::of_tensor(&ys)?.value(dtype, ys.device())?])
}

fn pair(
    node: &Node<'_, Value>,
    dtype: fn(&[Dtype]) -> Dtype,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    pair_of(&[node.value("x1")?, node.value("x2")?], dtype, f)
}

fn pair_of(
    values: &[Value; 2],
    dtype: fn(&[Dtype]) -> Dtype,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Value>> {
    let dtypes: Vec<Dtype> = values.iter().map(|value| value.dtype).collect();
    of(values, dtype(&dtypes), |tensors| match tensors {
        [a, b] => f(a, b),
        _ => bail!("expected two operands"),
    })
}

pub(super) fn product_of_matrices(a: Value, b: Value) -> Result<Vec<Value>> {
    pair_of(&[a, b], widened, matmul)
}

fn planned_matmul(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    planned_product_of_matrices(&node.spec("x1")?, &node.spec("x2")?)
}

pub(super) fn planned_product_of_matrices(a: &Spec, b: &Spec) -> std::result::Result<Vec<Spec>, Problem> {
    let axes = einsum::matmul_shape(&a.shape.0, &b.shape.0).map_err(invalid)?;
    one(Shape(axes), widened(&[a.dtype, b.dtype]))
}

fn equation(node_settings: &super::Settings) -> std::result::Result<Equation, String> {
    Equation::parse(node_settings.text("subscripts"))
}

fn planned_einsum(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let operands = node.operands("operands")?;
    let found: Vec<Shape> = operands.iter().map(Operand::shape).collect();
    let axes: Vec<&[Option<usize>]> = found.iter().map(|shape| shape.0.as_slice()).collect();
    let axes = einsum::shape(&equation(node.settings).map_err(invalid)?, &axes).map_err(invalid)?;
    let dtypes: Vec<Dtype> = operands.iter().map(Operand::dtype).collect();
    one(Shape(axes), widened(&dtypes))
}

fn einsum_of(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let equation = equation(node.settings).map_err(candle_core::Error::msg)?;
    let device = node.device();
    let values = node.operands("operands")?.iter().map(|operand| operand.value(&device)).collect::<Result<Vec<_>>>()?;
    let dtypes: Vec<Dtype> = values.iter().map(|value| value.dtype).collect();
    of(&values, widened(&dtypes), |tensors| einsum::einsum(&equation, &tensors.iter().collect::<Vec<_>>()))
}

/// The axes that `tensordot` contracts, of either operand: a number of axes, or the axes themselves.
fn contracted<T: Known>(
    node: &Node<'_, T>,
    a: usize,
    b: usize,
) -> std::result::Result<(Vec<usize>, Vec<usize>), String> {
    use kandle_format::json::Value as Json;
    let wrong = || "axes: expected a number of axes, or two lists of axes".to_owned();
    let list = |value: &Json, rank: usize| -> std::result::Result<Vec<usize>, String> {
        let items = value.as_array().map_or_else(|| vec![value.clone()], Clone::clone);
        items.iter().map(|item| shapes::axis(item.as_i64().ok_or_else(wrong)?, rank)).collect()
    };
    match node.settings.any("axes") {
        None => Ok((last(a, 2)?, (0..2).collect())),
        Some(Json::Array(both)) => match both.as_slice() {
            [of_a, of_b] => Ok((list(of_a, a)?, list(of_b, b)?)),
            _ => Err(wrong()),
        },
        Some(count) => {
            let count = count.as_u64().and_then(|count| usize::try_from(count).ok()).ok_or_else(wrong)?;
            Ok((last(a, count)?, (0..count).collect()))
        }
    }
}

/// The last `count` axes of `rank`.
fn last(rank: usize, count: usize) -> std::result::Result<Vec<usize>, String> {
    let first = rank.checked_sub(count).ok_or_else(|| format!("{count} axes of {rank} cannot be contracted"))?;
    Ok((first..rank).collect())
}

fn planned_tensordot(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.spec("x1")?, node.spec("x2")?);
    let (of_a, of_b) = contracted(node, a.shape.rank(), b.shape.rank()).map_err(invalid)?;
    let axes = einsum::tensordot_shape(&a.shape.0, &b.shape.0, &of_a, &of_b).map_err(invalid)?;
    one(Shape(axes), plain(&[a.dtype, b.dtype]))
}

fn tensordot_of(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    pair(node, plain, |a, b| {
        let (of_a, of_b) = contracted(node, a.rank(), b.rank()).map_err(candle_core::Error::msg)?;
        tensordot(a, b, &of_a, &of_b)
    })
}

/// The plan of a product of the last axis of `x1` with axis `from_last` of `x2`, from its last; a number multiplies.
fn planned_product(node: &Node<'_, Spec>, from_last: usize) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.spec("x1")?, node.spec("x2")?);
    let dtype = plain(&[a.dtype, b.dtype]);
    let (of_a, of_b) = (a.shape.rank(), b.shape.rank());
    if of_a == 0 || of_b == 0 {
        return one(shapes::broadcast(&a.shape, &b.shape)?, dtype);
    }
    let with = of_b.saturating_sub(from_last);
    let axes = einsum::tensordot_shape(&a.shape.0, &b.shape.0, &[of_a - 1], &[with]).map_err(invalid)?;
    one(Shape(axes), dtype)
}

/// `numpy.dot`: the last axis of `a` with the last but one of `b`; a number multiplies.
fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.rank(), b.rank()) {
        (0, _) | (_, 0) => a.broadcast_mul(b),
        (of_a, 1) => tensordot(a, b, &[of_a - 1], &[0]),
        (of_a, of_b) => tensordot(a, b, &[of_a - 1], &[of_b - 2]),
    }
}

/// The last axis of `a` with the last of `b`.
fn inner(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.rank(), b.rank()) {
        (0, _) | (_, 0) => a.broadcast_mul(b),
        (of_a, of_b) => tensordot(a, b, &[of_a - 1], &[of_b - 1]),
    }
}

fn outer(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.flatten_all()?.unsqueeze(1)?.broadcast_mul(&b.flatten_all()?.unsqueeze(0)?)
}

/// Every number of `a` times all of `b`, axis by axis.
fn kron(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let rank = a.rank().max(b.rank());
    let padded = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
    let (of_a, of_b) = (padded(a.dims()), padded(b.dims()));
    let between = |dims: &[usize], first: bool| -> Vec<usize> {
        dims.iter().flat_map(|size| if first { [*size, 1] } else { [1, *size] }).collect()
    };
    let product = a.reshape(between(&of_a, true))?.broadcast_mul(&b.reshape(between(&of_b, false))?)?;
    product.reshape(of_a.iter().zip(&of_b).map(|(a, b)| a * b).collect::<Vec<_>>())
}

/// The cross product of vectors of two or three numbers along an axis; of two by two, its third number alone.
fn cross(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let axis = |key: &str| node.settings.integer("axis").or_else(|| node.settings.integer(key)).unwrap_or(-1);
    pair(node, plain, |a, b| {
        let to_last = |xs: &Tensor, axis: i64| -> Result<Tensor> {
            let from = shapes::axis(axis, xs.rank()).map_err(candle_core::Error::msg)?;
            let axes: Vec<usize> = (0..xs.rank()).filter(|axis| *axis != from).chain([from]).collect();
            xs.permute(axes)?.contiguous()
        };
        let (a, b) = (to_last(a, axis("axisa"))?, to_last(b, axis("axisb"))?);
        let part = |xs: &Tensor, at: usize| -> Result<Tensor> {
            let last = xs.rank() - 1;
            match (xs.dim(last)?, at) {
                (2, 2) => xs.narrow(last, 0, 1)?.squeeze(last)?.zeros_like(),
                (2 | 3, at) => xs.narrow(last, at, 1)?.squeeze(last),
                (size, _) => bail!("expected vectors of 2 or 3 numbers, found {size}"),
            }
        };
        let minor = |i: usize, j: usize| -> Result<Tensor> {
            part(&a, i)?.broadcast_mul(&part(&b, j)?)? - part(&a, j)?.broadcast_mul(&part(&b, i)?)?
        };
        let last = |xs: &Tensor| xs.dims().last().copied();
        if last(&a) == Some(2) && last(&b) == Some(2) {
            return minor(0, 1);
        }
        let parts = [minor(1, 2)?, minor(2, 0)?, minor(0, 1)?];
        let at =
            shapes::axis(axis("axisc"), parts.first().map_or(0, Tensor::rank) + 1).map_err(candle_core::Error::msg)?;
        Tensor::stack(&parts, at)
    })
}

const MINUS_ONE: Setting = Setting::Integer(-1);

pub(super) const OPERATIONS: &[Operation] = &[
    operation("Matmul", X1_X2, planned_matmul, |node| pair(node, widened, matmul)),
    operation("Einsum", &["*operands"], planned_einsum, einsum_of).with(&[("subscripts", Setting::Text)]),
    operation("Tensordot", X1_X2, planned_tensordot, tensordot_of).with(&[AXES]),
    operation("Dot", X1_X2, |node| planned_product(node, 2), |node| pair(node, plain, dot)),
    operation("Inner", X1_X2, |node| planned_product(node, 1), |node| pair(node, plain, inner)),
    operation("Outer", X1_X2, |node| probe(node, |node| pair(node, plain, outer)), |node| pair(node, plain, outer)),
    operation(
        "Vdot",
        X1_X2,
        |node| one(Shape(Vec::new()), plain(&[node.spec("x1")?.dtype, node.spec("x2")?.dtype])),
        |node| pair(node, plain, |a, b| inner(&a.flatten_all()?, &b.flatten_all()?)),
    ),
    operation("Kron", X1_X2, |node| probe(node, |node| pair(node, plain, kron)), |node| pair(node, plain, kron)),
    operation("Cross", X1_X2, |node| probe(node, cross), cross).with(&[
        ("axisa", MINUS_ONE),
        ("axisb", MINUS_ONE),
        ("axisc", MINUS_ONE),
        ("axis", Setting::Integers),
    ]),
];
