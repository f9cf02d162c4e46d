use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Error, ErrorKind, Limits, Result,
    json::{self, Map, Value},
    shown,
};

/// A model in Keras's own words: its class and its layers, as `config.json` or the attribute `model_config` has them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Where the configuration stands: `config.json`; empty where it is the whole file.
    pub at: String,
    /// `Sequential`, `Functional`, or the name of a user's own class.
    pub class: String,
    /// The package of a user's own class (`package>Name`), or Keras's own registered name.
    pub registered_name: Option<String>,
    /// The model's name.
    pub name: String,
    /// The version of Keras that wrote it; `None` for Keras 1.
    pub keras_version: Option<String>,
    /// What Keras ran on when it wrote it: `tensorflow`, `theano`, …; `None` where the file does not say.
    pub backend: Option<String>,
    /// The layers, in the order of the file.
    pub layers: Vec<LayerConfig>,
    /// The model's own `config`, as it stands in the file.
    pub config: Map<String, Value>,
    /// Whether the file holds settings for training (optimizer, loss, metrics), which inference ignores.
    pub compiled: bool,
    /// Whether it stands in a legacy whole-model `.h5`.
    pub legacy: bool,
    /// The files that lie beside the configuration, such as vocabularies, by the path of the layer they belong to and
    /// their name: `layers/string_lookup/vocabulary.txt`.
    pub assets: BTreeMap<String, Vec<u8>>,
}

/// Where [`ModelConfig::to_json`] puts what Keras's own JSON has no place for.
const ORIGIN: &str = "kandle";

/// The files beside a configuration, which [`ModelConfig::to_json`] put into its text.
fn assets(origin: Option<&Value>) -> BTreeMap<String, Vec<u8>> {
    let assets = origin.and_then(|origin| origin.get("assets")).and_then(Value::as_object);
    let text = |(path, text): (&String, &Value)| Some((path.clone(), text.as_str()?.as_bytes().to_vec()));
    assets.into_iter().flatten().filter_map(text).collect()
}

/// One layer in Keras's own words.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LayerConfig {
    /// Where the layer stands: `config.json › layers[2]`.
    pub at: String,
    /// The class: `Dense`.
    pub class: String,
    /// `keras.layers`, or another module for operations and users' classes.
    pub module: Option<String>,
    /// `package>Name` for a user's class.
    pub registered_name: Option<String>,
    /// The layer's own name: `dense_1`.
    pub name: String,
    /// The settings.
    pub config: Map<String, Value>,
    /// Its calls, where it is part of a Functional model.
    pub inbound_nodes: Vec<Value>,
    /// The number that marks one object written in several places.
    pub shared_object_id: Option<u64>,
}

impl ModelConfig {
    /// Reads the JSON text that Keras's `model.to_json()` writes.
    ///
    /// Keras: versions 1 and 2 put `keras_version` into the text. Keras 3 does not, but it alone writes `module` and
    /// `registered_name` beside the class of a model, so such a text counts as version 3.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the text is not a model's configuration.
    pub fn from_json(text: &str) -> Result<Self> {
        const AT: &str = "model.json";
        Self::read_architecture(AT, &json::parse(text.as_bytes(), AT, &Limits::default())?)
    }

    /// Reads what `model.to_json()` wrote, which is known by itself.
    pub(crate) fn read_architecture(at: &str, value: &Value) -> Result<Self> {
        let named = value.get("keras_version").and_then(Value::as_str);
        let is_keras_3 = || value.get("module").is_some() && value.get("registered_name").is_some();
        let version = named.or_else(|| is_keras_3().then_some("3")).map(str::to_owned);
        Self::read(at, value, version)
    }

    /// Reads the envelope of a model.
    pub(crate) fn read(at: &str, value: &Value, keras_version: Option<String>) -> Result<Self> {
        let envelope = Envelope::read(at, value)?;
        let damaged = |what: &str| Error::new(ErrorKind::Damaged, at, what);
        // Keras: old Sequential files have the list of layers itself as `config`.
        let (config, layers) = match envelope.config {
            Value::Array(layers) => (Map::new(), Some(layers)),
            Value::Object(config) => match config.get("layers") {
                // A user's own class may have no such list.
                None => (config.clone(), None),
                Some(Value::Array(layers)) => (config.clone(), Some(layers)),
                Some(_) => return Err(damaged("layers is not a list")),
            },
            _ => return Err(damaged("config is neither an object nor a list")),
        };
        let layers = layers.map(Vec::as_slice).unwrap_or_default();
        // An architecture is the file itself, and has no place within it.
        let within = if at.is_empty() { String::new() } else { format!("{at} › ") };
        let read = |(index, layer): (usize, &Value)| LayerConfig::read(&format!("{within}layers[{index}]"), layer);
        let mut layers = layers.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
        name_apart(&mut layers);
        Ok(Self {
            at: at.to_owned(),
            name: config.get("name").and_then(Value::as_str).unwrap_or("model").to_owned(),
            class: envelope.class,
            registered_name: envelope.registered_name,
            keras_version,
            backend: value.get("backend").and_then(Value::as_str).map(str::to_owned),
            layers,
            compiled: value.get("compile_config").and_then(Value::as_object).is_some_and(|config| !config.is_empty()),
            legacy: value.get(ORIGIN).and_then(|origin| origin.get("legacy")) == Some(&Value::Bool(true)),
            assets: assets(value.get(ORIGIN)),
            config,
        })
    }

    /// The JSON text of the configuration `value` of this model alone, outside the file it stands in, as
    /// [`from_json`](Self::from_json) reads it. Keras's `model_from_json` reads it too.
    ///
    /// `keras_version` and `backend` stand in it as in what Keras 2 wrote; what else the file says beside the
    /// configuration stands under `kandle`, with the texts `notes`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where a file beside the configuration is no text.
    pub fn to_json(&self, value: &Value, backend: Option<&str>, notes: &[(&str, &str)]) -> Result<String> {
        let mut origin: Map<String, Value> =
            notes.iter().map(|(key, note)| ((*key).to_owned(), Value::from(*note))).collect();
        if self.legacy {
            origin.insert("legacy".to_owned(), true.into());
        }
        let mut assets = Map::new();
        for (path, bytes) in &self.assets {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                Error::new(
                    ErrorKind::Unsupported,
                    format!("assets/{}", shown(path)),
                    "expected a text, found other bytes",
                )
            })?;
            assets.insert(path.clone(), text.into());
        }
        if !assets.is_empty() {
            origin.insert("assets".to_owned(), assets.into());
        }
        let mut whole = value.as_object().cloned().unwrap_or_default();
        let named = [("keras_version", self.keras_version.as_deref()), ("backend", backend)];
        whole.extend(named.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.into()))));
        whole.insert(ORIGIN.to_owned(), origin.into());
        Ok(json::text(&whole.into()))
    }

    /// The first number of the version of Keras that wrote this; 1 where the file names none.
    #[must_use]
    pub fn keras_major(&self) -> u32 {
        keras_major(self.keras_version.as_deref())
    }
}

/// The first number of a version of Keras; 1 where there is none, as files of Keras 1 name none.
#[must_use]
pub fn keras_major(version: Option<&str>) -> u32 {
    version.unwrap_or("1").split('.').next().and_then(|major| major.parse().ok()).unwrap_or(1)
}

/// What a model is called that has no name in the file.
const UNNAMED: &str = "sequential";

/// Gives models without a name in the file one that no other of `layers` has.
fn name_apart(layers: &mut [LayerConfig]) {
    let mut taken: BTreeSet<String> =
        layers.iter().filter(|layer| !layer.is_unnamed()).map(|layer| layer.name.clone()).collect();
    for layer in layers.iter_mut().filter(|layer| layer.is_unnamed()) {
        let numbered = (1_usize..).map(|number| format!("{UNNAMED}_{number}"));
        let free = std::iter::once(UNNAMED.to_owned()).chain(numbered).find(|name| !taken.contains(name));
        layer.name = free.unwrap_or_default();
        taken.insert(layer.name.clone());
    }
}

impl LayerConfig {
    /// Whether it is a model that has no name in the file, as Keras before 2.2.3 wrote Sequential models that are no part of a
    /// graph.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.class == "Sequential" && self.config.get("name") == Some(&Value::Null)
    }

    /// Reads the envelope of a layer; `at` is where it stands, for errors.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where `value` is no layer's.
    pub fn read(at: &str, value: &Value) -> Result<Self> {
        let envelope = Envelope::read(at, value)?;
        let damaged = |what: String| Error::new(ErrorKind::Damaged, at, what);
        // Keras: a Sequential model of old is its list of layers, also where it is a layer.
        let listed;
        let config = match envelope.config {
            Value::Array(_) if envelope.class == "Sequential" => {
                let name = value.get("name").cloned().unwrap_or_default();
                listed = Map::from_iter([("layers".to_owned(), envelope.config.clone()), ("name".to_owned(), name)]);
                &listed
            }
            config => config.as_object().ok_or_else(|| damaged("config is not an object".to_owned()))?,
        };
        let is_listed = envelope.config.is_array();
        let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str);
        // Keras: such a list has no name in it, and where it is no part of a graph there is none beside it.
        let name = name.or(is_listed.then_some(UNNAMED));
        Ok(Self {
            at: at.to_owned(),
            name: name
                .ok_or_else(|| {
                    damaged(format!(
                        "name is missing: expected a layer, found a {} without one",
                        shown(&envelope.class)
                    ))
                })?
                .to_owned(),
            class: envelope.class,
            module: value.get("module").and_then(Value::as_str).map(str::to_owned),
            registered_name: envelope.registered_name,
            config: config.clone(),
            inbound_nodes: match value.get("inbound_nodes") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(nodes)) => nodes.clone(),
                Some(_) => return Err(damaged("inbound_nodes is not a list".to_owned())),
            },
            shared_object_id: value.get("shared_object_id").and_then(Value::as_u64),
        })
    }

    /// The model that this layer is, if it is one; `keras_version` is that of the file it lies in.
    #[must_use]
    pub fn model(&self, keras_version: Option<&str>) -> Option<Result<ModelConfig>> {
        let known = matches!(self.class.as_str(), "Sequential" | "Functional" | "Model");
        if !known
            && !self
                .config
                .get("layers")
                .is_some_and(|layers| layers.is_array() && self.config.contains_key("output_layers"))
        {
            return None;
        }
        let value = serde_json::json!({
            "class_name": self.class,
            "config": self.config,
            "registered_name": self.registered_name,
            "name": self.name,
        });
        Some(
            ModelConfig::read(&self.at, &value, keras_version.map(str::to_owned))
                .map(|model| ModelConfig { name: self.name.clone(), ..model }),
        )
    }
}

/// What every serialized Keras object has.
struct Envelope<'a> {
    class: String,
    registered_name: Option<String>,
    config: &'a Value,
}

impl<'a> Envelope<'a> {
    fn read(at: &str, value: &'a Value) -> Result<Self> {
        let damaged = |what: &str| Error::new(ErrorKind::Damaged, at, what);
        let class =
            value.get("class_name").ok_or_else(|| damaged("class_name is missing: expected a Keras model or layer"))?;
        let class = class.as_str().ok_or_else(|| damaged("class_name is not a text"))?;
        Ok(Self {
            class: class.to_owned(),
            registered_name: value.get("registered_name").and_then(Value::as_str).map(str::to_owned),
            config: value.get("config").ok_or_else(|| damaged("config is missing: expected a Keras model or layer"))?,
        })
    }
}
