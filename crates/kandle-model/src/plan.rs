use std::collections::{BTreeMap, BTreeSet};

use candle_core::Device;
use candle_nn::VarMap;
use kandle_format::{Archive, Dtype, Error, ErrorKind, LayerConfig, ModelConfig, Problem, Result, json::Value, shown};

use crate::{Fields, KerasLayer, LayerWeights, LoadReport, Model, Registered, Shape, Spec, WeightMap, load, registry};

/// What will be computed: the layers, and their calls in order over numbered slots. No numbers yet.
///
/// A layer stands in [`layers`](Self::layers) once; each call of it is a [`Step`]. A Sequential model calls each layer
/// once, on the slot the step before filled.
#[derive(Debug)]
pub struct Plan {
    name: String,
    inputs: Vec<Input>,
    layers: Vec<PlannedLayer>,
    steps: Vec<Step>,
    outputs: Vec<usize>,
    slots: Vec<Spec>,
    weights: WeightMap,
}

/// An input of a model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Input {
    /// The name of its InputLayer.
    pub name: String,
    /// Shape and dtype that Keras casts what is fed to.
    pub spec: Spec,
    /// The slot it fills.
    pub slot: usize,
}

/// A layer of a plan.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedLayer {
    /// The layer's path in the model: `dense`.
    pub path: String,
    /// Keras's class: `Dense`.
    pub class: String,
    /// Whether gradients reach its weights.
    pub trainable: bool,
    /// Its entry in the plan's [`WeightMap`], if it has weights.
    pub(crate) weights: Option<usize>,
    pub(crate) layer: Box<dyn KerasLayer>,
}

/// One call of a layer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// The layer's number in [`Plan::layers`].
    pub layer: usize,
    /// Which of the layer's calls this is, from 0.
    pub call: usize,
    /// The slots it reads.
    pub inputs: Vec<usize>,
    /// The slots it fills.
    pub outputs: Vec<usize>,
}

impl Plan {
    /// Plans the model that `config` describes.
    ///
    /// # Errors
    /// Every layer and setting that is not reproduced exactly, all at once; and shapes that do not fit.
    pub fn new(config: &ModelConfig) -> Result<Self> {
        check_model(config)?;
        let (input, layers) = read_layers(config)?;
        let mut plan = Self {
            name: config.name.clone(),
            slots: vec![input.spec.clone()],
            inputs: vec![input],
            layers: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            weights: WeightMap::default(),
        };
        let mut groups = GroupNames::default();
        for (config, layer, trainable) in layers {
            plan.append(config, layer, trainable, &groups.next(&config.class))?;
        }
        plan.outputs = vec![plan.slots.len() - 1];
        Ok(plan)
    }

    /// Adds a layer and its call on the last slot.
    fn append(&mut self, config: &LayerConfig, layer: Box<dyn KerasLayer>, trainable: bool, group: &str) -> Result<()> {
        let last = self.slots.len() - 1;
        let inputs = self.slots.get(last..).unwrap_or_default();
        let outputs = layer.output(inputs).map_err(|problem| Error::new(problem.kind, place(config), problem.what))?;
        if let Some(output) = outputs.iter().find(|output| output.shape.rank() > MOST_AXES) {
            let what =
                format!("an output of {} axes, more than the {MOST_AXES} that are supported", output.shape.rank());
            return Err(Error::new(ErrorKind::Unsupported, place(config), what));
        }
        let weights = layer.weights(inputs).map_err(|what| Error::new(ErrorKind::Invalid, place(config), what))?;
        let path = config.name.clone();
        let entry = (!weights.is_empty()).then_some(self.weights.layers.len());
        if entry.is_some() {
            let (layer, prefix) = (path.clone(), path.replace('/', "."));
            let (class, group) = (config.class.clone(), format!("layers/{group}"));
            self.weights.layers.push(LayerWeights { layer, class, group, prefix, weights });
        }
        let step = Step {
            layer: self.layers.len(),
            call: 0,
            inputs: vec![last],
            outputs: (self.slots.len()..self.slots.len() + outputs.len()).collect(),
        };
        self.layers.push(PlannedLayer { path, class: config.class.clone(), trainable, weights: entry, layer });
        self.steps.push(step);
        self.slots.extend(outputs);
        Ok(())
    }

    /// The model's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inputs, in the order they are fed.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The layers, in the order of the file.
    #[must_use]
    pub fn layers(&self) -> &[PlannedLayer] {
        &self.layers
    }

    /// The calls, in the order they run.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Shape and dtype of what slot `slot` holds.
    #[must_use]
    pub fn slot(&self, slot: usize) -> Option<&Spec> {
        self.slots.get(slot)
    }

    /// How many slots the steps read and fill.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The slots of the model's outputs, in Keras's order.
    #[must_use]
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// The weights: where they lie in the file and what they are called in the `VarMap`.
    #[must_use]
    pub fn weights(&self) -> &WeightMap {
        &self.weights
    }

    /// The weights of a layer of this plan.
    #[must_use]
    pub fn weights_of(&self, layer: &PlannedLayer) -> Option<&LayerWeights> {
        layer.weights.and_then(|entry| self.weights.layers.get(entry))
    }

    /// Reads every weight from `archive` into a new `VarMap`, under candle-nn's names and in candle's layout: all of them,
    /// or none and an error.
    ///
    /// # Errors
    /// Everything that is missing, left over or of another shape or dtype, together.
    pub fn load(&self, archive: &Archive, device: &Device) -> Result<(VarMap, LoadReport)> {
        load::into_new(&self.weights, archive, device)
    }

    /// The model that runs this plan on the variables of `vars`.
    ///
    /// # Errors
    /// Every variable that is missing or of another shape or dtype, together.
    pub fn with(self, vars: &VarMap) -> Result<Model> {
        Model::new(self, vars)
    }
}

/// As many axes as numpy allows. Every slot has a shape, so without a limit a small file could ask for much memory.
const MOST_AXES: usize = 64;

/// Refuses what is no Sequential model of Keras 3, together with the layers that would be refused in any model.
fn check_model(config: &ModelConfig) -> Result<()> {
    let mut reasons = Vec::new();
    if let Some(custom) = config.registered_name.as_deref().filter(|name| name.contains('>')) {
        reasons.push(format!("{} is a user's own model class, whose Python code is not in the file", shown(custom)));
    }
    match config.class.as_str() {
        "Sequential" => {}
        "Functional" | "Model" => reasons.push("Functional models are not supported yet (only Sequential)".to_owned()),
        other => reasons.push(format!("a model of class {} is not supported (only Sequential)", shown(other))),
    }
    if config.keras_major() != 3 {
        let version = config.keras_version.as_deref().map_or_else(|| "1".to_owned(), shown);
        reasons.push(format!("written by Keras {version}, only files of Keras 3 are supported yet"));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    let model = reasons.into_iter().map(|what| Problem::new(ErrorKind::Unsupported, &config.at, what));
    let layers =
        config.layers.iter().filter(|layer| layer.class != "InputLayer").filter_map(|layer| registered(layer).err());
    Error::check(model.chain(layers).collect())
}

type ReadLayer<'a> = (&'a LayerConfig, Box<dyn KerasLayer>, bool);

/// The input and the layers of a Sequential model. All problems of all layers are found before one is reported.
fn read_layers(config: &ModelConfig) -> Result<(Input, Vec<ReadLayer<'_>>)> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    let mut input = None;
    let mut layers = Vec::new();
    for (index, layer) in config.layers.iter().enumerate() {
        if !names.insert(layer.name.as_str()) {
            problems.push(Problem::new(
                ErrorKind::Invalid,
                place(layer),
                "a second layer of this name: names are unique in a Keras model",
            ));
        }
        if layer.class == "InputLayer" && index == 0 {
            match read_input(layer) {
                Ok(read) => input = Some(read),
                Err(found) => problems.extend(found),
            }
            continue;
        }
        match read_layer(layer) {
            Ok((read, trainable)) => layers.push((layer, read, trainable)),
            Err(found) => problems.extend(found),
        }
    }
    Error::check(problems)?;
    // Keras: a Sequential model without an InputLayer takes its input from what it was built on, as float32.
    let built = || {
        let shape = shape(config.config.get("build_input_shape")?)?;
        Some(Input { name: "input_layer".to_owned(), spec: Spec { shape, dtype: Dtype::Float32 }, slot: 0 })
    };
    match input.or_else(built) {
        Some(input) if !layers.is_empty() => Ok((input, layers)),
        Some(_) => Err(Error::new(ErrorKind::Invalid, &config.at, "a model without layers")),
        None => {
            let what = "the model was never built, so its input shape is not in the file: call it once in Keras and save it again";
            Err(Error::new(ErrorKind::Missing, &config.at, what))
        }
    }
}

fn read_input(layer: &LayerConfig) -> std::result::Result<Input, Vec<Problem>> {
    let at = place(layer);
    let mut fields = Fields::new(&layer.config, &at);
    fields.training_only(&["name"]);
    fields.only("sparse", &false.into());
    fields.only("ragged", &false.into());
    fields.only("optional", &false.into());
    let dtype = match fields.take("dtype") {
        None => Dtype::Float32,
        Some(value) => match value.as_str().and_then(Dtype::from_name) {
            Some(dtype) => dtype,
            None => {
                fields.unsupported("dtype", value, "numbers and bool");
                Dtype::Float32
            }
        },
    };
    let shape = match fields.take("batch_shape") {
        Some(value) => shape(value).unwrap_or_else(|| {
            fields.invalid("batch_shape", value, "a list of 1 to 64 axes, batch first");
            Shape(Vec::new())
        }),
        None => {
            fields.problem(Problem::new(ErrorKind::Invalid, &at, "batch_shape is missing"));
            Shape(Vec::new())
        }
    };
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(Input { name: layer.name.clone(), spec: Spec { shape, dtype }, slot: 0 })
    } else {
        Err(problems)
    }
}

fn read_layer(layer: &LayerConfig) -> std::result::Result<(Box<dyn KerasLayer>, bool), Vec<Problem>> {
    let registered = registered(layer).map_err(|problem| vec![problem])?;
    let mut fields = Fields::new(&layer.config, &place(layer));
    let trainable = fields.common();
    let read = (registered.read)(&mut fields);
    let problems = fields.finish();
    if problems.is_empty() { Ok((read, trainable)) } else { Err(problems) }
}

/// The layer's class, if it is reproduced.
fn registered(layer: &LayerConfig) -> std::result::Result<&'static Registered, Problem> {
    let refuse = |what: String| Err(Problem::new(ErrorKind::Unsupported, place(layer), what));
    let module = layer.module.as_deref().unwrap_or("keras.layers");
    if let Some(name) = layer.registered_name.as_deref().filter(|name| name.contains('>')) {
        return refuse(format!("{} is a user's own layer class, whose Python code is not in the file", shown(name)));
    }
    if layer.class == "Lambda" {
        let what = "a Lambda layer holds Python code, which is never run: build the model with a built-in layer instead, and save it again";
        return refuse(what.to_owned());
    }
    match registry::find(&layer.class) {
        Some(registered) if module.split('.').next() == Some("keras") => Ok(registered),
        Some(_) => refuse(format!("this class is not Keras's own: it comes from {}", shown(module))),
        None => refuse("this layer class is not supported".to_owned()),
    }
}

/// How errors call a layer: by name and class.
fn place(layer: &LayerConfig) -> String {
    format!("layer \"{}\" ({})", shown(&layer.name), shown(&layer.class))
}

/// A shape with the batch axis, null where a size is not known.
fn shape(value: &Value) -> Option<Shape> {
    let axis = |value: &Value| match value {
        Value::Null => Some(None),
        size => usize::try_from(size.as_u64()?).ok().map(Some),
    };
    let axes = value.as_array().filter(|axes| (1..=MOST_AXES).contains(&axes.len()))?;
    axes.iter().map(axis).collect::<Option<Vec<_>>>().map(Shape)
}

/// The names of groups in a weight store: the class in snake case, with a number from the second of a class on.
///
/// Keras: layers are counted by class, in the order of the configuration; their own names play no part.
/// Source: keras/src/saving/saving_lib.py (`_save_container_state`).
#[derive(Default)]
struct GroupNames(BTreeMap<String, usize>);

impl GroupNames {
    fn next(&mut self, class: &str) -> String {
        let name = snake_case(class);
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{}", *count - 1) }
    }
}

/// A class name as Keras spells groups: `Conv2DTranspose` is `conv2d_transpose`, `ReLU` is `re_lu`.
/// Source: keras/src/utils/naming.py (`to_snake_case`).
fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::new();
    for (index, c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| chars.get(before));
        let after = chars.get(index + 1);
        let starts_word = after.is_some_and(char::is_ascii_lowercase) || before.is_some_and(char::is_ascii_lowercase);
        if before.is_some() && c.is_ascii_uppercase() && starts_word {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{GroupNames, snake_case};

    #[test]
    fn groups_are_named_as_keras_names_them() {
        for (class, group) in [
            ("Dense", "dense"),
            ("Conv2D", "conv2d"),
            ("Conv2DTranspose", "conv2d_transpose"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("MaxPooling2D", "max_pooling2d"),
            ("GlobalAveragePooling1D", "global_average_pooling1d"),
            ("ReLU", "re_lu"),
            ("LeakyReLU", "leaky_re_lu"),
            ("PReLU", "p_re_lu"),
            ("ELU", "elu"),
            ("LSTM", "lstm"),
            ("SimpleRNN", "simple_rnn"),
            ("ConvLSTM2D", "conv_lstm2d"),
            ("StackedRNNCells", "stacked_rnn_cells"),
            ("LSTMCell", "lstm_cell"),
            ("RMSNormalization", "rms_normalization"),
            ("STFTSpectrogram", "stft_spectrogram"),
            ("TFOpLambda", "tf_op_lambda"),
        ] {
            assert_eq!(snake_case(class), group);
        }
    }

    #[test]
    fn the_number_counts_the_class() {
        let mut groups = GroupNames::default();
        let names: Vec<String> = ["Dense", "ReLU", "Dense", "Dense"].iter().map(|class| groups.next(class)).collect();
        assert_eq!(names, ["dense", "re_lu", "dense_1", "dense_2"]);
    }
}
