//! The sharper instrument: both sides against the same model computed in float64.

use crate::array::Array;
use crate::number::{Number, with_number};

/// One step of float32 at 1: the floor under Keras's own error is two of them, scaled.
const EPSILON: f64 = f32::EPSILON as f64;

/// How far one output is from the float64 truth, beside how far Keras is.
///
/// A right implementation sums in another order than Keras and is no nearer to Keras than Keras is to the truth; so closeness to the truth says more than closeness to Keras.
/// Numbers where Keras or the truth is not finite are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Which output, from 0.
    pub output: usize,
    /// max |ours − truth|; infinite where ours alone is not finite.
    pub truth_error: f64,
    /// max |keras − truth|.
    pub keras_error: f64,
    /// truth_error / max(keras_error, 2·2⁻²³·S), S = the largest finite |keras|: at most 2 is good.
    pub truth_ratio: f64,
}

impl Truth {
    /// Measures output number `output`; all three tensors have one shape, `ours` and `keras` one float dtype, `truth` is float64.
    ///
    /// None where that does not hold, or where no number is finite in Keras and truth alike.
    pub fn of(output: usize, ours: &Array, keras: &Array, truth: &Array) -> Option<Truth> {
        let same = ours.shape() == keras.shape() && keras.shape() == truth.shape() && ours.dtype() == keras.dtype();
        if !same || truth.dtype() != f64::DTYPE || !crate::number::is_float(keras.dtype()) {
            return None;
        }
        let (mut truth_error, mut keras_error, mut compared) = (0.0_f64, 0.0_f64, 0_usize);
        with_number!(keras.dtype(), T => {
            let numbers = T::read_all(ours.bytes()).zip(T::read_all(keras.bytes())).zip(f64::read_all(truth.bytes()));
            for ((ours, keras), truth) in numbers {
                let (ours, keras) = (ours.to_f64(), keras.to_f64());
                if keras.is_finite() && truth.is_finite() {
                    compared += 1;
                    keras_error = keras_error.max((keras - truth).abs());
                    truth_error = truth_error.max(if ours.is_finite() { (ours - truth).abs() } else { f64::INFINITY });
                }
            }
        }, return None);
        let unit = keras_error.max(2.0 * EPSILON * keras.scale());
        let truth_ratio = if truth_error == 0.0 { 0.0 } else { truth_error / unit };
        (compared > 0).then_some(Truth { output, truth_error, keras_error, truth_ratio })
    }

    /// truth_error / keras_error without the floor; none where Keras hits the truth exactly. The [`median`] of these over many outputs is to be at most 1.
    pub fn unfloored(&self) -> Option<f64> {
        (self.keras_error > 0.0).then(|| self.truth_error / self.keras_error)
    }

    /// The output with the largest truth_ratio; the first of several.
    pub fn worst<'a>(truths: impl IntoIterator<Item = &'a Truth>) -> Option<Truth> {
        truths
            .into_iter()
            .copied()
            .reduce(|worst, truth| if truth.truth_ratio > worst.truth_ratio { truth } else { worst })
    }
}

/// The median, the mean of the middle two for an even count; none of no numbers.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = numbers.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(ours: &[f32], keras: &[f32], truth: &[f64]) -> Option<Truth> {
        let shape = [keras.len()];
        let array = |numbers: &[f32]| Array::from_slice(numbers, &[numbers.len()]).unwrap();
        Truth::of(3, &array(ours), &array(keras), &Array::from_slice(truth, &shape).unwrap())
    }

    #[test]
    fn errors_are_measured_from_the_truth() {
        let found = truth(&[1.5, -2.0], &[1.0, -2.25], &[1.0, -2.0]).unwrap();
        assert_eq!(found, Truth { output: 3, truth_error: 0.5, keras_error: 0.25, truth_ratio: 2.0 });
        assert_eq!(found.unfloored(), Some(2.0));
    }

    #[test]
    fn the_floor_is_two_steps_of_float32_at_the_scale() {
        // Keras is exact, S = 4: the floor is 2·2⁻²³·4 = 2⁻²⁰.
        let step = 2f32.powi(-20);
        let found = truth(&[1.0 + step, 4.0], &[1.0, 4.0], &[1.0, 4.0]).unwrap();
        assert_eq!((found.keras_error, found.truth_ratio, found.unfloored()), (0.0, 1.0, None));
        // Keras's error below the floor does not count, above it does.
        let found = truth(&[1.0 + 2.0 * step, 4.0], &[1.0, 4.0], &[1.0 + f64::from(step) / 2.0, 4.0]).unwrap();
        assert_eq!((found.truth_ratio, found.unfloored()), (1.5, Some(3.0)));
        assert_eq!(truth(&[1.0], &[0.0], &[0.0]).unwrap().truth_ratio, f64::INFINITY);
        assert_eq!(truth(&[0.0], &[0.0], &[0.0]).unwrap().truth_ratio, 0.0);
    }

    #[test]
    fn what_is_not_finite() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(truth(&[nan, 1.0], &[2.0, 1.0], &[2.0, 1.0]).unwrap().truth_ratio, f64::INFINITY);
        assert_eq!(truth(&[nan, 1.0], &[nan, 1.0], &[f64::NAN, 1.0]).unwrap().truth_ratio, 0.0);
        assert_eq!(truth(&[inf], &[inf], &[f64::INFINITY]), None);
        assert_eq!(truth(&[], &[], &[]), None);
        assert_eq!(truth(&[1.0, 2.0], &[1.0], &[1.0]), None);
    }

    #[test]
    fn the_worst_and_the_median() {
        let [a, b] = [1.0, 3.0].map(|truth_ratio| Truth { output: 0, truth_error: 0.0, keras_error: 0.0, truth_ratio });
        assert_eq!(Truth::worst(&[a, b, a]), Some(b));
        assert_eq!(Truth::worst(&[]), None);
        assert_eq!((median([3.0, 1.0, 2.0]), median([4.0, 1.0]), median([])), (Some(2.0), Some(2.5), None));
    }
}
