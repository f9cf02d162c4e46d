use crate::{
    Error, ErrorKind, Limits, Result,
    json::{self, Map, Value},
    shown,
};

/// A model in Keras's own words: its class and its layers, as `config.json` or the attribute `model_config` has them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Where the configuration stands: `config.json`.
    pub at: String,
    /// `Sequential`, `Functional`, or the name of a user's own class.
    pub class: String,
    /// The package of a user's own class (`package>Name`), or Keras's own registered name.
    pub registered_name: Option<String>,
    /// The model's name.
    pub name: String,
    /// The version of Keras that wrote it; `None` for Keras 1.
    pub keras_version: Option<String>,
    /// The layers, in the order of the file.
    pub layers: Vec<LayerConfig>,
    /// The model's own `config`, as it stands in the file.
    pub config: Map<String, Value>,
    /// Whether the file holds settings for training (optimizer, loss, metrics), which inference ignores.
    pub compiled: bool,
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
        let value = json::parse(text.as_bytes(), AT, &Limits::default())?;
        let named = value.get("keras_version").and_then(Value::as_str);
        let is_keras_3 = || value.get("module").is_some() && value.get("registered_name").is_some();
        let version = named.or_else(|| is_keras_3().then_some("3")).map(str::to_owned);
        Self::read(AT, &value, version)
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
        let read = |(index, layer): (usize, &Value)| LayerConfig::read(&format!("{at} › layers[{index}]"), layer);
        Ok(Self {
            at: at.to_owned(),
            name: config.get("name").and_then(Value::as_str).unwrap_or("model").to_owned(),
            class: envelope.class,
            registered_name: envelope.registered_name,
            keras_version,
            layers: layers.iter().enumerate().map(read).collect::<Result<_>>()?,
            compiled: value.get("compile_config").and_then(Value::as_object).is_some_and(|config| !config.is_empty()),
            config,
        })
    }

    /// The first number of the version of Keras that wrote this; 1 where the file names none.
    #[must_use]
    pub fn keras_major(&self) -> u32 {
        let version = self.keras_version.as_deref().unwrap_or("1");
        version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(1)
    }
}

impl LayerConfig {
    /// Reads the envelope of a layer.
    fn read(at: &str, value: &Value) -> Result<Self> {
        let envelope = Envelope::read(at, value)?;
        let damaged = |what: String| Error::new(ErrorKind::Damaged, at, what);
        let config = envelope.config.as_object().ok_or_else(|| damaged("config is not an object".to_owned()))?;
        let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str);
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
        })
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
