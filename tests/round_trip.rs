//! What is loaded is what the file holds, candle finds it, gradients reach it, and every layout has its exact inverse.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder, VarMap};
use kandle::{
    Archive, Container, Dtype, FileLayer, Judged, Limits, Model, ModelConfig, Plan, WeightMap,
    parity::{Array, Case, check, compare, find_cases},
};
use serde_json::json;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs");

/// Every recorded case that runs, with each of its files that holds a whole model.
fn models() -> Vec<(Case, Archive)> {
    let mut models = Vec::new();
    for folder in find_cases(CASES).unwrap() {
        let case = Case::open(folder).unwrap();
        for file in case.files.iter().filter(|file| case.expect.is_none() && !file.contains("weights")) {
            models.push((case.clone(), kandle::open_recorded(&case, file).unwrap()));
        }
    }
    models
}

#[test]
fn every_weight_goes_back_to_the_bytes_of_the_file() {
    let mut compared = 0;
    for (_, archive) in models() {
        let plan = Plan::new(&archive.config().unwrap()).unwrap();
        let (vars, report) = plan.load(&archive, &Device::Cpu).unwrap();
        let vars = vars.data().lock().unwrap();
        assert_eq!(vars.len(), report.loaded.len());
        // Where candle has several variables for one array, they are its parts, one after another.
        let mut arrays: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        let old = ["keras-1.2.2", "theano", "cudnn"].iter().any(|part| archive.name().contains(part));
        for weight in report.loaded.iter().filter(|weight| weight.stored == Dtype::Float32) {
            if weight.reordered {
                assert!(old, "{}: {} is reordered", archive.name(), weight.name);
                continue;
            }
            let numbers = vars[&weight.name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let back = weight.layout.to_keras(numbers, &weight.layout.keras_shape(&weight.shape));
            let bytes = back.iter().flat_map(|number| number.to_le_bytes());
            arrays.entry(&weight.from).or_default().extend(bytes);
        }
        for (from, bytes) in arrays {
            let stored = archive.arrays().array(from).unwrap().bytes().unwrap();
            assert!(bytes == *stored, "{}: {from}", archive.name());
            compared += bytes.len();
        }
    }
    assert!(compared > 1_000_000, "only {compared} bytes were compared");
}

/// The outputs of a case cannot see a weight that no input reaches, such as an embedding's unused rows. This does.
#[test]
fn every_file_of_a_case_holds_the_same_weights() {
    let mut compared = 0;
    for folder in find_cases(CASES).unwrap() {
        let case = Case::open(folder).unwrap();
        if case.expect.is_some() {
            continue;
        }
        let mut weights = case.files.iter().map(|file| {
            let model = kandle::load_recorded(&case, file).unwrap();
            let vars = model.var_map().data().lock().unwrap();
            let bits = |tensor: &Tensor| numbers(tensor).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
            vars.iter().map(|(name, var)| (name.clone(), bits(var.as_tensor()))).collect::<BTreeMap<_, _>>()
        });
        let first = weights.next().unwrap();
        for other in weights {
            assert!(first == other, "{}: the files differ", case.path.display());
            compared += other.len();
        }
    }
    assert!(compared > 50, "only {compared} weights were compared");
}

/// What `kandle convert` writes is the same model: the same plan, and the same variables bit for bit.
#[test]
fn a_model_written_as_safetensors_and_json_is_the_same_model() {
    let (folder, mut models_read) = (tempfile::tempdir().unwrap(), 0);
    let path = folder.path().join("model.safetensors");
    for (_, archive) in models() {
        let config = archive.config().unwrap();
        let plan = Plan::new(&config).unwrap();
        let mut file = std::fs::File::create(&path).unwrap();
        plan.weights().write_safetensors(&archive, &[("format", "pt")], &mut file).unwrap();
        let text = config.to_json(archive.config_json().unwrap(), archive.backend(), &[("from", "a test")]).unwrap();

        let again = ModelConfig::from_json(&text).unwrap();
        // Where it stands is another place.
        let plan_again = Plan::new(&again).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{plan_again:?}"), "{}", archive.name());
        let (ours, _) = plan.load(&archive, &Device::Cpu).unwrap();
        let (theirs, report) = plan_again.load_safetensors(&path, &Device::Cpu).unwrap();
        let (ours, theirs) = (ours.data().lock().unwrap(), theirs.data().lock().unwrap());
        assert_eq!((ours.len(), report.loaded.len()), (theirs.len(), theirs.len()), "{}", archive.name());
        for (name, var) in ours.iter() {
            let other = theirs[name].as_tensor();
            assert_eq!((var.dtype(), var.dims()), (other.dtype(), other.dims()), "{}: {name}", archive.name());
            assert!(bits(var.as_tensor()) == bits(other), "{}: {name}", archive.name());
        }
        models_read += 1;
    }
    assert!(models_read > 100, "only {models_read} models were written and read");
}

/// A safetensors file that is not the model's is refused, with all that is wrong.
#[test]
fn safetensors_that_do_not_fit_are_refused_together() {
    use safetensors::{Dtype as Stored, serialize, tensor::TensorView};
    let open = |name: &str| Archive::open(format!("{CASES}/{name}/model.keras"), &Limits::default()).unwrap();
    let plan = Plan::new(&open("rnn/LSTM/last").config().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lstm.safetensors");
    type Given<'a> = (&'a str, Stored, &'a [usize], &'a [u8]);
    let refusal = |tensors: &[Given<'_>]| {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
        std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
        let error = plan.load_safetensors(&path, &Device::Cpu).err().unwrap().to_string();
        error.replace(path.to_str().unwrap(), "F")
    };
    let zeros = [0; 16 * 4 * 4];
    let mut one = [0; 64];
    one[5] = 1;
    let (ih, hh): (&[usize], &[usize]) = (&[16, 3], &[16, 4]);
    let bias = ("lstm.bias_ih_l0", Stored::F32, &[16][..], &zeros[..64]);
    let kernels =
        [("lstm.weight_ih_l0", Stored::F32, ih, &zeros[..192]), ("lstm.weight_hh_l0", Stored::F32, hh, &zeros[..])];
    let [first, second] = kernels;
    assert_eq!(
        refusal(&[first, second, bias, ("lstm.bias_hh_l0", Stored::F32, &[16], &one)]),
        "F › layer \"lstm\" (LSTM): lstm.bias_hh_l0: expected zeros, as Keras's LSTM has one bias, found another number at [1]"
    );
    assert_eq!(
        refusal(&[
            ("lstm.weight_ih", Stored::F32, ih, &zeros[..192]),
            second,
            ("lstm.bias_ih_l0", Stored::F16, &[16], &zeros[..32])
        ]),
        "F: 3 problems\n  \
         layer \"lstm\" (LSTM): lstm.weight_ih_l0: missing: expected [16, 3], the nearest is lstm.weight_ih\n  \
         layer \"lstm\" (LSTM): lstm.bias_ih_l0: expected float32, found F16\n  \
         lstm.weight_ih: no layer of the model has this weight"
    );
    assert_eq!(
        refusal(&[("lstm.weight_ih_l0", Stored::F32, &[3, 16], &zeros[..192]), second, bias]),
        "F › layer \"lstm\" (LSTM): lstm.weight_ih_l0: expected [16, 3], found [3, 16]"
    );
    std::fs::write(&path, b"\x08\0\0\0\0\0\0\0{}").unwrap();
    let error = plan.load_safetensors(&path, &Device::Cpu).err().unwrap();
    assert!(error.to_string().contains("not safetensors: "), "{error}");
}

#[test]
fn candle_finds_the_variables_under_its_own_names() {
    let archive = Archive::open(format!("{CASES}/example3/2x3/model.keras"), &Limits::default()).unwrap();
    let (model, _) = Model::from_archive(&archive, &Device::Cpu).unwrap();
    let ids = Tensor::new(&[[1i64, 2, 3], [4, 5, 6]], &Device::Cpu).unwrap();
    let ours = model.forward(&ids).unwrap();

    // Variables first, candle-nn's layers on them.
    let vb = VarBuilder::from_varmap(model.var_map(), DType::F32, &Device::Cpu);
    let embedding = candle_nn::embedding(1000, 128, vb.pp("embedding")).unwrap();
    let dense = candle_nn::linear(128, 64, vb.pp("dense")).unwrap();
    let forward = |ids: &Tensor| dense.forward(&embedding.forward(ids)?)?.relu();
    assert_eq!(numbers(&forward(&ids).unwrap()), numbers(&ours));
    assert_eq!(model.var_map().all_vars().len(), 3, "candle-nn made no variable of its own");

    // Saved by candle, read by candle.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example3.safetensors");
    model.var_map().save(&path).unwrap();
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    assert_eq!(tensors["dense.weight"].dims(), [64, 128]);
    assert_eq!(tensors["embedding.weight"].dims(), [1000, 128]);
}

#[test]
fn renamed_and_kept_variables_are_what_the_caller_says() {
    let archive = Archive::open(format!("{CASES}/example3/2x3/model.keras"), &Limits::default()).unwrap();
    let plan = Plan::new(&archive.config().unwrap()).unwrap();
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    candle_nn::embedding(1000, 128, vb.pp("tokens")).unwrap();
    candle_nn::linear(128, 64, vb.pp("body.hidden")).unwrap();
    candle_nn::linear(64, 2, vb.pp("head")).unwrap();
    let head = numbers(&vars.data().lock().unwrap()["head.weight"]);

    let map = plan.weights().clone().rename("embedding", "tokens").unwrap().rename("dense", "body.hidden").unwrap();
    let error = map.load_into(&archive, &vars).unwrap_err().to_string();
    assert!(error.contains("variable head.bias: the file has no weight for it"), "{error}");
    let report = map.keep("head").load_into(&archive, &vars).unwrap();
    assert_eq!(report.kept, ["head.bias", "head.weight"]);
    assert_eq!(
        report.loaded.iter().map(|weight| weight.name.as_str()).collect::<Vec<_>>(),
        ["tokens.weight", "body.hidden.weight", "body.hidden.bias"]
    );
    assert_eq!(numbers(&vars.data().lock().unwrap()["head.weight"]), head, "a kept variable was changed");
    let error = plan.weights().clone().rename("dens", "x").unwrap_err().to_string();
    assert_eq!(error, "layer \"dens\": no layer of this name has weights, the nearest is \"dense\"");
}

/// A bare `.weights.h5` says nothing of its layers: the caller does, in Keras's words.
#[test]
fn a_bare_weights_file_fills_a_model_built_by_hand() {
    let case = Case::open(format!("{CASES}/example3/2x3")).unwrap();
    let archive = Archive::open(case.path.join("model.weights.h5"), &Limits::default()).unwrap();
    assert_eq!(archive.container(), Container::Weights);
    let map = WeightMap::new(&[
        FileLayer::at("layers/embedding").is("Embedding", json!({"input_dim": 1000, "output_dim": 128})),
        FileLayer::at("layers/dense").is("Dense", json!({"units": 64})).of(&[128]).fills("hidden"),
    ]);
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let table = candle_nn::embedding(1000, 128, vb.pp("embedding")).unwrap();
    let hidden = candle_nn::linear(128, 64, vb.pp("hidden")).unwrap();
    let report = map.unwrap().load_into(&archive, &vars).unwrap();
    assert_eq!(report.loaded.len(), 3);

    let ids = case.input_arrays()[0].to_tensor(&Device::Cpu).unwrap().to_dtype(DType::I64).unwrap();
    let ours = hidden.forward(&table.forward(&ids).unwrap()).unwrap().relu().unwrap();
    let comparison = compare(&Array::try_from(ours).unwrap(), case.output(0).unwrap(), case.tolerance_of(0));
    assert!(comparison.passed() && comparison.compared == 384, "{comparison}");

    let error = archive.config().unwrap_err().to_string();
    assert!(error.ends_with(
        "weights without a configuration: open them together with the model they belong to, or say which layer is which"
    ));
}

/// `model.to_json()` of Keras 3 writes what stands in config.json, without a version.
#[test]
fn an_architecture_in_json_takes_weights_from_another_file() {
    let case = Case::open(format!("{CASES}/example3/2x3")).unwrap();
    let keras = std::fs::File::open(case.path.join("model.keras")).unwrap();
    let text = std::io::read_to_string(zip::ZipArchive::new(keras).unwrap().by_name("config.json").unwrap()).unwrap();
    assert!(!text.contains("keras_version"));

    let config = ModelConfig::from_json(&text).unwrap();
    assert_eq!(config.keras_major(), 3);
    let plan = Plan::new(&config).unwrap();
    let archive = Archive::open(case.path.join("model.weights.h5"), &Limits::default()).unwrap();
    let (vars, _) = plan.load(&archive, &Device::Cpu).unwrap();
    let verdict = check(&case, "model.weights.h5", &Judged(&plan.with(&vars).unwrap()));
    assert!(verdict.is_ok(), "{verdict}");

    let without_version = r#"{"class_name": "Sequential", "config": []}"#;
    let error = Plan::new(&ModelConfig::from_json(without_version).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "model.json: a model without layers");
}

/// A part of the file's path, the end of the variable's name, what the gradient is, and why.
const WITHOUT_GRADIENT: [(&str, &str, &str, &str); 8] = [
    ("attention/", "key_dense.bias", "is zero", "moves all scores of a softmax by the same"),
    ("GroupedQueryAttention/masks/", "query_dense.kernel", "is zero", "one key only is allowed; in TensorFlow too"),
    ("GroupedQueryAttention/masks/", "query_dense.bias", "is zero", "one key only is allowed; in TensorFlow too"),
    ("GroupedQueryAttention/masks/", "key_dense.kernel", "is zero", "one key only is allowed; in TensorFlow too"),
    ("Normalization/ints/", ".weight", "is missing", "the result is cast to whole numbers; in TensorFlow too"),
    ("Normalization/ints/", ".bias", "is missing", "the result is cast to whole numbers; in TensorFlow too"),
    ("float8/", "_amax_history", "is missing", "Keras replaces it while training, by the numbers it meets"),
    ("float8/", "outputs_grad_scale", "is missing", "Keras replaces it while training, by the gradients it meets"),
];

#[test]
fn gradients_reach_every_trainable_weight_and_no_frozen_one() {
    let (mut trained, mut frozen, mut wrong) = (0, 0, Vec::new());
    for (case, archive) in models() {
        let (model, _) = Model::from_archive(&archive, &Device::Cpu).unwrap();
        let inputs: Vec<_> = case.input_arrays().iter().map(|input| kandle::value(input).unwrap()).collect();
        let outputs = model.run(&inputs).unwrap();
        let special = outputs.iter().any(|output| numbers(&output.tensor).iter().any(|number| !number.is_finite()));
        if special || model.plan().weights().layers().is_empty() {
            continue;
        }
        let floats = outputs.iter().filter(|output| output.dtype.is_float());
        let squares =
            floats.map(|output| output.tensor.to_dtype(DType::F32).unwrap().sqr().unwrap().sum_all().unwrap());
        let Some(loss) = squares.reduce(|sum, squares| (sum + squares).unwrap()) else { continue };
        let gradients = loss.backward().unwrap();
        let trainable: BTreeSet<String> = model.trainable_vars().into_iter().map(|(name, _)| name).collect();
        for (name, var) in model.var_map().data().lock().unwrap().iter() {
            let gradient = gradients.get(var.as_tensor()).map(numbers);
            let is = match (trainable.contains(name), gradient) {
                (false, None) => {
                    frozen += 1;
                    continue;
                }
                (true, Some(gradient)) if gradient.iter().any(|number| !number.is_finite()) => "is not finite",
                (true, Some(gradient)) if gradient.iter().any(|number| *number != 0.0) => {
                    trained += 1;
                    continue;
                }
                (true, Some(_)) => "is zero",
                (true, None) => "is missing",
                (false, Some(_)) => "is there, though it is frozen",
            };
            let expected = WITHOUT_GRADIENT.iter().any(|(case, end, expected, _)| {
                archive.name().contains(case) && name.ends_with(end) && *expected == is
            });
            if !expected {
                wrong.push(format!("{}: {name}: the gradient {is}", archive.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(trained > 20 && frozen > 1, "{trained} trained, {frozen} frozen");
}

#[test]
fn a_detached_model_shares_the_variables_and_keeps_no_way_back() {
    let model = Model::load(format!("{CASES}/example3/2x3/model.keras"), &Device::Cpu).unwrap();
    let detached = model.detached();
    let xs = Tensor::new(&[[1_i64, 2, 3]], &Device::Cpu).unwrap();
    let (ours, before) = (model.forward(&xs).unwrap(), detached.forward(&xs).unwrap());
    assert!(ours.track_op() && !before.track_op());
    assert_eq!(numbers(&ours), numbers(&before));
    let bias = model.var_map().data().lock().unwrap()["dense.bias"].clone();
    bias.set(&(bias.as_tensor() + 100.0).unwrap()).unwrap();
    let after = detached.forward(&xs).unwrap();
    assert_ne!(numbers(&before), numbers(&after));
    assert_eq!(numbers(&model.forward(&xs).unwrap()), numbers(&after));
}

/// The bits of the numbers, whatever their dtype.
fn bits(tensor: &Tensor) -> Vec<u64> {
    let flat = tensor.flatten_all().unwrap();
    match flat.dtype() {
        DType::F64 => flat.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
        dtype if dtype.is_float() => numbers(&flat).into_iter().map(|number| u64::from(number.to_bits())).collect(),
        _ => flat.to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap().into_iter().map(i64::cast_unsigned).collect(),
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}
