//! `keras.layers.RMSNormalization`: `scale · x / √(mean(x²) + epsilon)`, the mean of each sample along `axis`, one axis or
//! several.
//!
//! Shapes: xs of any shape, numbers; scale has the sizes of `axis`; the result has the shape of xs. With epsilon 0, `[3, 4]`
//! gives `[0.8485, 1.1314]`. Computed in float32 at least. Masks end here.
//!
//! Source: keras/src/layers/normalization/rms_normalization.py, keras/src/ops/nn.py (`_rms_normalization`).

use kandle_format::{ErrorKind, Problem};

use super::{cast_back, computed_in, mean, one_of_numbers, reciprocal_root};
use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Primitive, Shape, Spec, Value, Weight,
    layers::{axes, cannot},
};

#[derive(Debug)]
pub(crate) struct RmsNormalization {
    /// Ascending, as they were given: Keras sorts −1 before 1.
    axes: Vec<i64>,
    epsilon: f64,
}

impl KerasLayer for RmsNormalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let mut axes = fields.integers("axis").unwrap_or_else(|| vec![-1]);
        axes.sort_unstable();
        Self { axes, epsilon: fields.number("epsilon", 1e-6) }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let input = &given.input()?.shape;
        let (places, shape) = self.sizes(input)?;
        let candle = if places.iter().all(|place| place + 1 == input.rank()) { "weight" } else { "scale" };
        Ok(vec![Weight::new("scale", shape, candle, Layout::AsIs)])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_of_numbers(given)?;
        let (_, sizes) = self.sizes(&input.shape).map_err(cannot)?;
        // Keras: the scale meets the last axes, whichever it was made for.
        let fits = |(size, axis): (&usize, &Option<usize>)| *size == 1 || axis.is_none_or(|axis| axis == *size);
        if !sizes.iter().rev().zip(input.shape.0.iter().rev()).all(fits) {
            let what =
                format!("a scale of {sizes:?} does not fit the last axes of {}, as Keras would have it", input.shape);
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        // Keras: integers are computed in float32, and whole numbers come out.
        let dtype = if input.dtype.is_float() { input.tensor.dtype() } else { computed_in(input) };
        let xs = &input.tensor.to_dtype(dtype)?;
        let places = axes(&self.axes, xs.rank()).map_err(candle_core::Error::msg)?;
        let factor = reciprocal_root(&(mean(&xs.sqr()?, &places)? + self.epsilon)?)?;
        let scale = call.weight(0)?.to_dtype(dtype)?.broadcast_as(xs.shape())?;
        let ys = (xs.broadcast_mul(&factor)? * scale)?;
        Ok(vec![cast_back(&ys, input)?])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let places = axes(&self.axes, lowered.rank()).map_err(candle_core::Error::msg)?;
        if places.as_slice() != [lowered.rank().saturating_sub(1)] {
            return Ok(None);
        }
        let gamma = Some(lowered.weight(0)?.clone());
        Ok(Some(vec![Primitive::Normalize { centered: false, epsilon: self.epsilon, gamma, beta: None }]))
    }
}

impl RmsNormalization {
    /// The places of the axes, and their sizes.
    fn sizes(&self, input: &Shape) -> Result<(Vec<usize>, Vec<usize>), String> {
        let places = axes(&self.axes, input.rank())?;
        let size = |place: &usize| input.0.get(*place).copied().flatten();
        let sizes = places.iter().map(size).collect::<Option<Vec<_>>>();
        let sizes = sizes.ok_or_else(|| format!("the sizes of axes {places:?} of its input {input} are not known"))?;
        Ok((places, sizes))
    }
}
