//! `keras.layers.LayerNormalization`: `gamma · (x − mean) / √(variance + epsilon) + beta`, statistics of each sample along
//! `axis`, one axis or several.
//!
//! Shapes: xs of any shape, numbers; gamma and beta have the sizes of `axis`, in ascending order of its numbers; the result
//! has the shape of xs. With epsilon 0, `[1, 3]` gives `[-1, 1]`. Computed in float32 at least.
//!
//! Keras: in version 2 they have the sizes of `axis` in its own order, and their numbers are then taken row by row as if the
//! order were ascending. Integers it computes as floats; later, whole numbers come out of them.
//!
//! Keras: with `rms_scaling`, `gamma · x / √(variance + epsilon)`: what is divided by is the standard deviation, not the root
//! of the mean square. gamma is there whatever `scale` says, and beta never.
//!
//! Source: keras/src/layers/normalization/layer_normalization.py, keras/src/ops/nn.py (`_layer_normalization`).

use kandle_format::Problem;

use super::{computed_in, given_back, moments, one_of_numbers, reciprocal_root, scaled};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Spec, Value, Weight, dialect,
    layers::{axes, cannot},
    numeric::cast,
};

#[derive(Debug)]
pub(crate) struct LayerNormalization {
    /// Ascending, as they were given: Keras sorts −1 before 1. Version 2 sorts nothing.
    axes: Vec<i64>,
    casts_first: bool,
    epsilon: f64,
    center: bool,
    scale: bool,
    rms_scaling: bool,
}

impl KerasLayer for LayerNormalization {
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
        let mut axes = fields.integers("axis").unwrap_or_else(|| vec![-1]);
        let of_keras_2 = dialect::is_legacy(fields.keras_major());
        if !of_keras_2 {
            axes.sort_unstable();
        }
        Self {
            axes,
            casts_first: of_keras_2,
            epsilon: fields.number("epsilon", 1e-3),
            center: fields.flag("center", true),
            scale: fields.flag("scale", true),
            rms_scaling: fields.flag("rms_scaling", false),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let input = &given.input()?.shape;
        let places = axes(&self.axes, input.rank())?;
        let size = |place: &usize| input.0.get(*place).copied().flatten();
        let shape = places.iter().map(size).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| format!("the sizes of axes {places:?} of its input {input} are not known"))?;
        let as_candle = !self.rms_scaling && places.iter().all(|place| place + 1 == input.rank());
        let weight = |keras, candle: &str| {
            Weight::new(keras, shape.clone(), if as_candle { candle } else { keras }, Layout::AsIs).not_cast()
        };
        let mut weights = Vec::new();
        if self.scale || self.rms_scaling {
            weights.push(weight("gamma", "weight"));
        }
        if self.center && !self.rms_scaling {
            weights.push(weight("beta", "bias"));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_of_numbers(given)?;
        axes(&self.axes, input.shape.rank()).map_err(cannot)?;
        Ok(vec![Spec { dtype: given.policy().compute, ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (input, policy) = (call.input()?, call.given.policy());
        let input = if self.casts_first { &cast(input, policy.compute)? } else { input };
        let dtype = computed_in(input);
        let xs = input.tensor.to_dtype(dtype)?;
        let places = axes(&self.axes, xs.rank()).map_err(candle_core::Error::msg)?;
        let shape: Vec<usize> =
            xs.dims().iter().enumerate().map(|(place, size)| if places.contains(&place) { *size } else { 1 }).collect();
        let mut weights = call.weights.iter();
        let mut next = || weights.next().map(|weight| weight.reshape(shape.as_slice())?.to_dtype(dtype)).transpose();
        let (center, variance) = moments(&xs, &places)?;
        let factor = reciprocal_root(&(variance + self.epsilon)?)?;
        let ys = if self.rms_scaling {
            let ys = xs.broadcast_mul(&factor)?;
            next()?.map_or_else(|| Ok(ys.clone()), |gamma| ys.broadcast_mul(&gamma))?
        } else {
            let gamma = if self.scale { next()? } else { None };
            let beta = if self.center { next()? } else { None };
            scaled(&xs, &center, factor, gamma, beta)?
        };
        given_back(&ys, input, policy)
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn casts_itself(&self) -> bool {
        true
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let places = axes(&self.axes, lowered.rank()).map_err(candle_core::Error::msg)?;
        if self.rms_scaling || places.as_slice() != [lowered.rank().saturating_sub(1)] {
            return Ok(None);
        }
        let gamma = lowered.weight_if(self.scale, 0)?;
        let beta = lowered.weight_if(self.center, usize::from(self.scale))?;
        Ok(Some(vec![Primitive::Normalize { centered: true, epsilon: self.epsilon, gamma, beta }]))
    }
}
