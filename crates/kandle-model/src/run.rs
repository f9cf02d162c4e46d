//! Runs a plan: layer after layer, with Keras's casts and its rules of masks.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Error, ErrorKind, Problem};

use crate::{
    Arguments, Call, Given, Input, KerasLayer, Masking, Plan, Policy, Shape, Spec, Step, Trace, TracedCall, Value,
    numeric::{cast, storage},
};

/// Whether the dtype is computed in float32 and rounded: candle's CPU has no arithmetic of half precision worth the name.
fn is_half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float16 | Dtype::Bfloat16)
}

/// What comes out of a layer called with `inputs`, with the casts of [`invoke`].
pub(crate) fn plan_output(
    layer: &dyn KerasLayer,
    policy: &Policy,
    arguments: &Arguments,
    inputs: &[Spec],
) -> Result<Vec<Spec>, Problem> {
    if layer.casts_itself() {
        return layer.output(Given { arguments, tensors: inputs, policy });
    }
    let inputs = planned_inputs(policy, inputs);
    let dtypes: Vec<Dtype> = inputs.iter().map(|input| input.dtype).collect();
    let rounds = is_half(policy.compute) && !layer.keeps_float32(&dtypes);
    let rounded = |spec: Spec| match spec.dtype {
        Dtype::Float32 if rounds => Spec { dtype: policy.compute, ..spec },
        _ => spec,
    };
    Ok(layer.output(Given { arguments, tensors: &inputs, policy })?.into_iter().map(rounded).collect())
}

/// The inputs as the layer gets them: floats in its arithmetic dtype.
pub(crate) fn planned_inputs(policy: &Policy, inputs: &[Spec]) -> Vec<Spec> {
    let widened = |spec: &Spec| match spec.dtype.is_float() {
        true => Spec { dtype: policy.arithmetic(), ..spec.clone() },
        false => spec.clone(),
    };
    inputs.iter().map(widened).collect()
}

/// Calls a layer as Keras's `Layer.__call__` does at inference: floats are cast to the compute dtype, the layer runs, its
/// floats come out in that dtype, and masks travel by the layer's rule. Half precision is computed in float32: inputs and
/// weights are rounded to it before, and the result after.
///
/// Source: keras/src/layers/layer.py (`Layer.__call__`, `_set_mask_metadata`).
pub(crate) fn invoke(
    layer: &dyn KerasLayer,
    policy: &Policy,
    arguments: &Arguments,
    inputs: &[Value],
    weights: &[Tensor],
) -> candle_core::Result<Vec<Value>> {
    if layer.is_operation() {
        return layer.forward(Call { given: Given { arguments, tensors: inputs, policy }, weights });
    }
    let own = layer.casts_itself();
    let prepare = |value: &Value| if own { Ok(value.clone()) } else { prepared(layer, policy, value) };
    let inputs = inputs.iter().map(prepare).collect::<candle_core::Result<Vec<_>>>()?;
    let call = Call { given: Given { arguments, tensors: &inputs, policy }, weights };
    let mut outputs = layer.forward(call)?;
    let dtypes: Vec<Dtype> = inputs.iter().map(|input| input.dtype).collect();
    if is_half(policy.compute) && !own && !layer.keeps_float32(&dtypes) {
        for output in &mut outputs {
            if output.dtype == Dtype::Float32 {
                *output = cast(output, policy.compute)?;
            }
        }
    }
    if layer.masking() == Masking::Drops || outputs.iter().all(|output| output.mask.is_some()) {
        return Ok(outputs);
    }
    let previous = call.given.previous_masks();
    let masks = match layer.masking() {
        Masking::Computes => layer.compute_mask(call, &previous)?,
        _ => previous.iter().map(|mask| mask.cloned()).collect(),
    };
    for (output, mask) in outputs.iter_mut().zip(masks) {
        if output.mask.is_none() {
            output.mask = mask;
        }
    }
    Ok(outputs)
}

/// Whether an input of `dtype` is cast before the layer gets it: Keras's layer then gets another tensor than was given.
pub(crate) fn is_cast(layer: &dyn KerasLayer, policy: &Policy, dtype: Dtype) -> bool {
    dtype.is_float() && layer.autocasts() && policy.compute.is_float() && dtype != policy.compute
}

/// An input as the layer gets it.
fn prepared(layer: &dyn KerasLayer, policy: &Policy, value: &Value) -> candle_core::Result<Value> {
    if !value.dtype.is_float() {
        return Ok(value.clone());
    }
    let mut value = value.clone();
    if is_cast(layer, policy, value.dtype) {
        value = cast(&value, policy.compute)?;
    }
    cast(&value, policy.arithmetic())
}

/// A weight as the layer gets it: rounded to the compute dtype unless it is one that Keras does not cast, then in the
/// arithmetic dtype. Integers stay as they are.
pub(crate) fn prepared_weight(weight: &Tensor, autocast: bool, policy: &Policy) -> candle_core::Result<Tensor> {
    if !weight.dtype().is_float() {
        return Ok(weight.clone());
    }
    let rounded =
        if autocast && is_half(policy.compute) { weight.to_dtype(storage(policy.compute)?)? } else { weight.clone() };
    rounded.to_dtype(storage(policy.arithmetic())?)
}

/// Runs `plan`. `weights` are those of each layer, prepared; `inputs` one for each of the plan's, `None` for an optional
/// one that is not given.
pub(crate) fn run(
    plan: &Plan,
    weights: &[Vec<Tensor>],
    inputs: &[Option<Value>],
    mut trace: Option<&mut Trace>,
) -> candle_core::Result<Vec<Value>> {
    let declared = plan.inputs();
    if inputs.len() != declared.len() {
        bail!("expected {} inputs, found {}", declared.len(), inputs.len());
    }
    let mut slots: Vec<Option<Value>> = vec![None; plan.slot_count()];
    for (slot, value) in plan.constants() {
        fill(&mut slots, *slot, value.clone())?;
    }
    for (input, value) in declared.iter().zip(inputs) {
        match value {
            Some(value) => fill(&mut slots, input.slot, feed(input, plan.checks_sizes(), value)?)?,
            None if input.optional => {}
            None => return Err(input_error(place(&input.name), "not given, and it is not optional".to_owned())),
        }
    }
    for (number, step) in plan.steps().iter().enumerate() {
        let (inputs, outputs) = run_step(plan, weights, &mut slots, step)?;
        if let (Some(trace), Some(layer)) = (trace.as_deref_mut(), plan.layers().get(step.layer)) {
            trace.calls.push(TracedCall {
                layer: layer.path.clone(),
                class: layer.class.clone(),
                call: step.call,
                inputs,
                outputs: outputs.clone(),
            });
        }
        for (slot, value) in step.outputs.iter().zip(outputs) {
            fill(&mut slots, *slot, value)?;
        }
        for slot in plan.last_used_by(number) {
            if let Some(spent) = slots.get_mut(*slot) {
                *spent = None;
            }
        }
    }
    let output = |slot: &usize| slots.get(*slot).cloned().flatten().ok_or_else(|| empty_slot(*slot));
    plan.outputs().iter().map(output).collect()
}

/// One call: what went in, and what came out.
fn run_step(
    plan: &Plan,
    weights: &[Vec<Tensor>],
    slots: &mut [Option<Value>],
    step: &Step,
) -> candle_core::Result<(Vec<Value>, Vec<Value>)> {
    let (Some(planned), Some(weights)) = (plan.layers().get(step.layer), weights.get(step.layer)) else {
        bail!("the plan has no layer {}", step.layer)
    };
    let given: Vec<Option<Value>> = step.inputs.iter().map(|slot| slots.get(*slot).cloned().flatten()).collect();
    let outputs = if given.iter().all(Option::is_some) {
        let inputs: Vec<Value> = given.iter().flatten().cloned().collect();
        invoke(planned.layer.as_ref(), &planned.policy, &step.arguments, &inputs, weights)
    } else {
        // An optional input that was not given: the call gets null for it.
        let arguments = step.arguments.without(&|number| given.get(number).is_none_or(Option::is_none));
        let inputs: Vec<Value> = given.iter().flatten().cloned().collect();
        invoke(planned.layer.as_ref(), &planned.policy, &arguments, &inputs, weights)
    };
    let outputs = outputs.map_err(|error| input_error(planned.place(), said(&error)))?;
    if outputs.len() != step.outputs.len() {
        bail!("{}: planned {} outputs, found {}", planned.place(), step.outputs.len(), outputs.len())
    }
    let mut outputs = outputs;
    // Keras: a mask hangs on a tensor, so on everything that is the same tensor.
    if let ([slot], [output]) = (step.outputs.as_slice(), outputs.as_mut_slice())
        && let Some(input) = step.arguments.only_input()
        && plan.same_as(*slot) != *slot
    {
        if output.mask.is_none() {
            output.mask = given.get(input).cloned().flatten().and_then(|input| input.mask);
        } else if step.arguments.get("mask").is_some() {
            set_mask(plan, slots, *slot, output.mask.as_ref());
        }
    }
    // Keras: a tensor that was cast on the way in is another tensor, whose mask is its own.
    for name in planned.layer.erases_masks_of() {
        for number in
            step.arguments.get(name).map(|argument| argument.tensors()).unwrap_or_default().into_iter().flatten()
        {
            let cast = |value: &Value| is_cast(planned.layer.as_ref(), &planned.policy, value.dtype);
            if let (Some(slot), Some(Some(value))) = (step.inputs.get(number), given.get(number))
                && !cast(value)
            {
                set_mask(plan, slots, *slot, None);
            }
        }
    }
    Ok((given.into_iter().flatten().collect(), outputs))
}

/// Puts `mask`, or none, on what is the same tensor as that of `slot`.
fn set_mask(plan: &Plan, slots: &mut [Option<Value>], slot: usize, mask: Option<&Tensor>) {
    let tensor = plan.same_as(slot);
    let same = slots.iter_mut().enumerate().filter(|(number, _)| plan.same_as(*number) == tensor);
    for value in same.filter_map(|(_, value)| value.as_mut()) {
        value.mask = mask.cloned();
    }
}

fn fill(slots: &mut [Option<Value>], slot: usize, value: Value) -> candle_core::Result<()> {
    match slots.get_mut(slot) {
        Some(place) => *place = Some(value),
        None => return Err(empty_slot(slot)),
    }
    Ok(())
}

/// What is fed to an input, as Keras takes it: one axis of size 1 more or less at the end is forgiven, and the numbers are
/// cast to the input's dtype.
///
/// Source: keras/src/models/functional.py (`_standardize_inputs`, `_adjust_input_rank`).
pub(crate) fn feed(input: &Input, sizes: bool, value: &Value) -> candle_core::Result<Value> {
    let Input { name, spec, .. } = input;
    let Shape(axes) = &spec.shape;
    let mut tensor = value.tensor.clone();
    if tensor.rank() == axes.len() + 1 && tensor.dims().last() == Some(&1) {
        tensor = tensor.squeeze(tensor.rank() - 1)?;
    } else if tensor.rank() + 1 == axes.len() && axes.last() == Some(&Some(1)) {
        tensor = tensor.unsqueeze(tensor.rank())?;
    }
    let at = place(name);
    // Keras: the batch size is left to nobody to check; a Sequential model leaves all sizes to its layers.
    let sized = |(size, axis): (&usize, &Option<usize>)| !sizes || axis.is_none_or(|axis| axis == *size);
    if tensor.rank() != axes.len() || !tensor.dims().iter().zip(axes).skip(1).all(sized) {
        let what = format!("expected {}, found {:?}", spec.shape, value.tensor.dims());
        return Err(input_error(at, what));
    }
    let fed = Value { tensor, ..value.clone() };
    cast(&fed, spec.dtype).map_err(|error| input_error(at, said(&error)))
}

fn place(name: &str) -> String {
    format!("input \"{}\"", kandle_format::shown(name))
}

/// A kandle error inside a candle error. Not through `Error::wrap`, which may add a backtrace to the text.
pub(crate) fn input_error(at: String, what: String) -> candle_core::Error {
    candle_core::Error::Wrapped(Box::new(Error::new(ErrorKind::Input, at, what)))
}

/// What a candle error says, without a backtrace.
pub(crate) fn said(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => said(inner),
        error => error.to_string(),
    }
}

fn empty_slot(slot: usize) -> candle_core::Error {
    candle_core::Error::Msg(format!("slot {slot} of the plan was not filled"))
}

/// An input of a model inside a model: what comes in is fed to it as to any model.
#[derive(Debug)]
pub(crate) struct NestedInput(pub(crate) Input);

impl KerasLayer for NestedInput {
    fn read(fields: &mut crate::Fields<'_>) -> Self {
        fields.refuse("an input is not read as a layer");
        Self(Input::unknown())
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn output(&self, _: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![self.0.spec.clone()])
    }

    fn gives_back_its_input(&self, given: Given<'_, Spec>) -> bool {
        let (input, own) = (given.input(), &self.0.spec);
        input.is_ok_and(|input| input.dtype == own.dtype && input.shape.rank() == own.shape.rank())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let value = call.input()?;
        let mask = call.given.mask().cloned();
        Ok(vec![feed(&self.0, false, value)?.with_mask(mask)])
    }

    fn is_operation(&self) -> bool {
        true
    }
}

/// An input of a Sequential model inside the model that does not say what it is fed.
///
/// Keras: in TensorFlow 1.15 and 2.1 its first layer gets no mask, in 2.4 it does. With a mask it is refused.
#[derive(Debug)]
pub(crate) struct UnmaskedInput;

impl KerasLayer for UnmaskedInput {
    fn read(_: &mut crate::Fields<'_>) -> Self {
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        given.input().cloned().map(|spec| vec![spec]).map_err(|what| Problem::new(ErrorKind::Invalid, "", what))
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        true
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let value = call.input()?;
        if value.mask.is_some() {
            bail!(
                "a Sequential model without an InputLayer is given a mask, which TensorFlow before 2.4 loses: not supported"
            )
        }
        Ok(vec![value.clone()])
    }

    fn casts_itself(&self) -> bool {
        true
    }

    fn is_operation(&self) -> bool {
        true
    }
}
