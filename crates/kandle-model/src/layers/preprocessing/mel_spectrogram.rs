//! `keras.layers.MelSpectrogram`: the power of frequency bands over time, on the mel scale, in decibels where asked for.
//!
//! Shapes: samples `(batch, samples)` or `(samples,)`, result `(…, num_mel_bins, frames)`.
//!
//! Source: keras/src/layers/preprocessing/mel_spectrogram.py, keras/src/backend/tensorflow/math.py (`stft`).

use std::f64::consts::PI;

use candle_core::{DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, Problem, json};

use crate::{
    Call, Fields, Given, KerasLayer, Shape, Spec, Value,
    layers::{cannot, one},
    math::{
        fourier::{is_transformed, power_of_halves},
        window::select,
    },
    numeric::{cast, constant_like},
};

use super::{converted, float_policy};

#[derive(Debug, Clone)]
enum Window {
    Hann,
    Hamming,
    Given(Vec<f64>),
    Nothing,
}

#[derive(Debug)]
pub(crate) struct MelSpectrogram {
    fft_length: usize,
    stride: usize,
    length: usize,
    window: Window,
    sampling_rate: f64,
    bins: usize,
    frequencies: [f64; 2],
    /// The dynamic range and the least power, where decibels are asked for; infinite for no limit.
    decibels: bool,
    top_db: f64,
    exponent: f64,
    min_power: f64,
    ref_power: f64,
}

impl KerasLayer for MelSpectrogram {
    fn read(fields: &mut Fields<'_>) -> Self {
        float_policy(fields);
        let fft_length = fields.optional_size("fft_length").unwrap_or(2048);
        let length = fields.optional_size("sequence_length").unwrap_or(fft_length);
        if fft_length < length {
            fields.wrong(format!("fft_length {fft_length} is less than sequence_length {length}"));
        }
        if !is_transformed(fft_length) {
            fields.refuse(format!("fft_length {fft_length} has too large a prime factor"));
        }
        let window = window(fields, length);
        let sampling_rate = fields.number("sampling_rate", 16000.0);
        let highest = fields.optional_number("max_freq").filter(|number| *number != 0.0);
        Self {
            fft_length,
            stride: fields.optional_size("sequence_stride").unwrap_or(512),
            length,
            window,
            sampling_rate,
            bins: fields.optional_size("num_mel_bins").unwrap_or(128),
            frequencies: [fields.number("min_freq", 20.0), highest.unwrap_or((sampling_rate / 2.0).trunc())],
            decibels: fields.flag("power_to_db", true),
            top_db: fields.number("top_db", 80.0),
            exponent: fields.number("mag_exp", 2.0),
            min_power: fields.number("min_power", 1e-10),
            ref_power: fields.number("ref_power", 1.0),
        }
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let Shape(mut axes) = input.shape.clone();
        let Some(samples) = axes.pop() else { return Err(cannot("expected samples, found a scalar")) };
        // A padding of half a frame on both sides.
        let padded = samples.and_then(|samples| samples.checked_add(self.fft_length / 2 * 2));
        axes.push(Some(self.bins));
        axes.push(padded.map(|padded| self.frames(padded)));
        Ok(vec![Spec { shape: Shape(axes), dtype: given.policy().compute }])
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let compute = call.given.policy().compute;
        let input = converted(call.input()?, compute)?;
        let power = self.spectrogram(&input.tensor.to_dtype(DType::F64)?)?;
        let matrix = Tensor::from_vec(self.mel_matrix(), (self.fft_length / 2 + 1, self.bins), &Device::Cpu)?;
        let matrix = matrix.to_dtype(DType::F64)?.to_device(power.device())?;
        let (mut outer, frames) = (input.tensor.dims().to_vec(), power.dim(1)?);
        outer.pop();
        let (rows, features) = (power.dim(0)? * frames, power.dim(2)?);
        let mut mel = power.reshape((rows, features))?.matmul(&matrix)?;
        if self.decibels {
            mel = self.in_decibels(&mel)?;
        }
        let mel = mel.reshape(((), frames, self.bins))?.transpose(1, 2)?.contiguous()?;
        let shape: Vec<usize> = outer.into_iter().chain([self.bins, frames]).collect();
        // Keras computes in float32 at least, and rounds to half precision at the end.
        let wide = if compute == Dtype::Float64 { DType::F64 } else { DType::F32 };
        Ok(vec![cast(&Value::new(mel.reshape(shape)?.to_dtype(wide)?, dtype_of(wide)), compute)?])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

fn dtype_of(wide: DType) -> Dtype {
    if wide == DType::F64 { Dtype::Float64 } else { Dtype::Float32 }
}

impl MelSpectrogram {
    fn frames(&self, padded: usize) -> usize {
        padded.checked_sub(self.fft_length).map_or(0, |rest| rest / self.stride + 1)
    }

    /// `(…, samples)` as `(batch, frames, fft_length / 2 + 1)`: the magnitudes of the frequencies to the power of `mag_exp`.
    fn spectrogram(&self, xs: &Tensor) -> Result<Tensor> {
        let samples = xs.dim(xs.rank().saturating_sub(1))?;
        let half = self.fft_length / 2;
        if half >= samples {
            bail!("{samples} samples cannot be mirrored to {half} before and after: fft_length is {}", self.fft_length)
        }
        let padded = samples + 2 * half;
        let frames = self.frames(padded);
        // Mirrored at the first and the last sample, which stand once.
        let mirrored = |at: usize| match at.checked_sub(half) {
            None => half - at,
            Some(at) if at < samples => at,
            Some(at) => 2 * (samples - 1) - at,
        };
        let places = (0..frames).flat_map(|frame| (0..self.fft_length).map(move |at| frame * self.stride + at));
        let xs = xs.reshape(((), samples))?;
        let cut = select(&xs, 1, &places.map(mirrored).collect::<Vec<usize>>())?;
        let cut = cut.reshape((xs.dim(0)? * frames, self.fft_length))?;
        let window = Tensor::from_vec(self.window(), self.fft_length, &Device::Cpu)?.to_device(xs.device())?;
        let power = power_of_halves(&cut.broadcast_mul(&window)?)?;
        let power = match self.exponent {
            2.0 => power,
            1.0 => power.sqrt()?,
            exponent => power.powf(exponent / 2.0)?,
        };
        power.reshape((xs.dim(0)?, frames, half + 1))
    }

    /// The window, zeros around it up to the length of a frame.
    ///
    /// Keras: windows are periodic where their length is even only, as TensorFlow has it.
    fn window(&self) -> Vec<f64> {
        let raised = |a: f64, b: f64| -> Vec<f64> {
            let period = if self.length.is_multiple_of(2) { self.length } else { self.length - 1 };
            let cosine = |at: usize| (2.0 * PI * at as f64 / period as f64).cos();
            (0..self.length).map(|at| if self.length == 1 { 1.0 } else { a - b * cosine(at) }).collect()
        };
        let window = match &self.window {
            Window::Hann => raised(0.5, 0.5),
            Window::Hamming => raised(0.54, 0.46),
            Window::Given(window) => window.clone(),
            // Keras: without a window the frame is not shortened either.
            Window::Nothing => return vec![1.0; self.fft_length],
        };
        let before = (self.fft_length - self.length) / 2;
        let mut padded = vec![0.0; before];
        padded.extend(window);
        padded.resize(self.fft_length, 0.0);
        padded
    }

    /// What each frequency counts in each band, `(fft_length / 2 + 1, num_mel_bins)`: triangles on the mel scale.
    ///
    /// Keras computes it in float32 under every policy, which is seen in the result.
    fn mel_matrix(&self) -> Vec<f32> {
        // The C library's own logarithm, as TensorFlow takes it for the lowest and the highest frequency.
        let mel = |hertz: f32| 1127.0_f32 * (1.0 + hertz / 700.0).ln();
        let linear = |from: f32, to: f32, count: usize| -> Vec<f32> {
            let step = (to - from) / (count.saturating_sub(1)) as f32;
            let between = (1..count.saturating_sub(1)).map(|at| from + step * at as f32);
            std::iter::once(from).chain(between).chain([to]).take(count).collect()
        };
        let count = self.fft_length / 2 + 1;
        let frequencies = linear(0.0, self.sampling_rate as f32 / 2.0, count);
        let [low, high] = self.frequencies.map(|hertz| mel(hertz as f32));
        let edges = linear(low, high, self.bins + 2);
        let mut matrix = vec![0.0; self.bins];
        for hertz in frequencies.into_iter().skip(1) {
            let at = mel(hertz);
            let weight = |edges: &[f32]| match edges {
                [lower, centre, upper] => {
                    let rising = (at - lower) / (centre - lower);
                    let falling = (upper - at) / (upper - centre);
                    if falling < rising { falling.max(0.0) } else { rising.max(0.0) }
                }
                _ => 0.0,
            };
            matrix.extend(edges.windows(3).map(weight));
        }
        matrix.resize(count * self.bins, 0.0);
        matrix
    }

    fn in_decibels(&self, power: &Tensor) -> Result<Tensor> {
        let least = constant_like(power, self.min_power)?;
        let power = power.lt(&least)?.where_cond(&least, power)?;
        let decibels = ((power.log()? / std::f64::consts::LN_10)? * 10.0)?;
        let reference = 10.0 * self.ref_power.abs().max(self.min_power).log10();
        let decibels = (decibels - reference)?;
        // Keras: the range ends below the loudest place of the whole batch.
        let floor = (decibels.flatten_all()?.max(0)? - self.top_db)?.broadcast_as(decibels.shape())?.contiguous()?;
        decibels.lt(&floor)?.where_cond(&floor, &decibels)
    }
}

fn window(fields: &mut Fields<'_>, length: usize) -> Window {
    if !fields.holds("window") {
        return Window::Hann;
    }
    let Some(value) = fields.take("window") else { return Window::Nothing };
    let numbers = value.as_array().map(|items| items.iter().filter_map(json::number).collect::<Vec<f64>>());
    match (value.as_str(), numbers) {
        (Some("hann"), _) => Window::Hann,
        (Some("hamming"), _) => Window::Hamming,
        (None, Some(numbers))
            if numbers.len() == length && value.as_array().is_some_and(|items| items.len() == length) =>
        {
            Window::Given(numbers)
        }
        _ => {
            fields.invalid("window", value, &format!("hann, hamming or {length} numbers"));
            Window::Nothing
        }
    }
}
