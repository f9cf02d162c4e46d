//! The classes and settings of layers as Keras 1 and 2 call them, in the words of Keras 3.
//!
//! A setting that is not named here is left to the layer, which refuses what it does not know.
//!
//! Source: `get_config` of tf_keras 2.21's layers and of Keras 1.2; keras/legacy/interfaces.py of Keras 2.2.

use std::collections::BTreeSet;

use kandle_format::{
    Dtype, ErrorKind, LayerConfig, ModelConfig, Problem,
    json::{Map, Value as Json, shown},
};

use super::{is_from, is_older_than_tensorflows};
use crate::{Family, registry};

/// What becomes of a setting.
enum Word {
    /// Keras 3 calls it otherwise.
    Is(&'static str, &'static str),
    /// It changes nothing at inference, or repeats what the graph says.
    Idle(&'static str),
    /// Keras 3 has no such setting: allowed with this value, in JSON, or null.
    Only(&'static str, &'static str),
}

use Word::{Idle, Is, Only};

/// Classes that are called otherwise in Keras 3.
const CLASSES: &[(&str, &str)] = &[
    ("Convolution1D", "Conv1D"),
    ("Convolution2D", "Conv2D"),
    ("Convolution3D", "Conv3D"),
    ("AtrousConvolution1D", "Conv1D"),
    ("AtrousConvolution2D", "Conv2D"),
    ("AtrousConv1D", "Conv1D"),
    ("AtrousConv2D", "Conv2D"),
    ("Deconvolution2D", "Conv2DTranspose"),
    ("Deconvolution3D", "Conv3DTranspose"),
    ("Deconv2D", "Conv2DTranspose"),
    ("Deconv3D", "Conv3DTranspose"),
    ("Convolution2DTranspose", "Conv2DTranspose"),
    ("Convolution3DTranspose", "Conv3DTranspose"),
    ("SeparableConvolution1D", "SeparableConv1D"),
    ("SeparableConvolution2D", "SeparableConv2D"),
    ("TimeDistributedDense", "Dense"),
    ("BatchNormalizationV1", "BatchNormalization"),
    ("BatchNormalizationV2", "BatchNormalization"),
    ("UnifiedLSTM", "LSTM"),
    ("UnifiedGRU", "GRU"),
    ("CuDNNLSTM", "LSTM"),
    ("CuDNNGRU", "GRU"),
];

const RECURRENT: &[&str] = &["RNN", "SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"];
const CELLS: &[&str] = &["SimpleRNNCell", "LSTMCell", "GRUCell"];

/// What settings are called in Keras 2.
const KERAS_2: &[(&[&str], &[Word])] = &[
    (&["InputLayer"], &[Is("batch_input_shape", "batch_shape"), Idle("input_shape")]),
    (RECURRENT, &[Idle("implementation"), Idle("input_dim"), Idle("input_length")]),
    (CELLS, &[Idle("implementation")]),
    (&["Embedding"], &[Idle("input_length")]),
    (&["LeakyReLU"], &[Is("alpha", "negative_slope")]),
    (
        &["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D"],
        &[Only("groups", "1")],
    ),
    (
        &["SeparableConv1D", "SeparableConv2D"],
        &[Only("groups", "1"), Idle("kernel_initializer"), Idle("kernel_regularizer"), Idle("kernel_constraint")],
    ),
    (
        &["DepthwiseConv1D", "DepthwiseConv2D"],
        &[Idle("kernel_initializer"), Idle("kernel_regularizer"), Idle("kernel_constraint")],
    ),
    (&["BatchNormalization", "SyncBatchNormalization"], &[Idle("virtual_batch_size"), Only("adjustment", "null")]),
    (
        &["MultiHeadAttention"],
        &[Idle("query_shape"), Idle("key_shape"), Idle("value_shape"), Only("softmax_robust_masking", "false")],
    ),
    (&["Softmax"], &[Only("robust_masking", "false")]),
    (&["SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"], &[Idle("noise_shape")]),
    (&["CategoryEncoding"], &[Only("sparse", "false"), Is("max_tokens", "num_tokens")]),
    (&["Discretization"], &[Is("bins", "bin_boundaries")]),
    (
        &[
            "RandomBrightness",
            "RandomContrast",
            "RandomCrop",
            "RandomFlip",
            "RandomHeight",
            "RandomRotation",
            "RandomTranslation",
            "RandomWidth",
            "RandomZoom",
        ],
        &[Idle("rng_type")],
    ),
];

/// What settings are called in Keras 1.
const KERAS_1: &[(&[&str], &[Word])] = &[
    (
        &["Dense", "TimeDistributedDense", "MaxoutDense", "LSTM", "GRU", "SimpleRNN"],
        &[Is("output_dim", "units"), Idle("input_dim"), Idle("input_length")],
    ),
    (&["Highway"], &[Idle("input_dim"), Idle("input_length"), Idle("transform_bias")]),
    (
        &["LSTM", "GRU", "SimpleRNN"],
        &[
            Idle("init"),
            Idle("inner_init"),
            Idle("forget_bias_init"),
            Is("inner_activation", "recurrent_activation"),
            Idle("W_regularizer"),
            Idle("U_regularizer"),
            Idle("b_regularizer"),
            Idle("dropout_W"),
            Idle("dropout_U"),
            Idle("consume_less"),
        ],
    ),
    (&["Embedding"], &[Idle("init"), Idle("W_regularizer"), Idle("W_constraint"), Idle("dropout"), Idle("weights")]),
    (
        &[
            "Dense",
            "TimeDistributedDense",
            "MaxoutDense",
            "Highway",
            "Convolution1D",
            "AtrousConvolution1D",
            "Convolution2D",
            "AtrousConvolution2D",
            "Deconvolution2D",
            "Convolution3D",
            "LocallyConnected1D",
            "LocallyConnected2D",
        ],
        &[
            Idle("init"),
            Idle("W_regularizer"),
            Idle("b_regularizer"),
            Idle("W_constraint"),
            Idle("b_constraint"),
            Is("bias", "use_bias"),
            Idle("weights"),
        ],
    ),
    (
        &[
            "Convolution1D",
            "AtrousConvolution1D",
            "Convolution2D",
            "AtrousConvolution2D",
            "Deconvolution2D",
            "SeparableConvolution2D",
            "Convolution3D",
            "LocallyConnected1D",
            "LocallyConnected2D",
        ],
        &[
            Is("nb_filter", "filters"),
            Is("subsample", "strides"),
            Is("subsample_length", "strides"),
            Is("border_mode", "padding"),
            Is("atrous_rate", "dilation_rate"),
            Is("filter_length", "kernel_size"),
            Idle("input_dim"),
            Idle("input_length"),
        ],
    ),
    (
        &["SeparableConvolution2D"],
        &[
            Idle("init"),
            Idle("depthwise_regularizer"),
            Idle("pointwise_regularizer"),
            Idle("depthwise_constraint"),
            Idle("pointwise_constraint"),
            Idle("b_regularizer"),
            Idle("b_constraint"),
            Is("bias", "use_bias"),
        ],
    ),
    (
        &["MaxPooling1D", "AveragePooling1D"],
        &[Is("pool_length", "pool_size"), Is("stride", "strides"), Is("border_mode", "padding")],
    ),
    (&["MaxPooling2D", "AveragePooling2D", "MaxPooling3D", "AveragePooling3D"], &[Is("border_mode", "padding")]),
    (&["UpSampling1D"], &[Is("length", "size")]),
    (&["Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout"], &[Is("p", "rate")]),
    (&["GaussianNoise"], &[Is("sigma", "stddev")]),
    (
        &["BatchNormalization"],
        &[
            Only("mode", "0"),
            Idle("beta_init"),
            Idle("gamma_init"),
            Idle("gamma_regularizer"),
            Idle("beta_regularizer"),
            Idle("weights"),
        ],
    ),
    (&["PReLU"], &[Idle("init"), Idle("weights")]),
];

/// Translates the class and the settings of a layer that Keras `version` wrote.
///
/// # Errors
/// Settings with values for which Keras 3 has no words.
pub(crate) fn translate(layer: &mut LayerConfig, version: Option<&str>) -> Result<(), Vec<Problem>> {
    let major = kandle_format::keras_major(version);
    let mut problems = Vec::new();
    let config = &mut layer.config;
    if layer.class != "InputLayer" {
        // What a layer is fed stands in the InputLayer, or in the graph.
        config.remove("batch_input_shape");
    }
    config.remove("input_dtype");
    // Keras: before it became part of TensorFlow, the dtype of a layer was that of the input it was given first.
    if is_older_than_tensorflows(version)
        && config.get("dtype").and_then(Json::as_str).and_then(Dtype::from_name).is_some_and(|dtype| !dtype.is_float())
    {
        config.remove("dtype");
    }
    // Keras: before 2.1.4 a wrapper's flag did nothing, only that of the layer inside; but for TimeDistributed in version 1.
    let is_idle = layer.class == "Bidirectional" || (layer.class == "TimeDistributed" && major == 2);
    if is_idle && is_older_than_tensorflows(version) && !is_from(version, [2, 1, 4]) {
        config.remove("trainable");
    }
    let refuse = |what: String| Problem::new(ErrorKind::Unsupported, &layer.at, what);
    if layer.class == "InputLayer" && config.contains_key("batch_shape") {
        let version = kandle_format::shown(version.unwrap_or("1"));
        let what = format!(
            "batch_shape is a word of Keras 3, in a file that says it is of Keras {version}: which of both is right?"
        );
        problems.push(refuse(what));
    }
    if major < 2 {
        problems.extend(kernel_size(config).map(refuse));
        problems.extend(apply(KERAS_1, &layer.class, config).into_iter().map(refuse));
        order_of_axes(config);
        if layer.class == "ZeroPadding2D" {
            sides(config);
        }
        if layer.class == "BatchNormalization" && (version.is_none() || !is_from(version, [1, 0, 6])) {
            let version = version.map_or_else(|| "1 without a number".to_owned(), kandle_format::shown);
            problems.push(refuse(format!(
                "written by Keras {version}: until 1.0.5 running_std was a deviation, later a variance. Save the model with Keras 1.0.6 or later"
            )));
        }
        if layer.class == "Merge" {
            match merge(config) {
                Ok(class) => class.clone_into(&mut layer.class),
                Err(what) => problems.push(refuse(what)),
            }
        }
    }
    let dilated = |rate: &Json| rate.as_array().is_some_and(|rates| rates.iter().any(|rate| rate.as_u64() != Some(1)));
    if layer.class.starts_with("SeparableConv") && major == 2 && !is_from(version, [2, 2, 0]) {
        // Keras: 2.0 wrote the rate down and did not use it.
        if config.get("dilation_rate").is_some_and(dilated) {
            problems.push(refuse("dilation_rate above 1 is not supported in a file of Keras before 2.2".to_owned()));
        }
    }
    problems.extend(apply(KERAS_2, &layer.class, config).into_iter().map(refuse));
    match layer.class.as_str() {
        "BatchNormalization" | "BatchNormalizationV1" | "BatchNormalizationV2" | "SyncBatchNormalization" => {
            // Keras 2 writes the axis as a list of one.
            if let Some(Json::Array(axes)) = config.get("axis")
                && let [axis] = axes.as_slice()
            {
                let axis = axis.clone();
                config.insert("axis".to_owned(), axis);
            }
            if layer.class == "SyncBatchNormalization" {
                config.insert("fused".to_owned(), false.into());
            }
        }
        // Keras 2.7 and later: at inference it is this. Before, the layer refuses it.
        "RandomCrop" if is_from(version, [2, 7, 0]) => {
            "Resizing".clone_into(&mut layer.class);
            config.remove("seed");
            config.insert("crop_to_aspect_ratio".to_owned(), true.into());
        }
        "CuDNNLSTM" | "CuDNNGRU" => {
            // Their functions are those of the library, so that they stand in no file.
            config.insert("activation".to_owned(), "tanh".into());
            config.insert("recurrent_activation".to_owned(), "sigmoid".into());
            config.insert("cudnn".to_owned(), true.into());
            if layer.class == "CuDNNGRU" {
                config.insert("reset_after".to_owned(), true.into());
            }
        }
        _ => {}
    }
    if let Some((_, class)) = CLASSES.iter().find(|(old, _)| *old == layer.class) {
        (*class).clone_into(&mut layer.class);
    }
    // Only Keras 3 has operations beside its layers, and only their module tells them apart. What keras.applications has
    // besides is known by its module alone.
    if layer.module.is_none() && registry::find(&layer.class).is_some_and(|found| found.family != Family::Applications)
    {
        layer.module = Some("keras.layers".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Applies what `table` says of `class`; returns what cannot be said in Keras 3's words.
fn apply(table: &[(&[&str], &[Word])], class: &str, config: &mut Map<String, Json>) -> Vec<String> {
    let mut problems = Vec::new();
    for word in table.iter().filter(|(classes, _)| classes.contains(&class)).flat_map(|(_, words)| *words) {
        match word {
            Is(old, new) => {
                if let Some(value) = config.remove(*old) {
                    config.insert((*new).to_owned(), value);
                }
            }
            Idle(key) => {
                config.remove(*key);
            }
            Only(key, allowed) => {
                if let Some(value) = config.remove(*key).filter(|value| !value.is_null() && shown(value) != *allowed) {
                    problems.push(format!("{key} = {} is not supported (only {allowed})", shown(&value)));
                }
            }
        }
    }
    problems
}

/// The edges of a kernel, which Keras 1 names one by one.
fn kernel_size(config: &mut Map<String, Json>) -> Option<String> {
    for edges in [&["nb_row", "nb_col"][..], &["kernel_dim1", "kernel_dim2", "kernel_dim3"]] {
        let found: Vec<Json> = edges.iter().filter_map(|edge| config.remove(*edge)).collect();
        if found.len() == edges.len() {
            config.insert("kernel_size".to_owned(), found.into());
        } else if !found.is_empty() {
            return Some(format!("expected {} together", edges.join(", ")));
        }
    }
    None
}

/// Gives a layer of Keras 1 that works on images but does not say the order of their axes the one that all others of `model`
/// have.
///
/// Keras: these layers take the order that the program was set to, and do not write it down.
///
/// # Errors
/// Where the others have several, or there are none.
pub(super) fn name_order_of_axes(layer: &mut LayerConfig, model: &ModelConfig) -> Result<(), Problem> {
    const SILENT: &[&str] =
        &["ZeroPadding2D", "ZeroPadding3D", "Cropping2D", "Cropping3D", "UpSampling2D", "UpSampling3D"];
    if model.keras_major() > 1 || !SILENT.contains(&layer.class.as_str()) || layer.config.contains_key("dim_ordering") {
        return Ok(());
    }
    let mut orders = BTreeSet::new();
    model.layers.iter().for_each(|layer| layer.config.values().for_each(|value| orders_in(value, &mut orders)));
    let own = model.layers.iter().filter_map(|layer| layer.config.get("dim_ordering")?.as_str());
    orders.extend(own.map(str::to_owned));
    match orders.iter().collect::<Vec<&String>>().as_slice() {
        [order] => {
            layer.config.insert("dim_ordering".to_owned(), order.as_str().into());
            Ok(())
        }
        found => {
            let what = format!(
                "dim_ordering is not in the file, and the other layers name {} orders: which one is it, \"tf\" (channels last) or \"th\"? Save the model with a later version of Keras",
                found.len()
            );
            Err(Problem::new(ErrorKind::Unsupported, &layer.at, what))
        }
    }
}

/// What must be known about an image that a layer of `model` enlarges between its pixels.
///
/// Keras: TensorFlow 1.15 places pixels in another way than 1.13 and 1.14 do, all of which call themselves 2.2.4-tf. From
/// 1.15 on an InputLayer says whether it is `ragged`.
pub(super) fn question_of_pixels(layer: &LayerConfig, model: &ModelConfig) -> Option<Problem> {
    let enlarges = |class: Option<&str>, config: Option<&Map<String, Json>>| {
        class == Some("UpSampling2D")
            && config.and_then(|config| config.get("interpolation")).and_then(Json::as_str) == Some("bilinear")
    };
    let inner = layer.config.get("layer").unwrap_or(&Json::Null);
    let found = enlarges(Some(&layer.class), Some(&layer.config))
        || enlarges(inner.get("class_name").and_then(Json::as_str), inner.get("config").and_then(Json::as_object));
    let newer = || model.layers.iter().any(|layer| layer.class == "InputLayer" && layer.config.contains_key("ragged"));
    if model.keras_version.as_deref() != Some("2.2.4-tf") || !found || newer() {
        return None;
    }
    let what = "interpolation = \"bilinear\" of Keras 2.2.4-tf: was it TensorFlow 1.15 or later, or before? They differ, and \
                the file does not say. Save the model with TensorFlow 2.2 or later";
    Some(Problem::new(ErrorKind::Unsupported, &layer.at, what))
}

fn orders_in(value: &Json, found: &mut BTreeSet<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| orders_in(item, found)),
        Json::Object(items) => {
            found.extend(items.get("dim_ordering").and_then(Json::as_str).map(str::to_owned));
            items.values().for_each(|item| orders_in(item, found));
        }
        _ => {}
    }
}

/// The cells at each side of an image, which Keras 1 also writes as one list or by name.
fn sides(config: &mut Map<String, Json>) {
    let four = match config.get("padding") {
        Some(Json::Array(cells)) if cells.len() == 4 => cells.clone(),
        Some(Json::Object(cells)) => {
            const SIDES: [&str; 4] = ["top_pad", "bottom_pad", "left_pad", "right_pad"];
            SIDES.iter().map(|side| cells.get(*side).cloned().unwrap_or_else(|| 0.into())).collect()
        }
        _ => return,
    };
    config.insert("padding".to_owned(), four.chunks(2).collect::<Vec<_>>().into());
}

/// `dim_ordering`, as Keras 1 calls `data_format`.
fn order_of_axes(config: &mut Map<String, Json>) {
    if let Some(order) = config.remove("dim_ordering") {
        let format = match order.as_str() {
            Some("tf") => Json::from("channels_last"),
            Some("th") => Json::from("channels_first"),
            _ => order,
        };
        config.insert("data_format".to_owned(), format);
    }
}

/// The class of Keras 3 that merges as the layer `Merge` of Keras 1 does.
fn merge(config: &mut Map<String, Json>) -> Result<&'static str, String> {
    let mut take = |key: &str| config.remove(key).unwrap_or_default();
    let (mode, concat_axis, dot_axes) = (take("mode"), take("concat_axis"), take("dot_axes"));
    for key in ["mode_type", "output_shape", "output_shape_type", "output_mask", "output_mask_type", "arguments"] {
        take(key);
    }
    let class = match mode.as_str() {
        Some("sum") => "Add",
        Some("mul") => "Multiply",
        Some("ave") => "Average",
        Some("max") => "Maximum",
        Some("concat") => {
            config.insert("axis".to_owned(), concat_axis);
            "Concatenate"
        }
        Some(mode @ ("dot" | "cos")) => {
            // One axis of each input, or a list of one for each.
            let axes = match dot_axes.as_array().map(Vec::as_slice) {
                Some([Json::Array(a), Json::Array(b)]) => a.iter().chain(b).cloned().collect::<Vec<Json>>().into(),
                _ => dot_axes,
            };
            config.insert("axes".to_owned(), axes);
            if mode == "dot" {
                "Dot"
            } else {
                config.insert("mode".to_owned(), "cos".into());
                "Merge"
            }
        }
        _ => {
            let what = "is not supported (only sum, mul, ave, max, concat, dot and cos)";
            return Err(format!("mode = {} {what}", shown(&mode)));
        }
    };
    Ok(class)
}
