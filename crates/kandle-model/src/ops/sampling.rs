//! `keras.ops.image` operations that read an image between its pixels: affine transforms and coordinates.
//!
//! Source: keras/src/backend/tensorflow/image.py, tensorflow/core/kernels/image/image_ops.h.

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Node, Operation, Setting, floats,
    image::{batched, channels_first, unbatched},
    invalid, one, operation, rounded,
};
use crate::{Shape, Spec, Value, numeric::constant_like};

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("AffineTransform", &["images", "transform"], planned_affine, affine).with(&[
        ("interpolation", Setting::Choice(&["bilinear", "nearest"])),
        ("fill_mode", Setting::Choice(&["constant", "nearest", "wrap", "reflect"])),
        ("fill_value", Setting::Number(0.0)),
        ("data_format", Setting::Choice(&["channels_last", "channels_first"])),
    ]),
    operation("PerspectiveTransform", &["images", "start_points", "end_points"], planned_perspective, perspective)
        .with(&[
            ("interpolation", Setting::Choice(&["bilinear", "nearest"])),
            ("fill_value", Setting::Number(0.0)),
            ("data_format", Setting::Choice(&["channels_last", "channels_first"])),
        ]),
    operation("MapCoordinates", &["inputs", "coordinates"], planned_coordinates, map_coordinates).with(&[
        ("order", Setting::Integer(-1)),
        ("fill_mode", Setting::Choice(&["constant", "nearest", "wrap", "mirror", "reflect"])),
        ("fill_value", Setting::Number(0.0)),
    ]),
];

fn planned_affine(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, transform) = (node.spec("images")?, node.spec("transform")?);
    if !matches!(images.shape.rank(), 3 | 4) || !matches!(transform.shape.rank(), 1 | 2) || !images.dtype.is_float() {
        let what = format!("an affine transform {} of {} of {}", transform.shape, images.shape, images.dtype);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    Ok(vec![images])
}

/// Where along an axis of `size` a position outside it is read.
fn mapped(at: f32, size: usize, mode: &str) -> f32 {
    let (length, last) = (size as f32, size as f32 - 1.0);
    let whole = |x: f32| x.trunc();
    let found = match mode {
        "reflect" if size <= 1 => 0.0,
        "reflect" => {
            let twice = 2.0 * length;
            if at < 0.0 {
                let at = if at < twice { twice * whole(-at / twice) + at } else { at };
                if at < -length { at + twice } else { -at - 1.0 }
            } else if at > last {
                let at = at - twice * whole(at / twice);
                if at >= length { twice - at - 1.0 } else { at }
            } else {
                at
            }
        }
        "wrap" if size <= 1 => 0.0,
        "wrap" => {
            if at < 0.0 {
                at + length * (whole(-at / last) + 1.0)
            } else if at > last {
                at - length * whole(at / last)
            } else {
                at
            }
        }
        _ => at,
    };
    if mode == "constant" { found } else { found.clamp(0.0, last) }
}

/// One of the pixels that an output pixel is made of: where it is, `None` outside of the image, and its weight.
type Tap = (Option<usize>, f32);

fn affine(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let transform = node.value("transform")?;
    let mut transforms = transform.tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    if transforms.rank() == 1 {
        transforms = transforms.unsqueeze(0)?;
    }
    projected(node, &transforms.to_vec2::<f32>()?, node.settings.text("fill_mode"), false)
}

fn planned_perspective(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, start, end) = (node.spec("images")?, node.spec("start_points")?, node.spec("end_points")?);
    let points = |spec: &Spec| {
        matches!(spec.shape.rank(), 2 | 3) && spec.shape.0.ends_with(&[Some(4), Some(2)]) && spec.dtype != Dtype::String
    };
    if start.shape != end.shape || !points(&start) || !points(&end) {
        let what = format!("expected points of shape (4, 2) or (batch, 4, 2), found {} and {}", start.shape, end.shape);
        return Err(invalid(what));
    }
    if !matches!(images.shape.rank(), 3 | 4) || !images.dtype.is_float() {
        let what = format!("a perspective of {} of {} (only floats)", images.shape, images.dtype);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    Ok(vec![images])
}

/// The transform that takes four end points back to where they started.
fn homography(start: &[Vec<f32>], end: &[Vec<f32>]) -> Result<Vec<f32>> {
    let (mut rows, mut right) = (Vec::new(), Vec::new());
    for (start, end) in start.iter().zip(end) {
        let ([x, y], [u, v]) = (start.as_slice(), end.as_slice()) else { bail!("a point of other than two numbers") };
        let product = |a: f32, b: f32| f64::from(-a * b);
        let (u64, v64) = (f64::from(*u), f64::from(*v));
        rows.push(vec![u64, v64, 1.0, 0.0, 0.0, 0.0, product(*x, *u), product(*x, *v)]);
        rows.push(vec![0.0, 0.0, 0.0, u64, v64, 1.0, product(*y, *u), product(*y, *v)]);
        right.extend([f64::from(*x), f64::from(*y)]);
    }
    let matrix = Tensor::from_vec(rows.concat(), (8, 8), &Device::Cpu)?;
    let right = Tensor::from_vec(right, (8, 1), &Device::Cpu)?;
    super::linear_algebra::inverse(&matrix)?.matmul(&right)?.squeeze(1)?.to_dtype(DType::F32)?.to_vec1::<f32>()
}

/// `images` moved so that what was at the start points comes to lie at the end points.
fn perspective(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let points = |name: &str| -> Result<Vec<Vec<Vec<f32>>>> {
        let tensor = node.value(name)?.tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        if tensor.rank() == 2 { tensor.unsqueeze(0)? } else { tensor }.to_vec3::<f32>()
    };
    let (start, end) = (points("start_points")?, points("end_points")?);
    let transforms = start.iter().zip(&end).map(|(start, end)| homography(start, end)).collect::<Result<Vec<_>>>()?;
    projected(node, &transforms, "constant", true)
}

/// `images` with the pixel at (x, y) read from `((a·x + b·y + c) / k, (d·x + e·y + f) / k)`, `k = g·x + h·y + 1`, of the
/// transform `[a, b, c, d, e, f, g, h]` of each image, or the only one; `solved` for, or given.
fn projected(node: &Node<'_, Value>, transforms: &[Vec<f32>], mode: &str, solved: bool) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let xs = batched(&floats(&value, value.dtype)?, channels_first(node))?;
    let (batch, height, width, channels) = xs.dims4()?;
    if transforms.len() != batch && transforms.len() != 1 {
        bail!("{} transforms for {batch} images", transforms.len());
    }
    let nearest = node.settings.text("interpolation") == "nearest";
    // How far a place may be off, by a transform that was solved for in float32.
    let unsure = 8.0 * f32::EPSILON * height.max(width) as f32;
    let inside = |y: f32, x: f32| -> Option<usize> {
        let within = |at: f32, size: usize| (at >= 0.0 && at < size as f32).then_some(at as usize);
        Some(within(y, height)? * width + within(x, width)?)
    };
    let taps = if nearest { 1 } else { 4 };
    let mut all: Vec<Tap> = Vec::with_capacity(batch * height * width * taps);
    for image in 0..batch {
        let Some(&[a, b, c, d, e, f, g, h]) =
            transforms.get(if transforms.len() == 1 { 0 } else { image }).and_then(|row| row.first_chunk::<8>())
        else {
            bail!("a transform of less than 8 numbers")
        };
        let offset = |place: Option<usize>| place.map(|place| image * height * width + place);
        for row in 0..height {
            for column in 0..width {
                let (x, y) = (column as f32, row as f32);
                let depth = g * x + h * y + 1.0;
                if depth == 0.0 {
                    all.extend(std::iter::repeat_n((None, 1.0 / taps as f32), taps));
                    continue;
                }
                let at_x = mapped((a * x + b * y + c) / depth, width, mode);
                let at_y = mapped((d * x + e * y + f) / depth, height, mode);
                if nearest {
                    let tie = |at: f32| (at - at.floor() - 0.5).abs() < unsure;
                    if solved && (tie(at_y) || tie(at_x)) {
                        bail!("a pixel read half-way between two: which is nearest hangs on TensorFlow's rounding");
                    }
                    all.push((offset(inside(at_y.round(), at_x.round())), 1.0));
                    continue;
                }
                let (top, left) = (at_y.floor(), at_x.floor());
                let (down, right) = (top + 1.0, left + 1.0);
                all.push((offset(inside(top, left)), (down - at_y) * (right - at_x)));
                all.push((offset(inside(top, right)), (down - at_y) * (at_x - left)));
                all.push((offset(inside(down, left)), (at_y - top) * (right - at_x)));
                all.push((offset(inside(down, right)), (at_y - top) * (at_x - left)));
            }
        }
    }
    let pixels = xs.reshape((batch * height * width, channels))?;
    let fill = node.settings.number("fill_value").unwrap_or(0.0);
    // One pixel more is what lies outside.
    let outside = Tensor::full(fill, (1, channels), xs.device())?.to_dtype(xs.dtype())?;
    let pixels = Tensor::cat(&[pixels, outside], 0)?;
    let mut sum: Option<Tensor> = None;
    for tap in 0..taps {
        let own = || all.iter().skip(tap).step_by(taps);
        let places = own().map(|(place, _)| u32::try_from(place.unwrap_or(batch * height * width)));
        let places = places.collect::<std::result::Result<Vec<u32>, _>>()?;
        let mut part = pixels.index_select(&Tensor::new(places.as_slice(), xs.device())?, 0)?;
        if !nearest {
            let weights: Vec<f32> = own().map(|(_, weight)| *weight).collect();
            let weights = Tensor::from_vec(weights, (batch * height * width, 1), xs.device())?.to_dtype(xs.dtype())?;
            part = part.broadcast_mul(&weights)?;
        }
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    let Some(sum) = sum else { bail!("an image without pixels") };
    let found = sum.reshape((batch, height, width, channels))?;
    Ok(vec![rounded(&unbatched(&found, channels_first(node), value.tensor.rank())?, value.dtype)?])
}

fn planned_coordinates(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (inputs, coordinates) = (node.spec("inputs")?, node.spec("coordinates")?);
    let Some((first, rest)) = coordinates.shape.0.split_first() else {
        return Err(invalid("coordinates without axes"));
    };
    if *first != Some(inputs.shape.rank()) || rest.is_empty() {
        return Err(invalid(format!("coordinates of shape {} into {}", coordinates.shape, inputs.shape)));
    }
    if !inputs.dtype.is_float()
        || !coordinates.dtype.is_float()
        || !matches!(node.settings.integer("order"), Some(0 | 1))
    {
        let what = "coordinates are supported for floats into floats, of order 0 and 1";
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    one(Shape(rest.to_vec()), inputs.dtype)
}

/// The cell of an axis of `size` that number `at` means, and whether it lies within. `None` where it means none.
fn cell(at: i64, size: i64, mode: &str) -> Option<(usize, bool)> {
    let (found, valid) = match mode {
        "constant" => (at.clamp(0, size - 1), (0..size).contains(&at)),
        "nearest" => (at.clamp(0, size - 1), true),
        "wrap" => (at.rem_euclid(size), true),
        // Keras: both go back and forth over twice the axis; mirrored, the cell after the last does not exist.
        _ => {
            let cycle = at.abs() % (2 * size);
            let back = if mode == "reflect" { 2 * size - cycle - 1 } else { 2 * size - cycle };
            (if cycle < size { cycle } else { back }, true)
        }
    };
    usize::try_from(found).ok().filter(|_| found < size).map(|found| (found, valid))
}

/// `inputs` read at `coordinates` `(axes, …)`, between the cells in proportion or (of order 0) at the nearest.
fn map_coordinates(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, coordinates) = (node.value("inputs")?, node.value("coordinates")?);
    let xs = floats(&value, value.dtype)?;
    let at = floats(&coordinates, coordinates.dtype)?;
    let (mode, nearest) = (node.settings.text("fill_mode"), node.settings.integer("order") == Some(0));
    let dims = xs.dims().to_vec();
    if at.dims().first() != Some(&dims.len()) {
        bail!("coordinates of shape {:?} into {dims:?}", at.dims());
    }
    let shape: Vec<usize> = at.dims().iter().skip(1).copied().collect();
    let count: usize = shape.iter().product();
    let flat = xs.contiguous()?.flatten_all()?;
    // For each axis, its one or two cells and their weights.
    let mut axes: Vec<Vec<(Vec<i64>, Option<Tensor>)>> = Vec::new();
    for axis in 0..dims.len() {
        let own = at.get(axis)?.flatten_all()?;
        let numbers = own.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if numbers.iter().any(|number| number.is_nan() || number.abs() > 2.0_f64.powi(30)) {
            bail!("a coordinate that is no place");
        }
        let whole = |f: fn(f64) -> f64| -> Vec<i64> { numbers.iter().map(|number| f(*number) as i64).collect() };
        if nearest {
            axes.push(vec![(whole(f64::round_ties_even), None)]);
            continue;
        }
        let lower = whole(f64::floor);
        let floor = Tensor::from_vec(lower.clone(), count, at.device())?.to_dtype(own.dtype())?;
        let upper_weight = (&own - &floor)?;
        let lower_weight = (1.0 - &upper_weight)?;
        let upper = lower.iter().map(|number| number + 1).collect();
        axes.push(vec![(lower, Some(lower_weight)), (upper, Some(upper_weight))]);
    }
    let fill = constant_like(
        &Tensor::zeros(count, xs.dtype(), xs.device())?,
        node.settings.number("fill_value").unwrap_or(0.0),
    )?;
    let mut sum: Option<Tensor> = None;
    let corners: usize = axes.iter().map(Vec::len).product();
    for corner in 0..corners {
        let (mut rest, mut weight) = (corner, None::<Tensor>);
        let (mut places, mut valid) = (vec![0_usize; count], vec![1_u8; count]);
        // The last axis turns fastest.
        let mut chosen = Vec::new();
        for options in axes.iter().rev() {
            chosen.push(options.get(rest % options.len()));
            rest /= options.len();
        }
        for (option, size) in chosen.into_iter().rev().zip(&dims) {
            let Some((cells, own)) = option else { bail!("a corner that does not exist") };
            for ((place, valid), number) in places.iter_mut().zip(&mut valid).zip(cells) {
                let Some((found, within)) = cell(*number, i64::try_from(*size)?, mode) else {
                    bail!("coordinate {number} is outside of an axis of {size}");
                };
                *place = *place * size + found;
                *valid &= u8::from(within);
            }
            weight = match (weight, own) {
                (None, own) => own.clone(),
                (Some(weight), Some(own)) => Some((weight * own)?),
                (weight, None) => weight,
            };
        }
        let places = places.into_iter().map(u32::try_from).collect::<std::result::Result<Vec<u32>, _>>()?;
        let mut part = flat.index_select(&Tensor::new(places.as_slice(), xs.device())?, 0)?;
        part = Tensor::new(valid.as_slice(), xs.device())?.where_cond(&part, &fill)?;
        if let Some(weight) = weight {
            part = (part * weight.to_dtype(xs.dtype())?)?;
        }
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    let Some(sum) = sum else { bail!("coordinates into a tensor without axes") };
    Ok(vec![rounded(&sum.reshape(shape)?, value.dtype)?])
}
