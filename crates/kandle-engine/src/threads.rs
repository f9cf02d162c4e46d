//! Several threads at one run.
//!
//! To wake a thread takes longer than most steps of a small model. So threads stay awake for a while after they worked and watch
//! for more; work is claimed piece by piece by whoever is there, and nobody waits for a thread that has claimed nothing.

#![allow(
    unsafe_code,
    reason = "threads that outlive a task are lent the task; the caller waits for those that took it"
)]

use std::{
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Floating-point operations of a product for which it pays to share it with a thread that is awake.
const ENOUGH: usize = 250_000;
/// And with one that has to be woken for it.
const ENOUGH_TO_WAKE: usize = 4_000_000;
/// As how many of them it counts to move a number.
pub(crate) const MOVED: usize = 16;
/// How long a thread watches for more work before it sleeps.
const AWAKE: Duration = Duration::from_micros(200);

/// The threads of an engine: the caller's own, and those that wait beside it.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    crew: Option<Crew>,
}

#[derive(Debug)]
struct Crew {
    board: Arc<Board>,
    others: Vec<JoinHandle<()>>,
    /// Whoever holds it has the others. Who finds it held works alone.
    lead: Mutex<()>,
}

/// Where a task is put up.
#[derive(Debug, Default)]
struct Board {
    posted: Posted,
    /// Threads that may be at the task.
    inside: Alone<AtomicUsize>,
    asleep: AtomicUsize,
    panicked: AtomicBool,
}

/// What those that watch look at. Only the one who leads writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Posted {
    /// Odd while there is a task; another number for each.
    turn: AtomicUsize,
    /// How many threads there is work for: those with the lowest numbers, so that the others may sleep.
    wanted: AtomicUsize,
    task: AtomicPtr<Task<'static>>,
    ended: AtomicBool,
}

/// Alone in its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// What each thread that comes does once, told which one it is. The caller is 0.
struct Task<'a>(&'a (dyn Fn(usize) + Sync));

impl Board {
    /// What the thread `number` does until the engine goes.
    fn watch(&self, number: usize) {
        let Posted { turn, wanted, task, ended } = &self.posted;
        let (mut done, mut looks, mut since) = (0, 0_u32, Instant::now());
        loop {
            let now = turn.load(Ordering::Acquire);
            if now % 2 == 1 && now != done && number < wanted.load(Ordering::Relaxed) {
                self.inside.0.fetch_add(1, Ordering::SeqCst);
                // The one who leads ends the turn first and looks then who is inside: either it sees this thread, or this thread
                // sees that the turn is over.
                if turn.load(Ordering::SeqCst) == now {
                    let task = task.load(Ordering::Acquire);
                    // Safety: the task lives until the turn is over and nobody is inside.
                    let work = AssertUnwindSafe(|| unsafe { (*task).0(number) });
                    if catch_unwind(work).is_err() {
                        self.panicked.store(true, Ordering::Relaxed);
                    }
                }
                self.inside.0.fetch_sub(1, Ordering::Release);
                (done, looks, since) = (now, 0, Instant::now());
            } else if ended.load(Ordering::Acquire) {
                return;
            } else if looks % 64 < 63 {
                std::hint::spin_loop();
                looks += 1;
            } else if since.elapsed() < AWAKE {
                // There may be more threads than processors.
                thread::yield_now();
                looks += 1;
            } else {
                self.asleep.fetch_add(1, Ordering::SeqCst);
                // The one who leads posts first and looks then who sleeps.
                if turn.load(Ordering::SeqCst) == now && !ended.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
                (looks, since) = (0, Instant::now());
            }
        }
    }
}

/// Rows that nobody has claimed yet.
struct Part<'a> {
    from: usize,
    rest: &'a mut [f32],
}

impl<'a> Part<'a> {
    /// Half of what is left, or all where less than `least` rows would stay.
    fn claim(&mut self, stride: usize, block: usize, least: usize) -> Option<(Range<usize>, &'a mut [f32])> {
        let left = self.rest.len() / stride;
        let half = left.div_ceil(2).next_multiple_of(block);
        let count = if half + least > left { left } else { half };
        let (piece, rest) = std::mem::take(&mut self.rest).split_at_mut(count * stride);
        let range = self.from..self.from + count;
        (self.from, self.rest) = (range.end, rest);
        (count > 0).then_some((range, piece))
    }
}

/// A turn. It is over when this goes, however that happens.
struct Turn<'a>(&'a Board, #[expect(dead_code, reason = "held as long")] MutexGuard<'a, ()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.posted.turn.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0_u32;
        while self.0.inside.0.load(Ordering::SeqCst) > 0 {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(256) { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

impl Threads {
    /// `count` threads, the caller's included.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        if count <= 1 {
            return Ok(Self::default());
        }
        let mut crew = Crew { board: Arc::default(), others: Vec::new(), lead: Mutex::default() };
        for number in 1..count {
            let board = Arc::clone(&crew.board);
            let other = thread::Builder::new().name("kandle-engine".to_owned());
            crew.others.push(other.spawn(move || board.watch(number))?);
        }
        Ok(Self { crew: Some(crew) })
    }

    /// How many there are, the caller's included.
    pub(crate) fn count(&self) -> usize {
        self.crew.as_ref().map_or(1, |crew| crew.others.len() + 1)
    }

    /// Does `work` on the caller's thread, and at once on those of the others that come, each told its number: on `wanted` at most,
    /// the caller's included, of which so many are woken if they sleep. It has to be all done when any of them returns and those
    /// that began have.
    fn together(&self, wanted: usize, woken: usize, work: &(dyn Fn(usize) + Sync)) {
        let Some(crew) = &self.crew else { return work(0) };
        let lead = match crew.lead.try_lock() {
            Ok(lead) => lead,
            Err(TryLockError::Poisoned(lead)) => lead.into_inner(),
            Err(TryLockError::WouldBlock) => return work(0),
        };
        let board = &*crew.board;
        let mut task = Task(work);
        board.panicked.store(false, Ordering::Relaxed);
        board.posted.wanted.store(wanted, Ordering::Relaxed);
        board.posted.task.store(ptr::from_mut(&mut task).cast(), Ordering::Release);
        board.posted.turn.fetch_add(1, Ordering::SeqCst);
        let turn = Turn(board, lead);
        if woken > 0 && board.asleep.load(Ordering::SeqCst) > 0 {
            crew.others.iter().take(woken).for_each(|other| other.thread().unpark());
        }
        work(0);
        drop(turn);
        if board.panicked.load(Ordering::Relaxed) {
            resume_unwind(Box::new("a thread of the engine panicked"));
        }
    }

    /// Runs `work` on all rows of `out`, each `stride` numbers long, in pieces of a multiple of `block` rows: on as many threads as
    /// `operations`, those of the whole, are worth it. A thread works on neighbouring rows, the same in each step of a model, as
    /// long as the others do as much.
    pub(crate) fn rows(
        &self,
        out: &mut [f32],
        stride: usize,
        block: usize,
        operations: usize,
        work: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let (rows, block) = (out.len().checked_div(stride).unwrap_or(0), block.max(1));
        let pieces = operations / ENOUGH + 1;
        let parts = self.count().min(pieces).min(rows.div_ceil(block));
        if parts < 2 {
            return work(0..rows, out);
        }
        let least = rows.div_ceil(pieces).next_multiple_of(block);
        let size = rows.div_ceil(parts).next_multiple_of(block);
        let part = |(number, rest)| Mutex::new(Part { from: number * size, rest });
        let parts: Vec<_> = out.chunks_mut(size * stride).enumerate().map(part).collect();
        let woken = parts.len().min(operations / ENOUGH_TO_WAKE + 1) - 1;
        self.together(parts.len(), woken, &|number| {
            for part in (0..parts.len()).map(|after| &parts[(number + after) % parts.len()]) {
                let claim = || part.lock().unwrap_or_else(PoisonError::into_inner).claim(stride, block, least);
                while let Some((range, piece)) = claim() {
                    work(range, piece);
                }
            }
        });
    }

    /// Runs `work` on all of `0..count`, in pieces of at least `least`.
    pub(crate) fn split(&self, count: usize, least: usize, work: impl Fn(Range<usize>) + Sync) {
        let size = count.div_ceil(2 * self.count()).max(least).max(1);
        let next = AtomicUsize::new(0);
        self.together(self.count(), self.count() - 1, &|_| {
            loop {
                let from = next.fetch_add(size, Ordering::Relaxed);
                if from >= count {
                    break;
                }
                work(from..(from + size).min(count));
            }
        });
    }

    /// Does all `pieces`: each thread that gets one is given it, and what it may claim more with.
    pub(crate) fn each<P: Send>(
        &self,
        pieces: impl Iterator<Item = P> + Send,
        work: impl Fn(P, &mut dyn FnMut() -> Option<P>) + Sync,
    ) {
        let pieces = Mutex::new(pieces);
        let claim = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.together(self.count(), self.count() - 1, &|_| {
            let mut claim = claim;
            if let Some(first) = claim() {
                work(first, &mut claim);
            }
        });
    }

    /// Runs both, at once where that is worth it for `operations` together.
    pub(crate) fn both(&self, operations: usize, one: impl FnOnce() + Send, other: impl FnOnce() + Send) {
        if operations < 2 * ENOUGH {
            one();
            return other();
        }
        let (one, other) = (Mutex::new(Some(one)), Mutex::new(Some(other)));
        fn claim<W>(work: &Mutex<Option<W>>) -> Option<W> {
            work.lock().unwrap_or_else(PoisonError::into_inner).take()
        }
        self.together(2, usize::from(operations >= ENOUGH_TO_WAKE), &|_| {
            claim(&one).into_iter().for_each(|work| work());
            claim(&other).into_iter().for_each(|work| work());
        });
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.board.posted.ended.store(true, Ordering::SeqCst);
        for other in self.others.drain(..) {
            other.thread().unpark();
            // It never panics.
            let _ = other.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Barrier, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::{AWAKE, ENOUGH, ENOUGH_TO_WAKE, Threads};

    #[test]
    fn each_row_is_claimed_once_in_pieces_of_blocks() {
        for count in [1, 2, 3, 8] {
            let threads = Threads::new(count).unwrap();
            assert_eq!(threads.count(), count);
            for (rows, stride, block) in [(0, 3, 4), (1, 1, 1), (7, 2, 12), (24, 1, 12), (100, 3, 7), (1000, 1, 64)] {
                for operations in [0, ENOUGH, 3 * ENOUGH, 100 * ENOUGH] {
                    let mut out = vec![0.0; rows * stride];
                    threads.rows(&mut out, stride, block, operations, |range, piece| {
                        assert_eq!(piece.len(), range.len() * stride);
                        assert!(range.start % block == 0 && (range.end % block == 0 || range.end == rows));
                        for (number, x) in piece.iter_mut().enumerate() {
                            *x += (range.start * stride + number + 1) as f32;
                        }
                    });
                    assert!(out.iter().enumerate().all(|(number, x)| *x == (number + 1) as f32));
                }
            }
        }
    }

    #[test]
    fn too_little_work_is_one_piece() {
        let pieces = AtomicUsize::new(0);
        let work = |_, _: &mut [f32]| {
            pieces.fetch_add(1, Ordering::Relaxed);
        };
        Threads::new(4).unwrap().rows(&mut [0.0; 100], 1, 1, ENOUGH - 1, work);
        assert_eq!(pieces.into_inner(), 1);
    }

    #[test]
    fn every_number_is_split_once_and_every_piece_done() {
        let threads = Threads::new(3).unwrap();
        for (count, least) in [(0, 1), (1, 1), (5, 3), (100, 1), (100, 60)] {
            let seen: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            threads.split(count, least, |range| {
                for at in range {
                    seen[at].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        }
        let sum = AtomicUsize::new(0);
        threads.each(1..=100_usize, |first, more| {
            let mut piece = Some(first);
            while let Some(number) = piece {
                sum.fetch_add(number, Ordering::Relaxed);
                piece = more();
            }
        });
        assert_eq!(sum.into_inner(), 5050);
    }

    /// Each piece waits for the others: it would never end on fewer threads.
    #[test]
    fn all_threads_come_awake_or_asleep() {
        let threads = Threads::new(3).unwrap();
        for _ in 0..5 {
            let (meeting, names) = (Barrier::new(3), Mutex::new(Vec::new()));
            threads.rows(&mut [0.0; 3], 1, 1, 3 * ENOUGH_TO_WAKE, |_, _| {
                meeting.wait();
                names.lock().unwrap().push(thread::current().id());
            });
            let mut names = names.into_inner().unwrap();
            names.sort_by_key(|id| format!("{id:?}"));
            names.dedup();
            assert_eq!(names.len(), 3);
            thread::sleep(AWAKE * 20);
        }
        let meeting = Barrier::new(2);
        threads.both(
            ENOUGH_TO_WAKE,
            || {
                meeting.wait();
            },
            || {
                meeting.wait();
            },
        );
    }

    #[test]
    fn both_are_done_where_it_is_worth_no_thread() {
        let (mut one, mut other) = (0, 0);
        Threads::new(2).unwrap().both(0, || one += 1, || other += 1);
        Threads::default().both(ENOUGH_TO_WAKE, || one += 1, || other += 1);
        assert_eq!((one, other), (2, 2));
    }

    #[test]
    fn several_callers_at_once_do_all_of_their_work() {
        let threads = Threads::new(2).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let mut out = [0.0; 64];
                        threads.rows(&mut out, 1, 1, 8 * ENOUGH, |_, piece| piece.iter_mut().for_each(|x| *x += 1.0));
                        assert_eq!(out, [1.0; 64]);
                    }
                });
            }
        });
    }

    /// A piece that asks for the threads again gets none of them, and does its work.
    #[test]
    fn work_within_work_is_done_by_whoever_asks() {
        let threads = Threads::new(2).unwrap();
        let mut out = [0.0; 64];
        threads.rows(&mut out, 8, 1, 8 * ENOUGH, |_, piece| {
            threads.rows(piece, 1, 1, 8 * ENOUGH, |_, piece| piece.iter_mut().for_each(|x| *x += 1.0));
        });
        assert_eq!(out, [1.0; 64]);
    }

    #[test]
    fn a_panic_of_any_thread_is_the_callers_and_the_threads_go_on() {
        let threads = Threads::new(2).unwrap();
        for wrong in [0, 1] {
            let (meeting, mut out) = (Barrier::new(2), [0.0; 2]);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                threads.rows(&mut out, 1, 1, 2 * ENOUGH_TO_WAKE, |range, _| {
                    meeting.wait();
                    assert!(range.start != wrong, "as it should");
                });
            }));
            assert!(panicked.is_err());
            threads.rows(&mut out, 1, 1, 2 * ENOUGH_TO_WAKE, |_, piece| piece.fill(1.0));
            assert_eq!(out, [1.0; 2]);
        }
    }
}
