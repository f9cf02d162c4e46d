//! Sequential models of Keras 1 that begin with a `Merge` of other models, as graphs.
//!
//! Each of those models is fed an input of its own. Their layers are layers of the whole, also where its weights lie.
//!
//! Source: keras/models.py and keras/engine/topology.py of Keras 1.2 (`Sequential`, `Merge`).

use kandle_format::{
    LayerConfig, ModelConfig, Result,
    json::{Map, Value as Json},
};
use serde_json::json;

use super::input_before;

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
    let ends = |names: &[String]| Json::from(names.iter().map(|name| json!([name, 0, 0])).collect::<Vec<Json>>());
    whole.config = Map::from_iter([
        ("name".to_owned(), config.name.clone().into()),
        ("input_layers".to_owned(), ends(&graph.inputs)),
        ("output_layers".to_owned(), ends(&[last])),
    ]);
    whole.layers = graph.layers;
    Ok(Some(whole))
}

/// The models that a layer merges, if it is a Merge of models.
fn branches(layer: &LayerConfig) -> Option<&Vec<Json>> {
    layer.config.get("layers").and_then(Json::as_array).filter(|_| layer.class == "Merge")
}

#[derive(Default)]
struct Graph {
    layers: Vec<LayerConfig>,
    inputs: Vec<String>,
}

impl Graph {
    /// Adds layers that follow one another. Returns the name of the last.
    fn stack(&mut self, config: &ModelConfig, layers: &[LayerConfig]) -> Result<String> {
        let mut before = String::new();
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
                    let given = input.iter().map(|input| input.name.clone()).collect();
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
                _ => vec![given.iter().map(|name| json!([name, 0, 0])).collect()],
            };
            before = layer.name.clone();
            self.layers.push(layer);
        }
        Ok(before)
    }

    /// Adds a model that is merged: a Sequential one layer by layer, any other layer as it is.
    fn branch(&mut self, config: &ModelConfig, at: &str, model: &Json) -> Result<String> {
        match model.get("config") {
            Some(Json::Array(layers)) => {
                let read = |layer| LayerConfig::read(at, layer);
                let layers = layers.iter().map(read).collect::<Result<Vec<LayerConfig>>>()?;
                self.stack(config, &layers)
            }
            _ => self.stack(config, &[LayerConfig::read(at, model)?]),
        }
    }
}
