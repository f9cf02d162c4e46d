//! `keras.layers.Normalization`: `(inputs − mean) / max(√variance, 1e-7)`, or the way back.
//!
//! Shapes: any; mean and variance have the axes that are kept. With mean 3 and variance 4, `[5, 1]` gives `[1, −1]`.
//!
//! Source: keras/src/layers/preprocessing/normalization.py.

use candle_core::{DType, Tensor};
use kandle_format::{Dtype, Problem, json::Value as Json};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::{constant, constant_like, storage},
};

use super::{computed, float_policy};

#[derive(Debug)]
pub(crate) struct Normalization {
    /// The axes that are kept; Keras's `None` is none of them.
    axes: Vec<i64>,
    invert: bool,
    /// Mean and variance, where they are settings and not weights.
    moments: Option<[Tensor; 2]>,
    passes_masks: bool,
}

impl KerasLayer for Normalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        float_policy(fields);
        let axes = match fields.holds("axis") {
            true => fields.integers("axis").unwrap_or_default(),
            false => vec![-1],
        };
        let invert = fields.flag("invert", false);
        let [mean, variance] = ["mean", "variance"].map(|key| {
            let value = fields.take(key)?;
            // Whole numbers are int32 in Keras, which float64 holds, all others float32.
            let dtype = if whole(value) { "float64" } else { "float32" };
            match constant(value, Some(dtype)) {
                Ok(value) => Some(value.tensor),
                Err(_) => {
                    fields.invalid(key, value, "a number or an array of them");
                    None
                }
            }
        });
        let moments = match (mean, variance) {
            (None, None) => None,
            (Some(mean), Some(variance)) if mean.dims() == variance.dims() && mean.rank() <= axes.len() => {
                Some([mean, variance])
            }
            _ => {
                fields
                    .wrong("mean and variance must both be given, of the same shape, with no more axes than are kept");
                None
            }
        };
        // Keras: before version 3 a mask ends here.
        Self { axes, invert, moments, passes_masks: fields.keras_major() >= 3 }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        if self.moments.is_some() {
            return Ok(Vec::new());
        }
        let input = given.input()?;
        let size = |axis: usize| input.shape.0.get(axis).copied().flatten();
        let shape: Option<Vec<usize>> = self.kept(input.shape.rank())?.into_iter().map(size).collect();
        let shape =
            shape.ok_or_else(|| format!("the axes {:?} of an input of {} are not known", self.axes, input.shape))?;
        Ok(vec![
            Weight::as_keras("mean", shape.clone()).not_trained().not_cast(),
            Weight::as_keras("variance", shape).not_trained().not_cast(),
            Weight::as_keras("count", Vec::new()).not_trained().of(Dtype::Int64),
        ])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        self.kept(input.shape.rank()).map_err(cannot)?;
        Ok(vec![Spec { dtype: given.policy().compute, ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = computed(call.input()?, call.given.policy())?;
        let xs = &input.tensor;
        let [mean, variance] = match &self.moments {
            Some(moments) => moments,
            None => &[call.weight(0)?.clone(), call.weight(1)?.clone()],
        };
        let kept = self.kept(xs.rank()).map_err(candle_core::Error::msg)?;
        // The axes of the mean are the last of those kept, in their order; all others are 1.
        let aligned = |moment: &Tensor| {
            let mut shape = vec![1; xs.rank()];
            for (axis, size) in kept.iter().rev().zip(moment.dims().iter().rev()) {
                if let Some(place) = shape.get_mut(*axis) {
                    *place = *size;
                }
            }
            moment.reshape(shape)?.to_dtype(storage(input.dtype)?)?.to_device(xs.device())
        };
        let (mean, deviation) = (aligned(mean)?, deviation_of(&aligned(variance)?)?);
        let ys = match self.invert {
            true => xs.broadcast_mul(&deviation)?.broadcast_add(&mean)?,
            false => xs.broadcast_sub(&mean)?.broadcast_div(&deviation)?,
        };
        Ok(vec![input.with_tensor(ys)])
    }

    fn masking(&self) -> Masking {
        if self.passes_masks { Masking::Passes } else { Masking::Drops }
    }

    fn casts_itself(&self) -> bool {
        true
    }

    /// Where all axes but the last share one mean: it is taken off first, as Keras does, since it may be large.
    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let kept = self.kept(lowered.rank()).map_err(candle_core::Error::msg)?;
        if self.invert || !lowered.is_called_on_one() || kept.iter().any(|axis| axis + 1 != lowered.rank()) {
            return Ok(None);
        }
        let [mean, variance] = match &self.moments {
            Some([mean, variance]) => [mean, variance].map(|moment| moment.to_dtype(DType::F32)?.flatten_all()),
            None => [lowered.weight(0)?, lowered.weight(1)?].map(Tensor::flatten_all),
        };
        let (mean, deviation) = (mean?, deviation_of(&variance?)?);
        Ok(Some(vec![
            Primitive::Affine { scale: None, shift: Some(mean.neg()?) },
            Primitive::Affine { scale: Some(deviation.recip()?), shift: None },
        ]))
    }
}

/// `max(√variance, 1e-7)`.
fn deviation_of(variance: &Tensor) -> candle_core::Result<Tensor> {
    let deviation = variance.sqrt()?;
    let least = constant_like(&deviation, 1e-7)?;
    deviation.lt(&least)?.where_cond(&least, &deviation)
}

impl Normalization {
    /// The axes that are kept, counted from the front, in order.
    fn kept(&self, rank: usize) -> Result<Vec<usize>, String> {
        let place = |axis: &i64| {
            let from_end = i64::try_from(rank).unwrap_or(i64::MAX);
            usize::try_from(if *axis < 0 { axis.saturating_add(from_end) } else { *axis })
                .ok()
                .filter(|axis| *axis < rank)
        };
        let kept: Option<Vec<usize>> = self.axes.iter().map(place).collect();
        let mut kept = kept.ok_or_else(|| format!("axes {:?}: the input has {rank}", self.axes))?;
        kept.sort_unstable();
        Ok(kept)
    }
}

fn whole(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().all(whole),
        value => value.is_i64(),
    }
}
