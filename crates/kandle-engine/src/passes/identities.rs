//! Drops what gives back what it gets: Dropout, linear activations, Identity.

use kandle_model::Primitive;

use crate::graph::{Graph, Work};

/// Whoever read what an identity gave reads what it got.
pub(crate) fn remove(graph: &mut Graph) {
    let mut stands_for: Vec<usize> = (0..graph.slots).collect();
    graph.nodes.retain_mut(|node| {
        for slot in &mut node.inputs {
            *slot = stands_for[*slot];
        }
        let identity =
            matches!(&node.work, Work::Primitive { primitive: Primitive::Identity, adds: false, map: None, .. });
        if let ([input], [output], true) = (node.inputs.as_slice(), node.outputs.as_slice(), identity) {
            stands_for[*output] = *input;
            return false;
        }
        true
    });
    for (slot, _) in &mut graph.outputs {
        *slot = stands_for[*slot];
    }
}
