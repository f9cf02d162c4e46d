//! Where cases lie: below a folder, and beside a model.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{CaseError, CaseErrorKind, shown_path};
use crate::json::{self, Node};

/// The case folders at and under `path`, sorted: a folder with a `case.json` is a case, and is not searched further.
///
/// # Errors
/// A folder that can't be read, or no case at all.
pub fn find_cases(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, CaseError> {
    let path = path.as_ref();
    let (mut cases, mut seen) = (vec![], HashSet::new());
    find_under(path, &mut cases, &mut seen)?;
    cases.sort();
    if cases.is_empty() {
        return Err(CaseError::new(
            CaseErrorKind::NotFound,
            shown_path(path),
            "expected a case (a folder with case.json) here or below, found none",
        ));
    }
    Ok(cases)
}

fn find_under(folder: &Path, cases: &mut Vec<PathBuf>, seen: &mut HashSet<PathBuf>) -> Result<(), CaseError> {
    let unreadable = |error| CaseError::unreadable(folder, &error);
    // Each folder once, however many links lead to it.
    if !seen.insert(folder.canonicalize().map_err(unreadable)?) {
        return Ok(());
    }
    if folder.join("case.json").is_file() {
        cases.push(folder.to_owned());
        return Ok(());
    }
    let entries = folder.read_dir().map_err(unreadable)?;
    let mut below = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    below.sort();
    below.iter().filter(|entry| entry.is_dir()).try_for_each(|entry| find_under(entry, cases, seen))
}

/// A case that was recorded of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseOf {
    /// The case's folder.
    pub folder: PathBuf,
    /// What the case calls the file: `../model.keras`.
    pub file: String,
}

/// The cases of the model file at `file`, sorted: those that name it, in its own folder, in the folders there, and in
/// `model.case` beside a `model.keras`, at any depth.
///
/// # Errors
/// A file or folder that can't be read, a `case.json` that is none, or no case of this file.
pub fn cases_of(file: impl AsRef<Path>) -> Result<Vec<CaseOf>, CaseError> {
    let file = file.as_ref();
    let real = file.canonicalize().map_err(|error| CaseError::unreadable(file, &error))?;
    // The folder as it was given, which is how cases are then named.
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = file.with_extension("case");
    let mut folders = vec![folder.to_owned()];
    let entries = folder.read_dir().map_err(|error| CaseError::unreadable(folder, &error))?;
    folders
        .extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir() && *path != beside));
    folders.retain(|folder| folder.join("case.json").is_file());
    if beside.is_dir() {
        let mut below = vec![];
        find_under(&beside, &mut below, &mut HashSet::new())?;
        folders.extend(below);
    }
    let mut found = vec![];
    for folder in folders {
        let folder = folder.strip_prefix("./").map_or_else(|_| folder.clone(), Path::to_owned);
        let is_real = |name: &String| folder.join(name).canonicalize().is_ok_and(|path| path == real);
        found
            .extend(files_of(&folder)?.into_iter().filter(is_real).map(|file| CaseOf { folder: folder.clone(), file }));
    }
    found.sort_by(|one, other| one.folder.cmp(&other.folder));
    if found.is_empty() {
        let what = format_args!(
            "no recorded case names it, in its folder or in {}: record one with `python record.py {}`",
            shown_path(&beside),
            shown_path(file)
        );
        return Err(CaseError::new(CaseErrorKind::NotFound, shown_path(file), what));
    }
    Ok(found)
}

/// The names under `files` in the `case.json` of a folder.
fn files_of(folder: &Path) -> Result<Vec<String>, CaseError> {
    let path = folder.join("case.json");
    let words = fs::read_to_string(&path).map_err(|error| CaseError::unreadable(&path, &error))?;
    let value = json::parse(&words).map_err(|error| {
        CaseError::new(CaseErrorKind::Malformed, shown_path(&path), format_args!("not JSON: {error}"))
    })?;
    Node::root(&value, shown_path(&path)).need("files")?.list()?.iter().map(Node::text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found_beside_their_model() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let case = |folder: &str, files: &str| {
            fs::create_dir_all(at(folder)).unwrap();
            fs::write(at(folder).join("case.json"), format!("{{\"files\": {files}}}")).unwrap();
        };
        for name in ["m.keras", "other.keras"] {
            fs::write(at(name), "").unwrap();
        }
        case("ordinary", "[\"../m.keras\"]");
        case("not_its", "[\"../other.keras\", \"../gone.keras\"]");
        case("m.case/a/b", "[\"../../../m.keras\"]");
        case("deep/er", "[\"../../m.keras\"]");
        let found = |file: &str| -> Vec<(String, String)> {
            let name =
                |found: CaseOf| (found.folder.strip_prefix(root.path()).unwrap().display().to_string(), found.file);
            cases_of(at(file)).unwrap().into_iter().map(name).collect()
        };
        let pair = |folder: &str, file: &str| (folder.to_owned(), file.to_owned());
        assert_eq!(found("m.keras"), [pair("m.case/a/b", "../../../m.keras"), pair("ordinary", "../m.keras")]);
        case("", "[\"m.keras\"]");
        assert_eq!(found("m.keras").len(), 3);
        assert_eq!(found("other.keras"), [pair("not_its", "../other.keras")]);
        fs::write(at("new.keras"), "").unwrap();
        let error = cases_of(at("new.keras")).unwrap_err();
        assert_eq!(error.kind(), CaseErrorKind::NotFound);
        assert!(error.to_string().contains("new.case: record one with `python record.py"), "{error}");
        assert_eq!(cases_of(at("none.keras")).unwrap_err().kind(), CaseErrorKind::Unreadable);
        fs::write(at("case.json"), "{").unwrap();
        assert_eq!(cases_of(at("m.keras")).unwrap_err().kind(), CaseErrorKind::Malformed);
    }
}
