//! docs/tolerances.md: the bars it names are met, and its tables are those that `just truth` prints.

use std::fs;

#[path = "../examples/truth.rs"]
#[allow(dead_code, reason = "the example's own main")]
mod truth;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The cells of each row of a table.
fn rows(table: &str) -> Vec<Vec<String>> {
    // A `\|` is part of a cell.
    let cells = |line: &str| {
        line.replace("\\|", "¦").trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    table.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn nobody_is_further_from_the_truth_than_he_says() {
    let table = truth::measured(&format!("{ROOT}/reference_outputs")).unwrap();
    assert!(table.is_met(), "{table}");
    let (printed, text) = (table.to_string(), fs::read_to_string(format!("{ROOT}/docs/tolerances.md")).unwrap());
    let (_, rest) = text.split_once("<!-- truth -->\n").unwrap();
    let written = rest.split_once("<!-- /truth -->").unwrap().0;
    let (printed_rows, written_rows) = (rows(&printed), rows(written));
    assert_eq!(printed_rows.len(), written_rows.len(), "`just truth` prints:\n{printed}");
    for (printed_row, written_row) in printed_rows.iter().zip(&written_rows) {
        // What is recorded is the same everywhere; kandle's own last digits are those of the processor.
        let recorded = if printed_row.len() == 8 { 6 } else { 1 };
        assert_eq!(printed_row[..recorded], written_row[..recorded], "`just truth` prints:\n{printed}");
        for (printed_cell, written_cell) in printed_row[recorded..].iter().zip(&written_row[recorded..]) {
            let (Ok(printed_number), Ok(number)) = (printed_cell.parse::<f64>(), written_cell.parse::<f64>()) else {
                assert_eq!(printed_cell.is_empty(), written_cell.is_empty(), "{printed_cell} against {written_cell}");
                continue;
            };
            let near = printed_number <= 2.0 * number && number <= 2.0 * printed_number;
            assert!(near, "{printed_cell} against {written_cell}; `just truth` prints:\n{printed}");
        }
    }
}
