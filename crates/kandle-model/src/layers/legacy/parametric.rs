//! `SReLU` and `ParametricSoftplus` of Keras 1: activations whose shape is learned, for each number of a sample.
//!
//! Shapes: xs `(batch, …)`; each weight has the shape of a sample, with 1 along `shared_axes`; the result has the shape of xs.
//!
//! SReLU, with `t_right = t_left + |t_right'|`, is `a_left · (x − t_left) + t_left` below `t_left`, x up to `t_right`, and
//! `a_right · (x − t_right) + t_right` above. ParametricSoftplus is `alpha · log(1 + e^(beta · x))`.
//!
//! Source: keras/layers/advanced_activations.py of Keras 1.2.

use candle_core::Tensor;
use kandle_format::Problem;

use super::only_in_old_files;
use crate::{Call, Fields, Function, Given, KerasLayer, Masking, Spec, Value, Weight, layers::one_float};

#[derive(Debug)]
pub(super) struct Parametric<const SOFTPLUS: bool> {
    shared_axes: Vec<i64>,
}

impl<const SOFTPLUS: bool> KerasLayer for Parametric<SOFTPLUS> {
    fn read(fields: &mut Fields<'_>) -> Self {
        only_in_old_files(fields);
        fields.training_only(&[
            "t_left_init",
            "a_left_init",
            "t_right_init",
            "a_right_init",
            "alpha_init",
            "beta_init",
            "weights",
        ]);
        Self { shared_axes: fields.integers("shared_axes").unwrap_or_default() }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let axes = given.input()?.shape.0.iter().enumerate().skip(1);
        let shared = |axis: usize| self.shared_axes.iter().any(|shared| usize::try_from(*shared) == Ok(axis));
        let size = |(axis, size): (usize, &Option<usize>)| if shared(axis) { Some(1) } else { *size };
        let shape: Option<Vec<usize>> = axes.map(size).collect();
        let shape = shape.ok_or("the size of its input is not known")?;
        let names: &[&'static str] =
            if SOFTPLUS { &["alphas", "betas"] } else { &["t_left", "a_left", "t_right", "a_right"] };
        Ok(names.iter().map(|name| Weight::as_keras(name, shape.clone())).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        Ok(vec![one_float(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let xs = &input.tensor;
        let weight = |number: usize| call.weight(number)?.broadcast_as(xs.shape());
        if SOFTPLUS {
            let curve = Function::Softplus.apply(&(weight(1)? * xs)?)?;
            return Ok(vec![input.with_tensor((curve * weight(0)?)?)]);
        }
        let relu = |xs: &Tensor| Function::Relu.apply(xs);
        let (left, right) = (weight(0)?, (weight(0)? + weight(2)?.abs()?)?);
        let beyond = (xs - &left)?;
        let centre = relu(&beyond)?.minimum(&(&right - &left)?)?;
        let centre = ((&left + centre)? - (weight(1)? * relu(&beyond.neg()?)?)?)?;
        Ok(vec![input.with_tensor((centre + (relu(&(xs - right)?)? * weight(3)?)?)?)])
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }
}
