//! `keras.dtype_policies.DTypePolicyMap`: dtype policies by the paths of layers.
//!
//! The policy of a path is that of the key which is the path, or else of the only key that matches all of it as a regular
//! expression, or else the default. `encoder_\d+` is `encoder_12`, and no `encoder`. What Python reads otherwise than
//! the regex-lite crate (looking ahead, references back, possessive repetition) is refused.
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

use regex_lite::Regex;

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
            // `\w` is of ASCII letters here, and of all in Python.
            let pattern = whole(&entry.0).filter(|_| path.is_ascii()).ok_or_else(|| {
                format!("\"{}\" is a regular expression that is not supported: spell the paths out", shown(&entry.0))
            })?;
            if pattern.is_match(path) {
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
            // One side of an alternative may begin with anything.
            Some(_) if key.contains('|') => true,
            Some(end) => {
                // The letter before may be there or not.
                let repeated = key.get(end..).is_some_and(|rest| rest.starts_with(['*', '?', '{']));
                let start: Vec<char> = key.chars().take_while(|letter| is_plain(*letter)).collect();
                let certain = start.len() - usize::from(repeated && !start.is_empty());
                let start: String = start.into_iter().take(certain).collect();
                within.starts_with(&start) || start.starts_with(&within)
            }
        };
        self.default != *policy || self.entries.iter().any(|(key, other)| other != policy && reaches(key))
    }
}

/// Whether a letter of a regular expression stands for itself.
fn is_plain(letter: char) -> bool {
    !r"\.^$*+?{}[]|()".contains(letter)
}

/// The regular expression `key`, which has to match all of a path; `None` where Python may read it otherwise.
///
/// Python's own are these: sequences that may not be given back (`a*+`), and sets within brackets that are letters there.
fn whole(key: &str) -> Option<Regex> {
    let otherwise = ["*+", "++", "?+", "}+", "**", "+*", "?*", "&&", "--", "~~", "[["];
    if !key.is_ascii() || otherwise.iter().any(|text| key.contains(text)) {
        return None;
    }
    Regex::new(&format!("^(?:{key})$")).ok()
}

#[cfg(test)]
mod tests {
    use kandle_format::Dtype;
    use serde_json::json;

    use super::{PolicyMap, whole};

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
            ("(a|ab)(c|bcd)", "abcd", Some(true)),
            ("a|b", "ab", Some(false)),
            ("a{2}", "aa", Some(true)),
            ("a*+a", "aa", None),
            ("a**", "aa", None),
            ("(?=a)a", "a", None),
            (r"(a)\1", "aa", None),
            ("[", "[", None),
        ] {
            assert_eq!(whole(pattern).map(|pattern| pattern.is_match(path)), expected, "{pattern} on {path}");
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
        // What lies within "a" may match a key whose first letters it has not.
        for (key, name, expected) in [
            ("ab*/x", "a", true),
            ("b|a/.*", "a", true),
            ("ab+/x", "a", false),
            (r"a\d*/x", "a", true),
            ("b.*", "a", false),
        ] {
            let entries = json!({key: policy("float16")});
            let config = json!({"default_policy": policy("float32"), "policy_map": entries});
            let map = PolicyMap::read(&json!({"class_name": "DTypePolicyMap", "config": config})).unwrap().unwrap();
            assert_eq!(map.may_differ(name, &map.default), expected, "{key} within {name}");
        }
        assert!(map.may_differ("c", map.policy("a").unwrap()) && map.has_other(&map.default));
        assert!(PolicyMap::read(&policy("float16")).is_none());
    }
}
