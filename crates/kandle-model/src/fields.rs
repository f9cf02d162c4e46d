use std::collections::BTreeSet;

use kandle_format::{
    Dtype, ErrorKind, Problem,
    json::{self, Map, Value},
};

use crate::{Activation, activation::Function};

/// The settings of one layer, consumed key by key.
///
/// A key is honoured by reading it, allowed at one value only with [`only`](Self::only), or named as
/// [`training_only`](Self::training_only). What is left over when the layer has read its settings is a problem, and so is
/// every value that is not understood; reading goes on with a stand-in so that all problems are found together.
pub struct Fields<'a> {
    config: &'a Map<String, Value>,
    taken: BTreeSet<&'a str>,
    problems: Vec<Problem>,
    at: String,
}

impl<'a> Fields<'a> {
    /// The settings `config` of the layer that errors call `at`.
    pub(crate) fn new(config: &'a Map<String, Value>, at: &str) -> Self {
        Self { config, taken: BTreeSet::new(), problems: Vec::new(), at: at.to_owned() }
    }

    /// Everything found wrong, the keys that nobody asked for included.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        for (key, value) in self.config {
            if !self.taken.contains(key.as_str()) {
                let what =
                    format!("{} = {} is not known for this layer", kandle_format::shown(key), json::shown(value));
                self.problems.push(Problem::new(ErrorKind::Unsupported, &self.at, what));
            }
        }
        self.problems
    }

    /// Where the layer is, for errors.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// The value of `key`, if it is there and not null.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        let (key, value) = self.config.get_key_value(key)?;
        self.taken.insert(key);
        (!value.is_null()).then_some(value)
    }

    /// Notes that `key` has a value Keras itself would not accept.
    pub fn invalid(&mut self, key: &str, value: &Value, expected: &str) {
        let what = format!("{key}: expected {expected}, found {}", json::shown(value));
        self.problems.push(Problem::new(ErrorKind::Invalid, &self.at, what));
    }

    /// Notes that `key` has a value that is not reproduced.
    pub fn unsupported(&mut self, key: &str, value: &Value, supported: &str) {
        let class = value.get("class_name").and_then(Value::as_str).map(kandle_format::shown);
        let what =
            format!("{key} = {} is not supported (only {supported})", class.unwrap_or_else(|| json::shown(value)));
        self.problems.push(Problem::new(ErrorKind::Unsupported, &self.at, what));
    }

    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn read<T>(&mut self, key: &'static str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let read = read(value);
        if read.is_none() {
            self.invalid(key, value, expected);
        }
        read
    }

    fn required<T>(&mut self, key: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.config.get(key).is_none_or(Value::is_null) {
            self.problems.push(Problem::new(ErrorKind::Invalid, &self.at, format!("{key} is missing")));
        }
        value
    }

    /// A size that must be given, at least 1.
    pub fn size(&mut self, key: &'static str) -> usize {
        let value = self.read(key, "a whole number of at least 1", |value| whole(value).filter(|size| *size > 0));
        self.required(key, value).unwrap_or(1)
    }

    /// A list of sizes that must be given; −1 (as `None`) where `free` allows it.
    pub fn axes(&mut self, key: &'static str, free: bool) -> Vec<Option<usize>> {
        let axis = |value: &Value| match value.as_i64() {
            Some(-1) if free => Some(None),
            _ => whole(value).map(Some),
        };
        let axes = self.read(key, "a list of axes", |value| match value {
            Value::Array(axes) => axes.iter().map(axis).collect::<Option<Vec<_>>>(),
            one => axis(one).map(|axis| vec![axis]),
        });
        self.required(key, axes).unwrap_or_default()
    }

    /// A truth value, `default` where it is not given.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    /// A number of at least 0, `default` where it is not given.
    pub fn not_negative(&mut self, key: &'static str, default: f64) -> f64 {
        let read = |value: &Value| json::number(value).filter(|number| *number >= 0.0);
        self.read(key, "a number of at least 0", read).unwrap_or(default)
    }

    /// A text out of `choices`, of which the first is the default.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let default = choices.first().map(|choice| choice.1);
        let Some(value) = self.take(key) else { return default };
        match choices.iter().find(|choice| value.as_str() == Some(choice.0)) {
            Some(choice) => Some(choice.1),
            None => {
                let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
                self.invalid(key, value, &names.join(" or "));
                default
            }
        }
    }

    /// An activation: a name, null for linear, or a serialized function or layer.
    pub fn activation(&mut self, key: &'static str) -> Activation {
        match self.take(key) {
            Some(value) => Activation::read(self, key, value),
            None => Activation::Function(Function::Linear),
        }
    }

    /// Allows `key` at `default` only (or null, or not given).
    pub fn only(&mut self, key: &'static str, default: &Value) {
        if let Some(value) = self.take(key)
            && value != default
        {
            self.unsupported(key, value, &json::shown(default));
        }
    }

    /// Allows `key` only as null, or not given.
    pub fn only_null(&mut self, key: &'static str) {
        self.only(key, &Value::Null);
    }

    /// Names keys that change nothing at inference.
    pub fn training_only(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.take(key);
        }
    }

    /// The keys every layer has: its name and the dtype policy. Returns whether the layer's weights are trainable.
    pub(crate) fn common(&mut self) -> bool {
        self.take("name");
        if let Some(policy) = self.take("dtype")
            && policy_name(policy) != Some(Dtype::Float32.name())
        {
            let mode = policy.get("config").and_then(|config| config.get("mode"));
            let named = policy_name(policy).map_or_else(|| mode.unwrap_or(policy).clone(), Value::from);
            self.unsupported("dtype", &named, "float32");
        }
        self.flag("trainable", true)
    }
}

/// A whole number of at least 0.
fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

/// The name of a dtype policy: a text, or an object `DTypePolicy` with a name.
fn policy_name(policy: &Value) -> Option<&str> {
    match policy {
        Value::String(name) => Some(name),
        policy => match policy.get("class_name")?.as_str()? {
            "DTypePolicy" | "FloatDTypePolicy" => policy.get("config")?.get("name")?.as_str(),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use kandle_format::{Limits, json};

    use super::Fields;

    /// Runs `read` on the settings `text` and returns what was found wrong.
    fn problems(text: &str, read: impl Fn(&mut Fields<'_>)) -> Vec<String> {
        let config = json::parse(text.as_bytes(), "test", &Limits::default()).unwrap();
        let mut fields = Fields::new(config.as_object().unwrap(), "layer \"x\"");
        read(&mut fields);
        fields.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_nobody_asked_for_is_a_problem() {
        let found = problems(r#"{"units": 3, "surprise": NaN}"#, |fields| assert_eq!(fields.size("units"), 3));
        assert_eq!(found, ["layer \"x\": surprise = NaN is not known for this layer"]);
    }

    #[test]
    fn values_are_checked_and_all_problems_are_found() {
        let text = r#"{"units": 0, "rate": "a", "use_bias": 1, "order": "b", "shape": [1, -2], "threshold": 0.5}"#;
        let found = problems(text, |fields| {
            fields.size("units");
            fields.size("absent");
            fields.not_negative("rate", 0.0);
            fields.flag("use_bias", true);
            fields.choice("order", &[("a", 1)]);
            fields.axes("shape", true);
            fields.only("threshold", &0.0.into());
        });
        let expected = [
            "layer \"x\": units: expected a whole number of at least 1, found 0",
            "layer \"x\": absent is missing",
            "layer \"x\": rate: expected a number of at least 0, found \"a\"",
            "layer \"x\": use_bias: expected true or false, found 1",
            "layer \"x\": order: expected a, found \"b\"",
            "layer \"x\": shape: expected a list of axes, found [1,-2]",
            "layer \"x\": threshold = 0.5 is not supported (only 0.0)",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_dtype_policy_is_read_in_both_forms() {
        for (policy, wrong) in [
            (r#""float32""#, None),
            (r#"{"class_name": "DTypePolicy", "config": {"name": "float32"}}"#, None),
            (r#""mixed_float16""#, Some("layer \"x\": dtype = \"mixed_float16\" is not supported (only float32)")),
            (
                r#"{"class_name": "DTypePolicy", "config": {"name": "float64"}}"#,
                Some("layer \"x\": dtype = \"float64\" is not supported (only float32)"),
            ),
        ] {
            let found = problems(&format!("{{\"dtype\": {policy}}}"), |fields| {
                fields.common();
            });
            assert_eq!(found.first().map(String::as_str), wrong);
        }
    }
}
