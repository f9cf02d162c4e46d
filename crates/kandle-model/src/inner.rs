use kandle_format::{LayerConfig, ModelConfig, Problem, json::Value as Json, shown};

use crate::{
    Arguments, Call, Fields, Given, KerasLayer, Plan, Policy, Spec, Value, Weight, dialect,
    fields::{Context, MANY_POLICIES},
    registry::class_of,
    run::invoke,
};

/// A layer inside a layer: a cell, what a wrapper wraps, or a whole model there.
#[derive(Debug)]
pub struct Inner {
    /// Its Keras class.
    pub class: String,
    /// Its name.
    pub name: String,
    /// Whether its own weights are trainable.
    pub trainable: bool,
    /// Its dtype policy.
    pub policy: Policy,
    /// The layer.
    pub layer: Box<dyn KerasLayer>,
    /// Whether it is a whole model, whose layers have policies of their own.
    pub(crate) is_model: bool,
    /// Whether it is a layer of the user's own, whatever its class is called.
    pub(crate) is_custom: bool,
}

impl Inner {
    /// The layer that the value of `key` describes. What is wrong with it is noted in `fields`.
    pub(crate) fn read(fields: &mut Fields<'_>, key: &str, value: &Json) -> Option<Self> {
        let at = format!("{} › {key}", fields.at());
        let config = match dialect::read_layer(&at, value, fields.context().keras_version) {
            Ok(config) => config,
            Err(problems) => {
                problems.into_iter().for_each(|problem| fields.problem(problem));
                return None;
            }
        };
        let at = format!("{} › {key} \"{}\" ({})", fields.at(), shown(&config.name), shown(&config.class));
        let group = format!("{}/{key}", fields.context().group);
        let context = Context { group: &group, is_inner: true, ..fields.context() };
        match Self::build(&config, &at, context) {
            Ok(inner) => Some(inner),
            Err(problems) => {
                problems.into_iter().for_each(|problem| fields.problem(problem));
                None
            }
        }
    }

    fn build(config: &LayerConfig, at: &str, context: Context<'_>) -> Result<Self, Vec<Problem>> {
        if let Some(model) = config.model(context.keras_version) {
            let wrong = |error: kandle_format::Error| error.problems().cloned().collect::<Vec<_>>();
            let model: ModelConfig = model.map_err(wrong)?;
            let plan = Plan::nested(&model, context).map_err(wrong)?;
            let (class, name) = (config.class.clone(), config.name.clone());
            let policy = Policy::default();
            let layer = Box::new(NestedModel { plan });
            return Ok(Self { class, name, trainable: true, policy, layer, is_model: true, is_custom: false });
        }
        let registered = class_of(config, at, context.custom).map_err(|problem| vec![problem])?;
        let mut fields = Fields::new(&config.config, at, context);
        let trainable = fields.common();
        if fields.policy_may_differ() {
            fields.refuse(MANY_POLICIES);
        }
        let layer = registered.read(&mut fields);
        let policy = fields.policy().clone();
        let problems = fields.finish();
        if !problems.is_empty() {
            return Err(problems);
        }
        let (class, name) = (config.class.clone(), config.name.clone());
        let (is_model, is_custom) = (false, registered.is_custom());
        Ok(Self { class, name, trainable, policy, layer, is_model, is_custom })
    }

    /// Its weights for inputs of `inputs`, under `owner` in the file and `prefix` in the `VarMap`.
    ///
    /// # Errors
    /// As [`KerasLayer::weights`].
    pub fn weights(&self, inputs: &[Spec], owner: &str, prefix: &str) -> Result<Vec<Weight>, String> {
        let arguments = Arguments::of_first(self.layer.parameters(), inputs.len());
        let given = Given { arguments: &arguments, tensors: inputs, policy: &self.policy };
        let weights = self.layer.weights(given)?;
        Ok(weights.into_iter().map(|weight| weight.inside(owner, prefix, self.trainable, &self.policy)).collect())
    }

    /// What comes out for inputs of `inputs`.
    ///
    /// # Errors
    /// As [`KerasLayer::output`].
    pub fn output(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Problem> {
        let arguments = Arguments::of_first(self.layer.parameters(), inputs.len());
        crate::run::plan_output(self.layer.as_ref(), &self.policy, &arguments, inputs)
    }

    /// Runs it on `inputs`, each with its mask, as Keras calls a layer: with casts and the rules of masks.
    ///
    /// # Errors
    /// As [`KerasLayer::forward`].
    pub fn call(&self, inputs: &[Value], weights: &[candle_core::Tensor]) -> candle_core::Result<Vec<Value>> {
        let arguments = Arguments::of_first(self.layer.parameters(), inputs.len());
        invoke(self.layer.as_ref(), &self.policy, &arguments, inputs, weights)
    }
}

/// A Sequential or Functional model as a layer: inside a wrapper such as TimeDistributed.
#[derive(Debug)]
struct NestedModel {
    plan: Plan,
}

impl KerasLayer for NestedModel {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.refuse("a model is not read as a layer");
        Self { plan: Plan::default() }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = Vec::new();
        for layer in self.plan.weights().layers() {
            let inside = |weight: &Weight| {
                let in_group =
                    |group: &str| weight.clone().inside(group, &layer.prefix, layer.trainable, &Policy::default());
                let twice = in_group(&layer.group_named_twice);
                let owner_named_twice = Some(twice.owner_named_twice.unwrap_or(twice.owner));
                Weight { owner_named_twice, ..in_group(&layer.group) }
            };
            weights.extend(layer.weights.iter().map(inside));
        }
        Ok(weights)
    }

    fn output(&self, _: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(self.plan.outputs().iter().filter_map(|slot| self.plan.slot(*slot).cloned()).collect())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let mut weights = call.weights;
        let mut of_layers = Vec::new();
        for layer in self.plan.layers() {
            let count = self.plan.weights_of(layer).map_or(0, |entry| entry.weights.len());
            let (own, rest) = weights.split_at_checked(count).unwrap_or((weights, &[]));
            of_layers.push(own.to_vec());
            weights = rest;
        }
        let inputs: Vec<Option<Value>> = call.given.inputs().into_iter().cloned().map(Some).collect();
        let masks = call.given.masks().into_iter().chain(std::iter::repeat(None));
        let masked = inputs.into_iter().zip(masks).map(|(input, mask)| match mask {
            Some(mask) => input.map(|input| input.with_mask(Some(mask.clone()))),
            None => input,
        });
        crate::run::run(&self.plan, &of_layers, &masked.collect::<Vec<_>>(), None)
    }

    fn autocasts(&self) -> bool {
        false
    }
}
