//! Which operations are primitives: arithmetic of tensors of one shape or with a number, and functions of single numbers.

use candle_core::{Device, Result, Tensor};

use super::{Node, Operand, Scalar, moving};
use crate::{Argument, Function, Primitive, Spec, primitive::Merging};

/// What the operation `class` computes, if it is among the primitives; all is float32.
pub(super) fn primitives(class: &str, node: &Node<'_, Spec>) -> Result<Option<Vec<Primitive>>> {
    let function = match class {
        "Relu" => Function::Relu,
        "Relu6" => Function::Relu6,
        "Sigmoid" => Function::Sigmoid,
        "Tanh" => Function::Tanh,
        "Silu" => Function::Silu,
        "Softsign" => Function::Softsign,
        "Exp" => Function::Exponential,
        "Softmax" => return Ok(softmax(node)),
        "Matmul" => return Ok(product(node)),
        "Transpose" | "Moveaxis" | "Swapaxes" => return Ok(permuted(class, node)),
        _ => return arithmetic(class, node),
    };
    Ok(function.primitives())
}

/// A softmax along the last axis, which is not that of the batch.
fn softmax(node: &Node<'_, Spec>) -> Option<Vec<Primitive>> {
    let (rank, axis) = (node.given.tensor("x")?.shape.rank(), node.settings.any("axis")?.as_i64()?);
    let last = axis == -1 || usize::try_from(axis).is_ok_and(|axis| axis + 1 == rank);
    (last && rank > 1).then(|| vec![Primitive::Softmax])
}

/// Matrices of two tensors, as many of each and of one batch.
fn product(node: &Node<'_, Spec>) -> Option<Vec<Primitive>> {
    let (x1, x2) = (node.given.tensor("x1")?, node.given.tensor("x2")?);
    let ([first @ .., _, _], [second @ .., _, _]) = (x1.shape.0.as_slice(), x2.shape.0.as_slice()) else { return None };
    let fit = are_in_order(node) && first == second && !first.is_empty();
    fit.then(|| vec![Primitive::MatMul])
}

/// Whether the two tensors of the call are its operands in that order.
fn are_in_order(node: &Node<'_, Spec>) -> bool {
    let place = |name| node.given.argument(name).cloned();
    place("x1") == Some(Argument::Tensor(0)) && place("x2") == Some(Argument::Tensor(1))
}

/// Axes in another order, that of the batch the first.
fn permuted(class: &str, node: &Node<'_, Spec>) -> Option<Vec<Primitive>> {
    let rank = node.given.tensor("x")?.shape.rank();
    let order = match class {
        "Transpose" => moving::by_axes(node.settings, rank),
        "Moveaxis" => moving::by_moves(node.settings, rank),
        _ => moving::by_swap(node.settings, rank),
    };
    order.ok().filter(|order| order.first() == Some(&0)).map(|order| vec![Primitive::Permute(order)])
}

fn arithmetic(class: &str, node: &Node<'_, Spec>) -> Result<Option<Vec<Primitive>>> {
    let how = match class {
        "Add" => Merging::Add,
        "Subtract" => Merging::Subtract,
        "Multiply" => Merging::Multiply,
        "Divide" | "TrueDivide" => Merging::Divide,
        _ => return Ok(None),
    };
    let (Ok(x1), Ok(x2)) = (node.operand("x1"), node.operand("x2")) else { return Ok(None) };
    match (x1, x2) {
        (Operand::Tensor(x1), Operand::Tensor(x2)) => {
            // Keras: what is broadcast may go along another axis than numpy has it.
            Ok((are_in_order(node) && x1 == x2).then(|| vec![Primitive::Merge(how)]))
        }
        (Operand::Tensor(_), Operand::Scalar(number)) => with_number(how, number, false),
        (Operand::Scalar(number), Operand::Tensor(_)) => with_number(how, number, true),
        _ => Ok(None),
    }
}

/// A tensor and a number, the number `first` or not.
fn with_number(how: Merging, number: Scalar, first: bool) -> Result<Option<Vec<Primitive>>> {
    // Keras: the number is of the tensor's dtype.
    let number = number.number() as f32;
    let halves = number.is_normal() && number.to_bits() & 0x007f_ffff == 0;
    let (scale, shift) = match (how, first) {
        (Merging::Add, _) => (None, Some(number)),
        (Merging::Subtract, false) => (None, Some(-number)),
        (Merging::Subtract, true) => (Some(-1.0), Some(number)),
        (Merging::Multiply, _) => (Some(number), None),
        // A quotient is a product only where the divisor is a power of two.
        (Merging::Divide, false) if halves => (Some(1.0 / number), None),
        _ => return Ok(None),
    };
    let one = |number: Option<f32>| number.map(|number| Tensor::new(&[number], &Device::Cpu)).transpose();
    Ok(Some(vec![Primitive::Affine { scale: one(scale)?, shift: one(shift)? }]))
}
