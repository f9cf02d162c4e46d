//! Convolutions (cross-correlations, as in Keras: never flipped). Source: keras/src/backend/tensorflow/nn.py.

use candle_core::{Result, Tensor, bail};

use super::window::{Padding, Table, Window, channels_last};

/// How many numbers the patches of a tile hold at most (4 MiB of float32): the memory of one tile serves the next.
const TILE: usize = 1 << 20;

/// With fewer channels than this, copying cell by cell costs more than what is copied.
const NARROW: usize = 16;

/// The convolution of `xs` `(batch, spatial…, channels)` with `kernel` `(spatial…, channels / groups, filters)`.
///
/// Output channel `f` of `F` sees the input channels of group `⌊f / (F / groups)⌋`. The patches that the windows see
/// become the rows of one matrix product.
///
/// # Errors
/// Where the shapes do not fit together, or a window does not fit into its axis.
pub(crate) fn convolution(
    xs: &Tensor,
    kernel: &Tensor,
    strides: &[usize],
    padding: Padding,
    dilation: &[usize],
    groups: usize,
) -> Result<Tensor> {
    let (batch, spatial, channels) = channels_last(xs)?;
    let (taps, inner, filters) = kernel_axes(kernel, spatial.len())?;
    if groups == 0 || inner.checked_mul(groups) != Some(channels) || filters % groups != 0 {
        bail!("a kernel of shape {:?} in {groups} groups does not fit {channels} channels", kernel.dims());
    }
    let windows = Window::all(taps, strides, dilation).map_err(candle_core::Error::msg)?;
    let cells: usize = spatial.iter().product();
    let flat = xs.contiguous()?.reshape((batch, cells, channels))?;
    if windows.iter().all(|window| window.kernel == 1 && window.stride == 1) {
        let rows = flat.reshape((batch * cells, 1, channels))?;
        return product(&rows, kernel, groups)?.reshape(shape(batch, spatial, filters));
    }
    let count = taps.iter().product::<usize>();
    let (flat, table, output) = match windows.as_slice() {
        [outer @ .., inner] if !outer.is_empty() && channels < NARROW => {
            // What the windows see along the last axis first, as one long cell: far fewer and longer copies.
            let size = spatial.last().copied().unwrap_or(0);
            let geometry = inner.geometry(size, padding).map_err(candle_core::Error::msg)?;
            let along = Table::axis(*inner, geometry.output, geometry.before, size)?;
            let rows = with_outside(&flat.reshape((batch * cells / size, size, channels))?, &along)?;
            let rows = rows.index_select(&along.of_windows(0, along.windows, xs.device())?, 1)?;
            let mut unrolled = spatial.to_vec();
            unrolled.pop();
            unrolled.push(geometry.output);
            let whole = Window { kernel: 1, stride: 1, dilation: 1 };
            let (table, output) = table(&unrolled, &[outer, &[whole]].concat(), padding)?;
            (rows.reshape((batch, table.cells, along.taps * channels))?, table, output)
        }
        _ => {
            let (table, output) = table(spatial, &windows, padding)?;
            (flat, table, output)
        }
    };
    let flat = with_outside(&flat, &table)?;
    let patches = |from: usize, to: usize| {
        let numbers = table.of_windows(from, to, xs.device())?;
        flat.index_select(&numbers, 1)?.reshape((batch * (to - from), count, channels))
    };
    // A gradient keeps all patches anyway, and its cost grows with the number of tiles.
    let tracked = flat.track_op() || kernel.track_op();
    let row = batch.saturating_mul(count).saturating_mul(channels).max(1);
    let tile = if tracked { table.windows } else { (TILE / row).max(1) };
    let mut tiles = Vec::new();
    let mut from = 0;
    while from < table.windows {
        let to = from.saturating_add(tile).min(table.windows);
        tiles.push(product(&patches(from, to)?, kernel, groups)?.reshape((batch, to - from, filters))?);
        from = to;
    }
    Tensor::cat(&tiles, 1)?.reshape(shape(batch, &output, filters))
}

/// `patches` `(rows, taps, channels)` times `kernel`: `(rows, filters)`.
fn product(patches: &Tensor, kernel: &Tensor, groups: usize) -> Result<Tensor> {
    let (rows, taps, channels) = patches.dims3()?;
    let (inner, filters) = (channels / groups, kernel.dim(candle_core::D::Minus1)?);
    let kernel = kernel.contiguous()?;
    if groups == 1 {
        return patches.reshape((rows, taps * channels))?.matmul(&kernel.reshape((taps * channels, filters))?);
    }
    let by_group = patches.reshape((rows, taps, groups, inner))?.permute((2, 0, 1, 3))?.contiguous()?;
    let kernel = kernel.reshape((taps * inner, groups, filters / groups))?.permute((1, 0, 2))?.contiguous()?;
    let products = by_group.reshape((groups, rows, taps * inner))?.matmul(&kernel)?;
    products.permute((1, 0, 2))?.contiguous()?.reshape((rows, filters))
}

/// The convolution of each channel of `xs` `(batch, spatial…, channels)` with its own filters: `kernel` is
/// `(spatial…, channels, multiplier)`, and output channel `channel · multiplier + m` is the `m`th of its channel.
///
/// Stride and dilation may both exceed 1: the window is padded and dilated, then every `stride`th result taken.
///
/// # Errors
/// Where the shapes do not fit together, or a window does not fit into its axis.
pub(crate) fn depthwise(
    xs: &Tensor,
    kernel: &Tensor,
    strides: &[usize],
    padding: Padding,
    dilation: &[usize],
) -> Result<Tensor> {
    let (batch, spatial, channels) = channels_last(xs)?;
    let (taps, inner, multiplier) = kernel_axes(kernel, spatial.len())?;
    if inner != channels {
        bail!("a depthwise kernel of shape {:?} does not fit {channels} channels", kernel.dims());
    }
    let windows = Window::all(taps, strides, dilation).map_err(candle_core::Error::msg)?;
    let (table, output) = table(spatial, &windows, padding)?;
    let cells: usize = spatial.iter().product();
    let flat = with_outside(&xs.contiguous()?.reshape((batch, cells, channels))?, &table)?;
    let kernel = kernel.contiguous()?.reshape((table.taps, channels, multiplier))?;
    let mut sum: Option<Tensor> = None;
    for tap in 0..table.taps {
        let seen = flat.index_select(&table.of_tap(tap, xs.device())?, 1)?;
        let weights = kernel.get(tap)?;
        let part = if multiplier == 1 {
            seen.broadcast_mul(&weights.reshape(channels)?)?
        } else {
            seen.unsqueeze(3)?.broadcast_mul(&weights)?.reshape((batch, table.windows, channels * multiplier))?
        };
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    let Some(sum) = sum else { bail!("a kernel without taps") };
    sum.reshape(shape(batch, &output, channels * multiplier))
}

/// The transposed convolution of `xs` `(batch, spatial…, channels)` with `kernel` `(spatial…, filters, channels)`.
///
/// With `full[i · stride + tap · dilation] += x[i] · kernel[tap]` on every axis, the result is the part of `full` that
/// begins at `⌊(full − output) / 2⌋`, or all of it and zeros after it where the output is longer.
///
/// # Errors
/// Where the shapes do not fit together.
pub(crate) fn transposed(
    xs: &Tensor,
    kernel: &Tensor,
    strides: &[usize],
    padding: Padding,
    output_padding: Option<&[usize]>,
    dilation: &[usize],
) -> Result<Tensor> {
    let (batch, spatial, channels) = channels_last(xs)?;
    let (taps, filters, inner) = kernel_axes(kernel, spatial.len())?;
    if inner != channels {
        bail!("a transposed kernel of shape {:?} does not fit {channels} channels", kernel.dims());
    }
    let windows = Window::all(taps, strides, dilation).map_err(candle_core::Error::msg)?;
    let output = transposed_axes(spatial, &windows, padding, output_padding).map_err(candle_core::Error::msg)?;
    let axes = spatial.iter().zip(&windows).zip(&output);
    let axes = axes.map(|((size, window), (length, crop))| Table::axis(*window, *size, *crop, *length));
    let table = Table::of(axes.collect::<Result<_>>()?)?;
    let kernel = kernel.contiguous()?.reshape((table.taps * filters, channels))?;
    let products = xs.contiguous()?.reshape((batch * table.windows, channels))?.matmul(&kernel.t()?)?;
    let products = products.reshape((batch, table.windows * table.taps, filters))?;
    // What falls outside the output is added to one cell more, which is left behind.
    let zeros = Tensor::zeros((batch, table.cells + 1, filters), xs.dtype(), xs.device())?;
    let full = zeros.index_add(&table.of_windows(0, table.windows, xs.device())?, &products, 1)?;
    let output: Vec<usize> = output.iter().map(|(length, _)| *length).collect();
    full.narrow(1, 0, table.cells)?.contiguous()?.reshape(shape(batch, &output, filters))
}

/// The output lengths of [`transposed`]; unknown where the axis is.
///
/// Keras: keras/src/backend/common/backend_utils.py, `_get_output_shape_given_tf_padding`.
pub(crate) fn transposed_lengths(
    spatial: &[Option<usize>],
    windows: &[Window],
    padding: Padding,
    output_padding: Option<&[usize]>,
) -> std::result::Result<Vec<Option<usize>>, String> {
    // An unknown axis is checked as an axis of 1.
    let sizes: Vec<usize> = spatial.iter().map(|size| size.unwrap_or(1)).collect();
    let axes = transposed_axes(&sizes, windows, padding, output_padding)?;
    Ok(spatial.iter().zip(axes).map(|(size, (length, _))| size.map(|_| length)).collect())
}

/// The length of each axis and where it begins in the full result.
fn transposed_axes(
    spatial: &[usize],
    windows: &[Window],
    padding: Padding,
    output_padding: Option<&[usize]>,
) -> std::result::Result<Vec<(usize, usize)>, String> {
    if spatial.len() != windows.len() || output_padding.is_some_and(|output| output.len() != windows.len()) {
        return Err(format!("expected {} axes, found {spatial:?} and {output_padding:?}", windows.len()));
    }
    let axes = spatial.iter().zip(windows).enumerate();
    axes.map(|(axis, (&size, &window))| {
        let extra = output_padding.and_then(|output| output.get(axis)).copied();
        transposed_axis(size, window, padding, extra)
    })
    .collect()
}

/// The length of an axis and where it begins in the full result.
pub(crate) fn transposed_axis(
    size: usize,
    window: Window,
    padding: Padding,
    extra: Option<usize>,
) -> std::result::Result<(usize, usize), String> {
    let span = window.span()?;
    let Some(steps) = size.checked_sub(1) else { return Err("an axis without cells has no windows".to_owned()) };
    let lengths = || {
        let steps = steps.checked_mul(window.stride)?;
        let tail = match (padding, extra) {
            (Padding::Valid, None) => span.max(window.stride),
            (Padding::Valid, Some(extra)) => span.checked_add(extra)?,
            (_, None) => window.stride,
            (_, Some(extra)) => (span % 2).checked_add(extra)?,
        };
        Some((steps.checked_add(span)?, steps.checked_add(tail)?))
    };
    match (padding, lengths()) {
        (Padding::Causal, _) => Err("a transposed convolution cannot be causal".to_owned()),
        (_, None) => Err(format!("{window:?} over {size} cells is too large")),
        (_, Some((_, 0))) => Err(format!("a transposed window of {span} leaves nothing of {size} cells")),
        (_, Some((full, length))) => Ok((length, full.saturating_sub(length) / 2)),
    }
}

/// The spatial sizes of a kernel and its last two axes.
fn kernel_axes(kernel: &Tensor, axes: usize) -> Result<(&[usize], usize, usize)> {
    match kernel.dims() {
        [taps @ .., inner, last] if taps.len() == axes => Ok((taps, *inner, *last)),
        dims => bail!("expected a kernel for {axes} spatial axes, found shape {dims:?}"),
    }
}

/// Which cells the windows see, and how many windows each axis has.
fn table(spatial: &[usize], windows: &[Window], padding: Padding) -> Result<(Table, Vec<usize>)> {
    let (mut tables, mut output) = (Vec::new(), Vec::new());
    for (size, window) in spatial.iter().zip(windows) {
        let geometry = window.geometry(*size, padding).map_err(candle_core::Error::msg)?;
        tables.push(Table::axis(*window, geometry.output, geometry.before, *size)?);
        output.push(geometry.output);
    }
    Ok((Table::of(tables)?, output))
}

/// `flat` `(batch, cells, channels)`, with a cell of zeros after the others where a tap falls outside.
fn with_outside(flat: &Tensor, table: &Table) -> Result<Tensor> {
    if table.is_whole() { Ok(flat.clone()) } else { flat.pad_with_zeros(1, 0, 1)?.contiguous() }
}

fn shape(batch: usize, spatial: &[usize], channels: usize) -> Vec<usize> {
    [&[batch], spatial, &[channels]].concat()
}

#[cfg(test)]
mod tests;
