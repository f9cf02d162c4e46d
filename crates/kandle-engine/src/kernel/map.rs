//! Functions of single numbers, a vector of them at a time.

use kandle_model::{Function, primitive::Curve};
use rten_simd::{
    Isa, SimdOp, SimdUnaryOp,
    ops::{BitOps, FloatOps, NumOps},
};
use rten_vecmath as vecmath;

use super::{Kernel, Run};
use crate::{Failure, dims::Dims, threads::MOVED};

/// A function that there is a loop for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Map {
    Relu { most: f32 },
    LeakyRelu { slope: f32 },
    Elu { alpha: f32, scale: f32 },
    Sigmoid,
    Tanh,
    Silu,
    Gelu,
    Exp,
    HardTanh,
    HardSigmoid,
    OldHardSigmoid,
    HardSilu,
    Softsign,
}

/// `selu` is a scaled `elu`. Source: keras/src/activations/activations.py.
const SELU: Map = Map::Elu { alpha: 1.673_263_2, scale: 1.050_701 };

impl Map {
    /// The loop for `curve`, if there is one.
    pub(crate) fn of(curve: &Curve) -> Option<Self> {
        Some(match curve {
            Curve::Relu { most } => Self::Relu { most: *most },
            Curve::LeakyRelu { slope } => Self::LeakyRelu { slope: *slope },
            Curve::Elu { alpha } => Self::Elu { alpha: *alpha, scale: 1.0 },
            Curve::Function(function) => Self::of_function(*function)?,
            _ => return None,
        })
    }

    /// The loop for `function`, if there is one.
    pub(crate) fn of_function(function: Function) -> Option<Self> {
        Some(match function {
            Function::Relu => Self::Relu { most: f32::INFINITY },
            Function::Relu6 => Self::Relu { most: 6.0 },
            Function::LeakyRelu => Self::LeakyRelu { slope: 0.2 },
            Function::Elu => Self::Elu { alpha: 1.0, scale: 1.0 },
            Function::Selu => SELU,
            Function::Sigmoid => Self::Sigmoid,
            Function::Tanh => Self::Tanh,
            Function::Silu => Self::Silu,
            Function::Gelu => Self::Gelu,
            Function::Exponential => Self::Exp,
            Function::HardTanh => Self::HardTanh,
            Function::HardSigmoid => Self::HardSigmoid,
            Function::OldHardSigmoid => Self::OldHardSigmoid,
            Function::HardSilu => Self::HardSilu,
            Function::Softsign => Self::Softsign,
            _ => return None,
        })
    }

    /// What it is called where programs are shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relu { most } if most < f32::INFINITY => "bounded relu",
            Self::Relu { .. } => "relu",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Elu { scale, .. } if scale != 1.0 => "selu",
            Self::Elu { .. } => "elu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::Exp => "exp",
            Self::HardTanh => "hard_tanh",
            Self::HardSigmoid => "hard_sigmoid",
            Self::OldHardSigmoid => "hard_sigmoid of Keras 2",
            Self::HardSilu => "hard_silu",
            Self::Softsign => "softsign",
        }
    }

    /// What `relu` of a [`Target`](super::tile::Target) is for it, if it is one.
    pub(crate) fn as_relu(self) -> Option<f32> {
        match self {
            Self::Relu { most } => Some(most),
            _ => None,
        }
    }

    /// Applies it to every number.
    pub(crate) fn apply(self, xs: &mut [f32]) {
        match self {
            Self::Relu { most } => Relu { most }.map_mut(xs),
            Self::LeakyRelu { slope } => LeakyRelu { slope }.map_mut(xs),
            Self::Elu { alpha, scale } => Elu { alpha, scale }.map_mut(xs),
            Self::Sigmoid => vecmath::Sigmoid {}.map_mut(xs),
            Self::Tanh => vecmath::Tanh {}.map_mut(xs),
            Self::Silu => vecmath::Silu {}.map_mut(xs),
            Self::Gelu => vecmath::Gelu {}.map_mut(xs),
            Self::Exp => vecmath::Exp {}.map_mut(xs),
            Self::HardTanh => Clip { least: -1.0, most: 1.0 }.map_mut(xs),
            Self::HardSigmoid => HardSigmoid { times: false }.map_mut(xs),
            Self::HardSilu => HardSigmoid { times: true }.map_mut(xs),
            Self::OldHardSigmoid => OldHardSigmoid {}.map_mut(xs),
            Self::Softsign => Softsign {}.map_mut(xs),
        }
    }
}

/// `x` held between two bounds; NaN stays NaN.
#[inline(always)]
pub(super) fn clip<I: Isa>(isa: I, x: I::F32, least: f32, most: f32) -> I::F32 {
    let ops = isa.f32();
    let (least, most) = (ops.splat(least), ops.splat(most));
    // Of two numbers one of which is NaN, AVX gives the second and NEON gives NaN.
    if cfg!(target_arch = "aarch64") || (cfg!(target_arch = "x86_64") && ops.len() >= 8) {
        return ops.min(most, ops.max(least, x));
    }
    let above = ops.select(least, x, ops.le(x, least));
    ops.select(most, above, ops.gt(above, most))
}

struct Relu {
    most: f32,
}

impl SimdUnaryOp<f32> for Relu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        clip(isa, x, 0.0, self.most)
    }
}

struct Clip {
    least: f32,
    most: f32,
}

impl SimdUnaryOp<f32> for Clip {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        clip(isa, x, self.least, self.most)
    }
}

struct LeakyRelu {
    slope: f32,
}

impl SimdUnaryOp<f32> for LeakyRelu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.select(x, ops.mul(x, ops.splat(self.slope)), ops.gt(x, ops.zero()))
    }
}

/// `scale · x` where positive, else `scale · alpha · (eˣ − 1)`.
struct Elu {
    alpha: f32,
    scale: f32,
}

impl SimdUnaryOp<f32> for Elu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        // 2t / (1 − t) with t = tanh(x / 2): no difference of nearly equal numbers.
        let below = ops.select(ops.zero(), x, ops.gt(x, ops.zero()));
        let half = vecmath::Tanh {}.eval(isa, ops.mul(below, ops.splat(0.5)));
        let curve = ops.div(ops.add(half, half), ops.sub(ops.one(), half));
        let curve = ops.mul(curve, ops.splat(self.alpha));
        ops.mul(ops.select(x, curve, ops.gt(x, ops.zero())), ops.splat(self.scale))
    }
}

/// `relu6(x + 3) / 6`, and that times x.
struct HardSigmoid {
    times: bool,
}

impl SimdUnaryOp<f32> for HardSigmoid {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        let y = ops.div(clip(isa, ops.add(x, ops.splat(3.0)), 0.0, 6.0), ops.splat(6.0));
        if self.times { ops.mul(x, y) } else { y }
    }
}

/// `clip(0.2x + 0.5, 0, 1)`.
struct OldHardSigmoid {}

impl SimdUnaryOp<f32> for OldHardSigmoid {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        clip(isa, ops.add(ops.mul(x, ops.splat(0.2)), ops.splat(0.5)), 0.0, 1.0)
    }
}

struct Softsign {}

impl SimdUnaryOp<f32> for Softsign {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.div(x, ops.add(ops.one(), ops.abs(x)))
    }
}

impl Kernel for Map {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        super::only(inputs)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        let operations = 2 * MOVED * run.out.len();
        run.threads.rows(run.out, 1, 64, operations, |range, out| {
            if let Some(from) = from {
                out.copy_from_slice(&from[range]);
            }
            self.apply(out);
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }
}

/// `xs · scale + shift`, for the channels of the last axis or one number for all.
#[derive(Debug)]
pub(crate) struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
    map: Option<Map>,
}

impl Affine {
    /// One number for all, or as many as channels, of both.
    pub(crate) fn new(scale: Option<Vec<f32>>, shift: Option<Vec<f32>>, map: Option<Map>) -> Self {
        let (scale, shift) = (scale.unwrap_or_else(|| vec![1.0]), shift.unwrap_or_else(|| vec![0.0]));
        let count = scale.len().max(shift.len());
        let spread = |numbers: Vec<f32>| if numbers.len() == 1 { numbers.repeat(count) } else { numbers };
        Self { scale: spread(scale), shift: spread(shift), map }
    }
}

struct Scale<'a> {
    xs: &'a mut [f32],
    scale: &'a [f32],
    shift: &'a [f32],
}

impl SimdOp for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        match (self.scale, self.shift) {
            ([scale], [shift]) => self.xs.iter_mut().for_each(|x| *x = *x * scale + shift),
            (scale, shift) => {
                for row in self.xs.chunks_exact_mut(scale.len()) {
                    for ((x, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
                        *x = *x * scale + shift;
                    }
                }
            }
        }
    }
}

impl Kernel for Affine {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if self.scale.len() != 1 && dims.last()? != self.scale.len() {
            return Err(Failure::unforeseen("another number of channels"));
        }
        Ok(dims)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        let width = self.scale.len();
        let operations = MOVED * run.out.len();
        run.threads.rows(run.out, width, 16, operations, |range, out| {
            if let Some(from) = from {
                out.copy_from_slice(&from[range.start * width..range.end * width]);
            }
            Scale { xs: out, scale: &self.scale, shift: &self.shift }.dispatch();
            if let Some(map) = self.map {
                map.apply(out);
            }
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        (self.scale.len() + self.shift.len()) * size_of::<f32>()
    }
}

/// `x` where positive, else `alpha · x`, with an alpha for each channel of the last axis or one for all.
#[derive(Debug)]
pub(crate) struct Slopes {
    pub(crate) alpha: Vec<f32>,
}

struct Sloped<'a> {
    xs: &'a mut [f32],
    alpha: &'a [f32],
}

impl SimdOp for Sloped<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        // NaN is not positive, and stays.
        let sloped = |x: f32, alpha: f32| if x > 0.0 { x } else { x * alpha };
        match self.alpha {
            [alpha] => self.xs.iter_mut().for_each(|x| *x = sloped(*x, *alpha)),
            alpha => {
                for row in self.xs.chunks_exact_mut(alpha.len()) {
                    row.iter_mut().zip(alpha).for_each(|(x, alpha)| *x = sloped(*x, *alpha));
                }
            }
        }
    }
}

impl Kernel for Slopes {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if self.alpha.len() != 1 && dims.last()? != self.alpha.len() {
            return Err(Failure::unforeseen("another number of channels"));
        }
        Ok(dims)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        let (width, operations) = (self.alpha.len(), MOVED * run.out.len());
        run.threads.rows(run.out, width, 16, operations, |range, out| {
            if let Some(from) = from {
                out.copy_from_slice(&from[range.start * width..range.end * width]);
            }
            Sloped { xs: out, alpha: &self.alpha }.dispatch();
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.alpha)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use kandle_model::Function;

    use super::Map;

    #[test]
    fn every_function_is_the_models() {
        let xs: Vec<f32> = (-400..=400).map(|at| at as f32 / 32.0).chain([-90.0, 90.0, -0.0, 1e-6, -1e-6]).collect();
        let functions = [
            Function::Relu,
            Function::Relu6,
            Function::LeakyRelu,
            Function::Elu,
            Function::Selu,
            Function::Sigmoid,
            Function::Tanh,
            Function::Silu,
            Function::Gelu,
            Function::Exponential,
            Function::HardTanh,
            Function::HardSigmoid,
            Function::OldHardSigmoid,
            Function::HardSilu,
            Function::Softsign,
        ];
        for function in functions {
            let expected = function.apply(&Tensor::new(xs.as_slice(), &Device::Cpu).unwrap()).unwrap();
            let mut ours = xs.clone();
            Map::of_function(function).unwrap().apply(&mut ours);
            for ((x, ours), expected) in xs.iter().zip(&ours).zip(expected.to_vec1::<f32>().unwrap()) {
                // `1 + erf(x / √2)` is a difference of nearly equal numbers below zero, in Keras too.
                let floor = if function == Function::Gelu { 1.2e-7 * x.abs() } else { 4e-9 };
                let near = (ours - expected).abs() <= floor + 4e-7 * expected.abs() || *ours == expected;
                assert!(near, "{}({x}): {ours} {expected}", function.name());
            }
            let mut none = [f32::NAN];
            Map::of_function(function).unwrap().apply(&mut none);
            assert!(none[0].is_nan(), "{} of NaN is {}", function.name(), none[0]);
        }
    }
}
