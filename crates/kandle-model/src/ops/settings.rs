//! The settings of an operation: what its constructor in Keras takes, as the configuration has it.

use std::collections::BTreeMap;

use kandle_format::{
    Dtype, Problem,
    json::{self, Value as Json},
};

use super::{Scalar, invalid};
use crate::Fields;

/// How the value of a key is read. Null is not given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting {
    /// True or false, with the default.
    Flag(bool),
    /// A whole number, with the default.
    Integer(i64),
    /// A whole number, with what it is where the key is not there at all: null is not given.
    IntegerOr(i64),
    /// A whole number or a list of them.
    Integers,
    /// A list of whole numbers in which null is allowed, as `-1`.
    Sizes,
    /// A number, with the default. Whether it was written as a whole number is kept.
    Number(f64),
    /// A number or true or false.
    Scalar,
    /// A dtype's name.
    Dtype,
    /// A text out of these; the first is the default.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// Anything: the operation reads it when it is planned.
    Any,
    /// Only what it says in Python: the default, or null.
    Only(&'static str),
}

#[derive(Debug, Clone)]
enum Held {
    Flag(bool),
    Integers(Vec<i64>, bool),
    Scalar(Scalar),
    Dtype(Dtype),
    Text(String),
    Any(Json),
}

/// The settings of one operation of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(BTreeMap<&'static str, Held>);

impl Settings {
    /// Reads the keys `declared`; what is wrong with them is noted in `fields`.
    pub(super) fn read(fields: &mut Fields<'_>, declared: &[(&'static str, Setting)]) -> Self {
        let mut settings = Self::default();
        for (key, setting) in declared {
            let value = fields.take(key);
            let held = match value {
                Some(value) => match read(*setting, value) {
                    Ok(held) => Some(held),
                    Err(expected) => {
                        match setting {
                            // Keras has other values.
                            Setting::Only(only) => fields.unsupported(key, value, only),
                            _ => fields.invalid(key, value, &expected),
                        }
                        None
                    }
                },
                None => match setting {
                    Setting::IntegerOr(_) if fields.holds(key) => None,
                    setting => default(*setting),
                },
            };
            if let Some(held) = held {
                settings.0.insert(key, held);
            }
        }
        settings
    }

    /// Whether `key` is set to true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(Held::Flag(true)))
    }

    /// The whole number that `key` is, if it is one.
    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        match self.0.get(key)? {
            Held::Integers(numbers, true) => numbers.first().copied(),
            Held::Scalar(Scalar::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// The whole numbers that `key` is, a single one as a list of one.
    pub(crate) fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.0.get(key)? {
            Held::Integers(numbers, _) => Some(numbers),
            _ => None,
        }
    }

    /// As [`integers`](Self::integers), where it must be given.
    pub(crate) fn required(&self, key: &str) -> Result<&[i64], Problem> {
        self.integers(key).ok_or_else(|| invalid(format!("{key} is missing")))
    }

    /// The number that `key` is, if it is one.
    pub(crate) fn scalar(&self, key: &str) -> Option<Scalar> {
        match self.0.get(key)? {
            Held::Scalar(scalar) => Some(*scalar),
            Held::Flag(flag) => Some(Scalar::Bool(*flag)),
            Held::Integers(numbers, true) => numbers.first().copied().map(Scalar::Int),
            _ => None,
        }
    }

    /// The number that `key` is, as a float.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.scalar(key).map(Scalar::number)
    }

    /// The dtype that `key` names.
    pub(crate) fn dtype(&self, key: &str) -> Option<Dtype> {
        match self.0.get(key)? {
            Held::Dtype(dtype) => Some(*dtype),
            _ => None,
        }
    }

    /// The text that `key` is; empty where it is not given.
    pub(crate) fn text(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(Held::Text(text)) => text,
            _ => "",
        }
    }

    /// What `key` is, as it stands in the file, where it was declared as [`Setting::Any`].
    pub(crate) fn any(&self, key: &str) -> Option<&Json> {
        match self.0.get(key)? {
            Held::Any(value) => Some(value),
            _ => None,
        }
    }
}

/// A dtype that an operation is told to give. Keras: `int` is int64 on TensorFlow.
pub(crate) fn named_dtype(name: &str) -> Option<Dtype> {
    Dtype::from_name(if name == "int" { "int64" } else { name })
}

fn whole(value: &Json) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < EXACT).map(|x| x as i64))
}

fn read(setting: Setting, value: &Json) -> Result<Held, String> {
    let held = |held: Option<Held>, expected: &str| held.ok_or_else(|| expected.to_owned());
    match setting {
        Setting::Flag(_) => held(value.as_bool().map(Held::Flag), "true or false"),
        Setting::Integer(_) | Setting::IntegerOr(_) => {
            held(whole(value).map(|number| Held::Integers(vec![number], true)), "a whole number")
        }
        Setting::Integers => {
            let numbers = match value {
                Json::Array(items) => {
                    items.iter().map(whole).collect::<Option<Vec<_>>>().map(|numbers| Held::Integers(numbers, false))
                }
                one => whole(one).map(|number| Held::Integers(vec![number], true)),
            };
            held(numbers, "a whole number or a list of them")
        }
        Setting::Sizes => {
            let size = |value: &Json| if value.is_null() { Some(-1) } else { whole(value) };
            let numbers = match value {
                Json::Array(items) => {
                    items.iter().map(size).collect::<Option<Vec<_>>>().map(|numbers| Held::Integers(numbers, false))
                }
                one => whole(one).map(|number| Held::Integers(vec![number], true)),
            };
            held(numbers, "a list of sizes")
        }
        Setting::Number(_) | Setting::Scalar => held(Scalar::read(value).map(Held::Scalar), "a number"),
        Setting::Dtype => held(value.as_str().and_then(named_dtype).map(Held::Dtype), "the name of a dtype"),
        Setting::Choice(choices) => {
            let found = value.as_str().filter(|text| choices.contains(text));
            held(found.map(|text| Held::Text(text.to_owned())), &choices.join(" or "))
        }
        Setting::Text => held(value.as_str().map(|text| Held::Text(text.to_owned())), "a text"),
        Setting::Any => Ok(Held::Any(value.clone())),
        Setting::Only(only) => held((json::shown(value) == only).then(|| Held::Any(value.clone())), only),
    }
}

fn default(setting: Setting) -> Option<Held> {
    match setting {
        Setting::Flag(flag) => Some(Held::Flag(flag)),
        Setting::Integer(number) | Setting::IntegerOr(number) => Some(Held::Integers(vec![number], true)),
        Setting::Number(number) => Some(Held::Scalar(Scalar::Float(number))),
        Setting::Choice(choices) => choices.first().map(|text| Held::Text((*text).to_owned())),
        _ => None,
    }
}
