//! Where the models and the judge meet: neither crate knows the other.

use std::path::Path;

use crate::hints::explain;
use candle_core::Device;
use kandle_engine::{Compile as _, Engine, Options};
use kandle_format::{Archive, Dtype, Error, ErrorKind, Limits, Result};
use kandle_model::{Model, Value};
use kandle_parity::{Array, Case, CaseOf, CaseReport, Failure, LayerCall, Outcome, Subject, Trace, check};

/// Keras's dtypes, and what the judge calls them.
const DTYPES: [(Dtype, kandle_parity::Dtype); 14] = [
    (Dtype::Bool, kandle_parity::Dtype::BOOL),
    (Dtype::Int8, kandle_parity::Dtype::I8),
    (Dtype::Int16, kandle_parity::Dtype::I16),
    (Dtype::Int32, kandle_parity::Dtype::I32),
    (Dtype::Int64, kandle_parity::Dtype::I64),
    (Dtype::Uint8, kandle_parity::Dtype::U8),
    (Dtype::Uint16, kandle_parity::Dtype::U16),
    (Dtype::Uint32, kandle_parity::Dtype::U32),
    (Dtype::Uint64, kandle_parity::Dtype::U64),
    (Dtype::Float16, kandle_parity::Dtype::F16),
    (Dtype::Bfloat16, kandle_parity::Dtype::BF16),
    (Dtype::Float32, kandle_parity::Dtype::F32),
    (Dtype::Float64, kandle_parity::Dtype::F64),
    (Dtype::String, kandle_parity::Dtype::STRING),
];

/// What runs a model before the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum With {
    /// [`Model`]: one candle operation after the other, layer by layer.
    #[default]
    Model,
    /// [`Engine`]: compiled. What its layers give is not seen, only the outputs.
    Engine,
    /// The one and the other; both must give Keras's numbers.
    Both,
}

impl With {
    fn runs_model(self) -> bool {
        self != Self::Engine
    }

    fn runs_engine(self) -> bool {
        self != Self::Model
    }
}

/// Judges every file of the case in the folder `path`.
#[must_use]
pub fn verify(path: impl AsRef<Path>) -> CaseReport {
    verify_with(path, With::Model)
}

/// As [`verify`], run with `with`.
#[must_use]
pub fn verify_with(path: impl AsRef<Path>, with: With) -> CaseReport {
    // An architecture and its weights are one model.
    let counted =
        |case: &Case, file: &str| file != "weights.h5" || !case.files.iter().any(|other| other == "model.json");
    report(path.as_ref(), with, counted)
}

/// Judges one file of the case that [`parity::cases_of`](kandle_parity::cases_of) found of it.
#[must_use]
pub fn verify_file(of: &CaseOf, with: With) -> CaseReport {
    report(&of.folder, with, |_, file| file == of.file)
}

/// The report of those files of the case in `folder` that are counted.
fn report(folder: &Path, with: With, counted: impl Fn(&Case, &str) -> bool) -> CaseReport {
    let mut report = CaseReport::new(folder.display().to_string(), None);
    match Case::open(folder) {
        Err(error) => report.files.push(("case.json".to_owned(), Outcome::Broken(error.to_string()))),
        Ok(case) => {
            report.expect.clone_from(&case.expect);
            for file in case.files.iter().filter(|file| counted(&case, file)) {
                if with.runs_model() {
                    report.files.push((file.clone(), judge(&case, file)));
                }
                if with.runs_engine() {
                    report.files.push((format!("{file} (engine)"), judge_engine(&case, file)));
                }
            }
            report.recorded = Some(case);
        }
    }
    report
}

/// Judges one file of a case: loads it, runs it on the case's inputs, and compares every recorded layer and the outputs.
///
/// Where the case has a digest of the file's weights, others are not run: nothing is recorded of them.
#[must_use]
pub fn judge(case: &Case, file: &str) -> Outcome {
    outcome(load_checked(case, file), |model| {
        let mut verdict = check(case, file, &Judged(&model.detached()));
        explain(case, file, &mut verdict);
        verdict
    })
}

/// Judges the engine of one file of a case, by its outputs, as [`judge`].
#[must_use]
pub fn judge_engine(case: &Case, file: &str) -> Outcome {
    let compiled = load_checked(case, file).and_then(|model| {
        let wrong = |error: candle_core::Error| Error::new(ErrorKind::Weights, "", error.to_string());
        model.compile(&Options::default().threads(1)).map_err(wrong)
    });
    outcome(compiled, |engine| check(case, file, &JudgedEngine(&engine)))
}

fn load_checked(case: &Case, file: &str) -> Result<Model> {
    let archive = open_recorded(case, file)?;
    check_digest(case, file, &archive)?;
    Model::from_archive(&archive, &Device::Cpu).map(|(model, _)| model)
}

fn outcome<T>(loaded: Result<T>, judge: impl FnOnce(T) -> kandle_parity::Verdict) -> Outcome {
    match loaded {
        Ok(loaded) => Outcome::Judged(judge(loaded)),
        Err(error) if error.is_refusal() => Outcome::Refused(reason(&error)),
        Err(error) => Outcome::Broken(reason(&error)),
    }
}

/// Whether the weights are those that the case was recorded with, where it says which those are.
///
/// # Errors
/// [`ErrorKind::Unverified`] for others, and as [`Archive::weights_digest`].
pub(crate) fn check_digest(case: &Case, file: &str, archive: &Archive) -> Result<()> {
    let Some(recorded) = case.digests.get(file) else { return Ok(()) };
    let found = archive.weights_digest()?;
    if *recorded == found {
        return Ok(());
    }
    let short = |digest: &str| digest.chars().take("sha256:".len() + 12).collect::<String>();
    let what = format!(
        "the case is stale: it was recorded with the weights {}, these are {}; record it again",
        short(recorded),
        short(&found)
    );
    Err(Error::new(ErrorKind::Unverified, "", what))
}

/// Every problem in one line; the report names the file.
fn reason(error: &Error) -> String {
    error.problems().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The model in one file of a case, or in the folder of this name, as [`open_recorded`] finds it.
///
/// # Errors
/// As [`open_recorded`] and [`Model::from_archive`].
pub fn load_recorded(case: &Case, file: &str) -> Result<Model> {
    Model::from_archive(&open_recorded(case, file)?, &Device::Cpu).map(|(model, _)| model)
}

/// Opens one file of a case, or the folder of this name. Weights alone get the configuration that lies beside them, in
/// `model.keras` or else in `model.json`; an architecture gets the weights beside it.
///
/// # Errors
/// As [`Archive::open`] and [`Archive::with_weights`].
pub fn open_recorded(case: &Case, file: &str) -> Result<Archive> {
    let path = case.path.join(file);
    let open = |path: &Path| Archive::open(path, &Limits::default());
    let beside = |names: &[&str]| match names.iter().map(|name| path.with_file_name(name)).find(|path| path.exists()) {
        Some(path) => open(&path),
        None => {
            let what = format!("expected beside it one of {}", names.join(", "));
            Err(Error::new(ErrorKind::Missing, "", what).in_file(&path.display().to_string()))
        }
    };
    let archive = open(&path)?;
    if !archive.container().has_config() {
        beside(&["model.keras", "model.json"])?.with_weights(archive)
    } else if !archive.has_weights() {
        archive.with_weights(beside(&["weights.h5", "model.weights.json", "model.weights.h5"])?)
    } else {
        Ok(archive)
    }
}

/// A [`Model`] before the judge.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a>(pub &'a Model);

impl Subject for Judged<'_> {
    fn run(&self, inputs: &[Array]) -> std::result::Result<Vec<Array>, Failure> {
        self.0.run(&self.values(inputs, &[])?)?.iter().map(array).collect()
    }

    fn trace(&self, inputs: &[Array]) -> std::result::Result<Trace, Failure> {
        let mut trace = Trace::default();
        for call in self.0.trace(&self.values(inputs, &[])?)?.calls {
            trace.insert(&call.layer, call.call, layer_call(&call.outputs)?);
        }
        Ok(trace)
    }

    fn call_layer(
        &self,
        path: &str,
        call: usize,
        inputs: &[Array],
        masks: &[Option<Array>],
    ) -> std::result::Result<Option<LayerCall>, Failure> {
        self.0.call_layer(path, call, &self.values(inputs, masks)?)?.map(|outputs| layer_call(&outputs)).transpose()
    }
}

/// An [`Engine`] before the judge.
#[derive(Debug, Clone, Copy)]
pub struct JudgedEngine<'a>(pub &'a Engine);

impl Subject for JudgedEngine<'_> {
    fn run(&self, inputs: &[Array]) -> std::result::Result<Vec<Array>, Failure> {
        let values = inputs.iter().map(value).collect::<std::result::Result<Vec<_>, _>>()?;
        self.0.run(&values)?.iter().map(array).collect()
    }
}

impl Judged<'_> {
    /// What is recorded, on the model's device.
    fn values(&self, inputs: &[Array], masks: &[Option<Array>]) -> std::result::Result<Vec<Value>, Failure> {
        let device = self.0.device();
        let masks = masks.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let with_mask = |(input, mask): (&Array, Option<&Array>)| -> std::result::Result<Value, Failure> {
            let mask = mask.map(|mask| mask.to_tensor(&device)).transpose()?;
            let value = value(input)?;
            // Strings have no numbers that a device could have.
            let tensor =
                if value.dtype == Dtype::String { value.tensor.clone() } else { value.tensor.to_device(&device)? };
            Ok(Value { mask, tensor, ..value })
        };
        inputs.iter().zip(masks).map(with_mask).collect()
    }
}

fn layer_call(outputs: &[Value]) -> std::result::Result<LayerCall, Failure> {
    let mask = |value: &Value| -> std::result::Result<Option<Array>, Failure> {
        value.mask.as_ref().map(|mask| array(&Value::new(mask.clone(), Dtype::Bool))).transpose()
    };
    Ok(LayerCall {
        outputs: outputs.iter().map(array).collect::<std::result::Result<_, _>>()?,
        masks: outputs.iter().map(mask).collect::<std::result::Result<_, _>>()?,
    })
}

/// A recorded tensor as a model takes it.
///
/// # Errors
/// For a dtype that candle cannot store.
pub fn value(array: &Array) -> std::result::Result<Value, Failure> {
    if array.dtype() == kandle_parity::Dtype::STRING {
        let texts = (0..array.len()).filter_map(|position| array.text(position)).map(<[u8]>::to_vec).collect();
        return Ok(Value::from_strings(texts, array.shape())?);
    }
    match DTYPES.iter().find(|pair| pair.1 == array.dtype()) {
        Some((dtype, _)) => Ok(Value::new(array.to_tensor(&Device::Cpu)?, *dtype)),
        None => Err(format!("Keras has no dtype {:?}", array.dtype()).into()),
    }
}

/// A model's tensor as the judge takes it, in Keras's dtype.
///
/// # Errors
/// For numbers that the dtype does not have, which would be an error of ours.
pub fn array(value: &Value) -> std::result::Result<Array, Failure> {
    if value.dtype == Dtype::String {
        return Ok(Array::from_texts(&value.texts()?, value.tensor.dims())?);
    }
    match DTYPES.iter().find(|pair| pair.0 == value.dtype) {
        Some((_, dtype)) => Ok(Array::try_from(&value.tensor)?.with_dtype(*dtype)?),
        None => Err(format!("{} has no place in a recorded case", value.dtype).into()),
    }
}

/// Numbers of Keras's `dtype`, row-major, little-endian, as the judge takes them.
///
/// # Errors
/// Where they are more or fewer than `shape` has.
pub fn numbers(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> std::result::Result<Array, Failure> {
    match DTYPES.iter().find(|pair| pair.0 == dtype) {
        Some((_, dtype)) => Ok(Array::new(*dtype, shape.to_vec(), bytes)?),
        None => Err(format!("{dtype} has no place in a recorded case").into()),
    }
}
