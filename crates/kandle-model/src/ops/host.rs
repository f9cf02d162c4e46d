//! Functions that candle lacks, computed number by number in float64 on the host, with their derivatives in candle's own
//! operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};

/// The derivative of a function of one number, at `xs`.
pub(crate) type Derivative = fn(&Tensor) -> Result<Tensor>;
/// The derivatives of a function of two numbers by either.
pub(crate) type Derivatives = fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

/// `f` of every number of a float tensor, rounded once.
pub(crate) fn map(xs: &Tensor, f: fn(f64) -> f64, derivative: Derivative) -> Result<Tensor> {
    let ys = on_host(xs)?.apply_op1(One { f, derivative })?;
    ys.to_device(xs.device())
}

/// As [`map`], for a function that is constant almost everywhere.
pub(crate) fn steps(xs: &Tensor, f: fn(f64) -> f64) -> Result<Tensor> {
    map(&xs.detach(), f, |xs| xs.zeros_like())
}

/// `f` of every pair of numbers of two float tensors of one shape, rounded once.
pub(crate) fn zip(a: &Tensor, b: &Tensor, f: fn(f64, f64) -> f64, derivatives: Derivatives) -> Result<Tensor> {
    let ys = on_host(a)?.apply_op2(&on_host(b)?, Two { f, derivatives })?;
    ys.to_device(a.device())
}

fn on_host(xs: &Tensor) -> Result<Tensor> {
    xs.to_device(&Device::Cpu)?.contiguous()
}

struct One {
    f: fn(f64) -> f64,
    derivative: Derivative,
}

impl CustomOp1 for One {
    fn name(&self) -> &'static str {
        "map"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys = match storage {
            CpuStorage::F32(xs) => {
                let f = |x: &f32| (self.f)(f64::from(*x)) as f32;
                CpuStorage::F32(contiguous(xs, layout)?.iter().map(f).collect())
            }
            CpuStorage::F64(xs) => CpuStorage::F64(contiguous(xs, layout)?.iter().map(|x| (self.f)(*x)).collect()),
            _ => bail!("expected float32 or float64"),
        };
        Ok((ys, layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((gradient * (self.derivative)(xs)?)?))
    }
}

struct Two {
    f: fn(f64, f64) -> f64,
    derivatives: Derivatives,
}

impl CustomOp2 for Two {
    fn name(&self) -> &'static str {
        "zip"
    }

    fn cpu_fwd(&self, a: &CpuStorage, of_a: &Layout, b: &CpuStorage, of_b: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys = match (a, b) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => {
                let pairs = contiguous(a, of_a)?.iter().zip(contiguous(b, of_b)?);
                CpuStorage::F32(pairs.map(|(a, b)| (self.f)(f64::from(*a), f64::from(*b)) as f32).collect())
            }
            (CpuStorage::F64(a), CpuStorage::F64(b)) => {
                let pairs = contiguous(a, of_a)?.iter().zip(contiguous(b, of_b)?);
                CpuStorage::F64(pairs.map(|(a, b)| (self.f)(*a, *b)).collect())
            }
            _ => bail!("expected two tensors of float32 or float64"),
        };
        Ok((ys, of_a.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (by_a, by_b) = (self.derivatives)(a, b)?;
        Ok((Some((gradient * by_a)?), Some((gradient * by_b)?)))
    }
}

fn contiguous<'a, T>(numbers: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    let range = layout.contiguous_offsets().and_then(|(start, end)| numbers.get(start..end));
    range.ok_or_else(|| candle_core::Error::Msg("expected contiguous numbers".to_owned()))
}
