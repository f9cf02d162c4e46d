//! `kandle verify`: judges recorded cases.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use clap::ValueEnum;
use kandle::parity::{CaseError, CaseOf, CaseReport, HtmlReport, MayRefuse, Outcome, Summary, cases_of, find_cases};

use crate::{Failure, terminal};

/// Run recorded cases and compare every number with Keras's
///
/// A case is a folder with model files, the inputs and outputs that Keras recorded (io.safetensors) and case.json, which
/// says how far numbers may differ. Every model file of a case must give Keras's numbers. `python record.py my_model.keras`
/// records one of a model of your own; given the model's file, its cases are found beside it.
///
/// One line a case, as soon as it is known: `ok`, `FAIL`, `REFUSED` or `expected` (a refusal that is allowed), the case,
/// the worst difference, what was allowed there, and the ratio of our distance from the float64 truth to Keras's own.
/// What is wrong with a failed case is told in full on stderr. The last line counts: 12 passed, 0 failed, 0 refused,
/// 1 expected.
///
/// A table of the layers, in the order in which they ran, comes with --layers, or where the terminal shows a single case:
/// each alone, fed Keras's own numbers, and in the chain, behind our own layers; the worst difference, and in brackets how
/// much of what is allowed that is. Of a single case that fails, stderr has it.
///
/// Exit code 0 only where cases were found and none failed or was refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
With --json, one object a line:
  {\"case\", \"verdict\": \"ok\"|\"fail\"|\"refused\"|\"expected\", \"files\", \"worst\", \"allowed\", \"truth_error\",
   \"keras_error\", \"truth_ratio\", \"reason\",
   \"checks\": [{\"file\", \"layer\", \"class\", \"call\", \"how\": \"isolated\"|\"cumulative\"|\"output\", \"tensor\", \"passed\",
     \"compared\", \"differing\", \"worst\", \"allowed\", \"index\", \"truth_ratio\", \"reason\", \"hint\"}],
   \"unchecked\": [\"...\"]}
and the last one {\"passed\", \"failed\", \"refused\", \"expected\"}.

Examples:
  kandle verify reference_outputs
  kandle verify my_model.keras")]
pub(crate) struct Args {
    /// Case folders, folders of them at any depth, or model files that cases lie beside
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// What runs the model
    #[arg(long, value_enum, default_value = "model")]
    with: With,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,

    /// Print a table of the layers of every case
    #[arg(long)]
    layers: bool,

    /// Write a report as one page of HTML: the graph, the growth of the error, and every layer's numbers
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// A file of path prefixes, one a line (# begins a comment): a refusal there counts as expected, a wrong number never
    /// does
    #[arg(long, value_name = "FILE")]
    may_refuse: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum With {
    /// Plain candle operations, one after the other
    Model,
    /// The compiled model, by its outputs
    Engine,
    /// The one and the other
    Both,
}

impl From<With> for kandle::With {
    fn from(with: With) -> Self {
        match with {
            With::Model => Self::Model,
            With::Engine => Self::Engine,
            With::Both => Self::Both,
        }
    }
}

/// How many bytes of stack a thread that judges has, as many as a program's first thread has by default.
const STACK: usize = 8 << 20;

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let with = args.with.into();
    let may_refuse = args.may_refuse.as_deref().map(MayRefuse::read).transpose()?.unwrap_or_default();
    let (mut cases, mut all_found) = (BTreeSet::new(), true);
    for path in &args.paths {
        match find(path) {
            Ok(found) => cases.extend(found),
            Err(error) => {
                terminal::complain(&error);
                all_found = false;
            }
        }
    }
    let cases: Vec<Found> = cases.into_iter().collect();
    let (mut summary, mut page) = (Summary::default(), HtmlReport::new());
    let table = match (args.layers, cases.len()) {
        (true, _) => Table::Always,
        (false, 1) if io::stdout().is_terminal() => Table::Always,
        (false, 1) => Table::OfFailure,
        (false, _) => Table::Never,
    };
    in_order(
        &cases,
        |case| CaseReport { may_refuse: may_refuse.covers(&case.folder), ..case.judged(with) },
        |report| {
            summary.add(report.standing());
            if args.html.is_some() {
                page.add(&report);
            }
            print(&report, args.json, table)
        },
    )?;
    if let Some(path) = &args.html {
        write_page(path, &page.finish())?;
    }
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", summary.json())?,
        false => writeln!(out, "{summary}")?,
    }
    Ok(all_found && summary.is_ok())
}

/// Beside, then renamed: a page that was there is whole until this one is.
fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    let told = |error: io::Error| format!("{}: cannot write: {error}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(told)?;
    file.write_all(page.as_bytes()).map_err(told)?;
    file.persist(path).map_err(|error| told(error.error))?;
    Ok(())
}

/// When the layers of a case are shown in a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Always,
    OfFailure,
    Never,
}

/// A case that was asked for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    folder: PathBuf,
    /// The only file of it that is judged; none for all.
    file: Option<String>,
}

impl Found {
    fn judged(&self, with: kandle::With) -> CaseReport {
        match &self.file {
            Some(file) => kandle::verify_file(&CaseOf { folder: self.folder.clone(), file: file.clone() }, with),
            None => kandle::verify_with(&self.folder, with),
        }
    }
}

/// The cases below a folder, or those of a model's file.
fn find(path: &Path) -> Result<Vec<Found>, CaseError> {
    match path.is_file() {
        true => Ok(cases_of(path)?.into_iter().map(|of| Found { folder: of.folder, file: Some(of.file) }).collect()),
        false => Ok(find_cases(path)?.into_iter().map(|folder| Found { folder, file: None }).collect()),
    }
}

/// The line of a case, and below it on stderr, where it fails, everything that is known of why.
fn print(report: &CaseReport, json: bool, table: Table) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match json {
        true => writeln!(out, "{}", terminal::plain_json(&report.json().to_string()))?,
        false => writeln!(out, "{}", report.line())?,
    }
    let indented = |line: &str| if line.is_empty() { String::new() } else { format!("  {line}") };
    let layers = report.table().lines().map(indented).collect::<Vec<_>>();
    if table == Table::Always && !json {
        layers.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    out.flush()?;
    let mut complaints = io::stderr().lock();
    let mut failed = false;
    for (_, outcome) in &report.files {
        if let Outcome::Judged(verdict) = outcome
            && !verdict.is_ok()
        {
            // Nobody hears it where stderr is closed.
            let _ = writeln!(complaints, "{verdict}");
            failed = true;
        }
    }
    if failed && (table == Table::OfFailure || table == Table::Always && json) {
        let _ = layers.iter().try_for_each(|line| writeln!(complaints, "{line}"));
    }
    Ok(())
}

/// Judges the cases on as many threads as there are cores, and hands out each report as soon as those of all cases
/// before it are there.
fn in_order(
    cases: &[Found],
    judge: impl Fn(&Found) -> CaseReport + Sync,
    mut report: impl FnMut(CaseReport) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // On two cores, a case a thread takes 0.6 of the time of one after the other, candle's own threads included.
    let threads = thread::available_parallelism().map_or(1, usize::from).min(cases.len());
    let (next, (sender, receiver)) = (AtomicUsize::new(0), mpsc::channel());
    thread::scope(|scope| {
        for _ in 0..threads {
            let (next, judge, sender) = (&next, &judge, sender.clone());
            let work = move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    // Nobody receives any more where printing failed.
                    if sender.send((number, judge(case))).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
        }
        drop(sender);
        let (mut waiting, mut printed) = (BTreeMap::new(), 0);
        for (number, judged) in receiver {
            waiting.insert(number, judged);
            while let Some(judged) = waiting.remove(&printed) {
                report(judged)?;
                printed += 1;
            }
        }
        Ok(())
    })
}
