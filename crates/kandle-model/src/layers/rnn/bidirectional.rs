//! `keras.layers.Bidirectional`: a recurrent layer forwards in time and one backwards, their outputs merged.
//!
//! Shapes: sequences `(batch, time, …)`; result as that of the two layers, or, with `merge_mode` `concat`, twice as long in
//! the last axis, or two results where it is null. With `return_sequences` the backward outputs are put into the order of
//! time. With `return_state` the forward states follow, then the backward ones. `sum` of outputs `[1, 2]` and `[10, 20]` is
//! `[11, 22]`, `ave` `[5.5, 11]`, `mul` `[10, 40]`, `concat` `[1, 2, 10, 20]`. The first half of `initial_state` goes to
//! the forward layer.
//!
//! Keras: outputs come in the dtype of this layer, states in those of the layers inside.
//!
//! Keras: with `return_sequences` outputs at masked steps are 0, whatever `zero_output_for_mask` says. Before Keras became part
//! of TensorFlow they were those of the step before, and so in LSTM and GRU of TensorFlow 2.0 and 2.1 on processors, whose
//! masks are refused.
//!
//! Source: keras/src/layers/rnn/bidirectional.py.

use candle_core::{D, Result, Tensor, bail};
use kandle_format::{Dtype, Problem, json::Value as Json};

use super::{
    cell::{InnerCell, Inside, cast_for},
    recurrent::{Recurrent, finished, parts, planned_parts},
    recurrent_class,
};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Policy, Primitive, Shape, Spec, Value, Weight, layers::cannot,
    numeric::constant_like, primitive::Merging,
};

#[derive(Debug)]
pub(super) struct Bidirectional {
    forward: Inside<Recurrent>,
    backward: Inside<Recurrent>,
    merge: Merge,
    /// Whether what it gives at masked steps depends on the device it ran on.
    is_open_where_masked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    Concat,
    Sum,
    Multiply,
    Average,
    /// Two results.
    Not,
}

impl KerasLayer for Bidirectional {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        const MODES: &[(&str, Merge)] =
            &[("concat", Merge::Concat), ("sum", Merge::Sum), ("mul", Merge::Multiply), ("ave", Merge::Average)];
        let is_null = fields.holds("merge_mode") && fields.take("merge_mode").is_none();
        let merge = if is_null { Merge::Not } else { fields.choice("merge_mode", MODES).unwrap_or(Merge::Concat) };
        let mut forward = direction(fields, "layer");
        let mut backward = if fields.take("backward_layer").is_some() {
            direction(fields, "backward_layer")
        } else {
            // Keras: a copy of the forward layer that goes the other way.
            let mut copy = direction(fields, "layer");
            copy.layer.go_backwards = !copy.layer.go_backwards;
            copy
        };
        verify(fields, &forward.layer, &backward.layer);
        let repeats = fields.is_older_than_tensorflows();
        for direction in [&mut forward, &mut backward].into_iter().filter(|_| !repeats) {
            direction.layer.zero_output_for_mask = direction.layer.return_sequences;
        }
        let value = fields.take("layer");
        let is_open_where_masked = forward.layer.return_sequences
            && matches!(fields.context().keras_version, Some("2.2.4-tf" | "2.3.0-tf"))
            && value.is_some_and(chosen_by_device);
        Self { forward, backward, merge, is_open_where_masked }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["sequences", "initial_state", "mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Weight>, String> {
        let inputs = given.inputs();
        let sequences = &inputs.first().ok_or("expected sequences, found nothing")?.shape;
        let forward = self.forward.declared(self.forward.layer.weights(sequences, "")?, "forward_layer", "");
        let backward = self.backward.layer.weights(sequences, "_reverse")?;
        Ok([forward, self.backward.declared(backward, "backward_layer", "")].concat())
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let sequences = planned_parts(given, self.state_count())?;
        let mut forward = self.forward.layer.output(&sequences.shape).map_err(cannot)?;
        let mut backward = self.backward.layer.output(&sequences.shape).map_err(cannot)?;
        let of = |dtype: Dtype| move |shape: Shape| Spec { shape, dtype };
        let states = forward.split_off(1).into_iter().map(of(self.forward.policy.compute));
        let more_states = backward.split_off(1).into_iter().map(of(self.backward.policy.compute));
        let outputs = match (forward.pop(), backward.pop()) {
            (Some(forward), Some(backward)) => self.merged_shape(forward, backward)?,
            _ => Vec::new(),
        };
        Ok(outputs.into_iter().map(of(given.policy().compute)).chain(states).chain(more_states).collect())
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let policy = call.given.policy();
        let (sequences, initial) = parts(&call)?;
        if self.is_open_where_masked && call.given.mask().is_some() {
            bail!(
                "a mask, of which TensorFlow 2.0 and 2.1 make something else on processors than later versions and GPUs: \
                 save the model with TensorFlow 2.2 or later"
            )
        }
        let sequences = cast_for(policy, &sequences)?;
        let initial = initial.iter().map(|state| cast_for(policy, state)).collect::<Result<Vec<_>>>()?;
        let (of_forward, of_backward) = initial.split_at(initial.len() / 2);
        let (weights, more_weights) = call.weights.split_at(self.forward.layer.weight_count().min(call.weights.len()));
        let run =
            |direction: &Inside<Recurrent>, initial: &[Tensor], weights: &[Tensor]| -> Result<(Tensor, Vec<Value>)> {
                let (initial, weights) = (direction.cast_all(initial)?, direction.rounded(weights)?);
                let (ys, states) =
                    direction.layer.run(&direction.cast(&sequences)?, &initial, call.given.mask(), &weights)?;
                let states = states.iter().map(|state| finished(state, direction.policy.compute));
                Ok((cast_for(policy, &direction.cast(&ys)?)?, states.collect::<Result<Vec<_>>>()?))
            };
        let (ys, states) = run(&self.forward, of_forward, weights)?;
        let (ys_reversed, more_states) = run(&self.backward, of_backward, more_weights)?;
        let axis = self.forward.layer.time_axis();
        let ys_reversed = if self.forward.layer.return_sequences { reversed(&ys_reversed, axis)? } else { ys_reversed };
        let outputs = match self.merge {
            Merge::Concat => vec![Tensor::cat(&[ys, ys_reversed], D::Minus1)?],
            Merge::Sum => vec![(ys + ys_reversed)?],
            Merge::Multiply => vec![(ys * ys_reversed)?],
            Merge::Average => {
                let sum = policy.rounded((ys + ys_reversed)?)?;
                vec![(&sum / constant_like(&sum, 2.0)?)?]
            }
            Merge::Not => vec![ys, ys_reversed],
        };
        let states = if self.forward.layer.return_state { [states, more_states].concat() } else { Vec::new() };
        outputs.iter().map(|tensor| finished(tensor, policy.compute)).chain(states.into_iter().map(Ok)).collect()
    }

    /// Its outputs have its own dtype, the states those of the layers inside.
    fn casts_itself(&self) -> bool {
        true
    }

    fn keeps_states(&self) -> bool {
        self.forward.layer.stateful
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }

    fn compute_mask(&self, _: Call<'_>, previous: &[Option<&Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let mask = previous.first().copied().flatten().filter(|_| self.forward.layer.return_sequences);
        Ok(vec![mask.cloned(); if self.merge == Merge::Not { 2 } else { 1 }])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> Result<Option<Vec<Primitive>>> {
        let (forward, backward) = (&self.forward.layer, &self.backward.layer);
        let merge = match self.merge {
            Merge::Concat => None,
            Merge::Sum => Some(Merging::Add),
            Merge::Multiply => Some(Merging::Multiply),
            Merge::Average => Some(Merging::Average),
            Merge::Not => return Ok(None),
        };
        let plain = |policy: &Policy| *policy == *lowered.given.policy();
        let same = plain(&self.forward.policy) && plain(&self.backward.policy);
        let kept = forward.stateful || forward.return_state || self.is_open_where_masked;
        if !same || kept || !lowered.is_called_on_one() {
            return Ok(None);
        }
        let (weights, more) = lowered.weights.split_at(forward.weight_count().min(lowered.weights.len()));
        let directions = forward.lowered(weights)?.zip(backward.lowered(more)?);
        Ok(directions.map(|(forward, backward)| vec![Primitive::Bidirectional { forward, backward, merge }]))
    }
}

impl Bidirectional {
    fn state_count(&self) -> usize {
        self.forward.layer.state_count() + self.backward.layer.state_count()
    }

    fn merged_shape(&self, forward: Shape, backward: Shape) -> std::result::Result<Vec<Shape>, Problem> {
        match self.merge {
            Merge::Not => Ok(vec![forward, backward]),
            Merge::Concat => {
                let last = match (forward.last(), backward.last()) {
                    (Some(forward), Some(backward)) => forward.checked_add(backward),
                    _ => None,
                };
                Ok(vec![forward.with_last(last)])
            }
            _ if forward == backward => Ok(vec![forward]),
            _ => Err(cannot(format!("outputs of {forward} and {backward} cannot be merged number by number"))),
        }
    }
}

/// The recurrent layer that `key` describes.
fn direction(fields: &mut Fields<'_>, key: &'static str) -> Inside<Recurrent> {
    const KNOWN: &str = "RNN, SimpleRNN, LSTM, GRU and ConvLSTM1D to ConvLSTM3D";
    let read = match fields.take(key) {
        Some(value) => Inside::read(fields, key, value, recurrent_class, KNOWN),
        None => {
            fields.wrong(format!("{key} is missing"));
            None
        }
    };
    read.unwrap_or_else(|| {
        let InnerCell { class, trainable, policy, layer } = InnerCell::default();
        Inside { class, trainable, policy, layer: Recurrent::of(layer) }
    })
}

/// Whether the recurrent layer `value` is one of those of TensorFlow 2 that run in another way on a GPU.
fn chosen_by_device(value: &Json) -> bool {
    let setting = |key: &str| value.get("config").and_then(|config| config.get(key));
    match value.get("class_name").and_then(Json::as_str) {
        Some("LSTM") => setting("implementation").and_then(Json::as_u64) != Some(1),
        Some("GRU") => setting("reset_after").and_then(Json::as_bool) == Some(true),
        _ => false,
    }
}

/// Notes what Keras does not accept about the two directions.
fn verify(fields: &mut Fields<'_>, forward: &Recurrent, backward: &Recurrent) {
    if forward.go_backwards == backward.go_backwards {
        fields.wrong("layer and backward_layer: expected go_backwards to differ");
    }
    let same = [
        ("stateful", forward.stateful == backward.stateful),
        ("return_sequences", forward.return_sequences == backward.return_sequences),
        ("return_state", forward.return_state == backward.return_state),
        ("time_major", forward.time_major == backward.time_major),
    ];
    for (key, _) in same.iter().filter(|(_, same)| !same) {
        fields.wrong(format!("layer and backward_layer: expected the same {key}"));
    }
}

/// The steps, along `axis`, in the opposite order.
fn reversed(sequences: &Tensor, axis: usize) -> Result<Tensor> {
    let time = i64::try_from(sequences.dim(axis)?)?;
    let order = Tensor::arange_step(time - 1, -1, -1, sequences.device())?;
    sequences.contiguous()?.index_select(&order, axis)
}
