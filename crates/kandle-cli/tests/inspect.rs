//! `kandle inspect`: what it prints of each kind of file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "these are tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{copied, kandle, object, root, text};
use serde_json::{Value, json};

const EXAMPLE: &str = "reference_outputs/example3/2x3";
const MODEL: &str = "reference_outputs/example3/2x3/model.keras";

#[test]
fn inspect_prints_layers_weights_and_totals() {
    let ran = kandle(&["inspect", MODEL]);
    let expected = "\
reference_outputs/example3/2x3/model.keras: a .keras file: configuration and weights
form: zip (stored), weights in HDF5 (superblock 0)
written by Keras 3.15.1
model \"example3\" (Sequential)

layer (class)             output shape       parameters  connected to
input_layer (InputLayer)  (None, None)                0
embedding (Embedding)     (None, None, 128)     128,000  input_layer[0][0]
dense (Dense)             (None, None, 64)        8,256  embedding[0][0]

weight            shape        layout      in Keras                from
embedding.weight  (1000, 128)  as is       embeddings (1000, 128)  layers/embedding/vars/0
dense.weight      (64, 128)    transposed  kernel (128, 64)        layers/dense/vars/0
dense.bias        (64,)        as is       bias (64,)              layers/dense/vars/1

input_0: \"input_layer\" (None, None) int32
output_0: (None, None, 64) float32
parameters: 136,256 (136,256 trainable, 545,024 bytes)
";
    assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), (expected, "", 0));
    let legacy = kandle(&["inspect", &format!("{EXAMPLE}/model.h5")]).out;
    assert!(legacy.contains("\nwritten by Keras 3.15.1 on tensorflow\n"), "{legacy}");
    assert!(legacy.contains("model_weights/dense/"), "{legacy}");
}

/// As `model.summary(expand_nested=True)`: a model inside the model has a row of its own, seen from outside by its outputs
/// and from inside by its inputs, and its layers follow.
#[test]
fn inspect_prints_models_inside_the_model() {
    let ran = kandle(&["inspect", "reference_outputs/models/Functional/nested_structures/model.keras"]);
    let rows = "
layer (class)          output shape            parameters  connected to
x (InputLayer)         (None, 2)                        0
y (InputLayer)         (None, 3)                        0
inner (Functional)     [(None, 2), (None, 2)]          14  y[0][0], x[0][0]
inner/a (InputLayer)   (None, 3)                        0  y[0][0]
inner/b (InputLayer)   (None, 2)                        0  x[0][0]
inner/dense (Dense)    (None, 2)                        6  inner/b[0][0]
inner/dense_1 (Dense)  (None, 2)                        8  inner/a[0][0]
subtract (Subtract)    (None, 2)                        0  inner[0][0], inner[0][1]
";
    assert!(ran.out.contains(rows), "{}", ran.out);

    // Called twice, once through a model that calls it twice; a model in a model.
    let ran = kandle(&["inspect", "reference_outputs/models/Functional/two_deep_twice/model.keras"]);
    for row in [
        "\nmiddle (Functional)                    (None, 3)             36  xs[0][0]; ys[0][0]\n",
        "\nmiddle/dense (Dense)                   (None, 3)             12  middle/inner[0][0]; middle/inner[2][0]\n",
        "\nconcatenate (Concatenate)              (None, 6)              0  middle[0][0], middle[1][0]\n",
        "\nparameters: 36 (36 trainable, 144 bytes)\n",
    ] {
        assert!(ran.out.contains(row), "{row}\n{}", ran.out);
    }

    // What is fed to the model inside brings the mask of the call; one array of a GRU's biases is two variables in candle.
    let mask_nested = "reference_outputs/models/Functional/mask_nested/model.keras";
    let ran = kandle(&["inspect", mask_nested]);
    let fed = "\ninner/input_layer (InputLayer)  (None, 5, 3)           0  embedding[0][0], not_equal[0][0]\n";
    assert!(ran.out.contains(fed), "{}", ran.out);
    assert!(ran.out.contains("\nparameters: 126 (126 trainable, 504 bytes)\n"), "{}", ran.out);
    let object = object(&kandle(&["inspect", mask_nested, "--json"]).out);
    assert_eq!((&object["models"][0]["name"], &object["models"][0]["parameters"]), (&json!("inner"), &json!(60)));
    assert!(object["layers"].as_array().unwrap().iter().all(|layer| layer["name"] != "inner"), "{object}");

    // Frozen layers, and statistics that no gradient reaches.
    let ran = kandle(&["inspect", "reference_outputs/models/Sequential/nested_frozen/model.keras"]);
    assert!(ran.out.contains("\nparameters: 60 (42 trainable, 240 bytes)\n"), "{}", ran.out);
}

#[test]
fn inspect_json_has_the_documented_keys() {
    let ran = kandle(&["inspect", "--json", MODEL]);
    assert_eq!((ran.out.lines().count(), ran.code), (1, 0));
    let object = object(&ran.out);
    let help = kandle(&["inspect", "--help"]).out;
    for key in object.as_object().unwrap().keys() {
        assert!(help.contains(key.as_str()), "{key} is not in --help");
    }
    assert_eq!((&object["parameters"], &object["weight_bytes"]), (&json!(136_256), &json!(545_024)));
    assert_eq!((&object["runs"], &object["container"]), (&json!(true), &json!("keras")));
    assert_eq!(object["inputs"], json!([{"name": "input_layer", "shape": [null, null], "dtype": "int32"}]));
    assert_eq!(object["outputs"], json!([{"name": "output_0", "shape": [null, null, 64], "dtype": "float32"}]));
    assert_eq!(object["layers"][1]["parameters"], 8256);
    let kernel = json!({
        "name": "dense.weight", "shape": [64, 128], "dtype": "float32", "layout": "transposed",
        "keras_name": "kernel", "keras_shape": [128, 64], "from": "layers/dense/vars/0",
    });
    assert_eq!(object["layers"][1]["weights"][0], kernel);
    assert_eq!((object["arrays"].as_array().unwrap().len(), &object["problems"]), (3, &json!([])));
}

#[test]
fn inspect_counts_the_bytes_of_an_array_once() {
    // One array holds both biases of a GRU, two variables in candle.
    let object = object(&kandle(&["inspect", "reference_outputs/rnn/GRU/last/model.keras", "--json"]).out);
    let parameters = object["parameters"].as_u64().unwrap();
    assert_eq!(object["weight_bytes"].as_u64(), Some(4 * parameters));
}

#[test]
fn inspect_lists_what_cannot_be_run() {
    let ran = kandle(&["inspect", "reference_outputs/refused/custom/model.keras"]);
    assert!(ran.out.contains("\nname (Name) "), "{}", ran.out);
    let line = "\nnot supported: layer \"name\" (Name): package>Name is a user's own layer class";
    assert!(ran.out.contains(line), "{}", ran.out);
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));

    let object = object(&kandle(&["inspect", "reference_outputs/refused/custom/model.keras", "--json"]).out);
    let classes: Vec<_> = object["layers"].as_array().unwrap().iter().map(|layer| &layer["class"]).collect();
    assert!(classes.contains(&&json!("Name")));
    assert_eq!((&object["runs"], &object["parameters"]), (&json!(false), &Value::Null));
    assert_eq!(object["problems"][0]["kind"], "not supported");
}

#[test]
fn inspect_says_what_the_file_is_and_what_is_ignored() {
    const TRAINED: &str = "reference_outputs/example3_separate/4x16";
    let training = "ignored: training configuration (optimizer Adam, loss mse)\n";
    let optimizer = |name: &str| format!("ignored: {name}, 8 arrays, 29,314 numbers, 117,260 bytes\n");
    for (file, says) in [
        ("model.keras", vec!["\nform: zip (stored), weights in HDF5 (superblock 0)\n".to_owned(), training.to_owned()]),
        ("model.keras", vec![optimizer("optimizer")]),
        (
            "model.h5",
            vec!["\nform: HDF5 (superblock 0)\n".to_owned(), training.to_owned(), optimizer("optimizer_weights")],
        ),
        ("model.weights.h5", vec!["\nthe file does not say which Keras wrote it\n".to_owned(), optimizer("optimizer")]),
    ] {
        let ran = kandle(&["inspect", &format!("{TRAINED}/{file}")]);
        assert!(says.iter().all(|says| ran.out.contains(says)), "{file}: {}", ran.out);
    }
    for (file, form) in [("superblock_3", "HDF5 (superblock 3)"), ("user_block", "HDF5 (superblock 0)")] {
        let ran = kandle(&["inspect", &format!("reference_outputs/hostile/{file}.weights.h5")]);
        assert!(ran.out.contains(&format!("\nform: {form}\n")), "{file}: {}", ran.out);
    }
    let object = object(&kandle(&["inspect", "--json", &format!("{TRAINED}/model.keras")]).out);
    let group = json!({"name": "optimizer", "arrays": 8, "numbers": 29314, "bytes": 117_260});
    assert_eq!(object["ignored"], json!({"training_configuration": true, "groups": [group]}));
    let deflated = kandle(&["inspect", "reference_outputs/refused/several/model.keras"]).out;
    assert!(deflated.contains("\nform: zip (deflated), weights in HDF5 (superblock 0)\n"), "{deflated}");
    assert!(deflated.contains("\ncannot be run, for 2 reasons:\nnot supported: layer "), "{deflated}");
}

#[test]
fn inspect_takes_the_weights_from_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    assert_eq!(kandle(&["convert", MODEL, text(&out)]).code, 0);
    let json = folder.path().join("m.json");
    let alone = kandle(&["inspect", text(&json)]);
    let hint = format!(
        "\nthe weights are in another file: kandle infer {} --weights FILE --input FILE --out FILE\n",
        json.display()
    );
    assert!(alone.out.ends_with(&hint) && alone.code == 0, "{}", alone.out);
    assert_eq!(object(&kandle(&["inspect", "--json", text(&json)]).out)["runs"], Value::Null);
    for (weights, from) in
        [(text(&out), "dense.bias\n"), (&*format!("{EXAMPLE}/model.weights.h5"), "layers/dense/vars/1\n")]
    {
        let ran = kandle(&["inspect", text(&json), "--weights", weights]);
        assert!(ran.out.contains(&format!("bias (64,)              {from}")), "{}", ran.out);
        assert!(ran.out.ends_with("\nparameters: 136,256 (136,256 trainable, 545,024 bytes)\n"), "{}", ran.out);
        let object = object(&kandle(&["inspect", "--json", text(&json), "--weights", weights]).out);
        assert_eq!((&object["runs"], &object["problems"]), (&json!(true), &json!([])));
    }
    let other = "reference_outputs/models/Sequential/stack/model.weights.h5";
    let ran = kandle(&["inspect", text(&json), "--weights", other]);
    assert!(ran.out.contains("\nweights do not fit: layer \"embedding\" (Embedding): "), "{}", ran.out);
    let ran = kandle(&["inspect", text(&out)]);
    assert!(ran.err.contains("safetensors, which name no layers: inspect the model with --weights ") && ran.code == 1);
}

#[test]
fn inspect_tells_how_to_load_bare_weights() {
    let ran = kandle(&["inspect", &format!("{EXAMPLE}/model.weights.h5")]);
    assert!(ran.out.contains("\nlayers/dense/vars/0      (128, 64)    float32\n"), "{}", ran.out);
    assert!(ran.out.contains("kandle::FileLayer::at(\"layers/dense\")"), "{}", ran.out);
    assert_eq!(ran.code, 0);
    assert_eq!(kandle(&["inspect", "Cargo.toml"]).code, 1);
    let ran = kandle(&["inspect", "not/there.keras"]);
    assert!(ran.err.starts_with("error: not/there.keras: cannot read: ") && ran.code == 1, "{}", ran.err);
}

#[test]
fn inspect_reports_weights_that_do_not_fit() {
    let (_folder, case) = copied(EXAMPLE);
    let swapped = case.join("swapped.keras");
    let other = root().join("reference_outputs/models/Sequential/stack/model.weights.h5");
    swap_weights(&case.join("model.keras"), &other, &swapped);
    let ran = kandle(&["inspect", text(&swapped)]);
    assert!(ran.out.contains("\nweights do not fit: layer \"embedding\" (Embedding): "), "{}", ran.out);
    assert!(ran.out.contains("dense (Dense) "), "{}", ran.out);
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));
}

/// Writes the `.keras` file `from` to `to` with the weights of another model: stored members, as Keras writes them.
fn swap_weights(from: &Path, weights: &Path, to: &Path) {
    let mut zip = zip::ZipArchive::new(fs::File::open(from).unwrap()).unwrap();
    let mut out = zip::ZipWriter::new(fs::File::create(to).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for number in 0..zip.len() {
        let mut member = zip.by_index(number).unwrap();
        let name = member.name().unwrap().to_string();
        out.start_file(&name, options).unwrap();
        if name == "model.weights.h5" {
            std::io::copy(&mut fs::File::open(weights).unwrap(), &mut out).unwrap();
        } else {
            std::io::copy(&mut member, &mut out).unwrap();
        }
    }
    out.finish().unwrap();
}
