//! `keras.layers.Concatenate`: inputs one after the other along an axis.
//!
//! Shapes: inputs that differ only in `axis` (−1 unless given), of any dtype; result as they, with the sizes of `axis` added
//! up. `[[1, 2]]` and `[[3]]` give `[[1, 2, 3]]`.
//!
//! Source: keras/src/layers/merging/concatenate.py.

use candle_core::{D, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Masks,
    arithmetic::{either, promoted, result_type},
};
use crate::{Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value, layers::cannot};

#[derive(Debug)]
pub(crate) struct Concatenate {
    axis: i64,
    masks: Masks,
}

impl KerasLayer for Concatenate {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        // Keras 2 may write a list of one.
        let axis = match fields.integers("axis").as_deref() {
            None => -1,
            Some([axis]) => *axis,
            Some(axes) => {
                fields.wrong(format!("axis: expected one, found {}", axes.len()));
                -1
            }
        };
        Self { axis, masks: Masks::read(fields) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let Some((first, others)) = inputs.split_first() else { return Err(cannot("expected inputs, found none")) };
        let at = self.place(first.shape.rank()).map_err(cannot)?;
        let mut output = (*first).clone();
        let mut unknown = false;
        for other in others {
            let fits = |(number, (one, other)): (usize, (&Option<usize>, &Option<usize>))| {
                number == at || one.is_none() || other.is_none() || one == other
            };
            let axes = first.shape.0.iter().zip(&other.shape.0);
            if other.shape.rank() != first.shape.rank() || !axes.enumerate().all(fits) {
                let what = format!("inputs of {} and {} cannot be joined along axis {at}", first.shape, other.shape);
                return Err(cannot(what));
            }
            output.dtype = result_type(output.dtype, other.dtype)?;
            if let Some(size) = output.shape.0.get_mut(at) {
                let more = other.shape.0.get(at).copied().flatten();
                *size = size.zip(more).and_then(|(size, more)| size.checked_add(more));
                unknown |= size.is_none();
                if unknown {
                    *size = None;
                }
            }
        }
        if output.dtype == Dtype::String {
            return Err(cannot("strings cannot be joined"));
        }
        Ok(vec![output])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (inputs, policy) = (call.given.inputs(), call.given.policy());
        let Some(first) = inputs.first() else { bail!("expected inputs, found none") };
        let at = self.place(first.tensor.rank()).map_err(candle_core::Error::msg)?;
        let dtype = inputs.iter().try_fold(first.dtype, |dtype, input| result_type(dtype, input.dtype));
        let dtype = dtype.map_err(|problem| candle_core::Error::Msg(problem.what))?;
        let parts: Vec<Tensor> =
            inputs.iter().map(|input| promoted(input, dtype, policy)).collect::<candle_core::Result<_>>()?;
        Ok(vec![Value::new(joined(&parts, at)?, dtype)])
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }

    /// Each mask spread over its input, those that are missing all true, joined, and any of the last axis; all of it
    /// before Keras 3; from 3.0 to 3.3 there is none.
    fn compute_mask(&self, call: Call<'_>, previous: &[Option<&Tensor>]) -> candle_core::Result<Vec<Option<Tensor>>> {
        if self.masks == Masks::None || previous.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        let spread = |(input, mask): (&Value, &Option<&Tensor>)| {
            let none = Tensor::zeros(input.tensor.shape(), candle_core::DType::U8, input.tensor.device())?;
            match mask {
                None => none.ones_like(),
                Some(mask) if mask.rank() < none.rank() => either(&mask.unsqueeze(D::Minus1)?, &none),
                Some(mask) => Ok((*mask).clone()),
            }
        };
        let masks = call.given.inputs().into_iter().zip(previous).map(spread);
        let masks = masks.collect::<candle_core::Result<Vec<_>>>()?;
        let at = self.place(masks.first().map_or(0, Tensor::rank)).map_err(candle_core::Error::msg)?;
        let all = joined(&masks, at)?;
        Ok(vec![Some(if self.masks == Masks::All { all.min(D::Minus1)? } else { all.max(D::Minus1)? })])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let axis = self
            .place(lowered.given.inputs().first().map_or(0, |input| input.shape.rank()))
            .map_err(candle_core::Error::msg)?;
        Ok(Some(vec![Primitive::Join { axis }]))
    }
}

impl Concatenate {
    /// The axis of a tensor of `rank` axes.
    fn place(&self, rank: usize) -> Result<usize, String> {
        crate::layers::axis(self.axis, rank)
    }
}

fn joined(parts: &[Tensor], axis: usize) -> candle_core::Result<Tensor> {
    let parts = parts.iter().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>()?;
    Tensor::cat(&parts, axis)
}
