use std::{
    io::{Cursor, Read},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use crate::{Bytes, Error, ErrorKind, Limits, Result, shown};

/// The members of a zip, read from its central directory.
pub(crate) struct ZipFile {
    bytes: Bytes,
    zip: ZipArchive<Cursor<Bytes>>,
    limits: Limits,
}

impl ZipFile {
    pub(crate) fn open(bytes: Bytes, limits: &Limits) -> Result<Self> {
        let zip = ZipArchive::new(Cursor::new(bytes.clone())).map_err(|error| damaged("", &error))?;
        if zip.len() > limits.members {
            let what = format!("{} members in the zip, more than the limit of {}", zip.len(), limits.members);
            return Err(Error::new(ErrorKind::Limit, "", what));
        }
        Ok(Self { bytes, zip, limits: limits.clone() })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.zip.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Whether the member `name` is there as it is, not packed.
    pub(crate) fn is_stored(&mut self, name: &str) -> bool {
        self.zip.by_name(name).is_ok_and(|file| file.compression() == CompressionMethod::Stored)
    }

    /// The bytes of the member `name`, at most `most`, its checksum verified; `None` if the zip has no such member.
    ///
    /// A stored member is a part of the file's own bytes, without a copy. A deflated one is unpacked into memory.
    pub(crate) fn member(&mut self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let mut file = match self.zip.by_name(name) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(damaged(name, &error)),
        };
        let (size, stored) = (file.size(), file.compressed_size());
        match file.compression() {
            CompressionMethod::Stored => {
                let wrong = |what: &str| Error::new(ErrorKind::Damaged, name, what);
                let start = file.data_start().ok_or_else(|| wrong("the zip does not say where its bytes start"))?;
                let part = self.bytes.part(start, size).ok_or_else(|| wrong("runs past the end of the file"))?;
                if size != stored || checksum(part.as_slice()) != file.crc32() {
                    return Err(wrong(
                        "the bytes do not match their checksum: the file is damaged or was not fully copied",
                    ));
                }
                Ok(Some(part))
            }
            CompressionMethod::Deflated => {
                if size > most || !self.limits.allow_unpacking(size, stored) {
                    let what = format!("unpacks from {stored} to {size} bytes, more than the limits allow");
                    return Err(Error::new(ErrorKind::Limit, name, what));
                }
                let mut unpacked = Vec::new();
                file.by_ref().take(size).read_to_end(&mut unpacked).map_err(|error| {
                    Error::new(ErrorKind::Damaged, name, format!("cannot be unpacked: {error}")).caused_by(error)
                })?;
                // One more read reaches the end of the stream, where zip compares length and checksum.
                let beyond = file.read(&mut [0]);
                if u64::try_from(unpacked.len()) != Ok(size) || !matches!(beyond, Ok(0)) {
                    return Err(Error::new(
                        ErrorKind::Damaged,
                        name,
                        "does not unpack to the length and checksum the zip states",
                    ));
                }
                Ok(Some(Bytes::from(unpacked)))
            }
            other => {
                let method = match other.to_string().to_lowercase() {
                    unknown if unknown == "unknown" => "a method that is not known".to_owned(),
                    method => method,
                };
                let what = format!("compressed with {method}, only stored and deflated members are read");
                Err(Error::new(ErrorKind::Unsupported, name, what))
            }
        }
    }
}

/// The CRC-32 of `bytes`: of its parts, on as many threads as there are cores, put together.
fn checksum(bytes: &[u8]) -> u32 {
    /// Less than this takes no longer than to start a thread.
    const PART: usize = 4 << 20;
    let of = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        hasher
    };
    let parts: Vec<&[u8]> = bytes.chunks(PART).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 || parts.len() < 2 {
        return of(bytes).finalize();
    }
    let hashers: Vec<OnceLock<crc32fast::Hasher>> = parts.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let take_parts = || {
        let take = |number: usize| parts.get(number).zip(hashers.get(number));
        while let Some((part, hasher)) = take(next.fetch_add(1, Ordering::Relaxed)) {
            hasher.get_or_init(|| of(part));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..cores {
            // Where there is no further thread to be had, this one does its work.
            if std::thread::Builder::new().spawn_scoped(scope, take_parts).is_err() {
                break;
            }
        }
        take_parts();
    });
    let mut whole = crc32fast::Hasher::new();
    hashers.iter().filter_map(OnceLock::get).for_each(|part| whole.combine(part));
    whole.finalize()
}

fn damaged(at: &str, error: &ZipError) -> Error {
    let kind = match error {
        ZipError::UnsupportedArchive(_) => ErrorKind::Unsupported,
        _ => ErrorKind::Damaged,
    };
    let what = match error {
        // What says where the members are stands at the end, so a file that lacks its end fails here.
        ZipError::InvalidArchive(_) => "the zip is damaged, or was not fully copied",
        _ => "the zip cannot be read",
    };
    Error::new(kind, at, format!("{what}: {}", shown(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_checksum_of_the_parts_is_that_of_the_whole() {
        let bytes: Vec<u8> =
            (0..(9 << 20) + 13_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for len in [0, 1, 4 << 20, (4 << 20) + 1, bytes.len()] {
            assert_eq!(checksum(&bytes[..len]), crc32fast::hash(&bytes[..len]), "{len}");
        }
    }
}
