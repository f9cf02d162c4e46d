//! `keras.layers.PReLU`: `x` where positive, else `alpha · x` with a trained slope.
//!
//! Shapes: xs `(batch, …)`, floats; alpha as xs without the batch axis, with 1 for each of `shared_axes`; the result has the
//! shape of xs. With alpha `[0.1, 0.5]`, `[-1, -1]` gives `[-0.1, -0.5]`.
//!
//! Source: keras/src/layers/activations/prelu.py.

use kandle_format::Problem;

use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Spec, Value, Weight,
    activation::relu,
    layers::{cannot, one_float},
    numeric::rounded,
};

#[derive(Debug)]
pub(crate) struct PRelu {
    /// Counted from 1, as the batch axis is 0.
    shared_axes: Vec<i64>,
}

impl KerasLayer for PRelu {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["alpha_initializer", "alpha_regularizer", "alpha_constraint", "activity_regularizer"]);
        Self { shared_axes: fields.integers("shared_axes").unwrap_or_default() }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let input = given.input()?;
        let axes = input.shape.0.get(1..).unwrap_or_default();
        let mut sizes = axes.to_vec();
        for axis in &self.shared_axes {
            // Keras: counted in Python's way from the second axis, so that 0 and below count from the end.
            let place = axis.checked_sub(1).ok_or("shared_axes: a number out of range")?;
            let place = crate::layers::axis(place, sizes.len())?;
            if let Some(size) = sizes.get_mut(place) {
                *size = Some(1);
            }
        }
        let known = sizes.into_iter().collect::<Option<Vec<usize>>>();
        let shape = known.ok_or("an axis that is not in shared_axes has no fixed size")?;
        Ok(vec![Weight::new("alpha", shape, "alpha", Layout::AsIs)])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        if input.shape.rank() == 0 {
            return Err(cannot("a scalar has no batch axis"));
        }
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (input, policy) = (call.input()?, call.given.policy());
        let (xs, alpha) = (&input.tensor, call.weight(0)?);
        let below = relu(&xs.neg()?)?.broadcast_mul(&alpha.neg()?)?;
        let ys = (relu(xs)? + rounded(&below, policy)?)?;
        Ok(vec![input.with_tensor(ys)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    /// Where all axes but the last share their slopes.
    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let alpha = lowered.weight(0)?;
        let shared = alpha.dims().split_last().is_some_and(|(_, others)| others.iter().all(|size| *size == 1));
        if !shared || !lowered.is_called_on_one() {
            return Ok(None);
        }
        Ok(Some(vec![Primitive::Slopes { alpha: alpha.flatten_all()? }]))
    }
}
