//! Why a layer differs: the mistakes people make, tried out on the layer as the file has it.
//!
//! A *reference* is loaded from the case's own file. With one mistake made in it, it computes the failed layer from what
//! Keras fed it; where that gives our numbers, every one of them, the mistake is named. Where the reference itself is wrong
//! (the file is not what was recorded), it is compared with Keras's numbers instead.

mod inputs;
mod settings;
mod weights;

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use kandle_format::{
    ModelConfig,
    json::{Map, Value as Json},
};
use kandle_model::{Model, Plan, Registry, Weight};
use kandle_parity::{
    Array, Case, Check, Hint, How, Layer, MadeIn, Recorded, Subject as _, Tolerance, Verdict, compare,
};

use crate::judge::{Judged, open_recorded};

/// How many failed calls of layers are looked into, and for how long in all.
const CALLS: usize = 8;
const TIME: Duration = Duration::from_secs(10);
/// Tensors of more numbers are not looked into.
const NUMBERS: usize = 1 << 22;

/// Adds to failed checks of `verdict` the [`Hint`] that explains them, where one of the known mistakes does.
///
/// Layers that fail alone are looked into; of a port whose layers cannot be called alone the first that differs in the
/// chain, and of one that names no layers the outputs. What cannot be loaded or computed gives no hint.
pub fn explain(case: &Case, file: &str, verdict: &mut Verdict) {
    if verdict.is_ok() {
        return;
    }
    let Some(reference) = Reference::open(case, file) else { return };
    let end = Instant::now() + TIME;
    let mut found = Vec::new();
    for (layer, call, how) in failed(case, verdict).into_iter().take(CALLS) {
        if let Some(target) = Target::of(case, &reference, verdict, layer, call, how)
            && let Some(hint) = target.explained(end)
        {
            found.push((layer.path.clone(), call, how, hint));
        }
    }
    if case.layers.iter().all(|layer| !is_checked(verdict, layer))
        && let Some(hint) = explained_by_outputs(case, &reference, verdict, end)
    {
        found.push(("output".to_owned(), 0, How::Output, hint));
    }
    for (path, call, how, hint) in found {
        let of_layer = |check: &&mut Check| check.layer == path && check.call == call && check.how == how;
        let failed = verdict.checks.iter_mut().filter(of_layer).filter(|check| !check.passed());
        failed.for_each(|check| check.hint = Some(hint.clone()));
    }
}

/// [`explain`] of a port by hand, by the first file of the case that can be loaded: what [`assert_case!`](crate::assert_case)
/// adds to a failure.
pub fn explain_port(case: &Case, verdict: &mut Verdict) {
    for file in &case.files {
        explain(case, file, verdict);
        if verdict.checks.iter().any(|check| check.hint.is_some()) {
            return;
        }
    }
}

fn is_checked(verdict: &Verdict, layer: &Layer) -> bool {
    verdict.checks.iter().any(|check| check.how != How::Output && check.layer == layer.path)
}

/// The calls that failed alone; where one was not called alone, the first that failed in the chain.
fn failed<'a>(case: &'a Case, verdict: &Verdict) -> Vec<(&'a Layer, usize, How)> {
    let mut found = Vec::new();
    let mut diverged = false;
    for layer in &case.layers {
        for call in 0..layer.calls {
            let of = |how| {
                let own = verdict.checks.iter().filter(move |check| {
                    check.how == how
                        && check.layer == layer.path
                        && check.call == call
                        && check.tensor.starts_with("out")
                });
                (own.clone().count() > 0).then(|| own.clone().any(|check| !check.passed()))
            };
            match (of(How::Isolated), of(How::Cumulative)) {
                (Some(true), _) => found.push((layer, call, How::Isolated)),
                (None, Some(true)) if !diverged => found.push((layer, call, How::Cumulative)),
                _ => {}
            }
            diverged |= of(How::Cumulative) == Some(true);
        }
    }
    found
}

/// The model as the case's file has it.
struct Reference {
    config: ModelConfig,
    registry: Registry,
    model: Model,
}

/// A weight of a layer, in Keras's order.
struct OwnWeight {
    weight: Weight,
    numbers: Tensor,
}

impl Reference {
    fn open(case: &Case, file: &str) -> Option<Self> {
        let archive = open_recorded(case, file).ok()?;
        let (config, registry) = (archive.config().ok()?, Registry::new().with_other_functions());
        let plan = Plan::with_layers(&config, &registry).ok()?;
        let (vars, _) = plan.load(&archive, &Device::Cpu).ok()?;
        let model = plan.with(&vars).ok()?.detached();
        Some(Self { config, registry, model })
    }

    /// What the layer gives, by `model`.
    fn call(model: &Model, path: &str, call: usize, inputs: &[Array], masks: &[Option<Array>]) -> Option<Vec<Array>> {
        Some(Judged(model).call_layer(path, call, inputs, masks).ok()??.outputs)
    }

    /// The settings of the layer at `path`.
    fn settings(&self, path: &str) -> Option<&Map<String, Json>> {
        let mut parts = path.split('/');
        let first = parts.next()?;
        let mut settings = &self.config.layers.iter().find(|layer| layer.name == first)?.config;
        for part in parts {
            settings = settings.get("layers")?.as_array()?.iter().find_map(|layer| {
                let own = layer.get("config")?.as_object()?;
                (own.get("name").or(layer.get("name"))?.as_str()? == part).then_some(own)
            })?;
        }
        Some(settings)
    }

    fn weights(&self, path: &str) -> Vec<OwnWeight> {
        let plan = self.model.plan();
        let Some(layer) = plan.layers().iter().find(|layer| layer.path == path) else { return Vec::new() };
        let Some(entry) = plan.weights_of(layer) else { return Vec::new() };
        let Ok(vars) = self.model.var_map().data().lock() else { return Vec::new() };
        let own = |weight: &Weight| {
            let name = entry.name(weight);
            let var = vars.get(&name).filter(|var| var.dtype() == DType::F32 && var.elem_count() <= NUMBERS)?;
            let numbers: Vec<f32> = var.as_detached_tensor().flatten_all().ok()?.to_vec1().ok()?;
            let numbers = weight.layout.to_keras(numbers, &weight.shape);
            let numbers = Tensor::from_vec(numbers, weight.shape.as_slice(), &Device::Cpu).ok()?;
            Some(OwnWeight { weight: weight.clone(), numbers })
        };
        entry.weights.iter().filter_map(own).collect()
    }

    /// The same model with the settings of the layer at `path` changed, and with other numbers in its weights: those that
    /// `numbers` gives in Keras's order, by Keras's declaration of the changed layer.
    fn changed(
        &self,
        path: &str,
        change: &dyn Fn(&mut Map<String, Json>),
        numbers: &dyn Fn(&Weight) -> Option<Tensor>,
    ) -> Option<Model> {
        let mut config = self.config.clone();
        let mut parts = path.split('/');
        let first = parts.next()?;
        let mut settings = &mut config.layers.iter_mut().find(|layer| layer.name == first)?.config;
        for part in parts {
            settings = settings.get_mut("layers")?.as_array_mut()?.iter_mut().find_map(|layer| {
                let beside = layer.get("name").and_then(Json::as_str).map(str::to_owned);
                let own = layer.get_mut("config")?.as_object_mut()?;
                let name = own.get("name").and_then(Json::as_str).map(str::to_owned).or(beside)?;
                (name == part).then_some(own)
            })?;
        }
        change(settings);
        let plan = Plan::with_layers(&config, &self.registry).ok()?;
        let vars = VarMap::new();
        {
            let (old, mut new) = (self.model.var_map().data().lock().ok()?, vars.data().lock().ok()?);
            new.extend(old.iter().map(|(name, var)| (name.clone(), var.clone())));
            let layer = plan.layers().iter().find(|layer| layer.path == path)?;
            for (entry, weight) in plan.weights_of(layer).iter().flat_map(|e| e.weights.iter().map(move |w| (e, w))) {
                if let Some(tensor) = numbers(weight) {
                    let keras: Vec<f32> = tensor.flatten_all().ok()?.to_vec1().ok()?;
                    if keras.len() != weight.shape.iter().product::<usize>() {
                        return None;
                    }
                    let candle = weight.layout.to_candle(keras, &weight.shape);
                    let tensor = Tensor::from_vec(candle, weight.candle_shape(), &Device::Cpu).ok()?;
                    new.insert(entry.name(weight), Var::from_tensor(&tensor).ok()?);
                }
            }
        }
        plan.with(&vars).ok().map(|model| model.detached())
    }
}

/// A call of a layer that failed, and whose numbers a mistake must give.
struct Target<'a> {
    case: &'a Case,
    reference: &'a Reference,
    layer: &'a Layer,
    call: usize,
    keras: Recorded,
    /// Without a mistake.
    right: Vec<Array>,
    tolerances: Vec<Tolerance>,
    /// Each output that was compared, by its number, and what is to be explained of it.
    goals: Vec<(usize, Array)>,
    made_in: MadeIn,
}

/// A mistake to try, and how.
struct Mistake<'a> {
    /// To stand behind `if`.
    says: String,
    made: Made<'a>,
}

enum Made<'a> {
    /// In the model.
    Model(Box<dyn FnOnce() -> Option<Model> + 'a>),
    /// Around the layer: what it then gives.
    Around(Box<dyn FnOnce() -> Option<Vec<Array>> + 'a>),
}

impl<'a> Target<'a> {
    fn of(
        case: &'a Case,
        reference: &'a Reference,
        verdict: &Verdict,
        layer: &'a Layer,
        call: usize,
        how: How,
    ) -> Option<Self> {
        let keras = case.recorded(&layer.path, call)?;
        let sizes = keras.inputs.iter().chain(&keras.outputs).map(Array::len);
        if sizes.sum::<usize>() > NUMBERS {
            return None;
        }
        let rule = if how == How::Isolated { layer.rule } else { layer.cumulative };
        let tolerances: Vec<Tolerance> = keras.outputs.iter().map(|output| rule.tolerance_of(output)).collect();
        let right = Reference::call(&reference.model, &layer.path, call, &keras.inputs, &keras.input_masks)?;
        let near =
            |(ours, (keras, tolerance)): (&Array, (&Array, &Tolerance))| compare(ours, keras, *tolerance).passed();
        let is_right = right.iter().zip(keras.outputs.iter().zip(&tolerances)).all(near);
        let own = |check: &&Check| check.how == how && check.layer == layer.path && check.call == call;
        let given = verdict.checks.iter().filter(own).filter_map(|check| {
            let number = check.tensor.strip_prefix("out_")?.parse().ok()?;
            Some((number, check.ours.clone()?))
        });
        let goals: Vec<(usize, Array)> = match is_right {
            true => given.collect(),
            false => keras.outputs.iter().cloned().enumerate().collect(),
        };
        let made_in = if is_right { MadeIn::Keras } else { MadeIn::Ours };
        (!goals.is_empty()).then_some(Self { case, reference, layer, call, keras, right, tolerances, goals, made_in })
    }

    /// Whether these numbers are those to be explained, and not those without the mistake.
    fn is_met(&self, outputs: &[Array]) -> bool {
        let tolerance = |number: usize| self.tolerances.get(number).copied().unwrap_or(Tolerance::EXACT);
        let met = |(number, goal): &(usize, Array)| {
            outputs.get(*number).is_some_and(|output| compare(output, goal, tolerance(*number)).passed())
        };
        let moves = |(number, _): &(usize, Array)| match (outputs.get(*number), self.right.get(*number)) {
            (Some(output), Some(right)) => !compare(output, right, tolerance(*number)).passed(),
            _ => true,
        };
        self.goals.iter().all(met) && self.goals.iter().any(moves)
    }

    fn explained(&self, end: Instant) -> Option<Hint> {
        let mistakes =
            settings::mistakes(self).into_iter().chain(weights::mistakes(self)).chain(inputs::mistakes(self));
        for mistake in mistakes {
            if Instant::now() > end {
                return None;
            }
            let outputs = match mistake.made {
                Made::Around(outputs) => outputs(),
                Made::Model(model) => model().and_then(|model| {
                    Reference::call(&model, &self.layer.path, self.call, &self.keras.inputs, &self.keras.input_masks)
                }),
            };
            if outputs.is_some_and(|outputs| self.is_met(&outputs)) {
                return Some(Hint { mistake: mistake.says, made_in: self.made_in });
            }
        }
        None
    }

    /// The layer called with other inputs.
    fn called(&self, inputs: &[Array], masks: &[Option<Array>]) -> Option<Vec<Array>> {
        Reference::call(&self.reference.model, &self.layer.path, self.call, inputs, masks)
    }

    fn settings(&self) -> Option<&'a Map<String, Json>> {
        self.reference.settings(&self.layer.path)
    }
}

/// Of a port that names no layer: the mistake in one of the layers with which the whole model gives the port's outputs.
fn explained_by_outputs(case: &Case, reference: &Reference, verdict: &Verdict, end: Instant) -> Option<Hint> {
    let checks: Vec<&Check> = verdict.checks.iter().filter(|check| check.how == How::Output).collect();
    let goals: Vec<&Array> = checks.iter().map(|check| check.ours.as_ref()).collect::<Option<_>>()?;
    let inputs = case.input_arrays();
    let gives = |model: &Model| Judged(model).run(&inputs).ok();
    let right = gives(&reference.model)?;
    let near = |ours: &Array, other: &Array, check: &Check| compare(ours, other, check.tolerance).passed();
    let keras: Vec<&Array> = (0..goals.len()).filter_map(|output| case.output(output)).collect();
    let all = |outputs: &[Array], others: &[&Array]| {
        let pairs = outputs.iter().zip(others).zip(&checks);
        outputs.len() == others.len() && pairs.clone().count() > 0 && { pairs }.all(|((a, b), check)| near(a, b, check))
    };
    if !all(&right, &keras) || right.iter().map(Array::len).sum::<usize>() > NUMBERS {
        return None;
    }
    let right: Vec<&Array> = right.iter().collect();
    for layer in &case.layers {
        let target = Target::unseen(case, reference, layer)?;
        for mistake in settings::mistakes(&target).into_iter().chain(weights::mistakes(&target)) {
            if Instant::now() > end {
                return None;
            }
            let Made::Model(model) = mistake.made else { continue };
            let Some(outputs) = model().and_then(|model| gives(&model)) else { continue };
            if all(&outputs, &goals) && !all(&outputs, &right) {
                let says = format!("in \"{}\" {}", layer.path, mistake.says);
                return Some(Hint { mistake: says, made_in: MadeIn::Keras });
            }
        }
    }
    None
}

impl<'a> Target<'a> {
    /// The first call of a layer of which we gave nothing.
    fn unseen(case: &'a Case, reference: &'a Reference, layer: &'a Layer) -> Option<Self> {
        let keras = case.recorded(&layer.path, 0)?;
        let (right, tolerances, goals) = (Vec::new(), Vec::new(), Vec::new());
        Some(Self { case, reference, layer, call: 0, keras, right, tolerances, goals, made_in: MadeIn::Keras })
    }
}
