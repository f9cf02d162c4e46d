//! Memory of kernels: it begins at a vector's boundary, and is in huge pages where there is much of it.
//!
//! A vector of 64 bytes that lies across two cache lines is read twice, and a model of some megabytes in pages of 4 KiB has
//! more pages than a processor finds at once: weights that are read once a run then cost the walk to every page.

#![allow(unsafe_code, reason = "parts of one piece of memory are lent out, each to one owner")]

use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use memmap2::MmapMut;

/// Bytes from which on a piece is asked for from the system, in huge pages.
const LARGE: usize = 2 << 20;

/// A cache line, and the longest vector.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "it is read through pointers")] [f32; LINE]);

const LINE: usize = 16;

/// A piece of memory that was asked for at once.
#[expect(dead_code, reason = "it is held, and read through pointers")]
enum Piece {
    Small(Vec<Line>),
    Large(MmapMut),
}

impl Piece {
    /// So many zeros, and where they begin.
    fn new(count: usize) -> (Self, NonNull<f32>) {
        let bytes = count.saturating_mul(size_of::<f32>());
        if bytes >= LARGE
            && let Ok(mut map) = MmapMut::map_anon(bytes)
        {
            // Where the system has no huge pages, small ones do.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            if let Some(first) = NonNull::new(map.as_mut_ptr().cast()) {
                return (Self::Large(map), first);
            }
        }
        let mut lines = vec![Line([0.0; LINE]); count.div_ceil(LINE)];
        let first = NonNull::new(lines.as_mut_ptr().cast()).unwrap_or(NonNull::dangling());
        (Self::Small(lines), first)
    }
}

/// Numbers of one owner, a slice for whoever reads them.
pub(crate) struct Numbers {
    first: NonNull<f32>,
    count: usize,
    /// None where there are no numbers.
    _piece: Option<Arc<Piece>>,
}

// Safety: nobody else reaches the part of the piece that these numbers are, and the piece is held for as long as they live.
unsafe impl Send for Numbers {}
// Safety: as above; shared, they are only read.
unsafe impl Sync for Numbers {}

impl Numbers {
    /// So many zeros, in memory of their own.
    pub(crate) fn zeros(count: usize) -> Self {
        let (piece, first) = Piece::new(count);
        Self { first, count, _piece: Some(Arc::new(piece)) }
    }

    /// At least so many numbers; what is in them is of no meaning.
    pub(crate) fn grow(&mut self, count: usize) {
        if self.count < count {
            *self = Self::zeros(count);
        }
    }
}

impl Default for Numbers {
    /// None, without memory.
    fn default() -> Self {
        Self { first: NonNull::<Line>::dangling().cast(), count: 0, _piece: None }
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // Safety: the piece has so many numbers from there on, all of them zeros or what was written.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        // Safety: as above, and nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.count)
    }
}

/// Where weights get their memory: one behind the other in few pieces.
#[derive(Default)]
pub(crate) struct Store {
    rest: Option<(Arc<Piece>, NonNull<f32>)>,
    left: usize,
    /// How many numbers are still expected.
    expected: usize,
    /// Whether tables that are in a file stay there.
    pub(crate) leaves_tables: bool,
}

impl Store {
    /// For about so many numbers.
    pub(crate) fn new(expected: usize, leaves_tables: bool) -> Self {
        Self { expected, leaves_tables, ..Self::default() }
    }

    /// So many zeros.
    pub(crate) fn zeros(&mut self, count: usize) -> Numbers {
        let room = count.next_multiple_of(LINE);
        if self.left < room {
            // What nobody writes to costs no memory but addresses.
            self.left = room.max(self.expected);
            let (piece, first) = Piece::new(self.left);
            self.rest = Some((Arc::new(piece), first));
        }
        self.expected = self.expected.saturating_sub(room);
        match &mut self.rest {
            Some((piece, rest)) => {
                let first = *rest;
                // Safety: `left`, which counts what is behind `rest`, is at least `room`.
                *rest = unsafe { rest.add(room) };
                self.left -= room;
                Numbers { first, count, _piece: Some(Arc::clone(piece)) }
            }
            None => Numbers::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Store};

    #[test]
    fn parts_of_a_store_are_apart_and_begin_at_lines() {
        for expected in [0, 100, 3 << 20] {
            let mut store = Store::new(expected, false);
            let mut parts: Vec<Numbers> = [3, 0, 16, 17, 1 << 20, 5].iter().map(|count| store.zeros(*count)).collect();
            for (number, part) in parts.iter_mut().enumerate() {
                assert!(part.iter().all(|x| *x == 0.0));
                assert_eq!(part.as_ptr() as usize % 64, 0);
                part.fill(number as f32);
            }
            drop(store);
            for (number, part) in parts.iter().enumerate() {
                assert!(part.iter().all(|x| *x == number as f32));
            }
        }
    }

    #[test]
    fn numbers_grow() {
        let mut numbers = Numbers::default();
        numbers.grow(7);
        assert_eq!(numbers.len(), 7);
        numbers.grow(3);
        assert_eq!(numbers.len(), 7);
        numbers.grow(1 << 20);
        numbers.fill(1.0);
        assert_eq!(numbers.len(), 1 << 20);
    }
}
