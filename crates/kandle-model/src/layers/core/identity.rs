//! `keras.layers.Identity`: what goes in comes out. Any shape and dtype, and any number of inputs.
//!
//! Source: keras/src/layers/core/identity.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Masking, Spec, Value};

#[derive(Debug)]
pub(crate) struct Identity;

impl KerasLayer for Identity {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(given.inputs().into_iter().cloned().collect())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(call.given.inputs().into_iter().cloned().collect())
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        true
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
