//! `keras.layers.Discretization`: the number of boundaries that are not above each number.
//!
//! Shapes: numbers `(batch, …)`, bins `(batch, …)`, int32, or encoded. With boundaries `[0, 1]`, `[−1, 0, 3]` gives
//! `[0, 1, 2]`.
//!
//! Keras: TensorFlow 2.4 and 2.5 put a number on a boundary into the bin below, 2.3 and 2.8 into that above. From 2.3 to 2.7
//! such a number is refused.
//!
//! Source: keras/src/layers/preprocessing/discretization.py; tensorflow/core/kernels/bucketize_op.cc.

use candle_core::{DType, bail};
use kandle_format::{Dtype, Problem, json};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::{cannot, one},
};

use super::encode::{OutputMode, encode};

#[derive(Debug)]
pub(crate) struct Discretization {
    boundaries: Vec<f32>,
    mode: OutputMode,
    /// Whether the bin of a number on a boundary is not known.
    is_open: bool,
}

impl KerasLayer for Discretization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["num_bins", "epsilon"]);
        let mode = OutputMode::read(
            fields,
            &[
                ("int", OutputMode::Int),
                ("one_hot", OutputMode::OneHot),
                ("multi_hot", OutputMode::MultiHot),
                ("count", OutputMode::Count),
            ],
        );
        let value = fields.take("bin_boundaries");
        let numbers = value.and_then(|value| value.as_array()?.iter().map(json::number).collect::<Option<Vec<f64>>>());
        let boundaries: Option<Vec<f32>> = numbers.map(|numbers| numbers.iter().map(|number| *number as f32).collect());
        match (value, &boundaries) {
            (None, _) => fields.wrong("bin_boundaries is missing: call adapt in Keras before the model is saved"),
            (Some(_), Some(boundaries)) if boundaries.is_sorted() => {}
            (Some(value), _) => fields.invalid("bin_boundaries", value, "a list of numbers in rising order"),
        }
        let is_open = fields.keras_major() < 3 && !fields.is_from([2, 8, 0]);
        Self { boundaries: boundaries.unwrap_or_default(), mode, is_open }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if matches!(input.dtype, Dtype::String | Dtype::Uint64) {
            return Err(cannot(format!("expected numbers, found {}", input.dtype)));
        }
        Ok(vec![self.mode.spec(&input.shape, self.boundaries.len() + 1, self.dtype(given))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        // Keras: all numbers are compared as float32, float64 too.
        let numbers = input.tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(number) = numbers.iter().find(|number| self.is_open && self.boundaries.contains(number)) {
            bail!(
                "{number} is a boundary: its bin is another in TensorFlow 2.3 than in 2.4, and the file does not tell"
            )
        }
        // Keras: NaN is below no boundary, and so in the last bin.
        let below = |number: f32| self.boundaries.partition_point(|boundary| number.is_nan() || number >= *boundary);
        let bins = numbers.into_iter().map(|number| Ok(i64::try_from(below(number))?));
        let bins = bins.collect::<candle_core::Result<Vec<i64>>>()?;
        let (dims, dtype) = (input.tensor.dims(), self.dtype(call.given));
        Ok(vec![encode(&bins, dims, self.mode, self.boundaries.len() + 1, dtype, None)?])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl Discretization {
    fn dtype<T>(&self, given: Given<'_, T>) -> Dtype {
        match given.policy().compute {
            // Keras 2 has int64 as the layer's own dtype then.
            integer if self.mode == OutputMode::Int && integer.is_integer() => integer,
            _ if self.mode == OutputMode::Int => Dtype::Int32,
            compute => compute,
        }
    }
}
