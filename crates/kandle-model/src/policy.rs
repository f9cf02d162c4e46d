use kandle_format::{Dtype, json::Value};

use crate::numeric::storage;

/// A layer's dtype policy: what its weights are stored in and what it computes in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// The dtype of its weights.
    pub variable: Dtype,
    /// The dtype that floats are cast to before the layer runs, and that its floats come out in.
    pub compute: Dtype,
    /// How its kernel is stored, where it is quantized.
    pub quantization: Option<Quantization>,
}

/// How `model.quantize` stored a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantization {
    /// Eight bits, one scale a column.
    Int8,
    /// Four bits: with the number of rows that share a scale, or one scale a column.
    Int4 {
        /// Rows in a block; `None` for one scale a column.
        block: Option<usize>,
    },
    /// Float kernels, computed on as if they had eight bits.
    Float8 {
        /// How many of the largest numbers of past steps the file holds; of no use at inference.
        history: usize,
    },
}

/// Keras's default length of the history that float8 keeps.
const HISTORY: usize = 1024;

impl Default for Policy {
    fn default() -> Self {
        Self { variable: Dtype::Float32, compute: Dtype::Float32, quantization: None }
    }
}

impl Policy {
    /// The dtype floats have while a layer runs: float64 if the layer computes in it, else float32, which half precision
    /// is widened to and rounded from.
    #[must_use]
    pub fn arithmetic(&self) -> Dtype {
        if self.compute == Dtype::Float64 { Dtype::Float64 } else { Dtype::Float32 }
    }

    /// `xs` as an operation of Keras's would give it back: rounded where the compute dtype is half precision. For layers of
    /// several operations, between them; the runner rounds what comes out last.
    ///
    /// # Errors
    /// What candle reports.
    pub fn rounded(&self, xs: candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
        match self.compute {
            Dtype::Float16 | Dtype::Bfloat16 => xs.to_dtype(storage(self.compute)?)?.to_dtype(xs.dtype()),
            _ => Ok(xs),
        }
    }

    /// The policy called `name`: a dtype, or `mixed_float16` or `mixed_bfloat16`.
    fn named(name: &str) -> Option<Self> {
        let (variable, compute) = match name {
            "mixed_float16" => (Dtype::Float32, Dtype::Float16),
            "mixed_bfloat16" => (Dtype::Float32, Dtype::Bfloat16),
            name => {
                let dtype = Dtype::from_name(name)?;
                (dtype, dtype)
            }
        };
        Some(Self { variable, compute, quantization: None })
    }

    /// The policy that the value of `dtype` in a configuration stands for; `None` where it is not understood.
    ///
    /// Source: keras/src/dtype_policies/dtype_policy.py.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        if let Some(name) = value.as_str() {
            return Self::named(name).or_else(|| {
                let (mode, source) = name.split_once("_from_")?;
                Self::quantized(mode, source, HISTORY)
            });
        }
        let config = value.get("config")?;
        // Keras: in a map without a default, null stands for the policy of the program that loads the file.
        let text = |key: &str| match config.get(key) {
            Some(Value::Null) => Some("float32"),
            value => value.and_then(Value::as_str),
        };
        match value.get("class_name")?.as_str()? {
            "DTypePolicy" | "FloatDTypePolicy" | "Policy" => Self::named(text("name")?),
            "QuantizedDTypePolicy" | "Int4DTypePolicy" => Self::quantized(text("mode")?, text("source_name")?, HISTORY),
            "QuantizedFloat8DTypePolicy" => {
                let history = config
                    .get("amax_history_length")
                    .map_or(Some(HISTORY), |length| usize::try_from(length.as_u64()?).ok())?;
                Self::quantized("float8", text("source_name")?, history)
            }
            _ => None,
        }
    }

    fn quantized(mode: &str, source: &str, history: usize) -> Option<Self> {
        let quantization = match mode.split('/').collect::<Vec<_>>().as_slice() {
            ["int8"] => Quantization::Int8,
            ["float8"] => Quantization::Float8 { history },
            ["int4"] | ["int4", "-1"] => Quantization::Int4 { block: None },
            ["int4", block] => Quantization::Int4 { block: Some(block.parse().ok().filter(|block| *block > 0)?) },
            _ => return None,
        };
        Some(Self { quantization: Some(quantization), ..Self::named(source)? })
    }
}

#[cfg(test)]
mod tests {
    use kandle_format::Dtype;
    use serde_json::json;

    use super::{Policy, Quantization};

    #[test]
    fn every_form_of_policy_is_read() {
        let plain = |variable, compute| Some(Policy { variable, compute, quantization: None });
        let float32 = |quantization| Some(Policy { quantization: Some(quantization), ..Policy::default() });
        let object = |class: &str, config: serde_json::Value| json!({"class_name": class, "config": config});
        for (value, expected) in [
            (json!("float32"), plain(Dtype::Float32, Dtype::Float32)),
            (json!("mixed_bfloat16"), plain(Dtype::Float32, Dtype::Bfloat16)),
            (object("DTypePolicy", json!({"name": "float64"})), plain(Dtype::Float64, Dtype::Float64)),
            (object("Policy", json!({"name": "mixed_float16"})), plain(Dtype::Float32, Dtype::Float16)),
            (
                object("QuantizedDTypePolicy", json!({"mode": "int8", "source_name": "float32"})),
                float32(Quantization::Int8),
            ),
            (
                object("Int4DTypePolicy", json!({"mode": "int4/128", "source_name": "float32"})),
                float32(Quantization::Int4 { block: Some(128) }),
            ),
            (json!("int4/-1_from_float32"), float32(Quantization::Int4 { block: None })),
            (json!("int4_from_float32"), float32(Quantization::Int4 { block: None })),
            (object("GPTQDTypePolicy", json!({"mode": "gptq/4/128", "source_name": "float32"})), None),
            (json!("complex64"), None),
        ] {
            assert_eq!(Policy::read(&value), expected, "{value}");
        }
    }
}
