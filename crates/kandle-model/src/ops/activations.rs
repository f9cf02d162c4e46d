//! Activation functions as operations: their parameters, and the axis they work along.
//!
//! Source: keras/src/ops/nn.py, keras/src/backend/tensorflow/nn.py, keras/src/activations/activations.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Node, Operation, Scalar, Setting,
    elementwise::{X, same},
    floats, invalid, one, operation, rounded, shapes,
};
use crate::{
    Shape, Spec, Value,
    activation::{Function, clip, expm1_below_zero, leaky_relu, relu},
    layers::Relu,
    numeric::{constant_like, times, wide},
};

type Settings = [(&'static str, Setting)];

const THRESHOLD: &Settings = &[("threshold", Setting::Number(0.5))];
const ALPHA: &Settings = &[("alpha", Setting::Number(1.0))];
const AXIS: &Settings = &[("axis", Setting::Any)];

/// Shape and dtype of `x`, which must be floats.
fn of_floats(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    if xs.dtype.is_float() {
        return one(xs.shape, xs.dtype);
    }
    Err(Problem::new(ErrorKind::Unsupported, "", format!("an input of {} is not supported (only floats)", xs.dtype)))
}

/// Shape and dtype of `x`.
fn of_numbers(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    match xs.dtype {
        Dtype::Bool | Dtype::String => Err(invalid(format!("expected numbers, found {}", xs.dtype))),
        dtype => one(xs.shape, dtype),
    }
}

/// `f` of floats; half precision is widened and rounded once.
fn curve(node: &Node<'_, Value>, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let xs = node.value("x")?;
    let dtype = same(xs.dtype);
    Ok(vec![rounded(&f(&floats(&xs, dtype)?)?, dtype)?])
}

/// `f` of numbers as they are: what only compares and chooses sees the thresholds that half precision has.
fn choose(node: &Node<'_, Value>, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let xs = node.value("x")?;
    Ok(vec![xs.with_tensor(f(&xs.tensor)?)])
}

/// A line for an activation without parameters.
macro_rules! function {
    ($class:literal, $function:ident) => {
        operation($class, X, of_floats, |node| curve(node, |xs| Function::$function.apply(xs)))
    };
}

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("Relu", X, of_numbers, |node| choose(node, relu)),
    operation("Relu6", X, of_numbers, |node| choose(node, |xs| clip(xs, 0.0, 6.0))),
    function!("Sigmoid", Sigmoid),
    function!("SparseSigmoid", SparseSigmoid),
    function!("Softplus", Softplus),
    function!("Softsign", Softsign),
    function!("SparsePlus", SparsePlus),
    function!("Silu", Silu),
    function!("LogSigmoid", LogSigmoid),
    function!("HardSigmoid", HardSigmoid),
    function!("HardSilu", HardSilu),
    function!("Selu", Selu),
    function!("TanhShrink", TanhShrink),
    function!("HardTanh", HardTanh),
    function!("Mish", Mish),
    operation("SoftShrink", X, thresholded, |node| {
        let threshold = number(node, "threshold")?;
        choose(node, |xs| {
            let t = constant_like(xs, threshold)?;
            let zero = xs.zeros_like()?;
            let below = xs.lt(&t.neg()?)?.where_cond(&(xs + &t)?, &zero)?;
            xs.gt(&t)?.where_cond(&(xs - &t)?, &below)
        })
    })
    .with(THRESHOLD),
    operation("HardShrink", X, of_floats, |node| {
        let threshold = number(node, "threshold")?;
        // Keras: NaN is not beyond the threshold and becomes 0.
        choose(node, |xs| xs.abs()?.gt(threshold)?.where_cond(xs, &xs.zeros_like()?))
    })
    .with(THRESHOLD),
    operation("Threshold", X, thresholded, |node| {
        let (threshold, default) = (number(node, "threshold")?, number(node, "default_value")?);
        choose(node, |xs| xs.gt(&constant_like(xs, threshold)?)?.where_cond(xs, &constant_like(xs, default)?))
    })
    .with(&[("threshold", Setting::Scalar), ("default_value", Setting::Scalar)]),
    operation("Squareplus", X, of_floats, |node| {
        let b = number(node, "b")?;
        curve(node, |xs| (xs + (xs.sqr()? + b)?.sqrt()?)? / 2.0)
    })
    .with(&[("b", Setting::Number(4.0))]),
    operation("LeakyRelu", X, of_numbers, |node| leak(node, number(node, "negative_slope")?))
        .with(&[("negative_slope", Setting::Number(0.2))]),
    operation("Elu", X, of_floats, |node| {
        let alpha = number(node, "alpha")?;
        curve(node, |xs| {
            let below = wide(xs, expm1_below_zero)?;
            xs.gt(0.0)?.where_cond(xs, &times(&below, alpha)?)
        })
    })
    .with(ALPHA),
    operation("Celu", X, of_floats, |node| {
        let alpha = number(node, "alpha")?;
        curve(node, |xs| {
            wide(xs, |xs| {
                let below = clip(xs, f64::NEG_INFINITY, 0.0)?;
                relu(xs)? + (expm1(&(below / alpha)?)? * alpha)?
            })
        })
    })
    .with(ALPHA),
    operation("Gelu", X, of_floats, |node| {
        let function = if node.settings.flag("approximate") { Function::ApproximateGelu } else { Function::Gelu };
        curve(node, |xs| function.apply(xs))
    })
    .with(&[("approximate", Setting::Flag(true))]),
    operation("Glu", X, halved, |node| {
        let axis = node.settings.integer("axis");
        curve(node, |xs| along(xs, axis, |xs| Function::Glu.apply(xs)))
    })
    .with(&[("axis", Setting::Integer(-1))]),
    operation("Softmax", X, with_axis, |node| along_axis(node, Function::Softmax)).with(AXIS),
    operation("LogSoftmax", X, with_axis, |node| along_axis(node, Function::LogSoftmax)).with(AXIS),
    operation("Sparsemax", X, with_axis, |node| along_axis(node, Function::Sparsemax)).with(AXIS),
    operation("ReLU", X, of_numbers, |node| {
        let (slope, threshold) = (number(node, "negative_slope")?, number(node, "threshold")?);
        let max_value = node.settings.number("max_value");
        let layer = Relu::new(max_value, slope, threshold);
        match node.value("x")?.dtype.is_float() {
            true => curve(node, |xs| layer.apply(xs)),
            false if slope == 0.0 => choose(node, |xs| layer.apply(xs)),
            false if max_value.is_none() && threshold == 0.0 => leak(node, slope),
            false => bail!("a slope for integers is not supported"),
        }
    })
    .with(&[
        ("negative_slope", Setting::Number(0.0)),
        ("max_value", Setting::Scalar),
        ("threshold", Setting::Number(0.0)),
    ]),
];

/// `x` where positive, else `slope · x`. Keras: plans the dtype of its input, and makes float32 of integers.
fn leak(node: &Node<'_, Value>, slope: f64) -> Result<Vec<Value>> {
    let xs = node.value("x")?;
    if xs.dtype.is_float() {
        return choose(node, |xs| leaky_relu(xs, slope));
    }
    Ok(vec![Value::new(leaky_relu(&floats(&xs, Dtype::Float32)?, slope)?, Dtype::Float32)])
}

fn number(node: &Node<'_, Value>, key: &str) -> Result<f64> {
    node.settings.number(key).ok_or_else(|| candle_core::Error::Msg(format!("{key} is missing")))
}

/// Numbers that are compared with the settings: integers with integers only, as in TensorFlow.
fn thresholded(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let specs = of_numbers(node)?;
    for key in ["threshold", "default_value"] {
        let float = matches!(node.settings.scalar(key), Some(Scalar::Float(_)));
        if float && specs.iter().any(|spec| !spec.dtype.is_float()) {
            return Err(invalid(format!("{key} is a float, and the input is not")));
        }
    }
    if node.settings.scalar("threshold").is_none() {
        return Err(invalid("threshold is missing"));
    }
    Ok(specs)
}

/// `eˣ − 1`, exact also near 0.
fn expm1(xs: &Tensor) -> Result<Tensor> {
    let above = relu(xs)?;
    xs.gt(0.0)?.where_cond(&(above.exp()? - 1.0)?, &expm1_below_zero(xs)?)
}

/// The axis of `axis`, `None` for all of the numbers together.
fn axis_of<T>(node: &Node<'_, T>) -> std::result::Result<Option<i64>, Problem> {
    match node.settings.any("axis") {
        // A null that stands in the file is not given, and Keras's default is never written.
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(axis) => Ok(Some(axis)),
            None => Err(Problem::new(
                ErrorKind::Unsupported,
                "",
                "an axis that is a list is not supported (TensorFlow has none either)",
            )),
        },
    }
}

fn with_axis(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let specs = of_floats(node)?;
    if let (Some(axis), Some(spec)) = (axis_of(node)?, specs.first()) {
        shapes::axis(axis, spec.shape.rank()).map_err(invalid)?;
    }
    Ok(specs)
}

fn along_axis(node: &Node<'_, Value>, function: Function) -> Result<Vec<Value>> {
    let axis = axis_of(node).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    curve(node, |xs| along(xs, axis, |xs| function.apply(xs)))
}

/// `f`, which works along the last axis, along `axis` of `xs`; of all numbers in one row where there is no axis.
pub(super) fn along(xs: &Tensor, axis: Option<i64>, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let Some(axis) = axis else { return f(&xs.flatten_all()?)?.reshape(xs.shape()) };
    let axis = shapes::axis(axis, xs.rank()).map_err(candle_core::Error::msg)?;
    if axis + 1 == xs.rank() {
        return f(&xs.contiguous()?);
    }
    f(&xs.transpose(axis, xs.rank() - 1)?.contiguous()?)?.transpose(axis, xs.rank() - 1)?.contiguous()
}

/// The shape with half of the axis.
fn halved(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let mut specs = of_floats(node)?;
    for Spec { shape: Shape(axes), .. } in &mut specs {
        let axis = shapes::axis(node.settings.integer("axis").unwrap_or(-1), axes.len()).map_err(invalid)?;
        match axes.get_mut(axis) {
            Some(Some(size)) if *size % 2 == 1 => {
                return Err(invalid(format!("glu halves axis {axis}, expected an even size, found {size}")));
            }
            Some(Some(size)) => *size /= 2,
            _ => {}
        }
    }
    Ok(specs)
}
