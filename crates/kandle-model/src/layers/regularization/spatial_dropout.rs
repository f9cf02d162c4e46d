//! `keras.layers.SpatialDropout1D`, `SpatialDropout2D` and `SpatialDropout3D`: nothing, at inference.
//!
//! Shapes: xs `(batch, …, channels)` with `RANK` axes between (or `(batch, channels, …)`, it makes no difference), any dtype.
//!
//! Source: keras/src/layers/regularization/spatial_dropout.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value,
    layers::{cannot, one},
};

#[derive(Debug)]
pub(crate) struct SpatialDropout<const RANK: usize>;

impl<const RANK: usize> KerasLayer for SpatialDropout<RANK> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["rate", "seed", "noise_shape", "activity_regularizer"]);
        if RANK > 1 {
            // Which axes the noise is shared along.
            fields.channels_first();
        }
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.shape.rank() != RANK + 2 {
            return Err(cannot(format!("expected an input of rank {}, found {}", RANK + 2, input.shape)));
        }
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![call.input()?.clone()])
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        true
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Identity]))
    }
}
