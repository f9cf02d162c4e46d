//! `kandle bench`: how long a recorded case takes.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use clap::ValueEnum;
use kandle::parity::{Array, Case, Dtype, cases_of, compare};
use kandle::{CompileFile as _, Engine, Model, Options, Plan, Value, View};
use serde_json::json;

use crate::{Failure, tensors, terminal};

/// Time a recorded case
///
/// The model of the case runs on the case's own inputs, again and again for --seconds. What it gives is compared with what
/// Keras recorded before anything is timed; other numbers than Keras's are an error.
///
/// The engine reads its inputs where they lie and writes into memory that is there already (`run_into`); the model makes its
/// outputs anew. Where the engine leaves a case to the model, stderr says so.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The last line is one JSON object:
  load_s        seconds from opening the file to being ready: loading and, for the engine, compiling
  first_ms      milliseconds of the first run
  median_ms, min_ms
                milliseconds of a run after that
  cpu_ms        milliseconds of processor time of a run, of all threads; null where the system does not say
  repeats       how often it ran
  peak_rss_mb   the most memory that the process held, in MB; null where the system does not say

Examples:
  kandle bench reference_outputs/example3/2x3
  kandle bench cases/my_model/ordinary --threads 2 --batch 32 --profile")]
pub(crate) struct Args {
    /// The folder of a recorded case, or a model file that one lies beside
    #[arg(value_name = "CASE|MODEL")]
    case: PathBuf,

    /// What runs the model
    #[arg(long, value_enum, default_value = "engine")]
    with: With,

    /// How many threads the engine uses, the first one's included
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,

    /// Rows of each input: the recorded ones cut, or repeated in turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,

    /// Write the outputs: .safetensors, .npy or .json
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How long to go on
    #[arg(long, default_value = "1", value_parser = seconds)]
    seconds: f64,

    /// Print also how long each instruction of the engine takes, the longest first
    #[arg(long)]
    profile: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum With {
    /// Plain candle operations, one after the other
    Model,
    /// The compiled model
    Engine,
}

/// What is timed.
enum Subject {
    Model(Model),
    Engine(Box<Engine>),
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if seconds.is_finite() && seconds > 0.0 { Ok(seconds) } else { Err("expected a number above 0".to_owned()) }
}

/// Below this, several runs are timed together, so that the clock's own time does not count.
const LEAST: Duration = Duration::from_micros(50);
/// Runs that are averaged for a profile.
const PROFILED: u32 = 20;

pub(crate) fn run(args: &Args) -> Result<bool, Failure> {
    let (folder, file) = match args.case.is_file() {
        true => {
            let found = cases_of(&args.case)?.into_iter().next().ok_or("no case was recorded of this file")?;
            (found.folder, Some(found.file))
        }
        false => (args.case.clone(), None),
    };
    let case = Case::open(folder)?;
    let file = file.as_ref().or(case.files.first()).ok_or("the case has no model file")?;
    let begun = Instant::now();
    let archive = Arc::new(kandle::open_recorded(&case, file)?);
    let subject = match args.with {
        With::Model => Subject::Model(Model::from_archive(&archive, &Device::Cpu)?.0.detached()),
        With::Engine => {
            let plan = Plan::new(&archive.config()?).map_err(|error| error.in_file(archive.name()))?;
            Subject::Engine(Box::new(plan.compile(&archive, &Options::default().threads(args.threads.into()))?))
        }
    };
    let load = begun.elapsed();
    let arrays = with_rows(case.input_arrays(), args.batch)?;
    let inputs = arrays.iter().map(kandle::value).collect::<Result<Vec<_>, _>>()?;

    let begun = Instant::now();
    let made = match &subject {
        Subject::Model(model) => model.run(&inputs)?,
        Subject::Engine(engine) => engine.run(&inputs)?,
    };
    let first = begun.elapsed();
    let outputs = made.iter().map(kandle::array).collect::<Result<Vec<_>, _>>()?;
    verify(&case, &outputs, args.batch)?;
    if let Some(path) = &args.out {
        let named = outputs.iter().enumerate().map(|(number, array)| (format!("output_{number}"), array.clone()));
        tensors::write(path, &named.collect::<Vec<_>>())?;
    }
    let timed = match &subject {
        Subject::Model(model) => time(args.seconds, || model.run(&inputs).map(drop))?,
        Subject::Engine(engine) => time_engine(engine, &arrays, &inputs, &outputs, args.seconds)?,
    };
    let mut out = io::stdout().lock();
    if let Subject::Engine(engine) = &subject {
        match engine.handed_over() {
            (0, _) if args.profile => write!(out, "{}", profile(engine, &inputs)?)?,
            (0, _) => {}
            (_, reason) => {
                let reason = reason.unwrap_or_default();
                // Nobody hears it where stderr is closed.
                let _ =
                    writeln!(io::stderr(), "note: the engine left the runs to the model, which was timed: {reason}");
            }
        }
    }
    let object = json!({
        "load_s": load.as_secs_f64(),
        "first_ms": millis(first),
        "median_ms": millis(timed.median),
        "min_ms": millis(timed.least),
        "cpu_ms": timed.cpu.map(millis),
        "repeats": timed.repeats,
        "peak_rss_mb": peak_memory(),
    });
    writeln!(out, "{object}")?;
    Ok(true)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The inputs with `rows` rows each, the recorded ones in turn.
fn with_rows(inputs: Vec<Array>, rows: Option<u32>) -> Result<Vec<Array>, Failure> {
    let Some(rows) = rows else { return Ok(inputs) };
    inputs.into_iter().map(|array| in_turn(&array, rows.try_into()?)).collect()
}

fn in_turn(array: &Array, rows: usize) -> Result<Array, Failure> {
    let Some((recorded, rest)) = array.shape().split_first().filter(|(recorded, _)| **recorded > 0) else {
        return Err("--batch: an input without rows".into());
    };
    if array.dtype() == Dtype::STRING {
        return Err("--batch: strings are not repeated: leave it out".into());
    }
    let size = array.bytes().len() / recorded;
    let bytes =
        (0..rows).flat_map(|row| array.bytes().iter().skip(row % recorded * size).take(size)).copied().collect();
    Ok(Array::new(array.dtype(), [&[rows], rest].concat(), bytes)?)
}

/// Compares with what was recorded, row by row where there are others.
fn verify(case: &Case, outputs: &[Array], rows: Option<u32>) -> Result<(), Failure> {
    for (number, ours) in outputs.iter().enumerate() {
        let recorded = case.output(number).ok_or_else(|| format!("output_{number} is not recorded"))?;
        let keras = match rows {
            None => recorded.clone(),
            Some(rows) => in_turn(recorded, rows.try_into()?)?,
        };
        let comparison = compare(ours, &keras, case.tolerance_of(number));
        if !comparison.passed() {
            return Err(format!("output_{number}: {comparison}").into());
        }
    }
    Ok(())
}

struct Timed {
    median: Duration,
    least: Duration,
    cpu: Option<Duration>,
    repeats: u32,
}

/// Runs `once` for some seconds, three times at least.
fn time(seconds: f64, mut once: impl FnMut() -> candle_core::Result<()>) -> Result<Timed, Failure> {
    let begun = Instant::now();
    once()?;
    let together = u32::try_from(LEAST.as_nanos() / begun.elapsed().as_nanos().max(1))?.max(1);
    let (begun, cpu) = (Instant::now(), processor_time());
    let mut times = Vec::new();
    while begun.elapsed().as_secs_f64() < seconds || times.len() < 3 {
        let begun = Instant::now();
        for _ in 0..together {
            once()?;
        }
        times.push(begun.elapsed() / together);
    }
    let repeats = u32::try_from(times.len())? * together;
    let cpu = cpu.zip(processor_time()).map(|(before, after)| after.saturating_sub(before) / repeats);
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    Ok(Timed { median: at(times.len() / 2), least: at(0), cpu, repeats })
}

/// The numbers of an input as the engine reads them.
enum Numbers {
    F32(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

/// Through `run_into` where all inputs and outputs are of the dtypes that it takes, else through `run`.
fn time_engine(
    engine: &Engine,
    arrays: &[Array],
    inputs: &[Value],
    outputs: &[Array],
    seconds: f64,
) -> Result<Timed, Failure> {
    let numbers = |(array, value): (&Array, &Value)| -> candle_core::Result<Option<Numbers>> {
        let flat = value.tensor.flatten_all()?;
        Ok(match array.dtype() {
            Dtype::F32 => Some(Numbers::F32(flat.to_vec1()?)),
            Dtype::I32 => Some(Numbers::I32(flat.to_vec1()?)),
            Dtype::I64 => Some(Numbers::I64(flat.to_vec1()?)),
            _ => None,
        })
    };
    let read = arrays.iter().zip(inputs).map(numbers).collect::<candle_core::Result<Option<Vec<_>>>>()?;
    let floats = outputs.iter().all(|output| output.dtype() == Dtype::F32);
    let Some(read) = read.filter(|_| floats) else { return time(seconds, || engine.run(inputs).map(drop)) };
    let mut views = Vec::new();
    for (array, numbers) in arrays.iter().zip(&read) {
        views.push(match numbers {
            Numbers::F32(numbers) => View::f32(array.shape(), numbers),
            Numbers::I32(numbers) => View::i32(array.shape(), numbers),
            Numbers::I64(numbers) => View::i64(array.shape(), numbers),
        });
    }
    let mut room: Vec<Vec<f32>> = outputs.iter().map(|output| vec![0.0; output.len()]).collect();
    let mut slices: Vec<&mut [f32]> = room.iter_mut().map(Vec::as_mut_slice).collect();
    time(seconds, || engine.run_into(&views, &mut slices))
}

/// What the instructions take, the longest first.
fn profile(engine: &Engine, inputs: &[Value]) -> Result<String, Failure> {
    let instructions = engine.compiled().instructions;
    let mut spent = vec![Duration::ZERO; instructions.len()];
    for _ in 0..PROFILED {
        for (sum, time) in spent.iter_mut().zip(engine.profile(inputs)?) {
            *sum += time;
        }
    }
    let whole: Duration = spent.iter().sum();
    let mut order: Vec<_> = instructions.iter().zip(&spent).collect();
    order.sort_by(|a, b| b.1.cmp(a.1));
    let row = |(made, time): &(&kandle::Instruction, &Duration)| {
        let share = 100.0 * time.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        let layers = made.layers.iter().map(|layer| kandle::shown(layer)).collect::<Vec<_>>().join(" + ");
        [format!("{:.4}", millis(**time / PROFILED)), format!("{share:.1}"), made.work.clone(), layers]
    };
    let rows: Vec<_> = order.iter().map(row).collect();
    Ok(format!("{}\n", terminal::table([">ms", ">%", "work", "layers"], &rows)))
}

/// The processor time of this process, of all its threads.
fn processor_time() -> Option<Duration> {
    // Clock ticks, of which Linux shows 100 a second on every processor.
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// The most memory that this process held, in MB.
fn peak_memory() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0 / 1e6)
}
