//! Rows of a table for ids: an embedding, and everything after it that looks at one row at a time.

use std::ops::Range;

use kandle_model::primitive::StoredRows;

use super::{Data, Kernel, Run, stream};
use crate::{Failure, dims::Dims, memory::Numbers, threads::MOVED};

/// Bytes of rows from which on they go past the caches: nobody finds so many there, and a line that is written into a cache is
/// read from memory first.
const PAST_CACHES: usize = 16 << 20;

/// The rows of `table`, `(vocabulary, features)`.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) table: Kept,
    pub(crate) features: usize,
    pub(crate) vocabulary: usize,
    pub(crate) from_the_end: bool,
}

/// Where the rows are.
#[derive(Debug)]
pub(crate) enum Kept {
    Here(Numbers),
    InFile(StoredRows),
}

impl Rows {
    fn copy<T: Copy>(
        &self,
        ids: &[T],
        out: &mut [f32],
        past_caches: bool,
        integer: impl Fn(T) -> i64,
    ) -> Result<(), Failure> {
        match &self.table {
            Kept::Here(table) if past_caches => {
                let mut streams = stream::Streams::new();
                self.each(ids, out, integer, |row, out| streams.copy(&table[row], out))
            }
            Kept::Here(table) => self.each(ids, out, integer, |row, out| out.copy_from_slice(&table[row])),
            Kept::InFile(stored) => {
                let numbers = stored.numbers();
                self.each(ids, out, integer, |row, out| {
                    out.iter_mut().zip(&numbers[row]).for_each(|(to, bytes)| *to = f32::from_le_bytes(*bytes));
                })
            }
        }
    }

    /// Puts the row of each id, numbers of the table, to its place.
    #[inline(always)]
    fn each<T: Copy>(
        &self,
        ids: &[T],
        out: &mut [f32],
        integer: impl Fn(T) -> i64,
        mut put: impl FnMut(Range<usize>, &mut [f32]),
    ) -> Result<(), Failure> {
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(self.features)) {
            // The model says which id it is.
            let Some(from) = index(integer(*id), self.vocabulary, self.from_the_end) else {
                return Err(Failure::unforeseen("an id that is not in the vocabulary"));
            };
            put(from * self.features..(from + 1) * self.features, out);
        }
        Ok(())
    }
}

/// The row of an id, if it is of the vocabulary.
#[inline(always)]
pub(super) fn index(id: i64, vocabulary: usize, from_the_end: bool) -> Option<usize> {
    let count = i64::try_from(vocabulary).unwrap_or(i64::MAX);
    let id = if id < 0 && from_the_end { id.saturating_add(count) } else { id };
    usize::try_from(id).ok().filter(|id| *id < vocabulary)
}

/// An id that came as a float: towards zero. What no id can be is out of every vocabulary.
pub(super) fn truncated(id: f32) -> i64 {
    const BEYOND: f32 = 9e15;
    if id.abs() < BEYOND { id as i64 } else { i64::MAX }
}

impl Kernel for Rows {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        super::only(inputs)?.and(self.features)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let ids = run.operand(0)?.data;
        if self.features == 0 {
            return Ok(());
        }
        let wrong = std::sync::Mutex::new(None);
        let operations = MOVED * run.out.len();
        let past_caches = size_of_val(run.out) >= PAST_CACHES;
        run.threads.rows(run.out, self.features, 1, operations, |range, out| {
            let copied = match ids {
                Data::F32(ids) => self.copy(&ids[range], out, past_caches, truncated),
                Data::I32(ids) => self.copy(&ids[range], out, past_caches, i64::from),
                Data::I64(ids) => self.copy(&ids[range], out, past_caches, |id| id),
            };
            if let Err(failure) = copied
                && let Ok(mut wrong) = wrong.lock()
            {
                *wrong = Some(failure);
            }
        });
        match wrong.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(failure),
            Err(_) => Err(Failure::unforeseen("a thread that failed")),
        }
    }

    fn bytes(&self) -> usize {
        match &self.table {
            Kept::Here(table) => table.len() * size_of::<f32>(),
            Kept::InFile(_) => 0,
        }
    }

    fn bytes_read(&self) -> usize {
        0
    }
}
