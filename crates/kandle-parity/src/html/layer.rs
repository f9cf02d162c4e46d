//! Each layer in numbers: a histogram of its errors, and the worst of them.

use std::fmt::Write as _;

use super::graph::nodes_link;
use super::{escaped, lines, part, told};
use crate::array::Array;
use crate::case::Case;
use crate::text;
use crate::tolerance::Tolerance;
use crate::verdict::{Check, How, Verdict};

/// The upper ends of the bins behind `equal`, as parts of what is allowed; the last has none.
const BINS: [(f64, &str); 6] =
    [(0.001, "≤ 0.001"), (0.01, "≤ 0.01"), (0.1, "≤ 0.1"), (0.5, "≤ 0.5"), (1.0, "≤ 1"), (f64::INFINITY, "beyond")];
const WORST: usize = 5;

/// A number and how far it is off.
struct Off {
    place: usize,
    ours: f64,
    keras: f64,
    part: f64,
}

/// Every call of a layer, folded, and the outputs.
pub(super) fn layers(case: &Case, verdict: &Verdict, id: &str) -> String {
    let mut html = String::new();
    for layer in &case.layers {
        for call in 0..layer.calls {
            let link = format!("{id}-{}", nodes_link(&layer.path, call));
            let [alone, chain] =
                [How::Isolated, How::Cumulative].map(|how| told(part(verdict, &layer.path, call, how)));
            let own = verdict.checks.iter().filter(|check| check.layer == layer.path && check.call == call);
            let own: Vec<&Check> = own.filter(|check| check.how != How::Output).collect();
            let failed = own.iter().any(|check| !check.passed());
            let number = if layer.calls > 1 { format!(", call {call}") } else { String::new() };
            let _ = writeln!(
                html,
                "<details id=\"{link}\"{}><summary class=\"{}\">{}{number} ({}): alone {alone}, in the chain {chain}</summary>",
                if failed { " open" } else { "" },
                if failed { "bad" } else { "" },
                escaped(&layer.path, 120),
                escaped(&layer.class, 60),
            );
            let recorded = case.recorded(&layer.path, call);
            for check in own {
                let keras = check.tensor.strip_prefix("out_").and_then(|k| k.parse::<usize>().ok());
                let keras = recorded.as_ref().zip(keras).and_then(|(recorded, k)| recorded.outputs.get(k));
                html.push_str(&of_check(check, keras));
            }
            html.push_str("</details>\n");
        }
    }
    for check in verdict.checks.iter().filter(|check| check.how == How::Output) {
        let keras = check.tensor.strip_prefix("output_").and_then(|i| i.parse().ok()).and_then(|i| case.output(i));
        let class = if check.passed() { "" } else { "bad" };
        let _ = writeln!(html, "<details><summary class=\"{class}\">{}</summary>", escaped(&check.tensor, 60));
        html.push_str(&of_check(check, keras));
        html.push_str("</details>\n");
    }
    html
}

fn of_check(check: &Check, keras: Option<&Array>) -> String {
    let mut html = format!("<h4>{}, {}</h4>\n", escaped(&check.tensor, 60), check.how);
    if !check.passed() {
        let _ = writeln!(html, "<pre class=\"wide\">{}</pre>", lines(&check.to_string()));
    }
    let (Some(ours), Some(keras)) = (&check.ours, keras) else { return html };
    let Some((bins, worst)) = measured(ours, keras, check.tolerance) else { return html };
    let shape = format!("{:?}", keras.shape());
    let _ = write!(html, "<p>{} {shape}, allowed {}", crate::number::keras_name(keras.dtype()), check.tolerance);
    if let Some(truth) = check.truth {
        let _ = write!(html, ", truth ratio {:.2}", truth.truth_ratio);
    }
    html.push_str("</p>\n<div class=\"wide\"><table><thead><tr><th scope=\"col\">|ours − keras| / allowed</th><th scope=\"col\">numbers</th></tr></thead><tbody>\n");
    let all = bins.iter().map(|(_, count)| count).sum::<usize>().max(1);
    for (words, count) in &bins {
        let width = count * 240 / all;
        let bar =
            if *count > 0 { format!(" <span class=\"bar\" style=\"width:{width}px\"></span>") } else { String::new() };
        let _ = writeln!(html, "<tr><th scope=\"row\">{words}</th><td>{count}{bar}</td></tr>");
    }
    html.push_str("</tbody></table></div>\n");
    if worst.is_empty() {
        return html;
    }
    html.push_str("<div class=\"wide\"><table><thead><tr><th scope=\"col\">worst at</th><th scope=\"col\">ours</th><th scope=\"col\">keras</th><th scope=\"col\">|d|</th><th scope=\"col\">allowed</th></tr></thead><tbody>\n");
    for off in worst {
        let shown = |number| text::number(number, keras.dtype());
        let (difference, allowed) = ((off.ours - off.keras).abs(), check.tolerance.allowed(off.keras));
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{:?}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            index(off.place, keras.shape()),
            shown(off.ours),
            shown(off.keras),
            text::size(difference),
            text::limit(allowed)
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// A bin's name and how many numbers are in it.
type Bin = (&'static str, usize);

/// How many numbers are in each bin, and the worst that differ; none of texts and of other shapes.
fn measured(ours: &Array, keras: &Array, tolerance: Tolerance) -> Option<(Vec<Bin>, Vec<Off>)> {
    if ours.shape() != keras.shape() || ours.dtype() != keras.dtype() {
        return None;
    }
    let mut bins: Vec<Bin> = std::iter::once(("equal", 0)).chain(BINS.iter().map(|(_, words)| (*words, 0))).collect();
    let mut worst: Vec<Off> = vec![];
    for place in 0..keras.len() {
        let (ours, keras) = (ours.value(place)?, keras.value(place)?);
        let difference = (ours - keras).abs();
        let is_same = ours == keras || ours.is_nan() && keras.is_nan();
        let part = match tolerance.allowed(keras) {
            _ if is_same => 0.0,
            allowed if allowed > 0.0 && difference.is_finite() => difference / allowed,
            _ => f64::INFINITY,
        };
        let bin = if is_same { 0 } else { 1 + BINS.iter().position(|(end, _)| part <= *end).unwrap_or(BINS.len() - 1) };
        if let Some((_, count)) = bins.get_mut(bin) {
            *count += 1;
        }
        if part > 0.0 && (worst.len() < WORST || worst.last().is_some_and(|last| part > last.part)) {
            let at = worst.partition_point(|off| off.part >= part);
            worst.insert(at, Off { place, ours, keras, part });
            worst.truncate(WORST);
        }
    }
    Some((bins, worst))
}

/// The coordinates of a place in a tensor of this shape.
fn index(place: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = place;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let at = rest.checked_rem(*size).unwrap_or(0);
            rest = rest.checked_div(*size).unwrap_or(0);
            at
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::array;

    #[test]
    fn numbers_fall_into_bins_and_the_worst_come_first() {
        let keras = array(&[1f32, 1.0, 1.0, 1.0, f32::NAN, 1.0], &[2, 3]);
        let ours = array(&[1f32, 1.5, 1.25, 3.0, f32::NAN, f32::NAN], &[2, 3]);
        let (bins, worst) = measured(&ours, &keras, Tolerance { atol: 1.0, rtol: 0.0 }).unwrap();
        let counts: Vec<usize> = bins.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 0, 0, 0, 2, 0, 2]);
        let places: Vec<Vec<usize>> = worst.iter().map(|off| index(off.place, &[2, 3])).collect();
        assert_eq!(places, [vec![1, 2], vec![1, 0], vec![0, 1], vec![0, 2]]);
        assert!(measured(&ours, &array(&[1f32], &[1]), Tolerance::EXACT).is_none());
    }
}
