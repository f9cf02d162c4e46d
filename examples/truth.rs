//! How far Keras and kandle are from the same models computed in float64, over all recorded cases.
//!
//! ```text
//! cargo run --release --example truth              # the cases in reference_outputs
//! cargo run --release --example truth -- my_cases
//! ```
//!
//! It prints the tables of docs/tolerances.md. Every float32 output with a float64 truth counts once; S is its largest
//! |keras|, the outputs of S = 0 are left out, and errors are shown as parts of S.

use std::{fmt, process::ExitCode};

use kandle::parity::{CaseReport, Dtype, How, Outcome, Rule, Truth, find_cases, median};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs");

fn main() -> ExitCode {
    let folder = std::env::args().nth(1).unwrap_or_else(|| CASES.to_owned());
    match measured(&folder) {
        Ok(table) => {
            print!("{table}");
            if table.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One float32 output of a recorded case.
struct Measured {
    rule: Option<Rule>,
    /// The largest |keras|.
    scale: f64,
    /// Ours and Keras's distance from the truth.
    truth: Truth,
    /// The distance of Keras on JAX from it, where that is recorded.
    jax_error: Option<f64>,
}

/// The outputs of all cases.
pub struct Table(Vec<Measured>);

/// Measures all cases at and below `folder`, the first file of each that runs.
///
/// # Errors
/// Where there is no case, or none with a truth.
pub fn measured(folder: &str) -> Result<Table, Box<dyn std::error::Error>> {
    let mut outputs = Vec::new();
    for case in find_cases(folder)? {
        outputs.extend(of_case(&kandle::verify(case)));
    }
    if outputs.is_empty() {
        Err("no case has a float32 output with a float64 truth".into())
    } else {
        Ok(Table(outputs))
    }
}

fn of_case(report: &CaseReport) -> Vec<Measured> {
    let verdict = report.files.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Judged(verdict) => Some(verdict),
        _ => None,
    });
    let (Some(case), Some(verdict)) = (&report.recorded, verdict) else { return Vec::new() };
    let outputs = verdict.checks.iter().filter(|check| check.how == How::Output);
    let measured = outputs.filter_map(|check| {
        let truth = check.truth?;
        let (keras, exact) = (case.output(truth.output)?, case.truth(truth.output)?);
        let jax = case.jax(truth.output).filter(|jax| jax.dtype() == keras.dtype());
        let jax_error = jax.and_then(|jax| Truth::of(truth.output, jax, keras, exact)).map(|jax| jax.truth_error);
        let measured = Measured { rule: check.rule, scale: keras.scale(), truth, jax_error };
        (keras.dtype() == Dtype::F32 && measured.scale > 0.0).then_some(measured)
    });
    measured.collect()
}

impl Table {
    /// Nowhere more than twice as far from the truth as Keras, and by the median no further.
    pub fn is_met(&self) -> bool {
        self.largest_ratio() <= 2.0 && self.median_ratio().is_none_or(|median| median <= 1.0)
    }

    fn largest_ratio(&self) -> f64 {
        self.0.iter().map(|output| output.truth.truth_ratio).fold(0.0, f64::max)
    }

    /// The median of truth_error / keras_error, where Keras's is not 0.
    fn median_ratio(&self) -> Option<f64> {
        median(self.0.iter().filter_map(|output| output.truth.unfloored()))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| rule | outputs | allowed | Keras, median | Keras, largest | JAX, largest | kandle, median | kandle, largest |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for rule in Rule::ALL {
            let of_rule: Vec<&Measured> = self.0.iter().filter(|output| output.rule == Some(rule)).collect();
            let parts = |error: fn(&Measured) -> Option<f64>| -> Vec<f64> {
                of_rule.iter().filter_map(|output| Some(error(output)? / output.scale)).collect()
            };
            let keras = parts(|output| Some(output.truth.keras_error));
            let (jax, ours) = (parts(|output| output.jax_error), parts(|output| Some(output.truth.truth_error)));
            let row = [
                rule.to_string(),
                of_rule.len().to_string(),
                rule.tolerance(1.0).to_string().replace("|keras|", "\\|keras\\|/S"),
                size(median(keras.iter().copied())),
                size(largest(&keras)),
                size(largest(&jax)),
                size(median(ours.iter().copied())),
                size(largest(&ours)),
            ];
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        writeln!(f)?;
        let median = self.median_ratio().map_or("none".to_owned(), |median| format!("{median:.2}"));
        let further = self.0.iter().filter(|output| output.truth.truth_error > output.truth.keras_error).count();
        let nearer = self.0.iter().filter(|output| output.truth.truth_error < output.truth.keras_error).count();
        writeln!(f, "| of {} outputs | |", self.0.len())?;
        writeln!(f, "|---|---|")?;
        writeln!(f, "| largest truth_ratio (at most 2) | {:.2} |", self.largest_ratio())?;
        writeln!(f, "| median of truth_error / keras_error (at most 1) | {median} |")?;
        writeln!(
            f,
            "| kandle nearer to the truth than Keras, as near, further | {nearer}, {}, {further} |",
            self.0.len() - nearer - further
        )
    }
}

fn largest(numbers: &[f64]) -> Option<f64> {
    numbers.iter().copied().reduce(f64::max)
}

fn size(number: Option<f64>) -> String {
    match number {
        None => "–".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(number) => format!("{number:.1e}"),
    }
}
