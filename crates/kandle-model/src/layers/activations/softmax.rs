//! `keras.layers.Softmax`: `eˣ / Σ eˣ` along one axis, or over several together.
//!
//! Shapes: xs of any shape, floats; a mask that broadcasts to it; the result has the same shape. `[0, ln 3]` gives
//! `[0.25, 0.75]`. What is masked counts as −1e9 (−3e4 in float16), and comes out as 0; before Keras 3.10, 1e9 is subtracted.
//!
//! Keras: before TensorFlow 2.4 the layer takes no mask. 2.3 names the same version, so that a mask is refused there.
//!
//! Source: keras/src/layers/activations/softmax.py.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Policy, Primitive, Spec, Value, activation,
    layers::{axes, cannot, one_float},
    numeric::{constant_like, rounded, wide},
};

#[derive(Debug)]
pub(crate) struct Softmax {
    axes: Vec<i64>,
    masked: Masked,
    masks: Masks,
}

/// What the layer makes of a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masks {
    Taken,
    Ignored,
    /// The version does not tell.
    Open,
}

impl KerasLayer for Softmax {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let masks = match fields.is_from([2, 4, 0]) {
            false => Masks::Ignored,
            true if fields.is_from([2, 5, 0]) => Masks::Taken,
            true => Masks::Open,
        };
        Self { axes: fields.integers("axis").unwrap_or_else(|| vec![-1]), masked: Masked::of(fields), masks }
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
        let mask = call.given.mask().filter(|_| self.masks != Masks::Ignored).map(truth).transpose()?;
        if mask.is_some() && self.masks == Masks::Open {
            bail!("a mask, which TensorFlow 2.3 ignores and 2.4 takes: the file does not say which of them wrote it")
        }
        let mask = mask.as_ref().map(|mask| (mask, self.masked));
        Ok(vec![input.with_tensor(softmax(&input.tensor, &axes, mask, call.given.policy())?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let last = [i64::try_from(lowered.rank())? - 1, -1];
        Ok(matches!(self.axes.as_slice(), [axis] if last.contains(axis)).then(|| vec![Primitive::Softmax]))
    }
}

/// What becomes of masked numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masked {
    /// They are replaced by a number far below all others, and come out as 0.
    Replaced,
    /// Before Keras 3.10: such a number is added to them, so that where all are masked they compare as they did.
    Lowered,
}

impl Masked {
    /// How the Keras that wrote the settings does it.
    pub(crate) fn of(fields: &Fields<'_>) -> Self {
        if fields.is_from([3, 10, 0]) { Self::Replaced } else { Self::Lowered }
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
    mask: Option<(&Tensor, Masked)>,
    policy: &Policy,
) -> candle_core::Result<Tensor> {
    let how = mask.map_or(Masked::Replaced, |(_, how)| how);
    let mask = match mask {
        None => None,
        Some((mask, _)) => {
            let fits = |(mask, size): (&usize, &usize)| *mask == 1 || mask == size;
            let pairs = mask.dims().iter().rev().zip(xs.dims().iter().rev());
            if mask.rank() > xs.rank() || !pairs.clone().all(fits) {
                bail!("a mask of {:?} does not fit numbers of {:?}", mask.dims(), xs.dims())
            }
            Some(mask.broadcast_as(xs.shape())?.contiguous()?)
        }
    };
    let least = match (policy.compute, how) {
        (Dtype::Float16, Masked::Replaced) => -3e4,
        (Dtype::Float16, Masked::Lowered) => f64::from(half::f16::MIN),
        _ => -1e9,
    };
    let xs = match &mask {
        Some(mask) => {
            let far = constant_like(xs, least)?;
            let masked = if how == Masked::Lowered { rounded(&(xs + far)?, policy)? } else { far };
            mask.where_cond(xs, &masked)?
        }
        None => xs.clone(),
    };
    let ys = match axes {
        [axis] => rounded(&wide(&xs, |xs| activation::softmax(xs, *axis))?, policy)?,
        axes => over_several(&xs, axes, policy)?,
    };
    match &mask {
        Some(mask) if how == Masked::Replaced => mask.where_cond(&ys, &ys.zeros_like()?),
        _ => Ok(ys),
    }
}

/// `exp(x − logsumexp(x))`, as Keras computes it step by step.
fn over_several(xs: &Tensor, axes: &[usize], policy: &Policy) -> candle_core::Result<Tensor> {
    let exp = |xs: &Tensor| rounded(&wide(xs, Tensor::exp)?, policy);
    let largest = axes.iter().try_fold(xs.clone(), |xs, axis| xs.max_keepdim(*axis))?.detach();
    // The shift is a finite one where all is infinite.
    let shift = largest.abs()?.lt(f64::INFINITY)?.where_cond(&largest, &largest.zeros_like()?)?;
    let sum = |xs: &Tensor| axes.iter().try_fold(xs.clone(), |xs, axis| xs.sum_keepdim(*axis));
    if matches!(policy.compute, Dtype::Float16 | Dtype::Bfloat16) {
        let powers = exp(&rounded(&xs.broadcast_sub(&shift)?, policy)?)?;
        let logarithm = rounded(&wide(&rounded(&sum(&powers)?, policy)?, Tensor::log)?, policy)?;
        let all = rounded(&(logarithm + shift)?, policy)?;
        return exp(&rounded(&xs.broadcast_sub(&all)?, policy)?);
    }
    wide(xs, |xs| {
        let powers = xs.broadcast_sub(&shift.to_dtype(xs.dtype())?)?.exp()?;
        powers.broadcast_div(&sum(&powers)?)
    })
}
