//! A recorded case: what Keras was given, and what it answered.
//!
//! A case is a folder with model files, `case.json` and `io.safetensors`. The crate never opens the model files; that is the [`Subject`](crate::Subject)'s part.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use safetensors::SafeTensors;

use crate::array::{Array, ArrayError};
use crate::error::{CaseError, CaseErrorKind, shown_path};
use crate::json::{self, Node};
use crate::number::{Dtype, dtype_of, keras_name};
use crate::text;
use crate::tolerance::{Rule, Tolerance};

/// A recorded case, read and checked against itself. Keys of case.json that are not listed here are ignored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Case {
    /// The folder, as given.
    pub path: PathBuf,
    /// Keras's class, `Dense` or `Functional`.
    pub class: String,
    /// The family, `core` or `models`.
    pub family: String,
    /// The model files, at least one: plain names, or `../name`, `../../name` and `../sibling/name` where cases share a model.
    pub files: Vec<String>,
    /// The digest of the weights of each file they were recorded with, by the file's name: `sha256:` and 64 hexadecimal digits.
    pub digests: BTreeMap<String, String>,
    /// What is fed, in the order of `model.inputs`.
    pub inputs: Vec<Declared>,
    /// What Keras gave, in the order of the flattened outputs; at least one.
    pub outputs: Vec<Declared>,
    /// The tolerance of outputs without their own.
    pub tolerance: Option<Tolerance>,
    /// What the model does with its numbers.
    pub rule: Option<Rule>,
    /// Why the tolerance is looser than the rule's.
    pub because: Option<String>,
    /// The text that must stand in the reason of a refusal, where the case is to be refused: TEXT of `refused: TEXT`.
    pub expect: Option<String>,
    /// How far Keras's own backends are apart.
    pub noise: Noise,
    /// The layers whose calls are recorded, in the order in which they ran.
    pub layers: Vec<Layer>,
    /// How many calls of layers are not recorded, since the files would have been too large.
    pub left_out: usize,
    /// The dtype Keras computed in, `float32`.
    pub compute_dtype: Option<String>,
    /// One sentence on what the case is for.
    pub says: Option<String>,
    tensors: HashMap<String, Array>,
    undeclared: Vec<String>,
}

/// An input or output as case.json declares it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Declared {
    /// The name, `output_0`.
    pub name: String,
    /// The shape, batch included.
    pub shape: Vec<usize>,
    /// The dtype.
    pub dtype: Dtype,
    /// The output's own tolerance.
    pub tolerance: Option<Tolerance>,
    /// What an output is made of, as in [`Layer::from`]; empty where that is not recorded.
    pub from: Vec<String>,
}

/// How far Keras's own backends are apart, where it was measured, in the units of the outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Noise {
    /// The largest |output|.
    pub scale: Option<f64>,
    /// The largest |TensorFlow − JAX|.
    pub tf_vs_jax_max_abs: Option<f64>,
    /// The largest |TensorFlow − truth|.
    pub tf_vs_truth_max_abs: Option<f64>,
}

/// A layer whose calls are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The path, `encoder/dense`.
    pub path: String,
    /// Keras's class.
    pub class: String,
    /// How many calls are recorded, at least one.
    pub calls: usize,
    /// The rule where the layer is fed Keras's own inputs.
    pub rule: Rule,
    /// The rule where it is fed what our own chain made; the case's rule, else `deep`, where case.json gives none.
    pub cumulative: Rule,
    /// What fed each call, where that is recorded: `input_0`, or the call `path/0` of another layer. Operations that are no layers are passed over: what fed them stands there.
    pub from: Vec<Vec<String>>,
}

/// One recorded call of a layer.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recorded {
    /// What the layer was given.
    pub inputs: Vec<Array>,
    /// The mask that came with each input, BOOL; as many as inputs.
    pub input_masks: Vec<Option<Array>>,
    /// What it gave; at least one.
    pub outputs: Vec<Array>,
    /// The mask attached to each output; as many as outputs.
    pub masks: Vec<Option<Array>>,
    /// Each output where the whole model ran in float64, where recorded; as many as outputs.
    pub truths: Vec<Option<Array>>,
    /// Each output where the whole model ran on JAX, where recorded; as many as outputs.
    pub jax: Vec<Option<Array>>,
}

impl Case {
    /// Reads the case in this folder.
    ///
    /// # Errors
    /// A missing or malformed `case.json` or `io.safetensors`; a format other than 1; a tensor that is missing, undeclared, or of another shape or dtype than declared; no tolerance for an output, unless a refusal is expected.
    pub fn open(path: impl AsRef<Path>) -> Result<Case, CaseError> {
        let path = path.as_ref();
        let file = path.join("case.json");
        let words = fs::read_to_string(&file).map_err(|error| CaseError::unreadable(&file, &error))?;
        let malformed =
            |error| CaseError::new(CaseErrorKind::Malformed, shown_path(&file), format_args!("not JSON: {error}"));
        let value = json::parse(&words).map_err(malformed)?;
        let mut case = Case::declared(path, &Node::root(&value, shown_path(&file)))?;
        case.read_tensors()?;
        Ok(case)
    }

    /// The case's name in messages: its folder's. Where that says little alone, it stands behind its parent's (`example3/2x3`, `my_model.case/ordinary`) or, a number, its grandparent's (`core/Dense/003`).
    pub fn name(&self) -> String {
        let parts: Vec<_> = self.path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        let folder = parts.last().map(|part| part.as_ref()).unwrap_or_default();
        let shown = match folder.starts_with(|first: char| first.is_ascii_digit()) {
            true if folder.chars().all(|digit| digit.is_ascii_digit()) => 3,
            true => 2,
            // The case of a model that lies above it, `my_model.case/ordinary`.
            false if self.files.iter().any(|file| is_above(file)) => 2,
            false => 1,
        };
        text::name(&parts.get(parts.len().saturating_sub(shown)..).unwrap_or_default().join("/"))
    }

    /// The recorded inputs, in order.
    pub fn input_arrays(&self) -> Vec<Array> {
        (0..self.inputs.len()).filter_map(|i| self.tensor(&format!("input_{i}"))).cloned().collect()
    }

    /// Keras's output number `i`.
    pub fn output(&self, i: usize) -> Option<&Array> {
        self.tensor(&format!("output_{i}"))
    }

    /// Output number `i` of the same model in float64, where recorded.
    pub fn truth(&self, i: usize) -> Option<&Array> {
        self.tensor(&format!("truth_{i}"))
    }

    /// Output number `i` of Keras on JAX, where recorded.
    pub fn jax(&self, i: usize) -> Option<&Array> {
        self.tensor(&format!("jax_{i}"))
    }

    /// The tolerance of output number `i`: its own, else the case's. Exact where a refusal is expected and none is given.
    pub fn tolerance_of(&self, i: usize) -> Tolerance {
        let own = self.outputs.get(i).and_then(|output| output.tolerance);
        own.or(self.tolerance).unwrap_or(Tolerance::EXACT)
    }

    /// What is recorded of a layer's call, the first being 0; none where nothing is.
    pub fn recorded(&self, path: &str, call: usize) -> Option<Recorded> {
        let tensor = |name: String| self.tensor(&format!("layers/{path}/{call}/{name}")).cloned();
        let all = |name: &str| (0..).map_while(|k| tensor(format!("{name}_{k}"))).collect::<Vec<_>>();
        let (inputs, outputs) = (all("in"), all("out"));
        let input_masks = (0..inputs.len()).map(|k| tensor(format!("in_mask_{k}"))).collect();
        let beside = |name: &str| (0..outputs.len()).map(|k| tensor(format!("{name}_{k}"))).collect::<Vec<_>>();
        let (masks, truths, jax) = (beside("mask"), beside("truth"), beside("jax"));
        (!outputs.is_empty()).then_some(Recorded { inputs, input_masks, outputs, masks, truths, jax })
    }

    /// The calls (`layers/<path>/<call>`) with recorded tensors that `layers` in case.json says nothing of: nobody can judge them.
    pub fn undeclared(&self) -> &[String] {
        &self.undeclared
    }

    fn tensor(&self, name: &str) -> Option<&Array> {
        self.tensors.get(name)
    }

    fn declared(path: &Path, root: &Node<'_>) -> Result<Case, CaseError> {
        let format = root.need("format")?;
        if format.count().ok() != Some(1) {
            return Err(format.not("1"));
        }
        let optional = |key: &str| root.get(key).map(|node| node.text()).transpose();
        let rule = root.get("rule").map(|node| rule(&node)).transpose()?;
        // Only a list is ours: some cases say how many layers there are.
        let layers = root.get("layers").filter(Node::is_list).map_or(Ok(vec![]), |node| node.list())?;
        let case = Case {
            path: path.to_owned(),
            class: root.need("class")?.text()?,
            family: root.need("family")?.text()?,
            files: root.need("files")?.list()?.iter().map(file_name).collect::<Result<_, _>>()?,
            digests: root.get("digests").map_or(Ok(BTreeMap::new()), |node| digests(&node))?,
            inputs: root.need("inputs")?.list()?.iter().map(declared).collect::<Result<_, _>>()?,
            outputs: root.need("outputs")?.list()?.iter().map(declared).collect::<Result<_, _>>()?,
            tolerance: root.get("tolerance").map(|node| tolerance(&node)).transpose()?,
            rule,
            because: optional("because")?,
            expect: root.get("expect").map(|node| refusal(&node)).transpose()?,
            noise: root.get("noise").map_or_else(Noise::default, |node| noise(&node)),
            layers: layers.iter().map(|node| layer(node, rule)).collect::<Result<_, _>>()?,
            left_out: root.get("left_out").map_or(Ok(0), |node| node.count())?,
            compute_dtype: optional("compute_dtype")?,
            says: optional("says")?,
            tensors: HashMap::new(),
            undeclared: vec![],
        };
        for (key, empty) in [("files", case.files.is_empty()), ("outputs", case.outputs.is_empty())] {
            if empty {
                return Err(root.need(key)?.error("expected at least one, found none"));
            }
        }
        if case.tolerance.is_none()
            && case.expect.is_none()
            && case.outputs.iter().any(|output| output.tolerance.is_none())
        {
            return Err(root.error("tolerance is missing"));
        }
        Ok(case)
    }

    fn read_tensors(&mut self) -> Result<(), CaseError> {
        let file = self.path.join("io.safetensors");
        let bytes = fs::read(&file).map_err(|error| CaseError::unreadable(&file, &error))?;
        let at = shown_path(&file);
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| CaseError::new(CaseErrorKind::Malformed, &at, format_args!("not safetensors: {error}")))?;
        let ours = ["input_", "output_", "truth_", "jax_", "layers/"];
        for (name, view) in tensors.iter().filter(|(name, _)| ours.iter().any(|known| name.starts_with(known))) {
            let array = Array::read(&view).map_err(|error| malformed(&at, name, error))?;
            self.tensors.insert(name.to_owned(), array);
        }
        self.join_texts(&at)?;
        self.check_tensors(&at)
    }

    /// Strings are stored as their bytes and, in a second tensor, where each begins; only case.json has their shape. Those
    /// of a layer have the shape of the input or output that they are, else one axis.
    fn join_texts(&mut self, at: &str) -> Result<(), CaseError> {
        let shapes = [("input", &self.inputs), ("output", &self.outputs)].into_iter().flat_map(|(kind, declared)| {
            let strings = declared.iter().enumerate().filter(|(_, declared)| declared.dtype == Dtype::STRING);
            strings.map(move |(i, declared)| (format!("{kind}_{i}"), declared.shape.clone()))
        });
        for (name, shape) in shapes.collect::<Vec<_>>() {
            let offsets = self.tensors.remove(&format!("{name}.offsets"));
            if let (Some(bytes), Some(offsets)) = (self.tensors.get(&name), offsets) {
                let texts = bytes.split(&offsets).and_then(|texts| texts.reshaped(&shape));
                self.tensors.insert(name.clone(), texts.map_err(|error| malformed(at, &name, error))?);
            }
        }
        let known: Vec<Array> = self.tensors.values().filter(|array| array.dtype() == Dtype::STRING).cloned().collect();
        let stored: Vec<String> =
            self.tensors.keys().filter_map(|name| name.strip_suffix(".offsets")).map(str::to_owned).collect();
        for name in stored {
            let offsets = self.tensors.remove(&format!("{name}.offsets"));
            if let (Some(bytes), Some(offsets)) = (self.tensors.get(&name), offsets) {
                let texts = bytes.split(&offsets).map_err(|error| malformed(at, &name, error))?;
                let same =
                    |known: &&Array| Array::clone(known).reshaped(texts.shape()).is_ok_and(|known| known == texts);
                let texts = known.iter().find(same).cloned().unwrap_or(texts);
                self.tensors.insert(name, texts);
            }
        }
        Ok(())
    }

    /// What is recorded is what is declared, nothing missing, and no output or input that nobody would look at.
    fn check_tensors(&mut self, file: &str) -> Result<(), CaseError> {
        let mismatch = |name: &str, what: std::fmt::Arguments<'_>| {
            Err(CaseError::new(CaseErrorKind::Mismatch, format!("{file} › {}", text::name(name)), what))
        };
        for (kind, declared) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (i, declared) in declared.iter().enumerate() {
                let name = format!("{kind}_{i}");
                let Some(found) = self.tensor(&name) else {
                    return mismatch(&name, format_args!("declared in case.json, but missing"));
                };
                let shapes = |name: &str, found: &Array| match found.shape() == declared.shape {
                    true => Ok(()),
                    false => {
                        mismatch(name, format_args!("shape: expected {:?}, found {:?}", declared.shape, found.shape()))
                    }
                };
                shapes(&name, found)?;
                if found.dtype() != declared.dtype {
                    let (expected, found) = (keras_name(declared.dtype), keras_name(found.dtype()));
                    return mismatch(&name, format_args!("dtype: expected {expected}, found {found}"));
                }
                for other in [format!("truth_{i}"), format!("jax_{i}")] {
                    if let (true, Some(found)) = (kind == "output", self.tensor(&other)) {
                        shapes(&other, found)?;
                    }
                }
            }
            let beyond = format!("{kind}_{}", declared.len());
            if self.tensor(&beyond).is_some() {
                return mismatch(&beyond, format_args!("recorded, but not declared in case.json"));
            }
        }
        let mut declared = HashSet::new();
        for layer in &self.layers {
            for call in 0..layer.calls {
                let prefix = format!("layers/{}/{call}", layer.path);
                let Some(recorded) = self.recorded(&layer.path, call) else {
                    return mismatch(&format!("{prefix}/out_0"), format_args!("declared in case.json, but missing"));
                };
                let counts =
                    [(["in", "in_mask"].as_slice(), recorded.inputs.len()), (&OF_OUTPUTS, recorded.outputs.len())];
                for (names, count) in counts {
                    let tensors = |k| names.iter().map(move |name| format!("{name}_{k}"));
                    declared.extend((0..count).flat_map(tensors).map(|name| format!("{prefix}/{name}")));
                }
                for (k, output) in recorded.outputs.iter().enumerate() {
                    for (name, other) in [("truth", &recorded.truths), ("jax", &recorded.jax)] {
                        if let Some(Some(other)) = other.get(k)
                            && other.shape() != output.shape()
                        {
                            let (expected, found) = (output.shape(), other.shape());
                            let what = format_args!("shape: expected {expected:?}, found {found:?}");
                            return mismatch(&format!("{prefix}/{name}_{k}"), what);
                        }
                    }
                }
            }
        }
        let left = self.tensors.keys().filter(|name| name.starts_with("layers/") && !declared.contains(*name));
        let calls: BTreeSet<&str> = left.filter_map(|name| Some(name.rsplit_once('/')?.0)).collect();
        self.undeclared = calls.into_iter().map(text::name).collect();
        Ok(())
    }
}

fn malformed(at: &str, name: &str, error: ArrayError) -> CaseError {
    CaseError::new(CaseErrorKind::Malformed, format!("{at} › {}", text::name(name)), error)
}

fn rule(node: &Node<'_>) -> Result<Rule, CaseError> {
    node.text()?.parse().map_err(|_| node.not("copy, elementwise, contraction or deep"))
}

/// What is recorded of each output of a layer's call.
const OF_OUTPUTS: [&str; 4] = ["out", "mask", "truth", "jax"];

/// A plain name, one in a folder above, or one in a sibling's folder: a case can't point further.
fn file_name(node: &Node<'_>) -> Result<String, CaseError> {
    let name = node.text()?;
    let is_plain = |name: &str| {
        let mut parts = Path::new(name).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
        plain && !name.contains('\\')
    };
    let is_near = match name.strip_prefix("../").map(|rest| (rest, rest.split_once('/'))) {
        None => is_plain(&name),
        Some((rest, None)) => is_plain(rest),
        Some((_, Some((above, file)))) => (above == ".." || is_plain(above)) && is_plain(file),
    };
    if is_near {
        Ok(name)
    } else {
        Err(node.not("the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE"))
    }
}

/// Whether a model file lies above the case's folder, not in it or beside it.
fn is_above(file: &str) -> bool {
    file.strip_prefix("../").is_some_and(|rest| rest.starts_with("../") || !rest.contains('/'))
}

/// The digest of each file by its name. Another kind of digest than ours cannot be compared, and is an error: the proof would be none.
fn digests(node: &Node<'_>) -> Result<BTreeMap<String, String>, CaseError> {
    let read = |(file, node): (&str, Node<'_>)| {
        let digest = node.text()?;
        let digits = digest.strip_prefix("sha256:").unwrap_or_default();
        match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            true => Ok((file.to_owned(), digest)),
            false => Err(node.not("sha256: and 64 hexadecimal digits")),
        }
    };
    node.entries()?.into_iter().map(read).collect()
}

/// A list of texts, empty where there is none.
fn sources(node: Option<Node<'_>>) -> Result<Vec<String>, CaseError> {
    node.map_or(Ok(vec![]), |node| node.list()?.iter().map(Node::text).collect())
}

fn declared(node: &Node<'_>) -> Result<Declared, CaseError> {
    let dtype = node.need("dtype")?;
    Ok(Declared {
        name: node.need("name")?.text()?,
        shape: node.need("shape")?.list()?.iter().map(Node::count).collect::<Result<_, _>>()?,
        dtype: dtype_of(&dtype.text()?).ok_or_else(|| dtype.not("one of Keras's dtypes"))?,
        tolerance: node.get("tolerance").map(|node| tolerance(&node)).transpose()?,
        from: sources(node.get("from"))?,
    })
}

/// Finite, not negative, and rtol below 1: an rtol of 1 takes 0 for every number.
fn tolerance(node: &Node<'_>) -> Result<Tolerance, CaseError> {
    let limited = |key: &str, below: f64| {
        let node = node.need(key)?;
        let number = node.number()?;
        if (0.0..below).contains(&number) {
            Ok(number)
        } else {
            Err(node.not(&format!("a number from 0, below {below}")))
        }
    };
    Ok(Tolerance { atol: limited("atol", f64::INFINITY)?, rtol: limited("rtol", 1.0)? })
}

fn refusal(node: &Node<'_>) -> Result<String, CaseError> {
    let text = node.text()?;
    let reason = text.strip_prefix("refused:").map(str::trim).filter(|reason| !reason.is_empty());
    reason.map(str::to_owned).ok_or_else(|| node.not("\"refused: TEXT\""))
}

/// Only for information: what is no number is not there.
fn noise(node: &Node<'_>) -> Noise {
    let number = |key| node.get(key).and_then(|node| node.number().ok());
    Noise {
        scale: number("scale"),
        tf_vs_jax_max_abs: number("tf_vs_jax_max_abs"),
        tf_vs_truth_max_abs: number("tf_vs_truth_max_abs"),
    }
}

fn layer(node: &Node<'_>, whole: Option<Rule>) -> Result<Layer, CaseError> {
    let calls = node.need("calls")?;
    let cumulative = node.get("cumulative").map(|node| rule(&node)).transpose()?;
    let from = node.get("from").map_or(Ok(vec![]), |node| node.list())?;
    Ok(Layer {
        path: node.need("path")?.text()?,
        class: node.need("class")?.text()?,
        calls: calls.count().ok().filter(|count| *count > 0).ok_or_else(|| calls.not("a whole number from 1"))?,
        rule: rule(&node.need("rule")?)?,
        cumulative: cumulative.or(whole).unwrap_or(Rule::Deep),
        from: from.into_iter().map(|node| sources(Some(node))).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
