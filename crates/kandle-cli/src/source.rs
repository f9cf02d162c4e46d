//! What a verb opens: a model's configuration, and where its weights lie.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_nn::VarMap;
use kandle::{Archive, ErrorKind, Limits, LoadReport, Plan};

/// A model's configuration and its weights, from one file or from two.
pub(crate) struct Source {
    /// The configuration, and Keras's own weights where there are any.
    pub(crate) archive: Archive,
    /// The file of the weights, where it is none of Keras's.
    pub(crate) safetensors: Option<PathBuf>,
}

impl Source {
    /// Opens the model at `path`, with the weights of another file where one is given.
    pub(crate) fn open(path: &Path, weights: Option<&Path>) -> kandle::Result<Self> {
        let archive = Archive::open(path, &Limits::default())?;
        Ok(match weights {
            None => Self { archive, safetensors: None },
            Some(weights) if is_safetensors(weights) => Self { archive, safetensors: Some(weights.to_owned()) },
            Some(weights) => {
                let weights = Archive::open(weights, &Limits::default())?;
                Self { archive: archive.with_weights(weights)?, safetensors: None }
            }
        })
    }

    /// The plan, all that is refused named together.
    pub(crate) fn plan(&self) -> kandle::Result<Plan> {
        Plan::new(&self.archive.config()?).map_err(|error| error.in_file(self.archive.name()))
    }

    /// Every weight of `plan`.
    pub(crate) fn load(&self, plan: &Plan) -> kandle::Result<(VarMap, LoadReport)> {
        match &self.safetensors {
            Some(path) => plan.load_safetensors(path, &Device::Cpu),
            None => {
                self.check_weights()?;
                plan.load(&self.archive, &Device::Cpu)
            }
        }
    }

    /// Nothing, where there are weights of Keras's.
    pub(crate) fn check_weights(&self) -> kandle::Result<()> {
        if self.archive.has_weights() {
            return Ok(());
        }
        let what = "an architecture without weights: give them with --weights FILE";
        Err(kandle::Error::new(ErrorKind::Missing, "", what).in_file(self.archive.name()))
    }
}

/// Whether the file at `path` begins as a safetensors file: the length of the header comes first, and the header is a JSON
/// object.
pub(crate) fn is_safetensors(path: &Path) -> bool {
    let mut bytes = [0; 9];
    // Neither a pipe, which can be read once only, nor what cannot be read: what opens it then says why.
    let read = path.is_file() && File::open(path).is_ok_and(|mut file| file.read_exact(&mut bytes).is_ok());
    let [first @ .., ninth] = bytes;
    // A JSON text would have to begin with a length of more than 10¹⁶ bytes.
    read && ninth == b'{' && u64::from_le_bytes(first) < 1 << 40
}
