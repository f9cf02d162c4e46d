//! Windows that slide over the spatial axes of a tensor: how many there are, and which cells each of them sees.

use candle_core::{Device, Result, Tensor, bail};

/// What Keras's `padding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// No padding: every window lies within the axis.
    Valid,
    /// As many windows as strides begin within the axis; zeros on both sides, the odd one at the end.
    Same,
    /// Zeros before the axis only, so that a window never sees what comes after its own cell.
    Causal,
}

/// The window of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Cells that a window sees.
    pub kernel: usize,
    /// Cells between the beginnings of two windows.
    pub stride: usize,
    /// Cells between two cells that a window sees.
    pub dilation: usize,
}

/// The windows of an axis whose size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How many windows there are.
    pub output: usize,
    /// Padding before the first cell.
    pub before: usize,
    /// Padding after the last cell; `(output − 1) · stride + span = before + size + after`, or the axis' end is not seen.
    pub after: usize,
}

impl Window {
    /// One window an axis.
    pub(crate) fn all(
        kernel: &[usize],
        strides: &[usize],
        dilation: &[usize],
    ) -> std::result::Result<Vec<Self>, String> {
        let axes = kernel.len();
        if strides.len() != axes || dilation.len() != axes {
            return Err(format!("expected strides and dilation for {axes} axes, found {strides:?} and {dilation:?}"));
        }
        let axes = kernel.iter().zip(strides).zip(dilation);
        axes.map(|((&kernel, &stride), &dilation)| match (kernel, stride, dilation) {
            (0, _, _) | (_, 0, _) | (_, _, 0) => {
                Err(format!("a window of {kernel} with stride {stride} and dilation {dilation}: none may be 0"))
            }
            _ => Ok(Self { kernel, stride, dilation }),
        })
        .collect()
    }

    /// Cells from the first that a window sees to its last: `(kernel − 1) · dilation + 1`.
    pub(crate) fn span(self) -> std::result::Result<usize, String> {
        let span = self.kernel.checked_sub(1).and_then(|steps| steps.checked_mul(self.dilation)?.checked_add(1));
        span.ok_or_else(|| format!("a window of {} with dilation {} is too large", self.kernel, self.dilation))
    }

    /// The windows of an axis of `size` cells, as TensorFlow lays them.
    ///
    /// # Errors
    /// A text where no window fits, or numbers are too large.
    pub fn geometry(self, size: usize, padding: Padding) -> std::result::Result<Geometry, String> {
        let too_large = || format!("{self:?} over {size} cells is too large");
        let span = self.span()?;
        if size == 0 {
            return Err("an axis without cells has no windows".to_owned());
        }
        match padding {
            Padding::Valid | Padding::Causal => {
                let before = if padding == Padding::Causal { span - 1 } else { 0 };
                let padded = size.checked_add(before).ok_or_else(too_large)?;
                let Some(steps) = padded.checked_sub(span) else {
                    return Err(format!("a window of {span} does not fit into {size} cells"));
                };
                Ok(Geometry { output: steps / self.stride + 1, before, after: 0 })
            }
            Padding::Same => {
                let output = size.div_ceil(self.stride);
                // The last window begins within the axis, so that the product is less than its size.
                let reach = ((output - 1) * self.stride).checked_add(span).ok_or_else(too_large)?;
                let total = reach.saturating_sub(size);
                Ok(Geometry { output, before: total / 2, after: total - total / 2 })
            }
        }
    }
}

/// How many windows each axis has; unknown where the axis is.
pub(crate) fn lengths(
    spatial: &[Option<usize>],
    windows: &[Window],
    padding: Padding,
) -> std::result::Result<Vec<Option<usize>>, String> {
    if spatial.len() != windows.len() {
        return Err(format!("expected {} spatial axes, found {}", windows.len(), spatial.len()));
    }
    let axes = spatial.iter().zip(windows);
    axes.map(|(size, window)| {
        window.span()?;
        size.map(|size| Ok(window.geometry(size, padding)?.output)).transpose()
    })
    .collect()
}

/// Which cell each tap of each window meets, all spatial axes flattened into one.
///
/// The cell `index · stride + tap · dilation − before` of an axis, where it has that cell. Read from the windows this is
/// a convolution; read from the cells, its transpose.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// The number of windows.
    pub(crate) windows: usize,
    /// Taps of a window.
    pub(crate) taps: usize,
    /// The number of cells.
    pub(crate) cells: usize,
    /// Windows first, then taps; none where the tap falls outside.
    met: Vec<Option<u32>>,
}

impl Table {
    /// One axis with `windows` windows, of which the first begins `before` cells before the first of `cells` cells.
    pub(crate) fn axis(window: Window, windows: usize, before: usize, cells: usize) -> Result<Self> {
        let mut met = Vec::with_capacity(product(windows, window.kernel)?);
        for index in 0..windows {
            for tap in 0..window.kernel {
                let at =
                    index.checked_mul(window.stride).and_then(|at| at.checked_add(tap.checked_mul(window.dilation)?));
                let cell = at.and_then(|at| at.checked_sub(before)).filter(|cell| *cell < cells);
                met.push(cell.map(u32::try_from).transpose()?);
            }
        }
        Ok(Self { windows, taps: window.kernel, cells, met })
    }

    /// The windows of all axes from those of each.
    pub(crate) fn of(axes: Vec<Self>) -> Result<Self> {
        let mut axes = axes.into_iter();
        let Some(first) = axes.next() else { bail!("windows need an axis") };
        axes.try_fold(first, |outer, inner| outer.with(&inner))
    }

    /// `self` as the outer axis, `inner` as the inner one.
    fn with(&self, inner: &Self) -> Result<Self> {
        let cells = product(self.cells, inner.cells)?;
        if u32::try_from(cells).is_err() {
            bail!("{cells} cells are more than can be numbered");
        }
        let stride = u32::try_from(inner.cells)?;
        let (windows, taps) = (product(self.windows, inner.windows)?, product(self.taps, inner.taps)?);
        let mut met = Vec::with_capacity(product(windows, taps)?);
        for outer in self.met.chunks(self.taps) {
            for inner in inner.met.chunks(inner.taps) {
                for outer in outer {
                    // Less than `cells`, which fits.
                    met.extend(
                        inner.iter().map(|inner| outer.zip(*inner).map(|(outer, inner)| outer * stride + inner)),
                    );
                }
            }
        }
        Ok(Self { windows, taps, cells, met })
    }

    /// Whether every tap meets a cell.
    pub(crate) fn is_whole(&self) -> bool {
        self.met.iter().all(Option::is_some)
    }

    /// The cells that the taps of windows `from..to` meet, window by window; one cell too many where a tap falls outside.
    pub(crate) fn of_windows(&self, from: usize, to: usize, device: &Device) -> Result<Tensor> {
        let (from, count) = (from * self.taps, to.saturating_sub(from) * self.taps);
        self.numbers(self.met.iter().skip(from).take(count), device)
    }

    /// The cells that one tap meets, one a window; one cell too many where it falls outside.
    pub(crate) fn of_tap(&self, tap: usize, device: &Device) -> Result<Tensor> {
        self.numbers(self.met.iter().skip(tap).step_by(self.taps), device)
    }

    fn numbers<'a>(&self, met: impl Iterator<Item = &'a Option<u32>>, device: &Device) -> Result<Tensor> {
        let outside = u32::try_from(self.cells)?;
        let numbers: Vec<u32> = met.map(|cell| cell.unwrap_or(outside)).collect();
        let count = numbers.len();
        Tensor::from_vec(numbers, count, device)
    }
}

fn product(left: usize, right: usize) -> Result<usize> {
    match left.checked_mul(right) {
        Some(product) => Ok(product),
        None => bail!("{left} · {right} is too large"),
    }
}

/// The batch size, the spatial sizes and the channels of a channels-last tensor.
pub(crate) fn channels_last(xs: &Tensor) -> Result<(usize, &[usize], usize)> {
    match xs.dims() {
        [batch, spatial @ .., channels] if (1..=3).contains(&spatial.len()) => Ok((*batch, spatial, *channels)),
        dims => bail!("expected (batch, one to three spatial axes, channels), found {dims:?}"),
    }
}

/// `xs` with `before` and `after` cells of `value` around `axis`.
pub(crate) fn pad(xs: &Tensor, axis: usize, before: usize, after: usize, value: f64) -> Result<Tensor> {
    let size = xs.dim(axis)?;
    let Some(_) = size.checked_add(before).and_then(|size| size.checked_add(after)) else {
        bail!("a padding of {before} and {after} is too large");
    };
    if value == 0.0 {
        return xs.pad_with_zeros(axis, before, after)?.contiguous();
    }
    let cells = |count: usize| {
        let dims: Vec<usize> =
            xs.dims().iter().enumerate().map(|(at, size)| if at == axis { count } else { *size }).collect();
        Tensor::full(value, dims, xs.device())?.to_dtype(xs.dtype())
    };
    let mut parts = vec![xs.clone()];
    if before > 0 {
        parts.insert(0, cells(before)?);
    }
    if after > 0 {
        parts.push(cells(after)?);
    }
    Tensor::cat(&parts, axis)?.contiguous()
}

/// `count` cells of `axis`, every `step`th from `start` on.
pub(crate) fn strided(xs: &Tensor, axis: usize, start: usize, step: usize, count: usize) -> Result<Tensor> {
    if step == 1 {
        return xs.narrow(axis, start, count)?.contiguous();
    }
    let cells = (0..count).map(|index| index.checked_mul(step).and_then(|at| at.checked_add(start)));
    let Some(cells) = cells.collect::<Option<Vec<usize>>>() else { bail!("a step of {step} is too large") };
    select(xs, axis, &cells)
}

/// The cells of `axis` that `cells` numbers.
pub(crate) fn select(xs: &Tensor, axis: usize, cells: &[usize]) -> Result<Tensor> {
    let numbers = cells.iter().map(|cell| u32::try_from(*cell)).collect::<std::result::Result<Vec<u32>, _>>()?;
    let numbers = Tensor::from_vec(numbers, cells.len(), xs.device())?;
    xs.contiguous()?.index_select(&numbers, axis)
}

#[cfg(test)]
mod tests {

    use super::{Geometry, Padding, Window, lengths, pad, strided};
    use crate::math::testing::{assert_differentiable, numbers};

    #[test]
    fn windows_lie_as_in_tensorflow() {
        let window = |kernel, stride, dilation| Window { kernel, stride, dilation };
        let geometry = |output, before, after| Ok(Geometry { output, before, after });
        for (window, size, padding, expected) in [
            (window(3, 2, 1), 7, Padding::Valid, geometry(3, 0, 0)),
            (window(3, 2, 1), 7, Padding::Same, geometry(4, 1, 1)),
            (window(3, 2, 1), 8, Padding::Same, geometry(4, 0, 1)),
            (window(2, 1, 1), 5, Padding::Same, geometry(5, 0, 1)),
            (window(2, 3, 1), 5, Padding::Same, geometry(2, 0, 0)),
            (window(3, 1, 2), 5, Padding::Causal, geometry(5, 4, 0)),
            (window(3, 2, 1), 6, Padding::Causal, geometry(3, 2, 0)),
            (window(3, 1, 2), 4, Padding::Valid, Err("a window of 5 does not fit into 4 cells".to_owned())),
            (window(3, 1, 1), 0, Padding::Same, Err("an axis without cells has no windows".to_owned())),
            (
                window(3, 1, usize::MAX),
                4,
                Padding::Same,
                Err(format!("a window of 3 with dilation {} is too large", usize::MAX)),
            ),
        ] {
            assert_eq!(window.geometry(size, padding), expected, "{window:?} over {size} {padding:?}");
        }
        let windows = Window::all(&[3, 2], &[2, 1], &[1, 1]).unwrap();
        assert_eq!(lengths(&[None, Some(4)], &windows, Padding::Valid).unwrap(), [None, Some(3)]);
        assert!(lengths(&[None], &windows, Padding::Valid).is_err());
        assert!(Window::all(&[3, 0], &[1, 1], &[1, 1]).is_err());
        assert!(Window::all(&[3, 2], &[1], &[1, 1]).is_err());
    }

    #[test]
    fn cells_are_padded_and_chosen() {
        let xs = numbers(&[1, 3, 1], 0);
        let flat = |xs: candle_core::Tensor| xs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let three = flat(xs.clone());
        assert_eq!(flat(pad(&xs, 1, 1, 2, 7.0).unwrap()), [7.0, three[0], three[1], three[2], 7.0, 7.0]);
        assert_eq!(flat(pad(&xs, 1, 0, 1, 0.0).unwrap()), [three[0], three[1], three[2], 0.0]);
        assert_eq!(flat(strided(&xs, 1, 0, 2, 2).unwrap()), [three[0], three[2]]);
        assert_eq!(flat(strided(&xs, 1, 1, 1, 2).unwrap()), [three[1], three[2]]);
        assert!(strided(&xs, 1, 1, 2, 2).is_err());
        assert!(pad(&xs, 1, usize::MAX, 1, 0.0).is_err());
        assert_differentiable("pad", &[&[1, 3, 2]], |operands| pad(&operands[0], 1, 1, 2, 7.0));
        assert_differentiable("strided", &[&[1, 5, 2]], |operands| strided(&operands[0], 1, 1, 2, 2));
    }
}
