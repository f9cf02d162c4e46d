//! Folds what follows an embedding row by row (Dense, activations, normalisations) into its table.
//!
//! What such layers give for a token depends on the token alone. A table of what comes out is as long as the vocabulary, and a
//! look-up in it costs the copy of a row, however much the layers would have computed.
//!
//! The rule: a chain is folded up to the last place at which the table is no larger than the limit of
//! [`Options::table_bytes`](crate::Options), or than the weights that it replaces. The table is computed some rows at a time, so
//! that wide layers on the way ask for no more memory than their place needs.

use candle_core::{Device, Tensor};
use kandle_model::{Primitive, primitive::Table};

use crate::{
    Failure, Options, choose,
    dims::Dims,
    graph::{Graph, Work},
    kernel::{Data, Kernel, Operand, Run, Scratch},
    memory::Store,
    threads::Threads,
};

/// Rows of a table that are computed together.
const ROWS: usize = 1024;

/// Folds behind every embedding.
pub(crate) fn fold(graph: &mut Graph, options: &Options) -> candle_core::Result<()> {
    let mut at = 0;
    while at < graph.nodes.len() {
        fold_behind(graph, at, options)?;
        at += 1;
    }
    Ok(())
}

/// Whether a table of so many numbers is worth its memory, in place of `replaced` ones.
pub(super) fn is_worth(size: usize, replaced: usize, options: &Options) -> bool {
    size.saturating_mul(size_of::<f32>()) <= options.table_bytes || size <= replaced
}

fn fold_behind(graph: &mut Graph, at: usize, options: &Options) -> candle_core::Result<()> {
    let Work::Primitive { primitive: Primitive::Rows { table, .. }, map: None, .. } = &graph.nodes[at].work else {
        return Ok(());
    };
    let (vocabulary, mut width) = table.dims()?;
    let mut replaced = vocabulary.saturating_mul(width);
    let chain = chain_behind(graph, at);
    // The kernels so far, and how many of them make a table that is worth its memory.
    let (mut kernels, mut worth, mut store) = (Vec::new(), 0, Store::default());
    for number in &chain {
        let Work::Primitive { primitive, scale, map, .. } = &graph.nodes[*number].work else { break };
        if let Primitive::Product { kernel, .. } = primitive {
            replaced += kernel.elem_count();
        }
        let Some(kernel) = choose::kernel_of(primitive, scale.as_deref(), None, false, *map, &mut store)? else {
            break;
        };
        let Ok(made) = Dims::new(&[1, width]).and_then(|dims| kernel.dims(&[dims])).and_then(|made| made.last()) else {
            break;
        };
        width = made;
        kernels.push(kernel);
        if is_worth(vocabulary.saturating_mul(width), replaced, options) {
            worth = kernels.len();
        }
    }
    kernels.truncate(worth);
    if kernels.is_empty() {
        return Ok(());
    }
    // What a kernel cannot compute is left to the model, when an id asks for it.
    let Ok(folded) = through(&kernels, table.numbers()?, vocabulary) else { return Ok(()) };
    let size = (vocabulary, folded.len() / vocabulary.max(1));
    if let Work::Primitive { primitive: Primitive::Rows { table, .. }, .. } = &mut graph.nodes[at].work {
        *table = Table::Read(Tensor::from_vec(folded, size, &Device::Cpu)?);
    }
    let mut gone: Vec<usize> = chain.into_iter().take(worth).collect();
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

/// What the kernels one after the other make of `table`, which has so many rows.
fn through(kernels: &[Box<dyn Kernel>], table: Vec<f32>, rows: usize) -> Result<Vec<f32>, Failure> {
    let (width, mut folded) = (table.len() / rows.max(1), Vec::new());
    let (mut scratch, alone) = (Scratch::default(), Threads::default());
    for part in table.chunks(ROWS * width.max(1)) {
        let (mut numbers, mut dims) = (part.to_vec(), Dims::new(&[part.len() / width.max(1), width])?);
        for kernel in kernels {
            let made = kernel.dims(&[dims])?;
            let mut out = vec![0.0; made.count()];
            kernel.run(Run {
                inputs: &[Operand { dims, data: Data::F32(&numbers) }],
                out: &mut out,
                dims: made,
                in_place: false,
                mask: None,
                scratch: &mut scratch,
                threads: &alone,
            })?;
            (numbers, dims) = (out, made);
        }
        folded.extend(numbers);
    }
    Ok(folded)
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
