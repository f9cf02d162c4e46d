//! Keras's activation functions, by name. Source: keras/src/activations/activations.py and keras/src/backend/*/nn.py.

use candle_core::{D, DType, Result, Tensor, bail};
use kandle_format::{
    Dtype, ErrorKind, Problem,
    json::{self, Value},
};

use crate::{
    Family, Fields, Inner, Lowered, Policy, Primitive, Spec, dialect,
    numeric::{cast, constant_like, times, wide},
    primitive::Curve,
    registry,
};

/// What a layer does to its result: an activation function by name, or a whole layer without weights
/// (`Dense(5, activation=LeakyReLU(0.1))`).
#[derive(Debug)]
pub enum Activation {
    /// A function, with the parameters its bare name stands for.
    Function(Function),
    /// A layer that has no weights.
    Layer(Inner),
}

/// An activation function, by Keras's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the Keras name in NAMES, its formula in `apply`")]
pub enum Function {
    Linear,
    Relu,
    LeakyRelu,
    Relu6,
    Softmax,
    Celu,
    Elu,
    Selu,
    Softplus,
    Softsign,
    Squareplus,
    SoftShrink,
    SparsePlus,
    Silu,
    Gelu,
    /// The approximation of `gelu` by tanh, which no name stands for.
    ApproximateGelu,
    Glu,
    Tanh,
    TanhShrink,
    Sigmoid,
    SparseSigmoid,
    Exponential,
    HardSigmoid,
    /// `hard_sigmoid` of Keras 1 and 2.
    OldHardSigmoid,
    HardSilu,
    HardTanh,
    HardShrink,
    Mish,
    LogSoftmax,
    LogSigmoid,
    Sparsemax,
}

/// Keras's names, aliases after the name that Keras writes.
const NAMES: &[(&str, Function)] = &[
    ("linear", Function::Linear),
    ("relu", Function::Relu),
    ("leaky_relu", Function::LeakyRelu),
    ("relu6", Function::Relu6),
    ("softmax", Function::Softmax),
    ("celu", Function::Celu),
    ("elu", Function::Elu),
    ("selu", Function::Selu),
    ("softplus", Function::Softplus),
    ("softsign", Function::Softsign),
    ("squareplus", Function::Squareplus),
    ("soft_shrink", Function::SoftShrink),
    ("sparse_plus", Function::SparsePlus),
    ("silu", Function::Silu),
    ("swish", Function::Silu),
    ("gelu", Function::Gelu),
    ("glu", Function::Glu),
    ("tanh", Function::Tanh),
    ("tanh_shrink", Function::TanhShrink),
    ("sigmoid", Function::Sigmoid),
    ("sparse_sigmoid", Function::SparseSigmoid),
    ("exponential", Function::Exponential),
    ("hard_sigmoid", Function::HardSigmoid),
    ("hard_silu", Function::HardSilu),
    ("hard_swish", Function::HardSilu),
    ("hard_tanh", Function::HardTanh),
    ("hard_shrink", Function::HardShrink),
    ("mish", Function::Mish),
    ("log_softmax", Function::LogSoftmax),
    ("log_sigmoid", Function::LogSigmoid),
    ("sparsemax", Function::Sparsemax),
];

/// What names stand for in Keras 1 and 2, or, where Keras had no such function yet, in every program that had.
///
/// Keras: these versions write a function of the user's own by its bare name. A `gelu` before 2.4 may be either of two, the
/// slope of a `leaky_relu` any.
const OLD_NAMES: &[(&str, Function)] = &[
    ("linear", Function::Linear),
    ("relu", Function::Relu),
    ("relu6", Function::Relu6),
    ("softmax", Function::Softmax),
    ("elu", Function::Elu),
    ("selu", Function::Selu),
    ("softplus", Function::Softplus),
    ("softsign", Function::Softsign),
    ("silu", Function::Silu),
    ("swish", Function::Silu),
    ("tanh", Function::Tanh),
    ("sigmoid", Function::Sigmoid),
    ("exponential", Function::Exponential),
    ("hard_sigmoid", Function::OldHardSigmoid),
    ("mish", Function::Mish),
    ("log_softmax", Function::LogSoftmax),
    ("gelu", Function::Gelu),
];

/// Names that no version of Keras has for an activation, for what a model would give if its file meant another: see
/// [`Registry::with_other_functions`](crate::Registry::with_other_functions).
const OTHER_NAMES: &[(&str, Function)] = &[
    ("hard_sigmoid of Keras 2", Function::OldHardSigmoid),
    ("hard_sigmoid of Keras 3", Function::HardSigmoid),
    ("gelu by tanh", Function::ApproximateGelu),
    ("gelu by erf", Function::Gelu),
];

/// Slope of `leaky_relu` as a name. Keras: the LeakyReLU layer's default is 0.3.
const LEAKY_SLOPE: f64 = 0.2;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

impl Activation {
    /// The activation that the value of `key` stands for: a name, a serialized function of Keras's own, or a layer.
    /// What is not understood is noted in `fields`.
    pub(crate) fn read(fields: &mut Fields<'_>, key: &str, value: &Value) -> Self {
        if let Some(function) = Function::read(value, fields) {
            return Self::Function(function);
        }
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        match registry::find(class) {
            Some(registered) if registered.family == Family::Activations && registered.class != "PReLU" => {
                if let Some(inner) = Inner::read(fields, key, value) {
                    return Self::Layer(inner);
                }
            }
            _ if value.get("config").is_some_and(Value::is_object) => {
                fields.unsupported(key, &Value::from(class), "built-in activations and activation layers")
            }
            _ if dialect::is_legacy(fields.keras_major()) && value.as_str().and_then(Function::named).is_some() => {
                let version = kandle_format::shown(fields.context().keras_version.unwrap_or("1"));
                let name = json::shown(value);
                fields.refuse(format!(
                    "{key} = {name} is not of Keras {version}, but a function of the program that wrote the file, which does not say what it computes"
                ));
            }
            _ => fields.unsupported(key, value, "the names of built-in activations"),
        }
        Self::Function(Function::Linear)
    }

    /// Shape and dtype of what comes out.
    ///
    /// # Errors
    /// Where Keras would not build.
    pub fn output(&self, input: &Spec) -> std::result::Result<Spec, Problem> {
        match self {
            Self::Function(function) => function.output(input),
            Self::Layer(layer) => match layer.output(std::slice::from_ref(input))?.as_slice() {
                [only] => Ok(only.clone()),
                outputs => {
                    Err(Problem::new(ErrorKind::Invalid, "", format!("an activation with {} outputs", outputs.len())))
                }
            },
        }
    }

    /// Applies it to a value that a layer with `policy` computed.
    ///
    /// Keras: an activation layer has a dtype policy of its own, and what it gives is what the outer layer gives.
    ///
    /// # Errors
    /// As [`Function::apply`].
    pub fn apply(&self, value: &crate::Value, policy: &Policy) -> Result<crate::Value> {
        match self {
            Self::Function(function) => function.apply_to(value),
            Self::Layer(layer) => {
                let tensor = &value.tensor;
                let tensor = if value.dtype.is_float() { policy.rounded(tensor.clone())? } else { tensor.clone() };
                let given = value.with_tensor(tensor);
                match layer.call(std::slice::from_ref(&given), &[])?.pop() {
                    Some(only) => Ok(only),
                    None => bail!("an activation without an output"),
                }
            }
        }
    }

    /// `chain` with this activation behind it, as [`KerasLayer::primitives`](crate::KerasLayer::primitives) has it.
    pub(crate) fn after(&self, mut chain: Vec<Primitive>, lowered: Lowered<'_>) -> Result<Option<Vec<Primitive>>> {
        let more = match self {
            Self::Function(function) => function.primitives(),
            Self::Layer(layer) if layer.policy == *lowered.given.policy() => layer.layer.primitives(lowered)?,
            Self::Layer(_) => None,
        };
        chain.extend(match more {
            Some(more) => more,
            None => return Ok(None),
        });
        Ok(Some(chain))
    }

    /// Whether it is a layer that computes in float32 whatever the layer around it computes in.
    pub(crate) fn keeps_float32(&self) -> bool {
        matches!(self, Self::Layer(layer) if layer.policy.compute == Dtype::Float32)
    }

    /// The dtype that it computes in, where it has one of its own.
    pub(crate) fn computed_in(&self) -> Option<Dtype> {
        match self {
            Self::Function(_) => None,
            Self::Layer(layer) => Some(layer.policy.compute),
        }
    }
}

impl Function {
    /// The function a configuration value stands for: a name, or a serialized function that is Keras's own.
    fn read(value: &Value, fields: &Fields<'_>) -> Option<Self> {
        let name = match value {
            Value::String(name) => name,
            object => {
                let text = |key: &str| object.get(key).and_then(Value::as_str);
                let own = text("module")
                    .is_none_or(|module| module == "builtins" || module.split('.').next() == Some("keras"));
                let function = text("class_name") == Some("function")
                    && !text("registered_name").unwrap_or_default().contains('>');
                text("config").filter(|_| own && function)?
            }
        };
        if fields.context().custom.is_some_and(crate::Registry::has_other_functions)
            && let Some(other) = OTHER_NAMES.iter().find(|entry| entry.0 == name)
        {
            return Some(other.1);
        }
        if !dialect::is_legacy(fields.keras_major()) {
            return Self::named(name);
        }
        let function = OLD_NAMES.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
        function.filter(|function| *function != Self::Gelu || fields.is_from([2, 4, 0]))
    }

    /// The function that Keras 3 has under that name.
    fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    /// Every name Keras has for an activation, aliases included.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|entry| entry.0)
    }

    /// The name Keras writes: `relu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().chain(OLD_NAMES).chain(OTHER_NAMES).find(|entry| entry.1 == self).map_or("", |entry| entry.0)
    }

    /// Shape and dtype of what comes out: those of what goes in, but for `glu`, which halves the last axis.
    fn output(self, input: &Spec) -> std::result::Result<Spec, Problem> {
        if !input.dtype.is_float() {
            return Ok(Spec { dtype: self.output_of_integers(input.dtype)?, ..input.clone() });
        }
        if self != Self::Glu {
            return Ok(input.clone());
        }
        let half = match input.shape.last() {
            Some(size) if size % 2 == 1 => {
                let what = format!("glu halves the last axis, expected an even size, found {size}");
                return Err(Problem::new(ErrorKind::Invalid, "", what));
            }
            size => size.map(|size| size / 2),
        };
        Ok(input.with_shape(input.shape.clone().with_last(half)))
    }

    /// The dtype that integers or bools of `dtype` come out in.
    ///
    /// # Errors
    /// Most functions take floats alone.
    fn output_of_integers(self, dtype: Dtype) -> std::result::Result<Dtype, Problem> {
        match self {
            Self::Linear => Ok(dtype),
            Self::Tanh | Self::Exponential if dtype != Dtype::String => Ok(Dtype::Float32),
            Self::Relu | Self::Relu6 if dtype.is_integer() => Ok(dtype),
            Self::LeakyRelu if dtype.is_integer() => Ok(Dtype::Float32),
            _ => {
                let what = format!("{} of {dtype} is not supported (only floats)", self.name());
                Err(Problem::new(ErrorKind::Unsupported, "", what))
            }
        }
    }

    /// Whether it is among the primitives, a function of a single number.
    pub(crate) fn is_of_numbers(self) -> bool {
        self.primitives().is_some_and(|chain| chain.iter().all(|primitive| matches!(primitive, Primitive::Map(_))))
    }

    /// It as primitives, where there are some.
    pub(crate) fn primitives(self) -> Option<Vec<Primitive>> {
        Some(match self {
            Self::Linear => vec![],
            Self::Softmax => vec![Primitive::Softmax],
            Self::Relu => vec![Primitive::Map(Curve::Relu { most: f32::INFINITY })],
            Self::Relu6 => vec![Primitive::Map(Curve::Relu { most: 6.0 })],
            Self::LeakyRelu => vec![Primitive::Map(Curve::LeakyRelu { slope: LEAKY_SLOPE as f32 })],
            Self::Elu => vec![Primitive::Map(Curve::Elu { alpha: 1.0 })],
            Self::Sigmoid | Self::Tanh | Self::Silu | Self::Gelu | Self::Exponential | Self::Selu => {
                vec![Primitive::Map(Curve::Function(self))]
            }
            Self::HardSigmoid | Self::OldHardSigmoid | Self::HardSilu | Self::HardTanh | Self::Softsign => {
                vec![Primitive::Map(Curve::Function(self))]
            }
            _ => return None,
        })
    }

    /// Applies the function to a value of any dtype.
    fn apply_to(self, value: &crate::Value) -> Result<crate::Value> {
        if value.dtype.is_float() {
            return Ok(value.with_tensor(self.apply(&value.tensor)?));
        }
        let dtype =
            self.output_of_integers(value.dtype).map_err(|problem| candle_core::Error::msg(problem.to_string()))?;
        if dtype == Dtype::Float32 {
            let value = cast(value, dtype)?;
            return Ok(value.with_tensor(self.apply(&value.tensor)?));
        }
        let most = if self == Self::Relu6 { 6.0 } else { f64::INFINITY };
        if self == Self::Linear { Ok(value.clone().with_mask(None)) } else { relu_of_integers(value, 0.0, most) }
    }

    /// Applies the function to a floating-point tensor of any shape; `softmax`, `log_softmax`, `sparsemax` and `glu`
    /// work along the last axis, all others on each number. Differentiable; NaN is what Keras makes of it.
    ///
    /// # Errors
    /// Where candle cannot compute, and for integers.
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        if !xs.dtype().is_float() {
            bail!("{} of {:?} numbers: activations take floats", self.name(), xs.dtype());
        }
        match self {
            Self::Linear => Ok(xs.clone()),
            Self::Relu => relu(xs),
            Self::Relu6 => clip(xs, 0.0, 6.0),
            Self::LeakyRelu => leaky_relu(xs, LEAKY_SLOPE),
            Self::HardTanh => clip(xs, -1.0, 1.0),
            Self::HardSigmoid => hard_sigmoid(xs),
            Self::OldHardSigmoid => old_hard_sigmoid(xs),
            Self::HardSilu => xs * hard_sigmoid(xs)?,
            // Keras: NaN is not beyond the threshold and becomes 0.
            Self::HardShrink => xs.abs()?.gt(0.5)?.where_cond(xs, &xs.zeros_like()?),
            Self::SoftShrink => {
                let below = xs.lt(-0.5)?.where_cond(&(xs + 0.5)?, &xs.zeros_like()?)?;
                xs.gt(0.5)?.where_cond(&(xs - 0.5)?, &below)
            }
            Self::SparsePlus => {
                let curve = ((xs + 1.0)?.sqr()? * 0.25)?;
                let right = xs.lt(1.0)?.where_cond(&curve, xs)?;
                xs.le(-1.0)?.where_cond(&xs.zeros_like()?, &right)
            }
            Self::SparseSigmoid => {
                let right = xs.ge(1.0)?.where_cond(&constant_like(xs, 1.0)?, &((xs + 1.0)? * 0.5)?)?;
                xs.le(-1.0)?.where_cond(&xs.zeros_like()?, &right)
            }
            Self::Softsign => xs / (xs.abs()? + 1.0)?,
            Self::Squareplus => (xs + (xs.sqr()? + 4.0)?.sqrt()?)? / 2.0,
            Self::Tanh => wide(xs, Tensor::tanh),
            Self::TanhShrink => wide(xs, |xs| xs - xs.tanh()?),
            Self::Exponential => wide(xs, Tensor::exp),
            Self::Sigmoid => wide(xs, sigmoid),
            Self::Silu => wide(xs, |xs| xs * sigmoid(xs)?),
            Self::Softplus => wide(xs, softplus),
            Self::LogSigmoid => wide(xs, |xs| softplus(&xs.neg()?)?.neg()),
            Self::Mish => wide(xs, |xs| xs * softplus(xs)?.tanh()?),
            Self::Gelu => wide(xs, |xs| times(xs, 0.5)? * ((xs / std::f64::consts::SQRT_2)?.erf()? + 1.0)?),
            Self::ApproximateGelu => wide(xs, |xs| times(xs, 0.5)? * (gelu_inner(xs)?.tanh()? + 1.0)?),
            Self::Elu => wide(xs, |xs| xs.gt(0.0)?.where_cond(xs, &expm1_below_zero(xs)?)),
            Self::Celu => wide(xs, |xs| relu(xs)? + expm1_below_zero(xs)?),
            Self::Selu => wide(xs, |xs| {
                let below = times(&expm1_below_zero(xs)?, SELU_ALPHA)?;
                times(&xs.gt(0.0)?.where_cond(xs, &below)?, SELU_SCALE)
            }),
            Self::Softmax => wide(xs, |xs| softmax(xs, xs.rank().saturating_sub(1))),
            Self::LogSoftmax => wide(xs, |xs| {
                let below = below_largest(xs)?;
                below.broadcast_sub(&below.exp()?.sum_keepdim(D::Minus1)?.log()?)
            }),
            Self::Sparsemax => wide(xs, sparsemax),
            Self::Glu => wide(xs, |xs| {
                let half = xs.dim(D::Minus1)? / 2;
                xs.narrow(D::Minus1, 0, half)? * sigmoid(&xs.narrow(D::Minus1, half, half)?)?
            }),
        }
    }
}

/// `√(2/π) · (x + 0.044715 x³)`, of which gelu by tanh takes the tanh.
fn gelu_inner(xs: &Tensor) -> Result<Tensor> {
    times(&(xs + times(&xs.powf(3.0)?, 0.044_715)?)?, (2.0 / std::f64::consts::PI).sqrt())
}

/// `max(x, 0)`, NaN where x is NaN (candle's own relu gives 0 there).
pub(crate) fn relu(xs: &Tensor) -> Result<Tensor> {
    xs.le(0.0)?.where_cond(&xs.zeros_like()?, xs)
}

/// `x` where positive, else `slope · x`.
pub(crate) fn leaky_relu(xs: &Tensor, slope: f64) -> Result<Tensor> {
    xs.gt(0.0)?.where_cond(xs, &times(xs, slope)?)
}

/// `x` where above `threshold`, at most `most`, else 0, of integers.
///
/// Keras: both bounds are cast to the integers' dtype.
pub(crate) fn relu_of_integers(value: &crate::Value, threshold: f64, most: f64) -> Result<crate::Value> {
    // int64 holds them all.
    let xs = value.tensor.to_dtype(DType::I64)?;
    let ys = xs.gt(threshold.trunc())?.where_cond(&xs, &xs.zeros_like()?)?;
    let ys = if most.is_finite() { clip(&ys, 0.0, most.trunc())? } else { ys };
    Ok(value.with_tensor(ys.to_dtype(value.tensor.dtype())?))
}

/// `x` held between two bounds; NaN stays NaN, and of two zeros the bound is taken.
pub(crate) fn clip(xs: &Tensor, least: f64, most: f64) -> Result<Tensor> {
    let above = xs.le(least)?.where_cond(&constant_like(xs, least)?, xs)?;
    above.gt(most)?.where_cond(&constant_like(xs, most)?, &above)
}

/// Keras: `relu6(x + 3) / 6`. Keras 1 and 2 have [another](old_hard_sigmoid) function of this name.
fn hard_sigmoid(xs: &Tensor) -> Result<Tensor> {
    clip(&(xs + 3.0)?, 0.0, 6.0)? / constant_like(xs, 6.0)?
}

/// Keras 1 and 2: `clip(0.2x + 0.5, 0, 1)`.
fn old_hard_sigmoid(xs: &Tensor) -> Result<Tensor> {
    clip(&((xs * constant_like(xs, 0.2)?)? + 0.5)?, 0.0, 1.0)
}

fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    (xs.neg()?.exp()? + 1.0)?.recip()
}

/// `log(1 + eˣ)` without overflow, exact also where eˣ is lost beside 1.
fn softplus(xs: &Tensor) -> Result<Tensor> {
    const EXP_ALONE: f64 = -17.0;
    let small = clip(xs, f64::MIN, 0.0)?.exp()?;
    let stable = (relu(xs)? + (xs.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    xs.lt(EXP_ALONE)?.where_cond(&small, &stable)
}

/// `eˣ − 1` for x below zero, 0 above; the cut keeps the unused side of a choice finite, and with it its gradient.
pub(crate) fn expm1_below_zero(xs: &Tensor) -> Result<Tensor> {
    // 2t / (1 − t) with t = tanh(x / 2): no difference of nearly equal numbers.
    let below = xs.gt(0.0)?.where_cond(&xs.zeros_like()?, xs)?;
    let half = times(&below, 0.5)?.tanh()?;
    times(&half, 2.0)? / (1.0 - &half)?
}

/// `eˣ / Σ eˣ` along an axis.
///
/// Keras: on TensorFlow the largest is that of the numbers that are none of NaN; where the sum is NaN all the same, what is
/// NaN or as large as an infinity is NaN, and everything beside it 0.
pub(crate) fn softmax(xs: &Tensor, axis: usize) -> Result<Tensor> {
    let known = xs.eq(xs)?.where_cond(xs, &constant_like(xs, f64::NEG_INFINITY)?)?;
    let below = xs.broadcast_sub(&known.max_keepdim(axis)?.detach())?;
    let powers = below.exp()?;
    let sum = powers.sum_keepdim(axis)?;
    let ys = powers.broadcast_div(&sum)?;
    // Without NaN, every number differs from none.
    let lost = below.eq(&below)?.broadcast_mul(&sum.ne(&sum)?)?;
    lost.where_cond(&ys.zeros_like()?, &ys)
}

/// `x − max x` along the last axis. The largest is a constant to the gradient: it cancels.
fn below_largest(xs: &Tensor) -> Result<Tensor> {
    xs.broadcast_sub(&xs.max_keepdim(D::Minus1)?.detach())
}

/// `max(x − τ, 0)` along the last axis. With z = x sorted downwards and Sⱼ = z₁ + … + zⱼ, the support is every j with
/// zⱼ > (Sⱼ − 1) / j, and k their number.
///
/// Keras: τ = (Σ Sⱼ over the support − 1) / k. The sparsemax of Martins and Astudillo (2016) has Sₖ there, so that the
/// result sums to 1; Keras's does so only where k is 1. `[4, 4, 0]` gives `[0, 0, 0]`, not `[0.5, 0.5, 0]`.
///
/// # Errors
/// Where a number is NaN: what comes out depends on where TensorFlow's own steps of sorting leave it.
fn sparsemax(xs: &Tensor) -> Result<Tensor> {
    let known = xs.detach().eq(&xs.detach())?.flatten_all()?;
    if known.elem_count() > 0 && known.min(0)?.to_scalar::<u8>()? == 0 {
        bail!("a sparsemax of NaN has no order that could be reproduced");
    }
    let (sorted, _) = xs.contiguous()?.sort_last_dim(false)?;
    let counts = Tensor::arange(1, u32::try_from(xs.dim(D::Minus1)?)? + 1, xs.device())?.to_dtype(xs.dtype())?;
    // candle's own cumsum is a product with zeros and ones, which makes NaN of infinities.
    let sums: Vec<Tensor> = (0..sorted.dim(D::Minus1)?)
        .scan(None, |sum: &mut Option<Tensor>, place| {
            let next = sorted.narrow(D::Minus1, place, 1).and_then(|xs| match sum.take() {
                Some(sum) => sum + xs,
                None => Ok(xs),
            });
            *sum = next.as_ref().ok().cloned();
            Some(next)
        })
        .collect::<Result<_>>()?;
    let sums = Tensor::cat(&sums, D::Minus1)?;
    let support = sorted.gt(&(&sums - 1.0)?.broadcast_div(&counts)?)?;
    let kept = support.to_dtype(xs.dtype())?.sum_keepdim(D::Minus1)?;
    let sum = support.where_cond(&sums, &sums.zeros_like()?)?.sum_keepdim(D::Minus1)?;
    relu(&xs.broadcast_sub(&((sum - 1.0)? / kept)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};
    use kandle_format::{Limits, json};

    use super::{Activation, Function, NAMES};
    use crate::{Fields, fields::Context};

    /// What `text` stands for, and what was found wrong with it.
    fn read(text: &str) -> (Activation, Vec<String>) {
        let (value, none) = (json::parse(text.as_bytes(), "t", &Limits::default()).unwrap(), json::Map::new());
        let mut fields = Fields::new(&none, "layer \"x\"", Context::default());
        let activation = Activation::read(&mut fields, "activation", &value);
        (activation, fields.finish().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_keras_functions_and_layers_are_read_and_nothing_else() {
        let function =
            r#"{"module": "keras.activations", "class_name": "function", "config": "gelu", "registered_name": "gelu"}"#;
        for (text, expected) in
            [(r#""relu""#, Function::Relu), (r#""swish""#, Function::Silu), (function, Function::Gelu)]
        {
            assert!(
                matches!(read(text), (Activation::Function(found), problems) if found == expected && problems.is_empty())
            );
        }
        let layer = r#"{"module": "keras.layers", "class_name": "ReLU", "config": {"name": "r", "max_value": 6.0}}"#;
        assert!(matches!(read(layer), (Activation::Layer(_), problems) if problems.is_empty()));
        let names = "(only the names of built-in activations)";
        let layers = "(only built-in activations and activation layers)";
        for (text, problem) in [
            (r#""threshold""#, format!("layer \"x\": activation = \"threshold\" is not supported {names}")),
            (r#""Relu""#, format!("layer \"x\": activation = \"Relu\" is not supported {names}")),
            ("3", format!("layer \"x\": activation = 3 is not supported {names}")),
            (
                r#"{"module": "mine", "class_name": "ReLU", "config": {"name": "r"}}"#,
                "layer \"x\" › activation \"r\" (ReLU): this class is not Keras's own: it comes from mine".to_owned(),
            ),
            (
                r#"{"module": "keras.layers", "class_name": "Dense", "config": {}}"#,
                format!("layer \"x\": activation = \"Dense\" is not supported {layers}"),
            ),
            (
                r#"{"module": "keras.layers", "class_name": "ReLU", "config": {"name": "r", "surprise": 1}}"#,
                "layer \"x\" › activation \"r\" (ReLU): surprise = 1 is not known for this layer".to_owned(),
            ),
        ] {
            assert_eq!(read(text).1, [problem]);
        }
        for config in
            [r#""module": "builtins", "registered_name": "m>relu""#, r#""module": "mine", "registered_name": "relu""#]
        {
            let text = format!(r#"{{"class_name": "function", "config": "relu", {config}}}"#);
            assert_eq!(read(&text).1.len(), 1, "{text}");
        }
    }

    #[test]
    fn every_activation_has_a_finite_gradient_everywhere() {
        let numbers: Vec<f32> = vec![-90.0, -20.0, -3.0, -1.0, -0.5, 0.0, 1e-6, 0.4, 1.0, 2.5, 20.0, 80.0];
        for (name, function) in NAMES {
            let xs = Var::from_vec(numbers.clone(), (2, 6), &Device::Cpu).unwrap();
            let ys = function.apply(xs.as_tensor()).unwrap();
            let gradients = (&ys * &ys).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = gradients.get(xs.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(gradient.iter().all(|slope| !slope.is_nan()), "{name}: {gradient:?}");
            assert!(gradient.iter().any(|slope| *slope != 0.0), "{name} lost its gradient");
        }
    }

    #[test]
    fn integers_are_refused() {
        let xs = Tensor::zeros(3, DType::I64, &Device::Cpu).unwrap();
        assert!(NAMES.iter().all(|(_, function)| function.apply(&xs).is_err()));
    }
}
