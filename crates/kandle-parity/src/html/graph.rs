//! The graph: calls of layers in rows by depth, coloured by their error over what is allowed.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{colour, escaped, part, told};
use crate::case::Case;
use crate::verdict::{How, Verdict};

const WIDTH: usize = 190;
const HEIGHT: usize = 52;
const GAP: usize = 26;

/// A box: an input, a call of a layer, or an output.
pub(super) struct Node {
    name: String,
    class: String,
    parts: [Option<f64>; 2],
    link: String,
    from: Vec<usize>,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// The boxes in reading order, and whether their arrows are recorded; else they are only in the order in which they ran.
pub(super) fn nodes(case: &Case, verdict: &Verdict, id: &str) -> (Vec<Node>, bool) {
    let known = case.layers.iter().any(|layer| layer.from.iter().any(|from| !from.is_empty()));
    let mut nodes: Vec<Node> = vec![];
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut add = |key: String, name: &str, class: &str, parts, link: String, from: &[String]| {
        let from = match known {
            true => from.iter().filter_map(|source| places.get(source).copied()).collect(),
            false => nodes.len().checked_sub(1).into_iter().collect::<Vec<_>>(),
        };
        let row = from.iter().filter_map(|source| nodes.get(*source)).map(|node| node.row + 1).max().unwrap_or(0);
        let column = nodes.iter().filter(|node| node.row == row).count();
        places.insert(key, nodes.len());
        nodes.push(Node { name: name.to_owned(), class: class.to_owned(), parts, link, from, row, column });
    };
    for (number, input) in case.inputs.iter().enumerate() {
        add(format!("input_{number}"), &input.name, "input", [None, None], String::new(), &[]);
    }
    for (calls, layer) in calls(case) {
        let parts = [How::Isolated, How::Cumulative].map(|how| part(verdict, &layer.path, calls, how));
        let name = if layer.calls > 1 { format!("{} ({calls})", layer.path) } else { layer.path.clone() };
        let from = layer.from.get(calls).map(Vec::as_slice).unwrap_or_default();
        let link = format!("{id}-{}", nodes_link(&layer.path, calls));
        add(format!("{}/{calls}", layer.path), &name, &layer.class, parts, link, from);
    }
    for (number, output) in case.outputs.iter().enumerate() {
        let own = verdict.checks.iter().filter(|check| check.how == How::Output);
        let failed = own.clone().any(|check| !check.passed() && check.tensor == format!("output_{number}"));
        let worst = own.filter(|check| check.tensor == format!("output_{number}")).find_map(|check| {
            let worst = check.result.as_ref().ok()?.worst.as_ref()?;
            Some(if worst.difference == 0.0 { 0.0 } else { worst.difference / worst.allowed })
        });
        let part = if failed { Some(worst.unwrap_or(f64::INFINITY)) } else { worst };
        add(
            format!("output_{number}"),
            &format!("output_{number}"),
            &output.name,
            [part, part],
            String::new(),
            &output.from,
        );
    }
    (nodes, known)
}

/// Every recorded call, in the order of the layers.
fn calls(case: &Case) -> impl Iterator<Item = (usize, &crate::case::Layer)> {
    case.layers.iter().flat_map(|layer| (0..layer.calls).map(move |call| (call, layer)))
}

/// What a call's details are called in links: letters and digits alone.
pub(super) fn nodes_link(path: &str, call: usize) -> String {
    let plain: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{plain}-{call}")
}

/// The graph as SVG with its legend.
pub(super) fn graph(case: &Case, verdict: &Verdict, id: &str) -> String {
    let (nodes, known) = nodes(case, verdict, id);
    let at = |node: &Node| (GAP / 2 + node.column * (WIDTH + GAP), GAP / 2 + node.row * (HEIGHT + GAP));
    let width = nodes.iter().map(|node| at(node).0 + WIDTH + 2 * GAP).max().unwrap_or(0);
    let height = nodes.iter().map(|node| at(node).1 + HEIGHT + GAP).max().unwrap_or(0);
    let mut svg = format!(
        "<div class=\"wide\"><svg role=\"img\" aria-label=\"graph of the layers\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n"
    );
    let order = if known { "" } else { " order" };
    for node in &nodes {
        let (x, y) = at(node);
        for source in node.from.iter().filter_map(|source| nodes.get(*source)) {
            let (from_x, from_y) = at(source);
            let (from_x, from_y, x) = (from_x + WIDTH / 2, from_y + HEIGHT, x + WIDTH / 2);
            let (out, into) = (from_y + GAP, y.saturating_sub(GAP));
            let _ = writeln!(
                svg,
                "<path class=\"edge{order}\" d=\"M{from_x} {from_y}C{from_x} {out} {x} {into} {x} {y}\"/>"
            );
        }
    }
    for node in &nodes {
        let (x, y) = at(node);
        let [alone, chain] = node.parts;
        let (name, class) = (escaped(&node.name, 26), escaped(&node.class, 22));
        let worst = match chain.or(alone) {
            Some(part) if part > 0.0 && part < 0.005 => " <0.01".replace('<', "&lt;"),
            Some(part) if part > 0.0 && part < 10.0 => format!(" {part:.2}"),
            Some(part) if part > 0.0 && part.is_finite() => format!(" {part:.0e}"),
            Some(part) if part > 0.0 => " fails".to_owned(),
            _ => String::new(),
        };
        let title = match node.link.is_empty() {
            true => escaped(&node.name, 200),
            false => format!("{}: alone {}, in the chain {}", escaped(&node.name, 200), told(alone), told(chain)),
        };
        let half = WIDTH / 2;
        let (middle, text_x, first, second, bar) = (x + half, x + 8, y + 20, y + 36, y + HEIGHT - 8);
        let (left, right) = (colour(alone), colour(chain));
        let link = if node.link.is_empty() { String::new() } else { format!(" href=\"#{}\"", node.link) };
        let _ = writeln!(
            svg,
            "<a{link}><title>{title}</title><rect class=\"plate\" x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
             <rect class=\"{left}\" x=\"{x}\" y=\"{bar}\" width=\"{half}\" height=\"8\"/><rect class=\"{right}\" x=\"{middle}\" y=\"{bar}\" width=\"{half}\" height=\"8\"/>\
             <rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
             <text x=\"{text_x}\" y=\"{first}\">{name}</text><text class=\"quiet\" x=\"{text_x}\" y=\"{second}\">{class}{worst}</text></a>"
        );
    }
    svg.push_str("</svg></div>\n<p class=\"quiet\">Left half: the layer alone, fed Keras's numbers; right half: in the chain, whose number stands behind the class. Worst error over what is allowed:");
    for (class, words) in
        [("p0", "≤ 0.01"), ("p1", "≤ 0.1"), ("p2", "≤ 1"), ("over", "beyond"), ("unchecked", "unchecked")]
    {
        let _ = write!(svg, "<span class=\"key {class}\"></span>{words}");
    }
    if !known {
        svg.push_str(". What feeds what is not recorded: the dotted lines are only the order in which they ran");
    }
    svg.push_str(".</p>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::fixture::{Puppet, Recording};

    #[test]
    fn boxes_stand_below_what_feeds_them_and_apart() {
        let mut recording = Recording::new();
        recording.json["layers"][0]["from"] = serde_json::json!([["input_0"]]);
        recording.json["layers"][1]["from"] = serde_json::json!([["input_0"], ["embedding/0", "block/dense/0"]]);
        recording.json["outputs"][0]["from"] = serde_json::json!(["block/dense/1"]);
        let case = recording.open().unwrap();
        let (nodes, known) = nodes(&case, &check(&case, "model.keras", &Puppet::honest(&case)), "a");
        assert!(known);
        let places: Vec<(usize, usize)> = nodes.iter().map(|node| (node.row, node.column)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]);
        assert!(nodes.iter().all(|node| node.from.iter().all(|source| nodes[*source].row < node.row)));
    }
}
