//! case.json, read with coordinates.

use serde_json::Value;

use crate::error::{CaseError, CaseErrorKind};
use crate::text;

/// The JSON that Python writes: NaN, Infinity and -Infinity may stand for numbers, and are read as null.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| serde_json::from_str(&without_bare_words(text)).map_err(|_| error))
}

fn without_bare_words(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let (mut in_string, mut rest) = (false, text);
    while let Some(character) = rest.chars().next() {
        let bare = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (bare, character) {
            (Some(word), _) => {
                json.push_str("null");
                rest = rest.get(word.len()..).unwrap_or_default();
                continue;
            }
            (None, '\\') => character.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8),
            (None, _) => character.len_utf8(),
        };
        in_string ^= character == '"';
        let (done, left) = rest.split_at(taken);
        json.push_str(done);
        rest = left;
    }
    json
}

/// A value in case.json and where it stands there.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    at: String,
    separator: &'static str,
}

impl<'a> Node<'a> {
    /// The whole of the file shown as `file`.
    pub(crate) fn root(value: &'a Value, file: String) -> Node<'a> {
        Node { value, at: file, separator: " › " }
    }

    /// The value of a key; a null is as good as none.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Node { value, at: format!("{}{}{key}", self.at, self.separator), separator: "." })
    }

    pub(crate) fn need(&self, key: &str) -> Result<Node<'a>, CaseError> {
        self.get(key)
            .ok_or_else(|| CaseError::new(CaseErrorKind::Malformed, &self.at, format_args!("{key} is missing")))
    }

    pub(crate) fn text(&self) -> Result<String, CaseError> {
        self.value.as_str().map(str::to_owned).ok_or_else(|| self.not("a string"))
    }

    pub(crate) fn number(&self) -> Result<f64, CaseError> {
        self.value.as_f64().ok_or_else(|| self.not("a number"))
    }

    pub(crate) fn count(&self) -> Result<usize, CaseError> {
        let count = self.value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.not("a whole number from 0"))
    }

    pub(crate) fn list(&self) -> Result<Vec<Node<'a>>, CaseError> {
        let items = self.value.as_array().ok_or_else(|| self.not("a list"))?.iter().enumerate();
        Ok(items.map(|(i, value)| Node { value, at: format!("{}[{i}]", self.at), separator: "." }).collect())
    }

    /// The values of an object by their keys, in no particular order.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Node<'a>)>, CaseError> {
        let entries = self.value.as_object().ok_or_else(|| self.not("an object"))?.iter();
        let node = |key: &str, value| Node { value, at: format!("{}{}{key}", self.at, self.separator), separator: "." };
        Ok(entries.map(|(key, value)| (key.as_str(), node(key, value))).collect())
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// `expected X, found` what stands here.
    pub(crate) fn not(&self, expected: &str) -> CaseError {
        self.error(format_args!("expected {expected}, found {}", text::shown(&self.value.to_string(), 60)))
    }

    pub(crate) fn error(&self, what: impl std::fmt::Display) -> CaseError {
        CaseError::new(CaseErrorKind::Malformed, &self.at, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        let read = parse(r#"{"ord": -Infinity, "a": [NaN, Infinity, 1e-6], "NaN": "a \"NaN\" \\", "é": 0.1}"#).unwrap();
        assert_eq!(read, serde_json::json!({"ord": null, "a": [null, null, 1e-6], "NaN": "a \"NaN\" \\", "é": 0.1}));
        assert!(parse("{\"a\": NaNs}").is_err());
        assert!(parse("{").is_err());
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let value = serde_json::json!({"outputs": [{"shape": "no", "name": null}]});
        let output = Node::root(&value, "case.json".into()).need("outputs").unwrap().list().unwrap().remove(0);
        let error = output.need("shape").unwrap().list().map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "case.json › outputs[0].shape: expected a list, found \"no\"");
        assert_eq!(output.need("name").map(|_| ()).unwrap_err().to_string(), "case.json › outputs[0]: name is missing");
    }
}
