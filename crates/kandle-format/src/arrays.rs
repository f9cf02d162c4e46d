use std::{collections::BTreeMap, fmt};

use crate::{Array, Error, ErrorKind, Hdf5File, Result};

/// What a weight store calls the layers of a model, at every level.
const LAYERS: &str = "layers";

/// Keras: TensorFlow 2.12 and 2.13 called them so. Keras 3 reads both.
///
/// Source: keras/src/saving/saving_lib.py (`_load_state`).
const CHECKPOINT_DEPENDENCIES: &str = "_layer_checkpoint_dependencies";

/// The arrays of a Keras file under one set of paths (`layers/dense/vars/0`, no leading slash), in however many HDF5 files
/// they lie.
///
/// The groups that TensorFlow 2.12 and 2.13 call `_layer_checkpoint_dependencies` are listed as `layers`, as all other
/// versions call them; errors name them as the file does.
pub struct Arrays {
    files: Vec<Hdf5File>,
    /// Where each array lies: the number of its file and its path there.
    places: BTreeMap<String, (usize, String)>,
    renamed: bool,
}

impl Arrays {
    /// No arrays.
    pub(crate) fn none() -> Self {
        Self { files: Vec::new(), places: BTreeMap::new(), renamed: false }
    }

    /// The arrays of all `files`.
    pub(crate) fn new(files: Vec<Hdf5File>) -> Result<Self> {
        let renamed = files.iter().any(|file| file.has_group(CHECKPOINT_DEPENDENCIES));
        let mut arrays = Self { files, places: BTreeMap::new(), renamed };
        let mut places: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (number, file) in arrays.files.iter().enumerate() {
            for path in file.paths() {
                let listed = arrays.listed(path);
                if let Some((other, _)) = places.get(&listed) {
                    let other = arrays.files.get(*other).map_or_else(String::new, |other| other.place(path));
                    let what = format!("a second array of this path: the first is {other}");
                    return Err(Error::new(ErrorKind::Damaged, file.place(path), what));
                }
                places.insert(listed, (number, path.to_owned()));
            }
        }
        arrays.places = places;
        Ok(arrays)
    }

    /// What a path of the file is listed as.
    fn listed(&self, path: &str) -> String {
        if self.renamed { exchanged(path, CHECKPOINT_DEPENDENCIES, LAYERS) } else { path.to_owned() }
    }

    /// What a listed path is in the file.
    pub(crate) fn stored(&self, path: &str) -> String {
        if self.renamed { exchanged(path, LAYERS, CHECKPOINT_DEPENDENCIES) } else { path.to_owned() }
    }

    /// Whether the layers are TensorFlow 2.12's and 2.13's `_layer_checkpoint_dependencies`, which names each layer that has
    /// weights twice.
    #[must_use]
    pub fn names_layers_twice(&self) -> bool {
        self.renamed
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The paths of all arrays, sorted as text.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The array at `path`.
    #[must_use]
    pub fn array(&self, path: &str) -> Option<Array<'_>> {
        let (listed, (number, path)) = self.places.get_key_value(path)?;
        Some(self.files.get(*number)?.array(path)?.listed_as(listed))
    }

    /// Where `path` lies, for errors: with the name of the member or of the file beside, if it lies in one, and as it is
    /// called there. What is not there would lie in the only file, if there is only one.
    #[must_use]
    pub fn place(&self, path: &str) -> String {
        match (self.places.get(path), self.files.as_slice()) {
            (Some((number, path)), files) if files.len() > *number => {
                files.get(*number).map_or_else(String::new, |file| file.place(path))
            }
            (_, [only]) => only.place(&self.stored(path)),
            _ => crate::shown(&self.stored(path)),
        }
    }

    /// Whether there is a group at `path` (`""` is the root).
    #[must_use]
    pub fn has_group(&self, path: &str) -> bool {
        let path = self.stored(path);
        self.files.iter().any(|file| file.has_group(&path))
    }

    /// Whether this is a weight store: it has the layers of a model, under either name.
    pub(crate) fn is_store(&self) -> bool {
        self.renamed || self.has_group(LAYERS)
    }

    /// The text attribute `name` of the group at `path`: a string, or bytes that are UTF-8.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the attribute is there but cannot be read or holds no text.
    pub fn text_attribute(&self, path: &str, name: &str) -> Result<Option<String>> {
        let path = self.stored(path);
        self.files.iter().find_map(|file| file.text_attribute(&path, name).transpose()).transpose()
    }

    /// The list of texts in the attribute `name` of the group at `path`.
    ///
    /// Keras splits a long list into `name0`, `name1`, … and writes an empty one as zero floats; both are read.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the attribute is there but cannot be read or holds no texts.
    pub fn text_list_attribute(&self, path: &str, name: &str) -> Result<Option<Vec<String>>> {
        let path = self.stored(path);
        self.files.iter().find_map(|file| file.text_list_attribute(&path, name).transpose()).transpose()
    }
}

/// `path` with every part that is `old` made `new`.
fn exchanged(path: &str, old: &str, new: &str) -> String {
    path.split('/').map(|part| if part == old { new } else { part }).collect::<Vec<_>>().join("/")
}

impl fmt::Debug for Arrays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrays({} arrays in {} files)", self.places.len(), self.files.len())
    }
}
