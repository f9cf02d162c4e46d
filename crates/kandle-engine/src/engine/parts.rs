//! A batch in parts: rows that stay in the cache together, and rows of its own for each thread.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use super::{Engine, FEW};
use crate::{
    Failure,
    dims::Dims,
    kernel::Operand,
    program::{Feed, Out, Program, Workspace},
    threads::Threads,
};

/// The most bytes that a step of a part of a batch reads and writes, if it can be helped: they stay in a second-level cache.
const IN_CACHE: usize = 1 << 20;
/// Up to so many bytes of weights are read again for each part for that.
const READ_AGAIN: usize = 1 << 20;
/// Bytes that are read and written, weights once for each row, from which on it pays to wake other threads.
const WORTH_A_THREAD: usize = 1 << 20;

/// The parts in which a batch is run, rows of their own each.
pub(super) struct Parts {
    batch: usize,
    /// Rows of a part.
    rows: usize,
    /// Threads that run parts at once, each on memory of its own.
    threads: usize,
    /// The shapes of the outputs of all.
    pub(super) outputs: [Dims; FEW],
}

impl Engine {
    /// In which parts a run on these inputs is done, if it is worth parts.
    pub(super) fn parts(
        &self,
        program: &Program,
        workspace: &mut Workspace,
        operands: &[Operand<'_>],
    ) -> Option<Parts> {
        let read = program.runs_by_rows().filter(|_| operands.len() <= FEW)?;
        let batch = *operands.first()?.dims.as_slice().first()?;
        if batch < 2 || operands.iter().any(|operand| operand.dims.as_slice().first() != Some(&batch)) {
            return None;
        }
        let mut dims = [Dims::default(); FEW];
        dims.iter_mut().zip(operands).for_each(|(dims, operand)| *dims = operand.dims);
        // What is wrong with the shapes shows in the run.
        let measured = program.measure(workspace, &dims[..operands.len()]).ok()?;
        let by_rows = measured.outputs.iter().all(|dims| dims.as_slice().first() == Some(&batch));
        if !by_rows || measured.outputs.len() > FEW {
            return None;
        }
        let mut outputs = [Dims::default(); FEW];
        outputs.iter_mut().zip(&measured.outputs).for_each(|(to, dims)| *to = *dims);
        let in_cache = match program.is_chain() && measured.most > IN_CACHE {
            true => (batch * IN_CACHE / measured.most).max(1),
            false => batch,
        };
        // Weights that are read again for each part cost less than tensors that leave the cache, if they are fewer.
        let again = batch.div_ceil(in_cache).saturating_mul(read);
        let in_cache = if read <= READ_AGAIN || again <= measured.all { in_cache } else { batch };
        let threads = self.threads.count();
        let worth = batch >= threads && measured.all + batch.saturating_mul(read) >= WORTH_A_THREAD;
        let threads = if worth { threads } else { 1 };
        let rows = in_cache.min(batch.div_ceil(threads));
        let count = batch.div_ceil(rows).next_multiple_of(threads).min(batch);
        let rows = batch.div_ceil(count);
        (rows < batch).then_some(Parts { batch, rows, threads, outputs })
    }

    /// Runs the parts, each on as many rows of the inputs and into those of `outs`.
    pub(super) fn run_parts(
        &self,
        program: &Program,
        workspace: &mut Workspace,
        operands: &[Operand<'_>],
        outs: &mut [&mut [f32]],
        parts: &Parts,
    ) -> Result<(), Failure> {
        let Parts { batch, rows, threads, outputs } = *parts;
        let (mut rest, count): ([&mut [f32]; FEW], usize) = (Default::default(), outs.len());
        for ((rest, out), dims) in rest.iter_mut().zip(outs.iter_mut()).zip(outputs) {
            if out.len() != dims.count() {
                return Err(Failure::unforeseen("an output of another size"));
            }
            *rest = out;
        }
        if threads == 1 {
            return self.run_rows(program, workspace, operands, (0..batch, rows), &mut rest[..count]);
        }
        let (wrong, workspace) = (Mutex::new(None), Mutex::new(Some(workspace)));
        let pieces = (0..batch).step_by(rows).map(|from| {
            let range = from..(from + rows).min(batch);
            let mut own: [&mut [f32]; FEW] = Default::default();
            for ((own, rest), dims) in own.iter_mut().zip(&mut rest).zip(outputs) {
                let row = dims.count() / batch;
                (*own, *rest) = std::mem::take(rest).split_at_mut(range.len() * row);
            }
            (range, own)
        });
        self.threads.each(pieces, |first, more| {
            let on_memory = |workspace: &mut Workspace| {
                let mut piece = Some(first);
                while let Some((range, mut outs)) = piece {
                    self.run_rows(program, workspace, operands, (range, rows), &mut outs[..count])?;
                    piece = more();
                }
                Ok(())
            };
            let own = workspace.lock().unwrap_or_else(PoisonError::into_inner).take();
            let done = match own {
                Some(workspace) => on_memory(workspace),
                None => self.on_kept_memory(program, on_memory),
            };
            if let Err(failure) = done {
                *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        });
        wrong.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Runs some rows of a batch, so many at a time. `outs` are of these rows alone.
    fn run_rows(
        &self,
        program: &Program,
        workspace: &mut Workspace,
        operands: &[Operand<'_>],
        (range, rows): (Range<usize>, usize),
        outs: &mut [&mut [f32]],
    ) -> Result<(), Failure> {
        let (alone, count) = (Threads::default(), outs.len());
        for from in range.clone().step_by(rows) {
            let part = from..(from + rows).min(range.end);
            let mut feeds: [Feed<'_>; FEW] = std::array::from_fn(|_| Feed::default());
            for (feed, operand) in feeds.iter_mut().zip(operands) {
                feed.operand = operand.rows(&part);
            }
            let mut parts: [Out<'_>; FEW] = std::array::from_fn(|_| Out::Into(&mut []));
            for (to, out) in parts.iter_mut().zip(outs.iter_mut()) {
                let row = out.len() / range.len().max(1);
                *to = Out::Into(&mut out[(part.start - range.start) * row..(part.end - range.start) * row]);
            }
            let (feeds, parts) = (&feeds[..operands.len()], &mut parts[..count]);
            program.run(&self.model, &alone, workspace, feeds, parts, None)?;
        }
        Ok(())
    }
}
