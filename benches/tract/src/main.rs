//! Times an ONNX file under tract, called as kandle-bench-peer says.

use std::time::Instant;

use kandle_bench_peer::{Dtype, Result, Task};
use tract_onnx::{prelude::*, tract_hir::infer::Factoid as _};

fn main() -> Result<()> {
    let task = Task::of_arguments()?;
    let begun = Instant::now();
    let mut model = tract_onnx::onnx().model_for_path(&task.file)?;
    let mut inputs: TVec<TValue> = tvec!();
    for (number, view) in task.inputs()?.iter().enumerate() {
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
    task.time(
        load,
        || Ok(runnable.run(inputs.clone())?),
        |made| {
            let mut numbers = Vec::new();
            for tensor in &made {
                let tensor = tensor.cast_to::<f32>()?;
                numbers.extend_from_slice(tensor.try_as_plain_ram()?.as_slice::<f32>()?);
            }
            Ok(numbers)
        },
    )
}
