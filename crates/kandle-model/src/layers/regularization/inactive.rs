//! `keras.layers.Dropout`, `AlphaDropout`, `GaussianDropout`, `GaussianNoise` and `ActivityRegularization`: what goes in comes
//! out, with its mask, at inference. Any shape and dtype.
//!
//! Source: keras/src/layers/regularization/dropout.py, alpha_dropout.py, gaussian_dropout.py, gaussian_noise.py and
//! activity_regularization.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value, layers::one};

#[derive(Debug)]
pub(super) struct Inactive;

impl KerasLayer for Inactive {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["rate", "stddev", "seed", "noise_shape", "l1", "l2", "activity_regularizer"]);
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one(given)?.clone()])
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
