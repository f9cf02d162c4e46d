//! Sequential models of Keras 1 that begin with a `Merge` of other models, as graphs.
//!
//! Each of those models is fed an input of its own. Their layers are layers of the whole, also where its weights lie.
//!
//! Source: keras/models.py and keras/engine/topology.py of Keras 1.2 (`Sequential`, `Merge`).

use kandle_format::{
    Error, ErrorKind, LayerConfig, ModelConfig, Result,
    json::{Map, Value as Json},
};
use serde_json::json;

use super::{calls::first_call, input_before};

/// The same model as a graph, if it begins with a Merge.
pub(super) fn as_graph(config: &ModelConfig) -> Result<Option<ModelConfig>> {
    let begins_with_merge = config.layers.first().is_some_and(|first| branches(first).is_some());
    if !begins_with_merge {
        return Ok(None);
    }
    let mut graph = Graph::default();
    let last = graph.stack(config, &config.layers)?;
    let mut whole = config.clone();
    "Model".clone_into(&mut whole.class);
    let inputs: Vec<Json> = graph.inputs.iter().map(|name| json!([name, 0, 0])).collect();
    whole.config = Map::from_iter([
        ("name".to_owned(), config.name.clone().into()),
        ("input_layers".to_owned(), inputs.into()),
        ("output_layers".to_owned(), json!([last])),
    ]);
    whole.layers = graph.layers;
    Ok(Some(whole))
}

/// The models that a layer merges, if it is a Merge of models.
fn branches(layer: &LayerConfig) -> Option<&Vec<Json>> {
    layer.config.get("layers").and_then(Json::as_array).filter(|_| layer.class == "Merge")
}

/// Whether some layer in there makes a mask.
fn may_mask(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(may_mask),
        Json::Object(map) => {
            map.get("class_name").and_then(Json::as_str) == Some("Masking")
                || map.get("mask_zero") == Some(&Json::Bool(true))
                || map.values().any(may_mask)
        }
        _ => false,
    }
}

#[derive(Default)]
struct Graph {
    layers: Vec<LayerConfig>,
    inputs: Vec<String>,
}

impl Graph {
    /// Adds layers that follow one another. Returns the call of the last.
    fn stack(&mut self, config: &ModelConfig, layers: &[LayerConfig]) -> Result<Json> {
        let mut before = Json::Null;
        for (index, layer) in layers.iter().enumerate() {
            let mut layer = layer.clone();
            let given = match branches(&layer).cloned() {
                Some(models) => {
                    layer.config.remove("layers");
                    let mut given = Vec::new();
                    for model in models {
                        given.push(self.branch(config, &layer.at, &model)?);
                    }
                    given
                }
                None if index == 0 => {
                    let input = input_before(&layer, config)?;
                    self.inputs.extend(input.iter().map(|input| input.name.clone()));
                    let given = input.iter().map(|input| json!([input.name, 0, 0])).collect();
                    self.layers.extend(input);
                    given
                }
                None => vec![before],
            };
            layer.inbound_nodes = match layer.class.as_str() {
                "InputLayer" => {
                    self.inputs.push(layer.name.clone());
                    Vec::new()
                }
                _ => vec![given.into()],
            };
            before = json!([layer.name, first_call(&layer, config), 0]);
            self.layers.push(layer);
        }
        Ok(before)
    }

    /// Adds a model that is merged: a Sequential one layer by layer, any other layer as it is.
    ///
    /// Keras: what a Sequential model gives has no mask there, whatever its layers say.
    fn branch(&mut self, config: &ModelConfig, at: &str, model: &Json) -> Result<Json> {
        match model.get("config") {
            Some(Json::Array(layers)) => {
                let read = |layer| LayerConfig::read(at, layer);
                let layers = layers.iter().map(read).collect::<Result<Vec<LayerConfig>>>()?;
                let last = self.stack(config, &layers)?;
                if !may_mask(model) {
                    return Ok(last);
                }
                let name = format!("{}_unmasked", layers.last().map_or("model", |layer| &layer.name));
                let copy = json!({ "class_name": "Copy", "module": "keras.src.ops.numpy", "config": { "name": name } });
                let mut copy = LayerConfig::read(at, &copy)?;
                copy.inbound_nodes = vec![json!([last])];
                self.layers.push(copy);
                Ok(json!([name, 0, 0]))
            }
            _ => {
                let layer = LayerConfig::read(at, model)?;
                if layer.model(config.keras_version.as_deref()).is_some() {
                    let what = "a Functional model that a Merge at the beginning of a Sequential model merges is not supported (only Sequential ones): merge the outputs of both";
                    return Err(Error::new(ErrorKind::Unsupported, at, what));
                }
                self.stack(config, &[layer])
            }
        }
    }
}
