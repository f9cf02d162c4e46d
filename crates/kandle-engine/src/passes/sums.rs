//! Adds a residual while the sums of the product, convolution or attention before it are in registers.

use kandle_model::{Primitive, primitive::Merging};

use crate::graph::{Graph, Work};

/// `product + other`, where nobody else reads the product and `other` is known before it.
pub(crate) fn fuse(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.nodes.len() {
        if !fused(graph, at) {
            at += 1;
        }
    }
}

/// Whether the sum at `at` went into one of its summands; its node is gone then.
fn fused(graph: &mut Graph, at: usize) -> bool {
    let node = &graph.nodes[at];
    let (Work::Primitive { primitive: Primitive::Merge(Merging::Add), adds: false, map: None, .. }, [one, other]) =
        (&node.work, node.inputs.as_slice())
    else {
        return false;
    };
    if one == other || !graph.are_of_one_shape(&[*one, *other]) {
        return false;
    }
    let reads = graph.reads();
    let made_at = |slot: usize| graph.nodes.iter().position(|node| node.outputs.contains(&slot));
    let pairs = [(*one, *other), (*other, *one)];
    let found = pairs.into_iter().find_map(|(slot, more)| {
        let maker = made_at(slot).filter(|_| reads[slot] == 1)?;
        let Work::Primitive { primitive, adds: false, map: None, .. } = &graph.nodes[maker].work else { return None };
        let takes = match primitive {
            Primitive::Product { .. } | Primitive::Attention(_) => true,
            Primitive::Convolution(convolution) => !convolution.depthwise,
            _ => false,
        };
        // The other one is there when the product runs, if it runs where the sum did.
        takes.then_some((maker, more))
    });
    let Some((maker, more)) = found else { return false };
    let sum = graph.nodes.remove(at);
    let mut product = graph.nodes.remove(maker);
    product.inputs.push(more);
    product.masks.push(None);
    product.outputs = sum.outputs;
    product.layers.extend(sum.layers);
    if let Work::Primitive { adds, .. } = &mut product.work {
        *adds = true;
    }
    graph.nodes.insert(at - 1, product);
    true
}
