//! `kandle diff`: what counts as a difference, and what is said of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "these are tests")]

mod common;

use std::fs;

use common::{copied, flip_a_bit, kandle, object, reconfigured, root, text};
use serde_json::{Value, json};

const EXAMPLE: &str = "reference_outputs/example3/2x3";
const MODEL: &str = "reference_outputs/example3/2x3/model.keras";

#[test]
fn files_of_one_model_are_equal_whatever_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    assert_eq!(kandle(&["convert", MODEL, text(&out)]).code, 0);
    let all =
        [MODEL.to_owned(), format!("{EXAMPLE}/model.h5"), format!("{EXAMPLE}/model.weights.h5"), text(&out).to_owned()];
    let mut equal = 0;
    for a in &all {
        for b in &all {
            let ran = kandle(&["diff", a, b]);
            // Two files of weights alone that name them in two ways.
            let bare = |name: &str| name.ends_with(".weights.h5") || name.ends_with(".safetensors");
            if bare(a) && bare(b) && a != b {
                assert!(ran.out.contains("\nnot known to be equal; weights were not compared: ") && ran.code == 1);
                continue;
            }
            let summary = "\nequal for inference; 3 weights, 136,256 numbers are the same bit for bit\n";
            assert!(ran.out.ends_with(summary) && ran.code == 0, "{a} {b}: {}", ran.out);
            equal += 1;
        }
    }
    assert_eq!(equal, 14);

    // Every recorded model that there is in two kinds, and that runs.
    let mut pairs = 0;
    for case in kandle::parity::find_cases(root().join("reference_outputs")).unwrap() {
        let (keras, legacy) = (case.join("model.keras"), case.join("model.h5"));
        if keras.is_file() && legacy.is_file() {
            let ran = kandle(&["diff", text(&keras), text(&legacy)]);
            if ran.out.contains("\ncannot be run:\n") {
                continue;
            }
            assert!(ran.out.contains("\nequal for inference; ") && ran.code == 0, "{}{}", ran.out, ran.err);
            pairs += 1;
        }
    }
    assert!(pairs > 50, "only {pairs} models were compared");
}

/// Whether a change of the configuration of a model matters, and what must be said of it.
type Change = (&'static str, fn(&mut Value), bool, &'static str);

#[test]
fn what_matters_to_inference_is_told_from_what_does_not() {
    const STACK: &str = "reference_outputs/pytorch/Cnn/model.keras";
    const GRAPH: &str = "reference_outputs/models/Functional/nested_structures/model.keras";
    fn layer(model: &mut Value, number: usize) -> &mut Value {
        &mut model["config"]["layers"][number]
    }
    let changes: [Change; 8] = [
        (STACK, |model| layer(model, 1)["config"]["strides"] = json!([1, 1]), false, "equal for inference"),
        (
            STACK,
            |model| layer(model, 2)["config"]["epsilon"] = json!(1e-5),
            true,
            "  norm (BatchNormalization): epsilon: 0.001, in B 0.00001\n",
        ),
        (
            STACK,
            |model| layer(model, 2)["config"]["momentum"] = json!(0.5),
            false,
            "without effect on what the model computes:\n  norm (BatchNormalization): momentum: 0.99, in B 0.5\n",
        ),
        (
            STACK,
            |model| layer(model, 1)["config"]["trainable"] = json!(false),
            false,
            "  conv (Conv2D): trainable: true, in B false\n",
        ),
        (
            STACK,
            |model| layer(model, 6)["config"]["kernel_initializer"]["config"]["seed"] = json!(7),
            false,
            "  head (Dense): kernel_initializer.config.seed: null, in B 7\n",
        ),
        (
            STACK,
            |model| layer(model, 6)["config"]["activation"] = json!("relu"),
            true,
            "  head (Dense): activation: \"softmax\", in B \"relu\"\n",
        ),
        (
            STACK,
            |model| drop(model["config"]["layers"].as_array_mut().unwrap().remove(3)),
            true,
            "  only in A: layer act (ReLU)\n",
        ),
        (
            GRAPH,
            |model| {
                let text = model.to_string();
                let swapped =
                    text.replace("\"inner\", 0, 0", "\"inner\", 0, 2").replace("\"inner\",0,0", "\"inner\",0,2");
                let swapped =
                    swapped.replace("\"inner\",0,1", "\"inner\",0,0").replace("\"inner\",0,2", "\"inner\",0,1");
                *model = object(&swapped);
            },
            true,
            "calls of subtract: ",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.keras");
    for (model, change, matters, says) in changes {
        reconfigured(model, &other, change);
        for (a, b) in [(root().join(model), other.clone()), (other.clone(), root().join(model))] {
            let ran = kandle(&["diff", text(&a), text(&b)]);
            assert_eq!(ran.code, i32::from(matters), "{says}: {}{}", ran.out, ran.err);
            assert_eq!(ran.out.contains("\nequal for inference; "), !matters, "{says}: {}", ran.out);
            if b == other {
                assert!(ran.out.contains(says), "{says}: {}", ran.out);
            }
        }
    }
}

/// Whatever is changed in a configuration: if the files are equal for inference, the outputs are the same to the bit.
#[test]
fn files_that_are_equal_for_inference_give_the_same_bytes() {
    let (mut equal, mut different) = (0, 0);
    for name in ["pytorch/Cnn", "models/Functional/two_inputs", "rnn/Bidirectional/states", "ops/graph/arithmetic"] {
        let model = format!("reference_outputs/{name}/model.keras");
        let (folder, case) = copied(&format!("reference_outputs/{name}"));
        let outputs = |file: &str| {
            let out = folder.path().join(file);
            let ran = kandle(&["infer", text(&case), "--out", text(&out)]);
            (ran.code == 0).then(|| fs::read(&out).unwrap())
        };
        let before = outputs("before.safetensors").unwrap();
        let mut places = Vec::new();
        reconfigured(&model, &case.join("model.keras"), |config| leaves(&config["config"], "/config", &mut places));
        // Every third is enough, and there are many.
        for place in places.iter().step_by(3) {
            reconfigured(&model, &case.join("model.keras"), |config| change(config.pointer_mut(place).unwrap()));
            let ran = kandle(&["diff", &model, text(&case.join("model.keras"))]);
            match ran.code {
                0 => {
                    assert_eq!(outputs("after.safetensors").as_ref(), Some(&before), "{model} {place}: {}", ran.out);
                    equal += 1;
                }
                _ => different += 1,
            }
        }
    }
    assert!(equal > 10 && different > 10, "{equal} equal, {different} different");
}

/// The places of all values in `value` that are neither lists nor objects nor null.
fn leaves(value: &Value, at: &str, places: &mut Vec<String>) {
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), places)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| leaves(item, &format!("{at}/{i}"), places))
        }
        Value::Null => {}
        _ => places.push(at.to_owned()),
    }
}

/// Makes another value of it, that may well be one that Keras has.
fn change(value: &mut Value) {
    *value = match &*value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) if number.is_f64() => json!(number.as_f64().unwrap() * 1.5 + 0.01),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        text => json!(match text.as_str().unwrap() {
            "relu" | "linear" => "tanh",
            "same" => "valid",
            "valid" => "same",
            other => other,
        }),
    };
}

#[test]
fn another_name_is_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.keras");
    reconfigured(MODEL, &other, |model| model["config"]["layers"][2]["config"]["name"] = json!("hidden"));
    let ran = kandle(&["diff", MODEL, text(&other)]);
    let says = "without effect on what the model computes:\n  dense (Dense) is called hidden in B\n";
    assert!(ran.out.contains(says) && ran.code == 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_weight_that_differs_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let nudged = folder.path().join("nudged.weights.h5");
    fs::copy(root().join(EXAMPLE).join("model.weights.h5"), &nudged).unwrap();
    flip_a_bit(&nudged, "layers/dense/vars/1");
    for (a, name) in [(MODEL, "dense.bias"), (&*format!("{EXAMPLE}/model.h5"), "dense.bias")] {
        let ran = kandle(&["diff", a, text(&nudged)]);
        let says = format!("  {name}: 1 of 64 numbers differ, the worst at [0]: ");
        assert!(ran.out.contains(&says) && ran.code == 1, "{}{}", ran.out, ran.err);
        let summary = "\ndifferent: 0 differences in architecture, 1 weight differs; 2 weights, 136,192 numbers are the same bit for bit\n";
        assert!(ran.out.ends_with(summary), "{}", ran.out);
    }
    // Files of weights alone, by the path of the array.
    let ran = kandle(&["diff", "--json", &format!("{EXAMPLE}/model.weights.h5"), text(&nudged)]);
    let found = object(&ran.out);
    assert_eq!((&found["equal"], &found["weights"]["equal"], ran.code), (&json!(false), &json!(2), 1));
    let differing = &found["weights"]["differing"][0];
    assert_eq!((&differing["name"], &differing["numbers"]), (&json!("layers/dense/vars/1"), &json!(1)));
    assert_eq!(differing["worst"]["at"], json!([0]));
    let help = kandle(&["diff", "--help"]).out;
    for key in found.as_object().unwrap().keys().chain(found["weights"].as_object().unwrap().keys()) {
        assert!(help.contains(key.as_str()), "{key} is not in --help");
    }
}

#[test]
fn what_cannot_be_compared_is_not_equal() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors");
    assert_eq!(kandle(&["convert", MODEL, text(&out)]).code, 0);
    let json = folder.path().join("m.json");
    let ran = kandle(&["diff", MODEL, text(&json)]);
    assert!(ran.out.contains("\nnot known to be equal; weights were not compared: ") && ran.code == 1, "{}", ran.out);
    // Two configurations alone have no weights to compare.
    let ran = kandle(&["diff", text(&json), text(&json)]);
    assert!(
        ran.out.contains("\nequal for inference; weights were not compared: neither file has any\n"),
        "{}",
        ran.out
    );
    assert_eq!(ran.code, 0);

    // Models that are not run are compared by the words of their files.
    let refused = "reference_outputs/refused/several/model.keras";
    assert_eq!(kandle(&["diff", refused, refused]).code, 0);
    let other = folder.path().join("other.keras");
    reconfigured(refused, &other, |model| model["config"]["layers"][2]["config"]["activation"] = json!("tanh"));
    let ran = kandle(&["diff", refused, text(&other)]);
    assert!(ran.out.contains("(Dense): activation: ") && ran.code == 1, "{}{}", ran.out, ran.err);

    // A graph that is broken only there.
    let graph = "reference_outputs/models/Functional/two_inputs/model.keras";
    reconfigured(graph, &other, |model| {
        model["config"]["layers"][2]["inbound_nodes"][0]["args"][0][1]["config"]["keras_history"][1] = json!(1);
    });
    let ran = kandle(&["diff", graph, text(&other)]);
    assert!(ran.out.contains("  calls of ") && ran.code == 1, "{}{}", ran.out, ran.err);

    let ran = kandle(&["diff", MODEL, "reference_outputs/models/Sequential/stack/model.keras"]);
    assert!(ran.out.contains("\ndifferent: ") && ran.code == 1, "{}", ran.out);
    for (args, code) in
        [(&["diff", MODEL][..], 2), (&["diff", MODEL, "not/there"], 1), (&["diff", MODEL, "Cargo.toml"], 1)]
    {
        assert_eq!(kandle(args).code, code, "{args:?}");
    }
}
