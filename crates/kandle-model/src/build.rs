//! Builds the plan of a model: reads every layer once, then follows the calls.

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Dtype, Error, ErrorKind, LayerConfig, ModelConfig, Problem, Result, shown};

use crate::{
    Argument, Arguments, Given, Input, KerasLayer, LayerWeights, Plan, PlannedLayer, Policy, Spec, Step,
    fields::{Context, Fields, MANY_POLICIES},
    graph::{Graph, History, Nest, Source},
    plan::{GroupNames, MOST_AXES, place, read_input, shape},
    registry::class_of,
    run::{NestedInput, is_cast, plan_output, planned_inputs},
    weights::LegacyGroup,
};

/// As many calls as a plan may have. Models in models that are called twice each double with every level.
const MOST_STEPS: usize = 1 << 20;

/// A model, the outermost or one inside it, with its layers read.
struct Scope {
    at: String,
    path: String,
    members: Vec<Member>,
    body: Body,
}

/// What a layer of a model is.
#[derive(Clone)]
enum Member {
    Input(Input),
    /// A layer, by its number among the definitions.
    Layer(usize),
    /// A model, by its number among the scopes.
    Model(usize),
}

enum Body {
    Sequential,
    Functional(Graph),
}

/// A layer that was read.
struct Definition {
    path: String,
    class: String,
    group: String,
    trainable: bool,
    policy: Policy,
    /// Whether a map gives what is within it other policies, or itself another where it builds nothing.
    policy_may_differ: bool,
    layer: Box<dyn KerasLayer>,
    /// Its weights, known from its first call on.
    weights: Option<Vec<crate::Weight>>,
    calls: usize,
}

impl Definition {
    fn at(&self) -> String {
        place(&self.path, &self.class)
    }
}

/// Where in the outermost model a layer is read.
#[derive(Clone, Copy)]
struct Within<'a> {
    /// The path of the model it is in, with a slash behind it: `encoder/`.
    path: &'a str,
    /// The group of that model in the weight store, with a slash behind it.
    group: &'a str,
    trainable: bool,
    /// Whether that model is a Sequential.
    sequential: bool,
    /// Numbers of the legacy group the layer's weights lie in, but for the outermost model's own layers.
    legacy: Option<usize>,
}

pub(crate) struct Builder<'a> {
    context: Context<'a>,
    scopes: Vec<Scope>,
    definitions: Vec<Definition>,
    shared: BTreeMap<u64, Member>,
    legacy: Vec<LegacyMembers>,
    problems: Vec<Problem>,
    plan: Plan,
}

/// The layers whose weights lie in one group of a legacy file.
struct LegacyMembers {
    name: String,
    definitions: Vec<usize>,
}

impl<'a> Builder<'a> {
    pub(crate) fn build(config: &ModelConfig, context: Context<'a>) -> Result<Plan> {
        let mut builder = Self {
            context,
            scopes: Vec::new(),
            definitions: Vec::new(),
            shared: BTreeMap::new(),
            legacy: Vec::new(),
            problems: Vec::new(),
            plan: Plan { name: config.name.clone(), ..Plan::default() },
        };
        if config.keras_major() != 3 {
            let version = config.keras_version.as_deref().map_or_else(|| "1".to_owned(), shown);
            let what = format!("written by Keras {version}, only files of Keras 3 are supported yet");
            builder.problems.push(Problem::new(ErrorKind::Unsupported, &config.at, what));
        }
        let sequential = config.class == "Sequential";
        let outermost = Within { path: "", group: "", trainable: true, sequential, legacy: None };
        let root = builder.read_model(config, outermost);
        if config.keras_major() != 3 {
            // Settings of other versions have other names: what seems wrong with them is not said.
            builder.problems.retain(|problem| problem.kind == ErrorKind::Unsupported);
        }
        Error::check(std::mem::take(&mut builder.problems))?;
        let Some(root) = root else {
            return Err(Error::new(ErrorKind::Invalid, &config.at, "the model could not be read"));
        };
        builder.follow(root, &config.at)
    }

    fn refuse(&mut self, at: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Unsupported, at, what.into()));
    }

    fn invalid(&mut self, at: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Invalid, at, what.into()));
    }

    /// Reads a model and all that is in it. Everything wrong is noted, for all layers.
    fn read_model(&mut self, config: &ModelConfig, within: Within<'_>) -> Option<usize> {
        if let Some(custom) = config.registered_name.as_deref().filter(|name| name.contains('>')) {
            let what = format!("{} is a user's own model class, whose Python code is not in the file", shown(custom));
            self.refuse(&config.at, what);
        }
        let sequential = config.class == "Sequential";
        let functional = !sequential && config.config.contains_key("output_layers");
        if !sequential && !functional {
            let what =
                format!("a model of class {} is not supported (only Sequential and Functional)", shown(&config.class));
            self.refuse(&config.at, what);
        }
        let mut names = BTreeSet::new();
        let mut groups = GroupNames::default();
        let mut members = Vec::new();
        for (index, layer) in config.layers.iter().enumerate() {
            let path = format!("{}{}", within.path, layer.name);
            let at = place(&path, &layer.class);
            if !names.insert(layer.name.as_str()) {
                self.invalid(&at, "a second layer of this name: names are unique in a Keras model");
            }
            if layer.class == "InputLayer" && (index == 0 || !sequential) {
                if !sequential {
                    groups.next("InputLayer");
                }
                match read_input(layer, &at, self.context) {
                    Ok(input) => members.push(Member::Input(input)),
                    Err(found) => {
                        self.problems.extend(found);
                        members.push(Member::Input(Input::unknown()));
                    }
                }
                continue;
            }
            members.extend(self.read_member(layer, &path, &at, &mut groups, within));
        }
        let body = if functional {
            // A graph over layers that could not be read would not fit.
            if members.len() != config.layers.len() {
                return None;
            }
            match Graph::new(config) {
                Ok(graph) => Body::Functional(graph),
                Err(what) => {
                    self.invalid(&config.at, what);
                    return None;
                }
            }
        } else {
            if !matches!(members.first(), Some(Member::Input(_))) {
                // Keras: a Sequential model without an InputLayer takes its input from what it was built on, as float32.
                if let Some(shape) = config.config.get("build_input_shape").and_then(shape) {
                    let spec = Spec { shape, dtype: Dtype::Float32 };
                    let input = Input { name: "input_layer".to_owned(), spec, slot: 0, optional: false };
                    members.insert(0, Member::Input(input));
                }
            }
            Body::Sequential
        };
        self.scopes.push(Scope { at: config.at.clone(), path: within.path.to_owned(), members, body });
        Some(self.scopes.len() - 1)
    }

    /// Reads a layer of a model, or a model there; what was read before under the same mark is the same.
    fn read_member(
        &mut self,
        layer: &LayerConfig,
        path: &str,
        at: &str,
        groups: &mut GroupNames,
        within: Within<'_>,
    ) -> Option<Member> {
        let class = match class_of(layer, at, self.context.custom) {
            Ok(class) => Some(class),
            Err(_) if layer.model(self.context.keras_version).is_some() => None,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        // Keras: operations own nothing and take no number.
        let operation = class.is_some_and(|class| class.is_operation());
        let name = if operation { String::new() } else { groups.next(&layer.class) };
        // Keras: what was saved before is not saved again, but takes its number.
        if let Some(known) = layer.shared_object_id.and_then(|id| self.shared.get(&id)).cloned() {
            if let (Member::Layer(definition), Some(legacy)) = (&known, within.legacy)
                && let Some(legacy) = self.legacy.get_mut(legacy)
            {
                legacy.definitions.push(*definition);
            }
            return Some(known);
        }
        let group = format!("{}layers/{name}", within.group);
        let member = match class {
            Some(class) => {
                let context = Context { group: &group, ..self.context };
                let mut fields = Fields::new(&layer.config, at, context);
                let trainable = fields.common() && within.trainable;
                if within.sequential && self.context.legacy && fields.policy_is_by_path() {
                    fields.refuse(MANY_POLICIES);
                }
                let read = class.read(&mut fields);
                if fields.policy().quantization.is_some() && !read.quantizes() {
                    fields.refuse("a quantized dtype policy is not supported for this layer");
                }
                let (policy, policy_may_differ) = (fields.policy().clone(), fields.policy_may_differ());
                let problems = fields.finish();
                if !problems.is_empty() {
                    self.problems.extend(problems);
                    return None;
                }
                let (path, class) = (path.to_owned(), layer.class.clone());
                let (weights, calls) = (None, 0);
                let definition = Definition {
                    path,
                    class,
                    group,
                    trainable,
                    policy,
                    policy_may_differ,
                    layer: read,
                    weights,
                    calls,
                };
                self.definitions.push(definition);
                let number = self.definitions.len() - 1;
                if !operation {
                    self.in_legacy(number, &layer.name, within);
                }
                Member::Layer(number)
            }
            None => {
                let model = match layer.model(self.context.keras_version)? {
                    Ok(mut model) => {
                        at.clone_into(&mut model.at);
                        model
                    }
                    Err(error) => {
                        self.problems.extend(error.problems().cloned());
                        return None;
                    }
                };
                let trainable =
                    within.trainable && model.config.get("trainable").and_then(|flag| flag.as_bool()).unwrap_or(true);
                let legacy = within.legacy.or_else(|| {
                    self.legacy.push(LegacyMembers { name: layer.name.clone(), definitions: Vec::new() });
                    self.legacy.len().checked_sub(1)
                });
                let (path, group) = (format!("{path}/"), format!("{group}/"));
                let sequential = model.class == "Sequential";
                let inside = Within { path: &path, group: &group, trainable, sequential, legacy };
                Member::Model(self.read_model(&model, inside)?)
            }
        };
        if let Some(id) = layer.shared_object_id {
            self.shared.insert(id, member.clone());
        }
        Some(member)
    }

    /// Notes in which group of a legacy file a layer's weights lie.
    fn in_legacy(&mut self, definition: usize, name: &str, within: Within<'_>) {
        match within.legacy.and_then(|group| self.legacy.get_mut(group)) {
            Some(group) => group.definitions.push(definition),
            None => {
                let definitions = vec![definition];
                self.legacy.push(LegacyMembers { name: name.to_owned(), definitions });
            }
        }
    }

    /// Follows the calls of the outermost model.
    fn follow(mut self, root: usize, at: &str) -> Result<Plan> {
        let fail = |kind, what: &str| Err(Error::new(kind, at, what));
        let Some(scope) = self.scopes.get(root) else { return fail(ErrorKind::Invalid, "the model could not be read") };
        self.plan.checks_sizes = matches!(scope.body, Body::Functional(_));
        let inputs: Vec<Input> = match &scope.body {
            Body::Sequential => match scope.members.as_slice() {
                [Member::Input(_)] | [] => return fail(ErrorKind::Invalid, "a model without layers"),
                [Member::Input(input), ..] => vec![input.clone()],
                _ => {
                    let what = "the model was never built, so its input shape is not in the file: call it once in Keras and save it again";
                    return fail(ErrorKind::Missing, what);
                }
            },
            Body::Functional(graph) => {
                let input = |history: History| match scope.members.get(history.layer) {
                    Some(Member::Input(input)) => Ok(input.clone()),
                    _ => Err(Error::new(ErrorKind::Unsupported, at, "an input that is no InputLayer is not supported")),
                };
                graph.inputs.leaves().into_iter().map(input).collect::<Result<_>>()?
            }
        };
        let mut slots = Vec::new();
        for input in inputs {
            let slot = self.slot(input.spec.clone());
            self.plan.inputs.push(Input { slot, ..input });
            slots.push(slot);
        }
        self.plan.outputs = self.call_scope(root, &slots)?;
        self.finish()
    }

    fn slot(&mut self, spec: Spec) -> usize {
        self.plan.slots.push(spec);
        let slot = self.plan.slots.len() - 1;
        self.plan.same.push(slot);
        slot
    }

    /// Calls a model on `inputs`, one slot for each of its inputs. Returns the slots of its outputs.
    fn call_scope(&mut self, number: usize, inputs: &[usize]) -> Result<Vec<usize>> {
        let wrong = |at: &str, what: &str| Error::new(ErrorKind::Invalid, at, what);
        let Some(scope) = self.scopes.get(number) else { return Err(wrong("", "a model that does not exist")) };
        let members = scope.members.clone();
        let at = scope.at.clone();
        let (nodes, ends) = match &scope.body {
            Body::Sequential => (None, None),
            Body::Functional(graph) => {
                (Some(graph.nodes.clone()), Some((graph.inputs.leaves(), graph.outputs.leaves())))
            }
        };
        let (Some(nodes), Some((given, outputs))) = (nodes, ends) else {
            let mut slots = inputs.to_vec();
            for member in members.iter().filter(|member| !matches!(member, Member::Input(_))) {
                let count = slots.len();
                slots = self.call_member(member, |parameters| Ok(Arguments::of_first(parameters, count)), &slots)?;
            }
            return Ok(slots);
        };
        let mut filled: BTreeMap<History, usize> = given.into_iter().zip(inputs.iter().copied()).collect();
        for node in nodes {
            let Some(member) = members.get(node.layer).filter(|member| !matches!(member, Member::Input(_))) else {
                continue;
            };
            let mut slots = Vec::new();
            for source in &node.sources {
                match source {
                    Source::Tensor(history) => match filled.get(history) {
                        Some(slot) => slots.push(*slot),
                        None => return Err(wrong(&at, "the graph is not connected: a call reads what no call gives")),
                    },
                    Source::Constant(value) => {
                        let axes = value.tensor.dims().iter().copied().map(Some).collect();
                        let slot = self.slot(Spec { shape: crate::Shape(axes), dtype: value.dtype });
                        self.plan.constants.push((slot, value.clone()));
                        slots.push(slot);
                    }
                }
            }
            let (positional, named) = (node.positional, node.named);
            let outputs =
                self.call_member(member, |parameters| Arguments::bind(parameters, positional, named), &slots)?;
            for (tensor, slot) in outputs.into_iter().enumerate() {
                filled.insert(History { layer: node.layer, node: node.node, tensor }, slot);
            }
        }
        let output = |history: &History| {
            filled.get(history).copied().ok_or_else(|| wrong(&at, "output_layers names a tensor that no call gives"))
        };
        outputs.iter().map(output).collect()
    }

    /// Calls a layer or a model inside a model on `slots`.
    fn call_member(
        &mut self,
        member: &Member,
        arguments: impl FnOnce(&'static [&'static str]) -> std::result::Result<Arguments, String>,
        slots: &[usize],
    ) -> Result<Vec<usize>> {
        match member {
            Member::Layer(number) => {
                let Some(definition) = self.definitions.get(*number) else {
                    return Err(Error::new(ErrorKind::Invalid, "", "a layer that does not exist"));
                };
                let at = definition.at();
                let arguments = arguments(definition.layer.parameters())
                    .map_err(|what| Error::new(ErrorKind::Unsupported, &at, what))?;
                self.step(*number, arguments, slots)
            }
            Member::Model(number) => {
                let at = self.scopes.get(*number).map(|scope| scope.at.clone()).unwrap_or_default();
                let arguments = arguments(&["inputs", "training", "mask"])
                    .map_err(|what| Error::new(ErrorKind::Unsupported, &at, what))?;
                let inputs = self.nested_inputs(*number, &arguments, slots, &at)?;
                self.call_scope(*number, &inputs)
            }
            Member::Input(_) => Ok(slots.to_vec()),
        }
    }

    /// The slots that feed a model inside a model: those of the call, cast and with the mask of the call where it has one.
    fn nested_inputs(&mut self, number: usize, arguments: &Arguments, slots: &[usize], at: &str) -> Result<Vec<usize>> {
        let wrong = |what: String| Error::new(ErrorKind::Invalid, at, what);
        let Some(scope) = self.scopes.get(number) else { return Err(wrong("a model that does not exist".to_owned())) };
        let input_at = |history: History| match scope.members.get(history.layer) {
            Some(Member::Input(input)) => Ok(Some(input.clone())),
            _ => Err(Error::new(ErrorKind::Unsupported, at, "an input that is no InputLayer is not supported")),
        };
        let declared: Vec<Option<Input>> = match &scope.body {
            Body::Sequential => match scope.members.first() {
                Some(Member::Input(input)) => vec![Some(input.clone())],
                _ => vec![None],
            },
            Body::Functional(graph) => graph.inputs.leaves().into_iter().map(input_at).collect::<Result<_>>()?,
        };
        let keyed = matches!(&scope.body, Body::Functional(graph) if matches!(graph.inputs, Nest::Mapping(_)));
        let given = match arguments.get("inputs") {
            // Keras: a dict that is given to a model of listed inputs is matched with their names.
            Some(Argument::Mapping(items)) if !keyed => declared
                .iter()
                .flatten()
                .map(|input| match items.get(&input.name) {
                    Some(Argument::Tensor(tensor)) => Ok(Some(*tensor)),
                    _ => Err(wrong(format!("the dict it is called on has no tensor \"{}\"", shown(&input.name)))),
                })
                .collect::<Result<Vec<_>>>()?,
            Some(argument) => argument.tensors(),
            None => Vec::new(),
        };
        let masks = arguments.get("mask").map(Argument::tensors).unwrap_or_default();
        let path = scope.path.clone();
        if given.len() != declared.len() {
            return Err(wrong(format!("expected {} inputs, found {}", declared.len(), given.len())));
        }
        let mut found = Vec::new();
        for (index, (tensor, input)) in given.iter().zip(declared).enumerate() {
            let slot = tensor.and_then(|tensor| slots.get(tensor)).copied();
            let slot = slot.ok_or_else(|| {
                Error::new(
                    ErrorKind::Unsupported,
                    at,
                    "a model inside the model that is called without an optional input is not supported",
                )
            })?;
            let mask = masks.get(index).copied().flatten().and_then(|mask| slots.get(mask)).copied();
            let spec = self.plan.slots.get(slot).cloned();
            let Some(input) = input else {
                found.push(slot);
                continue;
            };
            let as_it_is =
                spec.is_some_and(|spec| spec.dtype == input.spec.dtype && spec.shape.rank() == input.spec.shape.rank());
            if as_it_is && mask.is_none() {
                found.push(slot);
                continue;
            }
            found.extend(self.feed(input, slot, mask, &path, at)?);
        }
        Ok(found)
    }

    /// A step that feeds `slot` to an input of a model inside the model.
    fn feed(&mut self, input: Input, slot: usize, mask: Option<usize>, path: &str, at: &str) -> Result<Vec<usize>> {
        let path = format!("{path}{}", input.name);
        let positional = (0..=usize::from(mask.is_some())).map(Argument::Tensor).collect();
        let layer: Box<dyn KerasLayer> = Box::new(NestedInput(input));
        let arguments = Arguments::bind(layer.parameters(), positional, BTreeMap::new())
            .map_err(|what| Error::new(ErrorKind::Invalid, at, what))?;
        self.definitions.push(Definition {
            path,
            class: "InputLayer".to_owned(),
            group: String::new(),
            trainable: true,
            policy: Policy::default(),
            policy_may_differ: false,
            layer,
            weights: None,
            calls: 0,
        });
        let slots: Vec<usize> = std::iter::once(slot).chain(mask).collect();
        self.step(self.definitions.len() - 1, arguments, &slots)
    }

    /// The call of an operation with what it reads beside its arguments: the logits behind the probabilities that are
    /// given for [`KerasLayer::looks_behind`].
    ///
    /// Keras: a softmax or sigmoid leaves a note on its result of what went into it, and a crossentropy reads that.
    fn with_logits(&self, number: usize, arguments: Arguments, slots: &[usize]) -> Result<(Arguments, Vec<usize>)> {
        let definition = self.definitions.get(number);
        let name = definition.and_then(|definition| definition.layer.looks_behind());
        let slot = match name.and_then(|name| arguments.get(name)) {
            Some(Argument::Tensor(tensor)) => slots.get(*tensor).copied(),
            _ => None,
        };
        let Some(step) = slot.and_then(|slot| self.plan.steps.iter().rfind(|step| step.outputs.contains(&slot))) else {
            return Ok((arguments, slots.to_vec()));
        };
        let from = self.definitions.get(step.layer);
        let class = from.map_or("", |from| from.class.as_str());
        match from.is_some_and(|from| from.layer.is_operation()) {
            true if matches!(class, "Softmax" | "Sigmoid") => match step.inputs.first() {
                Some(logits) => {
                    let arguments = arguments.with("logits", Argument::Tensor(slots.len()));
                    Ok((arguments, slots.iter().copied().chain([*logits]).collect()))
                }
                None => Ok((arguments, slots.to_vec())),
            },
            false if class != "InputLayer" => {
                let what = format!(
                    "a crossentropy of the probabilities of a layer ({}) is not supported: Keras may compute it from the layer's logits",
                    shown(class)
                );
                Err(Error::new(ErrorKind::Unsupported, definition.map(Definition::at).unwrap_or_default(), what))
            }
            _ => Ok((arguments, slots.to_vec())),
        }
    }

    /// Adds a call of a layer.
    fn step(&mut self, number: usize, arguments: Arguments, slots: &[usize]) -> Result<Vec<usize>> {
        let (arguments, slots) = self.with_logits(number, arguments, slots)?;
        let slots = slots.as_slice();
        let inputs: Vec<Spec> = slots.iter().filter_map(|slot| self.plan.slots.get(*slot).cloned()).collect();
        let Some(definition) = self.definitions.get_mut(number) else {
            return Err(Error::new(ErrorKind::Invalid, "", "a layer that does not exist"));
        };
        let at = definition.at();
        let (layer, policy) = (definition.layer.as_ref(), &definition.policy);
        let outputs = plan_output(layer, policy, &arguments, &inputs)
            .map_err(|problem| Error::new(problem.kind, &at, problem.what))?;
        if let Some(output) = outputs.iter().find(|output| output.shape.rank() > MOST_AXES) {
            let what =
                format!("an output of {} axes, more than the {MOST_AXES} that are supported", output.shape.rank());
            return Err(Error::new(ErrorKind::Unsupported, at, what));
        }
        if definition.weights.is_none() {
            let tensors = planned_inputs(policy, &inputs);
            let weights = layer
                .weights(Given { arguments: &arguments, tensors: &tensors, policy })
                .map_err(|what| Error::new(ErrorKind::Invalid, &at, what))?;
            // Keras: a layer has a path once it is built, which it is where it has weights of its own.
            let is_plain = !weights.is_empty() && weights.iter().all(|weight| weight.owner.is_empty());
            if definition.policy_may_differ && !is_plain {
                return Err(Error::new(ErrorKind::Unsupported, at, MANY_POLICIES));
            }
            let weights = weights.into_iter().map(|weight| weight.inside("", "", true, policy)).collect();
            definition.weights = Some(weights);
        }
        if definition.calls > 0 && layer.keeps_states() {
            let what = "a layer with stateful = true that is called more than once is not supported: each call would begin where the last one ended";
            return Err(Error::new(ErrorKind::Unsupported, at, what));
        }
        let given_back = arguments.only_input().filter(|number| {
            let cast = |spec: &Spec| !layer.is_operation() && is_cast(layer, policy, spec.dtype);
            let given = Given { arguments: &arguments, tensors: &inputs, policy };
            inputs.get(*number).is_some_and(|spec| !cast(spec)) && layer.gives_back_its_input(given)
        });
        let call = definition.calls;
        definition.calls += 1;
        if self.plan.steps.len() >= MOST_STEPS {
            return Err(Error::new(
                ErrorKind::Limit,
                at,
                format!("more than the limit of {MOST_STEPS} calls of layers"),
            ));
        }
        let outputs: Vec<usize> = outputs.into_iter().map(|spec| self.slot(spec)).collect();
        let source = given_back.and_then(|number| self.plan.same.get(*slots.get(number)?).copied());
        if let (Some(source), [output]) = (source, outputs.as_slice())
            && let Some(same) = self.plan.same.get_mut(*output)
        {
            *same = source;
        }
        let (inputs, slots) = (slots.to_vec(), outputs.clone());
        self.plan.steps.push(Step { layer: number, call, inputs, outputs: slots, arguments });
        Ok(outputs)
    }

    /// The plan, once every call is known.
    fn finish(self) -> Result<Plan> {
        let mut plan = self.plan;
        let mut entries: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, definition) in self.definitions.into_iter().enumerate() {
            let weights = definition.weights.unwrap_or_default();
            let entry = (!weights.is_empty()).then_some(plan.weights.layers.len());
            if let Some(entry) = entry {
                entries.insert(number, entry);
                plan.weights.layers.push(LayerWeights {
                    layer: definition.path.clone(),
                    class: definition.class.clone(),
                    group: definition.group,
                    prefix: definition.path.replace('/', "."),
                    trainable: definition.trainable,
                    weights,
                });
            }
            plan.layers.push(PlannedLayer {
                path: definition.path,
                class: definition.class,
                trainable: definition.trainable,
                policy: definition.policy,
                weights: entry,
                layer: definition.layer,
            });
        }
        for group in self.legacy {
            let entries: Vec<usize> =
                group.definitions.iter().filter_map(|number| entries.get(number).copied()).collect();
            if !entries.is_empty() {
                plan.weights.legacy.push(LegacyGroup { name: group.name, entries });
            }
        }
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, step) in plan.steps.iter().enumerate() {
            last.extend(step.inputs.iter().chain(&step.outputs).map(|slot| (*slot, number)));
        }
        for output in &plan.outputs {
            last.remove(output);
        }
        plan.spent = vec![Vec::new(); plan.steps.len()];
        for (slot, step) in last {
            if let Some(spent) = plan.spent.get_mut(step) {
                spent.push(slot);
            }
        }
        Ok(plan)
    }
}
