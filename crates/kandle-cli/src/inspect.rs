//! `kandle inspect`: what a file is and what is in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use candle_core::Device;
use kandle::json::Value;
use kandle::{
    Archive, Compile as _, Compiled, Container, ErrorKind, Instruction, Limits, LoadReport, ModelConfig, Options, Plan,
    Problem, Spec, shown,
};
use serde_json::json;

use crate::rows::{Kind, Origin, Row, WeightRow, numbers, rows};
use crate::source::{Source, is_safetensors};
use crate::terminal::{grouped, plain_json, shape, table, total};
use crate::{Failure, terminal};

/// Say what a Keras file is and what is in it
///
/// Prints how the file is stored and which Keras wrote it, the layers with their shapes and parameters, where each weight
/// goes in a candle VarMap, and what inference ignores. If the model cannot be run, every reason is printed, and the layers
/// all the same. For weights alone: the arrays, and how to run them.
///
/// Exit code 0 if the file could be read, also where it is not supported.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --json, one object; what does not apply or is not known is null:
  file            the path
  container       \"keras\", \"weights\", \"legacy\", \"legacy weights\" or \"architecture\"
  form            how the file is stored, in words
  keras_version, backend
  model           {class, name}
  runs            whether kandle runs this model; null where the weights or the configuration are not given
  inputs          [{name, shape, dtype}]; the batch axis is null
  outputs         [{name, shape, dtype}]
  layers          [{name, class, dtype, output_shape, output_shapes, parameters, trainable_parameters, connected_to,
                  weights}], the layers of models inside the model by path; dtype is the policy's compute dtype,
                  output_shape that of the first output, connected_to [{layer, call, output}] for each call, a list of
                  what it reads
                  weights: [{name, shape, dtype, layout, keras_name, keras_shape, from}]: name and shape are candle's, from is
                  the array in the file
  models          the models inside the model, likewise; their parameters are those of their layers
  parameters      how many numbers the weights have
  trainable_parameters
                  how many of them Keras trains
  weight_bytes    how many bytes they take in the file
  arrays          [{path, shape, dtype}], all arrays of the file
  ignored         {training_configuration, groups: [{name, arrays, numbers, bytes}]}, what inference does not use
  problems        [{kind, at, what}], why it cannot be run
  compiled        with --compiled: [{work, layers, bytes}], the engine's instructions in order; bytes are those of weights

Examples:
  kandle inspect model.keras
  kandle inspect model.json --weights model.weights.h5
  kandle inspect model.keras --compiled")]
pub(crate) struct Args {
    /// A .keras, .weights.h5 or .h5 file, a model's folder, or the JSON of a model
    file: PathBuf,

    /// The weights, where FILE is a configuration alone or other weights are wanted: any of Keras's, or .safetensors
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Print also what the engine makes of the model: its instructions, the layers each stands for, and the bytes of its
    /// weights
    #[arg(long)]
    compiled: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    if is_safetensors(&args.file) {
        let file = args.file.display();
        return Err(
            format!("{file}: safetensors, which name no layers: inspect the model with --weights {file}").into()
        );
    }
    let source = Source::open(&args.file, args.weights.as_deref())?;
    let inspected = Inspected::new(&source)?;
    let compiled = args.compiled.then(|| compiled(&source)).transpose()?;
    let text = match args.json {
        true => {
            let mut object = inspected.json();
            if let (Some(object), Some(compiled)) = (object.as_object_mut(), &compiled) {
                let of = |made: &Instruction| json!({"work": made.work, "layers": made.layers, "bytes": made.bytes});
                object.insert("compiled".to_owned(), compiled.instructions.iter().map(of).collect());
            }
            plain_json(&format!("{object}\n"))
        }
        false => inspected.text() + &compiled.as_ref().map_or_else(String::new, instructions),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    for problem in inspected.unreadable() {
        terminal::complain(&format_args!("{}: {problem}", source.archive.name()));
    }
    Ok(inspected.unreadable().next().is_none())
}

/// What the engine makes of the model.
fn compiled(source: &Source) -> Result<Compiled, Failure> {
    let plan = source.plan()?;
    let (vars, _) = source.load(&plan)?;
    Ok(plan.with(&vars)?.compile(&Options::default())?.compiled())
}

/// The instructions as a table.
fn instructions(compiled: &Compiled) -> String {
    if compiled.instructions.is_empty() {
        return "\ncompiled: the model is run as it is, layer by layer\n".to_owned();
    }
    let row = |(number, made): (usize, &Instruction)| {
        let layers = made.layers.iter().map(|layer| shown(layer)).collect::<Vec<_>>().join(" + ");
        [format!("{number}"), made.work.clone(), grouped(made.bytes), layers]
    };
    let rows: Vec<_> = compiled.instructions.iter().enumerate().map(row).collect();
    let calls = match compiled.calls {
        0 => String::new(),
        calls => format!("{calls} of {} instructions are calls of layers that have no kernel\n", rows.len()),
    };
    format!("\n{}\n{calls}", table([">compiled", "work", ">bytes", "layers"], &rows))
}

/// A file as far as it could be followed: to its configuration, to the plan, to its weights.
struct Inspected<'a> {
    archive: &'a Archive,
    safetensors: Option<&'a Path>,
    config: Option<ModelConfig>,
    plan: Option<Plan>,
    report: Option<LoadReport>,
    problems: Vec<Problem>,
}

impl<'a> Inspected<'a> {
    fn new(source: &'a Source) -> kandle::Result<Self> {
        let archive = &source.archive;
        let (config, plan, report, problems) = (None, None, None, Vec::new());
        let mut inspected =
            Self { archive, safetensors: source.safetensors.as_deref(), config, plan, report, problems };
        if !archive.container().has_config() {
            return Ok(inspected);
        }
        let config = archive.config()?;
        match Plan::new(&config) {
            Ok(plan) => {
                let report = match &source.safetensors {
                    Some(path) => plan.load_safetensors(path, &Device::Cpu).map(|(_, report)| Some(report)),
                    None if archive.has_weights() => plan.weights().check(archive).map(Some),
                    None => Ok(None),
                };
                match report {
                    Ok(report) => inspected.report = report,
                    Err(error) => inspected.problems = error.problems().cloned().collect(),
                }
                inspected.plan = Some(plan);
            }
            Err(error) => inspected.problems = error.problems().cloned().collect(),
        }
        inspected.config = Some(config);
        Ok(inspected)
    }

    /// Whether there are weights, in the file or beside it.
    fn has_weights(&self) -> bool {
        self.archive.has_weights() || self.safetensors.is_some()
    }

    /// The problems that are the file's own: parts of it cannot be read.
    fn unreadable(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| {
            matches!(problem.kind, ErrorKind::Io | ErrorKind::NotKeras | ErrorKind::Damaged | ErrorKind::Limit)
        })
    }

    /// Whether the model runs; none where there is none, or no weights for it, unless it would not run with any.
    fn runs(&self) -> Option<bool> {
        self.config.as_ref()?;
        (self.has_weights() || !self.problems.is_empty()).then_some(self.report.is_some())
    }

    fn rows(&self) -> Vec<Row> {
        match (&self.plan, &self.config) {
            (Some(plan), _) => rows(plan, self.report.as_ref()),
            (None, Some(config)) => config.layers.iter().map(Row::unplanned).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// How many bytes the loaded weights take in the file.
    fn weight_bytes(&self) -> Option<usize> {
        let of = |path: &str| {
            let array = self.archive.arrays().array(path)?;
            Some(numbers(array.shape()).saturating_mul(array.dtype().ok()?.size()))
        };
        if self.safetensors.is_some() {
            let stored = self.report.as_ref()?.loaded.iter();
            return Some(total(stored.map(|weight| numbers(&weight.shape).saturating_mul(weight.stored.size()))));
        }
        // Where candle has several variables for one array, it is there once.
        let loaded: BTreeSet<&str> = self.report.as_ref()?.loaded.iter().map(|weight| weight.from.as_str()).collect();
        loaded.into_iter().map(of).collect::<Option<Vec<_>>>().map(total)
    }

    /// Path, shape and dtype of every array of the file.
    fn arrays(&self) -> Vec<(&'a str, &'a [usize], Option<kandle::Dtype>)> {
        let arrays = self.archive.arrays();
        let known = arrays.paths().filter_map(|path| arrays.array(path));
        known.map(|array| (array.path(), array.shape(), array.dtype().ok())).collect()
    }

    fn outputs(&self) -> Vec<(String, Spec)> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let named = |(number, slot): (usize, &usize)| Some((format!("output_{number}"), plan.slot(*slot)?.clone()));
        plan.outputs().iter().enumerate().filter_map(named).collect()
    }

    fn inputs(&self) -> Vec<(String, Spec)> {
        let inputs = self.plan.iter().flat_map(|plan| plan.inputs());
        inputs.map(|input| (input.name.clone(), input.spec.clone())).collect()
    }

    fn text(&self) -> String {
        let archive = self.archive;
        let mut text = format!("{}: {}\n", archive.name(), archive.container().says());
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "form: {}\n{}\n", archive.form(), self.writer());
        if let Some(weights) = self.safetensors {
            let _ = writeln!(text, "weights: {}, safetensors", weights.display());
        }
        match &self.config {
            None => self.push_bare(&mut text),
            Some(config) => self.push_model(&mut text, config),
        }
        text
    }

    /// Which Keras wrote the file.
    fn writer(&self) -> String {
        let (archive, version) = (self.archive, self.archive.keras_version());
        let backend = archive.backend().map_or_else(String::new, |backend| format!(" on {}", shown(backend)));
        let major = self.config.as_ref().map(ModelConfig::keras_major);
        match (version, major) {
            (Some(version), Some(1 | 2)) => {
                format!("written by Keras {}{backend}; its settings mean what they meant there", shown(version))
            }
            (Some(version), _) => format!("written by Keras {}{backend}", shown(version)),
            (None, Some(major)) => format!("written by Keras {major}{backend}: the file names no version"),
            (None, None) => "the file does not say which Keras wrote it".to_owned(),
        }
    }

    fn push_bare(&self, text: &mut String) {
        let arrays = self.arrays();
        let row = |(path, sizes, dtype): &(&str, &[usize], Option<kandle::Dtype>)| {
            [shown(path), shape(sizes), dtype.map_or_else(|| "?".to_owned(), |dtype| dtype.to_string())]
        };
        let rows: Vec<_> = arrays.iter().map(row).collect();
        let _ = write!(text, "\n{}\n", table(["array", "shape", "dtype"], &rows));
        self.push_ignored(text);
        let name = self.archive.name();
        let _ = write!(
            text,
            "The file does not say which layers these belong to. To run them, give the model as well, its .keras file or the \
             text of model.to_json():\n  \
             kandle infer model.json --weights {name} --input FILE --out FILE\n"
        );
        if self.archive.weights_are_legacy() {
            return;
        }
        let groups = arrays.iter().filter_map(|(path, _, _)| path.strip_suffix("/vars/0"));
        let group = groups.into_iter().find(|group| group.starts_with("layers/")).unwrap_or("layers/dense");
        let _ = write!(
            text,
            "To fill a model of your own in Rust, say which layer is which, for each of them:\n  \
             kandle::WeightMap::new(&[kandle::FileLayer::at(\"{}\").is(class, settings).of(sample_shape), …])?\n",
            shown(group)
        );
    }

    fn push_model(&self, text: &mut String, config: &ModelConfig) {
        let _ = write!(text, "model \"{}\" ({})\n\n", shown(&config.name), shown(&config.class));
        let rows = self.rows();
        let unknown = || "?".to_owned();
        let cells = |row: &Row| {
            [
                format!("{} ({})", shown(&row.name), shown(&row.class)),
                row.output_shapes().unwrap_or_else(unknown),
                row.parameters.map_or_else(unknown, grouped),
                row.connected_to(),
            ]
        };
        let lines: Vec<_> = rows.iter().map(cells).collect();
        if !lines.is_empty() {
            let _ =
                writeln!(text, "{}", table(["layer (class)", "output shape", ">parameters", "connected to"], &lines));
        }
        let weight = |weight: &WeightRow| {
            [
                shown(&weight.name),
                shape(&weight.shape),
                weight.layout.clone(),
                format!("{} {}", weight.keras_name, shape(&weight.keras_shape)),
                weight.from.as_deref().map_or_else(unknown, shown),
            ]
        };
        let lines: Vec<_> = rows.iter().flat_map(|row| &row.weights).flatten().map(weight).collect();
        if !lines.is_empty() {
            let _ = writeln!(text, "{}", table(["weight", "shape", "layout", "in Keras", "from"], &lines));
        }
        for (number, (name, spec)) in self.inputs().iter().enumerate() {
            let _ = writeln!(text, "input_{number}: \"{}\" {} {}", shown(name), spec.shape, spec.dtype);
        }
        for (name, spec) in self.outputs() {
            let _ = writeln!(text, "{name}: {} {}", spec.shape, spec.dtype);
        }
        match sums(&rows) {
            Some((parameters, trainable)) => {
                let bytes = self.weight_bytes().map_or_else(String::new, |bytes| format!(", {} bytes", grouped(bytes)));
                let (parameters, trainable) = (grouped(parameters), grouped(trainable));
                let _ = writeln!(text, "parameters: {parameters} ({trainable} trainable{bytes})");
            }
            None if self.archive.has_weights() => {
                let arrays = self.arrays();
                let numbers = total(arrays.iter().map(|array| numbers(array.1)));
                let _ = writeln!(text, "the file has {} arrays, {} numbers", grouped(arrays.len()), grouped(numbers));
            }
            None => {}
        }
        if !self.has_weights() {
            let name = self.archive.name();
            let _ = writeln!(
                text,
                "the weights are in another file: kandle infer {name} --weights FILE --input FILE --out FILE"
            );
        }
        self.push_ignored(text);
        match self.problems.len() {
            0 => {}
            1 => text.push_str("cannot be run:\n"),
            count => drop(writeln!(text, "cannot be run, for {count} reasons:")),
        }
        for problem in &self.problems {
            let _ = writeln!(text, "{}: {problem}", word(problem.kind));
        }
    }

    fn push_ignored(&self, text: &mut String) {
        if self.config.as_ref().is_some_and(|config| config.compiled) {
            let _ = writeln!(text, "ignored: training configuration{}", training(self.archive));
        }
        for Ignored { name, arrays, numbers, bytes } in ignored(self.archive) {
            let (name, bytes) =
                (shown(name), bytes.map_or_else(String::new, |bytes| format!(", {} bytes", grouped(bytes))));
            let _ = writeln!(text, "ignored: {name}, {arrays} arrays, {} numbers{bytes}", grouped(numbers));
        }
    }

    /// The same in JSON, the texts of the file as they are.
    fn json(&self) -> Value {
        let archive = self.archive;
        let specs = |specs: Vec<(String, Spec)>| -> Value {
            let spec = |(name, spec): &(String, Spec)| json!({"name": name, "shape": spec.shape.0, "dtype": spec.dtype.name()});
            specs.iter().map(spec).collect()
        };
        let weight = |weight: &WeightRow| {
            json!({
                "name": weight.name,
                "shape": weight.shape,
                "dtype": weight.dtype,
                "layout": weight.layout,
                "keras_name": weight.keras_name,
                "keras_shape": weight.keras_shape,
                "from": weight.from,
            })
        };
        let origin = |origin: &Origin| json!({"layer": origin.layer, "call": origin.call, "output": origin.output});
        let row = |row: &Row| {
            json!({
                "name": row.name,
                "class": row.class,
                "dtype": row.dtype,
                "output_shape": row.outputs.as_ref().and_then(|outputs| outputs.first()).map(|output| &output.shape.0),
                "output_shapes": row.outputs.as_ref().map(|outputs| outputs.iter().map(|output| json!(output.shape.0)).collect::<Value>()),
                "parameters": row.parameters,
                "trainable_parameters": row.trainable,
                "connected_to": row.connected.as_ref().map(|calls| calls.iter().map(|call| call.iter().map(origin).collect::<Value>()).collect::<Value>()),
                "weights": row.weights.as_ref().map(|weights| weights.iter().map(weight).collect::<Value>()),
            })
        };
        let rows = self.rows();
        let of = |kind: Kind| -> Value { rows.iter().filter(|row| row.kind == kind).map(row).collect() };
        let sums = sums(&rows);
        let array = |(path, shape, dtype): &(&str, &[usize], Option<kandle::Dtype>)| json!({"path": path, "shape": shape, "dtype": dtype.map(kandle::Dtype::name)});
        let group = |group: &Ignored<'_>| json!({"name": group.name, "arrays": group.arrays, "numbers": group.numbers, "bytes": group.bytes});
        let problem = |problem: &Problem| json!({"kind": word(problem.kind), "at": problem.at, "what": problem.what});
        json!({
            "file": archive.name(),
            "container": container(archive.container()),
            "form": archive.form(),
            "keras_version": archive.keras_version(),
            "backend": archive.backend(),
            "model": self.config.as_ref().map(|config| json!({"class": config.class, "name": config.name})),
            "runs": self.runs(),
            "inputs": self.plan.as_ref().map(|_| specs(self.inputs())),
            "outputs": self.plan.as_ref().map(|_| specs(self.outputs())),
            "layers": self.config.as_ref().map(|_| of(Kind::Layer)),
            "models": self.plan.as_ref().map(|_| of(Kind::Model)),
            "parameters": sums.map(|(parameters, _)| parameters),
            "trainable_parameters": sums.map(|(_, trainable)| trainable),
            "weight_bytes": self.weight_bytes(),
            "arrays": self.arrays().iter().map(array).collect::<Value>(),
            "ignored": {
                "training_configuration": self.config.as_ref().map(|config| config.compiled),
                "groups": ignored(archive).iter().map(group).collect::<Value>(),
            },
            "problems": self.problems.iter().map(problem).collect::<Value>(),
        })
    }
}

/// Arrays of a file that are no weights of the model, such as the state of the optimizer.
struct Ignored<'a> {
    name: &'a str,
    arrays: usize,
    numbers: usize,
    bytes: Option<usize>,
}

fn ignored(archive: &Archive) -> Vec<Ignored<'_>> {
    let root = if archive.weights_are_legacy() { archive.legacy_root() } else { "layers/" };
    let mut groups: Vec<Ignored<'_>> = Vec::new();
    let arrays = archive.arrays();
    for path in arrays.paths().filter(|path| !path.starts_with(root)) {
        let Some(array) = arrays.array(path) else { continue };
        let name = path.split('/').next().unwrap_or_default();
        let numbers = numbers(array.shape());
        let bytes = array.dtype().ok().map(|dtype| numbers.saturating_mul(dtype.size()));
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => {
                group.arrays += 1;
                group.numbers = group.numbers.saturating_add(numbers);
                group.bytes = group.bytes.zip(bytes).map(|(sum, bytes)| sum.saturating_add(bytes));
            }
            None => groups.push(Ignored { name, arrays: 1, numbers, bytes }),
        }
    }
    groups
}

/// The optimizer and the loss that a file was trained with, as far as it names them.
fn training(archive: &Archive) -> String {
    let legacy = || archive.arrays().text_attribute("", "training_config").ok().flatten();
    let parsed = || kandle::json::parse(legacy()?.as_bytes(), "", &Limits::default()).ok();
    let compiled = archive.config_json().and_then(|config| config.get("compile_config")).cloned().or_else(parsed);
    let named = |value: &Value| {
        let name = value.get("class_name").unwrap_or(value).as_str()?;
        Some(shown(name))
    };
    let one = |key: &str| compiled.as_ref()?.get(key).and_then(named);
    let optimizer = one("optimizer").or_else(|| one("optimizer_config")).map(|name| format!("optimizer {name}"));
    let loss = one("loss").map(|name| format!("loss {name}"));
    let found: Vec<String> = [optimizer, loss].into_iter().flatten().collect();
    if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) }
}

/// How many numbers the weights of all layers have, and how many of them are trained.
fn sums(rows: &[Row]) -> Option<(usize, usize)> {
    let layers = || rows.iter().filter(|row| row.kind != Kind::Model);
    let sum = |of: fn(&Row) -> Option<usize>| layers().map(of).collect::<Option<Vec<_>>>().map(total);
    Some((sum(|row| row.parameters)?, sum(|row| row.trainable)?))
}

fn container(container: Container) -> &'static str {
    match container {
        Container::Keras => "keras",
        Container::Weights => "weights",
        Container::Legacy => "legacy",
        Container::LegacyWeights => "legacy weights",
        Container::Architecture => "architecture",
        _ => "other",
    }
}

/// What kind of problem it is, in words.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unsupported => "not supported",
        ErrorKind::Damaged => "damaged",
        ErrorKind::Limit => "over a limit",
        ErrorKind::Missing => "missing",
        ErrorKind::Invalid => "not valid",
        ErrorKind::Weights => "weights do not fit",
        _ => "error",
    }
}
