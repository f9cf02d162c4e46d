use std::collections::BTreeMap;

use crate::{Bytes, Error, ErrorKind, Limits, Result, folder::Folder, shown, zip_file::ZipFile};

/// The members of a `.keras`: in a zip, or as the files of a folder.
pub(crate) enum Members {
    Zip(Box<ZipFile>),
    Folder(Folder),
}

impl Members {
    /// `zip` or `folder`, for errors.
    pub(crate) fn says(&self) -> &'static str {
        match self {
            Self::Zip(_) => "zip",
            Self::Folder(_) => "folder",
        }
    }

    /// What holds the member `name`, and how: `zip (deflated)`.
    pub(crate) fn form(&mut self, name: &str) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::Zip(zip) => match zip.is_stored(name) {
                true => "zip (stored)",
                false => "zip (deflated)",
            },
        }
    }

    /// The names of all members, as the zip lists them or sorted.
    pub(crate) fn names(&self, limits: &Limits) -> Result<Vec<String>> {
        match self {
            Self::Zip(zip) => Ok(zip.names()),
            Self::Folder(folder) => folder.names(limits),
        }
    }

    /// The bytes of the member `name`; if it must be unpacked, at most `most`.
    pub(crate) fn get(&mut self, name: &str, most: u64) -> Result<Option<Bytes>> {
        match self {
            Self::Zip(zip) => zip.member(name, most),
            Self::Folder(folder) => folder.file(name),
        }
    }

    /// The bytes of the member `name`, which must be one of `names`.
    pub(crate) fn need(&mut self, name: &str, names: &[String], most: u64) -> Result<Bytes> {
        self.get(name, most)?.ok_or_else(|| self.missing(name, names, ""))
    }

    /// What to say where the member `name` is not one of `names`, with what to do about it.
    pub(crate) fn missing(&self, name: &str, names: &[String], advice: &str) -> Error {
        let held: Vec<String> = names.iter().take(8).map(|name| shown(name)).collect();
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        Error::new(ErrorKind::Missing, shown(name), format!("missing: the {} holds {held}{advice}", self.says()))
    }

    /// The files under `assets/`, by their path from there on.
    pub(crate) fn assets(&mut self, names: &[String], limits: &Limits) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut assets = BTreeMap::new();
        let mut total = 0_u64;
        for name in names {
            let Some(path) = name.strip_prefix("assets/").filter(|path| !path.is_empty() && !path.ends_with('/'))
            else {
                continue;
            };
            let asset = self.need(name, names, limits.json_bytes)?;
            // Members of a zip may share their bytes, so the file does not bound what they come to.
            total = total.saturating_add(u64::try_from(asset.as_slice().len()).unwrap_or(u64::MAX));
            if total > limits.unpacked_bytes {
                let what = format!("more than {} bytes of assets", limits.unpacked_bytes);
                return Err(Error::new(ErrorKind::Limit, shown(name), what));
            }
            assets.insert(path.to_owned(), asset.as_slice().to_vec());
        }
        Ok(assets)
    }
}
