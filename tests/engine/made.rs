//! Models that are made for a test: a configuration as Keras would write it, and weights from a generator.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use kandle::{Model, ModelConfig, Plan};
use serde_json::{Value as Json, json};

/// Numbers that are the same on every machine.
pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() >> 33) as usize % count
    }

    pub fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    pub fn numbers(&mut self, count: usize, least: f32, most: f32) -> Vec<f32> {
        let mut unit = || (self.next() >> 40) as f32 / (1_u64 << 24) as f32;
        (0..count).map(|_| least + (most - least) * unit()).collect()
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        Tensor::from_vec(self.numbers(shape.iter().product(), -1.0, 1.0), shape, &Device::Cpu).unwrap()
    }
}

/// A layer as a Functional model of Keras 3 has it, called on `inputs`: the names of layers, with `:1` behind for the second of
/// their calls.
pub fn layer(class: &str, name: &str, mut config: Json, inputs: &[&str]) -> Json {
    config["name"] = name.into();
    let arguments: Vec<Json> = inputs.iter().map(|name| tensor(name)).collect();
    let arguments = match class {
        "Add" | "Multiply" | "Subtract" | "Average" | "Maximum" | "Minimum" | "Concatenate" | "Attention"
        | "AdditiveAttention" => vec![Json::Array(arguments)],
        _ => arguments,
    };
    let nodes = if inputs.is_empty() { json!([]) } else { json!([{"args": arguments, "kwargs": {}}]) };
    json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null, "name": name, "inbound_nodes": nodes})
}

/// An operation of `keras.ops.numpy` on tensors and numbers.
pub fn operation(class: &str, name: &str, arguments: &[Json]) -> Json {
    json!({"module": "keras.src.ops.numpy", "class_name": class, "config": {"name": name}, "registered_name": class, "name": name, "inbound_nodes": [{"args": arguments, "kwargs": {}}]})
}

/// What the layer `name` gave at its first call, or, with `:1` behind, its second.
pub fn tensor(name: &str) -> Json {
    let (layer, call) = name.split_once(':').unwrap_or((name, "0"));
    let call: usize = call.parse().unwrap();
    json!({"class_name": "__keras_tensor__", "config": {"keras_history": [layer, call, 0], "shape": [], "dtype": "float32"}})
}

/// An input of `shape`, batch first.
pub fn input(name: &str, shape: Json, dtype: &str) -> Json {
    layer("InputLayer", name, json!({"batch_shape": shape, "dtype": dtype}), &[])
}

/// The Functional model of `layers`, with weights of `seed`.
pub fn model(layers: Vec<Json>, inputs: &[&str], outputs: &[&str], seed: u64) -> Model {
    let ends = |names: &[&str]| -> Vec<Json> {
        names.iter().map(|name| tensor(name)["config"]["keras_history"].clone()).collect()
    };
    let config = json!({
        "module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional",
        "config": {"name": "made", "trainable": true, "layers": layers, "input_layers": ends(inputs), "output_layers": ends(outputs)},
        "keras_version": "3.15.1",
    });
    let parsed = ModelConfig::from_json(&config.to_string()).unwrap();
    let plan = Plan::new(&parsed).unwrap_or_else(|error| panic!("{error}\n{config:#}"));
    let (vars, mut generator) = (VarMap::new(), Generator::new(seed));
    for layer in plan.weights().layers() {
        for weight in &layer.weights {
            let shape = weight.candle_shape();
            let count = shape.iter().product();
            // A variance is positive.
            let (least, most) = if weight.keras.contains("variance") { (0.5, 1.5) } else { (-0.5, 0.5) };
            let tensor = Tensor::from_vec(generator.numbers(count, least, most), shape, &Device::Cpu).unwrap();
            assert_eq!(tensor.dtype(), DType::F32);
            vars.data().lock().unwrap().insert(layer.name(weight), Var::from_tensor(&tensor).unwrap());
        }
    }
    plan.with(&vars).unwrap()
}
