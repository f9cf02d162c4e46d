//! What the tests of the program share.

#![allow(dead_code, reason = "each of the tests is a program of its own, and uses some of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kandle::{Archive, Limits};
use serde_json::Value;
use tempfile::TempDir;

/// What one run gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs kandle in the root of the workspace.
pub fn kandle(args: &[&str]) -> Ran {
    let ran = Command::new(env!("CARGO_BIN_EXE_kandle")).args(args).current_dir(root()).output().unwrap();
    Ran {
        code: ran.status.code().unwrap(),
        out: String::from_utf8(ran.stdout).unwrap(),
        err: String::from_utf8(ran.stderr).unwrap(),
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The object that `out` is.
pub fn object(out: &str) -> Value {
    serde_json::from_str(out).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A copy of the case `name` that a test may change.
pub fn copied(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("a_case");
    fs::create_dir(&case).unwrap();
    for entry in fs::read_dir(root().join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), case.join(entry.file_name())).unwrap();
    }
    (folder, case)
}

/// Changes keys of the case.json in `case`.
pub fn edit(case: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let file = case.join("case.json");
    let mut json = object(&fs::read_to_string(&file).unwrap());
    change(json.as_object_mut().unwrap());
    fs::write(file, json.to_string()).unwrap();
}

/// Flips one bit of the exponent of the first stored number of the array `path` in the file `file`.
pub fn flip_a_bit(file: &Path, path: &str) {
    let numbers = {
        let archive = Archive::open(file, &Limits::default()).unwrap();
        archive.arrays().array(path).unwrap().bytes().unwrap().into_owned()
    };
    let mut bytes = fs::read(file).unwrap();
    let at: Vec<usize> = (0..=bytes.len() - numbers.len()).filter(|at| bytes[*at..].starts_with(&numbers)).collect();
    assert_eq!(at.len(), 1, "the numbers of {path} must stand in the file once");
    bytes[at[0] + 2] ^= 0x80;
    fs::write(file, bytes).unwrap();
}

/// A copy of the `.keras` file `from` at `to` whose configuration `change` has changed.
pub fn reconfigured(from: &str, to: &Path, change: impl FnOnce(&mut Value)) {
    use zip::write::SimpleFileOptions;
    let mut zip = zip::ZipArchive::new(fs::File::open(root().join(from)).unwrap()).unwrap();
    let mut out = zip::ZipWriter::new(fs::File::create(to).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut change = Some(change);
    for number in 0..zip.len() {
        let mut member = zip.by_index(number).unwrap();
        let name = member.name().unwrap().to_string();
        out.start_file(&name, options).unwrap();
        match change.take_if(|_| name == "config.json") {
            Some(change) => {
                let mut config = object(&std::io::read_to_string(&mut member).unwrap());
                change(&mut config);
                std::io::Write::write_all(&mut out, config.to_string().as_bytes()).unwrap();
            }
            None => drop(std::io::copy(&mut member, &mut out).unwrap()),
        }
    }
    out.finish().unwrap();
}
