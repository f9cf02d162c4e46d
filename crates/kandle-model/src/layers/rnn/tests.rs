//! What the names and layouts of the weights promise: candle-nn's own layers, built on them, compute the same.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{
    GRUConfig, LSTMConfig, RNN, VarBuilder, VarMap,
    rnn::{Direction, gru, lstm},
};
use kandle_format::{Dtype, Limits, json};

use crate::{
    Arguments, Call, Fields, Given, KerasLayer, Policy, Shape, Spec, Value, fields::Context, load::lock, registry::find,
};

const FEATURES: usize = 3;
const UNITS: usize = 4;

/// The layer of the class `class` with the settings `config`.
fn read(class: &str, config: &str) -> Box<dyn KerasLayer> {
    let config = json::parse(config.as_bytes(), "t", &Limits::default()).unwrap();
    let mut fields = Fields::new(config.as_object().unwrap(), "layer \"x\"", Context::default());
    let layer = find(class).unwrap().read(&mut fields);
    assert_eq!(fields.finish(), []);
    layer
}

/// Random weights for sequences of `FEATURES`, by name.
fn weights(layer: &dyn KerasLayer) -> (VarMap, Vec<Var>) {
    let (policy, arguments) = (Policy::default(), Arguments::of_first(layer.parameters(), 1));
    let tensors = [Spec { shape: Shape(vec![None, None, Some(FEATURES)]), dtype: Dtype::Float32 }];
    let declared = layer.weights(Given { arguments: &arguments, tensors: &tensors, policy: &policy }).unwrap();
    let map = VarMap::new();
    let var = |weight: &crate::Weight| {
        let var = Var::randn(0_f32, 0.5, weight.candle_shape(), &Device::Cpu).unwrap();
        lock(&map).insert(weight.candle.clone(), var.clone());
        var
    };
    let vars = declared.iter().map(var).collect();
    (map, vars)
}

/// What the layer makes of `xs`.
fn run(layer: &dyn KerasLayer, xs: &Tensor, mask: Option<Tensor>, vars: &[Var]) -> Vec<Tensor> {
    let (policy, arguments) = (Policy::default(), Arguments::of_first(layer.parameters(), 1));
    let tensors = [Value::new(xs.clone(), Dtype::Float32).with_mask(mask)];
    let weights: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let given = Given { arguments: &arguments, tensors: &tensors, policy: &policy };
    layer.forward(Call { given, weights: &weights }).unwrap().into_iter().map(|value| value.tensor).collect()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn sequences() -> Tensor {
    Tensor::randn(0_f32, 1.0, (2, 5, FEATURES), &Device::Cpu).unwrap()
}

/// The outputs of a candle-nn layer at all steps, `(batch, time, units)`.
fn states<R: RNN>(layer: &R, xs: &Tensor, output: impl Fn(&R::State) -> Tensor) -> Tensor {
    let states: Vec<Tensor> = layer.seq(xs).unwrap().iter().map(output).collect();
    Tensor::stack(&states, 1).unwrap()
}

#[test]
fn candles_lstm_on_the_same_weights_computes_the_same() {
    for (use_bias, b_ih_init) in [(true, LSTMConfig::default().b_ih_init), (false, None)] {
        let config = LSTMConfig { b_ih_init, ..LSTMConfig::default_no_bias() };
        let text = format!(r#"{{"units": {UNITS}, "use_bias": {use_bias}, "return_sequences": true}}"#);
        let layer = read("LSTM", &text);
        let (map, vars) = weights(layer.as_ref());
        let xs = sequences();
        let candle = lstm(FEATURES, UNITS, config, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
        assert_eq!(lock(&map).len(), vars.len(), "candle found all its weights");
        let ours = run(layer.as_ref(), &xs, None, &vars);
        assert!(difference(&ours[0], &states(&candle, &xs, |state| state.h.clone())) < 1e-6);
    }
}

#[test]
fn candles_gru_on_the_same_weights_computes_the_same() {
    for (use_bias, config) in [(true, GRUConfig::default()), (false, GRUConfig::default_no_bias())] {
        let text = format!(r#"{{"units": {UNITS}, "use_bias": {use_bias}, "return_sequences": true}}"#);
        let layer = read("GRU", &text);
        let (map, vars) = weights(layer.as_ref());
        let xs = sequences();
        let candle = gru(FEATURES, UNITS, config, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
        assert_eq!(lock(&map).len(), vars.len(), "candle found all its weights");
        let ours = run(layer.as_ref(), &xs, None, &vars);
        assert!(difference(&ours[0], &states(&candle, &xs, |state| state.h.clone())) < 1e-6);
    }
}

#[test]
fn candles_two_directions_on_the_same_weights_compute_the_same() {
    let inner = |backwards: bool| {
        format!(
            r#"{{"class_name": "LSTM", "config": {{"name": "l", "units": {UNITS}, "return_sequences": true, "go_backwards": {backwards}}}}}"#
        )
    };
    let text = format!(r#"{{"layer": {}, "backward_layer": {}, "merge_mode": null}}"#, inner(false), inner(true));
    let layer = read("Bidirectional", &text);
    let (map, vars) = weights(layer.as_ref());
    let xs = sequences();
    let ours = run(layer.as_ref(), &xs, None, &vars);
    let order = Tensor::new(&[4_i64, 3, 2, 1, 0], &Device::Cpu).unwrap();
    let backwards = |xs: &Tensor| xs.index_select(&order, 1).unwrap();
    for (direction, ours) in [Direction::Forward, Direction::Backward].into_iter().zip(ours) {
        let b_ih_init = LSTMConfig::default().b_ih_init;
        let config = LSTMConfig { direction, b_ih_init, ..LSTMConfig::default_no_bias() };
        let candle = lstm(FEATURES, UNITS, config, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
        let theirs = match direction {
            Direction::Forward => states(&candle, &xs, |state| state.h.clone()),
            Direction::Backward => backwards(&states(&candle, &backwards(&xs), |state| state.h.clone())),
        };
        assert!(difference(&ours, &theirs) < 1e-6, "{direction:?}");
    }
    assert_eq!(lock(&map).len(), vars.len(), "candle found all its weights");
}

#[test]
fn every_weight_gets_a_gradient_through_a_mask() {
    let cell = |class: &str| format!(r#"{{"class_name": "{class}", "config": {{"name": "c", "units": {UNITS}}}}}"#);
    let cells = ["LSTMCell", "GRUCell", "SimpleRNNCell"].map(cell).join(", ");
    let stack =
        format!(r#"{{"cell": {{"class_name": "StackedRNNCells", "config": {{"name": "s", "cells": [{cells}]}}}}}}"#);
    let units = format!(r#"{{"units": {UNITS}}}"#);
    let before = format!(r#"{{"units": {UNITS}, "reset_after": false}}"#);
    let inner = format!(r#"{{"layer": {{"class_name": "GRU", "config": {{"name": "g", "units": {UNITS}}}}}}}"#);
    for (class, config) in [
        ("SimpleRNN", &units),
        ("LSTM", &units),
        ("GRU", &units),
        ("GRU", &before),
        ("RNN", &stack),
        ("Bidirectional", &inner),
    ] {
        let layer = read(class, config);
        let (_, vars) = weights(layer.as_ref());
        let mask = Tensor::new(&[[1_u8, 1, 0, 1, 0], [0, 1, 1, 1, 1]], &Device::Cpu).unwrap();
        let ys = run(layer.as_ref(), &sequences(), Some(mask), &vars);
        let gradients = ys[0].sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (number, var) in vars.iter().enumerate() {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{class}: weight {number} has no gradient"));
            let largest: f32 = gradient.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            assert!(largest > 0.0 && largest.is_finite(), "{class}: weight {number}");
        }
    }
}
