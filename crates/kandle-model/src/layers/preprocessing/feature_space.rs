//! `TFDConcat` and `TFDIdentity`: what a `keras.utils.FeatureSpace` puts its features together with.
//!
//! Shapes: TFDConcat joins tensors along `axis`, `(batch, a)` and `(batch, b)` to `(batch, a + b)`; TFDIdentity gives back
//! what it is given.
//!
//! Source: keras/src/layers/preprocessing/feature_space.py.

use candle_core::Tensor;
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::{cannot, one},
    numeric::cast,
    ops::{Kind, result_type},
};

use super::converted;

#[derive(Debug)]
pub(crate) struct TfdConcat {
    axis: i64,
}

impl KerasLayer for TfdConcat {
    fn read(fields: &mut Fields<'_>) -> Self {
        let axis = fields.optional_integer("axis");
        if axis.is_none() {
            fields.wrong("axis is missing");
        }
        Self { axis: axis.unwrap_or(-1) }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["xs"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let Some(first) = inputs.first() else { return Err(cannot("expected one input or more, found none")) };
        let axis = self.at(first.shape.rank()).map_err(cannot)?;
        let mut shape = first.shape.clone();
        if let Some(size) = shape.0.get_mut(axis) {
            let mut sizes = inputs.iter().map(|input| input.shape.0.get(axis).copied().flatten());
            *size = sizes.try_fold(0_usize, |sum, size| sum.checked_add(size?));
        }
        Ok(vec![Spec { shape, dtype: self.dtype(given, inputs.iter().map(|input| input.dtype)).map_err(cannot)? }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let inputs = call.given.inputs();
        let dtype = self.dtype(call.given, inputs.iter().map(|input| input.dtype)).map_err(candle_core::Error::msg)?;
        let Some(first) = inputs.first() else { candle_core::bail!("expected one input or more, found none") };
        let axis = self.at(first.tensor.rank()).map_err(candle_core::Error::msg)?;
        let tensor = |value: &&Value| cast(&converted(value, call.given.policy().compute)?, dtype)?.tensor.contiguous();
        let tensors = inputs.iter().map(tensor).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(vec![Value::new(Tensor::cat(&tensors, axis)?, dtype)])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl TfdConcat {
    fn at(&self, rank: usize) -> Result<usize, String> {
        let from_end = i64::try_from(rank).unwrap_or(i64::MAX);
        let axis = if self.axis < 0 { self.axis.saturating_add(from_end) } else { self.axis };
        usize::try_from(axis).ok().filter(|axis| *axis < rank).ok_or_else(|| format!("axis {} of {rank}", self.axis))
    }

    /// The dtype of all: that of floats, where there is one among them.
    fn dtype<T>(&self, given: Given<'_, T>, dtypes: impl Iterator<Item = Dtype>) -> Result<Dtype, String> {
        let compute = given.policy().compute;
        let dtypes: Vec<Dtype> = dtypes.map(|dtype| if dtype.is_float() { compute } else { dtype }).collect();
        if dtypes.contains(&Dtype::String) {
            return Err("strings are not joined".to_owned());
        }
        Ok(result_type(&dtypes.into_iter().map(Kind::from).collect::<Vec<Kind>>()))
    }
}

#[derive(Debug)]
pub(crate) struct TfdIdentity;

impl KerasLayer for TfdIdentity {
    fn read(_: &mut Fields<'_>) -> Self {
        Self
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let dtype = if input.dtype.is_float() { given.policy().compute } else { input.dtype };
        Ok(vec![Spec { dtype, ..input.clone() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        Ok(vec![converted(call.input()?, call.given.policy().compute)?.with_mask(None)])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}
