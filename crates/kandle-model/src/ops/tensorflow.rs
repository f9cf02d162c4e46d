//! The functions of TensorFlow that Keras 2 keeps as layers and that are no operation of `keras.ops`; see `crate::dialect`.
//!
//! Source: tensorflow/python/ops/math_ops.py, array_ops.py and nn_impl.py.

use candle_core::{D, Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Node, Operation, Scalar, Setting, convert,
    elementwise::{X, X1_X2, meeting, of_numbers, plain, planned, planned_pair, same},
    invalid, one, operation, probe, products,
};
use crate::{Shape, Spec, Value, layers::axes};

const TRANSPOSED: &[(&str, Setting)] = &[("transpose_a", Setting::Flag(false)), ("transpose_b", Setting::Flag(false))];

/// The functions, by names of their own.
pub(crate) static FUNCTIONS: &[Operation] = &[
    // Keras's own Add places some vectors otherwise than TensorFlow's operator.
    operation(
        "tf.add",
        X1_X2,
        |node| planned_pair(node, same),
        |node| {
            let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
            of_numbers(node, dtype, |a, b| a + b, |a, b| Ok(a.wrapping_add(b)))
        },
    ),
    operation(
        "tf.squared_difference",
        X1_X2,
        |node| planned_pair(node, same),
        |node| {
            let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
            of_numbers(
                node,
                dtype,
                |a, b| (a - b)?.sqr(),
                |a, b| {
                    let difference = a.wrapping_sub(b);
                    Ok(difference.wrapping_mul(difference))
                },
            )
        },
    ),
    operation("tf.matmul", X1_X2, planned_matmul, matmul).with(TRANSPOSED),
    operation("tf.reshape", &["x", "shape"], planned_reshape, reshape),
    operation("tf.broadcast_to", &["x", "shape"], planned_reshape, |node| {
        let value = node.value("x")?;
        let dims = sizes(node)?.into_iter().map(usize::try_from).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(vec![value.with_tensor(value.tensor.broadcast_as(dims)?.contiguous()?)])
    }),
    operation("tf.gather", &["x", "indices"], |node| probe(node, gather), gather)
        .with(&[("axis", Setting::Integer(0)), ("batch_dims", Setting::Integer(0))]),
    operation(
        "tf.shape",
        X,
        |node| one(Shape(vec![Some(node.spec("x")?.shape.rank())]), Dtype::Int32),
        |node| {
            let xs = node.value("x")?.tensor;
            let sizes =
                xs.dims().iter().map(|size| i32::try_from(*size)).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(vec![Value::new(Tensor::from_vec(sizes, xs.rank(), xs.device())?, Dtype::Int32)])
        },
    ),
    operation(
        "tf.l2_normalize",
        X,
        |node| planned(node, same),
        |node| {
            let epsilon = node.settings.number("epsilon").unwrap_or(1e-12);
            let rank = node.value("x")?.tensor.rank();
            let over = match node.settings.integers("axis") {
                Some(given) => axes(given, rank).map_err(candle_core::Error::msg)?,
                None => (0..rank).collect(),
            };
            plain(node, same, |xs| {
                let sum = over.iter().try_fold(xs.sqr()?, |sum, axis| sum.sum_keepdim(*axis))?;
                let least = Tensor::full(epsilon, sum.shape(), sum.device())?.to_dtype(sum.dtype())?;
                xs.broadcast_mul(&sum.lt(&least)?.where_cond(&least, &sum)?.sqrt()?.recip()?)
            })
        },
    )
    .with(&[("axis", Setting::Integers), ("epsilon", Setting::Number(1e-12))]),
];

fn planned_matmul(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let of = |name: &str, flag: &str| -> std::result::Result<Spec, Problem> {
        let Spec { shape: Shape(mut sizes), dtype } = node.spec(name)?;
        if sizes.len() < 2 {
            return Err(invalid(format!("expected two axes or more, found {}", Shape(sizes))));
        }
        if node.settings.flag(flag) {
            let last = sizes.len() - 1;
            sizes.swap(last - 1, last);
        }
        Ok(Spec { shape: Shape(sizes), dtype })
    };
    products::planned_product_of_matrices(&of("x1", "transpose_a")?, &of("x2", "transpose_b")?)
}

fn matmul(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let of = |name: &str, flag: &str| -> Result<Value> {
        let value = node.value(name)?;
        match node.settings.flag(flag) {
            true => Ok(value.with_tensor(value.tensor.transpose(D::Minus2, D::Minus1)?.contiguous()?)),
            false => Ok(value),
        }
    };
    products::product_of_matrices(of("x1", "transpose_a")?, of("x2", "transpose_b")?)
}

/// The sizes of the new shape; `None` where they are known only when the graph runs.
fn planned_reshape(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let size = |number: i64| usize::try_from(number).ok();
    let mut sizes: Vec<Option<usize>> = Vec::new();
    for operand in node.operands("shape")? {
        match operand {
            super::Operand::Scalar(Scalar::Int(number)) => sizes.push(size(number)),
            super::Operand::Tensor(spec) if spec.shape.rank() == 0 && spec.dtype.is_integer() => sizes.push(None),
            // A whole shape, computed.
            super::Operand::Tensor(Spec { shape: Shape(axes), dtype }) if dtype.is_integer() => match axes.as_slice() {
                [Some(count)] => sizes.extend(std::iter::repeat_n(None, *count)),
                _ => return Err(invalid("the number of axes of the new shape is not known")),
            },
            other => return Err(invalid(format!("a size of {}", other.dtype()))),
        }
    }
    one(Shape(sizes), xs.dtype)
}

/// The sizes that the argument `shape` holds, some of which may have been computed.
fn sizes(node: &Node<'_, Value>) -> Result<Vec<i64>> {
    let mut sizes: Vec<i64> = Vec::new();
    for operand in node.operands("shape")? {
        sizes.extend(Integers::of(&convert(&operand.value(&node.device())?, Dtype::Int64)?)?.numbers);
    }
    Ok(sizes)
}

/// What `indices` name along an axis, for each entry of the first `batch_dims` axes its own.
fn gather(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, indices) = (node.value("x")?, convert(&node.value("indices")?, Dtype::Int64)?);
    let (xs, places) = (&value.tensor, indices.tensor.contiguous()?);
    let setting = |key: &str| usize::try_from(node.settings.integer(key).unwrap_or_default());
    let (batch, axis) = (setting("batch_dims")?, setting("axis")?);
    if batch > axis
        || axis >= xs.rank()
        || batch > places.rank()
        || xs.dims().get(..batch) != places.dims().get(..batch)
    {
        bail!("axis {axis} of {:?} cannot be gathered by {:?} for {batch} axes", xs.dims(), places.dims())
    }
    let (outer, inner) = xs.dims().split_at(batch);
    let rows: usize = outer.iter().product();
    let xs = xs.contiguous()?.reshape([&[rows], inner].concat())?;
    let of_row = places.dims().get(batch..).unwrap_or_default().to_vec();
    let places = places.reshape((rows, of_row.iter().product::<usize>()))?;
    let within = axis - batch;
    let size = inner.get(within).copied().unwrap_or_default();
    let mut found = Vec::new();
    for row in 0..rows {
        let places = places.get(row)?;
        if places.to_vec1::<i64>()?.iter().any(|place| usize::try_from(*place).map_or(true, |place| place >= size)) {
            bail!("an index is not below {size}")
        }
        found.push(xs.get(row)?.contiguous()?.index_select(&places, within)?);
    }
    let before = inner.get(..within).unwrap_or_default();
    let after = inner.get(within + 1..).unwrap_or_default();
    let dims = [outer, before, &of_row, after].concat();
    Ok(vec![value.with_tensor(Tensor::stack(&found, 0)?.reshape(dims)?)])
}

fn reshape(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let sizes = sizes(node)?;
    let known: usize = sizes.iter().filter_map(|size| usize::try_from(*size).ok()).product();
    let count = value.tensor.elem_count();
    let open = sizes.iter().filter(|size| **size == -1).count();
    if open > 1 || sizes.iter().any(|size| *size < -1) || (open == 1 && (known == 0 || count % known != 0)) {
        bail!("{:?} cannot be reshaped to {sizes:?}", value.tensor.dims())
    }
    let dims: Vec<usize> =
        sizes.iter().map(|size| usize::try_from(*size).unwrap_or_else(|_| count / known.max(1))).collect();
    Ok(vec![value.with_tensor(value.tensor.contiguous()?.reshape(dims)?)])
}
