//! Which module of PyTorch, and which layer of candle-nn, finds a layer's weights under the names they have.

use kandle::{LayerWeights, Weight};

/// The classes, the modules, and the names each may have; docs/pytorch.md says what else a module must be told.
const MODULES: &[(&str, Module, &[&[&str]])] = &[
    ("Dense", Module("nn.Linear", "linear"), AFFINE),
    ("Embedding", Module("nn.Embedding", "embedding"), &[&["weight"]]),
    ("Conv1D", Module("nn.Conv1d", "conv1d"), AFFINE),
    ("Conv2D", Module("nn.Conv2d", "conv2d"), AFFINE),
    ("Conv3D", Module("nn.Conv3d", ""), AFFINE),
    ("Conv1DTranspose", Module("nn.ConvTranspose1d", "conv_transpose1d"), AFFINE),
    ("Conv2DTranspose", Module("nn.ConvTranspose2d", "conv_transpose2d"), AFFINE),
    ("Conv3DTranspose", Module("nn.ConvTranspose3d", ""), AFFINE),
    ("DepthwiseConv1D", Module("nn.Conv1d", "conv1d"), AFFINE),
    ("DepthwiseConv2D", Module("nn.Conv2d", "conv2d"), AFFINE),
    ("BatchNormalization", Module("nn.BatchNorm1d/2d/3d", "batch_norm"), STATISTICS),
    ("LayerNormalization", Module("nn.LayerNorm", "layer_norm"), AFFINE),
    ("GroupNormalization", Module("nn.GroupNorm", "group_norm"), &[&["weight", "bias"]]),
    ("RMSNormalization", Module("nn.RMSNorm", "rms_norm"), &[&["weight"]]),
    ("LSTM", Module("nn.LSTM", "lstm"), LSTM),
    ("GRU", Module("nn.GRU", "gru"), GRU),
    ("Bidirectional", Module("nn.LSTM", "bilstm"), LSTM),
    ("Bidirectional", Module("nn.GRU", ""), GRU),
];

const AFFINE: &[&[&str]] = &[&["weight"], &["weight", "bias"]];
const STATISTICS: &[&[&str]] = &[&["running_mean", "running_var"], &["weight", "bias", "running_mean", "running_var"]];
const LSTM: &[&[&str]] = &[&["weight_ih_l0", "weight_hh_l0"], &["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"]];
const GRU: &[&[&str]] =
    &[&["weight_ih_l0", "weight_hh_l0"], &["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]];

/// The module that takes the weights of `layer` as they are called, if there is one.
pub(crate) fn module(layer: &LayerWeights) -> Option<Module> {
    let forward: Vec<&str> =
        layer.weights.iter().map(|weight| weight.candle.as_str()).filter(|name| !name.ends_with(REVERSE)).collect();
    let backward: Vec<&str> = layer.weights.iter().filter_map(|weight| weight.candle.strip_suffix(REVERSE)).collect();
    // Both directions have the same weights.
    let fits = if layer.class == "Bidirectional" { forward == backward } else { backward.is_empty() };
    let has = |names: &[&str]| names.len() == forward.len() && names.iter().all(|name| forward.contains(name));
    let mut of_class = MODULES.iter().filter(|(class, ..)| *class == layer.class);
    // Without biases an LSTM and a GRU are told apart by their gates.
    let gates = |module: &Module| match (module.0, layer.weights.get(1).map(Weight::candle_shape).as_deref()) {
        ("nn.LSTM", Some([rows, units])) => rows / 4 == *units,
        ("nn.GRU", Some([rows, units])) => rows / 3 == *units,
        _ => true,
    };
    of_class
        .find(|(_, module, names)| fits && names.iter().any(|names| has(names)) && gates(module))
        .map(|entry| entry.1)
}

/// What ends the names of the backward direction's weights.
const REVERSE: &str = "_reverse";

/// PyTorch's module, and candle-nn's function, empty where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Module(pub(crate) &'static str, pub(crate) &'static str);
