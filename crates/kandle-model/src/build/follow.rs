//! Follows the calls of a model whose layers are read: each becomes a step over numbered slots.

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Error, ErrorKind, Result, shown};

use super::{Body, Builder, Definition, Member, Scope};
use crate::{
    Argument, Arguments, Given, Input, KerasLayer, LayerWeights, ModelCall, Plan, PlannedLayer, PlannedModel, Policy,
    Spec, Step, dialect,
    fields::MANY_POLICIES,
    graph::{History, Nest, Source},
    plan::{GroupNames, MOST_AXES},
    run::{NestedInput, UnmaskedInput, is_cast, plan_output, planned_inputs},
    weights::{LegacyGroup, LegacyMember},
};

fn has_weights(definition: &Definition) -> bool {
    definition.weights.as_ref().is_some_and(|weights| !weights.is_empty())
}

/// As many calls as a plan may have. Models in models that are called twice each double with every level.
const MOST_STEPS: usize = 1 << 20;

impl Builder<'_> {
    /// Follows the calls of the outermost model.
    pub(super) fn follow(mut self, root: usize, at: &str) -> Result<Plan> {
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
            Body::Functional(_) => {
                let inputs = scope.inputs().map_err(|what| Error::new(ErrorKind::Unsupported, at, what))?;
                inputs.into_iter().flatten().collect()
            }
        };
        let mut slots = Vec::new();
        for input in inputs {
            let slot = self.slot(input.spec.clone());
            self.plan.inputs.push(Input { slot, ..input });
            slots.push(slot);
        }
        self.plan.outputs = self.call_scope(root, &slots)?;
        let (mut named_twice, mut seen) = (BTreeMap::new(), BTreeSet::new());
        self.name_twice(root, "", &self.scopes_with_weights(), &mut seen, &mut named_twice);
        self.finish(&named_twice)
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
                let outputs = self.call_scope(*number, &inputs)?;
                if let Some(scope) = self.scopes.get_mut(*number) {
                    scope.calls.push(ModelCall { given: slots.to_vec(), inputs, outputs: outputs.clone() });
                }
                Ok(outputs)
            }
            Member::Input(_) => Ok(slots.to_vec()),
        }
    }

    /// The slots that feed a model inside a model: those of the call, cast and with the mask of the call where it has one.
    fn nested_inputs(&mut self, number: usize, arguments: &Arguments, slots: &[usize], at: &str) -> Result<Vec<usize>> {
        let wrong = |what: String| Error::new(ErrorKind::Invalid, at, what);
        let Some(scope) = self.scopes.get(number) else { return Err(wrong("a model that does not exist".to_owned())) };
        let declared = scope.inputs().map_err(|what| Error::new(ErrorKind::Unsupported, at, what))?;
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
                found.extend(match dialect::is_tensorflows_before_2_4(self.context.keras_version) {
                    true => self.add_step(Box::new(UnmaskedInput), format!("{path}input"), &[slot], at)?,
                    false => vec![slot],
                });
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
        let slots: Vec<usize> = std::iter::once(slot).chain(mask).collect();
        self.add_step(Box::new(NestedInput(input)), path, &slots, at)
    }

    /// A step of a `layer` of the plan's own on `slots`.
    fn add_step(&mut self, layer: Box<dyn KerasLayer>, path: String, slots: &[usize], at: &str) -> Result<Vec<usize>> {
        let positional = (0..slots.len()).map(Argument::Tensor).collect();
        let arguments = Arguments::bind(layer.parameters(), positional, BTreeMap::new())
            .map_err(|what| Error::new(ErrorKind::Invalid, at, what))?;
        self.definitions.push(Definition {
            path,
            class: "InputLayer".to_owned(),
            group: String::new(),
            trainable: true,
            own_trainable: true,
            policy: Policy::default(),
            policy_may_differ: false,
            layer,
            weights: None,
            calls: 0,
        });
        self.step(self.definitions.len() - 1, arguments, slots)
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

    /// The groups of the layers in `scope` in a weight store whose containers list each layer that has weights twice.
    ///
    /// Keras: what is there before is not saved again, but takes a number.
    /// Source: keras/engine/functional.py (`_layer_checkpoint_dependencies`), keras/saving/saving_lib.py of TensorFlow 2.13.
    fn name_twice(
        &self,
        number: usize,
        group: &str,
        weighted: &BTreeSet<usize>,
        seen: &mut BTreeSet<usize>,
        found: &mut BTreeMap<usize, String>,
    ) {
        let Some(scope) = self.scopes.get(number).filter(|_| seen.insert(number)) else { return };
        let mut groups = GroupNames::default();
        for member in &scope.members {
            let (class, has_weights) = match member {
                Member::Input(_) if matches!(scope.body, Body::Sequential) => continue,
                Member::Input(_) => ("InputLayer", false),
                Member::Layer(number) => match self.definitions.get(*number) {
                    Some(definition) if definition.layer.is_operation() => continue,
                    Some(definition) => (definition.class.as_str(), has_weights(definition)),
                    None => continue,
                },
                Member::Model(number) => match self.scopes.get(*number) {
                    Some(model) => (model.class.as_str(), weighted.contains(number)),
                    None => continue,
                },
            };
            let name = format!("{group}layers/{}", groups.next(class));
            if has_weights {
                groups.next(class);
            }
            match member {
                Member::Layer(number) => {
                    found.entry(*number).or_insert(name);
                }
                Member::Model(number) => self.name_twice(*number, &format!("{name}/"), weighted, seen, found),
                Member::Input(_) => {}
            }
        }
    }

    /// The models in which some layer has weights. A model is read after the models in it.
    fn scopes_with_weights(&self) -> BTreeSet<usize> {
        let mut weighted = BTreeSet::new();
        for (number, scope) in self.scopes.iter().enumerate() {
            let has = |member: &Member| match member {
                Member::Layer(number) => self.definitions.get(*number).is_some_and(has_weights),
                Member::Model(number) => weighted.contains(number),
                Member::Input(_) => false,
            };
            if scope.members.iter().any(has) {
                weighted.insert(number);
            }
        }
        weighted
    }

    /// The plan, once every call is known.
    fn finish(self, named_twice: &BTreeMap<usize, String>) -> Result<Plan> {
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
                    group_named_twice: named_twice.get(&number).cloned().unwrap_or_else(|| definition.group.clone()),
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
            let of_entry = |member: LegacyMember| {
                let entry = entries.get(&member.entry).copied()?;
                Some(LegacyMember { entry, ..member })
            };
            let members: Vec<LegacyMember> = group.members.into_iter().filter_map(of_entry).collect();
            if !members.is_empty() {
                plan.weights.legacy.push(LegacyGroup {
                    name: group.name,
                    is_unnamed: group.is_unnamed,
                    trainable: group.trainable,
                    members,
                });
            }
        }
        let model = |scope: Scope| PlannedModel {
            inputs: scope.inputs().unwrap_or_default().into_iter().flatten().collect(),
            path: scope.path.trim_end_matches('/').to_owned(),
            class: scope.class,
            first: scope.first,
            calls: scope.calls,
        };
        plan.weights.before_tensorflow = dialect::is_older_than_tensorflows(self.context.keras_version);
        plan.models = self.scopes.into_iter().filter(|scope| !scope.path.is_empty()).map(model).collect();
        // A model is read after the models in it.
        plan.models.sort_by(|a, b| (a.first, &a.path).cmp(&(b.first, &b.path)));
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
