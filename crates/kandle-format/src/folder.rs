use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Bytes, Error, ErrorKind, Limits, Result, shown};

/// The files of a folder that belong to a model.
///
/// Only regular files are opened, and links only where they stay in the folder: a folder may come from anywhere, and what
/// it links to would be read as part of the model. One kind of link goes further. The cache of the Hugging Face Hub has
/// the files of `snapshots/REVISION` as links to `blobs`, two folders up; those are followed.
pub(crate) struct Folder {
    path: PathBuf,
    /// Where links may lead: the folder itself, and the blobs of its cache.
    within: Vec<PathBuf>,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // The folder of a plain file name is where we are.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let real = path.canonicalize()?;
        let above = real.parent().filter(|above| above.file_name().is_some_and(|name| name == "snapshots"));
        let blobs = above.and_then(Path::parent).map(|cache| cache.join("blobs"));
        Ok(Self { path: path.to_owned(), within: std::iter::once(real).chain(blobs).collect() })
    }

    /// The names of the files in it, and of those under `assets/` with their path; sorted.
    pub(crate) fn names(&self, limits: &Limits) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.list("", &mut names, 0, limits)?;
        names.sort();
        Ok(names)
    }

    fn list(&self, below: &str, names: &mut Vec<String>, depth: usize, limits: &Limits) -> Result<()> {
        let unreadable = |error: io::Error| self.unreadable(below, error);
        if depth > limits.group_depth {
            let what = format!("folders nest more than {} deep", limits.group_depth);
            return Err(Error::new(ErrorKind::Limit, below, what));
        }
        for entry in self.path.join(below).read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
            match is_folder {
                // Keras looks for nothing in any other folder, and a clone of a repository has large ones.
                true if below.is_empty() && name != "assets" => {}
                true => self.list(&name, names, depth + 1, limits)?,
                false => names.push(name),
            }
            if names.len() > limits.members {
                let what = format!("more than {} files in the folder", limits.members);
                return Err(Error::new(ErrorKind::Limit, "", what));
            }
        }
        Ok(())
    }

    /// The bytes of the file `name`, a path from the folder on; `None` if there is no such file.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Bytes>> {
        let real = match self.path.join(name).canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unreadable(name, error)),
        };
        if !self.within.iter().any(|folder| real.starts_with(folder)) {
            let what = "a link that leads out of the folder, which is not followed: copy the file into the folder";
            return Err(Error::new(ErrorKind::Unsupported, shown(name), what));
        }
        // A pipe would be waited for, a device never ends.
        if !real.metadata().map_err(|error| self.unreadable(name, error))?.is_file() {
            return Err(Error::new(ErrorKind::Damaged, shown(name), "not a regular file"));
        }
        Bytes::open(&real).map(Some).map_err(|error| self.unreadable(name, error))
    }

    fn unreadable(&self, name: &str, error: io::Error) -> Error {
        Error::new(ErrorKind::Io, shown(name), format!("cannot read: {error}")).caused_by(error)
    }
}
