//! Normalization layers.

mod batch_normalization;
mod group_normalization;
mod layer_normalization;
mod rms_normalization;
mod spectral_normalization;
mod unit_normalization;

use candle_core::{DType, Result, Tensor};

use kandle_format::{Dtype, Problem};

use crate::{
    Given, Policy, Spec, Value,
    layers::{one, one_float},
    numeric::{cast, constant_like, dtype_of, rounded},
    registry::{Family, Registered, layer},
};
pub(super) use batch_normalization::BatchNormalization;
use group_normalization::GroupNormalization;
use layer_normalization::LayerNormalization;
use rms_normalization::RmsNormalization;
use spectral_normalization::SpectralNormalization;
use unit_normalization::UnitNormalization;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<BatchNormalization>("BatchNormalization", Family::Normalization),
    layer::<GroupNormalization>("GroupNormalization", Family::Normalization),
    layer::<LayerNormalization>("LayerNormalization", Family::Normalization),
    layer::<RmsNormalization>("RMSNormalization", Family::Normalization),
    layer::<SpectralNormalization>("SpectralNormalization", Family::Normalization),
    layer::<UnitNormalization>("UnitNormalization", Family::Normalization),
];

/// The sum over `axes`, which stay with size 1. Summed in float64 and rounded once.
fn sum(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let wide = xs.to_dtype(DType::F64)?;
    axes.iter().try_fold(wide, |xs, axis| xs.sum_keepdim(*axis))?.to_dtype(xs.dtype())
}

/// The mean over `axes`, which stay with size 1.
fn mean(xs: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let count: usize = axes.iter().map(|axis| xs.dim(*axis)).product::<Result<usize>>()?;
    let wide = axes.iter().try_fold(xs.to_dtype(DType::F64)?, |xs, axis| xs.sum_keepdim(*axis))?;
    let count = Tensor::full(f64::from(u32::try_from(count)?), wide.shape(), wide.device())?;
    (wide / count)?.to_dtype(xs.dtype())
}

/// Mean and variance over `axes`, which stay with size 1.
fn moments(xs: &Tensor, axes: &[usize]) -> Result<(Tensor, Tensor)> {
    let center = mean(xs, axes)?;
    let variance = mean(&xs.broadcast_sub(&center)?.sqr()?, axes)?;
    Ok((center, variance))
}

/// `(xs − center) · factor · gamma + beta`, as Keras multiplies it out.
fn scaled(xs: &Tensor, center: &Tensor, factor: Tensor, gamma: Option<Tensor>, beta: Option<Tensor>) -> Result<Tensor> {
    let factor = gamma.map_or(Ok(factor.clone()), |gamma| factor.broadcast_mul(&gamma))?;
    let shift = center.neg()?.broadcast_mul(&factor)?;
    let shift = beta.map_or(Ok(shift.clone()), |beta| shift.broadcast_add(&beta))?;
    xs.broadcast_mul(&factor)?.broadcast_add(&shift)
}

/// What a layer that casts for itself gives back of `ys`. Keras: cast to the input's dtype first, then to the layer's, so
/// that of integers whole numbers come out.
fn given_back(ys: &Tensor, input: &Value, policy: &Policy) -> Result<Vec<Value>> {
    Ok(vec![cast(&cast_back(ys, input)?, policy.compute)?])
}

/// `ys` in the dtype of `input`.
fn cast_back(ys: &Tensor, input: &Value) -> Result<Value> {
    cast(&Value::new(ys.clone(), dtype_of(ys)?), input.dtype)
}

/// The input of a layer that takes floats, and integers as floats.
fn one_of_numbers<'a>(given: Given<'a, Spec>) -> std::result::Result<&'a Spec, Problem> {
    let input = one(given)?;
    if input.dtype == Dtype::String { one_float(given) } else { Ok(input) }
}

/// The dtype such a layer computes in. Keras: float32 or float64 by the dtype of the input, whatever the layer's own is.
fn computed_in(input: &Value) -> DType {
    if input.tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `1 / √x`.
fn reciprocal_root(xs: &Tensor) -> Result<Tensor> {
    crate::numeric::wide(xs, |xs| xs.sqrt()?.recip())
}

/// `x · min(1 / √Σx², largest)`, the sum over `axes`, each step rounded to the compute dtype.
///
/// Keras: in float16 squares beyond 65504 are infinite, and their vectors come out as 0; `largest` is infinite too, and
/// vectors of zeros come out as NaN.
///
/// Source: keras/src/ops/nn.py (`_normalize`).
pub(crate) fn to_length_one(xs: &Tensor, axes: &[usize], largest: f64, policy: &Policy) -> Result<Tensor> {
    let squares = rounded(&sum(&rounded(&xs.sqr()?, policy)?, axes)?, policy)?;
    let factor = rounded(&reciprocal_root(&squares)?, policy)?;
    let largest = rounded(&constant_like(&factor, largest)?, policy)?;
    let factor = factor.gt(&largest)?.where_cond(&largest, &factor)?;
    rounded(&xs.broadcast_mul(&factor)?, policy)
}
