use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor, Var, bail};
use candle_nn::VarMap;
use kandle_format::{Archive, Dtype, Error, ErrorKind, Limits, Problem, Result};

use crate::{
    Call, Given, LoadReport, Lowered, Masking, Plan, PlannedLayer, Policy, Primitive, Registry, Spec, Step, Value,
    Weight,
    load::lock,
    numeric::{dtype_of, storage},
    run::{self, prepared_weight},
};

/// A Keras model that runs on candle: any device, differentiable, one candle operation after the other.
#[derive(Clone)]
pub struct Model {
    plan: Arc<Plan>,
    vars: VarMap,
    /// The weights of each layer of the plan, detached where the layer is frozen.
    weights: Vec<Vec<Tensor>>,
}

/// Every call of one run of a model, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The calls.
    pub calls: Vec<TracedCall>,
}

/// What went into a layer and what came out of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TracedCall {
    /// The layer's path: `dense`.
    pub layer: String,
    /// Keras's class: `Dense`.
    pub class: String,
    /// Which of the layer's calls this is, from 0.
    pub call: usize,
    /// What went in.
    pub inputs: Vec<Value>,
    /// What came out.
    pub outputs: Vec<Value>,
}

impl Model {
    /// Opens, plans and loads the model at `path`: the whole way in one breath.
    ///
    /// # Errors
    /// As [`Archive::open`], [`Plan::new`] and [`Plan::load`], with the name of the file.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::from_archive(&Archive::open(path, &Limits::default())?, device).map(|(model, _)| model)
    }

    /// As [`load`](Self::load), with the user's own layers of `custom`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(path: impl AsRef<Path>, custom: &Registry, device: &Device) -> Result<Self> {
        let archive = Archive::open(path, &Limits::default())?;
        let plan = Plan::with_layers(&archive.config()?, custom).map_err(|error| error.in_file(archive.name()))?;
        let (vars, _) = plan.load(&archive, device)?;
        plan.with(&vars)
    }

    /// As [`load`](Self::load), with the configuration of one file and the weights of another: an architecture
    /// (`model.to_json()`) with any file of weights, or a whole model with others than its own.
    ///
    /// # Errors
    /// As [`load`](Self::load), with the names of both files, and where the first has no configuration or the second no weights.
    pub fn load_with_weights(config: impl AsRef<Path>, weights: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let limits = Limits::default();
        let archive = Archive::open(config, &limits)?.with_weights(Archive::open(weights, &limits)?)?;
        Self::from_archive(&archive, device).map(|(model, _)| model)
    }

    /// Plans and loads the model of an open archive, and says what was loaded.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`Plan::load`], with the name of the file.
    pub fn from_archive(archive: &Archive, device: &Device) -> Result<(Self, LoadReport)> {
        let plan = Plan::new(&archive.config()?).map_err(|error| error.in_file(archive.name()))?;
        let (vars, report) = plan.load(archive, device)?;
        Ok((plan.with(&vars)?, report))
    }

    /// The model that runs `plan` on `vars`.
    pub(crate) fn of(plan: Arc<Plan>, vars: &VarMap) -> Result<Self> {
        let mut problems = Vec::new();
        let mut weights = Vec::new();
        for layer in plan.layers() {
            let vars = lock(vars);
            let mut tensors = Vec::new();
            for (entry, weight) in
                plan.weights_of(layer).iter().flat_map(|entry| entry.weights.iter().map(move |weight| (entry, weight)))
            {
                match variable(&vars, &entry.name(weight), weight) {
                    Ok(var) if layer.trainable && weight.trainable => tensors.push(var.as_tensor().clone()),
                    Ok(var) => tensors.push(var.as_detached_tensor()),
                    Err(problem) => problems.push(problem),
                }
            }
            weights.push(tensors);
        }
        Error::check(problems)?;
        Ok(Self { plan, vars: vars.clone(), weights })
    }

    /// The model of `plan` with the weights of some of its layers, the others empty.
    pub(crate) fn in_part(plan: Arc<Plan>, weights: Vec<Vec<Tensor>>) -> Self {
        Self { plan, vars: VarMap::new(), weights }
    }

    /// The plan it runs.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it runs: the device of its variables, the CPU for a model that has none.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weights.iter().flatten().next().map_or(Device::Cpu, |weight| weight.device().clone())
    }

    /// The variables, under candle-nn's names: what `candle_nn::linear(128, 64, vb.pp("dense"))` would look for.
    ///
    /// They share their memory with the model: a value set here is used by the next [`forward`](Self::forward).
    #[must_use]
    pub fn var_map(&self) -> &VarMap {
        &self.vars
    }

    /// The variables that gradients reach, sorted by name: those of layers that were not frozen in Keras.
    #[must_use]
    pub fn trainable_vars(&self) -> Vec<(String, Var)> {
        let vars = lock(&self.vars);
        let mut found: Vec<(String, Var)> = Vec::new();
        for layer in self.plan.layers().iter().filter(|layer| layer.trainable) {
            let entry = self.plan.weights_of(layer);
            let trained = |weight: &&Weight| weight.trainable && weight.dtype.is_none_or(|dtype| dtype.is_float());
            let names =
                entry.iter().flat_map(|entry| entry.weights.iter().filter(trained).map(|weight| entry.name(weight)));
            found.extend(names.filter_map(|name| vars.get(&name).map(|var| (name.clone(), var.clone()))));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// The same model for inference alone: on the same variables, but what comes out keeps no way back to them. What a layer
    /// gives is then freed once nothing reads it any more, where a gradient would need all of it.
    #[must_use]
    pub fn detached(&self) -> Self {
        let weights = self.weights.iter().map(|layer| layer.iter().map(Tensor::detach).collect()).collect();
        Self { weights, ..self.clone() }
    }

    /// Runs a model of one input and one output: `xs` has the shape of the input, batch first, in any dtype that Keras
    /// would cast to the input's (ids may be any integers).
    ///
    /// # Errors
    /// Where the model has several inputs or outputs, where `xs` does not fit, and what a layer reports, with its name.
    pub fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let mut outputs = self.run(&[Value::new(xs.clone(), dtype_of(xs)?)])?;
        match (outputs.pop(), outputs.len()) {
            (Some(only), 0) => Ok(only.tensor),
            _ => bail!("the model has {} outputs: call run", self.plan.outputs().len()),
        }
    }

    /// Runs the model: one value for each input in, in the order of [`Plan::inputs`], one for each output out.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn run(&self, inputs: &[Value]) -> candle_core::Result<Vec<Value>> {
        self.run_and_record(&given(inputs), None)
    }

    /// Runs the model and keeps what went into every layer and what came out.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, inputs: &[Value]) -> candle_core::Result<Trace> {
        let mut trace = Trace::default();
        self.run_and_record(&given(inputs), Some(&mut trace))?;
        Ok(trace)
    }

    /// Runs the model with `None` for each optional input that is not given.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn run_with(&self, inputs: &[Option<Value>]) -> candle_core::Result<Vec<Value>> {
        self.run_and_record(inputs, None)
    }

    /// Repeats call number `call` of one layer alone, on other inputs: one for each tensor of the call, in the order of
    /// [`Step::inputs`](crate::Step::inputs). `None` where the model has no such call.
    ///
    /// # Errors
    /// What the layer reports, with its name.
    pub fn call_layer(&self, path: &str, call: usize, inputs: &[Value]) -> candle_core::Result<Option<Vec<Value>>> {
        let layer = |step: &Step| self.plan.layers().get(step.layer).filter(|layer| layer.path == path);
        let step = self.plan.steps().iter().find(|step| step.call == call && layer(step).is_some());
        let Some((step, planned)) = step.and_then(|step| Some((step, layer(step)?))) else { return Ok(None) };
        let wrong = |what: String| run::input_error(planned.place(), what);
        if inputs.len() != step.inputs.len() {
            return Err(wrong(format!("expected {} tensors, found {}", step.inputs.len(), inputs.len())));
        }
        let weights = self.prepared(step.layer)?;
        let outputs = run::invoke(planned.layer.as_ref(), &planned.policy, &step.arguments, inputs, &weights);
        outputs.map(Some).map_err(|error| wrong(run::said(&error)))
    }

    /// What step number `step` of the plan computes, as [`KerasLayer::primitives`](crate::KerasLayer::primitives) says it; none
    /// where it does not, or where something other than float32 plays a part.
    ///
    /// # Errors
    /// As [`KerasLayer::primitives`](crate::KerasLayer::primitives).
    pub fn primitives(&self, step: usize) -> candle_core::Result<Option<Vec<Primitive>>> {
        primitives(&self.plan, step, None, |layer| self.prepared(layer))
    }

    /// Repeats step number `step` of the plan on other inputs, one for each of [`Step::inputs`](crate::Step::inputs).
    ///
    /// # Errors
    /// What the layer reports, with its name.
    pub fn run_step(&self, step: usize, inputs: &[Value]) -> candle_core::Result<Vec<Value>> {
        let Some((step, planned)) = self.step(step) else { bail!("the plan has no step {step}") };
        let weights = self.prepared(step.layer)?;
        let outputs = run::invoke(planned.layer.as_ref(), &planned.policy, &step.arguments, inputs, &weights);
        outputs.map_err(|error| run::input_error(planned.place(), run::said(&error)))
    }

    /// Whether step number `step`, which merges tensors, gives a mask where those tensors have one for which `masked` says so.
    #[must_use]
    pub fn merges_masks(&self, step: usize, masked: &[bool]) -> bool {
        let Some((step, planned)) = self.step(step) else { return true };
        let Ok(mask) = Tensor::ones(1, DType::U8, &Device::Cpu) else { return true };
        let masks: Vec<Option<&Tensor>> = masked.iter().map(|masked| masked.then_some(&mask)).collect();
        let given = Given { arguments: &step.arguments, tensors: &[], policy: &planned.policy };
        let made = planned.layer.compute_mask(Call { given, weights: &[] }, &masks);
        planned.layer.masking() != Masking::Computes || made.is_ok_and(|made| made.iter().any(Option::is_some))
    }

    /// The slots whose tensors lose their mask by step number `step`, for everyone who reads them later.
    #[must_use]
    pub fn erased_masks(&self, step: usize) -> Vec<usize> {
        let Some((step, planned)) = self.step(step) else { return Vec::new() };
        let arguments = planned.layer.erases_masks_of().iter().filter_map(|name| step.arguments.get(name));
        let slots =
            arguments.flat_map(|argument| argument.tensors()).flatten().filter_map(|number| step.inputs.get(number));
        // A tensor that was cast on the way in is another tensor, whose mask is its own.
        let cast = |slot: &usize| {
            let dtype = self.plan.slot(*slot).map(|spec| spec.dtype);
            dtype.is_some_and(|dtype| run::is_cast(planned.layer.as_ref(), &planned.policy, dtype))
        };
        slots.copied().filter(|slot| !cast(slot)).collect()
    }

    /// `value` as input number `input` of the plan takes it: in its dtype, with as many axes.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn feed(&self, input: usize, value: &Value) -> candle_core::Result<Value> {
        match self.plan.inputs().get(input) {
            Some(input) => run::feed(input, self.plan.checks_sizes(), value),
            None => bail!("expected {} inputs, found more", self.plan.inputs().len()),
        }
    }

    fn step(&self, step: usize) -> Option<(&Step, &PlannedLayer)> {
        at(&self.plan, step)
    }

    fn run_and_record(&self, inputs: &[Option<Value>], trace: Option<&mut Trace>) -> candle_core::Result<Vec<Value>> {
        let layers = 0..self.plan.layers().len();
        let weights = layers.map(|layer| self.prepared(layer)).collect::<candle_core::Result<Vec<_>>>()?;
        run::run(&self.plan, &weights, inputs, trace)
    }

    /// The weights of a layer as its calls get them.
    fn prepared(&self, layer: usize) -> candle_core::Result<Vec<Tensor>> {
        let (Some(planned), Some(tensors)) = (self.plan.layers().get(layer), self.weights.get(layer)) else {
            bail!("the plan has no layer {layer}")
        };
        prepared(&self.plan, planned, tensors)
    }
}

/// As [`Model::primitives`], with the weights of a layer from `weights`; or `rows`, where its weights stay in the file.
pub(crate) fn primitives(
    plan: &Plan,
    step: usize,
    rows: Option<Primitive>,
    weights: impl Fn(usize) -> candle_core::Result<Vec<Tensor>>,
) -> candle_core::Result<Option<Vec<Primitive>>> {
    let Some((step, planned)) = at(plan, step) else { return Ok(None) };
    let inputs: Vec<Spec> = step.inputs.iter().filter_map(|slot| plan.slot(*slot).cloned()).collect();
    let outputs: Vec<&Spec> = step.outputs.iter().filter_map(|slot| plan.slot(*slot)).collect();
    let float32 = |dtype: Dtype| dtype == Dtype::Float32;
    let policy = &planned.policy;
    let plain = planned.is_operation() || (float32(policy.compute) && float32(policy.variable));
    let [output] = outputs.as_slice() else { return Ok(None) };
    if !plain || policy.quantization.is_some() || !float32(output.dtype) || inputs.len() != step.inputs.len() {
        return Ok(None);
    }
    let given = Given { arguments: &step.arguments, tensors: &inputs, policy };
    let chain = match rows {
        Some(rows) => Some(vec![rows]),
        None => planned.layer.primitives(Lowered { given, weights: &weights(step.layer)? })?,
    };
    let of_ids = matches!(chain.as_deref(), Some([Primitive::Rows { .. }, ..]));
    let of_mask = |number: &usize| {
        let masks = ["mask", "attention_mask"].into_iter().filter_map(|name| step.arguments.get(name));
        masks.flat_map(|argument| argument.tensors()).any(|tensor| tensor == Some(*number))
    };
    let operands = inputs.iter().enumerate().filter(|(number, _)| !of_mask(number));
    Ok(chain.filter(|_| of_ids || operands.map(|(_, input)| input).all(|input| float32(input.dtype))))
}

/// The weights of a layer, `tensors`, as its calls get them.
pub(crate) fn prepared(plan: &Plan, planned: &PlannedLayer, tensors: &[Tensor]) -> candle_core::Result<Vec<Tensor>> {
    let declared = plan.weights_of(planned).map(|entry| entry.weights.as_slice()).unwrap_or_default();
    let prepare = |(tensor, weight): (&Tensor, &Weight)| {
        // A layer inside the layer has its own.
        let compute = weight.compute.unwrap_or(planned.policy.compute);
        prepared_weight(tensor, weight.autocast, &Policy { compute, ..planned.policy.clone() })
    };
    tensors.iter().zip(declared).map(prepare).collect()
}

/// A step of a plan, and the layer that it calls.
fn at(plan: &Plan, step: usize) -> Option<(&Step, &PlannedLayer)> {
    let step = plan.steps().get(step)?;
    Some((step, plan.layers().get(step.layer)?))
}

/// What every input is given.
fn given(inputs: &[Value]) -> Vec<Option<Value>> {
    inputs.iter().cloned().map(Some).collect()
}

/// The variable `name`, if it has the shape and dtype of `weight`.
fn variable<'a>(vars: &'a HashMap<String, Var>, name: &str, weight: &Weight) -> std::result::Result<&'a Var, Problem> {
    let problem = |what: String| Problem::new(ErrorKind::Weights, format!("variable {name}"), what);
    let wrong = |what: String| Err(problem(what));
    let (shape, dtype) = (weight.candle_shape(), weight.dtype.map_or(Ok(DType::F32), storage));
    let dtype = dtype.map_err(|error| problem(error.to_string()))?;
    match vars.get(name) {
        Some(var) if var.dims() == shape && var.dtype() == dtype => Ok(var),
        Some(var) => wrong(format!("expected {dtype:?} {shape:?}, found {:?} {:?}", var.dtype(), var.dims())),
        None => wrong("not in the VarMap".to_owned()),
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({:?}, {} layers)", self.plan.name(), self.plan.layers().len())
    }
}
