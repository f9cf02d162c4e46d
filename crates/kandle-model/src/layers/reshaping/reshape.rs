//! `keras.layers.Reshape`: the same numbers, row-major, under other axes; the batch axis stays.
//!
//! Shapes: xs `(batch, …)` of any dtype, result `(batch, *target_shape)`; one axis of `target_shape` may be −1 and takes
//! what is left: `(batch, 12)` with `target_shape = (-1, 4)` gives `(batch, 3, 4)`.
//!
//! Source: keras/src/layers/reshaping/reshape.py.

use kandle_format::{ErrorKind, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, one},
};

#[derive(Debug)]
pub(crate) struct Reshape {
    /// The axes behind the batch axis; the one that takes what is left is `None`.
    target: Vec<Option<usize>>,
}

impl KerasLayer for Reshape {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let target = fields.axes("target_shape", true);
        if target.iter().filter(|axis| axis.is_none()).count() > 1 {
            let what = "target_shape: expected at most one -1, found several";
            fields.problem(Problem::new(ErrorKind::Invalid, fields.at().to_owned(), what));
        }
        Self { target }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let Some(batch) = input.shape.0.first() else { return Err(cannot("a scalar cannot be reshaped".to_owned())) };
        let mut axes = self.target.clone();
        if let Some(features) = input.shape.features() {
            axes = self.resolve(features).map_err(cannot)?.into_iter().map(Some).collect();
        }
        axes.insert(0, *batch);
        Ok(vec![input.with_shape(Shape(axes))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let (batch, features) = match input.tensor.dims().split_first() {
            Some((batch, rest)) => (*batch, rest.iter().product()),
            None => candle_core::bail!("a scalar cannot be reshaped"),
        };
        let mut shape = self.resolve(features).map_err(candle_core::Error::msg)?;
        shape.insert(0, batch);
        Ok(vec![input.with_tensor(input.tensor.reshape(shape)?)])
    }

    fn primitives(&self, _: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        Ok(Some(vec![Primitive::Reshape(self.target.clone())]))
    }
}

impl Reshape {
    /// The target's axes for an input of `features` numbers a sample.
    fn resolve(&self, features: usize) -> Result<Vec<usize>, String> {
        let known = self.target.iter().flatten().try_fold(1_usize, |product, axis| product.checked_mul(*axis));
        let known = known.ok_or("target_shape is too large")?;
        let free = self.target.contains(&None);
        let fits = if free { known > 0 && features.is_multiple_of(known) } else { known == features };
        if !fits {
            let target = Shape(self.target.clone()).to_string().replace("None", "-1");
            return Err(format!("{features} numbers a sample do not fill target_shape {target}"));
        }
        Ok(self.target.iter().map(|axis| axis.unwrap_or(features / known.max(1))).collect())
    }
}
