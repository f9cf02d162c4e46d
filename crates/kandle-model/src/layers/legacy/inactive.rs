//! Layers of Keras 2 that do nothing at inference: `RandomHeight` and `RandomWidth`, which stretch images in training, and
//! `AddLoss` and `AddMetric`, which is what a model keeps of `add_loss` and `add_metric`.
//!
//! Shapes: any. Source: tf_keras/src/layers/preprocessing/image_preprocessing.py, tf_keras/src/engine/base_layer.py.

use kandle_format::{Dtype, Problem};

use super::only_in_old_files;
use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::{one, one_float},
    numeric::cast,
};

/// `RandomHeight` and `RandomWidth`: images come out as they are, in the compute dtype.
#[derive(Debug)]
pub(super) struct RandomSize;

impl KerasLayer for RandomSize {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        fields.training_only(&["factor", "interpolation", "seed"]);
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        // Keras: versions differ in whether integers are cast.
        Ok(vec![Spec { dtype: given.policy().arithmetic(), ..one_float(given)?.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let arithmetic: Dtype = call.given.policy().arithmetic();
        Ok(vec![cast(call.input()?, arithmetic)?.with_mask(None)])
    }
}

/// `AddLoss` and `AddMetric`: what goes in comes out.
#[derive(Debug)]
pub(super) struct Additions;

impl KerasLayer for Additions {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        fields.training_only(&["unconditional", "aggregation", "metric_name"]);
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![call.input()?.clone().with_mask(None)])
    }

    fn gives_back_its_input(&self, _: Given<'_, Spec>) -> bool {
        true
    }
}
