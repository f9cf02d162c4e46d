//! `keras.layers.GaussianNoise`, `GaussianDropout`, `AlphaDropout` and `ActivityRegularization`: nothing, at inference. Any
//! shape and dtype.
//!
//! Source: keras/src/layers/regularization/gaussian_noise.py, gaussian_dropout.py, alpha_dropout.py and
//! activity_regularization.py.

use kandle_format::Problem;

use crate::{Call, Fields, Given, KerasLayer, Masking, Spec, Value, layers::one};

#[derive(Debug)]
pub(crate) struct Noise;

impl KerasLayer for Noise {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["stddev", "rate", "seed", "noise_shape", "activity_regularizer"]);
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

#[derive(Debug)]
pub(crate) struct ActivityRegularization;

impl KerasLayer for ActivityRegularization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["l1", "l2", "activity_regularizer"]);
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
