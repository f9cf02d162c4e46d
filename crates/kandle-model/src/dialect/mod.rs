//! Models of Keras 1 and 2 in the words of Keras 3, so that all that follows reads one dialect.
//!
//! Only words are translated: the names of classes and settings ([`layers`]), the form of a graph's calls ([`calls`]), and the
//! functions of TensorFlow that Keras 2 keeps as layers ([`tensorflow`]). What a word meant in another version, such as
//! `hard_sigmoid` or the mask of a sum, is the affair of the layer, which asks [`Fields::keras_major`](crate::Fields).
//!
//! Source: tf_keras/src/engine/functional.py (`get_network_config`, `process_node`), keras/legacy/interfaces.py of Keras 2.

mod branches;
mod calls;
mod layers;
mod tensorflow;
mod theano;

use std::borrow::Cow;

use kandle_format::{Error, LayerConfig, ModelConfig, Problem, Result, json::Value as Json};
use serde_json::json;

pub(crate) use layers::translate as layer;
pub(crate) use tensorflow::TensorFlowFunction;
pub use tensorflow::tensorflow_functions;
pub(crate) use theano::differs_on_theano;

/// The first version of Keras whose words are those that the rest of this crate reads.
const MODERN: u32 = 3;

/// Whether files of the version with the first number `major` are translated.
pub(crate) fn is_legacy(major: u32) -> bool {
    major < MODERN
}

/// Whether `version` is one of Keras before it became part of TensorFlow.
pub(crate) fn is_older_than_tensorflows(version: Option<&str>) -> bool {
    !version.unwrap_or_default().ends_with("-tf") && !is_from(version, [2, 4, 0])
}

/// Whether `version` is one of TensorFlow's before 2.4.
pub(crate) fn is_tensorflows_before_2_4(version: Option<&str>) -> bool {
    version.unwrap_or_default().ends_with("-tf") && !is_from(version, [2, 4, 0])
}

/// Whether `version` is `first` or a later one. Numbers that it does not name are those of the newest: `3` stands for a text
/// that says no more.
pub(crate) fn is_from(version: Option<&str>, first: [u32; 3]) -> bool {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let mut parts = version.unwrap_or("1").split('.').map(digits);
    let mut next = || parts.next().unwrap_or(u32::MAX);
    [next(), next(), next()] >= first
}

/// Reads a layer inside a layer, in Keras 3's words; `at` is where it stands, `version` is that of the
/// file.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read_layer(
    at: &str,
    value: &Json,
    version: Option<&str>,
) -> std::result::Result<LayerConfig, Vec<Problem>> {
    let read = LayerConfig::read(at, value);
    let mut config = read.map_err(|error| error.problems().cloned().collect::<Vec<_>>())?;
    if is_legacy(kandle_format::keras_major(version)) {
        layer(&mut config, version)?;
    }
    Ok(config)
}

/// The model in Keras 3's words; what is wrong with single layers is added to `problems`.
///
/// # Errors
/// Where the model as a whole cannot be translated.
pub(crate) fn model<'a>(config: &'a ModelConfig, problems: &mut Vec<Problem>) -> Result<Cow<'a, ModelConfig>> {
    if !is_legacy(config.keras_major()) {
        return Ok(Cow::Borrowed(config));
    }
    let graph = if config.class == "Sequential" { branches::as_graph(config)? } else { None };
    let config = graph.as_ref().unwrap_or(config);
    let mut modern = config.clone();
    let sequential = config.class == "Sequential";
    modern.layers.clear();
    let mut layers = Vec::new();
    for (index, layer) in config.layers.iter().enumerate() {
        if sequential && index == 0 {
            layers.extend(input_before(layer, config)?);
        }
        layers.push(layer.clone());
    }
    for mut layer in layers {
        if let Err(problem) = layers::name_order_of_axes(&mut layer, config) {
            problems.push(problem);
        }
        problems.extend(layers::question_of_pixels(&layer, config));
        if let Err(found) = self::layer(&mut layer, config.keras_version.as_deref()) {
            problems.extend(found);
        }
        modern.layers.push(layer);
    }
    if !sequential {
        calls::translate(config, &mut modern).map_err(|(kind, what)| Error::new(kind, &config.at, what))?;
    }
    Ok(Cow::Owned(modern))
}

/// The InputLayer of a Sequential model whose first layer says what it is fed.
///
/// Keras: versions 1 and 2 write the shape of the input into the first layer, be it a layer inside a model that is the first.
fn input_before(first: &LayerConfig, config: &ModelConfig) -> Result<Option<LayerConfig>> {
    if first.class == "InputLayer" {
        return Ok(None);
    }
    let mut found = first.clone();
    // A model as the first layer is fed what its own first layer is.
    while let Some(inner) = found.model(config.keras_version.as_deref()) {
        match inner?.layers.into_iter().next() {
            Some(layer) => found = layer,
            None => return Ok(None),
        }
    }
    let Some(shape) = found.config.get("batch_input_shape") else { return Ok(None) };
    let named = |key: &str| found.config.get(key).and_then(Json::as_str);
    let dtype = named("input_dtype").or_else(|| named("dtype")).unwrap_or("float32");
    let name = format!("{}_input", first.name);
    let input = json!({
        "class_name": "InputLayer",
        "config": { "name": name, "batch_input_shape": shape, "dtype": dtype },
    });
    LayerConfig::read(&first.at, &input).map(Some)
}
