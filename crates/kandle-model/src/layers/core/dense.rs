//! `keras.layers.Dense`: `activation(xs · kernel + bias)`, the product over the last axis at any rank.
//!
//! Shapes: xs `(batch, …, features)`, kernel `(features, units)`, bias `(units,)`, result `(batch, …, units)`; floats.
//! Integers are accepted and count as floats. With kernel `[[1], [2]]`, bias `[10]` and relu, `[3, -1]` gives
//! `relu(3·1 − 1·2 + 10) = 11`.
//!
//! Source: keras/src/layers/core/dense.py.

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Activation, Call, Fields, Given, KerasLayer, Layout, Lowered, Masking, Primitive, Quantization, Spec, Value,
    Weight,
    layers::{cannot, one},
    numeric::cast,
    quantized::{Quantized, dequantized, integer_product, through_float8, unpack_int4},
};

#[derive(Debug)]
pub(crate) struct Dense {
    units: usize,
    use_bias: bool,
    activation: Activation,
    quantized: Option<Quantized>,
    /// Rank and factor of LoRA weights.
    lora: Option<(usize, f64)>,
}

impl KerasLayer for Dense {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&[
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
        ]);
        Self {
            units: fields.size("units"),
            use_bias: fields.flag("use_bias", true),
            activation: fields.activation("activation"),
            quantized: Quantized::read(fields),
            lora: fields.lora(),
        }
    }

    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let features = given.features()?;
        let mut weights = match &self.quantized {
            Some(quantized) => self.quantized_weights(quantized, features),
            None => {
                let kernel = Weight::new("kernel", vec![features, self.units], "weight", Layout::Transposed);
                let bias = self.use_bias.then(|| Weight::as_keras("bias", vec![self.units]));
                [kernel].into_iter().chain(bias).collect()
            }
        };
        if let Some((rank, _)) = self.lora {
            weights.push(Weight::as_keras("lora_kernel_a", vec![features, rank]));
            weights.push(Weight::as_keras("lora_kernel_b", vec![rank, self.units]));
        }
        Ok(weights)
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.shape.rank() < 2 {
            return Err(cannot(format!("expected an input of rank 2 or more, found {}", input.shape)));
        }
        let product =
            Spec { shape: input.shape.clone().with_last(Some(self.units)), dtype: given.policy().arithmetic() };
        Ok(vec![self.activation.output(&product)?])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = cast(call.input()?, call.given.policy().arithmetic())?;
        let Some((features, outer)) = input.tensor.dims().split_last() else { bail!("a scalar has no last axis") };
        let (rows, width) = (outer.iter().product::<usize>(), call.weight(0)?.dims());
        let expected = if self.quantized.is_some() { width.first() } else { width.last() };
        if expected != Some(features) {
            bail!("input has {features} features, kernel expects {}", expected.copied().unwrap_or_default())
        }
        let ys = self.product(&input.tensor.reshape((rows, *features))?, call)?;
        // An activation layer may work along any axis.
        let ys = ys.reshape([outer, &[self.units]].concat())?;
        Ok(vec![self.activation.apply(&input.with_tensor(ys), call.given.policy())?])
    }

    fn keeps_float32(&self, _: &[Dtype]) -> bool {
        self.activation.keeps_float32()
    }

    fn masking(&self) -> Masking {
        Masking::Passes
    }

    fn quantizes(&self) -> bool {
        true
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        if self.quantized.is_some() || self.lora.is_some() {
            return Ok(None);
        }
        let kernel = lowered.weight(0)?.t()?.contiguous()?;
        let product = Primitive::Product { kernel, bias: lowered.weight_if(self.use_bias, 1)? };
        self.activation.after(vec![product], lowered)
    }
}

impl Dense {
    /// As [`KerasLayer::weights`], of a quantized layer. The VarMap has them as Keras does.
    fn quantized_weights(&self, quantized: &Quantized, features: usize) -> Vec<Weight> {
        let mut weights = vec![quantized.kernel("kernel", features, self.units)];
        if self.use_bias {
            weights.push(Weight::as_keras("bias", vec![self.units]));
        }
        match quantized.mode {
            Quantization::Int4 { block: Some(block) } => {
                let groups = vec![features.div_ceil(block), self.units];
                weights.push(Weight::as_keras("kernel_scale", groups.clone()).not_trained());
                weights.push(Weight::as_keras("kernel_zero", groups).of(Dtype::Int8).not_trained());
                weights.push(Weight::as_keras("g_idx", vec![features]).of(Dtype::Float32).not_trained());
            }
            Quantization::Float8 { history } => weights.extend(Quantized::float8_weights(history)),
            _ => weights.push(Weight::as_keras("kernel_scale", vec![self.units]).not_trained()),
        }
        weights
    }

    /// `xs · kernel + bias` for `xs` `(rows, features)`.
    fn product(&self, xs: &Tensor, call: Call<'_>) -> candle_core::Result<Tensor> {
        let after = 1 + usize::from(self.use_bias);
        let kernel = call.weight(0)?;
        let mut bias = if self.use_bias { Some(call.weight(1)?.clone()) } else { None };
        let ys = match &self.quantized {
            None => match self.lora {
                None => xs.matmul(&kernel.t()?)?,
                Some(_) => xs.matmul(&(kernel.t()? + self.lora_product(call)?)?)?,
            },
            Some(Quantized { mode: Quantization::Int8, inputs }) => {
                integer_product(xs, *inputs, kernel, call.weight(after)?, call.given.policy())?
            }
            Some(Quantized { mode: Quantization::Int4 { block: None }, inputs }) => {
                let integers = unpack_int4(kernel, self.units, xs.dtype())?;
                integer_product(xs, *inputs, &integers, call.weight(after)?, call.given.policy())?
            }
            Some(Quantized { mode: Quantization::Int4 { block: Some(_) }, .. }) => {
                let integers = unpack_int4(kernel, self.units, xs.dtype())?;
                let (scale, zero, groups) = (call.weight(after)?, call.weight(after + 1)?, call.weight(after + 2)?);
                xs.matmul(&call.given.policy().rounded(dequantized(&integers, scale, zero, groups, 0)?)?)?
            }
            Some(Quantized { mode: Quantization::Float8 { .. }, .. }) => {
                // Keras: the bias goes through bfloat16, which the fused kernels of GPUs want.
                if call.given.policy().compute == Dtype::Float32 {
                    bias = bias.map(|bias| bias.to_dtype(DType::BF16)?.to_dtype(bias.dtype())).transpose()?;
                }
                let (of_inputs, of_kernel) = (call.weight(after)?, call.weight(after + 2)?);
                through_float8(xs, of_inputs)?.matmul(&through_float8(kernel, of_kernel)?)?
            }
        };
        let policy = call.given.policy();
        let mut ys = policy.rounded(ys)?;
        if self.lora.is_some() && self.quantized.is_some() {
            ys = (ys + xs.matmul(&self.lora_product(call)?)?)?;
        }
        match bias {
            Some(bias) => policy.rounded(ys.broadcast_add(&bias)?),
            None => Ok(ys),
        }
    }

    /// What LoRA adds to the kernel `(features, units)`.
    fn lora_product(&self, call: Call<'_>) -> candle_core::Result<Tensor> {
        match (self.lora, call.weights) {
            (Some((_, factor)), [.., a, b]) => a.matmul(b)? * factor,
            _ => bail!("LoRA without its weights"),
        }
    }
}
