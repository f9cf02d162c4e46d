//! How errors grow along the depth.

use std::fmt::Write as _;

use crate::array::Array;
use crate::case::Case;
use crate::truth::Truth;
use crate::verdict::{Check, How, Verdict};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;

/// What is recorded of a call's first output: Keras's, and where there are any the float64 truth and Keras's on JAX.
type OfKeras = (Array, Option<Array>, Option<Array>);

/// Errors over S, the largest |keras|, of each call in the order in which they ran: ours, Keras's and that of Keras on JAX,
/// from the truth; where no truth is recorded, ours from Keras.
pub(super) fn growth(case: &Case, verdict: &Verdict) -> String {
    let checks: Vec<&Check> =
        verdict.checks.iter().filter(|check| check.how == How::Cumulative && check.tensor == "out_0").collect();
    let keras: Vec<Option<OfKeras>> = checks
        .iter()
        .map(|check| {
            let recorded = case.recorded(&check.layer, check.call)?;
            let first = |tensors: Vec<Option<Array>>| tensors.into_iter().next().flatten();
            Some((recorded.outputs.first()?.clone(), first(recorded.truths), first(recorded.jax)))
        })
        .collect();
    let scaled = |error: f64, scale: f64| (scale > 0.0 && error.is_finite()).then_some(error / scale);
    let has_truth = checks.iter().any(|check| check.truth.is_some());
    let mut series: Vec<(&str, &str, Vec<Option<f64>>)> = vec![];
    if has_truth {
        let of = |error: fn(&Truth) -> f64| -> Vec<Option<f64>> {
            let pairs = checks.iter().zip(&keras);
            pairs.map(|(check, keras)| scaled(error(&check.truth?), keras.as_ref()?.0.scale())).collect()
        };
        let jax = keras.iter().map(|keras| {
            let (output, truth, jax) = keras.as_ref()?;
            let truth = Truth::of(0, jax.as_ref()?, output, truth.as_ref()?)?;
            scaled(truth.truth_error, output.scale())
        });
        series.push(("ours", "ours from the truth", of(|truth| truth.truth_error)));
        series.push(("keras", "Keras from the truth", of(|truth| truth.keras_error)));
        series.push(("jax", "Keras on JAX from the truth", jax.collect()));
    } else {
        let ours = checks.iter().zip(&keras).map(|(check, keras)| {
            let worst = check.result.as_ref().ok()?.worst.as_ref()?;
            scaled(worst.difference, keras.as_ref()?.0.scale())
        });
        series.push(("ours", "ours from Keras", ours.collect()));
    }
    if checks.len() < 2 {
        return String::new();
    }
    let errors = series.iter().flat_map(|(.., errors)| errors).flatten().filter(|error| **error > 0.0);
    let top = errors.fold(1e-7_f64, |top, error| top.max(*error)).log10().ceil();
    let bottom = -9.0;
    let y = |error: f64| {
        let log = error.max(1e-9).log10();
        10.0 + (HEIGHT - 40.0) * (top - log) / (top - bottom).max(1.0)
    };
    let steps = f64::from(u32::try_from(checks.len() - 1).unwrap_or(u32::MAX)).max(1.0);
    let mut svg = format!(
        "<h4>Error along the depth, over S, the largest |keras|</h4>\n<div class=\"wide\"><svg role=\"img\" aria-label=\"error of each layer in the chain\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n"
    );
    let mut exponent = bottom;
    while exponent <= top {
        let at = y(10f64.powf(exponent));
        let right = WIDTH - 10.0;
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"quiet\" x=\"8\" y=\"{:.1}\">1e{exponent:.0}</text>",
            at + 4.0
        );
        exponent += 1.0;
    }
    for (class, words, errors) in &series {
        let mut points = String::new();
        let mut place = 0.0;
        for error in errors {
            if let Some(error) = error {
                let x = LEFT + 10.0 + (WIDTH - LEFT - 30.0) * place / steps;
                let _ = write!(points, "{x:.1},{:.1} ", y(*error));
            }
            place += 1.0;
        }
        let _ = writeln!(
            svg,
            "<polyline class=\"{class}\" points=\"{}\"><title>{words}</title></polyline>",
            points.trim_end()
        );
    }
    svg.push_str("</svg></div>\n<p class=\"quiet\">");
    for (class, words, errors) in &series {
        if errors.iter().any(Option::is_some) {
            let _ = write!(svg, "<span class=\"key {class}\"></span>{words}");
        }
    }
    svg.push_str(match has_truth {
        true => ". What is equal stands on the lowest line.</p>\n",
        false => ". What is equal stands on the lowest line. Each layer in float64 is not recorded in this case: record.py does.</p>\n",
    });
    svg
}
