//! ConvNeXt's `LayerScale`: `xs · gamma`, a trained factor for each channel.
//!
//! Shapes: xs `(batch, …, channels)`, floats; gamma `(projection_dim,)`; the result has the shape of xs. With gamma `[2, 3]`,
//! `[5, 7]` gives `[10, 21]`. A mask ends here.
//!
//! Source: keras/src/applications/convnext.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Spec, Value, Weight,
    layers::{cannot, one_float},
};

#[derive(Debug)]
pub(crate) struct LayerScale {
    projection_dim: usize,
}

impl KerasLayer for LayerScale {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["init_values", "activity_regularizer"]);
        Self { projection_dim: fields.size("projection_dim") }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        Ok(vec![Weight::new("gamma", vec![self.projection_dim], "gamma", Layout::AsIs)])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        match input.shape.0.last() {
            Some(channels) if channels.is_none_or(|channels| channels == self.projection_dim) => {
                Ok(vec![input.clone()])
            }
            _ => {
                Err(cannot(format!("projection_dim = {} does not fit its input {}", self.projection_dim, input.shape)))
            }
        }
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        Ok(vec![input.with_tensor(input.tensor.broadcast_mul(call.weight(0)?)?)])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Affine { scale: Some(lowered.weight(0)?.clone()), shift: None }]))
    }
}
