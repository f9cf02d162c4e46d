//! Class numbers as vectors, and the crossentropies. Source: keras/src/ops/nn.py, keras/src/backend/tensorflow/nn.py.

use candle_core::{D, DType, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Known, Node, Operation, Setting, activations::along, convert, floats, invalid, one, operation, rounded,
    shapes,
};
use crate::{
    Shape, Spec, Value,
    activation::{Function, clip, relu},
    numeric::{storage, wide},
};

/// `keras.config.epsilon()`.
pub(super) const EPSILON: f64 = 1e-7;

const CLASSES: &[(&str, Setting)] = &[
    ("num_classes", Setting::Integer(-1)),
    ("axis", Setting::Integer(-1)),
    ("dtype", Setting::Dtype),
    ("sparse", Setting::Only("false")),
];
const CROSSENTROPY: &[(&str, Setting)] = &[("from_logits", Setting::Flag(false)), ("axis", Setting::Integer(-1))];
const TARGET_OUTPUT: &[&str] = &["target", "output"];

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("OneHot", &["x"], |node| planned_one_hot(node, "x"), |node| Ok(vec![one_hot(node, "x")?])).with(CLASSES),
    operation("MultiHot", &["inputs"], planned_multi_hot, multi_hot).with(CLASSES),
    operation("BinaryCrossentropy", TARGET_OUTPUT, planned_binary, binary)
        .with(&[("from_logits", Setting::Flag(false))]),
    operation("CategoricalCrossentropy", TARGET_OUTPUT, planned_categorical, categorical).with(CROSSENTROPY),
    operation("SparseCategoricalCrossentropy", TARGET_OUTPUT, planned_sparse, sparse).with(CROSSENTROPY),
];

fn classes<T>(node: &Node<'_, T>) -> std::result::Result<usize, String> {
    let count = node.settings.integer("num_classes").and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| "num_classes: expected a whole number of at least 0".to_owned())
}

/// Where the axis of classes is put among the `rank` axes of the class numbers.
fn class_axis<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<usize, String> {
    match node.settings.integer("axis").unwrap_or(-1) {
        -1 => Ok(rank),
        axis => usize::try_from(axis)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| format!("axis: expected -1 or less than {rank}, found {axis}")),
    }
}

fn class_dtype<T>(node: &Node<'_, T>) -> Dtype {
    node.settings.dtype("dtype").unwrap_or(Dtype::Float32)
}

fn planned_one_hot(node: &Node<'_, Spec>, name: &str) -> std::result::Result<Vec<Spec>, Problem> {
    let Spec { shape: Shape(mut axes), .. } = node.spec(name)?;
    let axis = class_axis(node, axes.len()).map_err(invalid)?;
    axes.insert(axis, Some(classes(node).map_err(invalid)?));
    one(Shape(axes), class_dtype(node))
}

/// 1 where the number of the class is that of the entry, 0 elsewhere: a number that no class has is all zeros.
fn one_hot(node: &Node<'_, Value>, name: &str) -> Result<Value> {
    let numbers = convert(&node.value(name)?, Dtype::Int64)?.tensor;
    let (count, rank) = (classes(node), numbers.rank());
    let (count, axis) =
        (count.map_err(candle_core::Error::msg)?, class_axis(node, rank).map_err(candle_core::Error::msg)?);
    let mut dims = vec![1; rank + 1];
    if let Some(size) = dims.get_mut(axis) {
        *size = count;
    }
    let classes = Tensor::arange(0, i64::try_from(count)?, numbers.device())?.reshape(dims)?;
    let dtype = class_dtype(node);
    let hot = numbers.unsqueeze(axis)?.broadcast_eq(&classes)?;
    Ok(Value::new(hot.to_dtype(storage(dtype)?)?, dtype))
}

/// Keras: plans the dtype of its input, and gives the one it is told.
fn planned_multi_hot(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let inputs = node.spec("inputs")?;
    let Some(Spec { shape: Shape(axes), .. }) = planned_one_hot(node, "inputs")?.pop() else { return Ok(Vec::new()) };
    let shape = match axes.as_slice() {
        [] | [_] => return Err(invalid("expected an input of rank 1 or more")),
        [_, last] => vec![*last],
        [first, _, rest @ ..] => [&[*first], rest].concat(),
    };
    one(Shape(shape), inputs.dtype)
}

/// The largest of the vectors of axis 1. Keras: where `axis` is 1, that is the largest over the classes.
fn multi_hot(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let hot = one_hot(node, "inputs")?;
    let over = usize::from(node.value("inputs")?.tensor.rank() > 1);
    let any = hot.tensor.ne(&hot.tensor.zeros_like()?)?;
    if any.dim(over)? == 0 {
        bail!("the largest of no entries");
    }
    Ok(vec![hot.with_tensor(any.max(over)?.to_dtype(hot.tensor.dtype())?)])
}

/// `target` and `output`, of one shape as far as it is known and of one dtype of floats.
fn planned_pair(node: &Node<'_, Spec>) -> std::result::Result<(Spec, Spec), Problem> {
    let (target, output) = (node.spec("target")?, node.spec("output")?);
    if target.shape != output.shape {
        return Err(invalid(format!("target of shape {} and output of shape {} differ", target.shape, output.shape)));
    }
    if target.dtype != output.dtype || !output.dtype.is_float() {
        let what = format!(
            "target of {} and output of {} are not supported (only floats of one dtype)",
            target.dtype, output.dtype
        );
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    Ok((target, output))
}

fn planned_binary(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (_, output) = planned_pair(node)?;
    one(output.shape, output.dtype)
}

/// The two operands as floats of one shape, and the dtype they came in.
fn pair(node: &Node<'_, Value>) -> Result<(Tensor, Tensor, Dtype)> {
    let (target, output) = (node.value("target")?, node.value("output")?);
    if target.tensor.dims() != output.tensor.dims() {
        bail!("target of shape {:?} and output of shape {:?} differ", target.tensor.dims(), output.tensor.dims());
    }
    Ok((floats(&target, output.dtype)?, floats(&output, output.dtype)?, output.dtype))
}

/// Probabilities held between ε and 1 − ε, as the dtype has those.
fn probabilities(xs: &Tensor, dtype: Dtype) -> Result<Tensor> {
    let bound =
        |number: f64| Tensor::new(number, xs.device())?.to_dtype(storage(dtype)?)?.to_dtype(DType::F64)?.to_scalar();
    clip(xs, bound(EPSILON)?, bound(1.0 - EPSILON)?)
}

/// `−t · log p − (1 − t) · log(1 − p)`; from logits x, `max(x, 0) − x · t + log(1 + e^−|x|)`.
fn binary(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (target, output, dtype) = pair(node)?;
    let losses = if node.settings.flag("from_logits") {
        let curved = wide(&output, |xs| Function::Softplus.apply(&xs.abs()?.neg()?))?;
        ((relu(&output)? - (&output * &target)?)? + curved)?
    } else {
        let p = probabilities(&output, dtype)?;
        let of_one = (&target * wide(&p, Tensor::log)?)?;
        let of_zero = ((1.0 - &target)? * wide(&(1.0 - &p)?, Tensor::log)?)?;
        (of_one + of_zero)?.neg()?
    };
    Ok(vec![rounded(&losses, dtype)?])
}

/// Keras: plans a shape without the last axis, whatever `axis` is.
fn planned_categorical(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (_, output) = planned_pair(node)?;
    let Shape(mut axes) = output.shape;
    shapes::axis(node.settings.integer("axis").unwrap_or(-1), axes.len()).map_err(invalid)?;
    axes.pop();
    one(Shape(axes), output.dtype)
}

/// `−Σ t · log p` along `axis`, of probabilities that are made to sum to 1, or of the softmax of logits.
fn categorical(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (target, output, dtype) = pair(node)?;
    let axis = node.settings.integer("axis").unwrap_or(-1);
    let over = shapes::axis(axis, output.rank()).map_err(candle_core::Error::msg)?;
    let logs = if node.settings.flag("from_logits") {
        along(&output, Some(axis), |xs| Function::LogSoftmax.apply(xs))?
    } else {
        let sums = wide(&output, |xs| xs.sum_keepdim(over))?;
        wide(&probabilities(&output.broadcast_div(&sums)?, dtype)?, Tensor::log)?
    };
    let losses = wide(&(target * logs)?, |xs| xs.sum(over))?.neg()?;
    Ok(vec![rounded(&losses, dtype)?])
}

fn planned_sparse(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (target, output) = (node.spec("target")?, node.spec("output")?);
    let rank = output.shape.rank();
    let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), rank).map_err(invalid)?;
    if axis + 1 != rank {
        return Err(invalid(format!("axis: expected the last of {rank}, found {axis}")));
    }
    if !output.dtype.is_float() {
        return Err(invalid(format!("expected an output of floats, found {}", output.dtype)));
    }
    let Shape(mut axes) = target.shape.clone();
    if axes.len() == rank && axes.last() == Some(&Some(1)) {
        axes.pop();
    }
    if output.shape.0.split_last().is_none_or(|(_, outer)| outer != axes) {
        return Err(invalid(format!("a target of shape {} does not fit an output of {}", target.shape, output.shape)));
    }
    one(Shape(axes), output.dtype)
}

/// `log Σ eˣ − x[t]` along the last axis, of logits x or the logarithms of probabilities.
fn sparse(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (target, output) = (node.value("target")?, node.value("output")?);
    let dtype = output.dtype;
    let xs = floats(&output, dtype)?;
    let logits = match node.settings.flag("from_logits") {
        true => xs,
        false => wide(&probabilities(&xs, dtype)?, Tensor::log)?,
    };
    let Some((count, outer)) = logits.dims().split_last() else { bail!("expected an output of rank 1 or more") };
    let numbers = Integers::of(&convert(&target, Dtype::Int64)?)?;
    let found = target.shape();
    let numbers = numbers.value(Dtype::Int64, logits.device())?.tensor;
    if numbers.elem_count() != outer.iter().product::<usize>() {
        bail!("a target of shape {found} does not fit an output of {:?}", logits.dims());
    }
    for number in numbers.flatten_all()?.to_vec1::<i64>()? {
        if usize::try_from(number).is_ok_and(|number| number < *count) {
            continue;
        }
        bail!("class {number} does not exist: there are {count}");
    }
    let logs = Function::LogSoftmax.apply(&logits.contiguous()?)?;
    let numbers = numbers.reshape([outer, &[1]].concat())?;
    let losses = logs.gather(&numbers.contiguous()?, D::Minus1)?.squeeze(D::Minus1)?.neg()?;
    Ok(vec![rounded(&losses.reshape(outer)?, dtype)?])
}
