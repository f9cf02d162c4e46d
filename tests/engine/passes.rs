//! What the engine makes of small graphs: each pass shows in the instructions.

use candle_core::{Device, Tensor};
use kandle::{Compile as _, Dtype, Model, Options, Value};
use serde_json::json;

use crate::made::{Generator, input, layer, model};

/// The instructions: what they do, and for which layers.
fn instructions(model: &Model, options: &Options) -> Vec<(String, String)> {
    let compiled = model.compile(options).unwrap().compiled();
    compiled.instructions.into_iter().map(|made| (made.work, made.layers.join(" "))).collect()
}

fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(work, layers)| ((*work).to_owned(), (*layers).to_owned())).collect()
}

#[test]
fn normalisation_activation_padding_and_residual_go_into_the_convolution() {
    let conv = |padding: &str| json!({"filters": 4, "kernel_size": [3, 3], "padding": padding, "use_bias": false});
    let layers = vec![
        input("x", json!([null, 8, 8, 4]), "float32"),
        layer("ZeroPadding2D", "pad", json!({"padding": [[1, 1], [1, 1]]}), &["x"]),
        layer("Conv2D", "one", conv("valid"), &["pad"]),
        layer("BatchNormalization", "norm", json!({"axis": -1}), &["one"]),
        layer("ReLU", "act", json!({}), &["norm"]),
        layer("Dropout", "drop", json!({"rate": 0.1}), &["act"]),
        layer("Conv2D", "two", conv("same"), &["drop"]),
        layer("BatchNormalization", "norm_two", json!({"axis": -1}), &["two"]),
        layer("Add", "sum", json!({}), &["norm_two", "x"]),
        layer("ReLU", "last", json!({}), &["sum"]),
    ];
    let model = model(layers, &["x"], &["last"], 1);
    assert_eq!(
        instructions(&model, &Options::default()),
        of(&[("convolution + relu", "pad one norm act"), ("convolution + sum + relu", "two norm_two sum last")])
    );
}

#[test]
fn wide_convolutions_are_done_by_patches_but_for_numbers_that_are_not_finite() {
    let conv = json!({"filters": 32, "kernel_size": [3, 3], "padding": "same", "activation": "relu"});
    for size in [json!(13), json!(null)] {
        let layers = vec![
            input("x", json!([null, size, size, 32]), "float32"),
            layer("Conv2D", "conv", conv.clone(), &["x"]),
            layer("BatchNormalization", "norm", json!({"axis": -1}), &["conv"]),
            layer("Conv2D", "linear", json!({"filters": 40, "kernel_size": [3, 3], "padding": "valid"}), &["norm"]),
            layer("BatchNormalization", "last", json!({"axis": -1}), &["linear"]),
        ];
        let model = model(layers, &["x"], &["last"], 1);
        let works =
            [("convolution by patches + relu", "conv"), ("affine", "norm"), ("convolution by patches", "linear last")];
        assert_eq!(instructions(&model, &Options::default()), of(&works));
        for (batch, threads) in [(1, 1), (1, 3), (5, 2)] {
            let engine = model.compile(&Options::default().threads(threads)).unwrap();
            let xs = Generator::new(batch as u64).tensor(&[batch, 13, 13, 32]);
            let value = [Value::new(xs.clone(), Dtype::Float32)];
            let (ours, models) = (engine.run(&value).unwrap(), model.run(&value).unwrap());
            assert!(crate::graphs::difference(&ours[0], &models[0]) <= 1e-5, "batch {batch}, {threads} threads");
            assert_eq!(engine.handed_over(), (0, None));
        }
        // What is infinite shows in the windows that see it, and in no others.
        let engine = model.compile(&Options::default()).unwrap();
        let mut numbers = Generator::new(3).numbers(13 * 13 * 32, -1.0, 1.0);
        numbers[40] = f32::INFINITY;
        let xs = Tensor::from_vec(numbers, (1, 13, 13, 32), &Device::Cpu).unwrap();
        let bits = |model: &dyn Fn(&Tensor) -> Tensor| -> Vec<u32> {
            model(&xs).flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(&|xs| engine.forward(xs).unwrap()), bits(&|xs| model.forward(xs).unwrap()));
        assert_eq!(engine.handed_over().0, 1);
    }
}

#[test]
fn convolutions_over_an_embedding_and_the_inputs_of_gates_are_rows_of_tables() {
    let layers = vec![
        input("ids", json!([null, null]), "int32"),
        layer("Embedding", "table", json!({"input_dim": 50, "output_dim": 24}), &["ids"]),
        layer(
            "Conv1D",
            "one",
            json!({"filters": 20, "kernel_size": [3], "padding": "same", "activation": "relu"}),
            &["table"],
        ),
        layer(
            "Conv1D",
            "two",
            json!({"filters": 7, "kernel_size": [4], "strides": [2], "use_bias": false}),
            &["table"],
        ),
        layer(
            "Conv1D",
            "three",
            json!({"filters": 33, "kernel_size": [2], "dilation_rate": [3], "padding": "causal"}),
            &["table"],
        ),
        layer("BatchNormalization", "norm", json!({"axis": -1}), &["three"]),
    ];
    let outputs = ["one", "two", "norm"];
    let taps = model(layers, &["ids"], &outputs, 1);
    let [one, two, three] =
        [("rows of taps + relu", "table one"), ("rows of taps", "table two"), ("rows of taps", "table three norm")];
    assert_eq!(instructions(&taps, &Options::default()), of(&[three, two, one]));
    // The table of the second one is the smallest.
    let [one, three] = [("convolution + relu", "one"), ("convolution", "three norm")];
    let small = Options::default().table_bytes(50 * 4 * 7 * 4);
    assert_eq!(instructions(&taps, &small), of(&[("rows", "table"), three, two, one]));
    for threads in [1, 3] {
        let engine = taps.compile(&Options::default().threads(threads)).unwrap();
        for (batch, steps) in [(1, 4), (3, 11), (40, 60), (2, 5)] {
            let mut generator = Generator::new(steps as u64);
            // Some from the end.
            let ids = (0..batch * steps).map(|_| generator.below(100) as i64 - 50).collect::<Vec<_>>();
            let ids = [Value::new(Tensor::from_vec(ids, (batch, steps), &Device::Cpu).unwrap(), Dtype::Int64)];
            let (ours, models) = (engine.run(&ids).unwrap(), taps.run(&ids).unwrap());
            for (ours, models) in ours.iter().zip(&models) {
                assert!(crate::graphs::difference(ours, models) <= 1e-5, "{batch} x {steps}, {threads} threads");
            }
        }
        assert_eq!(engine.handed_over(), (0, None));
        // An id that no window of a convolution sees is wrong all the same.
        let beyond = [Value::new(Tensor::new(&[[1_i64, 2, 3, 4, 50]], &Device::Cpu).unwrap(), Dtype::Int64)];
        assert!(engine.run(&beyond).unwrap_err().to_string().contains("id 50"));
    }

    for (class, units) in [("LSTM", 24), ("GRU", 18), ("SimpleRNN", 6)] {
        let layers = vec![
            input("ids", json!([null, null]), "int32"),
            layer("Embedding", "table", json!({"input_dim": 50, "output_dim": 5, "mask_zero": true}), &["ids"]),
            layer(class, "last", json!({"units": 6}), &["table"]),
        ];
        let gates = model(layers, &["ids"], &["last"], 1);
        let [mask, table] = [("mask", "table"), ("rows", "table last")];
        let folded = instructions(&gates, &Options::default().table_bytes(50 * units * 4));
        assert_eq!(folded, of(&[mask, table, ("recurrent", "last")]), "{class}");
        let apart = instructions(&gates, &Options::default().table_bytes(0));
        assert_eq!(apart, of(&[mask, ("rows", "table"), ("recurrent", "last")]), "{class}");
    }
}

#[test]
fn a_batch_of_no_rows_gives_none() {
    let layers = vec![
        input("x", json!([null, 2, 3, 4]), "float32"),
        layer("GroupNormalization", "norm", json!({"groups": 2, "axis": -1}), &["x"]),
        layer("UpSampling2D", "up", json!({"size": [2, 2]}), &["norm"]),
        layer("Maximum", "last", json!({}), &["up", "up"]),
        input("ids", json!([null, 5]), "int32"),
        layer("Embedding", "table", json!({"input_dim": 9, "output_dim": 16}), &["ids"]),
        layer("Conv1D", "taps", json!({"filters": 3, "kernel_size": [2]}), &["table"]),
        layer("Attention", "attended", json!({}), &["taps", "taps"]),
    ];
    let model = model(layers, &["x", "ids"], &["last", "attended"], 1);
    let xs = Tensor::zeros((0, 2, 3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let ids = Tensor::zeros((0, 5), candle_core::DType::I64, &Device::Cpu).unwrap();
    for threads in [1, 2] {
        let engine = model.compile(&Options::default().threads(threads)).unwrap();
        assert_eq!(engine.compiled().calls, 0);
        let made =
            engine.run(&[Value::new(xs.clone(), Dtype::Float32), Value::new(ids.clone(), Dtype::Int64)]).unwrap();
        let dims: Vec<&[usize]> = made.iter().map(|value| value.tensor.dims()).collect();
        assert_eq!(dims, [&[0, 4, 6, 4][..], &[0, 4, 3]]);
        assert_eq!(engine.handed_over(), (0, None));
    }
}

#[test]
fn a_large_output_of_a_table_is_whole() {
    let table = json!({"input_dim": 50, "output_dim": 65});
    let layers = vec![input("ids", json!([null, null]), "int32"), layer("Embedding", "table", table, &["ids"])];
    let model = model(layers, &["ids"], &["table"], 1);
    // More than 16 MiB, also for each of two threads, with rows that begin anywhere.
    let (batch, steps) = (4, 33_000);
    let mut generator = Generator::new(1);
    let ids = (0..batch * steps).map(|_| generator.below(50) as i64).collect::<Vec<_>>();
    let ids = [Value::new(Tensor::from_vec(ids, (batch, steps), &Device::Cpu).unwrap(), Dtype::Int64)];
    let models = model.run(&ids).unwrap();
    for threads in [1, 2] {
        let engine = model.compile(&Options::default().threads(threads)).unwrap();
        assert_eq!(crate::numbers(&engine.run(&ids).unwrap()[0]), crate::numbers(&models[0]), "{threads} threads");
    }
}

#[test]
fn what_follows_an_embedding_row_by_row_goes_into_its_table_where_that_is_worth_its_memory() {
    let layers = |units: usize| {
        vec![
            input("ids", json!([null, null]), "int32"),
            layer("Embedding", "table", json!({"input_dim": 50, "output_dim": 8}), &["ids"]),
            layer("Dense", "dense", json!({"units": units, "activation": "tanh"}), &["table"]),
            layer("LayerNormalization", "norm", json!({"axis": [-1]}), &["dense"]),
            layer("Dense", "last", json!({"units": 3, "activation": "softmax"}), &["norm"]),
        ]
    };
    let narrow = model(layers(6), &["ids"], &["last"], 1);
    assert_eq!(instructions(&narrow, &Options::default()), of(&[("rows", "table dense norm last")]));
    // A wide layer on the way is no matter: what counts is the table that is left.
    let none = Options::default().table_bytes(0);
    let wide = model(layers(500), &["ids"], &["last"], 1);
    assert_eq!(instructions(&wide, &none), of(&[("rows", "table dense norm last")]));
    // A table of 50 × 500 numbers is larger than the weights of 50 × 8 and 8 × 500.
    let behind = model(layers(500), &["ids"], &["norm"], 1);
    let kept = [("rows", "table"), ("product + tanh", "dense"), ("normalize", "norm")];
    assert_eq!(instructions(&behind, &none), of(&kept));
    assert_eq!(instructions(&behind, &Options::default()), of(&[("rows", "table dense norm")]));
}

#[test]
fn query_key_and_value_are_one_product_and_the_residual_goes_with_the_last() {
    let mut attention =
        layer("MultiHeadAttention", "attention", json!({"num_heads": 2, "key_dim": 5, "use_bias": false}), &["x", "x"]);
    attention["inbound_nodes"][0]["kwargs"] = json!({"use_causal_mask": true});
    let layers = vec![
        input("x", json!([null, null, 6]), "float32"),
        attention,
        layer("Add", "sum", json!({}), &["x", "attention"]),
    ];
    let model = model(layers, &["x"], &["sum"], 1);
    let engine = model.compile(&Options::default()).unwrap();
    let expected = [("attention in 2 products + sum", "attention sum")];
    assert_eq!(instructions(&model, &Options::default()), of(&expected));
    let input = [Value::new(Generator::new(1).tensor(&[2, 4, 6]), Dtype::Float32)];
    let (ours, models) = (engine.run(&input).unwrap(), model.run(&input).unwrap());
    assert!(crate::graphs::difference(&ours[0], &models[0]) <= 1e-6);
}

#[test]
fn a_tensor_that_others_read_too_is_left_as_it_is() {
    let layers = vec![
        input("x", json!([null, 6]), "float32"),
        layer("Dense", "dense", json!({"units": 5}), &["x"]),
        layer("ReLU", "relu", json!({}), &["dense"]),
        layer("Activation", "tanh", json!({"activation": "tanh"}), &["dense"]),
    ];
    let model = model(layers, &["x"], &["relu", "tanh"], 1);
    let expected = [("product", "dense"), ("map", "tanh"), ("map", "relu")];
    assert_eq!(instructions(&model, &Options::default()), of(&expected));
    let input = [Value::new(Generator::new(1).tensor(&[2, 6]), Dtype::Float32)];
    let engine = model.compile(&Options::default()).unwrap();
    for (ours, models) in engine.run(&input).unwrap().iter().zip(model.run(&input).unwrap()) {
        let worst =
            (&ours.tensor - &models.tensor).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-6, "{worst}");
    }
}

#[test]
fn what_is_the_same_is_computed_once() {
    let conv = json!({"filters": 4, "kernel_size": [3, 3], "padding": "same"});
    let mut conv = layer("Conv2D", "conv", conv, &["x"]);
    // The layer is called on the same tensor a second time.
    let call = conv["inbound_nodes"][0].clone();
    conv["inbound_nodes"].as_array_mut().unwrap().push(call);
    let mut second = layer("Activation", "act_too", json!({"activation": "relu"}), &["conv"]);
    second["inbound_nodes"][0]["args"][0]["config"]["keras_history"][1] = json!(1);
    let pool = json!({"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"});
    let other = json!({"pool_size": [2, 2], "strides": [2, 1], "padding": "valid"});
    let layers = vec![
        input("x", json!([null, 6, 6, 3]), "float32"),
        conv,
        layer("ReLU", "act", json!({}), &["conv"]),
        second,
        layer("MaxPooling2D", "pool", pool.clone(), &["act"]),
        layer("MaxPooling2D", "pool_too", pool.clone(), &["act_too"]),
        layer("AveragePooling2D", "mean", pool, &["act"]),
        layer("MaxPooling2D", "other", other, &["act_too"]),
        layer("Add", "sum", json!({}), &["pool", "pool_too"]),
        layer("Subtract", "difference", json!({}), &["sum", "mean"]),
    ];
    let model = model(layers, &["x"], &["difference", "act_too", "other", "act"], 1);
    let expected = [
        ("convolution + relu", "conv act_too act"),
        ("pool", "pool pool_too"),
        ("merge", "sum"),
        ("pool", "mean"),
        ("pool", "other"),
        ("merge", "difference"),
    ];
    assert_eq!(instructions(&model, &Options::default()), of(&expected));
    let input = [Value::new(Generator::new(1).tensor(&[2, 6, 6, 3]), Dtype::Float32)];
    let engine = model.compile(&Options::default()).unwrap();
    for (ours, models) in engine.run(&input).unwrap().iter().zip(model.run(&input).unwrap()) {
        assert!(crate::graphs::difference(ours, &models) <= 1e-6);
    }
}

#[test]
fn what_depends_on_constants_alone_is_computed_once() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs/models/Functional/nested_on_a_constant");
    let file = format!("{folder}/model.keras");
    let expected =
        of(&[("rows", "embedder/token"), ("merge", "embedder/sum"), ("normalize", "norm"), ("product", "head")]);
    let model = Model::load(&file, &candle_core::Device::Cpu).unwrap();
    assert_eq!(instructions(&model, &Options::default()), expected);
    let engine = kandle::Engine::load(&file, &Options::default()).unwrap();
    let shown: Vec<_> =
        engine.compiled().instructions.into_iter().map(|made| (made.work, made.layers.join(" "))).collect();
    assert_eq!(shown, expected);
    let case = kandle::parity::Case::open(folder).unwrap();
    let verdict = kandle::parity::check(&case, "model.keras", &kandle::JudgedEngine(&engine));
    assert!(verdict.is_ok(), "{verdict}");
}
