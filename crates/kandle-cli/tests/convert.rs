//! `kandle convert`: what it writes and prints, what it refuses, and that nothing half written stays behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "these are tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{kandle, object, reconfigured, root, text};
use kandle::{Archive, Limits, Plan};
use safetensors::SafeTensors;
use serde_json::json;

const MODEL: &str = "reference_outputs/example3/2x3/model.keras";

/// The names of the files in a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn convert_says_what_it_wrote_and_which_module_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    let ran = kandle(&["convert", MODEL, text(&out)]);
    let expected = format!(
        "{at}/m.safetensors: 3 tensors, 136,256 numbers, 545,024 bytes
{at}/m.json: the configuration of \"example3\" (Sequential) of Keras 3.15.1

layer (class)          PyTorch       candle_nn  tensors
embedding (Embedding)  nn.Embedding  embedding  embedding.weight
dense (Dense)          nn.Linear     linear     dense.weight, dense.bias
",
        at = folder.path().display()
    );
    assert_eq!((ran.out, ran.err, ran.code), (expected, String::new(), 0));
    assert_eq!(files(folder.path()), ["m.json", "m.safetensors"].map(str::to_owned).into());

    let config = object(&fs::read_to_string(folder.path().join("m.json")).unwrap());
    let keras = {
        let archive = Archive::open(root().join(MODEL), &Limits::default()).unwrap();
        archive.config_json().unwrap().clone()
    };
    for (key, value) in keras.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    assert_eq!(config["keras_version"], "3.15.1");
    assert_eq!(config["kandle"], json!({"version": env!("CARGO_PKG_VERSION"), "from": "model.keras"}));

    let bytes = fs::read(&out).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(length % 8, 0);
    let metadata = metadata.metadata().clone().unwrap();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let expected = [("format", "pt".to_owned()), ("kandle_version", version), ("keras_version", "3.15.1".to_owned())];
    assert_eq!(metadata, expected.map(|(key, text)| (key.to_owned(), text)).into());
}

#[test]
fn the_file_holds_every_tensor_of_the_library_and_zeros_for_the_second_bias() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    for case in ["pytorch/Lstm", "pytorch/BothWays", "models/Quantized/dense_int8"] {
        let model = format!("reference_outputs/{case}/model.keras");
        assert_eq!(kandle(&["convert", &model, text(&out), "--force"]).code, 0);
        let archive = Archive::open(root().join(&model), &Limits::default()).unwrap();
        let plan = Plan::new(&archive.config().unwrap()).unwrap();
        let bytes = fs::read(&out).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = plan.weights().tensors(&archive).unwrap();
        assert_eq!(file.len(), tensors.len());
        for tensor in tensors {
            let view = file.tensor(&tensor.name).unwrap();
            assert_eq!((view.shape(), view.data()), (&*tensor.shape, &*tensor.bytes().unwrap()), "{}", tensor.name);
            if case != "models/Quantized/dense_int8"
                && tensor.name.contains("bias_hh")
                && tensor.name.starts_with("lstm")
            {
                assert!(view.data().iter().all(|byte| *byte == 0), "{}", tensor.name);
            }
        }
    }
}

/// Three ways to the same model: the Keras file, what was converted from it, the configuration with Keras's own weights.
#[test]
fn what_was_converted_runs_and_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let out = at("m.safetensors");
    fs::write(at("ids.json"), "[[1, 2, 3], [4, 5, 6]]").unwrap();
    let ids = at("ids.json");
    let weights = "reference_outputs/example3/2x3/model.weights.h5";
    assert_eq!(kandle(&["convert", "reference_outputs/example3/2x3/model.h5", text(&out)]).code, 0);
    let json = at("m.json");
    let mut all = Vec::new();
    for model in [
        &[MODEL][..],
        &[text(&json), "--weights", text(&out)],
        &[text(&json), "--weights", weights],
        &[MODEL, "--weights", text(&out)],
    ] {
        let ys = at("ys.npy");
        let ran = kandle(&[&["infer", "--input", text(&ids), "--out", text(&ys)], model].concat());
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("output_0 (2, 3, 64) float32\n", ""), "{model:?}");
        all.push(fs::read(ys).unwrap());
    }
    assert!(all.iter().all(|bytes| *bytes == all[0]));

    let again = at("again.safetensors");
    assert_eq!(kandle(&["convert", text(&json), text(&again), "--weights", weights]).code, 0);
    assert_eq!(fs::read(&again).unwrap(), fs::read(&out).unwrap());
    let ran = kandle(&["infer", text(&json), "--input", text(&ids), "--out", text(&at("ys.npy"))]);
    let says = format!("error: {}: an architecture without weights: give them with --weights FILE\n", json.display());
    assert_eq!((ran.err, ran.code), (says, 1));
}

#[test]
fn nothing_is_written_over_without_force_and_nothing_half_stays() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let out = at("m.safetensors");
    fs::write(at("m.json"), "mine").unwrap();
    let ran = kandle(&["convert", MODEL, text(&out)]);
    let says = format!("error: {}: is there already: give --force to write over it\n", at("m.json").display());
    assert_eq!((ran.err, ran.out.as_str(), ran.code), (says, "", 1));
    assert_eq!((files(folder.path()).len(), fs::read_to_string(at("m.json")).unwrap().as_str()), (1, "mine"));
    assert_eq!(kandle(&["convert", MODEL, text(&out), "--force"]).code, 0);
    assert_eq!(files(folder.path()).len(), 2);
    assert_eq!(kandle(&["convert", MODEL, text(&out)]).code, 1);
    // The file that is read is never written over.
    for force in [&[][..], &["--force"]] {
        let ran = kandle(&[&["convert", text(&at("m.json")), text(&out), "--weights", MODEL], force].concat());
        let says = format!("error: {}: would be written over the file that is read\n", at("m.json").display());
        assert_eq!((ran.err, ran.code), (says, 1));
    }

    let before = files(folder.path());
    let broken = at("broken.keras");
    reconfigured(MODEL, &broken, |config| config["config"]["layers"][2]["config"]["units"] = json!(32));
    for (model, out, says) in [
        ("reference_outputs/refused/several/model.keras", at("x.safetensors"), "2 problems\n  layer \"name\" (Name): "),
        (
            text(&broken),
            at("x.safetensors"),
            "2 problems\n  layer \"dense\" (Dense): kernel: expected [128, 32], found [128, 64]",
        ),
        ("reference_outputs/example3/2x3/model.weights.h5", at("x.safetensors"), "weights without a configuration"),
        (MODEL, at("x.pt"), "x.pt: expected a name that ends in .safetensors"),
        (MODEL, at("not/there/x.safetensors"), "x.safetensors: cannot write: "),
        ("not/there.keras", at("x.safetensors"), "not/there.keras: cannot read: "),
    ] {
        let ran = kandle(&["convert", model, text(&out)]);
        assert!(ran.err.contains(says) && ran.code == 1 && ran.out.is_empty(), "{model}: {}", ran.err);
    }
    fs::remove_file(broken).unwrap();
    assert_eq!(files(folder.path()), before);
}

/// A layer that no module of PyTorch takes keeps Keras's names, and the table says so.
#[test]
fn convert_names_no_module_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    for (case, says) in [
        ("pytorch/BothWays", "lstm (Bidirectional)  nn.LSTM  bilstm     lstm.weight_ih_l0, "),
        ("pytorch/BothWays", "gru (Bidirectional)   nn.GRU   none       gru.weight_ih_l0, "),
        ("rnn/LSTM/relu", "lstm (LSTM)    none     none       lstm.kernel, lstm.recurrent_kernel, lstm.bias\n"),
        ("rnn/LSTM/no_bias", "lstm (LSTM)    nn.LSTM  lstm       lstm.weight_ih_l0, lstm.weight_hh_l0\n"),
        ("rnn/SimpleRNN/last", "simple_rnn (SimpleRNN)  none     none       simple_rnn."),
    ] {
        let ran = kandle(&["convert", &format!("reference_outputs/{case}/model.keras"), text(&out), "--force"]);
        assert!(ran.out.contains(says) && ran.code == 0, "{case}: {}{}", ran.out, ran.err);
    }
}
