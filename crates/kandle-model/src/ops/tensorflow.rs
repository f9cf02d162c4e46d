//! The functions of TensorFlow that Keras 2 keeps as layers and that are no operation of `keras.ops`; see `crate::dialect`.
//!
//! Source: tensorflow/python/ops/math_ops.py, array_ops.py and nn_impl.py.

use candle_core::{D, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Node, Operation, Scalar, Setting,
    arithmetic::{floor_remainder, modulo_of},
    convert,
    elementwise::{X, X1_X2, meeting, of_floats, of_numbers, plain, planned, planned_pair, same},
    invalid, one, operation,
    operation::MOST_ELEMENTS,
    probe, products,
};
use crate::{
    Shape, Spec, Value,
    layers::axes,
    math::resize::{Interpolation, resize},
    numeric::wide,
};

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
    // Keras's own Mod gives float32 of half precision and a number of Python.
    operation(
        "tf.floormod",
        X1_X2,
        |node| planned_pair(node, same),
        |node| {
            let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
            of_numbers(node, dtype, modulo_of, floor_remainder)
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
    // Of integers TensorFlow divides as float64, of narrow ones as float32.
    operation(
        "tf.truediv",
        X1_X2,
        |node| planned_pair(node, quotient),
        |node| {
            let dtype = quotient(meeting(&node.operand("x1")?, &node.operand("x2")?));
            of_floats(node, dtype, |a, b| a / b)
        },
    ),
    operation("tf.add_n", &["inputs"], |node| probe(node, sum_of_all), sum_of_all),
    operation("tf.matmul", X1_X2, planned_matmul, matmul).with(TRANSPOSED),
    operation("tf.reshape", &["x", "shape"], planned_reshape, reshape),
    operation("tf.broadcast_to", &["x", "shape"], planned_reshape, |node| {
        let value = node.value("x")?;
        Ok(vec![value.with_tensor(value.tensor.broadcast_as(dims(node)?)?.contiguous()?)])
    }),
    operation(
        "tf.full",
        &["shape", "fill_value"],
        |node| one(Shape(planned_sizes(node)?), filled_with(node.settings, &node.operand("fill_value")?)),
        |node| {
            let number = node.operand("fill_value")?;
            let value = number.cast(filled_with(node.settings, &number), &node.device())?;
            Ok(vec![value.with_tensor(value.tensor.broadcast_as(dims(node)?)?.contiguous()?)])
        },
    )
    .with(&[("dtype", Setting::Dtype)]),
    operation("tf.range", &["start", "limit", "delta"], planned_range, range).with(&[("dtype", Setting::Dtype)]),
    operation("tf.norm", X, |node| probe(node, norm), norm)
        .with(&[("axis", Setting::Integers), ("keepdims", Setting::Flag(false))]),
    operation("tf.image.resize", &["images"], planned_resized, resized).with(&[
        ("size", Setting::Integers),
        ("method", Setting::Text),
        ("antialias", Setting::Flag(false)),
    ]),
    operation(
        "tf.tile",
        &["x", "shape"],
        |node| {
            let (Spec { shape: Shape(axes), dtype }, times) = (node.spec("x")?, planned_sizes(node)?);
            if axes.len() != times.len() {
                return Err(invalid(format!("{} axes cannot be repeated {} times", axes.len(), times.len())));
            }
            one(Shape(axes.into_iter().zip(times).map(|(size, times)| size?.checked_mul(times?)).collect()), dtype)
        },
        |node| {
            let (value, times) = (node.value("x")?, dims(node)?);
            let count = times.iter().try_fold(value.tensor.elem_count(), |count, times| count.checked_mul(*times));
            match count.filter(|count| (1..=MOST_ELEMENTS).contains(count)) {
                Some(_) => Ok(vec![value.with_tensor(value.tensor.repeat(times)?)]),
                None => bail!("{:?} repeated {times:?} times is empty or too large", value.tensor.dims()),
            }
        },
    ),
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

/// What TensorFlow divides numbers of `dtype` as.
fn quotient(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::Int8 | Dtype::Uint8 | Dtype::Int16 | Dtype::Uint16 => Dtype::Float32,
        dtype if dtype.is_integer() => Dtype::Float64,
        dtype => dtype,
    }
}

fn sum_of_all(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let device = node.device();
    let inputs = node.operands("inputs")?.into_iter().map(|operand| operand.value(&device));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let Some((first, others)) = inputs.split_first() else { bail!("a sum of no tensors") };
    let add = |sum: Tensor, value: &Value| match value.dtype == first.dtype {
        true => sum + &value.tensor,
        false => bail!("a sum of {} and {}", first.dtype, value.dtype),
    };
    Ok(vec![first.with_tensor(others.iter().try_fold(first.tensor.clone(), add)?)])
}

/// The dtype of a tensor full of one number.
fn filled_with<T: super::Known>(settings: &super::Settings, number: &super::Operand<'_, T>) -> Dtype {
    settings.dtype("dtype").unwrap_or_else(|| number.dtype())
}

/// How many numbers a range may have.
const MOST_IN_RANGE: usize = 1 << 24;

fn planned_range(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let mut wide = false;
    for name in ["start", "limit", "delta"] {
        let operand = node.operand(name)?;
        if !operand.dtype().is_integer() || operand.shape().rank() != 0 {
            return Err(invalid(format!("{name} is no whole number")));
        }
        wide |= operand.scalar().is_none() && operand.dtype() == Dtype::Int64;
    }
    one(Shape(vec![None]), ranged(node.settings, wide))
}

/// The dtype of a range of whole numbers, where one of them may be an int64.
fn ranged(settings: &super::Settings, wide: bool) -> Dtype {
    settings.dtype("dtype").unwrap_or(if wide { Dtype::Int64 } else { Dtype::Int32 })
}

fn range(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let device = node.device();
    let mut wide = false;
    let mut number = |name: &str| -> Result<i64> {
        let operand = node.operand(name)?;
        wide |= operand.scalar().is_none() && operand.dtype() == Dtype::Int64;
        match Integers::of(&convert(&operand.value(&device)?, Dtype::Int64)?)?.numbers.as_slice() {
            [number] => Ok(*number),
            _ => bail!("{name} is no number"),
        }
    };
    let (start, limit, delta) = (number("start")?, number("limit")?, number("delta")?);
    let step = usize::try_from(delta.unsigned_abs())?;
    let numbers: Vec<i64> = match delta.signum() {
        1 => (start..limit).step_by(step).take(MOST_IN_RANGE + 1).collect(),
        -1 => {
            let down = (0..start.saturating_sub(limit)).step_by(step).take(MOST_IN_RANGE + 1);
            down.map(|down| start - down).collect()
        }
        _ => bail!("a range in steps of 0"),
    };
    let count = numbers.len();
    if count > MOST_IN_RANGE {
        bail!("a range of more than the limit of {MOST_IN_RANGE} numbers")
    }
    let numbers = Value::new(Tensor::from_vec(numbers, count, &device)?, Dtype::Int64);
    Ok(vec![convert(&numbers, ranged(node.settings, wide))?])
}

/// The root of the sum of squares over `axis`, or over all of them.
fn norm(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let rank = node.value("x")?.tensor.rank();
    let over = match node.settings.integers("axis") {
        Some(given) => axes(given, rank).map_err(candle_core::Error::msg)?,
        None => (0..rank).collect(),
    };
    let keepdims = node.settings.flag("keepdims");
    plain(node, same, |xs| {
        let norm = wide(xs, |xs| xs.sqr()?.sum_keepdim(over.as_slice())?.sqrt())?;
        // What is summed is one number each.
        if keepdims { Ok(norm) } else { norm.sum(over.as_slice()) }
    })
}

/// How images are resized, and to what height and width.
fn resizing(settings: &super::Settings) -> std::result::Result<(Interpolation, usize, usize), String> {
    let name = settings.text("method").to_lowercase();
    let method = Interpolation::named(&name).ok_or_else(|| format!("images cannot be resized by {name}"))?;
    let size = settings.integers("size").unwrap_or_default();
    match size.iter().map(|size| usize::try_from(*size)).collect::<std::result::Result<Vec<_>, _>>().as_deref() {
        Ok([height, width]) => Ok((method, *height, *width)),
        _ => Err(format!("{size:?} is no height and width")),
    }
}

/// TensorFlow: what is resized is float32, unless the nearest pixel is taken or the size is what it was.
fn planned_resized(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let Spec { shape: Shape(mut axes), dtype } = node.spec("images")?;
    let (method, height, width) = resizing(node.settings).map_err(invalid)?;
    let (3 | 4, Some([rows, columns, _])) = (axes.len(), axes.last_chunk_mut::<3>()) else {
        return Err(invalid(format!("expected images, found {}", Shape(axes))));
    };
    if (*rows, *columns) == (Some(height), Some(width)) && method != Interpolation::Nearest && dtype != Dtype::Float32 {
        let what = format!("images of {dtype} that have the size they are resized to are not supported");
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    (*rows, *columns) = (Some(height), Some(width));
    one(Shape(axes), if method == Interpolation::Nearest { dtype } else { Dtype::Float32 })
}

fn resized(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let (method, height, width) = resizing(node.settings).map_err(candle_core::Error::msg)?;
    let single = value.tensor.rank() == 3;
    let xs = if single { value.tensor.unsqueeze(0)? } else { value.tensor.clone() };
    let (_, own_height, own_width, _) = xs.dims4()?;
    if (own_height, own_width) == (height, width) {
        if method != Interpolation::Nearest && value.dtype != Dtype::Float32 {
            bail!("images of {} that have the size they are resized to are not supported", value.dtype)
        }
        return Ok(vec![value]);
    }
    let ys = resize(&xs, height, width, method, node.settings.flag("antialias"))?;
    let ys = if single { ys.squeeze(0)? } else { ys };
    Ok(vec![if method == Interpolation::Nearest { value.with_tensor(ys) } else { Value::new(ys, Dtype::Float32) }])
}

/// The sizes of the new shape; `None` where they are known only when the graph runs.
fn planned_reshape(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    one(Shape(planned_sizes(node)?), node.spec("x")?.dtype)
}

fn planned_sizes(node: &Node<'_, Spec>) -> std::result::Result<Vec<Option<usize>>, Problem> {
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
    Ok(sizes)
}

/// The sizes that the argument `shape` holds, some of which may have been computed.
fn sizes(node: &Node<'_, Value>) -> Result<Vec<i64>> {
    let mut sizes: Vec<i64> = Vec::new();
    for operand in node.operands("shape")? {
        sizes.extend(Integers::of(&convert(&operand.value(&node.device())?, Dtype::Int64)?)?.numbers);
    }
    Ok(sizes)
}

fn dims(node: &Node<'_, Value>) -> Result<Vec<usize>> {
    let dims: Vec<usize> = sizes(node)?.into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>()?;
    let count = dims.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
    match count.filter(|count| *count <= MOST_ELEMENTS) {
        Some(_) => Ok(dims),
        None => bail!("a tensor of shape {dims:?}, more than the limit of {MOST_ELEMENTS} elements"),
    }
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
