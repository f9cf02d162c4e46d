//! The one file that names the `hdf5` crate, with the checks that the crate leaves to its caller.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use hdf5::{AttrValue, ChunkIndex, Dataset, Datatype, DatatypeByteOrder, FormatError, Group, Layout, Source};

use crate::{Bytes, Dtype, Error, ErrorKind, Limits, Result, shown};

/// The arrays and attributes of an HDF5 file, by path (`layers/dense/vars/0`, no leading slash).
///
/// Only hard links are followed. What an external link names counts as missing; so does what a soft link names, or the
/// file is refused, by the version of the group it is in. No other file is ever opened.
pub struct Hdf5File {
    at: String,
    bytes: Bytes,
    allowance: Allowance,
    groups: BTreeMap<String, Group>,
    /// The attributes of the root group, once they were asked for.
    root_attributes: OnceLock<BTreeMap<String, Attributes>>,
    /// The attributes of all other groups, once those of one were asked for: only legacy files use them.
    attributes: OnceLock<BTreeMap<String, Attributes>>,
    arrays: BTreeMap<String, Stored>,
    /// Bytes of all paths together.
    named: u64,
    limits: Limits,
}

/// The attributes of a group, by name: `None` where one cannot be decoded; or why there are none.
type Attributes = std::result::Result<BTreeMap<String, Option<AttrValue>>, String>;

/// What the file says of one array; whether it can be read is asked when it is read.
struct Stored {
    dataset: Dataset,
    shape: Vec<usize>,
    dtype: std::result::Result<(Dtype, Order), String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let allowance = Allowance::new(&bytes);
        let source = Whole { bytes: bytes.clone(), allowance: allowance.clone() };
        let mut opened = Self {
            at: at.to_owned(),
            bytes,
            allowance,
            groups: BTreeMap::new(),
            root_attributes: OnceLock::new(),
            attributes: OnceLock::new(),
            arrays: BTreeMap::new(),
            named: 0,
            limits: limits.clone(),
        };
        with_room(|| {
            let file = hdf5::File::from_source(source).map_err(|error| opened.damaged("", error))?;
            opened.list("", file.root(), 0)
        })
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Damaged, at, GAVE_UP)))?;
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
            self.note_name(&at)?;
            let stored = self.describe(&at, dataset)?;
            self.arrays.insert(at, stored);
        }
        let children = group.iter_groups().map_err(|error| self.damaged(path, error))?;
        self.note_name(path)?;
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

    /// Counts the bytes of a path. A name stands in the file once, so paths that add up to far more than the file is long
    /// come from links that lead to the same objects over and over.
    fn note_name(&mut self, path: &str) -> Result<()> {
        let bytes = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        self.named = self.named.saturating_add(bytes(path.len()));
        let most = bytes(self.bytes.as_slice().len()).saturating_mul(4).saturating_add(1 << 16);
        if self.named > most {
            return Err(self.wrong(ErrorKind::Limit, path, TOO_MUCH));
        }
        Ok(())
    }

    /// Shape and dtype of the dataset at `path`.
    fn describe(&self, path: &str, dataset: Dataset) -> Result<Stored> {
        let shape = dataset.shape().map_err(|error| self.damaged(path, error))?;
        let shape = shape.into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>();
        let shape = shape.map_err(|_| self.wrong(ErrorKind::Limit, path, "an axis too large to address"))?;
        let dtype = match dataset.datatype() {
            Ok(datatype) => dtype_of(&datatype, &dataset),
            Err(error) => Err(format!("a type that cannot be read: {}", shown(&error.to_string()))),
        };
        Ok(Stored { dataset, shape, dtype })
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
        if self.allowance.is_spent() {
            return self.wrong(ErrorKind::Limit, path, TOO_MUCH).caused_by(error);
        }
        if matches!(error, hdf5::Error::Format(FormatError::NestingDepthExceeded)) {
            // The crate follows a header through 32 pieces. One has that many where attributes were added one by one.
            let what = "HDF5 structures in more pieces, or nested deeper, than are read";
            return self.wrong(ErrorKind::Limit, path, what).caused_by(error);
        }
        let what = match &error {
            // A soft link in a group of the first version looks like an object at the address that stands for none.
            hdf5::Error::Format(FormatError::UnexpectedEof { expected: usize::MAX, .. }) => {
                "damaged HDF5, or a soft link, which is not followed: something here has no address".to_owned()
            }
            hdf5::Error::Format(FormatError::UnexpectedEof { expected, available }) => {
                format!("damaged HDF5, or not fully copied: expected {expected} bytes or more, found {available}")
            }
            other => format!("damaged HDF5: {}", shown(&other.to_string())),
        };
        self.wrong(ErrorKind::Damaged, path, what).caused_by(error)
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
        Some(Array { file: self, path, within: path, stored, known: None })
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
            return texts(value).map(Some);
        }
        let mut all: Option<Vec<String>> = None;
        for chunk in 0.. {
            let Some(value) = self.attribute(path, &format!("{name}{chunk}"))? else { break };
            all.get_or_insert_default().extend(texts(value)?);
        }
        Ok(all)
    }

    fn attribute(&self, path: &str, name: &str) -> Result<Option<&AttrValue>> {
        if !self.has_group(path) {
            return Ok(None);
        }
        let (attributes, of_root) =
            if path.is_empty() { (&self.root_attributes, true) } else { (&self.attributes, false) };
        let attributes = attributes.get_or_init(|| {
            let groups = self.groups.iter().filter(|(path, _)| path.is_empty() == of_root);
            let read = groups.map(|(path, group)| {
                self.allowance.renew();
                (path.clone(), attributes_of(group))
            });
            with_room(|| read.collect()).unwrap_or_default()
        });
        let attributes = attributes.get(path).ok_or_else(|| self.wrong(ErrorKind::Damaged, path, GAVE_UP))?;
        let attributes = attributes.as_ref().map_err(|what| self.wrong(ErrorKind::Damaged, path, what))?;
        match attributes.get(name) {
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(self.wrong(ErrorKind::Damaged, path, format!("attribute {name} cannot be read"))),
            None => Ok(None),
        }
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
    /// The path it is listed under.
    path: &'a str,
    /// Its path in the file.
    within: &'a str,
    stored: &'a Stored,
    known: Option<Dtype>,
}

impl<'a> Array<'a> {
    /// The same array, known by another path than its file's.
    pub(crate) fn listed_as(self, path: &'a str) -> Self {
        Self { path, ..self }
    }

    /// The path it is listed under.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The size of each axis; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        &self.stored.shape
    }

    /// The same array, its numbers known to be of `dtype` where the file does not say it: Keras's legacy files have a
    /// bfloat16 as two opaque bytes, and only the layer's dtype says what they are. `None` where the file says another.
    #[must_use]
    pub fn known_as(self, dtype: Dtype) -> Option<Self> {
        match &self.stored.dtype {
            Ok((stored, _)) => (*stored == dtype).then_some(self),
            Err(what) => (what == UNTAGGED && dtype == Dtype::Bfloat16).then_some(Self { known: Some(dtype), ..self }),
        }
    }

    /// The dtype of the numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a type that Keras does not write (compound, text, …), or that the file does not tell.
    pub fn dtype(&self) -> Result<Dtype> {
        self.numbers().map(|(dtype, _)| dtype)
    }

    /// The dtype of the numbers and the order of their bytes.
    fn numbers(&self) -> Result<(Dtype, Order)> {
        match (&self.stored.dtype, self.known) {
            (Ok(numbers), _) => Ok(*numbers),
            (Err(_), Some(known)) => Ok((known, Order::Little)),
            (Err(what), None) => Err(self.wrong(ErrorKind::Unsupported, what)),
        }
    }

    /// The numbers, row-major and little-endian: borrowed from the file where they lie there plain.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the bytes are not all there, [`ErrorKind::Unsupported`] for storage that Keras does
    /// not use, [`ErrorKind::Limit`] where compressed data would unpack to too much.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        let (dtype, order) = self.numbers()?;
        let expected = byte_count(&self.stored.shape, dtype)
            .ok_or_else(|| self.wrong(ErrorKind::Limit, "too large to address"))?;
        let mut bytes = self.stored_bytes(expected)?;
        if u64::try_from(bytes.len()) != Ok(expected) {
            return Err(self.wrong(ErrorKind::Damaged, &format!("expected {expected} bytes, found {}", bytes.len())));
        }
        if order == Order::Big {
            bytes.to_mut().chunks_exact_mut(dtype.size().max(1)).for_each(<[u8]>::reverse);
        }
        if dtype == Dtype::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err(self.wrong(ErrorKind::Damaged, "a bool that is neither 0 nor 1"));
        }
        Ok(bytes)
    }

    /// The numbers where they lie in the file, row-major and little-endian, held open; none where they lie there in another form,
    /// or are not all there.
    #[must_use]
    pub fn in_file(&self) -> Option<Bytes> {
        match self.bytes() {
            Ok(Cow::Borrowed(bytes)) => self.file.bytes.of(bytes),
            _ => None,
        }
    }

    fn stored_bytes(&self, expected: u64) -> Result<Cow<'a, [u8]>> {
        if expected == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let dataset = &self.stored.dataset;
        self.file.allowance.renew();
        let read = || dataset.read_raw().map(Cow::Owned).map_err(|error| self.file.damaged(self.within, error));
        match dataset.layout().map_err(|error| self.file.damaged(self.within, error))? {
            // Reading no rows fails where there are none to read in this file.
            Layout::Contiguous { .. }
                if matches!(
                    dataset.read_raw_rows(0, 0),
                    Err(hdf5::Error::Format(FormatError::UnsupportedExternalStorage))
                ) =>
            {
                let what = "external storage: its numbers lie in another file, which is never opened";
                Err(self.wrong(ErrorKind::Unsupported, what))
            }
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
                self.check_chunks(dataset, &chunk_shape, expected)?;
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
                &format!("HDF5 filter {} (deflate, shuffle, fletcher32 and lzf are read)", filter_name(*other)),
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
        // The crate lists the chunks of some indexes by counting them out from the shape, so the count must be believable
        // before it is asked: an unfiltered chunk lies whole in the file, any other is an entry of 8 bytes or more.
        let file_bytes = u64::try_from(self.file.bytes.as_slice().len()).unwrap_or(u64::MAX);
        let least = if filters.is_empty() { chunk_bytes } else { 8 };
        let Some(needed) = needed.filter(|needed| needed.checked_mul(least).is_some_and(|least| least <= file_bytes))
        else {
            let what = format!("its shape {:?} is more than the file can hold", self.stored.shape);
            return Err(self.wrong(ErrorKind::Damaged, &what));
        };
        let chunks = dataset.chunks().map_err(|error| self.file.damaged(self.within, error))?;
        let in_grid = |offset: &[u64]| {
            offset.len() == chunk_shape.len()
                && offset.iter().zip(chunk_shape).zip(&self.stored.shape).all(|((at, edge), axis)| {
                    at.is_multiple_of(*edge) && usize::try_from(*at).is_ok_and(|at| at < *axis)
                })
        };
        let places: BTreeSet<&[u64]> = chunks.iter().map(|chunk| chunk.offset.as_slice()).collect();
        let found = u64::try_from(places.iter().filter(|offset| in_grid(offset)).count()).unwrap_or(u64::MAX);
        if chunk_shape.len() != self.stored.shape.len() || found != needed || chunks.len() != places.len() {
            let what = format!("expected {needed} chunks, found {found}: numbers are missing");
            return Err(self.wrong(ErrorKind::Damaged, &what));
        }
        if filters.is_empty() && chunks.iter().any(|chunk| chunk.storage_size != chunk_bytes) {
            return Err(self.wrong(ErrorKind::Damaged, &format!("a chunk that is not {chunk_bytes} bytes long")));
        }
        let stored = chunks.iter().fold(0_u64, |sum, chunk| sum.saturating_add(chunk.storage_size));
        let unpacked = chunk_bytes.saturating_mul(needed).max(expected);
        if stored > file_bytes || !self.file.limits.allow_unpacking(unpacked, stored) {
            return Err(self.wrong(
                ErrorKind::Limit,
                &format!("unpacks from {stored} to {unpacked} bytes, more than the limits allow"),
            ));
        }
        Ok(())
    }

    fn wrong(&self, kind: ErrorKind, what: &str) -> Error {
        self.file.wrong(kind, self.within, what)
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} {:?} {:?})", self.path, self.stored.dtype, self.stored.shape)
    }
}

fn attributes_of(group: &Group) -> Attributes {
    let read = || -> std::result::Result<_, hdf5::Error> {
        // The crate leaves out of `attrs` what it cannot decode; that must not look like an absent attribute.
        let names = group.attr_datatypes()?.into_keys();
        let mut values = group.attrs()?;
        Ok(names.map(|name| (name.clone(), values.remove(&name))).collect())
    };
    read().map_err(|error| format!("damaged HDF5: {}", shown(&error.to_string())))
}

/// Keras's dtype for an HDF5 type; only whole-width, IEEE-754 and two's complement types count.
fn dtype_of(datatype: &Datatype, dataset: &Dataset) -> std::result::Result<(Dtype, Order), String> {
    let order = |stored: &DatatypeByteOrder| match stored {
        DatatypeByteOrder::LittleEndian => Ok(Order::Little),
        DatatypeByteOrder::BigEndian => Ok(Order::Big),
        DatatypeByteOrder::Vax => Err("numbers in VAX byte order".to_owned()),
    };
    let other = || format!("a type that Keras does not write ({})", kind_of(datatype));
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
        Datatype::Opaque { size: 2, .. } => match dataset.attrs().ok().map(|mut attrs| attrs.remove("dtype")) {
            Some(Some(named)) if named.as_str() == Some("bfloat16") => Ok((Dtype::Bfloat16, Order::Little)),
            Some(None) => Err(UNTAGGED.to_owned()),
            _ => Err(other()),
        },
        _ => Err(other()),
    }
}

/// An HDF5 type in words.
fn kind_of(datatype: &Datatype) -> String {
    match datatype {
        Datatype::FixedPoint { size, .. } => format!("an integer of {size} bytes"),
        Datatype::FloatingPoint { size, .. } => format!("a float of {size} bytes that is not IEEE 754's"),
        Datatype::Time { .. } => "a time".to_owned(),
        Datatype::String { .. } | Datatype::VariableLength { is_string: true, .. } => "text".to_owned(),
        Datatype::BitField { .. } => "bits".to_owned(),
        Datatype::Opaque { size, .. } => format!("{size} opaque bytes"),
        Datatype::Compound { members, .. } => format!("a compound of {} members", members.len()),
        Datatype::Reference { .. } => "a reference".to_owned(),
        Datatype::Enumeration { .. } => "an enumeration".to_owned(),
        Datatype::VariableLength { .. } => "lists of any length".to_owned(),
        Datatype::Array { .. } => "arrays".to_owned(),
        _ => "a kind that is not known".to_owned(),
    }
}

/// A filter that is not read, by the name that a user would know it by.
fn filter_name(filter: u16) -> String {
    match filter {
        4 => "szip".to_owned(),
        5 => "n-bit".to_owned(),
        6 => "scale-offset".to_owned(),
        307 => "bzip2".to_owned(),
        32001 => "blosc".to_owned(),
        32004 => "lz4".to_owned(),
        32008 => "bitshuffle".to_owned(),
        32013 => "zfp".to_owned(),
        32015 => "zstd".to_owned(),
        32026 => "blosc2".to_owned(),
        other => other.to_string(),
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

/// Which of its forms the HDF5 file `bytes` has, in words. Its signature stands at 0, or after a block of the user's at 512,
/// 1024 and so on; the version of the superblock follows.
pub(crate) fn form(bytes: &[u8]) -> String {
    const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
    let places = std::iter::once(0).chain((9..usize::BITS).map(|power| 1_usize << power));
    let tails = places.map_while(|place| bytes.get(place..));
    let mut versions = tails.filter_map(|tail| tail.strip_prefix(SIGNATURE)?.first());
    versions.next().map_or_else(|| "HDF5".to_owned(), |version| format!("HDF5 (superblock {version})"))
}

/// The first eight bytes, for an error.
pub(crate) fn first_bytes(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if shown.is_empty() { "none, the file is empty".to_owned() } else { shown.join(" ") }
}

/// What two bytes are refused with that may be a bfloat16.
const UNTAGGED: &str = "two opaque bytes, which do not say what they are";

/// What a file is refused with when it makes its reader go round.
const TOO_MUCH: &str = "links or indexes that lead to the same place over and over: more to read than the file holds";

/// What a file is refused with when its reader panicked.
const GAVE_UP: &str = "damaged HDF5: its reader gave up";

/// How many bytes the `hdf5` crate may still read in the operation at hand.
///
/// Links and the nodes of its indexes may point anywhere, so a small file can be a circle, or a tree in which every branch
/// is the same branch. The crate bounds how deep it goes, not how often, so the bytes that it reads are counted: all its
/// time and memory come from them.
#[derive(Clone)]
struct Allowance {
    left: Arc<AtomicU64>,
    whole: u64,
}

impl Allowance {
    /// Listing tens of thousands of arrays of a few numbers each, the most that a real file asks, takes 6 times its length.
    fn new(bytes: &Bytes) -> Self {
        let len = u64::try_from(bytes.as_slice().len()).unwrap_or(u64::MAX);
        let whole = len.saturating_mul(16).saturating_add(4 << 20);
        Self { left: Arc::new(AtomicU64::new(whole)), whole }
    }

    fn renew(&self) {
        self.left.store(self.whole, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Takes what a read of `bytes` costs; a small one costs more than its bytes.
    fn take(&self, bytes: usize) -> bool {
        const LEAST: u64 = 64;
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST);
        let rest = |left: u64| Some(left.saturating_sub(cost));
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok_and(|left| left > cost)
    }
}

/// Runs `task` with room for deep recursion; `None` where it panicked.
///
/// The `hdf5` crate reads types within types by recursion, without a bound of its own; what bounds it is that an object
/// header's message is at most 64 KiB, some 8,000 types deep. That takes 8 MiB of stack,
/// and 128 MiB in a build without optimisation; a thread has 2 MiB. What is not used is never touched.
fn with_room<T: Send>(task: impl FnOnce() -> T + Send) -> Option<T> {
    const ROOM: usize = 256 << 20;
    let mut task = Some(task);
    let mut done = None;
    let mut run = || done = task.take().map(|task| task());
    let finished = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(ROOM).spawn_scoped(scope, &mut run);
        thread.map(|thread| thread.join().is_ok())
    });
    if finished.is_err() {
        // No threads here (WebAssembly).
        run();
    }
    done
}

/// The bytes of the file as the `hdf5` crate wants to read them.
struct Whole {
    bytes: Bytes,
    allowance: Allowance,
}

impl Source for Whole {
    fn len(&self) -> u64 {
        u64::try_from(self.bytes.as_slice().len()).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), FormatError> {
        let all = self.bytes.as_slice();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let part = all.get(start..end).ok_or(FormatError::UnexpectedEof { expected: end, available: all.len() })?;
        if !self.allowance.take(buffer.len()) {
            return Err(FormatError::NestingDepthExceeded);
        }
        buffer.copy_from_slice(part);
        Ok(())
    }
}
