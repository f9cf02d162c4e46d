//! The proof travels with the model: a case beside the file, recorded with its weights, or an error.

use std::{fs, path::Path};

use candle_core::Device;
use candle_nn::VarMap;
use kandle::{ErrorKind, LoadVerified as _, Model, verify_loaded};
use serde_json::{Value, json};
use tempfile::TempDir;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs/example3/2x3");

/// `my_model.keras` with its case beside it, as `record.py my_model.keras` leaves them.
struct Shipped(TempDir);

impl Shipped {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let case = folder.path().join("my_model.case/ordinary");
        fs::create_dir_all(&case).unwrap();
        fs::copy(format!("{RECORDED}/model.keras"), folder.path().join("my_model.keras")).unwrap();
        fs::copy(format!("{RECORDED}/io.safetensors"), case.join("io.safetensors")).unwrap();
        fs::copy(format!("{RECORDED}/case.json"), case.join("case.json")).unwrap();
        let shipped = Self(folder);
        shipped.edit(|words| {
            words["files"] = json!(["../../my_model.keras"]);
            // The digest that Python computed, under the name the file has here.
            words["digests"] = json!({"../../my_model.keras": words["digests"]["model.keras"]});
        });
        shipped
    }

    fn model(&self) -> std::path::PathBuf {
        self.0.path().join("my_model.keras")
    }

    fn case(&self) -> std::path::PathBuf {
        self.0.path().join("my_model.case/ordinary")
    }

    fn edit(&self, change: impl Fn(&mut Value)) {
        let path = self.case().join("case.json");
        let mut words: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut words);
        fs::write(path, words.to_string()).unwrap();
    }

    fn load(&self) -> kandle::Result<Model> {
        Model::load_verified(self.model(), &Device::Cpu)
    }
}

fn says(result: kandle::Result<Model>) -> (ErrorKind, String) {
    let error = result.map(|model| format!("{model:?} was loaded")).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn a_model_with_its_proof_is_loaded() {
    let shipped = Shipped::new();
    let model = shipped.load().unwrap();
    let verdicts = verify_loaded(&model, shipped.model()).unwrap();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(
        (verdicts[0].case.as_str(), verdicts[0].passed(), verdicts[0].is_ok()),
        ("my_model.case/ordinary", 1, true)
    );
    // The case may also lie in the model's own folder, as those of this repository do.
    assert!(Model::load_verified(format!("{RECORDED}/model.keras"), &Device::Cpu).is_ok());
}

#[test]
fn a_model_without_proof_is_not() {
    let shipped = Shipped::new();
    shipped.edit(|words| words["digests"] = Value::Null);
    let (kind, told) = says(shipped.load());
    assert_eq!(kind, ErrorKind::Unverified);
    assert!(told.ends_with("the case has no digest of the weights it was recorded with; record it again"), "{told}");
    fs::remove_dir_all(shipped.0.path().join("my_model.case")).unwrap();
    let (kind, told) = says(shipped.load());
    assert_eq!(kind, ErrorKind::Missing);
    assert!(told.contains("my_model.keras: no recorded case names it"), "{told}");
    fs::remove_file(shipped.model()).unwrap();
    assert_eq!(says(shipped.load()).0, ErrorKind::Io);
}

#[test]
fn other_weights_make_the_case_stale() {
    let shipped = Shipped::new();
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs/example1/2x3/model.keras");
    fs::copy(other, shipped.model()).unwrap();
    let (kind, told) = says(shipped.load());
    assert_eq!(kind, ErrorKind::Unverified);
    assert!(
        told.contains("my_model.case/ordinary: the case is stale: it was recorded with the weights sha256:"),
        "{told}"
    );
}

#[test]
fn other_numbers_are_told_by_layer() {
    let shipped = Shipped::new();
    let model = shipped.load().unwrap();
    nudge(model.var_map(), "dense.bias");
    let error = verify_loaded(&model, shipped.model()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unverified);
    let told = error.to_string();
    assert!(
        told.contains("my_model.case/ordinary: dense (Dense, isolated): ") && told.contains("numbers differ"),
        "{told}"
    );
}

/// A case that cannot be read proves nothing either.
#[test]
fn a_damaged_case_is_an_error() {
    let shipped = Shipped::new();
    fs::write(shipped.case().join("io.safetensors"), "cut").unwrap();
    assert_eq!(says(shipped.load()).0, ErrorKind::Unverified);
    fs::write(shipped.case().join("case.json"), "{").unwrap();
    let (_, told) = says(shipped.load());
    assert!(told.contains("case.json: not JSON"), "{told}");
}

fn nudge(vars: &VarMap, name: &str) {
    let vars = vars.data().lock().unwrap();
    let bias = vars[name].as_detached_tensor();
    vars[name].set(&(bias + 0.01).unwrap()).unwrap();
}

/// The digest counts numbers, not bytes of the file: the same weights packed otherwise are the same weights.
#[test]
fn the_digest_is_that_of_the_numbers() {
    let digest = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference_outputs").join(path);
        kandle::Archive::open(path, &kandle::Limits::default()).unwrap().weights_digest().unwrap()
    };
    let of_keras = digest("example3/2x3/model.keras");
    assert_eq!(of_keras, digest("example3/2x3/model.weights.h5"));
    let mut digests: Vec<String> = ["example1/2x3", "example3/2x3", "core/Dense/square", "core/Dense/rank2"]
        .map(|case| digest(&format!("{case}/model.keras")))
        .to_vec();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 4);
}
