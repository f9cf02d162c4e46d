//! Times an ONNX file under tract: `kandle-bench-tract FILE.onnx io.safetensors SECONDS TENSOR…`, for each input of the file, in
//! its order, the name of a tensor in `io.safetensors`. The caller compares the outputs, for whom they are written to
//! `FILE.onnx.out`, float32 one behind the other. The last line is a JSON object.

use std::{
    env, error, fs,
    time::{Duration, Instant},
};

use safetensors::{Dtype, SafeTensors};
use tract_onnx::{prelude::*, tract_hir::infer::Factoid as _};

type Result<T> = std::result::Result<T, Box<dyn error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, io, seconds, names @ ..] = arguments.as_slice() else {
        return Err("FILE.onnx io.safetensors SECONDS TENSOR…".into());
    };
    let (bytes, seconds) = (fs::read(io)?, seconds.parse::<f64>()?);
    let tensors = SafeTensors::deserialize(&bytes)?;
    let begun = Instant::now();
    let mut model = tract_onnx::onnx().model_for_path(file)?;
    let mut inputs: TVec<TValue> = tvec!();
    for (number, name) in names.iter().enumerate() {
        let view = tensors.tensor(name)?;
        let wanted = model.input_fact(number)?.datum_type.concretize().unwrap_or(DatumType::F32);
        let given = match view.dtype() {
            Dtype::F32 => DatumType::F32,
            Dtype::I32 => DatumType::I32,
            Dtype::I64 => DatumType::I64,
            other => return Err(format!("an input of {other:?}").into()),
        };
        // Safety: the bytes are numbers of this dtype, as many as the shape has.
        let tensor = unsafe { Tensor::from_raw_dt(given, view.shape(), view.data())? };
        let tensor = tensor.cast_to_dt(wanted)?.into_owned();
        model.set_input_fact(number, InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))?;
        inputs.push(tensor.into());
    }
    let runnable = model.into_optimized()?.into_runnable()?;
    let load = begun.elapsed();
    let made = runnable.run(inputs.clone())?;
    let mut out = Vec::new();
    for tensor in &made {
        let tensor = tensor.cast_to::<f32>()?;
        out.extend(tensor.try_as_plain_ram()?.as_slice::<f32>()?.iter().flat_map(|x| x.to_le_bytes()));
    }
    fs::write(format!("{file}.out"), out)?;
    let begun = Instant::now();
    runnable.run(inputs.clone())?;
    let together = (50e-6 / begun.elapsed().as_secs_f64().max(1e-9)) as u32 + 1;
    let (mut times, end) = (Vec::<Duration>::new(), Instant::now() + Duration::from_secs_f64(seconds));
    while Instant::now() < end || times.len() < 3 {
        let begun = Instant::now();
        for _ in 0..together {
            std::hint::black_box(runnable.run(inputs.clone())?);
        }
        times.push(begun.elapsed() / together);
    }
    times.sort_unstable();
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    println!("{{\"median_ms\": {median}, \"load_s\": {}}}", load.as_secs_f64());
    Ok(())
}
