use std::{collections::BTreeMap, sync::Arc};

use candle_core::Device;
use candle_nn::VarMap;
use kandle_format::{Archive, ErrorKind, LayerConfig, ModelConfig, Problem, Result, json::Value as Json, shown};

use crate::{
    Arguments, Fields, KerasLayer, LayerWeights, LoadReport, Masking, Model, Policy, Registry, Shape, Spec, Value,
    WeightMap, build::Builder, fields::Context, load,
};

/// What will be computed: the layers, and their calls in order over numbered slots. No numbers yet.
///
/// A layer stands in [`layers`](Self::layers) once; each call of it is a [`Step`]. The layers of models inside the model
/// stand there too, with their path: `encoder/dense`.
#[derive(Debug, Default)]
pub struct Plan {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) layers: Vec<PlannedLayer>,
    pub(crate) models: Vec<PlannedModel>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<usize>,
    pub(crate) slots: Vec<Spec>,
    /// For each slot the first one that holds the same tensor, as Keras has it: its own number but where a call gave back what
    /// it got.
    pub(crate) same: Vec<usize>,
    pub(crate) constants: Vec<(usize, Value)>,
    pub(crate) weights: WeightMap,
    /// Whether sizes of what is fed are checked, as a Functional model does.
    pub(crate) checks_sizes: bool,
    /// For each step, the slots that nobody reads after it.
    pub(crate) spent: Vec<Vec<usize>>,
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
    /// Whether it may be left out.
    pub optional: bool,
}

impl Input {
    /// A stand-in for an input that could not be read.
    pub(crate) fn unknown() -> Self {
        let spec = Spec { shape: Shape(Vec::new()), dtype: kandle_format::Dtype::Float32 };
        Self { name: String::new(), spec, slot: 0, optional: false }
    }
}

/// A layer of a plan.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedLayer {
    /// The layer's path in the model: `dense`, or `encoder/dense` in a model inside the model.
    pub path: String,
    /// Keras's class: `Dense`.
    pub class: String,
    /// Whether gradients reach its weights.
    pub trainable: bool,
    /// Its dtype policy; of no meaning for operations.
    pub policy: Policy,
    /// Its entry in the plan's [`WeightMap`], if it has weights.
    pub(crate) weights: Option<usize>,
    pub(crate) layer: Box<dyn KerasLayer>,
}

impl PlannedLayer {
    /// How errors call it.
    pub(crate) fn place(&self) -> String {
        format!("layer \"{}\" ({})", shown(&self.path), shown(&self.class))
    }

    /// What becomes of the mask that comes with its first input.
    #[must_use]
    pub fn masking(&self) -> Masking {
        self.layer.masking()
    }

    /// Whether it begins a call with the states that the call before ended with.
    #[must_use]
    pub fn keeps_states(&self) -> bool {
        self.layer.keeps_states()
    }

    /// Whether it is an operation of `keras.ops`, not a layer.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        self.layer.is_operation()
    }
}

/// A model inside the model. Its layers are layers of the plan, and its calls are steps of theirs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedModel {
    /// The model's path in the outermost one: `encoder`, or `net/encoder`. Those of its layers begin with it.
    pub path: String,
    /// Keras's class: `Functional` or `Sequential`.
    pub class: String,
    /// The InputLayers it is fed at, in that order; their slots mean nothing. None for a Sequential model without one.
    pub inputs: Vec<Input>,
    /// The number in [`Plan::layers`] that its first layer has, or would have.
    pub first: usize,
    /// Its calls, in the order they run.
    pub calls: Vec<ModelCall>,
}

/// One call of a model inside the model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelCall {
    /// The slots it is called on, its masks among them.
    pub given: Vec<usize>,
    /// The slots its layers read for its inputs, one for each: those it is called on, or what they were cast to.
    pub inputs: Vec<usize>,
    /// The slots of its outputs, in Keras's flattened order.
    pub outputs: Vec<usize>,
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
    /// What its inputs are to it.
    pub arguments: Arguments,
}

impl Plan {
    /// Plans the model that `config` describes.
    ///
    /// # Errors
    /// Every layer and setting that is not reproduced exactly, all at once; and shapes that do not fit.
    pub fn new(config: &ModelConfig) -> Result<Self> {
        Self::with_layers(config, &Registry::default())
    }

    /// Plans the model that `config` describes, with the user's own layers of `custom`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_layers(config: &ModelConfig, custom: &Registry) -> Result<Self> {
        let version = config.keras_version.as_deref();
        let context = Context {
            keras_version: version,
            on_theano: config.backend.as_deref() == Some("theano"),
            assets: Some(&config.assets),
            group: "",
            legacy: config.legacy,
            is_inner: false,
            custom: Some(custom),
        };
        Builder::build(config, context)
    }

    /// Plans a model that is inside a layer.
    pub(crate) fn nested(config: &ModelConfig, context: Context<'_>) -> Result<Self> {
        Builder::build(config, context)
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

    /// The layers, in the order of the file; those of a model inside the model in its place.
    #[must_use]
    pub fn layers(&self) -> &[PlannedLayer] {
        &self.layers
    }

    /// The models inside the model, each before those inside it.
    #[must_use]
    pub fn models(&self) -> &[PlannedModel] {
        &self.models
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

    /// The slots that hold constants of the graph, and the constants.
    #[must_use]
    pub fn constants(&self) -> &[(usize, Value)] {
        &self.constants
    }

    /// The first slot that holds the same tensor as `slot`, as Keras has it.
    #[must_use]
    pub fn same_as(&self, slot: usize) -> usize {
        self.same.get(slot).copied().unwrap_or(slot)
    }

    /// The slots that nobody reads after step `step`.
    pub(crate) fn last_used_by(&self, step: usize) -> &[usize] {
        self.spent.get(step).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the sizes of what is fed are checked against the model's.
    #[must_use]
    pub fn checks_sizes(&self) -> bool {
        self.checks_sizes
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
        Model::of(Arc::new(self), vars)
    }
}

/// As many axes as numpy allows. Every slot has a shape, so without a limit a small file could ask for much memory.
pub(crate) const MOST_AXES: usize = 64;

/// How errors call a layer: by path and class.
pub(crate) fn place(path: &str, class: &str) -> String {
    format!("layer \"{}\" ({})", shown(path), shown(class))
}

/// Reads an InputLayer.
pub(crate) fn read_input(
    layer: &LayerConfig,
    at: &str,
    context: Context<'_>,
) -> std::result::Result<Input, Vec<Problem>> {
    use kandle_format::Dtype;
    let mut fields = Fields::new(&layer.config, at, context);
    fields.training_only(&["name"]);
    fields.only("sparse", &false.into());
    fields.only("ragged", &false.into());
    let optional = fields.flag("optional", false);
    let dtype = match fields.take("dtype") {
        None => Dtype::Float32,
        Some(value) => match value.as_str().and_then(Dtype::from_name) {
            Some(dtype) => dtype,
            None => {
                fields.unsupported("dtype", value, "numbers, bool and string");
                Dtype::Float32
            }
        },
    };
    let shape = match fields.take("batch_shape") {
        Some(value) => shape(value).unwrap_or_else(|| {
            fields.invalid("batch_shape", value, "a list of at most 64 axes, batch first");
            Shape(Vec::new())
        }),
        None => {
            fields.problem(Problem::new(ErrorKind::Invalid, at, "batch_shape is missing"));
            Shape(Vec::new())
        }
    };
    let problems = fields.finish();
    if problems.is_empty() {
        Ok(Input { name: layer.name.clone(), spec: Spec { shape, dtype }, slot: 0, optional })
    } else {
        Err(problems)
    }
}

/// A shape with the batch axis, null where a size is not known.
pub(crate) fn shape(value: &Json) -> Option<Shape> {
    let axis = |value: &Json| match value {
        Json::Null => Some(None),
        size => usize::try_from(size.as_u64()?).ok().map(Some),
    };
    let axes = value.as_array().filter(|axes| axes.len() <= MOST_AXES)?;
    axes.iter().map(axis).collect::<Option<Vec<_>>>().map(Shape)
}

/// The names of groups in a weight store: the class in snake case, with a number from the second of a class on.
///
/// Keras: layers are counted by class, in the order of the configuration; their own names play no part.
/// Source: keras/src/saving/saving_lib.py (`_save_container_state`).
#[derive(Default)]
pub(crate) struct GroupNames(BTreeMap<String, usize>);

impl GroupNames {
    pub(crate) fn next(&mut self, class: &str) -> String {
        let name = match class {
            // Keras: the class is called GroupedQueryAttention, and saved under its public name.
            "GroupQueryAttention" => "grouped_query_attention".to_owned(),
            class => snake_case(class),
        };
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
