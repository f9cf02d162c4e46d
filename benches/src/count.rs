//! Runs recorded cases through the engine so often, in a function of its own: what `count.py` counts the instructions of.
//! `count RUNS CASE…`, with the recorded rows 32 times.

use std::{env, error, sync::Arc};

use candle_core::Tensor;
use kandle::{CompileFile as _, Engine, Options, Plan, Value, open_recorded, parity::Case};

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// How often the recorded rows are repeated.
const ROWS: usize = 32;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [runs, cases @ ..] = arguments.as_slice() else { return Err("RUNS CASE…".into()) };
    for folder in cases {
        let case = Case::open(folder)?;
        let archive = Arc::new(open_recorded(&case, case.files.first().ok_or("the case has no model file")?)?);
        let engine = Plan::new(&archive.config()?)?.compile(&archive, &Options::default().threads(1))?;
        // More rows, so that kernels weigh more than what is around them.
        let more = |value: Value| -> candle_core::Result<Value> {
            Ok(Value { tensor: Tensor::cat(&vec![value.tensor.clone(); ROWS], 0)?, ..value })
        };
        let arrays = case.input_arrays();
        let inputs = arrays.iter().map(|array| Ok(more(kandle::value(array)?)?)).collect::<Result<Vec<_>>>()?;
        // The first run asks for memory.
        engine.run(&inputs)?;
        counted(&engine, &inputs, runs.parse()?)?;
        if let (1.., reason) = engine.handed_over() {
            return Err(format!("{folder}: left to the model: {}", reason.unwrap_or_default()).into());
        }
    }
    Ok(())
}

#[unsafe(no_mangle)]
#[inline(never)]
fn counted(engine: &Engine, inputs: &[Value], runs: u32) -> candle_core::Result<()> {
    for _ in 0..runs {
        std::hint::black_box(engine.run(inputs)?);
    }
    Ok(())
}
