//! The worked port: Embedding → Dense → ReLU by hand, as it would stand in a project of your own.
//!
//! The layers are candle-nn's, and so are the names of the variables. [`Example3::load`] builds the model first and fills
//! it from the Keras file afterwards: every variable, or none and an error. Nothing is transposed or named by hand.

use std::{error::Error, path::Path};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, VarMap, embedding, linear};

/// Ids in the vocabulary.
pub const VOCABULARY: usize = 1000;
/// Features of one id.
pub const DIM: usize = 128;
/// Units of the dense layer.
pub const HIDDEN: usize = 64;

/// A table of embeddings, a dense layer on each of its rows, and ReLU.
#[derive(Debug, Clone)]
pub struct Example3 {
    embedding: Embedding,
    dense: Linear,
}

impl Example3 {
    /// The model on the variables `embedding.weight` (1000, 128), `dense.weight` (64, 128) and `dense.bias` (64,) of `vb`.
    ///
    /// # Errors
    /// Where `vb` has a variable of another shape.
    pub fn new(vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            embedding: embedding(VOCABULARY, DIM, vb.pp("embedding"))?,
            dense: linear(DIM, HIDDEN, vb.pp("dense"))?,
        })
    }

    /// The model with the weights of the Keras file at `path`.
    ///
    /// # Errors
    /// What [`kandle::load_weights`] reports.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> std::result::Result<Self, Box<dyn Error + Send + Sync>> {
        let vars = VarMap::new();
        let model = Self::new(VarBuilder::from_varmap(&vars, DType::F32, device))?;
        kandle::load_weights(path, &vars)?;
        Ok(model)
    }
}

impl Module for Example3 {
    /// Ids (batch, time) in, (batch, time, 64) out, float32.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        self.dense.forward(&self.embedding.forward(ids)?)?.relu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reference_outputs/example3");

    #[test]
    fn it_gives_what_keras_recorded() {
        let port = Example3::load(format!("{CASES}/2x3/model.keras"), &Device::Cpu).unwrap();
        kandle::assert_case!(CASES, |ids, trace| {
            let xs = port.embedding.forward(&ids[0])?;
            trace.record("embedding", &xs)?;
            let ys = port.dense.forward(&xs)?.relu()?;
            trace.record("dense", &ys)?;
            Ok(vec![ys])
        });
    }
}
