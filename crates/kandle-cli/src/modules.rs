//! Which module of PyTorch, and which layer of candle-nn, finds a layer's weights under the names they have.

use kandle::LayerWeights;

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
    ("BatchNormalization", Module("nn.BatchNorm", "batch_norm"), STATISTICS),
    ("LayerNormalization", Module("nn.LayerNorm", "layer_norm"), AFFINE),
    ("GroupNormalization", Module("nn.GroupNorm", "group_norm"), &[&["weight", "bias"]]),
    ("RMSNormalization", Module("nn.RMSNorm", "rms_norm"), &[&["weight"]]),
    ("LSTM", Module("nn.LSTM", "lstm"), LSTM),
    ("GRU", Module("nn.GRU", "gru"), GRU),
    ("Bidirectional", Module("nn.LSTM", "bilstm"), LSTM_BOTH_WAYS),
    ("Bidirectional", Module("nn.GRU", ""), GRU_BOTH_WAYS),
];

const AFFINE: &[&[&str]] = &[&["weight"], &["weight", "bias"]];
const STATISTICS: &[&[&str]] = &[&["running_mean", "running_var"], &["weight", "bias", "running_mean", "running_var"]];
const LSTM: &[&[&str]] = &[&["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"]];
const GRU: &[&[&str]] = &[&["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]];
const LSTM_BOTH_WAYS: &[&[&str]] = &[&[
    "weight_ih_l0",
    "weight_hh_l0",
    "bias_ih_l0",
    "weight_ih_l0_reverse",
    "weight_hh_l0_reverse",
    "bias_ih_l0_reverse",
]];
const GRU_BOTH_WAYS: &[&[&str]] = &[&[
    "weight_ih_l0",
    "weight_hh_l0",
    "bias_ih_l0",
    "bias_hh_l0",
    "weight_ih_l0_reverse",
    "weight_hh_l0_reverse",
    "bias_ih_l0_reverse",
    "bias_hh_l0_reverse",
]];

/// PyTorch's module, and candle-nn's function, empty where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Module(pub(crate) &'static str, pub(crate) &'static str);

/// The module that takes the weights of `layer` as they are called, if there is one.
pub(crate) fn module(layer: &LayerWeights) -> Option<Module> {
    let has = |names: &&[&str]| {
        names.len() == layer.weights.len()
            && names.iter().all(|name| layer.weights.iter().any(|weight| weight.candle == *name))
    };
    let of_class = MODULES.iter().filter(|(class, ..)| *class == layer.class);
    of_class.filter(|(_, _, names)| names.iter().any(|names| has(&names))).map(|entry| entry.1).next()
}
