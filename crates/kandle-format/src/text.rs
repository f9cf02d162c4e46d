/// Text out of a file, made safe to print: control characters escaped, at most 120 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut out = String::new();
    for c in text.chars().take(MOST) {
        if is_plain(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

/// Printable, and not one of the characters that reorder or hide the text around them.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The candidate that differs least from `wanted`, if any is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Names are short; the distance of two long texts takes their lengths' product in time.
    const LONG: usize = 200;
    let length = wanted.chars().count();
    let near_enough = length.div_ceil(2).max(2);
    let comparable =
        |candidate: &&str| candidate.len() <= LONG && candidate.len() >= length.saturating_sub(near_enough);
    candidates
        .into_iter()
        .filter(|candidate| length <= LONG && comparable(candidate))
        .map(|candidate| (edits(wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: the fewest insertions, deletions and replacements between two texts.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, pair) in b.iter().zip(row.windows(2)) {
            if let [diagonal, above] = pair {
                left = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest, shown};

    #[test]
    fn text_from_a_file_cannot_move_the_cursor_or_flood_the_screen() {
        assert_eq!(shown("dense"), "dense");
        assert_eq!(shown("a\n\u{1b}[2Jb"), "a\\n\\u{1b}[2Jb");
        assert_eq!(shown("\u{202e}x"), "\\u{202e}x");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 121);
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(nearest("dense.weigth", ["dense.weight", "embedding.weight"]), Some("dense.weight"));
        assert_eq!(nearest("dense", ["a_completely_other_name"]), None);
        assert_eq!(nearest("dense", []), None);
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest(&long, [long.as_str(), "x"]), None);
        assert_eq!(nearest("dense", [long.as_str(), "dens"]), Some("dens"));
    }
}
