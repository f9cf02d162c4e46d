#![doc = include_str!("../README.md")]

mod hints;
mod judge;
mod proof;

pub use hints::explain;
pub use judge::{Judged, array, judge, load_recorded, numbers, open_recorded, value, verify, verify_file};
pub use kandle_format::{
    Archive, Array as StoredArray, Arrays, Bytes, Container, Dtype, Error, ErrorKind, LayerConfig, Limits, ModelConfig,
    Problem, Result, json, nearest, shown,
};
pub use kandle_model::{
    Activation, Argument, Arguments, Call, Family, Fields, FileLayer, Function, Given, Inner, Input, KerasLayer,
    LayerWeights, Layout, LoadReport, LoadedWeight, Masking, Model, ModelCall, Plan, PlannedLayer, PlannedModel,
    Policy, Quantization, Registered, Registry, Shape, Spec, Step, StoredTensor, Trace, TracedCall, Value, Weight,
    WeightMap, layers, load_weights, meaning_of, operations, tensorflow_functions,
};
pub use kandle_parity as parity;
pub use proof::{LoadVerified, verify_loaded};
