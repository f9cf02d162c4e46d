//! What a verb opens: a model's configuration, and where its weights lie.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_nn::VarMap;
use kandle::json::Value;
use kandle::{Archive, ErrorKind, Limits, LoadReport, ModelConfig, Plan, json};

/// A model's configuration and its weights, from one file or from two.
pub(crate) struct Source {
    pub(crate) model: ModelFile,
    /// The file given for the weights, where it is not that of the model.
    pub(crate) weights: Option<WeightsFile>,
}

/// A file that may hold a model's configuration.
pub(crate) enum ModelFile {
    Archive(Box<Archive>),
    /// A JSON text: a configuration alone.
    Text {
        name: String,
        value: Value,
        config: Box<ModelConfig>,
    },
}

/// A file of weights alone.
pub(crate) enum WeightsFile {
    Keras(Box<Archive>),
    Safetensors(PathBuf),
}

impl Source {
    /// Opens the model at `path`, with the weights of another file where one is given.
    pub(crate) fn open(path: &Path, weights: Option<&Path>) -> kandle::Result<Self> {
        let model = ModelFile::open(path)?;
        let weights = weights.map(WeightsFile::open).transpose()?;
        Ok(Self { model, weights })
    }

    /// The configuration.
    pub(crate) fn config(&self) -> kandle::Result<ModelConfig> {
        match &self.model {
            ModelFile::Archive(archive) => archive.config(),
            ModelFile::Text { config, .. } => Ok(config.as_ref().clone()),
        }
    }

    /// The plan, all that is refused named together.
    pub(crate) fn plan(&self) -> kandle::Result<Plan> {
        Plan::new(&self.config()?).map_err(|error| error.in_file(self.model.name()))
    }

    /// The file of Keras's that has the weights; none where that is a safetensors file.
    pub(crate) fn archive(&self) -> kandle::Result<Option<&Archive>> {
        match (&self.weights, &self.model) {
            (Some(WeightsFile::Keras(archive)), _) | (None, ModelFile::Archive(archive)) => Ok(Some(archive)),
            (Some(WeightsFile::Safetensors(_)), _) => Ok(None),
            (None, ModelFile::Text { name, .. }) => {
                let what = "a configuration without weights: give them with --weights FILE";
                Err(kandle::Error::new(ErrorKind::Missing, "", what).in_file(name))
            }
        }
    }

    /// Every weight of `plan`.
    pub(crate) fn load(&self, plan: &Plan) -> kandle::Result<(VarMap, LoadReport)> {
        match (&self.weights, self.archive()?) {
            (Some(WeightsFile::Safetensors(path)), _) => plan.load_safetensors(path, &Device::Cpu),
            (_, Some(archive)) => plan.load(archive, &Device::Cpu),
            (_, None) => Err(kandle::Error::new(ErrorKind::Missing, "", "no weights")),
        }
    }
}

impl ModelFile {
    pub(crate) fn open(path: &Path) -> kandle::Result<Self> {
        if !starts_as_json(path) {
            return Ok(Self::Archive(Box::new(Archive::open(path, &Limits::default())?)));
        }
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            kandle::Error::new(ErrorKind::Io, "", format!("cannot read: {error}")).caused_by(error)
        };
        let read = || {
            let limits = Limits::default();
            let mut text = String::new();
            // One byte more than the limit is enough for the parser to say so.
            let most = limits.json_bytes.saturating_add(1);
            File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(unreadable)?;
            let (value, config) = (json::parse(text.as_bytes(), "", &limits)?, ModelConfig::from_json(&text)?);
            Ok(Self::Text { name: name.clone(), value, config: Box::new(config) })
        };
        read().map_err(|error: kandle::Error| error.in_file(&name))
    }

    /// What stands for the file in errors.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Archive(archive) => archive.name(),
            Self::Text { name, .. } => name,
        }
    }

    /// The configuration as the file has it.
    pub(crate) fn config_json(&self) -> Option<&Value> {
        match self {
            Self::Archive(archive) => archive.config_json(),
            Self::Text { value, .. } => Some(value),
        }
    }

    /// The backend that Keras ran on, where the file says so.
    pub(crate) fn backend(&self) -> Option<&str> {
        match self {
            Self::Archive(archive) => archive.backend(),
            Self::Text { value, .. } => value.get("backend").and_then(Value::as_str),
        }
    }
}

impl WeightsFile {
    fn open(path: &Path) -> kandle::Result<Self> {
        if is_safetensors(path) {
            return Ok(Self::Safetensors(path.to_owned()));
        }
        Ok(Self::Keras(Box::new(Archive::open(path, &Limits::default())?)))
    }
}

/// Whether the file at `path` begins as a safetensors file: the length of the header comes first, and the header is a JSON
/// object.
pub(crate) fn is_safetensors(path: &Path) -> bool {
    let [.., ninth] = first_bytes::<9>(path);
    ninth == b'{' && !starts_as_json(path)
}

fn starts_as_json(path: &Path) -> bool {
    first_bytes::<64>(path).trim_ascii_start().starts_with(b"{")
}

/// The first bytes of a file, zeros where it has no more or cannot be read: what opens it then says why.
fn first_bytes<const N: usize>(path: &Path) -> [u8; N] {
    let mut bytes = [0; N];
    if path.is_file()
        && let Ok(mut file) = File::open(path)
    {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..)
            && let Ok(read) = file.read(rest)
            && read > 0
        {
            filled += read;
        }
    }
    bytes
}
