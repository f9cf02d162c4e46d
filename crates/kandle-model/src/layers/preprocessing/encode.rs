//! The output modes that the layers of categories share: the numbers themselves, one-hot, multi-hot and counts.
//!
//! Source: keras/src/utils/numerical_utils.py (`encode_categorical_inputs`), keras/src/utils/tf_utils.py.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::Dtype;

use crate::{Fields, Shape, Spec, Value, numeric::storage};

/// What becomes of category numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputMode {
    Int,
    OneHot,
    MultiHot,
    Count,
    TfIdf,
}

impl OutputMode {
    /// The setting `output_mode`, one of `choices`; the first is the default.
    pub(crate) fn read(fields: &mut Fields<'_>, choices: &[(&str, Self)]) -> Self {
        fields.only("sparse", &false.into());
        fields.choice("output_mode", choices).unwrap_or(Self::Int)
    }

    /// The shape of what comes out for numbers of `shape`, of `depth` categories.
    pub(crate) fn shape(self, shape: &Shape, depth: usize) -> Shape {
        let Shape(mut axes) = shape.clone();
        match self {
            Self::Int => return shape.clone(),
            Self::OneHot => {
                if axes.len() > 1 && axes.last() == Some(&Some(1)) {
                    axes.pop();
                }
            }
            // Keras: numbers of rank 3 and more are summed over axis 1, not the last.
            Self::MultiHot | Self::Count | Self::TfIdf => {
                axes.remove(usize::from(axes.len() > 1).min(axes.len().saturating_sub(1)));
            }
        }
        axes.push(Some(depth));
        Shape(axes)
    }

    pub(crate) fn spec(self, shape: &Shape, depth: usize, dtype: Dtype) -> Spec {
        Spec { shape: self.shape(shape, depth), dtype }
    }
}

/// Encodes category numbers of shape `dims`. `weights`, of the same shape, are what each counts in mode count.
///
/// Keras: where the rank is at most 2, multi-hot and counts refuse negative numbers; all else leaves out what is no
/// category.
pub(crate) fn encode(
    numbers: &[i64],
    dims: &[usize],
    mode: OutputMode,
    depth: usize,
    dtype: Dtype,
    weights: Option<&Tensor>,
) -> Result<Value> {
    let value = |tensor: Tensor| Ok(Value::new(tensor.to_dtype(storage(dtype)?)?, dtype));
    if mode == OutputMode::Int {
        return value(Tensor::from_slice(numbers, dims, &Device::Cpu)?);
    }
    let mut dims = if dims.is_empty() { vec![1] } else { dims.to_vec() };
    let counts = !matches!(mode, OutputMode::Int | OutputMode::OneHot);
    if counts && dims.len() <= 2 && numbers.iter().any(|number| *number < 0) {
        bail!("a negative number is no category")
    }
    if mode == OutputMode::OneHot && dims.len() > 1 && dims.last() == Some(&1) {
        dims.pop();
    }
    let Some(size) = numbers.len().checked_mul(depth).filter(|size| *size <= isize::MAX as usize / 4) else {
        bail!("{} numbers of {depth} categories each are too many", numbers.len())
    };
    let mut hot = Vec::new();
    if hot.try_reserve_exact(size).is_err() {
        bail!("{} numbers of {depth} categories each are too many", numbers.len())
    }
    hot.resize(size, 0_u8);
    for (row, number) in hot.chunks_exact_mut(depth.max(1)).zip(numbers) {
        if let Some(one) = usize::try_from(*number).ok().and_then(|number| row.get_mut(number)) {
            *one = 1;
        }
    }
    let shape: Vec<usize> = dims.iter().copied().chain([depth]).collect();
    let hot = Tensor::from_vec(hot, shape, &Device::Cpu)?;
    let axis = usize::from(dims.len() > 1);
    match (mode, weights) {
        (OutputMode::Int | OutputMode::OneHot, _) => value(hot),
        (OutputMode::MultiHot, _) if dims.contains(&0) => value(hot.to_dtype(DType::F32)?.sum(axis)?),
        (OutputMode::MultiHot, _) => value(hot.max(axis)?),
        (OutputMode::Count | OutputMode::TfIdf, None) => {
            // Exact up to 2⁵³.
            value(hot.to_dtype(DType::F64)?.sum(axis)?)
        }
        (OutputMode::Count | OutputMode::TfIdf, Some(weights)) => {
            let weights = weights.reshape(dims)?;
            value(hot.to_dtype(weights.dtype())?.broadcast_mul(&weights.unsqueeze(weights.rank())?)?.sum(axis)?)
        }
    }
}
