//! docs/formats.md says which files are opened, and by whom they were written: what it lists is what was recorded and passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kandle::parity::{Outcome, find_cases};
use serde_json::Value as Json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What stands between the marks `<!-- name -->` and `<!-- /name -->` of the document.
fn listed(name: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/formats.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0.to_owned()
}

/// The forms of files, in the order of the columns.
const FORMS: [(&str, &str); 6] = [
    ("model.h5", "`.h5`"),
    ("model.json", "`.json` and `.h5`"),
    ("model.keras", "`.keras`"),
    ("model.weights.h5", "`.weights.h5`"),
    ("model.weights.json", "`.weights.json`"),
    ("model", "folder"),
];

/// Writer, form and model of every recorded file; each is judged, and passes or is refused as the case says.
#[test]
fn the_matrix_of_writers_is_what_was_recorded_and_passes() {
    let mut models: BTreeMap<String, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    let mut failed = Vec::new();
    for folder in find_cases(Path::new(ROOT).join("reference_outputs/written_by")).unwrap() {
        let case: Json = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let report = kandle::verify(&folder);
        let refused = report.expect.is_some();
        for (file, outcome) in &report.files {
            let as_expected = match outcome {
                Outcome::Judged(verdict) => verdict.is_ok() && !refused,
                Outcome::Refused(_) => refused,
                _ => false,
            };
            if !as_expected {
                failed.push(format!("{}/{file}", folder.display()));
            }
            let Some((name, _)) = FORMS.iter().find(|(name, _)| name == file) else {
                failed.push(format!("{}/{file} has no column", folder.display()));
                continue;
            };
            let model = if refused { format!("{} (refused)", text("model")) } else { text("model") };
            models.entry(text("writer")).or_default().entry(*name).or_default().insert(model);
        }
    }
    assert_eq!(failed, Vec::<String>::new());
    let mut table = "| writer |".to_owned();
    FORMS.iter().for_each(|(_, title)| table.push_str(&format!(" {title} |")));
    table.push_str(&format!("\n|---|{}\n", "---|".repeat(FORMS.len())));
    for (writer, by_form) in &models {
        table.push_str(&format!("| {writer} |"));
        for (name, _) in FORMS {
            let names: Vec<&str> = by_form.get(name).into_iter().flatten().map(String::as_str).collect();
            table.push_str(&if names.is_empty() { " |".to_owned() } else { format!(" {} |", names.join(", ")) });
        }
        table.push('\n');
    }
    assert_eq!(listed("writers"), table, "the table as recorded:\n{table}");
}

#[test]
fn the_functions_of_tensorflow_are_those_that_are_reproduced() {
    let mut names: Vec<&str> = kandle::tensorflow_functions().collect();
    names.sort_unstable();
    let list = format!("{}\n", names.join(", "));
    assert_eq!(listed("functions"), list, "the list as reproduced:\n{list}");
}
