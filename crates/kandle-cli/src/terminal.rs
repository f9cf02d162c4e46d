//! How things are printed: tables, numbers, shapes, JSON and errors.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

/// Prints `error: …` on stderr. There is nobody to tell where that fails.
pub(crate) fn complain(error: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "error: {error}");
}

/// Rows below a heading, in columns as wide as their widest cell. Columns whose heading starts with `>` are set to the
/// right.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let right = heading.map(|cell| cell.starts_with('>'));
    let heading = heading.map(|cell| cell.trim_start_matches('>').to_owned());
    let rows = || std::iter::once(&heading).chain(rows);
    let width = |column: usize| rows().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let mut lines = String::new();
    for row in rows() {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            // Writing to a String cannot fail.
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

/// The sum. A file may declare any numbers, so it stops at the largest there is.
pub(crate) fn total(numbers: impl IntoIterator<Item = usize>) -> usize {
    numbers.into_iter().fold(0, usize::saturating_add)
}

/// `136256` as `136,256`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A shape as Keras prints it: `(64, 128)`, `(64,)`, `()`.
pub(crate) fn shape(sizes: &[usize]) -> String {
    kandle::Shape(sizes.iter().copied().map(Some).collect()).to_string()
}

/// JSON text whose strings cannot write on the terminal: what [`kandle::shown`] would escape is escaped the JSON way, so
/// that a parser still reads the exact text.
pub(crate) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        // JSON itself escapes the ASCII control characters in strings; those between strings are its own line ends.
        let ascii = character.is_ascii() && character != '\u{7f}';
        let mut buffer = [0; 4];
        let text: &str = character.encode_utf8(&mut buffer);
        if ascii || kandle::shown(text) == text {
            plain.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(plain, "\\u{unit:04x}");
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "12".to_owned(), "x".to_owned()],
            ["longer".to_owned(), "1,234".to_owned(), String::new()],
        ];
        assert_eq!(table(["name", ">count", "rest"], &rows), "name    count  rest\na          12  x\nlonger  1,234\n");
    }

    #[test]
    fn thousands_are_told_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (136_256, "136,256"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn json_keeps_its_text_and_cannot_write_on_the_terminal() {
        let name = "a\u{1b}[2J\u{9b}\u{7f}\u{202e}größe \u{e0001}";
        let json = plain_json(&serde_json::Value::from(name).to_string());
        assert!(!json.contains(['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}']), "{json}");
        assert!(json.contains("größe"));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
    }
}
