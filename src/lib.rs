#![doc = include_str!("../README.md")]

mod hints;
mod judge;
mod proof;

pub use hints::{explain, explain_port};
pub use judge::{
    Judged, JudgedEngine, With, array, judge, judge_engine, load_recorded, numbers, open_recorded, value, verify,
    verify_file, verify_with,
};
pub use kandle_engine::{Compile, CompileFile, Compiled, Engine, Instruction, Options, View};
pub use kandle_format::{
    Archive, Array as StoredArray, Arrays, Bytes, Container, Dtype, Error, ErrorKind, LayerConfig, Limits, ModelConfig,
    Problem, Result, json, nearest, shown,
};
pub use kandle_model::{
    Activation, Argument, Arguments, Call, Family, Fields, FileLayer, Function, Given, Inner, Input, KerasLayer,
    LayerWeights, Layout, LoadReport, LoadedWeight, Lowered, Masking, Model, ModelCall, Plan, PlannedLayer,
    PlannedModel, Policy, Primitive, Quantization, Registered, Registry, Shape, Spec, Step, StoredTensor, Trace,
    TracedCall, Value, Weight, WeightMap, layers, load_weights, meaning_of, operations, primitive,
    tensorflow_functions,
};
pub use kandle_parity as parity;
pub use proof::{LoadVerified, verify_loaded};

/// Fails unless a port gives what Keras recorded, in every case in or below a folder, as
/// [`parity::assert_case!`](kandle_parity::assert_case), and says which mistake would explain a layer that differs.
///
/// ```
/// use candle_nn::Module as _;
///
/// let port = example3::Example3::load("reference_outputs/example3/2x3/model.keras", &candle_core::Device::Cpu).unwrap();
/// kandle::assert_case!("reference_outputs/example3", |inputs, trace| {
///     let ys = port.forward(&inputs[0])?;
///     trace.record("dense", &ys)?;
///     Ok(vec![ys])
/// });
/// ```
#[macro_export]
macro_rules! assert_case {
    ($folder:expr, $port:expr $(,)?) => {
        if let Err(told) = $crate::parity::port_parity($folder, $port, $crate::explain_port) {
            ::std::panic!("the port differs from Keras\n{told}");
        }
    };
}

/// docs/performance.md, whose example runs.
#[cfg(doctest)]
#[doc = include_str!("../docs/performance.md")]
struct Performance;
