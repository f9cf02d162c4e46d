//! `keras.layers.Embedding`: one row of a table for each id.
//!
//! Shapes: ids `(batch, …)` of any dtype, embeddings `(vocabulary, features)`, result `(batch, …, features)`; float32.
//! With embeddings `[[1, 2], [3, 4]]`, `[[1, 0, 1]]` gives `[[[3, 4], [1, 2], [3, 4]]]`. With `mask_zero`, the result
//! carries the mask `ids != 0`.
//!
//! Source: keras/src/layers/core/embedding.py.

use candle_core::{Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Shape, Spec, Value, Weight,
    layers::one,
    numeric::{cast, position},
    primitive::Table,
    quantized::Quantized,
};

#[derive(Debug)]
pub(crate) struct Embedding {
    vocabulary: usize,
    features: usize,
    mask_zero: bool,
    quantized: Option<Quantized>,
    /// Rank and factor of LoRA weights.
    lora: Option<(usize, f64)>,
    /// Whether negative ids count from the end.
    from_the_end: bool,
}

impl KerasLayer for Embedding {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "embeddings_initializer",
            "embeddings_regularizer",
            "embeddings_constraint",
            "activity_regularizer",
        ]);
        Self {
            vocabulary: fields.size("input_dim"),
            features: fields.size("output_dim"),
            mask_zero: fields.flag("mask_zero", false),
            quantized: Quantized::read(fields),
            lora: fields.lora(),
            from_the_end: fields.keras_major() >= 3,
        }
    }

    fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let mut weights = match &self.quantized {
            Some(quantized) => quantized.embeddings("embeddings", self.vocabulary, self.features)?,
            None => vec![Weight::new("embeddings", vec![self.vocabulary, self.features], "weight", Layout::AsIs)],
        };
        if let Some((rank, _)) = self.lora {
            weights.push(Weight::as_keras("lora_embeddings_a", vec![self.vocabulary, rank]));
            weights.push(Weight::as_keras("lora_embeddings_b", vec![rank, self.features]));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let mut axes = one(given)?.shape.0.clone();
        axes.push(Some(self.features));
        Ok(vec![Spec { shape: Shape(axes), dtype: given.policy().arithmetic() }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        // Keras: ids that are not int32 or int64 become int32, floats by truncation toward zero.
        let ids = self.known(&cast(input, Dtype::Int64)?.tensor)?;
        let flat = ids.flatten_all()?;
        let mut rows = match &self.quantized {
            None => call.weight(0)?.index_select(&flat, 0)?,
            Some(quantized) => quantized.rows(call.weights, &flat, self.features)?,
        };
        if let (Some((_, factor)), [.., a, b]) = (self.lora, call.weights) {
            rows = (rows + (a.index_select(&flat, 0)?.matmul(b)? * factor)?)?;
        }
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

    fn quantizes(&self) -> bool {
        true
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let rows = self.rows_of(Table::Read(lowered.weight(0)?.clone()));
        Ok(rows.map(|rows| vec![rows]))
    }

    fn rows_of(&self, table: Table) -> Option<Primitive> {
        let plain = self.quantized.is_none() && self.lora.is_none();
        plain.then_some(Primitive::Rows { table, from_the_end: self.from_the_end })
    }
}

impl Embedding {
    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(crate) fn features(&self) -> usize {
        self.features
    }

    pub(crate) fn quantized(&self) -> Option<&Quantized> {
        self.quantized.as_ref()
    }

    pub(crate) fn has_lora(&self) -> bool {
        self.lora.is_some()
    }

    /// The ids, those that count from the end made positive.
    ///
    /// Ids outside the vocabulary are an error. Keras: negative ids count from the end since Keras 3, and what lies beyond is
    /// an error in TensorFlow on a CPU, zeros on a GPU and NaN in JAX. candle reads −1 (as U32) as a row of zeros.
    fn known(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let size = i64::try_from(self.vocabulary)?;
        let mut numbers = ids.flatten_all()?.to_vec1::<i64>()?;
        for (flat, id) in numbers.iter_mut().enumerate() {
            let known = if *id < 0 && self.from_the_end { id.checked_add(size).unwrap_or(*id) } else { *id };
            if !(0..size).contains(&known) {
                bail!(
                    "id {id} at {:?} is not in the vocabulary: ids go from 0 to {}{}",
                    position(flat, ids.dims()),
                    size - 1,
                    if self.from_the_end { format!(", or from the end from -1 to -{size}") } else { String::new() }
                )
            }
            *id = known;
        }
        Tensor::from_vec(numbers, ids.shape(), ids.device())
    }
}
