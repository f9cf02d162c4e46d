use std::{
    fmt, fs,
    io::{self, Read},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// How much is read of what cannot be mapped, such as a pipe.
const MOST_READ: u64 = 4 << 30;

/// A cheap, shareable view of bytes: a memory-mapped file, bytes in memory, or a part of either.
#[derive(Clone)]
pub struct Bytes {
    store: Arc<Store>,
    range: Range<usize>,
}

enum Store {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Store {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Maps the file at `path`; what is no regular file (a pipe, say) is read instead.
    ///
    /// A file that another process shortens while it is mapped ends this process (`SIGBUS`); nothing guards against it.
    ///
    /// # Errors
    /// Whatever the operating system says of opening, mapping or reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 {
            let mut bytes = Vec::new();
            file.take(MOST_READ).read_to_end(&mut bytes)?;
            if u64::try_from(bytes.len()).is_ok_and(|len| len == MOST_READ) {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "no regular file, and more than 4 GiB long"));
            }
            return Ok(Self::from(bytes));
        }
        // Safety: the file is opened read-only and the map is never written. The bytes are handed out as `&[u8]` and
        // parsed as hostile, so a concurrent change to them can at worst make the parsers err; a concurrent truncation
        // is the stated non-guarantee above.
        #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; this is the one place")]
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let range = 0..map.len();
        Ok(Self { store: Arc::new(Store::Mapped(map)), range })
    }

    /// The part of these bytes from `start`, `len` long; `None` where it does not lie within.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Option<Self> {
        let start = self.range.start.checked_add(usize::try_from(start).ok()?)?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= self.range.end).then(|| Self { store: Arc::clone(&self.store), range: start..end })
    }

    /// Those of these bytes that `read` is, as a view of its own; none where it is no part of them.
    #[must_use]
    pub fn of(&self, read: &[u8]) -> Option<Self> {
        let all = self.store.as_slice();
        let start = read.as_ptr().addr().checked_sub(all.as_ptr().addr())?;
        let end = start.checked_add(read.len())?;
        let within = self.range.start <= start && end <= self.range.end;
        within.then(|| Self { store: Arc::clone(&self.store), range: start..end })
    }

    /// Tells the system that the memory of these bytes, if they are mapped, may be given to others: who looks there again gets
    /// them from the file again. Nothing is lost.
    pub fn let_go(&self) {
        let Store::Mapped(map) = &*self.store else { return };
        #[cfg(unix)]
        // Safety: the map is of a file and never written, so that nothing is lost: as stated in `open`. Where the system knows
        // better, it may.
        #[allow(
            unsafe_code,
            reason = "advice that drops pages is unsafe, since elsewhere it would drop what was written"
        )]
        let _ = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.range.start, self.range.len())
        };
    }

    /// The bytes themselves.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.store.as_slice().get(self.range.clone()).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { store: Arc::new(Store::Owned(bytes)), range }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn a_part_lies_within_the_whole() {
        let bytes = Bytes::from(vec![0, 1, 2, 3, 4, 5]);
        let part = bytes.part(2, 3).unwrap();
        assert_eq!(part.as_slice(), [2, 3, 4]);
        assert_eq!(part.part(1, 2).unwrap().as_slice(), [3, 4]);
        assert!(part.part(1, 3).is_none(), "a part of a part cannot reach beyond it");
        assert!(bytes.part(u64::MAX, 1).is_none());
        assert!(bytes.part(1, u64::MAX).is_none());
    }

    #[test]
    fn what_was_read_is_a_view_of_its_own() {
        let bytes = Bytes::from(vec![0, 1, 2, 3, 4, 5]);
        let part = bytes.part(1, 4).unwrap();
        assert_eq!(part.of(&part.as_slice()[1..3]).unwrap().as_slice(), [2, 3]);
        assert!(part.of(bytes.as_slice()).is_none(), "more than the part");
        assert!(part.of(&[1, 2, 3]).is_none(), "memory of others");
    }

    #[test]
    fn what_was_let_go_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let written: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        std::fs::write(&path, &written).unwrap();
        for bytes in [Bytes::open(&path).unwrap(), Bytes::from(written.clone())] {
            let part = bytes.part(5_000, 80_000).unwrap();
            part.let_go();
            assert_eq!(bytes.as_slice(), written);
        }
    }

    #[test]
    fn files_are_mapped_and_empty_files_are_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"").unwrap();
        assert!(Bytes::open(&path).unwrap().as_slice().is_empty());
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(Bytes::open(&path).unwrap().as_slice(), b"abc");
        assert!(Bytes::open(folder.path()).is_err());
    }
}
