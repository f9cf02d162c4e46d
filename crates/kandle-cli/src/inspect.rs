//! `kandle inspect`: what a file is and what is in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use kandle::json::Value;
use kandle::{Archive, Container, ErrorKind, Limits, LoadReport, ModelConfig, Plan, Problem, Spec, shown};
use serde_json::json;

use crate::rows::{Kind, Origin, Row, WeightRow, numbers, rows};
use crate::terminal::{grouped, plain_json, shape, table, total};
use crate::{Failure, terminal};

/// Say what a Keras file is and what is in it
///
/// Prints which Keras wrote the file, the layers with their shapes and parameters, where each weight goes in a candle
/// VarMap, and what inference ignores. If the model cannot be run, every reason is printed, and the layers all the same.
/// For a bare .weights.h5: its arrays, and how to load them.
///
/// Exit code 0 if the file could be read, also where it is not supported.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --json, one object; what does not apply or is not known is null:
  file            the path
  container       \"keras\", \"weights\", \"legacy\", \"legacy weights\" or \"architecture\"
  keras_version, backend
  model           {class, name}
  runs            whether kandle runs this model; null for weights without a configuration
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
  ignored         {training_configuration, groups: [{name, arrays}]}, what inference does not use
  problems        [{kind, at, what}], why it cannot be run

Example:
  kandle inspect model.keras")]
pub(crate) struct Args {
    /// A .keras, .weights.h5 or whole-model .h5 file
    file: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let archive = Archive::open(&args.file, &Limits::default())?;
    let inspected = Inspected::new(&archive)?;
    let text = match args.json {
        true => plain_json(&format!("{}\n", inspected.json())),
        false => inspected.text(),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    for problem in inspected.unreadable() {
        terminal::complain(&format_args!("{}: {problem}", archive.name()));
    }
    Ok(inspected.unreadable().next().is_none())
}

/// A file as far as it could be followed: to its configuration, to the plan, to its weights.
struct Inspected<'a> {
    archive: &'a Archive,
    config: Option<ModelConfig>,
    plan: Option<Plan>,
    report: Option<LoadReport>,
    problems: Vec<Problem>,
}

impl<'a> Inspected<'a> {
    fn new(archive: &'a Archive) -> kandle::Result<Self> {
        let mut inspected = Self { archive, config: None, plan: None, report: None, problems: Vec::new() };
        if !archive.container().has_config() {
            return Ok(inspected);
        }
        let config = archive.config()?;
        match Plan::new(&config) {
            Ok(plan) => {
                match plan.weights().check(archive) {
                    Ok(report) => inspected.report = Some(report),
                    Err(error) => inspected.problems = error.problems().cloned().collect(),
                }
                inspected.plan = Some(plan);
            }
            Err(error) => inspected.problems = error.problems().cloned().collect(),
        }
        inspected.config = Some(config);
        Ok(inspected)
    }

    /// The problems that are the file's own: parts of it cannot be read.
    fn unreadable(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| {
            matches!(problem.kind, ErrorKind::Io | ErrorKind::NotKeras | ErrorKind::Damaged | ErrorKind::Limit)
        })
    }

    /// Whether the model runs; none where there is no model.
    fn runs(&self) -> Option<bool> {
        self.config.as_ref().map(|_| self.report.is_some())
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
        if let Some(version) = archive.keras_version() {
            let backend = archive.backend().map_or_else(String::new, |backend| format!(" on {}", shown(backend)));
            let _ = writeln!(text, "written by Keras {}{backend}", shown(version));
        }
        match &self.config {
            None => self.push_bare(&mut text),
            Some(config) => self.push_model(&mut text, config),
        }
        text
    }

    fn push_bare(&self, text: &mut String) {
        let arrays = self.arrays();
        let row = |(path, sizes, dtype): &(&str, &[usize], Option<kandle::Dtype>)| {
            [shown(path), shape(sizes), dtype.map_or_else(|| "?".to_owned(), |dtype| dtype.to_string())]
        };
        let rows: Vec<_> = arrays.iter().map(row).collect();
        let _ = write!(text, "\n{}\n", table(["array", "shape", "dtype"], &rows));
        let groups = arrays.iter().filter_map(|(path, _, _)| path.strip_suffix("/vars/0"));
        let group = groups.into_iter().find(|group| group.starts_with("layers/")).unwrap_or("layers/dense");
        let _ = write!(
            text,
            "The file does not say which layers these belong to. To load it, open the model as well:\n  \
             kandle::Plan::new(&model.config()?)?.load(&weights, &device)?\n\
             or say which layer is which, for each of them:\n  \
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
            None => {
                let arrays = self.arrays();
                let numbers = total(arrays.iter().map(|array| numbers(array.1)));
                let _ = writeln!(text, "the file has {} arrays, {} numbers", grouped(arrays.len()), grouped(numbers));
            }
        }
        self.push_ignored(text, config);
        for problem in &self.problems {
            let _ = writeln!(text, "{}: {problem}", word(problem.kind));
        }
    }

    fn push_ignored(&self, text: &mut String, config: &ModelConfig) {
        if config.compiled {
            text.push_str("ignored: training configuration\n");
        }
        for (group, arrays) in self.report.iter().flat_map(|report| &report.ignored) {
            let _ = writeln!(text, "ignored: {}, {arrays} arrays", shown(group));
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
        let ignored = |group: &(String, usize)| json!({"name": group.0, "arrays": group.1});
        let problem = |problem: &Problem| json!({"kind": word(problem.kind), "at": problem.at, "what": problem.what});
        json!({
            "file": archive.name(),
            "container": container(archive.container()),
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
            "ignored": self.config.as_ref().map(|config| json!({
                "training_configuration": config.compiled,
                "groups": self.report.as_ref().map(|report| report.ignored.iter().map(ignored).collect::<Value>()),
            })),
            "problems": self.problems.iter().map(problem).collect::<Value>(),
        })
    }
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
