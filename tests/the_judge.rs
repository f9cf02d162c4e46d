//! The judge is judged: each of these mistakes must turn a case red, in the layer where it was made.

use std::{fs, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder, VarMap};
use example3::Example3;
use kandle::{
    Archive, Judged, Limits, Model, Plan,
    parity::{Array, Case, Failure, How, LayerCall, Standing, Subject, Trace, Verdict, check},
};

fn case(name: &str) -> Case {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "reference_outputs", name].iter().collect();
    Case::open(folder).unwrap()
}

fn load(case: &Case) -> Model {
    Model::load(case.path.join("model.keras"), &Device::Cpu).unwrap()
}

/// The layers that failed alone, fed Keras's own inputs.
fn wrong_layers(verdict: &Verdict) -> Vec<&str> {
    let mut layers: Vec<&str> =
        verdict.failures().filter(|check| check.how == How::Isolated).map(|check| check.layer.as_str()).collect();
    layers.dedup();
    layers
}

/// A mistake made in one variable of a model.
struct Mistake {
    says: &'static str,
    case: &'static str,
    variable: &'static str,
    make: fn(&Tensor) -> candle_core::Result<Tensor>,
    wrong: &'static str,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        says: "one weight nudged by a thousandth",
        case: "example3/2x3",
        variable: "dense.weight",
        make: |kernel| kernel + nudge(kernel, 1e-3)?,
        wrong: "dense",
    },
    Mistake {
        says: "one embedding nudged by one unit in the last place",
        case: "example1/2x3",
        variable: "embedding.weight",
        make: |table| {
            let mut numbers = table.flatten_all()?.to_vec1::<f32>()?;
            // Feature 5 of id 3.
            numbers[3 * 128 + 5] = numbers[3 * 128 + 5].next_up();
            Tensor::from_vec(numbers, table.shape(), &Device::Cpu)
        },
        wrong: "embedding",
    },
    Mistake {
        says: "two rows of the embedding swapped",
        case: "example3/2x3",
        variable: "embedding.weight",
        make: |table| {
            let order: Vec<u32> = (0..1000).map(|row| [0, 2, 1].get(row).copied().unwrap_or(row as u32)).collect();
            table.index_select(&Tensor::new(order, &Device::Cpu)?, 0)
        },
        wrong: "embedding",
    },
    Mistake {
        says: "the bias dropped",
        case: "example3/2x3",
        variable: "dense.bias",
        make: Tensor::zeros_like,
        wrong: "dense",
    },
    Mistake {
        says: "a square kernel transposed",
        case: "core/Dense/square",
        variable: "dense.weight",
        make: |kernel| kernel.t()?.contiguous(),
        wrong: "dense",
    },
    Mistake {
        says: "a NaN in the bias",
        case: "example3/2x3",
        variable: "dense.bias",
        make: |bias| bias + nudge(bias, f64::NAN)?,
        wrong: "dense",
    },
];

/// Zeros like `tensor`, with `number` first.
fn nudge(tensor: &Tensor, number: f64) -> candle_core::Result<Tensor> {
    let mut numbers = vec![0.0; tensor.elem_count()];
    numbers[0] = number;
    Tensor::from_vec(numbers, tensor.shape(), &Device::Cpu)?.to_dtype(DType::F32)
}

#[test]
fn every_mistake_in_a_weight_is_found_in_its_layer() {
    for mistake in MISTAKES {
        let case = case(mistake.case);
        let model = load(&case);
        let right = check(&case, "model.keras", &Judged(&model));
        assert!(right.is_ok(), "{}: red before the mistake\n{right}", mistake.says);
        {
            let vars = model.var_map().data().lock().unwrap();
            let var = &vars[mistake.variable];
            let copy = var.as_detached_tensor().copy().unwrap();
            var.set(&(mistake.make)(&copy).unwrap()).unwrap();
        }
        let verdict = check(&case, "model.keras", &Judged(&model));
        assert!(!verdict.is_ok(), "{}: not noticed", mistake.says);
        assert_eq!(wrong_layers(&verdict), [mistake.wrong], "{}", mistake.says);
        assert!(verdict.failures().any(|check| check.how == How::Output), "{}: the outputs passed", mistake.says);
    }
}

/// The article's third example: the embedding is copied, the dense layer stays random, and only shapes are compared.
#[test]
fn the_articles_own_recipe_is_red() {
    let case = case("example3/2x3");
    let vars = VarMap::new();
    let port = Example3::new(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    let archive = Archive::open(case.path.join("model.keras"), &Limits::default()).unwrap();
    let (keras, _) = Plan::new(&archive.config().unwrap()).unwrap().load(&archive, &Device::Cpu).unwrap();
    let embedding = keras.data().lock().unwrap()["embedding.weight"].as_detached_tensor();
    vars.data().lock().unwrap()["embedding.weight"].set(&embedding).unwrap();

    let subject = Answers(|ids| Ok(vec![port.forward(&ids.to_dtype(DType::I64)?)?]));
    let outputs = subject.run(&case.input_arrays()).unwrap();
    assert_eq!(outputs[0].shape(), [2, 3, 64], "the shapes agree, as the article found");
    let verdict = check(&case, "model.keras", &subject);
    assert!(!verdict.is_ok(), "a random layer passed");
    assert!(verdict.to_string().contains("of 384 numbers differ"), "{verdict}");
}

/// A subject that answers with whatever its function makes of the ids.
struct Answers<F: Fn(&Tensor) -> candle_core::Result<Vec<Tensor>>>(F);

impl<F: Fn(&Tensor) -> candle_core::Result<Vec<Tensor>>> Subject for Answers<F> {
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
        let outputs = self.0(&inputs[0].to_tensor(&Device::Cpu)?)?;
        outputs.iter().map(|output| Ok(Array::try_from(output)?)).collect()
    }
}

#[test]
fn answers_of_the_wrong_form_are_red() {
    let case = case("example3/2x3");
    let model = load(&case);
    type Change = fn(Tensor) -> candle_core::Result<Vec<Tensor>>;
    let changes: [(&str, Change, &str); 6] = [
        ("wrong shape", |ys| Ok(vec![ys.flatten(0, 1)?]), "shape"),
        ("wrong dtype", |ys| Ok(vec![ys.to_dtype(DType::F64)?]), "float64"),
        ("no output", |_| Ok(vec![]), "outputs: expected 1, found 0"),
        ("one output too many", |ys| Ok(vec![ys.clone(), ys]), "outputs: expected 1, found 2"),
        ("nothing to compare", |ys| Ok(vec![ys.narrow(0, 0, 0)?]), "shape"),
        ("an error", |_| candle_core::bail!("out of order"), "out of order"),
    ];
    for (says, change, text) in changes {
        let verdict = check(&case, "model.keras", &Answers(|ids| change(model.forward(ids)?)));
        assert!(!verdict.is_ok(), "{says}: not noticed");
        assert!(verdict.to_string().contains(text), "{says}: {verdict}");
    }
}

/// The right outputs, but a layer on the way that loses its mask.
struct WithoutMasks<'a>(Judged<'a>);

impl Subject for WithoutMasks<'_> {
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
        self.0.run(inputs)
    }

    fn trace(&self, inputs: &[Array]) -> Result<Trace, Failure> {
        let mut trace = Trace::default();
        for (path, call, made) in self.0.trace(inputs)?.iter() {
            let masks = made.outputs.iter().map(|_| None).collect();
            trace.insert(path, call, LayerCall { outputs: made.outputs.clone(), masks });
        }
        Ok(trace)
    }
}

#[test]
fn a_lost_mask_is_red() {
    let case = case("core/Embedding/mask_zero");
    let model = load(&case);
    assert!(check(&case, "model.keras", &Judged(&model)).is_ok());
    let verdict = check(&case, "model.keras", &WithoutMasks(Judged(&model)));
    let failed: Vec<&str> = verdict.failures().map(|check| check.tensor.as_str()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|tensor| *tensor == "mask_0"), "{failed:?}");
}

/// One model as a folder, as an architecture with its weights, and as weights whose configuration lies beside them.
#[test]
fn a_model_in_several_files_is_judged_as_one() {
    let recorded = case("core/Dense/rank2").path;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("model")).unwrap();
    let mut zip = zip::ZipArchive::new(fs::File::open(recorded.join("model.keras")).unwrap()).unwrap();
    for index in 0..zip.len() {
        let mut member = zip.by_index(index).unwrap();
        let mut file = fs::File::create(at("model").join(member.name().unwrap().as_ref())).unwrap();
        std::io::copy(&mut member, &mut file).unwrap();
    }
    fs::copy(at("model/config.json"), at("model.json")).unwrap();
    for name in ["weights.h5", "model.weights.h5"] {
        fs::copy(recorded.join("model.weights.h5"), at(name)).unwrap();
    }
    fs::copy(recorded.join("io.safetensors"), at("io.safetensors")).unwrap();
    let mut words: serde_json::Value = serde_json::from_slice(&fs::read(recorded.join("case.json")).unwrap()).unwrap();
    words["files"] = serde_json::json!(["model", "model.json", "weights.h5", "model.weights.h5"]);
    fs::write(at("case.json"), words.to_string()).unwrap();

    let report = kandle::verify(folder.path());
    assert_eq!(report.standing(), Standing::Ok, "{}", report.line());
    let judged: Vec<&str> = report.files.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(judged, ["model", "model.json", "model.weights.h5"]);
    let pair = kandle::open_recorded(&Case::open(folder.path()).unwrap(), "weights.h5").unwrap();
    assert!(pair.name().ends_with("/model.json with weights.h5"), "{}", pair.name());
    // Without its weights it is no model.
    for name in ["weights.h5", "model.weights.h5"] {
        fs::remove_file(at(name)).unwrap();
    }
    let reason = kandle::verify(folder.path()).line();
    assert!(
        reason.contains("model.json: expected beside it one of weights.h5, model.weights.json, model.weights.h5"),
        "{reason}"
    );
}
