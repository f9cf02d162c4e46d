//! `keras.layers.Embedding`: one row of a table for each id.
//!
//! Shapes: ids `(batch, …)` of any dtype, embeddings `(vocabulary, features)`, result `(batch, …, features)`; float32.
//! With embeddings `[[1, 2], [3, 4]]`, `[[1, 0, 1]]` gives `[[[3, 4], [1, 2], [3, 4]]]`. With `mask_zero`, the result
//! carries the mask `ids != 0`.
//!
//! Source: keras/src/layers/core/embedding.py.

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Layout, Masking, Shape, Spec, Value, Weight,
    layers::one,
    numeric::{cast, position},
};

#[derive(Debug)]
pub(crate) struct Embedding {
    vocabulary: usize,
    features: usize,
    mask_zero: bool,
}

impl KerasLayer for Embedding {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "embeddings_initializer",
            "embeddings_regularizer",
            "embeddings_constraint",
            "activity_regularizer",
            // Keras: LoRA weights are merged into the embeddings when the model is saved.
            "lora_rank",
            "lora_alpha",
        ]);
        fields.only_null("quantization_config");
        Self {
            vocabulary: fields.size("input_dim"),
            features: fields.size("output_dim"),
            mask_zero: fields.flag("mask_zero", false),
        }
    }

    fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        Ok(vec![Weight::new("embeddings", vec![self.vocabulary, self.features], "weight", Layout::AsIs)])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let mut axes = one(given)?.shape.0.clone();
        axes.push(Some(self.features));
        Ok(vec![Spec { shape: Shape(axes), dtype: given.policy().arithmetic() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        // Keras: ids that are not int32 or int64 become int32, floats by truncation toward zero.
        let ids = cast(input, Dtype::Int64)?.tensor;
        self.check(&ids)?;
        let rows = call.weight(0)?.index_select(&ids.flatten_all()?, 0)?;
        let shape: Vec<usize> = ids.dims().iter().copied().chain([self.features]).collect();
        Ok(vec![Value::new(rows.reshape(shape)?, call.given.policy().arithmetic())])
    }

    fn masking(&self) -> Masking {
        if self.mask_zero { Masking::Computes } else { Masking::Drops }
    }

    fn compute_mask(&self, call: Call<'_>, _: &[Option<&Tensor>]) -> candle_core::Result<Vec<Option<Tensor>>> {
        // Keras: the mask is taken from the ids as they came, before truncation.
        let ids = &call.input()?.tensor;
        Ok(vec![Some(ids.ne(&ids.zeros_like()?)?)])
    }

    fn autocasts(&self) -> bool {
        false
    }
}

impl Embedding {
    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(crate) fn features(&self) -> usize {
        self.features
    }

    /// Ids outside the vocabulary are an error. Keras: negative ids count from the end, and what lies beyond is an error in
    /// TensorFlow on a CPU, zeros on a GPU and NaN in JAX. candle reads −1 (as U32) as a row of zeros.
    fn check(&self, ids: &Tensor) -> candle_core::Result<()> {
        let numbers = ids.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
        let known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < self.vocabulary);
        match numbers.iter().enumerate().find(|(_, id)| !known(id)) {
            None => Ok(()),
            Some((flat, id)) => {
                bail!(
                    "id {id} at {:?} is not in the vocabulary: ids go from 0 to {}",
                    position(flat, ids.dims()),
                    self.vocabulary - 1
                )
            }
        }
    }
}
