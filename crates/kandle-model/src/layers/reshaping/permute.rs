//! `keras.layers.Permute`: the axes behind the batch axis in another order.
//!
//! Shapes: xs `(batch, …)` of any dtype; axis `i` of the result is axis `dims[i − 1]` of xs, where the axes behind the batch
//! axis count from 1. With `dims = (2, 1)`, `[[[1, 2, 3]]]` gives `[[[1], [2], [3]]]`.
//!
//! Source: keras/src/layers/reshaping/permute.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, one},
};

#[derive(Debug)]
pub(crate) struct Permute {
    dims: Vec<usize>,
}

impl KerasLayer for Permute {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let dims: Vec<usize> = fields.axes("dims", false).into_iter().flatten().collect();
        let mut sorted = dims.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(1..=dims.len()) {
            fields.wrong(format!("dims: expected each of 1 to {} once, found {dims:?}", dims.len()));
        }
        Self { dims }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let Shape(axes) = &input.shape;
        if axes.len() != self.dims.len() + 1 {
            return Err(cannot(format!("expected an input of rank {}, found {}", self.dims.len() + 1, input.shape)));
        }
        let axes = std::iter::once(&0).chain(&self.dims).map(|axis| axes.get(*axis).copied().flatten()).collect();
        Ok(vec![input.with_shape(Shape(axes))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let axes: Vec<usize> = std::iter::once(0).chain(self.dims.iter().copied()).collect();
        Ok(vec![input.with_tensor(input.tensor.permute(axes)?.contiguous()?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Permute(std::iter::once(0).chain(self.dims.iter().copied()).collect())]))
    }
}
