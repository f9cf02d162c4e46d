//! Times an ONNX file under candle-onnx, called as kandle-bench-peer says. candle-onnx has no step before a run: what is loaded
//! is the file's text, and every run reads the weights out of it again.

use std::{collections::HashMap, time::Instant};

use candle_core::{DType, Device, Tensor};
use kandle_bench_peer::{Dtype, Result, Task};

/// ONNX's numbers of the dtypes of inputs.
const INT32: i32 = 6;
const INT64: i32 = 7;

fn main() -> Result<()> {
    let task = Task::of_arguments()?;
    let begun = Instant::now();
    let model = candle_onnx::read_file(&task.file)?;
    let load = begun.elapsed();
    let graph = model.graph.as_ref().ok_or("the file has no graph")?;
    let mut inputs = HashMap::new();
    for (view, input) in task.inputs()?.iter().zip(&graph.input) {
        let given = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            other => return Err(format!("an input of {other:?}").into()),
        };
        let kind = input.r#type.as_ref().and_then(|kind| kind.value.as_ref());
        let wanted = match kind {
            Some(candle_onnx::onnx::type_proto::Value::TensorType(tensor)) if tensor.elem_type == INT32 => DType::I32,
            Some(candle_onnx::onnx::type_proto::Value::TensorType(tensor)) if tensor.elem_type == INT64 => DType::I64,
            _ => DType::F32,
        };
        let tensor = Tensor::from_raw_buffer(view.data(), given, view.shape(), &Device::Cpu)?.to_dtype(wanted)?;
        inputs.insert(input.name.clone(), tensor);
    }
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    task.time(
        load,
        || Ok(candle_onnx::simple_eval(&model, inputs.clone())?),
        |made| {
            let mut numbers = Vec::new();
            for name in &outputs {
                let tensor = made.get(*name).ok_or("an output is missing")?;
                numbers.extend(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
            }
            Ok(numbers)
        },
    )
}
