//! `keras.layers.UnitNormalization`: vectors scaled to length 1, `x / √Σx²`.
//!
//! Shapes: xs of any shape, floats; the result has the same shape. The vectors lie along `axis`, one axis or several.
//! `[3, 4]` gives `[0.6, 0.8]`, and a vector of zeros stays so.
//!
//! Source: keras/src/layers/normalization/unit_normalization.py.

use kandle_format::Problem;

use super::to_length_one;
use crate::{
    Call, Fields, Given, KerasLayer, Masking, Spec, Value,
    layers::{axes, cannot, one_float},
};

/// The bound of the factor: 1 / epsilon.
const LARGEST_FACTOR: f64 = 1e12;

#[derive(Debug)]
pub(crate) struct UnitNormalization {
    axes: Vec<i64>,
}

impl KerasLayer for UnitNormalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { axes: fields.integers("axis").unwrap_or_else(|| vec![-1]) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        axes(&self.axes, input.shape.rank()).map_err(cannot)?;
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let axes = axes(&self.axes, input.tensor.rank()).map_err(candle_core::Error::msg)?;
        let ys = to_length_one(&input.tensor, &axes, LARGEST_FACTOR, call.given.policy())?;
        Ok(vec![input.with_tensor(ys)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
