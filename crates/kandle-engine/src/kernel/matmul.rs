//! Products of matrices, one for each index of the axes before the last two.

use std::sync::{Mutex, PoisonError};

use super::{
    Kernel, Run,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{Failure, dims::Dims};

/// `(…, rows, depth) · (…, depth, columns)`.
#[derive(Debug, Default)]
pub(crate) struct MatMul {
    /// Memory for what is packed, of as many as ran at once.
    idle: Mutex<Vec<Packed>>,
}

impl Kernel for MatMul {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        match inputs {
            [one, other] => match (one.as_slice(), other.as_slice()) {
                ([all @ .., _, depth], [others @ .., of_depth, columns]) if all == others && depth == of_depth => {
                    Ok(one.with_last(*columns))
                }
                _ => Err(Failure::unforeseen("matrices that do not fit together")),
            },
            _ => Err(Failure::unforeseen("an operand is missing")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (one, other) = (run.floats(0)?, run.floats(1)?);
        let [.., rows, depth] = *run.operand(0)?.dims.as_slice() else {
            return Err(Failure::unforeseen("matrices that do not fit together"));
        };
        let columns = run.dims.last()?;
        if run.out.is_empty() || depth == 0 {
            run.out.fill(0.0);
            return Ok(());
        }
        let (matrices, threads) = (run.out.len() / (rows * columns), run.threads.count());
        // Each thread packs what it multiplies with.
        let block = if matrices < threads { rows.div_ceil(threads).next_multiple_of(MOST_ROWS) } else { rows };
        run.threads.rows(run.out, columns, block, 2 * matrices * rows * depth * columns, |range, out| {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut packed = kept.unwrap_or_else(Packed::empty);
            for matrix in range.start / rows..range.end.div_ceil(rows) {
                let (from, to) = (range.start.max(matrix * rows), range.end.min((matrix + 1) * rows));
                packed.fill(depth, &Columns::all(&other[matrix * depth * columns..][..depth * columns], columns));
                let numbers = &one[matrix * rows * depth..][..rows * depth];
                let out = &mut out[(from - range.start) * columns..(to - range.start) * columns];
                let target = Target { out, stride: columns, bias: None, more: None, relu: None };
                let these = from - matrix * rows..to - matrix * rows;
                multiply(&Matrix { numbers, rows, stride: depth, depth }, these, &packed, target);
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(packed);
        });
        Ok(())
    }
}
