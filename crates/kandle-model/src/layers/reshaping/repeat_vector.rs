//! `keras.layers.RepeatVector`: the same vector at each of `n` steps.
//!
//! Shapes: xs `(batch, features)` of any dtype, result `(batch, n, features)`. With `n = 2`, `[[1, 2]]` gives
//! `[[[1, 2], [1, 2]]]`.
//!
//! Source: keras/src/layers/reshaping/repeat_vector.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, one, spatial::repeat},
};

#[derive(Debug)]
pub(crate) struct RepeatVector {
    n: usize,
}

impl KerasLayer for RepeatVector {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { n: fields.size("n") }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        match input.shape.0.as_slice() {
            [batch, features] => Ok(vec![input.with_shape(Shape(vec![*batch, Some(self.n), *features]))]),
            _ => Err(cannot(format!("expected an input of rank 2, found {}", input.shape))),
        }
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        Ok(vec![input.with_tensor(repeat(&input.tensor.unsqueeze(1)?, 1, self.n)?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Reshape(vec![Some(1), None]), Primitive::Repeat(vec![self.n, 1])]))
    }
}
