use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::Path,
};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use half::vec::HalfBitsVecExt;
use kandle_format::{Archive, Array, Bytes, Dtype, Error, ErrorKind, Limits, Problem, Result, nearest};

use crate::{
    Layout, Plan, Weight, WeightMap,
    dialect::differs_on_theano,
    locate::{ignored, is_written_on_theano, left_over, locate, place},
    numeric::{dtype_of, storage},
    source::Source,
};

/// What a load did: every weight, where it came from and what became of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadReport {
    /// The file.
    pub file: String,
    /// The weights, in the order of the file.
    pub loaded: Vec<LoadedWeight>,
    /// What the file holds besides, such as the state of the optimizer, and how many arrays of it.
    pub ignored: Vec<(String, usize)>,
    /// Variables of the caller's that the file has nothing for and the caller asked to keep.
    pub kept: Vec<String>,
}

/// One weight that was loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadedWeight {
    /// The variable: `dense.weight`.
    pub name: String,
    /// Its shape in the `VarMap`.
    pub shape: Vec<usize>,
    /// The array in the file: `layers/dense/vars/0`.
    pub from: String,
    /// Its dtype in the file. Floats of another dtype than the variable's are cast, as Keras does.
    pub stored: Dtype,
    /// How the order of its numbers differs from Keras's.
    pub layout: Layout,
    /// Whether the file has them in another order than Keras 3 has, or in several arrays: those of Keras 1, of Keras on
    /// Theano, and of cuDNN.
    pub reordered: bool,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: usize = self.loaded.iter().map(|weight| weight.shape.iter().product::<usize>()).sum();
        write!(f, "{}: {} weights, {numbers} numbers", self.file, self.loaded.len())?;
        for weight in &self.loaded {
            let LoadedWeight { name, shape, from, layout, stored, reordered } = weight;
            let older = if *reordered { "in an older order, " } else { "" };
            write!(f, "\n  {name} {shape:?} from {from} ({stored}), {older}{layout}")?;
        }
        for (group, arrays) in &self.ignored {
            write!(f, "\n  ignored: {group}, {arrays} arrays")?;
        }
        self.kept.iter().try_for_each(|name| write!(f, "\n  kept as it was: {name}"))
    }
}

/// A weight found in the file and checked, its numbers still there.
pub(crate) struct Found<'a> {
    pub(crate) name: String,
    pub(crate) weight: &'a Weight,
    source: Source<'a>,
    at: String,
}

impl Found<'_> {
    /// The numbers in candle's layout and in the dtype candle stores them in.
    pub(crate) fn read(&self, device: &Device) -> Result<Var> {
        let bytes = self.source.bytes()?;
        let bytes = match self.weight.part {
            None => &*bytes,
            Some((part, parts)) => {
                let size = bytes.len() / parts.max(1);
                bytes.get(part * size..(part + 1) * size).unwrap_or_default()
            }
        };
        let (layout, shape) = (self.weight.layout, &self.weight.shape);
        macro_rules! numbers {
            ($number:ty) => {
                layout.read_in_candle_order(bytes.as_chunks().0, shape, <$number>::from_le_bytes)
            };
        }
        let wanted = self.weight.dtype.unwrap_or(Dtype::Float32);
        let stored = self.source.dtype()?;
        let var = match stored {
            Dtype::Float64 => self.var(numbers!(f64), device),
            // The bits, because only of the language's own numbers does a vector come zeroed from the system.
            Dtype::Float16 => self.var(numbers!(u16).reinterpret_into::<half::f16>(), device),
            Dtype::Bfloat16 => self.var(numbers!(u16).reinterpret_into::<half::bf16>(), device),
            Dtype::Bool | Dtype::Uint8 => self.var(numbers!(u8), device),
            Dtype::Int8 => {
                self.var(layout.read_in_candle_order(bytes, shape, |byte| i16::from(byte.cast_signed())), device)
            }
            Dtype::Int16 => self.var(numbers!(i16), device),
            Dtype::Int32 => self.var(numbers!(i32), device),
            Dtype::Int64 => self.var(numbers!(i64), device),
            Dtype::Uint32 => self.var(numbers!(u32), device),
            Dtype::Float32 => self.var(numbers!(f32), device),
            other => {
                Err(Error::new(ErrorKind::Unsupported, &self.at, format!("{}: a weight of {other}", self.weight.keras)))
            }
        }?;
        // Keras: a variable that is assigned floats of another dtype casts them.
        let dtype = storage(wanted).map_err(|error| self.candle_failed(error))?;
        if var.dtype() == dtype {
            return Ok(var);
        }
        let cast = var.as_detached_tensor().to_dtype(dtype).and_then(|tensor| Var::from_tensor(&tensor));
        cast.map_err(|error| self.candle_failed(error))
    }

    /// As [`read`](Self::read), but not moved: numbers lie as they do in the file, also where candle has other axes.
    pub(crate) fn tensor(&self, device: &Device) -> Result<Tensor> {
        let plain =
            self.source.dtype()? == Dtype::Float32 && self.weight.dtype.is_none_or(|dtype| dtype == Dtype::Float32);
        let axes: Vec<usize> = match (self.weight.layout, self.weight.shape.len()) {
            (Layout::Transposed, 2) => vec![1, 0],
            (Layout::ConvKernel, rank @ 2..) => [rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect(),
            _ => return self.read(device).map(|var| var.as_detached_tensor()),
        };
        if !plain || self.weight.part.is_some() {
            return self.read(device).map(|var| var.as_detached_tensor());
        }
        let numbers = Layout::AsIs.read_in_candle_order(self.source.bytes()?.as_chunks().0, &[], f32::from_le_bytes);
        let tensor =
            Tensor::from_vec(numbers, self.weight.shape.as_slice(), device).and_then(|tensor| tensor.permute(axes));
        tensor.map_err(|error| self.candle_failed(error))
    }

    /// The numbers where they lie in the file, if they lie there as float32 and in candle's layout.
    pub(crate) fn in_file(&self) -> Option<Bytes> {
        let Weight { layout, part, dtype, .. } = *self.weight;
        let plain = layout == Layout::AsIs && part.is_none() && dtype.is_none_or(|dtype| dtype == Dtype::Float32);
        let stored = self.source.dtype().is_ok_and(|dtype| dtype == Dtype::Float32);
        if plain && stored { self.source.in_file() } else { None }
    }

    /// Says that the numbers are not looked at again soon: see [`Bytes::let_go`].
    pub(crate) fn let_go(&self) {
        self.source.arrays().filter_map(Array::in_file).for_each(|bytes| bytes.let_go());
    }

    fn var<T: candle_core::WithDType>(&self, numbers: Vec<T>, device: &Device) -> Result<Var> {
        Var::from_vec(numbers, self.weight.candle_shape(), device).map_err(|error| self.candle_failed(error))
    }

    /// The numbers in candle's layout and in Keras's own dtype, as bytes.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let wanted = self.weight.dtype.unwrap_or(Dtype::Float32);
        if self.source.dtype()? != wanted {
            // Floats of another dtype, which Keras casts.
            return bytes_of(self.read(&Device::Cpu)?.as_tensor()).map_err(|error| self.candle_failed(error));
        }
        let bytes = self.source.bytes()?;
        let part = match self.weight.part {
            None => &*bytes,
            Some((part, parts)) => {
                let size = bytes.len() / parts.max(1);
                bytes.get(part * size..(part + 1) * size).unwrap_or_default()
            }
        };
        Ok(self.weight.layout.bytes_to_candle(part, wanted.size(), &self.weight.shape))
    }

    fn candle_failed(&self, error: candle_core::Error) -> Error {
        Error::new(ErrorKind::Weights, &self.at, format!("{}: {error}", self.weight.keras)).caused_by(error)
    }
}

/// The numbers of a tensor of floats, row-major, little-endian.
fn bytes_of(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DType::F16 => flat.to_vec1::<half::f16>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<half::bf16>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
        _ => flat.to_vec1::<f32>()?.iter().flat_map(|number| number.to_le_bytes()).collect(),
    })
}

/// Loads every weight of `map` into a new `VarMap`.
pub(crate) fn into_new(map: &WeightMap, archive: &Archive, device: &Device) -> Result<(VarMap, LoadReport)> {
    load(map, archive, |found| {
        let mut vars = HashMap::new();
        for weight in found {
            vars.insert(weight.name.clone(), weight.read(device)?);
        }
        let map = VarMap::new();
        lock(&map).extend(vars);
        Ok(map)
    })
}

/// Fills the variables of `vars`, a model built by hand before its weights were there, from the Keras file at `path`: the
/// layer `dense` fills `dense.weight` and `dense.bias`, in candle's layout. All of them, or none and an error.
///
/// For a `VarMap` with other names, see [`WeightMap::rename`]; for a bare `.weights.h5`, [`WeightMap::new`].
///
/// # Errors
/// As [`Archive::open`], [`Plan::new`] and [`WeightMap::load_into`].
pub fn load_weights(path: impl AsRef<Path>, vars: &VarMap) -> Result<LoadReport> {
    let archive = Archive::open(path, &Limits::default())?;
    let plan = Plan::new(&archive.config()?).map_err(|error| error.in_file(archive.name()))?;
    plan.weights().load_into(&archive, vars)
}

impl WeightMap {
    /// What [`load_into`](Self::load_into) would load from `archive`, every weight found and checked, none read.
    ///
    /// # Errors
    /// Everything that is missing, left over or of another shape or dtype, together.
    pub fn check(&self, archive: &Archive) -> Result<LoadReport> {
        load(self, archive, |_| Ok(())).map(|((), report)| report)
    }

    /// Fills the variables of `vars`, a model that was built before its weights were there. In one transaction: every
    /// variable gets its weight, or none is touched and the error says all that is wrong.
    ///
    /// Every variable must have a weight in the file and every weight of the file a variable, of the same shape;
    /// [`rename`](Self::rename) and [`keep`](Self::keep) are for models that differ.
    ///
    /// # Errors
    /// Everything that is missing, left over or of another shape or dtype, together.
    pub fn load_into(&self, archive: &Archive, vars: &VarMap) -> Result<LoadReport> {
        let ((), mut report) = load(self, archive, |found| {
            let vars = lock(vars);
            self.check_variables(found, &vars)?;
            let mut filled = Vec::new();
            for weight in found {
                if let Some(var) = vars.get(&weight.name) {
                    filled.push((var, weight.read(var.device())?, weight));
                }
            }
            // Nothing below can be wrong with the file any more: shapes, dtypes and devices are those of the variables.
            filled.iter().try_for_each(|(var, read, weight)| var.set(read).map_err(|error| weight.candle_failed(error)))
        })?;
        report.kept = lock(vars).keys().filter(|name| self.keeps(name)).cloned().collect();
        report.kept.sort();
        Ok(report)
    }

    /// Compares the caller's variables with the weights that were found.
    fn check_variables(&self, found: &[Found<'_>], vars: &HashMap<String, Var>) -> Result<()> {
        let wanted: BTreeSet<&str> = found.iter().map(|weight| weight.name.as_str()).collect();
        let names: BTreeSet<&str> = vars.keys().map(String::as_str).collect();
        let offered = |near: Option<&str>| near.map_or_else(String::new, |near| format!(", the nearest is {near}"));
        let mut problems = Vec::new();
        for Found { name, at, weight, .. } in found {
            let what = match vars.get(name) {
                Some(var) => unlike(var, weight).map(|what| format!("variable {name}: {what}")),
                None => {
                    let near = offered(nearest(name, names.difference(&wanted).copied()));
                    Some(format!("{}: the VarMap has no variable {name}{near}", weight.keras))
                }
            };
            problems.extend(what.map(|what| Problem::new(ErrorKind::Weights, at, what)));
        }
        for name in names.difference(&wanted).filter(|name| !self.keeps(name)) {
            let near = offered(nearest(name, wanted.difference(&names).copied()));
            let what = format!("the file has no weight for it{near}");
            problems.push(Problem::new(ErrorKind::Weights, format!("variable {name}"), what));
        }
        Error::check(problems)
    }
}

/// How a variable differs from the weight for it.
fn unlike(var: &Var, weight: &Weight) -> Option<String> {
    let (dims, expected) = (var.dims(), weight.candle_shape());
    if dims != expected {
        let hint = if dims.iter().rev().eq(&expected) { "; candle's Linear has (out, in)" } else { "" };
        return Some(format!("expected {dims:?}, as the VarMap has it, found {expected:?} in the file{hint}"));
    }
    let dtype = dtype_of(var).map_or_else(|_| format!("{:?}", var.dtype()), |dtype| dtype.to_string());
    let wanted = weight.dtype.unwrap_or(Dtype::Float32);
    let same = storage(wanted).is_ok_and(|storage| storage == var.dtype());
    (!same).then(|| format!("expected {wanted}, as the file has it, found {dtype} in the VarMap"))
}

/// Finds and checks every weight of `map`, then lets `store` read them. Nothing is stored unless everything is found.
fn load<'a, T>(
    map: &'a WeightMap,
    archive: &'a Archive,
    store: impl FnOnce(&[Found<'a>]) -> Result<T>,
) -> Result<(T, LoadReport)> {
    let found = find_all(map, archive)?;
    let stored = store(&found).map_err(|error| error.in_file(archive.name()))?;
    let loaded = |found: &Found<'_>| LoadedWeight {
        name: found.name.clone(),
        shape: found.weight.candle_shape(),
        from: found.source.path().to_owned(),
        stored: found.source.dtype().unwrap_or(Dtype::Float32),
        layout: found.weight.layout,
        reordered: !found.source.is_as_it_is(),
    };
    let report = LoadReport {
        file: archive.name().to_owned(),
        loaded: found.iter().map(loaded).collect(),
        ignored: ignored(archive),
        kept: Vec::new(),
    };
    Ok((stored, report))
}

/// As [`find`], with the file's name in errors; also where it has no weights.
pub(crate) fn find_all<'a>(map: &'a WeightMap, archive: &'a Archive) -> Result<Vec<Found<'a>>> {
    if archive.has_weights() {
        return find(map, archive).map_err(|error| error.in_file(archive.name()));
    }
    let what = "an architecture without weights: open it together with the file of its weights";
    Err(Error::new(ErrorKind::Missing, "", what).in_file(archive.name()))
}

/// Finds and checks every weight of `map`.
pub(crate) fn find<'a>(map: &'a WeightMap, archive: &'a Archive) -> Result<Vec<Found<'a>>> {
    let mut problems = Vec::new();
    let mut found: Vec<Found<'_>> = Vec::new();
    let mut names = BTreeSet::new();
    let mut incomplete = Vec::new();
    if is_written_on_theano(archive)
        && let Ok(config) = archive.config()
    {
        problems.extend(differs_on_theano(&config));
    }
    let located = locate(archive, map);
    for (layer, sources) in map.layers().iter().zip(located.layers) {
        let at = place(layer);
        for name in layer.weights.iter().map(|weight| layer.name(weight)) {
            if !names.insert(name.clone()) {
                problems.push(Problem::new(
                    ErrorKind::Invalid,
                    &at,
                    format!("a second weight for the variable {name}"),
                ));
            }
        }
        match sources {
            Ok(sources) => {
                for (weight, source) in layer.weights.iter().zip(sources) {
                    // Legacy files do not say that their two bytes are a bfloat16.
                    let source = match weight.dtype {
                        Some(dtype) => source.known_as(dtype),
                        None => source,
                    };
                    problems.extend(
                        misfit(weight, &source, archive).map(|what| Problem::new(ErrorKind::Weights, &at, what)),
                    );
                    found.push(Found { name: layer.name(weight), weight, source, at: at.clone() });
                }
            }
            Err(missing) => {
                incomplete.push(layer);
                problems.extend(missing);
            }
        }
    }
    let copies = located.copies.iter().map(|copy| copy.path());
    let used: BTreeSet<&str> = found
        .iter()
        .flat_map(|found| found.source.arrays().map(|array| array.path()).collect::<Vec<_>>())
        .chain(copies)
        .collect();
    for path in left_over(archive, &used, &incomplete) {
        problems.push(Problem::new(
            ErrorKind::Weights,
            archive.arrays().place(path),
            "no layer of the model has this weight",
        ));
    }
    Error::check(problems)?;
    Ok(found)
}

/// What is wrong with the shape or dtype of a weight in the file.
fn misfit(weight: &Weight, source: &Source<'_>, archive: &Archive) -> Option<String> {
    let place = archive.arrays().place(source.path());
    let (shape, dtype) = (weight.file_shape(), weight.dtype.unwrap_or(Dtype::Float32));
    if source.shape() != shape {
        return Some(format!("{}: expected {shape:?}, found {:?} in {place}", weight.keras, source.shape()));
    }
    match source.dtype() {
        Ok(found) if found == dtype || (found.is_float() && dtype.is_float()) => None,
        Ok(other) => Some(format!("{}: expected {dtype}, found {other} in {place}", weight.keras)),
        Err(error) => Some(format!("{}: expected {dtype}, found {error}", weight.keras)),
    }
}

/// The variables of a `VarMap`. Its lock can only be poisoned by a panic while variables were listed or set; what they
/// hold is then as good as before.
pub(crate) fn lock(vars: &VarMap) -> std::sync::MutexGuard<'_, HashMap<String, Var>> {
    vars.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
