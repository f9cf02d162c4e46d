//! Fourier transforms. Source: keras/src/backend/tensorflow/math.py, tensorflow/python/ops/signal.

use candle_core::{DType, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{Node, Operand, Operation, Setting, elementwise::X, floats, invalid, one, operation, rounded};
use crate::{
    Shape, Spec, Value,
    math::{
        fourier::{Complex, is_transformed, transform},
        window::{pad, select},
    },
    numeric,
};

fn unsupported(what: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

/// Only the dtypes that TensorFlow transforms.
fn transformed(spec: Spec) -> std::result::Result<Spec, Problem> {
    match spec.dtype {
        Dtype::Float32 | Dtype::Float64 => Ok(spec),
        dtype => Err(invalid(format!("expected float32 or float64, found {dtype}"))),
    }
}

fn planned_real(node: &Node<'_, Spec>) -> std::result::Result<Spec, Problem> {
    transformed(node.spec("x")?)
}

/// What the real and the imaginary part have in common.
fn planned_pair(node: &Node<'_, Spec>, rank: usize) -> std::result::Result<Spec, Problem> {
    let operands = node.operands("x")?;
    let [real, imaginary] = operands.as_slice() else {
        return Err(invalid("expected a real and an imaginary part"));
    };
    let spec = |operand: &Operand<'_, Spec>| Spec { shape: operand.shape(), dtype: operand.dtype() };
    let (real, imaginary) = (transformed(spec(real))?, transformed(spec(imaginary))?);
    if real.shape != imaginary.shape || real.dtype != imaginary.dtype || real.shape.rank() < rank {
        let what = format!("{} of {} and {} of {}", real.shape, real.dtype, imaginary.shape, imaginary.dtype);
        return Err(invalid(format!("expected two parts of one shape and dtype, found {what}")));
    }
    Ok(real)
}

fn length_within(length: Option<usize>) -> std::result::Result<(), Problem> {
    match length {
        Some(length) if !is_transformed(length) => {
            Err(unsupported(format!("a transform of {length}: not of large prime numbers, nor of nothing")))
        }
        _ => Ok(()),
    }
}

fn last(shape: &Shape) -> Option<usize> {
    shape.0.last().copied().flatten()
}

fn planned_both(node: &Node<'_, Spec>, axes: usize) -> std::result::Result<Vec<Spec>, Problem> {
    let parts = planned_pair(node, axes)?;
    parts.shape.0.iter().rev().take(axes).try_for_each(|size| length_within(*size))?;
    Ok(vec![parts.clone(), parts])
}

/// The parts of `x`, and the dtype that comes out.
fn parts(node: &Node<'_, Value>) -> Result<(Complex, Dtype)> {
    let operands = node.operands("x")?;
    let [real, imaginary] = operands.as_slice() else { bail!("expected a real and an imaginary part") };
    let (real, imaginary) = (real.value(&node.device())?, imaginary.value(&node.device())?);
    Ok(((wide(&real)?, wide(&imaginary)?), real.dtype))
}

/// The numbers in float64.
///
/// # Errors
/// Where one is not finite: which numbers it spoils depends on how TensorFlow transforms.
fn wide(value: &Value) -> Result<Tensor> {
    let xs = floats(value, value.dtype)?.to_dtype(DType::F64)?.contiguous()?;
    if xs.elem_count() > 0 && !xs.detach().abs()?.flatten_all()?.sum(0)?.to_scalar::<f64>()?.is_finite() {
        bail!("a transform of numbers that are not finite");
    }
    Ok(xs)
}

/// The last axis of both parts transformed.
fn over_last(real: &Tensor, imaginary: Option<&Tensor>) -> Result<Complex> {
    let dims = real.dims().to_vec();
    let size = dims.last().copied().unwrap_or_default();
    if !is_transformed(size) {
        bail!("a transform of {size}: not of large prime numbers, nor of nothing");
    }
    let rows = |xs: &Tensor| xs.contiguous()?.reshape(((), size));
    let imaginary = imaginary.map(rows).transpose()?;
    let (real, imaginary) = transform(&rows(real)?, imaginary.as_ref())?;
    Ok((real.reshape(dims.as_slice())?, imaginary.reshape(dims.as_slice())?))
}

fn over_two((real, imaginary): Complex) -> Result<Complex> {
    let (real, imaginary) = over_last(&real, Some(&imaginary))?;
    let turned = |xs: &Tensor| xs.transpose(xs.rank() - 2, xs.rank() - 1)?.contiguous();
    let (real, imaginary) = over_last(&turned(&real)?, Some(&turned(&imaginary)?))?;
    Ok((turned(&real)?, turned(&imaginary)?))
}

fn both((real, imaginary): &Complex, dtype: Dtype) -> Result<Vec<Value>> {
    Ok(vec![rounded(real, dtype)?, rounded(imaginary, dtype)?])
}

/// The numbers of the last axis, cut off or filled up with zeros.
fn of_length(xs: &Tensor, length: usize) -> Result<Tensor> {
    let (axis, size) = (xs.rank() - 1, xs.dim(xs.rank() - 1)?);
    if length <= size { xs.narrow(axis, 0, length)?.contiguous() } else { pad(xs, axis, 0, length - size, 0.0) }
}

fn length_of<T>(node: &Node<'_, T>, key: &'static str) -> std::result::Result<Option<usize>, String> {
    let length = node.settings.integer(key).map(usize::try_from).transpose();
    length.ok().filter(|length| *length != Some(0)).ok_or_else(|| format!("{key}: expected at least 1"))
}

fn planned_halves(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = planned_real(node)?;
    let length = length_of(node, "fft_length").map_err(invalid)?.or_else(|| last(&xs.shape));
    length_within(length)?;
    let halves = xs.with_shape(xs.shape.clone().with_last(length.map(|length| length / 2 + 1)));
    Ok(vec![halves.clone(), halves])
}

/// The first half of the frequencies of real numbers.
fn halves(xs: &Tensor, length: usize) -> Result<Complex> {
    let (real, imaginary) = over_last(&of_length(xs, length)?, None)?;
    Ok((of_length(&real, length / 2 + 1)?, of_length(&imaginary, length / 2 + 1)?))
}

fn rfft(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let length = length_of(node, "fft_length").map_err(candle_core::Error::msg)?;
    let length = length.map_or_else(|| value.tensor.dim(candle_core::D::Minus1), Ok)?;
    both(&halves(&wide(&value)?, length)?, value.dtype)
}

/// The length that half the frequencies stand for, where nobody says one.
fn whole_length(halves: Option<usize>) -> Option<usize> {
    halves.map(|halves| 2 * halves.saturating_sub(1))
}

fn planned_irfft(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let xs = planned_pair(node, 1)?;
    let length = length_of(node, "fft_length").map_err(invalid)?.or_else(|| whole_length(last(&xs.shape)));
    length_within(length)?;
    one(xs.shape.with_last(length), xs.dtype)
}

/// The real numbers of which these are the first half of the frequencies. The imaginary parts of the first one, and of the
/// middle one where there is one, count for nothing.
fn whole((real, imaginary): &Complex, length: usize) -> Result<Tensor> {
    let count = length / 2 + 1;
    let (real, imaginary) = (of_length(real, count)?, of_length(imaginary, count)?);
    let axis = real.rank() - 1;
    let mirrored: Vec<usize> = (1..count).filter(|at| 2 * at < length).rev().collect();
    let signs = (0..count).map(|at| f64::from(u8::from(at != 0 && 2 * at != length))).collect::<Vec<_>>();
    let imaginary = imaginary.broadcast_mul(&Tensor::new(signs, real.device())?)?;
    let full = |xs: &Tensor, mirror: &Tensor| -> Result<Tensor> {
        if mirrored.is_empty() {
            return xs.narrow(axis, 0, length);
        }
        Tensor::cat(&[xs.clone(), select(mirror, axis, &mirrored)?], axis)
    };
    let (real, conjugate) = (full(&real, &real)?, full(&imaginary.neg()?, &imaginary)?);
    // The transform of the conjugate is the way back.
    over_last(&real, Some(&conjugate))?.0 / length as f64
}

fn irfft(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (parts, dtype) = parts(node)?;
    let length = length_of(node, "fft_length").map_err(candle_core::Error::msg)?;
    let halves = parts.0.dim(candle_core::D::Minus1)?;
    let Some(length) = length.or_else(|| whole_length(Some(halves))).filter(|length| *length > 0) else {
        bail!("{halves} frequencies are those of no numbers");
    };
    Ok(vec![rounded(&whole(&parts, length)?, dtype)?])
}

/// How a signal is cut into frames.
struct Frames {
    length: usize,
    stride: usize,
    size: usize,
    center: bool,
}

impl Frames {
    fn of<T>(node: &Node<'_, T>) -> std::result::Result<Self, Problem> {
        let length = |key| {
            let found = length_of(node, key).map_err(invalid)?;
            found.filter(|length| *length < 1 << 24).ok_or_else(|| invalid(format!("{key} is missing or too large")))
        };
        let frames = Self {
            length: length("sequence_length")?,
            stride: length("sequence_stride")?,
            size: length("fft_length")?,
            center: node.settings.flag("center"),
        };
        if frames.size < frames.length {
            return Err(invalid(format!("fft_length: {} is less than sequence_length", frames.size)));
        }
        length_within(Some(frames.size))?;
        Self::window(&frames, node, Dtype::Float64).map_err(invalid)?;
        Ok(frames)
    }

    fn margin(&self) -> usize {
        if self.center { self.size / 2 } else { 0 }
    }

    /// The window in the middle of a frame, as float64 has what `dtype` has of it.
    ///
    /// Keras: a window of an odd length does not go on where it began, TensorFlow's `periodic` notwithstanding.
    fn window<T>(&self, node: &Node<'_, T>, dtype: Dtype) -> std::result::Result<Option<Vec<f64>>, String> {
        let (alpha, beta) = match node.settings.any("window") {
            None => return Ok(None),
            Some(value) => match value.as_str() {
                Some("hann") => (0.5, 0.5),
                Some("hamming") => (0.54, 0.46),
                Some(_) => return Err("window: expected hann, hamming or numbers".to_owned()),
                None => {
                    let numbers = numeric::constant(value, None).map_err(|what| format!("window: {what}"))?;
                    let numbers = numbers.tensor.to_dtype(DType::F64).and_then(|numbers| numbers.to_vec1::<f64>());
                    let numbers = numbers.ok().filter(|numbers| numbers.len() == self.length);
                    return match numbers {
                        Some(numbers) => Ok(Some(self.framed(numbers))),
                        None => Err(format!("window: expected {} numbers", self.length)),
                    };
                }
            },
        };
        let round = |number: f64| if dtype == Dtype::Float64 { number } else { f64::from(number as f32) };
        let even = if self.length.is_multiple_of(2) { 0.0 } else { 1.0 };
        let turn = |at: usize| round(2.0 * std::f64::consts::PI * at as f64 / (self.length as f64 - even));
        let numbers = match self.length {
            1 => vec![1.0],
            length => (0..length).map(|at| round(alpha - beta * turn(at).cos())).collect(),
        };
        Ok(Some(self.framed(numbers)))
    }

    fn framed(&self, numbers: Vec<f64>) -> Vec<f64> {
        let before = (self.size - self.length) / 2;
        let after = self.size - self.length - before;
        [vec![0.0; before], numbers, vec![0.0; after]].concat()
    }
}

fn planned_stft(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, frames) = (planned_real(node)?, Frames::of(node)?);
    let Some((samples, outer)) = xs.shape.0.split_last() else {
        return Err(invalid("expected an input of rank 1 or more"));
    };
    let count = match samples {
        None => None,
        Some(samples) => {
            let rest = (samples + 2 * frames.margin()).checked_sub(frames.size);
            let rest = rest.ok_or_else(|| invalid(format!("{samples} samples have no frame of {}", frames.size)))?;
            Some(1 + rest / frames.stride)
        }
    };
    let parts = xs.with_shape(Shape([outer, &[count, Some(frames.size / 2 + 1)]].concat()));
    Ok(vec![parts.clone(), parts])
}

/// The frequencies of each frame under the window; the signal is reflected at its ends where frames are centred.
fn stft(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let frames = Frames::of(node).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    let xs = wide(&value)?;
    let (axis, samples, margin) = (xs.rank() - 1, xs.dim(xs.rank() - 1)?, frames.margin());
    if margin > 0 && margin >= samples {
        bail!("{samples} samples cannot be reflected by {margin}");
    }
    let reflected: Vec<usize> =
        (1..=margin).rev().chain(0..samples).chain((0..margin).filter_map(|at| samples.checked_sub(at + 2))).collect();
    let xs = select(&xs, axis, &reflected)?;
    let Some(rest) = reflected.len().checked_sub(frames.size) else {
        bail!("{samples} samples have no frame of {}", frames.size);
    };
    let count = rest / frames.stride + 1;
    let cells: Vec<usize> = (0..count)
        .flat_map(|frame| (0..frames.size).map(move |at| (frame, at)))
        .map(|(frame, at)| frame * frames.stride + at)
        .collect();
    let outer = xs.dims().iter().take(axis).copied().collect::<Vec<usize>>();
    let mut cut = select(&xs, axis, &cells)?.reshape([outer, vec![count, frames.size]].concat())?;
    if let Some(window) = frames.window(node, value.dtype).map_err(candle_core::Error::msg)? {
        cut = cut.broadcast_mul(&Tensor::new(window, cut.device())?)?;
    }
    both(&halves(&cut, frames.size)?, value.dtype)
}

/// The part of `total` samples that the inverse gives back: where it begins, and how long it is.
fn kept<T>(node: &Node<'_, T>, frames: &Frames, total: usize) -> std::result::Result<(usize, usize), String> {
    let start = frames.margin();
    let wrong = || format!("length: nothing is left of {total} samples");
    let end = match length_of(node, "length")? {
        Some(length) => start.checked_add(length).ok_or_else(wrong)?.min(total),
        // Keras: with a margin of nothing, everything is cut off.
        None if frames.center && start == 0 => 0,
        None => total.checked_sub(start).ok_or_else(wrong)?,
    };
    Ok((start, end.checked_sub(start).ok_or_else(wrong)?))
}

fn planned_istft(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (xs, frames) = (planned_pair(node, 2)?, Frames::of(node)?);
    let [outer @ .., count, own] = xs.shape.0.as_slice() else { return Err(invalid("expected two axes or more")) };
    if own.is_some_and(|own| own != frames.size / 2 + 1) {
        return Err(unsupported(format!("{} frequencies of frames of {}", own.unwrap_or_default(), frames.size)));
    }
    let length = match count {
        Some(0) => return Err(invalid("no frames")),
        Some(count) => Some(kept(node, &frames, frames.size + frames.stride * (count - 1)).map_err(invalid)?.1),
        None => length_of(node, "length").map_err(invalid)?,
    };
    one(Shape([outer, &[length]].concat()), xs.dtype)
}

/// The signal of which these are the frames: each under the window that undoes the sum of the squares of all, and added up.
fn istft(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (parts, dtype) = parts(node)?;
    let frames = Frames::of(node).map_err(|problem| candle_core::Error::Msg(problem.what))?;
    let rank = parts.0.rank();
    let (count, outer) =
        (parts.0.dim(rank - 2)?, parts.0.dims().iter().take(rank - 2).copied().collect::<Vec<usize>>());
    if count == 0 {
        bail!("no frames");
    }
    let mut samples = whole(&parts, frames.size)?;
    if let Some(window) = frames.window(node, dtype).map_err(candle_core::Error::msg)? {
        let mut squares = vec![0.0; frames.stride];
        for (at, number) in window.iter().enumerate() {
            if let Some(square) = squares.get_mut(at % frames.stride) {
                *square += number * number;
            }
        }
        // Where no window reaches, there is nothing.
        let undone = window.iter().enumerate().map(|(at, number)| match squares.get(at % frames.stride) {
            Some(square) if *square != 0.0 => number / square,
            _ => 0.0,
        });
        samples = samples.broadcast_mul(&Tensor::new(undone.collect::<Vec<f64>>(), samples.device())?)?;
    }
    let total = frames.size + frames.stride * (count - 1);
    let samples = samples.reshape([outer.clone(), vec![count * frames.size]].concat())?;
    let cells: Vec<usize> = (0..count)
        .flat_map(|frame| (0..frames.size).map(move |at| (frame, at)))
        .map(|(frame, at)| frame * frames.stride + at)
        .collect();
    let added = super::blocks::added(&samples, outer.len(), &cells, total)?;
    let (start, length) = kept(node, &frames, total).map_err(candle_core::Error::msg)?;
    Ok(vec![rounded(&added.narrow(outer.len(), start, length)?.contiguous()?, dtype)?])
}

const LENGTH: &[(&str, Setting)] = &[("fft_length", Setting::Integers)];

pub(super) static OPERATIONS: &[Operation] = &[
    operation(
        "FFT",
        X,
        |node| planned_both(node, 1),
        |node| {
            let ((real, imaginary), dtype) = parts(node)?;
            both(&over_last(&real, Some(&imaginary))?, dtype)
        },
    ),
    operation(
        "FFT2",
        X,
        |node| planned_both(node, 2),
        |node| {
            let (parts, dtype) = parts(node)?;
            both(&over_two(parts)?, dtype)
        },
    ),
    operation(
        "IFFT2",
        X,
        |node| planned_both(node, 2),
        |node| {
            let ((real, imaginary), dtype) = parts(node)?;
            let size: usize = real.dims().iter().rev().take(2).product();
            let (real, imaginary) = over_two((real, imaginary.neg()?))?;
            both(&((real / size as f64)?, (imaginary / -(size as f64))?), dtype)
        },
    ),
    operation("RFFT", X, planned_halves, rfft).with(LENGTH),
    operation("IRFFT", X, planned_irfft, irfft).with(LENGTH),
    operation("STFT", X, planned_stft, stft).with(&[
        ("sequence_length", Setting::Integers),
        ("sequence_stride", Setting::Integers),
        ("fft_length", Setting::Integers),
        ("window", Setting::Any),
        ("center", Setting::Flag(true)),
    ]),
    operation("ISTFT", X, planned_istft, istft).with(&[
        ("sequence_length", Setting::Integers),
        ("sequence_stride", Setting::Integers),
        ("fft_length", Setting::Integers),
        ("length", Setting::Integers),
        ("window", Setting::Any),
        ("center", Setting::Flag(true)),
    ]),
];
