//! Folds a convolution over an embedding's rows into a table: what a token adds to a sum depends on the token and the tap alone.
//!
//! A window then costs the sum of as many rows as it has taps, not a product. The table is filled as tokens are seen, so that an
//! engine is ready as soon as without it. The rule: the table, which has a row for each token and tap, is no larger than
//! [`Options::table_bytes`](crate::Options), and the embedding's rows are of [`CHANNELS`] numbers at least.

use std::{collections::HashMap, sync::Arc};

use kandle_model::{Primitive, primitive::Convolution};

use crate::{
    Options, choose,
    graph::{Graph, Node, Work},
    kernel::{
        numbers,
        tap_rows::{Products, TapRows},
        tile::{Columns, Packed},
    },
    memory::{Numbers, Store},
};

/// With fewer channels a product takes no longer than the sums.
const CHANNELS: usize = 16;

/// Folds every convolution that reads what an embedding gives.
pub(crate) fn fold(graph: &mut Graph, options: &Options) -> candle_core::Result<()> {
    // The rows of an embedding are kept once for all convolutions over it.
    let mut kept = HashMap::new();
    for at in 0..graph.nodes.len() {
        let Some(rows) = rows_before(graph, at) else { continue };
        let Some(kernel) = table(&graph.nodes[rows], &graph.nodes[at], kept.entry(rows).or_default(), options)? else {
            continue;
        };
        let (input, layers) = (graph.nodes[rows].inputs[0], graph.nodes[rows].layers.clone());
        let node = &mut graph.nodes[at];
        let name = kernel.map.map_or_else(String::new, |map| format!(" + {}", map.name()));
        node.work = Work::Kernel(Box::new(kernel), format!("rows of taps{name}"));
        (node.inputs, node.masks) = (vec![input], vec![None]);
        node.layers.splice(0..0, layers);
    }
    let reads = graph.reads();
    let is_read = |node: &Node| node.outputs.iter().any(|slot| reads[*slot] > 0);
    let is_rows = |node: &Node| matches!(node.work, Work::Primitive { primitive: Primitive::Rows { .. }, .. });
    graph.nodes.retain(|node| !is_rows(node) || is_read(node));
    Ok(())
}

/// The embedding whose rows the convolution at `at` reads, if it is one.
fn rows_before(graph: &Graph, at: usize) -> Option<usize> {
    let node = &graph.nodes[at];
    let (Work::Primitive { primitive: Primitive::Convolution(convolution), adds: false, .. }, [input]) =
        (&node.work, node.inputs.as_slice())
    else {
        return None;
    };
    let plain = convolution.windows.len() == 1 && convolution.groups == 1 && !convolution.depthwise;
    graph.nodes[..at].iter().position(|maker| {
        let rows = Work::is_plain_rows(&maker.work);
        plain && rows && maker.outputs.as_slice() == [*input]
    })
}

/// The table of what a convolution gives of the rows of another one, if it is worth its memory.
fn table(
    rows: &Node,
    node: &Node,
    kept: &mut Option<Arc<Numbers>>,
    options: &Options,
) -> candle_core::Result<Option<TapRows>> {
    let (
        Work::Primitive { primitive: Primitive::Rows { table, from_the_end }, .. },
        Work::Primitive { primitive: Primitive::Convolution(convolution), scale, map, .. },
    ) = (&rows.work, &node.work)
    else {
        return Ok(None);
    };
    let ([window], (vocabulary, channels)) = (convolution.windows.as_slice(), table.dims()?) else { return Ok(None) };
    let (taps, inner, filters) = convolution.kernel.dims3()?;
    let bytes = [vocabulary, taps, filters, size_of::<f32>()].into_iter().try_fold(1_usize, usize::checked_mul);
    let worth = bytes.is_some_and(|bytes| bytes <= options.table_bytes);
    if !worth || channels < CHANNELS || inner != channels || taps != window.kernel || filters == 0 || vocabulary == 0 {
        return Ok(None);
    }
    let table = match kept {
        Some(kept) => Arc::clone(kept),
        None => {
            let mut numbers = Numbers::zeros(vocabulary * channels);
            numbers.copy_from_slice(&table.numbers()?);
            Arc::clone(kept.insert(Arc::new(numbers)))
        }
    };
    Ok(Some(TapRows {
        table: products(table, convolution, scale.as_deref())?,
        filters,
        from_the_end: *from_the_end,
        window: *window,
        placed: choose::placed(convolution.padding, convolution.margins.as_ref()),
        bias: convolution.bias.as_ref().map_or_else(|| Ok(vec![0.0; filters]), numbers)?,
        map: *map,
    }))
}

/// `(vocabulary, taps · filters)`: each row of the table times the kernel of each tap.
fn products(table: Arc<Numbers>, convolution: &Convolution, scale: Option<&[f32]>) -> candle_core::Result<Products> {
    let (_, channels, filters) = convolution.kernel.dims3()?;
    let kernel = numbers(&convolution.kernel)?;
    let taps = kernel.chunks_exact(channels * filters);
    let columns: Vec<Columns<'_>> = taps.map(|kernel| Columns { scale, ..Columns::all(kernel, filters) }).collect();
    Ok(Products::new(table, Packed::new(&mut Store::default(), channels, &columns)))
}
