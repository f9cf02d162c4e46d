//! `keras.ops` of ops/math.py: error functions, the largest k, segments.
//!
//! Source: keras/src/ops/math.py, keras/src/backend/tensorflow/math.py.

use std::{cmp::Ordering, f64::consts::PI};

use candle_core::{D, DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Kind, Node, Operation, Setting, convert,
    elementwise::{X, plain, same},
    floats, host, invalid,
    normalization::extreme,
    one, operation, result_type, rounded, shapes,
};
use crate::{Shape, Spec, Value, numeric::wide};

const SEGMENTS: &[(&str, Setting)] = &[("num_segments", Setting::Integers), ("sorted", Setting::Flag(false))];
const DATA_IDS: &[&str] = &["data", "segment_ids"];

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("Erf", X, of_floats, |node| plain(node, same, |xs| wide(xs, Tensor::erf))),
    operation("Erfc", X, of_floats, |node| {
        plain(node, same, |xs| host::map(xs, erfc, |xs| xs.sqr()?.neg()?.exp()? * (-2.0 / PI.sqrt())))
    }),
    operation("Erfinv", X, of_floats, |node| {
        plain(node, same, |xs| {
            host::map(xs, erfinv, |xs| {
                let ys = host::map(xs, erfinv, Tensor::zeros_like)?;
                ys.sqr()?.exp()? * (PI.sqrt() / 2.0)
            })
        })
    }),
    operation("Rsqrt", X, of_floats, |node| plain(node, same, |xs| wide(xs, |xs| xs.sqrt()?.recip()))),
    operation("Logsumexp", X, planned_logsumexp, logsumexp)
        .with(&[("axis", Setting::Integers), ("keepdims", Setting::Flag(false))]),
    operation("TopK", X, planned_top, top).with(&[("k", Setting::Integer(-1)), ("sorted", Setting::Flag(true))]),
    operation("InTopK", &["targets", "predictions"], planned_in_top, in_top).with(&[("k", Setting::Integer(-1))]),
    operation("SegmentSum", DATA_IDS, planned_segments, |node| segments(node, Reduction::Sum)).with(SEGMENTS),
    operation("SegmentMax", DATA_IDS, planned_segments, |node| segments(node, Reduction::Max)).with(SEGMENTS),
    operation("SegmentMin", DATA_IDS, planned_segments, |node| segments(node, Reduction::Min)).with(SEGMENTS),
    operation("SegmentProd", DATA_IDS, planned_segments, |node| segments(node, Reduction::Product)).with(SEGMENTS),
    operation("CDist", &["x", "y"], planned_distances, distances),
    operation("ExtractSequences", X, planned_sequences, sequences)
        .with(&[("sequence_length", Setting::Integer(0)), ("sequence_stride", Setting::Integer(0))]),
];

/// Shape and dtype of `x`, which must be floats.
fn of_floats(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    if xs.dtype.is_float() {
        return Ok(vec![xs]);
    }
    Err(invalid(format!("expected floats, found {}", xs.dtype)))
}

/// 1 − erf x, to 13 digits also where erf x is nearly 1: `t · e^(−x² + p(t))` with `t = 2 / (2 + |x|)` and p a sum of
/// Chebyshev polynomials, fitted to the function itself.
fn erfc(x: f64) -> f64 {
    const TERMS: [f64; 24] = [
        -1.302_653_719_781_709_2,
        6.419_697_923_564_901e-1,
        1.947_647_320_418_593e-2,
        -9.561_514_786_808_889e-3,
        -9.465_953_444_817_848e-4,
        3.668_394_978_526_379e-4,
        4.252_332_480_734_422e-5,
        -2.027_857_811_258_471e-5,
        -1.624_290_004_658_135_5e-6,
        1.303_655_835_496_187e-6,
        1.562_644_184_271_988_4e-8,
        -8.523_809_627_902_778e-8,
        6.529_054_679_127_455e-9,
        5.059_343_552_993_312e-9,
        -9.913_638_709_946_326e-10,
        -2.273_651_644_735_253e-10,
        9.646_826_448_772_572e-11,
        2.394_173_748_143_657_5e-12,
        -6.886_122_783_100_745_5e-12,
        8.941_558_604_647_071e-13,
        3.132_161_197_072_492e-13,
        -1.127_586_912_730_294e-13,
        6.972_200_594_645_983e-16,
        6.693_534_615_465_069e-15,
    ];
    let t = 2.0 / (2.0 + x.abs());
    let (first, rest) = (TERMS.first().copied().unwrap_or_default(), TERMS.get(1..).unwrap_or_default());
    let y = 4.0 * t - 2.0;
    let (mut d, mut before) = (0.0, 0.0);
    for term in rest.iter().rev() {
        (d, before) = (y * d - before + term, d);
    }
    let tail = t * (-x * x + 0.5 * (first + y * d) - before).exp();
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// The number whose erf is `x`: Giles's approximation (2010), and from it two steps of Newton's method.
fn erfinv(x: f64) -> f64 {
    const MIDDLE: [f64; 9] = [
        2.810_226_36e-8,
        3.432_739_39e-7,
        -3.523_387_7e-6,
        -4.391_506_54e-6,
        0.000_218_580_87,
        -0.001_253_725_03,
        -0.004_177_681_64,
        0.246_640_727,
        1.501_409_41,
    ];
    const ENDS: [f64; 9] = [
        -0.000_200_214_257,
        0.000_100_950_558,
        0.001_349_343_22,
        -0.003_673_428_44,
        0.005_739_507_73,
        -0.007_622_461_3,
        0.009_438_870_47,
        1.001_674_06,
        2.832_976_82,
    ];
    if x == 0.0 {
        // Keras: of −0.0 too.
        return 0.0;
    }
    if x.is_nan() || x.abs() > 1.0 {
        return f64::NAN;
    }
    if x.abs() == 1.0 {
        return x * f64::INFINITY;
    }
    let w = -((1.0 - x) * (1.0 + x)).ln();
    let (at, terms) = if w < 5.0 { (w - 2.5, MIDDLE) } else { (w.sqrt() - 3.0, ENDS) };
    let mut y = x * terms.iter().fold(0.0, |sum, term| sum * at + term);
    for _ in 0..2 {
        // The distance to 1 keeps the digits that erf itself loses there.
        let error = if x < 0.0 { (1.0 + x) - erfc(-y) } else { erfc(y) - (1.0 - x) };
        y += error * (y * y).exp() * (PI.sqrt() / 2.0);
    }
    y
}

/// Keras: plans float32, whatever comes in.
fn planned_logsumexp(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = of_floats(node)?;
    let shape = xs.into_iter().next().map(|spec| spec.shape).unwrap_or_else(|| Shape(Vec::new()));
    let axes = shapes::axes(node.settings.integers("axis"), shape.rank()).map_err(invalid)?;
    one(shapes::reduced(&shape, &axes, node.settings.flag("keepdims")), Dtype::Float32)
}

/// `log Σ e^(x − m) + m`, m the largest if it is finite, else 0.
fn logsumexp(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let xs = floats(&value, value.dtype)?;
    let axes = shapes::axes(node.settings.integers("axis"), xs.rank()).map_err(candle_core::Error::msg)?;
    let sums = wide(&xs, |xs| {
        let largest = extreme(&xs.detach(), &axes, true)?;
        let finite = largest.abs()?.lt(f64::INFINITY)?;
        let largest = finite.where_cond(&largest, &largest.zeros_like()?)?;
        xs.broadcast_sub(&largest)?.exp()?.sum_keepdim(axes.as_slice())?.log()? + largest
    })?;
    let kept: Vec<usize> = match node.settings.flag("keepdims") {
        true => sums.dims().to_vec(),
        false => (0..xs.rank()).filter(|axis| !axes.contains(axis)).map(|axis| xs.dim(axis)).collect::<Result<_>>()?,
    };
    Ok(vec![rounded(&sums.reshape(kept)?, value.dtype)?])
}

fn count_of<T>(node: &Node<'_, T>, key: &str) -> std::result::Result<usize, String> {
    let count = node.settings.integer(key).and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| format!("{key}: expected a whole number of at least 0"))
}

fn planned_top(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, count) = (node.spec("x")?, count_of(node, "k").map_err(invalid)?);
    let Some(last) = xs.shape.0.last().copied() else { return Err(invalid("expected an input of rank 1 or more")) };
    if last.is_some_and(|size| count > size) {
        return Err(invalid(format!("k: the largest {count} of {} numbers", last.unwrap_or_default())));
    }
    if !node.settings.flag("sorted") && count > 1 && last != Some(count) {
        let what = "sorted = false is not supported: the order that TensorFlow leaves is that of its own heap";
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    let shape = xs.shape.clone().with_last(Some(count));
    Ok(vec![xs.with_shape(shape.clone()), Spec { shape, dtype: Dtype::Int32 }])
}

/// The largest `k` along the last axis, the largest first, of equal ones that which comes first; and where they are.
fn top(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let (count, xs) = (count_of(node, "k").map_err(candle_core::Error::msg)?, value.tensor.contiguous()?);
    let Some((size, outer)) = xs.dims().split_last() else { bail!("expected an input of rank 1 or more") };
    if count > *size {
        bail!("the largest {count} of {size} numbers");
    }
    let found = if value.dtype.is_float() {
        let numbers = xs.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if numbers.iter().any(|number| number.is_nan()) {
            bail!("the largest of numbers with NaN among them is not defined");
        }
        largest(&numbers, *size, count, |a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal))
    } else {
        largest(&Integers::of(&value)?.numbers, *size, count, Ord::cmp)
    };
    let dims = [outer, &[count]].concat();
    let indices = Tensor::from_vec(found, dims.as_slice(), &Device::Cpu)?.to_device(xs.device())?;
    let values = match count {
        0 => Tensor::zeros(dims, xs.dtype(), xs.device())?,
        _ => xs.gather(&indices, D::Minus1)?,
    };
    Ok(vec![value.with_tensor(values), Value::new(indices.to_dtype(DType::I32)?, Dtype::Int32)])
}

/// In each row of `size`, the indices of the largest `count`.
fn largest<T>(numbers: &[T], size: usize, count: usize, compare: impl Fn(&T, &T) -> Ordering) -> Vec<i64> {
    let mut found = Vec::new();
    for row in numbers.chunks(size.max(1)) {
        let mut entries: Vec<(usize, &T)> = row.iter().enumerate().collect();
        entries.sort_by(|(_, a), (_, b)| compare(b, a));
        found.extend(entries.iter().take(count).filter_map(|(index, _)| i64::try_from(*index).ok()));
    }
    found
}

fn planned_in_top(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (targets, predictions) = (node.spec("targets")?, node.spec("predictions")?);
    count_of(node, "k").map_err(invalid)?;
    let integers = matches!(targets.dtype, Dtype::Int32 | Dtype::Int64);
    if targets.shape.rank() != 1 || !integers || predictions.shape.rank() != 2 || predictions.dtype != Dtype::Float32 {
        return Err(invalid("expected targets of int32 or int64 and rank 1, and predictions of float32 and rank 2"));
    }
    one(targets.shape, Dtype::Bool)
}

/// Whether fewer than `k` predictions are larger than that of the target; false beside anything that is not finite.
fn in_top(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (targets, predictions) = (Integers::of(&node.value("targets")?)?, node.value("predictions")?.tensor);
    let count = count_of(node, "k").map_err(candle_core::Error::msg)?;
    let rows = predictions.to_vec2::<f32>()?;
    if rows.len() != targets.numbers.len() {
        bail!("{} targets for {} rows of predictions", targets.numbers.len(), rows.len());
    }
    let within = |(target, row): (&i64, &Vec<f32>)| {
        let Some(own) = usize::try_from(*target).ok().and_then(|target| row.get(target)) else { return 0 };
        let mut larger = 0;
        if !own.is_finite() {
            return 0;
        }
        for other in row {
            if !other.is_finite() {
                return 0;
            }
            larger += usize::from(other > own);
            if larger > count {
                return 0;
            }
        }
        u8::from(larger < count)
    };
    let found: Vec<u8> = targets.numbers.iter().zip(&rows).map(within).collect();
    let tensor = Tensor::from_vec(found, targets.numbers.len(), predictions.device())?;
    Ok(vec![Value::new(tensor, Dtype::Bool)])
}

/// What becomes of the entries of a segment.
#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    Sum,
    Max,
    Min,
    Product,
}

fn planned_segments(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (data, ids) = (node.spec("data")?, node.spec("segment_ids")?);
    let Shape(mut axes) = data.shape.clone();
    let count = node.settings.integer("num_segments").map(usize::try_from).transpose();
    let count = count.map_err(|_| invalid("num_segments: expected a whole number of at least 0"))?;
    if count.is_some() && node.settings.flag("sorted") {
        return Err(invalid("num_segments cannot be given where sorted is true"));
    }
    if ids.shape.rank() != 1 || !data.dtype.is_float() {
        let what = format!("segments of {} by ids of shape {} (only floats by a list of ids)", data.dtype, ids.shape);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    match (axes.first_mut(), ids.shape.0.first().copied().flatten()) {
        (None, _) => return Err(invalid("expected data of rank 1 or more")),
        (Some(Some(rows)), Some(ids)) if *rows != ids => {
            return Err(invalid(format!("{ids} ids for {rows} rows")));
        }
        (Some(first), _) => *first = count,
    }
    one(Shape(axes), data.dtype)
}

/// The sum, the largest, the smallest or the product of the rows of each segment.
///
/// Keras: without `num_segments` there are as many sums as there are different ids, and an id beyond them is an error; of
/// everything else there are as many as the largest id says.
fn segments(node: &Node<'_, Value>, reduction: Reduction) -> Result<Vec<Value>> {
    const MOST: usize = 1 << 24;
    let (data, ids) = (node.value("data")?, Integers::of(&node.value("segment_ids")?)?.numbers);
    let xs = floats(&data, data.dtype)?;
    let sorted = node.settings.flag("sorted");
    if ids.len() != xs.dim(0)? {
        bail!("{} ids for {} rows", ids.len(), xs.dim(0)?);
    }
    if sorted && (ids.first().is_some_and(|first| *first < 0) || !ids.is_sorted_by(|a, b| a <= b)) {
        bail!("segment ids that are not sorted");
    }
    let beyond = ids.iter().max().map_or(0, |largest| largest.saturating_add(1));
    let count = match (node.settings.integer("num_segments"), reduction) {
        (Some(count), _) => count,
        (None, Reduction::Sum) if !sorted => {
            let mut different = ids.clone();
            different.sort_unstable();
            different.dedup();
            i64::try_from(different.len())?
        }
        _ => beyond,
    };
    let count = usize::try_from(count)?;
    if beyond > i64::try_from(count)? || count > MOST {
        bail!("segment {} does not exist: there are {count}", beyond - 1);
    }
    // What no row belongs to. Keras: where the ids are sorted, it is 0 whatever the reduction, but 1 for products.
    let empty = match (reduction, data.dtype) {
        (Reduction::Sum, _) => 0.0,
        (Reduction::Product, _) => 1.0,
        _ if sorted => 0.0,
        (_, Dtype::Float64) => f64::MAX,
        (_, Dtype::Float16) => 65504.0,
        (_, Dtype::Bfloat16) => 3.389_531_389_251_535e38,
        _ => f64::from(f32::MAX),
    };
    let empty = if reduction == Reduction::Max { -empty } else { empty };
    let row: Vec<usize> = xs.dims().iter().skip(1).copied().collect();
    let nothing = Tensor::full(empty, row.as_slice(), xs.device())?.to_dtype(xs.dtype())?;
    let mut rows = Vec::new();
    for segment in 0..count {
        let own = ids.iter().enumerate().filter(|(_, id)| usize::try_from(**id) == Ok(segment));
        let own = own.map(|(index, _)| u32::try_from(index)).collect::<std::result::Result<Vec<u32>, _>>()?;
        if own.is_empty() {
            rows.push(nothing.clone());
            continue;
        }
        let of_segment = xs.contiguous()?.index_select(&Tensor::new(own.as_slice(), xs.device())?, 0)?;
        let reduced = match reduction {
            Reduction::Sum => of_segment.sum(0)?,
            Reduction::Max => extreme(&of_segment, &[0], true)?.squeeze(0)?,
            Reduction::Min => extreme(&of_segment, &[0], false)?.squeeze(0)?,
            Reduction::Product => {
                let mut product = nothing.clone();
                for index in 0..own.len() {
                    product = (product * of_segment.get(index)?)?;
                }
                product
            }
        };
        rows.push(reduced);
    }
    let found = match rows.is_empty() {
        true => Tensor::zeros([&[0], row.as_slice()].concat(), xs.dtype(), xs.device())?,
        false => Tensor::stack(&rows, 0)?,
    };
    Ok(vec![rounded(&found, data.dtype)?])
}

fn planned_distances(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (x, y) = (node.spec("x")?, node.spec("y")?);
    match (x.shape.0.as_slice(), y.shape.0.as_slice()) {
        ([outer_x @ .., rows, features], [outer_y @ .., columns, others])
            if x.dtype == y.dtype
                && x.dtype.is_float()
                && (features == others || features.is_none() || others.is_none()) =>
        {
            let Shape(outer) = shapes::broadcast(&Shape(outer_x.to_vec()), &Shape(outer_y.to_vec()))?;
            let dtype = result_type(&[x.dtype.into(), y.dtype.into(), Kind::Float]);
            one(Shape([outer, vec![*rows, *columns]].concat()), dtype)
        }
        _ => Err(invalid(format!("the distances of {} of {} and {} of {}", x.shape, x.dtype, y.shape, y.dtype))),
    }
}

/// `√Σ(x − y)²` of every row of x with every row of y.
fn distances(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (x, y) = (node.value("x")?, node.value("y")?);
    let (xs, ys) = (floats(&x, x.dtype)?, floats(&y, x.dtype)?);
    let apart = xs.unsqueeze(D::Minus2)?.broadcast_sub(&ys.unsqueeze(ys.rank().saturating_sub(2))?)?;
    let squares = wide(&apart.sqr()?, |xs| xs.sum(D::Minus1))?;
    Ok(vec![rounded(&squares.sqrt()?, x.dtype)?])
}

fn planned_sequences(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = node.spec("x")?;
    let length = count_of(node, "sequence_length").map_err(invalid)?;
    let stride = count_of(node, "sequence_stride").map_err(invalid)?;
    let Some((last, outer)) = xs.shape.0.split_last() else {
        return Err(invalid("expected an input of rank 1 or more"));
    };
    if stride == 0 || length == 0 {
        return Err(invalid("sequence_length and sequence_stride: expected at least 1"));
    }
    let count = last.as_ref().map(|size| size.checked_sub(length).map_or(0, |rest| 1 + rest / stride));
    one(Shape([outer, &[count, Some(length)]].concat()), xs.dtype)
}

/// Every `stride`th run of `length` along the last axis.
fn sequences(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let length = count_of(node, "sequence_length").map_err(candle_core::Error::msg)?;
    let stride = count_of(node, "sequence_stride").map_err(candle_core::Error::msg)?.max(1);
    let xs = value.tensor.contiguous()?;
    let Some((size, outer)) = xs.dims().split_last() else { bail!("expected an input of rank 1 or more") };
    let count = size.checked_sub(length).map_or(0, |rest| 1 + rest / stride);
    let starts = (0..count).flat_map(|index| (0..length).map(move |at| index * stride + at));
    let cells = starts.map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>()?;
    let cells = Tensor::new(cells.as_slice(), xs.device())?;
    let found = xs.index_select(&cells, xs.rank() - 1)?.reshape([outer, &[count, length]].concat())?;
    Ok(vec![convert(&value.with_tensor(found), value.dtype)?])
}
