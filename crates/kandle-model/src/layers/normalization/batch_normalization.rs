//! `keras.layers.BatchNormalization`: `gamma · (x − mean) / √(variance + epsilon) + beta` with the statistics of training.
//!
//! Shapes: xs with `channels` along `axis`, all weights `(channels,)`; the result has the shape of xs. With mean 1, variance
//! 3.999, epsilon 0.001, gamma 2 and beta 10, `x = 5` gives `2 · (5 − 1) / 2 + 10 = 14`. Computed in float32 at least.
//!
//! Keras: version 2 takes several axes too, and its weights then have all axes of xs, of size 1 where they aren't named.
//!
//! Source: keras/src/layers/normalization/batch_normalization.py.

use candle_core::{Tensor, bail};
use kandle_format::Problem;

use super::reciprocal_root;
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Masking, Spec, Value, Weight,
    layers::{axes, cannot, one},
    numeric::cast,
};

#[derive(Debug)]
pub(crate) struct BatchNormalization {
    axes: Vec<i64>,
    epsilon: f64,
    center: bool,
    scale: bool,
    renorm: bool,
}

impl KerasLayer for BatchNormalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "momentum",
            "beta_initializer",
            "gamma_initializer",
            "moving_mean_initializer",
            "moving_variance_initializer",
            "beta_regularizer",
            "gamma_regularizer",
            "activity_regularizer",
            "beta_constraint",
            "gamma_constraint",
            "renorm_clipping",
            "renorm_momentum",
            "synchronized",
            // Keras 2: another way to compute the same.
            "fused",
        ]);
        fields.only_null("virtual_batch_size");
        fields.only_null("adjustment");
        // Keras 2 writes a list.
        let axes = fields.integers("axis").unwrap_or_else(|| vec![-1]);
        if axes.is_empty() || (axes.len() > 1 && fields.keras_major() >= 3) {
            fields.wrong(format!("axis: expected one, found {}", axes.len()));
        }
        Self {
            axes,
            epsilon: fields.number("epsilon", 1e-3),
            center: fields.flag("center", true),
            scale: fields.flag("scale", true),
            renorm: fields.flag("renorm", false),
        }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let shape = &given.input()?.shape;
        let places = axes(&self.axes, shape.rank())?;
        let size = |place: &usize| {
            let size = shape.0.get(*place).copied().flatten();
            size.ok_or_else(|| format!("the size of axis {place} of its input {shape} is not known"))
        };
        let (sizes, as_candle) = match places.as_slice() {
            [place] => (vec![size(place)?], true),
            _ => {
                let of = |place: usize| if places.contains(&place) { size(&place) } else { Ok(1) };
                ((0..shape.rank()).map(of).collect::<Result<_, _>>()?, false)
            }
        };
        let weight = |keras, candle: &str| {
            Weight::new(keras, sizes.clone(), if as_candle { candle } else { keras }, Layout::AsIs).not_cast()
        };
        let mut weights = Vec::new();
        if self.scale {
            weights.push(weight("gamma", "weight"));
        }
        if self.center {
            weights.push(weight("beta", "bias"));
        }
        weights.push(weight("moving_mean", "running_mean").not_trained());
        weights.push(weight("moving_variance", "running_var").not_trained());
        if self.renorm {
            for name in ["moving_stddev", "renorm_mean", "renorm_stddev"] {
                weights.push(weight(name, name).not_trained());
            }
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        axes(&self.axes, input.shape.rank()).map_err(cannot)?;
        Ok(vec![Spec { dtype: given.policy().arithmetic(), ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Some(input) = call.given.tensor("inputs") else { bail!("expected one input") };
        let input = cast(input, call.given.policy().arithmetic())?;
        let xs = &input.tensor;
        if let Some(mask) = call.given.mask()
            && mask.rank() + 1 != xs.rank()
        {
            bail!("expected a mask of one axis less than {:?}, found {:?}", xs.dims(), mask.dims())
        }
        let places = axes(&self.axes, xs.rank()).map_err(candle_core::Error::msg)?;
        let sizes = xs.dims().iter().enumerate();
        let shape: Vec<usize> = sizes.map(|(place, size)| if places.contains(&place) { *size } else { 1 }).collect();
        let mut weights = call.weights.iter();
        let mut next = || match weights.next() {
            Some(weight) => weight.reshape(shape.as_slice()),
            None => bail!("a weight was not given"),
        };
        let gamma = if self.scale { Some(next()?) } else { None };
        let beta = if self.center { Some(next()?) } else { None };
        let (mean, variance) = (next()?, next()?);
        let factor = reciprocal_root(&(variance + self.epsilon)?)?;
        let factor = gamma.map_or(Ok(factor.clone()), |gamma: Tensor| factor * gamma)?;
        let shift = (mean * &factor)?.neg()?;
        let shift = beta.map_or(Ok(shift.clone()), |beta: Tensor| beta + shift)?;
        Ok(vec![input.with_tensor(xs.broadcast_mul(&factor)?.broadcast_add(&shift)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
