use std::{collections::BTreeMap, path::Path};

use crate::{
    Bytes, Error, ErrorKind, Hdf5File, Limits, ModelConfig, Result,
    hdf5_file::{first_bytes, is_hdf5},
    json,
    json::Value,
    shown,
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
    keras_version: Option<String>,
    backend: Option<String>,
    config: Option<(&'static str, Value)>,
    assets: BTreeMap<String, Vec<u8>>,
    arrays: Hdf5File,
    members: Vec<String>,
}

/// Which of Keras's files this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// `.keras`: a zip of configuration and weights.
    Keras,
    /// `.weights.h5`: weights alone, grouped by class and number.
    Weights,
    /// Legacy whole-model `.h5`: configuration and weights, grouped by layer name.
    Legacy,
}

impl Container {
    /// In words, as `kandle inspect` says it.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Keras => "a .keras file: configuration and weights",
            Self::Weights => "a .weights.h5 file: weights without a configuration",
            Self::Legacy => "a legacy .h5 file: configuration and weights",
        }
    }
}

impl Archive {
    /// Opens the file at `path`. It is mapped, not read: array data is touched when it is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read, otherwise as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = Bytes::open(path).map_err(|error| {
            Error::new(ErrorKind::Io, "", format!("cannot read: {error}")).caused_by(error).in_file(&name)
        })?;
        Self::read(&name, bytes, limits)
    }

    /// Opens a file that is already in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`ErrorKind::NotKeras`] where the content is none of Keras's, [`ErrorKind::Damaged`] where it is broken,
    /// [`ErrorKind::Missing`] where a member is not there, [`ErrorKind::Limit`] past `limits`,
    /// [`ErrorKind::Unsupported`] for a form of Keras's that is not read.
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>, limits: &Limits) -> Result<Self> {
        Self::read(name, bytes.into(), limits)
    }

    fn read(name: &str, bytes: Bytes, limits: &Limits) -> Result<Self> {
        const ZIP: &[u8] = b"PK";
        let start = bytes.as_slice().trim_ascii_start();
        let archive = if bytes.as_slice().starts_with(ZIP) {
            Self::read_zip(bytes, limits)
        } else if is_hdf5(bytes.as_slice()) {
            Self::read_hdf5(bytes, limits)
        } else if start.starts_with(b"{") {
            let what =
                "a JSON text: an architecture without its weights is not read yet; save the whole model as .keras";
            Err(Error::new(ErrorKind::Unsupported, "", what))
        } else {
            let what = format!(
                "not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are {}",
                first_bytes(bytes.as_slice())
            );
            Err(Error::new(ErrorKind::NotKeras, "", what))
        };
        archive.map(|archive| Self { name: name.to_owned(), ..archive }).map_err(|error| error.in_file(name))
    }

    fn read_zip(bytes: Bytes, limits: &Limits) -> Result<Self> {
        let mut zip = ZipFile::open(bytes, limits)?;
        let members = zip.names();
        let missing = |member: &str| {
            let held: Vec<String> = members.iter().take(8).map(|name| shown(name)).collect();
            Error::new(
                ErrorKind::Missing,
                member,
                format!(
                    "missing: the zip holds {}",
                    if held.is_empty() { "nothing".to_owned() } else { held.join(", ") }
                ),
            )
        };
        if !members.iter().any(|name| name == CONFIG) && !members.iter().any(|name| name == METADATA) {
            return Err(Error::new(
                ErrorKind::NotKeras,
                "",
                format!("a zip, but not a Keras file: neither {CONFIG} nor {METADATA} is in it"),
            ));
        }
        let metadata = zip.member(METADATA, limits.json_bytes)?.ok_or_else(|| missing(METADATA))?;
        let metadata = json::parse(metadata.as_slice(), METADATA, limits)?;
        let version = metadata.get("keras_version").and_then(Value::as_str);
        let version = version.ok_or_else(|| Error::new(ErrorKind::Damaged, METADATA, "keras_version is missing"))?;
        let config = zip.member(CONFIG, limits.json_bytes)?.ok_or_else(|| missing(CONFIG))?;
        let config = json::parse(config.as_slice(), CONFIG, limits)?;
        let weights = zip.member(WEIGHTS, limits.unpacked_bytes)?.ok_or_else(|| missing(WEIGHTS))?;
        let mut assets = BTreeMap::new();
        for member in &members {
            let Some(path) = member.strip_prefix("assets/").filter(|path| !path.is_empty() && !path.ends_with('/'))
            else {
                continue;
            };
            let asset = zip.member(member, limits.json_bytes)?.ok_or_else(|| missing(member))?;
            assets.insert(path.to_owned(), asset.as_slice().to_vec());
        }
        Ok(Self {
            name: String::new(),
            assets,
            container: Container::Keras,
            keras_version: Some(version.to_owned()),
            backend: None,
            config: Some((CONFIG, config)),
            arrays: Hdf5File::open(weights, WEIGHTS, limits)?,
            members,
        })
    }

    fn read_hdf5(bytes: Bytes, limits: &Limits) -> Result<Self> {
        const MODEL_CONFIG: &str = "model_config";
        let arrays = Hdf5File::open(bytes, "", limits)?;
        let (container, config) = match arrays.text_attribute("", MODEL_CONFIG)? {
            Some(text) => {
                (Container::Legacy, Some((MODEL_CONFIG, json::parse(text.as_bytes(), MODEL_CONFIG, limits)?)))
            }
            None if arrays.text_list_attribute("", "layer_names")?.is_some() || arrays.has_group("model_weights") => {
                let what = "legacy weights without an architecture are not read yet; save the whole model, or weights as .weights.h5";
                return Err(Error::new(ErrorKind::Unsupported, "", what));
            }
            None if arrays.has_group("layers") => (Container::Weights, None),
            None => {
                let what =
                    "an HDF5 file, but not one of Keras's: neither model_config nor a group named layers is in it";
                return Err(Error::new(ErrorKind::NotKeras, "", what));
            }
        };
        Ok(Self {
            name: String::new(),
            assets: BTreeMap::new(),
            container,
            keras_version: arrays.text_attribute("", "keras_version")?,
            backend: arrays.text_attribute("", "backend")?,
            config,
            arrays,
            members: Vec::new(),
        })
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

    /// The members of a `.keras` file.
    #[must_use]
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// The arrays, by path.
    #[must_use]
    pub fn arrays(&self) -> &Hdf5File {
        &self.arrays
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] for a `.weights.h5` file, which has none; [`ErrorKind::Damaged`] where it is no model's.
    pub fn config(&self) -> Result<ModelConfig> {
        let Some((at, value)) = &self.config else {
            let what =
                "weights without a configuration: say which layer is which, or open the model they belong to as well";
            return Err(Error::new(ErrorKind::Missing, "", what).in_file(&self.name));
        };
        let in_file = |error: Error| error.in_file(&self.name);
        let mut config = ModelConfig::read(at, value, self.keras_version.clone()).map_err(in_file)?;
        // Legacy files have the settings for training in an attribute of their own.
        config.compiled |= self.arrays.text_attribute("", "training_config").map_err(in_file)?.is_some();
        config.legacy = self.container == Container::Legacy;
        config.assets.clone_from(&self.assets);
        Ok(config)
    }
}
