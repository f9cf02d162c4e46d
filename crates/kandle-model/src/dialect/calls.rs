//! The calls of a graph as Keras 1 and 2 write them, in the form of Keras 3.
//!
//! | Keras 1 and 2 | Keras 3 |
//! |---|---|
//! | `[["x", 0, 0, {}]]` | `{"args": [x], "kwargs": {}}` |
//! | `[["a", 0, 0, {}], ["b", 0, 0, {}]]` | `{"args": [[a, b]], "kwargs": {}}` |
//! | `["x", 1, 0, {"y": 2.0}]` (functions of TensorFlow) | `{"args": [x], "kwargs": {"y": 2.0}}` |
//!
//! Calls of a model inside the model are counted from 1 there: 0 is the model's own definition.
//!
//! Source: tf_keras/src/engine/functional.py (`process_node`, `_should_skip_first_node`), node.py (`serialize`).

use std::collections::BTreeMap;

use kandle_format::{
    ErrorKind, LayerConfig, ModelConfig,
    json::{Map, Value as Json},
    shown,
};
use serde_json::json;

use super::{is_older_than_tensorflows, tensorflow};

/// What stands for a layer where a call reads a number instead.
const CONSTANT: &str = "_CONSTANT_VALUE";

/// Translates the calls of `old`, and where its graph begins and ends, into those of `modern`.
///
/// # Errors
/// Of what kind it is, and what.
pub(super) fn translate(old: &ModelConfig, modern: &mut ModelConfig) -> Result<(), (ErrorKind, String)> {
    if let Some(name) = overwritten(old) {
        let what = format!(
            "layer \"{}\" is shared with a model inside the model, and Keras 2 wrote the calls of the one over those of the other: such a file cannot be loaded, in Keras neither; save the model as .keras",
            shown(&name)
        );
        return Err((ErrorKind::Unsupported, what));
    }
    translate_calls(old, modern).map_err(|what| (ErrorKind::Invalid, what))
}

/// A layer that is part of several models, and has the same calls in each.
///
/// Keras: in legacy files an object that is there a second time is written as it was the first time, with what was added to it
/// since; so the calls of a layer are those of the model that was written last, in every model that has it.
/// Source: tf_keras/src/saving/legacy/serialization.py (`SharedObjectSavingScope`).
fn overwritten(model: &ModelConfig) -> Option<String> {
    fn walk(
        layers: &[Json],
        container: usize,
        next: &mut usize,
        found: &mut BTreeMap<u64, (usize, Json)>,
    ) -> Option<String> {
        for layer in layers {
            let part = |key: &str| layer.get(key);
            let calls = part("inbound_nodes").filter(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty()));
            let id = part("shared_object_id").and_then(Json::as_u64);
            if let (Some(id), Some(calls), None) = (id, calls, part("module")) {
                match found.get(&id) {
                    Some((other, same)) if *other != container && same == calls => {
                        return part("name").and_then(Json::as_str).map(str::to_owned);
                    }
                    _ => found.insert(id, (container, calls.clone())),
                };
            }
            if let Some(inner) = part("config").and_then(|config| config.get("layers")).and_then(Json::as_array) {
                *next += 1;
                if let Some(name) = walk(inner, *next, next, found) {
                    return Some(name);
                }
            }
        }
        None
    }
    let layers: &[Json] = model.config.get("layers").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    walk(layers, 0, &mut 0, &mut BTreeMap::new())
}

fn translate_calls(old: &ModelConfig, modern: &mut ModelConfig) -> Result<(), String> {
    let names = old.layers.iter().map(|layer| (layer.name.as_str(), first_call(layer, old))).collect();
    let names = Names(names);
    for (layer, before) in modern.layers.iter_mut().zip(&old.layers) {
        let calls = before.inbound_nodes.iter().map(|call| names.call(before, call)).collect::<Result<Vec<_>, _>>();
        let calls = calls.map_err(|what| format!("a call of layer \"{}\": {what}", shown(&before.name)))?;
        layer.inbound_nodes = tensorflow::translate(layer, calls)?
            .into_iter()
            .map(|call| json!({ "args": call.positional, "kwargs": call.named }))
            .collect();
    }
    for key in ["input_layers", "output_layers"] {
        if let Some(ends) = modern.config.get_mut(key) {
            names.count_from_zero(ends, &old.layers);
        }
    }
    Ok(())
}

/// A call: what it is called on, first, and what is given by name. Tensors are Keras 3's `__keras_tensor__`.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub positional: Vec<Json>,
    pub named: Map<String, Json>,
}

/// The number that the first call of a layer has in the graph it is part of.
///
/// Keras: a model that begins with its input has a call of its own, its definition, which is not in the file. A Sequential
/// model that never knew its input has none; before TensorFlow kept Keras, there were no such models.
pub(super) fn first_call(layer: &LayerConfig, model: &ModelConfig) -> u64 {
    let Some(Ok(inner)) = layer.model(model.keras_version.as_deref()) else { return 0 };
    let starts_with_input = inner
        .layers
        .first()
        .is_some_and(|first| first.class == "InputLayer" || first.config.contains_key("batch_input_shape"));
    let older = is_older_than_tensorflows(model.keras_version.as_deref());
    u64::from(inner.class != "Sequential" || starts_with_input || older)
}

/// The layers of a model, by name, with the number of their first call.
struct Names<'a>(BTreeMap<&'a str, u64>);

impl Names<'_> {
    fn call(&self, layer: &LayerConfig, call: &Json) -> Result<Call, String> {
        let mut found = Call::default();
        let mut first = None;
        let mut given = self.nest(call, &mut first)?;
        // A layer that takes one tensor is written with a list of it; a function of TensorFlow as it was called.
        if !tensorflow::is_function(layer)
            && let Json::Array(items) = &mut given
            && items.len() == 1
        {
            given = items.swap_remove(0);
        }
        found.positional.push(given);
        for (name, value) in first.unwrap_or_default() {
            found.named.insert(name, self.value(&value)?);
        }
        Ok(found)
    }

    /// A nest of leaves, with the arguments by name of the first of them in `named`.
    fn nest(&self, value: &Json, named: &mut Option<Map<String, Json>>) -> Result<Json, String> {
        match value {
            Json::Array(items) => match items.as_slice() {
                [Json::String(name), node, tensor, rest @ ..] if rest.len() < 2 => {
                    if let Some(Json::Object(given)) = rest.first() {
                        named.get_or_insert_with(|| given.clone());
                    }
                    match name.as_str() {
                        CONSTANT => Ok(tensor.clone()),
                        name => self.tensor(name, node, tensor),
                    }
                }
                items => items.iter().map(|item| self.nest(item, named)).collect::<Result<_, _>>().map(Json::Array),
            },
            Json::Object(items) => {
                let nest = |(key, item): (&String, &Json)| Ok((key.clone(), self.nest(item, named)?));
                items.iter().map(nest).collect::<Result<_, String>>().map(Json::Object)
            }
            other => Err(format!("expected [layer, call, tensor], found {}", kandle_format::json::shown(other))),
        }
    }

    /// An argument by name. Keras: a tensor is written as `[layer, call, tensor]` there, and looks like any list.
    fn value(&self, value: &Json) -> Result<Json, String> {
        match value {
            Json::Array(items) => match items.as_slice() {
                [Json::String(name), node, tensor]
                    if self.0.contains_key(name.as_str()) && node.is_u64() && tensor.is_u64() =>
                {
                    self.tensor(name, node, tensor)
                }
                [Json::String(name), Json::Number(_), value, ..] if name == CONSTANT => Ok(value.clone()),
                items => items.iter().map(|item| self.value(item)).collect::<Result<_, _>>().map(Json::Array),
            },
            Json::Object(items) => {
                let value = |(key, item): (&String, &Json)| Ok((key.clone(), self.value(item)?));
                items.iter().map(value).collect::<Result<_, String>>().map(Json::Object)
            }
            other => Ok(other.clone()),
        }
    }

    fn tensor(&self, name: &str, node: &Json, tensor: &Json) -> Result<Json, String> {
        let Some(first) = self.0.get(name) else { return Err(format!("no layer \"{}\"", shown(name))) };
        let node = node.as_u64().ok_or("a call that is no number")?;
        let Some(node) = node.checked_sub(*first) else {
            return Err(format!("call {node} of model \"{}\" is its definition", shown(name)));
        };
        Ok(json!({
            "class_name": "__keras_tensor__",
            "config": { "keras_history": [name, node, tensor] },
        }))
    }

    /// Where a graph begins and ends Keras 3 counts the calls of a Functional model inside it from 1 too, but those of a
    /// Sequential one from 0.
    fn count_from_zero(&self, ends: &mut Json, layers: &[LayerConfig]) {
        match ends {
            Json::Array(items) => {
                if let [Json::String(name), node, _] = items.as_mut_slice() {
                    let sequential = layers.iter().any(|layer| layer.name == *name && layer.class == "Sequential");
                    let first = self.0.get(name.as_str()).copied().unwrap_or_default();
                    if let (true, Some(number)) = (sequential, node.as_u64()) {
                        *node = number.saturating_sub(first).into();
                    }
                } else {
                    items.iter_mut().for_each(|item| self.count_from_zero(item, layers));
                }
            }
            Json::Object(items) => items.values_mut().for_each(|item| self.count_from_zero(item, layers)),
            _ => {}
        }
    }
}
