//! Numbers read as numbers of another dtype. Source: `view` in keras/src/backend/tensorflow/numpy.py.

use candle_core::{Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{Integers, Node, Operation, Setting, elementwise::X, invalid, one, operation};
use crate::{Shape, Spec, Value};

pub(super) static OPERATIONS: &[Operation] =
    &[operation("View", X, planned_view, view).with(&[("dtype", Setting::Dtype)])];

/// How many bytes a number of a dtype has.
fn width(dtype: Dtype) -> Option<usize> {
    Some(match dtype {
        Dtype::Int8 | Dtype::Uint8 => 1,
        Dtype::Int16 | Dtype::Uint16 | Dtype::Float16 | Dtype::Bfloat16 => 2,
        Dtype::Int32 | Dtype::Uint32 | Dtype::Float32 => 4,
        Dtype::Int64 | Dtype::Uint64 | Dtype::Float64 => 8,
        _ => return None,
    })
}

/// The size of the last axis of `own` numbers once they are read as numbers of another width.
fn viewed(axes: &[Option<usize>], from: usize, to: usize) -> std::result::Result<Vec<Option<usize>>, String> {
    let mut axes = axes.to_vec();
    if from == to {
        return Ok(axes);
    }
    let last = axes.last_mut().ok_or("a number without axes cannot be read as one of another width")?;
    if let Some(size) = last {
        let bytes = *size * from;
        if !bytes.is_multiple_of(to) {
            return Err(format!("{bytes} bytes are no whole numbers of {to} bytes"));
        }
        *size = bytes / to;
    }
    Ok(axes)
}

fn planned_view(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let dtype = node.settings.dtype("dtype").unwrap_or(xs.dtype);
    let (Some(from), Some(to)) = (width(xs.dtype), width(dtype)) else {
        let what = format!("a view of {} as {dtype} (only numbers)", xs.dtype);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    };
    one(Shape(viewed(&xs.shape.0, from, to).map_err(invalid)?), dtype)
}

/// The bytes of the numbers, least first, read as numbers of another dtype.
fn view(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = node.settings.dtype("dtype").unwrap_or(value.dtype);
    let (Some(from), Some(to)) = (width(value.dtype), width(dtype)) else { bail!("a view of something else") };
    let flat = value.tensor.flatten_all()?;
    let bits: Vec<u64> = match value.dtype {
        Dtype::Float16 => flat.to_vec1::<half::f16>()?.iter().map(|x| x.to_bits().into()).collect(),
        Dtype::Bfloat16 => flat.to_vec1::<half::bf16>()?.iter().map(|x| x.to_bits().into()).collect(),
        Dtype::Float32 => flat.to_vec1::<f32>()?.iter().map(|x| x.to_bits().into()).collect(),
        Dtype::Float64 => flat.to_vec1::<f64>()?.iter().map(|x| x.to_bits()).collect(),
        _ => Integers::of(&value)?.numbers.iter().map(|number| u64::from_le_bytes(number.to_le_bytes())).collect(),
    };
    let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes().into_iter().take(from)).collect();
    let whole = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |whole, byte| whole << 8 | u64::from(*byte));
    let bits: Vec<u64> = bytes.chunks(to).map(whole).collect();
    let axes: Vec<Option<usize>> = value.tensor.dims().iter().copied().map(Some).collect();
    let dims: Vec<usize> = viewed(&axes, from, to).map_err(candle_core::Error::msg)?.into_iter().flatten().collect();
    let cpu = &Device::Cpu;
    let tensor = match dtype {
        Dtype::Float16 => {
            Tensor::from_vec(bits.iter().map(|x| half::f16::from_bits(*x as u16)).collect::<Vec<_>>(), dims, cpu)?
        }
        Dtype::Bfloat16 => {
            Tensor::from_vec(bits.iter().map(|x| half::bf16::from_bits(*x as u16)).collect::<Vec<_>>(), dims, cpu)?
        }
        Dtype::Float32 => {
            Tensor::from_vec(bits.iter().map(|x| f32::from_bits(*x as u32)).collect::<Vec<_>>(), dims, cpu)?
        }
        Dtype::Float64 => Tensor::from_vec(bits.iter().map(|x| f64::from_bits(*x)).collect::<Vec<_>>(), dims, cpu)?,
        _ => {
            let numbers = bits.iter().map(|x| i64::from_le_bytes(x.to_le_bytes())).collect();
            return Ok(vec![Integers { numbers, dims }.value(dtype, value.tensor.device())?]);
        }
    };
    Ok(vec![Value::new(tensor.to_device(value.tensor.device())?, dtype)])
}
