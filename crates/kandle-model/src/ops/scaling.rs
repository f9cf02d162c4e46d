//! `keras.ops.image` operations that compare images, or move them as a whole: SSIM, scale and translate.
//!
//! Source: keras/src/ops/image.py (`_ssim`), keras/src/backend/tensorflow/image.py (`_scale_and_translate`).

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Known, Node, Operand, Operation, Setting, convert, floats, host,
    image::{batched, channels_first},
    invalid, one, operation,
    reduction::variance_dtype,
    result_type, rounded,
    rounding::through,
    shapes,
};
use crate::{
    Argument, Shape, Spec, Value,
    activation::clip,
    math::{convolution, einsum::tensordot, window::Padding},
};

fn unsupported(what: String) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

fn planned_likeness(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (a, b) = (node.spec("image1")?, node.spec("image2")?);
    // In half precision, the differences of means of squares are mostly rounding.
    let known = |dtype: Dtype| matches!(dtype, Dtype::Float32 | Dtype::Float64);
    if a.shape.rank() != b.shape.rank() || !known(a.dtype) || !known(b.dtype) {
        let what = format!("{} of {} and {} of {}: only float32 and float64", a.shape, a.dtype, b.shape, b.dtype);
        return Err(unsupported(what));
    }
    filter(node).map_err(invalid)?;
    match a.shape.0.as_slice() {
        [_, _, _] => one(Shape(Vec::new()), a.dtype),
        [batch, _, _, _] => one(Shape(vec![*batch]), a.dtype),
        _ => Err(invalid(format!("expected an image or a batch of images, found {}", a.shape))),
    }
}

/// Size and σ of the filter.
fn filter<T>(node: &Node<'_, T>) -> std::result::Result<(usize, f64), String> {
    let size = node.settings.integer("filter_size").and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| (1..1 << 10).contains(size)).ok_or("filter_size: expected at least 1")?;
    Ok((size, node.settings.number("filter_sigma").unwrap_or(1.5)))
}

/// The mean over windows of `(2 μ₁ μ₂ + c₁)(2 σ₁₂ + c₂) / ((μ₁² + μ₂² + c₁)(σ₁² + σ₂² + c₂))` under a bell, of each channel.
fn likeness(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (a, b) = (node.value("image1")?, node.value("image2")?);
    let dtype = variance_dtype(a.dtype);
    let (size, sigma) = filter(node).map_err(candle_core::Error::msg)?;
    let number = |key: &str, default: f64| node.settings.number(key).unwrap_or(default);
    let largest = number("max_val", 1.0);
    let (c1, c2) = ((number("k1", 0.01) * largest).powi(2), (number("k2", 0.03) * largest).powi(2));
    let single = a.tensor.rank() == 3;
    // Channels as images of their own: (batch · channels, height, width, 1).
    let apart = |value: &Value| -> Result<(Tensor, usize, usize)> {
        let xs = batched(&floats(&convert(value, dtype)?, dtype)?, channels_first(node))?;
        let (batch, height, width, channels) = xs.dims4()?;
        let xs = xs.permute((0, 3, 1, 2))?.contiguous()?.reshape((batch * channels, height, width, 1))?;
        Ok((xs.to_dtype(DType::F64)?, batch, channels))
    };
    let ((xs, batch, channels), (ys, _, _)) = (apart(&a)?, apart(&b)?);
    if xs.dims() != ys.dims() {
        bail!("expected two images of one shape, found {:?} and {:?}", a.tensor.dims(), b.tensor.dims());
    }
    let middle = (size as f64 - 1.0) / 2.0;
    let bell: Vec<f64> = (0..size).map(|at| (-(at as f64 - middle).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = bell.iter().sum();
    let kernel = bell.iter().flat_map(|row| bell.iter().map(move |column| row * column / (sum * sum)));
    let kernel = Tensor::from_vec(kernel.collect::<Vec<f64>>(), (size, size, 1, 1), xs.device())?;
    let mean = |xs: &Tensor| convolution::convolution(xs, &kernel, &[1, 1], Padding::Valid, &[1, 1], 1);
    let (of_x, of_y) = (mean(&xs)?, mean(&ys)?);
    let both = (&of_x * &of_y)?;
    let (squares_x, squares_y) = (of_x.sqr()?, of_y.sqr()?);
    let spread_x = (mean(&xs.sqr()?)? - &squares_x)?;
    let spread_y = (mean(&ys.sqr()?)? - &squares_y)?;
    let together = (mean(&(&xs * &ys)?)? - &both)?;
    let above = (((both * 2.0)? + c1)? * ((together * 2.0)? + c2)?)?;
    let below = (((squares_x + squares_y)? + c1)? * ((spread_x + spread_y)? + c2)?)?;
    let found = (above / below)?.mean((1, 2, 3))?.reshape((batch, channels))?.mean(1)?;
    let found = if single { found.squeeze(0)? } else { found };
    Ok(vec![rounded(&through(&found, dtype)?, a.dtype)?])
}

const METHODS: &[&str] = &["linear", "bilinear", "trilinear", "cubic", "bicubic", "tricubic", "lanczos3", "lanczos5"];

/// The sizes that `output_shape` says.
fn sizes<T: Known>(node: &Node<'_, T>) -> std::result::Result<Vec<usize>, String> {
    let wrong = || "output_shape: expected a list of sizes".to_owned();
    let Some(Argument::Constant(value)) = node.given.argument("output_shape") else { return Err(wrong()) };
    let size = |size: &kandle_format::json::Value| size.as_u64().and_then(|size| usize::try_from(size).ok());
    value.as_array().and_then(|items| items.iter().map(size).collect()).ok_or_else(wrong)
}

/// The axes that are scaled, in their order.
fn scaled_axes<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<Vec<usize>, String> {
    let axes = node.settings.integers("spatial_dims").ok_or("spatial_dims is missing")?;
    axes.iter().map(|axis| shapes::axis(*axis, rank)).collect()
}

/// Keras: plans `output_shape`, of which only the sizes of the axes that are scaled count.
fn planned_scaled(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let images = node.spec("images")?;
    let sizes = sizes(node).map_err(invalid)?;
    if !METHODS.contains(&node.settings.text("method")) {
        return Err(invalid(format!("method: expected {}", METHODS.join(", "))));
    }
    scaled_axes(node, images.shape.rank()).map_err(invalid)?;
    let known = |operand: Operand<'_, Spec>| operand.dtype() == Dtype::Float32 || operand.dtype() == Dtype::Float64;
    if sizes.len() != images.shape.rank() || !known(node.operand("scale")?) || !known(node.operand("translation")?) {
        let what = "scale, translation: only float32 and float64, and an output_shape of the images' rank".to_owned();
        return Err(unsupported(what));
    }
    if matches!(images.dtype, Dtype::Bool | Dtype::String) {
        return Err(unsupported(format!("images of {}", images.dtype)));
    }
    one(Shape(sizes.into_iter().map(Some).collect()), images.dtype)
}

/// The weight of what is `x` away.
fn weight(method: &str, x: f64) -> f64 {
    use std::f64::consts::PI;
    let lanczos = |radius: f64| {
        if x > radius {
            return 0.0;
        }
        let y = radius * (PI * x).sin() * (PI * x / radius).sin();
        if x > 1e-3 { y / (PI * PI * x * x) } else { 1.0 }
    };
    match method {
        "lanczos3" => lanczos(3.0),
        "lanczos5" => lanczos(5.0),
        "cubic" | "bicubic" | "tricubic" => match x {
            x if x >= 2.0 => 0.0,
            x if x >= 1.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            x => ((1.5 * x - 2.5) * x) * x + 1.0,
        },
        _ => (1.0 - x).max(0.0),
    }
}

/// One axis: how long it was and becomes, how it is scaled and moved.
struct Moved<'a> {
    from: usize,
    to: usize,
    scale: f64,
    translation: f64,
    method: &'a str,
    antialias: bool,
    single: bool,
}

impl Moved<'_> {
    /// What each cell weighs in each new one, `(from, to)`, by rows. Places are computed as float32 has them, so that the
    /// same ones lie outside.
    fn weights(&self) -> Vec<f64> {
        let round = |number: f64| if self.single { f64::from(number as f32) } else { number };
        let inverse = round(1.0 / self.scale);
        let kernel = if self.antialias { inverse.max(1.0) } else { 1.0 };
        let shift = round(self.translation * inverse);
        let place = |at: usize| round(round(round((at as f64 + 0.5) * inverse) - shift) - 0.5);
        let last = self.from as f64 - 0.5;
        let mut weights = vec![0.0; self.from * self.to];
        for column in 0..self.to {
            let place = place(column);
            if !(place >= -0.5 && place <= last) {
                continue;
            }
            let own = |cell: usize| weight(self.method, round(round((place - cell as f64).abs()) / kernel));
            let all: Vec<f64> = (0..self.from).map(own).collect();
            let sum: f64 = all.iter().sum();
            // Keras: the step of float32, whatever the dtype.
            if sum.abs() <= 1000.0 * f64::from(f32::EPSILON) {
                continue;
            }
            for (cell, number) in all.into_iter().enumerate() {
                if let Some(weight) = weights.get_mut(cell * self.to + column) {
                    *weight = number / sum;
                }
            }
        }
        weights
    }
}

fn scaled(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let sizes = sizes(node).map_err(candle_core::Error::msg)?;
    let (scale, translation) = (node.value("scale")?, node.value("translation")?);
    let single = result_type(&[scale.dtype.into(), translation.dtype.into()]) == Dtype::Float32;
    let numbers = |value: &Value| value.tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    let (scale, translation) = (numbers(&scale)?, numbers(&translation)?);
    let axes = scaled_axes(node, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    if axes.is_empty() {
        return Ok(vec![value]);
    }
    let whole = !value.dtype.is_float();
    let dtype = if whole { Dtype::Float32 } else { value.dtype };
    let mut xs = floats(&value, dtype)?.contiguous()?;
    for (index, axis) in axes.into_iter().enumerate() {
        let (Some(to), Some(scale), Some(translation)) = (sizes.get(axis), scale.get(index), translation.get(index))
        else {
            bail!("scale and translation of fewer numbers than spatial_dims");
        };
        let (from, to) = (xs.dim(axis)?, *to);
        let (method, antialias) = (node.settings.text("method"), node.settings.flag("antialias"));
        let moved = Moved { from, to, scale: *scale, translation: *translation, method, antialias, single };
        let weights = Tensor::from_vec(moved.weights(), (from, to), &Device::Cpu)?.to_device(xs.device())?;
        let weights = through(&weights.to_dtype(xs.dtype())?, dtype)?;
        let last = xs.rank() - 1;
        let order: Vec<usize> = (0..axis).chain([last]).chain(axis..last).collect();
        xs = through(&tensordot(&xs, &weights, &[axis], &[0])?, dtype)?.permute(order)?.contiguous()?;
    }
    if !whole {
        return Ok(vec![rounded(&xs, dtype)?]);
    }
    let own = Integers::of(&value)?.numbers;
    let (Some(least), Some(most)) = (own.iter().min(), own.iter().max()) else { bail!("images without pixels") };
    // Keras: integers stay within those of the images.
    let xs = clip(&host::steps(&xs, f64::round_ties_even)?, *least as f64, *most as f64)?;
    Ok(vec![convert(&rounded(&xs, dtype)?, value.dtype)?])
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("SSIM", &["image1", "image2"], planned_likeness, likeness).with(&[
        ("max_val", Setting::Number(1.0)),
        ("filter_size", Setting::Integer(11)),
        ("filter_sigma", Setting::Number(1.5)),
        ("k1", Setting::Number(0.01)),
        ("k2", Setting::Number(0.03)),
        ("data_format", Setting::Choice(&["channels_last", "channels_first"])),
    ]),
    operation("ScaleAndTranslate", &["images", "output_shape", "scale", "translation"], planned_scaled, scaled)
        .with(&[("spatial_dims", Setting::Integers), ("method", Setting::Text), ("antialias", Setting::Flag(true))]),
];
