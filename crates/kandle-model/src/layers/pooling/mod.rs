//! Pooling layers.

mod adaptive_pooling;
mod global_pooling;
mod window_pooling;

use candle_core::Tensor;
use kandle_format::{Dtype, ErrorKind, Problem};

use crate::{
    Given, Policy, Spec,
    layers::{one, one_float, spatial::Image},
    numeric::constant_like,
    registry::{Family, Registered, layer},
};
use adaptive_pooling::AdaptivePooling;
use global_pooling::GlobalPooling;
use window_pooling::Pooling;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<AdaptivePooling<1, false>>("AdaptiveAveragePooling1D", Family::Pooling),
    layer::<AdaptivePooling<2, false>>("AdaptiveAveragePooling2D", Family::Pooling),
    layer::<AdaptivePooling<3, false>>("AdaptiveAveragePooling3D", Family::Pooling),
    layer::<AdaptivePooling<1, true>>("AdaptiveMaxPooling1D", Family::Pooling),
    layer::<AdaptivePooling<2, true>>("AdaptiveMaxPooling2D", Family::Pooling),
    layer::<AdaptivePooling<3, true>>("AdaptiveMaxPooling3D", Family::Pooling),
    layer::<Pooling<1, false>>("AveragePooling1D", Family::Pooling),
    layer::<Pooling<2, false>>("AveragePooling2D", Family::Pooling),
    layer::<Pooling<3, false>>("AveragePooling3D", Family::Pooling),
    layer::<GlobalPooling<1, false>>("GlobalAveragePooling1D", Family::Pooling),
    layer::<GlobalPooling<2, false>>("GlobalAveragePooling2D", Family::Pooling),
    layer::<GlobalPooling<3, false>>("GlobalAveragePooling3D", Family::Pooling),
    layer::<GlobalPooling<1, true>>("GlobalMaxPooling1D", Family::Pooling),
    layer::<GlobalPooling<2, true>>("GlobalMaxPooling2D", Family::Pooling),
    layer::<GlobalPooling<3, true>>("GlobalMaxPooling3D", Family::Pooling),
    layer::<Pooling<1, true>>("MaxPooling1D", Family::Pooling),
    layer::<Pooling<2, true>>("MaxPooling2D", Family::Pooling),
    layer::<Pooling<3, true>>("MaxPooling3D", Family::Pooling),
];

/// The input of a layer that pools windows: of floats, or for the largest number of integers.
fn pooled_spec<'a, const MAX: bool>(given: Given<'a, Spec>) -> Result<&'a Spec, Problem> {
    if !MAX {
        return one_float(given);
    }
    let input = one(given)?;
    if matches!(input.dtype, Dtype::Bool | Dtype::String) {
        return Err(Problem::new(ErrorKind::Unsupported, "", format!("an input of {} is not supported", input.dtype)));
    }
    Ok(input)
}

/// The largest numbers of windows as a layer with `policy` has them. Keras: where a window holds nothing but NaN and −∞,
/// that is the lowest finite number of the compute dtype.
fn bounded(ys: &Tensor, policy: &Policy) -> candle_core::Result<Tensor> {
    let lowest = match policy.compute {
        Dtype::Float16 => half::f16::MIN.to_f64(),
        Dtype::Bfloat16 => half::bf16::MIN.to_f64(),
        _ => return Ok(ys.clone()),
    };
    if !ys.dtype().is_float() {
        return Ok(ys.clone());
    }
    let lowest = constant_like(ys, lowest)?;
    ys.lt(&lowest)?.where_cond(&lowest, ys)
}
