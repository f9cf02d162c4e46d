//! Convolution and pooling as operations, and the moves between depth and space.
//!
//! Source: keras/src/ops/nn.py, keras/src/backend/tensorflow/nn.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{ErrorKind, Problem};

use super::{Node, Operation, Setting, floats, invalid, one, operation, rounded};
use crate::{
    Shape, Spec, Value,
    math::{
        convolution, pooling,
        window::{Padding, Window, lengths},
    },
};

const INPUTS: &[&str] = &["inputs"];
const FORMATS: Setting = Setting::Choice(&["channels_last", "channels_first"]);
const PADDINGS: Setting = Setting::Choice(&["valid", "same"]);
const POOL: &[(&str, Setting)] = &[
    ("pool_size", Setting::Integers),
    ("strides", Setting::Integers),
    ("padding", PADDINGS),
    ("data_format", FORMATS),
];
const CONVOLUTION: &[(&str, Setting)] = &[
    ("strides", Setting::Integers),
    ("padding", PADDINGS),
    ("data_format", FORMATS),
    ("dilation_rate", Setting::Integers),
];
const BLOCKS: &[(&str, Setting)] = &[("block_size", Setting::Integer(0)), ("data_format", FORMATS)];

/// The operations of this file.
pub(super) static OPERATIONS: &[Operation] = &[
    operation("MaxPool", INPUTS, planned_pool, |node| pool(node, true)).with(POOL),
    operation("AveragePool", INPUTS, planned_pool, |node| pool(node, false)).with(POOL),
    operation("Conv", &["inputs", "kernel"], |node| planned_convolution(node, "kernel", Filters::Last), convolve)
        .with(CONVOLUTION),
    operation(
        "DepthwiseConv",
        &["inputs", "kernel"],
        |node| planned_convolution(node, "kernel", Filters::Multiplied),
        convolve_depthwise,
    )
    .with(CONVOLUTION),
    operation(
        "SeparableConv",
        &["inputs", "depthwise_kernel", "pointwise_kernel"],
        |node| planned_convolution(node, "depthwise_kernel", Filters::Pointwise),
        convolve_separably,
    )
    .with(CONVOLUTION),
    operation("DepthToSpace", &["x"], |node| planned_blocks(node, true), |node| blocks(node, true)).with(BLOCKS),
    operation("SpaceToDepth", &["x"], |node| planned_blocks(node, false), |node| blocks(node, false)).with(BLOCKS),
];

/// Whether channels come first.
fn channels_first<T>(node: &Node<'_, T>) -> bool {
    node.settings.text("data_format") == "channels_first"
}

fn padding<T>(node: &Node<'_, T>) -> Padding {
    if node.settings.text("padding") == "same" { Padding::Same } else { Padding::Valid }
}

/// The setting `key` for each of `rank` axes: a single number counts for all; `default` where it is not given.
fn for_axes<T>(
    node: &Node<'_, T>,
    key: &str,
    rank: usize,
    default: Option<usize>,
) -> std::result::Result<Vec<usize>, String> {
    let Some(numbers) = node.settings.integers(key) else {
        return default.map(|size| vec![size; rank]).ok_or_else(|| format!("{key} is missing"));
    };
    let wrong = || format!("{key}: expected {rank} whole numbers of at least 0, found {numbers:?}");
    let sizes = numbers.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    match sizes.as_slice() {
        [one] => Ok(vec![*one; rank]),
        sizes if sizes.len() == rank => Ok(sizes.to_vec()),
        _ => Err(wrong()),
    }
}

/// The batch axis, the spatial ones and the channels.
type Image = (Option<usize>, Vec<Option<usize>>, Option<usize>);

fn image(shape: &Shape, channels_first: bool) -> std::result::Result<Image, Problem> {
    match (shape.0.as_slice(), channels_first) {
        ([batch, spatial @ .., channels], false) | ([batch, channels, spatial @ ..], true)
            if (1..=3).contains(&spatial.len()) =>
        {
            Ok((*batch, spatial.to_vec(), *channels))
        }
        _ => Err(invalid(format!("expected an input of rank 3, 4 or 5, found {shape}"))),
    }
}

fn of_image(batch: Option<usize>, spatial: Vec<Option<usize>>, channels: Option<usize>, channels_first: bool) -> Shape {
    let axes = match channels_first {
        true => [vec![batch, channels], spatial].concat(),
        false => [vec![batch], spatial, vec![channels]].concat(),
    };
    Shape(axes)
}

/// `xs` with its channels last, where the operation has them first.
pub(super) fn to_last(xs: &Tensor, channels_first: bool) -> Result<Tensor> {
    if !channels_first {
        return Ok(xs.clone());
    }
    let axes: Vec<usize> = std::iter::once(0).chain(2..xs.rank()).chain([1]).collect();
    xs.permute(axes)?.contiguous()
}

/// The way back.
pub(super) fn from_last(xs: &Tensor, channels_first: bool) -> Result<Tensor> {
    if !channels_first {
        return Ok(xs.clone());
    }
    let last = xs.rank() - 1;
    let axes: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    xs.permute(axes)?.contiguous()
}

/// `f` of the channels-last numbers of `value`: of floats in their arithmetic, of integers as they are.
fn on_images(node: &Node<'_, Value>, value: &Value, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let first = channels_first(node);
    let run = |xs: &Tensor| from_last(&f(&to_last(xs, first)?)?, first);
    if value.dtype.is_float() {
        return Ok(vec![rounded(&run(&floats(value, value.dtype)?)?, value.dtype)?]);
    }
    Ok(vec![value.with_tensor(run(&value.tensor)?)])
}

/// Pool sizes and strides.
fn windows<T>(node: &Node<'_, T>, rank: usize) -> std::result::Result<(Vec<usize>, Vec<usize>), String> {
    let sizes = for_axes(node, "pool_size", rank, None)?;
    let strides = match node.settings.integers("strides") {
        Some(_) => for_axes(node, "strides", rank, None)?,
        None => sizes.clone(),
    };
    Ok((sizes, strides))
}

fn planned_pool(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let inputs = node.spec("inputs")?;
    let (batch, spatial, channels) = image(&inputs.shape, channels_first(node))?;
    let (sizes, strides) = windows(node, spatial.len()).map_err(invalid)?;
    let windows = Window::all(&sizes, &strides, &vec![1; sizes.len()]).map_err(invalid)?;
    let spatial = lengths(&spatial, &windows, padding(node)).map_err(invalid)?;
    one(of_image(batch, spatial, channels, channels_first(node)), inputs.dtype)
}

fn pool(node: &Node<'_, Value>, largest: bool) -> Result<Vec<Value>> {
    let inputs = node.value("inputs")?;
    let (sizes, strides) = windows(node, inputs.tensor.rank().saturating_sub(2)).map_err(candle_core::Error::msg)?;
    if !inputs.dtype.is_float() && !largest {
        bail!("the average of {} is not supported (only floats)", inputs.dtype);
    }
    on_images(node, &inputs, |xs| match largest {
        true => pooling::max(xs, &sizes, &strides, padding(node)),
        false => pooling::average(xs, &sizes, &strides, padding(node)),
    })
}

/// Where the number of filters stands.
#[derive(Clone, Copy, PartialEq)]
enum Filters {
    /// In the kernel's last axis.
    Last,
    /// In its last two axes: channels times multiplier.
    Multiplied,
    /// In the pointwise kernel's last axis.
    Pointwise,
}

/// A kernel's spatial sizes and its last two axes. Where `any` is set, no output depends on the spatial sizes, and an
/// unknown one counts as 1.
fn kernel_axes(
    Shape(axes): &Shape,
    rank: usize,
    any: bool,
) -> std::result::Result<(Vec<usize>, usize, usize), Problem> {
    let wrong = || invalid(format!("expected a kernel of {} known sizes, found {}", rank + 2, Shape(axes.clone())));
    match axes.as_slice() {
        [spatial @ .., Some(inner), Some(outer)] if spatial.len() == rank => {
            let sizes = spatial.iter().map(|size| size.or(any.then_some(1))).collect::<Option<Vec<_>>>();
            Ok((sizes.ok_or_else(wrong)?, *inner, *outer))
        }
        _ => Err(wrong()),
    }
}

/// Floats of one dtype: a convolution mixes none.
fn same_floats(node: &Node<'_, Spec>, names: &[&str]) -> std::result::Result<(), Problem> {
    let dtypes =
        names.iter().map(|name| Ok(node.spec(name)?.dtype)).collect::<std::result::Result<Vec<_>, Problem>>()?;
    match dtypes.as_slice() {
        [first, others @ ..] if first.is_float() && others.iter().all(|other| other == first) => Ok(()),
        _ => {
            let names: Vec<String> = dtypes.iter().map(ToString::to_string).collect();
            let what = format!("operands of {} are not supported (only floats of one dtype)", names.join(" and "));
            Err(Problem::new(ErrorKind::Unsupported, "", what))
        }
    }
}

fn planned_convolution(
    node: &Node<'_, Spec>,
    kernel: &str,
    filters: Filters,
) -> std::result::Result<Vec<Spec>, Problem> {
    let (inputs, first) = (node.spec("inputs")?, channels_first(node));
    same_floats(node, &["inputs", kernel])?;
    let (batch, spatial, channels) = image(&inputs.shape, first)?;
    let rank = spatial.len();
    if filters != Filters::Last && rank > 2 {
        return Err(invalid(format!("expected an input of rank 3 or 4, found {}", inputs.shape)));
    }
    let (taps, inner, outer) = kernel_axes(&node.spec(kernel)?.shape, rank, padding(node) == Padding::Same)?;
    if channels.is_some_and(|channels| channels != inner) {
        return Err(invalid(format!("a kernel for {inner} channels does not fit an input of {}", inputs.shape)));
    }
    let strides = for_axes(node, "strides", rank, Some(1)).map_err(invalid)?;
    let dilation = for_axes(node, "dilation_rate", rank, Some(1)).map_err(invalid)?;
    let windows = Window::all(&taps, &strides, &dilation).map_err(invalid)?;
    let spatial = lengths(&spatial, &windows, padding(node)).map_err(invalid)?;
    let channels = match filters {
        Filters::Last => outer,
        Filters::Multiplied => inner.checked_mul(outer).ok_or_else(|| invalid("a kernel that is too large"))?,
        Filters::Pointwise => {
            same_floats(node, &["inputs", "pointwise_kernel"])?;
            let (taps, middle, filters) = kernel_axes(&node.spec("pointwise_kernel")?.shape, rank, true)?;
            if taps.iter().any(|size| *size != 1) || inner.checked_mul(outer) != Some(middle) {
                return Err(invalid("a pointwise kernel that does not fit the depthwise kernel"));
            }
            filters
        }
    };
    one(of_image(batch, spatial, Some(channels), first), inputs.dtype)
}

/// What a convolution is computed on: the numbers of `inputs` with channels last, and of the kernels.
struct Convolution {
    xs: Tensor,
    kernels: Vec<Tensor>,
    strides: Vec<usize>,
    dilation: Vec<usize>,
}

/// Runs `f` on the operands of a convolution.
fn run(node: &Node<'_, Value>, kernels: &[&str], f: impl Fn(&Convolution) -> Result<Tensor>) -> Result<Vec<Value>> {
    let (inputs, first) = (node.value("inputs")?, channels_first(node));
    let xs = to_last(&floats(&inputs, inputs.dtype)?, first)?;
    let rank = xs.rank().saturating_sub(2);
    let kernels = kernels.iter().map(|name| floats(&node.value(name)?, inputs.dtype)).collect::<Result<Vec<_>>>()?;
    let strides = for_axes(node, "strides", rank, Some(1)).map_err(candle_core::Error::msg)?;
    let dilation = for_axes(node, "dilation_rate", rank, Some(1)).map_err(candle_core::Error::msg)?;
    let ys = f(&Convolution { xs, kernels, strides, dilation })?;
    Ok(vec![rounded(&from_last(&ys, first)?, inputs.dtype)?])
}

fn convolve(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    run(node, &["kernel"], |Convolution { xs, kernels, strides, dilation }| {
        let [kernel] = kernels.as_slice() else { bail!("expected one kernel") };
        // A kernel of fewer channels than the input is applied to groups of them.
        let (channels, inner) = (xs.dim(candle_core::D::Minus1)?, kernel.dim(candle_core::D::Minus2)?);
        convolution::convolution(xs, kernel, strides, padding(node), dilation, channels / inner.max(1))
    })
}

fn convolve_depthwise(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    run(node, &["kernel"], |Convolution { xs, kernels, strides, dilation }| {
        let [kernel] = kernels.as_slice() else { bail!("expected one kernel") };
        convolution::depthwise(xs, kernel, strides, padding(node), dilation)
    })
}

fn convolve_separably(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    run(node, &["depthwise_kernel", "pointwise_kernel"], |Convolution { xs, kernels, strides, dilation }| {
        let [depthwise, pointwise] = kernels.as_slice() else { bail!("expected two kernels") };
        let ys = convolution::depthwise(xs, depthwise, strides, padding(node), dilation)?;
        let ones = vec![1; strides.len()];
        convolution::convolution(&ys, pointwise, &ones, Padding::Valid, &ones, 1)
    })
}

fn block_size<T>(node: &Node<'_, T>) -> std::result::Result<usize, String> {
    let size = node.settings.integer("block_size").and_then(|size| usize::try_from(size).ok());
    size.filter(|size| (2..1 << 16).contains(size))
        .ok_or_else(|| "block_size: expected a whole number of at least 2".to_owned())
}

fn planned_blocks(node: &Node<'_, Spec>, to_space: bool) -> std::result::Result<Vec<Spec>, Problem> {
    let (inputs, first, size) = (node.spec("x")?, channels_first(node), block_size(node).map_err(invalid)?);
    if inputs.shape.rank() != 4 {
        return Err(invalid(format!("expected an input of rank 4, found {}", inputs.shape)));
    }
    let (batch, spatial, channels) = image(&inputs.shape, first)?;
    let times = |axis: Option<usize>, factor: usize| match axis {
        None => Ok(None),
        Some(axis) => axis.checked_mul(factor).map(Some).ok_or_else(|| invalid("an output that is too large")),
    };
    let divided = |axis: Option<usize>, by: usize| match axis {
        Some(axis) if axis % by != 0 => Err(invalid(format!("an axis of {axis} is not divisible by {by}"))),
        axis => Ok(axis.map(|axis| axis / by)),
    };
    let (spatial, channels) = match to_space {
        true => (spatial.into_iter().map(|axis| times(axis, size)).collect(), divided(channels, size * size)?),
        false => (spatial.into_iter().map(|axis| divided(axis, size)).collect(), times(channels, size * size)?),
    };
    let spatial: std::result::Result<Vec<_>, Problem> = spatial;
    one(of_image(batch, spatial?, channels, first), inputs.dtype)
}

fn blocks(node: &Node<'_, Value>, to_space: bool) -> Result<Vec<Value>> {
    let (value, first) = (node.value("x")?, channels_first(node));
    let size = block_size(node).map_err(candle_core::Error::msg)?;
    let xs = to_last(&value.tensor, first)?;
    let (batch, height, width, channels) = xs.dims4()?;
    let ys = if to_space {
        if channels % (size * size) != 0 {
            bail!("{channels} channels are not divisible by {size} · {size}");
        }
        let depth = channels / (size * size);
        let blocks = xs.reshape((batch, height, width, size, size * depth))?;
        let rows = blocks.transpose(2, 3)?.contiguous()?;
        rows.reshape((batch, height * size, width * size, depth))?
    } else {
        if height % size != 0 || width % size != 0 {
            bail!("an image of {height} × {width} is not divisible by {size}");
        }
        let rows = xs.reshape((batch, height / size, size, width / size, size * channels))?;
        let blocks = rows.transpose(2, 3)?.contiguous()?;
        blocks.reshape((batch, height / size, width / size, size * size * channels))?
    };
    Ok(vec![value.with_tensor(from_last(&ys, first)?)])
}
