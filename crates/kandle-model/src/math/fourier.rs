//! The discrete Fourier transform, by two smaller ones.

use std::f64::consts::PI;

use candle_core::{Device, Result, Tensor};

/// A complex tensor: its real and its imaginary part.
pub(crate) type Complex = (Tensor, Tensor);

/// All `n` frequencies of rows `(rows, n)` in float64; without an imaginary part it is 0.
///
/// With n = a · b, sample `i · b + j` and frequency `k + a · l`: over `i` a transform of length `a`, then a turn by
/// `j · k / n` of a circle, then over `j` one of length `b`. All are products of matrices, with gradients.
pub(crate) fn transform(real: &Tensor, imaginary: Option<&Tensor>) -> Result<Complex> {
    let (count, n) = real.dims2()?;
    let (a, b) = factors(n);
    // (rows · b, a): the samples a stride of b apart.
    let apart = |xs: &Tensor| xs.reshape((count, a, b))?.transpose(1, 2)?.contiguous()?.reshape((count * b, a));
    let table = |height: usize, width: usize, step: &dyn Fn(usize, usize) -> usize| -> Result<[Tensor; 2]> {
        let (cos, sin) = (0..height * width).map(|at| wave(step(at / width, at % width), n)).unzip();
        let tensor =
            |numbers: Vec<f64>| Tensor::from_vec(numbers, (height, width), &Device::Cpu)?.to_device(real.device());
        Ok([tensor(cos)?, tensor(sin)?])
    };
    let [cos, sin] = table(a, a, &|i, k| i * k % a * b)?;
    let xs = apart(real)?;
    let (re, im) = match imaginary {
        None => (xs.matmul(&cos)?, xs.matmul(&sin)?),
        Some(imaginary) => {
            let ys = apart(imaginary)?;
            ((xs.matmul(&cos)? - ys.matmul(&sin)?)?, (xs.matmul(&sin)? + ys.matmul(&cos)?)?)
        }
    };
    let (re, im) = (re.reshape((count, b, a))?, im.reshape((count, b, a))?);
    let [cos, sin] = table(b, a, &|j, k| j * k % n)?;
    let turned_re = (re.broadcast_mul(&cos)? - im.broadcast_mul(&sin)?)?;
    let turned_im = (re.broadcast_mul(&sin)? + im.broadcast_mul(&cos)?)?;
    let flat = |xs: Tensor| xs.transpose(1, 2)?.contiguous()?.reshape((count * a, b));
    let (re, im) = (flat(turned_re)?, flat(turned_im)?);
    let [cos, sin] = table(b, b, &|j, l| j * l % b * a)?;
    let ordered = |xs: Tensor| xs.reshape((count, a, b))?.transpose(1, 2)?.contiguous()?.reshape((count, n));
    let (real, imaginary) = ((re.matmul(&cos)? - im.matmul(&sin)?)?, (re.matmul(&sin)? + im.matmul(&cos)?)?);
    Ok((ordered(real)?, ordered(imaginary)?))
}

/// Cosine and minus the sine of `step` of `n` steps of a circle, exact at its quarters.
fn wave(step: usize, n: usize) -> (f64, f64) {
    let step = step % n;
    if (4 * step).is_multiple_of(n) {
        return match 4 * step / n {
            0 => (1.0, 0.0),
            1 => (0.0, -1.0),
            2 => (-1.0, 0.0),
            _ => (0.0, 1.0),
        };
    }
    let angle = 2.0 * PI * step as f64 / n as f64;
    (angle.cos(), -angle.sin())
}

/// `|X|²` of the first `n / 2 + 1` frequencies of real rows `(rows, n)` in float64.
pub(crate) fn power_of_halves(rows: &Tensor) -> Result<Tensor> {
    let (real, imaginary) = transform(rows, None)?;
    (real.sqr()? + imaginary.sqr()?)?.narrow(1, 0, rows.dim(1)? / 2 + 1)?.contiguous()
}

/// Whether rows of `n` are transformed: the tables of a large prime factor would not fit in memory.
pub(crate) fn is_transformed(n: usize) -> bool {
    n > 0 && factors(n).1 <= 4096
}

/// The two factors of `n` that are nearest to its root, the smaller first.
fn factors(n: usize) -> (usize, usize) {
    let a = (1..=n.isqrt()).rev().find(|a| n.is_multiple_of(*a)).unwrap_or(1);
    (a, n / a)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{power_of_halves, transform};

    #[test]
    fn the_quick_transform_is_the_plain_one() {
        for n in [1_usize, 2, 3, 7, 8, 12, 15, 64] {
            let xs: Vec<f64> = (0..2 * n).map(|i| ((i * i * 7 + 3) % 11) as f64 - 4.5).collect();
            let ys: Vec<f64> = (0..2 * n).map(|i| ((i * i * 5 + 1) % 13) as f64 - 6.0).collect();
            let tensor = |xs: &[f64]| Tensor::from_slice(xs, (2, n), &Device::Cpu).unwrap();
            let (real, imaginary) = transform(&tensor(&xs), Some(&tensor(&ys))).unwrap();
            let (real, imaginary) = (real.to_vec2::<f64>().unwrap(), imaginary.to_vec2::<f64>().unwrap());
            for (row, (xs, ys)) in xs.chunks(n).zip(ys.chunks(n)).enumerate() {
                for k in 0..n {
                    let turn = |i: usize| std::f64::consts::TAU * (i * k % n) as f64 / n as f64;
                    let sum = |part: &dyn Fn(usize) -> f64| (0..n).map(part).sum::<f64>();
                    let re = sum(&|i| xs[i] * turn(i).cos() + ys[i] * turn(i).sin());
                    let im = sum(&|i| ys[i] * turn(i).cos() - xs[i] * turn(i).sin());
                    assert!((real[row][k] - re).abs() < 1e-9, "{n} {k}: {} {re}", real[row][k]);
                    assert!((imaginary[row][k] - im).abs() < 1e-9, "{n} {k}: {} {im}", imaginary[row][k]);
                }
            }
            let halves = power_of_halves(&tensor(&xs)).unwrap();
            assert_eq!(halves.dims(), [2, n / 2 + 1]);
        }
    }
}
