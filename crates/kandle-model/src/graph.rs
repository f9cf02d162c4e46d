//! The calls of a Functional model, in the order Keras runs them.

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{LayerConfig, ModelConfig, json::Value as Json, shown};

use crate::{Argument, Value, dialect, numeric::constant};

/// A tensor of a graph: output number `tensor` of call number `node` of layer number `layer` of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct History {
    pub layer: usize,
    pub node: usize,
    pub tensor: usize,
}

/// What a call reads.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Tensor(History),
    Constant(Value),
}

/// One call of a layer. Its tensors are numbered in Keras's flattened order: arguments first, then those by keyword,
/// sorted by name.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub layer: usize,
    pub node: usize,
    pub positional: Vec<Argument>,
    pub named: BTreeMap<String, Argument>,
    pub sources: Vec<Source>,
}

/// A nest of tensors, as `input_layers` and `output_layers` have them.
#[derive(Debug, Clone)]
pub(crate) enum Nest {
    Tensor(History),
    List(Vec<Nest>),
    Mapping(BTreeMap<String, Nest>),
}

impl Nest {
    /// Its tensors in Keras's flattened order: lists in order, dicts sorted by key.
    pub(crate) fn leaves(&self) -> Vec<History> {
        match self {
            Self::Tensor(history) => vec![*history],
            Self::List(items) => items.iter().flat_map(Self::leaves).collect(),
            Self::Mapping(items) => items.values().flat_map(Self::leaves).collect(),
        }
    }
}

/// The graph of a Functional model.
#[derive(Debug)]
pub(crate) struct Graph {
    pub inputs: Nest,
    pub outputs: Nest,
    /// The calls that the outputs need, in the order Keras runs them.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Reads the graph of `config`.
    ///
    /// # Errors
    /// What is wrong with it, without a place.
    pub(crate) fn new(config: &ModelConfig) -> Result<Self, String> {
        let names: BTreeMap<&str, usize> =
            config.layers.iter().enumerate().map(|(number, layer)| (layer.name.as_str(), number)).collect();
        let calls_before = calls_in_models_inside(config);
        let mut calls: BTreeMap<(usize, usize), Node> = BTreeMap::new();
        for (number, layer) in config.layers.iter().enumerate() {
            for (index, node) in layer.inbound_nodes.iter().enumerate() {
                let mut node = read_node(node, number, index, &names)
                    .map_err(|what| format!("call {index} of layer \"{}\": {what}", shown(&layer.name)))?;
                for source in &mut node.sources {
                    if let Source::Tensor(history) = source
                        && let Some(before) = calls_before.get(&history.layer)
                    {
                        history.node = history.node.checked_sub(*before).ok_or_else(|| {
                            format!("call {} of a layer that models inside the model call {before} times", history.node)
                        })?;
                    }
                }
                calls.insert((number, index), node);
            }
        }
        let named = |key: &str| -> Result<Nest, String> {
            let value = config.config.get(key).ok_or_else(|| format!("{key} is missing"))?;
            read_nest(value, &names).map_err(|what| format!("{key}: {what}"))
        };
        let (mut inputs, mut outputs) = (named("input_layers")?, named("output_layers")?);
        // Keras: call 0 of a nested Functional model is its own definition, where the ends of a graph are named.
        let ends = |history: History| {
            let layer = config.layers.get(history.layer);
            let counts_definition =
                layer.is_some_and(|layer| layer.class != "Sequential" && layer.config.contains_key("output_layers"));
            existing(history, usize::from(counts_definition), &config.layers)
        };
        for nest in [&mut inputs, &mut outputs] {
            rebase(nest, &ends)?;
        }
        let tensors = |node: &Node| -> Vec<History> {
            node.sources
                .iter()
                .filter_map(|source| match source {
                    Source::Tensor(history) => Some(*history),
                    Source::Constant(_) => None,
                })
                .collect()
        };
        for history in calls.values().flat_map(tensors) {
            existing(history, 0, &config.layers)?;
        }
        let nodes = order(&calls, &inputs.leaves(), &outputs.leaves(), &config.layers)?;
        Ok(Self { inputs, outputs, nodes })
    }
}

/// For layers that are shared with models inside the model, how often those call them.
///
/// Keras: before 3.2 the calls of a layer were counted over all models that have it, and the models inside were read first.
fn calls_in_models_inside(config: &ModelConfig) -> BTreeMap<usize, usize> {
    fn count(value: &Json, found: &mut BTreeMap<u64, usize>) {
        let Some(layers) = value.get("layers").and_then(Json::as_array) else { return };
        for layer in layers {
            let calls = layer.get("inbound_nodes").and_then(Json::as_array).map_or(0, Vec::len);
            if let Some(id) = layer.get("shared_object_id").and_then(Json::as_u64) {
                *found.entry(id).or_default() += calls;
            }
            if let Some(inner) = layer.get("config") {
                count(inner, found);
            }
        }
    }
    if dialect::is_from(config.keras_version.as_deref(), [3, 2, 0]) || config.keras_major() < 3 {
        return BTreeMap::new();
    }
    let mut inside = BTreeMap::new();
    config.layers.iter().for_each(|layer| {
        if layer.config.contains_key("layers") {
            count(&Json::Object(layer.config.clone()), &mut inside);
        }
    });
    let of_layer = |(number, layer): (usize, &LayerConfig)| {
        let calls = inside.get(&layer.shared_object_id?).copied()?;
        (calls > 0).then_some((number, calls))
    };
    config.layers.iter().enumerate().filter_map(of_layer).collect()
}

/// The same tensor with calls counted from 0, where they are counted from `first`.
fn existing(history: History, first: usize, layers: &[LayerConfig]) -> Result<History, String> {
    let layer = layers.get(history.layer);
    let count = layer.map_or(0, |layer| layer.inbound_nodes.len());
    match history.node.checked_sub(first) {
        Some(node) if node < count.max(1) => Ok(History { node, ..history }),
        _ => {
            let name = layer.map(|layer| shown(&layer.name)).unwrap_or_default();
            Err(format!("call {} of layer \"{name}\" does not exist: it has {count}", history.node))
        }
    }
}

fn rebase(nest: &mut Nest, based: &dyn Fn(History) -> Result<History, String>) -> Result<(), String> {
    match nest {
        Nest::Tensor(history) => *history = based(*history)?,
        Nest::List(items) => items.iter_mut().try_for_each(|item| rebase(item, based))?,
        Nest::Mapping(items) => items.values_mut().try_for_each(|item| rebase(item, based))?,
    }
    Ok(())
}

/// `[name, node, tensor]`, or a list or dict of such.
fn read_nest(value: &Json, names: &BTreeMap<&str, usize>) -> Result<Nest, String> {
    match value {
        Json::Array(items) => match leaf(items, names) {
            Some(history) => history.map(Nest::Tensor),
            None => items.iter().map(|item| read_nest(item, names)).collect::<Result<_, _>>().map(Nest::List),
        },
        Json::Object(items) => {
            let read = |(key, item): (&String, &Json)| Ok((key.clone(), read_nest(item, names)?));
            items.iter().map(read).collect::<Result<_, String>>().map(Nest::Mapping)
        }
        other => Err(format!("expected [layer, call, tensor], found {}", kandle_format::json::shown(other))),
    }
}

/// The tensor that `[name, node, tensor]` stands for; `None` where it is some other list.
fn leaf(items: &[Json], names: &BTreeMap<&str, usize>) -> Option<Result<History, String>> {
    let [Json::String(name), node, tensor] = items else { return None };
    let index = |value: &Json| usize::try_from(value.as_u64()?).ok();
    let (node, tensor) = (index(node)?, index(tensor)?);
    Some(match names.get(name.as_str()) {
        Some(layer) => Ok(History { layer: *layer, node, tensor }),
        None => Err(format!("no layer \"{}\"", shown(name))),
    })
}

fn read_node(value: &Json, layer: usize, node: usize, names: &BTreeMap<&str, usize>) -> Result<Node, String> {
    let Json::Object(call) = value else {
        return Err("calls as Keras 1 and 2 write them are not supported yet".to_owned());
    };
    let mut sources = Vec::new();
    let positional = match call.get("args") {
        Some(Json::Array(items)) => items.iter().map(|item| read_argument(item, names, &mut sources)).collect(),
        Some(_) | None => Err("args is not a list".to_owned()),
    }?;
    let mut named = BTreeMap::new();
    if let Some(kwargs) = call.get("kwargs") {
        let Json::Object(kwargs) = kwargs else { return Err("kwargs is not an object".to_owned()) };
        let sorted: BTreeMap<&String, &Json> = kwargs.iter().collect();
        for (name, value) in sorted {
            named.insert(name.clone(), read_argument(value, names, &mut sources)?);
        }
    }
    Ok(Node { layer, node, positional, named, sources })
}

/// An argument of a call; its tensors are added to `sources`.
fn read_argument(value: &Json, names: &BTreeMap<&str, usize>, sources: &mut Vec<Source>) -> Result<Argument, String> {
    let mut tensor = |source| {
        sources.push(source);
        Argument::Tensor(sources.len() - 1)
    };
    match value {
        Json::Object(object) => {
            let config = object.get("config");
            match object.get("class_name").and_then(Json::as_str).filter(|_| config.is_some()) {
                Some("__keras_tensor__") => {
                    let history = config.and_then(|config| config.get("keras_history")).and_then(Json::as_array);
                    let history = history.and_then(|items| leaf(items, names));
                    history
                        .ok_or("keras_history is not [layer, call, tensor]")?
                        .map(|history| tensor(Source::Tensor(history)))
                }
                Some("__tensor__" | "__numpy__") => {
                    let part = |key: &str| config.and_then(|config| config.get(key));
                    let numbers = part("value").ok_or("a constant without a value")?;
                    let dtype = part("dtype").and_then(Json::as_str);
                    constant(numbers, dtype).map(|value| tensor(Source::Constant(value)))
                }
                Some(_) => Ok(Argument::Constant(value.clone())),
                None if holds_tensor(value) => {
                    let sorted: BTreeMap<&String, &Json> = object.iter().collect();
                    let mut items = BTreeMap::new();
                    for (key, item) in sorted {
                        items.insert(key.clone(), read_argument(item, names, sources)?);
                    }
                    Ok(Argument::Mapping(items))
                }
                None => Ok(Argument::Constant(value.clone())),
            }
        }
        Json::Array(items) if holds_tensor(value) => {
            items.iter().map(|item| read_argument(item, names, sources)).collect::<Result<_, _>>().map(Argument::List)
        }
        other => Ok(Argument::Constant(other.clone())),
    }
}

fn holds_tensor(value: &Json) -> bool {
    match value {
        Json::Object(object) => match object.get("class_name").and_then(Json::as_str) {
            Some("__keras_tensor__" | "__tensor__" | "__numpy__") if object.contains_key("config") => true,
            _ => object.values().any(holds_tensor),
        },
        Json::Array(items) => items.iter().any(holds_tensor),
        _ => false,
    }
}

/// The calls that `outputs` need, in the order Keras runs them: by depth, the number of calls between a call and the
/// outputs, deepest first; a layer that is called several times counts with its deepest call. Order matters where a layer
/// takes the mask from a tensor that others read.
///
/// Source: keras/src/ops/function.py (`map_graph`, `_build_map`, `Function._run_through_graph`).
fn order(
    calls: &BTreeMap<(usize, usize), Node>,
    inputs: &[History],
    outputs: &[History],
    layers: &[LayerConfig],
) -> Result<Vec<Node>, String> {
    type Key = (usize, usize);
    let given: BTreeSet<History> = inputs.iter().copied().collect();
    let parents = |key: &Key| -> Vec<History> {
        calls
            .get(key)
            .into_iter()
            .flat_map(|node| &node.sources)
            .filter_map(|source| match source {
                Source::Tensor(history) => Some(*history),
                Source::Constant(_) => None,
            })
            .collect()
    };
    let name = |key: &Key| layers.get(key.0).map(|layer| shown(&layer.name)).unwrap_or_default();
    // Depth first from the outputs, without recursion: a graph may be as deep as its file is long.
    let (mut finished, mut finish) = (BTreeSet::new(), Vec::new());
    let mut in_progress = BTreeSet::new();
    for output in outputs {
        let mut stack: Vec<(Key, bool, Vec<History>)> = Vec::new();
        let enter = |history: &History,
                     stack: &mut Vec<(Key, bool, Vec<History>)>,
                     finished: &BTreeSet<Key>,
                     in_progress: &mut BTreeSet<Key>| {
            let key = (history.layer, history.node);
            if finished.contains(&key) {
                return Ok(());
            }
            if !in_progress.insert(key) {
                return Err(format!("the graph has a cycle at layer \"{}\"", name(&key)));
            }
            let mut open = if given.contains(history) { Vec::new() } else { parents(&key) };
            open.reverse();
            stack.push((key, false, open));
            Ok(())
        };
        enter(output, &mut stack, &finished, &mut in_progress)?;
        while let Some((key, _, open)) = stack.last_mut() {
            let key = *key;
            match open.pop() {
                Some(parent) => enter(&parent, &mut stack, &finished, &mut in_progress)?,
                None => {
                    stack.pop();
                    in_progress.remove(&key);
                    if finished.insert(key) {
                        finish.push(key);
                    }
                }
            }
        }
    }
    let mut first_seen: Vec<Key> = Vec::new();
    let mut depths: BTreeMap<Key, usize> = BTreeMap::new();
    let mut layer_depths: BTreeMap<usize, usize> = BTreeMap::new();
    for key in finish.iter().rev() {
        let depth = *depths.entry(*key).or_insert_with(|| {
            first_seen.push(*key);
            0
        });
        let depth = depth.max(layer_depths.get(&key.0).copied().unwrap_or_default());
        layer_depths.insert(key.0, depth);
        depths.insert(*key, depth);
        for parent in
            parents(key).iter().map(|parent| (parent.layer, parent.node)).filter(|parent| finished.contains(parent))
        {
            let before = depths.entry(parent).or_insert_with(|| {
                first_seen.push(parent);
                0
            });
            *before = (*before).max(depth + 1);
        }
    }
    let mut by_depth: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
    for key in first_seen {
        by_depth.entry(depths.get(&key).copied().unwrap_or_default()).or_default().push(key);
    }
    let ordered = by_depth.into_values().rev().flatten();
    Ok(ordered.filter_map(|key| calls.get(&key).cloned()).collect())
}
