//! The layers that `keras.applications` adds for its own models: ConvNeXt's and InceptionResNetV2's.
//!
//! Keras finds them by their module alone, so a file that names no module (a legacy one) may mean another class.

mod custom_scale_layer;
mod layer_scale;
mod stochastic_depth;

use crate::registry::{Family, Registered, layer};
use custom_scale_layer::CustomScaleLayer;
use layer_scale::LayerScale;
use stochastic_depth::StochasticDepth;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<CustomScaleLayer>("CustomScaleLayer", Family::Applications),
    layer::<LayerScale>("LayerScale", Family::Applications),
    layer::<StochasticDepth>("StochasticDepth", Family::Applications),
];
