//! What checking a file of a case found.

use std::fmt;

use crate::array::Array;
use crate::case::Case;
use crate::compare::{Comparison, Worst};
use crate::text;
use crate::tolerance::{Rule, Tolerance};
use crate::truth::Truth;

/// How many failures are shown in full; the first ones tell.
const SHOWN: usize = 20;

/// Every check of one file of a case, in the order in which the layers ran, the outputs last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verdict {
    /// The case's name.
    pub case: String,
    /// The file the subject was made from.
    pub file: String,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What is recorded, but could not be checked: neither passed nor failed.
    pub unchecked: Vec<String>,
}

/// One tensor checked.
#[derive(Debug, Clone)]
pub struct Check {
    /// The layer's path; `output` for the outputs of the whole.
    pub layer: String,
    /// Keras's class of the layer, or of the whole.
    pub class: String,
    /// What the layer was fed.
    pub how: How,
    /// Which call of the layer, from 0.
    pub call: usize,
    /// `output_0`, `out_0` or `mask_0`; `outputs` where it is about their number.
    pub tensor: String,
    /// The rule the tolerance is from, where one is given.
    pub rule: Option<Rule>,
    /// What was allowed.
    pub tolerance: Tolerance,
    /// The comparison, or why there is none.
    pub result: Result<Comparison, String>,
    /// What we gave, where there was something to compare.
    pub ours: Option<Array>,
    /// The distance from the float64 truth, where one is recorded: of the outputs, and of layers in the chain.
    pub truth: Option<Truth>,
    /// The mistake that would explain the failure, where one is known.
    pub hint: Option<Hint>,
}

/// A mistake that explains the numbers of a failed check, every one of them within what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The mistake, to stand behind `if`: `kernel were transposed`.
    pub mistake: String,
    /// Whose layer gives the other's numbers with that mistake.
    pub made_in: MadeIn,
}

/// Where a mistake was tried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MadeIn {
    /// Our layer, with the mistake, gives Keras's numbers.
    Ours,
    /// Keras's layer, with the mistake, gives our numbers.
    Keras,
}

/// `would match if kernel were transposed`, or `ours is what Keras would give if kernel were transposed`.
impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = match self.made_in {
            MadeIn::Ours => "would match if",
            MadeIn::Keras => "ours is what Keras would give if",
        };
        write!(f, "{before} {}", text::shown(&self.mistake, 300))
    }
}

/// What a layer was fed when it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// The whole model, fed the case's inputs.
    Output,
    /// Keras's own recorded inputs of this layer.
    Isolated,
    /// What our own layers before it made.
    Cumulative,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Output => "output",
            How::Isolated => "isolated",
            How::Cumulative => "cumulative",
        })
    }
}

impl Check {
    /// Whether numbers were compared and all are as near as allowed.
    pub fn passed(&self) -> bool {
        self.result.as_ref().is_ok_and(Comparison::passed)
    }

    /// `dense (Dense, isolated)`, with the call and the tensor where they are not the first.
    fn place(&self) -> String {
        let (layer, class) = (text::name(&self.layer), text::name(&self.class));
        if self.how == How::Output {
            return format!("{} ({class}, output)", self.tensor);
        }
        let call = if self.call > 0 { format!(", call {}", self.call) } else { String::new() };
        let tensor = if self.tensor == "out_0" { String::new() } else { format!(", {}", self.tensor) };
        format!("{layer} ({class}, {}{call}{tensor})", self.how)
    }
}

/// `dense (Dense, isolated): 2 of 96 numbers differ`, then a line on the worst number, one on what was allowed, and one with the hint where there is one.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        match &self.result {
            Ok(comparison) => write!(f, "{comparison}")?,
            Err(told) => write!(f, "{}", text::shown(told, 1000))?,
        }
        if let (Some(rule), Ok(comparison)) = (self.rule, &self.result)
            && comparison.differing > 0
        {
            write!(f, " ({rule})")?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  {hint}"))
    }
}

impl Verdict {
    pub(crate) fn new(case: &Case, file: &str) -> Verdict {
        Verdict { case: case.name(), file: file.to_owned(), checks: vec![], unchecked: vec![] }
    }

    /// How many checks passed.
    pub fn passed(&self) -> usize {
        self.checks.iter().filter(|check| check.passed()).count()
    }

    /// How many checks failed.
    pub fn failed(&self) -> usize {
        self.failures().count()
    }

    /// The checks that failed, the first divergence first.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed())
    }

    /// Whether at least one number of the outputs was compared and no check failed.
    pub fn is_ok(&self) -> bool {
        let compared = |check: &Check| check.result.as_ref().map_or(0, |comparison| comparison.compared);
        let outputs = self.checks.iter().filter(|check| check.how == How::Output);
        self.failed() == 0 && outputs.map(compared).sum::<usize>() > 0
    }

    /// The worst number of the outputs: the one most beyond, or nearest to, what was allowed.
    pub fn worst(&self) -> Option<&Worst> {
        let outputs = self.checks.iter().filter(|check| check.how == How::Output);
        outputs.filter_map(|check| check.result.as_ref().ok()?.worst.as_ref()).reduce(Worst::worse)
    }

    /// The distance from the truth of the output where its ratio is largest.
    pub fn truth(&self) -> Option<Truth> {
        Truth::worst(
            self.checks.iter().filter(|check| check.how == How::Output).filter_map(|check| check.truth.as_ref()),
        )
    }

    /// One line on why it is not ok; none where it is.
    pub fn reason(&self) -> Option<String> {
        match self.failures().next() {
            Some(first) => {
                let told: Vec<String> = first.to_string().lines().map(|line| line.trim().to_owned()).collect();
                let more = match self.failed() {
                    1 => String::new(),
                    failed => format!("; {failed} of {} checks failed", self.checks.len()),
                };
                Some(format!("{}{more}", told.join("; ")))
            }
            None if self.is_ok() => None,
            None => Some("nothing of the outputs was compared".to_owned()),
        }
    }
}

impl Worst {
    /// The one further beyond what was allowed there; the first of equals.
    pub(crate) fn worse<'a>(&'a self, other: &'a Worst) -> &'a Worst {
        let excess = |worst: &Worst| match worst.difference {
            0.0 => 0.0,
            difference => difference / worst.allowed,
        };
        if (excess(other), other.difference) > (excess(self), self.difference) { other } else { self }
    }
}

/// `worst 2.2e-7, allowed 1.4e-6, truth ratio 0.98`: what of it there is.
pub(crate) fn measures(worst: Option<&Worst>, truth: Option<Truth>) -> String {
    let mut parts = vec![];
    if let Some(worst) = worst {
        parts.push(format!("worst {}, allowed {}", text::size(worst.difference), text::limit(worst.allowed)));
    }
    if let Some(truth) = truth {
        let ratio = truth.truth_ratio;
        parts.push(if ratio < 1e4 { format!("truth ratio {ratio:.2}") } else { format!("truth ratio {ratio:.1e}") });
    }
    parts.join(", ")
}

/// One line where all is well; else that line and every failure in full, the first divergence first, with all that is needed to act.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (case, file) = (text::name(&self.case), text::name(&self.file));
        let state = if self.is_ok() { "ok" } else { "FAIL" };
        let (passed, failed, unchecked) = (self.passed(), self.failed(), self.unchecked.len());
        write!(f, "{case} ({file}): {state}: {passed} passed, {failed} failed, {unchecked} unchecked")?;
        let measures = measures(self.worst(), self.truth());
        if !measures.is_empty() {
            write!(f, "; {measures}")?;
        }
        if self.is_ok() {
            return Ok(());
        }
        for check in self.failures().take(SHOWN) {
            write!(f, "\n{case} › {check}")?;
        }
        match failed {
            0 => write!(f, "\n{case} › nothing of the outputs was compared"),
            _ if failed > SHOWN => write!(f, "\n{case} › … and {} more", failed - SHOWN),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_is_the_one_further_beyond_its_own_limit() {
        let worst = |difference, allowed| Worst {
            index: vec![],
            ours: 0.0,
            keras: 0.0,
            difference,
            relative: 0.0,
            ulp: None,
            allowed,
        };
        let inf = f64::INFINITY;
        // Each pair: the better, then the worse.
        let cases = [
            [(1.0, 10.0), (0.5, 1.0)],
            [(1.0, 10.0), (2.0, 10.0)],
            [(0.0, 0.0), (1e-9, 1.0)],
            [(5.0, 1.0), (1e-9, 0.0)],
            [(1e-9, 0.0), (1.0, 0.0)],
            [(5.0, 1.0), (inf, 1.0)],
        ];
        for pair in cases {
            let [better, worse] = pair.map(|(difference, allowed)| worst(difference, allowed));
            assert_eq!(*better.worse(&worse), worse, "{pair:?}");
            assert_eq!(*worse.worse(&better), worse, "{pair:?}");
        }
    }
}
