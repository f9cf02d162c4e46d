//! `keras.layers.LeakyReLU`: `x` where positive, else `negative_slope · x`.
//!
//! Shapes: xs of any shape, floats or integers; the result has the same shape, floats. With the layer's default slope of 0.3, `[-1, 2]` gives
//! `[-0.3, 2]`. Keras: the activation named `leaky_relu` has a slope of 0.2.
//!
//! Source: keras/src/layers/activations/leaky_relu.py.

use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value,
    activation::leaky_relu,
    layers::{one, one_float},
    numeric::cast,
    primitive::Curve,
};

#[derive(Debug)]
pub(crate) struct LeakyRelu {
    negative_slope: f64,
}

/// Refuses a slope above 1 where the file does not tell what it does.
///
/// Keras: before TensorFlow 1.15 it is the larger of `x` and `slope · x`, whatever the sign of `x`.
pub(super) fn refuse_steep(fields: &mut Fields<'_>, slope: f64) {
    if slope > 1.0 && fields.keras_major() == 2 && !fields.is_from([2, 4, 0]) {
        fields.refuse(format!(
            "a slope of {slope}, above 1, is not supported in a file of Keras before 2.4: versions of TensorFlow differ"
        ));
    }
}

impl KerasLayer for LeakyRelu {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let negative_slope = fields.not_negative("negative_slope", 0.3);
        refuse_steep(fields, negative_slope);
        Self { negative_slope }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if !input.dtype.is_integer() {
            return Ok(vec![one_float(given)?.clone()]);
        }
        Ok(vec![Spec { dtype: Dtype::Float32, ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        // Keras: integers become float32, whatever the policy.
        let input = if input.dtype.is_integer() { &cast(input, Dtype::Float32)? } else { input };
        Ok(vec![input.with_tensor(leaky_relu(&input.tensor, self.negative_slope)?)])
    }

    fn keeps_float32(&self, inputs: &[Dtype]) -> bool {
        inputs.first().is_some_and(|dtype| dtype.is_integer())
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Map(Curve::LeakyRelu { slope: self.negative_slope as f32 })]))
    }
}
