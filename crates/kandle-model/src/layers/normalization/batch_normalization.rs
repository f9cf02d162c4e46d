//! `keras.layers.BatchNormalization`: `gamma · (x − mean) / √(variance + epsilon) + beta` with the statistics of training.
//!
//! Shapes: xs with `channels` along `axis`, all weights `(channels,)`; the result has the shape of xs. With mean 1, variance
//! 3.999, epsilon 0.001, gamma 2 and beta 10, `x = 5` gives `2 · (5 − 1) / 2 + 10 = 14`. Computed in float32 at least.
//!
//! Keras: version 2 takes several axes too, and its weights then have all axes of xs, of size 1 where they aren't named.
//!
//! Source: keras/src/layers/normalization/batch_normalization.py.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::reciprocal_root;
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Spec, Value, Weight,
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
    least_epsilon: Option<LeastEpsilon>,
}

/// Where epsilon is raised to [`LEAST_EPSILON`].
///
/// Keras: TensorFlow's fused normalization did so up to 2.11, for the sake of cuDNN. What is fused depends on the version.
///
/// Source: tensorflow/python/ops/nn_impl.py (`fused_batch_norm`), tf_keras/src/layers/normalization/batch_normalization.py
/// (`_fused_can_be_used`), keras/backend/tensorflow_backend.py of Keras 2.2 (`batch_normalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeastEpsilon {
    /// In images whose channels come last: elsewhere only GPUs knew it.
    ChannelsLast,
    /// In images.
    Images,
    /// In images and volumes.
    ImagesAndVolumes,
}

const LEAST_EPSILON: f64 = 1.001e-5;

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
        ]);
        // Keras 2: another way to compute the same, but for epsilon. Only SyncBatchNormalization says that it is none.
        let fused = fields.flag("fused", true);
        fields.only_null("virtual_batch_size");
        fields.only_null("adjustment");
        // Keras 2 writes a list.
        let axes = fields.integers("axis").unwrap_or_else(|| vec![-1]);
        if axes.is_empty() || (axes.len() > 1 && fields.keras_major() >= 3) {
            fields.wrong(format!("axis: expected one, found {}", axes.len()));
        }
        let least_epsilon = match fields.is_older_than_tensorflows() {
            _ if !fused => None,
            true if fields.is_from([2, 2, 0]) => Some(LeastEpsilon::ChannelsLast),
            true => None,
            false if fields.is_from([2, 12, 0]) => None,
            false if fields.is_from([2, 6, 0]) => Some(LeastEpsilon::ImagesAndVolumes),
            false => Some(LeastEpsilon::Images),
        };
        Self {
            axes,
            least_epsilon,
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
        let epsilon = self.epsilon_for(&places, xs.rank(), call.given.policy().compute);
        let factor = reciprocal_root(&(variance + epsilon)?)?;
        let factor = gamma.map_or(Ok(factor.clone()), |gamma: Tensor| factor * gamma)?;
        let shift = (mean * &factor)?.neg()?;
        let shift = beta.map_or(Ok(shift.clone()), |beta: Tensor| beta + shift)?;
        Ok(vec![input.with_tensor(xs.broadcast_mul(&factor)?.broadcast_add(&shift)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let places = axes(&self.axes, lowered.rank()).map_err(candle_core::Error::msg)?;
        if places.as_slice() != [lowered.rank().saturating_sub(1)] {
            return Ok(None);
        }
        let mut weights = lowered.weights.iter();
        let gamma = if self.scale { weights.next() } else { None };
        let beta = if self.center { weights.next() } else { None };
        let (Some(mean), Some(variance)) = (weights.next(), weights.next()) else { bail!("a weight was not given") };
        let epsilon = self.epsilon_for(&places, lowered.rank(), Dtype::Float32);
        let factor = reciprocal_root(&(variance + epsilon)?)?;
        let factor = gamma.map_or(Ok(factor.clone()), |gamma| &factor * gamma)?;
        let shift = (mean * &factor)?.neg()?;
        let shift = beta.map_or(Ok(shift.clone()), |beta| beta + &shift)?;
        Ok(Some(vec![Primitive::Affine { scale: Some(factor), shift: Some(shift) }]))
    }
}

impl BatchNormalization {
    fn epsilon_for(&self, places: &[usize], rank: usize, compute: Dtype) -> f64 {
        let Some(least) = self.least_epsilon.filter(|_| !self.renorm && compute != Dtype::Float64) else {
            return self.epsilon;
        };
        let raised = match (rank, places) {
            (4, [3]) => true,
            (4, [1]) => least != LeastEpsilon::ChannelsLast,
            (5, [1 | 4]) => least == LeastEpsilon::ImagesAndVolumes,
            _ => false,
        };
        if raised { self.epsilon.max(LEAST_EPSILON) } else { self.epsilon }
    }
}
