//! `keras.layers.Softmax`: `eˣ / Σ eˣ` along one axis, or over several together.
//!
//! Shapes: xs of any shape, floats; a mask that broadcasts to it; the result has the same shape. `[0, ln 3]` gives
//! `[0.25, 0.75]`. What is masked counts as −1e9 (−3e4 in float16), and comes out as 0.
//!
//! Source: keras/src/layers/activations/softmax.py.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Masking, Policy, Spec, Value,
    layers::{axes, cannot, one_float},
    numeric::{constant_like, rounded, wide},
};

#[derive(Debug)]
pub(crate) struct Softmax {
    axes: Vec<i64>,
}

impl KerasLayer for Softmax {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { axes: fields.integers("axis").unwrap_or_else(|| vec![-1]) }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["inputs", "mask"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        axes(&self.axes, input.shape.rank()).map_err(cannot)?;
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.given.tensor("inputs").ok_or_else(|| candle_core::Error::msg("expected one input"))?;
        let axes = axes(&self.axes, input.tensor.rank()).map_err(candle_core::Error::msg)?;
        let mask = call.given.mask().map(truth).transpose()?;
        Ok(vec![input.with_tensor(softmax(&input.tensor, &axes, mask.as_ref(), call.given.policy())?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}

/// A mask given as numbers holds where they are above one half.
fn truth(mask: &Tensor) -> candle_core::Result<Tensor> {
    if mask.dtype().is_float() { mask.gt(0.5) } else { mask.ne(&mask.zeros_like()?) }
}

/// The softmax over `axes` together, as the layer computes it with a `mask` of 0 and 1.
pub(crate) fn softmax(
    xs: &Tensor,
    axes: &[usize],
    mask: Option<&Tensor>,
    policy: &Policy,
) -> candle_core::Result<Tensor> {
    let mask = match mask {
        None => None,
        Some(mask) => {
            let fits = |(mask, size): (&usize, &usize)| *mask == 1 || mask == size;
            let pairs = mask.dims().iter().rev().zip(xs.dims().iter().rev());
            if mask.rank() > xs.rank() || !pairs.clone().all(fits) {
                bail!("a mask of {:?} does not fit numbers of {:?}", mask.dims(), xs.dims())
            }
            Some(mask.broadcast_as(xs.shape())?.contiguous()?)
        }
    };
    let least = if policy.compute == Dtype::Float16 { -3e4 } else { -1e9 };
    let xs = match &mask {
        Some(mask) => mask.where_cond(xs, &constant_like(xs, least)?)?,
        None => xs.clone(),
    };
    let ys = wide(&xs, |xs| {
        let largest = axes.iter().try_fold(xs.clone(), |xs, axis| xs.max_keepdim(*axis))?.detach();
        // The logsumexp of several axes has a finite shift where all are infinite, the softmax of one axis NaN.
        let shift = if axes.len() > 1 {
            let finite = largest.abs()?.lt(f64::INFINITY)?;
            finite.where_cond(&largest, &largest.zeros_like()?)?
        } else {
            largest
        };
        let powers = xs.broadcast_sub(&shift)?.exp()?;
        let sum = axes.iter().try_fold(powers.clone(), |powers, axis| powers.sum_keepdim(*axis))?;
        powers.broadcast_div(&sum)
    })?;
    let ys = rounded(&ys, policy)?;
    match &mask {
        Some(mask) => mask.where_cond(&ys, &ys.zeros_like()?),
        None => Ok(ys),
    }
}
