//! `keras.dtype_policies.DTypePolicyMap`: dtype policies by the paths of layers.
//!
//! The policy of a path is that of the key which is the path, or else of the only key that matches all of it as a regular
//! expression, or else the default. Of regular expressions letters, `.`, classes, `\d`, `\w`, `\s` and `*`, `+`, `?` behind
//! one of these are understood: `encoder_\d+` is `encoder_12`, and no `encoder`.
//!
//! Keras: once a file is loaded, the path of a layer is its name, also in a model within, and that of a layer within a layer
//! (a cell, a head of attention) begins with the name of the outer one; but legacy files put the name of a Sequential model
//! before it. A layer that builds nothing has no path, and the default.
//!
//! Source: keras/src/dtype_policies/dtype_policy_map.py.

use kandle_format::{
    json::{self, Value},
    shown,
};

use crate::Policy;

/// The policies of a map.
#[derive(Debug)]
pub(crate) struct PolicyMap {
    default: Policy,
    entries: Vec<(String, Policy)>,
}

impl PolicyMap {
    /// The map that the value of `dtype` describes; `None` where it is no map.
    ///
    /// # Errors
    /// The policy in it that is not understood.
    pub(crate) fn read(value: &Value) -> Option<Result<Self, String>> {
        let config =
            value.get("config").filter(|_| value.get("class_name").is_some_and(|class| class == "DTypePolicyMap"));
        Some(Self::read_config(config?))
    }

    fn read_config(config: &Value) -> Result<Self, String> {
        let read = |key: &str, value: &Value| match Policy::read(value) {
            // Keras: saving a layer that is quantized through a map fails.
            Some(policy) if policy.quantization.is_none() => Ok(policy),
            _ => Err(format!("the policy of \"{}\" in a map is not supported: {}", shown(key), json::shown(value))),
        };
        let default = match config.get("default_policy") {
            // Keras: the policy of the program that loads the file, which is float32 unless it says otherwise.
            None | Some(Value::Null) => Policy::default(),
            Some(value) => read("default_policy", value)?,
        };
        let entries = config.get("policy_map").and_then(Value::as_object).ok_or("policy_map is not an object")?;
        let entries = entries.iter().map(|(key, value)| Ok((key.clone(), read(key, value)?)));
        Ok(Self { default, entries: entries.collect::<Result<_, String>>()? })
    }

    /// The policy of `path`.
    ///
    /// # Errors
    /// Where several keys match, and where a key is a regular expression that is not understood.
    pub(crate) fn policy(&self, path: &str) -> Result<&Policy, String> {
        if let Some((_, policy)) = self.entries.iter().find(|(key, _)| key == path) {
            return Ok(policy);
        }
        let mut found: Option<&(String, Policy)> = None;
        for entry in &self.entries {
            let pattern = Pattern::read(&entry.0).ok_or_else(|| {
                format!("\"{}\" is a regular expression that is not supported: spell the paths out", shown(&entry.0))
            })?;
            if pattern.matches(path) {
                if let Some(before) = found {
                    return Err(format!(
                        "\"{}\" and \"{}\" both match \"{}\"",
                        shown(&before.0),
                        shown(&entry.0),
                        shown(path)
                    ));
                }
                found = Some(entry);
            }
        }
        Ok(found.map_or(&self.default, |(_, policy)| policy))
    }

    /// Whether it has another policy than `policy` for anything.
    pub(crate) fn has_other(&self, policy: &Policy) -> bool {
        self.default != *policy || self.entries.iter().any(|(_, other)| other != policy)
    }

    /// Whether a layer called `name` may have another policy than `policy` within it, or where it has no path.
    pub(crate) fn may_differ(&self, name: &str, policy: &Policy) -> bool {
        let within = format!("{name}/");
        let reaches = |key: &str| match key.find(|letter: char| !is_plain(letter)) {
            None => key.starts_with(&within),
            Some(end) => key.get(..end).is_none_or(|start| within.starts_with(start) || start.starts_with(&within)),
        };
        self.default != *policy || self.entries.iter().any(|(key, other)| other != policy && reaches(key))
    }
}

/// Whether a letter of a regular expression stands for itself.
fn is_plain(letter: char) -> bool {
    !r"\.^$*+?{}[]|()".contains(letter)
}

/// A regular expression: what may stand one after another.
struct Pattern(Vec<Part>);

/// One letter, or several of a kind.
struct Part {
    letters: Letters,
    optional: bool,
    repeated: bool,
}

enum Letters {
    Any,
    Of { ranges: Vec<(char, char)>, others: bool },
}

impl Letters {
    fn has(&self, letter: char) -> bool {
        match self {
            Self::Any => letter != '\n',
            Self::Of { ranges, others } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&letter)) != *others,
        }
    }

    /// What stands behind a backslash.
    fn escaped(letter: char) -> Option<Vec<(char, char)>> {
        match letter {
            'd' => Some(vec![('0', '9')]),
            'w' => Some(vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
            's' => Some(vec![(' ', ' '), ('\t', '\r')]),
            letter if letter.is_ascii_punctuation() => Some(vec![(letter, letter)]),
            _ => None,
        }
    }

    /// What stands between brackets.
    fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Self> {
        let others = letters.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            match letters.next()? {
                ']' if !ranges.is_empty() => return Some(Self::Of { ranges, others }),
                '[' | ']' => return None,
                '\\' => ranges.extend(Self::escaped(letters.next()?)?),
                from => {
                    if letters.next_if_eq(&'-').is_none() {
                        ranges.push((from, from));
                        continue;
                    }
                    match letters.next()? {
                        ']' => {
                            return Some(Self::Of {
                                ranges: [ranges, vec![(from, from), ('-', '-')]].concat(),
                                others,
                            });
                        }
                        to if to.is_ascii_alphanumeric() && from <= to => ranges.push((from, to)),
                        _ => return None,
                    }
                }
            }
        }
    }
}

impl Pattern {
    /// `None` where it is not understood.
    fn read(text: &str) -> Option<Self> {
        let mut letters = text.chars().peekable();
        let mut parts = Vec::new();
        while let Some(letter) = letters.next() {
            let set = match letter {
                '.' => Letters::Any,
                '[' => Letters::class(&mut letters)?,
                '\\' => Letters::Of { ranges: Letters::escaped(letters.next()?)?, others: false },
                letter if is_plain(letter) => Letters::Of { ranges: vec![(letter, letter)], others: false },
                _ => return None,
            };
            let sign = letters.next_if(|letter| matches!(letter, '*' | '+' | '?'));
            let (optional, repeated) = (matches!(sign, Some('*' | '?')), matches!(sign, Some('*' | '+')));
            parts.push(Part { letters: set, optional, repeated });
        }
        Some(Self(parts))
    }

    /// Whether it matches all of `text`.
    fn matches(&self, text: &str) -> bool {
        // After each part: how much of the text the parts so far may stand for, from nothing to all of it.
        let mut reached: Vec<bool> = std::iter::once(true).chain(text.chars().map(|_| false)).collect();
        for part in &self.0 {
            let (mut before, mut within) = (false, false);
            let letters = std::iter::once(None).chain(text.chars().map(Some));
            reached = reached
                .iter()
                .zip(letters)
                .map(|(here, letter)| {
                    let starts = before || (part.repeated && within);
                    within = starts && letter.is_some_and(|letter| part.letters.has(letter));
                    before = *here;
                    within || (part.optional && *here)
                })
                .collect();
        }
        reached.last().is_some_and(|all| *all)
    }
}

#[cfg(test)]
mod tests {
    use kandle_format::Dtype;
    use serde_json::json;

    use super::{Pattern, PolicyMap};

    #[test]
    fn a_pattern_matches_the_whole_path() {
        for (pattern, path, expected) in [
            ("dense", "dense", Some(true)),
            ("dense", "dense_1", Some(false)),
            ("dense.*", "dense", Some(true)),
            ("dense.*", "dense_1/kernel", Some(true)),
            (".*dense", "my_dense", Some(true)),
            (r"block_\d+", "block_12", Some(true)),
            (r"block_\d+", "block_", Some(false)),
            ("[a-c]?x[^0-9]+", "bxyz", Some(true)),
            ("[a-c]?x[^0-9]+", "x1", Some(false)),
            ("a*ab", "aaab", Some(true)),
            (r"a\.b", "a.b", Some(true)),
            (r"a\.b", "axb", Some(false)),
            ("(a|b)", "a", None),
            ("a{2}", "aa", None),
            ("a**", "aa", None),
            (r"\bx", "x", None),
        ] {
            assert_eq!(Pattern::read(pattern).map(|pattern| pattern.matches(path)), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_map_gives_each_path_its_policy() {
        let policy = |name: &str| json!({"class_name": "DTypePolicy", "config": {"name": name}});
        let entries = json!({"a": policy("float16"), "a.*": policy("bfloat16"), "ab+": policy("float64")});
        let config = json!({"default_policy": null, "policy_map": entries});
        let map = PolicyMap::read(&json!({"class_name": "DTypePolicyMap", "config": config})).unwrap().unwrap();
        let compute = |path: &str| map.policy(path).map(|policy| policy.compute);
        assert_eq!(compute("a"), Ok(Dtype::Float16));
        assert_eq!(compute("ac"), Ok(Dtype::Bfloat16));
        assert_eq!(compute("c"), Ok(Dtype::Float32));
        assert_eq!(compute("abb"), Err(r#""a.*" and "ab+" both match "abb""#.to_owned()));
        assert!(map.may_differ("a", &map.default) && !map.may_differ("c", &map.default));
        assert!(map.may_differ("c", map.policy("a").unwrap()) && map.has_other(&map.default));
        assert!(PolicyMap::read(&policy("float16")).is_none());
    }
}
