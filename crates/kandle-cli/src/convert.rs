//! `kandle convert`: a model's weights as safetensors, its configuration as JSON.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kandle::{LayerWeights, ModelConfig, Plan, StoredTensor, shown};
use tempfile::NamedTempFile;

use crate::rows::numbers;
use crate::source::Source;
use crate::terminal::{grouped, table, total};
use crate::{Failure, modules, tensors};

/// Write a model's weights as safetensors, for PyTorch and candle
///
/// Every weight goes to OUT.safetensors under the name and in the order that candle-nn and PyTorch have for it, in Keras's
/// dtype: `load_state_dict(load_file("OUT.safetensors"))` takes it where the modules are called as the layers. The model's
/// configuration goes to OUT.json beside it, as the file has it, with the version of Keras.
///
/// An LSTM's second bias, which PyTorch has and Keras has not, is written as zeros. The table that is printed says which
/// module takes which layer; docs/pytorch.md says what each module must be told besides.
///
/// Both files are written, or neither; with --force, a failure between the two can leave the first. What cannot be loaded is
/// refused, by name.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  kandle convert model.keras model.safetensors
  kandle infer model.json --weights model.safetensors --input ids.npy --out ys.npy")]
pub(crate) struct Args {
    /// A .keras file, a whole-model .h5 file, or the JSON of a model
    #[arg(value_name = "IN")]
    model: PathBuf,

    /// The file to write; the configuration goes to the same name with .json
    #[arg(value_name = "OUT.safetensors")]
    out: PathBuf,

    /// The weights, where IN is a configuration alone or other weights are wanted
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let beside = targets(args)?;
    let source = Source::open(&args.model, args.weights.as_deref())?;
    if let Some(path) = &source.safetensors {
        return Err(format!("{}: these weights are safetensors already", path.display()).into());
    }
    source.check_weights()?;
    let archive = &source.archive;
    let (config, plan) = (archive.config()?, source.plan()?);
    let value = archive.config_json().ok_or("the file has no configuration")?;
    let from = args.model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let notes = [("version", env!("CARGO_PKG_VERSION")), ("from", from.as_str())];
    let in_file = |error: kandle::Error| error.in_file(archive.name());
    let text = config.to_json(value, archive.backend(), &notes).map_err(in_file)? + "\n";

    let mut metadata = vec![("format", "pt"), ("kandle_version", env!("CARGO_PKG_VERSION"))];
    metadata.extend(config.keras_version.as_deref().map(|version| ("keras_version", version)));
    let written = plan.weights().tensors(archive)?;
    let mut tensors_file = tensors::temporary(&args.out)?;
    let mut out = BufWriter::new(tensors_file.as_file_mut());
    plan.weights().write_safetensors(archive, &metadata, &mut out)?;
    out.flush().map_err(|error| cannot_write(&args.out, &error))?;
    drop(out);
    let mut text_file = tensors::temporary(&beside)?;
    text_file.write_all(text.as_bytes()).map_err(|error| cannot_write(&beside, &error))?;
    keep(text_file, &beside, args.force)?;
    if let Err(error) = keep(tensors_file, &args.out, args.force) {
        if !args.force {
            // It was not there before, and says nothing without the other.
            let _ = fs::remove_file(&beside);
        }
        return Err(error);
    }
    io::stdout().lock().write_all(report(args, &beside, &config, &plan, &written).as_bytes())?;
    Ok(true)
}

/// Where the configuration goes. Checked before anything is read: names, and what would be written over.
fn targets(args: &Args) -> Result<PathBuf, Failure> {
    let out = args.out.display();
    if args.out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(format!("{out}: expected a name that ends in .safetensors").into());
    }
    let beside = args.out.with_extension("json");
    let same = |a: &Path, b: &Path| fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b));
    for target in [&args.out, &beside] {
        if [Some(&args.model), args.weights.as_ref()].into_iter().flatten().any(|given| same(given, target)) {
            return Err(format!("{}: would be written over the file that is read", target.display()).into());
        }
        if target.is_dir() {
            return Err(format!("{}: is a folder", target.display()).into());
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if args.model.is_dir() && same(&args.model, folder) {
            return Err(format!("{}: lies in the folder that is read", target.display()).into());
        }
    }
    if let Some(target) = [&args.out, &beside].into_iter().find(|target| target.symlink_metadata().is_ok())
        && !args.force
    {
        return Err(format!("{}: is there already: give --force to write over it", target.display()).into());
    }
    Ok(beside)
}

/// Gives a file that is all written its name.
fn keep(file: NamedTempFile, path: &Path, force: bool) -> Result<(), Failure> {
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|error| cannot_write(path, &error.error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    format!("{}: cannot write: {error}", path.display()).into()
}

fn report(args: &Args, beside: &Path, config: &ModelConfig, plan: &Plan, written: &[StoredTensor<'_>]) -> String {
    let count = grouped(total(written.iter().map(|tensor| numbers(&tensor.shape))));
    let bytes = grouped(total(written.iter().map(StoredTensor::size)));
    let version =
        config.keras_version.as_deref().map_or_else(String::new, |version| format!(" of Keras {}", shown(version)));
    let mut text = format!(
        "{}: {} tensors, {count} numbers, {bytes} bytes\n{}: the configuration of \"{}\" ({}){version}\n",
        args.out.display(),
        grouped(written.len()),
        beside.display(),
        shown(&config.name),
        shown(&config.class),
    );
    let row = |layer: &LayerWeights| {
        let names = layer.weights.iter().flat_map(|weight| [Some(layer.name(weight)), layer.zeros_beside(weight)]);
        let names: Vec<String> = names.flatten().map(|name| shown(&name)).collect();
        let module = modules::module(layer);
        let named = |name: Option<&str>| name.filter(|name| !name.is_empty()).unwrap_or("none").to_owned();
        [
            format!("{} ({})", shown(&layer.layer), shown(&layer.class)),
            named(module.map(|module| module.0)),
            named(module.map(|module| module.1)),
            names.join(", "),
        ]
    };
    let rows: Vec<_> = plan.weights().layers().iter().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(["layer (class)", "PyTorch", "candle_nn", "tensors"], &rows));
    }
    text
}
