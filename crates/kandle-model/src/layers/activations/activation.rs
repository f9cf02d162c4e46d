//! `keras.layers.Activation`: an activation function by name, or another activation layer.
//!
//! Shapes: xs of any shape, floats, for some functions integers; the result has the same shape (`glu` halves the last
//! axis). `Activation("relu")` of `[-1, 2]` is `[0, 2]`.
//!
//! Source: keras/src/layers/activations/activation.py.

use kandle_format::{Dtype, Problem};

use crate::{
    Activation, Call, Fields, Function, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value, layers::one,
};

#[derive(Debug)]
pub(crate) struct ActivationLayer(Activation);

impl KerasLayer for ActivationLayer {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self(fields.activation("activation"))
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![self.0.output(one(given)?)?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![self.0.apply(call.input()?, call.given.policy())?])
    }

    fn keeps_float32(&self, inputs: &[Dtype]) -> bool {
        // Keras: what makes floats of integers makes them float32.
        self.0.keeps_float32() || inputs.first().is_some_and(|dtype| !dtype.is_float())
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        matches!(self.0, Activation::Function(Function::Linear))
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        self.0.after(vec![Primitive::Identity], lowered)
    }
}
