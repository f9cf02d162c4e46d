//! A report of cases as one page of HTML that needs nothing else: no network, no script.

mod chart;
mod graph;
mod layer;

use std::fmt::Write as _;

use crate::case::Case;
use crate::report::{CaseReport, Outcome, Standing, Summary};
use crate::text;
use crate::verdict::{How, Verdict};

/// How many cases that are ok are shown in full, and how many that are not.
const SHOWN_OK: usize = 12;
const SHOWN_FAILED: usize = 60;

/// A page of cases in the making: reports are added as they come, and not kept.
///
/// Each shows the graph with every layer coloured by its error over what is allowed, the growth of the error along the
/// depth, and for each layer a histogram and the worst numbers. Names and texts out of files are escaped.
#[derive(Debug, Default)]
pub struct HtmlReport {
    summary: Summary,
    rows: String,
    failed: String,
    passed: String,
    shown: [usize; 2],
}

impl HtmlReport {
    /// A page without cases.
    pub fn new() -> HtmlReport {
        HtmlReport::default()
    }

    /// Adds a case.
    pub fn add(&mut self, report: &CaseReport) {
        let standing = report.standing();
        self.summary.add(standing);
        let number = self.summary.passed + self.summary.failed + self.summary.refused + self.summary.expected;
        let is_ok = matches!(standing, Standing::Ok | Standing::Expected);
        let [ok, failed] = &mut self.shown;
        let (count, limit, sections) = match is_ok {
            true => (ok, SHOWN_OK, &mut self.passed),
            false => (failed, SHOWN_FAILED, &mut self.failed),
        };
        *count += 1;
        let shown = *count <= limit;
        let name = escaped(&report.case, 200);
        let link = if shown { format!("<a href=\"#case{number}\">{name}</a>") } else { name.clone() };
        let worst = report.worst();
        let cells = [
            worst.map_or_else(String::new, |worst| text::size(worst.difference)),
            worst.map_or_else(String::new, |worst| text::limit(worst.allowed)),
            report.truth().map_or_else(String::new, |truth| format!("{:.2}", truth.truth_ratio)),
        ];
        let [difference, allowed, ratio] = cells;
        let class = if is_ok { "ok" } else { "bad" };
        let row = format!(
            "<tr><td class=\"{class}\">{standing}</td><th scope=\"row\">{link}</th><td>{difference}</td><td>{allowed}</td><td>{ratio}</td></tr>\n"
        );
        // What is wrong comes first.
        if is_ok {
            self.rows.push_str(&row)
        } else {
            self.rows.insert_str(0, &row)
        }
        if shown {
            sections.push_str(&section(report, number, &name));
        }
    }

    /// The page.
    pub fn finish(self) -> String {
        let HtmlReport { summary, rows, failed, passed, shown: [ok, wrong] } = self;
        let state = if summary.is_ok() { "ok" } else { "bad" };
        let mut left = String::new();
        for (count, limit, what) in [(wrong, SHOWN_FAILED, "that are wrong"), (ok, SHOWN_OK, "that are ok")] {
            if count > limit {
                let _ = write!(left, "<p>Of the {count} cases {what}, {limit} are shown below.</p>");
            }
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>kandle verify: {summary}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1 class=\"{state}\">{summary}</h1>\n\
             <p>Numbers compared with those that Keras recorded: |ours − keras| ≤ atol + rtol·|keras| at every one.</p>\n{left}\n\
             <div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">verdict</th><th scope=\"col\">case</th><th scope=\"col\">worst |ours − keras|</th>\
             <th scope=\"col\">allowed there</th><th scope=\"col\">truth ratio</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n\
             {failed}{passed}</main>\n</body>\n</html>\n"
        )
    }
}

const STYLE: &str = include_str!("html/style.css");

/// Foreign text as HTML, at most `limit` characters.
fn escaped(foreign: &str, limit: usize) -> String {
    let shown = text::shown(foreign, limit);
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn section(report: &CaseReport, number: usize, name: &str) -> String {
    let mut html = format!("<section id=\"case{number}\">\n<h2>{name}</h2>\n");
    if let Some(says) = report.recorded.as_ref().and_then(|case| case.says.as_ref()) {
        let _ = writeln!(html, "<p>{}</p>", escaped(says, 400));
    }
    for (index, (file, outcome)) in report.files.iter().enumerate() {
        let file = escaped(file, 120);
        match (outcome, &report.recorded) {
            (Outcome::Judged(verdict), Some(case)) => {
                html.push_str(&judged(case, verdict, &file, &format!("c{number}f{index}")))
            }
            (Outcome::Judged(verdict), None) => {
                let _ = writeln!(html, "<h3>{file}</h3><pre>{}</pre>", escaped(&verdict.to_string(), 4000));
            }
            (Outcome::Refused(reason), _) => {
                let _ = writeln!(html, "<h3>{file}</h3><p class=\"bad\">refused: {}</p>", escaped(reason, 2000));
            }
            (Outcome::Broken(reason), _) => {
                let _ = writeln!(html, "<h3>{file}</h3><p class=\"bad\">{}</p>", escaped(reason, 2000));
            }
        }
    }
    html.push_str("</section>\n");
    html
}

fn judged(case: &Case, verdict: &Verdict, file: &str, id: &str) -> String {
    let mut html = format!("<h3>{file}</h3>\n");
    match verdict.first_divergence() {
        None => {
            let (passed, unchecked) = (verdict.passed(), verdict.unchecked.len());
            let _ = writeln!(html, "<p class=\"ok\">{passed} checks passed, {unchecked} unchecked.</p>");
        }
        Some(first) => {
            let _ = writeln!(html, "<p class=\"bad\">First divergence: {}</p>", escaped(&first, 400));
            for check in verdict.failures().take(5) {
                let _ = writeln!(html, "<pre class=\"wide\">{}</pre>", lines(&check.to_string()));
            }
        }
    }
    if case.left_out > 0 {
        let _ = writeln!(
            html,
            "<p>{} calls of layers were not recorded: the case would have been too large.</p>",
            case.left_out
        );
    }
    html.push_str(&graph::graph(case, verdict, id));
    html.push_str(&chart::growth(case, verdict));
    html.push_str(&layer::layers(case, verdict, id));
    let _ = writeln!(
        html,
        "<details><summary>For a pull request</summary>\n<pre class=\"wide\">{}</pre></details>",
        lines(&markdown(case, verdict))
    );
    html
}

/// Text of several lines, each escaped.
fn lines(text: &str) -> String {
    text.lines().map(|line| escaped(line, 600)).collect::<Vec<_>>().join("\n")
}

/// The verdict in Markdown: in one line where all is well, with the failures where not, and the table folded.
fn markdown(case: &Case, verdict: &Verdict) -> String {
    let state = if verdict.is_ok() { "the same numbers as Keras" } else { "other numbers than Keras" };
    let (passed, failed) = (verdict.passed(), verdict.failed());
    let mut text =
        format!("**{}** ({}): {state}; {passed} checks passed, {failed} failed\n", verdict.case, verdict.file);
    if let Some(first) = verdict.first_divergence() {
        let _ = writeln!(text, "\nFirst divergence: {first}\n");
        for check in verdict.failures().take(3) {
            let _ = writeln!(text, "```\n{check}\n```");
        }
    }
    let _ = writeln!(text, "\n<details><summary>Layers</summary>\n\n```\n{}```\n\n</details>", verdict.table(case));
    text
}

/// The error over what is allowed in a layer's call, the worst of its tensors; infinite where it fails without numbers; none
/// where it was not checked.
fn part(verdict: &Verdict, path: &str, call: usize, how: How) -> Option<f64> {
    let own = verdict.checks.iter().filter(|check| check.how == how && check.layer == path && check.call == call);
    let parts =
        own.map(|check| match (check.passed(), check.result.as_ref().ok().and_then(|found| found.worst.as_ref())) {
            (_, Some(worst)) if worst.difference == 0.0 && check.passed() => 0.0,
            (true, Some(worst)) => worst.difference / worst.allowed,
            (false, Some(worst)) if worst.allowed > 0.0 && worst.difference > 0.0 => worst.difference / worst.allowed,
            (true, None) => 0.0,
            (false, _) => f64::INFINITY,
        });
    parts.reduce(f64::max)
}

/// The class of the colour of a part.
fn colour(part: Option<f64>) -> &'static str {
    match part {
        None => "unchecked",
        Some(part) if part <= 0.01 => "p0",
        Some(part) if part <= 0.1 => "p1",
        Some(part) if part <= 1.0 => "p2",
        Some(_) => "over",
    }
}

/// A part in words.
fn told(part: Option<f64>) -> String {
    match part {
        None => "unchecked".to_owned(),
        Some(0.0) => "equal".to_owned(),
        Some(part) if !part.is_finite() => "fails".to_owned(),
        Some(part) if part < 10.0 => format!("{part:.2} of allowed"),
        Some(part) => format!("{part:.0e} times allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::fixture::{Puppet, Recording, array};

    fn page(name: &str, tamper: impl Fn(&mut Puppet)) -> String {
        let mut recording = Recording::new();
        recording.json["layers"][1]["from"] = serde_json::json!([["embedding/0"], ["block/dense/0"]]);
        recording.json["layers"][0]["from"] = serde_json::json!([["input_0"]]);
        recording.json["outputs"][0]["from"] = serde_json::json!(["block/dense/1"]);
        recording.json["says"] = serde_json::json!(name);
        for (call, truth) in [(0, [1.0, 2.0, 3.0, 4.0]), (1, [-1.0, 0.0, 1.0, 0.500_000_1])] {
            for kind in ["truth", "jax"] {
                let tensor = array(&truth, &[2, 2]);
                recording.tensors.insert(format!("layers/block/dense/{call}/{kind}_0"), tensor);
            }
        }
        let case = recording.open().unwrap();
        let mut puppet = Puppet::honest(&case);
        tamper(&mut puppet);
        let verdict = check(&case, "model.keras", &puppet);
        let mut report = CaseReport::new(name, None);
        report.files.push(("model.keras".to_owned(), Outcome::Judged(verdict)));
        report.recorded = Some(case);
        let mut html = HtmlReport::new();
        html.add(&report);
        html.finish()
    }

    /// Every tag is closed in its turn.
    fn check_nesting(html: &str) {
        let mut open: Vec<String> = vec![];
        for tag in html.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {tag}"));
            let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap().to_owned();
            if tag.starts_with('!') || tag.ends_with('/') || ["meta", "br"].contains(&name.as_str()) {
                continue;
            }
            match tag.starts_with('/') {
                true => assert_eq!(open.pop().as_deref(), Some(name.as_str()), "{tag}"),
                false => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_has_every_layer_and_what_is_wrong() {
        let html = page("cases/a", |_| {});
        check_nesting(&html);
        for expected in ["1 passed, 0 failed", "block/dense", "Embedding", "<svg", "truth", "equal"] {
            assert!(html.contains(expected), "no {expected}");
        }
        assert!(!html.contains("http") && !html.contains("<script") && !html.contains("First divergence"));
        let html = page("cases/a", |puppet| {
            puppet.change("block/dense", 1, |made| made.outputs[0] = array(&[-1.0f32, 0.0, 1.125, 0.5], &[2, 2]));
        });
        check_nesting(&html);
        assert!(html.contains("First divergence: block/dense (Dense, call 1), already alone"), "{html}");
        assert!(html.contains("[1, 0]") && html.contains("1.125") && html.contains("class=\"over\""), "{html}");
    }

    #[test]
    fn foreign_text_stays_text() {
        let html = page("<script>alert('a')</script>\u{1b}&\"", |_| {});
        check_nesting(&html);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    }

    #[test]
    fn a_part_has_its_colour() {
        let colours = [None, Some(0.0), Some(0.05), Some(1.0), Some(1.5), Some(f64::INFINITY)].map(colour);
        assert_eq!(colours, ["unchecked", "p0", "p1", "p2", "over", "over"]);
    }
}
