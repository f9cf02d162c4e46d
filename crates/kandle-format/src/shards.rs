use std::collections::{BTreeMap, BTreeSet};

use crate::{Arrays, Error, ErrorKind, Hdf5File, Limits, Result, folder::Folder, json::Value, shown};

/// The key under which a `.weights.json` says which group lies in which file.
pub(crate) const WEIGHT_MAP: &str = "weight_map";

/// The arrays of the files that the weight map `map` names, which lie in `folder`; with the names of those files.
///
/// An array counts where the map lists its group, be it for another file: of a group that goes over several files Keras 3.10
/// lists the first alone, and cannot read it again.
///
/// Source: keras/src/saving/saving_lib.py (`ShardedH5IOStore`).
pub(crate) fn open(map: &Value, folder: &Folder, limits: &Limits) -> Result<(Arrays, Vec<String>)> {
    let groups = files_of_groups(map)?;
    let names: BTreeSet<&str> = groups.values().flatten().copied().collect();
    if names.len() > limits.members {
        let what = format!("{} files in the map, more than the limit of {}", names.len(), limits.members);
        return Err(Error::new(ErrorKind::Limit, WEIGHT_MAP, what));
    }
    let mut files = Vec::new();
    for name in &names {
        let bytes = folder.file(name)?.ok_or_else(|| {
            let what = "missing: the weight map lists it, but it does not lie beside the map";
            Error::new(ErrorKind::Missing, shown(name), what)
        })?;
        let file = Hdf5File::open(bytes, name, limits)?;
        for path in file.paths() {
            // Keras: the keys begin with a slash.
            let group = format!("/{}", path.rsplit_once('/').map_or("", |(group, _)| group));
            if !groups.contains_key(group.as_str()) {
                let what = format!("the weight map does not list {}", shown(&group));
                return Err(Error::new(ErrorKind::Damaged, file.place(path), what));
            }
        }
        files.push(file);
    }
    Ok((Arrays::new(files)?, names.into_iter().map(str::to_owned).collect()))
}

/// The files of each group: one name, or a list of them.
fn files_of_groups(map: &Value) -> Result<BTreeMap<&str, Vec<&str>>> {
    let wrong =
        |group: &str, what: String| Error::new(ErrorKind::Damaged, format!("{WEIGHT_MAP} › {}", shown(group)), what);
    let Some(map) = map.as_object() else {
        return Err(Error::new(ErrorKind::Damaged, WEIGHT_MAP, "expected an object of groups and their files"));
    };
    let mut groups = BTreeMap::new();
    for (group, files) in map {
        let files = match files {
            Value::Array(files) => files.as_slice(),
            one => std::slice::from_ref(one),
        };
        let names = files.iter().map(|name| match name.as_str().filter(|name| is_plain(name)) {
            Some(name) => Ok(name),
            None => {
                let what = "expected the name of a file beside the map, found";
                Err(wrong(group, format!("{what} {}", shown(&name.to_string()))))
            }
        });
        groups.insert(group.as_str(), names.collect::<Result<Vec<_>>>()?);
    }
    Ok(groups)
}

/// Whether `name` can be nothing but a file in the folder itself, on any system.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}
