//! Gives a tensor that attention takes several times (as query, key and value) to it once: they are projected in one product.

use kandle_model::Primitive;

use crate::graph::{Graph, Work};

/// Inputs of attention that are the same slot become one.
pub(crate) fn give(graph: &mut Graph) {
    for node in &mut graph.nodes {
        let Work::Primitive { primitive: Primitive::Attention(attention), adds: false, .. } = &mut node.work else {
            continue;
        };
        let slots = node.inputs.clone();
        let (mut inputs, mut masks) = (Vec::with_capacity(slots.len()), Vec::with_capacity(slots.len()));
        let mut place = |input: &mut usize| {
            let Some(slot) = slots.get(*input) else { return };
            match inputs.iter().position(|other| other == slot) {
                Some(place) => *input = place,
                None => {
                    inputs.push(*slot);
                    masks.push(node.masks.get(*input).copied().flatten());
                    *input = inputs.len() - 1;
                }
            }
        };
        attention.inputs.iter_mut().chain(&mut attention.mask).for_each(&mut place);
        (node.inputs, node.masks) = (inputs, masks);
    }
}
