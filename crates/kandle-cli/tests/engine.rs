//! What the command line has of the engine: `inspect --compiled`, `verify --with` and `bench`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "these are tests")]

mod common;

use common::{copied, edit, kandle, object, text};
use serde_json::json;

const EXAMPLE: &str = "reference_outputs/example3/2x3";
const MODEL: &str = "reference_outputs/example3/2x3/model.keras";

#[test]
fn inspect_shows_what_became_of_each_layer() {
    let ran = kandle(&["inspect", "--compiled", MODEL]);
    let shown = "\ncompiled  work    bytes  layers\n       0  rows  256,000  embedding + dense\n";
    assert!(ran.out.contains(shown), "{}", ran.out);
    let object = object(&kandle(&["inspect", "--compiled", "--json", MODEL]).out);
    let expected = json!([{"work": "rows", "layers": ["embedding", "dense"], "bytes": 256_000}]);
    assert_eq!(object["compiled"], expected);
    let refused = kandle(&["inspect", "--compiled", "reference_outputs/refused/lambda/model.keras"]);
    assert!(refused.code == 1 && refused.err.contains("Lambda"), "{}", refused.err);
}

#[test]
fn the_engine_is_judged_beside_the_model() {
    for (with, files) in [("model", 3), ("engine", 3), ("both", 6)] {
        let ran = kandle(&["verify", "--with", with, "--json", EXAMPLE]);
        let first = object(ran.out.lines().next().unwrap());
        assert_eq!(
            (ran.code, first["verdict"].as_str(), first["files"].as_array().unwrap().len()),
            (0, Some("ok"), files),
            "{with}"
        );
    }
}

#[test]
fn bench_verifies_first_and_ends_with_one_object() {
    for with in ["model", "engine"] {
        let ran = kandle(&["bench", EXAMPLE, "--with", with, "--seconds", "0.01", "--batch", "5", "--profile"]);
        let object = object(ran.out.lines().last().unwrap());
        let keys = ["load_s", "first_ms", "median_ms", "min_ms", "repeats"];
        assert!(ran.code == 0 && keys.iter().all(|key| object[key].as_f64().unwrap() > 0.0), "{}{}", ran.out, ran.err);
        assert!(object["min_ms"].as_f64() <= object["median_ms"].as_f64());
        assert_eq!(ran.out.contains("rows"), with == "engine");
    }
    let beside = kandle(&["bench", MODEL, "--seconds", "0.01"]);
    assert!(beside.code == 0 && beside.err.is_empty(), "{}", beside.err);
    let left = kandle(&["bench", "reference_outputs/activations/Softmax/special", "--seconds", "0.01", "--profile"]);
    let note = "note: the engine left the runs to the model, which was timed: a softmax of what is no number\n";
    assert_eq!((left.code, left.err.as_str(), left.out.lines().count()), (0, note, 1));
    // Other numbers than Keras's are not timed.
    let (_folder, case) = copied("reference_outputs/rnn/LSTM/backwards");
    edit(&case, |object| {
        object.insert("tolerance".to_owned(), json!({"atol": 0.0, "rtol": 0.0}));
        for output in object["outputs"].as_array_mut().unwrap() {
            output.as_object_mut().unwrap().remove("tolerance");
        }
    });
    let ran = kandle(&["bench", text(&case), "--seconds", "0.01"]);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains("output_0"), "{}{}", ran.out, ran.err);
    for wrong in [&["--batch", "0"], &["--threads", "0"], &["--seconds", "0"]] {
        assert_eq!(kandle(&[&["bench", EXAMPLE], wrong.as_slice()].concat()).code, 2, "{wrong:?}");
    }
}
