//! `keras.layers.Pipeline`: one layer after another.
//!
//! Shapes: what each makes of them. Source: keras/src/layers/preprocessing/pipeline.py.

use std::collections::BTreeMap;

use kandle_format::{Problem, json::Value as Json};

use crate::{
    Argument, Arguments, Call, Fields, Given, Inner, KerasLayer, Shape, Spec, Value, Weight,
    layers::cannot,
    plan::GroupNames,
    run::{invoke, plan_output},
};

#[derive(Debug)]
pub(crate) struct Pipeline {
    /// The layers, each with its folder in the weight store.
    layers: Vec<(String, Inner)>,
}

impl KerasLayer for Pipeline {
    fn read(fields: &mut Fields<'_>) -> Self {
        let value = fields.take("layers");
        let Some(items) = value.and_then(Json::as_array) else {
            fields.wrong("layers: expected a list of layers");
            return Self { layers: Vec::new() };
        };
        let mut groups = GroupNames::default();
        let mut layers = Vec::new();
        for item in items {
            let class = item.get("class_name").and_then(Json::as_str).unwrap_or_default();
            let owner = format!("layers/{}", groups.next(class));
            if let Some(inner) = Inner::read(fields, &owner, item) {
                layers.push((owner, inner));
            }
        }
        Self { layers }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = Vec::new();
        let place = |owner: &str| owner.rsplit('/').next().unwrap_or_default().to_owned();
        self.follow(given, |owner, inner, arguments, specs| {
            let given = Given { arguments, tensors: specs, policy: &inner.policy };
            let own = inner.layer.weights(given).map_err(cannot)?;
            weights.extend(
                own.into_iter().map(|weight| weight.inside(owner, &place(owner), inner.trainable, &inner.policy)),
            );
            Ok(())
        })
        .map_err(|problem| problem.what)?;
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        self.follow(given, |_, _, _, _| Ok(()))
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (mut argument, mut values) = first(call.given).ok_or_else(|| candle_core::Error::msg("no inputs"))?;
        let mut weights = call.weights;
        for (number, mask) in argument.tensors().into_iter().zip(call.given.masks()) {
            if let Some(value) = number.and_then(|number| values.get_mut(number)) {
                value.mask = mask.cloned();
            }
        }
        let known = |value: &Value| Spec {
            shape: Shape(value.tensor.dims().iter().copied().map(Some).collect()),
            dtype: value.dtype,
        };
        let specs: Vec<Spec> = values.iter().map(known).collect();
        let mut counts = Vec::new();
        let policy = call.given.policy();
        let known =
            Arguments::bind(&["inputs"], vec![argument.clone()], BTreeMap::new()).map_err(candle_core::Error::msg)?;
        self.follow(Given { arguments: &known, tensors: &specs, policy }, |_, inner, arguments, specs| {
            let own =
                inner.layer.weights(Given { arguments, tensors: specs, policy: &inner.policy }).map_err(cannot)?;
            counts.push(own.len());
            Ok(())
        })
        .map_err(|problem| candle_core::Error::msg(problem.what))?;
        for ((_, inner), count) in self.layers.iter().zip(counts) {
            let (own, rest) = weights.split_at_checked(count).unwrap_or((weights, &[]));
            weights = rest;
            let arguments = bound(inner, &argument).map_err(candle_core::Error::msg)?;
            values = invoke(inner.layer.as_ref(), &inner.policy, &arguments, &values, own)?;
            argument = next(argument, values.len());
        }
        Ok(values)
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl Pipeline {
    /// Goes through the layers with what is known of their inputs.
    fn follow(
        &self,
        given: Given<'_, Spec>,
        mut visit: impl FnMut(&str, &Inner, &Arguments, &[Spec]) -> Result<(), Problem>,
    ) -> Result<Vec<Spec>, Problem> {
        let (mut argument, mut specs) = first(given).ok_or_else(|| cannot("no inputs"))?;
        for (owner, inner) in &self.layers {
            let arguments = bound(inner, &argument).map_err(cannot)?;
            visit(owner, inner, &arguments, &specs)?;
            specs = plan_output(inner.layer.as_ref(), &inner.policy, &arguments, &specs)?;
            argument = next(argument, specs.len());
        }
        Ok(specs)
    }
}

/// What the first layer is called on: the first argument, its tensors numbered from 0.
fn first<T: Clone>(given: Given<'_, T>) -> Option<(Argument, Vec<T>)> {
    let argument = given.argument("inputs")?.clone();
    Some((argument, given.tensors.to_vec()))
}

fn bound(inner: &Inner, argument: &Argument) -> Result<Arguments, String> {
    Arguments::bind(inner.layer.parameters(), vec![argument.clone()], BTreeMap::new())
}

/// What the next layer is called on: as many tensors as went in keep their places in a list or dict.
fn next(argument: Argument, outputs: usize) -> Argument {
    match argument.tensors().len() == outputs && outputs > 1 {
        true => argument,
        false if outputs == 1 => Argument::Tensor(0),
        false => Argument::List((0..outputs).map(Argument::Tensor).collect()),
    }
}
