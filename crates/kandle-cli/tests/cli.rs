//! The program as users run it: what it prints, what it writes, and how it exits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "these are tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{copied, edit, flip_a_bit, kandle, object, root, text};
use kandle::parity::{Array, Case, compare};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const EXAMPLE: &str = "reference_outputs/example3/2x3";
const MODEL: &str = "reference_outputs/example3/2x3/model.keras";
/// A case whose model files are those of EXAMPLE.
const SIBLING: &str = "reference_outputs/example3/4x16";

/// The one tensor `output_0` of a safetensors file.
fn output(file: &Path) -> Array {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.names(), ["output_0"]);
    let view = tensors.tensor("output_0").unwrap();
    Array::read(&view).unwrap()
}

#[test]
fn help_and_version_are_for_newcomers() {
    let help = kandle(&["--help"]);
    assert_eq!(help.code, 0);
    for word in ["inspect", "verify", "infer", "convert", "diff", "Exit codes: 0 all is well"] {
        assert!(help.out.contains(word), "{}", help.out);
    }
    for (verb, example) in [
        ("inspect", "Examples:\n  kandle inspect model.keras"),
        ("verify", "Examples:\n  kandle verify reference_outputs\n  kandle verify my_model.keras"),
        ("infer", "Examples:\n  kandle infer model.keras --input ids.npy --out ys.safetensors"),
        ("convert", "Examples:\n  kandle convert model.keras model.safetensors"),
        ("diff", "Example:\n  kandle diff before.keras after.keras"),
    ] {
        let help = kandle(&[verb, "--help"]);
        assert!(help.out.contains(example), "{}", help.out);
    }
    assert_eq!(kandle(&["--version"]).out, format!("kandle {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for args in [&[][..], &["nothing"], &["verify"], &["verify", EXAMPLE, "--with", "magic"], &["infer", MODEL]] {
        assert_eq!(kandle(args).code, 2, "{args:?}");
    }
}

#[test]
fn verify_prints_a_line_a_case_and_counts_them_last() {
    let ran = kandle(&["verify", "reference_outputs/reshaping/Reshape/plain"]);
    let expected = "ok       reference_outputs/reshaping/Reshape/plain  worst 0, allowed 0, truth ratio 0.00\n\
                    1 passed, 0 failed, 0 refused, 0 expected\n";
    assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), (expected, "", 0));

    let ran = kandle(&["verify", "--with", "model", "reference_outputs/example3"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("ok       reference_outputs/example3/2x3  worst "), "{}", ran.out);
    assert!(lines[1].starts_with("ok       reference_outputs/example3/4x16  worst "), "{}", ran.out);
    assert_eq!(lines[2..], ["2 passed, 0 failed, 0 refused, 0 expected"]);
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));
}

#[test]
fn a_table_shows_every_layer() {
    let ran = kandle(&["verify", "--layers", "reference_outputs/example3/2x3/model.keras"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("ok       reference_outputs/example3/2x3  worst "), "{}", ran.out);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[1]), ["layer", "class", "isolated", "cumulative"]);
    let layers: Vec<Vec<String>> = lines[2..5].iter().map(|line| words(line)[..3].to_vec()).collect();
    assert_eq!(layers, [["embedding", "Embedding", "ok"], ["dense", "Dense", "ok"], ["output_0", "Sequential", "ok"]]);
    assert_eq!(lines[5..], ["1 passed, 0 failed, 0 refused, 0 expected"]);
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));
}

#[test]
fn a_page_shows_every_case() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let ran = kandle(&["verify", "--html", text(&page), "reference_outputs/by_record/two_inputs"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let html = fs::read_to_string(&page).unwrap();
    for expected in ["3 passed, 0 failed", "two_inputs/ordinary", "inner/dense", "<svg", "Keras on JAX from the truth"]
    {
        assert!(html.contains(expected), "no {expected}");
    }
    let ran = kandle(&["verify", "--html", text(&folder.path().join("none/report.html")), EXAMPLE]);
    assert!(ran.err.contains("none/report.html: cannot write"), "{}", ran.err);
    assert_eq!(ran.code, 1);
}

/// The cases of a model's file are those that name it, wherever they lie near it.
#[test]
fn a_models_own_cases_are_found_beside_it() {
    let (folder, case) = copied(EXAMPLE);
    let model = folder.path().join("my_model.keras");
    fs::rename(case.join("model.keras"), &model).unwrap();
    let beside = folder.path().join("my_model.case/ordinary");
    fs::create_dir(folder.path().join("my_model.case")).unwrap();
    fs::rename(&case, &beside).unwrap();
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut words = object(&fs::read_to_string(beside.join("case.json")).unwrap());
        change(&mut words);
        fs::write(beside.join("case.json"), words.to_string()).unwrap();
    };
    edit(&|words| words["files"] = json!(["../../my_model.keras"]));
    let ran = kandle(&["verify", text(&model)]);
    assert!(ran.out.starts_with(&format!("ok       {}", beside.display())), "{}{}", ran.out, ran.err);
    assert_eq!(ran.code, 0);
    // A case of other weights proves nothing.
    edit(&|words| words["digests"] = json!({"../../my_model.keras": format!("sha256:{}", "0".repeat(64))}));
    let ran = kandle(&["verify", text(&model)]);
    let stale = "../../my_model.keras: the case is stale: it was recorded with the weights sha256:000000000000, these are sha256:";
    assert!(ran.out.contains(stale) && ran.out.contains("; record it again"), "{}", ran.out);
    assert_eq!(ran.code, 1);
    // Nor does none.
    fs::remove_dir_all(folder.path().join("my_model.case")).unwrap();
    let ran = kandle(&["verify", text(&model)]);
    assert!(ran.err.contains("my_model.keras: no recorded case names it"), "{}", ran.err);
    assert_eq!((ran.out.as_str(), ran.code), ("0 passed, 0 failed, 0 refused, 0 expected\n", 1));
}

#[test]
fn verify_json_is_an_object_a_line() {
    let ran = kandle(&["verify", "--json", "reference_outputs/example3"]);
    let lines: Vec<Value> = ran.out.lines().map(object).collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    for (line, (case, at)) in lines.iter().zip([(EXAMPLE, ""), (SIBLING, "../2x3/")]) {
        let mut keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let expected = [
            "allowed",
            "case",
            "checks",
            "files",
            "keras_error",
            "reason",
            "truth_error",
            "truth_ratio",
            "unchecked",
            "verdict",
            "worst",
        ];
        assert_eq!(keys, expected);
        let checks = line["checks"].as_array().unwrap();
        assert!(checks.iter().all(|check| check["passed"] == json!(true) && check["hint"].is_null()), "{checks:?}");
        let of_dense = checks.iter().filter(|check| check["layer"] == "dense" && check["how"] == "isolated");
        assert_eq!((of_dense.count(), &line["unchecked"]), (3, &json!([])));
        assert_eq!((&line["case"], &line["verdict"], &line["reason"]), (&json!(case), &json!("ok"), &Value::Null));
        let files = ["model.keras", "model.h5", "model.weights.h5"].map(|name| format!("{at}{name}"));
        assert_eq!(line["files"], json!(files));
        assert!(line["worst"].as_f64() <= line["allowed"].as_f64() && line["truth_ratio"].as_f64() <= Some(2.0));
    }
    assert_eq!(lines[2], json!({"passed": 2, "failed": 0, "refused": 0, "expected": 0}));
    assert_eq!(ran.code, 0);
}

#[test]
fn verify_prints_many_cases_in_order() {
    let ran = kandle(&["verify", "reference_outputs/reshaping", "reference_outputs/activations", "--json"]);
    let cases: Vec<PathBuf> =
        ran.out.lines().filter_map(|line| object(line)["case"].as_str().map(PathBuf::from)).collect();
    assert!(cases.len() > 20 && cases.is_sorted(), "{cases:?}");
    assert_eq!(ran.code, 0);
}

#[test]
fn a_wrong_weight_fails_and_stderr_says_all() {
    let (_folder, case) = copied(EXAMPLE);
    flip_a_bit(&case.join("model.weights.h5"), "layers/dense/vars/1");
    let ran = kandle(&["verify", text(&case)]);
    assert!(ran.out.contains("model.weights.h5: the case is stale"), "{}", ran.out);
    // Without the digest of the weights it is found by its numbers.
    let words = fs::read_to_string(case.join("case.json")).unwrap();
    let mut words = object(&words);
    words.as_object_mut().unwrap().remove("digests");
    fs::write(case.join("case.json"), words.to_string()).unwrap();
    // A wrong number is never excused.
    fs::write(case.with_file_name("may_refuse"), "a_case\n").unwrap();
    let ran = kandle(&["verify", text(&case), "--may-refuse", text(&case.with_file_name("may_refuse"))]);
    let line = ran.out.lines().next().unwrap();
    assert!(line.starts_with(&format!("FAIL     {}  worst ", case.display())), "{line}");
    assert!(line.contains("model.weights.h5: dense (Dense, isolated): "), "{line}");
    assert_eq!(ran.out.lines().skip(1).collect::<Vec<_>>(), ["0 passed, 1 failed, 0 refused, 0 expected"]);
    assert!(ran.err.starts_with("a_case (model.weights.h5): FAIL: "), "{}", ran.err);
    assert!(ran.err.contains("\na_case › dense (Dense, isolated): "), "{}", ran.err);
    assert!(
        ran.err.contains("\n  model.keras, model.h5\n  layer      class       isolated  cumulative\n"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("\n  dense      Dense       FAIL "), "{}", ran.err);
    assert!(ran.err.ends_with("\n  first divergence: dense (Dense), already alone\n"), "{}", ran.err);
    assert_eq!(ran.code, 1);

    let object = object(kandle(&["verify", text(&case), "--json"]).out.lines().next().unwrap());
    assert_eq!(object["verdict"], "fail");
    assert!(object["reason"].as_str().unwrap().starts_with("model.weights.h5: dense (Dense, isolated): "));
}

#[test]
fn a_damaged_file_fails() {
    let (_folder, case) = copied(EXAMPLE);
    let file = case.join("model.keras");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let ran = kandle(&["verify", text(&case)]);
    assert!(ran.out.starts_with(&format!("FAIL     {}", case.display())), "{}", ran.out);
    assert!(ran.out.ends_with("\n0 passed, 1 failed, 0 refused, 0 expected\n"), "{}", ran.out);
    assert_eq!(ran.code, 1);
}

#[test]
fn a_refusal_counts_unless_it_may_be() {
    let says = "layer \"lambda\" (Lambda): a Lambda layer holds Python code, which is never run";
    let ran = kandle(&["verify", "reference_outputs/refused/several"]);
    assert!(ran.out.starts_with("expected reference_outputs/refused/several  model.keras: "), "{}", ran.out);
    assert!(ran.out.contains(says) && ran.out.ends_with("\n0 passed, 0 failed, 0 refused, 1 expected\n"));
    assert_eq!(ran.code, 0);

    let (folder, case) = copied("reference_outputs/refused/several");
    edit(&case, |json| drop(json.remove("expect")));
    let ran = kandle(&["verify", text(&case)]);
    assert!(ran.out.starts_with(&format!("REFUSED  {}  model.keras: ", case.display())), "{}", ran.out);
    assert!(ran.out.contains(says) && ran.out.ends_with("\n0 passed, 0 failed, 1 refused, 0 expected\n"));
    assert_eq!(ran.code, 1);

    let list = folder.path().join("may_refuse");
    for (prefixes, code, summary) in [
        ("# these\na_case # for now\n", 0, "0 passed, 0 failed, 0 refused, 1 expected"),
        ("another\n", 1, "0 passed, 0 failed, 1 refused, 0 expected"),
    ] {
        fs::write(&list, prefixes).unwrap();
        let ran = kandle(&["verify", "--may-refuse", text(&list), text(&case)]);
        assert_eq!((ran.out.lines().last().unwrap(), ran.code), (summary, code));
    }
    let ran = kandle(&["verify", "--may-refuse", "not/there", text(&case)]);
    assert!(ran.err.starts_with("error: not/there: cannot read: ") && ran.code == 1, "{}", ran.err);
}

#[test]
fn a_path_without_a_case_is_an_error_and_the_others_run() {
    let ran = kandle(&["verify", "crates/kandle-cli/src", "reference_outputs/reshaping/Reshape/plain"]);
    assert!(ran.err.starts_with("error: crates/kandle-cli/src: expected a case "), "{}", ran.err);
    assert!(ran.out.ends_with("\n1 passed, 0 failed, 0 refused, 0 expected\n"), "{}", ran.out);
    assert_eq!(ran.code, 1);
    let ran = kandle(&["verify", "not/there"]);
    assert_eq!((ran.out.as_str(), ran.code), ("0 passed, 0 failed, 0 refused, 0 expected\n", 1));
}

#[test]
fn infer_runs_a_case_on_its_own_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ys.safetensors");
    for name in [EXAMPLE, "reference_outputs/core/Dense"] {
        let case = kandle::parity::find_cases(root().join(name)).unwrap().remove(0);
        let ran = kandle(&["infer", text(&case), "--out", text(&out)]);
        assert_eq!((ran.err.as_str(), ran.code), ("", 0));
        let case = Case::open(&case).unwrap();
        let keras = case.output(0).unwrap();
        let verdict = compare(&output(&out), keras, case.tolerance_of(0));
        assert!(verdict.passed(), "{verdict}");
    }
    for (case, shape) in [(EXAMPLE, "(2, 3, 64)"), (SIBLING, "(4, 16, 64)")] {
        let ran = kandle(&["infer", "--out", text(&out), case]);
        assert_eq!(ran.out, format!("output_0 {shape} float32\n"));
    }
}

#[test]
fn infer_runs_bare_weights_with_the_model_beside_them() {
    let (folder, case) = copied(EXAMPLE);
    let all = folder.path().join("all.npy");
    assert_eq!(kandle(&["infer", text(&case), "--out", text(&all)]).code, 0);
    edit(&case, |json| drop(json.insert("files".to_owned(), json!(["model.weights.h5"]))));
    let bare = folder.path().join("bare.npy");
    assert_eq!(kandle(&["infer", text(&case), "--out", text(&bare)]).code, 0);
    assert_eq!(fs::read(all).unwrap(), fs::read(bare).unwrap());
}

#[test]
fn every_kind_of_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("list.json"), "[[0, 999, 5]]").unwrap();
    fs::write(at("named.json"), "{\"input_layer\": [[0, 999, 5]]}").unwrap();
    let ids: Vec<u8> = [0i32, 999, 5].iter().flat_map(|id| id.to_le_bytes()).collect();
    // As numpy.save writes it.
    let header = format!("{:<117}\n", "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 3), }");
    fs::write(at("ids.npy"), [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &ids].concat()).unwrap();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I32, vec![1, 3], &ids).unwrap();
    fs::write(at("ids.safetensors"), safetensors::serialize([("input_0", view)], None).unwrap()).unwrap();

    let path = |name: &str| text(&at(name)).to_owned();
    let named = |input: &str, name: &str| format!("{input}={}", path(name));
    let mut all = Vec::new();
    for input in [
        path("list.json"),
        path("named.json"),
        path("ids.npy"),
        path("ids.safetensors"),
        named("input_layer", "ids.npy"),
        named("input_0", "list.json"),
        named("input_layer", "ids.safetensors"),
    ] {
        let out = at("ys.safetensors");
        let ran = kandle(&["infer", MODEL, "--input", &input, "--out", text(&out)]);
        assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), ("output_0 (1, 3, 64) float32\n", "", 0), "{input}");
        all.push(fs::read(&out).unwrap());
        fs::remove_file(&out).unwrap();
    }
    assert!(all.iter().all(|bytes| *bytes == all[0]));

    // And every kind of output holds the same numbers.
    for name in ["ys.npy", "ys.json", "ys.safetensors"] {
        let ran = kandle(&["infer", MODEL, "--input", &path("ids.npy"), "--out", &path(name)]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let ys = output(&at("ys.safetensors"));
    assert!(fs::read(at("ys.npy")).unwrap().ends_with(ys.bytes()));
    let json = object(&fs::read_to_string(at("ys.json")).unwrap());
    let flat = json["output_0"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    let numbers: Vec<f32> =
        flat.flat_map(|row| row.as_array().unwrap()).map(|number| number.as_f64().unwrap() as f32).collect();
    assert_eq!(Array::from_slice(&numbers, &[1, 3, 64]).unwrap(), ys);
}

/// Keras 1 and 2 call the first input `input_1`, which as a number is the second.
#[test]
fn names_of_inputs_are_told_from_their_numbers_by_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = at("two.keras");
    common::reconfigured("reference_outputs/merging/Subtract/two/model.keras", &model, |config| {
        let text = config.to_string();
        assert!(text.contains("\"input_layer\"") && text.contains("\"input_layer_1\""), "{text}");
        *config = object(&text.replace("\"input_layer\"", "\"input_1\"").replace("\"input_layer_1\"", "\"input_2\""));
    });
    let inputs = object(&kandle(&["inspect", "--json", text(&model)]).out)["inputs"].clone();
    let zeros = |input: usize, number: i64| {
        let sizes = inputs[input]["shape"].as_array().unwrap().iter().skip(1).map(|size| size.as_u64().unwrap());
        sizes.rev().fold(json!(number), |inner, size| json!(vec![inner; usize::try_from(size).unwrap()]))
    };
    let mut all = Vec::new();
    for names in [["input_1", "input_2"], ["input_0", "input_1"]] {
        let given = json!({names[0]: [zeros(0, 5)], names[1]: [zeros(1, 3)]});
        fs::write(at("xs.json"), given.to_string()).unwrap();
        let ran = kandle(&["infer", text(&model), "--input", text(&at("xs.json")), "--out", text(&at("ys.json"))]);
        assert_eq!((ran.err.as_str(), ran.code), ("", 0), "{names:?}");
        all.push(fs::read_to_string(at("ys.json")).unwrap());
    }
    assert!(all[0] == all[1] && all[0].contains("2.0"), "{all:?}");
}

#[test]
fn infer_says_what_is_wrong_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name)).to_owned();
    fs::write(at("ids.json"), "[[5, 1000]]").unwrap();
    fs::write(at("ragged.json"), "[[5, 6], [7]]").unwrap();
    fs::write(at("good.json"), "[[5]]").unwrap();
    fs::write(at("two.json"), "{\"input_0\": [[5]], \"other\": [[6]]}").unwrap();
    fs::write(at("deep.json"), "[[[[5]]]]").unwrap();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let out = at("ys.safetensors");
    let named = |name: &str, file: &str| format!("{name}={}", at(file));
    let cases: [(&[&str], String); 9] = [
        (
            &["--input", &at("ids.json")],
            "layer \"embedding\" (Embedding): id 1000 at [0, 1] is not in the vocabulary: ids go from 0 to 999, or from the end from -1 to -1000"
                .to_owned(),
        ),
        (&[], "no input for \"input_layer\" (input_0): give it with --input [NAME=]FILE".to_owned()),
        (
            &["--input", &named("ids", "good.json")],
            format!("{}: no input is called \"ids\": the model has \"input_layer\" (input_0)", at("good.json")),
        ),
        (
            &["--input", &at("two.json")],
            format!("{}: no input is called \"other\": the model has \"input_layer\" (input_0)", at("two.json")),
        ),
        (
            &["--input", &named("input_0", "two.json")],
            format!("{}: expected one tensor for {}, found 2", at("two.json"), named("input_0", "two.json")),
        ),
        (
            &["--input", &at("good.json"), "--input", &named("input_0", "good.json")],
            format!("{}: input \"input_layer\" is given twice", at("good.json")),
        ),
        (
            &["--input", &at("ragged.json")],
            format!("{}: a ragged list: at [1]: expected 2 entries as before, found 1", at("ragged.json")),
        ),
        (&["--input", &at("deep.json")], "input \"input_layer\": expected (None, None), found [1, 1, 1, 1]".to_owned()),
        (&["--input", "ids.txt"], "ids.txt: expected a name that ends in .safetensors, .npy or .json".to_owned()),
    ];
    for (args, says) in &cases {
        let ran = kandle(&[&["infer", MODEL, "--out", &out], *args].concat());
        assert_eq!((ran.err.as_str(), ran.out.as_str(), ran.code), (&*format!("error: {says}\n"), "", 1), "{args:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "{args:?}");
    }
    for out in [at("ys.txt"), at("not/there/ys.json"), at("")] {
        assert_eq!(kandle(&["infer", EXAMPLE, "--out", &out]).code, 1, "{out}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "{out}");
    }
}

#[test]
fn a_refused_model_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ys.npy");
    let ran = kandle(&["infer", "reference_outputs/refused/several", "--out", text(&out)]);
    assert!(ran.err.starts_with("error: reference_outputs/refused/several/model.keras: 2 problems\n"), "{}", ran.err);
    assert!(ran.code == 1 && !out.exists());
}
