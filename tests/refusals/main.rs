//! What must be refused, with the exact words; and bytes made to harm.
//!
//! Every file is a recorded one of `reference_outputs` with one thing wrong. The words are asserted in full, because they
//! are all that a user has to act on.

mod containers;
mod files;
mod forms;
mod harm;
mod questions;
mod variables;

use candle_core::{DType, Device, Tensor};
use kandle::{Model, Value};
use serde_json::{Value as Json, json};
use zip::CompressionMethod;

use files::*;

#[test]
fn what_is_no_keras_file_is_refused() {
    check(&[
        Case {
            is: "an empty file",
            error: || refused(Vec::new()),
            says: "model: not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are none, the file is empty",
        },
        Case {
            is: "a text",
            error: || refused(b"hello, world".to_vec()),
            says: "model: not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are 68 65 6c 6c 6f 2c 20 77",
        },
        Case {
            is: "a picture",
            error: || refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
            says: "model: not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are 89 50 4e 47 0d 0a 1a 0a",
        },
        Case {
            is: "three bytes",
            error: || refused(b"\x89HD".to_vec()),
            says: "model: not a Keras file: expected a zip (50 4b) or HDF5 (89 48 44 46), first bytes are 89 48 44",
        },
        Case {
            is: "a zip of something else",
            error: || refused(zipped(&[("a.txt".to_owned(), b"a".to_vec())], CompressionMethod::Stored)),
            says: "model: a zip, but not a Keras file: neither config.json nor metadata.json is in it",
        },
        Case {
            is: "a JSON text of something else",
            error: || refused(br#" {"layers": []}"#.to_vec()),
            says: "model: a JSON text, but not one of Keras's: neither class_name nor weight_map is in it",
        },
        Case {
            is: "half an architecture",
            error: || refused(br#" {"class_name": "Sequential"}"#.to_vec()),
            says: "model: config is missing: expected a Keras model or layer",
        },
        Case {
            is: "an architecture without its weights",
            error: || refused(members(keras(DENSE)).remove(1).1),
            says: "model: an architecture without weights: open it together with the file of its weights",
        },
        Case {
            is: "HDF5 of something else",
            error: || refused(patched(hostile("user_block"), b"layers\0", b"LAYERS\0")),
            says: "model: an HDF5 file, but not one of Keras's: neither model_config nor a group named layers is in it",
        },
        Case {
            is: "weights without a configuration",
            error: || refused(recorded(&format!("{DENSE}/model.weights.h5"))),
            says: "model: weights without a configuration: open them together with the model they belong to, or say which layer is which",
        },
        Case {
            is: "no such file",
            error: || Model::load("/no/such/model.keras", &Device::Cpu).unwrap_err().to_string(),
            says: "/no/such/model.keras: cannot read: No such file or directory (os error 2)",
        },
        Case {
            is: "a folder of something else",
            error: || {
                let folder = tempfile::tempdir().unwrap();
                let error = Model::load(folder.path(), &Device::Cpu).unwrap_err().to_string();
                error.replace(&folder.path().display().to_string(), "FOLDER")
            },
            says: "FOLDER: a folder, but not a Keras file: neither config.json nor metadata.json is in it",
        },
    ]);
}

#[test]
fn truncated_files_are_refused() {
    check(&[
        Case {
            is: "a zip's first bytes",
            error: || refused(cut(keras(DENSE), 4)),
            says: "model: the zip is damaged, or was not fully copied: invalid Zip archive: Could not find EOCD",
        },
        Case {
            is: "half a zip",
            error: || refused(cut(keras(DENSE), 6000)),
            says: "model: the zip is damaged, or was not fully copied: invalid Zip archive: Could not find EOCD",
        },
        Case {
            is: "a zip short of a byte",
            error: || refused(cut(keras(DENSE), 11_662)),
            says: "model: the zip is damaged, or was not fully copied: invalid Zip archive: Unexpected end of zip::format::blocks::Zip32CDEBlock",
        },
        Case {
            is: "HDF5's first bytes",
            error: || refused(cut(recorded(&format!("{DENSE}/model.h5")), 8)),
            says: "model: damaged HDF5, or not fully copied: expected 9 bytes or more, found 8",
        },
        Case {
            is: "a quarter of HDF5",
            error: || refused(cut(recorded(&format!("{DENSE}/model.h5")), 3000)),
            says: "model: damaged HDF5, or not fully copied: expected 6152 bytes or more, found 3000",
        },
        Case {
            is: "half of HDF5",
            error: || refused(cut(recorded(&format!("{DENSE}/model.h5")), 7000)),
            says: "model › model_weights: damaged HDF5, or not fully copied: expected 7184 bytes or more, found 7000",
        },
        Case {
            is: "HDF5 without the last weight",
            error: || refused_weights(DENSE, cut(hostile("user_block"), 5100)),
            says: "model › layers/dense/vars: damaged HDF5, or not fully copied: expected 6736 bytes or more, found 5100",
        },
        Case {
            is: "weights cut within a member, the zip whole",
            error: || refused(with_member(DENSE, "model.weights.h5", |bytes| Some(cut(bytes, 5000)))),
            says: "model › model.weights.h5: damaged HDF5, or not fully copied: expected 6028 bytes or more, found 5000",
        },
    ]);
}

#[test]
fn members_that_are_missing_or_broken_are_refused() {
    check(&[
        Case {
            is: "no metadata",
            error: || refused(without(DENSE, "metadata.json")),
            says: "model › metadata.json: missing: the zip holds config.json, model.weights.h5; config.json is written in the words of one version of Keras: name it in metadata.json as {\"keras_version\": \"3.0.0\"}",
        },
        Case {
            is: "no configuration",
            error: || refused(without(DENSE, "config.json")),
            says: "model › config.json: missing: the zip holds metadata.json, model.weights.h5",
        },
        Case {
            is: "no weights",
            error: || refused(without(DENSE, "model.weights.h5")),
            says: "model › model.weights.h5: missing: the zip holds metadata.json, config.json",
        },
        Case {
            is: "no version",
            error: || refused(with_text(DENSE, "metadata.json", "{}")),
            says: "model › metadata.json: keras_version is missing: it says in which version's words config.json is written",
        },
        Case {
            is: "metadata not JSON",
            error: || refused(with_text(DENSE, "metadata.json", "{")),
            says: "model › metadata.json: not JSON: EOF while parsing an object at line 1 column 1",
        },
        Case {
            is: "a configuration not JSON",
            error: || refused(with_text(DENSE, "config.json", "{\"a\": 1,}")),
            says: "model › config.json: not JSON: trailing comma at line 1 column 9",
        },
        Case {
            is: "a configuration not UTF-8",
            error: || refused(with_member(DENSE, "config.json", |_| Some(b"{\"\xff\"}".to_vec()))),
            says: "model › config.json: not JSON: not UTF-8: invalid utf-8 sequence of 1 bytes from index 2",
        },
        Case {
            is: "bottomless JSON",
            error: || refused(with_text(DENSE, "config.json", &"[".repeat(1 << 20))),
            says: "model › config.json: JSON nested 1048576 deep, deeper than the limit of 100",
        },
        Case {
            is: "eleven million values, deflated",
            error: || {
                let mut members = members(keras(DENSE));
                members[1].1 = format!("[{}0]", "0,".repeat(11_000_000)).into_bytes();
                refused(zipped(&members, CompressionMethod::Deflated))
            },
            says: "model › config.json: 11000001 values in the JSON, more than the limit of 10000000",
        },
        Case {
            is: "weights not HDF5",
            error: || refused(with_text(DENSE, "model.weights.h5", "weights")),
            says: "model › model.weights.h5: not an HDF5 file: first bytes are 77 65 69 67 68 74 73",
        },
        Case {
            is: "a zip in the place of the weights",
            error: || refused(with_member(DENSE, "model.weights.h5", |_| Some(keras(DENSE)))),
            says: "model › model.weights.h5: not an HDF5 file: first bytes are 50 4b 03 04 14 00 00 00",
        },
        Case {
            is: "a wrong checksum, stored",
            error: || refused(patched(keras(DENSE), b"\"units\": 5", b"\"units\": 6")),
            says: "model › config.json: the bytes do not match their checksum: the file is damaged or was not fully copied",
        },
        Case {
            is: "a wrong checksum, deflated",
            error: || {
                let mut bytes = zipped(&members(keras(DENSE)), CompressionMethod::Deflated);
                // The checksum of the last member in the central directory.
                let entry = (0..bytes.len()).rfind(|at| bytes[*at..].starts_with(b"PK\x01\x02")).unwrap();
                bytes[entry + 16] ^= 1;
                refused(bytes)
            },
            says: "model › model.weights.h5: does not unpack to the length and checksum the zip states",
        },
        Case {
            is: "a length beyond the file",
            error: || {
                let mut bytes = keras(DENSE);
                let entry = (0..bytes.len()).rfind(|at| bytes[*at..].starts_with(b"PK\x01\x02")).unwrap();
                bytes[entry + 22] = 1;
                bytes[entry + 26] = 1;
                refused(bytes)
            },
            says: "model › model.weights.h5: runs past the end of the file",
        },
    ]);
}

/// What Python's zipfile takes of two members of one name, and so Keras, is the last.
#[test]
fn of_two_members_of_one_name_the_last_counts() {
    let mut members = members(keras(DENSE));
    members.push(("CONFIG.json".to_owned(), b"{}".to_vec()));
    let bytes = zipped(&members, CompressionMethod::Stored);
    // The writer refuses a second member of one name, so the name is changed afterwards, in both places where it stands.
    let twice: Vec<u8> = {
        let mut bytes = bytes;
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"CONFIG")).collect();
        assert_eq!(places.len(), 2);
        places.into_iter().for_each(|at| bytes[at..at + 6].copy_from_slice(b"config"));
        bytes
    };
    assert_eq!(refused(twice), "model › config.json: class_name is missing: expected a Keras model or layer");
}

#[test]
fn deflated_members_load() {
    let deflated = zipped(&members(keras(STACK)), CompressionMethod::Deflated);
    assert_eq!(bits(load(deflated).unwrap().var_map()), bits(load(keras(STACK)).unwrap().var_map()));
}

#[test]
fn configurations_that_are_no_models_are_refused() {
    check(&[
        Case {
            is: "an empty object",
            error: || refused(with_text(DENSE, "config.json", "{}")),
            says: "model › config.json: class_name is missing: expected a Keras model or layer",
        },
        Case {
            is: "a list",
            error: || refused(with_text(DENSE, "config.json", "[]")),
            says: "model › config.json: class_name is missing: expected a Keras model or layer",
        },
        Case {
            is: "a class that is no text",
            error: || refused(with_config(DENSE, |config| config["class_name"] = json!(1))),
            says: "model › config.json: class_name is not a text",
        },
        Case {
            is: "no config",
            error: || refused(with_text(DENSE, "config.json", r#"{"class_name": "Sequential"}"#)),
            says: "model › config.json: config is missing: expected a Keras model or layer",
        },
        Case {
            is: "a config that is a text",
            error: || refused(with_config(DENSE, |config| config["config"] = json!("a"))),
            says: "model › config.json: config is neither an object nor a list",
        },
        Case {
            is: "layers that are no list",
            error: || refused(with_config(DENSE, |config| config["config"]["layers"] = json!({}))),
            says: "model › config.json: layers is not a list",
        },
        Case {
            is: "no layers",
            error: || refused(with_config(DENSE, |config| config["config"]["layers"] = json!([]))),
            says: "model › config.json: a model without layers",
        },
        Case {
            is: "never built",
            error: || {
                refused(with_config(DENSE, |config| {
                    config["config"]["layers"].as_array_mut().unwrap().remove(0);
                    config["config"]["build_input_shape"] = Json::Null;
                }))
            },
            says: "model › config.json: the model was never built, so its input shape is not in the file: call it once in Keras and save it again",
        },
        Case {
            is: "a layer without a name",
            error: || refused(with_layer(DENSE, 1, |layer| drop(layer.as_object_mut().unwrap().remove("name")))),
            says: "model › config.json › layers[1]: name is missing: expected a layer, found a Dense without one",
        },
        Case {
            is: "a layer without settings",
            error: || refused(with_config(DENSE, |config| config["config"]["layers"][1]["config"] = json!(3))),
            says: "model › config.json › layers[1]: config is not an object",
        },
        Case {
            is: "a layer that is a text",
            error: || refused(with_config(DENSE, |config| config["config"]["layers"][1] = json!("Dense"))),
            says: "model › config.json › layers[1]: class_name is missing: expected a Keras model or layer",
        },
        Case {
            is: "no batch_shape",
            error: || refused(with_layer(DENSE, 0, |layer| drop(layer.as_object_mut().unwrap().remove("batch_shape")))),
            says: "model › layer \"input_layer\" (InputLayer): batch_shape is missing",
        },
        Case {
            is: "a batch_shape of texts",
            error: || refused(with_layer(DENSE, 0, |layer| layer["batch_shape"] = json!([null, "six"]))),
            says: "model › layer \"input_layer\" (InputLayer): batch_shape: expected a list of at most 64 axes, batch first, found [null,\"six\"]",
        },
        Case {
            is: "two layers of one name",
            error: || refused(with_layer(STACK, 4, |layer| layer["name"] = json!("dense"))),
            says: "model › layer \"dense\" (Dense): a second layer of this name: names are unique in a Keras model",
        },
    ]);
}

#[test]
fn what_is_not_reproduced_is_refused() {
    check(&[
        Case {
            is: "a user's own layer",
            error: || refused(keras("refused/custom")),
            says: "model › layer \"name\" (Name): package>Name is a user's own layer class, whose Python code is not in the file: register a layer for it",
        },
        Case {
            is: "Python code",
            error: || refused(keras("refused/lambda")),
            says: "model › layer \"lambda\" (Lambda): a Lambda layer holds Python code, which is never run: build the model with a built-in layer instead, and save it again",
        },
        Case {
            is: "a user's own model class",
            error: || {
                refused(with_config(DENSE, |config| {
                    config["class_name"] = json!("Mine");
                    config["registered_name"] = json!("package>Mine");
                }))
            },
            says: "model › config.json: package>Mine is a user's own model class, whose Python code is not in the file: if it was made from inputs and outputs, save keras.Model(model.inputs, model.outputs)",
        },
        Case {
            is: "a model class not registered",
            error: || refused(with_config(DENSE, |config| config["class_name"] = json!("Mine"))),
            says: "model › config.json: a model of class Mine is not supported (only Sequential and Functional)",
        },
        Case {
            is: "a layer of another library's under Keras's name",
            error: || {
                refused(with_config(DENSE, |config| config["config"]["layers"][1]["module"] = json!("other.layers")))
            },
            says: "model › layer \"dense\" (Dense): this class is not Keras's own: it comes from other.layers",
        },
        Case {
            is: "words of Keras 3 in a file that says it is of Keras 2",
            error: || refused(with_text(DENSE, "metadata.json", r#"{"keras_version": "2.15.0"}"#)),
            says: "model › config.json › layers[0]: batch_shape is a word of Keras 3, in a file that says it is of Keras 2.15.0: which of both is right?",
        },
        Case {
            is: "a version of Keras that is not known",
            error: || refused(with_text(DENSE, "metadata.json", r#"{"keras_version": "4.0.0"}"#)),
            says: "model › config.json: written by Keras 4.0.0, only files of Keras 1 to 3 are supported",
        },
        Case {
            is: "a version that is none",
            error: || refused(with_text(DENSE, "metadata.json", "{\"keras_version\": \"\\u001b[2J\"}")),
            says: "model › config.json: written by Keras \\u{1b}[2J, only files of Keras 1 to 3 are supported",
        },
        Case {
            is: "an unknown key",
            error: || refused(with_layer(DENSE, 1, |layer| layer["surprise"] = json!([1, 2]))),
            says: "model › layer \"dense\" (Dense): surprise = [1,2] is not known for this layer",
        },
        Case {
            is: "an unknown activation",
            error: || refused(with_layer(DENSE, 1, |layer| layer["activation"] = json!("mystery"))),
            says: "model › layer \"dense\" (Dense): activation = \"mystery\" is not supported (only the names of built-in activations)",
        },
        Case {
            is: "no units",
            error: || refused(with_layer(DENSE, 1, |layer| layer["units"] = json!(0))),
            says: "model › layer \"dense\" (Dense): units: expected a whole number of at least 1, found 0",
        },
        Case {
            is: "a sparse input",
            error: || refused(with_layer(DENSE, 0, |layer| layer["sparse"] = json!(true))),
            says: "model › layer \"input_layer\" (InputLayer): sparse = true is not supported (only false)",
        },
        Case {
            is: "a target that is not filled",
            error: || refused(with_layer(STACK, 3, |layer| layer["target_shape"] = json!([3, 4]))),
            says: "model › layer \"reshape\" (Reshape): 8 numbers a sample do not fill target_shape (3, 4)",
        },
        Case {
            is: "several things at once, in the order of the file",
            error: || {
                refused(with_config(STACK, |config| {
                    let layers = &mut config["config"]["layers"];
                    layers[0]["config"]["ragged"] = json!(true);
                    layers[1]["config"]["activation"] = json!("mystery");
                    layers[1]["config"]["dtype"]["config"]["name"] = json!("float4");
                    layers[3]["config"]["target_shape"] = json!("2, 4");
                    layers[4]["config"]["b\nc"] = json!("\u{202e}");
                    layers[5]["class_name"] = json!("Flat");
                }))
            },
            says: "model: 6 problems\n  layer \"input_layer\" (InputLayer): ragged = true is not supported (only false)\n  layer \"dense\" (Dense): dtype = \"float4\" is not supported (only dtypes, mixed_float16, mixed_bfloat16, int8, int4 and float8)\n  layer \"dense\" (Dense): activation = \"mystery\" is not supported (only the names of built-in activations)\n  layer \"reshape\" (Reshape): target_shape: expected a list of axes, found \"2, 4\"\n  layer \"dense_1\" (Dense): b\\nc = \"\\u{202e}\" is not known for this layer\n  layer \"flatten\" (Flat): this layer class is not supported: if it is your own, register a layer for it",
        },
    ]);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    check(&[
        Case {
            is: "other units",
            error: || refused(with_layer(DENSE, 1, |layer| layer["units"] = json!(4))),
            says: "model: 2 problems\n  layer \"dense\" (Dense): kernel: expected [6, 4], found [6, 5] in model.weights.h5 › layers/dense/vars/0\n  layer \"dense\" (Dense): bias: expected [4], found [5] in model.weights.h5 › layers/dense/vars/1",
        },
        Case {
            is: "another input",
            error: || refused(with_layer(DENSE, 0, |layer| layer["batch_shape"] = json!([null, 7]))),
            says: "model › layer \"dense\" (Dense): kernel: expected [7, 5], found [6, 5] in model.weights.h5 › layers/dense/vars/0",
        },
        Case {
            is: "an input whose last axis is not known",
            error: || refused(with_layer(DENSE, 0, |layer| layer["batch_shape"] = json!([null, null]))),
            says: "model › layer \"dense\" (Dense): the size of its input's last axis is not known: give the model a fixed one in Keras, or FileLayer its `of`",
        },
        Case {
            is: "a weight too many",
            error: || refused(with_layer(DENSE, 1, |layer| layer["use_bias"] = json!(false))),
            says: "model › model.weights.h5 › layers/dense/vars/1: no layer of the model has this weight",
        },
        Case {
            is: "a weight too few",
            error: || {
                refused(with_member(DENSE, "model.weights.h5", |_| {
                    Some(recorded("core/Dense/no_bias/model.weights.h5"))
                }))
            },
            says: "model › layer \"dense\" (Dense): bias: missing: expected [5] in model.weights.h5 › layers/dense/vars/1, the nearest is layers/dense/vars/0",
        },
        Case {
            is: "a layer too many in the file",
            error: || {
                refused(with_config(STACK, |config| {
                    let layers = config["config"]["layers"].as_array_mut().unwrap();
                    layers.drain(6..);
                }))
            },
            says: "model: 2 problems\n  model.weights.h5 › layers/dense_2/vars/0: no layer of the model has this weight\n  model.weights.h5 › layers/dense_2/vars/1: no layer of the model has this weight",
        },
        Case {
            is: "a layer too few in the file",
            error: || refused_weights(STACK, hostile("user_block")),
            says: "model: 6 problems\n  layer \"dense\" (Dense): kernel: expected [6, 8], found [6, 5] in layers/dense/vars/0\n  layer \"dense\" (Dense): bias: expected [8], found [5] in layers/dense/vars/1\n  layer \"dense_1\" (Dense): kernel: missing: expected [4, 3] in layers/dense_1/vars/0, the nearest is layers/dense/vars/0\n  layer \"dense_1\" (Dense): bias: missing: expected [3] in layers/dense_1/vars/1, the nearest is layers/dense/vars/1\n  layer \"dense_2\" (Dense): kernel: missing: expected [6, 4] in layers/dense_2/vars/0, the nearest is layers/dense/vars/0\n  layer \"dense_2\" (Dense): bias: missing: expected [4] in layers/dense_2/vars/1, the nearest is layers/dense/vars/1",
        },
        Case {
            is: "a legacy weight too many",
            error: || {
                refused(patched(recorded("core/Dense/rank2/model.h5"), br#""use_bias": true"#, br#""use_bias":false"#))
            },
            says: "model › layer \"dense\" (Dense): expected the weights kernel, found kernel, bias in model_weights/dense",
        },
        Case {
            is: "a legacy layer of another name",
            error: || {
                let old = br#""class_name": "Dense", "config": {"name": "dense""#;
                let new = br#""class_name": "Dense", "config": {"name": "dance""#;
                refused(patched(recorded("core/Dense/rank2/model.h5"), old, new))
            },
            says: "model: 3 problems\n  layer \"dance\" (Dense): missing: no group model_weights/dance, the nearest is dense\n  model_weights/dense/sequential/dense/bias: no layer of the model has this weight\n  model_weights/dense/sequential/dense/kernel: no layer of the model has this weight",
        },
        Case {
            is: "a compound",
            error: || refused_weights(DENSE, hostile("compound")),
            says: "model › layer \"dense\" (Dense): kernel: expected float32, found layers/dense/vars/0: a type that Keras does not write (a compound of 2 members)",
        },
        Case {
            is: "text",
            error: || refused_weights(DENSE, hostile("text")),
            says: "model › layer \"dense\" (Dense): kernel: expected float32, found layers/dense/vars/0: a type that Keras does not write (text)",
        },
    ]);
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    fn run(case: &str, xs: candle_core::Result<Tensor>) -> String {
        let error = load(keras(case)).unwrap().forward(&xs.unwrap()).expect_err("this must be refused").to_string();
        // candle adds a backtrace where RUST_BACKTRACE is set.
        error.split("\n   0: ").next().unwrap_or_default().to_owned()
    }
    check(&[
        Case {
            is: "an id past the vocabulary",
            error: || run(EXAMPLE3, Tensor::new(&[[1_i64, 2], [3, 1000]], &Device::Cpu)),
            says: "layer \"embedding\" (Embedding): id 1000 at [1, 1] is not in the vocabulary: ids go from 0 to 999, or from the end from -1 to -1000",
        },
        Case {
            is: "an id before the vocabulary",
            error: || run(EXAMPLE3, Tensor::new(&[[1_i64, -1001]], &Device::Cpu)),
            says: "layer \"embedding\" (Embedding): id -1001 at [0, 1] is not in the vocabulary: ids go from 0 to 999, or from the end from -1 to -1000",
        },
        Case {
            is: "-1 as u32",
            error: || run(EXAMPLE3, Tensor::new(&[[u32::MAX]], &Device::Cpu)),
            says: "input \"input_layer\": 4294967295 at [0, 0] does not fit int32",
        },
        Case {
            is: "an id that is NaN",
            error: || run(EXAMPLE3, Tensor::new(&[[0.5_f32, f32::NAN]], &Device::Cpu)),
            says: "input \"input_layer\": NaN at [0, 1] does not fit int32",
        },
        Case {
            is: "an id beyond int32",
            error: || run(EXAMPLE3, Tensor::new(&[[1_i64 << 32]], &Device::Cpu)),
            says: "input \"input_layer\": 4294967296 at [0, 0] does not fit int32",
        },
        Case {
            is: "a last axis too short",
            error: || run(DENSE, Tensor::zeros((2, 5), DType::F32, &Device::Cpu)),
            says: "layer \"dense\" (Dense): input has 5 features, kernel expects 6",
        },
        Case {
            is: "an axis too many",
            error: || run(DENSE, Tensor::zeros((2, 3, 6), DType::F32, &Device::Cpu)),
            says: "input \"input_layer\": expected (None, 6), found [2, 3, 6]",
        },
        Case {
            is: "no axes",
            error: || run(DENSE, Tensor::new(1_f32, &Device::Cpu)),
            says: "input \"input_layer\": expected (None, 6), found []",
        },
        Case {
            is: "two inputs for one",
            error: || {
                let value =
                    Value::new(Tensor::zeros((2, 6), DType::F32, &Device::Cpu).unwrap(), kandle::Dtype::Float32);
                let error = load(keras(DENSE)).unwrap().run(&[value.clone(), value]).unwrap_err().to_string();
                error.split("\n   0: ").next().unwrap_or_default().to_owned()
            },
            says: "expected 1 inputs, found 2",
        },
        Case {
            is: "no input",
            error: || {
                let error = load(keras(DENSE)).unwrap().run(&[]).unwrap_err().to_string();
                error.split("\n   0: ").next().unwrap_or_default().to_owned()
            },
            says: "expected 1 inputs, found 0",
        },
    ]);
}
