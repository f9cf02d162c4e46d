//! JSON as Python's `json.dumps` writes it: strict JSON plus the bare words `NaN`, `Infinity` and `-Infinity`.
//!
//! A [`Value`] cannot hold those three numbers, so each becomes a marked string that only [`number`] reads.

use std::borrow::Cow;

pub use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Limits, Result};

/// No text that Keras writes starts with this.
const MARK: char = '\u{0}';

/// Parses the JSON text `bytes`; `at` is where it stands, for errors.
///
/// # Errors
/// [`ErrorKind::Limit`] past `limits`, [`ErrorKind::Damaged`] where the text is not JSON.
pub fn parse(bytes: &[u8], at: &str, limits: &Limits) -> Result<Value> {
    if u64::try_from(bytes.len()).is_ok_and(|len| len > limits.json_bytes) {
        let what = format!("{} bytes of JSON, more than the limit of {}", bytes.len(), limits.json_bytes);
        return Err(Error::new(ErrorKind::Limit, at, what));
    }
    let damaged = |what: String| Error::new(ErrorKind::Damaged, at, what);
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(format!("not JSON: not UTF-8: {error}")))?;
    let (text, depth, values) = with_marked_numbers(text);
    if values > limits.json_values {
        let what = format!("{values} values in the JSON, more than the limit of {}", limits.json_values);
        return Err(Error::new(ErrorKind::Limit, at, what));
    }
    if depth > limits.json_depth {
        let what = format!("JSON nested {depth} deep, deeper than the limit of {}", limits.json_depth);
        return Err(Error::new(ErrorKind::Limit, at, what));
    }
    serde_json::from_str(&text).map_err(|error| damaged(format!("not JSON: {error}")).caused_by(error))
}

/// The number a value holds, `NaN` and the infinities among them.
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.strip_prefix(MARK)? {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// The value as Python's `json.dumps` would write it, `NaN` and the infinities as bare words.
#[must_use]
pub fn text(value: &Value) -> String {
    let mut text = value.to_string();
    for word in ["NaN", "Infinity", "-Infinity"] {
        // Within another text the quotes would be escaped.
        text = text.replace(&format!("\"\\u0000{word}\""), word);
    }
    text
}

/// The value as Python would print it, short enough for an error.
#[must_use]
pub fn shown(value: &Value) -> String {
    match number(value) {
        Some(special) if !value.is_number() => special.to_string(),
        _ => crate::shown(&value.to_string()),
    }
}

/// Replaces each bare special number outside strings by its marked string, and counts how deep the text nests and, to
/// within one for each list or object, how many values it has.
fn with_marked_numbers(text: &str) -> (Cow<'_, str>, usize, usize) {
    let mut out = String::new();
    let (mut copied, mut position) = (0, 0);
    let (mut depth, mut deepest, mut values) = (0_usize, 0, 0_usize);
    let rest = |from: usize| text.get(from..).unwrap_or_default();
    while let Some(c) = rest(position).chars().next() {
        position += match c {
            '"' => string_length(rest(position)),
            '{' | '[' => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
                1
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                1
            }
            ',' => {
                values += 1;
                1
            }
            'N' | 'I' | '-' => {
                match ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest(position).starts_with(word)) {
                    None => 1,
                    Some(word) => {
                        out.push_str(text.get(copied..position).unwrap_or_default());
                        out.push_str(&format!("\"\\u0000{word}\""));
                        copied = position + word.len();
                        word.len()
                    }
                }
            }
            _ => c.len_utf8(),
        };
    }
    if copied == 0 {
        return (Cow::Borrowed(text), deepest, values);
    }
    out.push_str(rest(copied));
    (Cow::Owned(out), deepest, values)
}

/// Bytes of the JSON string that `text` starts with, both quotes included; all of `text` where it does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (position, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{number, parse, shown, text};
    use crate::{ErrorKind, Limits};

    #[test]
    fn python_numbers_are_read_and_strings_are_left_alone() {
        let text =
            br#"{"a": NaN, "b": [Infinity, -Infinity, -1.5], "c": "NaN \" Infinity", "d": 0.0010000000474974513}"#;
        let value = parse(text, "t", &Limits::default()).unwrap();
        assert!(number(&value["a"]).unwrap().is_nan());
        assert_eq!(number(&value["b"][0]), Some(f64::INFINITY));
        assert_eq!(number(&value["b"][1]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["b"][2]), Some(-1.5));
        assert_eq!(value["c"], "NaN \" Infinity");
        assert_eq!(number(&value["c"]), None, "a string is no number");
        assert_eq!(number(&value["d"]), Some(0.001_000_000_047_497_451_3));
        assert_eq!(shown(&value["b"][1]), "-inf");
        assert_eq!(shown(&value["c"]), r#""NaN \" Infinity""#);
    }

    #[test]
    fn what_is_written_is_read_as_the_same_value() {
        let python = r#"{"a":NaN,"b":[Infinity,-Infinity,-1.5],"c":"\"NaN\" Infinity","d":0.0010000000474974513}"#;
        let value = parse(python.as_bytes(), "t", &Limits::default()).unwrap();
        assert_eq!(text(&value), python);
    }

    #[test]
    fn broken_and_bottomless_json_is_an_error() {
        let limits = Limits::default();
        for text in [&b"{"[..], b"", b"[1,]", b"\"abc", b"NaNa", b"\xff", b"nan", b"{\"a\": \"\\"] {
            assert_eq!(parse(text, "t", &limits).unwrap_err().kind(), ErrorKind::Damaged, "{text:?}");
        }
        let deep = [b"[".repeat(101), b"]".repeat(101)].concat();
        assert_eq!(
            parse(&deep, "t", &limits).unwrap_err().to_string(),
            "t: JSON nested 101 deep, deeper than the limit of 100"
        );
        assert_eq!(parse(&b"[".repeat(1 << 20), "t", &limits).unwrap_err().kind(), ErrorKind::Limit);
        let small = Limits { json_bytes: 3, ..Limits::default() };
        assert_eq!(parse(b"[1, 2]", "t", &small).unwrap_err().kind(), ErrorKind::Limit);
        let few = Limits { json_values: 3, ..Limits::default() };
        assert!(parse(b"[\",,,,\", 2, 3]", "t", &few).is_ok());
        assert_eq!(
            parse(b"[[], [], []]", "t", &few).unwrap_err().to_string(),
            "t: 6 values in the JSON, more than the limit of 3"
        );
    }
}
