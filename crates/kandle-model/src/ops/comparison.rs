//! Comparisons, and what is computed of truth values. Source: keras/src/backend/tensorflow/numpy.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Node, Operand, Operation, Setting, convert,
    elementwise::{X, X1_X2, apart, meeting, pair, planned, planned_pair, stretched, truth, truths},
    floats, one, operation, shapes,
};
use crate::{Shape, Spec, Value};

type Compare = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// Keras: Python's numbers are tensors of their own here, so that a float16 meets 0.5 as float32.
fn compare(node: &Node<'_, Value>, of_floats: Compare, of_integers: fn(i64, i64) -> bool) -> Result<Vec<Value>> {
    let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = pair(node, dtype)?;
    if dtype.is_float() {
        let (a, b) = stretched(&floats(&a, dtype)?, &floats(&b, dtype)?)?;
        return Ok(vec![truths(of_floats(&a, &b)?)]);
    }
    let found = Integers::of(&a)?.zip(&Integers::of(&b)?, |a, b| Ok(i64::from(of_integers(a, b))))?;
    Ok(vec![found.value(Dtype::Bool, a.tensor.device())?])
}

fn logical(node: &Node<'_, Value>, f: fn(bool, bool) -> bool) -> Result<Vec<Value>> {
    let (a, b) = pair(node, Dtype::Bool)?;
    let found = Integers::of(&a)?.zip(&Integers::of(&b)?, |a, b| Ok(i64::from(f(a != 0, b != 0))))?;
    Ok(vec![found.value(Dtype::Bool, a.tensor.device())?])
}

/// Whether two numbers are within `atol + rtol * |x2|` of each other.
fn close(a: &Tensor, b: &Tensor, rtol: f64, atol: f64) -> Result<Tensor> {
    (a - b)?.abs()?.le(&((b.abs()? * rtol)? + atol)?)
}

fn either(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a + b)?.gt(0_u8)
}

fn both(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a * b
}

fn tolerance(node: &Node<'_, Value>, name: &str, default: f64) -> Result<f64> {
    match node.optional(name)? {
        None => Ok(default),
        Some(Operand::Scalar(scalar)) => Ok(scalar.number()),
        Some(_) => bail!("{name}: expected a number"),
    }
}

fn isclose(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
    if !dtype.is_float() {
        return compare(node, |a, b| a.eq(b), |a, b| a == b);
    }
    let (a, b) = pair(node, dtype)?;
    let (a, b) = stretched(&floats(&a, dtype)?, &floats(&b, dtype)?)?;
    let mut found = close(&a, &b, tolerance(node, "rtol", 1e-5)?, tolerance(node, "atol", 1e-8)?)?;
    if node.settings.flag("equal_nan") {
        found = either(&found, &both(&a.ne(&a)?, &b.ne(&b)?)?)?;
    }
    Ok(vec![truths(found)])
}

fn allclose(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = pair(node, dtype)?;
    let setting = |key: &str, default: f64| node.settings.number(key).unwrap_or(default);
    let found = if dtype.is_float() {
        let (a, b) = stretched(&floats(&a, dtype)?, &floats(&b, dtype)?)?;
        let finite = |xs: &Tensor| xs.abs()?.lt(f64::INFINITY);
        let near = close(&a, &b, setting("rtol", 1e-5), setting("atol", 1e-8))?;
        let mut found = either(&both(&both(&finite(&a)?, &finite(&b)?)?, &near)?, &a.eq(&b)?)?;
        if node.settings.flag("equal_nan") {
            found = either(&found, &both(&a.ne(&a)?, &b.ne(&b)?)?)?;
        }
        Integers::of_tensor(&found)?
    } else {
        Integers::of(&a)?.zip(&Integers::of(&b)?, |a, b| Ok(i64::from(a == b)))?
    };
    let all = found.numbers.iter().all(|number| *number != 0);
    Ok(vec![truths(Tensor::new(u8::from(all), a.tensor.device())?)])
}

fn isin(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let dtype = apart(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = pair(node, dtype)?;
    let invert = node.settings.flag("invert");
    let mut found = if dtype.is_float() {
        let numbers =
            |value: &Value| floats(value, dtype)?.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
        let (wanted, known) = (numbers(&a)?, numbers(&b)?);
        let mut sorted: Vec<f64> =
            known.into_iter().filter(|number| !number.is_nan()).map(|number| number + 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        wanted
            .into_iter()
            .map(|number| sorted.binary_search_by(|other| other.total_cmp(&(number + 0.0))).is_ok())
            .collect()
    } else {
        let mut sorted = Integers::of(&b)?.numbers;
        sorted.sort_unstable();
        Integers::of(&a)?.numbers.iter().map(|number| sorted.binary_search(number).is_ok()).collect::<Vec<bool>>()
    };
    // Keras: nothing is in an empty tensor, and nothing is not in it either.
    if b.tensor.elem_count() > 0 && invert {
        found.iter_mut().for_each(|found| *found = !*found);
    }
    let found = Integers { numbers: found.into_iter().map(i64::from).collect(), dims: a.tensor.dims().to_vec() };
    Ok(vec![found.value(Dtype::Bool, a.tensor.device())?])
}

fn planned_where(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (condition, a, b) = (node.operand("condition")?, node.operand("x1")?, node.operand("x2")?);
    let shape = shapes::broadcast(&shapes::broadcast(&condition.shape(), &a.shape())?, &b.shape())?;
    one(shape, meeting(&a, &b))
}

/// `a` where `condition` holds, else `b`, stretched to one shape.
fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dims = shapes::broadcast_dims(&shapes::broadcast_dims(condition.dims(), a.dims())?, b.dims())?;
    let stretch = |xs: &Tensor| xs.broadcast_as(dims.as_slice())?.contiguous();
    stretch(condition)?.where_cond(&stretch(a)?, &stretch(b)?)
}

fn where_(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let device = node.device();
    let condition = node.operand("condition")?.cast(Dtype::Bool, &device)?;
    let dtype = meeting(&node.operand("x1")?, &node.operand("x2")?);
    let (a, b) = pair(node, dtype)?;
    Ok(vec![Value::new(choose(&condition.tensor, &a.tensor, &b.tensor)?, dtype)])
}

/// The dtype of a selection. Keras: this is `tf.experimental.numpy.select`, with numpy's own promotion, of which only what
/// needs none is reproduced.
fn selected<T: super::Known>(
    choices: &[Operand<'_, T>],
    default: Option<&Operand<'_, T>>,
) -> std::result::Result<Dtype, String> {
    let dtype = choices.first().map(Operand::dtype).ok_or("choicelist is empty")?;
    let default = default.and_then(Operand::scalar).unwrap_or(super::Scalar::Int(0));
    let same = choices.iter().all(|choice| choice.scalar().is_none() && choice.dtype() == dtype);
    match default {
        super::Scalar::Int(_) if same && dtype != Dtype::Bool => Ok(dtype),
        super::Scalar::Float(_) if same && dtype.is_float() => Ok(dtype),
        super::Scalar::Bool(_) if same => Ok(dtype),
        _ => Err("choices of several dtypes are not supported".to_owned()),
    }
}

fn planned_select(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let choices = node.operands("choicelist")?;
    let default = node.optional("default")?;
    let refuse = |what: String| Problem::new(kandle_format::ErrorKind::Unsupported, "", what);
    if default.as_ref().is_some_and(|default| default.scalar().is_none()) {
        return Err(refuse("default: a tensor is not supported".to_owned()));
    }
    let dtype = selected(&choices, default.as_ref()).map_err(refuse)?;
    one(choices.first().map(Operand::shape).unwrap_or(Shape(Vec::new())), dtype)
}

/// The first choice whose condition holds.
fn select(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let device = node.device();
    let (conditions, choices) = (node.operands("condlist")?, node.operands("choicelist")?);
    if conditions.len() != choices.len() {
        bail!("expected a choice for each condition, found {} and {}", choices.len(), conditions.len());
    }
    let default = node.optional("default")?;
    let dtype = selected(&choices, default.as_ref()).map_err(candle_core::Error::msg)?;
    let default = default.unwrap_or(Operand::Scalar(super::Scalar::Int(0)));
    let mut found = default.cast(dtype, &device)?.tensor;
    for (condition, choice) in conditions.iter().zip(&choices).rev() {
        let condition = condition.cast(Dtype::Bool, &device)?.tensor;
        found = choose(&condition, &choice.cast(dtype, &device)?.tensor, &found)?;
    }
    Ok(vec![Value::new(found, dtype)])
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Equal", X1_X2, |node| planned_pair(node, truth), |node| compare(node, |a, b| a.eq(b), |a, b| a == b)),
    operation("NotEqual", X1_X2, |node| planned_pair(node, truth), |node| compare(node, |a, b| a.ne(b), |a, b| a != b)),
    operation("Greater", X1_X2, |node| planned_pair(node, truth), |node| compare(node, |a, b| a.gt(b), |a, b| a > b)),
    operation(
        "GreaterEqual",
        X1_X2,
        |node| planned_pair(node, truth),
        |node| compare(node, |a, b| a.ge(b), |a, b| a >= b),
    ),
    operation("Less", X1_X2, |node| planned_pair(node, truth), |node| compare(node, |a, b| a.lt(b), |a, b| a < b)),
    operation(
        "LessEqual",
        X1_X2,
        |node| planned_pair(node, truth),
        |node| compare(node, |a, b| a.le(b), |a, b| a <= b),
    ),
    operation("LogicalAnd", X1_X2, |node| planned_pair(node, truth), |node| logical(node, |a, b| a && b)),
    operation("LogicalOr", X1_X2, |node| planned_pair(node, truth), |node| logical(node, |a, b| a || b)),
    operation("LogicalXor", X1_X2, |node| planned_pair(node, truth), |node| logical(node, |a, b| a != b)),
    operation(
        "LogicalNot",
        X,
        |node| planned(node, truth),
        |node| {
            let value = convert(&node.value("x")?, Dtype::Bool)?;
            Ok(vec![truths(value.tensor.eq(0_u8)?)])
        },
    ),
    operation("Isclose", &["x1", "x2", "rtol", "atol"], |node| planned_pair(node, truth), isclose)
        .with(&[("equal_nan", Setting::Flag(false))]),
    operation("AllClose", X1_X2, |_| one(Shape(Vec::new()), Dtype::Bool), allclose).with(&[
        ("rtol", Setting::Number(1e-5)),
        ("atol", Setting::Number(1e-8)),
        ("equal_nan", Setting::Flag(false)),
    ]),
    operation("IsIn", X1_X2, |node| one(node.spec("x1")?.shape, Dtype::Bool), isin)
        .with(&[("assume_unique", Setting::Flag(false)), ("invert", Setting::Flag(false))]),
    operation("Where", &["condition", "x1", "x2"], planned_where, where_),
    operation("Select", &["condlist", "choicelist", "default"], planned_select, select),
];
