//! `keras.layers.Dropout`: nothing, at inference. Any shape and dtype.
//!
//! Source: keras/src/layers/regularization/dropout.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Masking, Spec, Value, layers::one};

#[derive(Debug)]
pub(crate) struct Dropout;

impl KerasLayer for Dropout {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["rate", "seed", "noise_shape", "activity_regularizer"]);
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![call.input()?.clone()])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
