//! The discrete Fourier transform, by two smaller ones.

use std::f64::consts::PI;

use candle_core::{Device, Result, Tensor};

/// `|X|²` of the first `n / 2 + 1` frequencies of real rows `(rows, n)` in float64.
///
/// With n = a · b, sample `i · b + j` and frequency `k + a · l`: over `i` a transform of length `a`, then a turn by
/// `j · k / n` of a circle, then over `j` one of length `b`. All are products of matrices, with gradients.
pub(crate) fn power_of_halves(rows: &Tensor) -> Result<Tensor> {
    let (count, n) = rows.dims2()?;
    let (a, b) = factors(n);
    // (rows · b, a): the samples a stride of b apart.
    let xs = rows.reshape((count, a, b))?.transpose(1, 2)?.contiguous()?.reshape((count * b, a))?;
    let turn = |step: usize| 2.0 * PI * step as f64 / n as f64;
    let table = |height: usize, width: usize, step: &dyn Fn(usize, usize) -> usize| -> Result<[Tensor; 2]> {
        let steps: Vec<f64> = (0..height * width).map(|at| turn(step(at / width, at % width))).collect();
        let tensor =
            |numbers: Vec<f64>| Tensor::from_vec(numbers, (height, width), &Device::Cpu)?.to_device(rows.device());
        Ok([tensor(steps.iter().map(|at| at.cos()).collect())?, tensor(steps.iter().map(|at| -at.sin()).collect())?])
    };
    let [cos, sin] = table(a, a, &|i, k| i * k % a * b)?;
    let (re, im) = (xs.matmul(&cos)?.reshape((count, b, a))?, xs.matmul(&sin)?.reshape((count, b, a))?);
    let [cos, sin] = table(b, a, &|j, k| j * k % n)?;
    let turned_re = (re.broadcast_mul(&cos)? - im.broadcast_mul(&sin)?)?;
    let turned_im = (re.broadcast_mul(&sin)? + im.broadcast_mul(&cos)?)?;
    let flat = |xs: Tensor| xs.transpose(1, 2)?.contiguous()?.reshape((count * a, b));
    let (re, im) = (flat(turned_re)?, flat(turned_im)?);
    let [cos, sin] = table(b, b, &|j, l| j * l % b * a)?;
    let power = ((re.matmul(&cos)? - im.matmul(&sin)?)?.sqr()? + (re.matmul(&sin)? + im.matmul(&cos)?)?.sqr()?)?;
    power
        .reshape((count, a, b))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((count, n))?
        .narrow(1, 0, n / 2 + 1)?
        .contiguous()
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

    use super::power_of_halves;

    #[test]
    fn the_quick_transform_is_the_plain_one() {
        for n in [1_usize, 2, 3, 7, 8, 12, 15, 64] {
            let xs: Vec<f64> = (0..2 * n).map(|i| ((i * i * 7 + 3) % 11) as f64 - 4.5).collect();
            let found = power_of_halves(&Tensor::from_slice(&xs, (2, n), &Device::Cpu).unwrap()).unwrap();
            let found = found.to_vec2::<f64>().unwrap();
            for (row, xs) in found.iter().zip(xs.chunks(n)) {
                assert_eq!(row.len(), n / 2 + 1);
                for (k, power) in row.iter().enumerate() {
                    let sum = |wave: fn(f64) -> f64| -> f64 {
                        let angle = |i: usize| std::f64::consts::TAU * (i * k) as f64 / n as f64;
                        xs.iter().enumerate().map(|(i, x)| x * wave(angle(i))).sum()
                    };
                    let plain = sum(f64::cos).powi(2) + sum(f64::sin).powi(2);
                    assert!((power - plain).abs() < 1e-9 * (1.0 + plain), "{n} {k}: {power} {plain}");
                }
            }
        }
    }
}
