//! `kandle infer`: runs a model on inputs from files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kandle::parity::{Array, Case};
use kandle::{Input, Model, shown};

use crate::source::Source;
use crate::tensors::{self, Format};
use crate::{Failure, terminal};

/// Run a model and write what it gives
///
/// MODEL is a .keras file, a whole-model .h5 file, or the JSON of a model with --weights. CASE is a folder of a recorded case: its first model file runs, on
/// the inputs that were recorded unless others are given.
///
/// The outputs are output_0, output_1, … in Keras's order; one line of name, shape and dtype is printed for each. The
/// file is written whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  kandle infer model.keras --input ids.npy --out ys.safetensors
  kandle infer model.keras --input left=a.npy --input right=b.npy --out ys.json
  kandle infer model.json --weights model.safetensors --input ids.npy --out ys.npy")]
pub(crate) struct Args {
    /// A model file, or the folder of a recorded case
    #[arg(value_name = "CASE|MODEL")]
    model: PathBuf,

    /// Inputs: .safetensors or .json with the inputs by name, .npy or a JSON list for a model of one input; NAME=FILE where
    /// the file holds one tensor
    ///
    /// Names are those that `kandle inspect` prints, or input_0, input_1, … in that order, all the one or all the other where
    /// both could be meant. A .json file is an object from
    /// names to nested lists of numbers, true and false, or strings. Numbers are cast to the dtype that the input has. In a
    /// .safetensors file strings are their bytes one after another (U8), NAME.offsets where each begins and the last ends
    /// (I64), and NAME.shape (I64).
    #[arg(long, value_name = "[NAME=]FILE")]
    input: Vec<String>,

    /// The weights, where MODEL is a configuration alone or other weights are wanted: any of Keras's, or the .safetensors
    /// that `kandle convert` writes
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// The file to write: .safetensors (every dtype kept), .npy (a model of one output) or .json
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let format = Format::of(&args.out)?;
    let (model, recorded) = open(&args.model, args.weights.as_deref())?;
    let outputs = model.plan().outputs().len();
    if format == Format::Npy && outputs != 1 {
        let out = args.out.display();
        return Err(format!("{out}: the model has {outputs} outputs: write .safetensors or .json").into());
    }
    let inputs = match recorded {
        Some(recorded) if args.input.is_empty() => recorded.into_iter().map(Some).collect(),
        _ => inputs(&args.input, model.plan().inputs())?,
    };
    let inputs: Vec<_> =
        inputs.iter().map(|input| input.as_ref().map(kandle::value).transpose()).collect::<Result<_, _>>()?;
    let outputs = model.detached().run_with(&inputs)?;
    let named = |(number, value)| Ok((format!("output_{number}"), kandle::array(value)?));
    let arrays: Vec<(String, Array)> = outputs.iter().enumerate().map(named).collect::<Result<_, Failure>>()?;
    tensors::write(&args.out, &arrays)?;
    let mut out = io::stdout().lock();
    for ((name, array), value) in arrays.iter().zip(&outputs) {
        writeln!(out, "{name} {} {}", terminal::shape(array.shape()), value.dtype)?;
    }
    Ok(true)
}

/// The model, and the inputs recorded beside it where `path` is a case. A model may be a folder too.
fn open(path: &Path, weights: Option<&Path>) -> Result<(Model, Option<Vec<Array>>), Failure> {
    if !path.is_dir() || weights.is_some() || path.join("config.json").is_file() {
        let source = Source::open(path, weights)?;
        let plan = source.plan()?;
        let (vars, _) = source.load(&plan)?;
        return Ok((plan.with(&vars)?, None));
    }
    let case = Case::open(path)?;
    let file = case.files.first().ok_or("the case has no model file")?;
    let model = kandle::load_recorded(&case, file)?;
    Ok((model, Some(case.input_arrays())))
}

/// Reads the files of the command line and gives each of the model's inputs its tensor; an optional one may have none.
fn inputs(given: &[String], wanted: &[Input]) -> Result<Vec<Option<Array>>, Failure> {
    let mut slots: Vec<Option<Array>> = vec![None; wanted.len()];
    let mut all = Vec::new();
    for argument in given {
        let (name, file) = named_file(argument);
        let read = tensors::read(Path::new(file))?;
        if name.is_some() && read.len() != 1 {
            return Err(format!("{file}: expected one tensor for {argument}, found {}", read.len()).into());
        }
        all.extend(read.into_iter().map(|(own_name, array)| (file, name.map(str::to_owned).or(own_name), array)));
    }
    let numbered = are_numbers(all.iter().map(|(_, name, _)| name.as_deref()), wanted);
    for (file, name, array) in all {
        let position = position(name.as_deref(), wanted, numbered).map_err(|what| format!("{file}: {what}"))?;
        let slot = slots.get_mut(position).ok_or("the model has no such input")?;
        if slot.replace(array).is_some() {
            let twice = wanted.get(position).map(|input| shown(&input.name)).unwrap_or_default();
            return Err(format!("{file}: input \"{twice}\" is given twice").into());
        }
    }
    let missing: Vec<String> = wanted
        .iter()
        .enumerate()
        .zip(&slots)
        .filter(|((_, input), slot)| slot.is_none() && !input.optional)
        .map(|((number, input), _)| described(number, input))
        .collect();
    if missing.is_empty() {
        Ok(slots)
    } else {
        Err(format!("no input for {}: give it with --input [NAME=]FILE", missing.join(", ")).into())
    }
}

/// `NAME=FILE` or `FILE`. What has a `/` in it is no name, so that a file with `=` in its path can be given too.
fn named_file(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once('=') {
        Some((name, file)) if !name.contains('/') => (Some(name), file),
        _ => (None, argument),
    }
}

/// Whether the names mean input_0, input_1, … in the order of the inputs, and not what the inputs are called. Keras 1 and 2
/// call the first input input_1, which is the second one by its number: all names together tell which is meant.
fn are_numbers<'a>(names: impl Iterator<Item = Option<&'a str>>, wanted: &[Input]) -> bool {
    let names: Vec<&str> = names.flatten().collect();
    let is_called = |name: &&str| wanted.iter().any(|input| input.name == **name);
    let is_number = |name: &&str| (0..wanted.len()).any(|number| **name == format!("input_{number}"));
    !names.iter().all(is_called) && names.iter().all(is_number)
}

/// Which input `name` is: one of the model's names, or input_i. Without a name it is the only one.
fn position(name: Option<&str>, wanted: &[Input], numbered: bool) -> Result<usize, String> {
    let all =
        || wanted.iter().enumerate().map(|(number, input)| described(number, input)).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        return match wanted {
            [_] => Ok(0),
            _ => Err(format!("a tensor without a name, but the model has {} inputs: {}", wanted.len(), all())),
        };
    };
    let by_name = wanted.iter().position(|input| input.name == name).filter(|_| !numbered);
    let by_number = || (0..wanted.len()).find(|number| name == format!("input_{number}"));
    by_name.or_else(by_number).ok_or_else(|| format!("no input is called \"{}\": the model has {}", shown(name), all()))
}

/// `"ids" (input_0)`
fn described(number: usize, input: &Input) -> String {
    format!("\"{}\" (input_{number})", shown(&input.name))
}

#[cfg(test)]
mod tests {
    use super::named_file;

    #[test]
    fn a_path_with_an_equals_sign_is_no_name() {
        for (argument, name, file) in [
            ("x.npy", None, "x.npy"),
            ("ids=x.npy", Some("ids"), "x.npy"),
            ("ids=a/b=c.npy", Some("ids"), "a/b=c.npy"),
            ("./a=b.npy", None, "./a=b.npy"),
        ] {
            assert_eq!(named_file(argument), (name, file));
        }
    }
}
