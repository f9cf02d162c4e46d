//! Numbers and foreign words as they are shown.

use crate::number::Dtype;

/// Foreign text for a terminal: control and invisible characters escaped, at most `limit` characters.
pub(crate) fn shown(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            // Soft hyphen, zero widths, and the marks that turn the direction of writing.
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {
                shown.extend(character.escape_unicode());
            }
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// A name out of case.json.
pub(crate) fn name(text: &str) -> String {
    shown(text, 120)
}

/// A text out of a tensor of strings; what is not UTF-8 in it as `\xff`.
pub(crate) fn bytes(text: &[u8]) -> String {
    let chunk = |chunk: std::str::Utf8Chunk<'_>| format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii());
    shown(&text.utf8_chunks().map(chunk).collect::<String>(), 200)
}

/// A number with as many digits as tell it from its neighbours in its dtype: `0.41230345`, `1.5e-9`.
pub(crate) fn number(value: f64, dtype: Dtype) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-4..1e7).contains(&value.abs());
    match dtype {
        Dtype::F16 | Dtype::BF16 | Dtype::F32 if plain => (value as f32).to_string(),
        Dtype::F16 | Dtype::BF16 | Dtype::F32 => format!("{:e}", value as f32),
        Dtype::F64 if !plain => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// An error or a distance, two digits: `6.6e-6`, `0`.
pub(crate) fn size(value: f64) -> String {
    if value == 0.0 || !value.is_finite() { value.to_string() } else { format!("{value:.1e}") }
}

/// A limit, up to three digits: `1e-6`, `4.12e-7`, `0`.
pub(crate) fn limit(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = format!("{value:.2e}");
    match digits.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.')),
        None => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_write_on_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n\u{202e}c", 40), "a\\u{1b}[2Jb\\n\\u{202e}c");
        assert_eq!(shown("abcdef", 3), "abc…");
        assert_eq!(shown("größe › 1", 40), "größe › 1");
    }

    #[test]
    fn numbers_are_as_long_as_they_must_be() {
        assert_eq!(number(f64::from(0.412_303_45_f32), Dtype::F32), "0.41230345");
        assert_eq!(number(f64::from(1.5e-9_f32), Dtype::F32), "1.5e-9");
        assert_eq!(number(f64::NAN, Dtype::F32), "NaN");
        assert_eq!(number(-7.0, Dtype::I64), "-7");
        assert_eq!(
            (size(6.6e-6), size(0.0), limit(1e-6), limit(4.123_45e-7)),
            ("6.6e-6".into(), "0".into(), "1e-6".into(), "4.12e-7".into())
        );
    }
}
