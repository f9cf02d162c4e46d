//! Kernels that `model.quantize` stored in eight bits, four, or as float8: their weights and what is computed with them.
//!
//! Source: keras/src/quantizers/quantizers.py, and `_int8_call`, `_int4_call`, `_float8_call` of the layers.

use candle_core::{DType, Result, Tensor, bail};
use kandle_format::{Dtype, json};

use crate::{Fields, Policy, Quantization, Weight, numeric::constant_like};

/// How a layer's kernel is stored, and whether what it is multiplied with is quantized on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantized {
    pub mode: Quantization,
    pub inputs: Option<AbsMax>,
}

/// `AbsMaxQuantizer`: numbers are scaled so that the largest of a row becomes the largest integer, and rounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AbsMax {
    range: (f64, f64),
    epsilon: f64,
}

const INT8: AbsMax = AbsMax { range: (-127.0, 127.0), epsilon: 1e-7 };

impl Quantized {
    /// Reads the dtype policy and `quantization_config`; `None` for a layer that is not quantized.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let config = fields.take("quantization_config");
        let Some(mode) = fields.policy().quantization else {
            if let Some(config) = config {
                fields.unsupported("quantization_config", config, "null, where the dtype policy is not quantized");
            }
            return None;
        };
        if matches!(mode, Quantization::Int4 { .. }) && fields.keras_version() < (3, 14) {
            fields.refuse(
                "int4 as Keras 3.13 and before packed it is not supported: open and save the model with Keras 3.15",
            );
        }
        // Keras: without a configuration, what int8 kernels are multiplied with is quantized, and for int4 it is not.
        let default = if mode == Quantization::Int8 { Some(INT8) } else { None };
        let Some(config) = config else { return Some(Self { mode, inputs: default }) };
        let part = |key: &str| config.get("config").and_then(|config| config.get(key)).filter(|value| !value.is_null());
        let class = config.get("class_name").and_then(json::Value::as_str).unwrap_or_default();
        let mode = match (mode, class) {
            (Quantization::Int8, "Int8QuantizationConfig")
            | (Quantization::Float8 { .. }, "Float8QuantizationConfig") => mode,
            (Quantization::Int4 { .. }, "Int4QuantizationConfig") => {
                let block = part("block_size").and_then(json::Value::as_i64).unwrap_or(-1);
                Quantization::Int4 { block: usize::try_from(block).ok().filter(|block| *block > 0) }
            }
            _ => {
                fields.unsupported("quantization_config", config, "the configuration of the layer's dtype policy");
                mode
            }
        };
        let inputs = part("activation_quantizer").and_then(|quantizer| {
            let read = AbsMax::read(quantizer);
            if read.is_none() {
                fields.unsupported("activation_quantizer", quantizer, "AbsMaxQuantizer");
            }
            read
        });
        Some(Self { mode, inputs })
    }

    /// The weights of a kernel of `rows` by `columns`, of which the columns are packed and each has a scale; `name` is
    /// Keras's name of the kernel, `names` those of its scale and its zero.
    pub(crate) fn kernel(&self, name: &'static str, rows: usize, columns: usize) -> Weight {
        let columns = match self.mode {
            Quantization::Int4 { .. } => columns.div_ceil(2),
            _ => columns,
        };
        let kernel = Weight::as_keras(name, vec![rows, columns]);
        match self.mode {
            Quantization::Float8 { .. } => kernel,
            _ => kernel.of(Dtype::Int8).not_trained(),
        }
    }

    /// The weights of a table of `rows` by `columns`, each row of which has a scale.
    pub(crate) fn embeddings(
        &self,
        name: &'static str,
        rows: usize,
        columns: usize,
    ) -> std::result::Result<Vec<Weight>, String> {
        let mut weights = vec![self.kernel(name, rows, columns)];
        match self.mode {
            Quantization::Float8 { .. } => return Err("float8 is not a form of embeddings".to_owned()),
            Quantization::Int4 { block: Some(block) } => {
                let groups = vec![rows, columns.div_ceil(block)];
                weights.push(Weight::as_keras("embeddings_scale", groups.clone()).not_trained());
                weights.push(Weight::as_keras("embeddings_zero", groups).of(Dtype::Int8).not_trained());
                weights.push(Weight::as_keras("g_idx", vec![columns]).of(Dtype::Float32).not_trained());
            }
            _ => weights.push(Weight::as_keras("embeddings_scale", vec![rows]).not_trained()),
        }
        Ok(weights)
    }

    /// The rows `ids` `(count,)` of a table with the weights of [`embeddings`](Self::embeddings): `(count, columns)`.
    pub(crate) fn rows(&self, weights: &[Tensor], ids: &Tensor, columns: usize) -> Result<Tensor> {
        let [table, scale, rest @ ..] = weights else { bail!("a quantized table without its scale") };
        let (table, scale) = (table.index_select(ids, 0)?, scale.index_select(ids, 0)?);
        let integers = match self.mode {
            Quantization::Int4 { .. } => unpack_int4(&table, columns, scale.dtype())?,
            _ => table.to_dtype(scale.dtype())?,
        };
        match (self.mode, rest) {
            (Quantization::Int4 { block: Some(_) }, [zero, groups, ..]) => {
                dequantized(&integers, &scale, &zero.index_select(ids, 0)?, groups, 1)
            }
            _ => integers.broadcast_div(&scale.unsqueeze(1)?),
        }
    }

    /// The weights of float8 that follow the kernel and the bias; only the scales matter at inference.
    pub(crate) fn float8_weights(history: usize) -> Vec<Weight> {
        let scale = |name| Weight::as_keras(name, Vec::new()).of(Dtype::Float32).not_cast();
        let history = |name| Weight::as_keras(name, vec![history]).of(Dtype::Float32).not_cast();
        vec![
            scale("inputs_scale"),
            history("inputs_amax_history"),
            scale("kernel_scale"),
            history("kernel_amax_history"),
            scale("outputs_grad_scale"),
            history("outputs_grad_amax_history"),
        ]
    }
}

impl AbsMax {
    fn read(value: &json::Value) -> Option<Self> {
        let config =
            value.get("config").filter(|_| value.get("class_name").is_some_and(|class| class == "AbsMaxQuantizer"))?;
        let number = |value: &json::Value| json::number(value);
        let [least, most] = config.get("value_range")?.as_array()?.as_slice() else { return None };
        let eight_bits = config.get("output_dtype").is_none_or(|dtype| dtype == "int8");
        let range = (number(least)?, number(most)?);
        eight_bits.then_some(Self { range, epsilon: number(config.get("epsilon")?)? })
    }

    /// What Keras takes where nothing is said: eight bits.
    pub(crate) fn eight_bits() -> Self {
        INT8
    }

    /// The integers that stand for `xs`, and the scale of each slice along `axes`, which stay with size 1. Each step is
    /// rounded to the compute dtype.
    pub(crate) fn quantize_along(&self, xs: &Tensor, axes: &[usize], policy: &Policy) -> Result<(Tensor, Tensor)> {
        let largest = axes.iter().try_fold(xs.abs()?, |xs, axis| xs.max_keepdim(*axis))?;
        let largest = policy.rounded((largest + self.epsilon)?)?.detach();
        let scale = policy.rounded((constant_like(&largest, self.range.1)? / largest)?)?;
        let rounded = round_half_to_even(&policy.rounded(xs.broadcast_mul(&scale)?)?)?;
        Ok((rounded.clamp(self.range.0, self.range.1)?, scale))
    }

    /// The integers that stand for the rows of `xs`, and the scale of each row: `xs ≈ integers / scale`. Gradients pass as if
    /// nothing had been rounded.
    pub(crate) fn quantize(&self, xs: &Tensor, policy: &Policy) -> Result<(Tensor, Tensor)> {
        self.quantize_along(xs, &[xs.rank().saturating_sub(1)], policy)
    }
}

/// Rounds ties to even, for numbers below 2²²; to the gradient it is the identity.
fn round_half_to_even(xs: &Tensor) -> Result<Tensor> {
    // Adding 1.5 · 2²³ (2⁵² in float64) leaves no bit for a fraction, and the processor rounds ties to even.
    let shift = if xs.dtype() == DType::F64 { 6_755_399_441_055_744.0 } else { 12_582_912.0 };
    (xs + shift)? - shift
}

/// `xs · integers / (scale · the scale of xs)`: a product with a kernel of integers. `integers` `(rows, columns)`, `scale`
/// `(columns,)`. The sum of products of integers is exact, as in Keras; what follows is rounded to the compute dtype.
pub(crate) fn integer_product(
    xs: &Tensor,
    inputs: Option<AbsMax>,
    integers: &Tensor,
    scale: &Tensor,
    policy: &Policy,
) -> Result<Tensor> {
    let (xs, scale) = match inputs {
        None => return policy.rounded(xs.matmul(&integers.to_dtype(xs.dtype())?)?)?.broadcast_div(scale),
        Some(inputs) => {
            let (integers, of_inputs) = inputs.quantize(xs, policy)?;
            (integers, policy.rounded(of_inputs.broadcast_mul(scale)?)?)
        }
    };
    let product = xs.to_dtype(DType::F64)?.matmul(&integers.to_dtype(DType::F64)?)?;
    policy.rounded(product)?.to_dtype(xs.dtype())?.broadcast_div(&scale)
}

/// The four-bit integers that are packed in pairs along the last axis of `packed`, the lower half first; `size` of them in
/// each row. In dtype `dtype`.
pub(crate) fn unpack_int4(packed: &Tensor, size: usize, dtype: DType) -> Result<Tensor> {
    let Some((width, outer)) = packed.dims().split_last() else { bail!("packed integers without an axis") };
    let bytes = packed.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let signed = |half: i64| f64::from(u8::try_from(half).unwrap_or_default() ^ 8) - 8.0;
    let mut numbers = Vec::with_capacity(bytes.len() * 2);
    for row in bytes.chunks((*width).max(1)) {
        let halves = row.iter().flat_map(|byte| [byte & 15, (byte >> 4) & 15]);
        numbers.extend(halves.take(size).map(signed));
    }
    let shape: Vec<usize> = outer.iter().copied().chain([size]).collect();
    Tensor::from_vec(numbers, shape, packed.device())?.to_dtype(dtype)
}

/// `(integers − zero) · scale`, both by group: `groups` has the group of each index along `axis`, which `scale` and `zero`
/// have in place of it.
pub(crate) fn dequantized(
    integers: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    groups: &Tensor,
    axis: usize,
) -> Result<Tensor> {
    let groups = groups.to_dtype(DType::I64)?;
    let known = i64::try_from(scale.dim(axis)?)?;
    if let Some(group) = groups.to_vec1::<i64>()?.into_iter().find(|group| !(0..known).contains(group)) {
        bail!("g_idx names group {group} of {known}")
    }
    let scale = scale.index_select(&groups, axis)?;
    let zero = zero.to_dtype(scale.dtype())?.index_select(&groups, axis)?;
    (integers.to_dtype(scale.dtype())? - zero)? * scale
}

/// `xs` as float8 (e4m3fn) has it, scaled: rounded to three bits of fraction, at most ±448, smallest step 2⁻⁹. Gradients
/// pass as if nothing had been rounded.
pub(crate) fn through_float8(xs: &Tensor, scale: &Tensor) -> Result<Tensor> {
    const LARGEST: f64 = 448.0;
    let scale = scale.to_dtype(xs.dtype())?;
    let scaled = xs.broadcast_div(&scale)?.clamp(-LARGEST, LARGEST)?;
    let numbers = scaled.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let round = |number: f64| {
        if number == 0.0 || !number.is_finite() {
            return number;
        }
        let step = (number.abs().log2().floor().max(-6.0) - 3.0).exp2();
        (number / step).round_ties_even() * step
    };
    let rounded = Tensor::from_vec(numbers.into_iter().map(round).collect::<Vec<_>>(), xs.shape(), xs.device())?;
    let rounded = rounded.to_dtype(xs.dtype())?;
    // A number and its rounding differ by less than either, so this sum is exact.
    (&scaled + (rounded - &scaled)?.detach())?.broadcast_mul(&scale)
}
