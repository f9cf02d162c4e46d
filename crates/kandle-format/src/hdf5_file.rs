//! The one file that names the `hdf5` crate, with the checks that the crate leaves to its caller.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use hdf5::{AttrValue, ChunkIndex, Dataset, Datatype, DatatypeByteOrder, FormatError, Group, Layout, Source};

use crate::{Bytes, Dtype, Error, ErrorKind, Limits, Result, shown};

/// The arrays and attributes of an HDF5 file, by path (`layers/dense/vars/0`, no leading slash).
///
/// Only links to objects of the same file are followed: what a soft or external link names counts as missing.
pub struct Hdf5File {
    at: String,
    bytes: Bytes,
    file: hdf5::File,
    groups: BTreeMap<String, Group>,
    arrays: BTreeMap<String, Stored>,
    limits: Limits,
}

/// What the file says of one array; whether it can be read is asked when it is read.
struct Stored {
    shape: Vec<usize>,
    dtype: std::result::Result<(Dtype, Order), String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Little,
    Big,
}

impl Hdf5File {
    /// Opens `bytes` as HDF5 and lists every group and array in it. `at` is the name of the member they are, if they
    /// are one, for errors.
    pub(crate) fn open(bytes: Bytes, at: &str, limits: &Limits) -> Result<Self> {
        if !is_hdf5(bytes.as_slice()) {
            let what = format!("not an HDF5 file: first bytes are {}", first_bytes(bytes.as_slice()));
            return Err(Error::new(ErrorKind::Damaged, at, what));
        }
        let file = hdf5::File::from_source(Whole(bytes.clone())).map_err(|error| {
            Error::new(ErrorKind::Damaged, at, format!("damaged HDF5: {}", shown(&error.to_string()))).caused_by(error)
        })?;
        let root = file.root();
        let at = at.to_owned();
        let mut opened =
            Self { at, bytes, file, groups: BTreeMap::new(), arrays: BTreeMap::new(), limits: limits.clone() };
        opened.list("", root, 0)?;
        Ok(opened)
    }

    /// Adds `group` and everything below it.
    fn list(&mut self, path: &str, group: Group, depth: usize) -> Result<()> {
        if depth > self.limits.group_depth {
            let what = format!("groups nest more than {} deep, or in a circle", self.limits.group_depth);
            return Err(self.wrong(ErrorKind::Limit, path, what));
        }
        for (name, dataset) in group.iter_datasets().map_err(|error| self.damaged(path, error))? {
            let at = join(path, &name);
            let stored = self.describe(&at, &dataset)?;
            self.arrays.insert(at, stored);
        }
        let children = group.iter_groups().map_err(|error| self.damaged(path, error))?;
        self.groups.insert(path.to_owned(), group);
        if self.groups.len().saturating_add(self.arrays.len()) > self.limits.objects {
            let what = format!("more than {} groups and arrays", self.limits.objects);
            return Err(self.wrong(ErrorKind::Limit, path, what));
        }
        for (name, child) in children {
            self.list(&join(path, &name), child, depth + 1)?;
        }
        Ok(())
    }

    /// Shape and dtype of the dataset at `path`.
    fn describe(&self, path: &str, dataset: &Dataset) -> Result<Stored> {
        let shape = dataset.shape().map_err(|error| self.damaged(path, error))?;
        let shape = shape.into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>();
        let shape = shape.map_err(|_| self.wrong(ErrorKind::Limit, path, "an axis too large to address"))?;
        let dtype = match dataset.datatype() {
            Ok(datatype) => dtype_of(&datatype, dataset),
            Err(error) => Err(format!("a type that cannot be read: {}", shown(&error.to_string()))),
        };
        Ok(Stored { shape, dtype })
    }

    /// Where `path` lies, for errors: with the name of the member, if this is one.
    #[must_use]
    pub fn place(&self, path: &str) -> String {
        let path = shown(path);
        if self.at.is_empty() || path.is_empty() {
            format!("{}{path}", self.at)
        } else {
            format!("{} › {path}", self.at)
        }
    }

    fn wrong(&self, kind: ErrorKind, path: &str, what: impl Into<String>) -> Error {
        Error::new(kind, self.place(path), what)
    }

    fn damaged(&self, path: &str, error: hdf5::Error) -> Error {
        self.wrong(ErrorKind::Damaged, path, format!("damaged HDF5: {}", shown(&error.to_string()))).caused_by(error)
    }

    /// Whether the file has a group at `path` (`""` is the root).
    #[must_use]
    pub fn has_group(&self, path: &str) -> bool {
        self.groups.contains_key(path)
    }

    /// The paths of all arrays, sorted as text.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// The array at `path`.
    #[must_use]
    pub fn array(&self, path: &str) -> Option<Array<'_>> {
        let (path, stored) = self.arrays.get_key_value(path)?;
        Some(Array { file: self, path, stored })
    }

    /// The text attribute `name` of the group at `path`: a string, or bytes that are UTF-8.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the attribute is there but cannot be read or holds no text.
    pub fn text_attribute(&self, path: &str, name: &str) -> Result<Option<String>> {
        let Some(value) = self.attribute(path, name)? else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong(ErrorKind::Damaged, path, format!("attribute {name} holds no text"))),
        }
    }

    /// The list of texts in the attribute `name` of the group at `path`.
    ///
    /// Keras splits a long list into `name0`, `name1`, … and writes an empty one as zero floats; both are read.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the attribute is there but cannot be read or holds no texts.
    pub fn text_list_attribute(&self, path: &str, name: &str) -> Result<Option<Vec<String>>> {
        let texts = |value: &AttrValue| -> Result<Vec<String>> {
            match value {
                AttrValue::F64Array(none) if none.is_empty() => Ok(Vec::new()),
                value => {
                    value.as_strings().map(|texts| texts.iter().map(ToString::to_string).collect()).ok_or_else(|| {
                        self.wrong(ErrorKind::Damaged, path, format!("attribute {name} holds no list of texts"))
                    })
                }
            }
        };
        if let Some(value) = self.attribute(path, name)? {
            return texts(&value).map(Some);
        }
        let mut all: Option<Vec<String>> = None;
        for chunk in 0.. {
            let Some(value) = self.attribute(path, &format!("{name}{chunk}"))? else { break };
            all.get_or_insert_default().extend(texts(&value)?);
        }
        Ok(all)
    }

    fn attribute(&self, path: &str, name: &str) -> Result<Option<AttrValue>> {
        let Some(group) = self.groups.get(path) else { return Ok(None) };
        if let Some(value) = group.attrs().map_err(|error| self.damaged(path, error))?.remove(name) {
            return Ok(Some(value));
        }
        // The crate leaves out of `attrs` what it cannot decode; that must not look like an absent attribute.
        if group.attr_datatypes().map_err(|error| self.damaged(path, error))?.contains_key(name) {
            return Err(self.wrong(ErrorKind::Damaged, path, format!("attribute {name} cannot be read")));
        }
        Ok(None)
    }
}

impl fmt::Debug for Hdf5File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hdf5File({} groups, {} arrays)", self.groups.len(), self.arrays.len())
    }
}

/// One array of a file. Its numbers stay in the file until [`bytes`](Self::bytes) is called.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    file: &'a Hdf5File,
    path: &'a str,
    stored: &'a Stored,
}

impl<'a> Array<'a> {
    /// Where the array lies in its file.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The size of each axis; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        &self.stored.shape
    }

    /// The dtype of the numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a type that Keras does not write (compound, text, …).
    pub fn dtype(&self) -> Result<Dtype> {
        match &self.stored.dtype {
            Ok((dtype, _)) => Ok(*dtype),
            Err(what) => Err(self.wrong(ErrorKind::Unsupported, what)),
        }
    }

    /// The numbers, row-major and little-endian: borrowed from the file where they lie there plain.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the bytes are not all there, [`ErrorKind::Unsupported`] for storage that Keras does
    /// not use, [`ErrorKind::Limit`] where compressed data would unpack to too much.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        let (dtype, order) = self.stored.dtype.as_ref().map_err(|what| self.wrong(ErrorKind::Unsupported, what))?;
        let expected = byte_count(&self.stored.shape, *dtype)
            .ok_or_else(|| self.wrong(ErrorKind::Limit, "too large to address"))?;
        let mut bytes = self.stored_bytes(expected)?;
        if u64::try_from(bytes.len()) != Ok(expected) {
            return Err(self.wrong(ErrorKind::Damaged, &format!("expected {expected} bytes, found {}", bytes.len())));
        }
        if *order == Order::Big {
            bytes.to_mut().chunks_exact_mut(dtype.size().max(1)).for_each(<[u8]>::reverse);
        }
        if *dtype == Dtype::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err(self.wrong(ErrorKind::Damaged, "a bool that is neither 0 nor 1"));
        }
        Ok(bytes)
    }

    fn stored_bytes(&self, expected: u64) -> Result<Cow<'a, [u8]>> {
        if expected == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let dataset = self.file.file.dataset(self.path).map_err(|error| self.file.damaged(self.path, error))?;
        let read = || dataset.read_raw().map(Cow::Owned).map_err(|error| self.file.damaged(self.path, error));
        match dataset.layout().map_err(|error| self.file.damaged(self.path, error))? {
            Layout::Contiguous { address: Some(address), size } if size == expected => {
                let all = self.file.bytes.as_slice();
                let start = usize::try_from(address).ok();
                let end = usize::try_from(size).ok().zip(start).and_then(|(size, start)| start.checked_add(size));
                let part = start.zip(end).and_then(|(start, end)| all.get(start..end));
                part.map(Cow::Borrowed).ok_or_else(|| self.wrong(ErrorKind::Damaged, "runs past the end of the file"))
            }
            Layout::Contiguous { address: Some(_), size } => {
                Err(self.wrong(ErrorKind::Damaged, &format!("expected {expected} bytes, found {size}")))
            }
            Layout::Contiguous { address: None, .. } => {
                Err(self.wrong(ErrorKind::Damaged, "declared but never written: the numbers are not in this file"))
            }
            Layout::Compact { size } if size == expected => read(),
            Layout::Chunked { index: ChunkIndex::BTreeV2, .. } => Err(self.wrong(
                ErrorKind::Unsupported,
                "chunks indexed by a version 2 B-tree; save the file again with Keras or h5py's defaults",
            )),
            Layout::Chunked { chunk_shape, .. } => {
                self.check_chunks(&dataset, &chunk_shape, expected)?;
                read()
            }
            Layout::Virtual => {
                Err(self.wrong(ErrorKind::Unsupported, "a virtual dataset: its numbers lie in other files"))
            }
            _ => Err(self.wrong(ErrorKind::Damaged, "stored in a way that does not match its shape")),
        }
    }

    /// What the `hdf5` crate would pass over in chunked data: filters it does not undo, chunks of a wrong size, chunks
    /// that are missing, and an array that unpacks to far more than is stored.
    fn check_chunks(&self, dataset: &Dataset, chunk_shape: &[u64], expected: u64) -> Result<()> {
        const DEFLATE: u16 = 1;
        const SHUFFLE: u16 = 2;
        const FLETCHER32: u16 = 3;
        const LZF: u16 = 32000;
        let filters = dataset.filters();
        if let Some(other) = filters.iter().find(|filter| ![DEFLATE, SHUFFLE, FLETCHER32, LZF].contains(filter)) {
            return Err(self.wrong(
                ErrorKind::Unsupported,
                &format!("HDF5 filter {other} (deflate, shuffle, fletcher32 and lzf are read)"),
            ));
        }
        let dtype = self.dtype()?;
        let chunk_bytes = chunk_shape
            .iter()
            .try_fold(u64::try_from(dtype.size()).ok().unwrap_or(0), |product, edge| product.checked_mul(*edge));
        let Some(chunk_bytes) = chunk_bytes.filter(|bytes| *bytes > 0) else {
            return Err(self.wrong(ErrorKind::Damaged, "a chunk without extent"));
        };
        let needed =
            self.stored.shape.iter().zip(chunk_shape).try_fold(1_u64, |product, (axis, edge)| {
                product.checked_mul(u64::try_from(*axis).ok()?.div_ceil(*edge))
            });
        let chunks = dataset.chunks().map_err(|error| self.file.damaged(self.path, error))?;
        let found = u64::try_from(chunks.len()).ok();
        if chunk_shape.len() != self.stored.shape.len() || needed != found {
            let what = format!("expected {} chunks, found {}", needed.unwrap_or(u64::MAX), chunks.len());
            return Err(self.wrong(ErrorKind::Damaged, &what));
        }
        if filters.is_empty() && chunks.iter().any(|chunk| chunk.storage_size != chunk_bytes) {
            return Err(self.wrong(ErrorKind::Damaged, &format!("a chunk that is not {chunk_bytes} bytes long")));
        }
        let stored = chunks.iter().fold(0_u64, |sum, chunk| sum.saturating_add(chunk.storage_size));
        let unpacked = chunk_bytes.saturating_mul(needed.unwrap_or(u64::MAX)).max(expected);
        if stored > u64::try_from(self.file.bytes.as_slice().len()).unwrap_or(u64::MAX)
            || !self.file.limits.allow_unpacking(unpacked, stored)
        {
            return Err(self.wrong(
                ErrorKind::Limit,
                &format!("unpacks from {stored} to {unpacked} bytes, more than the limits allow"),
            ));
        }
        Ok(())
    }

    fn wrong(&self, kind: ErrorKind, what: &str) -> Error {
        self.file.wrong(kind, self.path, what)
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} {:?} {:?})", self.path, self.stored.dtype, self.stored.shape)
    }
}

/// Keras's dtype for an HDF5 type; only whole-width, IEEE-754 and two's complement types count.
fn dtype_of(datatype: &Datatype, dataset: &Dataset) -> std::result::Result<(Dtype, Order), String> {
    let order = |stored: &DatatypeByteOrder| match stored {
        DatatypeByteOrder::LittleEndian => Ok(Order::Little),
        DatatypeByteOrder::BigEndian => Ok(Order::Big),
        DatatypeByteOrder::Vax => Err("numbers in VAX byte order".to_owned()),
    };
    let other = || format!("a type that Keras does not write: {}", shown(&format!("{datatype:?}")));
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout } => {
            if layout.bit_offset != 0 || u32::from(layout.bit_precision) != size.saturating_mul(8) {
                return Err(other());
            }
            let dtype = match (size, layout.signed) {
                (1, true) => Dtype::Int8,
                (2, true) => Dtype::Int16,
                (4, true) => Dtype::Int32,
                (8, true) => Dtype::Int64,
                (1, false) => Dtype::Uint8,
                (2, false) => Dtype::Uint16,
                (4, false) => Dtype::Uint32,
                (8, false) => Dtype::Uint64,
                _ => return Err(other()),
            };
            Ok((dtype, order(byte_order)?))
        }
        Datatype::FloatingPoint { size, byte_order, layout } => {
            let parts =
                (*size, layout.exponent_location, layout.exponent_size, layout.mantissa_size, layout.exponent_bias);
            let dtype = match parts {
                (2, 10, 5, 10, 15) => Dtype::Float16,
                (2, 7, 8, 7, 127) => Dtype::Bfloat16,
                (4, 23, 8, 23, 127) => Dtype::Float32,
                (8, 52, 11, 52, 1023) => Dtype::Float64,
                _ => return Err(other()),
            };
            let whole = layout.bit_offset == 0
                && layout.mantissa_location == 0
                && u32::from(layout.bit_precision) == size.saturating_mul(8);
            if whole { Ok((dtype, order(byte_order)?)) } else { Err(other()) }
        }
        // h5py's bool.
        Datatype::Enumeration { size: 1, members, .. } => {
            let is =
                |name: &str, value: u8| members.iter().any(|member| member.name == name && member.value == [value]);
            if members.len() == 2 && is("FALSE", 0) && is("TRUE", 1) {
                Ok((Dtype::Bool, Order::Little))
            } else {
                Err(other())
            }
        }
        // Keras 3 writes bfloat16 as two opaque bytes and says so in an attribute.
        Datatype::Opaque { size: 2, .. } => match dataset.attrs().ok().and_then(|mut attrs| attrs.remove("dtype")) {
            Some(named) if named.as_str() == Some("bfloat16") => Ok((Dtype::Bfloat16, Order::Little)),
            _ => Err(other()),
        },
        _ => Err(other()),
    }
}

/// Bytes of an array; `None` where they cannot be counted.
fn byte_count(shape: &[usize], dtype: Dtype) -> Option<u64> {
    let count = shape.iter().try_fold(dtype.size(), |product, axis| product.checked_mul(*axis))?;
    u64::try_from(count).ok()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// Whether the bytes are HDF5: its signature at the start, or after a user block.
pub(crate) fn is_hdf5(bytes: &[u8]) -> bool {
    hdf5::is_hdf5_bytes(bytes)
}

/// The first eight bytes, for an error.
pub(crate) fn first_bytes(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if shown.is_empty() { "none, the file is empty".to_owned() } else { shown.join(" ") }
}

/// The bytes of the file as the `hdf5` crate wants to read them.
struct Whole(Bytes);

impl Source for Whole {
    fn len(&self) -> u64 {
        u64::try_from(self.0.as_slice().len()).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), FormatError> {
        let all = self.0.as_slice();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let part = all.get(start..end).ok_or(FormatError::UnexpectedEof { expected: end, available: all.len() })?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}
