//! ConvNeXt's `StochasticDepth`: what goes in comes out, with its mask, at inference. Any shape and dtype.
//!
//! Source: keras/src/applications/convnext.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Masking, Spec, Value, layers::one};

#[derive(Debug)]
pub(crate) struct StochasticDepth;

impl KerasLayer for StochasticDepth {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["drop_path_rate", "activity_regularizer"]);
        Self
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![call.input()?.clone()])
    }

    /// Keras: warns that the layer destroys masks, and hands on the very tensor that came in, which has its mask.
    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
