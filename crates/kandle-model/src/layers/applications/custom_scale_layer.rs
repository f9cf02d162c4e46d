//! InceptionResNetV2's `CustomScaleLayer`: `xs + residual · scale`.
//!
//! Shapes: xs and residual of one shape `(batch, …)`, floats; so is the result. With scale 0.5, `[1]` and `[4]` give `[3]`. A
//! mask ends here.
//!
//! Source: keras/src/applications/inception_resnet_v2.py.

use candle_core::{Tensor, bail};
use kandle_format::{ErrorKind, Problem};

use crate::{Call, Fields, Given, KerasLayer, Shape, Spec, Value, layers::cannot, numeric::rounded};

#[derive(Debug)]
pub(crate) struct CustomScaleLayer {
    scale: f64,
}

impl KerasLayer for CustomScaleLayer {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        if !fields.holds("scale") {
            fields.wrong("scale is missing");
        }
        Self { scale: fields.number("scale", 1.0) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let [xs, residual] = inputs.as_slice() else {
            return Err(cannot(format!("expected 2 inputs, found {}", inputs.len())));
        };
        let (a, b) = (&xs.shape.0, &residual.shape.0);
        let same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_none() || b.is_none() || a == b);
        if !same || !xs.dtype.is_float() || !residual.dtype.is_float() {
            let found = format!("{} {} and {} {}", xs.shape, xs.dtype, residual.shape, residual.dtype);
            let what = format!("inputs of {found} are not supported (only floats of one shape)");
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        let axes = a.iter().zip(b).map(|(a, b)| a.or(*b)).collect();
        Ok(vec![Spec { shape: Shape(axes), ..(*xs).clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (inputs, policy) = (call.given.inputs(), call.given.policy());
        let [xs, residual] = inputs.as_slice() else { bail!("expected 2 inputs, found {}", inputs.len()) };
        let scale = Tensor::full(self.scale, (), residual.tensor.device())?.to_dtype(residual.tensor.dtype())?;
        let scaled = rounded(&residual.tensor.broadcast_mul(&rounded(&scale, policy)?)?, policy)?;
        Ok(vec![xs.with_tensor((&xs.tensor + scaled)?)])
    }
}
