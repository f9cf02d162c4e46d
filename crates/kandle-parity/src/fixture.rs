//! A recorded case and a subject for the tests, both open to tampering.

use std::collections::HashMap;
use std::fs;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::array::Array;
use crate::case::Case;
use crate::error::CaseError;
use crate::number::Number;
use crate::subject::{Failure, LayerCall, Subject, Trace};

/// Embedding with a mask, then a Dense called twice: `output_0` is the second call's. With a truth.
pub struct Recording {
    pub json: Value,
    pub tensors: HashMap<String, Array>,
    pub folder: TempDir,
}

pub fn array<T: Number>(numbers: &[T], shape: &[usize]) -> Array {
    Array::from_slice(numbers, shape).unwrap()
}

impl Recording {
    pub fn new() -> Recording {
        let json = json!({
            "format": 1, "class": "Functional", "family": "models", "files": ["model.keras"],
            "inputs": [{"name": "ids", "shape": [2], "dtype": "int32"}],
            "outputs": [{"name": "dense", "shape": [2, 2], "dtype": "float32"}],
            "tolerance": {"atol": 1e-6, "rtol": 1e-6},
            "layers": [
                {"path": "embedding", "class": "Embedding", "calls": 1, "rule": "copy", "cumulative": "copy"},
                {"path": "block/dense", "class": "Dense", "calls": 2, "rule": "contraction", "cumulative": "deep"},
            ],
        });
        let embedded = array(&[0.5f32, 0.25, 1.0, -1.0], &[2, 2]);
        let dense = [array(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]), array(&[-1.0f32, 0.0, 1.0, 0.5], &[2, 2])];
        let mask = array(&[true, false], &[2]);
        let tensors = [
            ("input_0", array(&[1i32, 0], &[2])),
            ("output_0", dense[1].clone()),
            ("truth_0", array(&[-1.0, 0.0, 1.0, 0.5 + 2f64.powi(-20)], &[2, 2])),
            ("layers/embedding/0/in_0", array(&[1i32, 0], &[2])),
            ("layers/embedding/0/out_0", embedded.clone()),
            ("layers/embedding/0/mask_0", mask.clone()),
            ("layers/block/dense/0/in_0", embedded),
            ("layers/block/dense/0/in_mask_0", mask.clone()),
            ("layers/block/dense/0/out_0", dense[0].clone()),
            ("layers/block/dense/0/mask_0", mask),
            ("layers/block/dense/1/in_0", dense[0].clone()),
            ("layers/block/dense/1/out_0", dense[1].clone()),
        ];
        let tensors = tensors.map(|(name, array)| (name.to_owned(), array)).into();
        Recording { json, tensors, folder: tempfile::tempdir().unwrap() }
    }

    pub fn write(&self) {
        fs::write(self.folder.path().join("case.json"), self.json.to_string()).unwrap();
        let views = self.tensors.iter().map(|(name, array)| {
            (name, TensorView::new(array.dtype().stored().unwrap(), array.shape().to_vec(), array.bytes()).unwrap())
        });
        safetensors::serialize_to_file(views, None, &self.folder.path().join("io.safetensors")).unwrap();
    }

    pub fn open(&self) -> Result<Case, CaseError> {
        self.write();
        Case::open(self.folder.path())
    }
}

/// A subject that says what it was told to.
#[derive(Clone, Default)]
pub struct Puppet {
    pub outputs: Vec<Array>,
    pub fails: Option<&'static str>,
    pub trace: Trace,
    pub alone: HashMap<(String, usize), LayerCall>,
}

impl Puppet {
    /// Gives just what Keras recorded.
    pub fn honest(case: &Case) -> Puppet {
        let mut puppet = Puppet { outputs: vec![case.output(0).unwrap().clone()], ..Puppet::default() };
        for layer in &case.layers {
            for call in 0..layer.calls {
                let recorded = case.recorded(&layer.path, call).unwrap();
                puppet.say(&layer.path, call, LayerCall { outputs: recorded.outputs, masks: recorded.masks });
            }
        }
        puppet
    }

    /// What it says of a layer's call, alone and on the way.
    pub fn say(&mut self, path: &str, call: usize, made: LayerCall) {
        self.trace.insert(path, call, made.clone());
        self.alone.insert((path.to_owned(), call), made);
    }

    /// Changes what it says of a layer's call, alone and on the way.
    pub fn change(&mut self, path: &str, call: usize, change: impl Fn(&mut LayerCall)) {
        let mut made = self.trace.get(path, call).unwrap().clone();
        change(&mut made);
        self.say(path, call, made);
    }
}

impl Subject for Puppet {
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
        assert_eq!(inputs, [array(&[1i32, 0], &[2])]);
        self.fails.map_or(Ok(self.outputs.clone()), |told| Err(told.into()))
    }

    fn trace(&self, _inputs: &[Array]) -> Result<Trace, Failure> {
        self.fails.map_or(Ok(self.trace.clone()), |told| Err(told.into()))
    }

    fn call_layer(
        &self,
        path: &str,
        call: usize,
        inputs: &[Array],
        masks: &[Option<Array>],
    ) -> Result<Option<LayerCall>, Failure> {
        assert_eq!((inputs.len(), masks.len()), (1, 1));
        assert_eq!(masks[0].is_some(), (path, call) == ("block/dense", 0));
        self.fails.map_or(Ok(self.alone.get(&(path.to_owned(), call)).cloned()), |told| Err(told.into()))
    }
}
