//! The engine against the model: recorded cases, random graphs, memory, threads and errors.

mod files;
mod graphs;
mod made;
mod passes;
mod sequences;

use std::thread;

use candle_core::{Device, Tensor};
use kandle::parity::{Case, find_cases};
use kandle::{Compile as _, Dtype, Engine, Model, Options, Value, View};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs");

fn example3() -> Model {
    Model::load(format!("{CASES}/example3/2x3/model.keras"), &Device::Cpu).unwrap()
}

fn engine(model: &Model) -> Engine {
    model.compile(&Options::default().threads(1)).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn have_same_bytes((one, other): (&Value, &Value)) -> bool {
    one.dtype == other.dtype && kandle::array(one).unwrap().bytes() == kandle::array(other).unwrap().bytes()
}

/// Cases whose numbers the engine leaves to the model, with the reason it gives.
const HANDED_OVER: &[(&str, &str)] = &[
    ("activations/Activation/softmax_special", "a softmax of what is no number"),
    ("activations/Softmax/special", "a softmax of what is no number"),
    ("core/Embedding/uint8_ids", "an input of another dtype"),
    ("merging/Maximum/special", "a largest or smallest number of what is no number"),
    ("merging/Minimum/special", "a largest or smallest number of what is no number"),
    ("pooling/MaxPooling3D/special", "the largest of numbers that are not finite"),
];

#[test]
fn recorded_cases_run_on_kernels_and_the_same_again_on_kept_memory() {
    let mut wrong = vec![];
    for folder in find_cases(CASES).unwrap() {
        let case = Case::open(&folder).unwrap();
        let name = folder.strip_prefix(CASES).unwrap().display().to_string();
        let Some(file) = case.files.first().filter(|_| case.expect.is_none()) else { continue };
        let model = kandle::load_recorded(&case, file).unwrap();
        let engine = engine(&model);
        let inputs: Vec<Value> = case.input_arrays().iter().map(|array| kandle::value(array).unwrap()).collect();
        let runs = [(); 2].map(|()| engine.run(&inputs).unwrap());
        if !runs[0].iter().zip(&runs[1]).all(have_same_bytes) {
            wrong.push(format!("{name}: the second run differs"));
        }
        let known = HANDED_OVER.iter().find(|(case, _)| name.starts_with(case)).map(|(_, reason)| *reason);
        if let (_, Some(reason)) = engine.handed_over()
            && known != Some(&reason)
        {
            wrong.push(format!("{name}: {reason}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn numbers_where_they_lie_give_what_values_give() {
    let engine = engine(&example3());
    let ids: Vec<i32> = (0..40).map(|at| at * 7 % 1000).collect();
    for shape in [[2, 3], [4, 10], [1, 1], [2, 3]] {
        let count = shape[0] * shape[1];
        let tensor = Tensor::from_slice(&ids[..count], &shape, &Device::Cpu).unwrap();
        let values = engine.run(&[Value::new(tensor, Dtype::Int32)]).unwrap();
        let wide: Vec<i64> = ids[..count].iter().map(|id| i64::from(*id)).collect();
        for view in [View::i32(&shape, &ids[..count]), View::i64(&shape, &wide)] {
            let mut out = vec![f32::NAN; count * 64];
            engine.run_into(&[view], &mut [&mut out]).unwrap();
            assert_eq!(out, numbers(&values[0]));
        }
    }
    assert_eq!(engine.handed_over().0, 0);
}

#[test]
fn other_dtypes_are_cast_and_stay_on_kernels() {
    use made::{input, layer, model};
    use serde_json::json;

    let table = json!({"input_dim": 20, "output_dim": 4});
    for (dtype, class) in [("float32", "ReLU"), ("int32", "UnitNormalization")] {
        let layers = vec![
            input("ids", json!([null, null]), dtype),
            layer("Embedding", "table", table.clone(), &["ids"]),
            layer(class, "last", json!({}), &["table"]),
        ];
        let (model, shape, ids) = (model(layers, &["ids"], &["last"], 3), [2, 3], [1_i64, 5, 19, 0, 7, 2]);
        let engine = engine(&model);
        let expected = model.forward(&Tensor::from_slice(&ids, &shape, &Device::Cpu).unwrap()).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let narrow = ids.map(|id| i32::try_from(id).unwrap());
        for view in [View::i64(&shape, &ids), View::i32(&shape, &narrow)] {
            let mut out = vec![f32::NAN; expected.len()];
            engine.run_into(&[view], &mut [&mut out]).unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
            assert!(out.iter().zip(&expected).all(near), "{dtype}: {out:?} {expected:?}");
        }
        assert_eq!(engine.handed_over(), (0, None), "{dtype}");
    }
}

#[test]
fn a_dilation_far_beyond_the_image_asks_for_no_memory() {
    // Its rows of taps are 100,000 cells apart.
    let config = serde_json::json!({
        "filters": 3, "kernel_size": [3, 3], "padding": "same", "dilation_rate": [100_000, 1],
    });
    let layers = vec![
        made::input("x", serde_json::json!([null, 4, 4, 2]), "float32"),
        made::layer("Conv2D", "last", config, &["x"]),
    ];
    let model = made::model(layers, &["x"], &["last"], 1);
    let engine = engine(&model);
    let input = [Value::new(made::Generator::new(1).tensor(&[1, 4, 4, 2]), Dtype::Float32)];
    let (ours, models) = (engine.run(&input).unwrap(), model.run(&input).unwrap());
    assert!(graphs::difference(&ours[0], &models[0]) <= 1e-6);
    assert!(engine.kept_bytes() < 10_000, "{} bytes are kept", engine.kept_bytes());
}

#[test]
fn a_large_batch_gives_what_its_rows_give() {
    use made::{Generator, input, layer, model};
    use serde_json::json;

    // Large enough to be run in parts, and by several threads.
    let conv = json!({"filters": 24, "kernel_size": [3, 3], "padding": "same", "activation": "relu"});
    let images = vec![
        input("x", json!([null, 64, 64, 5]), "float32"),
        layer("Conv2D", "conv", conv, &["x"]),
        layer("MaxPooling2D", "pool", json!({"pool_size": [2, 2]}), &["conv"]),
        layer("GlobalAveragePooling2D", "mean", json!({}), &["pool"]),
        layer("Dense", "last", json!({"units": 7, "activation": "softmax"}), &["mean"]),
    ];
    let attention = json!({"num_heads": 2, "key_dim": 8});
    let sequences = vec![
        input("x", json!([null, 200, 40]), "float32"),
        layer("LSTM", "lstm", json!({"units": 32, "return_sequences": true}), &["x"]),
        layer("MultiHeadAttention", "attention", attention, &["lstm", "lstm"]),
        layer("Add", "last", json!({}), &["lstm", "attention"]),
    ];
    for (layers, outputs, shape) in
        [(images, vec!["last", "mean"], vec![11, 64, 64, 5]), (sequences, vec!["last", "lstm"], vec![30, 200, 40])]
    {
        let model = model(layers, &["x"], &outputs, 5);
        let input = Value::new(Generator::new(9).tensor(&shape), Dtype::Float32);
        let whole = model.run(std::slice::from_ref(&input)).unwrap();
        let alone = engine(&model);
        for threads in [1, 2, 3] {
            let engine = model.compile(&Options::default().threads(threads)).unwrap();
            let ours = engine.run(std::slice::from_ref(&input)).unwrap();
            let again: Vec<Vec<f32>> = {
                let flat = numbers(&input);
                let mut outs: Vec<Vec<f32>> = ours.iter().map(|value| vec![f32::NAN; numbers(value).len()]).collect();
                let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                engine.run_into(&[View::f32(&shape, &flat)], &mut slices).unwrap();
                outs
            };
            for (number, ours) in ours.iter().enumerate() {
                assert!(graphs::difference(ours, &whole[number]) <= 1e-5, "{threads} threads");
                assert_eq!(numbers(ours), again[number]);
            }
            for row in 0..shape[0] {
                let one = Value::new(input.tensor.narrow(0, row, 1).unwrap(), Dtype::Float32);
                for (ours, alone) in ours.iter().zip(alone.run(&[one]).unwrap()) {
                    let of_row = ours.tensor.narrow(0, row, 1).unwrap().flatten_all().unwrap();
                    assert_eq!(of_row.to_vec1::<f32>().unwrap(), numbers(&alone), "row {row}, {threads} threads");
                }
            }
            assert_eq!(engine.handed_over(), (0, None));
            // The whole batch of images would take 6 MB.
            assert!(shape.len() == 3 || engine.kept_bytes() < threads * 2_500_000, "{} bytes", engine.kept_bytes());
        }
    }
}

#[test]
fn many_threads_run_one_engine_at_once() {
    let model = example3();
    for threads in [1, 2] {
        let engine = model.compile(&Options::default().threads(threads)).unwrap();
        thread::scope(|scope| {
            for number in 0..8 {
                let (engine, model) = (&engine, &model);
                scope.spawn(move || {
                    for size in 1..40 {
                        let ids: Vec<u32> = (0..size).map(|at| (at * 13 + number * 101) % 1000).collect();
                        let ids = Tensor::from_vec(ids, (1, size as usize), &Device::Cpu).unwrap();
                        let of = |ys: Tensor| ys.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                        let (ours, models) = (of(engine.forward(&ids).unwrap()), of(model.forward(&ids).unwrap()));
                        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5;
                        assert!(ours.iter().zip(&models).all(near), "thread {number}, {size} ids");
                    }
                });
            }
        });
    }
}

#[test]
fn what_is_wrong_is_said_as_the_model_says_it() {
    let (model, shape) = (example3(), [1, 2]);
    let engine = engine(&model);
    let mut out = vec![0.0; 2 * 64];
    let beyond = Tensor::new(&[[3_i64, 1000]], &Device::Cpu).unwrap();
    let told = model.forward(&beyond).unwrap_err().to_string();
    assert!(told.contains("id 1000") && told.contains("embedding"), "{told}");
    assert_eq!(engine.forward(&beyond).unwrap_err().to_string(), told);
    assert_eq!(engine.run_into(&[View::i64(&shape, &[3, 1000])], &mut [&mut out]).unwrap_err().to_string(), told);

    let ids = [1, 2];
    for (error, expected) in [
        (engine.run_into(&[], &mut [&mut out]), "expected 1 inputs and 1 outputs, found 0 and 1"),
        (
            engine.run_into(&[View::i32(&[1, 3], &ids)], &mut [&mut out]),
            "expected as many numbers as the shape [1, 3] has, found 2",
        ),
        (
            engine.run_into(&[View::i32(&shape, &ids)], &mut [&mut [0.0; 3]]),
            "output 0 has 128 numbers, of shape [1, 2, 64]: found room for 3",
        ),
    ] {
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
    // Kept memory is not spoiled by what failed.
    assert_eq!(engine.run_into(&[View::i32(&shape, &ids)], &mut [&mut out]).map_err(|error| error.to_string()), Ok(()));
}
