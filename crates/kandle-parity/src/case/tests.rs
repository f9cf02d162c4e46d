//! Cases read, and cases tampered with.

use super::*;
use crate::find::find_cases;
use crate::fixture::{Recording, array};
use serde_json::{Value, json};

#[test]
fn a_case_is_read_as_recorded() {
    let mut recording = Recording::new();
    recording.json["outputs"][0]["tolerance"] = json!({"atol": 0.5, "rtol": 0.0, "note": "unknown keys are ignored"});
    recording.json["noise"] = json!({"scale": 1.0, "tf_vs_jax_max_abs": null, "stages_failed": {}});
    recording.json["says"] = json!("two layers");
    recording.json["call"] = json!({"ord": "unknown"});
    let case = recording.open().unwrap();
    assert_eq!(
        (case.class.as_str(), case.family.as_str(), case.says.as_deref()),
        ("Functional", "models", Some("two layers"))
    );
    assert_eq!(case.tolerance, Some(Tolerance { atol: 1e-6, rtol: 1e-6 }));
    assert_eq!(case.tolerance_of(0), Tolerance { atol: 0.5, rtol: 0.0 });
    assert_eq!(case.noise, Noise { scale: Some(1.0), ..Noise::default() });
    assert_eq!(case.input_arrays(), [array(&[1i32, 0], &[2])]);
    assert_eq!((case.outputs[0].dtype, case.outputs[0].shape.as_slice()), (Dtype::F32, &[2, 2][..]));
    assert!(case.truth(0).is_some() && case.truth(1).is_none() && case.jax(0).is_none());
    assert_eq!(
        case.layers.iter().map(|layer| (layer.rule, layer.cumulative)).collect::<Vec<_>>(),
        [(Rule::Copy, Rule::Copy), (Rule::Contraction, Rule::Deep)]
    );
    let dense = case.recorded("block/dense", 0).unwrap();
    assert_eq!((dense.inputs.len(), dense.outputs.len()), (1, 1));
    assert!(dense.input_masks[0].is_some() && dense.masks[0].is_some());
    assert!(case.recorded("block/dense", 2).is_none());
    assert!(case.layers[1].from.is_empty() && case.outputs[0].from.is_empty() && case.digests.is_empty());
    assert!(case.undeclared().is_empty());
}

#[test]
fn what_is_recorded_beside_is_read() {
    let mut recording = Recording::new();
    recording.json["layers"][1]["from"] = json!([["embedding/0"], ["block/dense/0", "input_0"]]);
    recording.json["outputs"][0]["from"] = json!(["block/dense/1"]);
    recording.json["files"] = json!(["../model.keras", "../../model.h5"]);
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    recording.json["digests"] = json!({"../model.keras": digest});
    recording.json["left_out"] = json!(3);
    for (name, shape) in [("truth_0", vec![2, 2]), ("jax_0", vec![2, 2])] {
        recording.tensors.insert(format!("layers/block/dense/1/{name}"), array(&[0f64; 4], &shape));
    }
    let case = recording.open().unwrap();
    assert_eq!(case.layers[1].from, [vec!["embedding/0"], vec!["block/dense/0", "input_0"]]);
    assert_eq!((case.outputs[0].from.as_slice(), case.left_out), (&["block/dense/1".to_owned()][..], 3));
    assert_eq!((case.files.len(), case.digests.get("../model.keras")), (2, Some(&digest)));
    let dense = |call| case.recorded("block/dense", call).unwrap();
    assert!(dense(1).truths[0].is_some() && dense(1).jax[0].is_some());
    assert!(dense(0).truths[0].is_none() && case.undeclared().is_empty());
    recording.tensors.insert("layers/block/dense/1/jax_0".to_owned(), array(&[0f64; 4], &[4]));
    let error = recording.open().unwrap_err().to_string();
    assert!(error.ends_with("layers/block/dense/1/jax_0: shape: expected [2, 2], found [4]"), "{error}");
}

#[test]
fn what_is_malformed_is_named_with_its_place() {
    let cases: [(&str, Value, &str); 23] = [
        ("/format", json!(2), " › format: expected 1, found 2"),
        ("/format", Value::Null, ": format is missing"),
        ("/class", json!(7), " › class: expected a string, found 7"),
        ("/files", json!([]), " › files: expected at least one, found none"),
        (
            "/files",
            json!([".."]),
            " › files[0]: expected the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE, found \"..\"",
        ),
        (
            "/files",
            json!(["../../../model.keras"]),
            " › files[0]: expected the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE, found \"../../../model.keras\"",
        ),
        (
            "/files",
            json!(["../a/b/model.keras"]),
            " › files[0]: expected the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE, found \"../a/b/model.keras\"",
        ),
        (
            "/files",
            json!(["a/.."]),
            " › files[0]: expected the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE, found \"a/..\"",
        ),
        (
            "/files",
            json!(["/etc/passwd"]),
            " › files[0]: expected the plain name of a file in the case's folder, ../FILE, ../../FILE or ../FOLDER/FILE, found \"/etc/passwd\"",
        ),
        ("/outputs", json!([]), " › outputs: expected at least one, found none"),
        ("/outputs/0/dtype", json!("float8"), " › outputs[0].dtype: expected one of Keras's dtypes, found \"float8\""),
        ("/outputs/0/shape", json!([-1, 2]), " › outputs[0].shape[0]: expected a whole number from 0, found -1"),
        ("/tolerance", Value::Null, ": tolerance is missing"),
        ("/tolerance/atol", json!(-1e-6), " › tolerance.atol: expected a number from 0, below inf, found -1e-6"),
        ("/tolerance/rtol", json!(1), " › tolerance.rtol: expected a number from 0, below 1, found 1"),
        ("/expect", json!("fails"), " › expect: expected \"refused: TEXT\", found \"fails\""),
        ("/expect", json!("refused: "), " › expect: expected \"refused: TEXT\", found \"refused: \""),
        (
            "/rule",
            json!("loose\u{1b}"),
            " › rule: expected copy, elementwise, contraction or deep, found \"loose\\u001b\"",
        ),
        ("/layers/0/calls", json!(0), " › layers[0].calls: expected a whole number from 1, found 0"),
        ("/layers/1/rule", Value::Null, " › layers[1]: rule is missing"),
        (
            "/layers/1",
            json!({"path": "a", "class": "A", "calls": 1, "rule": "copy", "from": [7]}),
            " › layers[1].from[0]: expected a list, found 7",
        ),
        (
            "/digests",
            json!({"model.keras": "md5:0"}),
            " › digests.model.keras: expected sha256: and 64 hexadecimal digits, found \"md5:0\"",
        ),
        ("/digests", json!([]), " › digests: expected an object, found []"),
    ];
    for (key, value, says) in cases {
        let mut recording = Recording::new();
        // Keys the recording does not have are at the top.
        match recording.json.pointer_mut(key) {
            Some(place) => *place = value,
            None => recording.json[&key[1..]] = value,
        }
        let error = recording.open().unwrap_err();
        let file = recording.folder.path().join("case.json");
        assert_eq!(error.to_string(), format!("{}{says}", file.display()));
        assert_eq!(error.kind(), CaseErrorKind::Malformed);
        assert!(error.at().starts_with(&*file.to_string_lossy()));
    }
}

#[test]
fn what_is_recorded_must_be_what_is_declared() {
    type Tamper = fn(&mut Recording);
    let cases: [(Tamper, &str); 8] = [
        (|r| drop(r.tensors.remove("output_0")), "output_0: declared in case.json, but missing"),
        (|r| drop(r.tensors.remove("input_0")), "input_0: declared in case.json, but missing"),
        (|r| r.json["outputs"][0]["shape"] = json!([4]), "output_0: shape: expected [4], found [2, 2]"),
        (|r| r.json["inputs"][0]["dtype"] = json!("int64"), "input_0: dtype: expected int64, found int32"),
        (
            |r| drop(r.tensors.insert("truth_0".into(), array(&[1.0], &[1]))),
            "truth_0: shape: expected [2, 2], found [1]",
        ),
        (
            |r| drop(r.tensors.insert("output_1".into(), array(&[1.0], &[1]))),
            "output_1: recorded, but not declared in case.json",
        ),
        (|r| r.json["layers"][0]["calls"] = json!(2), "layers/embedding/1/out_0: declared in case.json, but missing"),
        (
            |r| drop(r.tensors.remove("layers/block/dense/1/out_0")),
            "layers/block/dense/1/out_0: declared in case.json, but missing",
        ),
    ];
    for (tamper, says) in cases {
        let mut recording = Recording::new();
        tamper(&mut recording);
        let error = recording.open().unwrap_err();
        let file = recording.folder.path().join("io.safetensors");
        assert_eq!(error.to_string(), format!("{} › {says}", file.display()));
        assert_eq!(error.kind(), CaseErrorKind::Mismatch);
    }
}

#[test]
fn strings_are_bytes_and_offsets_with_the_shape_that_is_declared() {
    let mut recording = Recording::new();
    let texts = Array::from_texts(&["in", "", "the house"], &[3, 1]).unwrap();
    let (bytes, offsets) = texts.stored_texts().unwrap();
    for name in ["input_0", "output_0"] {
        recording.tensors.insert(name.to_owned(), bytes.clone());
        recording.tensors.insert(format!("{name}.offsets"), offsets.clone());
    }
    recording.tensors.remove("truth_0");
    for key in ["inputs", "outputs"] {
        recording.json[key][0]["dtype"] = json!("string");
        recording.json[key][0]["shape"] = json!([3, 1]);
    }
    let case = recording.open().unwrap();
    assert_eq!((case.input_arrays(), case.output(0)), (vec![texts.clone()], Some(&texts)));
    let says = |recording: &Recording| recording.open().unwrap_err().to_string();
    recording.json["inputs"][0]["shape"] = json!([2, 1]);
    assert!(says(&recording).ends_with("input_0: size: expected as many texts as shape [2, 1] has, found 3"));
    recording.tensors.insert("input_0.offsets".into(), array(&[0i64, 12], &[2]));
    assert!(says(&recording).ends_with("input_0: offsets: expected rising from 0 to 11, found [0, 12]"));
    recording.tensors.remove("input_0.offsets");
    recording.json["inputs"][0]["shape"] = json!([11]);
    assert!(says(&recording).ends_with("input_0: dtype: expected string, found uint8"));
}

#[test]
fn layers_that_case_json_leaves_out_are_known() {
    let mut recording = Recording::new();
    recording.json["layers"].as_array_mut().unwrap().remove(0);
    recording.tensors.insert("layers/block/dense/1/in_2".into(), array(&[1f32], &[1]));
    assert_eq!(recording.open().unwrap().undeclared(), ["layers/block/dense/1", "layers/embedding/0"]);
    // A number of layers is not ours.
    recording.json["layers"] = json!(2);
    assert!(recording.open().unwrap().layers.is_empty());
}

#[test]
fn a_refusal_may_go_without_tolerance() {
    let mut recording = Recording::new();
    recording.json["tolerance"] = Value::Null;
    recording.json["expect"] = json!("refused: SqueezeLayer");
    let case = recording.open().unwrap();
    assert_eq!((case.expect.as_deref(), case.tolerance_of(0)), (Some("SqueezeLayer"), Tolerance::EXACT));
}

#[test]
fn cut_files_are_errors() {
    let recording = Recording::new();
    recording.write();
    let (folder, kind) = (recording.folder.path(), |path: &Path| Case::open(path).unwrap_err().kind());
    fs::write(folder.join("io.safetensors"), [1, 0, 0]).unwrap();
    assert_eq!(kind(folder), CaseErrorKind::Malformed);
    fs::remove_file(folder.join("io.safetensors")).unwrap();
    assert_eq!(kind(folder), CaseErrorKind::Unreadable);
    fs::write(folder.join("case.json"), "{\"format\": 1").unwrap();
    assert_eq!(kind(folder), CaseErrorKind::Malformed);
    assert_eq!(kind(&folder.join("none")), CaseErrorKind::Unreadable);
}

#[test]
fn cases_are_found_at_any_depth_and_named_by_their_folders() {
    let root = tempfile::tempdir().unwrap();
    for case in ["b/Dense/000", "a", "b/Dense/000/inner"] {
        fs::create_dir_all(root.path().join(case)).unwrap();
        fs::write(root.path().join(case).join("case.json"), "{}").unwrap();
    }
    fs::create_dir_all(root.path().join("empty")).unwrap();
    assert_eq!(find_cases(root.path()).unwrap(), [root.path().join("a"), root.path().join("b/Dense/000")]);
    assert_eq!(find_cases(root.path().join("a")).unwrap(), [root.path().join("a")]);
    assert_eq!(find_cases(root.path().join("empty")).unwrap_err().kind(), CaseErrorKind::NotFound);
    assert_eq!(find_cases(root.path().join("none")).unwrap_err().kind(), CaseErrorKind::Unreadable);
    assert_eq!(find_cases(root.path().join("a/case.json")).unwrap_err().kind(), CaseErrorKind::Unreadable);
    let mut case = Recording::new().open().unwrap();
    for (path, name) in
        [("suite/core/Dense/000", "core/Dense/000"), ("reference_outputs/example3/", "example3"), ("7", "7")]
    {
        case.path = path.into();
        assert_eq!(case.name(), name);
    }
}
