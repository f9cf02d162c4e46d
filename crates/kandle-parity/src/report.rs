//! A case in one line, and a run of cases in one more.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use crate::case::Case;
use crate::compare::Worst;
use crate::error::{CaseError, CaseErrorKind, shown_path};
use crate::text;
use crate::truth::Truth;
use crate::verdict::{Verdict, measures};

/// What became of one file of a case.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran, and was judged.
    Judged(Verdict),
    /// It was refused by name, for this reason.
    Refused(String),
    /// It could not be read or run, for this reason.
    Broken(String),
}

/// How a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Every file gave Keras's numbers.
    Ok,
    /// A file gave other numbers or broke, or a refusal that was expected did not come.
    Fail,
    /// A file was refused, and nothing says it may be.
    Refused,
    /// Refused as it is to be, or as it may be.
    Expected,
}

/// The word in JSON: `ok`, `fail`, `refused` or `expected`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Standing::Ok => "ok",
            Standing::Fail => "fail",
            Standing::Refused => "refused",
            Standing::Expected => "expected",
        })
    }
}

/// All files of a case: it is as bad as its worst.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// The folder's path, as given and found.
    pub case: String,
    /// The case as recorded; none where it could not be read.
    pub recorded: Option<Case>,
    /// Each file's name and what became of it.
    pub files: Vec<(String, Outcome)>,
    /// The text that must stand in every file's reason of refusal, where the case is to be refused: [`Case::expect`](crate::Case::expect).
    pub expect: Option<String>,
    /// Whether a refusal counts as expected: [`MayRefuse::covers`]. A wrong number never does.
    pub may_refuse: bool,
}

impl CaseReport {
    /// A report of no file yet; `files` is public.
    pub fn new(case: impl Into<String>, expect: Option<String>) -> CaseReport {
        CaseReport { case: case.into(), recorded: None, files: vec![], expect, may_refuse: false }
    }

    /// How the case stands. Without any file it fails.
    ///
    /// Where a refusal is expected, every file must be refused with that text in the reason: anything else, passing included, fails.
    pub fn standing(&self) -> Standing {
        if self.first_failure().is_some() {
            return Standing::Fail;
        }
        match (self.first_refusal(), self.expect.is_some() || self.may_refuse) {
            (None, _) => Standing::Ok,
            (Some(_), true) => Standing::Expected,
            (Some(_), false) => Standing::Refused,
        }
    }

    /// One line on why it is not ok: the first file that fails, else the first that is refused; none where all is well.
    pub fn reason(&self) -> Option<String> {
        let told = self.first_failure().or_else(|| {
            let (file, reason) = self.first_refusal()?;
            Some(format!("{}: {}", text::name(file), text::shown(reason, 1000)))
        });
        told.map(|told| text::shown(&told, 2000))
    }

    /// The worst number of all files' outputs.
    pub fn worst(&self) -> Option<&Worst> {
        self.verdicts().filter_map(Verdict::worst).reduce(Worst::worse)
    }

    /// The distance from the truth in the file and output where its ratio is largest.
    pub fn truth(&self) -> Option<Truth> {
        Truth::worst(&self.verdicts().filter_map(Verdict::truth).collect::<Vec<_>>())
    }

    /// `ok`, `FAIL`, `REFUSED` or `expected`, the case, worst, allowed and truth ratio, and the reason where there is one.
    pub fn line(&self) -> String {
        let standing = match self.standing() {
            Standing::Ok => "ok",
            Standing::Fail => "FAIL",
            Standing::Refused => "REFUSED",
            Standing::Expected => "expected",
        };
        let mut line = format!("{standing:<8} {}", shown_path(Path::new(&self.case)));
        let measures = measures(self.worst(), self.truth());
        for part in [Some(measures).filter(|measures| !measures.is_empty()), self.reason()].into_iter().flatten() {
            line.push_str("  ");
            line.push_str(&part);
        }
        line
    }

    /// A table of every layer, see [`Verdict::table`]; one for several files where it is the same, empty where no file ran.
    pub fn table(&self) -> String {
        let Some(case) = &self.recorded else { return String::new() };
        let mut tables: Vec<(Vec<String>, String)> = vec![];
        for (file, verdict) in self.judged() {
            let table = verdict.table(case);
            match tables.iter_mut().find(|(_, other)| *other == table) {
                Some((files, _)) => files.push(text::name(file)),
                None => tables.push((vec![text::name(file)], table)),
            }
        }
        let several = self.files.len() > 1;
        let named = |(files, table): (Vec<String>, String)| match several {
            true => format!("{}\n{table}", files.join(", ")),
            false => table,
        };
        tables.into_iter().map(named).collect::<Vec<_>>().join("\n")
    }

    /// The object of `kandle verify --json`: `case`, `verdict`, `files` (their names), `worst`, `allowed`, `truth_error`, `keras_error`, `truth_ratio`, `reason`; null where there is none or it is not finite. `checks` has every check of every file in the order in which the layers ran, `unchecked` what could not be checked.
    pub fn json(&self) -> Value {
        let (worst, truth) = (self.worst(), self.truth());
        let checks = self.judged().flat_map(|(file, verdict)| verdict.checks.iter().map(|check| check.json(file)));
        let unchecked = self.verdicts().flat_map(|verdict| &verdict.unchecked);
        json!({
            "case": self.case,
            "verdict": self.standing().to_string(),
            "files": self.files.iter().map(|(file, _)| file.as_str()).collect::<Vec<_>>(),
            "worst": worst.map(|worst| worst.difference),
            "allowed": worst.map(|worst| worst.allowed),
            "truth_error": truth.map(|truth| truth.truth_error),
            "keras_error": truth.map(|truth| truth.keras_error),
            "truth_ratio": truth.map(|truth| truth.truth_ratio),
            "reason": self.reason(),
            "checks": checks.collect::<Vec<_>>(),
            "unchecked": unchecked.collect::<Vec<_>>(),
        })
    }

    /// The files that ran, by name.
    fn judged(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.files.iter().filter_map(|(file, outcome)| match outcome {
            Outcome::Judged(verdict) => Some((file.as_str(), verdict)),
            _ => None,
        })
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.judged().map(|(_, verdict)| verdict)
    }

    fn first_refusal(&self) -> Option<(&str, &str)> {
        self.files.iter().find_map(|(file, outcome)| match outcome {
            Outcome::Refused(reason) => Some((file.as_str(), reason.as_str())),
            _ => None,
        })
    }

    fn first_failure(&self) -> Option<String> {
        if self.files.is_empty() {
            return Some("no file was run".to_owned());
        }
        self.files.iter().find_map(|(file, outcome)| {
            let told = match (&self.expect, outcome) {
                (Some(text), Outcome::Refused(reason)) if reason.contains(text.as_str()) => None,
                (Some(text), Outcome::Refused(reason)) => {
                    Some(format!("expected a refusal with {text:?}, found: {reason}"))
                }
                (Some(text), Outcome::Judged(_)) => Some(format!("expected a refusal with {text:?}, but it was run")),
                (None, Outcome::Judged(verdict)) => verdict.reason(),
                (None, Outcome::Refused(_)) => None,
                (_, Outcome::Broken(reason)) => Some(reason.clone()),
            };
            told.map(|told| format!("{}: {}", text::name(file), text::shown(&told, 1500)))
        })
    }
}

/// The cases that may be refused: `--may-refuse`.
#[derive(Debug, Clone, Default)]
pub struct MayRefuse {
    prefixes: Vec<PathBuf>,
}

impl MayRefuse {
    /// Reads a file with one path prefix a line; `#` begins a comment, blank lines are nothing.
    ///
    /// # Errors
    /// A file that can't be read, or a prefix that would cover everything (`/`, `.`).
    pub fn read(path: impl AsRef<Path>) -> Result<MayRefuse, CaseError> {
        let path = path.as_ref();
        let lines = fs::read_to_string(path).map_err(|error| CaseError::unreadable(path, &error))?;
        let mut prefixes = vec![];
        for (number, line) in lines.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let prefix: PathBuf = names(Path::new(line)).collect();
            if !line.is_empty() && prefix.as_os_str().is_empty() {
                let at = format!("{}:{}", shown_path(path), number + 1);
                return Err(CaseError::new(
                    CaseErrorKind::Malformed,
                    at,
                    format_args!("expected a path prefix, found {}", text::shown(line, 60)),
                ));
            }
            if !line.is_empty() {
                prefixes.push(prefix);
            }
        }
        Ok(MayRefuse { prefixes })
    }

    /// Whether the case in this folder may be refused: a prefix stands in the path from one `/` to another. `ops/fft/` covers `cases/suite/ops/fft/003`, not `ops/fft2/000`.
    pub fn covers(&self, case: impl AsRef<Path>) -> bool {
        // A relative path may begin below the prefix: the working directory goes before it.
        let case = std::path::absolute(case.as_ref()).unwrap_or_else(|_| case.as_ref().to_owned());
        let case: Vec<_> = names(&case).collect();
        self.prefixes.iter().any(|prefix| {
            let prefix: Vec<_> = names(prefix).collect();
            case.windows(prefix.len().max(1)).any(|part| *part == prefix)
        })
    }
}

/// The names in a path, without root and `.`.
fn names(path: &Path) -> impl Iterator<Item = Component<'_>> {
    path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
}

/// How many cases stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that gave Keras's numbers.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases that were refused and may not be.
    pub refused: usize,
    /// Cases that were refused as expected.
    pub expected: usize,
}

impl Summary {
    /// Counts one case more.
    pub fn add(&mut self, standing: Standing) {
        match standing {
            Standing::Ok => self.passed += 1,
            Standing::Fail => self.failed += 1,
            Standing::Refused => self.refused += 1,
            Standing::Expected => self.expected += 1,
        }
    }

    /// Whether there was a case, none failed and none was refused unexpectedly.
    pub fn is_ok(&self) -> bool {
        self.failed == 0 && self.refused == 0 && self.passed + self.expected > 0
    }

    /// The last object of `kandle verify --json`.
    pub fn json(&self) -> Value {
        json!({"passed": self.passed, "failed": self.failed, "refused": self.refused, "expected": self.expected})
    }
}

/// `12 passed, 0 failed, 0 refused, 1 expected`
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { passed, failed, refused, expected } = self;
        write!(f, "{passed} passed, {failed} failed, {refused} refused, {expected} expected")
    }
}

impl FromIterator<Standing> for Summary {
    fn from_iter<I: IntoIterator<Item = Standing>>(standings: I) -> Summary {
        let mut summary = Summary::default();
        standings.into_iter().for_each(|standing| summary.add(standing));
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::fixture::{Puppet, Recording, array};

    /// A verdict whose output is off by this much; Keras's is within 1e-6 + 5e-7 of 0.5.
    fn judged(off: f32) -> Outcome {
        let mut recording = Recording::new();
        recording.json["layers"] = json!([]);
        let case = recording.open().unwrap();
        let mut puppet = Puppet::honest(&case);
        puppet.outputs[0] = array(&[-1.0f32, 0.0, 1.0, 0.5 + off], &[2, 2]);
        Outcome::Judged(check(&case, "model.keras", &puppet))
    }

    fn report(expect: Option<&str>, may_refuse: bool, files: &[(&str, Outcome)]) -> CaseReport {
        let files = files.iter().map(|(file, outcome)| ((*file).to_owned(), outcome.clone())).collect();
        CaseReport { files, may_refuse, ..CaseReport::new("cases/a", expect.map(str::to_owned)) }
    }

    #[test]
    fn a_case_is_as_bad_as_its_worst_file() {
        let (good, wrong) = (judged(0.0), judged(0.25));
        let refused = Outcome::Refused("layer \"fft\": FFT is not supported".to_owned());
        let broken = Outcome::Broken("model.h5: cut short".to_owned());
        use Standing::{Expected, Fail, Ok, Refused};
        let cases = [
            (None, false, vec![&good], Ok),
            (None, false, vec![&good, &good], Ok),
            (None, false, vec![], Fail),
            (None, false, vec![&good, &wrong], Fail),
            (None, false, vec![&good, &broken], Fail),
            (None, false, vec![&good, &refused], Refused),
            (None, false, vec![&refused, &wrong], Fail),
            (None, false, vec![&refused, &broken], Fail),
            // May be refused: a wrong number may not.
            (None, true, vec![&refused], Expected),
            (None, true, vec![&good, &refused], Expected),
            (None, true, vec![&good], Ok),
            (None, true, vec![&wrong], Fail),
            (None, true, vec![&refused, &wrong], Fail),
            (None, true, vec![&broken], Fail),
            (None, true, vec![], Fail),
            // Is to be refused, with this text, every file.
            (Some("FFT"), false, vec![&refused, &refused], Expected),
            (Some("FFT"), true, vec![&refused], Expected),
            (Some("FFT"), false, vec![&good], Fail),
            (Some("FFT"), false, vec![&wrong], Fail),
            (Some("FFT"), true, vec![&refused, &good], Fail),
            (Some("FFT"), false, vec![&broken], Fail),
            (Some("FFT"), false, vec![], Fail),
            (Some("Squeeze"), false, vec![&refused], Fail),
            (Some("Squeeze"), true, vec![&refused], Fail),
        ];
        for (i, (expect, may_refuse, files, standing)) in cases.into_iter().enumerate() {
            let files: Vec<_> = files.into_iter().map(|outcome| ("model.keras", outcome.clone())).collect();
            let report = report(expect, may_refuse, &files);
            assert_eq!(report.standing(), standing, "case {i}");
            assert_eq!(report.reason().is_none(), standing == Ok, "case {i}");
        }
    }

    #[test]
    fn a_line_has_all_that_is_known() {
        let refused = Outcome::Refused("layer \"s\": class Squeeze\u{1b}Layer\nis not known".to_owned());
        let cases = [
            (
                report(None, false, &[("model.keras", judged(0.0))]),
                "ok       cases/a  worst 0, allowed 2e-6, truth ratio 1.00",
            ),
            (
                report(None, false, &[("model.keras", judged(0.0)), ("model.h5", judged(0.25))]),
                "FAIL     cases/a  worst 2.5e-1, allowed 1.5e-6, truth ratio 2.6e5  model.h5: output_0 (Functional, output): 1 of 4 numbers differs; worst at [1, 1]: ours 0.75, keras 0.5   |d| 2.5e-1, 5.0e-1 relative, 4194304 ulp; allowed 1e-6 + 1e-6·|keras|",
            ),
            (
                report(None, false, &[("model.h5", refused.clone())]),
                "REFUSED  cases/a  model.h5: layer \"s\": class Squeeze\\u{1b}Layer\\nis not known",
            ),
            (
                report(Some("Squeeze"), false, &[("model.h5", refused.clone())]),
                "expected cases/a  model.h5: layer \"s\": class Squeeze\\u{1b}Layer\\nis not known",
            ),
            (
                report(Some("Sq"), false, &[("model.h5", judged(0.0))]),
                "FAIL     cases/a  worst 0, allowed 2e-6, truth ratio 1.00  model.h5: expected a refusal with \"Sq\", but it was run",
            ),
            (report(None, false, &[]), "FAIL     cases/a  no file was run"),
        ];
        for (report, line) in cases {
            assert_eq!(report.line(), line);
        }
    }

    #[test]
    fn json_has_the_keys_of_the_contract_and_null_where_there_is_nothing() {
        let mut found = report(None, false, &[("model.keras", judged(0.25)), ("model.h5", judged(0.0))]).json();
        assert_eq!(found["unchecked"].as_array_mut().unwrap().drain(..).len(), 6);
        let checks: Vec<Value> = found["checks"].as_array_mut().unwrap().drain(..).collect();
        assert_eq!(
            checks[0],
            json!({
                "file": "model.keras", "layer": "output", "class": "Functional", "call": 0, "how": "output", "tensor": "output_0",
                "passed": false, "compared": 4, "differing": 1, "worst": 0.25, "allowed": 1e-6 + 1e-6 * 0.5, "index": [1, 1],
                "truth_ratio": 262_143.0, "reason": checks[0]["reason"], "hint": null,
            })
        );
        assert!(checks[0]["reason"].as_str().unwrap().contains("ours 0.75, keras 0.5"));
        assert_eq!(
            (&checks[1]["file"], &checks[1]["passed"], &checks[1]["reason"]),
            (&json!("model.h5"), &json!(true), &Value::Null)
        );
        let reason = found["reason"].clone();
        assert!(reason.as_str().unwrap().starts_with("model.keras: output_0"));
        assert_eq!(
            found,
            json!({
                "case": "cases/a", "verdict": "fail", "files": ["model.keras", "model.h5"], "worst": 0.25, "allowed": 1e-6 + 1e-6 * 0.5,
                "truth_error": 0.25 - 2f64.powi(-20), "keras_error": 2f64.powi(-20), "truth_ratio": 262_143.0, "reason": reason,
                "checks": [], "unchecked": [],
            })
        );
        let found = report(None, false, &[("model.keras", Outcome::Refused("no".into()))]).json();
        assert_eq!(
            found,
            json!({
                "case": "cases/a", "verdict": "refused", "files": ["model.keras"], "worst": null, "allowed": null,
                "truth_error": null, "keras_error": null, "truth_ratio": null, "reason": "model.keras: no",
                "checks": [], "unchecked": [],
            })
        );
        let found = report(None, false, &[("model.keras", judged(f32::NAN))]).json();
        assert_eq!(
            (&found["verdict"], &found["worst"], &found["truth_ratio"]),
            (&json!("fail"), &Value::Null, &Value::Null)
        );
    }

    #[test]
    fn refusals_are_covered_from_slash_to_slash() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("may-refuse.txt");
        fs::write(&file, "# operations\nops/fft/\n\n  ./ops/det # without the slash\nreal/crema\n").unwrap();
        let may = MayRefuse::read(&file).unwrap();
        let cases = [
            ("/cases/suite/ops/fft/003", true),
            ("ops/fft/003", true),
            ("./x/ops/fft/", true),
            ("suite/ops/det/000", true),
            ("/real/crema", true),
            ("suite/ops/fft2/000", false),
            ("suite/ops/determinant/000", false),
            ("suite/myops/fft/000", false),
            ("suite/ops/x/fft/000", false),
            ("suite/fft/ops", false),
            ("real", false),
        ];
        for (case, covered) in cases {
            assert_eq!(may.covers(case), covered, "{case}");
        }
        assert!(!MayRefuse::default().covers("ops/fft/003"));
        for everything in ["ops/fft\n/\n", "ops/fft\n.\n"] {
            fs::write(&file, everything).unwrap();
            assert!(MayRefuse::read(&file).unwrap_err().at().ends_with("may-refuse.txt:2"));
        }
        assert_eq!(MayRefuse::read(folder.path().join("none")).unwrap_err().kind(), CaseErrorKind::Unreadable);
    }

    #[test]
    fn the_summary_counts_each_case_once() {
        use Standing::{Expected, Fail, Ok, Refused};
        let summary: Summary = [Ok, Ok, Expected].into_iter().collect();
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 0 refused, 1 expected");
        assert_eq!(summary.json(), json!({"passed": 2, "failed": 0, "refused": 0, "expected": 1}));
        assert!(summary.is_ok());
        assert!(![Ok, Fail].into_iter().collect::<Summary>().is_ok());
        assert!(![Ok, Refused].into_iter().collect::<Summary>().is_ok());
        assert!(!Summary::default().is_ok());
    }
}
