#![doc = include_str!("../README.md")]

mod judge;

pub use judge::{Judged, array, judge, load_recorded, value, verify};
pub use kandle_format::{
    Archive, Array as StoredArray, Bytes, Container, Dtype, Error, ErrorKind, Hdf5File, LayerConfig, Limits,
    ModelConfig, Problem, Result, json, nearest, shown,
};
pub use kandle_model::{
    Activation, Family, FileLayer, Function, Input, LayerWeights, Layout, LoadReport, LoadedWeight, Model, Plan,
    PlannedLayer, Registered, Shape, Spec, Step, Trace, TracedCall, Value, Weight, WeightMap, layers, load_weights,
};
pub use kandle_parity as parity;
