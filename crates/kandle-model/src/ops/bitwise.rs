//! Integers as bits. Source: keras/src/backend/tensorflow/numpy.py and TensorFlow's bitwise_ops.h.

use candle_core::{Result, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Integers, Node, Operation,
    elementwise::{X, apart, planned, same},
    one, operation,
};
use crate::{Spec, Value};

const X_Y: &[&str] = &["x", "y"];

/// Keras: the plan has the shape of `x`, whatever `y` is stretched to.
fn planned_bits(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (x, y) = (node.operand("x")?, node.operand("y")?);
    let dtype = if y.scalar().is_some() { x.dtype() } else { apart(&x, &y) };
    one(x.shape(), dtype)
}

fn bits(node: &Node<'_, Value>, f: fn(i64, i64, Dtype) -> i64) -> Result<Vec<Value>> {
    let (x, y) = (node.operand("x")?, node.operand("y")?);
    let dtype = if y.scalar().is_some() { x.dtype() } else { apart(&x, &y) };
    only_integers(dtype)?;
    let device = node.device();
    let (x, y) = (x.cast(dtype, &device)?, y.cast(dtype, &device)?);
    let found = Integers::of(&x)?.zip(&Integers::of(&y)?, |x, y| Ok(f(x, y, dtype)))?;
    Ok(vec![found.value(dtype, &device)?])
}

fn only_integers(dtype: Dtype) -> Result<()> {
    if dtype.is_float() || dtype == Dtype::Bool {
        bail!("expected integers, found {dtype}");
    }
    Ok(())
}

/// How far numbers of `dtype` are shifted where `by` is asked for: TensorFlow keeps within the bits there are.
fn shift(by: i64, dtype: Dtype) -> u32 {
    let bits = i64::try_from(dtype.size() * 8).unwrap_or(64);
    u32::try_from(by.clamp(0, bits - 1)).unwrap_or_default()
}

fn invert(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    only_integers(value.dtype)?;
    Ok(vec![Integers::of(&value)?.map(|number| Ok(!number))?.value(value.dtype, value.tensor.device())?])
}

fn left(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    bits(node, |x, y, dtype| x.wrapping_shl(shift(y, dtype)))
}

fn right(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    bits(node, |x, y, dtype| x.wrapping_shr(shift(y, dtype)))
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("BitwiseAnd", X_Y, planned_bits, |node| bits(node, |x, y, _| x & y)),
    operation("BitwiseOr", X_Y, planned_bits, |node| bits(node, |x, y, _| x | y)),
    operation("BitwiseXor", X_Y, planned_bits, |node| bits(node, |x, y, _| x ^ y)),
    operation("BitwiseInvert", X, |node| planned(node, same), invert),
    operation("BitwiseNot", X, |node| planned(node, same), invert),
    operation("BitwiseLeftShift", X_Y, planned_bits, left),
    operation("LeftShift", X_Y, planned_bits, left),
    operation("BitwiseRightShift", X_Y, planned_bits, right),
    operation("RightShift", X_Y, planned_bits, right),
];
