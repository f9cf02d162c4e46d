//! Loading into a `VarMap` that was built by hand.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use kandle::{FileLayer, WeightMap, load_weights};
use serde_json::json;

use crate::files::*;

/// What filling `vars` by `load` fails with; no variable may change.
fn refused_by(vars: &VarMap, load: impl Fn(&VarMap) -> kandle::Result<kandle::LoadReport>) -> String {
    let before = bits(vars);
    let error = load(vars).expect_err("this must be refused").to_string();
    assert_eq!(before, bits(vars), "a load that fails changes nothing");
    error
}

/// What filling the variables `shapes` with the model of `example3` fails with.
fn refused_variables(shapes: &[(&str, &[usize], DType)]) -> String {
    let vars = VarMap::new();
    for (name, shape, dtype) in shapes {
        let vb = VarBuilder::from_varmap(&vars, *dtype, &Device::Cpu);
        vb.get_with_hints(*shape, name, candle_nn::Init::Randn { mean: 0.0, stdev: 1.0 }).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.keras");
    std::fs::write(&path, keras(EXAMPLE3)).unwrap();
    let error = refused_by(&vars, |vars| load_weights(&path, vars));
    error.replace(&path.display().to_string(), "model")
}

#[test]
fn variables_that_do_not_fit_are_refused_together_and_none_is_changed() {
    const F32: DType = DType::F32;
    check(&[
        Case {
            is: "another shape",
            error: || {
                refused_variables(&[
                    ("embedding.weight", &[1000, 64], F32),
                    ("dense.weight", &[64, 128], F32),
                    ("dense.bias", &[64], F32),
                ])
            },
            says: "model › layer \"embedding\" (Embedding): variable embedding.weight: expected [1000, 64], as the VarMap has it, found [1000, 128] in the file",
        },
        Case {
            is: "not transposed",
            error: || {
                refused_variables(&[
                    ("embedding.weight", &[1000, 128], F32),
                    ("dense.weight", &[128, 64], F32),
                    ("dense.bias", &[64], F32),
                ])
            },
            says: "model › layer \"dense\" (Dense): variable dense.weight: expected [128, 64], as the VarMap has it, found [64, 128] in the file; candle's Linear has (out, in)",
        },
        Case {
            is: "a variable missing",
            error: || refused_variables(&[("embedding.weight", &[1000, 128], F32), ("dense.weight", &[64, 128], F32)]),
            says: "model › layer \"dense\" (Dense): bias: the VarMap has no variable dense.bias",
        },
        Case {
            is: "a variable too many",
            error: || {
                refused_variables(&[
                    ("embedding.weight", &[1000, 128], F32),
                    ("dense.weight", &[64, 128], F32),
                    ("dense.bias", &[64], F32),
                    ("head.weight", &[2, 64], F32),
                ])
            },
            says: "model › variable head.weight: the file has no weight for it",
        },
        Case {
            is: "another dtype",
            error: || {
                refused_variables(&[
                    ("embedding.weight", &[1000, 128], F32),
                    ("dense.weight", &[64, 128], DType::F64),
                    ("dense.bias", &[64], F32),
                ])
            },
            says: "model › layer \"dense\" (Dense): variable dense.weight: expected float32, as the file has it, found float64 in the VarMap",
        },
        Case {
            is: "all of it at once, with the nearest names",
            error: || {
                refused_variables(&[
                    ("embeding.weight", &[1000, 128], F32),
                    ("dense.weight", &[64, 127], F32),
                    ("dense.bias", &[64], DType::F64),
                ])
            },
            says: "model: 4 problems\n  layer \"embedding\" (Embedding): embeddings: the VarMap has no variable embedding.weight, the nearest is embeding.weight\n  layer \"dense\" (Dense): variable dense.weight: expected [64, 127], as the VarMap has it, found [64, 128] in the file\n  layer \"dense\" (Dense): variable dense.bias: expected float32, as the file has it, found float64 in the VarMap\n  variable embeding.weight: the file has no weight for it, the nearest is embedding.weight",
        },
    ]);
}

/// What filling the variables of `example3` from its bare `.weights.h5` fails with, the caller saying `layers`.
fn refused_map(layers: &[FileLayer]) -> String {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    candle_nn::embedding(1000, 128, vb.pp("embedding")).unwrap();
    candle_nn::linear(128, 64, vb.pp("dense")).unwrap();
    let archive = open(recorded(&format!("{EXAMPLE3}/model.weights.h5"))).unwrap();
    refused_by(&vars, |vars| WeightMap::new(layers)?.load_into(&archive, vars))
}

fn embedding() -> FileLayer {
    FileLayer::at("layers/embedding").is("Embedding", json!({"input_dim": 1000, "output_dim": 128}))
}

fn dense() -> FileLayer {
    FileLayer::at("layers/dense").is("Dense", json!({"units": 64})).of(&[128])
}

#[test]
fn a_map_that_does_not_fit_its_file_is_refused() {
    check(&[
        Case {
            is: "a layer not said",
            error: || refused_map(&[dense()]),
            says: "model › layers/embedding/vars/0: no layer of the model has this weight",
        },
        Case {
            is: "a group that is not there",
            error: || {
                refused_map(&[
                    embedding(),
                    FileLayer::at("layers/dense_1").is("Dense", json!({"units": 64})).of(&[128]).fills("dense"),
                ])
            },
            says: "model: 4 problems\n  layer \"dense\" (Dense): kernel: missing: expected [128, 64] in layers/dense_1/vars/0, the nearest is layers/dense/vars/0\n  layer \"dense\" (Dense): bias: missing: expected [64] in layers/dense_1/vars/1, the nearest is layers/dense/vars/1\n  layers/dense/vars/0: no layer of the model has this weight\n  layers/dense/vars/1: no layer of the model has this weight",
        },
        Case {
            is: "another class",
            error: || {
                refused_map(&[
                    FileLayer::at("layers/embedding").is("Dense", json!({"units": 128})).of(&[1000]),
                    dense(),
                ])
            },
            says: "model › layer \"embedding\" (Dense): bias: missing: expected [128] in layers/embedding/vars/1, the nearest is layers/embedding/vars/0",
        },
        Case {
            is: "an unknown class",
            error: || refused_map(&[embedding(), FileLayer::at("layers/dense").is("Conv9D", json!({}))]),
            says: "layers/dense (Conv9D): this layer class is not supported",
        },
        Case {
            is: "another shape",
            error: || {
                refused_map(&[embedding(), FileLayer::at("layers/dense").is("Dense", json!({"units": 32})).of(&[128])])
            },
            says: "model: 2 problems\n  layer \"dense\" (Dense): kernel: expected [128, 32], found [128, 64] in layers/dense/vars/0\n  layer \"dense\" (Dense): bias: expected [32], found [64] in layers/dense/vars/1",
        },
        Case {
            is: "no input shape",
            error: || refused_map(&[embedding(), FileLayer::at("layers/dense").is("Dense", json!({"units": 64}))]),
            says: "layers/dense (Dense): the size of its input's last axis is not known: give the model a fixed one in Keras, or FileLayer its `of`",
        },
        Case {
            is: "settings that are wrong",
            error: || {
                refused_map(&[embedding(), FileLayer::at("layers/dense").is("Dense", json!({"unit": 64})).of(&[128])])
            },
            says: "2 problems\n  layers/dense (Dense): units is missing\n  layers/dense (Dense): unit = 64 is not known for this layer",
        },
        Case {
            is: "one variable twice",
            error: || refused_map(&[embedding(), dense().fills("embedding")]),
            says: "model › layer \"embedding\" (Dense): a second weight for the variable embedding.weight",
        },
    ]);
}
