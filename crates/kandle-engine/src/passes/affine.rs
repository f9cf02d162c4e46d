//! Folds a factor and a summand for each channel (BatchNormalization, Rescaling) into the product or convolution before.

use candle_core::{D, Device, Tensor};
use kandle_model::Primitive;

use crate::graph::{Graph, Work};

/// `(xs · W + b) · s + t = xs · (W · s) + (b · s + t)`, where nobody else reads the product.
pub(crate) fn fold(graph: &mut Graph) -> candle_core::Result<()> {
    let mut at = 0;
    while at + 1 < graph.nodes.len() {
        match follower(graph, at) {
            Some((next, scale, shift)) if folded(graph, at, scale.as_ref(), shift.as_ref())? => {
                let gone = graph.nodes.remove(next);
                graph.nodes[at].outputs = gone.outputs;
                graph.nodes[at].layers.extend(gone.layers);
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The affine node that alone reads what node `at` gives.
fn follower(graph: &Graph, at: usize) -> Option<(usize, Option<Tensor>, Option<Tensor>)> {
    let [output] = graph.nodes[at].outputs.as_slice() else { return None };
    if graph.reads()[*output] != 1 {
        return None;
    }
    let next = graph.nodes.iter().position(|node| node.inputs.as_slice() == [*output])?;
    match &graph.nodes[next].work {
        Work::Primitive { primitive: Primitive::Affine { scale, shift }, .. } => {
            Some((next, scale.clone(), shift.clone()))
        }
        _ => None,
    }
}

/// Changes the weights of node `at`, if it has some: at once, or large ones when they are packed.
fn folded(graph: &mut Graph, at: usize, scale: Option<&Tensor>, shift: Option<&Tensor>) -> candle_core::Result<bool> {
    let Work::Primitive { primitive, scale: packed_with, adds: false, map: None } = &mut graph.nodes[at].work else {
        return Ok(false);
    };
    let (kernel, bias, channels, at_once) = match primitive {
        Primitive::Product { kernel, bias } => {
            let channels = kernel.dim(D::Minus1)?;
            (kernel, bias, channels, false)
        }
        Primitive::Convolution(convolution) => {
            let dims = convolution.kernel.dims();
            let channels = match convolution.depthwise {
                true => dims.iter().rev().take(2).product(),
                false => dims.last().copied().unwrap_or(0),
            };
            (&mut convolution.kernel, &mut convolution.bias, channels, convolution.depthwise)
        }
        // The filters of one tap after those of another.
        Primitive::Transposed(transposed) => {
            let filters = transposed
                .windows
                .iter()
                .fold(transposed.kernel.dim(D::Minus1)?, |filters, window| filters / window.kernel.max(1));
            (&mut transposed.kernel, &mut transposed.bias, filters, true)
        }
        _ => return Ok(false),
    };
    let spread = |tensor: &Tensor| {
        if tensor.elem_count() == 1 { tensor.broadcast_as(channels)?.contiguous() } else { Ok(tensor.clone()) }
    };
    let (scale, shift) = (scale.map(spread).transpose()?, shift.map(spread).transpose()?);
    if scale.iter().chain(&shift).any(|tensor| tensor.dims() != [channels]) {
        return Ok(false);
    }
    if let Some(scale) = &scale {
        let factors = scale.to_vec1::<f32>()?;
        let times = |numbers: &mut [f32]| numbers.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
        if at_once {
            let (dims, mut numbers) = (kernel.dims().to_vec(), kernel.flatten_all()?.to_vec1::<f32>()?);
            numbers.chunks_mut(channels.max(1)).for_each(times);
            *kernel = Tensor::from_vec(numbers, dims, &Device::Cpu)?;
        } else {
            times(packed_with.get_or_insert_with(|| vec![1.0; channels]));
        }
        *bias = bias.as_ref().map(|bias| bias * scale).transpose()?;
    }
    *bias = match (bias.take(), shift) {
        (Some(bias), Some(shift)) => Some((bias + shift)?),
        (bias, shift) => bias.or(shift),
    };
    Ok(true)
}
