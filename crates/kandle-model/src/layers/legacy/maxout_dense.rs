//! `MaxoutDense` of Keras 1: the largest of several products, `max over k of xs · W[k] + b[k]`.
//!
//! Shapes: xs `(batch, features)`, W `(nb_feature, features, units)`, b `(nb_feature, units)`; result `(batch, units)`. With two
//! kernels of `[1]` and `[−1]` and no bias, `[3]` gives `[3]` and `[−3]` too.
//!
//! Source: keras/layers/core.py of Keras 1.2 (`MaxoutDense`).

use kandle_format::Problem;

use super::only_in_old_files;
use crate::{Call, Fields, Given, KerasLayer, Shape, Spec, Value, Weight, layers::one_float};

#[derive(Debug)]
pub(super) struct MaxoutDense {
    units: usize,
    pieces: usize,
    use_bias: bool,
}

impl KerasLayer for MaxoutDense {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        let pieces = fields.optional_size("nb_feature").unwrap_or(4);
        Self { units: fields.size("units"), pieces, use_bias: fields.flag("use_bias", true) }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = vec![Weight::as_keras("W", vec![self.pieces, given.features()?, self.units])];
        if self.use_bias {
            weights.push(Weight::as_keras("b", vec![self.pieces, self.units]));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        let batch = input.shape.0.first().copied().flatten();
        Ok(vec![input.with_shape(Shape(vec![batch, Some(self.units)]))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let mut products = input.tensor.unsqueeze(0)?.broadcast_matmul(call.weight(0)?)?;
        if self.use_bias {
            products = products.broadcast_add(&call.weight(1)?.unsqueeze(1)?)?;
        }
        Ok(vec![input.with_tensor(products.max(0)?)])
    }
}
