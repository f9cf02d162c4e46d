//! `keras.layers.RNN`, and every layer that is a cell stepped through time.
//!
//! Shapes: sequences `(batch, time, …)`; result `(batch, …)`, the last step's output, or `(batch, time, …)` with
//! `return_sequences`; with `return_state` the last states follow. `go_backwards` takes the steps from the last to the first
//! and leaves the outputs in that order. States start at zero, unless `initial_state` gives them. With `time_major`, which
//! Keras 2 has, sequences, masks and results of `return_sequences` are `(time, batch, …)`.
//!
//! At a masked step the states stay as they were. Keras: the output there is that of the step before, and 0 before the
//! first step that counts, whatever the initial state is; with `zero_output_for_mask` it is 0 at every masked step. This is
//! what TensorFlow does; JAX repeats the state instead, and so did Keras before 2.3. Keras: an unrolled loop that goes
//! backwards sets the outputs to 0 by the mask in its own order, not in that of the outputs, so others than the masked ones.
//!
//! A model is immutable here, so a layer with `stateful` runs as it does the first time after loading: from zero states. A
//! graph that calls one twice is refused: its second call would begin where the first ended.
//!
//! Source: keras/src/layers/rnn/rnn.py and keras/src/backend/tensorflow/rnn.py (`rnn`).

use std::marker::PhantomData;

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::cell::{Cell, weight};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Shape, Spec, Value, Weight,
    layers::cannot,
    numeric::{cast, storage},
    primitive,
};

/// A cell, and how it is stepped through time.
#[derive(Debug)]
pub(super) struct Recurrent {
    cell: Box<dyn Cell>,
    pub return_sequences: bool,
    pub return_state: bool,
    pub go_backwards: bool,
    pub stateful: bool,
    pub zero_output_for_mask: bool,
    pub time_major: bool,
    unroll: bool,
    /// Whether the first state is the output of a masked step, not the output of the step before.
    gives_first_state: bool,
}

impl Recurrent {
    /// Reads the layer with a cell of the kind `C`.
    pub(super) fn read<C: Cell + 'static>(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let cell = C::read(fields);
        let unroll = fields.flag("unroll", false);
        // Keras: a masked step gave the first state, whichever cell's that is, until 2.3 left the loop to TensorFlow. On
        // Theano it never did.
        let gives_first_state =
            fields.is_older_than_tensorflows() && !fields.is_from([2, 3, 0]) && !fields.context().on_theano && !unroll;
        Self {
            cell: Box::new(cell),
            gives_first_state,
            return_sequences: fields.flag("return_sequences", false),
            return_state: fields.flag("return_state", false),
            go_backwards: fields.flag("go_backwards", false),
            stateful: fields.flag("stateful", false),
            zero_output_for_mask: fields.flag("zero_output_for_mask", false),
            time_major: fields.flag("time_major", false),
            unroll,
        }
    }

    /// The stand-in for a layer that could not be read.
    pub(super) fn of(cell: Box<dyn Cell>) -> Self {
        let (return_sequences, return_state, go_backwards, stateful) = (false, false, false, false);
        Self {
            cell,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            zero_output_for_mask: false,
            time_major: false,
            unroll: false,
            gives_first_state: false,
        }
    }

    /// The weights, as the layer around the cell has them.
    pub(super) fn weights(&self, sequences: &Shape, suffix: &str) -> std::result::Result<Vec<Weight>, String> {
        let owned = |weight: Weight| {
            let owner = if weight.owner.is_empty() { "cell".to_owned() } else { format!("cell/{}", weight.owner) };
            Weight { owner, ..weight }
        };
        Ok(self.cell.weights(&self.step_of(sequences)?, suffix)?.into_iter().map(owned).collect())
    }

    pub(super) fn weight_count(&self) -> usize {
        self.cell.weight_count()
    }

    pub(super) fn state_count(&self) -> usize {
        self.cell.state_count()
    }

    /// The shapes of the output and, with `return_state`, of the states.
    pub(super) fn output(&self, sequences: &Shape) -> std::result::Result<Vec<Shape>, String> {
        let states = self.cell.states(&self.step_of(sequences)?)?;
        let Shape(mut axes) = states.get(self.cell.output_state()).cloned().ok_or("a cell without a state")?;
        if self.return_sequences {
            let axis = self.time_axis();
            axes.insert(axis, sequences.0.get(axis).copied().flatten());
        }
        let states = if self.return_state { states } else { Vec::new() };
        Ok(std::iter::once(Shape(axes)).chain(states).collect())
    }

    /// The axis of sequences that is time.
    pub(super) fn time_axis(&self) -> usize {
        if self.time_major { 0 } else { 1 }
    }

    /// The shape of one step, without the axis of time.
    fn step_of(&self, sequences: &Shape) -> std::result::Result<Shape, String> {
        let Shape(mut axes) = sequences.clone();
        if axes.len() < 3 {
            let expected = if self.time_major { "(time, batch, …)" } else { "(batch, time, …)" };
            return Err(format!("expected sequences of {expected}, found {sequences}"));
        }
        axes.remove(self.time_axis());
        Ok(Shape(axes))
    }

    /// The output, `(batch, …)` or `(batch, time, …)`, and the last states. `initial` holds all states or none; `mask` is
    /// `(batch, time)`, of any dtype. With `time_major` time comes before batch.
    pub(super) fn run(
        &self,
        sequences: &Tensor,
        initial: &[Tensor],
        mask: Option<&Tensor>,
        weights: &[Tensor],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        // Rows of (time, batch), here and in the mask.
        let first = self.time_axis();
        let steps = if sequences.rank() > first { sequences.transpose(0, first)? } else { sequences.clone() };
        let Some((&[time, batch], rest)) = steps.dims().split_first_chunk::<2>() else {
            bail!("expected sequences with axes of time and batch, found {:?}", sequences.dims())
        };
        if time == 0 {
            bail!("expected sequences of at least one step, found {:?}", sequences.dims())
        }
        let weights = self.cell.prepare(weights)?;
        // What depends on the input alone, for all steps at once.
        let rows: Vec<usize> = std::iter::once(time * batch).chain(rest.iter().copied()).collect();
        let projected = self.cell.project(&steps.contiguous()?.reshape(rows)?, &weights)?;
        let rows: Vec<usize> = [time, batch].iter().chain(projected.dims().iter().skip(1)).copied().collect();
        let projected = projected.reshape(rows)?;
        let mut states = self.initial_states(sequences, batch, initial, &projected)?;
        let mask = mask.map(|mask| by_step(mask, first, batch, time)).transpose()?;
        if let Some(features) =
            mask.as_ref().and_then(|mask| mask.dims().get(2)).filter(|size| self.unroll && **size > 1)
        {
            // Keras: TensorFlow repeats such a mask for each unit, which fits nothing.
            bail!("a mask of {features} features does not fit an unrolled layer")
        }

        let order = |number: usize| if self.go_backwards { time - 1 - number } else { number };
        let mut outputs: Vec<Tensor> = Vec::new();
        for number in (0..time).map(order) {
            let stepped = self.cell.step(&projected.get(number)?, &states, &weights)?;
            let mut output = weight(&stepped, self.cell.output_state())?.clone();
            match &mask {
                None => states = stepped,
                Some(mask) => {
                    let mask = mask.get(number)?;
                    let before = match outputs.last() {
                        _ if self.gives_first_state => weight(&states, 0)?.clone(),
                        Some(before) if self.unroll || !self.zero_output_for_mask => before.clone(),
                        _ => output.zeros_like()?,
                    };
                    output = kept(&mask, &output, &before)?;
                    let pairs = stepped.iter().zip(&states);
                    states = pairs.map(|(new, old)| kept(&mask, new, old)).collect::<Result<_>>()?;
                }
            }
            if !self.return_sequences {
                outputs.clear();
            }
            outputs.push(output);
        }
        if let Some(mask) = mask.filter(|_| self.unroll && self.zero_output_for_mask) {
            let first = if self.return_sequences { 0 } else { order(time - 1) };
            for (number, output) in outputs.iter_mut().enumerate() {
                *output = kept(&mask.get(first + number)?, output, &output.zeros_like()?)?;
            }
        }
        let output = if self.return_sequences { Tensor::stack(&outputs, first)? } else { weight(&outputs, 0)?.clone() };
        Ok((output, states))
    }

    /// It as a primitive, where the cell is one of those and it begins with zeros.
    pub(super) fn lowered(&self, weights: &[Tensor]) -> Result<Option<primitive::Recurrent>> {
        if self.time_major || self.unroll || self.gives_first_state {
            return Ok(None);
        }
        let Some(cell) = self.cell.lowered(weights)? else { return Ok(None) };
        Ok(Some(primitive::Recurrent {
            backwards: self.go_backwards,
            sequences: self.return_sequences,
            zeros_where_masked: self.zero_output_for_mask,
            ..cell
        }))
    }

    /// The states that come in, or zeros.
    fn initial_states(
        &self,
        sequences: &Tensor,
        batch: usize,
        initial: &[Tensor],
        projected: &Tensor,
    ) -> Result<Vec<Tensor>> {
        if initial.is_empty() {
            let known = Shape(sequences.dims().iter().copied().map(Some).collect());
            let shapes =
                self.step_of(&known).and_then(|step| self.cell.states(&step)).map_err(candle_core::Error::msg)?;
            let zeros = |shape: Shape| {
                let dims: Vec<usize> = shape.0.into_iter().flatten().collect();
                Tensor::zeros(dims, projected.dtype(), projected.device())
            };
            return shapes.into_iter().map(zeros).collect();
        }
        if initial.len() != self.cell.state_count() {
            bail!("initial_state: expected {} tensors, found {}", self.cell.state_count(), initial.len())
        }
        let state = |state: &Tensor| {
            let state = state.to_dtype(projected.dtype())?;
            // One row is a state for all of them.
            match state.dims().split_first() {
                Some((1, rest)) if batch != 1 => state.broadcast_as([&[batch], rest].concat())?.contiguous(),
                _ => Ok(state),
            }
        };
        initial.iter().map(state).collect()
    }

    /// What Keras calls with `sequences`, and with all states of this layer or none.
    fn call(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let dtype = call.given.policy().arithmetic();
        let (sequences, initial) = parts(&call)?;
        let (output, states) = self.run(&sequences, &initial, call.given.mask(), call.weights)?;
        let states = if self.return_state { states } else { Vec::new() };
        std::iter::once(output).chain(states).map(|tensor| finished(&tensor, dtype)).collect()
    }
}

/// The sequences and the initial states, none or all, that a call gives: as `initial_state`, or, as Keras 2 writes it, as
/// more inputs.
pub(super) fn parts(call: &Call<'_>) -> Result<(Tensor, Vec<Tensor>)> {
    let inputs = call.given.inputs();
    let Some((sequences, more)) = inputs.split_first() else { bail!("expected sequences, found nothing") };
    let sequences = cast(sequences, call.given.policy().arithmetic())?.tensor;
    let given = call.given.tensors("initial_state");
    if given.is_empty() && call.given.argument("initial_state").is_some() {
        bail!("initial_state: expected tensors")
    }
    let initial = if given.is_empty() { more } else { given.as_slice() };
    Ok((sequences, initial.iter().map(|state| state.tensor.clone()).collect()))
}

/// The planned sequences, after a check of how many initial states come with them.
pub(super) fn planned_parts<'a>(given: Given<'a, Spec>, states: usize) -> std::result::Result<&'a Spec, Problem> {
    let inputs = given.inputs();
    let Some((sequences, more)) = inputs.split_first() else {
        return Err(cannot("expected sequences, found nothing"));
    };
    let found = more.len().max(given.tensors("initial_state").len());
    if found != 0 && found != states {
        return Err(cannot(format!("initial_state: expected {states} tensors, found {found}")));
    }
    Ok(sequences)
}

/// A result in the arithmetic dtype of the layer.
pub(super) fn finished(tensor: &Tensor, dtype: Dtype) -> Result<Value> {
    Ok(Value::new(tensor.to_dtype(storage(dtype)?)?, dtype))
}

/// A mask whose axis of time is `first` as `(time, batch, 1 or …)`, 1 where the step counts.
fn by_step(mask: &Tensor, first: usize, batch: usize, time: usize) -> Result<Tensor> {
    let steps = if mask.rank() > first { mask.transpose(0, first)? } else { mask.clone() };
    match steps.dims() {
        [times, rows, rest @ ..] if (*rows, *times) == (batch, time) => {
            let mask = steps.ne(&steps.zeros_like()?)?;
            let mask = if rest.is_empty() { mask.unsqueeze(2)? } else { mask };
            mask.contiguous()
        }
        _ => bail!("expected a mask of {batch} rows and {time} steps, found {:?}", mask.dims()),
    }
}

/// `new` where the mask of one step counts, `old` elsewhere.
fn kept(mask: &Tensor, new: &Tensor, old: &Tensor) -> Result<Tensor> {
    let mut mask = mask.clone();
    while mask.rank() < new.rank() {
        mask = mask.unsqueeze(mask.rank())?;
    }
    mask.broadcast_as(new.shape())?.contiguous()?.where_cond(new, old)
}

/// The layer class whose cell is `C`; for RNN that is whatever `cell` describes.
#[derive(Debug)]
pub(super) struct RecurrentLayer<C> {
    recurrent: Recurrent,
    cell: PhantomData<fn() -> C>,
}

impl<C: Cell + 'static> KerasLayer for RecurrentLayer<C> {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { recurrent: Recurrent::read::<C>(fields), cell: PhantomData }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["sequences", "initial_state", "mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Weight>, String> {
        let inputs = given.inputs();
        self.recurrent.weights(&inputs.first().ok_or("expected sequences, found nothing")?.shape, "")
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let sequences = planned_parts(given, self.recurrent.state_count())?;
        let dtype = given.policy().arithmetic();
        let shapes = self.recurrent.output(&sequences.shape).map_err(cannot)?;
        Ok(shapes.into_iter().map(|shape| Spec { shape, dtype }).collect())
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        self.recurrent.call(call)
    }

    fn keeps_states(&self) -> bool {
        self.recurrent.stateful
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }

    fn compute_mask(&self, _: Call<'_>, previous: &[Option<&Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mask = previous.first().copied().flatten().filter(|_| self.recurrent.return_sequences);
        Ok(vec![mask.cloned()])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> Result<Option<Vec<Primitive>>> {
        let alone = lowered.is_called_on_one() && !self.recurrent.stateful && !self.recurrent.return_state;
        let recurrent = if alone { self.recurrent.lowered(lowered.weights)? } else { None };
        Ok(recurrent.map(|recurrent| vec![Primitive::Recurrent(recurrent)]))
    }
}
