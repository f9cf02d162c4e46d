//! Image resizing as `tf.image.resize` does it, which is what `keras.ops.image.resize` calls.
//!
//! Source: tensorflow/core/kernels/image/{resize_*_op,scale_and_translate_op}.cc and sampling_kernels.h. Positions and
//! weights are float32 there, and so here: in another precision some pixels would get other neighbours.

use candle_core::{DType, Result, Tensor, bail};

use super::window::{pad, select};

/// How a pixel between others is found. Those that Keras 3 names are among [`NAMES`](Self::NAMES), as are those of
/// `tf.image.resize`, which Keras 2 called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interpolation {
    Nearest,
    Bilinear,
    /// As TensorFlow 1 did it: pixels are where their first corners are, not their centres.
    BilinearOfCorners,
    Bicubic,
    Lanczos3,
    Lanczos5,
    Area,
    Gaussian,
    MitchellCubic,
}

impl Interpolation {
    /// Keras's names.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("nearest", Self::Nearest),
        ("bilinear", Self::Bilinear),
        ("bicubic", Self::Bicubic),
        ("lanczos3", Self::Lanczos3),
        ("lanczos5", Self::Lanczos5),
        ("area", Self::Area),
        ("gaussian", Self::Gaussian),
        ("mitchellcubic", Self::MitchellCubic),
    ];

    /// The interpolation of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, interpolation)| *interpolation)
    }
}

/// `xs` `(batch, height, width, channels)` resized to `height` and `width`, pixel centres at half numbers but for
/// `BilinearOfCorners`.
///
/// `Nearest` keeps the dtype, integers too; every other interpolation gives float32 whatever comes in, as in TensorFlow.
/// `antialias` widens the kernel by the factor of a reduction; `Nearest` and `Area` do not know it.
///
/// Keras: `Bicubic` without `antialias` reads its weights from a table of 1024 positions, and differs from JAX by 1e-3.
///
/// # Errors
/// Where `xs` is not an image, or an axis is empty.
pub(crate) fn resize(
    xs: &Tensor,
    height: usize,
    width: usize,
    interpolation: Interpolation,
    antialias: bool,
) -> Result<Tensor> {
    check_sizes(xs, height, width)?;
    let (_, from_height, from_width, _) = xs.dims4()?;
    if interpolation == Interpolation::Nearest {
        let rows = select(xs, 1, &nearest(from_height, height))?;
        return select(&rows, 2, &nearest(from_width, width));
    }
    let xs = xs.to_dtype(DType::F32)?;
    let weigh = |kernel: Kernel| {
        let rows = weighted(&xs, 1, &kernel.taps(from_height, height, antialias))?;
        weighted(&rows, 2, &kernel.taps(from_width, width, antialias))
    };
    match interpolation {
        Interpolation::Nearest => Ok(xs),
        Interpolation::Bilinear if antialias => weigh(Kernel::Triangle),
        Interpolation::Bilinear => between(&between(&xs, 2, width, Position::Centres)?, 1, height, Position::Centres),
        Interpolation::BilinearOfCorners => {
            between(&between(&xs, 2, width, Position::Corners)?, 1, height, Position::Corners)
        }
        Interpolation::Bicubic if antialias => weigh(Kernel::KeysCubic),
        Interpolation::Bicubic => {
            let rows = weighted(&xs, 1, &cubic(from_height, height))?;
            weighted(&rows, 2, &cubic(from_width, width))
        }
        Interpolation::Lanczos3 => weigh(Kernel::Lanczos(3.0)),
        Interpolation::Lanczos5 => weigh(Kernel::Lanczos(5.0)),
        Interpolation::Gaussian => weigh(Kernel::Gaussian),
        Interpolation::MitchellCubic => weigh(Kernel::MitchellCubic),
        Interpolation::Area => {
            let columns = weighted(&xs, 2, &area(from_width, width))?;
            let sums = weighted(&columns, 1, &area(from_height, height))?;
            sums * f64::from(1.0 / (scale(from_height, height) * scale(from_width, width)))
        }
    }
}

fn check_sizes(xs: &Tensor, height: usize, width: usize) -> Result<()> {
    let (_, from_height, from_width, _) = xs.dims4()?;
    // Up to 2²⁴ a float32 holds every integer.
    if [from_height, from_width, height, width].iter().any(|size| !(1..=1 << 24).contains(size)) {
        bail!("an image of {from_height} × {from_width} cannot be resized to {height} × {width}");
    }
    Ok(())
}

/// Pixels a pixel of the result is made from: for each pixel of the result, where they are and what they weigh.
type Taps = Vec<Vec<(usize, f32)>>;

/// The source pixels of one output pixel are `in / out` apart.
fn scale(from: usize, to: usize) -> f32 {
    from as f32 / to as f32
}

/// The position in the source of the centre of pixel `index`, where a pixel's centre is its own number.
fn centre(index: usize, scale: f32) -> f32 {
    (index as f32 + 0.5) * scale - 0.5
}

/// What of a pixel is at its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Its centre.
    Centres,
    /// Its first corner.
    Corners,
}

/// Two pixels of an axis and how far between them another one is: `lower + (upper − lower) · fraction`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbours {
    /// The one before.
    pub lower: usize,
    /// The one after, or the same.
    pub upper: usize,
    /// 0 at the lower one.
    pub fraction: f32,
}

impl Neighbours {
    /// Those of pixel `index` of `to`, in an axis of `from`, which has some.
    #[must_use]
    pub fn of(index: usize, from: usize, to: usize, position: Position) -> Self {
        let at = match position {
            Position::Centres => centre(index, scale(from, to)),
            Position::Corners => index as f32 * scale(from, to),
        };
        Self { lower: bounded(at.floor(), from), upper: bounded(at.ceil(), from), fraction: at - at.floor() }
    }
}

/// `at` as the number of a pixel, the first or last where it lies outside.
fn bounded(at: f32, size: usize) -> usize {
    (at.max(0.0) as usize).min(size - 1)
}

fn nearest(from: usize, to: usize) -> Vec<usize> {
    (0..to).map(|index| bounded(((index as f32 + 0.5) * scale(from, to)).floor(), from)).collect()
}

/// Bilinear along one axis, in TensorFlow's form `lower + (upper − lower) · fraction`.
fn between(xs: &Tensor, axis: usize, to: usize, position: Position) -> Result<Tensor> {
    let from = xs.dim(axis)?;
    let at: Vec<Neighbours> = (0..to).map(|index| Neighbours::of(index, from, to, position)).collect();
    let lower = select(xs, axis, &at.iter().map(|at| at.lower).collect::<Vec<usize>>())?;
    let upper = select(xs, axis, &at.iter().map(|at| at.upper).collect::<Vec<usize>>())?;
    let fraction = along(xs, axis, at.iter().map(|at| at.fraction).collect())?;
    &lower + (upper - &lower)?.broadcast_mul(&fraction)?
}

/// The four pixels around each position, weighed by Keys's cubic with a = −½ at the nearest 1024th; what lies outside
/// the image weighs nothing, and the others make up for it.
fn cubic(from: usize, to: usize) -> Taps {
    const POSITIONS: f32 = 1024.0;
    let near = |x: f32| {
        let x = f64::from(x);
        ((1.5 * x - 2.5) * x * x + 1.0) as f32
    };
    let far = |x: f32| {
        let x = f64::from(x + 1.0);
        (((-0.5 * x + 2.5) * x - 4.0) * x + 2.0) as f32
    };
    let taps = |index: usize| {
        let at = centre(index, scale(from, to));
        let below = at.floor();
        let fraction = ((at - below) * POSITIONS).round_ties_even() / POSITIONS;
        let weights = [far(fraction), near(fraction), near(1.0 - fraction), far(1.0 - fraction)];
        let pixels = [below - 1.0, below, below + 1.0, below + 2.0];
        let inside = |pixel: f32| pixel >= 0.0 && pixel <= (from - 1) as f32;
        let taps = pixels
            .iter()
            .zip(weights)
            .map(|(pixel, weight)| (bounded(*pixel, from), if inside(*pixel) { weight } else { 0.0 }));
        normalized(taps.collect())
    };
    (0..to).map(taps).collect()
}

/// The pixels that each pixel of the result covers, by the covered part.
fn area(from: usize, to: usize) -> Taps {
    let scale = scale(from, to);
    let taps = |index: usize| {
        let (begin, end) = (index as f32 * scale, (index + 1) as f32 * scale);
        let weigh = |pixel: usize| {
            let (left, right) = (pixel as f32, (pixel + 1) as f32);
            let weight = match (left < begin, right > end) {
                (true, true) => scale,
                (true, false) => right - begin,
                (false, true) => end - left,
                (false, false) => 1.0,
            };
            (pixel.min(from - 1), weight)
        };
        (begin.floor() as usize..end.ceil() as usize).map(weigh).collect()
    };
    (0..to).map(taps).collect()
}

/// What a pixel weighs at a distance (sampling_kernels.h).
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Triangle,
    KeysCubic,
    MitchellCubic,
    Gaussian,
    Lanczos(f32),
}

impl Kernel {
    fn radius(self) -> f32 {
        match self {
            Self::Triangle => 1.0,
            Self::KeysCubic | Self::MitchellCubic => 2.0,
            Self::Gaussian => 1.5,
            Self::Lanczos(radius) => radius,
        }
    }

    /// The weight at distance `x`, 0 or more.
    fn weight(self, x: f32) -> f32 {
        const PI: f32 = std::f32::consts::PI;
        match self {
            Self::Triangle => (1.0 - x).max(0.0),
            Self::KeysCubic | Self::MitchellCubic if x >= 2.0 => 0.0,
            Self::KeysCubic if x >= 1.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::KeysCubic => ((1.5 * x - 2.5) * x) * x + 1.0,
            Self::MitchellCubic if x >= 1.0 => (((-7.0 / 18.0) * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0,
            Self::MitchellCubic => (((7.0 / 6.0) * x - 2.0) * x) * x + 8.0 / 9.0,
            Self::Gaussian if x >= 1.5 => 0.0,
            // Half a pixel is the standard deviation.
            Self::Gaussian => (-f64::from(x * x) / 0.5).exp() as f32,
            Self::Lanczos(radius) if x > radius => 0.0,
            Self::Lanczos(_) if x <= 1e-3 => 1.0,
            Self::Lanczos(radius) => radius * (PI * x).sin() * (PI * x / radius).sin() / (PI * PI * x * x),
        }
    }

    /// The pixels within the radius of each position, weighed, and their weights divided by their sum.
    fn taps(self, from: usize, to: usize, antialias: bool) -> Taps {
        // In this order of roundings: out / in is an argument of TensorFlow's operation.
        let inverse = (1.0 / f64::from(to as f32 / from as f32)) as f32;
        let widening = if antialias { inverse.max(1.0) } else { 1.0 };
        let narrowing = 1.0 / widening;
        let reach = self.radius() * widening;
        // TensorFlow gives every list the length of the longest possible one. The pixels beyond a list weigh nothing,
        // which makes NaN of those that are not finite.
        let longest = (2 * reach.ceil() as usize + 1).min(from);
        let taps = |index: usize| {
            let at = (index as f32 + 0.5) * inverse;
            if at > from as f32 {
                return Vec::new();
            }
            let (start, end) = (bounded((at - reach - 0.5).ceil(), from), bounded((at + reach - 0.5).floor(), from));
            let weigh = |pixel: usize| (pixel, self.weight(((pixel as f32 + 0.5 - at) * narrowing).abs()));
            let mut taps = normalized((start..=end).map(weigh).collect());
            taps.extend((end + 1..from.min(start + longest)).map(|pixel| (pixel, 0.0)));
            taps
        };
        (0..to).map(taps).collect()
    }
}

/// Weights divided by their sum, or nothing but zeros where that is none.
fn normalized(mut taps: Vec<(usize, f32)>) -> Vec<(usize, f32)> {
    let sum: f32 = taps.iter().fold(0.0, |sum, (_, weight)| sum + weight);
    let factor = if sum.abs() >= 1000.0 * f32::MIN_POSITIVE { 1.0 / sum } else { 0.0 };
    taps.iter_mut().for_each(|(_, weight)| *weight *= factor);
    taps
}

/// The sum of the taps along one axis.
///
/// One gather a tap and no matrix of weights: a product with the zeros of such a matrix would spread NaN and ∞ from one
/// pixel over its whole row.
fn weighted(xs: &Tensor, axis: usize, taps: &Taps) -> Result<Tensor> {
    let most = taps.iter().map(Vec::len).max().unwrap_or(0);
    let size = xs.dim(axis)?;
    let even = taps.iter().all(|taps| taps.len() == most);
    // A shorter list sees a zero after the last pixel.
    let xs = if even { xs.clone() } else { pad(xs, axis, 0, 1, 0.0)? };
    let mut sum: Option<Tensor> = None;
    for tap in 0..most {
        let tap = |taps: &Vec<(usize, f32)>| taps.get(tap).copied().unwrap_or((size, 0.0));
        let (pixels, weights): (Vec<usize>, Vec<f32>) = taps.iter().map(tap).unzip();
        let part = select(&xs, axis, &pixels)?.broadcast_mul(&along(&xs, axis, weights)?)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("an image without pixels"),
    }
}

/// One number a cell of `axis`, in the shape that broadcasts over `like`.
fn along(like: &Tensor, axis: usize, numbers: Vec<f32>) -> Result<Tensor> {
    let mut dims = vec![1; like.rank()];
    if let Some(size) = dims.get_mut(axis) {
        *size = numbers.len();
    }
    Tensor::from_vec(numbers, dims, like.device())
}

#[cfg(test)]
mod tests {

    use candle_core::{DType, Device, Tensor};

    use super::{Interpolation, resize};
    use crate::math::testing::{assert_close, assert_differentiable, numbers};

    struct Case {
        name: &'static str,
        antialias: bool,
        xs: &'static [usize],
        dims: &'static [usize],
        keras: &'static [f32],
    }

    // from Keras 3.15.1, TensorFlow: keras.ops.image.resize; gaussian and mitchellcubic: tf.image.resize
    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { name: "nearest", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5625, -1.5625,
            -0.40625, 0.75, 0.75, -1.25, -1.25, -1.5625, -1.5625, -0.40625, 0.75, 0.75, -1.25, -1.25, -0.09375,
            -0.09375, 1.0625, -0.9375, -0.9375, 0.21875, 0.21875, 1.375, 1.375, -0.625, 0.53125, 0.53125, -1.46875,
            -1.46875, 1.375, 1.375, -0.625, 0.53125, 0.53125, -1.46875, -1.46875] },
        Case { name: "nearest", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.3125, 0.84375,
            1.15625, -0.84375, 0.71875, -1.28125, -0.96875, 0.1875, -1.40625, -0.25, 0.0625, 1.21875] },
        Case { name: "nearest", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.40625,
            -0.40625, -0.40625, -1.25, -1.25, -1.25, -0.9375, -0.9375, -0.9375, -0.625, -0.625, -0.625, -1.46875,
            -1.46875, -1.46875] },
        Case { name: "bilinear", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5625,
            -1.1495535, -0.48883927, 0.171875, 0.60714245, -0.5357146, -1.25, -0.97499996, -0.5620535, 0.09866077,
            0.128125, 0.022321224, -0.39910725, -0.66249996, -0.09375, 0.31919652, 0.97991073, 0.0625, -0.8549105,
            -0.19419622, 0.21875, 0.7875002, 0.52410716, 0.1026783, -0.003125012, -0.10892856, -0.53035736,
            -0.7937503, 1.375, 0.66071415, -0.48214293, -0.046875, 0.38839245, -0.7544646, -1.46875] },
        Case { name: "bilinear", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.010416657,
            -0.16927087, 0.5104166, -0.17447916, 0.9296875, -1.0703125, -0.390625, -0.0234375, -0.49739647,
            -0.39322883, -0.23958325, 0.6536462] },
        Case { name: "bilinear", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.63750005,
            -0.63750005, -0.63750005, -0.78750014, -0.78750014, -0.78750014, -0.9375, -0.9375, -0.9375, 0.17500114,
            0.17500114, 0.17500114, -1.2375002, -1.2375002, -1.2375002] },
        Case { name: "bilinear", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5624999,
            -1.1495534, -0.48883927, 0.171875, 0.60714245, -0.5357146, -1.25, -0.9749999, -0.56205344, 0.098660804,
            0.12812501, 0.022321247, -0.39910722, -0.6624999, -0.09374999, 0.31919652, 0.9799108, 0.0625, -0.85491043,
            -0.19419625, 0.21875, 0.78750014, 0.52410716, 0.10267832, -0.0031250268, -0.10892855, -0.53035736,
            -0.7937502, 1.3749999, 0.66071415, -0.48214296, -0.046875, 0.38839245, -0.7544646, -1.46875] },
        Case { name: "bilinear", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.2734375,
            -0.22392455, 0.13981332, 0.17907873, 0.0858122, -0.25167117, 0.07770722, 0.17062166, -0.031148564,
            -0.24807228, 0.023437522, 0.18567373] },
        Case { name: "bilinear", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.5395834,
            -0.5395834, -0.5395834, -0.16003795, -0.16003795, -0.16003795, 0.05446426, 0.05446426, 0.05446426,
            0.29356077, 0.29356077, 0.29356077, -0.5989583, -0.5989583, -0.5989583] },
        Case { name: "bicubic", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.7650219,
            -1.3771282, -0.6121679, 0.39229983, 0.81914186, -0.6308148, -1.5382442, -1.215333, -0.7165498, 0.12950215,
            0.26635274, 0.05475569, -0.4353218, -0.71793103, -0.18534395, 0.3323068, 1.0716276, 0.0625, -0.94662744,
            -0.20730685, 0.31034395, 0.9956528, 0.65904546, 0.076634794, -0.022211004, -0.09697733, -0.58705485,
            -0.86966413, 1.6632444, 0.7558148, -0.69414186, -0.055135623, 0.5838706, -0.86608595, -1.7735153] },
        Case { name: "bicubic", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[0.14042395,
            -0.10168047, 0.70226926, -0.3881445, 0.96350193, -1.2533396, -0.51479006, -0.057251908, -0.7279639,
            -0.4419374, -0.39042395, 0.89527684] },
        Case { name: "bicubic", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.6705531,
            -0.6705531, -0.6705531, -1.014224, -1.014224, -1.014224, -0.9375, -0.9375, -0.9375, 0.10030264,
            0.10030264, 0.10030264, -1.4033576, -1.4033576, -1.4033576] },
        Case { name: "bicubic", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.7650713,
            -1.3773417, -0.6122763, 0.39228338, 0.8188874, -0.63154995, -1.5383998, -1.2160387, -0.71765214,
            0.12856424, 0.2664849, 0.05549833, -0.43576595, -0.71890664, -0.18547198, 0.3318609, 1.0716063, 0.0625,
            -0.94660646, -0.20686054, 0.310472, 0.9964426, 0.65940297, 0.07589817, -0.022242364, -0.09632049,
            -0.58758503, -0.8707259, 1.6633998, 0.75654936, -0.69388753, -0.055129714, 0.58362794, -0.8668095,
            -1.7736593] },
        Case { name: "bicubic", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.30947793,
            -0.25998685, 0.16559528, 0.21446887, 0.06250677, -0.26458973, 0.07452181, 0.2120645, 0.004059144,
            -0.2807703, 0.021654963, 0.19872847] },
        Case { name: "bicubic", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.576389,
            -0.576389, -0.576389, -0.15417035, -0.15417035, -0.15417035, 0.10540144, 0.10540144, 0.10540144,
            0.32717732, 0.32717732, 0.32717732, -0.6430686, -0.6430686, -0.6430686] },
        Case { name: "lanczos3", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.7388473,
            -1.5185927, -0.7819094, 0.67973226, 0.87405616, -0.6342329, -1.7993202, -1.40732, -0.78731, 0.154956,
            0.44987765, -0.023079503, -0.4410614, -0.66044223, -0.2951277, 0.4162152, 1.0824325, 0.062499937,
            -0.9574326, -0.29121464, 0.42012787, 1.1464152, 0.76727706, 0.14156897, -0.06841701, -0.16105571,
            -0.57889026, -0.82975245, 1.8091614, 0.64125896, -0.80050784, -0.04035577, 0.6823597, -0.82572395,
            -2.034549] },
        Case { name: "lanczos3", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[0.3345651,
            -0.27736944, 0.77634424, -0.46420962, 0.9924591, -1.3145373, -0.43597054, -0.1758191, -0.71777266,
            -0.46659574, -0.5612764, 0.9106718] },
        Case { name: "lanczos3", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.7883045,
            -0.78830457, -0.78830457, -1.2268783, -1.2268784, -1.2268784, -0.93749994, -0.9375, -0.9375, 0.027715469,
            0.02771547, 0.02771547, -1.4429071, -1.4429072, -1.4429072] },
        Case { name: "lanczos3", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.7388473,
            -1.5185927, -0.7819094, 0.67973226, 0.87405616, -0.6342329, -1.7993202, -1.40732, -0.78731, 0.154956,
            0.44987765, -0.023079503, -0.4410614, -0.66044223, -0.2951277, 0.4162152, 1.0824325, 0.062499937,
            -0.9574326, -0.29121464, 0.42012787, 1.1464152, 0.76727706, 0.14156897, -0.06841701, -0.16105571,
            -0.57889026, -0.82975245, 1.8091614, 0.64125896, -0.80050784, -0.04035577, 0.6823597, -0.82572395,
            -2.034549] },
        Case { name: "lanczos3", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.31992298,
            -0.2723834, 0.17098849, 0.23280406, 0.02745263, -0.26558077, 0.05524252, 0.23637234, 0.015445033,
            -0.29169402, 0.011736155, 0.19300221] },
        Case { name: "lanczos3", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.61303496,
            -0.613035, -0.613035, -0.118228525, -0.11822853, -0.11822853, 0.13218546, 0.13218547, 0.13218547,
            0.31084704, 0.31084707, 0.31084707, -0.6680217, -0.66802174, -0.66802174] },
        Case { name: "lanczos5", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5671406,
            -1.5711068, -0.85213864, 0.8835623, 0.8736607, -0.6684142, -1.9013464, -1.54251, -0.8392712, 0.1765988,
            0.6020099, -0.075044066, -0.4871737, -0.5601095, -0.38131052, 0.46675906, 1.0798321, 0.062499933,
            -0.9548321, -0.3417585, 0.5063108, 1.2865838, 0.809339, 0.17870362, -0.12422979, -0.19322704, -0.52084935,
            -0.8333946, 1.8888553, 0.4428212, -0.8495669, -0.0036057234, 0.72928894, -0.709552, -2.2351882] },
        Case { name: "lanczos5", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[0.42946523,
            -0.45134243, 0.77355736, -0.4576926, 0.9481356, -1.3256208, -0.42961854, -0.2493422, -0.6524617,
            -0.4903926, -0.656098, 0.82517534] },
        Case { name: "lanczos5", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.8506456,
            -0.8506456, -0.8506456, -1.3512149, -1.3512149, -1.3512149, -0.9375, -0.9375, -0.9375, -0.13667548,
            -0.13667548, -0.13667548, -1.5009398, -1.5009398, -1.5009398] },
        Case { name: "lanczos5", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5671406,
            -1.5711068, -0.85213864, 0.8835623, 0.8736607, -0.6684142, -1.9013464, -1.54251, -0.8392712, 0.1765988,
            0.6020099, -0.075044066, -0.4871737, -0.5601095, -0.38131052, 0.46675906, 1.0798321, 0.062499933,
            -0.9548321, -0.3417585, 0.5063108, 1.2865838, 0.809339, 0.17870362, -0.12422979, -0.19322704, -0.52084935,
            -0.8333946, 1.8888553, 0.4428212, -0.8495669, -0.0036057234, 0.72928894, -0.709552, -2.2351882] },
        Case { name: "lanczos5", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.31223863,
            -0.27884555, 0.17293626, 0.23798308, 0.014404075, -0.2700226, 0.04460328, 0.24859285, 0.014861066,
            -0.2983982, 0.008536562, 0.19086407] },
        Case { name: "lanczos5", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.6120945,
            -0.6120945, -0.6120945, -0.10528257, -0.10528257, -0.10528257, 0.11281637, 0.11281637, 0.11281637,
            0.32370272, 0.32370272, 0.32370272, -0.6688814, -0.6688814, -0.6688814] },
        Case { name: "area", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.5624999,
            -1.2734374, -0.40625, 0.17187522, 0.75, -0.75000066, -1.2499993, -1.0729165, -0.78385395, 0.083333425,
            0.13541666, 0.1874999, -0.5234378, -0.7604161, -0.09375, 0.19531257, 1.0624999, 0.06249955, -0.93749994,
            -0.07031228, 0.21874987, 0.8854168, 0.6484375, -0.06250022, -0.010416675, 0.04166683, -0.66927135,
            -0.90624964, 1.3749996, 0.87499964, -0.6249998, -0.046874758, 0.5312498, -0.9687505, -1.4687488] },
        Case { name: "area", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.29107141,
            -0.30714285, 0.20892857, 0.19285713, 0.16607141, -0.30089286, 0.12499998, 0.19910716, 0.08214285,
            -0.2946429, 0.041071452, 0.20535716] },
        Case { name: "area", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.5841347,
            -0.5841347, -0.58413464, -0.3197116, -0.3197116, -0.31971154, 0.033653926, 0.033653926, 0.033653922,
            0.38701916, 0.38701916, 0.38701916, -0.56249994, -0.56249994, -0.5624999] },
        Case { name: "gaussian", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.4155054,
            -1.0610061, -0.4071236, 0.16560516, 0.32030052, -0.5092896, -1.0670055, -0.9102727, -0.5557733,
            0.011965325, 0.12798145, -0.021492817, -0.3958984, -0.6207414, -0.049208384, 0.2022255, 0.5057731,
            0.06250003, -0.42800397, -0.2920645, -0.14369616, 0.7457416, 0.5208983, 0.14649254, -0.0029814541,
            -0.15245554, -0.52686137, -0.75170463, 1.1920054, 0.63428915, -0.19530073, -0.040605158, 0.114090264,
            -0.71549994, -1.2732158] },
        Case { name: "gaussian", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.06440552,
            -0.17731684, 0.4484287, -0.10653834, 0.58371145, -0.7557688, -0.18914187, 0.073608845, -0.4269752,
            -0.37048286, -0.18559438, 0.5763763] },
        Case { name: "gaussian", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.6103201,
            -0.6103201, -0.6103201, -0.7612609, -0.7612609, -0.7612609, -0.6013373, -0.6013373, -0.6013373,
            0.18331736, 0.18331736, 0.18331736, -1.1237615, -1.1237615, -1.1237615] },
        Case { name: "gaussian", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.4155054,
            -1.0610061, -0.4071236, 0.16560516, 0.32030052, -0.5092896, -1.0670055, -0.9102727, -0.5557733,
            0.011965325, 0.12798145, -0.021492817, -0.3958984, -0.6207414, -0.049208384, 0.2022255, 0.5057731,
            0.06250003, -0.42800397, -0.2920645, -0.14369616, 0.7457416, 0.5208983, 0.14649254, -0.0029814541,
            -0.15245554, -0.52686137, -0.75170463, 1.1920054, 0.63428915, -0.19530073, -0.040605158, 0.114090264,
            -0.71549994, -1.2732158] },
        Case { name: "gaussian", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.20747332,
            -0.21878035, 0.11639997, 0.15697804, 0.040244464, -0.2163791, 0.0769708, 0.15763615, 0.029904317,
            -0.22802934, 0.027701318, 0.14359063] },
        Case { name: "gaussian", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.5470602,
            -0.5470602, -0.5470602, -0.1861214, -0.1861214, -0.1861214, 0.08555236, 0.08555236, 0.08555236,
            0.20247571, 0.20247571, 0.20247571, -0.5246448, -0.5246448, -0.5246448] },
        Case { name: "mitchellcubic", antialias: false, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.6135356,
            -1.2291145, -0.5169559, 0.28533995, 0.5486853, -0.55629194, -1.320529, -1.0733846, -0.6258926,
            0.071208686, 0.2015234, 0.0028652027, -0.40920413, -0.6628472, -0.11500504, 0.27531412, 0.7512444,
            0.06858837, -0.64348924, -0.26675618, 0.06085794, 0.8763833, 0.5917504, 0.13065691, -0.011454942,
            -0.13902658, -0.5510961, -0.8047393, 1.4455285, 0.68129134, -0.42368516, -0.04880976, 0.32606575,
            -0.7789115, -1.5431485] },
        Case { name: "mitchellcubic", antialias: false, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[0.04638187,
            -0.17491661, 0.5701375, -0.23386268, 0.7717626, -0.9825406, -0.313774, 0.0033891648, -0.55090314,
            -0.40994996, -0.29638177, 0.71955204] },
        Case { name: "mitchellcubic", antialias: false, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.65855956,
            -0.65855956, -0.65855956, -0.90112513, -0.90112513, -0.90112513, -0.76215243, -0.76215243, -0.76215243,
            0.15115416, 0.15115416, 0.15115416, -1.2608747, -1.2608747, -1.2608747] },
        Case { name: "mitchellcubic", antialias: true, xs: &[1, 3, 4, 1], dims: &[1, 5, 7, 1], keras: &[-1.6135356,
            -1.2291145, -0.5169559, 0.28533995, 0.5486853, -0.55629194, -1.320529, -1.0733846, -0.6258926,
            0.071208686, 0.2015234, 0.0028652027, -0.40920413, -0.6628472, -0.11500504, 0.27531412, 0.7512444,
            0.06858837, -0.64348924, -0.26675618, 0.06085794, 0.8763833, 0.5917504, 0.13065691, -0.011454942,
            -0.13902658, -0.5510961, -0.8047393, 1.4455285, 0.68129134, -0.42368516, -0.04880976, 0.32606575,
            -0.7789115, -1.5431485] },
        Case { name: "mitchellcubic", antialias: true, xs: &[1, 7, 5, 2], dims: &[1, 3, 2, 2], keras: &[-0.26260486,
            -0.23868172, 0.13703816, 0.19023389, 0.0412631, -0.23837997, 0.07349998, 0.18861042, 0.019940443,
            -0.2547818, 0.024146155, 0.16920763] },
        Case { name: "mitchellcubic", antialias: true, xs: &[1, 13, 1, 1], dims: &[1, 5, 3, 1], keras: &[-0.5644884,
            -0.5644884, -0.5644884, -0.15532498, -0.15532498, -0.15532498, 0.10809943, 0.10809943, 0.10809943,
            0.26249003, 0.26249003, 0.26249003, -0.58458006, -0.58458006, -0.58458006] },
    ];

    #[test]
    fn images_are_resized_as_by_keras() {
        for case in CASES {
            let what = format!("{} {} of {:?}", case.name, case.antialias, case.xs);
            let interpolation = Interpolation::named(case.name).unwrap();
            let change = |xs: &Tensor| resize(xs, case.dims[1], case.dims[2], interpolation, case.antialias);
            assert_close(&what, &change(&numbers(case.xs, 0)).unwrap(), case.dims, case.keras, 5e-7);
            assert_differentiable(&what, &[case.xs], |operands| change(&operands[0]));
        }
    }

    #[test]
    fn only_nearest_keeps_the_dtype() {
        let xs = Tensor::zeros((1, 2, 2, 1), DType::U8, &Device::Cpu).unwrap();
        for (name, interpolation) in Interpolation::NAMES {
            let expected = if *name == "nearest" { DType::U8 } else { DType::F32 };
            assert_eq!(resize(&xs, 3, 3, *interpolation, false).unwrap().dtype(), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_resized_is_refused() {
        let xs = numbers(&[1, 2, 2, 1], 0);
        assert!(resize(&xs, 0, 2, Interpolation::Bilinear, false).is_err());
        assert!(resize(&xs, 2, usize::MAX, Interpolation::Nearest, false).is_err());
        assert!(resize(&numbers(&[2, 2, 1], 0), 2, 2, Interpolation::Nearest, false).is_err());
        assert!(Interpolation::named("Bilinear").is_none());
    }
}
