//! `keras.layers.Dense`: `activation(xs · kernel + bias)`, the product over the last axis at any rank.
//!
//! Shapes: xs `(batch, …, features)`, kernel `(features, units)`, bias `(units,)`, result `(batch, …, units)`; floats.
//! Integers are accepted and count as floats. With kernel `[[1], [2]]`, bias `[10]` and relu, `[3, -1]` gives
//! `relu(3·1 − 1·2 + 10) = 11`.
//!
//! Source: keras/src/layers/core/dense.py.

use kandle_format::Problem;

use crate::{
    Activation, Call, Fields, Given, KerasLayer, Layout, Masking, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::cast,
};

#[derive(Debug)]
pub(crate) struct Dense {
    units: usize,
    use_bias: bool,
    activation: Activation,
}

impl KerasLayer for Dense {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
            // Keras: LoRA weights are merged into the kernel when the model is saved.
            "lora_rank",
            "lora_alpha",
        ]);
        fields.only_null("quantization_config");
        Self {
            units: fields.size("units"),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation("activation"),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let features = given.features()?;
        let mut weights = vec![Weight::new("kernel", vec![features, self.units], "weight", Layout::Transposed)];
        if self.use_bias {
            weights.push(Weight::new("bias", vec![self.units], "bias", Layout::AsIs));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.shape.rank() < 2 {
            return Err(cannot(format!("expected an input of rank 2 or more, found {}", input.shape)));
        }
        let product =
            Spec { shape: input.shape.clone().with_last(Some(self.units)), dtype: given.policy().arithmetic() };
        Ok(vec![self.activation.output(&product)?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = cast(call.input()?, call.given.policy().arithmetic())?;
        let (xs, kernel) = (&input.tensor, call.weight(0)?);
        let Some((features, outer)) = xs.dims().split_last() else { candle_core::bail!("a scalar has no last axis") };
        if *features != kernel.dim(1)? {
            candle_core::bail!("input has {features} features, kernel expects {}", kernel.dim(1)?)
        }
        let rows = outer.iter().product::<usize>();
        let mut ys = xs.reshape((rows, *features))?.matmul(&kernel.t()?)?;
        if self.use_bias {
            ys = ys.broadcast_add(call.weight(1)?)?;
        }
        let ys = self.activation.apply(&input.with_tensor(ys))?.tensor;
        let shape: Vec<usize> = outer.iter().copied().chain([ys.dim(1)?]).collect();
        Ok(vec![input.with_tensor(ys.reshape(shape)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
