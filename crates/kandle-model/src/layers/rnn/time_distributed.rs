//! `keras.layers.TimeDistributed`: a layer applied to each step in time by itself.
//!
//! Shapes: xs `(batch, time, …)`; result `(batch, time, …)`, at each step what the layer makes of `(batch, …)`. With a Dense
//! of kernel `[[2]]` without bias, `[[[1], [3]]]` gives `[[[2], [6]]]`. The mask of the steps goes on with the result; a
//! layer that takes a mask gets `mask[:, t]` at the step t, which is of use where the mask has a third axis.
//!
//! Keras: before 2.2 the layer got no mask. The layer's own `call` is called, not the layer, so what it gets is of the outer
//! dtype. What computes in whatever dtype it gets does so in the outer one; a recurrent layer, an Embedding or a model casts to
//! its own and gives that back.
//!
//! Keras: in version 2 the mask that goes on is that of the layer inside, if it gives one; else that of the steps, where a step
//! counts that counts anywhere.
//!
//! Source: keras/src/layers/rnn/time_distributed.py, tf_keras/src/layers/rnn/time_distributed.py (`compute_mask`).

use candle_core::{Result, Tensor, bail};
use kandle_format::{
    Dtype, Problem,
    json::{Map, Value as Json},
};

use crate::{
    Arguments, Call, Fields, Given, Inner, KerasLayer, Lowered, Masking, Policy, Primitive, Shape, Spec, Value, Weight,
    dialect,
    layers::{cannot, one},
    numeric::cast,
    run::{invoke, plan_output},
};

#[derive(Debug)]
pub(super) struct TimeDistributed {
    layer: Option<Inner>,
    /// Whether the layer does the same to each sample, so that all steps can go through it at once.
    by_sample: bool,
    /// Whether the layer computes by its own dtype policy.
    by_own_policy: bool,
    asks_for_mask: bool,
    /// Whether the layer gets a mask.
    gives_masks: bool,
}

/// Layers whose parts are called as layers, or that cast by themselves: the dtype policy that counts is their own.
const BY_OWN_POLICY: &[&str] =
    &["Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Embedding", "GRU", "LSTM", "RNN", "SimpleRNN"];

/// Layers that never ask for their own dtype policy.
const BY_ANY_POLICY: &[&str] = &[
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dropout",
    "EinsumDense",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "Identity",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Reshape",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
];

/// Layers that treat each sample by itself, whatever their settings (activations aside).
const BY_SAMPLE: &[&str] = &[
    "Activation",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRU",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "LSTM",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "SimpleRNN",
];

impl KerasLayer for TimeDistributed {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let Some(value) = fields.take("layer") else {
            fields.wrong("layer is missing");
            return Self {
                layer: None,
                by_sample: false,
                by_own_policy: false,
                asks_for_mask: false,
                gives_masks: true,
            };
        };
        if holds_stateful(value) {
            // Keras: its states go on from step to step.
            fields.refuse("a layer inside with stateful = true is not supported");
        }
        let makes_mask = value.get("class_name").and_then(Json::as_str) == Some("Masking")
            || value.get("config").and_then(|config| config.get("mask_zero")) == Some(&Json::Bool(true));
        if makes_mask && fields.is_older_than_tensorflows() && fields.is_from([2, 2, 0]) {
            fields.refuse("a layer inside that makes a mask is not supported in a file of Keras 2.2 and 2.3");
        }
        let layer = Inner::read(fields, "layer", value);
        let by_own_policy = layer.as_ref().is_some_and(|layer| computes_by_own_policy(fields, layer));
        let known = layer.as_ref().is_some_and(|layer| !layer.is_custom && BY_SAMPLE.contains(&layer.class.as_str()));
        let by_sample = known && has_plain_activations(value);
        let asks_for_mask = dialect::is_legacy(fields.keras_major());
        let gives_masks = fields.is_from([2, 2, 0]);
        Self { layer, by_sample, by_own_policy, asks_for_mask, gives_masks }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Weight>, String> {
        let step = step_of(given.input()?)?;
        let weights = self.layer()?.weights(&[step], "layer", "layer")?;
        let by_outer = |weight: Weight| match self.by_own_policy {
            true => weight,
            false => Weight { compute: Some(given.policy().compute), ..weight },
        };
        Ok(weights.into_iter().map(by_outer).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let inner = self.layer().map_err(cannot)?;
        let step = step_of(input).map_err(cannot)?;
        let policy = given.policy();
        let dtype = if step.dtype.is_float() && policy.compute.is_float() { policy.compute } else { step.dtype };
        let step = [Spec { dtype, ..step }];
        let outputs = if self.by_own_policy {
            inner.output(&step)?
        } else {
            let arguments = Arguments::of_first(inner.layer.parameters(), 1);
            plan_output(inner.layer.as_ref(), policy, &arguments, &step)?
        };
        let [output] = outputs.as_slice() else {
            return Err(cannot(format!("expected a layer with one output, found {}", outputs.len())));
        };
        let Shape(mut axes) = output.shape.clone();
        if axes.is_empty() {
            return Err(cannot("expected a layer whose output has a batch axis"));
        }
        axes.insert(1, input.shape.0.get(1).copied().flatten());
        Ok(vec![output.with_shape(Shape(axes))])
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let inner = self.layer().map_err(candle_core::Error::msg)?;
        let input = call.input()?;
        let policy = call.given.policy();
        let input = &match input.dtype.is_float() && policy.compute.is_float() {
            true => cast(input, policy.compute)?,
            false => input.clone(),
        };
        let dims = input.tensor.dims();
        let Some((&[batch, time], rest)) = dims.split_first_chunk::<2>().filter(|(_, rest)| !rest.is_empty()) else {
            bail!("expected an input of (batch, time, …), found {dims:?}")
        };
        let mask = call.given.mask();
        if let Some(mask) = mask
            && mask.dims().get(..2) != Some(&[batch, time])
        {
            bail!("expected a mask of ({batch}, {time}), found {:?}", mask.dims())
        }
        // What goes on where the layer gives no mask.
        let steps = mask.filter(|_| self.asks_for_mask).cloned();
        let steps = steps.map(|mask| (2..mask.rank()).try_fold(mask, |mask, _| mask.max(2))).transpose()?;
        let takes_mask = self.gives_masks && (self.asks_for_mask || inner.layer.parameters().contains(&"mask"));
        let mask = mask.filter(|_| takes_mask);
        let apply = |xs: Tensor, mask: Option<Tensor>| {
            let tensors = [input.with_tensor(xs).with_mask(mask)];
            let outputs = if self.by_own_policy {
                inner.call(&tensors, call.weights)?
            } else {
                let arguments = Arguments::of_first(inner.layer.parameters(), 1);
                invoke(inner.layer.as_ref(), policy, &arguments, &tensors, call.weights)?
            };
            match outputs.as_slice() {
                [output] => Ok(output.clone()),
                outputs => bail!("expected a layer with one output, found {}", outputs.len()),
            }
        };
        if time == 0 {
            bail!("expected an input of at least one step, found {dims:?}")
        }
        if self.by_sample {
            let folded = |dims: &[usize]| [&[batch * time], dims].concat();
            let fold = |mask: &Tensor| mask.contiguous()?.reshape(folded(mask.dims().get(2..).unwrap_or_default()));
            let output = apply(input.tensor.contiguous()?.reshape(folded(rest))?, mask.map(fold).transpose()?)?;
            let dims = [&[batch, time], output.tensor.dims().get(1..).unwrap_or_default()].concat();
            let found = output.with_tensor(output.tensor.contiguous()?.reshape(dims)?);
            if !self.asks_for_mask {
                return Ok(vec![found]);
            }
            let unfold = |mask: &Tensor| {
                let dims = [&[batch, time], mask.dims().get(1..).unwrap_or_default()].concat();
                mask.contiguous()?.reshape(dims)
            };
            let mask = output.mask.as_ref().map(unfold).transpose()?;
            return Ok(vec![found.with_mask(mask.or(steps))]);
        }
        let step = |tensor: &Tensor, number| tensor.narrow(1, number, 1)?.squeeze(1)?.contiguous();
        let mut outputs = Vec::new();
        for number in 0..time {
            outputs.push(apply(step(&input.tensor, number)?, mask.map(|mask| step(mask, number)).transpose()?)?);
        }
        let Some(first) = outputs.first() else { bail!("expected an input of at least one step, found {dims:?}") };
        let tensors: Vec<&Tensor> = outputs.iter().map(|output| &output.tensor).collect();
        let found = first.with_tensor(Tensor::stack(&tensors, 1)?);
        if !self.asks_for_mask {
            return Ok(vec![found]);
        }
        let masks: Option<Vec<&Tensor>> = outputs.iter().map(|output| output.mask.as_ref()).collect();
        let mask = masks.map(|masks| Tensor::stack(&masks, 1)).transpose()?;
        Ok(vec![found.with_mask(mask.or(steps))])
    }

    /// What comes out may have the dtype of the layer inside.
    fn casts_itself(&self) -> bool {
        true
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, lowered: Lowered<'_>) -> Result<Option<Vec<Primitive>>> {
        let Some(inner) = self.layer.as_ref().filter(|inner| self.by_sample && inner.policy == *lowered.given.policy())
        else {
            return Ok(None);
        };
        let step = [step_of(lowered.given.input().map_err(candle_core::Error::msg)?).map_err(candle_core::Error::msg)?];
        let arguments = Arguments::of_first(inner.layer.parameters(), 1);
        let given = Given { arguments: &arguments, tensors: &step, policy: &inner.policy };
        let chain = inner.layer.primitives(Lowered { given, ..lowered })?;
        Ok(chain.filter(|chain| chain.iter().all(Primitive::is_by_row)))
    }
}

/// Whether `layer` computes by its own dtype policy. Where neither that nor the outer one is known to do, it is refused.
fn computes_by_own_policy(fields: &mut Fields<'_>, layer: &Inner) -> bool {
    let (outer, inner) = (fields.policy().clone(), &layer.policy);
    let is_one_of = |classes: &[&str]| !layer.is_custom && classes.contains(&layer.class.as_str());
    if layer.is_model || is_one_of(BY_OWN_POLICY) {
        return true;
    }
    if (outer.variable, outer.compute) == (inner.variable, inner.compute) {
        return false;
    }
    // Keras: weights are cast only where the outer policy is a mixed one; else they raise the dtype of what they meet.
    let raises = |weights: Dtype| match outer.compute {
        compute if compute == weights => false,
        Dtype::Float64 => !weights.is_float(),
        Dtype::Float32 => !matches!(weights, Dtype::Float16 | Dtype::Bfloat16),
        _ => true,
    };
    if !is_one_of(BY_ANY_POLICY) || (outer.variable == outer.compute && raises(inner.variable)) {
        let named = |policy: &Policy| match policy.variable == policy.compute {
            true => policy.compute.to_string(),
            false => format!("{} of {} weights", policy.compute, policy.variable),
        };
        fields.refuse(format!(
            "a layer inside with another dtype policy ({}, not {}) is not supported: give both the same",
            named(inner),
            named(&outer)
        ));
    }
    false
}

impl TimeDistributed {
    fn layer(&self) -> std::result::Result<&Inner, String> {
        self.layer.as_ref().ok_or_else(|| "its layer could not be read".to_owned())
    }
}

/// What is known of one step.
fn step_of(input: &Spec) -> std::result::Result<Spec, String> {
    match input.shape.0.split_first_chunk::<2>() {
        Some((&[batch, _], rest)) if !rest.is_empty() => {
            Ok(input.with_shape(Shape(std::iter::once(batch).chain(rest.iter().copied()).collect())))
        }
        _ => Err(format!("expected an input of (batch, time, …), found {}", input.shape)),
    }
}

/// Whether some layer in there keeps states from call to call.
fn holds_stateful(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(holds_stateful),
        Json::Object(map) => map.get("stateful") == Some(&Json::Bool(true)) || map.values().any(holds_stateful),
        _ => false,
    }
}

/// Whether the activations of a layer are functions, not layers, which may work along the batch axis.
fn has_plain_activations(layer: &Json) -> bool {
    let plain =
        |config: &Map<String, Json>, key| config.get(key).is_none_or(|value| value.is_string() || value.is_null());
    let config = layer.get("config").and_then(Json::as_object);
    config.is_some_and(|config| plain(config, "activation") && plain(config, "recurrent_activation"))
}
