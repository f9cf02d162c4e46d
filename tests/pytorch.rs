//! What PyTorch computed from weights that kandle wrote: `reference_outputs/pytorch.py` recorded it, and it still holds.

use std::{fs, path::Path};

use candle_core::Device;
use kandle::{
    Archive, Limits, Model,
    json::Value,
    parity::{Array, Case, compare, find_cases},
};
use safetensors::SafeTensors;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The cases that ran in PyTorch, with what was recorded of it.
fn cases() -> Vec<(Case, Value)> {
    let mut cases = Vec::new();
    for folder in find_cases(Path::new(ROOT).join("reference_outputs")).unwrap() {
        if let Ok(text) = fs::read_to_string(folder.join("pytorch.json")) {
            cases.push((Case::open(folder).unwrap(), serde_json::from_str(&text).unwrap()));
        }
    }
    assert!(cases.len() > 10, "only {} cases ran in PyTorch", cases.len());
    cases
}

/// The page as it is committed, and its blocks of Python one after the other.
fn page() -> (String, String) {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/pytorch.md")).unwrap();
    let blocks = page.split("\n```python\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0);
    let code = blocks.map(|block| format!("{block}\n")).collect::<Vec<_>>().join("\n\n");
    (page, code)
}

#[test]
fn our_outputs_are_those_of_pytorch() {
    for (case, _) in cases() {
        let model = Model::load(case.path.join("model.keras"), &Device::Cpu).unwrap();
        let inputs: Vec<_> = case.input_arrays().iter().map(|input| kandle::value(input).unwrap()).collect();
        let outputs = model.run(&inputs).unwrap();
        let bytes = fs::read(case.path.join("pytorch.safetensors")).unwrap();
        let torch = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(torch.len(), outputs.len());
        for (i, output) in outputs.iter().enumerate() {
            let torch = Array::read(&torch.tensor(&format!("torch_{i}")).unwrap()).unwrap();
            let ours = compare(&kandle::array(output).unwrap(), &torch, case.tolerance_of(i));
            assert!(ours.passed(), "{}: output {i} against PyTorch: {ours}", case.path.display());
            let keras = compare(&torch, case.output(i).unwrap(), case.tolerance_of(i));
            assert!(keras.passed(), "{}: PyTorch's output {i} against Keras: {keras}", case.path.display());
        }
    }
}

#[test]
fn the_tensors_are_those_that_pytorch_was_given() {
    let mut checked = 0;
    for (case, recorded) in cases() {
        let archive = Archive::open(case.path.join("model.keras"), &Limits::default()).unwrap();
        let plan = kandle::Plan::new(&archive.config().unwrap()).unwrap();
        let mut tensors = plan.weights().tensors(&archive).unwrap();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let tensor = |tensor: &kandle::StoredTensor<'_>| {
            let digest = crc32fast::hash(&tensor.bytes().unwrap());
            serde_json::json!({"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype.name(), "crc32": digest})
        };
        let ours: Value = tensors.iter().map(tensor).collect();
        assert_eq!(ours, recorded["tensors"], "{}: run reference_outputs/pytorch.py again", case.path.display());
        checked += tensors.len();
    }
    assert!(checked > 50, "only {checked} tensors were checked");
}

#[test]
fn the_page_says_what_was_run() {
    let (page, code) = page();
    let digest = crc32fast::hash(code.as_bytes());
    for (case, recorded) in cases() {
        let module = recorded["module"].as_str().unwrap();
        assert!(code.contains(&format!("class {module}(nn.Module):")), "{module} is not in docs/pytorch.md");
        assert_eq!(
            recorded["page_crc32"], digest,
            "docs/pytorch.md has changed: run reference_outputs/pytorch.py again"
        );
        let name = case.path.strip_prefix(Path::new(ROOT).join("reference_outputs")).unwrap().display().to_string();
        let far = recorded["max_abs_from_keras"].as_f64().unwrap();
        let row = page.lines().find(|line| line.starts_with(&format!("| `{module}` | {name} | "))).unwrap();
        let said: f64 = row.split('|').nth(3).unwrap().trim().parse().unwrap();
        assert!((said - far).abs() <= 0.05 * far, "{name}: {said} on the page, {far} recorded");
    }
}
