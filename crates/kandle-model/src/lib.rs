//! Keras configurations as candle models.
//!
//! The way of a model, one function an arrow:
//!
//! [`ModelConfig`] → [`Plan::new`] → [`Plan`] → [`Plan::load`] → `VarMap` + [`LoadReport`] → [`Plan::with`] → [`Model`]
//!
//! A layer is one file in `layers/`, in the folder that Keras has it in, and one line in the registry. It says once what
//! weights it has ([`Weight`]); reading, checking, naming, listing and writing back all use that one list.
//!
//! [`ModelConfig`]: kandle_format::ModelConfig

mod activation;
mod arguments;
mod build;
mod call;
mod dialect;
mod fields;
mod graph;
mod in_file;
mod inner;
mod layers;
mod layout;
mod load;
mod locate;
mod math;
mod meaning;
mod model;
mod numeric;
mod ops;
mod plan;
mod policy;
mod policy_map;
pub mod primitive;
mod quantized;
mod registry;
mod run;
mod safetensors_file;
mod shape;
mod source;
mod weights;

pub use activation::{Activation, Function};
pub use arguments::{Argument, Arguments, Given};
pub use call::{Call, KerasLayer, Masking, Value};
pub use dialect::tensorflow_functions;
pub use fields::Fields;
pub use in_file::InFile;
pub use inner::Inner;
pub use layout::Layout;
pub use load::{LoadReport, LoadedWeight, load_weights};
pub use meaning::meaning_of;
pub use model::{Model, Trace, TracedCall};
pub use plan::{Input, ModelCall, Plan, PlannedLayer, PlannedModel, Step};
pub use policy::{Policy, Quantization};
pub use primitive::{Lowered, Primitive};
pub use registry::{Family, Registered, Registry, layers, operations};
pub use safetensors_file::StoredTensor;
pub use shape::{Shape, Spec};
pub use weights::{FileLayer, LayerWeights, Weight, WeightMap};
