//! Applies a function of single numbers where they were computed, not in a pass of its own.

use kandle_model::Primitive;

use crate::{
    graph::{Graph, Work},
    kernel::map::Map,
};

/// A map that alone reads what a product, a convolution, a normalisation, a sum or a factor gives goes with it.
pub(crate) fn fuse(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.nodes.len() {
        match maker_of(graph, at) {
            Some((maker, curve)) => {
                let gone = graph.nodes.remove(at);
                let node = &mut graph.nodes[maker];
                node.outputs = gone.outputs;
                node.layers.extend(gone.layers);
                if let Work::Primitive { map, .. } = &mut node.work {
                    *map = Some(curve);
                }
            }
            None => at += 1,
        }
    }
}

/// The node that the map at `at` can go with.
fn maker_of(graph: &Graph, at: usize) -> Option<(usize, Map)> {
    let node = &graph.nodes[at];
    let (Work::Primitive { primitive: Primitive::Map(curve), adds: false, map: None, .. }, [input]) =
        (&node.work, node.inputs.as_slice())
    else {
        return None;
    };
    let curve = Map::of(curve)?;
    let maker = graph.nodes.iter().position(|node| node.outputs.contains(input))?;
    let Work::Primitive { primitive, map: None, .. } = &graph.nodes[maker].work else { return None };
    let takes = matches!(
        primitive,
        Primitive::Product { .. }
            | Primitive::Convolution(_)
            | Primitive::Transposed(_)
            | Primitive::Normalize { .. }
            | Primitive::NormalizeGroups { .. }
            | Primitive::Affine { .. }
            | Primitive::Merge(_)
    );
    (takes && graph.reads()[*input] == 1).then_some((maker, curve))
}
