//! Recorded files with one thing wrong, and what comes of loading them.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    path::Path,
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use kandle::{Archive, Limits, Model, Plan};
use serde_json::Value as Json;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// A Dense of 6 features and 5 units.
pub const DENSE: &str = "core/Dense/rank2";
/// Dense, Dropout, Reshape, Dense, Flatten, Dense, Activation.
pub const STACK: &str = "models/Sequential/stack";
/// An Embedding of 1000 × 128, then a Dense of 64 units.
pub const EXAMPLE3: &str = "example3/2x3";

/// Something that must fail, and what it must say.
pub struct Case {
    /// What is wrong, in a few words.
    pub is: &'static str,
    pub error: fn() -> String,
    pub says: &'static str,
}

/// Runs every case and lists those that say something else.
pub fn check(cases: &[Case]) {
    assert!(!cases.is_empty());
    let wrong: Vec<String> = cases
        .iter()
        .map(|case| (case, (case.error)()))
        .filter(|(case, said)| case.says != said)
        .map(|(case, said)| format!("{}:\n  expected {:?}\n  found    {said:?}", case.is, case.says))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

pub fn recorded(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference_outputs").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn keras(case: &str) -> Vec<u8> {
    recorded(&format!("{case}/model.keras"))
}

pub fn open(bytes: Vec<u8>) -> kandle::Result<Archive> {
    Archive::from_bytes("model", bytes, &Limits::default())
}

pub fn plan(archive: &Archive) -> kandle::Result<Plan> {
    Plan::new(&archive.config()?).map_err(|error| error.in_file(archive.name()))
}

/// Opens, plans and loads the model in `bytes`.
pub fn load(bytes: Vec<u8>) -> kandle::Result<Model> {
    Model::from_archive(&open(bytes)?, &Device::Cpu).map(|(model, _)| model)
}

/// What loading the model in `bytes` fails with.
pub fn refused(bytes: Vec<u8>) -> String {
    load(bytes).expect_err("this must be refused").to_string()
}

/// What loading the weights in `bytes` into the model of `case` fails with.
pub fn refused_weights(case: &str, bytes: Vec<u8>) -> String {
    let plan = plan(&open(keras(case)).unwrap()).unwrap();
    let weights = open(bytes).and_then(|archive| plan.load(&archive, &Device::Cpu));
    weights.err().expect("this must be refused").to_string()
}

pub fn members(keras: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(keras)).unwrap();
    let count = zip.len();
    let member = |index| {
        let mut file = zip.by_index(index).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (file.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(member).collect()
}

pub fn zipped(members: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The `.keras` file of `case` with the member `name` made another by `edit`; none where that gives none.
pub fn with_member(case: &str, name: &str, edit: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let edited = members(keras(case)).into_iter().filter_map(|(member, bytes)| {
        let bytes = if member == name { edit(bytes)? } else { bytes };
        Some((member, bytes))
    });
    zipped(&edited.collect::<Vec<_>>(), CompressionMethod::Stored)
}

/// The `.keras` file of `case` with its configuration edited.
pub fn with_config(case: &str, edit: impl Fn(&mut Json)) -> Vec<u8> {
    with_member(case, "config.json", |bytes| {
        let mut config = serde_json::from_slice(&bytes).unwrap();
        edit(&mut config);
        Some(serde_json::to_vec(&config).unwrap())
    })
}

/// The `.keras` file of `case` with the settings of its layer `index` edited; the InputLayer is layer 0.
pub fn with_layer(case: &str, index: usize, edit: impl Fn(&mut Json)) -> Vec<u8> {
    with_config(case, |config| edit(&mut config["config"]["layers"][index]["config"]))
}

pub fn with_text(case: &str, name: &str, text: &str) -> Vec<u8> {
    with_member(case, name, |_| Some(text.as_bytes().to_vec()))
}

pub fn without(case: &str, name: &str) -> Vec<u8> {
    with_member(case, name, |_| None)
}

pub fn cut(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.truncate(len);
    bytes
}

/// `bytes` with the one place where `old` stands made `new`, of the same length.
pub fn patched(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    assert!(places.len() == 1 && old.len() == new.len(), "{places:?}");
    bytes[places[0]..places[0] + old.len()].copy_from_slice(new);
    bytes
}

pub fn hostile(name: &str) -> Vec<u8> {
    recorded(&format!("hostile/{name}.weights.h5"))
}

/// The names of a `VarMap`, with each variable's bits.
pub fn bits(vars: &VarMap) -> BTreeMap<String, Vec<u64>> {
    let vars = vars.data().lock().unwrap();
    let bits = |tensor: &Tensor| -> Vec<u64> {
        let numbers = tensor.flatten_all().unwrap();
        match tensor.dtype() {
            DType::F64 => numbers.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
            _ => numbers.to_vec1::<f32>().unwrap().into_iter().map(|number| number.to_bits().into()).collect(),
        }
    };
    vars.iter().map(|(name, var)| (name.clone(), bits(var.as_tensor()))).collect()
}
