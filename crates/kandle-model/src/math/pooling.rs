//! Pooling. Source: keras/src/backend/tensorflow/nn.py.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use super::window::{Padding, Window, channels_last, pad, select};

/// The largest number in each window of `xs` `(batch, spatial…, channels)`, floats or integers.
///
/// Keras: TensorFlow starts from the lowest finite number and keeps it beside NaN, so that NaN is skipped, and a window
/// of nothing but NaN and −∞ gives that number (−3.4e38 in float32). On three axes both are refused, and Keras pools
/// integers on one and two axes only.
///
/// # Errors
/// Where the shapes do not fit together, or a window does not fit into its axis.
pub(crate) fn max(xs: &Tensor, pool_size: &[usize], strides: &[usize], padding: Padding) -> Result<Tensor> {
    largest(xs, &ranges(xs, pool_size, strides, padding)?)
}

/// The mean of each window of `xs` `(batch, spatial…, channels)`; padding is not counted.
///
/// # Errors
/// Where the shapes do not fit together, or a window does not fit into its axis.
pub(crate) fn average(xs: &Tensor, pool_size: &[usize], strides: &[usize], padding: Padding) -> Result<Tensor> {
    let axes = ranges(xs, pool_size, strides, padding)?;
    let mut sums = xs.clone();
    for (axis, windows) in axes.iter().enumerate().rev() {
        sums = sum(&sums, axis + 1, windows)?;
    }
    let mut counts = Tensor::ones(vec![1_usize; xs.rank()], xs.dtype(), xs.device())?;
    for (axis, windows) in axes.iter().enumerate() {
        counts = counts.broadcast_mul(&sizes(xs, axis + 1, windows)?)?;
    }
    sums.broadcast_div(&counts)
}

/// The largest number in each of `output` windows an axis, where window `i` of `o` over `n` cells is
/// `⌊i · n / o⌋ .. ⌈(i + 1) · n / o⌉`. NaN and −∞ as in [`max`].
///
/// # Errors
/// Where the shapes do not fit together.
pub(crate) fn adaptive_max(xs: &Tensor, output: &[usize]) -> Result<Tensor> {
    largest(xs, &adaptive_ranges(xs, output)?)
}

/// The mean of each of `output` windows an axis, the windows of [`adaptive_max`].
///
/// # Errors
/// Where the shapes do not fit together.
pub(crate) fn adaptive_average(xs: &Tensor, output: &[usize]) -> Result<Tensor> {
    let mut means = xs.clone();
    for (axis, windows) in adaptive_ranges(xs, output)?.iter().enumerate() {
        means = sum(&means, axis + 1, windows)?.broadcast_div(&sizes(xs, axis + 1, windows)?)?;
    }
    Ok(means)
}

/// The cells that each window of each spatial axis sees.
fn ranges(xs: &Tensor, pool_size: &[usize], strides: &[usize], padding: Padding) -> Result<Vec<Vec<Range<usize>>>> {
    let (_, spatial, _) = channels_last(xs)?;
    if pool_size.len() != spatial.len() {
        bail!("a pool of {pool_size:?} does not fit {} spatial axes", spatial.len());
    }
    let windows = Window::all(pool_size, strides, &vec![1; spatial.len()]).map_err(candle_core::Error::msg)?;
    let mut axes = Vec::new();
    for (&size, window) in spatial.iter().zip(windows) {
        let geometry = window.geometry(size, padding).map_err(candle_core::Error::msg)?;
        let range = |index: usize| {
            let start = index * window.stride;
            let end = start.saturating_add(window.kernel).saturating_sub(geometry.before);
            start.saturating_sub(geometry.before)..end.min(size)
        };
        axes.push((0..geometry.output).map(range).collect());
    }
    Ok(axes)
}

fn adaptive_ranges(xs: &Tensor, output: &[usize]) -> Result<Vec<Vec<Range<usize>>>> {
    let (_, spatial, _) = channels_last(xs)?;
    if output.len() != spatial.len() || output.contains(&0) || spatial.contains(&0) {
        bail!("{spatial:?} cells cannot be pooled to {output:?}");
    }
    let mut axes = Vec::new();
    for (&size, &output) in spatial.iter().zip(output) {
        if size.checked_mul(output).is_none() {
            bail!("{output} windows over {size} cells are too many");
        }
        axes.push((0..output).map(|index| index * size / output..((index + 1) * size).div_ceil(output)).collect());
    }
    Ok(axes)
}

fn largest(xs: &Tensor, axes: &[Vec<Range<usize>>]) -> Result<Tensor> {
    let mut ys = xs.clone();
    // The last axis first: among equals the gradient then goes to the first cell in the order of the file, as in Keras.
    for (axis, windows) in axes.iter().enumerate().rev() {
        let mut most: Option<Tensor> = None;
        for tap in 0..widest(windows) {
            // Short windows see their last cell again.
            let cells: Vec<usize> = windows.iter().map(|cells| (cells.start + tap).min(cells.end - 1)).collect();
            let seen = select(&ys, axis + 1, &cells)?;
            let before = match most {
                Some(most) => most,
                None => match lowest(&seen)? {
                    Some(lowest) => lowest,
                    None => seen.clone(),
                },
            };
            most = Some(before.lt(&seen)?.where_cond(&seen, &before)?);
        }
        let Some(most) = most else { bail!("a pool without cells") };
        ys = most;
    }
    if axes.len() > 2 && xs.dtype().is_float() {
        check_one_answer(xs, &ys)?;
    }
    Ok(ys)
}

/// Keras: on three axes TensorFlow starts from the lowest finite number and skips NaN, or from the first cell and starts
/// anew behind NaN, as the processor's vectors fall on the channels.
fn check_one_answer(xs: &Tensor, ys: &Tensor) -> Result<()> {
    let any = |flags: Tensor| Ok::<bool, candle_core::Error>(flags.flatten_all()?.max(0)?.to_scalar::<u8>()? != 0);
    if xs.elem_count() == 0 || ys.elem_count() == 0 {
        return Ok(());
    }
    let unclear = any(xs.ne(xs)?)? || lowest(ys)?.map_or(Ok(false), |lowest| any(ys.le(&lowest)?))?;
    match unclear {
        true => {
            bail!("the largest number beside NaN, or of nothing but −∞, on three spatial axes: Keras has no one answer")
        }
        false => Ok(()),
    }
}

/// The lowest finite number of a float dtype everywhere.
fn lowest(like: &Tensor) -> Result<Option<Tensor>> {
    Ok(match like.dtype() {
        DType::F32 => Some(Tensor::full(f32::MIN, like.shape(), like.device())?),
        DType::F64 => Some(Tensor::full(f64::MIN, like.shape(), like.device())?),
        dtype if dtype.is_float() => bail!("pooling wants float32 or float64, found {dtype:?}"),
        _ => None,
    })
}

fn sum(xs: &Tensor, axis: usize, windows: &[Range<usize>]) -> Result<Tensor> {
    let size = xs.dim(axis)?;
    let widest = widest(windows);
    let even = windows.iter().all(|cells| cells.len() == widest);
    // Short windows see a zero after the last cell.
    let xs = if even { xs.clone() } else { pad(xs, axis, 0, 1, 0.0)? };
    let mut sum: Option<Tensor> = None;
    for tap in 0..widest {
        let cell = |cells: &Range<usize>| if tap < cells.len() { cells.start + tap } else { size };
        let seen = select(&xs, axis, &windows.iter().map(cell).collect::<Vec<usize>>())?;
        sum = Some(match sum {
            None => seen,
            Some(sum) => (sum + seen)?,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("a pool without cells"),
    }
}

/// How many cells each window of `axis` sees, in the shape that broadcasts over `like`.
fn sizes(like: &Tensor, axis: usize, windows: &[Range<usize>]) -> Result<Tensor> {
    let numbers =
        windows.iter().map(|cells| u32::try_from(cells.len())).collect::<std::result::Result<Vec<u32>, _>>()?;
    let mut dims = vec![1; like.rank()];
    if let Some(size) = dims.get_mut(axis) {
        *size = windows.len();
    }
    Tensor::from_vec(numbers, dims, like.device())?.to_dtype(like.dtype())
}

fn widest(windows: &[Range<usize>]) -> usize {
    windows.iter().map(Range::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {

    use candle_core::{DType, Device, Tensor};

    use super::{adaptive_average, adaptive_max, average, max};
    use crate::math::{
        testing::{assert_close, assert_differentiable, numbers},
        window::Padding,
    };

    struct Case {
        kind: &'static str,
        xs: &'static [usize],
        pool_size: &'static [usize],
        strides: &'static [usize],
        padding: Padding,
        dims: &'static [usize],
        keras: &'static [f32],
    }

    impl Case {
        fn pool(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
            match self.kind {
                "max" => max(xs, self.pool_size, self.strides, self.padding),
                "average" => average(xs, self.pool_size, self.strides, self.padding),
                "adaptive_max" => adaptive_max(xs, self.pool_size),
                "adaptive_average" => adaptive_average(xs, self.pool_size),
                other => panic!("no pooling {other}"),
            }
        }
    }

    // from Keras 3.15.1, TensorFlow: keras.ops.max_pool, average_pool, adaptive_max_pool, adaptive_average_pool
    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { kind: "max", xs: &[1, 7, 2], pool_size: &[3], strides: &[2], padding: Padding::Same, dims: &[1, 4, 2],
            keras: &[0.75, -0.40625, 0.75, 1.0625, 1.375, 0.21875, 0.53125, 0.84375] },
        Case { kind: "max", xs: &[2, 5, 1], pool_size: &[2], strides: &[2], padding: Padding::Same, dims: &[2, 3, 1],
            keras: &[-0.40625, 0.75, -0.09375, 1.0625, 1.375, -0.625] },
        Case { kind: "max", xs: &[1, 6, 1], pool_size: &[2], strides: &[3], padding: Padding::Valid, dims: &[1, 2, 1],
            keras: &[-0.40625, -0.09375] },
        Case { kind: "max", xs: &[1, 5, 4, 2], pool_size: &[2, 3], strides: &[2, 2], padding: Padding::Same, dims:
            &[1, 3, 2, 2], keras: &[1.375, 1.0625, -0.09375, 1.0625, 1.15625, 1.46875, 1.5625, 0.625, 0.71875,
            1.03125, 1.34375, 0.1875] },
        Case { kind: "max", xs: &[1, 5, 5, 1], pool_size: &[3, 2], strides: &[1, 2], padding: Padding::Valid, dims:
            &[1, 3, 2, 1], keras: &[1.0625, 1.375, 1.15625, 1.375, 1.15625, 0.84375] },
        Case { kind: "max", xs: &[1, 5, 5, 1], pool_size: &[2, 2], strides: &[3, 3], padding: Padding::Same, dims:
            &[1, 2, 2, 1], keras: &[1.0625, 1.375, 1.15625, 1.46875] },
        Case { kind: "max", xs: &[1, 3, 2, 1], pool_size: &[5, 5], strides: &[1, 1], padding: Padding::Same, dims:
            &[1, 3, 2, 1], keras: &[1.0625, 1.0625, 1.0625, 1.0625, 1.0625, 1.0625] },
        Case { kind: "max", xs: &[1, 3, 4, 3, 1], pool_size: &[2, 2, 3], strides: &[2, 1, 2], padding: Padding::Same,
            dims: &[1, 2, 4, 2, 1], keras: &[1.15625, 1.15625, 1.46875, 1.46875, 1.46875, 1.46875, 0.625, 0.53125,
            1.25, 0.40625, 1.5625, 0.71875, 1.5625, 1.03125, -0.125, 1.03125] },
        Case { kind: "max", xs: &[1, 3, 4, 3, 1], pool_size: &[2, 2, 2], strides: &[1, 2, 2], padding: Padding::Valid,
            dims: &[1, 2, 2, 1, 1], keras: &[1.15625, 1.46875, 1.25, 1.5625] },
        Case { kind: "average", xs: &[1, 7, 2], pool_size: &[3], strides: &[2], padding: Padding::Same, dims: &[1, 4,
            2], keras: &[-0.40625, -0.828125, -0.09375, 0.010416667, 0.32291666, -0.625, 0.109375, -0.3125] },
        Case { kind: "average", xs: &[2, 5, 1], pool_size: &[2], strides: &[2], padding: Padding::Same, dims: &[2, 3,
            1], keras: &[-0.984375, -0.25, -0.09375, 0.0625, 0.796875, -0.625] },
        Case { kind: "average", xs: &[1, 6, 1], pool_size: &[2], strides: &[3], padding: Padding::Valid, dims: &[1, 2,
            1], keras: &[-0.984375, -0.671875] },
        Case { kind: "average", xs: &[1, 5, 4, 2], pool_size: &[2, 3], strides: &[2, 2], padding: Padding::Same, dims:
            &[1, 3, 2, 2], keras: &[0.114583336, -0.30729166, -0.625, 0.53125, 0.203125, 0.30729166, -0.2734375,
            0.09375, -0.125, -0.020833334, 0.1875, -0.234375] },
        Case { kind: "average", xs: &[1, 5, 5, 1], pool_size: &[3, 2], strides: &[1, 2], padding: Padding::Valid,
            dims: &[1, 3, 2, 1], keras: &[-0.46354166, 0.27083334, 0.057291668, 0.265625, 0.052083332, -0.265625] },
        Case { kind: "average", xs: &[1, 5, 5, 1], pool_size: &[2, 2], strides: &[3, 3], padding: Padding::Same, dims:
            &[1, 2, 2, 1], keras: &[-0.4609375, -0.1484375, 0.3125, 0.625] },
        Case { kind: "average", xs: &[1, 3, 2, 1], pool_size: &[5, 5], strides: &[1, 1], padding: Padding::Same, dims:
            &[1, 3, 2, 1], keras: &[-0.25, -0.25, -0.25, -0.25, -0.25, -0.25] },
        Case { kind: "average", xs: &[1, 3, 4, 3, 1], pool_size: &[2, 2, 3], strides: &[2, 1, 2], padding:
            Padding::Same, dims: &[1, 2, 4, 2, 1], keras: &[-0.203125, 0.1640625, 0.109375, 0.4765625, 0.02734375,
            0.0, -0.2109375, -0.6328125, 0.09375, -0.328125, 0.40625, -0.015625, -0.0703125, 0.296875, -0.703125,
            0.453125] },
        Case { kind: "average", xs: &[1, 3, 4, 3, 1], pool_size: &[2, 2, 2], strides: &[1, 2, 2], padding:
            Padding::Valid, dims: &[1, 2, 2, 1, 1], keras: &[-0.203125, 0.02734375, 0.2578125, 0.09375] },
        Case { kind: "adaptive_max", xs: &[1, 7, 2], pool_size: &[3], strides: &[], padding: Padding::Valid, dims:
            &[1, 3, 2], keras: &[0.75, 1.0625, 1.375, 1.0625, 1.375, 0.84375] },
        Case { kind: "adaptive_max", xs: &[1, 5, 1], pool_size: &[4], strides: &[], padding: Padding::Valid, dims:
            &[1, 4, 1], keras: &[-0.40625, 0.75, 0.75, -0.09375] },
        Case { kind: "adaptive_max", xs: &[1, 6, 1], pool_size: &[3], strides: &[], padding: Padding::Valid, dims:
            &[1, 3, 1], keras: &[-0.40625, 0.75, 1.0625] },
        Case { kind: "adaptive_max", xs: &[1, 3, 1], pool_size: &[5], strides: &[], padding: Padding::Valid, dims:
            &[1, 5, 1], keras: &[-1.5625, -0.40625, -0.40625, 0.75, 0.75] },
        Case { kind: "adaptive_max", xs: &[1, 5, 7, 1], pool_size: &[3, 4], strides: &[], padding: Padding::Valid,
            dims: &[1, 3, 4, 1], keras: &[1.375, 1.375, 1.0625, 1.0625, 1.375, 1.375, 1.46875, 1.46875, 0.625, 1.5625,
            0.9375, 1.25] },
        Case { kind: "adaptive_max", xs: &[1, 5, 4, 4, 1], pool_size: &[3, 3, 2], strides: &[], padding:
            Padding::Valid, dims: &[1, 3, 3, 2, 1], keras: &[1.15625, 1.46875, 1.375, 1.25, 1.375, 1.5625, 1.4375,
            1.46875, 1.21875, 1.34375, 1.53125, 1.5625, 1.4375, 0.90625, 1.3125, 0.90625, 1.53125, 1.40625] },
        Case { kind: "adaptive_average", xs: &[1, 7, 2], pool_size: &[3], strides: &[], padding: Padding::Valid, dims:
            &[1, 3, 2], keras: &[-0.30208334, -0.19791667, 0.114583336, 0.21875, 0.53125, -0.41666666] },
        Case { kind: "adaptive_average", xs: &[1, 5, 1], pool_size: &[4], strides: &[], padding: Padding::Valid, dims:
            &[1, 4, 1], keras: &[-0.984375, 0.171875, -0.25, -0.671875] },
        Case { kind: "adaptive_average", xs: &[1, 6, 1], pool_size: &[3], strides: &[], padding: Padding::Valid, dims:
            &[1, 3, 1], keras: &[-0.984375, -0.25, 0.484375] },
        Case { kind: "adaptive_average", xs: &[1, 3, 1], pool_size: &[5], strides: &[], padding: Padding::Valid, dims:
            &[1, 5, 1], keras: &[-1.5625, -0.984375, -0.40625, 0.171875, 0.75] },
        Case { kind: "adaptive_average", xs: &[1, 5, 7, 1], pool_size: &[3, 4], strides: &[], padding: Padding::Valid,
            dims: &[1, 3, 4, 1], keras: &[-0.09375, 0.0625, -0.25520834, 0.1640625, -0.052083332, 0.104166664,
            -0.038194448, 0.46875, -0.2734375, 0.14583333, -0.171875, -0.015625] },
        Case { kind: "adaptive_average", xs: &[1, 5, 4, 4, 1], pool_size: &[3, 3, 2], strides: &[], padding:
            Padding::Valid, dims: &[1, 3, 3, 2, 1], keras: &[-0.07421875, -0.12890625, 0.2109375, -0.23828125,
            0.1015625, 0.046875, -0.07291667, 0.13541666, -0.18229166, 0.026041664, -0.028645836, 0.1796875,
            0.19140625, -0.2578125, 0.08203125, -0.3671875, 0.3671875, -0.08203125] },
    ];

    #[test]
    fn pools_are_those_of_keras() {
        for case in CASES {
            let what = format!("{} of {:?} by {:?}", case.kind, case.xs, case.pool_size);
            let limit = if case.kind.contains("max") { 0.0 } else { 3e-7 };
            assert_close(&what, &case.pool(&numbers(case.xs, 0)).unwrap(), case.dims, case.keras, limit);
            assert_differentiable(&what, &[case.xs], |operands| case.pool(&operands[0]));
        }
    }

    fn column(numbers: &[f32]) -> Tensor {
        Tensor::new(numbers, &Device::Cpu).unwrap().reshape((1, numbers.len(), 1)).unwrap()
    }

    #[test]
    fn nan_is_skipped_by_the_largest_and_kept_by_the_mean() {
        const NAN: f32 = f32::NAN;
        const INF: f32 = f32::INFINITY;
        let xs = column(&[NAN, 1.0, NAN, NAN, -INF, -INF, 2.0, NAN, 3.0, INF, -INF, 4.0, NAN, -INF]);
        // from Keras 3.15.1, TensorFlow: MaxPooling1D(2), AdaptiveMaxPooling1D(7)
        let keras = [1.0, f32::MIN, f32::MIN, 2.0, INF, 4.0, f32::MIN];
        for ys in [max(&xs, &[2], &[2], Padding::Valid).unwrap(), adaptive_max(&xs, &[7]).unwrap()] {
            assert_eq!(ys.flatten_all().unwrap().to_vec1::<f32>().unwrap(), keras);
        }
        let wide = max(&xs.to_dtype(DType::F64).unwrap(), &[2], &[2], Padding::Valid).unwrap();
        assert_eq!(wide.flatten_all().unwrap().to_vec1::<f64>().unwrap()[1], f64::MIN);
        // from Keras 3.15.1, TensorFlow: AveragePooling1D(3, 1, "same")
        let means = average(&xs, &[3], &[1], Padding::Same).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(means.iter().enumerate().all(|(at, mean)| if at == 5 { *mean == -INF } else { mean.is_nan() }));
    }

    #[test]
    fn what_depends_on_the_processor_is_refused() {
        let xs = column(&[1.0, f32::NAN, 2.0, 3.0]).reshape((1, 1, 1, 4, 1)).unwrap();
        for ys in [max(&xs, &[1, 1, 2], &[1, 1, 2], Padding::Valid), adaptive_max(&xs, &[1, 1, 2])] {
            assert!(ys.unwrap_err().to_string().contains("Keras has no one answer"));
        }
        assert!(average(&xs, &[1, 1, 2], &[1, 1, 2], Padding::Valid).is_ok());
        let xs =
            column(&[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 3.0]).reshape((1, 1, 1, 4, 1)).unwrap();
        assert!(max(&xs, &[1, 1, 2], &[1, 1, 2], Padding::Valid).is_err());
        assert!(max(&xs, &[1, 1, 4], &[1, 1, 4], Padding::Valid).is_ok());
    }

    #[test]
    fn integers_have_a_largest() {
        // from Keras 3.15.1, TensorFlow: keras.ops.max_pool(x, 2, 1, "same"), adaptive_max_pool(x, 3)
        for dtype in [DType::I16, DType::I32, DType::I64] {
            let xs = column(&[1.0, 5.0, -3.0, -2.0]).to_dtype(dtype).unwrap();
            let ys = max(&xs, &[2], &[1], Padding::Same).unwrap();
            assert_eq!(ys.dtype(), dtype);
            let numbers =
                |ys: Tensor| ys.flatten_all().unwrap().to_dtype(DType::I64).unwrap().to_vec1::<i64>().unwrap();
            assert_eq!(numbers(ys), [5, 5, -2, -2]);
            assert_eq!(numbers(adaptive_max(&xs, &[3]).unwrap()), [5, 5, -2]);
        }
        let xs = column(&[1.0, 5.0, 253.0, 254.0]).to_dtype(DType::U8).unwrap();
        let ys = max(&xs, &[2], &[1], Padding::Same).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
        assert_eq!(ys, [5, 253, 254, 254]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let xs = column(&[1.0, 2.0]);
        assert!(max(&xs, &[3], &[1], Padding::Valid).is_err());
        assert!(max(&xs, &[2, 2], &[1, 1], Padding::Valid).is_err());
        assert!(average(&xs, &[0], &[1], Padding::Same).is_err());
        assert!(average(&xs, &[2], &[0], Padding::Same).is_err());
        assert!(adaptive_max(&xs, &[0]).is_err());
        // A window beyond the axis costs nothing.
        assert!(average(&xs, &[usize::MAX / 2], &[1], Padding::Same).is_ok());
    }
}
