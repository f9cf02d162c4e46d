//! Computes what several nodes would compute alike once: the same work on the same tensors.

use kandle_model::{Plan, Primitive};

use crate::graph::{Graph, Node, Work};

/// Whoever reads what a later one of them gives reads what the first one gives.
pub(crate) fn share(graph: &mut Graph, plan: &Plan) {
    let mut stands_for: Vec<usize> = (0..graph.slots).collect();
    let mut mask_for: Vec<usize> = (0..graph.masks).collect();
    let mut kept: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        node.inputs.iter_mut().for_each(|slot| *slot = stands_for[*slot]);
        node.masks.iter_mut().flatten().for_each(|mask| *mask = mask_for[*mask]);
        let Some(first) = kept.iter_mut().find(|first| are_alike(first, &node, plan)) else {
            kept.push(node);
            continue;
        };
        for (gone, stays) in node.outputs.iter().zip(&first.outputs) {
            stands_for[*gone] = *stays;
        }
        for (gone, stays) in node.made.iter().zip(&first.made) {
            if let (Some(gone), Some(stays)) = (gone, stays) {
                mask_for[*gone] = *stays;
            }
        }
        first.layers.append(&mut node.layers);
    }
    graph.nodes = kept;
    for (slot, mask) in &mut graph.outputs {
        *slot = stands_for[*slot];
        mask.iter_mut().for_each(|mask| *mask = mask_for[*mask]);
    }
}

/// Whether both read the same and give the same.
fn are_alike(one: &Node, other: &Node, plan: &Plan) -> bool {
    // What is no number of its own, as the masks that a call of the model may make, has to be made by the same call.
    let makes = |node: &Node| node.made.iter().map(Option::is_some).collect::<Vec<_>>();
    if one.inputs != other.inputs || one.masks != other.masks || makes(one) != makes(other) {
        return false;
    }
    match (&one.work, &other.work) {
        (Work::Mask, Work::Mask) | (Work::Pairs, Work::Pairs) => true,
        (Work::Primitive { primitive: a, .. }, Work::Primitive { primitive: b, .. }) => {
            are_equal(a, b) || (is_same_variant(a, b) && are_same_call(one, other, plan))
        }
        (Work::Call, Work::Call) => are_same_call(one, other, plan),
        _ => false,
    }
}

/// Whether both came of one layer, called with the same arguments.
fn are_same_call(one: &Node, other: &Node, plan: &Plan) -> bool {
    match (plan.steps().get(one.step), plan.steps().get(other.step)) {
        (Some(one), Some(other)) => one.layer == other.layer && one.arguments == other.arguments,
        _ => false,
    }
}

fn is_same_variant(one: &Primitive, other: &Primitive) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Whether two primitives without weights are the same, whichever layers they come of.
fn are_equal(one: &Primitive, other: &Primitive) -> bool {
    use Primitive::{
        Crop, Interpolate, Join, Map, MatMul, Merge, Pad, Permute, Pool, PoolAll, Repeat, Reshape, Softmax,
    };
    match (one, other) {
        (Softmax, Softmax) | (MatMul, MatMul) => true,
        (Map(one), Map(other)) => one == other,
        (Merge(one), Merge(other)) => one == other,
        (Join { axis: one }, Join { axis: other }) => one == other,
        (Reshape(one), Reshape(other)) => one == other,
        (Permute(one), Permute(other)) | (Repeat(one), Repeat(other)) => one == other,
        (Pad(one), Pad(other)) | (Crop(one), Crop(other)) => one == other,
        (Interpolate { times: one, at }, Interpolate { times: other, at: other_at }) => one == other && at == other_at,
        (
            Pool { largest, windows, padding },
            Pool { largest: other_largest, windows: other_windows, padding: other_padding },
        ) => largest == other_largest && windows == other_windows && padding == other_padding,
        (PoolAll { largest, keeps_axes }, PoolAll { largest: other_largest, keeps_axes: other_keeps }) => {
            largest == other_largest && keeps_axes == other_keeps
        }
        _ => false,
    }
}
