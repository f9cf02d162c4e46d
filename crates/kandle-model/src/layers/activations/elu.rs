//! `keras.layers.ELU`: `x` where positive, else `alpha · (eˣ − 1)`.
//!
//! Shapes: xs of any shape, floats; the result has the same shape. With `alpha = 1`, `[-1, 2]` gives `[-0.6321, 2]`.
//!
//! Source: keras/src/layers/activations/elu.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Function, Given, KerasLayer, Lowered, Masking, Primitive, Spec, Value,
    layers::one_float,
    numeric::{rounded, times, wide},
    primitive::Curve,
};

#[derive(Debug)]
pub(crate) struct Elu {
    alpha: f64,
}

impl KerasLayer for Elu {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        // Keras: alpha is written only where it was given.
        Self { alpha: fields.number("alpha", 1.0) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one_float(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let xs = &input.tensor;
        let ys = wide(xs, |xs| {
            let ys = Function::Elu.apply(xs)?;
            if self.alpha == 1.0 { Ok(ys) } else { xs.gt(0.0)?.where_cond(&ys, &times(&ys, self.alpha)?) }
        })?;
        Ok(vec![input.with_tensor(rounded(&ys, call.given.policy())?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Map(Curve::Elu { alpha: self.alpha as f32 })]))
    }
}
