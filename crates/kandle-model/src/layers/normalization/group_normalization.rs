//! `keras.layers.GroupNormalization`: `gamma · (x − mean) / √(variance + epsilon) + beta`, statistics of each sample and group
//! of channels.
//!
//! Shapes: xs `(batch, …)`, numbers, with `channels` along `axis`, the groups one after the other along it; gamma and beta
//! `(channels,)`; the result has the shape of xs. With `groups = 1` and epsilon 0, `[1, 3]` gives `[-1, 1]`; `groups = −1`
//! stands for one group a channel. Computed in float32 at least.
//!
//! Source: keras/src/layers/normalization/group_normalization.py.

use candle_core::bail;
use kandle_format::Problem;

use super::{computed_in, given_back, moments, one_of_numbers, reciprocal_root, scaled};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Shape, Spec, Value, Weight,
    layers::{axis, cannot},
};

#[derive(Debug)]
pub(crate) struct GroupNormalization {
    /// `None` for one group a channel.
    groups: Option<usize>,
    axis: i64,
    epsilon: f64,
    center: bool,
    scale: bool,
}

impl KerasLayer for GroupNormalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "beta_initializer",
            "gamma_initializer",
            "beta_regularizer",
            "gamma_regularizer",
            "activity_regularizer",
            "beta_constraint",
            "gamma_constraint",
        ]);
        let groups = fields.integer("groups", 32);
        let count = usize::try_from(groups).ok().filter(|count| *count > 0);
        if count.is_none() && groups != -1 {
            fields.wrong(format!("groups: expected a whole number of at least 1 or -1, found {groups}"));
        }
        Self {
            groups: count,
            axis: fields.integer("axis", -1),
            epsilon: fields.number("epsilon", 1e-3),
            center: fields.flag("center", true),
            scale: fields.flag("scale", true),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let channels = self.channels(&given.input()?.shape)?.1;
        let weight = |keras, candle: &str| Weight::new(keras, vec![channels], candle, Layout::AsIs).not_cast();
        let gamma = self.scale.then(|| weight("gamma", "weight"));
        let beta = self.center.then(|| weight("beta", "bias"));
        Ok(gamma.into_iter().chain(beta).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_of_numbers(given)?;
        let (_, channels) = self.channels(&input.shape).map_err(cannot)?;
        let groups = self.groups.unwrap_or(channels);
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(cannot(format!("{channels} channels cannot be divided into {groups} groups")));
        }
        Ok(vec![Spec { dtype: given.policy().compute, ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (input, policy) = (call.input()?, call.given.policy());
        let dtype = computed_in(input);
        let sizes = input.tensor.dims();
        let place = axis(self.axis, sizes.len()).map_err(candle_core::Error::msg)?;
        let channels = input.tensor.dim(place)?;
        let groups = self.groups.unwrap_or(channels);
        if groups == 0 || !channels.is_multiple_of(groups) {
            bail!("{channels} channels cannot be divided into {groups} groups")
        }
        // The axis of channels becomes two: groups, and the channels of each.
        let split = |others: &dyn Fn(usize) -> usize| -> Vec<usize> {
            let sizes = sizes.iter().enumerate();
            let axes =
                sizes.map(|(at, size)| if at == place { vec![groups, channels / groups] } else { vec![others(*size)] });
            axes.flatten().collect()
        };
        let xs = input.tensor.to_dtype(dtype)?.reshape(split(&|size| size))?;
        let shape = split(&|_| 1);
        let mut weights = call.weights.iter();
        let mut next = || weights.next().map(|weight| weight.reshape(shape.as_slice())?.to_dtype(dtype)).transpose();
        let places: Vec<usize> = (1..xs.rank()).filter(|at| *at != place).collect();
        let (center, variance) = moments(&xs, &places)?;
        let factor = reciprocal_root(&(variance + self.epsilon)?)?;
        let gamma = if self.scale { next()? } else { None };
        let beta = if self.center { next()? } else { None };
        let ys = scaled(&xs, &center, factor, gamma, beta)?.reshape(sizes)?;
        given_back(&ys, input, policy)
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn casts_itself(&self) -> bool {
        true
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let place = axis(self.axis, lowered.rank()).map_err(candle_core::Error::msg)?;
        if place == 0 || place + 1 != lowered.rank() {
            return Ok(None);
        }
        let gamma = lowered.weight_if(self.scale, 0)?;
        let beta = lowered.weight_if(self.center, usize::from(self.scale))?;
        Ok(Some(vec![Primitive::NormalizeGroups { groups: self.groups, epsilon: self.epsilon, gamma, beta }]))
    }
}

impl GroupNormalization {
    /// The place and the size of the axis of channels.
    fn channels(&self, shape: &Shape) -> Result<(usize, usize), String> {
        let place = axis(self.axis, shape.rank())?;
        if place == 0 {
            return Err("the batch axis has no channels".to_owned());
        }
        let channels = shape.0.get(place).copied().flatten();
        Ok((place, channels.ok_or_else(|| format!("the size of axis {place} of its input {shape} is not known"))?))
    }
}
