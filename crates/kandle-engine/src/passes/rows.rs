//! Folds what follows an embedding row by row (Dense, activations, normalisations) into its table.
//!
//! What such layers give for a token depends on the token alone. A table of what comes out is as long as the vocabulary, and a
//! look-up in it costs the copy of a row, however much the layers would have computed.
//!
//! The rule: a chain is folded up to the last place at which the table is no larger than the limit of
//! [`Options::table_bytes`](crate::Options), or than the weights that it replaces.

use candle_core::{Device, Tensor};
use kandle_model::Primitive;

use crate::{
    Options, choose,
    graph::{Graph, Work},
    kernel::{Run, Scratch},
    threads::Threads,
};

/// Folds behind every embedding.
pub(crate) fn fold(graph: &mut Graph, options: &Options) -> candle_core::Result<()> {
    let mut at = 0;
    while at < graph.nodes.len() {
        fold_behind(graph, at, options)?;
        at += 1;
    }
    Ok(())
}

fn fold_behind(graph: &mut Graph, at: usize, options: &Options) -> candle_core::Result<()> {
    let Work::Primitive { primitive: Primitive::Rows { table, .. }, map: None, .. } = &graph.nodes[at].work else {
        return Ok(());
    };
    let (vocabulary, mut rows) = (table.dim(0)?, table.clone());
    let mut replaced = table.elem_count();
    // The last table that is worth its memory, and how many nodes are in it.
    let mut best = None;
    let chain = chain_behind(graph, at);
    for (count, number) in chain.iter().enumerate() {
        let Work::Primitive { primitive, map, .. } = &graph.nodes[*number].work else { break };
        if let Primitive::Product { kernel, .. } = primitive {
            replaced += kernel.elem_count();
        }
        let Some(kernel) = choose::kernel_of(primitive, false, *map)? else { break };
        let width = rows.dim(1)?;
        let (Ok(dims), numbers) = (crate::dims::Dims::new(&[vocabulary, width]), rows.flatten_all()?.to_vec1::<f32>()?)
        else {
            break;
        };
        let Ok(made) = kernel.dims(&[dims]) else { break };
        let mut out = vec![0.0; made.count()];
        let operand = crate::kernel::Operand { dims, data: crate::kernel::Data::F32(&numbers) };
        let run = Run {
            inputs: &[operand],
            out: &mut out,
            dims: made,
            in_place: false,
            mask: None,
            scratch: &mut Scratch::default(),
            threads: &Threads::default(),
        };
        if kernel.run(run).is_err() {
            break;
        }
        let size = out.len();
        rows = Tensor::from_vec(out, made.as_slice(), &Device::Cpu)?;
        if size * size_of::<f32>() <= options.table_bytes || size <= replaced {
            best = Some((count + 1, rows.clone()));
        }
    }
    let Some((count, folded)) = best else { return Ok(()) };
    let mut gone: Vec<usize> = chain.into_iter().take(count).collect();
    if let Work::Primitive { primitive: Primitive::Rows { table, .. }, .. } = &mut graph.nodes[at].work {
        *table = folded;
    }
    gone.sort_unstable();
    let mut last = None;
    for number in gone.iter().rev() {
        let node = graph.nodes.remove(*number);
        if last.is_none() {
            last = Some(node.outputs.clone());
        }
        // In the order of the chain, behind the embedding.
        graph.nodes[at].layers.splice(1..1, node.layers);
    }
    if let Some(outputs) = last {
        graph.nodes[at].outputs = outputs;
    }
    Ok(())
}

/// The nodes behind node `at` that look at one row at a time, each the only one to read what the one before gives.
fn chain_behind(graph: &Graph, at: usize) -> Vec<usize> {
    let (reads, mut chain, mut last) = (graph.reads(), vec![], at);
    loop {
        let [output] = graph.nodes[last].outputs.as_slice() else { return chain };
        if reads[*output] != 1 {
            return chain;
        }
        let Some(next) = graph.nodes.iter().position(|node| node.inputs.as_slice() == [*output]) else { return chain };
        match &graph.nodes[next].work {
            Work::Primitive { primitive, adds: false, .. } if primitive.is_by_row() => chain.push(next),
            _ => return chain,
        }
        last = next;
    }
}
