//! `keras.layers.Flatten`: every axis but the batch axis in one.
//!
//! Shapes: xs `(batch, …)` of any dtype, result `(batch, features)`; `(batch,)` becomes `(batch, 1)`. With
//! `channels_first`, the channels `(batch, channels, …)` go to the end first, so `[[[1, 2], [3, 4]]]` gives
//! `[[1, 3, 2, 4]]`.
//!
//! Source: keras/src/layers/reshaping/flatten.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, one},
};

#[derive(Debug)]
pub(crate) struct Flatten {
    channels_first: bool,
}

impl KerasLayer for Flatten {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let choices = [("channels_last", false), ("channels_first", true)];
        Self { channels_first: fields.choice("data_format", &choices).unwrap_or(false) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let Some(batch) = input.shape.0.first() else { return Err(cannot("a scalar cannot be flattened".to_owned())) };
        Ok(vec![input.with_shape(Shape(vec![*batch, input.shape.features()]))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let mut xs = input.tensor.clone();
        let (batch, rank) = (xs.dim(0)?, xs.rank());
        if self.channels_first && rank > 1 {
            let axes: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
            xs = xs.permute(axes)?;
        }
        let features = xs.dims().iter().skip(1).product::<usize>();
        Ok(vec![input.with_tensor(xs.reshape((batch, features))?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok((!self.channels_first).then(|| vec![Primitive::Reshape(vec![None])]))
    }
}
