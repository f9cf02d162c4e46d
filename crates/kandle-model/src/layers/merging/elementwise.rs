//! `keras.layers.Add`, `Subtract`, `Multiply`, `Average`, `Maximum` and `Minimum`: inputs merged number by number.
//!
//! Shapes: any number of inputs `(batch, …)` (two for Subtract) whose sizes broadcast; an input of lower rank gets axes of
//! size 1 behind the batch axis. Integers merge as integers, and wrap. `Add()([[1, 2]], [[10, 20]])` is `[[11, 22]]`.
//!
//! Keras: masks change values. Where an entry is masked, Multiply counts it as 1 and Maximum and Minimum take the other
//! operand; where all inputs have masks, Multiply gives 0 for what is masked in each. Before Keras 3.4 masks change no value,
//! and what comes out has none; before Keras 3 it counts where all masks that there are allow it.
//!
//! Source: keras/src/layers/merging/base_merge.py and a file for each class.

use std::{fmt::Debug, marker::PhantomData};

use candle_core::{D, Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use super::{
    Masks,
    arithmetic::{Binary, choose, either, result_type},
};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Masking, Policy, Primitive, Shape, Spec, Value,
    layers::cannot,
    numeric::{constant_like, rounded},
    primitive::Merging,
};

/// What a class does with its inputs, which are of one rank.
pub(crate) trait Merge: Debug + Send + Sync {
    /// Its result; with a mask where the class has a rule of its own for it.
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value>;

    /// The dtype of the result, where the inputs together have `dtype`.
    fn dtype(dtype: Dtype) -> Dtype {
        dtype
    }

    /// Its name among the primitives.
    const MERGING: Merging;

    /// The number of inputs it takes, where that is fixed.
    const INPUTS: Option<usize> = None;
}

#[derive(Debug)]
pub(crate) struct Elementwise<M> {
    masks: Masks,
    class: PhantomData<M>,
}

#[derive(Debug)]
pub(crate) struct Add;

#[derive(Debug)]
pub(crate) struct Subtract;

#[derive(Debug)]
pub(crate) struct Multiply;

#[derive(Debug)]
pub(crate) struct Average;

#[derive(Debug)]
pub(crate) struct Maximum;

#[derive(Debug)]
pub(crate) struct Minimum;

impl<M: Merge> KerasLayer for Elementwise<M> {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        Self { masks: Masks::read(fields), class: PhantomData }
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let Some((first, others)) = inputs.split_first() else { return Err(cannot("expected inputs, found none")) };
        if let Some(count) = M::INPUTS.filter(|count| *count != inputs.len()) {
            return Err(cannot(format!("expected {count} inputs, found {}", inputs.len())));
        }
        let mut output = (*first).clone();
        for other in others {
            output =
                Spec { shape: merged(&output.shape, &other.shape)?, dtype: result_type(output.dtype, other.dtype)? };
        }
        if output.dtype == Dtype::Bool && !others.is_empty() {
            return Err(cannot("bool inputs cannot be merged"));
        }
        Ok(vec![Spec { dtype: M::dtype(output.dtype), ..output }])
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let inputs = call.given.inputs();
        let rank = inputs.iter().map(|input| input.tensor.rank()).max().unwrap_or(0);
        let aligned = inputs.into_iter().map(|input| {
            let input = with_rank(input, rank)?;
            Ok(if self.masks == Masks::Any { input } else { input.with_mask(None) })
        });
        Ok(vec![M::merge(&aligned.collect::<Result<Vec<Value>>>()?, call.given.policy())?])
    }

    fn masking(&self) -> Masking {
        Masking::Computes
    }

    /// Any input without a mask: none. Else what is in any of them.
    fn compute_mask(&self, _: Call<'_>, previous: &[Option<&Tensor>]) -> Result<Vec<Option<Tensor>>> {
        if self.masks == Masks::None {
            return Ok(Vec::new());
        }
        if self.masks == Masks::All {
            let mut masks = previous.iter().copied().flatten();
            let Some(first) = masks.next() else { return Ok(Vec::new()) };
            return Ok(vec![Some(masks.try_fold(first.clone(), |all, mask| all.broadcast_mul(mask))?)]);
        }
        let Some(masks) = previous.iter().copied().collect::<Option<Vec<&Tensor>>>() else { return Ok(Vec::new()) };
        let Some((first, others)) = masks.split_first() else { return Ok(Vec::new()) };
        let all = others.iter().try_fold((*first).clone(), |all, mask| either(&all, mask))?;
        Ok(vec![Some(all)])
    }

    fn primitives(&self, lowered: Lowered<'_>) -> Result<Option<Vec<Primitive>>> {
        let inputs = lowered.given.inputs();
        let ranks = inputs.iter().map(|input| input.shape.rank());
        // A single input is given back.
        let merged = inputs.len() > 1 && ranks.clone().min() == ranks.max();
        Ok(merged.then(|| vec![Primitive::Merge(M::MERGING)]))
    }
}

/// Sizes broadcast from the last axis backwards; the batch axis is what is known of it.
fn merged(a: &Shape, b: &Shape) -> std::result::Result<Shape, Problem> {
    let wrong = || cannot(format!("inputs of {a} and {b} do not fit together"));
    let (Some((batch, a_axes)), Some((other, b_axes))) = (a.0.split_first(), b.0.split_first()) else {
        return Err(wrong());
    };
    let batch = match (batch, other) {
        (Some(one), Some(other)) if one != other => return Err(wrong()),
        (one, other) => one.or(*other),
    };
    let (long, short) = if a_axes.len() < b_axes.len() { (b_axes, a_axes) } else { (a_axes, b_axes) };
    let (ahead, aligned) = long.split_at(long.len().saturating_sub(short.len()));
    let mut axes = vec![batch];
    axes.extend(ahead);
    for pair in aligned.iter().zip(short) {
        axes.push(match pair {
            (None, _) | (_, None) => None,
            (Some(1), Some(size)) | (Some(size), Some(1)) => Some(*size),
            (Some(one), Some(other)) if one == other => Some(*one),
            _ => return Err(wrong()),
        });
    }
    Ok(Shape(axes))
}

/// The value with axes of size 1 behind the batch axis. Keras: one that is reshaped loses its mask.
fn with_rank(value: &Value, rank: usize) -> Result<Value> {
    let missing = rank.saturating_sub(value.tensor.rank());
    if missing == 0 {
        return Ok(value.clone());
    }
    let mut shape = value.tensor.dims().to_vec();
    if shape.is_empty() {
        bail!("a scalar has no batch axis")
    }
    shape.splice(1..1, std::iter::repeat_n(1, missing));
    Ok(value.with_tensor(value.tensor.reshape(shape)?))
}

/// The mask of `value` for each of its numbers.
fn spread_mask(value: &Value) -> Result<Option<Tensor>> {
    let spread = |mask: &Tensor| mask.unsqueeze(D::Minus1)?.broadcast_as(value.tensor.shape())?.contiguous();
    value.mask.as_ref().map(spread).transpose()
}

/// Whether anything along the last axis is set.
fn any_of_last(mask: &Tensor) -> Result<Tensor> {
    mask.max(D::Minus1)
}

/// The inputs one after the other, masks apart.
fn fold(operation: Binary, inputs: &[Value], policy: &Policy) -> Result<Value> {
    let Some((first, others)) = inputs.split_first() else { bail!("expected inputs, found none") };
    others.iter().try_fold(first.clone(), |merged, input| operation.apply(&merged, input, policy))
}

impl Merge for Add {
    const MERGING: Merging = Merging::Add;
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        fold(Binary::Add, inputs, policy)
    }
}

impl Merge for Subtract {
    const MERGING: Merging = Merging::Subtract;
    const INPUTS: Option<usize> = Some(2);

    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        fold(Binary::Subtract, inputs, policy)
    }
}

impl Merge for Average {
    const MERGING: Merging = Merging::Average;
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        let sum = fold(Binary::Add, inputs, policy)?;
        let dtype = Self::dtype(sum.dtype);
        let tensor = sum.tensor.to_dtype(crate::numeric::storage(dtype)?)?;
        let count = constant_like(&tensor, f64::from(u32::try_from(inputs.len())?))?;
        let mean = (tensor / count)?;
        Ok(Value::new(if sum.dtype.is_float() { rounded(&mean, policy)? } else { mean }, dtype))
    }

    /// Keras: the sum is divided with Python's `/`, and TensorFlow divides integers of 32 bits and more in float64.
    fn dtype(dtype: Dtype) -> Dtype {
        match dtype {
            Dtype::Int8 | Dtype::Int16 | Dtype::Uint8 | Dtype::Uint16 => Dtype::Float32,
            Dtype::Int32 | Dtype::Int64 | Dtype::Uint32 | Dtype::Uint64 => Dtype::Float64,
            dtype => dtype,
        }
    }
}

impl Merge for Multiply {
    const MERGING: Merging = Merging::Multiply;
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        let masks = inputs.iter().map(spread_mask).collect::<Result<Vec<_>>>()?;
        let mut product: Option<Value> = None;
        for (input, mask) in inputs.iter().zip(&masks) {
            let factor = match mask {
                Some(mask) => {
                    let one = input.with_tensor(input.tensor.ones_like()?);
                    choose(mask, input, &one, policy)?
                }
                None => input.clone(),
            };
            product = Some(match product {
                Some(product) => Binary::Multiply.apply(&product, &factor, policy)?,
                None => factor,
            });
        }
        let Some(product) = product else { bail!("expected inputs, found none") };
        let mut all: Option<Tensor> = None;
        for mask in &masks {
            let Some(mask) = mask else { return Ok(product) };
            all = Some(all.map_or_else(|| Ok(mask.clone()), |all| either(&all, mask))?);
        }
        let Some(all) = all else { return Ok(product) };
        let zero = product.with_tensor(product.tensor.zeros_like()?);
        Ok(choose(&all, &product, &zero, policy)?.with_mask(Some(any_of_last(&all)?)))
    }
}

impl Merge for Maximum {
    const MERGING: Merging = Merging::Maximum;
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        largest(Binary::Maximum, inputs, policy)
    }
}

impl Merge for Minimum {
    const MERGING: Merging = Merging::Minimum;
    fn merge(inputs: &[Value], policy: &Policy) -> Result<Value> {
        largest(Binary::Minimum, inputs, policy)
    }
}

/// Maximum or Minimum, where a masked entry gives way to the other operand.
fn largest(operation: Binary, inputs: &[Value], policy: &Policy) -> Result<Value> {
    let Some((first, others)) = inputs.split_first() else { bail!("expected inputs, found none") };
    let mut all = spread_mask(first)?;
    let mut output = first.clone().with_mask(None);
    for input in others {
        let mask = spread_mask(input)?;
        let mut input = input.clone();
        if let Some(mask) = &mask {
            input = choose(mask, &input, &output, policy)?;
        }
        if let Some(all) = &all {
            output = choose(all, &output, &input, policy)?;
        }
        all = match (all, mask) {
            (Some(all), Some(mask)) => Some(either(&all, &mask)?),
            _ => None,
        };
        output = operation.apply(&output, &input, policy)?;
    }
    let mask = all.map(|all| any_of_last(&all)).transpose()?;
    Ok(output.with_mask(mask))
}
