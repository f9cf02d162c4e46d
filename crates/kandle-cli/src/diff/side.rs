//! One of the two files of a comparison, as far as it can be followed: configuration, plan, weights.

use std::path::Path;

use kandle::parity::Array;
use kandle::{Archive, Bytes, Dtype, ErrorKind, Limits, ModelConfig, Plan, Problem, StoredArray, StoredTensor, shown};
use safetensors::SafeTensors;

use crate::Failure;
use crate::source::is_safetensors;

pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) file: SideFile,
    pub(crate) config: Option<ModelConfig>,
    pub(crate) plan: Option<Plan>,
    /// Why there is no plan, or why the weights do not fit it.
    pub(crate) problems: Vec<Problem>,
}

pub(crate) enum SideFile {
    Keras(Box<Archive>),
    Safetensors(Bytes),
}

impl Side {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        if is_safetensors(path) {
            let bytes = Bytes::open(path).map_err(|error| format!("{name}: cannot read: {error}"))?;
            SafeTensors::deserialize(bytes.as_slice()).map_err(|error| format!("{name}: not safetensors: {error}"))?;
            let file = SideFile::Safetensors(bytes);
            return Ok(Self { name, file, config: None, plan: None, problems: Vec::new() });
        }
        let archive = Archive::open(path, &Limits::default())?;
        let config = archive.container().has_config().then(|| archive.config()).transpose()?;
        let (mut plan, mut problems) = (None, Vec::new());
        match config.as_ref().map(Plan::new) {
            None => {}
            Some(Ok(planned)) => plan = Some(planned),
            Some(Err(error)) => problems.extend(error.problems().cloned()),
        }
        if let Some(plan) = plan.as_ref().filter(|_| archive.has_weights())
            && let Err(error) = plan.weights().check(&archive)
        {
            problems.extend(error.problems().cloned());
        }
        if let Some(broken) = problems
            .iter()
            .find(|problem| matches!(problem.kind, ErrorKind::Io | ErrorKind::Damaged | ErrorKind::Limit))
        {
            return Err(format!("{name}: {broken}").into());
        }
        Ok(Self { name, file: SideFile::Keras(Box::new(archive)), config, plan, problems })
    }

    pub(crate) fn archive(&self) -> Option<&Archive> {
        match &self.file {
            SideFile::Keras(archive) => Some(archive),
            SideFile::Safetensors(_) => None,
        }
    }

    /// The plan, where the file's own weights fit it.
    pub(crate) fn fitting_plan(&self) -> Option<&Plan> {
        self.plan.as_ref().filter(|_| self.problems.is_empty())
    }

    /// In words: what the file is and who wrote it.
    pub(crate) fn says(&self) -> String {
        let file = match &self.file {
            SideFile::Keras(archive) => archive.container().says(),
            SideFile::Safetensors(_) => "a .safetensors file: weights without a configuration",
        };
        let version =
            self.version().map_or_else(String::new, |version| format!(", written by Keras {}", shown(version)));
        let backend = self.backend().map_or_else(String::new, |backend| format!(" on {}", shown(backend)));
        format!("{}: {file}{version}{backend}", self.name)
    }

    pub(crate) fn version(&self) -> Option<&str> {
        match (&self.config, self.archive()) {
            (Some(config), _) => config.keras_version.as_deref(),
            (None, archive) => archive.and_then(Archive::keras_version),
        }
    }

    pub(crate) fn backend(&self) -> Option<&str> {
        self.archive().and_then(Archive::backend)
    }
}

/// One tensor of a file, its numbers still there.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// None where it has one that kandle does not read.
    pub(crate) dtype: Option<Dtype>,
    numbers: Numbers<'a>,
}

enum Numbers<'a> {
    Weight(StoredTensor<'a>),
    Stored(StoredArray<'a>),
    Loaded(Array),
}

impl<'a> Tensor<'a> {
    pub(crate) fn of_weight(tensor: StoredTensor<'a>) -> Self {
        let (name, shape, dtype) = (tensor.name.clone(), tensor.shape.clone(), Some(tensor.dtype));
        Self { name, shape, dtype, numbers: Numbers::Weight(tensor) }
    }

    pub(crate) fn of_array(array: StoredArray<'a>) -> Self {
        let (name, shape, dtype) = (array.path().to_owned(), array.shape().to_vec(), array.dtype().ok());
        Self { name, shape, dtype, numbers: Numbers::Stored(array) }
    }

    pub(crate) fn of_safetensors(name: String, array: Array) -> Self {
        let (shape, dtype) = (array.shape().to_vec(), Dtype::from_name(&array.dtype().to_string()));
        Self { name, shape, dtype, numbers: Numbers::Loaded(array) }
    }

    pub(crate) fn array(&self) -> Result<Array, Failure> {
        let dtype = self.dtype.ok_or_else(|| format!("{}: its dtype is not read", shown(&self.name)))?;
        match &self.numbers {
            Numbers::Weight(tensor) => kandle::numbers(dtype, &self.shape, tensor.bytes()?),
            Numbers::Stored(array) => kandle::numbers(dtype, &self.shape, array.bytes()?.into_owned()),
            Numbers::Loaded(array) => Ok(array.clone()),
        }
    }
}

/// Every tensor of a safetensors file, sorted by name.
pub(crate) fn of_safetensors(bytes: &Bytes) -> Result<Vec<Tensor<'static>>, Failure> {
    let file = SafeTensors::deserialize(bytes.as_slice())?;
    let mut names = file.names();
    names.sort_unstable();
    let read = |name: &str| -> Result<Tensor<'static>, Failure> {
        let array = Array::read(&file.tensor(name)?).map_err(|error| format!("{}: {error}", shown(name)))?;
        Ok(Tensor::of_safetensors(name.to_owned(), array))
    };
    names.into_iter().map(read).collect()
}
