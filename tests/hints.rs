//! Each mistake that a hint knows, made in a port of its own, and the words in which the hint names it.

use std::{fs, path::PathBuf};

use candle_core::{Device, Tensor};
use kandle::{
    Judged, Model, explain, judge,
    parity::{Array, Case, Failure, How, LayerCall, MadeIn, Outcome, Subject, Verdict, check, find_cases},
};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs");

fn case(name: &str) -> Case {
    Case::open(PathBuf::from(CASES).join(name)).unwrap()
}

fn load(case: &Case) -> Model {
    Model::load(case.path.join(&case.files[0]), &Device::Cpu).unwrap()
}

/// The hints of the layers that failed alone.
fn hints(verdict: &Verdict) -> Vec<String> {
    let failed = verdict.failures().filter(|check| check.how == How::Isolated && check.tensor == "out_0");
    failed.filter_map(|check| Some(check.hint.as_ref()?.to_string())).collect()
}

fn explained(case: &Case, subject: &dyn Subject) -> Verdict {
    let mut verdict = check(case, &case.files[0], subject);
    assert!(!verdict.is_ok(), "{}: the mistake was not noticed", case.path.display());
    explain(case, &case.files[0], &mut verdict);
    verdict
}

/// A port that makes a mistake in variables, as candle has them.
struct OfWeights {
    case: &'static str,
    variables: &'static [&'static str],
    mistake: fn(&Tensor) -> candle_core::Result<Tensor>,
    says: &'static str,
}

/// The blocks of the first axis in another order.
fn blocks(tensor: &Tensor, order: &[usize]) -> candle_core::Result<Tensor> {
    let parts = tensor.chunk(order.len(), 0)?;
    Tensor::cat(&order.iter().map(|block| &parts[*block]).collect::<Vec<_>>(), 0)?.contiguous()
}

const OF_WEIGHTS: &[OfWeights] = &[
    OfWeights {
        case: "core/Dense/square",
        variables: &["dense.weight"],
        mistake: |w| w.t()?.contiguous(),
        says: "kernel were transposed",
    },
    // Copied as it lies, and given candle's shape.
    OfWeights {
        case: "example3/2x3",
        variables: &["dense.weight"],
        mistake: |w| w.t()?.contiguous()?.reshape(w.shape()),
        says: "kernel were transposed",
    },
    OfWeights {
        case: "example3/2x3",
        variables: &["dense.bias"],
        mistake: Tensor::zeros_like,
        says: "bias were missing",
    },
    OfWeights {
        case: "convolutional/Conv2D/same_stride",
        variables: &["conv2d.weight"],
        mistake: |w| w.flip(&[2])?.contiguous()?.flip(&[3]),
        says: "kernel were flipped",
    },
    OfWeights {
        case: "convolutional/Conv2D/same_stride",
        variables: &["conv2d.weight"],
        mistake: |w| w.transpose(0, 1)?.contiguous(),
        says: "kernel were read with its last two axes swapped",
    },
    // Keras's (height, width, in, out) in candle's (out, in, height, width), number after number.
    OfWeights {
        case: "convolutional/Conv2D/same_stride",
        variables: &["conv2d.weight"],
        mistake: |w| w.permute((2, 3, 1, 0))?.contiguous()?.reshape(w.shape()),
        says: "kernel were transposed",
    },
    OfWeights {
        case: "rnn/LSTM/sequences",
        variables: &["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0"],
        mistake: |w| blocks(w, &[0, 2, 1, 3]),
        says: "gates were in the order i, c, f, o",
    },
    // Read as i, f, o, c.
    OfWeights {
        case: "rnn/LSTM/sequences",
        variables: &["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0"],
        mistake: |w| blocks(w, &[0, 1, 3, 2]),
        says: "gates were in the order i, f, o, c",
    },
    OfWeights {
        case: "rnn/GRU/sequences",
        variables: &["gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0", "gru.bias_hh_l0"],
        mistake: |w| blocks(w, &[1, 0, 2]),
        says: "gates were in the order r, z, h",
    },
    OfWeights {
        case: "rnn/GRU/sequences",
        variables: &["gru.bias_hh_l0"],
        mistake: Tensor::zeros_like,
        says: "the recurrent bias were missing",
    },
];

#[test]
fn a_mistake_in_a_weight_is_named() {
    for OfWeights { case: name, variables, mistake, says } in OF_WEIGHTS {
        let case = case(name);
        let model = load(&case);
        {
            let vars = model.var_map().data().lock().unwrap();
            for variable in *variables {
                let var =
                    vars.get(*variable).unwrap_or_else(|| panic!("{name}: {variable} is not in {:?}", vars.keys()));
                let copy = var.as_detached_tensor().copy().unwrap();
                var.set(&mistake(&copy).unwrap()).unwrap();
            }
        }
        let verdict = explained(&case, &Judged(&model));
        assert_eq!(hints(&verdict), [format!("ours is what Keras would give if {says}")], "{name}");
    }
}

/// A port that gets one layer wrong in a way of its own: what it gives for the layer's recorded inputs.
struct Wrong<'a, F: Fn(&[Array], &[Option<Array>]) -> Result<Vec<Array>, Failure>> {
    model: &'a Model,
    path: &'a str,
    make: F,
}

impl<F: Fn(&[Array], &[Option<Array>]) -> Result<Vec<Array>, Failure>> Subject for Wrong<'_, F> {
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
        // Anything but right: the layer is what is looked at.
        let outputs = Judged(self.model).run(inputs)?;
        outputs.iter().map(|output| Ok(Array::try_from(&(output.to_tensor(&Device::Cpu)? + 1.0)?)?)).collect()
    }

    fn call_layer(
        &self,
        path: &str,
        call: usize,
        inputs: &[Array],
        masks: &[Option<Array>],
    ) -> Result<Option<LayerCall>, Failure> {
        if path != self.path {
            return Judged(self.model).call_layer(path, call, inputs, masks);
        }
        Ok(Some(LayerCall { outputs: (self.make)(inputs, masks)?, masks: vec![] }))
    }
}

/// The first layer of this class in the case.
fn layer_of<'a>(case: &'a Case, class: &str) -> &'a str {
    &case
        .layers
        .iter()
        .find(|layer| layer.class == class)
        .unwrap_or_else(|| panic!("{}: no {class}", case.path.display()))
        .path
}

fn first(inputs: &[Array]) -> candle_core::Result<Tensor> {
    inputs[0].to_tensor(&Device::Cpu)
}

#[test]
fn another_function_of_the_same_name_is_named() {
    type Function = fn(&Tensor) -> candle_core::Result<Tensor>;
    let cases: [(&str, Function, &str); 4] = [
        (
            "activations/Activation/leaky_relu",
            |xs| xs.ge(0f32)?.where_cond(xs, &(xs * 0.3)?),
            "the slope of leaky_relu were 0.3",
        ),
        ("activations/Activation/gelu", Tensor::gelu, "gelu were the approximation by tanh"),
        (
            "activations/Activation/hard_sigmoid",
            |xs| ((xs * 0.2)? + 0.5)?.clamp(0f32, 1f32),
            "hard_sigmoid were that of Keras 2, 0.2x + 0.5",
        ),
        ("activations/Activation/tanh", |xs| Ok(xs.clone()), "it were left out"),
    ];
    for (name, function, says) in cases {
        let case = case(name);
        let model = load(&case);
        let make = |inputs: &[Array], _: &[Option<Array>]| Ok(vec![Array::try_from(&function(&first(inputs)?)?)?]);
        let verdict = explained(&case, &Wrong { model: &model, path: layer_of(&case, "Activation"), make });
        assert_eq!(hints(&verdict), [format!("ours is what Keras would give if {says}")], "{name}");
    }
}

/// What a port makes of a layer's inputs and masks.
type Port = fn(&Model, &[Array], &[Option<Array>]) -> Result<Vec<Array>, Failure>;

fn one(tensor: candle_core::Result<Tensor>) -> Result<Vec<Array>, Failure> {
    Ok(vec![Array::try_from(&tensor?.contiguous()?)?])
}

/// What our own layer gives for other inputs or masks.
fn fed(model: &Model, path: &str, inputs: &[Array], masks: &[Option<Array>]) -> Result<Vec<Array>, Failure> {
    Ok(Judged(model).call_layer(path, 0, inputs, masks)?.unwrap().outputs)
}

fn turned(mask: &Array) -> Array {
    let bytes = mask.bytes().iter().map(|truth| 1 - truth).collect();
    Array::new(mask.dtype(), mask.shape().to_vec(), bytes).unwrap()
}

fn variable(model: &Model, name: &str) -> Tensor {
    let vars = model.var_map().data().lock().unwrap();
    vars.iter().find(|(key, _)| key.ends_with(name)).unwrap().1.as_detached_tensor()
}

/// A GRU whose reset gate is applied to the state before the product, with the weights of one that applies it after.
fn gru_reset_before(model: &Model, inputs: &[Array]) -> candle_core::Result<Tensor> {
    let [w, u, b, c] = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"].map(|name| variable(model, name));
    let (xs, bias) = (first(inputs)?, (b + c)?);
    let units = u.dim(1)?;
    let gate = |tensor: &Tensor, gate: usize| tensor.narrow(0, gate * units, units);
    let mut h = Tensor::zeros((xs.dim(0)?, units), xs.dtype(), &Device::Cpu)?;
    let mut steps = Vec::new();
    for step in 0..xs.dim(1)? {
        let x = xs.narrow(1, step, 1)?.squeeze(1)?;
        let inner = |k: usize, h: &Tensor| -> candle_core::Result<Tensor> {
            let product = (x.matmul(&gate(&w, k)?.t()?)? + h.matmul(&gate(&u, k)?.t()?)?)?;
            product.broadcast_add(&gate(&bias, k)?)
        };
        let r = candle_nn::ops::sigmoid(&inner(0, &h)?)?;
        let z = candle_nn::ops::sigmoid(&inner(1, &h)?)?;
        let candidate = inner(2, &(r * &h)?)?.tanh()?;
        h = ((&z * &h)? + ((1.0 - &z)? * candidate)?)?;
        steps.push(h.clone());
    }
    Tensor::stack(&steps, 1)
}

/// The convolution of `same_stride` with the row of zeros above the image, not below.
fn padded_above(model: &Model, inputs: &[Array]) -> candle_core::Result<Tensor> {
    let xs = first(inputs)?.permute((0, 3, 1, 2))?.contiguous()?;
    let xs = xs.pad_with_zeros(2, 1, 0)?.pad_with_zeros(3, 1, 1)?;
    let ys = xs.conv2d(&variable(model, "conv2d.weight"), 0, 2, 1, 1)?;
    let ys = ys.broadcast_add(&variable(model, "conv2d.bias").reshape((1, (), 1, 1))?)?;
    ys.permute((0, 2, 3, 1))
}

/// Normalized by the mean and variance of what it is fed.
fn by_the_batch(model: &Model, inputs: &[Array]) -> candle_core::Result<Tensor> {
    let xs = first(inputs)?;
    let channels = xs.dim(candle_core::D::Minus1)?;
    let flat = xs.reshape(((), channels))?;
    let mean = flat.mean_keepdim(0)?;
    let centred = flat.broadcast_sub(&mean)?;
    let scale = (centred.sqr()?.mean_keepdim(0)? + 1e-3)?.sqrt()?;
    let ys = centred.broadcast_div(&scale)?.broadcast_mul(&variable(model, ".weight"))?;
    ys.broadcast_add(&variable(model, ".bias"))?.reshape(xs.shape())
}

#[test]
fn a_mistake_around_a_layer_is_named() {
    let cases: [(&str, &str, Port, &str); 8] = [
        (
            "activations/LeakyReLU/default",
            "LeakyReLU",
            |_, inputs, _| one(first(inputs).and_then(|xs| xs.ge(0f32)?.where_cond(&xs, &(&xs * 0.2)?))),
            "the slope were 0.2",
        ),
        ("rnn/LSTM/mask", "LSTM", |model, inputs, _| fed(model, "lstm", inputs, &[None]), "the mask were ignored"),
        (
            "rnn/LSTM/mask",
            "LSTM",
            |model, inputs, masks| fed(model, "lstm", inputs, &[masks[0].as_ref().map(turned)]),
            "the mask were inverted",
        ),
        (
            "reshaping/Flatten/rank4",
            "Flatten",
            |_, inputs, _| one(first(inputs).and_then(|xs| xs.permute((0, 3, 1, 2))?.flatten_from(1))),
            "the axes before it were channels first",
        ),
        ("rnn/GRU/sequences", "GRU", |model, inputs, _| one(gru_reset_before(model, inputs)), "reset_after were false"),
        (
            "convolutional/Conv2D/same_stride",
            "Conv2D",
            |model, inputs, _| one(padded_above(model, inputs)),
            "the padding were on the other side",
        ),
        (
            "normalization/BatchNormalization/default",
            "BatchNormalization",
            |model, inputs, _| one(by_the_batch(model, inputs)),
            "the statistics were those of the batch",
        ),
        (
            "normalization/BatchNormalization/default",
            "BatchNormalization",
            |model, inputs, _| {
                let (mean, variance) = (variable(model, "running_var"), variable(model, "running_mean"));
                let scale = (variance + 1e-3)?.sqrt()?;
                let ys = first(inputs)?.broadcast_sub(&mean)?.broadcast_div(&scale)?;
                one(ys.broadcast_mul(&variable(model, ".weight"))?.broadcast_add(&variable(model, ".bias")))
            },
            "moving_mean and moving_variance were swapped",
        ),
    ];
    for (name, class, port, says) in cases {
        let case = case(name);
        let model = load(&case);
        let make = |inputs: &[Array], masks: &[Option<Array>]| port(&model, inputs, masks);
        let verdict = explained(&case, &Wrong { model: &model, path: layer_of(&case, class), make });
        assert_eq!(hints(&verdict), [format!("ours is what Keras would give if {says}")], "{name}");
    }
}

/// A port that forgets the activation before a layer, which is then fed what it should not be.
#[test]
fn what_is_missing_before_a_layer_is_named() {
    let case = case("by_record/images/ordinary");
    let model = load(&case);
    let named = |class: &str, number: usize| {
        let of_class = case.layers.iter().filter(|layer| layer.class == class);
        of_class.map(|layer| layer.path.as_str()).nth(number).unwrap()
    };
    let (relu, second) = (named("ReLU", 0), named("Conv2D", 1));
    let before = case.recorded(relu, 0).unwrap().inputs;
    let make = |_: &[Array], masks: &[Option<Array>]| fed(&model, second, &before, masks);
    let verdict = explained(&case, &Wrong { model: &model, path: second, make });
    assert_eq!(hints(&verdict), [format!("ours is what Keras would give if \"{relu}\" before it were left out")]);
}

/// Dense without its activation, of the case's own numbers.
fn linear(model: &Model, layer: &str, xs: &Tensor) -> candle_core::Result<Tensor> {
    let kernel = variable(model, &format!("{layer}.weight"));
    xs.broadcast_matmul(&kernel.t()?)?.broadcast_add(&variable(model, &format!("{layer}.bias")))
}

#[test]
fn a_missing_activation_is_named() {
    let case = case("example3/2x3");
    let model = load(&case);
    let make = |inputs: &[Array], _: &[Option<Array>]| one(first(inputs).and_then(|xs| linear(&model, "dense", &xs)));
    let verdict = explained(&case, &Wrong { model: &model, path: "dense", make });
    assert_eq!(hints(&verdict), ["ours is what Keras would give if activation were missing"]);
}

#[test]
fn what_went_wrong_before_a_flatten_is_named() {
    let case = case("models/Sequential/stack");
    let model = load(&case);
    // dense_1 has selu, whose numbers flatten is fed.
    let make = |_: &[Array], _: &[Option<Array>]| {
        let xs = first(&case.recorded("dense_1", 0).unwrap().inputs)?;
        one(linear(&model, "dense_1", &xs)?.flatten_from(1))
    };
    let verdict = explained(&case, &Wrong { model: &model, path: "flatten", make });
    let says = "ours is what Keras would give if the activation of \"dense_1\" before it were missing";
    assert_eq!(hints(&verdict), [says]);
    // dense_2 is fed what flatten makes of channels that come first.
    let make = |_: &[Array], _: &[Option<Array>]| {
        let xs = first(&case.recorded("flatten", 0).unwrap().inputs)?;
        one(linear(&model, "dense_2", &xs.transpose(1, 2)?.contiguous()?.flatten_from(1)?))
    };
    let verdict = explained(&case, &Wrong { model: &model, path: "dense_2", make });
    let says = "ours is what Keras would give if the axes before \"flatten\" were channels first";
    assert_eq!(hints(&verdict), [says]);
}

/// A square kernel with its height and width exchanged.
#[test]
fn a_kernel_on_its_side_is_named() {
    let case = case("by_record/images/ordinary");
    let model = load(&case);
    let path = layer_of(&case, "Conv2D");
    {
        let vars = model.var_map().data().lock().unwrap();
        let var = &vars[&format!("{path}.weight")];
        let turned = var.as_detached_tensor().transpose(2, 3).unwrap().contiguous().unwrap();
        var.set(&turned).unwrap();
    }
    let verdict = explained(&case, &Judged(&model));
    assert_eq!(hints(&verdict), ["ours is what Keras would give if kernel were read with height and width swapped"]);
}

/// A port that names no layer and is wrong in one.
#[test]
fn a_mistake_is_named_from_the_outputs_alone() {
    struct Whole<'a>(&'a Model);
    impl Subject for Whole<'_> {
        fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
            Judged(self.0).run(inputs)
        }
    }
    let case = case("example3/2x3");
    let model = load(&case);
    {
        let vars = model.var_map().data().lock().unwrap();
        let zeros = vars["dense.bias"].as_detached_tensor().zeros_like().unwrap();
        vars["dense.bias"].set(&zeros).unwrap();
    }
    let verdict = explained(&case, &Whole(&model));
    let hint = verdict.failures().find_map(|check| check.hint.as_ref()).unwrap();
    assert_eq!(hint.to_string(), "ours is what Keras would give if in \"dense\" bias were missing");
}

/// A file whose settings were changed after it was recorded: our own model of it is wrong, and would match with the old.
#[test]
fn a_setting_that_was_changed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let recorded = case("normalization/LayerNormalization/default").path;
    for file in ["case.json", "io.safetensors"] {
        fs::copy(recorded.join(file), folder.path().join(file)).unwrap();
    }
    rezip(&recorded.join("model.keras"), &folder.path().join("model.keras"), |config| {
        assert!(config.contains("\"epsilon\": 0.001"), "{config}");
        config.replace("\"epsilon\": 0.001", "\"epsilon\": 0.1")
    });
    let case = Case::open(folder.path()).unwrap();
    let Outcome::Judged(verdict) = judge(&case, "model.keras") else { panic!("it was not judged") };
    assert_eq!(hints(&verdict), ["would match if epsilon were 1e-3"]);
    let hint = verdict.failures().find_map(|check| check.hint.clone()).unwrap();
    assert_eq!(hint.made_in, MadeIn::Ours);
    assert!(verdict.to_string().contains("\n  would match if epsilon were 1e-3"), "{verdict}");
}

/// The archive with its config.json changed.
fn rezip(from: &std::path::Path, to: &std::path::Path, change: impl Fn(String) -> String) {
    use std::io::{Read, Write};
    let mut old = zip::ZipArchive::new(fs::File::open(from).unwrap()).unwrap();
    let mut new = zip::ZipWriter::new(fs::File::create(to).unwrap());
    for index in 0..old.len() {
        let mut member = old.by_index(index).unwrap();
        let name = member.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        if name == "config.json" {
            bytes = change(String::from_utf8(bytes).unwrap()).into_bytes();
        }
        new.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        new.write_all(&bytes).unwrap();
    }
    new.finish().unwrap();
}

#[test]
fn no_hint_where_no_known_mistake_fits() {
    let case = case("example3/2x3");
    let model = load(&case);
    {
        let vars = model.var_map().data().lock().unwrap();
        let var = &vars["dense.weight"];
        let noise = Tensor::randn(0f32, 0.1, var.shape(), &Device::Cpu).unwrap();
        let other = (var.as_detached_tensor() + noise).unwrap();
        var.set(&other).unwrap();
    }
    assert_eq!(hints(&explained(&case, &Judged(&model))), Vec::<String>::new());
}

#[test]
fn no_hint_on_a_case_that_passes() {
    for folder in find_cases(CASES).unwrap() {
        for (_, outcome) in kandle::verify(&folder).files {
            if let Outcome::Judged(verdict) = outcome {
                assert!(verdict.is_ok() && verdict.checks.iter().all(|check| check.hint.is_none()), "{verdict}");
            }
        }
    }
}

/// Every mistake that is made above stands in docs/hints.md in its words.
#[test]
fn the_guide_has_every_hint() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hints.md")).unwrap();
    let own = include_str!("hints.rs");
    let mut words: Vec<String> = OF_WEIGHTS.iter().map(|mistake| mistake.says.to_owned()).collect();
    // The words of the other tables stand in quotation marks after the port.
    for line in own.lines().map(str::trim) {
        if let Some(says) = line.strip_prefix('"').and_then(|line| line.strip_suffix("\","))
            && [" were ", "it were"].iter().any(|word| says.contains(word))
        {
            words.push(says.to_owned());
        }
    }
    assert!(words.len() > 15, "{words:?}");
    for says in words {
        let says = says.replace("i, c, f, o", "i, f, o, c");
        assert!(guide.contains(&says), "docs/hints.md does not have {says:?}");
    }
}
