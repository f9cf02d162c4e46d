//! `Highway` of Keras 1: `t · activation(xs · W + b) + (1 − t) · xs`, where `t = sigmoid(xs · W_carry + b_carry)`.
//!
//! Shapes: xs `(batch, features)`; W and W_carry `(features, features)`, b and b_carry `(features,)`; the result has the shape
//! of xs. With weights of 0, `t` is 0.5, and linear `[2]` gives `[1]`.
//!
//! Source: keras/layers/core.py of Keras 1.2 (`Highway`).

use candle_core::Tensor;
use kandle_format::Problem;

use super::only_in_old_files;
use crate::{Activation, Call, Fields, Function, Given, KerasLayer, Masking, Spec, Value, Weight, layers::one_float};

#[derive(Debug)]
pub(super) struct Highway {
    use_bias: bool,
    activation: Activation,
}

impl KerasLayer for Highway {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        Self { use_bias: fields.flag("use_bias", true), activation: fields.activation("activation") }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let features = given.features()?;
        let kernels = ["W", "W_carry"].map(|name| Weight::as_keras(name, vec![features, features]));
        let biases = ["b", "b_carry"].map(|name| Weight::as_keras(name, vec![features]));
        Ok(kernels.into_iter().chain(biases.into_iter().filter(|_| self.use_bias)).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![self.activation.output(one_float(given)?)?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let xs = &input.tensor;
        let product = |kernel: usize| -> candle_core::Result<Tensor> {
            let ys = xs.matmul(call.weight(kernel)?)?;
            if self.use_bias { ys.broadcast_add(call.weight(2 + kernel)?) } else { Ok(ys) }
        };
        let open = Function::Sigmoid.apply(&product(1)?)?;
        let made = self.activation.apply(&input.with_tensor(product(0)?), call.given.policy())?.tensor;
        let carried = ((1.0 - &open)? * xs)?;
        Ok(vec![input.with_tensor(((made * open)? + carried)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
