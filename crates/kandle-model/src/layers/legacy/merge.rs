//! `Merge` of Keras 1 with the mode `cos`: the cosine of two vectors. The other modes are layers of their own today.
//!
//! Shapes: two inputs `(batch, features)`; result `(batch, 1, 1)`. `[3, 4]` and `[4, 3]` give `24 / 25 = 0.96`. Keras: products
//! below 1e-7 are divided by 1e-7 instead.
//!
//! Source: keras/engine/topology.py of Keras 1.2 (`Merge`).

use candle_core::{D, bail};
use kandle_format::Problem;

use super::only_in_old_files;
use crate::{Call, Fields, Given, KerasLayer, Shape, Spec, Value, layers::cannot, numeric::constant_like};

/// Keras's epsilon.
const EPSILON: f64 = 1e-7;

#[derive(Debug)]
pub(super) struct Cosine;

impl KerasLayer for Cosine {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        fields.only("mode", &"cos".into());
        if fields.integers("axes").is_none_or(|axes| axes.iter().any(|axis| !matches!(axis, 1 | -1))) {
            fields.refuse("mode = cos is supported along the last axis of vectors only (dot_axes of 1)");
        }
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        match given.inputs().as_slice() {
            [a, b] if a.shape.rank() == 2 && b.shape.rank() == 2 && a.dtype == b.dtype && a.dtype.is_float() => {
                let batch = a.shape.0.first().copied().flatten();
                Ok(vec![a.with_shape(Shape(vec![batch, Some(1), Some(1)]))])
            }
            inputs => Err(cannot(format!("expected two inputs of (batch, features), floats, found {}", inputs.len()))),
        }
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let inputs = call.given.inputs();
        let [a, b] = inputs.as_slice() else { bail!("expected two inputs, found {}", inputs.len()) };
        let dot = |a: &Value, b: &Value| (&a.tensor * &b.tensor)?.sum_keepdim(D::Minus1);
        let lengths = (dot(a, a)? * dot(b, b)?)?.sqrt()?;
        let least = constant_like(&lengths, EPSILON)?;
        let lengths = lengths.lt(&least)?.where_cond(&least, &lengths)?;
        Ok(vec![a.with_tensor((dot(a, b)? / lengths)?.unsqueeze(1)?)])
    }
}
