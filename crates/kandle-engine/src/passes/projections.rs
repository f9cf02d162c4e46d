//! Takes the product of the input out of a recurrent layer behind an embedding, so that it goes into the table.
//!
//! What a token contributes to the gates depends on the token alone. The rule is that of [`rows`](super::rows) for the table that
//! is made so.

use candle_core::{DType, Device, Tensor};
use kandle_model::{Primitive, primitive::Recurrent};

use super::rows::is_worth;
use crate::{
    Options,
    graph::{Graph, Node, Work},
};

/// Puts a product of its own before every recurrent layer that alone reads an embedding.
pub(crate) fn take_out(graph: &mut Graph, options: &Options) -> candle_core::Result<()> {
    let mut at = 0;
    while at < graph.nodes.len() {
        if let Some((vocabulary, features)) = embedding_before(graph, at)?
            && let Some(product) = projection(&graph.nodes[at].work)?
            && let Primitive::Product { kernel, .. } = &product
            && let replaced = vocabulary.saturating_mul(features).saturating_add(kernel.elem_count())
            && is_worth(vocabulary.saturating_mul(kernel.dim(1)?), replaced, options)
        {
            let slot = graph.slot();
            let node = &mut graph.nodes[at];
            let before = Node {
                work: Work::of(product),
                inputs: std::mem::replace(&mut node.inputs, vec![slot]),
                outputs: vec![slot],
                masks: vec![None],
                made: vec![None],
                layers: node.layers.clone(),
                step: node.step,
            };
            without_projection(&mut node.work);
            graph.nodes.insert(at, before);
            at += 1;
        }
        at += 1;
    }
    Ok(())
}

/// The vocabulary and the features of the embedding that the node at `at` alone reads.
fn embedding_before(graph: &Graph, at: usize) -> candle_core::Result<Option<(usize, usize)>> {
    let [input] = graph.nodes[at].inputs.as_slice() else { return Ok(None) };
    let maker = graph.nodes[..at].iter().find(|maker| maker.outputs.as_slice() == [*input]);
    match maker.map(|maker| &maker.work) {
        Some(work @ Work::Primitive { primitive: Primitive::Rows { table, .. }, .. })
            if work.is_plain_rows() && graph.reads()[*input] == 1 =>
        {
            table.dims().map(Some)
        }
        _ => Ok(None),
    }
}

/// The product of the input of a recurrent layer, in both directions if it has two.
fn projection(work: &Work) -> candle_core::Result<Option<Primitive>> {
    let Work::Primitive { primitive, .. } = work else { return Ok(None) };
    let layers: &[&Recurrent] = match primitive {
        Primitive::Recurrent(layer) => &[layer],
        Primitive::Bidirectional { forward, backward, .. } => &[forward, backward],
        _ => return Ok(None),
    };
    let Some(kernels) = layers.iter().map(|layer| layer.kernel.clone()).collect::<Option<Vec<Tensor>>>() else {
        return Ok(None);
    };
    let biases = layers.iter().zip(&kernels).map(|(layer, kernel)| match &layer.bias {
        Some(bias) => bias.flatten_all(),
        None => Tensor::zeros(kernel.dim(1)?, DType::F32, &Device::Cpu),
    });
    let biases = biases.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Some(Primitive::Product { kernel: Tensor::cat(&kernels, 1)?, bias: Some(Tensor::cat(&biases, 0)?) }))
}

fn without_projection(work: &mut Work) {
    let without = |layer: &mut Recurrent| (layer.kernel, layer.bias) = (None, None);
    match work {
        Work::Primitive { primitive: Primitive::Recurrent(layer), .. } => without(layer),
        Work::Primitive { primitive: Primitive::Bidirectional { forward, backward, .. }, .. } => {
            without(forward);
            without(backward);
        }
        _ => {}
    }
}
