//! Embedding → Dense → ReLU from its Keras file, on the engine: a program that one can ship.
//!
//! ```text
//! cargo run --release --package example3 -- model.keras '[[1, 2, 3], [4, 5, 6]]'
//! ```
//!
//! The outputs go to stdout as JSON, `(batch, time, 64)`; how long it took from the start of the program to the first of
//! them goes to stderr.

use std::{error::Error, process::ExitCode, time::Instant};

use candle_core::{Device, Tensor};
use kandle::{
    Engine, Limits, Options,
    json::{self, Value},
};

const USAGE: &str = "usage: example3 MODEL.keras IDS, IDS a list of rows in JSON: '[[1, 2, 3], [4, 5, 6]]'";

fn main() -> ExitCode {
    let begun = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match answer(&arguments) {
        Ok(outputs) => {
            let took = begun.elapsed();
            println!("{outputs}");
            eprintln!("first answer after {:.2} ms", took.as_secs_f64() * 1e3);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: &[String]) -> Result<String, Box<dyn Error + Send + Sync>> {
    let [model, ids] = arguments else { return Err(USAGE.into()) };
    let rows = rows_of(&json::parse(ids.as_bytes(), "ids", &Limits::default())?).ok_or(USAGE)?;
    let engine = Engine::load(model, &Options::default().threads(1))?;
    let outputs = engine.forward(&Tensor::new(rows, &Device::Cpu)?)?.to_vec3::<f32>()?;
    Ok(format!("{outputs:?}"))
}

/// The rows of a list of lists of whole numbers.
fn rows_of(list: &Value) -> Option<Vec<Vec<i64>>> {
    let row = |row: &Value| row.as_array()?.iter().map(Value::as_i64).collect::<Option<Vec<_>>>();
    list.as_array()?.iter().map(row).collect()
}
