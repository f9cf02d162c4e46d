//! Every layer of a verdict in a table, in the order in which they ran.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::case::Case;
use crate::compare::{Mismatch, Worst};
use crate::text;
use crate::verdict::{Check, How, Verdict};

/// One layer's call, or the outputs of the whole.
struct Row {
    layer: String,
    class: String,
    isolated: Cell,
    cumulative: Cell,
}

/// What became of one layer one way.
enum Cell {
    /// Nothing is to be said of it here: the outputs of the whole are not a layer.
    Blank,
    Unchecked,
    Passed(Option<Measured>),
    /// What is wrong, in a word or a number.
    Failed(String),
}

/// The worst number: |ours − keras|, and how much of what is allowed that is.
struct Measured {
    difference: f64,
    part: f64,
}

impl Measured {
    fn of(worst: &Worst) -> Measured {
        let part = if worst.difference == 0.0 { 0.0 } else { worst.difference / worst.allowed };
        Measured { difference: worst.difference, part }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0.0 => f.write_str("0"),
            part if part.is_finite() && part < 9.5 => write!(f, "{} ({part:.2})", text::size(self.difference)),
            part if part.is_finite() => write!(f, "{} ({part:.0e})", text::size(self.difference)),
            _ => write!(f, "{} (nothing allowed)", text::size(self.difference)),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Blank => Ok(()),
            Cell::Unchecked => f.write_str("unchecked"),
            Cell::Passed(None) => f.write_str("ok"),
            Cell::Passed(Some(measured)) => write!(f, "ok {measured}"),
            Cell::Failed(what) => write!(f, "FAIL {what}"),
        }
    }
}

impl Cell {
    /// Of several tensors the one furthest beyond what is allowed; it fails where any does.
    fn of(checks: &[&Check]) -> Cell {
        let measured = |checks: &mut dyn Iterator<Item = &&Check>| {
            let worst = checks.filter_map(|check| check.result.as_ref().ok()?.worst.as_ref());
            worst.reduce(Worst::worse).map(Measured::of)
        };
        let Some(first) = checks.iter().find(|check| !check.passed()) else {
            return if checks.is_empty() { Cell::Unchecked } else { Cell::Passed(measured(&mut checks.iter())) };
        };
        let word = match &first.result {
            Err(_) => "error",
            Ok(comparison) => match comparison.mismatch {
                Some(Mismatch::Shape { .. }) => "shape",
                Some(Mismatch::Dtype { .. }) => "dtype",
                Some(Mismatch::Nothing { .. }) => "empty",
                None => "",
            },
        };
        Cell::Failed(match (first.tensor.starts_with("mask"), word) {
            (true, _) => "mask".to_owned(),
            (false, "") => {
                let failed = measured(&mut checks.iter().filter(|check| !check.passed()));
                failed.map_or_else(String::new, |measured| measured.to_string())
            }
            (false, word) => word.to_owned(),
        })
    }
}

impl Verdict {
    /// Every recorded call of a layer in the order in which they ran, and the outputs: alone and in the chain, the worst
    /// |ours − keras| and in brackets how much of what is allowed that is. A line below says where it first goes wrong.
    ///
    /// ```text
    /// layer      class       isolated            cumulative
    /// embedding  Embedding   ok 0                ok 0
    /// dense      Dense       FAIL 3.0e-1 (8e4)   FAIL 3.0e-1 (8e3)
    /// output_0   Sequential                      FAIL 3.0e-1 (8e4)
    /// first divergence: dense (Dense), already alone
    /// ```
    pub fn table(&self, case: &Case) -> String {
        let mut lines = vec![["layer", "class", "isolated", "cumulative"].map(str::to_owned)];
        let rows = self.rows(case);
        lines.extend(
            rows.iter().map(|row| {
                [row.layer.clone(), row.class.clone(), row.isolated.to_string(), row.cumulative.to_string()]
            }),
        );
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths = [0, 1, 2, 3].map(width);
        let mut table = String::new();
        for line in &lines {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
            table.push_str(cells.join("  ").trim_end());
            table.push('\n');
        }
        if let Some(first) = self.first_divergence() {
            let _ = writeln!(table, "first divergence: {first}");
        }
        table
    }

    fn rows(&self, case: &Case) -> Vec<Row> {
        let mut rows = vec![];
        for layer in &case.layers {
            for call in 0..layer.calls {
                let of = |how| {
                    let own = |check: &&Check| check.how == how && check.layer == layer.path && check.call == call;
                    Cell::of(&self.checks.iter().filter(own).collect::<Vec<_>>())
                };
                let number = if layer.calls > 1 { format!(", call {call}") } else { String::new() };
                rows.push(Row {
                    layer: format!("{}{number}", text::name(&layer.path)),
                    class: text::name(&layer.class),
                    isolated: of(How::Isolated),
                    cumulative: of(How::Cumulative),
                });
            }
        }
        for check in self.checks.iter().filter(|check| check.how == How::Output) {
            let (layer, class) = (check.tensor.clone(), text::name(&check.class));
            rows.push(Row { layer, class, isolated: Cell::Blank, cumulative: Cell::of(&[check]) });
        }
        rows
    }

    /// Where it first goes wrong, in the order in which the layers ran: the layer, and whether it is wrong already alone, fed
    /// Keras's own numbers, or only behind the others. None where all is well.
    pub fn first_divergence(&self) -> Option<String> {
        let first = self.failures().next()?;
        let (layer, class) = (text::name(&first.layer), text::name(&first.class));
        let call = if first.call > 0 { format!(", call {}", first.call) } else { String::new() };
        Some(match first.how {
            How::Output => format!("{} ({class}): every layer that was checked is right", first.tensor),
            How::Isolated => format!("{layer} ({class}{call}), already alone"),
            How::Cumulative => {
                let alone = self.checks.iter().filter(|check| {
                    check.how == How::Isolated && check.layer == first.layer && check.call == first.call
                });
                let says = match alone.count() {
                    0 => "it was not checked alone",
                    _ => "alone it is right: what comes before it differs",
                };
                format!("{layer} ({class}{call}), in the chain; {says}")
            }
        })
    }
}

impl Check {
    /// An object of `checks` in `kandle verify --json`; null where there is none or it is not finite.
    pub(crate) fn json(&self, file: &str) -> Value {
        let comparison = self.result.as_ref().ok();
        let worst = comparison.and_then(|comparison| comparison.worst.as_ref());
        json!({
            "file": file,
            "layer": self.layer,
            "class": self.class,
            "call": self.call,
            "how": self.how.to_string(),
            "tensor": self.tensor,
            "passed": self.passed(),
            "compared": comparison.map_or(0, |comparison| comparison.compared),
            "differing": comparison.map_or(0, |comparison| comparison.differing),
            "worst": worst.map(|worst| worst.difference),
            "allowed": worst.map(|worst| worst.allowed),
            "index": worst.map(|worst| &worst.index),
            "truth_ratio": self.truth.map(|truth| truth.truth_ratio),
            "reason": (!self.passed()).then(|| self.to_string()),
            "hint": self.hint.as_ref().map(ToString::to_string),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::fixture::{Puppet, Recording, array};

    fn judged(tamper: impl Fn(&mut Puppet)) -> (Case, Verdict) {
        let case = Recording::new().open().unwrap();
        let mut puppet = Puppet::honest(&case);
        tamper(&mut puppet);
        let verdict = check(&case, "model.keras", &puppet);
        (case, verdict)
    }

    #[test]
    fn the_table_says_how_each_layer_stands() {
        let (case, verdict) = judged(|_| {});
        let expected = "\
layer                class       isolated  cumulative
embedding            Embedding   ok 0      ok 0
block/dense, call 0  Dense       ok 0      ok 0
block/dense, call 1  Dense       ok 0      ok 0
output_0             Functional            ok 0
";
        assert_eq!(verdict.table(&case), expected);
        let (case, verdict) = judged(|puppet| {
            puppet.outputs[0] = array(&[-1.0f32, 0.0, 1.0, f32::NAN], &[2, 2]);
            puppet.change("embedding", 0, |made| made.masks = vec![None]);
            let wrong = array(&[1.0f32, 2.0, 3.0, 4.000_004], &[2, 2]);
            puppet.change("block/dense", 0, |made| made.outputs[0] = wrong.clone());
            puppet.alone.remove(&("block/dense".to_owned(), 1));
        });
        let expected = "\
layer                class       isolated          cumulative
embedding            Embedding   FAIL mask         FAIL mask
block/dense, call 0  Dense       ok 3.8e-6 (0.48)  ok 3.8e-6 (0.09)
block/dense, call 1  Dense       unchecked         ok 0
output_0             Functional                    FAIL inf (nothing allowed)
first divergence: embedding (Embedding), already alone
";
        assert_eq!(verdict.table(&case), expected);
    }

    #[test]
    fn the_first_divergence_is_told_apart() {
        let first = |tamper: &dyn Fn(&mut Puppet)| judged(tamper).1.first_divergence();
        assert_eq!(first(&|_| {}), None);
        let wrong = || LayerCall { outputs: vec![array(&[-1.0f32, 0.0, 1.5, 0.5], &[2, 2])], masks: vec![] };
        use crate::subject::LayerCall;
        assert_eq!(
            first(&|puppet| puppet.trace.insert("block/dense", 1, wrong())).unwrap(),
            "block/dense (Dense, call 1), in the chain; alone it is right: what comes before it differs"
        );
        assert_eq!(
            first(&|puppet| {
                puppet.alone.clear();
                puppet.trace.insert("block/dense", 1, wrong());
            })
            .unwrap(),
            "block/dense (Dense, call 1), in the chain; it was not checked alone"
        );
        assert_eq!(
            first(&|puppet| puppet.outputs[0] = wrong().outputs[0].clone()).unwrap(),
            "output_0 (Functional): every layer that was checked is right"
        );
    }
}
