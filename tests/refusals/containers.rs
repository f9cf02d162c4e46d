//! A model as a folder, as an architecture and its weights, as weights in several files; and the kinds of zip.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use candle_core::Device;
use kandle::{Archive, Container, Limits, Model};
use serde_json::json;
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::files::*;

/// A model with a vocabulary among its assets.
const WORDS: &str = "preprocessing/StringLookup/adapted";

/// A folder with `files` in it.
fn folder(files: &[(String, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

/// What `path`, which is in `folder`, is refused with; the folder called FOLDER.
fn refused_in(folder: &TempDir, path: &str) -> String {
    let error = Model::load(folder.path().join(path), &Device::Cpu).expect_err("this must be refused").to_string();
    called_folder(folder, &error)
}

fn called_folder(folder: &TempDir, error: &str) -> String {
    error.replace(&folder.path().display().to_string(), "FOLDER")
}

fn archive(path: &Path) -> kandle::Result<Archive> {
    Archive::open(path, &Limits::default())
}

#[test]
fn a_folder_is_read_as_the_zip_of_its_files() {
    let unpacked = folder(&members(keras(STACK)));
    let model = Model::load(unpacked.path(), &Device::Cpu).unwrap();
    assert_eq!(bits(model.var_map()), bits(load(keras(STACK)).unwrap().var_map()));
    let archive = archive(unpacked.path()).unwrap();
    assert_eq!((archive.container(), archive.keras_version()), (Container::Keras, Some("3.15.1")));
    assert_eq!(archive.members(), ["config.json", "metadata.json", "model.weights.h5"]);
    // Weights alone into variables of one's own.
    let vars = candle_nn::VarMap::new();
    vars.data().lock().unwrap().extend(model.var_map().data().lock().unwrap().clone());
    assert_eq!(kandle::load_weights(unpacked.path(), &vars).unwrap().loaded.len(), 6);
}

#[test]
fn the_assets_of_a_folder_are_those_of_the_zip() {
    let unpacked = folder(&members(keras(WORDS)));
    fs::create_dir_all(unpacked.path().join(".git/objects")).unwrap();
    fs::write(unpacked.path().join(".git/objects/assets"), "not read").unwrap();
    let (folder, zip) = (archive(unpacked.path()).unwrap(), open(keras(WORDS)).unwrap());
    let assets = folder.config().unwrap().assets;
    assert!(!assets.is_empty());
    assert_eq!(assets, zip.config().unwrap().assets);
    Model::load(unpacked.path(), &Device::Cpu).unwrap();
}

#[test]
fn folders_that_are_no_model_are_refused() {
    check(&[
        Case {
            is: "no metadata",
            error: || refused_in(&folder(&members(without(DENSE, "metadata.json"))), ""),
            says: "FOLDER/ › metadata.json: missing: the folder holds config.json, model.weights.h5; config.json is written in the words of one version of Keras: name it in metadata.json as {\"keras_version\": \"3.0.0\"}",
        },
        Case {
            is: "a version that is a number",
            error: || refused_in(&folder(&members(with_text(DENSE, "metadata.json", r#"{"keras_version": 3}"#))), ""),
            says: "FOLDER/ › metadata.json: keras_version is missing: it says in which version's words config.json is written",
        },
        Case {
            is: "no weights",
            error: || refused_in(&folder(&members(without(DENSE, "model.weights.h5"))), ""),
            says: "FOLDER/ › model.weights.h5: missing: the folder holds config.json, metadata.json",
        },
        Case {
            is: "weights as npz",
            error: || {
                let mut files = members(without(DENSE, "model.weights.h5"));
                files.push(("model.weights.npz".to_owned(), Vec::new()));
                refused_in(&folder(&files), "")
            },
            says: "FOLDER/ › model.weights.npz: weights in this form are not read; save the model again with weights_format=\"h5\"",
        },
        Case {
            is: "a SavedModel",
            error: || refused_in(&folder(&[("saved_model.pb".to_owned(), Vec::new())]), ""),
            says: "FOLDER/: a SavedModel: a graph of TensorFlow's, without Keras's layers; open it in Keras and save it as .keras",
        },
        Case {
            is: "a folder in the place of a file",
            error: || {
                let unpacked = folder(&members(without(DENSE, "config.json")));
                fs::create_dir(unpacked.path().join("config.json")).unwrap();
                refused_in(&unpacked, "")
            },
            says: "FOLDER/ › config.json: not a regular file",
        },
    ]);
}

#[test]
fn folders_are_read_within_the_limits() {
    let limited = |files: &[(String, Vec<u8>)], limit: fn(&mut Limits)| {
        let files = folder(files);
        let mut limits = Limits::default();
        limit(&mut limits);
        called_folder(&files, &Archive::open(files.path(), &limits).unwrap_err().to_string())
    };
    let mut files = members(keras(DENSE));
    assert_eq!(limited(&files, |limits| limits.members = 2), "FOLDER: more than 2 files in the folder");
    files.push(("assets/a/b/c.txt".to_owned(), b"words".to_vec()));
    assert_eq!(
        limited(&files, |limits| limits.unpacked_bytes = 4),
        "FOLDER › assets/a/b/c.txt: more than 4 bytes of assets"
    );
    assert_eq!(limited(&files, |limits| limits.group_depth = 2), "FOLDER › assets/a/b: folders nest more than 2 deep");
}

#[cfg(unix)]
#[test]
fn links_are_followed_within_the_folder_and_to_the_blobs_of_the_hub() {
    use std::os::unix::fs::symlink;

    let expected = bits(load(keras(DENSE)).unwrap().var_map());
    // A link that stays.
    let unpacked = folder(&members(keras(DENSE)));
    let weights = unpacked.path().join("model.weights.h5");
    fs::rename(&weights, unpacked.path().join("other")).unwrap();
    symlink("other", &weights).unwrap();
    assert_eq!(bits(Model::load(unpacked.path(), &Device::Cpu).unwrap().var_map()), expected);
    // One that leaves.
    let outside = folder(&members(keras(DENSE)));
    fs::remove_file(&weights).unwrap();
    symlink(outside.path().join("model.weights.h5"), &weights).unwrap();
    let what = "a link that leads out of the folder, which is not followed: copy the file into the folder";
    assert_eq!(refused_in(&unpacked, ""), format!("FOLDER/ › model.weights.h5: {what}"));
    // A snapshot of the Hugging Face Hub: every file is a link to the blobs beside the snapshots.
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123abc"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (number, (name, bytes)) in members(keras(DENSE)).into_iter().enumerate() {
        fs::write(blobs.join(number.to_string()), bytes).unwrap();
        symlink(format!("../../blobs/{number}"), snapshot.join(name)).unwrap();
    }
    assert_eq!(bits(Model::load(&snapshot, &Device::Cpu).unwrap().var_map()), expected);
}

#[test]
fn an_architecture_runs_with_weights_of_any_kind() {
    let config = members(keras(DENSE)).remove(1).1;
    let expected = bits(load(keras(DENSE)).unwrap().var_map());
    let files = folder(&[
        ("model.json".to_owned(), config),
        ("model.weights.h5".to_owned(), recorded(&format!("{DENSE}/model.weights.h5"))),
        ("whole.keras".to_owned(), keras(DENSE)),
        ("whole.h5".to_owned(), recorded(&format!("{DENSE}/model.h5"))),
    ]);
    let at = |name: &str| files.path().join(name);
    let architecture = archive(&at("model.json")).unwrap();
    assert_eq!((architecture.container(), architecture.has_weights()), (Container::Architecture, false));
    assert_eq!(architecture.config().unwrap().keras_version.as_deref(), Some("3"));
    for weights in ["model.weights.h5", "whole.keras", "whole.h5"] {
        for config in ["model.json", "whole.keras", "whole.h5"] {
            let model = Model::load_with_weights(at(config), at(weights), &Device::Cpu);
            let model = model.unwrap_or_else(|error| panic!("{config} with {weights}: {error}"));
            assert_eq!(bits(model.var_map()), expected, "{config} with {weights}");
        }
    }
    let pair = archive(&at("model.json")).unwrap().with_weights(archive(&at("model.weights.h5")).unwrap()).unwrap();
    assert_eq!(called_folder(&files, pair.name()), "FOLDER/model.json with model.weights.h5");
}

#[test]
fn pairs_that_do_not_fit_are_refused() {
    fn pair(config: Vec<u8>, weights: Vec<u8>) -> String {
        let named = |name, bytes: Vec<u8>| Archive::from_bytes(name, bytes, &Limits::default()).unwrap();
        let pair = named("model.json", config).with_weights(named("weights.h5", weights));
        let model = pair.and_then(|pair| Model::from_archive(&pair, &Device::Cpu));
        model.expect_err("this must be refused").to_string()
    }
    fn config(case: &str) -> Vec<u8> {
        members(keras(case)).remove(1).1
    }
    fn weights(case: &str) -> Vec<u8> {
        recorded(&format!("{case}/model.weights.h5"))
    }
    check(&[
        Case {
            is: "weights of another model",
            error: || pair(config(DENSE), weights("core/Dense/no_bias")),
            says: "model.json with weights.h5 › layer \"dense\" (Dense): bias: missing: expected [5] in layers/dense/vars/1, the nearest is layers/dense/vars/0",
        },
        Case {
            is: "two files of weights",
            error: || pair(weights(DENSE), weights(DENSE)),
            says: "model.json: weights without a configuration: open them together with the model they belong to, or say which layer is which",
        },
        Case {
            is: "two architectures",
            error: || pair(config(DENSE), config(DENSE)),
            says: "weights.h5: an architecture has no weights: expected a file of weights",
        },
        Case {
            is: "an architecture without layers",
            error: || {
                let text =
                    br#"{"class_name": "Sequential", "config": {"name": "m", "layers": []}, "keras_version": "2.2.0"}"#;
                pair(text.to_vec(), weights(DENSE))
            },
            says: "model.json with weights.h5: a model without layers",
        },
    ]);
}

#[test]
fn shards_that_do_not_fit_their_map_are_refused() {
    fn sharded(edit: impl Fn(&mut serde_json::Value, &Path)) -> String {
        let forms = members(recorded("hdf5_forms.zip"));
        let files = folder(&forms.into_iter().filter(|(name, _)| name.starts_with("sharded")).collect::<Vec<_>>());
        let path = files.path().join("sharded.weights.json");
        let mut map = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut map, files.path());
        fs::write(&path, map.to_string()).unwrap();
        let config = open(keras(DENSE)).unwrap();
        let model = archive(&path).and_then(|weights| config.with_weights(weights));
        let model = model.and_then(|pair| Model::from_archive(&pair, &Device::Cpu));
        called_folder(&files, &model.expect_err("this must be refused").to_string())
    }
    const KERNEL: &str = "/layers/dense/vars";
    check(&[
        Case {
            is: "a file that is not there",
            error: || sharded(|_, folder| fs::remove_file(folder.join("sharded_00001.weights.h5")).unwrap()),
            says: "FOLDER/sharded.weights.json › sharded_00001.weights.h5: missing: the weight map lists it, but it does not lie beside the map",
        },
        Case {
            is: "a file elsewhere",
            error: || sharded(|map, _| map["weight_map"][KERNEL] = json!(["../sharded_00000.weights.h5"])),
            says: "FOLDER/sharded.weights.json › weight_map › /layers/dense/vars: expected the name of a file beside the map, found \"../sharded_00000.weights.h5\"",
        },
        Case {
            is: "a map that is a list",
            error: || sharded(|map, _| map["weight_map"] = json!([])),
            says: "FOLDER/sharded.weights.json › weight_map: expected an object of groups and their files",
        },
        Case {
            is: "a group that the map does not list",
            error: || {
                sharded(|map, _| {
                    map["weight_map"].as_object_mut().unwrap().remove(KERNEL);
                    map["weight_map"]["/vars"] = json!(["sharded_00000.weights.h5", "sharded_00001.weights.h5"]);
                })
            },
            says: "FOLDER/sharded.weights.json › sharded_00000.weights.h5 › layers/dense/vars/0: the weight map does not list /layers/dense/vars",
        },
        Case {
            is: "a group that is in one of its files only",
            error: || sharded(|map, _| map["weight_map"][KERNEL] = json!("sharded_00000.weights.h5")),
            says: "model with FOLDER/sharded.weights.json › layer \"dense\" (Dense): bias: missing: expected [5] in sharded_00000.weights.h5 › layers/dense/vars/1, the nearest is layers/dense/vars/0",
        },
        Case {
            is: "an array in two files",
            error: || {
                sharded(|map, folder| {
                    map["weight_map"][KERNEL] = json!(["sharded_00000.weights.h5", "sharded_whole_00000.weights.h5"]);
                    assert!(folder.join("sharded_whole_00000.weights.h5").is_file());
                })
            },
            says: "FOLDER/sharded.weights.json › sharded_whole_00000.weights.h5 › layers/dense/vars/0: a second array of this path: the first is sharded_00000.weights.h5 › layers/dense/vars/0",
        },
        Case {
            is: "a file that is no HDF5",
            error: || sharded(|_, folder| fs::write(folder.join("sharded_00001.weights.h5"), "PK").unwrap()),
            says: "FOLDER/sharded.weights.json › sharded_00001.weights.h5: not an HDF5 file: first bytes are 50 4b",
        },
        Case {
            is: "a map in memory",
            error: || {
                let forms = members(recorded("hdf5_forms.zip"));
                let map = forms.into_iter().find(|(name, _)| name == "sharded.weights.json").unwrap().1;
                open(map).unwrap_err().to_string()
            },
            says: "model: a map of weights in several files: open it by its path, so that they are found beside it",
        },
    ]);
}

/// TensorFlow 2.12 and 2.13 wrote `_layer_checkpoint_dependencies` where others write `layers`.
#[test]
fn the_layers_of_tensorflow_2_12_are_found_under_another_name() {
    let bytes = members(recorded("hdf5_forms.zip"));
    let bytes = bytes.into_iter().find(|(name, _)| name == "tensorflow_2_12.weights.h5").unwrap().1;
    let archive = open(bytes).unwrap();
    assert_eq!(archive.container(), Container::Weights);
    let arrays = archive.arrays();
    let paths: Vec<&str> = arrays.paths().collect();
    assert_eq!(paths, ["layers/dense/vars/0", "layers/dense/vars/1", "layers/functional/layers/dense/vars/0"]);
    assert_eq!(arrays.array(paths[2]).unwrap().path(), paths[2]);
    assert_eq!(
        arrays.place(paths[2]),
        "_layer_checkpoint_dependencies/functional/_layer_checkpoint_dependencies/dense/vars/0"
    );
    assert!(arrays.has_group("layers/dense") && !arrays.has_group("layers/dance"));
    let plan = plan(&open(keras(DENSE)).unwrap()).unwrap();
    assert_eq!(
        plan.load(&archive, &Device::Cpu).err().unwrap().to_string(),
        "model › _layer_checkpoint_dependencies/functional/_layer_checkpoint_dependencies/dense/vars/0: no layer of the model has this weight"
    );
}

// ---- Zips ----

/// `members` written to something that cannot go back: lengths and checksums follow the data.
fn streamed(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new_stream(Vec::new());
    for (name, bytes) in members {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(CompressionMethod::Stored))
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `members` with the 64-bit fields that files over 4 GiB have, in each member and at the end.
fn zip64(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let (rest, end) = bytes.split_at(bytes.len() - 22);
    let field = |at: usize, len: usize| {
        end[at..at + len].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (count, size, start) = (field(10, 2), field(12, 4), field(16, 4));
    let mut out = rest.to_vec();
    let record = u64::try_from(out.len()).unwrap();
    // PKZIP's APPNOTE.TXT, 4.3.14 to 4.3.16.
    out.extend(b"PK\x06\x06");
    out.extend(44_u64.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [count, count, size, start].iter().for_each(|number| out.extend(number.to_le_bytes()));
    out.extend(b"PK\x06\x07");
    out.extend(0_u32.to_le_bytes());
    out.extend(record.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    out
}

#[test]
fn zips_of_large_files_and_of_streams_load() {
    let expected = bits(load(keras(STACK)).unwrap().var_map());
    for (what, bytes) in [("zip64", zip64(&members(keras(STACK)))), ("a stream", streamed(&members(keras(STACK))))] {
        let model = load(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(bits(model.var_map()), expected, "{what}");
    }
}

#[test]
fn other_methods_of_zip_are_refused_by_name() {
    /// The method of every member changed to `method`.
    fn compressed(method: u8) -> String {
        let mut bytes = keras(DENSE);
        for (signature, at) in [(b"PK\x01\x02", 10), (b"PK\x03\x04", 8)] {
            let entries: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(signature)).collect();
            assert_eq!(entries.len(), 3);
            entries.into_iter().for_each(|entry| bytes[entry + at] = method);
        }
        refused(bytes)
    }
    check(&[
        Case {
            is: "bzip2",
            error: || compressed(12),
            says: "model › metadata.json: compressed with bzip2, only stored and deflated members are read",
        },
        Case {
            is: "lzma",
            error: || compressed(14),
            says: "model › metadata.json: compressed with lzma, only stored and deflated members are read",
        },
        Case {
            is: "zstandard",
            error: || compressed(93),
            says: "model › metadata.json: compressed with zstd, only stored and deflated members are read",
        },
        Case {
            is: "something newer",
            error: || compressed(77),
            says: "model › metadata.json: compressed with a method that is not known, only stored and deflated members are read",
        },
    ]);
}
