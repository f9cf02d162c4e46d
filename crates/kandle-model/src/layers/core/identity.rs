//! `keras.layers.Identity`: what goes in comes out. Any shape and dtype, and any number of inputs.
//!
//! Keras: before version 3 a mask ends here.
//!
//! Source: keras/src/layers/core/identity.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value};

#[derive(Debug)]
pub(crate) struct Identity {
    passes_masks: bool,
}

impl KerasLayer for Identity {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { passes_masks: fields.keras_major() >= 3 }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(given.inputs().into_iter().cloned().collect())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let inputs = call.given.inputs().into_iter().cloned();
        Ok(inputs.map(|input| if self.passes_masks { input } else { input.with_mask(None) }).collect())
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        self.passes_masks
    }

    fn masking(&self) -> Masking {
        if self.passes_masks { Masking::Passes } else { Masking::Drops }
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Identity]))
    }
}
