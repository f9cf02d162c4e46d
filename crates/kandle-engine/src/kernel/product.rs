//! `xs · kernel + bias` over the last axis, with what follows it number by number.

use super::{
    Kernel, Run,
    map::Map,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply, multiply_by_columns},
};
use crate::{Failure, dims::Dims, memory::Store};

/// A product with a constant, packed once.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) kernel: Packed,
    pub(crate) bias: Option<Vec<f32>>,
    /// Whether the last input is added before the map.
    pub(crate) adds: bool,
    pub(crate) map: Option<Map>,
}

impl Product {
    /// `kernel` is `(features, units)`, row-major, and is scaled by `(units,)`.
    pub(crate) fn new(
        store: &mut Store,
        (kernel, scale, bias): (&[f32], Option<&[f32]>, Option<Vec<f32>>),
        features: usize,
        units: usize,
    ) -> Self {
        let columns = Columns { scale, ..Columns::all(kernel, units) };
        Self { kernel: Packed::new(store, features, &[columns]), bias, adds: false, map: None }
    }
}

/// The map that is done while sums are in registers, and the one that is done after.
pub(crate) fn apart(map: Option<Map>) -> (Option<f32>, Option<Map>) {
    match map.map(|map| (map.as_relu(), map)) {
        Some((Some(most), _)) => (Some(most), None),
        Some((None, map)) => (None, Some(map)),
        None => (None, None),
    }
}

impl Kernel for Product {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.last()? != self.kernel.depth() {
            return Err(Failure::unforeseen("another number of features"));
        }
        let dims = dims.with_last(self.kernel.columns());
        super::same_as_added(self.adds, inputs, dims)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let numbers = run.floats(0)?;
        let more = if self.adds { Some(run.floats(1)?) } else { None };
        let (depth, columns) = (self.kernel.depth(), self.kernel.columns());
        let rows = run.out.len() / columns.max(1);
        let matrix = Matrix { numbers, rows, stride: depth, depth };
        let (relu, map) = apart(self.map);
        let whole = Target { out: &mut *run.out, stride: columns, bias: self.bias.as_deref(), more, relu };
        if multiply_by_columns(run.threads, &matrix, &self.kernel, whole) {
            map.into_iter().for_each(|map| map.apply(run.out));
            return Ok(());
        }
        run.threads.rows(run.out, columns, MOST_ROWS, 2 * rows * depth * columns, |range, out| {
            // In parts that stay in the cache until the map is done.
            let step = if map.is_some() { 4 * MOST_ROWS } else { range.len().max(1) };
            for from in range.clone().step_by(step) {
                let to = (from + step).min(range.end);
                let out = &mut out[(from - range.start) * columns..(to - range.start) * columns];
                let more = more.map(|more| &more[from * columns..to * columns]);
                let bias = self.bias.as_deref();
                multiply(&matrix, from..to, &self.kernel, Target { out, stride: columns, bias, more, relu });
                if let Some(map) = map {
                    map.apply(out);
                }
            }
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.kernel.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}
