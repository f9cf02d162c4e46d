//! How two configurations differ: layers, settings, connections, inputs and outputs.

use std::collections::{BTreeMap, BTreeSet};

use kandle::json::{self, Map, Value};
use kandle::{LayerConfig, ModelConfig, Plan, Step, meaning_of, shown};

use super::side::Side;

/// What is different, in the order of the files.
#[derive(Default)]
pub(crate) struct Architecture {
    pub(crate) removed: Vec<Named>,
    pub(crate) added: Vec<Named>,
    /// Layers that only their names tell apart.
    pub(crate) renamed: Vec<(Named, Named)>,
    pub(crate) settings: Vec<Setting>,
    /// Anything else: where, what A has, what B has.
    pub(crate) others: Vec<(String, String, String)>,
    /// For each layer of A its name in B.
    pub(crate) pairs: BTreeMap<String, String>,
}

/// A layer by path and class.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) path: String,
    pub(crate) class: String,
}

/// A setting of a layer that is not the same in both files.
pub(crate) struct Setting {
    pub(crate) layer: Named,
    pub(crate) key: String,
    pub(crate) a: Option<Value>,
    pub(crate) b: Option<Value>,
    pub(crate) matters: Matters,
}

/// What a setting changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matters {
    /// What the model computes.
    Inference,
    /// No number that comes out of the model: it matters in training only, or says the same in other words.
    Nothing,
}

impl Architecture {
    pub(crate) fn new(a: &Side, b: &Side) -> Self {
        let mut found = Self::default();
        let (Some(config_a), Some(config_b)) = (&a.config, &b.config) else { return found };
        // Keras 1 and 2 call it Model.
        let class = |config: &ModelConfig| config.class.replace("Model", "Functional");
        if class(config_a) != class(config_b) {
            found.other("class of the model", &config_a.class, &config_b.class);
        }
        let planned = a.plan.is_some() && b.plan.is_some();
        let (of_a, of_b) = (layers(config_a, planned), layers(config_b, planned));
        for (one, other) in aligned(&of_a, &of_b, &mut found) {
            found.compare((one, config_a, a.plan.as_ref()), (other, config_b, b.plan.as_ref()));
        }
        match (&a.plan, &b.plan) {
            (Some(plan_a), Some(plan_b)) => found.compare_graphs(plan_a, plan_b),
            _ => found.compare_words("the model", &config_a.config, &config_b.config),
        }
        found
    }

    /// How many differences change what the model computes.
    pub(crate) fn differences(&self) -> usize {
        let settings = self.settings.iter().filter(|setting| setting.matters == Matters::Inference).count();
        self.removed.len() + self.added.len() + settings + self.others.len()
    }

    fn other(&mut self, place: &str, a: &str, b: &str) {
        self.others.push((place.to_owned(), a.to_owned(), b.to_owned()));
    }

    fn compare(
        &mut self,
        (a, config_a, plan_a): (&Layer, &ModelConfig, Option<&Plan>),
        (b, config_b, plan_b): (&Layer, &ModelConfig, Option<&Plan>),
    ) {
        let planned = |layer: &Layer, plan: Option<&Plan>| {
            let found = plan?.layers().iter().find(|planned| planned.path == layer.named.path)?;
            Some(found.meaning())
        };
        let same = match (planned(a, plan_a), planned(b, plan_b)) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        };
        let (of_a, of_b) = (settings(&a.config.config), settings(&b.config.config));
        let keys: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
        let before = self.differences();
        for key in keys.into_iter().filter(|key| of_a.get(*key) != of_b.get(*key)) {
            let matters = match same {
                Some(true) => Matters::Nothing,
                // Whatever is read of the settings of A with this one of B.
                _ => match changes(a, config_a, key, &b.config.config) {
                    Some(false) => Matters::Nothing,
                    _ => Matters::Inference,
                },
            };
            let (a_value, b_value) = (of_a.get(key).cloned(), of_b.get(key).cloned());
            let (layer, key) = (a.named.clone(), key.clone());
            self.settings.push(Setting { layer, key, a: a_value, b: b_value, matters });
        }
        let nodes = |layer: &Layer| told(&layer.config.inbound_nodes.clone().into());
        if same.is_none() && nodes(a) != nodes(b) {
            // What is shown of a long list is its beginning, which may be the same.
            self.other(&format!("calls of {}", a.named), &json::shown(&nodes(a)), &json::shown(&nodes(b)));
        }
        if same == Some(false) && self.differences() == before {
            let version = |config: &ModelConfig| {
                let version = config.keras_version.as_deref().unwrap_or("1");
                format!("as Keras {} and the files beside the configuration mean them", shown(version))
            };
            self.other(&format!("settings of {}", a.named), &version(config_a), &version(config_b));
        }
    }

    /// Inputs and outputs in the words of the file, where there is no plan of them.
    fn compare_words(&mut self, place: &str, a: &Map<String, Value>, b: &Map<String, Value>) {
        for key in ["input_layers", "output_layers"] {
            if a.get(key) != b.get(key) {
                self.other(&format!("{key} of {place}"), &value(a.get(key)), &value(b.get(key)));
            }
        }
    }

    /// Who calls whom, on what.
    fn compare_graphs(&mut self, a: &Plan, b: &Plan) {
        let input = |plan: &Plan| {
            let input = |input: &kandle::Input| {
                format!("{} {}{}", input.spec.shape, input.spec.dtype, if input.optional { ", optional" } else { "" })
            };
            plan.inputs().iter().map(input).collect::<Vec<_>>().join("; ")
        };
        if input(a) != input(b) {
            self.other("inputs", &input(a), &input(b));
        }
        let (calls_a, calls_b) = (Calls::new(a, &self.pairs), Calls::new(b, &BTreeMap::new()));
        for (path, calls) in &calls_a.of {
            let Some(others) = calls_b.of.get(path).filter(|others| *others != calls) else { continue };
            let inputs = |calls: &[(String, String)]| joined(calls.iter().map(|call| &call.0));
            let (of_a, of_b) = match (inputs(calls), inputs(others)) {
                (a, b) if a != b => (a, b),
                _ => (joined(calls.iter().map(|call| &call.1)), joined(others.iter().map(|call| &call.1))),
            };
            self.other(&format!("calls of {}", shown(path)), &of_a, &of_b);
        }
        let (outputs_a, outputs_b) = (calls_a.all(a.outputs()), calls_b.all(b.outputs()));
        if outputs_a != outputs_b {
            self.other("outputs", &outputs_a, &outputs_b);
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", shown(&self.path), shown(&self.class))
    }
}

/// A layer as the configuration has it, of whatever depth.
struct Layer {
    named: Named,
    config: LayerConfig,
}

fn joined<'a>(calls: impl Iterator<Item = &'a String>) -> String {
    calls.map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// The layers of a model and of the models inside it. Inputs are left out where the plan has them.
fn layers(config: &ModelConfig, planned: bool) -> Vec<Layer> {
    fn push(config: &ModelConfig, prefix: &str, planned: bool, found: &mut Vec<Layer>) {
        for layer in &config.layers {
            let path = format!("{prefix}{}", layer.name);
            match layer.model(config.keras_version.as_deref()) {
                Some(Ok(inner)) => {
                    push(&inner, &format!("{path}/"), planned, found);
                    if !planned {
                        let mut alone = layer.clone();
                        alone.config.remove("layers");
                        found.push(Layer { named: Named { path, class: class(layer) }, config: alone });
                    }
                }
                _ if planned && layer.class == "InputLayer" => {}
                // A layer that several models share stands in each.
                _ if found.iter().any(|other| other.named.path == path) => {}
                _ => found.push(Layer { named: Named { path, class: class(layer) }, config: layer.clone() }),
            }
        }
    }
    let mut found = Vec::new();
    push(config, "", planned, &mut found);
    found
}

/// The class as Keras registers it. A file may have its bare name, and has the name of a user's package apart.
fn class(layer: &LayerConfig) -> String {
    match (layer.class.as_str(), &layer.registered_name) {
        (_, Some(name)) if name.contains('>') => name.clone(),
        // Keras: the one layer whose class has another name than the one it is registered under.
        ("GroupQueryAttention", _) => "GroupedQueryAttention".to_owned(),
        (class, _) => class.to_owned(),
    }
}

/// Which layer of B is which of A: by name where the names are the same, else by place where the classes are; of what is
/// left, those with the same settings are renamed.
fn aligned<'a>(a: &'a [Layer], b: &'a [Layer], found: &mut Architecture) -> Vec<(&'a Layer, &'a Layer)> {
    let classes = |layers: &[Layer]| layers.iter().map(|layer| layer.named.class.clone()).collect::<Vec<_>>();
    let paths = |layers: &[Layer]| layers.iter().map(|layer| layer.named.path.clone()).collect::<BTreeSet<_>>();
    let mut pairs: Vec<(&Layer, &Layer)> = Vec::new();
    if paths(a) != paths(b) && classes(a) == classes(b) {
        pairs.extend(a.iter().zip(b));
    } else {
        let mut left: Vec<&Layer> = b.iter().collect();
        let mut alone = Vec::new();
        for layer in a {
            match left
                .iter()
                .position(|other| other.named.path == layer.named.path && other.named.class == layer.named.class)
            {
                Some(place) => pairs.push((layer, left.remove(place))),
                None => alone.push(layer),
            }
        }
        for layer in alone {
            let same = |other: &&Layer| {
                other.named.class == layer.named.class
                    && settings(&other.config.config) == settings(&layer.config.config)
            };
            match left.iter().position(same) {
                Some(place) => pairs.push((layer, left.remove(place))),
                None => found.removed.push(layer.named.clone()),
            }
        }
        found.added.extend(left.into_iter().map(|layer| layer.named.clone()));
    }
    for (one, other) in &pairs {
        found.pairs.insert(one.named.path.clone(), other.named.path.clone());
        if one.named.path != other.named.path {
            found.renamed.push((one.named.clone(), other.named.clone()));
        }
    }
    pairs
}

/// The settings of a layer, key by key: those of objects inside under `key.inner`. What says nothing of the layer is left
/// out: its name, the numbers of shared objects, the modules that classes are in, and what it was built on.
fn settings(config: &Map<String, Value>) -> BTreeMap<String, Value> {
    fn push(key: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(object) => {
                for (inner, value) in object.iter().filter(|(inner, _)| !SILENT.contains(&inner.as_str())) {
                    push(&format!("{key}.{inner}"), value, found);
                }
            }
            value => drop(found.insert(key.to_owned(), told(value))),
        }
    }
    let mut found = BTreeMap::new();
    for (key, value) in config.iter().filter(|(key, _)| *key != "name") {
        push(key, value, &mut found);
    }
    found
}

/// The value without what says nothing.
fn told(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let heard = object.iter().filter(|(key, _)| !SILENT.contains(&key.as_str()));
            heard.map(|(key, value)| (key.clone(), told(value))).collect()
        }
        Value::Array(items) => items.iter().map(told).collect(),
        value => value.clone(),
    }
}

/// Keys of serialized objects that say nothing of what they are.
const SILENT: [&str; 5] = ["module", "registered_name", "shared_object_id", "build_config", "compile_config"];

/// Whether what is read of a layer changes with the value that `other` has for the setting `key`.
fn changes(layer: &Layer, model: &ModelConfig, key: &str, other: &Map<String, Value>) -> Option<bool> {
    let before = meaning_of(&layer.config, model)?;
    // The whole setting, whatever is inside: half an object of each may be none.
    let whole = key.split('.').next().unwrap_or_default();
    let mut changed = layer.config.clone();
    match other.get(whole) {
        Some(value) => drop(changed.config.insert(whole.to_owned(), value.clone())),
        None => drop(changed.config.remove(whole)),
    }
    // A setting that only the other model has may be one that this one's Keras does not know.
    Some(meaning_of(&changed, model).is_none_or(|after| after != before))
}

/// The calls of the layers of a plan, and where the tensors between them come from.
struct Calls {
    /// For each layer its calls: what they read, and what that is to the layer, constants among it.
    of: BTreeMap<String, Vec<(String, String)>>,
    made: BTreeMap<usize, String>,
}

impl Calls {
    /// Layers are called what `names` has for them.
    fn new(plan: &Plan, names: &BTreeMap<String, String>) -> Self {
        let mut made: BTreeMap<usize, String> = BTreeMap::new();
        for (slot, value) in plan.constants() {
            let text = kandle::array(value).map_or_else(
                |error| error.to_string(),
                |array| format!("{} {:?} of bytes {:02x?}", array.dtype(), array.shape(), array.bytes()),
            );
            made.insert(*slot, text);
        }
        for (number, input) in plan.inputs().iter().enumerate() {
            made.insert(input.slot, format!("input_{number}"));
        }
        let path = |step: &Step| {
            let layer = plan.layers().get(step.layer)?;
            Some(names.get(&layer.path).cloned().unwrap_or_else(|| layer.path.clone()))
        };
        for step in plan.steps() {
            for (output, slot) in step.outputs.iter().enumerate() {
                made.insert(*slot, format!("{}[{}][{output}]", shown(&path(step).unwrap_or_default()), step.call));
            }
        }
        let mut calls = Self { of: BTreeMap::new(), made };
        for step in plan.steps() {
            let Some(path) = path(step) else { continue };
            let call = (calls.all(&step.inputs), format!("{:?}", step.arguments));
            calls.of.entry(path).or_default().push(call);
        }
        calls
    }

    fn all(&self, slots: &[usize]) -> String {
        let name = |slot: &usize| self.made.get(slot).cloned().unwrap_or_else(|| "?".to_owned());
        slots.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

/// A setting's value, short enough for a line.
pub(crate) fn value(value: Option<&Value>) -> String {
    value.map_or_else(|| "not there".to_owned(), json::shown)
}
