//! docs/porting-by-hand.md, step by step: what it says is printed is printed.

use std::fs;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, VarMap, embedding, linear};
use kandle::{
    explain_port,
    parity::{Trace, port_parity},
};

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs/example3/2x3");

/// The lines between two marks of the guide.
fn guide(name: &str) -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/porting-by-hand.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0.lines().map(|line| line.trim().to_owned()).collect()
}

struct Port {
    vars: VarMap,
    table: Embedding,
    dense: Linear,
}

impl Port {
    fn new() -> Self {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let table = embedding(1000, 128, vb.pp("embedding")).unwrap();
        let dense = linear(128, 64, vb.pp("dense")).unwrap();
        Self { vars, table, dense }
    }

    fn set(&self, name: &str, value: &Tensor) {
        self.vars.data().lock().unwrap()[name].set(value).unwrap();
    }

    /// What the test of the guide fails with, where it does.
    fn verdict(&self) -> Result<(), String> {
        let run = |ids: &[Tensor], trace: &mut Trace| {
            let xs = self.table.forward(&ids[0])?;
            trace.record("embedding", &xs)?;
            let ys = self.dense.forward(&xs)?.relu()?;
            trace.record("dense", &ys)?;
            Ok(vec![ys])
        };
        port_parity(CASE, run, explain_port).map(|_| ())
    }
}

/// A variable as the file has it, in candle's order.
fn of_keras(name: &str) -> Tensor {
    let model = kandle::Model::load(format!("{CASE}/model.keras"), &Device::Cpu).unwrap();
    let vars = model.var_map().data().lock().unwrap();
    vars[name].as_detached_tensor()
}

#[test]
fn a_random_layer_is_found() {
    let port = Port::new();
    port.set("embedding.weight", &of_keras("embedding.weight"));
    let told = port.verdict().unwrap_err();
    for line in guide("random") {
        // How many of the numbers differ is chance: one that relu makes 0 on both sides does not.
        let (before, after) = line.split_once("384 of").unwrap_or((&line, ""));
        let after = after.trim_start_matches(" 384");
        assert!(told.contains(before) && told.contains(after), "no {line:?} in\n{told}");
    }
    assert!(!told.contains("embedding (Embedding, cumulative):"), "{told}");
}

#[test]
fn a_kernel_that_is_not_transposed_is_named() {
    let port = Port::new();
    kandle::load_weights(format!("{CASE}/model.keras"), &port.vars).unwrap();
    let kernel = of_keras("dense.weight");
    port.set("dense.weight", &kernel.t().unwrap().contiguous().unwrap().reshape((64, 128)).unwrap());
    let told = port.verdict().unwrap_err();
    for line in guide("transposed") {
        assert!(told.contains(&line), "no {line:?} in\n{told}");
    }
}

#[test]
fn the_mended_port_passes() {
    let port = Port::new();
    kandle::load_weights(format!("{CASE}/model.keras"), &port.vars).unwrap();
    port.verdict().unwrap();
    let ids = Tensor::new(&[[1i64, 2, 3], [4, 5, 6]], &Device::Cpu).unwrap();
    kandle::assert_case!(CASE, |given: &[Tensor], _: &mut Trace| {
        assert_eq!(given[0].to_vec2::<i64>()?, ids.to_vec2::<i64>()?);
        Ok(vec![port.dense.forward(&port.table.forward(&given[0])?)?.relu()?])
    });
}
