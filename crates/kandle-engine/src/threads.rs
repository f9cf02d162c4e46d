//! Work over several threads, where it is enough to pay for waking them.

use std::ops::Range;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Floating-point operations below which waking a thread (about 5 µs) costs more than it saves.
const ENOUGH: usize = 2_000_000;

/// The threads of an engine: the caller's own, and those that wait beside it.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    others: Option<ThreadPool>,
}

impl Threads {
    /// `count` threads, the caller's included.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        if count <= 1 {
            return Ok(Self::default());
        }
        let others = ThreadPoolBuilder::new().num_threads(count - 1).thread_name(|_| "kandle-engine".to_owned());
        Ok(Self { others: Some(others.build()?) })
    }

    /// How many there are, the caller's included.
    pub(crate) fn count(&self) -> usize {
        self.others.as_ref().map_or(1, |others| others.current_num_threads() + 1)
    }

    /// Runs `work` on all rows of `out`, each `stride` numbers long, in as many parts as threads are worth it for `operations`
    /// of the whole. A part is a multiple of `block` rows.
    pub(crate) fn rows(
        &self,
        out: &mut [f32],
        stride: usize,
        block: usize,
        operations: usize,
        work: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let rows = out.len().checked_div(stride).unwrap_or(0);
        let parts = self.count().min(operations / ENOUGH + 1).min(rows.div_ceil(block.max(1)));
        let Some(others) = self.others.as_ref().filter(|_| parts > 1) else { return work(0..rows, out) };
        let size = rows.div_ceil(parts).next_multiple_of(block.max(1));
        others.in_place_scope(|scope| {
            let (mut rest, mut from) = (out, 0);
            let work = &work;
            let mut own = None;
            while from < rows {
                let to = (from + size).min(rows);
                let (part, more) = rest.split_at_mut((to - from) * stride);
                rest = more;
                if from == 0 {
                    own = Some((from..to, part));
                } else {
                    scope.spawn(move |_| work(from..to, part));
                }
                from = to;
            }
            if let Some((range, part)) = own {
                work(range, part);
            }
        });
    }

    /// Runs `work` on all of `0..count`, in a part for each thread.
    pub(crate) fn split(&self, count: usize, work: impl Fn(Range<usize>) + Sync) {
        let size = count.div_ceil(self.count()).max(1);
        let work = &work;
        self.each((0..count).step_by(size).map(|from| move || work(from..(from + size).min(count))));
    }

    /// Runs all of them at once, the first on the caller's thread.
    pub(crate) fn each<W: FnOnce() + Send>(&self, works: impl IntoIterator<Item = W>) {
        let mut works = works.into_iter();
        let Some(first) = works.next() else { return };
        match &self.others {
            Some(others) => others.in_place_scope(|scope| {
                works.for_each(|work| scope.spawn(move |_| work()));
                first();
            }),
            None => {
                first();
                works.for_each(|work| work());
            }
        }
    }

    /// Runs both, at once where that is worth it for `operations` together.
    pub(crate) fn both(&self, operations: usize, one: impl FnOnce() + Send, other: impl FnOnce() + Send) {
        match self.others.as_ref().filter(|_| operations > ENOUGH) {
            Some(others) => others.in_place_scope(|scope| {
                scope.spawn(|_| other());
                one();
            }),
            None => {
                one();
                other();
            }
        }
    }
}
