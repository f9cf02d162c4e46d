//! The layers in which Keras 2 keeps functions of TensorFlow (`TFOpLambda`, `SlicingOpLambda`), as operations of `keras.ops`.
//!
//! TensorFlow never promotes: both sides of an operator have one dtype, and so does what comes out. Where `keras.ops` would
//! give another dtype the file is refused.
//!
//! Source: tf_keras/src/layers/core/tf_op_layer.py; the parameters are those of TensorFlow's documentation.

use kandle_format::{
    Dtype, LayerConfig, Problem,
    json::{Map, Value as Json, shown},
};
use serde_json::json;

use super::calls::Call;
use crate::{
    Call as LayerCall, Fields, Given, KerasLayer, Spec, Value,
    layers::cannot,
    ops::{OPERATIONS, Operation, convert, tensorflow::FUNCTIONS},
};

const FUNCTION_LAYERS: &[&str] = &["TFOpLambda", "SlicingOpLambda"];

/// Whether `layer` is a function of TensorFlow, whose calls are written as they were.
pub(super) fn is_function(layer: &LayerConfig) -> bool {
    const ALL: &[&str] = &["ClassMethod", "InstanceMethod", "InstanceProperty"];
    FUNCTION_LAYERS.contains(&layer.class.as_str()) || ALL.contains(&layer.class.as_str())
}

/// Translates the function that `layer` is, if it is one, by its one call. The settings of the layer become `function`, and
/// `operation` with its `settings` and `rule`, or `refused`; the call becomes that of the operation.
pub(super) fn translate(layer: &mut LayerConfig, calls: Vec<Call>) -> Result<Vec<Call>, String> {
    if !FUNCTION_LAYERS.contains(&layer.class.as_str()) {
        return Ok(calls);
    }
    let name = layer.config.get("function").and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut config = Map::new();
    config.insert("function".to_owned(), name.as_str().into());
    let mut translated = Vec::new();
    for call in calls {
        match operation(&name, call) {
            Ok(Translated { operation, settings, rule, to, call }) => {
                let found = json!({ "operation": operation, "settings": settings, "rule": rule, "to": to });
                match config.get("as") {
                    None => {
                        config.insert("as".to_owned(), found);
                    }
                    Some(before) if *before == found => {}
                    Some(_) => {
                        config.insert("refused".to_owned(), "called twice with other settings".into());
                    }
                }
                translated.push(call);
            }
            Err(what) => {
                config.insert("refused".to_owned(), what.into());
                translated.push(Call::default());
            }
        }
    }
    layer.config = config;
    Ok(translated)
}

/// What is asked of the dtypes of a call.
mod rule {
    /// What comes out has the dtype of the first tensor.
    pub(super) const SAME: &str = "same";
    /// As `SAME`, and that is a float.
    pub(super) const FLOATS: &str = "floats";
    /// All tensors have one dtype, whatever comes out.
    pub(super) const ALIKE: &str = "alike";
    /// Anything.
    pub(super) const ANY: &str = "any";
}

/// A call of an operation in place of a call of a function.
struct Translated {
    operation: &'static str,
    settings: Map<String, Json>,
    rule: &'static str,
    /// The dtype that the result is cast to, where it is not the operation's own.
    to: Option<&'static str>,
    call: Call,
}

/// The arguments of a function, taken one by one.
struct Taken {
    first: Option<Json>,
    named: Map<String, Json>,
}

impl Taken {
    /// The argument `name`, unless it is null.
    fn take(&mut self, name: &str) -> Option<Json> {
        self.named.remove(name).filter(|value| !value.is_null())
    }

    /// As `take`, under any of the names that versions of TensorFlow have for it.
    fn any(&mut self, names: &[&str]) -> Option<Json> {
        let found: Vec<Json> = names.iter().filter_map(|name| self.take(name)).collect();
        found.into_iter().next()
    }

    /// The first argument, by whatever name.
    fn first(&mut self) -> Result<Json, String> {
        self.first.take().ok_or_else(|| "called without an argument".to_owned())
    }

    fn need(&mut self, name: &str) -> Result<Json, String> {
        self.take(name).ok_or_else(|| format!("called without {name}"))
    }

    /// Takes `name`, which must have one of the values `allowed`, in JSON, or not be given.
    fn only(&mut self, name: &str, allowed: &[&str]) -> Result<(), String> {
        match self.take(name) {
            Some(value) if !allowed.contains(&shown(&value).as_str()) => {
                Err(format!("{name} = {} is not supported (only {})", shown(&value), allowed.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    fn integer(&mut self, names: &[&str], default: i64) -> Result<i64, String> {
        match self.any(names) {
            None => Ok(default),
            Some(value) => {
                value.as_i64().ok_or_else(|| format!("{} = {} is no whole number", names.join(" or "), shown(&value)))
            }
        }
    }
}

type Translation = Result<Translated, String>;

fn made(operation: &'static str, rule: &'static str, positional: Vec<Json>) -> Translated {
    Translated { operation, settings: Map::new(), rule, to: None, call: Call { positional, named: Map::new() } }
}

impl Translated {
    fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    fn to(self, dtype: Option<&'static str>) -> Self {
        Self { to: dtype, ..self }
    }
}

const NOT_SUPPORTED: &str = "this function of TensorFlow is not supported";

/// Functions of one tensor.
const OF_ONE: &[(&str, &str, &str)] = &[
    ("abs", "Absolute", rule::SAME),
    ("acos", "Arccos", rule::FLOATS),
    ("acosh", "Arccosh", rule::FLOATS),
    ("asin", "Arcsin", rule::FLOATS),
    ("asinh", "Arcsinh", rule::FLOATS),
    ("atan", "Arctan", rule::FLOATS),
    ("atanh", "Arctanh", rule::FLOATS),
    ("ceil", "Ceil", rule::FLOATS),
    ("cos", "Cos", rule::FLOATS),
    ("cosh", "Cosh", rule::FLOATS),
    ("elu", "Elu", rule::FLOATS),
    ("erf", "Erf", rule::FLOATS),
    ("exp", "Exp", rule::FLOATS),
    ("expm1", "Expm1", rule::FLOATS),
    ("floor", "Floor", rule::FLOATS),
    ("is_finite", "Isfinite", rule::ANY),
    ("is_inf", "Isinf", rule::ANY),
    ("is_nan", "Isnan", rule::ANY),
    ("log", "Log", rule::FLOATS),
    ("log1p", "Log1p", rule::FLOATS),
    ("log_sigmoid", "LogSigmoid", rule::FLOATS),
    ("logical_not", "LogicalNot", rule::ANY),
    ("negative", "Negative", rule::SAME),
    ("relu", "Relu", rule::SAME),
    ("relu6", "Relu6", rule::SAME),
    ("round", "Round", rule::FLOATS),
    ("rsqrt", "Rsqrt", rule::FLOATS),
    ("selu", "Selu", rule::FLOATS),
    ("sigmoid", "Sigmoid", rule::FLOATS),
    ("sign", "Sign", rule::SAME),
    ("silu", "Silu", rule::FLOATS),
    ("sin", "Sin", rule::FLOATS),
    ("sinh", "Sinh", rule::FLOATS),
    ("softplus", "Softplus", rule::FLOATS),
    ("softsign", "Softsign", rule::FLOATS),
    ("sqrt", "Sqrt", rule::FLOATS),
    ("square", "Square", rule::SAME),
    ("stop_gradient", "StopGradient", rule::SAME),
    ("swish", "Silu", rule::FLOATS),
    ("tan", "Tan", rule::FLOATS),
    ("tanh", "Tanh", rule::FLOATS),
];

/// Functions of two tensors, `x` and `y`.
const OF_TWO: &[(&str, &str, &str)] = &[
    ("__operators__.add", "tf.add", rule::SAME),
    ("__operators__.eq", "Equal", rule::ALIKE),
    ("__operators__.ne", "NotEqual", rule::ALIKE),
    ("add", "tf.add", rule::SAME),
    ("atan2", "Arctan2", rule::FLOATS),
    ("bitwise.bitwise_and", "BitwiseAnd", rule::SAME),
    ("bitwise.bitwise_or", "BitwiseOr", rule::SAME),
    ("bitwise.bitwise_xor", "BitwiseXor", rule::SAME),
    ("divide", "tf.truediv", rule::ALIKE),
    ("divide_no_nan", "DivideNoNan", rule::FLOATS),
    ("equal", "Equal", rule::ALIKE),
    ("floordiv", "FloorDivide", rule::SAME),
    ("floor_div", "FloorDivide", rule::SAME),
    ("floormod", "tf.floormod", rule::SAME),
    ("mod", "tf.floormod", rule::SAME),
    ("greater", "Greater", rule::ALIKE),
    ("greater_equal", "GreaterEqual", rule::ALIKE),
    ("less", "Less", rule::ALIKE),
    ("less_equal", "LessEqual", rule::ALIKE),
    ("logical_and", "LogicalAnd", rule::ALIKE),
    ("logical_or", "LogicalOr", rule::ALIKE),
    ("logical_xor", "LogicalXor", rule::ALIKE),
    ("maximum", "Maximum", rule::SAME),
    ("minimum", "Minimum", rule::SAME),
    ("multiply", "Multiply", rule::SAME),
    ("not_equal", "NotEqual", rule::ALIKE),
    ("pow", "Power", rule::SAME),
    ("squared_difference", "tf.squared_difference", rule::SAME),
    ("subtract", "Subtract", rule::SAME),
    ("truediv", "tf.truediv", rule::ALIKE),
];

/// Reductions.
const REDUCTIONS: &[(&str, &str, &str)] = &[
    ("reduce_all", "All", rule::SAME),
    ("reduce_any", "Any", rule::SAME),
    ("reduce_logsumexp", "Logsumexp", rule::FLOATS),
    ("reduce_max", "Max", rule::SAME),
    ("reduce_mean", "Mean", rule::FLOATS),
    ("reduce_min", "Min", rule::SAME),
    ("reduce_prod", "Prod", rule::SAME),
    ("reduce_std", "Std", rule::FLOATS),
    ("reduce_sum", "Sum", rule::SAME),
    ("reduce_variance", "Var", rule::FLOATS),
];

/// Functions with parameters of their own; see [`other`].
const OTHERS: &[&str] = &[
    "__operators__.getitem",
    "add_n",
    "argmax",
    "argmin",
    "argsort",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "bias_add",
    "broadcast_to",
    "cast",
    "clip_by_value",
    "concat",
    "conv1d",
    "conv2d",
    "convert_to_tensor",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "depth_to_space",
    "depthwise_conv2d",
    "ensure_shape",
    "expand_dims",
    "fill",
    "gather",
    "gelu",
    "identity",
    "image.flip_left_right",
    "image.flip_up_down",
    "image.resize",
    "l2_normalize",
    "leaky_relu",
    "log_softmax",
    "matmul",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "norm",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "range",
    "reciprocal",
    "reduce_euclidean_norm",
    "repeat",
    "reshape",
    "reverse",
    "roll",
    "shape",
    "slice",
    "softmax",
    "sort",
    "space_to_depth",
    "split",
    "squeeze",
    "stack",
    "tensordot",
    "tile",
    "top_k",
    "transpose",
    "unstack",
    "where",
    "zeros",
    "zeros_like",
];

/// Every function of TensorFlow that is reproduced where Keras 2 kept it as a layer, without the module it is in.
pub fn tensorflow_functions() -> impl Iterator<Item = &'static str> {
    let of = |table: &'static [(&'static str, &'static str, &'static str)]| table.iter().map(|(name, ..)| *name);
    of(OF_ONE).chain(of(OF_TWO)).chain(of(REDUCTIONS)).chain(OTHERS.iter().copied())
}

/// The operation that a call of the function `name` is.
fn operation(name: &str, call: Call) -> Translation {
    let mut taken = Taken { first: call.positional.into_iter().next(), named: call.named };
    taken.take("name");
    // The same function has several names; which of them is written depends on the version.
    let plain = name.trim_start_matches("compat.v1.");
    if name == "compat.v1.where" {
        // TensorFlow: with a condition of one axis it takes whole rows, not numbers.
        return Err(NOT_SUPPORTED.to_owned());
    }
    let plain = ["math.", "nn.", "linalg."].iter().find_map(|module| plain.strip_prefix(module)).unwrap_or(plain);
    let find = |table: &'static [(&'static str, &'static str, &'static str)]| {
        table.iter().find(|(function, ..)| *function == plain || *function == name)
    };
    let translated = if let Some((_, class, rule)) = find(OF_ONE) {
        if plain == "selu" || plain == "elu" || plain == "relu" || plain == "relu6" {
            taken.take("features");
        }
        taken.only("dtype", &[])?;
        made(class, rule, vec![taken.first()?])
    } else if let Some((_, class, rule)) = find(OF_TWO) {
        let y = taken.any(&["y", "x2", "other", "x"]).ok_or("called without y")?;
        made(class, rule, vec![taken.first()?, y])
    } else if let Some((_, class, rule)) = find(REDUCTIONS) {
        reduction(class, rule, &mut taken)?
    } else {
        other(plain, &mut taken)?
    };
    if let Some((key, value)) = taken.named.iter().find(|(_, value)| !value.is_null()) {
        return Err(format!("{} = {} is not supported", kandle_format::shown(key), shown(value)));
    }
    if let Some((key, _)) = translated.settings.iter().find(|(_, value)| is_computed(value)) {
        return Err(format!("{} that is computed is not supported", kandle_format::shown(key)));
    }
    Ok(translated)
}

/// Whether a tensor is part of `value`.
fn is_computed(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(is_computed),
        Json::Object(item) => item.get("class_name").and_then(Json::as_str) == Some("__keras_tensor__"),
        _ => false,
    }
}

fn reduction(class: &'static str, rule: &'static str, taken: &mut Taken) -> Translation {
    let axis = taken.any(&["axis", "reduction_indices"]);
    let keep = taken.any(&["keepdims", "keep_dims"]).unwrap_or(Json::Bool(false));
    let mut translated = made(class, rule, vec![taken.first()?]).with("keepdims", keep);
    if let Some(axis) = axis {
        translated = translated.with("axis", axis);
    }
    Ok(translated)
}

fn other(name: &str, taken: &mut Taken) -> Translation {
    Ok(match name {
        "__operators__.getitem" => {
            let spec = taken.need("slice_spec")?;
            taken.only("var", &[])?;
            made("GetItem", rule::SAME, vec![taken.first()?, slices(&spec)?])
        }
        "argmax" | "argmin" => {
            let axis = taken.integer(&["axis", "dimension"], 0)?;
            let to = match taken.take("output_type").as_ref().and_then(Json::as_str).map(str::to_owned).as_deref() {
                None | Some("int64") => "int64",
                Some("int32") => "int32",
                Some(other) => return Err(format!("output_type = {other} is not supported")),
            };
            let class = if name == "argmax" { "Argmax" } else { "Argmin" };
            made(class, rule::ANY, vec![taken.first()?]).with("axis", axis).to(Some(to))
        }
        "bias_add" => {
            taken.only("data_format", &["\"NHWC\"", "\"N...C\""])?;
            let bias = taken.need("bias")?;
            made("tf.add", rule::FLOATS, vec![taken.first()?, bias])
        }
        "broadcast_to" => {
            let shape = taken.need("shape")?;
            made("tf.broadcast_to", rule::SAME, vec![taken.first()?, shape])
        }
        "avg_pool1d" | "max_pool1d" | "avg_pool2d" | "max_pool2d" | "avg_pool" | "max_pool" => {
            taken.only("data_format", &["\"NHWC\"", "\"NWC\""])?;
            let class = if name.starts_with("avg") { "AveragePool" } else { "MaxPool" };
            let (size, strides) = (inner_axes(taken.need("ksize")?)?, inner_axes(taken.need("strides")?)?);
            let padding = padding(taken)?;
            made(class, rule::FLOATS, vec![taken.first()?])
                .with("pool_size", size)
                .with("strides", strides)
                .with("padding", padding)
                .with("data_format", "channels_last")
        }
        "conv2d" => {
            taken.only("data_format", &["\"NHWC\""])?;
            taken.only("use_cudnn_on_gpu", &["true"])?;
            let kernel = taken.any(&["filters", "filter"]).ok_or("called without filters")?;
            let strides = inner_axes(taken.need("strides")?)?;
            let dilations = taken.take("dilations").map(inner_axes).transpose()?;
            let padding = padding(taken)?;
            made("Conv", rule::FLOATS, vec![taken.first()?, kernel])
                .with("strides", strides)
                .with("padding", padding)
                .with("dilation_rate", dilations.unwrap_or_else(|| 1.into()))
                .with("data_format", "channels_last")
        }
        "conv1d" => {
            taken.only("data_format", &["\"NHWC\"", "\"NWC\""])?;
            taken.only("use_cudnn_on_gpu", &["true"])?;
            let kernel = taken.need("filters")?;
            let (strides, padding) = (taken.need("stride")?, padding(taken)?);
            let dilations = taken.take("dilations").unwrap_or_else(|| 1.into());
            made("Conv", rule::FLOATS, vec![taken.first()?, kernel])
                .with("strides", strides)
                .with("padding", padding)
                .with("dilation_rate", dilations)
                .with("data_format", "channels_last")
        }
        "depthwise_conv2d" => {
            taken.only("data_format", &["\"NHWC\""])?;
            let kernel = taken.any(&["filter", "filters"]).ok_or("called without filter")?;
            let (strides, padding) = (inner_axes(taken.need("strides")?)?, padding(taken)?);
            let dilations = taken.any(&["dilations", "rate"]).unwrap_or_else(|| 1.into());
            made("DepthwiseConv", rule::FLOATS, vec![taken.first()?, kernel])
                .with("strides", strides)
                .with("padding", padding)
                .with("dilation_rate", dilations)
                .with("data_format", "channels_last")
        }
        "add_n" => made("tf.add_n", rule::FLOATS, vec![taken.first()?]),
        "argsort" | "sort" => {
            taken.only("direction", &["\"ASCENDING\""])?;
            taken.take("stable");
            let axis = taken.integer(&["axis"], -1)?;
            let (class, rule) = if name == "sort" { ("Sort", rule::SAME) } else { ("Argsort", rule::ANY) };
            made(class, rule, vec![taken.first()?]).with("axis", axis)
        }
        "count_nonzero" => {
            taken.only("keepdims", &["false"])?;
            let axis = taken.any(&["axis", "reduction_indices"]);
            let to = match taken.take("dtype").as_ref().and_then(Json::as_str) {
                None | Some("int64") => "int64",
                Some("int32") => "int32",
                Some(other) => return Err(format!("dtype = {} is not supported", kandle_format::shown(other))),
            };
            let translated = made("CountNonzero", rule::ANY, vec![taken.first()?]).to(Some(to));
            match axis {
                Some(axis) => translated.with("axis", axis),
                None => translated,
            }
        }
        "depth_to_space" | "space_to_depth" => {
            taken.only("data_format", &["\"NHWC\""])?;
            let size = taken.integer(&["block_size"], 0)?;
            let class = if name == "depth_to_space" { "DepthToSpace" } else { "SpaceToDepth" };
            made(class, rule::SAME, vec![taken.first()?]).with("block_size", size).with("data_format", "channels_last")
        }
        "ensure_shape" => {
            taken.take("shape");
            made("ConvertToTensor", rule::SAME, vec![taken.first()?])
        }
        "fill" => {
            let value = taken.need("value")?;
            made("tf.full", rule::ANY, vec![taken.first()?, value])
        }
        "ones" | "zeros" => {
            taken.only("layout", &[])?;
            let dtype = taken.take("dtype").unwrap_or_else(|| "float32".into());
            let number = u8::from(name == "ones");
            made("tf.full", rule::ANY, vec![taken.first()?, number.into()]).with("dtype", dtype)
        }
        "ones_like" | "zeros_like" => {
            taken.only("layout", &[])?;
            let class = if name == "ones_like" { "OnesLike" } else { "ZerosLike" };
            match taken.take("dtype") {
                Some(dtype) => made(class, rule::ANY, vec![taken.first()?]).with("dtype", dtype),
                None => made(class, rule::SAME, vec![taken.first()?]),
            }
        }
        "range" => {
            let (first, limit) = (taken.first()?, taken.take("limit"));
            let delta = taken.take("delta").unwrap_or_else(|| 1.into());
            let (start, limit) = match limit {
                Some(limit) => (first, limit),
                None => (0.into(), first),
            };
            let translated = made("tf.range", rule::ANY, vec![start, limit, delta]);
            match taken.take("dtype") {
                Some(dtype) => translated.with("dtype", dtype),
                None => translated,
            }
        }
        "reciprocal" => made("tf.truediv", rule::FLOATS, vec![1.into(), taken.first()?]),
        "norm" | "reduce_euclidean_norm" => {
            taken.only("ord", &["\"euclidean\""])?;
            reduction("tf.norm", rule::FLOATS, taken)?
        }
        "roll" => {
            let (shift, axis) = (taken.need("shift")?, taken.need("axis")?);
            made("Roll", rule::SAME, vec![taken.first()?]).with("shift", shift).with("axis", axis)
        }
        "slice" => {
            let (begin, size) = (taken.need("begin")?, taken.need("size")?);
            let key = ranges(&begin, &size)
                .ok_or_else(|| format!("begin = {}, size = {} is not supported", shown(&begin), shown(&size)))?;
            made("GetItem", rule::SAME, vec![taken.first()?, key])
        }
        "image.flip_left_right" | "image.flip_up_down" => {
            let axis = if name == "image.flip_up_down" { -3 } else { -2 };
            made("Flip", rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "cast" => {
            let dtype = taken.need("dtype")?;
            made("Cast", rule::ANY, vec![taken.first()?]).with("dtype", dtype)
        }
        "clip_by_value" => {
            let (least, most) = (taken.need("clip_value_min")?, taken.need("clip_value_max")?);
            made("Clip", rule::FLOATS, vec![taken.first()?]).with("x_min", least).with("x_max", most)
        }
        "concat" => {
            let axis = taken.integer(&["axis"], 0)?;
            made("Concatenate", rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "cumsum" | "cumprod" => {
            taken.only("exclusive", &["false"])?;
            taken.only("reverse", &["false"])?;
            let axis = taken.integer(&["axis"], 0)?;
            let class = if name == "cumsum" { "Cumsum" } else { "Cumprod" };
            made(class, rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "einsum" => return Err("its operands are not in the file: Keras saves the equation alone".to_owned()),
        "expand_dims" => {
            let axis = taken.integer(&["axis", "dim"], 0)?;
            made("ExpandDims", rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "gather" => {
            taken.only("validate_indices", &[])?;
            let batch = taken.integer(&["batch_dims"], 0)?;
            let axis = taken.integer(&["axis"], batch)?;
            let indices = taken.need("indices")?;
            let operands = vec![taken.first()?, indices];
            match batch {
                0 => made("Take", rule::SAME, operands).with("axis", axis),
                _ => made("tf.gather", rule::SAME, operands).with("axis", axis).with("batch_dims", batch),
            }
        }
        "gelu" => {
            let approximate = taken.take("approximate").unwrap_or(Json::Bool(false));
            made("Gelu", rule::FLOATS, vec![taken.first()?]).with("approximate", approximate)
        }
        "identity" | "convert_to_tensor" => {
            taken.only("dtype_hint", &[])?;
            let mut translated = made("ConvertToTensor", rule::ANY, vec![taken.first()?]);
            if let Some(dtype) = taken.take("dtype") {
                translated = translated.with("dtype", dtype);
            }
            translated
        }
        "image.resize" => {
            taken.only("preserve_aspect_ratio", &["false"])?;
            let method = taken.take("method").unwrap_or_else(|| "bilinear".into());
            let antialias = taken.take("antialias").unwrap_or(Json::Bool(false));
            let size = taken.need("size")?;
            made("tf.image.resize", rule::ANY, vec![taken.first()?])
                .with("size", size)
                .with("method", method)
                .with("antialias", antialias)
        }
        "l2_normalize" => {
            let axis = taken.any(&["axis", "dim"]);
            let epsilon = taken.take("epsilon").unwrap_or_else(|| 1e-12.into());
            let mut translated = made("tf.l2_normalize", rule::FLOATS, vec![taken.first()?]).with("epsilon", epsilon);
            if let Some(axis) = axis {
                translated = translated.with("axis", axis);
            }
            translated
        }
        "leaky_relu" => {
            // TensorFlow keeps it as a float32, also for float64.
            let alpha = taken.take("alpha").map_or(Some(0.2), |alpha| alpha.as_f64()).ok_or("alpha is no number")?;
            let alpha = f64::from(alpha as f32);
            made("LeakyRelu", rule::FLOATS, vec![taken.first()?]).with("negative_slope", alpha)
        }
        "matmul" => {
            for key in ["adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse", "grad_a", "grad_b"] {
                taken.only(key, &["false"])?;
            }
            taken.only("output_type", &[])?;
            let (a, b) = (taken.take("transpose_a"), taken.take("transpose_b"));
            let second = taken.need("b")?;
            made("tf.matmul", rule::SAME, vec![taken.first()?, second])
                .with("transpose_a", a.unwrap_or(Json::Bool(false)))
                .with("transpose_b", b.unwrap_or(Json::Bool(false)))
        }
        "one_hot" => {
            taken.only("on_value", &["1", "1.0"])?;
            taken.only("off_value", &["0", "0.0"])?;
            let axis = taken.integer(&["axis"], -1)?;
            let dtype = taken.take("dtype").unwrap_or_else(|| "float32".into());
            let depth = taken.need("depth")?;
            made("OneHot", rule::ANY, vec![taken.first()?])
                .with("num_classes", depth)
                .with("axis", axis)
                .with("dtype", dtype)
        }
        "pad" => {
            let paddings = taken.need("paddings")?;
            let mode = taken.take("mode").and_then(|mode| mode.as_str().map(str::to_lowercase));
            let constant = taken.take("constant_values");
            let mut positional = vec![taken.first()?];
            let mode = mode.unwrap_or_else(|| "constant".to_owned());
            if mode == "constant" {
                positional.push(constant.unwrap_or_else(|| 0.into()));
            }
            made("Pad", rule::SAME, positional).with("pad_width", paddings).with("mode", mode)
        }
        "repeat" => {
            let repeats = taken.need("repeats")?;
            let translated = made("Repeat", rule::SAME, vec![taken.first()?]).with("repeats", repeats);
            match taken.take("axis") {
                Some(axis) => translated.with("axis", axis),
                None => translated,
            }
        }
        "reverse" => {
            let axis = taken.need("axis")?;
            made("Flip", rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "reshape" => {
            let shape = taken.need("shape")?;
            made("tf.reshape", rule::SAME, vec![taken.first()?, shape])
        }
        "shape" => {
            taken.only("out_type", &["\"int32\""])?;
            made("tf.shape", rule::ANY, vec![taken.first()?])
        }
        "softmax" | "log_softmax" => {
            let axis = taken.integer(&["axis", "dim"], -1)?;
            let class = if name == "softmax" { "Softmax" } else { "LogSoftmax" };
            made(class, rule::FLOATS, vec![taken.first()?]).with("axis", axis)
        }
        "split" => {
            taken.take("num");
            let axis = taken.integer(&["axis", "split_dim"], 0)?;
            let sections = match taken.need("num_or_size_splits")? {
                Json::Array(sizes) => Json::Array(places_of(&sizes)?),
                count => count,
            };
            made("Split", rule::SAME, vec![taken.first()?]).with("indices_or_sections", sections).with("axis", axis)
        }
        "squeeze" => {
            let axis = taken.any(&["axis", "squeeze_dims"]);
            let translated = made("Squeeze", rule::SAME, vec![taken.first()?]);
            match axis {
                Some(Json::Array(axes)) if axes.is_empty() => translated,
                Some(axis) => translated.with("axis", axis),
                None => translated,
            }
        }
        "stack" => {
            let axis = taken.integer(&["axis"], 0)?;
            made("Stack", rule::SAME, vec![taken.first()?]).with("axis", axis)
        }
        "tensordot" => {
            let (b, axes) = (taken.need("b")?, taken.need("axes")?);
            made("Tensordot", rule::FLOATS, vec![taken.first()?, b]).with("axes", axes)
        }
        "tile" => {
            let multiples = taken.need("multiples")?;
            match is_computed(&multiples) {
                true => made("tf.tile", rule::SAME, vec![taken.first()?, multiples]),
                false => made("Tile", rule::SAME, vec![taken.first()?]).with("repeats", multiples),
            }
        }
        "top_k" => {
            let k = taken.integer(&["k"], 1)?;
            let sorted = taken.take("sorted").unwrap_or(Json::Bool(true));
            made("TopK", rule::SAME, vec![taken.first()?]).with("k", k).with("sorted", sorted)
        }
        "transpose" => {
            taken.only("conjugate", &["false"])?;
            let translated = made("Transpose", rule::SAME, vec![taken.first()?]);
            match taken.take("perm") {
                Some(order) => translated.with("axes", order),
                None => translated,
            }
        }
        "unstack" => {
            let axis = taken.integer(&["axis"], 0)?;
            let translated = made("Unstack", rule::SAME, vec![taken.first()?]).with("axis", axis);
            match taken.take("num") {
                Some(num) => translated.with("num", num),
                None => translated,
            }
        }
        "where" => {
            let (x, y) = (taken.need("x")?, taken.need("y")?);
            made("Where", rule::ANY, vec![taken.first()?, x, y])
        }
        _ => return Err(NOT_SUPPORTED.to_owned()),
    })
}

/// The key of `x[…]` that takes `size` entries of each axis from `begin` on, all that are left where it is −1.
fn ranges(begin: &Json, size: &Json) -> Option<Json> {
    let (begin, size) = (begin.as_array()?, size.as_array()?);
    let part = |(begin, size): (&Json, &Json)| {
        let (begin, size) = (begin.as_u64()?, size.as_i64()?);
        let stop = match u64::try_from(size) {
            Ok(size) => Some(begin.checked_add(size)?),
            Err(_) => None,
        };
        Some(json!({ "class_name": "__slice__", "config": { "start": begin, "stop": stop, "step": null } }))
    };
    begin.iter().zip(size).map(part).collect::<Option<Vec<_>>>().map(Json::Array)
}

/// The sizes for the axes between batch and channels: all four may be given.
fn inner_axes(value: Json) -> Result<Json, String> {
    match value.as_array().map(Vec::as_slice) {
        Some([batch, rows, columns, channels]) => match (batch.as_u64(), channels.as_u64()) {
            (Some(1), Some(1)) => Ok(json!([rows, columns])),
            _ => Err(format!("{} along batch and channels is not supported", shown(&value))),
        },
        _ => Ok(value),
    }
}

fn padding(taken: &mut Taken) -> Result<String, String> {
    match taken.need("padding")?.as_str() {
        Some("SAME") => Ok("same".to_owned()),
        Some("VALID") => Ok("valid".to_owned()),
        _ => Err("padding is not supported (only SAME and VALID)".to_owned()),
    }
}

/// Where the parts of the sizes `sizes` begin, but for the first.
fn places_of(sizes: &[Json]) -> Result<Vec<Json>, String> {
    let (mut place, mut places) = (0_u64, Vec::new());
    for size in sizes.split_last().map(|(_, sizes)| sizes).unwrap_or_default() {
        let size = size.as_u64().ok_or_else(|| format!("num_or_size_splits: {} is not supported", shown(size)))?;
        place = place.saturating_add(size);
        places.push(place.into());
    }
    Ok(places)
}

/// The key of `x[…]` as Keras 3 writes it: slices are objects of their class.
fn slices(spec: &Json) -> Result<Json, String> {
    match spec {
        Json::Array(items) => items.iter().map(slices).collect::<Result<_, _>>().map(Json::Array),
        Json::Object(item) if item.contains_key("start") || item.contains_key("stop") => {
            let part = |key: &str| item.get(key).cloned().unwrap_or_default();
            let config = json!({ "start": part("start"), "stop": part("stop"), "step": part("step") });
            Ok(json!({ "class_name": "__slice__", "config": config }))
        }
        Json::Object(item) if item.get("class_name").and_then(Json::as_str) == Some("__ellipsis__") => {
            Ok(json!({ "class_name": "__ellipsis__", "config": {} }))
        }
        Json::Object(_) => Err("a place that is computed is not supported".to_owned()),
        other => Ok(other.clone()),
    }
}

/// A function of TensorFlow that Keras 2 kept as a layer, run as an operation.
#[derive(Debug)]
pub(crate) struct TensorFlowFunction {
    operation: Option<Box<dyn KerasLayer>>,
    rule: String,
    to: Option<Dtype>,
}

impl KerasLayer for TensorFlowFunction {
    fn read(fields: &mut Fields<'_>) -> Self {
        let text = |value: Option<&Json>| value.and_then(Json::as_str).unwrap_or_default().to_owned();
        let function = text(fields.take("function"));
        let translated = fields.take("as");
        let mut read = Self { operation: None, rule: rule::ANY.to_owned(), to: None };
        if let Some(what) = fields.take("refused") {
            fields.refuse(format!("tf.{}: {}", kandle_format::shown(&function), text(Some(what))));
            return read;
        }
        let part = |key: &str| translated.and_then(|translated| translated.get(key));
        let class = text(part("operation"));
        let found = OPERATIONS.iter().copied().flatten().chain(FUNCTIONS).find(|found| found.class == class);
        match (found, part("settings").and_then(Json::as_object)) {
            (Some(operation), Some(settings)) => {
                let operation: &'static Operation = operation;
                let mut own = Fields::new(settings, fields.at(), fields.context());
                read.operation = Some(operation.read(&mut own));
                own.finish().into_iter().for_each(|problem| fields.problem(problem));
            }
            _ => fields.refuse(format!("tf.{} is not supported", kandle_format::shown(&function))),
        }
        read.rule = text(part("rule"));
        read.to = part("to").and_then(Json::as_str).and_then(Dtype::from_name);
        read
    }

    fn parameters(&self) -> &'static [&'static str] {
        self.operation.as_ref().map_or(&["x"], |operation| operation.parameters())
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let Some(operation) = &self.operation else { return Ok(Vec::new()) };
        let outputs = operation.output(given)?;
        let dtypes: Vec<Dtype> = given.all().iter().map(|spec| spec.dtype).collect();
        let Some(first) = dtypes.first().copied() else { return Ok(outputs) };
        let refuse = |what: String| Err(Problem::new(kandle_format::ErrorKind::Unsupported, "", what));
        // Numbers of a shape or a place are integers beside tensors of any dtype.
        let alike = dtypes.iter().all(|dtype| *dtype == first);
        match self.rule.as_str() {
            rule::FLOATS if !first.is_float() => {
                return refuse(format!("called on {first}, where only floats are supported"));
            }
            rule::ALIKE if !alike => return Err(cannot("tensors of several dtypes, which TensorFlow does not take")),
            rule::SAME | rule::FLOATS if outputs.first().is_some_and(|output| output.dtype != first) => {
                let found = outputs.first().map_or(first, |output| output.dtype);
                return refuse(format!(
                    "called on {first}, of which {found} would come out, and {first} in TensorFlow"
                ));
            }
            _ => {}
        }
        Ok(match self.to {
            Some(dtype) => outputs.into_iter().map(|output| Spec { dtype, ..output }).collect(),
            None => outputs,
        })
    }

    fn forward(&self, call: LayerCall<'_>) -> candle_core::Result<Vec<Value>> {
        let Some(operation) = &self.operation else { candle_core::bail!("a function that was not read") };
        let first = call.given.all().first().map(|value| value.dtype);
        let outputs = operation.forward(call)?;
        // Some operations of Keras give float32 of half precision and a number of Python, where they plan half precision.
        let own = first.filter(|_| [rule::SAME, rule::FLOATS].contains(&self.rule.as_str()));
        if let Some(dtype) = self.to {
            return outputs.iter().map(|output| convert(output, dtype)).collect();
        }
        let own = own.filter(|dtype| dtype.is_float());
        let planned = |(number, output): (usize, Value)| match own.filter(|_| number == 0) {
            Some(dtype) => convert(&output, dtype),
            None => Ok(output),
        };
        outputs.into_iter().enumerate().map(planned).collect()
    }

    fn is_operation(&self) -> bool {
        true
    }

    fn gives_back_its_input(&self, given: Given<'_, Spec>) -> bool {
        self.operation.as_ref().is_some_and(|operation| operation.gives_back_its_input(given))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{Call, NOT_SUPPORTED, OPERATIONS, operation, tensorflow_functions};
    use crate::ops::tensorflow::FUNCTIONS;

    #[test]
    fn every_function_that_is_listed_is_translated() {
        let names: Vec<&str> = tensorflow_functions().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a function is listed twice");
        let known: BTreeSet<&str> =
            OPERATIONS.iter().copied().flatten().chain(FUNCTIONS).map(|operation| operation.class).collect();
        for name in names {
            let call = || {
                let named = [("y", json!(1.0)), ("unknown", json!(1))].map(|(key, value)| (key.to_owned(), value));
                Call { positional: vec![json!("x")], named: named.into_iter().collect() }
            };
            match operation(name, call()) {
                Ok(_) => panic!("tf.{name} takes an argument that nobody knows"),
                Err(what) => assert_ne!(what, NOT_SUPPORTED, "tf.{name}"),
            }
            let mut plain = call();
            plain.named.remove("unknown");
            if let Ok(translated) = operation(name, plain) {
                assert!(
                    known.contains(translated.operation),
                    "tf.{name} is {}, which is no operation",
                    translated.operation
                );
            }
        }
        assert!(operation("audio.decode_wav", Call::default()).is_err_and(|what| what == NOT_SUPPORTED));
    }

    #[test]
    fn parts_of_given_sizes_begin_where_the_others_end() {
        assert_eq!(super::places_of(&[json!(1), json!(3), json!(2)]), Ok(vec![json!(1), json!(4)]));
        assert!(super::places_of(&[json!(1), json!(-1), json!(2)]).is_err());
    }
}
