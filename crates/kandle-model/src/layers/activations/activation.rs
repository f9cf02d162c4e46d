//! `keras.layers.Activation`: an activation function by name, or another activation layer.
//!
//! Shapes: xs of any shape, float32; the result has the same shape (`glu` halves the last axis). `Activation("relu")` of
//! `[-1, 2]` is `[0, 2]`.
//!
//! Source: keras/src/layers/activations/activation.py.

use kandle_format::Problem;

use crate::{Activation, Call, Fields, Function, Given, KerasLayer, Masking, Spec, Value, layers::one_float};

#[derive(Debug)]
pub(crate) struct ActivationLayer(Activation);

impl KerasLayer for ActivationLayer {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self(fields.activation("activation"))
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![self.0.output(one_float(given)?)?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![self.0.apply(call.input()?)?])
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        matches!(self.0, Activation::Function(Function::Linear))
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
