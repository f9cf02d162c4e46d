//! Convolutional layers.

mod conv;
mod conv_transpose;
mod depthwise_conv;
mod separable_conv;
mod settings;

use crate::registry::{Family, Registered, layer};
use conv::Conv;
use conv_transpose::ConvTranspose;
use depthwise_conv::DepthwiseConv;
use separable_conv::SeparableConv;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<Conv<1>>("Conv1D", Family::Convolutional),
    layer::<Conv<2>>("Conv2D", Family::Convolutional),
    layer::<Conv<3>>("Conv3D", Family::Convolutional),
    layer::<ConvTranspose<1>>("Conv1DTranspose", Family::Convolutional),
    layer::<ConvTranspose<2>>("Conv2DTranspose", Family::Convolutional),
    layer::<ConvTranspose<3>>("Conv3DTranspose", Family::Convolutional),
    layer::<DepthwiseConv<1>>("DepthwiseConv1D", Family::Convolutional),
    layer::<DepthwiseConv<2>>("DepthwiseConv2D", Family::Convolutional),
    layer::<SeparableConv<1>>("SeparableConv1D", Family::Convolutional),
    layer::<SeparableConv<2>>("SeparableConv2D", Family::Convolutional),
];
