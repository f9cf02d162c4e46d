//! What all recurrent layers share: a cell, which is one step in time, and how a cell or a recurrent layer inside another
//! layer is read.

use std::fmt;

use candle_core::{Result, Tensor, bail};
use kandle_format::{ErrorKind, Problem, json::Value as Json, shown};

use super::simple_rnn::SimpleRnnCell;
use crate::{
    Activation, Call, Fields, Function, Given, KerasLayer, Policy, Shape, Spec, Value, Weight, dialect,
    fields::{Context, MANY_POLICIES},
    layers::cannot,
    numeric::{cast, storage},
    primitive::Recurrent,
    registry::class_of,
    run::prepared_weight,
};

/// Settings of cells, and of layers made of them, that change nothing at inference.
pub(super) const TRAINING_ONLY: &[&str] = &[
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "dropout",
    "recurrent_dropout",
    "seed",
    // Keras 2: how the same sums are split into products.
    "implementation",
];

/// One step in time: states and an input give new states, one of which is the output.
///
/// What depends on the input alone is computed for all steps at once by [`project`](Self::project); the rest, step by
/// step, by [`step`](Self::step).
pub(super) trait Cell: fmt::Debug + Send + Sync {
    /// Reads the settings of the cell, or of a layer that is made of one.
    fn read(fields: &mut Fields<'_>) -> Self
    where
        Self: Sized;

    /// The parameters of the cell's `call`.
    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "states"]
    }

    /// The weights for one step's input of shape `input`, in Keras's order. `suffix` ends each name in the `VarMap`.
    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String>;

    /// How many weights there are.
    fn weight_count(&self) -> usize;

    /// The shapes of the states, batch axis first, for one step's input of shape `input`; a list within a list is flat.
    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String>;

    /// How many states there are.
    fn state_count(&self) -> usize;

    /// Which of the new states is the output.
    fn output_state(&self) -> usize {
        0
    }

    /// The weights as [`project`](Self::project) and [`step`](Self::step) get them, made once for all steps.
    fn prepare(&self, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(weights.to_vec())
    }

    /// The cell as part of a primitive, with nothing said of the steps; none where there is no such.
    ///
    /// # Errors
    /// What candle reports of the weights.
    fn lowered(&self, weights: &[Tensor]) -> Result<Option<Recurrent>> {
        let _ = weights;
        Ok(None)
    }

    /// What depends on the input alone: xs `(rows, …)`, result `(rows, …)`, a row for each sample and step.
    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor>;

    /// The new states, from what [`project`](Self::project) gave for this step and the states before.
    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>>;
}

/// The size of the features of one step, `(batch, features)`.
pub(super) fn features(input: &Shape) -> std::result::Result<usize, String> {
    match input.0.as_slice() {
        [_, Some(features)] => Ok(*features),
        [_, None] => Err("the size of its input's last axis is not known".to_owned()),
        _ => Err(format!("expected an input of (batch, features) at each step, found {input}")),
    }
}

/// The size of `count` gates of `units` each.
pub(super) fn gates(count: usize, units: usize) -> std::result::Result<usize, String> {
    units.checked_mul(count).ok_or_else(|| format!("{units} units are too many"))
}

/// One state of `units`, for one step's input of shape `input`.
pub(super) fn state(input: &Shape, units: usize) -> Shape {
    Shape(vec![input.0.first().copied().flatten(), Some(units)])
}

/// `xs · kernel` for xs `(rows, features)`; `transposed` where the kernel is `(units, features)`, as candle has it.
pub(super) fn product(xs: &Tensor, kernel: &Tensor, transposed: bool) -> Result<Tensor> {
    let kernel = if transposed { kernel.t()? } else { kernel.clone() };
    let (_, features) = xs.dims2()?;
    let (expected, _) = kernel.dims2()?;
    if features != expected {
        bail!("input has {features} features, kernel expects {expected}")
    }
    xs.matmul(&kernel)
}

/// Weight number `index` of a cell.
pub(super) fn weight(weights: &[Tensor], index: usize) -> Result<&Tensor> {
    match weights.get(index) {
        Some(weight) => Ok(weight),
        None => bail!("the cell has no weight {index}"),
    }
}

/// The functions of a cell, where they are functions of single numbers that primitives have.
pub(super) fn functions(activation: &Activation, recurrent: &Activation) -> Option<(Function, Function)> {
    let of = |activation: &Activation| match activation {
        Activation::Function(function) if function.is_of_numbers() => Some(*function),
        _ => None,
    };
    of(activation).zip(of(recurrent))
}

/// A layer inside another, with what Keras keeps beside its settings.
#[derive(Debug)]
pub(super) struct Inside<T> {
    /// Its Keras class.
    pub class: String,
    /// Whether its own weights are trainable.
    pub trainable: bool,
    /// Its dtype policy.
    pub policy: Policy,
    /// The layer.
    pub layer: T,
}

impl<T> Inside<T> {
    /// Reads what `value`, the value of `key`, describes, if `find` knows the class. What is wrong is noted in `outer`.
    pub(super) fn read(
        outer: &mut Fields<'_>,
        key: &str,
        value: &Json,
        find: impl FnOnce(&str) -> Option<fn(&mut Fields<'_>) -> T>,
        known: &str,
    ) -> Option<Self> {
        let at = format!("{} › {key}", outer.at());
        let config = match dialect::read_layer(&at, value, outer.context().keras_version) {
            Ok(config) => config,
            Err(problems) => {
                problems.into_iter().for_each(|problem| outer.problem(problem));
                return None;
            }
        };
        let at = format!("{} › {key} \"{}\" ({})", outer.at(), shown(&config.name), shown(&config.class));
        let group = format!("{}/{key}", outer.context().group);
        let context = Context { group: &group, ..outer.context() };
        if let Err(problem) = class_of(&config, &at, context.custom) {
            outer.problem(problem);
            return None;
        }
        let own = !config.registered_name.as_deref().unwrap_or_default().contains('>');
        let Some(read) = find(&config.class).filter(|_| own) else {
            let what = format!("this class is not supported as {key} (only {known})");
            outer.problem(Problem::new(ErrorKind::Unsupported, at, what));
            return None;
        };
        let mut fields = Fields::new(&config.config, &at, context);
        let trainable = fields.common();
        if fields.policy_may_differ() {
            fields.refuse(MANY_POLICIES);
        }
        if fields.policy().quantization.is_some() {
            fields.refuse("a quantized dtype policy is not supported for this layer");
        }
        let layer = read(&mut fields);
        let policy = fields.policy().clone();
        let problems = fields.finish();
        if problems.is_empty() {
            return Some(Self { class: config.class, trainable, policy, layer });
        }
        problems.into_iter().for_each(|problem| outer.problem(problem));
        None
    }

    /// Weights of the layer as the one around it declares them. They are cast by [`rounded`](Self::rounded): the policy
    /// that counts is the inner one.
    pub(super) fn declared(&self, weights: Vec<Weight>, owner: &str, prefix: &str) -> Vec<Weight> {
        weights
            .into_iter()
            .map(|weight| weight.inside(owner, prefix, self.trainable, &self.policy).not_cast())
            .collect()
    }

    /// The weights in the layer's arithmetic dtype, rounded to its compute dtype.
    pub(super) fn rounded(&self, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        weights.iter().map(|weight| prepared_weight(weight, true, &self.policy)).collect()
    }

    /// An input in the layer's arithmetic dtype, rounded to its compute dtype.
    pub(super) fn cast(&self, xs: &Tensor) -> Result<Tensor> {
        cast_for(&self.policy, xs)
    }

    /// Several of them.
    pub(super) fn cast_all(&self, xs: &[Tensor]) -> Result<Vec<Tensor>> {
        xs.iter().map(|xs| self.cast(xs)).collect()
    }
}

/// `xs` in the arithmetic dtype of `policy`, rounded to its compute dtype.
pub(super) fn cast_for(policy: &Policy, xs: &Tensor) -> Result<Tensor> {
    let rounded = if policy.compute.is_float() { xs.to_dtype(storage(policy.compute)?)? } else { xs.clone() };
    rounded.to_dtype(storage(policy.arithmetic())?)
}

/// A cell inside another layer: what the key `cell` describes.
pub(super) type InnerCell = Inside<Box<dyn Cell>>;

/// The stand-in for a cell that could not be read.
impl Default for InnerCell {
    fn default() -> Self {
        let (class, policy) = (String::new(), Policy::default());
        Self { class, trainable: true, policy, layer: Box::new(SimpleRnnCell::default()) }
    }
}

impl InnerCell {
    /// The cell that `value`, the value of `key`, describes. What is wrong with it is noted in `fields`.
    pub(super) fn read_cell(fields: &mut Fields<'_>, key: &str, value: &Json) -> Self {
        const KNOWN: &str = "SimpleRNNCell, LSTMCell, GRUCell and StackedRNNCells";
        Self::read(fields, key, value, super::cell_class, KNOWN).unwrap_or_default()
    }
}

impl Cell for InnerCell {
    fn read(fields: &mut Fields<'_>) -> Self {
        match fields.take("cell") {
            // Keras: what the saved model wrote for RNN([cells]) is a StackedRNNCells.
            Some(value) => Self::read_cell(fields, "cell", value),
            None => {
                fields.wrong("cell is missing");
                Self::default()
            }
        }
    }

    fn weights(&self, input: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        Ok(self.declared(self.layer.weights(input, suffix)?, "", ""))
    }

    fn weight_count(&self) -> usize {
        self.layer.weight_count()
    }

    fn states(&self, input: &Shape) -> std::result::Result<Vec<Shape>, String> {
        self.layer.states(input)
    }

    fn state_count(&self) -> usize {
        self.layer.state_count()
    }

    fn output_state(&self) -> usize {
        self.layer.output_state()
    }

    fn prepare(&self, weights: &[Tensor]) -> Result<Vec<Tensor>> {
        self.layer.prepare(&self.rounded(weights)?)
    }

    fn project(&self, xs: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        self.layer.project(&self.cast(xs)?, weights)
    }

    fn step(&self, projected: &Tensor, states: &[Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        self.cast_all(&self.layer.step(projected, &self.cast_all(states)?, weights)?)
    }
}

/// A cell as a layer of its own: `cell(inputs, states)` gives the output and the new states.
#[derive(Debug)]
pub(super) struct CellLayer<C>(C);

impl<C: Cell> KerasLayer for CellLayer<C> {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self(C::read(fields))
    }

    fn parameters(&self) -> &'static [&'static str] {
        self.0.parameters()
    }

    fn weights(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Weight>, String> {
        self.0.weights(&given.input()?.shape, "")
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let input = given.input().map_err(cannot)?;
        let states = self.0.states(&input.shape).map_err(cannot)?;
        let found = given.tensors("states").len();
        if found != states.len() {
            return Err(cannot(format!("expected {} states, found {found}", states.len())));
        }
        let output = states.get(self.0.output_state()).into_iter();
        let dtype = given.policy().arithmetic();
        Ok(output.chain(&states).map(|shape| Spec { shape: shape.clone(), dtype }).collect())
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let dtype = call.given.policy().arithmetic();
        let input = cast(call.input()?, dtype)?;
        let weights = self.0.prepare(call.weights)?;
        let projected = self.0.project(&input.tensor, &weights)?;
        let states = call.given.tensors("states");
        let states = states.iter().map(|state| state.tensor.to_dtype(projected.dtype())).collect::<Result<Vec<_>>>()?;
        if states.len() != self.0.state_count() {
            bail!("expected {} states, found {}", self.0.state_count(), states.len())
        }
        let states = self.0.step(&projected, &states, &weights)?;
        let output = states.get(self.0.output_state()).into_iter();
        output.chain(&states).map(|state| Ok(Value::new(state.to_dtype(storage(dtype)?)?, dtype))).collect()
    }
}
