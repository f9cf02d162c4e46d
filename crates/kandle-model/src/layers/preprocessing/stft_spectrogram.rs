//! `keras.layers.STFTSpectrogram`: the frequencies of frames of a signal, by kernels that are weights.
//!
//! Shapes: signals `(batch, samples, channels)`, or channels before samples; result `(batch, frames, channels · frequencies)`,
//! or with `expand_dims` an axis for each.
//!
//! Source: keras/src/layers/preprocessing/stft_spectrogram.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::{Dtype, Problem};

use crate::{
    Call, Fields, Given, KerasLayer, Shape, Spec, Value, Weight,
    layers::{cannot, one_float},
    math::window::select,
    numeric::{constant_like, wide},
    ops::host,
};

use super::{converted, float_policy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Log,
    Magnitude,
    Psd,
    Real,
    Imag,
    Angle,
    Stft,
}

#[derive(Debug)]
pub(crate) struct StftSpectrogram {
    mode: Mode,
    length: usize,
    step: usize,
    frequencies: usize,
    same: bool,
    expand: bool,
    channels_first: bool,
}

impl KerasLayer for StftSpectrogram {
    fn read(fields: &mut Fields<'_>) -> Self {
        float_policy(fields);
        if fields.policy().compute == Dtype::Bfloat16 {
            fields.wrong("dtype bfloat16: Keras takes float16, float32 and float64");
        }
        // They made the kernels, which are in the file.
        fields.training_only(&["window", "periodic", "scaling"]);
        let length = fields.optional_size("frame_length").unwrap_or(256);
        let step = fields.optional_size("frame_step").unwrap_or((length / 2).max(1));
        let bins = fields.optional_size("fft_length").or(length.checked_next_power_of_two()).unwrap_or(length);
        if step > length || bins < length {
            fields
                .wrong(format!("frame_length {length} is less than frame_step {step}, or more than fft_length {bins}"));
        }
        if bins == 1 {
            fields.refuse("fft_length 1 is not supported");
        }
        let mode = fields.choice(
            "mode",
            &[
                ("log", Mode::Log),
                ("magnitude", Mode::Magnitude),
                ("psd", Mode::Psd),
                ("real", Mode::Real),
                ("imag", Mode::Imag),
                ("angle", Mode::Angle),
                ("stft", Mode::Stft),
            ],
        );
        Self {
            mode: mode.unwrap_or(Mode::Log),
            length,
            step,
            frequencies: bins / 2 + 1,
            same: fields.choice("padding", &[("valid", false), ("same", true)]).unwrap_or(false),
            expand: fields.flag("expand_dims", false),
            channels_first: fields.channels_first(),
        }
    }

    fn weights(&self, _: Given<'_, Spec>) -> std::result::Result<Vec<Weight>, String> {
        let shape = vec![self.length, 1, self.frequencies];
        let kernels = [("real_kernel", Mode::Imag), ("imag_kernel", Mode::Real)];
        let kernels = kernels.into_iter().filter(|(_, without)| self.mode != *without);
        Ok(kernels.map(|(name, _)| Weight::as_keras(name, shape.clone())).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
        let input = one_float(given)?;
        let (batch, samples, channels) = match (input.shape.0.as_slice(), self.channels_first) {
            ([batch, samples, channels], false) | ([batch, channels, samples], true) => (*batch, *samples, *channels),
            _ => return Err(cannot(format!("expected an input of rank 3, found {}", input.shape))),
        };
        let frames = samples.map(|samples| self.frames(samples));
        let features = self.frequencies.checked_mul(if self.mode == Mode::Stft { 2 } else { 1 });
        let joined = channels.zip(features).and_then(|(channels, features)| channels.checked_mul(features));
        let axes = match (self.expand, self.channels_first) {
            (true, false) => vec![batch, frames, features, channels],
            (true, true) => vec![batch, channels, frames, features],
            (false, false) => vec![batch, frames, joined],
            (false, true) => vec![batch, joined, frames],
        };
        Ok(vec![Spec { shape: Shape(axes), dtype: given.policy().compute }])
    }

    fn forward(&self, call: Call<'_>) -> Result<Vec<Value>> {
        let compute = call.given.policy().compute;
        let input = converted(call.input()?, compute)?;
        let xs = if self.channels_first { input.tensor.clone() } else { input.tensor.transpose(1, 2)?.contiguous()? };
        let kernels = call.weights.iter().map(|kernel| self.filtered(&xs, kernel)).collect::<Result<Vec<_>>>()?;
        let least = |xs: &Tensor| -> Result<Tensor> {
            let least = constant_like(xs, 1e-7)?;
            xs.lt(&least)?.where_cond(&least, xs)
        };
        let ys = match (self.mode, kernels.as_slice()) {
            (Mode::Real | Mode::Imag, [only]) => only.clone(),
            (Mode::Stft, [real, imag]) => Tensor::cat(&[real, imag], 2)?,
            (Mode::Angle, [real, imag]) => wide(imag, |imag| angle(imag, &real.to_dtype(imag.dtype())?))?,
            (Mode::Log | Mode::Magnitude | Mode::Psd, [real, imag]) => {
                let power = (real.sqr()? + imag.sqr()?)?;
                match self.mode {
                    Mode::Psd if self.frequencies > 2 => {
                        let middle = power.narrow(2, 1, self.frequencies - 2)?.pad_with_zeros(2, 1, 1)?;
                        (power + middle)?
                    }
                    Mode::Psd => power,
                    Mode::Magnitude => least(&power)?.sqrt()?,
                    _ => wide(&least(&least(&power)?.sqrt()?)?, Tensor::log)?,
                }
            }
            (_, kernels) => bail!("{} kernels were given", kernels.len()),
        };
        let (batch, channels, features, frames) = ys.dims4()?;
        let ys = match (self.expand, self.channels_first) {
            (true, false) => ys.permute((0, 3, 2, 1))?,
            (true, true) => ys.permute((0, 1, 3, 2))?,
            (false, false) => ys.reshape((batch, channels * features, frames))?.transpose(1, 2)?,
            (false, true) => ys.reshape((batch, channels * features, frames))?,
        };
        Ok(vec![Value::new(ys.contiguous()?, compute)])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl StftSpectrogram {
    fn frames(&self, samples: usize) -> usize {
        match self.same {
            true => samples.div_ceil(self.step),
            false => samples.checked_sub(self.length).map_or(0, |rest| rest / self.step + 1),
        }
    }

    /// `(batch, channels, samples)` as `(batch, channels, frequencies, frames)`. Half precision is summed in float32.
    fn filtered(&self, xs: &Tensor, kernel: &Tensor) -> Result<Tensor> {
        let (batch, channels, samples) = xs.dims3()?;
        let frames = self.frames(samples);
        if frames == 0 {
            bail!("a signal of {samples} samples has no frame of {}", self.length)
        }
        let padded = (frames - 1) * self.step + self.length;
        let missing = padded.saturating_sub(samples);
        let signal = xs.reshape((batch * channels, samples))?.to_dtype(kernel.dtype())?;
        let signal = signal.pad_with_zeros(1, missing / 2, missing - missing / 2)?;
        let places = (0..frames).flat_map(|frame| (0..self.length).map(move |at| frame * self.step + at));
        let cut = select(&signal, 1, &places.collect::<Vec<usize>>())?;
        let cut = cut.reshape((batch * channels * frames, self.length))?;
        let ys = cut.matmul(&kernel.reshape((self.length, self.frequencies))?)?;
        let ys = ys.reshape((batch, channels, frames, self.frequencies))?.transpose(2, 3)?.contiguous()?;
        ys.to_dtype(xs.dtype())
    }
}

fn angle(ys: &Tensor, xs: &Tensor) -> Result<Tensor> {
    host::zip(ys, xs, f64::atan2, |ys, xs| {
        let norm = (ys.sqr()? + xs.sqr()?)?;
        Ok(((xs / &norm)?, (ys / &norm)?.neg()?))
    })
}
