//! Random layers over sequences, with and without masks: recurrent ones in all their forms, and attention.

use candle_core::{Device, Tensor};
use kandle::{Compile as _, Dtype, Model, Options, Value};
use serde_json::{Value as Json, json};

use crate::made::{Generator, input, layer, model, operation, tensor};

const FEATURES: usize = 6;

/// A recurrent layer's class and settings.
fn recurrent(generator: &mut Generator, sequences: bool) -> (&'static str, Json) {
    let class = *generator.one_of(&[&"LSTM", &"GRU", &"SimpleRNN"]);
    let usual = generator.below(2) == 0;
    let (activation, gates) = if usual { ("tanh", "sigmoid") } else { ("relu", "hard_sigmoid") };
    let mut config = json!({
        "units": 1 + generator.below(20), "activation": activation, "use_bias": generator.below(3) > 0,
        "go_backwards": generator.below(2) == 0, "return_sequences": sequences,
    });
    if class != "SimpleRNN" {
        config["recurrent_activation"] = gates.into();
    }
    if class == "GRU" {
        config["reset_after"] = (generator.below(2) == 0).into();
    }
    (class, config)
}

/// Ids through an embedding and one layer over the sequence, which may attend to other ids; and how many inputs there are.
fn random(seed: u64) -> (Model, usize) {
    let mut generator = Generator::new(seed);
    let masked = generator.below(2) == 0;
    let table = json!({"input_dim": 30, "output_dim": FEATURES, "mask_zero": masked});
    let mut layers = vec![input("ids", json!([null, null]), "int32"), layer("Embedding", "table", table, &["ids"])];
    let (sequences, mut last, mut inputs) = (generator.below(2) == 0, "last", vec!["ids"]);
    let mut is_sequence = sequences;
    let attends = generator.below(5);
    if attends > 2 {
        // Without masks, of which these make another computation.
        layers[1]["config"]["mask_zero"] = false.into();
        let table = json!({"input_dim": 30, "output_dim": FEATURES, "mask_zero": false});
        layers.push(input("others", json!([null, null]), "int32"));
        layers.push(layer("Embedding", "other_table", table, &["others"]));
        inputs.push("others");
    }
    match attends {
        // Attention as operations.
        4 => {
            let mut keys = operation("Transpose", "keys", &[tensor("other_table")]);
            keys["config"]["axes"] = json!([0, 2, 1]);
            let mut weights = operation("Softmax", "weights", &[tensor("scores")]);
            weights["module"] = "keras.src.ops.nn".into();
            weights["config"]["axis"] = (-1).into();
            layers.extend([
                keys,
                operation("Matmul", "scores", &[tensor("table"), tensor("keys")]),
                weights,
                operation("Matmul", "last", &[tensor("weights"), tensor("other_table")]),
            ]);
            is_sequence = true;
        }
        3 => {
            let (class, config) = match generator.below(3) {
                0 => ("AdditiveAttention", json!({"use_scale": generator.below(2) == 0})),
                1 => ("Attention", json!({"use_scale": generator.below(2) == 0, "score_mode": "concat"})),
                _ => ("Attention", json!({"use_scale": generator.below(2) == 0})),
            };
            let of: &[&str] = &["table", "other_table", "other_table"][..2 + generator.below(2)];
            let mut attention = layer(class, "last", config, of);
            attention["inbound_nodes"][0]["kwargs"] = json!({"use_causal_mask": generator.below(2) == 0});
            layers.push(attention);
            is_sequence = true;
        }
        0 => {
            let (class, config) = recurrent(&mut generator, sequences);
            layers.push(layer(class, "last", config, &["table"]));
        }
        1 => {
            let (class, mut config) = recurrent(&mut generator, sequences);
            config["name"] = "inner".into();
            config["go_backwards"] = false.into();
            let inner =
                json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null});
            let merge = generator.one_of(&["concat", "sum", "mul", "ave"]);
            layers.push(layer("Bidirectional", "last", json!({"layer": inner, "merge_mode": merge}), &["table"]));
        }
        _ => {
            let grouped = generator.below(3) == 0;
            let (heads, size) = (1 + generator.below(4), 1 + generator.below(8));
            let (class, mut config) = match grouped {
                true => (
                    "GroupQueryAttention",
                    json!({"num_query_heads": 2 * heads, "num_key_value_heads": heads, "head_dim": size}),
                ),
                false => (
                    "MultiHeadAttention",
                    json!({"num_heads": heads, "key_dim": size, "value_dim": 1 + generator.below(8)}),
                ),
            };
            config["use_bias"] = (generator.below(2) == 0).into();
            config["dropout"] = [0.0, 0.1][generator.below(2)].into();
            let mut attended = "table";
            if generator.below(3) == 0 {
                let table = json!({"input_dim": 30, "output_dim": FEATURES, "mask_zero": generator.below(2) == 0});
                layers.push(input("others", json!([null, null]), "int32"));
                layers.push(layer("Embedding", "other_table", table, &["others"]));
                inputs.push("others");
                attended = "other_table";
            }
            let mut attention = layer(class, "last", config, &["table", attended]);
            is_sequence = true;
            attention["inbound_nodes"][0]["kwargs"] = json!({"use_causal_mask": generator.below(2) == 0});
            layers.push(attention);
            if generator.below(2) == 0 {
                let residual = if generator.below(2) == 0 { ["last", "table"] } else { ["table", "last"] };
                layers.push(layer("Add", "sum", json!({}), &residual));
                last = "sum";
            }
        }
    }
    if is_sequence && generator.below(3) == 0 {
        let class = generator.one_of(&["GlobalAveragePooling1D", "GlobalMaxPooling1D"]);
        layers.push(layer(class, "pool", json!({}), &[last]));
        last = "pool";
    }
    (model(layers, &inputs, &[last], seed), inputs.len())
}

#[test]
fn random_sequences_give_what_the_model_gives() {
    let mut natively = 0;
    for seed in 1..=300 {
        let (model, inputs) = random(seed);
        let mut generator = Generator::new(seed + 5000);
        for threads in [1, 2] {
            let engine = model.compile(&Options::default().threads(threads)).unwrap();
            for (batch, time) in [(1, 1), (3, 7), (2, 60), (3, 7)] {
                // Steps that are masked at the end, in the middle, and whole rows of them.
                let mut ids = |time: usize| {
                    let mut id = |_| generator.below(30) as i64 * i64::from(generator.below(3) > 0);
                    let ids: Vec<i64> = (0..batch * time).map(&mut id).collect();
                    Value::new(Tensor::from_vec(ids, (batch, time), &Device::Cpu).unwrap(), Dtype::Int64)
                };
                let given: Vec<Value> = [time, time + 2].into_iter().take(inputs).map(&mut ids).collect();
                let (ours, models) = (engine.run(&given).unwrap(), model.run(&given).unwrap());
                let worst = crate::graphs::difference(&ours[0], &models[0]);
                assert!(worst <= 1e-5, "seed {seed}, {batch} x {time}: {worst:e}\n{:#?}", engine.compiled());
                let mask = |value: &Value| value.mask.as_ref().map(|mask| mask.to_vec2::<u8>().unwrap());
                assert_eq!(mask(&ours[0]), mask(&models[0]), "seed {seed}: the mask that goes on");
            }
            assert_eq!(engine.handed_over(), (0, None), "seed {seed}");
            natively += usize::from(engine.compiled().calls == 0);
        }
    }
    assert_eq!(natively, 600, "engines without a call of the model");
}
