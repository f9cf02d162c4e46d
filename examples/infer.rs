//! Runs a Keras model and compares it with what Keras recorded.
//!
//! ```text
//! cargo run --example infer
//! cargo run --example infer -- model.keras '[[1, 2, 3], [4, 5, 6]]'
//! ```

use std::{error::Error, path::Path, process::ExitCode, time::Instant};

use candle_core::{Device, Tensor};
use kandle::{
    Archive, Judged, Limits, Model,
    json::{self, Value},
    parity::{Case, check},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs/example3/2x3");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match infer(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn infer(arguments: &[String]) -> Result<(), Box<dyn Error + Send + Sync>> {
    match arguments {
        [] => recorded(Path::new(EXAMPLE)),
        [model, input] => {
            let (model, _) = open(Path::new(model))?;
            run(&model, &tensor(&json::parse(input.as_bytes(), "input", &Limits::default())?)?)
        }
        _ => Err("usage: infer [MODEL INPUT], INPUT a nested list in JSON: '[[1, 2, 3], [4, 5, 6]]'".into()),
    }
}

/// Runs a recorded case: its model on its inputs, every layer compared with Keras.
fn recorded(folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let case = Case::open(folder)?;
    let (model, report) = open(&folder.join("model.keras"))?;
    println!("{report}\n");
    for input in case.input_arrays() {
        run(&model, &input.to_tensor(&Device::Cpu)?)?;
    }
    let verdict = check(&case, "model.keras", &Judged(&model));
    if let Some(worst) = verdict.worst() {
        println!(
            "\nworst difference from Keras: {:.1e} at {:?}, allowed {:.1e}",
            worst.difference, worst.index, worst.allowed
        );
    }
    println!("{verdict}");
    if verdict.is_ok() { Ok(()) } else { Err("the numbers differ from Keras's".into()) }
}

fn open(path: &Path) -> Result<(Model, kandle::LoadReport), Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    let archive = Archive::open(path, &Limits::default())?;
    let (model, report) = Model::from_archive(&archive, &Device::Cpu)?;
    let version = archive.keras_version().map(kandle::shown).unwrap_or_default();
    println!("{:?} from Keras {version}, loaded in {:.2?}", model.plan().name(), start.elapsed());
    Ok((model, report))
}

fn run(model: &Model, xs: &Tensor) -> Result<(), Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    let ys = model.forward(xs)?;
    let took = start.elapsed();
    println!("input {:?}\n{xs}", xs.dims());
    let first = ys.flatten_all()?.narrow(0, 0, ys.elem_count().min(6))?;
    println!("output {:?} in {took:.2?}, first values\n{first}", ys.dims());
    Ok(())
}

/// The tensor of a nested list of numbers: whole numbers as int64, others as float32.
fn tensor(list: &Value) -> Result<Tensor, Box<dyn Error + Send + Sync>> {
    let (mut shape, mut numbers) = (Vec::new(), vec![list]);
    while let Some(Value::Array(first)) = numbers.first() {
        let size = first.len();
        let rows: Vec<&Vec<Value>> =
            numbers.iter().filter_map(|row| row.as_array()).filter(|row| row.len() == size).collect();
        if rows.len() != numbers.len() {
            return Err("the lists of the input are not all of one length".into());
        }
        shape.push(size);
        numbers = rows.into_iter().flatten().collect();
    }
    if let Some(whole) = numbers.iter().map(|number| number.as_i64()).collect::<Option<Vec<i64>>>() {
        return Ok(Tensor::from_vec(whole, shape, &Device::Cpu)?);
    }
    let floats: Option<Vec<f32>> =
        numbers.iter().map(|number| json::number(number).map(|number| number as f32)).collect();
    Ok(Tensor::from_vec(floats.ok_or("the input holds something that is no number")?, shape, &Device::Cpu)?)
}
