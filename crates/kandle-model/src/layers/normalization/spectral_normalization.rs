//! `keras.layers.SpectralNormalization`: a layer whose kernel training divides by its largest singular value. At inference
//! the layer alone, with the kernel as training left it.
//!
//! Shapes: those of the layer inside; its result, cast to the dtype of xs.
//!
//! Keras: the dtype of xs is kept for integers too, so that an Embedding inside gives truncated numbers for integer ids.
//!
//! Source: keras/src/layers/normalization/spectral_normalization.py.

use candle_core::bail;
use kandle_format::Problem;

use crate::{
    Call, Fields, Given, Inner, KerasLayer, Layout, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::cast,
};

#[derive(Debug)]
pub(crate) struct SpectralNormalization {
    /// `None` where it could not be read.
    layer: Option<Inner>,
    passes_masks: bool,
}

impl KerasLayer for SpectralNormalization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["power_iterations", "activity_regularizer"]);
        let layer = fields.layer("layer");
        Self { layer, passes_masks: fields.keras_major() >= 3 }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let Some(layer) = &self.layer else { return Ok(Vec::new()) };
        let mut weights = layer.weights(&[given.input()?.clone()], "layer", "layer")?;
        let kernel = weights
            .iter_mut()
            .find(|weight| weight.owner == "layer" && ["kernel", "embeddings"].contains(&weight.keras));
        let Some(kernel) = kernel else { return Err(format!("{} has neither kernel nor embeddings", layer.class)) };
        // Keras: the kernel is the wrapper's weight 0 as well.
        kernel.copy = Some("vars/0".to_owned());
        let columns = kernel.shape.last().copied().ok_or("the kernel is a scalar")?;
        let dtype = kernel.dtype;
        let vector_u = Weight::new("vector_u", vec![1, columns], "vector_u", Layout::AsIs);
        weights.push(Weight { array: Some("1"), dtype, ..vector_u.not_trained() });
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let Some(layer) = &self.layer else { return Err(cannot("no layer inside")) };
        let input = one(given)?;
        let outputs = layer.output(std::slice::from_ref(input))?;
        Ok(outputs.into_iter().map(|spec| Spec { dtype: input.dtype, ..spec }).collect())
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let Some(layer) = &self.layer else { bail!("no layer inside") };
        let input = call.input()?;
        let own = call.weights.split_last().map_or(&[][..], |(_, own)| own);
        let outputs = layer.call(std::slice::from_ref(input), own)?;
        let dtype = input.dtype;
        let in_dtype = |output: Value| match output.dtype == dtype {
            // Keras: the result of the layer inside, with its mask, where there is nothing to cast. Before version 3 a mask
            // ends here.
            true if self.passes_masks => Ok(output),
            true => Ok(output.with_mask(None)),
            false => Ok(cast(&output, dtype)?.with_mask(None)),
        };
        outputs.into_iter().map(in_dtype).collect()
    }
}
