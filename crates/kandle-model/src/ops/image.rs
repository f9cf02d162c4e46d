//! `keras.ops.image`: resizing, colours, cropping, padding, patches. Source: keras/src/ops/image.py,
//! keras/src/backend/tensorflow/image.py.

use candle_core::{D, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Kind, Node, Operation, Setting, convert, core::saturated, elementwise::or_number, floats, host, invalid, one,
    operation, result_type, rounded,
};
use crate::{
    Shape, Spec, Value,
    math::{
        convolution,
        resize::{self, Interpolation},
        window::{Padding, Window, lengths, pad},
    },
};

const IMAGES: &[&str] = &["images"];
const FORMATS: Setting = Setting::Choice(&["channels_last", "channels_first"]);
const FORMAT: &[(&str, Setting)] = &[("data_format", FORMATS)];

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("RGBToGrayscale", IMAGES, planned_grayscale, grayscale).with(FORMAT),
    operation("RGBToHSV", IMAGES, planned_colours, |node| colours(node, to_hsv)).with(FORMAT),
    operation("HSVToRGB", IMAGES, planned_colours, |node| colours(node, to_rgb)).with(FORMAT),
    operation("Resize", IMAGES, planned_resize, resize).with(&[
        ("size", Setting::Integers),
        ("interpolation", Setting::Choice(&["bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area"])),
        ("antialias", Setting::Flag(false)),
        ("crop_to_aspect_ratio", Setting::Flag(false)),
        ("pad_to_aspect_ratio", Setting::Flag(false)),
        ("fill_mode", Setting::Choice(&["constant"])),
        ("fill_value", Setting::Number(0.0)),
        ("data_format", FORMATS),
    ]),
    operation("CropImages", IMAGES, |node| planned_borders(node, &CROPPING), crop).with(&[
        ("top_cropping", Setting::Integers),
        ("left_cropping", Setting::Integers),
        ("bottom_cropping", Setting::Integers),
        ("right_cropping", Setting::Integers),
        ("target_height", Setting::Integers),
        ("target_width", Setting::Integers),
        ("data_format", FORMATS),
    ]),
    operation("PadImages", IMAGES, |node| planned_borders(node, &PADDING), pad_images).with(&[
        ("top_padding", Setting::Integers),
        ("left_padding", Setting::Integers),
        ("bottom_padding", Setting::Integers),
        ("right_padding", Setting::Integers),
        ("target_height", Setting::Integers),
        ("target_width", Setting::Integers),
        ("data_format", FORMATS),
    ]),
    operation("ExtractPatches", IMAGES, planned_patches, patches).with(&[
        ("size", Setting::Integers),
        ("strides", Setting::Integers),
        ("dilation_rate", Setting::Integers),
        ("padding", Setting::Choice(&["valid", "same"])),
        ("data_format", FORMATS),
    ]),
    operation("GaussianBlur", IMAGES, planned_blur, blur).with(&[
        ("kernel_size", Setting::Integers),
        ("sigma", Setting::Any),
        ("data_format", FORMATS),
    ]),
    operation("SobelEdges", IMAGES, planned_edges, edges).with(FORMAT),
];

/// Whether channels come first.
pub(super) fn channels_first<T>(node: &Node<'_, T>) -> bool {
    node.settings.text("data_format") == "channels_first"
}

/// Where height, width and channels are in a shape of `rank`.
#[derive(Clone, Copy)]
struct Axes {
    height: usize,
    width: usize,
    channels: usize,
}

fn axes<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<Axes, String> {
    let first = rank.checked_sub(3).filter(|before| *before <= 1);
    let first = first.ok_or_else(|| format!("expected an image or a batch of images, found rank {rank}"))?;
    Ok(match channels_first(node) {
        true => Axes { channels: first, height: first + 1, width: first + 2 },
        false => Axes { height: first, width: first + 1, channels: first + 2 },
    })
}

fn images<'a>(node: &Node<'a, Spec>) -> std::result::Result<(Spec, Axes), Problem> {
    let images = node.spec("images")?;
    let axes = axes(node, images.shape.rank()).map_err(invalid)?;
    Ok((images, axes))
}

fn size_at(shape: &Shape, axis: usize) -> Option<usize> {
    shape.0.get(axis).copied().flatten()
}

fn with_axis(mut shape: Shape, axis: usize, size: Option<usize>) -> Shape {
    if let Some(own) = shape.0.get_mut(axis) {
        *own = size;
    }
    shape
}

/// `images` as `(batch, height, width, channels)`.
pub(super) fn batched(images: &Tensor, channels_first: bool) -> Result<Tensor> {
    let images = if images.rank() == 3 { images.unsqueeze(0)? } else { images.clone() };
    if images.rank() != 4 {
        bail!("expected an image or a batch of images, found rank {}", images.rank());
    }
    if channels_first { images.permute((0, 2, 3, 1))?.contiguous() } else { images.contiguous() }
}

/// The way back, to `rank` axes.
pub(super) fn unbatched(images: &Tensor, channels_first: bool, rank: usize) -> Result<Tensor> {
    let images = if channels_first { images.permute((0, 3, 1, 2))?.contiguous()? } else { images.clone() };
    if rank == 3 { images.squeeze(0) } else { Ok(images) }
}

fn planned_grayscale(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, axes) = images(node)?;
    if !matches!(size_at(&images.shape, axes.channels), None | Some(1 | 3)) {
        return Err(invalid(format!("expected 1 or 3 channels, found an input of {}", images.shape)));
    }
    one(with_axis(images.shape, axes.channels, Some(1)), images.dtype)
}

/// `0.2989 · red + 0.587 · green + 0.114 · blue`.
fn grayscale(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let axes = axes(node, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    if value.tensor.dim(axes.channels)? == 1 {
        return Ok(vec![value]);
    }
    let compute = result_type(&[value.dtype.into(), Kind::Float]);
    let xs = floats(&value, compute)?;
    let mut sum: Option<Tensor> = None;
    for (channel, weight) in [0.2989, 0.587, 0.114].into_iter().enumerate() {
        let weight = Tensor::new(weight, xs.device())?.to_dtype(crate::numeric::storage(compute)?)?;
        let part = xs.narrow(axes.channels, channel, 1)?.broadcast_mul(&weight.to_dtype(xs.dtype())?)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    let Some(sum) = sum else { bail!("an image without channels") };
    Ok(vec![convert(&rounded(&sum, compute)?, value.dtype)?])
}

fn planned_colours(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, axes) = images(node)?;
    if !images.dtype.is_float() || !matches!(size_at(&images.shape, axes.channels), None | Some(3)) {
        return Err(invalid(format!("expected floats of 3 channels, found {} of {}", images.shape, images.dtype)));
    }
    Ok(vec![images])
}

/// `f` of the three channels.
fn colours(node: &Node<'_, Value>, f: fn(&[Tensor; 3]) -> Result<[Tensor; 3]>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let axes = axes(node, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    let xs = floats(&value, value.dtype)?;
    let channel = |at: usize| xs.narrow(axes.channels, at, 1);
    let found = f(&[channel(0)?, channel(1)?, channel(2)?])?;
    Ok(vec![rounded(&Tensor::cat(&found, axes.channels)?, value.dtype)?])
}

/// Hue, saturation and value, each from 0 to 1.
fn to_hsv([red, green, blue]: &[Tensor; 3]) -> Result<[Tensor; 3]> {
    let larger = |a: &Tensor, b: &Tensor| a.ge(b)?.where_cond(a, b);
    let smaller = |a: &Tensor, b: &Tensor| a.le(b)?.where_cond(a, b);
    let value = larger(&larger(red, green)?, blue)?;
    let range = (&value - smaller(&smaller(red, green)?, blue)?)?;
    let zero = value.zeros_like()?;
    let positive = value.gt(0.0)?;
    let saturation = positive.where_cond(&(&range / or_number(&positive, &value, 1.0)?)?, &zero)?;
    let some = range.gt(0.0)?;
    let norm = (or_number(&some, &range, 1.0)?.recip()? / 6.0)?;
    let by_red = (&norm * (green - blue)?)?;
    let by_green = ((&norm * (blue - red)?)? + 2.0 / 6.0)?;
    let by_blue = ((&norm * (red - green)?)? + 4.0 / 6.0)?;
    let other = green.eq(&value)?.where_cond(&by_green, &by_blue)?;
    let hue = red.eq(&value)?.where_cond(&by_red, &other)?;
    let hue = some.where_cond(&hue, &zero)?;
    let hue = hue.lt(0.0)?.where_cond(&(&hue + 1.0)?, &hue)?;
    Ok([hue, saturation, value])
}

/// Red, green and blue.
fn to_rgb([hue, saturation, value]: &[Tensor; 3]) -> Result<[Tensor; 3]> {
    let clipped = |xs: Tensor| crate::activation::clip(&xs, 0.0, 1.0);
    let sixths = (hue * 6.0)?;
    let red = clipped(((&sixths - 3.0)?.abs()? - 1.0)?)?;
    let green = clipped((2.0 - (&sixths - 2.0)?.abs()?)?)?;
    let blue = clipped((2.0 - (&sixths - 4.0)?.abs()?)?)?;
    let rest = (1.0 - saturation)?;
    let mix = |xs: Tensor| (&rest + (saturation * xs)?)? * value;
    Ok([mix(red)?, mix(green)?, mix(blue)?])
}

/// The height and width to resize to.
fn target<T>(node: &Node<'_, T>) -> std::result::Result<(usize, usize), String> {
    match node.settings.integers("size") {
        Some([height, width]) if *height > 0 && *width > 0 => usize::try_from(*height)
            .and_then(|height| Ok((height, usize::try_from(*width)?)))
            .map_err(|error| error.to_string()),
        size => Err(format!("size: expected a height and a width, found {size:?}")),
    }
}

fn planned_resize(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, axes) = images(node)?;
    let (height, width) = target(node).map_err(invalid)?;
    if node.settings.flag("crop_to_aspect_ratio") && node.settings.flag("pad_to_aspect_ratio") {
        return Err(invalid("crop_to_aspect_ratio and pad_to_aspect_ratio cannot both be true"));
    }
    if !images.dtype.is_float() && matches!(images.dtype, Dtype::Bool | Dtype::String) {
        return Err(invalid(format!("expected numbers, found {}", images.dtype)));
    }
    let shape = with_axis(images.shape, axes.height, Some(height));
    one(with_axis(shape, axes.width, Some(width)), images.dtype)
}

/// `⌊size · to / from⌋` as float32 has it.
fn scaled(size: usize, to: usize, from: usize) -> usize {
    ((size * to) as f32 / from as f32) as usize
}

fn resize(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let (to_height, to_width) = target(node).map_err(candle_core::Error::msg)?;
    let interpolation = Interpolation::named(node.settings.text("interpolation"));
    let Some(interpolation) = interpolation else { bail!("interpolation is not known") };
    let mut xs = batched(&value.tensor, channels_first(node))?;
    let (_, height, width, _) = xs.dims4()?;
    if node.settings.flag("crop_to_aspect_ratio") {
        let own_height = scaled(width, to_height, to_width).min(height).max(1);
        let own_width = scaled(height, to_width, to_height).min(width).max(1);
        let (top, left) = ((height - own_height) / 2, (width - own_width) / 2);
        xs = xs.narrow(1, top, own_height)?.narrow(2, left, own_width)?.contiguous()?;
    } else if node.settings.flag("pad_to_aspect_ratio") {
        let fill = node.settings.number("fill_value").unwrap_or(0.0);
        let top = (scaled(width, to_height, to_width).max(height) - height) / 2;
        let left = (scaled(height, to_width, to_height).max(width) - width) / 2;
        xs = pad(&pad(&xs, 1, top, top, fill)?, 2, left, left, fill)?;
    }
    let resized = resize::resize(&xs, to_height, to_width, interpolation, node.settings.flag("antialias"))?;
    let resized = unbatched(&resized, channels_first(node), value.tensor.rank())?;
    if interpolation == Interpolation::Nearest || value.dtype == Dtype::Float32 {
        return Ok(vec![value.with_tensor(resized)]);
    }
    let resized = match value.dtype.is_float() {
        true => resized,
        false => host::steps(&resized, f64::round_ties_even)?,
    };
    Ok(vec![saturated(&Value::new(resized, Dtype::Float32), value.dtype)?])
}

/// The settings that say how much is added or taken on each side.
struct Borders {
    vertical: [&'static str; 3],
    horizontal: [&'static str; 3],
    grows: bool,
}

const PADDING: Borders = Borders {
    vertical: ["top_padding", "bottom_padding", "target_height"],
    horizontal: ["left_padding", "right_padding", "target_width"],
    grows: true,
};
const CROPPING: Borders = Borders {
    vertical: ["top_cropping", "bottom_cropping", "target_height"],
    horizontal: ["left_cropping", "right_cropping", "target_width"],
    grows: false,
};

/// What comes before an axis, what after, and how long it is then; unknown where the axis is, and only said by two of the
/// three.
fn border<T>(
    node: &Node<'_, T>,
    keys: [&'static str; 3],
    grows: bool,
    size: Option<usize>,
) -> std::result::Result<(i64, i64, Option<i64>), String> {
    let [before, after, target] = keys.map(|key| node.settings.integer(key));
    if [before, after, target].iter().flatten().any(|number| !(0..1 << 40).contains(number)) {
        return Err(format!("{}: expected numbers of at least 0", keys.join(", ")));
    }
    if [before, after, target].iter().filter(|number| number.is_none()).count() != 1 {
        return Err(format!("expected two of {}", keys.join(", ")));
    }
    let Some(size) = size.map(i64::try_from).transpose().map_err(|error| error.to_string())? else {
        return Ok((before.unwrap_or_default(), after.unwrap_or_default(), target));
    };
    let change = |target: i64| if grows { target - size } else { size - target };
    let found = match (before, after, target) {
        (Some(before), Some(after), _) => {
            let both = before + after;
            (before, after, if grows { size + both } else { size - both })
        }
        (Some(before), None, Some(target)) => (before, change(target) - before, target),
        (None, Some(after), Some(target)) => (change(target) - after, after, target),
        _ => return Err(format!("expected two of {}", keys.join(", "))),
    };
    if found.0 < 0 || found.1 < 0 || found.2 < 0 {
        return Err(format!("{}: {found:?} of an axis of {size}", keys.join(", ")));
    }
    Ok((found.0, found.1, Some(found.2)))
}

fn planned_borders(node: &Node<'_, Spec>, borders: &Borders) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, axes) = images(node)?;
    let mut shape = images.shape;
    for (axis, keys) in [(axes.height, borders.vertical), (axes.width, borders.horizontal)] {
        let (_, _, length) = border(node, keys, borders.grows, size_at(&shape, axis)).map_err(invalid)?;
        if length.is_none() && !borders.grows {
            return Err(invalid(format!("{} is missing, and the size of the axis is not known", keys.join(", "))));
        }
        let length = length.map(usize::try_from).transpose().map_err(|error| invalid(error.to_string()))?;
        shape = with_axis(shape, axis, length);
    }
    one(shape, images.dtype)
}

/// How much comes before and after the height and the width.
fn borders_of(node: &Node<'_, Value>, borders: &Borders, value: &Value) -> Result<Vec<(usize, usize, usize)>> {
    let axes = axes(node, value.tensor.rank()).map_err(candle_core::Error::msg)?;
    let mut found = Vec::new();
    for (axis, keys) in [(axes.height, borders.vertical), (axes.width, borders.horizontal)] {
        let size = value.tensor.dim(axis)?;
        let (before, after, _) = border(node, keys, borders.grows, Some(size)).map_err(candle_core::Error::msg)?;
        found.push((axis, usize::try_from(before)?, usize::try_from(after)?));
    }
    Ok(found)
}

fn crop(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let mut xs = value.tensor.clone();
    for (axis, before, after) in borders_of(node, &CROPPING, &value)? {
        let size = xs.dim(axis)?.saturating_sub(before + after);
        xs = xs.narrow(axis, before, size)?;
    }
    Ok(vec![value.with_tensor(xs.contiguous()?)])
}

fn pad_images(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let mut xs = value.tensor.clone();
    for (axis, before, after) in borders_of(node, &PADDING, &value)? {
        xs = pad(&xs, axis, before, after, 0.0)?;
    }
    Ok(vec![value.with_tensor(xs)])
}

/// The windows of `ExtractPatches`: two axes, or three where `size` has three numbers.
fn patch_windows<T>(node: &Node<'_, T>) -> std::result::Result<Vec<Window>, String> {
    let sizes = |key: &str, rank: usize, default: &[usize]| -> std::result::Result<Vec<usize>, String> {
        let Some(numbers) = node.settings.integers(key) else { return Ok(default.to_vec()) };
        let numbers = numbers.iter().map(|number| usize::try_from(*number)).collect::<std::result::Result<Vec<_>, _>>();
        match numbers.map_err(|error| format!("{key}: {error}"))?.as_slice() {
            [one] => Ok(vec![*one; rank]),
            numbers if numbers.len() == rank => Ok(numbers.to_vec()),
            numbers => Err(format!("{key}: expected {rank} numbers, found {numbers:?}")),
        }
    };
    let rank = if node.settings.integers("size").is_some_and(|size| size.len() == 3) { 3 } else { 2 };
    let size = sizes("size", rank, &[])?;
    let strides = sizes("strides", rank, &size)?;
    Window::all(&size, &strides, &sizes("dilation_rate", rank, &vec![1; rank])?)
}

fn patch_padding<T>(node: &Node<'_, T>) -> Padding {
    if node.settings.text("padding") == "same" { Padding::Same } else { Padding::Valid }
}

fn planned_patches(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let images = node.spec("images")?;
    let windows = patch_windows(node).map_err(invalid)?;
    let rank = windows.len();
    let Shape(own) = &images.shape;
    if !(own.len() == rank + 1 || own.len() == rank + 2) || !images.dtype.is_float() {
        return Err(invalid(format!("expected floats of rank {} or {}, found {}", rank + 1, rank + 2, images.shape)));
    }
    let (outer, rest) = own.split_at(own.len() - rank - 1);
    let (spatial, channels) = match (channels_first(node), rest) {
        (true, [channels, spatial @ ..]) | (false, [spatial @ .., channels]) => (spatial.to_vec(), *channels),
        _ => return Err(invalid("expected an image")),
    };
    let spatial = lengths(&spatial, &windows, patch_padding(node)).map_err(invalid)?;
    let Some(channels) = channels else { return Err(invalid("the number of channels is not known")) };
    let filters = windows.iter().try_fold(channels, |product, window| product.checked_mul(window.kernel));
    let filters = vec![Some(filters.ok_or_else(|| invalid("patches that are too large"))?)];
    let axes = match channels_first(node) {
        true => [outer, &filters, &spatial].concat(),
        false => [outer, &spatial, &filters].concat(),
    };
    one(Shape(axes), images.dtype)
}

/// What each window sees, as one vector.
fn patches(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    const MOST: usize = 1 << 13;
    let value = node.value("images")?;
    let windows = patch_windows(node).map_err(candle_core::Error::msg)?;
    let single = value.tensor.rank() == windows.len() + 1;
    let xs = floats(&value, value.dtype)?;
    let xs = super::windows::to_last(&if single { xs.unsqueeze(0)? } else { xs }, channels_first(node))?;
    let channels = xs.dim(D::Minus1)?;
    let size: Vec<usize> = windows.iter().map(|window| window.kernel).collect();
    let filters: usize = size.iter().product::<usize>() * channels;
    if filters > MOST {
        bail!("patches of {filters} numbers, more than the limit of {MOST}");
    }
    // A convolution with the identity, as Keras has it: beside NaN and infinities everything is NaN.
    let identity = Tensor::eye(filters, xs.dtype(), xs.device())?.reshape([size, vec![channels, filters]].concat())?;
    let strides: Vec<usize> = windows.iter().map(|window| window.stride).collect();
    let dilation: Vec<usize> = windows.iter().map(|window| window.dilation).collect();
    let found = convolution::convolution(&xs, &identity, &strides, patch_padding(node), &dilation, 1)?;
    let found = super::windows::from_last(&found, channels_first(node))?;
    Ok(vec![rounded(&if single { found.squeeze(0)? } else { found }, value.dtype)?])
}

fn unsupported(what: String) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

/// Kernel size and σ for the two axes.
fn blur_settings<T>(node: &Node<'_, T>) -> std::result::Result<([usize; 2], [f64; 2]), String> {
    let size = match node.settings.integers("kernel_size") {
        None => [3, 3],
        Some([a, b]) => [usize::try_from(*a), usize::try_from(*b)].map(|size| size.unwrap_or(0)),
        Some(size) => return Err(format!("kernel_size: expected two numbers, found {size:?}")),
    };
    let sigma = match node.settings.any("sigma") {
        None => [1.0, 1.0],
        Some(value) => match value.as_array().map(Vec::as_slice) {
            Some([a, b]) => [a, b].map(|number| kandle_format::json::number(number).unwrap_or(f64::NAN)),
            _ => return Err("sigma: expected two numbers".to_owned()),
        },
    };
    if size.contains(&0) || size.iter().any(|size| *size > 1 << 10) || sigma.iter().any(|sigma| sigma.is_nan()) {
        return Err("kernel_size and sigma: expected numbers of at least 1".to_owned());
    }
    Ok((size, sigma))
}

fn planned_blur(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, _) = images(node)?;
    blur_settings(node).map_err(invalid)?;
    match images.dtype {
        Dtype::Float32 | Dtype::Float64 => Ok(vec![images]),
        dtype => Err(unsupported(format!("a blur of {dtype} is not supported (only float32 and float64)"))),
    }
}

/// The convolution of each channel with a bell of σ, its sum 1.
///
/// Keras: the kernel is the product of the second bell (as rows) and the first, read in the shape of the kernel size.
fn blur(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let ([height, width], [first, second]) = blur_settings(node).map_err(candle_core::Error::msg)?;
    let xs = batched(&floats(&value, value.dtype)?, channels_first(node))?;
    let bell = |size: usize, sigma: f64| -> Vec<f64> {
        let middle = (size as f64 - 1.0) / 2.0;
        let powers: Vec<f64> = (0..size).map(|at| (-0.5 * ((at as f64 - middle) / sigma).powi(2)).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    };
    let (rows, columns) = (bell(width, second), bell(height, first));
    let kernel: Vec<f64> = rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect();
    let channels = xs.dim(3)?;
    let kernel = Tensor::from_vec(kernel, (height, width, 1, 1), xs.device())?.to_dtype(xs.dtype())?;
    let kernel = kernel.broadcast_as((height, width, channels, 1))?.contiguous()?;
    let blurred = convolution::depthwise(&xs, &kernel, &[1, 1], Padding::Same, &[1, 1])?;
    Ok(vec![rounded(&unbatched(&blurred, channels_first(node), value.tensor.rank())?, value.dtype)?])
}

fn planned_edges(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (images, _) = images(node)?;
    if images.shape.rank() != 4 || !images.dtype.is_float() {
        return Err(invalid(format!("expected floats of rank 4, found {} of {}", images.shape, images.dtype)));
    }
    one(Shape([images.shape.0, vec![Some(2)]].concat()), images.dtype)
}

/// The Sobel filters along height and width, images reflected at their borders.
fn edges(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("images")?;
    let xs = batched(&floats(&value, value.dtype)?, channels_first(node))?;
    let (_, height, width, channels) = xs.dims4()?;
    let reflected = |size: usize| -> Result<Vec<usize>> {
        if size < 2 {
            bail!("an image of {height} × {width} has nothing to reflect");
        }
        Ok(std::iter::once(1).chain(0..size).chain([size - 2]).collect())
    };
    let xs = crate::math::window::select(&xs, 1, &reflected(height)?)?;
    let xs = crate::math::window::select(&xs, 2, &reflected(width)?)?;
    let down: [f64; 9] = [-1.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0];
    let right: [f64; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
    let filter = |kernel: [f64; 9]| -> Result<Tensor> {
        let kernel = Tensor::from_vec(kernel.to_vec(), (3, 3, 1, 1), xs.device())?.to_dtype(xs.dtype())?;
        let kernel = kernel.broadcast_as((3, 3, channels, 1))?.contiguous()?;
        convolution::depthwise(&xs, &kernel, &[1, 1], Padding::Valid, &[1, 1])
    };
    let found = Tensor::stack(&[filter(down)?, filter(right)?], 4)?;
    let found = if channels_first(node) { found.permute((0, 3, 1, 2, 4))?.contiguous()? } else { found };
    Ok(vec![rounded(&found, value.dtype)?])
}
