//! How far a number may be from Keras's: the one table.

use std::fmt;
use std::str::FromStr;

use crate::array::Array;
use crate::number::Dtype;
use crate::text;

/// The largest allowed |ours − keras| at a number: atol + rtol·|keras|, atol in the units of the tensor.
///
/// `Tolerance { atol: 1e-6, rtol: 1e-6 }` allows 3e-6 where Keras has 2. Integers and bools must be equal whatever it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The part that is the same at every number of the tensor.
    pub atol: f64,
    /// The part that grows with |keras|.
    pub rtol: f64,
}

impl Tolerance {
    /// Nothing is allowed: every number must equal Keras's.
    pub const EXACT: Tolerance = Tolerance { atol: 0.0, rtol: 0.0 };

    /// atol + rtol·|keras|.
    pub fn allowed(self, keras: f64) -> f64 {
        self.atol + self.rtol * keras.abs()
    }
}

/// `1e-6 + 1e-6·|keras|`, or `0 (exact)`.
impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.atol == 0.0, self.rtol == 0.0) {
            (true, true) => f.write_str("0 (exact)"),
            (false, true) => f.write_str(&text::limit(self.atol)),
            (_, false) => write!(f, "{} + {}·|keras|", text::limit(self.atol), text::limit(self.rtol)),
        }
    }
}

/// What a layer does with its numbers, which says how far two right implementations may be apart.
///
/// S is the largest finite |keras| of the tensor; float32 has ε = 2⁻²³ ≈ 1.2e-7. Every rule but `Copy` also allows 1e-6·|keras|, some 8 ε for the rounding of the last steps.
///
/// | rule | atol | for | because |
/// |---|---|---|---|
/// | `copy` | 0 (and rtol 0) | Embedding, Reshape, Concatenate, ReLU, max pooling, padding, one addition or product | nothing is summed or curved: the number is moved or correctly rounded |
/// | `elementwise` | 5e-7·S | activations, normalisations, softmax, averages | 4 ε: Keras's own backends are up to 3e-7·S from the float64 truth |
/// | `contraction` | 1e-6·S | one Dense, convolution, attention or recurrent layer | 8 ε: another order of summation moves a sum by 2e-7 to 8e-7·S |
/// | `deep` | 1e-5·S | many contractions one after another | 84 ε: measured networks are 1e-6 to 3e-6·S from the truth, and a wrong layout, gate order or epsilon is off by far more |
///
/// Half precision rounds coarser, so there every rule but `copy` allows r·S + r·|keras|, r = 5e-3 for float16 (ε = 9.8e-4) and 4e-2 for bfloat16 (ε = 7.8e-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Numbers are moved, chosen or correctly rounded once: exact.
    Copy,
    /// One function of each number, or a mean and a variance.
    Elementwise,
    /// One layer of products summed.
    Contraction,
    /// A whole network.
    Deep,
}

impl Rule {
    /// All rules, the strictest first.
    pub const ALL: [Rule; 4] = [Rule::Copy, Rule::Elementwise, Rule::Contraction, Rule::Deep];

    /// The tolerance of float32 and float64 tensors whose largest finite |keras| is `scale`.
    ///
    /// `Rule::Contraction.tolerance(5.0)` is 5e-6 + 1e-6·|keras|.
    pub fn tolerance(self, scale: f64) -> Tolerance {
        let atol = match self {
            Rule::Copy => return Tolerance::EXACT,
            Rule::Elementwise => 5e-7,
            Rule::Contraction => 1e-6,
            Rule::Deep => 1e-5,
        };
        Tolerance { atol: atol * scale, rtol: 1e-6 }
    }

    /// The tolerance for what Keras recorded: by its scale, and by its dtype where that is half precision.
    pub fn tolerance_of(self, keras: &Array) -> Tolerance {
        let coarse = |step: f64| Tolerance { atol: step * keras.scale(), rtol: step };
        match (self, keras.dtype()) {
            (Rule::Copy, _) => Tolerance::EXACT,
            (_, Dtype::F16) => coarse(5e-3),
            (_, Dtype::BF16) => coarse(4e-2),
            _ => self.tolerance(keras.scale()),
        }
    }

    /// The name in case.json: `copy`, `elementwise`, `contraction` or `deep`.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Copy => "copy",
            Rule::Elementwise => "elementwise",
            Rule::Contraction => "contraction",
            Rule::Deep => "deep",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of the four rules'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule: expected copy, elementwise, contraction or deep, found {0}")]
pub struct UnknownRule(String);

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Rule, UnknownRule> {
        let rule = Rule::ALL.into_iter().find(|rule| rule.name() == name);
        rule.ok_or_else(|| UnknownRule(text::shown(name, 40)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn the_table() {
        for (name, atol, rtol) in
            [("copy", 0., 0.), ("elementwise", 1e-6, 1e-6), ("contraction", 2e-6, 1e-6), ("deep", 2e-5, 1e-6)]
        {
            let rule: Rule = name.parse().unwrap();
            assert_eq!(rule.tolerance(2.0), Tolerance { atol, rtol }, "{name}");
            assert_eq!(
                rule.tolerance_of(&Array::from_slice(&[1f32, -2.0], &[2]).unwrap()),
                Tolerance { atol, rtol },
                "{name}"
            );
        }
        assert!("Copy".parse::<Rule>().is_err());
        let half = Array::from_slice(&[f16::from_f32(2.0)], &[1]).unwrap();
        let brain = Array::from_slice(&[bf16::from_f32(2.0)], &[1]).unwrap();
        assert_eq!(Rule::Copy.tolerance_of(&half), Tolerance::EXACT);
        assert_eq!(Rule::Deep.tolerance_of(&half), Tolerance { atol: 1e-2, rtol: 5e-3 });
        assert_eq!(Rule::Deep.tolerance_of(&brain), Tolerance { atol: 8e-2, rtol: 4e-2 });
    }

    #[test]
    fn a_tolerance_reads_as_its_formula() {
        for (atol, rtol, shown) in [
            (0., 0., "0 (exact)"),
            (1e-6, 0., "1e-6"),
            (4.12345e-7, 1e-6, "4.12e-7 + 1e-6·|keras|"),
            (0., 1e-5, "0 + 1e-5·|keras|"),
        ] {
            assert_eq!(Tolerance { atol, rtol }.to_string(), shown);
        }
    }
}
