//! `keras.layers.Dot`: for each sample, the sum of products along one axis of each of two inputs.
//!
//! Shapes: xs `(batch, …)` and ys `(batch, …)` with as many numbers along `axes[0]` of xs as along `axes[1]` of ys; result
//! xs's axes without that one, then ys's without its batch axis and that one; `(batch, 1)` where none is left. With
//! `axes = 1`, `[[1, 2]]` and `[[3, 4]]` give `[[11]]`. With `normalize`, both are first scaled to length 1 along their axis.
//!
//! Keras: before 2.3 the last axes of inputs with more than three were multiplied as matrices; these are refused.
//!
//! Source: keras/src/layers/merging/dot.py.

use candle_core::{DType, Device, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::arithmetic::{promoted, result_type, wrapped};
use crate::{
    Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    layers::{cannot, normalization::to_length_one},
    numeric::{cast, storage},
    primitive::Merging,
};

/// The bound of the factor that scales to length 1: 1 / epsilon of keras.ops.normalize.
const LARGEST_FACTOR: f64 = 1e7;

#[derive(Debug)]
pub(crate) struct Dot {
    /// The axis of each input.
    axes: (i64, i64),
    normalize: bool,
    takes_many_axes: bool,
}

impl KerasLayer for Dot {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.training_only(&["activity_regularizer"]);
        let axes = match fields.integers("axes").as_deref() {
            Some([both]) => (*both, *both),
            Some([x, y]) => (*x, *y),
            found => {
                fields.wrong(format!("axes: expected one or two, found {}", found.map_or(0, <[i64]>::len)));
                (-1, -1)
            }
        };
        Self { axes, normalize: fields.flag("normalize", false), takes_many_axes: fields.is_from([2, 3, 0]) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let inputs = given.inputs();
        let [x, y] = inputs.as_slice() else {
            return Err(cannot(format!("expected 2 inputs, found {}", inputs.len())));
        };
        let (of_x, of_y) = self.places(x.shape.rank(), y.shape.rank()).map_err(cannot)?;
        if !self.takes_many_axes && x.shape.rank().max(y.shape.rank()) > 3 {
            let what =
                "inputs of more than 3 axes, which Keras before 2.3 multiplied otherwise, and TensorFlow 2 did not";
            return Err(Problem::new(ErrorKind::Unsupported, "", what));
        }
        let size = |shape: &Shape, axis: usize| shape.0.get(axis).copied().flatten();
        if let (Some(a), Some(b)) = (size(&x.shape, of_x), size(&y.shape, of_y))
            && a != b
        {
            let what = format!("axis {of_x} of {} has {a} numbers, axis {of_y} of {} has {b}", x.shape, y.shape);
            return Err(cannot(what));
        }
        let mut axes = without(&x.shape.0, of_x);
        axes.extend(without(&y.shape.0, of_y).into_iter().skip(1));
        if axes.len() == 1 {
            axes.push(Some(1));
        }
        let dtype = if self.normalize { given.policy().arithmetic() } else { product_type(x.dtype, y.dtype)? };
        if dtype == Dtype::Bool {
            return Err(cannot("bool inputs have no product"));
        }
        Ok(vec![Spec { shape: Shape(axes), dtype }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let (inputs, policy) = (call.given.inputs(), call.given.policy());
        let [x, y] = inputs.as_slice() else { bail!("expected 2 inputs, found {}", inputs.len()) };
        let (of_x, of_y) = self.places(x.tensor.rank(), y.tensor.rank()).map_err(candle_core::Error::msg)?;
        let (mut x, mut y) = ((*x).clone(), (*y).clone());
        if self.normalize {
            let scaled = |value: &Value, axis: usize| {
                let value = cast(value, policy.arithmetic())?;
                let ys = to_length_one(&value.tensor, &[axis], LARGEST_FACTOR, policy)?;
                candle_core::Result::Ok(value.with_tensor(ys))
            };
            (x, y) = (scaled(&x, of_x)?, scaled(&y, of_y)?);
        }
        let dtype = product_type(x.dtype, y.dtype).map_err(|problem| candle_core::Error::Msg(problem.what))?;
        let (xs, ys) = (promoted(&x, dtype, policy)?, promoted(&y, dtype, policy)?);
        let (rows, columns) = (without(xs.dims(), of_x), without(ys.dims(), of_y));
        let (Ok(batch), Ok(length)) = (xs.dim(0), xs.dim(of_x)) else { bail!("a scalar has no batch axis") };
        if ys.dim(0)? != batch || ys.dim(of_y)? != length {
            bail!("inputs of {:?} and {:?} do not fit along axes {of_x} and {of_y}", xs.dims(), ys.dims())
        }
        let per_sample = |axes: &[usize]| axes.iter().skip(1).product::<usize>();
        let xs = last(&xs, of_x)?.reshape((batch, per_sample(&rows), length))?;
        let ys = last(&ys, of_y)?.reshape((batch, per_sample(&columns), length))?;
        let product = match dtype.is_float() {
            true => xs.matmul(&ys.transpose(1, 2)?)?,
            false => of_integers(&xs, &ys, dtype)?,
        };
        let mut shape: Vec<usize> = rows.into_iter().chain(columns.into_iter().skip(1)).collect();
        if shape.len() == 1 {
            shape.push(1);
        }
        Ok(vec![Value::new(product.reshape(shape)?, dtype)])
    }

    /// Of vectors: their product number by number, and its sum.
    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let inputs = lowered.given.inputs();
        let features = match inputs.as_slice() {
            [x, y] if x.shape == y.shape && x.shape.rank() == 2 && !self.normalize => x.shape.last(),
            _ => None,
        };
        let Some(features) = features else { return Ok(None) };
        let kernel = Tensor::ones((features, 1), DType::F32, &Device::Cpu)?;
        Ok(Some(vec![Primitive::Merge(Merging::Multiply), Primitive::Product { kernel, bias: None }]))
    }
}

impl Dot {
    fn places(&self, of_x: usize, of_y: usize) -> Result<(usize, usize), String> {
        if of_x < 2 || of_y < 2 {
            return Err(format!("expected inputs of rank 2 or more, found ranks {of_x} and {of_y}"));
        }
        let places = (crate::layers::axis(self.axes.0, of_x)?, crate::layers::axis(self.axes.1, of_y)?);
        if places.0 == 0 || places.1 == 0 {
            return Err("the batch axis cannot be summed over".to_owned());
        }
        Ok(places)
    }
}

/// Keras: products of int8 are summed in int32.
fn product_type(x: Dtype, y: Dtype) -> Result<Dtype, Problem> {
    if (x, y) == (Dtype::Int8, Dtype::Int8) { Ok(Dtype::Int32) } else { result_type(x, y) }
}

fn without<T: Copy>(axes: &[T], axis: usize) -> Vec<T> {
    axes.iter().enumerate().filter(|(number, _)| *number != axis).map(|(_, size)| *size).collect()
}

/// The tensor with `axis` as its last.
fn last(xs: &Tensor, axis: usize) -> candle_core::Result<Tensor> {
    let order: Vec<usize> = (0..xs.rank()).filter(|number| *number != axis).chain([axis]).collect();
    xs.permute(order)?.contiguous()
}

/// Integers wrap around as in Keras.
fn of_integers(xs: &Tensor, ys: &Tensor, dtype: Dtype) -> candle_core::Result<Tensor> {
    let (batch, rows, length) = xs.dims3()?;
    let columns = ys.dim(1)?;
    let numbers = |tensor: &Tensor| tensor.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>();
    let (x, y) = (numbers(xs)?, numbers(ys)?);
    let mut product = Vec::with_capacity(batch * rows * columns);
    let step = length.max(1);
    for (x, y) in x.chunks(rows.max(1) * step).zip(y.chunks(columns.max(1) * step)) {
        for row in x.chunks(step) {
            for column in y.chunks(step) {
                let of_one = row.iter().zip(column).fold(0_i64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
                product.push(wrapped(of_one, dtype));
            }
        }
    }
    Tensor::from_vec(product, (batch, rows, columns), xs.device())?.to_dtype(storage(dtype)?)
}
