use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{
    ErrorKind, Problem,
    json::{self, Map, Value},
};

use crate::{Activation, Inner, Policy, activation::Function, dialect, policy_map::PolicyMap};

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
    policy: Policy,
    /// Whether a map gives what is within the layer other policies, or anything.
    policy_may_differ: (bool, bool),
    context: Context<'a>,
}

/// What is said of a map of policies where the path it is asked for is not known.
pub(crate) const MANY_POLICIES: &str =
    "a DTypePolicyMap with several policies that may hold here is not supported: give the layer one policy";

/// What a layer's settings alone do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The version of Keras that wrote the file.
    pub keras_version: Option<&'a str>,
    /// Whether Keras ran on Theano then.
    pub on_theano: bool,
    /// The files that lie beside the configuration, such as vocabularies, by path.
    pub assets: Option<&'a BTreeMap<String, Vec<u8>>>,
    /// The layer's own group in the weight store, which is its folder among the assets too.
    pub group: &'a str,
    /// Whether the settings are those of a legacy whole-model file.
    pub legacy: bool,
    /// Whether Keras runs the layer inside another's call. There it is never planned, and takes what its call does.
    pub is_inner: bool,
    /// The layers that the user registered.
    pub custom: Option<&'a crate::Registry>,
}

/// Settings without a file are those of Keras 3.
impl Default for Context<'_> {
    fn default() -> Self {
        Self {
            keras_version: Some("3"),
            on_theano: false,
            assets: None,
            group: "",
            legacy: false,
            is_inner: false,
            custom: None,
        }
    }
}

impl<'a> Fields<'a> {
    /// The settings `config` of the layer that errors call `at`.
    pub(crate) fn new(config: &'a Map<String, Value>, at: &str, context: Context<'a>) -> Self {
        let (taken, problems) = (BTreeSet::new(), Vec::new());
        let (at, policy) = (at.to_owned(), Policy::default());
        Self { config, taken, problems, at, policy, policy_may_differ: (false, false), context }
    }

    pub(crate) fn context(&self) -> Context<'a> {
        self.context
    }

    /// The file `name` that was saved with the layer, such as `vocabulary.txt`.
    #[must_use]
    pub fn asset(&self, name: &str) -> Option<&'a [u8]> {
        let path = format!("{}/{name}", self.context.group);
        self.context.assets?.get(&path).map(Vec::as_slice)
    }

    /// The first number of the version of Keras that wrote the settings. A name may have another meaning in each.
    #[must_use]
    pub fn keras_major(&self) -> u32 {
        kandle_format::keras_major(self.context.keras_version)
    }

    /// Whether the settings were written by Keras before it became part of TensorFlow.
    #[must_use]
    pub(crate) fn is_older_than_tensorflows(&self) -> bool {
        dialect::is_older_than_tensorflows(self.context.keras_version)
    }

    /// Whether the settings were written by Keras `first` or a later version.
    #[must_use]
    pub(crate) fn is_from(&self, first: [u32; 3]) -> bool {
        dialect::is_from(self.context.keras_version, first)
    }

    /// The first two numbers of the version of Keras that wrote the settings.
    #[must_use]
    pub fn keras_version(&self) -> (u32, u32) {
        let version = self.context.keras_version.unwrap_or_default();
        let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
        // A bare "3" stands for settings without a file, or a text that names no version: the newest.
        (self.keras_major(), minor.unwrap_or(u32::MAX))
    }

    /// The rank and the factor of the two LoRA weights that come beside the kernel; `None` where there are none.
    ///
    /// Keras: `.keras` and `.weights.h5` hold the kernel with them merged into it, legacy files hold the parts.
    pub(crate) fn lora(&mut self) -> Option<(usize, f64)> {
        let (rank, alpha) = (self.optional_size("lora_rank"), self.optional_number("lora_alpha"));
        let rank = rank.filter(|_| self.context.legacy)?;
        // A size is far from where a float64 has gaps.
        Some((rank, alpha.unwrap_or(rank as f64) / rank as f64))
    }

    /// The layer's dtype policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether the policy comes from a map that may give layers within this one others, or this one none of its own.
    pub(crate) fn policy_may_differ(&self) -> bool {
        self.policy_may_differ.0
    }

    /// Whether the policy comes from a map with others.
    pub(crate) fn policy_is_by_path(&self) -> bool {
        self.policy_may_differ.1
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
    #[must_use]
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The value of `key`, if it is there and not null.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        let (key, value) = self.config.get_key_value(key)?;
        self.taken.insert(key);
        (!value.is_null()).then_some(value)
    }

    /// Whether `key` is there, be it null.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        self.config.contains_key(key)
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

    /// Notes settings that Keras itself would not accept together.
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Invalid, &self.at, what.into()));
    }

    /// Notes that something about the layer is not reproduced.
    pub fn refuse(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Unsupported, &self.at, what.into()));
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

    /// A size, if it is given; at least 1.
    pub fn optional_size(&mut self, key: &'static str) -> Option<usize> {
        self.read(key, "a whole number of at least 1", |value| whole(value).filter(|size| *size > 0))
    }

    /// A whole number of either sign, `default` where it is not given.
    pub fn integer(&mut self, key: &'static str, default: i64) -> i64 {
        self.optional_integer(key).unwrap_or(default)
    }

    /// A whole number of either sign, if it is given.
    pub fn optional_integer(&mut self, key: &'static str) -> Option<i64> {
        self.read(key, "a whole number", integer)
    }

    /// Whole numbers of either sign, a single one or a list of them, if they are given.
    pub fn integers(&mut self, key: &'static str) -> Option<Vec<i64>> {
        self.read(key, "a whole number or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(integer).collect(),
            one => integer(one).map(|one| vec![one]),
        })
    }

    /// One size for each of `rank` axes, at least 1; a single number counts for all. `default` where it is not given.
    pub fn sizes(&mut self, key: &'static str, rank: usize, default: usize) -> Vec<usize> {
        self.optional_sizes(key, rank).unwrap_or_else(|| vec![default; rank])
    }

    /// One size for each of `rank` axes, at least 1; a single number counts for all.
    pub fn optional_sizes(&mut self, key: &'static str, rank: usize) -> Option<Vec<usize>> {
        let size = |value: &Value| whole(value).filter(|size| *size > 0);
        self.read(key, &format!("{rank} whole numbers of at least 1"), |value| match value {
            Value::Array(items) if items.len() == rank => items.iter().map(size).collect(),
            Value::Array(_) => None,
            one => size(one).map(|one| vec![one; rank]),
        })
    }

    /// A number, `default` where it is not given.
    pub fn number(&mut self, key: &'static str, default: f64) -> f64 {
        self.optional_number(key).unwrap_or(default)
    }

    /// A number, if it is given.
    pub fn optional_number(&mut self, key: &'static str) -> Option<f64> {
        self.read(key, "a number", json::number)
    }

    /// Whether channels come first (`data_format`), false where it is not given.
    pub fn channels_first(&mut self) -> bool {
        self.choice("data_format", &[("channels_last", false), ("channels_first", true)]).unwrap_or(false)
    }

    /// The layer inside this one; `None` where it is not given, and where it is not understood, which is noted.
    pub fn layer(&mut self, key: &'static str) -> Option<Inner> {
        let value = self.take(key)?;
        Inner::read(self, key, value)
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

    /// As [`activation`](Self::activation), within the steps of a recurrent layer; `default` where the key is not there.
    pub fn activation_or(&mut self, key: &'static str, default: Function) -> Activation {
        let activation = if self.holds(key) { self.activation(key) } else { Activation::Function(default) };
        let own = self.policy.compute;
        if let Some(dtype) = activation.computed_in().filter(|dtype| *dtype != own) {
            self.refuse(format!(
                "{key} computes in {dtype} where the layer computes in {own}: give both one dtype policy"
            ));
        }
        activation
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

    /// The keys every layer has: its name and its dtype policy. Returns whether the layer's weights are trainable.
    pub(crate) fn common(&mut self) -> bool {
        let name = self.take("name").and_then(Value::as_str).unwrap_or_default();
        self.training_only(&["activity_regularizer"]);
        self.only("autocast", &true.into());
        if let Some(policy) = self.take("dtype") {
            match (PolicyMap::read(policy), Policy::read(policy)) {
                (Some(map), _) => self.policy_of(name, map),
                (None, Some(policy)) => self.policy = policy,
                (None, None) => {
                    let part = |key: &str| policy.get("config").and_then(|config| config.get(key));
                    let named = part("name").or_else(|| part("mode")).unwrap_or(policy).clone();
                    self.unsupported("dtype", &named, "dtypes, mixed_float16, mixed_bfloat16, int8, int4 and float8");
                }
            }
        }
        self.flag("trainable", true)
    }

    /// Takes the policy that `map` has for the layer called `name`.
    fn policy_of(&mut self, name: &str, map: Result<PolicyMap, String>) {
        match map.as_ref().map(|map| (map, map.policy(name))) {
            Ok((map, Ok(policy))) => {
                self.policy = policy.clone();
                self.policy_may_differ = (map.may_differ(name, policy), map.has_other(policy));
            }
            Ok((_, Err(what))) => self.refuse(format!("dtype: {what}")),
            Err(what) => {
                let what = format!("dtype: {what}");
                self.refuse(what);
            }
        }
    }
}

/// A whole number of either sign. Keras may write one as a float.
fn integer(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < EXACT).map(|x| x as i64))
}

/// A whole number of at least 0.
fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use kandle_format::{Limits, json};

    use super::{Context, Fields};

    /// Runs `read` on the settings `text` and returns what was found wrong.
    fn problems(text: &str, read: impl Fn(&mut Fields<'_>)) -> Vec<String> {
        let config = json::parse(text.as_bytes(), "test", &Limits::default()).unwrap();
        let mut fields = Fields::new(config.as_object().unwrap(), "layer \"x\"", Context::default());
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
}
