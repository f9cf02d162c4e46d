//! Pads where a convolution reads, not in a pass of its own: its taps see zeros there anyway.

use kandle_model::{Primitive, primitive::Padding};

use crate::graph::{Graph, Work};

/// Zeros that one convolution alone reads become its own margins.
pub(crate) fn fuse(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.nodes.len() {
        match reader_of(graph, at) {
            Some((reader, margins)) => {
                let gone = graph.nodes.remove(at);
                // The reader came after.
                let node = &mut graph.nodes[reader - 1];
                node.inputs[0] = gone.inputs[0];
                node.layers.splice(0..0, gone.layers);
                if let Work::Primitive { primitive: Primitive::Convolution(convolution), .. } = &mut node.work {
                    convolution.margins = Some(margins);
                }
            }
            None => at += 1,
        }
    }
}

/// The convolution that alone reads what the padding at `at` gives, and the margins of its spatial axes.
fn reader_of(graph: &Graph, at: usize) -> Option<(usize, Vec<(usize, usize)>)> {
    let node = &graph.nodes[at];
    let (Work::Primitive { primitive: Primitive::Pad(margins), adds: false, map: None, .. }, [output]) =
        (&node.work, node.outputs.as_slice())
    else {
        return None;
    };
    let [(0, 0), spatial @ .., (0, 0)] = margins.as_slice() else { return None };
    if graph.reads()[*output] != 1 {
        return None;
    }
    let reader = graph.nodes.iter().position(|node| node.inputs.first() == Some(output))?;
    let Work::Primitive { primitive: Primitive::Convolution(convolution), .. } = &graph.nodes[reader].work else {
        return None;
    };
    let fits = convolution.windows.len() == spatial.len() && convolution.padding == Padding::Valid;
    (fits && convolution.margins.is_none()).then(|| (reader, spatial.to_vec()))
}
