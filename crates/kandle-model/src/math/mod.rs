//! The arithmetic that layers and `keras.ops` share: convolution, pooling, resizing and sums of products.
//!
//! Everything is a function of candle tensors, float32 or float64 where nothing else is said, and differentiable. Images
//! and sequences are channels-last, `(batch, spatial…, channels)`, with one to three spatial axes.

pub(crate) mod convolution;
pub(crate) mod einsum;
pub(crate) mod fourier;
pub(crate) mod pooling;
pub(crate) mod resize;
pub(crate) mod window;

#[cfg(test)]
pub(crate) mod testing;
