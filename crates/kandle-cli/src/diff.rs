//! `kandle diff`: how two files differ.

mod architecture;
mod side;
mod weights;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use kandle::shown;
use serde_json::{Value, json};

use self::architecture::{Architecture, Matters, Named, Setting, value};
use self::side::Side;
use self::weights::{Described, Differing, How, Weights};
use crate::Failure;
use crate::terminal::{grouped, plain_json, shape};

/// Say how two files differ
///
/// Compares the layers, their settings and connections, and every weight, bit for bit. The two may be files of two kinds:
/// a .keras file and a legacy .h5 file of one model are equal. Weights alone, .weights.h5 or .safetensors, are compared by
/// name.
///
/// A difference counts where it changes what the model computes. Names of layers, settings that matter in training only and
/// those that say the same in other words are listed and do not count; what Keras numbers anew in each file (object ids,
/// what a layer was built on) is not looked at.
///
/// Exit code 0 if the files are equal for inference, 1 if they differ or cannot be compared.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --json, one object; what does not apply or is not known is null:
  equal           whether the two are equal for inference
  a, b            {file, keras_version, backend, problems}; problems are why it cannot be run
  layers          {removed: [{layer, class}], added: [{layer, class}], renamed: [{a, b, class}]}
  settings        [{layer, class, key, a, b, matters}]; matters is whether it changes what the model computes
  others          [{at, a, b}], differences of the model, its inputs, outputs and calls
  weights         {equal, numbers, missing: [{name, shape, dtype}], extra, not_compared,
                  differing: [{name, shape: [a, b]}, {name, dtype: [a, b]},
                  {name, numbers, of, worst: {at, a, b, distance}}]}
                  equal counts the weights that are the same bit for bit, numbers their numbers; a distance from or to
                  NaN is null

Example:
  kandle diff before.keras after.keras")]
pub(crate) struct Args {
    /// A .keras, .weights.h5, whole-model .h5, .safetensors file, or the JSON of a model
    a: PathBuf,

    /// The file to compare with it
    b: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let (a, b) = (Side::open(&args.a)?, Side::open(&args.b)?);
    let architecture = Architecture::new(&a, &b);
    let weights = Weights::new(&a, &b, &architecture.pairs)?;
    let diff = Diff { a, b, architecture, weights };
    let text = match args.json {
        true => plain_json(&format!("{}\n", diff.json())),
        false => diff.text(),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(diff.is_equal())
}

struct Diff {
    a: Side,
    b: Side,
    architecture: Architecture,
    weights: Weights,
}

impl Diff {
    fn is_equal(&self) -> bool {
        let both = |of: fn(&Side) -> bool| of(&self.a) && of(&self.b);
        let bare = both(|side| side.archive().is_some_and(|archive| !archive.has_weights()));
        self.architecture.differences() + self.weights.differences() == 0
            // Weights that could not be compared are not equal; configurations alone have none.
            && (self.weights.not_compared.is_none() || bare)
            // Nothing was compared.
            && (both(|side| side.config.is_some()) || self.weights.equal > 0)
    }

    fn text(&self) -> String {
        // Writing to a String cannot fail, here and below.
        let mut text = format!("A: {}\nB: {}\n", self.a.says(), self.b.says());
        let Architecture { removed, added, renamed, settings, others, .. } = &self.architecture;
        let mut lines = Vec::new();
        lines.extend(removed.iter().map(|layer| format!("only in A: layer {layer}")));
        lines.extend(added.iter().map(|layer| format!("only in B: layer {layer}")));
        let said = |setting: &Setting| {
            let Setting { layer, key, a, b, .. } = setting;
            format!("{layer}: {}: {}, in B {}", shown(key), value(a.as_ref()), value(b.as_ref()))
        };
        let of = |matters| settings.iter().filter(move |setting: &&Setting| setting.matters == matters);
        lines.extend(of(Matters::Inference).map(said));
        lines.extend(others.iter().map(|(at, a, b)| format!("{at}: {}, in B {}", shown(a), shown(b))));
        let Weights { missing, extra, differing, .. } = &self.weights;
        let weight = |place: &str, weight: &Described| {
            format!("only in {place}: {} {} {}", shown(&weight.name), shape(&weight.shape), weight.dtype)
        };
        lines.extend(missing.iter().map(|missing| weight("A", missing)));
        lines.extend(extra.iter().map(|extra| weight("B", extra)));
        lines.extend(differing.iter().map(differs));
        push(&mut text, "", lines);
        let calm = of(Matters::Nothing).map(said);
        let renamed = renamed.iter().map(|(a, b)| format!("{a} is called {} in B", shown(&b.path)));
        push(&mut text, "without effect on what the model computes:\n", renamed.chain(calm).collect());
        let problems = |side: &Side| side.problems.iter().map(|problem| format!("{}: {problem}", side.name)).collect();
        let problems: Vec<Vec<String>> = [&self.a, &self.b].map(problems).into();
        push(&mut text, "cannot be run:\n", problems.concat());
        let _ = write!(text, "\n{}\n", self.summary());
        text
    }

    fn summary(&self) -> String {
        let Weights { not_compared, equal, equal_numbers, .. } = &self.weights;
        let weights = match not_compared {
            Some(why) => format!("weights were not compared: {why}"),
            None => {
                format!("{} weights, {} numbers are the same bit for bit", grouped(*equal), grouped(*equal_numbers))
            }
        };
        if self.is_equal() {
            return format!("equal for inference; {weights}");
        }
        let plural = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{} {many}", grouped(count)),
        };
        let architecture = plural(self.architecture.differences(), "difference", "differences");
        let differing = plural(self.weights.differences(), "weight differs", "weights differ");
        let verdict = match self.architecture.differences() + self.weights.differences() {
            0 if not_compared.is_none() => return "not known to be equal: there was nothing to compare".to_owned(),
            0 => "not known to be equal".to_owned(),
            _ => format!("different: {architecture} in architecture, {differing}"),
        };
        format!("{verdict}; {weights}")
    }

    fn json(&self) -> Value {
        let side = |side: &Side| {
            json!({
                "file": side.name,
                "keras_version": side.version(),
                "backend": side.backend(),
                "problems": side.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        };
        let layer = |layer: &Named| json!({"layer": layer.path, "class": layer.class});
        let renamed = |(a, b): &(Named, Named)| json!({"a": a.path, "b": b.path, "class": a.class});
        let setting = |setting: &Setting| {
            json!({
                "layer": setting.layer.path,
                "class": setting.layer.class,
                "key": setting.key,
                "a": setting.a.as_ref().map(plain),
                "b": setting.b.as_ref().map(plain),
                "matters": setting.matters == Matters::Inference,
            })
        };
        let other = |(at, a, b): &(String, String, String)| json!({"at": at, "a": a, "b": b});
        let weight = |weight: &Described| json!({"name": weight.name, "shape": weight.shape, "dtype": weight.dtype});
        let differing = |Differing { name, how }: &Differing| match how {
            How::Shape(a, b) => json!({"name": name, "shape": [a, b]}),
            How::Dtype(a, b) => json!({"name": name, "dtype": [a, b]}),
            How::Numbers(numbers) => json!({
                "name": name,
                "numbers": numbers.differing,
                "of": numbers.of,
                "worst": {"at": numbers.at, "a": numbers.a, "b": numbers.b, "distance": numbers.distance()},
            }),
        };
        let (architecture, weights) = (&self.architecture, &self.weights);
        json!({
            "equal": self.is_equal(),
            "a": side(&self.a),
            "b": side(&self.b),
            "layers": {
                "removed": architecture.removed.iter().map(layer).collect::<Value>(),
                "added": architecture.added.iter().map(layer).collect::<Value>(),
                "renamed": architecture.renamed.iter().map(renamed).collect::<Value>(),
            },
            "settings": architecture.settings.iter().map(setting).collect::<Value>(),
            "others": architecture.others.iter().map(other).collect::<Value>(),
            "weights": {
                "equal": weights.equal,
                "numbers": weights.equal_numbers,
                "missing": weights.missing.iter().map(weight).collect::<Value>(),
                "extra": weights.extra.iter().map(weight).collect::<Value>(),
                "differing": weights.differing.iter().map(differing).collect::<Value>(),
                "not_compared": weights.not_compared,
            },
        })
    }
}

/// The value with texts for the numbers that JSON has not.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(plain).collect(),
        value if value.is_string() && kandle::json::number(value).is_some() => kandle::json::shown(value).into(),
        value => value.clone(),
    }
}

fn differs(Differing { name, how }: &Differing) -> String {
    let name = shown(name);
    match how {
        How::Shape(a, b) => format!("{name}: {}, in B {}", shape(a), shape(b)),
        How::Dtype(a, b) => format!("{name}: {a}, in B {b}"),
        How::Numbers(numbers) => format!(
            "{name}: {} of {} numbers differ, the worst at {:?}: {}, in B {} (|d| {:.1e})",
            grouped(numbers.differing),
            grouped(numbers.of),
            numbers.at,
            short(numbers.a),
            short(numbers.b),
            numbers.distance(),
        ),
    }
}

/// A number in as few digits as tell it from all others of its dtype, which has 32 bits at most or 64.
fn short(number: f64) -> String {
    let narrow = number as f32;
    if f64::from(narrow) == number { format!("{narrow:?}") } else { format!("{number:?}") }
}

/// The lines below a heading, if there are any. A file may have any number, of which the first are enough to read.
fn push(text: &mut String, heading: &str, lines: Vec<String>) {
    const SHOWN: usize = 100;
    if lines.is_empty() {
        return;
    }
    let _ = write!(text, "\n{heading}");
    for line in lines.iter().take(SHOWN) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(more @ 1..) = lines.len().checked_sub(SHOWN) {
        let _ = writeln!(text, "  and {} more", grouped(more));
    }
}
