//! Random graphs: whatever layers follow each other, the engine gives what the model gives.

use kandle::{Compile as _, Dtype, Model, Options, Value};
use serde_json::{Value as Json, json};

use crate::made::{Generator, input, layer, model, operation, tensor};

/// A graph as it grows: its layers, and the tensors that may be read, of `(height, width, channels)`.
struct Growing {
    layers: Vec<Json>,
    tensors: Vec<(String, [usize; 3])>,
}

impl Growing {
    fn add(&mut self, class: &str, config: Json, inputs: &[&str], shape: [usize; 3]) {
        let name = format!("{}_{}", class.to_lowercase(), self.layers.len());
        self.layers.push(layer(class, &name, config, inputs));
        self.tensors.push((name, shape));
    }

    /// A tensor of this shape.
    fn like(&self, shape: [usize; 3], generator: &mut Generator) -> String {
        let fitting: Vec<&String> =
            self.tensors.iter().filter(|other| other.1 == shape).map(|other| &other.0).collect();
        fitting[generator.below(fitting.len())].clone()
    }

    /// What a layer does, done again: by the same layer, or by one like it, with weights of its own.
    fn repeat(&mut self, generator: &mut Generator) {
        let at = generator.below(self.layers.len());
        let mut layer = self.layers[at].clone();
        let name = layer["name"].as_str().unwrap().to_owned();
        let Some((_, shape)) = self.tensors.iter().find(|(of, _)| *of == name).cloned() else { return };
        let calls = layer["inbound_nodes"].as_array().unwrap().len();
        if calls != 1 {
            return;
        }
        if generator.below(2) == 0 {
            let call = layer["inbound_nodes"][0].clone();
            self.layers[at]["inbound_nodes"].as_array_mut().unwrap().push(call);
            self.tensors.push((format!("{name}:1"), shape));
        } else {
            let name = format!("{name}_again_{}", self.layers.len());
            layer["name"] = name.as_str().into();
            layer["config"]["name"] = name.as_str().into();
            self.layers.push(layer);
            self.tensors.push((name, shape));
        }
    }

    /// One more layer, on tensors that are there.
    fn grow(&mut self, generator: &mut Generator) {
        // Mostly the last tensor, so that there are chains to fold.
        let at = if generator.below(3) == 0 { generator.below(self.tensors.len()) } else { self.tensors.len() - 1 };
        let (name, shape) = self.tensors[at].clone();
        let [height, width, channels] = shape;
        let on = [name.as_str()];
        let activation =
            generator.one_of(&["linear", "relu", "tanh", "sigmoid", "gelu", "silu", "elu", "softmax", "selu"]);
        let padding = generator.one_of(&["same", "valid"]);
        let (kernel, stride) = (1 + generator.below(3), 1 + generator.below(2));
        let cells = |size: usize| if padding == "same" { size.div_ceil(stride) } else { (size - kernel) / stride + 1 };
        let fits = height >= kernel && width >= kernel;
        let bias = generator.below(2) == 0;
        match generator.below(25) {
            0 | 1 => {
                let units = 1 + generator.below(40);
                let config = json!({"units": units, "activation": activation, "use_bias": bias});
                self.add("Dense", config, &on, [height, width, units]);
            }
            2 | 3 if fits => {
                let filters = 1 + generator.below(35);
                let config = json!({"filters": filters, "kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding, "activation": activation, "use_bias": bias});
                self.add("Conv2D", config, &on, [cells(height), cells(width), filters]);
            }
            4 if fits => {
                let often = 1 + generator.below(2);
                let config = json!({"kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding, "activation": activation, "use_bias": bias, "depth_multiplier": often});
                self.add("DepthwiseConv2D", config, &on, [cells(height), cells(width), channels * often]);
            }
            5 | 6 => self.add("BatchNormalization", json!({"axis": -1, "scale": bias}), &on, shape),
            // A row of one number is 0 but for rounding.
            7 if channels > 1 => {
                self.add("LayerNormalization", json!({"axis": [-1], "center": bias, "scale": kernel > 1}), &on, shape)
            }
            8 => self.add("Activation", json!({"activation": activation}), &on, shape),
            9 => self.add("Dropout", json!({"rate": 0.5}), &on, shape),
            10 if fits => {
                let class = generator.one_of(&["MaxPooling2D", "AveragePooling2D"]);
                let config = json!({"pool_size": [kernel, kernel], "strides": [stride, stride], "padding": padding});
                self.add(class, config, &on, [cells(height), cells(width), channels]);
            }
            11 => {
                let (before, after) = (generator.below(3), generator.below(3));
                let config = json!({"padding": [[before, after], [after, before]]});
                self.add("ZeroPadding2D", config, &on, [height + before + after, width + before + after, channels]);
            }
            12 | 13 => {
                let other = self.like(shape, generator);
                match generator.below(6) {
                    0 => self.add("Concatenate", json!({"axis": -1}), &[&name, &other], [height, width, 2 * channels]),
                    1 => self.add("Multiply", json!({}), &[&name, &other], shape),
                    2 => self.add("Subtract", json!({}), &[&name, &other], shape),
                    3 => self.add("Maximum", json!({}), &[&name, &other], shape),
                    4 => self.add("Minimum", json!({}), &[&name, &other], shape),
                    _ => self.add("Add", json!({}), &[&name, &other], shape),
                }
            }
            // Without a kernel, and often behind a view.
            14 => self.add("UnitNormalization", json!({"axis": [-1]}), &on, shape),
            15 => {
                self.add("Reshape", json!({"target_shape": [width, height, channels]}), &on, [width, height, channels])
            }
            16 => {
                let (filters, stride) = (1 + generator.below(20), 1 + generator.below(3));
                let config = json!({"filters": filters, "kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding, "activation": activation, "use_bias": bias});
                let cells = |size: usize| match padding {
                    "same" => size * stride,
                    _ => (size - 1) * stride + kernel.max(stride),
                };
                self.add("Conv2DTranspose", config, &on, [cells(height), cells(width), filters]);
            }
            17 => {
                let config = json!({"size": [2, stride], "interpolation": "bilinear"});
                self.add("UpSampling2D", config, &on, [2 * height, stride * width, channels]);
            }
            18 => self.add("UpSampling2D", json!({"size": [1, 2]}), &on, [height, 2 * width, channels]),
            // Operations, on a number or on another tensor of that shape.
            19 | 20 => {
                let other = if bias { json!(1.5) } else { tensor(&self.like(shape, generator)) };
                let class = generator.one_of(&["Add", "Subtract", "Multiply", "Maximum"]);
                let made = format!("{}_{}", class.to_lowercase(), self.layers.len());
                self.layers.push(operation(class, &made, &[tensor(&name), other]));
                self.tensors.push((made, shape));
            }
            21 => {
                let groups =
                    (1..=channels).filter(|groups| channels % groups == 0).nth(kernel - 1).map_or(-1, |all| all as i64);
                let config = json!({"groups": groups, "axis": -1, "center": bias, "scale": stride > 1});
                self.add("GroupNormalization", config, &on, shape);
            }
            22 if bias => {
                let made = format!("transposed_{}", self.layers.len());
                let mut transposed = operation("Transpose", &made, &[tensor(&name)]);
                transposed["config"]["axes"] = json!([0, 2, 1, 3]);
                self.layers.push(transposed);
                self.tensors.push((made, [width, height, channels]));
            }
            22 => {
                let filters = 1 + generator.below(20);
                let config = json!({"filters": filters, "kernel_size": [1, 1], "depth_multiplier": 2});
                self.add("SeparableConv2D", config, &on, [height, width, filters]);
            }
            // A layer that is there once more: called again on what it was called on, or made again under another name.
            _ => self.repeat(generator),
        }
    }
}

/// A model of some layers on one input or two, of which the last tensor and one other are outputs; and the shapes of its inputs.
fn random(seed: u64) -> (Model, Vec<[usize; 3]>) {
    let mut generator = Generator::new(seed);
    let shape = [3 + generator.below(8), 3 + generator.below(8), 1 + generator.below(6)];
    let names: &[&str] = if generator.below(3) == 0 { &["x", "y"] } else { &["x"] };
    let of_input = json!([null, shape[0], shape[1], shape[2]]);
    let mut growing = Growing {
        layers: names.iter().map(|name| input(name, of_input.clone(), "float32")).collect(),
        tensors: names.iter().map(|name| ((*name).to_owned(), shape)).collect(),
    };
    for _ in 0..4 + generator.below(10) {
        growing.grow(&mut generator);
    }
    let last = growing.tensors.len() - 1;
    let (one, other) = (growing.tensors[last].0.clone(), growing.tensors[1 + generator.below(last)].0.clone());
    let outputs: Vec<&str> = if one == other { vec![&one] } else { vec![&one, &other] };
    (model(growing.layers, names, &outputs, seed), vec![shape; names.len()])
}

/// The largest difference, over the largest number.
pub fn difference(ours: &Value, models: &Value) -> f32 {
    assert_eq!(ours.tensor.dims(), models.tensor.dims());
    let numbers = |value: &Value| value.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (ours, models) = (numbers(ours), numbers(models));
    assert!(ours.iter().zip(&models).all(|(a, b)| a.is_nan() == b.is_nan()), "NaN is not where the model has it");
    let scale = models.iter().fold(1e-3_f32, |scale, x| scale.max(x.abs()));
    ours.iter().zip(&models).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / scale
}

#[test]
fn random_graphs_give_what_the_model_gives() {
    let mut natively = 0;
    for seed in 1..=300 {
        let (model, shapes) = random(seed);
        let mut generator = Generator::new(seed + 1000);
        for threads in [1, 2] {
            let engine = model.compile(&Options::default().threads(threads)).unwrap();
            // Smaller, larger and the same again, on the same memory.
            for batch in [1, 3, 1, 3] {
                let mut tensor =
                    |&[height, width, channels]: &[usize; 3]| generator.tensor(&[batch, height, width, channels]);
                let inputs: Vec<Value> = shapes.iter().map(|shape| Value::new(tensor(shape), Dtype::Float32)).collect();
                let (ours, models) = (engine.run(&inputs).unwrap(), model.run(&inputs).unwrap());
                for (ours, models) in ours.iter().zip(&models) {
                    let worst = difference(ours, models);
                    // Sums in another order; normalisations of rows that are nearly constant magnify it.
                    assert!(worst <= 2e-5, "seed {seed}: {worst:e}\n{:#?}", engine.compiled());
                }
            }
            let (handed_over, reason) = engine.handed_over();
            assert_eq!((handed_over, reason), (0, None), "seed {seed}");
            natively += usize::from(engine.compiled().calls == 0);
        }
    }
    assert!((200..500).contains(&natively), "{natively} of 600 engines have no call of the model");
}
