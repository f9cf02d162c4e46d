//! Weights as a safetensors file holds them: candle-nn's names and layout, which are PyTorch's too, in Keras's dtypes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    path::Path,
};

use candle_core::{Device, Tensor, Var};
use candle_nn::VarMap;
use kandle_format::{Archive, Bytes, Dtype, Error, ErrorKind, Problem, Result, nearest, shown};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Map, json};

use crate::{
    LayerWeights, Layout, LoadReport, LoadedWeight, Plan, Weight, WeightMap,
    load::{Found, find, lock},
    locate::place,
    numeric::storage,
};

/// Keras's dtypes, and what safetensors calls them.
const DTYPES: [(Dtype, safetensors::Dtype, &str); 13] = [
    (Dtype::Bool, safetensors::Dtype::BOOL, "BOOL"),
    (Dtype::Int8, safetensors::Dtype::I8, "I8"),
    (Dtype::Int16, safetensors::Dtype::I16, "I16"),
    (Dtype::Int32, safetensors::Dtype::I32, "I32"),
    (Dtype::Int64, safetensors::Dtype::I64, "I64"),
    (Dtype::Uint8, safetensors::Dtype::U8, "U8"),
    (Dtype::Uint16, safetensors::Dtype::U16, "U16"),
    (Dtype::Uint32, safetensors::Dtype::U32, "U32"),
    (Dtype::Uint64, safetensors::Dtype::U64, "U64"),
    (Dtype::Float16, safetensors::Dtype::F16, "F16"),
    (Dtype::Bfloat16, safetensors::Dtype::BF16, "BF16"),
    (Dtype::Float32, safetensors::Dtype::F32, "F32"),
    (Dtype::Float64, safetensors::Dtype::F64, "F64"),
];

/// What PyTorch counts in a BatchNorm that it trained. It has no part in what comes out.
const BATCHES: &str = ".num_batches_tracked";

/// One tensor of a safetensors file made from a Keras file.
#[non_exhaustive]
pub struct StoredTensor<'a> {
    /// Its name: `dense.weight`.
    pub name: String,
    /// Its shape: `[64, 128]`.
    pub shape: Vec<usize>,
    /// Its dtype, which is Keras's.
    pub dtype: Dtype,
    /// Where its numbers lie; `None` where all are 0.
    found: Option<Found<'a>>,
}

impl StoredTensor<'_> {
    /// Its numbers, row-major, little-endian, read from the Keras file now.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.found.as_ref().map_or_else(|| Ok(vec![0; self.size()]), Found::bytes)
    }

    /// How many bytes they are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shape.iter().fold(self.dtype.size(), |product, axis| product.saturating_mul(*axis))
    }
}

impl WeightMap {
    /// Every weight of `archive` under candle-nn's names and in candle's layout, in the order of the file; none is read
    /// yet. An LSTM has PyTorch's second bias too, of zeros.
    ///
    /// # Errors
    /// Everything that is missing, left over or of another shape or dtype, together.
    pub fn tensors<'a>(&'a self, archive: &'a Archive) -> Result<Vec<StoredTensor<'a>>> {
        let found = find(self, archive).map_err(|error| error.in_file(archive.name()))?;
        let all = self.layers().iter().flat_map(|layer| layer.weights.iter().map(move |weight| (layer, weight)));
        let mut tensors = Vec::new();
        for (found, (layer, weight)) in found.into_iter().zip(all) {
            let (shape, dtype) = (weight.candle_shape(), weight.dtype.unwrap_or(Dtype::Float32));
            let zeros = layer.zeros_beside(weight);
            tensors.push(StoredTensor { name: found.name.clone(), shape: shape.clone(), dtype, found: Some(found) });
            tensors.extend(zeros.map(|name| StoredTensor { name, shape, dtype, found: None }));
        }
        Ok(tensors)
    }

    /// Writes every weight of `archive` to `out` as a safetensors file with the texts `metadata`, one tensor after the
    /// other. What is written is the same every time.
    ///
    /// # Errors
    /// As [`tensors`](Self::tensors), and where `out` cannot be written.
    pub fn write_safetensors(&self, archive: &Archive, metadata: &[(&str, &str)], out: &mut impl Write) -> Result<()> {
        let mut tensors = self.tensors(archive)?;
        // As the safetensors crate orders them: the widest numbers first, so that all are aligned.
        tensors.sort_by(|a, b| (b.dtype.size(), &a.name).cmp(&(a.dtype.size(), &b.name)));
        let failed =
            |error: std::io::Error| Error::new(ErrorKind::Io, "", format!("cannot write: {error}")).caused_by(error);
        out.write_all(&header(&tensors, metadata)?).map_err(failed)?;
        for tensor in &tensors {
            let bytes = tensor.bytes().map_err(|error| error.in_file(archive.name()))?;
            if bytes.len() != tensor.size() {
                let what = format!("expected {} bytes, found {}", tensor.size(), bytes.len());
                return Err(Error::new(ErrorKind::Damaged, &tensor.name, what).in_file(archive.name()));
            }
            out.write_all(&bytes).map_err(failed)?;
        }
        Ok(())
    }
}

/// The length of the JSON that describes the tensors, and the JSON, filled up with spaces to a multiple of 8.
/// Source: https://github.com/huggingface/safetensors#format.
fn header(tensors: &[StoredTensor<'_>], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    let texts: BTreeMap<_, _> = metadata.iter().copied().collect();
    entries.insert("__metadata__".to_owned(), json!(texts));
    let mut end = 0_usize;
    for StoredTensor { name, shape, dtype, .. } in tensors {
        let Some((_, _, stored)) = DTYPES.iter().find(|known| known.0 == *dtype) else {
            return Err(Error::new(ErrorKind::Unsupported, name, format!("safetensors has no {dtype}")));
        };
        let start = end;
        end = shape.iter().fold(dtype.size(), |product, axis| product.saturating_mul(*axis)).saturating_add(start);
        let entry = json!({"dtype": stored, "shape": shape, "data_offsets": [start, end]});
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::new(ErrorKind::Invalid, name, "a second tensor of this name"));
        }
    }
    let mut text = serde_json::Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

impl Plan {
    /// Reads every weight from a safetensors file into a new `VarMap`: one that [`WeightMap::write_safetensors`] wrote, or
    /// that PyTorch or candle saved under the same names. All of them, or none and an error.
    ///
    /// PyTorch's second bias of an LSTM may be there, and must be zero: Keras has one. A count of batches that PyTorch
    /// keeps in a BatchNorm is ignored.
    ///
    /// # Errors
    /// Everything that is missing, left over or of another shape or dtype, together.
    pub fn load_safetensors(&self, path: impl AsRef<Path>, device: &Device) -> Result<(VarMap, LoadReport)> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let in_file = |error: Error| error.in_file(&file);
        let bytes = Bytes::open(path).map_err(|error| {
            in_file(Error::new(ErrorKind::Io, "", format!("cannot read: {error}")).caused_by(error))
        })?;
        let tensors = SafeTensors::deserialize(bytes.as_slice()).map_err(|error| {
            in_file(Error::new(ErrorKind::Damaged, "", format!("not safetensors: {error}")).caused_by(error))
        })?;
        read(self.weights(), &tensors, device)
            .map(|(vars, report)| (vars, LoadReport { file: file.clone(), ..report }))
            .map_err(in_file)
    }
}

fn read(map: &WeightMap, tensors: &SafeTensors<'_>, device: &Device) -> Result<(VarMap, LoadReport)> {
    let (mut problems, mut vars, mut loaded) = (Vec::new(), HashMap::new(), Vec::new());
    let mut left: BTreeSet<&str> = tensors.names().into_iter().collect();
    let mut report = LoadReport { file: String::new(), loaded: Vec::new(), ignored: Vec::new(), kept: Vec::new() };
    let all = || map.layers().iter().flat_map(|layer| layer.weights.iter().map(move |weight| (layer, weight)));
    let wanted: BTreeSet<String> = map.names().collect();
    for (layer, weight) in all() {
        let name = layer.name(weight);
        left.remove(name.as_str());
        let problem = |kind, what: String| Problem::new(kind, place(layer), format!("{}: {what}", shown(&name)));
        let Ok(view) = tensors.tensor(&name) else {
            let near = nearest(&name, tensors.names().into_iter().filter(|other| !wanted.contains(*other)));
            let near = near.map_or_else(String::new, |near| format!(", the nearest is {}", shown(near)));
            problems.push(problem(ErrorKind::Weights, format!("missing: expected {:?}{near}", weight.candle_shape())));
            continue;
        };
        match variable(weight, &view, device) {
            Ok(var) if vars.contains_key(&name) => {
                drop(var);
                problems.push(problem(ErrorKind::Invalid, "a second weight for this variable".to_owned()));
            }
            Ok(var) => {
                vars.insert(name.clone(), var);
                let (shape, stored) = (weight.candle_shape(), weight.dtype.unwrap_or(Dtype::Float32));
                loaded.push(LoadedWeight {
                    name: name.clone(),
                    shape,
                    from: name,
                    stored,
                    layout: Layout::AsIs,
                    reordered: false,
                });
            }
            Err(what) => problems.push(problem(ErrorKind::Weights, what)),
        }
        problems.extend(second_bias(layer, weight, tensors, &mut left));
    }
    for name in left {
        match name.strip_suffix(BATCHES) {
            Some(layer) if wanted.contains(&format!("{layer}.running_mean")) => {
                report.ignored.push((name.to_owned(), 1))
            }
            _ => problems.push(Problem::new(ErrorKind::Weights, shown(name), "no layer of the model has this weight")),
        }
    }
    Error::check(problems)?;
    let filled = VarMap::new();
    lock(&filled).extend(vars);
    Ok((filled, LoadReport { loaded, ..report }))
}

/// The variable for `weight`, or what is wrong with the tensor for it.
fn variable(weight: &Weight, view: &TensorView<'_>, device: &Device) -> std::result::Result<Var, String> {
    let (shape, dtype) = (weight.candle_shape(), weight.dtype.unwrap_or(Dtype::Float32));
    if view.shape() != shape {
        return Err(format!("expected {shape:?}, found {:?}", view.shape()));
    }
    let found = DTYPES.iter().find(|known| known.1 == view.dtype()).map(|known| known.0);
    if found != Some(dtype) {
        return Err(format!("expected {dtype}, found {:?}", view.dtype()));
    }
    tensor(view.data(), dtype, &shape, device)
        .and_then(|tensor| Var::from_tensor(&tensor))
        .map_err(|error| error.to_string())
}

/// Numbers of Keras's `dtype`, little-endian, as candle stores them.
fn tensor(bytes: &[u8], dtype: Dtype, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
    let wide = |bytes: &[u8; 2]| u32::from(u16::from_le_bytes(*bytes));
    match dtype {
        Dtype::Int8 => {
            Tensor::from_iter(bytes.iter().map(|byte| i16::from(byte.cast_signed())), device)?.reshape(shape)
        }
        Dtype::Uint16 => Tensor::from_iter(bytes.as_chunks().0.iter().map(wide), device)?.reshape(shape),
        dtype => Tensor::from_raw_buffer(bytes, storage(dtype)?, shape, device),
    }
}

/// What is wrong with PyTorch's second bias beside `weight`, where there is one.
fn second_bias(
    layer: &LayerWeights,
    weight: &Weight,
    tensors: &SafeTensors<'_>,
    left: &mut BTreeSet<&str>,
) -> Option<Problem> {
    let name = layer.zeros_beside(weight)?;
    let view = tensors.tensor(&name).ok()?;
    left.remove(name.as_str());
    let problem =
        |what: String| Some(Problem::new(ErrorKind::Weights, place(layer), format!("{}: {what}", shown(&name))));
    if view.shape() != weight.candle_shape() {
        return problem(format!("expected {:?}, found {:?}", weight.candle_shape(), view.shape()));
    }
    let is_zero = |number: &[u8]| {
        // −0.0 is a zero too: the last byte of a little-endian float has the sign.
        number.split_last().is_some_and(|(last, rest)| rest.iter().all(|byte| *byte == 0) && last & 0x7f == 0)
    };
    let size = (view.dtype().bitsize() / 8).max(1);
    let found = view.data().chunks(size).position(|number| !is_zero(number))?;
    problem(format!("expected zeros, as Keras's LSTM has one bias, found another number at [{found}]"))
}
