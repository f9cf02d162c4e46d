use std::{collections::BTreeMap, path::Path};

use crate::{
    Arrays, Bytes, Container, Error, ErrorKind, Hdf5File, Limits, ModelConfig, Result,
    folder::Folder,
    hdf5_file::{self, first_bytes, is_hdf5},
    json::{self, Value},
    members::Members,
    shards::{self, WEIGHT_MAP},
    zip_file::ZipFile,
};

/// The members of a `.keras` file.
const METADATA: &str = "metadata.json";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.weights.h5";

/// A Keras file: what it is, who wrote it, the configuration and the arrays.
#[derive(Debug)]
pub struct Archive {
    name: String,
    container: Container,
    form: String,
    keras_version: Option<String>,
    backend: Option<String>,
    config: Option<(&'static str, Value)>,
    /// Whether settings for training stand apart from the configuration.
    compiled: bool,
    assets: BTreeMap<String, Vec<u8>>,
    arrays: Arrays,
    weights: Weights,
    members: Vec<String>,
    /// Whether the arrays are from another file than the configuration.
    paired: bool,
}

/// How the arrays are grouped, and who wrote them.
#[derive(Debug, Clone)]
enum Weights {
    /// There are none.
    None,
    /// By class and number.
    Store,
    /// By the names of layers, under `root`.
    Legacy { root: &'static str, keras_version: Option<String>, backend: Option<String> },
}

impl Archive {
    /// Opens the file at `path`, or the folder if it is a model that was saved as one. Files are mapped, not read: array
    /// data is touched when it is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where a file cannot be read, otherwise as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            Error::new(ErrorKind::Io, "", format!("cannot read: {error}")).caused_by(error).in_file(&name)
        };
        let archive = if path.is_dir() {
            Self::read_members(Members::Folder(Folder::open(path).map_err(unreadable)?), limits)
        } else {
            Self::read(Bytes::open(path).map_err(unreadable)?, Some(path), limits)
        };
        archive.map(|archive| Self { name: name.clone(), ..archive }).map_err(|error| error.in_file(&name))
    }

    /// Opens a file that is already in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`ErrorKind::NotKeras`] where the content is none of Keras's, [`ErrorKind::Damaged`] where it is broken,
    /// [`ErrorKind::Missing`] where a member is not there, [`ErrorKind::Limit`] past `limits`,
    /// [`ErrorKind::Unsupported`] for a form of Keras's that is not read.
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>, limits: &Limits) -> Result<Self> {
        let archive = Self::read(bytes.into(), None, limits);
        archive.map(|archive| Self { name: name.to_owned(), ..archive }).map_err(|error| error.in_file(name))
    }

    fn read(bytes: Bytes, path: Option<&Path>, limits: &Limits) -> Result<Self> {
        const ZIP: &[u8] = b"PK";
        if bytes.as_slice().starts_with(ZIP) {
            Self::read_members(Members::Zip(Box::new(ZipFile::open(bytes, limits)?)), limits)
        } else if is_hdf5(bytes.as_slice()) {
            Self::read_hdf5(bytes, limits)
        } else if bytes.as_slice().trim_ascii_start().starts_with(b"{") {
            Self::read_json(&bytes, path, limits)
        } else {
            let what = format!(
                "not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are {}",
                first_bytes(bytes.as_slice())
            );
            Err(Error::new(ErrorKind::NotKeras, "", what))
        }
    }

    fn read_members(mut members: Members, limits: &Limits) -> Result<Self> {
        /// TensorFlow's own form, which Keras 2 wrote for a folder.
        const SAVED_MODEL: &str = "saved_model.pb";
        /// Another form of the weights, which Keras writes on request and does not read again itself.
        const NPZ: &str = "model.weights.npz";
        let names = members.names(limits)?;
        let held = |name: &str| names.iter().any(|held| held == name);
        if held(SAVED_MODEL) {
            let what =
                "a SavedModel: a graph of TensorFlow's, without Keras's layers; open it in Keras and save it as .keras";
            return Err(Error::new(ErrorKind::Unsupported, "", what));
        }
        if !held(CONFIG) && !held(METADATA) {
            let what = format!("a {}, but not a Keras file: neither {CONFIG} nor {METADATA} is in it", members.says());
            return Err(Error::new(ErrorKind::NotKeras, "", what));
        }
        let metadata = members.get(METADATA, limits.json_bytes)?.ok_or_else(|| {
            // Keras itself reads a folder without it, but by the version that is installed.
            let advice = "; config.json is written in the words of one version of Keras: name it in metadata.json as {\"keras_version\": \"3.0.0\"}";
            members.missing(METADATA, &names, advice)
        })?;
        let metadata = json::parse(metadata.as_slice(), METADATA, limits)?;
        let version = metadata.get("keras_version").and_then(Value::as_str).ok_or_else(|| {
            let what = "keras_version is missing: it says in which version's words config.json is written";
            Error::new(ErrorKind::Damaged, METADATA, what)
        })?;
        let config = members.need(CONFIG, &names, limits.json_bytes)?;
        let config = json::parse(config.as_slice(), CONFIG, limits)?;
        if !held(WEIGHTS) && held(NPZ) {
            let what = "weights in this form are not read; save the model again with weights_format=\"h5\"";
            return Err(Error::new(ErrorKind::Unsupported, NPZ, what));
        }
        let weights = members.need(WEIGHTS, &names, limits.unpacked_bytes)?;
        let form = format!("{}, weights in {}", members.form(WEIGHTS), hdf5_file::form(weights.as_slice()));
        Ok(Self {
            name: String::new(),
            assets: members.assets(&names, limits)?,
            container: Container::Keras,
            form,
            keras_version: Some(version.to_owned()),
            backend: None,
            config: Some((CONFIG, config)),
            compiled: false,
            arrays: Arrays::new(vec![Hdf5File::open(weights, WEIGHTS, limits)?])?,
            weights: Weights::Store,
            members: names,
            paired: false,
        })
    }

    fn read_hdf5(bytes: Bytes, limits: &Limits) -> Result<Self> {
        const MODEL_CONFIG: &str = "model_config";
        const MODEL_WEIGHTS: &str = "model_weights";
        let form = hdf5_file::form(bytes.as_slice());
        let arrays = Arrays::new(vec![Hdf5File::open(bytes, "", limits)?])?;
        let config = arrays.text_attribute("", MODEL_CONFIG)?;
        let legacy_root = || -> Result<Option<&'static str>> {
            Ok(match arrays.text_list_attribute("", "layer_names")? {
                Some(_) => Some(""),
                None => arrays.has_group(MODEL_WEIGHTS).then_some("model_weights/"),
            })
        };
        let written_by = |group: &str| -> Result<(Option<String>, Option<String>)> {
            Ok((arrays.text_attribute(group, "keras_version")?, arrays.text_attribute(group, "backend")?))
        };
        let (container, (keras_version, backend), weights) = if config.is_some() {
            let by = written_by("")?;
            let (keras_version, backend) = by.clone();
            (Container::Legacy, by, Weights::Legacy { root: "model_weights/", keras_version, backend })
        } else if let Some(root) = legacy_root()? {
            let by = written_by(root.trim_end_matches('/'))?;
            let (keras_version, backend) = by.clone();
            (Container::LegacyWeights, by, Weights::Legacy { root, keras_version, backend })
        } else if arrays.is_store() {
            (Container::Weights, written_by("")?, Weights::Store)
        } else {
            let what = "an HDF5 file, but not one of Keras's: neither model_config nor a group named layers is in it";
            return Err(Error::new(ErrorKind::NotKeras, "", what));
        };
        let config = config.map(|text| json::parse(text.as_bytes(), MODEL_CONFIG, limits)).transpose()?;
        Ok(Self {
            name: String::new(),
            assets: BTreeMap::new(),
            container,
            form,
            keras_version,
            backend,
            config: config.map(|config| (MODEL_CONFIG, config)),
            // Legacy files have the settings for training in an attribute of their own.
            compiled: arrays.text_attribute("", "training_config")?.is_some(),
            arrays,
            weights,
            members: Vec::new(),
            paired: false,
        })
    }

    /// An architecture, or the map of weights that lie in several files beside it.
    fn read_json(bytes: &Bytes, path: Option<&Path>, limits: &Limits) -> Result<Self> {
        let value = json::parse(bytes.as_slice(), "", limits)?;
        let read = Self {
            name: String::new(),
            assets: BTreeMap::new(),
            container: Container::Architecture,
            form: "JSON".to_owned(),
            keras_version: None,
            backend: None,
            config: None,
            compiled: false,
            arrays: Arrays::none(),
            weights: Weights::None,
            members: Vec::new(),
            paired: false,
        };
        if let Some(map) = value.get(WEIGHT_MAP) {
            let Some(folder) = path.and_then(Path::parent) else {
                let what = "a map of weights in several files: open it by its path, so that they are found beside it";
                return Err(Error::new(ErrorKind::Missing, "", what));
            };
            let folder = Folder::open(folder).map_err(|error| {
                Error::new(ErrorKind::Io, "", format!("cannot read its folder: {error}")).caused_by(error)
            })?;
            let (arrays, members) = shards::open(map, &folder, limits)?;
            let form = format!("JSON, weights in {} files beside it", members.len());
            Ok(Self { container: Container::Weights, form, arrays, weights: Weights::Store, members, ..read })
        } else if value.get("class_name").is_some() {
            let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
            Ok(Self {
                keras_version: text("keras_version"),
                backend: text("backend"),
                config: Some(("", value)),
                ..read
            })
        } else {
            let what = "a JSON text, but not one of Keras's: neither class_name nor weight_map is in it";
            Err(Error::new(ErrorKind::NotKeras, "", what))
        }
    }

    /// The configuration and assets of this file with the arrays of `weights`: an architecture with its weights, or a model
    /// with others than its own.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where this file has no configuration, or `weights` no weights.
    pub fn with_weights(self, weights: Self) -> Result<Self> {
        if self.config.is_none() {
            return Err(self.no_config());
        }
        if !weights.has_weights() {
            let what = "an architecture has no weights: expected a file of weights";
            return Err(Error::new(ErrorKind::Missing, "", what).in_file(&weights.name));
        }
        // The folder of two files is said once.
        let (own, other) = (Path::new(&self.name), Path::new(&weights.name));
        let short = other.file_name().filter(|_| own.parent() == other.parent());
        let name = format!("{} with {}", self.name, short.unwrap_or(other.as_os_str()).to_string_lossy());
        Ok(Self { name, arrays: weights.arrays, weights: weights.weights, paired: true, ..self })
    }

    /// What stands for the file in errors: its path, or the name given with its bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of Keras's files this is.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// How the file is stored, in words: `zip (stored), weights in HDF5 (superblock 0)`.
    #[must_use]
    pub fn form(&self) -> &str {
        &self.form
    }

    /// The version of Keras that wrote the file, where it says so (`.weights.h5` does not).
    #[must_use]
    pub fn keras_version(&self) -> Option<&str> {
        self.keras_version.as_deref()
    }

    /// The backend that Keras ran on, where the file says so (only legacy files do).
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.backend.as_deref()
    }

    /// The members of a `.keras` file or folder, or the files that a map of weights names.
    #[must_use]
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// What a `.keras` keeps beside its own weights, vocabularies for the most part, by the path below `assets/`.
    pub(crate) fn own_assets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let assets = self.assets.iter().filter(|_| !self.paired);
        assets.map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The arrays, by path.
    #[must_use]
    pub fn arrays(&self) -> &Arrays {
        &self.arrays
    }

    /// Whether there are weights: not in an architecture, until it gets them.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        !matches!(self.weights, Weights::None)
    }

    /// Whether the arrays are grouped by the names of layers, as in legacy files, rather than by class and number.
    #[must_use]
    pub fn weights_are_legacy(&self) -> bool {
        matches!(self.weights, Weights::Legacy { .. })
    }

    /// Whether the weights are from the same file as the configuration, so that both have the same names.
    #[must_use]
    pub fn weights_are_its_own(&self) -> bool {
        !self.paired
    }

    /// What the paths of legacy weights begin with, before the layer's name: `model_weights/`, or nothing in a file of
    /// weights alone. Nothing where the weights are not legacy.
    #[must_use]
    pub fn legacy_root(&self) -> &'static str {
        match &self.weights {
            Weights::Legacy { root, .. } => root,
            _ => "",
        }
    }

    /// The version of Keras that wrote legacy weights, where they say so (those of Keras 1 do not). In a pair of files it may
    /// be another than that of the configuration.
    #[must_use]
    pub fn legacy_weights_version(&self) -> Option<&str> {
        match &self.weights {
            Weights::Legacy { keras_version, .. } => keras_version.as_deref(),
            _ => None,
        }
    }

    /// The backend that Keras ran on when it wrote legacy weights, where they say so: with Theano, Keras 1 and 2 stored the
    /// kernels of convolutions flipped.
    #[must_use]
    pub fn legacy_weights_backend(&self) -> Option<&str> {
        match &self.weights {
            Weights::Legacy { backend, .. } => backend.as_deref(),
            _ => None,
        }
    }

    /// The model's configuration as the file has it.
    #[must_use]
    pub fn config_json(&self) -> Option<&Value> {
        self.config.as_ref().map(|(_, value)| value)
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] for weights alone, which have none; [`ErrorKind::Damaged`] where it is no model's.
    pub fn config(&self) -> Result<ModelConfig> {
        let Some((at, value)) = &self.config else { return Err(self.no_config()) };
        let config = match self.container {
            Container::Architecture => ModelConfig::read_architecture(at, value),
            _ => ModelConfig::read(at, value, self.keras_version.clone()),
        };
        let mut config = config.map_err(|error| error.in_file(&self.name))?;
        config.compiled |= self.compiled;
        config.backend = self.backend.clone().or(config.backend);
        config.legacy |= self.container == Container::Legacy;
        config.assets.extend(self.assets.clone());
        Ok(config)
    }

    fn no_config(&self) -> Error {
        let what = "weights without a configuration: open them together with the model they belong to, or say which layer is which";
        Error::new(ErrorKind::Missing, "", what).in_file(&self.name)
    }
}
