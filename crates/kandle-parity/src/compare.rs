//! One tensor of ours against Keras's, number by number.

use std::fmt;

use approx::{AbsDiffEq, abs_diff_eq};
use half::{bf16, f16};

use crate::array::Array;
use crate::number::{Dtype, Number, is_float, keras_name, with_number};
use crate::text;
use crate::tolerance::Tolerance;

/// What comparing two tensors found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Keras's dtype.
    pub dtype: Dtype,
    /// What was allowed; integers and bools had to be equal all the same.
    pub tolerance: Tolerance,
    /// How many numbers or texts were compared; 0 with a mismatch.
    pub compared: usize,
    /// How many of them are further apart than allowed.
    pub differing: usize,
    /// The worst number, whether it differs or not; none with a mismatch.
    pub worst: Option<Worst>,
    /// Of strings: our text and Keras's at the worst place.
    pub texts: Option<[String; 2]>,
    /// Why no numbers could be compared.
    pub mismatch: Option<Mismatch>,
}

impl Comparison {
    /// Whether numbers were compared and all are as near as allowed.
    pub fn passed(&self) -> bool {
        self.mismatch.is_none() && self.compared > 0 && self.differing == 0
    }
}

/// The number where |d|/allowed is largest, d = ours − keras; where nothing is allowed, the one with the largest |d|. The first of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// The coordinates, one an axis.
    pub index: Vec<usize>,
    /// Our number; a bool as 0 or 1, a text as NaN.
    pub ours: f64,
    /// Keras's number.
    pub keras: f64,
    /// |ours − keras|; infinite where only one is NaN, or infinities or texts differ.
    pub difference: f64,
    /// difference / |keras|; infinite where Keras has 0 and ours is not.
    pub relative: f64,
    /// How many numbers of the dtype lie between the two, plus one; 0 where equal; none for integers and where one is not finite.
    pub ulp: Option<u64>,
    /// atol + rtol·|keras| here; 0 for integers and where Keras's number is not finite.
    pub allowed: f64,
}

/// Why two tensors have no numbers to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The shapes differ.
    Shape {
        /// Our shape.
        ours: Vec<usize>,
        /// Keras's shape.
        keras: Vec<usize>,
    },
    /// The dtypes differ.
    Dtype {
        /// Our dtype.
        ours: Dtype,
        /// Keras's dtype.
        keras: Dtype,
    },
    /// Both tensors are empty: a check of nothing is no check.
    Nothing {
        /// The shape of both.
        shape: Vec<usize>,
    },
}

/// `what: expected Keras's, found ours`.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Shape { ours, keras } => write!(f, "shape: expected {keras:?}, found {ours:?}"),
            Mismatch::Dtype { ours, keras } => {
                write!(f, "dtype: expected {}, found {}", keras_name(*keras), keras_name(*ours))
            }
            Mismatch::Nothing { shape } => {
                write!(f, "nothing compared: expected numbers, found none in shape {shape:?}")
            }
        }
    }
}

/// Compares ours with Keras's: `|ours − keras| ≤ atol + rtol·|keras|` at every number, computed in float64.
///
/// Dtypes and shapes must be equal. NaN must stand exactly where Keras has NaN, an infinity where Keras has the same one. Integers, bools and strings must be equal whatever the tolerance. Two empty tensors fail.
///
/// ```
/// # use kandle_parity::{Array, Tolerance, compare};
/// let ours = Array::from_slice(&[1.0f32, 2.5], &[2])?;
/// let keras = Array::from_slice(&[1.0f32, 2.0], &[2])?;
/// let comparison = compare(&ours, &keras, Tolerance { atol: 0.1, rtol: 0.1 });
/// assert_eq!((comparison.compared, comparison.differing), (2, 1));
/// assert_eq!(comparison.worst.map(|worst| worst.index), Some(vec![1]));
/// # Ok::<(), kandle_parity::ArrayError>(())
/// ```
pub fn compare(ours: &Array, keras: &Array, tolerance: Tolerance) -> Comparison {
    let mismatch = if ours.shape() != keras.shape() {
        Some(Mismatch::Shape { ours: ours.shape().to_vec(), keras: keras.shape().to_vec() })
    } else if ours.dtype() != keras.dtype() {
        Some(Mismatch::Dtype { ours: ours.dtype(), keras: keras.dtype() })
    } else if keras.is_empty() {
        Some(Mismatch::Nothing { shape: keras.shape().to_vec() })
    } else {
        None
    };
    let none =
        Comparison { dtype: keras.dtype(), tolerance, compared: 0, differing: 0, worst: None, texts: None, mismatch };
    match none.mismatch {
        Some(_) => none,
        None => with_number!(keras.dtype(), T => compare_all::<T>(ours, keras, none), compare_texts(ours, keras, none)),
    }
}

/// Texts are equal or not; the worst is the first that differs.
fn compare_texts(ours: &Array, keras: &Array, mut comparison: Comparison) -> Comparison {
    let differs = |position: &usize| ours.text(*position) != keras.text(*position);
    comparison.compared = keras.len();
    comparison.differing = (0..keras.len()).filter(differs).count();
    let first = (0..keras.len()).find(differs);
    let shown = |array: &Array| array.text(first.unwrap_or_default()).map(text::bytes).unwrap_or_default();
    let difference = if first.is_some() { f64::INFINITY } else { 0.0 };
    comparison.texts = Some([shown(ours), shown(keras)]);
    comparison.worst = Some(Worst {
        index: index_of(first.unwrap_or_default(), keras.shape()),
        ours: f64::NAN,
        keras: f64::NAN,
        difference,
        relative: difference,
        ulp: None,
        allowed: 0.0,
    });
    comparison
}

fn compare_all<T: Judge>(ours: &Array, keras: &Array, mut comparison: Comparison) -> Comparison {
    let mut worst: Option<(usize, Judged)> = None;
    for (position, (ours, keras)) in T::read_all(ours.bytes()).zip(T::read_all(keras.bytes())).enumerate() {
        let judged = ours.judge(keras, comparison.tolerance);
        comparison.compared += 1;
        comparison.differing += usize::from(judged.differs);
        if worst.as_ref().is_none_or(|(_, worst)| judged.is_worse_than(worst)) {
            worst = Some((position, judged));
        }
    }
    comparison.worst = worst.and_then(|(position, Judged { difference, allowed, .. })| {
        let (number, reference) = (T::read(ours.bytes(), position)?, T::read(keras.bytes(), position)?);
        let relative = match reference.to_f64().abs() {
            _ if difference == 0.0 => 0.0,
            size if size.is_finite() => difference / size,
            _ => f64::INFINITY,
        };
        let index = index_of(position, keras.shape());
        let ulp = number.ulp(reference);
        Some(Worst { index, ours: number.to_f64(), keras: reference.to_f64(), difference, relative, ulp, allowed })
    });
    comparison
}

/// The coordinates of a row-major position.
fn index_of(position: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = position;
    let mut index: Vec<usize> = shape.iter().rev().map(|axis| (rest % axis, rest /= axis).0).collect();
    index.reverse();
    index
}

/// How two numbers at one place compare.
struct Judged {
    differs: bool,
    difference: f64,
    allowed: f64,
}

impl Judged {
    /// By |d|/allowed, then by |d|; a number that differs is worse than any that does not.
    fn is_worse_than(&self, other: &Judged) -> bool {
        // Most numbers of most tensors are better than the worst so far: no division for them. Rounding keeps the order.
        if self.difference * other.allowed < other.difference * self.allowed {
            return false;
        }
        let excess = |judged: &Judged| match judged.difference {
            0.0 => 0.0,
            difference => difference / judged.allowed,
        };
        (self.differs, excess(self), self.difference) > (other.differs, excess(other), other.difference)
    }
}

/// The rule for one number of a dtype.
trait Judge: Number {
    fn judge(self, keras: Self, tolerance: Tolerance) -> Judged;

    /// The distance in steps of the dtype; none for integers and what is not finite.
    fn ulp(self, keras: Self) -> Option<u64>;
}

macro_rules! judge_floats {
    ($($float:ty)*) => {$(
        impl Judge for $float {
            fn judge(self, keras: Self, tolerance: Tolerance) -> Judged {
                let (ours, keras) = (self.to_f64(), keras.to_f64());
                let allowed = if keras.is_finite() { tolerance.allowed(keras) } else { 0.0 };
                if ours.is_finite() && keras.is_finite() {
                    let differs = !abs_diff_eq!(ours, keras, epsilon = allowed);
                    Judged { differs, difference: (ours - keras).abs(), allowed }
                } else {
                    let differs = !(ours == keras || ours.is_nan() && keras.is_nan());
                    Judged { differs, difference: if differs { f64::INFINITY } else { 0.0 }, allowed }
                }
            }
            fn ulp(self, keras: Self) -> Option<u64> {
                // The bits of a float without its sign count its steps from zero.
                let steps = |number: Self| {
                    let sign = 1 << (8 * size_of::<Self>() - 1);
                    let bits = i128::from(number.to_bits());
                    if bits & sign == 0 { bits } else { -(bits ^ sign) }
                };
                let finite = self.to_f64().is_finite() && keras.to_f64().is_finite();
                u64::try_from((steps(self) - steps(keras)).abs()).ok().filter(|_| finite)
            }
        }
    )*};
}
judge_floats!(f16 bf16 f32 f64);

macro_rules! judge_integers {
    ($($integer:ty)*) => {$(
        impl Judge for $integer {
            fn judge(self, keras: Self, _tolerance: Tolerance) -> Judged {
                let difference = i128::from(self).abs_diff(i128::from(keras)) as f64;
                Judged { differs: self != keras, difference, allowed: 0.0 }
            }
            fn ulp(self, _keras: Self) -> Option<u64> {
                None
            }
        }
    )*};
}
judge_integers!(bool i8 u8 i16 u16 i32 u32 i64 u64);

/// For `approx::assert_abs_diff_eq!(ours, keras, epsilon = tolerance)`: whether [`compare`] passes, the epsilon a [`Tolerance`], exact where none is given. Unlike approx's slices, two empty tensors are not equal.
///
/// `approx` stands behind the newtype [`Array`], as its traits can't be implemented for candle's `Tensor`; its `relative_eq` is another formula and is not offered.
impl AbsDiffEq for Array {
    type Epsilon = Tolerance;

    fn default_epsilon() -> Tolerance {
        Tolerance::EXACT
    }

    fn abs_diff_eq(&self, keras: &Array, tolerance: Tolerance) -> bool {
        compare(self, keras, tolerance).passed()
    }
}

/// `96 numbers` or `3 texts`, `2 of 96 numbers differ` with two lines on the worst and the limit, or the mismatch.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.dtype == Dtype::STRING { "texts" } else { "numbers" };
        match (&self.mismatch, &self.worst) {
            (Some(mismatch), _) => write!(f, "{mismatch}"),
            (None, Some(worst)) if self.differing > 0 => {
                let verb = if self.differing == 1 { "differs" } else { "differ" };
                writeln!(f, "{} of {} {what} {verb}", self.differing, self.compared)?;
                match &self.texts {
                    Some([ours, keras]) => {
                        writeln!(f, "  first at {:?}: ours \"{ours}\", keras \"{keras}\"", worst.index)?
                    }
                    None => writeln!(f, "  worst at {}", worst.shown(self.dtype))?,
                }
                match is_float(self.dtype) {
                    true => write!(f, "  allowed {}", self.tolerance),
                    false => write!(f, "  allowed 0 ({} is compared exactly)", keras_name(self.dtype)),
                }
            }
            _ => write!(f, "{} {what}", self.compared),
        }
    }
}

impl Worst {
    /// `[3, 1, 7]: ours 0.41230345, keras 0.41231   |d| 6.6e-6, 1.6e-5 relative, 220 ulp`
    fn shown(&self, dtype: Dtype) -> String {
        let (ours, keras) = (text::number(self.ours, dtype), text::number(self.keras, dtype));
        let mut shown = format!("{:?}: ours {ours}, keras {keras}", self.index);
        if self.difference.is_finite() {
            shown.push_str(&format!("   |d| {}", text::size(self.difference)));
            if self.relative.is_finite() {
                shown.push_str(&format!(", {} relative", text::size(self.relative)));
            }
            if let Some(ulp) = self.ulp {
                shown.push_str(&format!(", {ulp} ulp"));
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    const WIDE: Tolerance = Tolerance { atol: 1e9, rtol: 0.5 };

    fn array<T: Number>(numbers: &[T]) -> Array {
        Array::from_slice(numbers, &[numbers.len()]).unwrap()
    }

    fn texts(texts: &[&str]) -> Array {
        Array::from_texts(texts, &[texts.len()]).unwrap()
    }

    /// The judge can fail: each pair must, at however wide a tolerance.
    #[test]
    fn what_no_tolerance_excuses() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let cases = [
            ("NaN is ours only", array(&[1.0, nan]), array(&[1.0f32, 2.0])),
            ("NaN is Keras's only", array(&[1.0f32, 2.0]), array(&[1.0, nan])),
            ("NaN against infinity", array(&[nan]), array(&[inf])),
            ("the other infinity", array(&[-inf]), array(&[inf])),
            ("infinity is ours only", array(&[inf]), array(&[f32::MAX])),
            ("infinity is Keras's only", array(&[f32::MAX]), array(&[inf])),
            ("infinity of half precision", array(&[f16::INFINITY]), array(&[f16::MAX])),
            ("integers one apart", array(&[1i32, 2]), array(&[1i32, 3])),
            ("int64 beyond 2^53", array(&[(1i64 << 53) + 1]), array(&[1i64 << 53])),
            ("uint64 at its end", array(&[u64::MAX]), array(&[u64::MAX - 1])),
            ("int8", array(&[-128i8]), array(&[127i8])),
            ("a bool", array(&[true, false]), array(&[true, true])),
            ("a text", texts(&["a", "b"]), texts(&["a", "B"])),
            ("the end of a text", texts(&["a", "b\0"]), texts(&["a", "b"])),
            ("far beyond", array(&[-1e30f32]), array(&[1e30f32])),
        ];
        for (what, ours, keras) in cases {
            let comparison = compare(&ours, &keras, WIDE);
            assert!(!comparison.passed(), "{what}");
            assert_eq!((comparison.compared, comparison.differing), (ours.len(), 1), "{what}");
            let worst = comparison.worst.unwrap();
            assert_eq!(worst.index, [ours.len() - 1], "{what}");
            assert!(worst.difference >= 1.0 && worst.difference > worst.allowed, "{what}");
            assert!(!ours.abs_diff_eq(&keras, WIDE), "{what}");
            assert!(compare(&keras, &keras, Tolerance::EXACT).passed(), "{what}: Keras against itself");
        }
    }

    #[test]
    fn a_mismatch_is_no_comparison() {
        let cases = [
            (
                Array::from_slice(&[1f32; 6], &[2, 3]),
                Array::from_slice(&[1f32; 6], &[3, 2]),
                "shape: expected [3, 2], found [2, 3]",
            ),
            (Array::from_slice(&[1f32], &[1]), Array::from_slice(&[1f32], &[]), "shape: expected [], found [1]"),
            (
                Array::from_slice(&[1f32], &[1]),
                Array::from_slice(&[1f64], &[1]),
                "dtype: expected float64, found float32",
            ),
            (Array::from_slice(&[1u8], &[1]), Array::from_slice(&[true], &[1]), "dtype: expected bool, found uint8"),
            (
                Array::from_slice::<f32>(&[], &[0, 3]),
                Array::from_slice::<f32>(&[], &[0, 3]),
                "nothing compared: expected numbers, found none in shape [0, 3]",
            ),
        ];
        for (ours, keras, says) in cases {
            let comparison = compare(&ours.unwrap(), &keras.unwrap(), WIDE);
            assert!(!comparison.passed() && comparison.worst.is_none() && comparison.compared == 0);
            assert_eq!(comparison.to_string(), says);
        }
    }

    #[test]
    fn the_limit_is_allowed_and_one_step_beyond_is_not() {
        // 2⁻³ + 2⁻²·4 = 1.125 around 4, all exact in every float dtype but bfloat16's step above.
        let tolerance = Tolerance { atol: 0.125, rtol: 0.25 };
        assert!(compare(&array(&[5.125f32, 2.875]), &array(&[4f32, 4.0]), tolerance).passed());
        assert!(compare(&array(&[-5.125f64]), &array(&[-4f64]), tolerance).passed());
        assert!(compare(&array(&[f16::from_f32(5.125)]), &array(&[f16::from_f32(4.0)]), tolerance).passed());
        assert!(!compare(&array(&[5.125f32.next_up()]), &array(&[4f32]), tolerance).passed());
        assert!(!compare(&array(&[2.875f32.next_down()]), &array(&[4f32]), tolerance).passed());
        assert!(!compare(&array(&[(-5.125f64).next_down()]), &array(&[-4f64]), tolerance).passed());
        assert!(
            !compare(
                &array(&[f16::from_bits(f16::from_f32(5.125).to_bits() + 1)]),
                &array(&[f16::from_f32(4.0)]),
                tolerance
            )
            .passed()
        );
        // The reference is the second argument: rtol is of 4, not of 5.25.
        assert!(compare(&array(&[4f32]), &array(&[5.25f32]), tolerance).passed());
        assert!(!compare(&array(&[5.25f32]), &array(&[4f32]), tolerance).passed());
        // Exact is exact, but for the sign of zero.
        assert!(compare(&array(&[-0f32]), &array(&[0f32]), Tolerance::EXACT).passed());
        assert!(!compare(&array(&[1f32.next_up()]), &array(&[1f32]), Tolerance::EXACT).passed());
        assert!(!compare(&array(&[f32::from_bits(1)]), &array(&[0f32]), Tolerance { atol: 0.0, rtol: 0.9 }).passed());
        // A tolerance that is no number excuses nothing.
        assert!(!compare(&array(&[1f32]), &array(&[1f32]), Tolerance { atol: f64::NAN, rtol: 0.0 }).passed());
    }

    #[test]
    fn nan_and_infinity_where_keras_has_them_pass() {
        let keras = array(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
        assert!(compare(&keras, &keras, Tolerance::EXACT).passed());
        let other_nan = array(&[-f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
        assert!(compare(&other_nan, &keras, Tolerance::EXACT).passed());
    }

    #[test]
    fn the_worst_is_the_one_most_beyond_its_own_limit() {
        let keras = Array::from_slice(&(0..24).map(|i| i as f32).collect::<Vec<_>>(), &[2, 3, 4]).unwrap();
        let mut numbers: Vec<f32> = (0..24).map(|i| i as f32).collect();
        numbers[23] += 0.5; // the largest |d|, but 23 allows more
        numbers[17] += 0.25;
        numbers[18] -= 0.4375;
        numbers[6] += 0.25; // 0.25 / 0.07
        let ours = Array::from_slice(&numbers, &[2, 3, 4]).unwrap();
        let comparison = compare(&ours, &keras, Tolerance { atol: 0.01, rtol: 0.01 });
        let worst = comparison.worst.unwrap();
        assert_eq!((comparison.compared, comparison.differing, worst.index), (24, 4, vec![0, 1, 2]));
        assert_eq!((worst.ours, worst.keras, worst.difference, worst.relative), (6.25, 6.0, 0.25, 0.25 / 6.0));
        assert_eq!(worst.allowed, 0.01 + 0.01 * 6.0);
        // Where nothing is allowed, the largest |d|.
        assert_eq!(compare(&ours, &keras, Tolerance::EXACT).worst.unwrap().index, [1, 2, 3]);
        // Also where all is well there is a worst, and a scalar's index is empty.
        let one = |number: f32| Array::from_slice(&[number], &[]).unwrap();
        let worst = compare(&one(1.5), &one(1.0), Tolerance { atol: 1.0, rtol: 0.0 }).worst.unwrap();
        assert_eq!((worst.index, worst.difference, worst.allowed), (vec![], 0.5, 1.0));
    }

    #[test]
    fn texts_are_shown_where_they_differ_first() {
        let words = |words: &[&[u8]]| Array::from_texts(words, &[2, 2]).unwrap();
        let keras = words(&[b"a", b"b\xff\n", b"", "\u{fc}".as_bytes()]);
        let comparison = compare(&words(&[b"a", b"b\xfe", b"", b"u"]), &keras, WIDE);
        assert_eq!(
            comparison.to_string(),
            "2 of 4 texts differ\n  first at [0, 1]: ours \"b\\xfe\", keras \"b\\xff\\n\"\n  allowed 0 (string is compared exactly)"
        );
        assert_eq!(compare(&keras, &keras, WIDE).to_string(), "4 texts");
        let numbers = Array::from_slice(&[0i64; 4], &[2, 2]).unwrap();
        assert_eq!(compare(&numbers, &keras, WIDE).to_string(), "dtype: expected string, found int64");
        let none = Array::from_texts::<&str>(&[], &[0]).unwrap();
        assert!(!compare(&none, &none, WIDE).passed());
    }

    #[test]
    fn the_worst_of_many_is_found_by_the_plain_definition_too() {
        // A fixed sequence of pairs; the quick path of is_worse_than against the definition.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        for tolerance in [Tolerance { atol: 1e-3, rtol: 1e-2 }, Tolerance { atol: 0.0, rtol: 0.3 }, WIDE] {
            let keras: Vec<f64> = (0..500).map(|_| next()).collect();
            let ours: Vec<f64> = keras.iter().map(|keras| keras + 0.01 * next()).collect();
            let excess = |i: usize| (ours[i] - keras[i]).abs() / (tolerance.atol + tolerance.rtol * keras[i].abs());
            let worst = (0..500).fold(0, |worst, i| if excess(i) > excess(worst) { i } else { worst });
            let comparison = compare(&array(&ours), &array(&keras), tolerance);
            assert_eq!(comparison.worst.unwrap().index, [worst]);
            assert_eq!(comparison.differing, (0..500).filter(|i| excess(*i) > 1.0).count());
        }
    }

    #[test]
    fn ulps_are_steps_of_the_dtype() {
        let tiny = f32::from_bits(1);
        let ulp = |ours: Array, keras: Array| compare(&ours, &keras, WIDE).worst.unwrap().ulp;
        assert_eq!(ulp(array(&[tiny]), array(&[-tiny])), Some(2));
        assert_eq!(ulp(array(&[0f32]), array(&[-0f32])), Some(0));
        assert_eq!(ulp(array(&[f32::from_bits(3)]), array(&[-f32::from_bits(4)])), Some(7));
        assert_eq!(ulp(array(&[1f32 + f32::EPSILON]), array(&[1f32])), Some(1));
        assert_eq!(ulp(array(&[PI.next_down()]), array(&[PI])), Some(1));
        assert_eq!(ulp(array(&[f64::MAX]), array(&[f64::MIN])), Some(2 * f64::MAX.to_bits()));
        assert_eq!(ulp(array(&[f16::from_bits(1)]), array(&[f16::from_bits(0x8001)])), Some(2));
        assert_eq!(ulp(array(&[bf16::from_f32(1.0)]), array(&[bf16::from_f32(2.0)])), Some(128));
        assert_eq!(ulp(array(&[f32::NAN]), array(&[1f32])), None);
        assert_eq!(ulp(array(&[1i32]), array(&[2i32])), None);
    }

    #[test]
    fn a_failure_says_all_there_is() {
        let comparison =
            compare(&array(&[1f32, 0.412_303_45]), &array(&[1f32, 0.412_31]), Tolerance { atol: 1e-6, rtol: 1e-6 });
        let says = "1 of 2 numbers differs
  worst at [1]: ours 0.41230345, keras 0.41231   |d| 6.6e-6, 1.6e-5 relative, 220 ulp
  allowed 1e-6 + 1e-6·|keras|";
        assert_eq!(comparison.to_string(), says);
        let comparison = compare(&array(&[f32::NAN]), &array(&[2f32]), Tolerance::EXACT);
        assert_eq!(
            comparison.to_string(),
            "1 of 1 numbers differs
  worst at [0]: ours NaN, keras 2
  allowed 0 (exact)"
        );
        let comparison = compare(&array(&[4i64]), &array(&[2i64]), WIDE);
        assert_eq!(
            comparison.to_string(),
            "1 of 1 numbers differs
  worst at [0]: ours 4, keras 2   |d| 2.0e0, 1.0e0 relative
  allowed 0 (int64 is compared exactly)"
        );
    }
}
