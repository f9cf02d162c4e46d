use candle_core::Tensor;
use kandle_format::{Dtype, Problem};

use crate::{Fields, Spec, Weight};

/// A tensor as Keras sees it.
///
/// candle has no bool, int8 or uint16: bool is U8 (0 or 1), int8 is I16, uint16 is U32. `dtype` is what Keras would say.
#[derive(Debug, Clone)]
pub struct Value {
    /// The numbers.
    pub tensor: Tensor,
    /// Keras's dtype.
    pub dtype: Dtype,
    /// The mask that travels beside the tensor, `(batch, time)` as a rule; U8, 1 where the entry counts.
    pub mask: Option<Tensor>,
}

impl Value {
    /// A value without a mask.
    #[must_use]
    pub fn new(tensor: Tensor, dtype: Dtype) -> Self {
        Self { tensor, dtype, mask: None }
    }

    /// The same dtype and mask with other numbers.
    #[must_use]
    pub fn with_tensor(&self, tensor: Tensor) -> Self {
        Self { tensor, dtype: self.dtype, mask: self.mask.clone() }
    }

    /// The same value without its mask.
    #[must_use]
    pub fn without_mask(mut self) -> Self {
        self.mask = None;
        self
    }
}

/// One call of a layer: what goes in, and the layer's weights in the order it declared them, in candle's layout.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The tensors the layer is called on.
    pub inputs: &'a [Value],
    /// The layer's weights.
    pub weights: &'a [Tensor],
}

impl<'a> Call<'a> {
    /// The input of a layer that takes one.
    pub fn input(&self) -> candle_core::Result<&'a Value> {
        match self.inputs {
            [input] => Ok(input),
            inputs => candle_core::bail!("expected one input, found {}", inputs.len()),
        }
    }

    /// Weight number `index` of the declared ones.
    pub fn weight(&self, index: usize) -> candle_core::Result<&'a Tensor> {
        match self.weights.get(index) {
            Some(weight) => Ok(weight),
            None => candle_core::bail!("weight {index} of {} was not given", self.weights.len()),
        }
    }
}

/// A Keras layer at inference: one file, one line in the registry.
///
/// Reading is total: what cannot be honoured is noted in [`Fields`] and refused for the whole file at once, so the rest
/// of a layer never sees a configuration it does not reproduce.
pub trait KerasLayer: std::fmt::Debug + Send + Sync {
    /// Reads the layer's settings. Every key is honoured, or allowed at its default only, or named as training-only.
    fn read(fields: &mut Fields<'_>) -> Self
    where
        Self: Sized;

    /// The weights, in the order Keras creates them, which is the order in the file.
    ///
    /// # Errors
    /// A text where the inputs do not determine the shapes.
    fn weights(&self, inputs: &[Spec]) -> Result<Vec<Weight>, String> {
        let _ = inputs;
        Ok(Vec::new())
    }

    /// What comes out, given what goes in.
    ///
    /// # Errors
    /// A problem without a place (the plan knows it) where Keras would not build, or this layer cannot.
    fn output(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Problem>;

    /// Runs the layer as Keras does with `training=False`, in differentiable candle operations.
    ///
    /// # Errors
    /// What candle reports, and inputs that Keras would not accept either.
    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>>;
}
