//! The product of matrices.

use candle_core::{D, DType, Result, Tensor};

/// How many products are summed one after the other.
const RUN: usize = 128;

/// `a` `(…, rows, inner)` times `b` `(…, inner, columns)`.
///
/// candle sums all products of a number one after the other, and what is lost by rounding grows with the length: at 512
/// more than in Keras. Long sums are made of short ones here. A gradient gets candle's own product, which costs it less.
///
/// # Errors
/// Where the shapes do not fit together.
pub(crate) fn multiply(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let inner = a.dim(D::Minus1)?;
    let (rank, fits) = (b.rank(), b.rank() > 1 && b.dim(D::Minus2)? == inner);
    if inner <= 2 * RUN || !fits || a.dtype() != DType::F32 || a.track_op() || b.track_op() {
        return a.matmul(b);
    }
    let mut sum: Option<Tensor> = None;
    for from in (0..inner).step_by(RUN) {
        let count = RUN.min(inner - from);
        let part = a.narrow(D::Minus1, from, count)?.matmul(&b.narrow(rank - 2, from, count)?)?;
        sum = Some(match sum {
            None => part,
            Some(sum) => (sum + part)?,
        });
    }
    sum.map_or_else(|| a.matmul(b), Ok)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor, Var};

    use super::multiply;
    use crate::math::testing::numbers;

    fn error(of: &Tensor, truth: &Tensor) -> f64 {
        let difference = (of.to_dtype(DType::F64).unwrap() - truth).unwrap();
        difference.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    }

    #[test]
    fn long_sums_lose_less_than_candles_own() {
        for (a, b) in [([7, 2048], [2048, 5]), ([3, 300], [300, 4])] {
            let (a, b) = (numbers(&a, 0), numbers(&b, 1));
            // Positive numbers: the sums grow, and so does what they lose.
            let (a, b) = (a.sqr().unwrap(), b.sqr().unwrap());
            let truth = a.to_dtype(DType::F64).unwrap().matmul(&b.to_dtype(DType::F64).unwrap()).unwrap();
            let (ours, plain) = (multiply(&a, &b).unwrap(), a.matmul(&b).unwrap());
            assert_eq!(ours.dims(), plain.dims());
            assert!(error(&ours, &truth) <= error(&plain, &truth));
            let stacked = multiply(&a.unsqueeze(0).unwrap(), &b.unsqueeze(0).unwrap()).unwrap().squeeze(0).unwrap();
            assert!(error(&stacked, &truth) <= error(&plain, &truth));
            // A view is multiplied like any other tensor.
            let view = b.t().unwrap().contiguous().unwrap();
            assert!(error(&multiply(&a, &view.t().unwrap()).unwrap(), &truth) <= error(&plain, &truth));
        }
    }

    #[test]
    fn what_has_a_gradient_or_does_not_fit_is_left_to_candle() {
        let (a, b) = (numbers(&[2, 300], 0), Var::from_tensor(&numbers(&[300, 2], 1)).unwrap());
        let ys = multiply(&a, b.as_tensor()).unwrap();
        assert!(ys.sum_all().unwrap().backward().unwrap().get(b.as_tensor()).is_some());
        assert!(multiply(&a, &numbers(&[299, 2], 1)).is_err());
        assert!(multiply(&a, &numbers(&[300], 1)).is_err());
    }
}
