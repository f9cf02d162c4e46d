use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor, Var, bail};
use candle_nn::VarMap;
use kandle_format::{Archive, Error, ErrorKind, Limits, Problem, Result};

use crate::{
    Call, Input, LoadReport, Plan, Shape, Value,
    load::lock,
    numeric::{cast, dtype_of},
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
    pub(crate) fn new(plan: Plan, vars: &VarMap) -> Result<Self> {
        let mut problems = Vec::new();
        let mut weights = Vec::new();
        for layer in plan.layers() {
            let vars = lock(vars);
            let mut tensors = Vec::new();
            for (entry, weight) in
                plan.weights_of(layer).iter().flat_map(|entry| entry.weights.iter().map(move |weight| (entry, weight)))
            {
                match variable(&vars, &entry.name(weight), &weight.candle_shape()) {
                    Ok(var) if layer.trainable => tensors.push(var.as_tensor().clone()),
                    Ok(var) => tensors.push(var.as_detached_tensor()),
                    Err(problem) => problems.push(problem),
                }
            }
            weights.push(tensors);
        }
        Error::check(problems)?;
        Ok(Self { plan: Arc::new(plan), vars: vars.clone(), weights })
    }

    /// The plan it runs.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
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
            let names = entry.iter().flat_map(|entry| entry.weights.iter().map(|weight| entry.name(weight)));
            found.extend(names.filter_map(|name| vars.get(&name).map(|var| (name.clone(), var.clone()))));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
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
        self.run_and_record(inputs, None)
    }

    /// Runs the model and keeps what went into every layer and what came out.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, inputs: &[Value]) -> candle_core::Result<Trace> {
        let mut trace = Trace::default();
        self.run_and_record(inputs, Some(&mut trace))?;
        Ok(trace)
    }

    /// Calls one layer alone; `None` where the model has no layer of this path.
    ///
    /// # Errors
    /// What the layer reports, with its name.
    pub fn call_layer(&self, path: &str, inputs: &[Value]) -> candle_core::Result<Option<Vec<Value>>> {
        match self.plan.layers().iter().position(|layer| layer.path == path) {
            Some(layer) => self.call(layer, inputs).map(Some),
            None => Ok(None),
        }
    }

    fn run_and_record(&self, inputs: &[Value], mut trace: Option<&mut Trace>) -> candle_core::Result<Vec<Value>> {
        let mut slots: Vec<Option<Value>> = vec![None; self.plan.slot_count()];
        let take = |slots: &[Option<Value>], wanted: &[usize]| -> candle_core::Result<Vec<Value>> {
            wanted.iter().map(|slot| slots.get(*slot).cloned().flatten().ok_or_else(|| empty_slot(*slot))).collect()
        };
        let declared = self.plan.inputs();
        if inputs.len() != declared.len() {
            bail!("expected {} inputs, found {}", declared.len(), inputs.len());
        }
        for (input, value) in declared.iter().zip(inputs) {
            *slots.get_mut(input.slot).ok_or_else(|| empty_slot(input.slot))? = Some(feed(input, value)?);
        }
        for step in self.plan.steps() {
            let inputs = take(&slots, &step.inputs)?;
            let outputs = self.call(step.layer, &inputs)?;
            if let Some(trace) = trace.as_deref_mut()
                && let Some(layer) = self.plan.layers().get(step.layer)
            {
                let (outputs, call) = (outputs.clone(), step.call);
                trace.calls.push(TracedCall {
                    layer: layer.path.clone(),
                    class: layer.class.clone(),
                    call,
                    inputs,
                    outputs,
                });
            }
            for (slot, value) in step.outputs.iter().zip(outputs) {
                *slots.get_mut(*slot).ok_or_else(|| empty_slot(*slot))? = Some(value);
            }
        }
        take(&slots, self.plan.outputs())
    }

    fn call(&self, layer: usize, inputs: &[Value]) -> candle_core::Result<Vec<Value>> {
        let (Some(planned), Some(weights)) = (self.plan.layers().get(layer), self.weights.get(layer)) else {
            bail!("the plan has no layer {layer}")
        };
        planned.layer.forward(Call { inputs, weights }).map_err(|error| {
            input_error(format!("layer \"{}\" ({})", kandle_format::shown(&planned.path), planned.class), said(&error))
        })
    }
}

/// The variable `name`, if it is float32 of `shape`.
fn variable<'a>(vars: &'a HashMap<String, Var>, name: &str, shape: &[usize]) -> std::result::Result<&'a Var, Problem> {
    let wrong = |what: String| Err(Problem::new(ErrorKind::Weights, format!("variable {name}"), what));
    match vars.get(name) {
        Some(var) if var.dims() == shape && var.dtype() == DType::F32 => Ok(var),
        Some(var) => wrong(format!("expected F32 {shape:?}, found {:?} {:?}", var.dtype(), var.dims())),
        None => wrong("not in the VarMap".to_owned()),
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({:?}, {} layers)", self.plan.name(), self.plan.layers().len())
    }
}

/// What is fed to an input, as Keras takes it: one axis of size 1 more or less at the end is forgiven, and the numbers are
/// cast to the input's dtype.
///
/// Source: keras/src/models/functional.py (`_standardize_inputs`, `_adjust_input_rank`).
fn feed(input: &Input, value: &Value) -> candle_core::Result<Value> {
    let Shape(axes) = &input.spec.shape;
    let mut tensor = value.tensor.clone();
    if tensor.rank() == axes.len() + 1 && tensor.dims().last() == Some(&1) {
        tensor = tensor.squeeze(tensor.rank() - 1)?;
    } else if tensor.rank() + 1 == axes.len() && axes.last() == Some(&Some(1)) {
        tensor = tensor.unsqueeze(tensor.rank())?;
    }
    let at = format!("input \"{}\"", kandle_format::shown(&input.name));
    // Keras: a Sequential model checks the rank alone; sizes are left to the layers, and the batch size to nobody.
    if tensor.rank() != axes.len() {
        let what = format!("expected {}, found {:?}", input.spec.shape, value.tensor.dims());
        return Err(input_error(at, what));
    }
    cast(&value.with_tensor(tensor), input.spec.dtype).map_err(|error| input_error(at, said(&error)))
}

/// A kandle error inside a candle error. Not through `Error::wrap`, which may add a backtrace to the text.
fn input_error(at: String, what: String) -> candle_core::Error {
    candle_core::Error::Wrapped(Box::new(Error::new(ErrorKind::Input, at, what)))
}

/// What a candle error says, without a backtrace.
fn said(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => said(inner),
        error => error.to_string(),
    }
}

fn empty_slot(slot: usize) -> candle_core::Error {
    candle_core::Error::Msg(format!("slot {slot} of the plan was not filled"))
}
