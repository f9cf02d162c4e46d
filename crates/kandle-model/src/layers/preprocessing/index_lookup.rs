//! `keras.layers.StringLookup`, `IntegerLookup` and `IndexLookup`: the place of each token in a vocabulary, or the way back.
//!
//! Shapes: tokens `(batch, …)`, numbers `(batch, …)`, int64, or encoded. The numbers are: 0 for the mask token, if there is
//! one and numbers are asked for; then those for tokens that are not in the vocabulary; then the vocabulary in its order.
//! With vocabulary `["a", "b"]`, `["b", "c", "a"]` are `[2, 0, 1]`.
//!
//! Sources: keras/src/layers/preprocessing/{index_lookup,string_lookup,integer_lookup}.py.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, bail};
use kandle_format::{Dtype, Problem, json::Value as Json, shown};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value, Weight,
    layers::{cannot, one},
    numeric::cast,
};

use super::{
    encode::{OutputMode, encode},
    fingerprint::bucket,
    hashing::salt,
};

/// Which class the settings are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Index,
    Integer,
    String,
    /// The look-up inside a TextVectorization.
    Vectorization,
}

/// A vocabulary and how tokens become numbers. Tokens are kept as text; whole numbers are spelled in decimal.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Whether tokens are whole numbers, not strings.
    numbers: bool,
    tokens: Vec<Vec<u8>>,
    places: BTreeMap<Vec<u8>, i64>,
    mask: Option<Vec<u8>>,
    oov: Option<Vec<u8>>,
    /// How many numbers there are for tokens that are not in the vocabulary.
    oov_indices: usize,
    /// The size of encodings, where it is not that of the vocabulary.
    padded: Option<usize>,
    /// Whether unknown whole numbers are hashed, not divided.
    hashed: bool,
    salt: Option<[u64; 2]>,
    invert: bool,
    pub(crate) mode: OutputMode,
}

impl Lookup {
    pub(crate) fn read(fields: &mut Fields<'_>, kind: Kind) -> Self {
        let mode = OutputMode::read(
            fields,
            &[
                ("int", OutputMode::Int),
                ("one_hot", OutputMode::OneHot),
                ("multi_hot", OutputMode::MultiHot),
                ("binary", OutputMode::MultiHot),
                ("count", OutputMode::Count),
                ("tf_idf", OutputMode::TfIdf),
                ("tf-idf", OutputMode::TfIdf),
            ],
        );
        // Strings are bytes to TensorFlow; the encoding is that of Python's texts.
        fields.training_only(&["encoding", "has_input_vocabulary"]);
        let own = kind != Kind::Vectorization;
        let numbers = match kind {
            Kind::Index | Kind::Integer => {
                fields.choice("vocabulary_dtype", &[("int64", true), ("string", false)]).unwrap_or(true)
            }
            Kind::String | Kind::Vectorization => false,
        };
        let mut lookup = Self {
            numbers,
            tokens: Vec::new(),
            places: BTreeMap::new(),
            mask: if own { special(fields, "mask_token", numbers, None) } else { Some(Vec::new()) },
            oov: None,
            oov_indices: 1,
            padded: None,
            hashed: false,
            salt: None,
            invert: false,
            mode,
        };
        let unknown: &[u8] = if numbers { b"-1" } else { b"[UNK]" };
        lookup.oov = Some(unknown.to_vec());
        if own {
            lookup.oov = special(fields, "oov_token", numbers, Some(unknown));
            lookup.oov_indices = usize::try_from(fields.integer("num_oov_indices", 1)).unwrap_or_else(|_| {
                fields.wrong("num_oov_indices is negative");
                1
            });
            lookup.hashed = fields.choice("oov_method", &[("floormod", false), ("farmhash", true)]) == Some(true);
            lookup.salt = salt(fields);
            lookup.invert = fields.flag("invert", false);
        }
        if lookup.invert && (mode != OutputMode::Int || lookup.oov.is_none()) {
            fields.wrong("invert needs output_mode int and an oov_token");
        }
        let most = fields.optional_size("max_tokens");
        let pads = fields.flag("pad_to_max_tokens", false);
        lookup.padded = most.filter(|_| pads);
        if pads && most.is_none() {
            fields.wrong("pad_to_max_tokens needs max_tokens");
        }
        // In tf_idf mode they are a weight too, and that is the one Keras uses.
        fields.training_only(&["idf_weights"]);
        lookup.read_vocabulary(fields, most);
        let size = fields.optional_size("vocabulary_size");
        if mode != OutputMode::Int && !pads && size.is_some_and(|size| size != lookup.size()) {
            fields.wrong(format!("vocabulary_size: expected {}, found {}", lookup.size(), size.unwrap_or_default()));
        }
        lookup
    }

    fn read_vocabulary(&mut self, fields: &mut Fields<'_>, most: Option<usize>) {
        let listed = match fields.take("vocabulary") {
            Some(value) => {
                match value.as_array().and_then(|items| items.iter().map(|item| token(item, self.numbers)).collect()) {
                    Some(tokens) => tokens,
                    None => return fields.invalid("vocabulary", value, self.kind()),
                }
            }
            None => match self.asset(fields) {
                Ok(tokens) => tokens,
                Err(what) => return fields.wrong(what),
            },
        };
        if listed.is_empty() {
            return fields.wrong("vocabulary: expected one token or more, found none");
        }
        let start = self.start();
        let specials =
            std::iter::repeat_n(&self.mask, self.oov_start()).chain(std::iter::repeat_n(&self.oov, self.oov_indices));
        let given = specials.zip(&listed).filter(|(special, token)| special.as_ref() == Some(token)).count() == start;
        self.tokens = if given { listed.into_iter().skip(start).collect() } else { listed };
        for (number, token) in self.tokens.iter().enumerate() {
            let place = i64::try_from(start.saturating_add(number)).unwrap_or(i64::MAX);
            let reserved = self.mask.as_ref() == Some(token) || (self.invert && self.oov.as_ref() == Some(token));
            if reserved || self.places.insert(token.clone(), place).is_some() {
                let what = if reserved { "stands for the mask or for what is unknown" } else { "is there twice" };
                let token = shown(&String::from_utf8_lossy(token));
                return fields.wrong(format!("vocabulary: {token} {what}"));
            }
        }
        if let Some(most) = most.filter(|most| self.size() > *most) {
            fields.wrong(format!("vocabulary: expected at most {most} tokens, found {}", self.size()));
        }
    }

    /// The tokens of `vocabulary.txt`, one a line as Python splits lines.
    fn asset(&self, fields: &Fields<'_>) -> Result<Vec<Vec<u8>>, String> {
        const NAME: &str = "vocabulary.txt";
        let missing =
            "vocabulary is missing, and there is no file vocabulary.txt: call adapt in Keras before the model is saved";
        let text = fields.asset(NAME).ok_or(missing)?;
        let text = std::str::from_utf8(text).map_err(|_| format!("{NAME}: expected UTF-8"))?;
        let mut lines = lines(text);
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        let read = |line: &str| match self.numbers {
            true => line
                .trim()
                .parse::<i64>()
                .map(|number| number.to_string().into_bytes())
                .map_err(|_| format!("{NAME}: expected whole numbers, found {}", shown(line))),
            false => Ok(line.as_bytes().to_vec()),
        };
        lines.into_iter().map(read).collect()
    }

    fn kind(&self) -> &'static str {
        if self.numbers { "a list of whole numbers" } else { "a list of texts" }
    }

    fn oov_start(&self) -> usize {
        usize::from(self.mask.is_some() && self.mode == OutputMode::Int)
    }

    /// The number of the first token of the vocabulary.
    fn start(&self) -> usize {
        self.oov_start().saturating_add(self.oov_indices)
    }

    fn size(&self) -> usize {
        self.start().saturating_add(self.tokens.len())
    }

    pub(crate) fn depth(&self) -> usize {
        self.padded.unwrap_or(self.size())
    }

    pub(crate) fn weights(&self) -> Vec<Weight> {
        match self.mode {
            OutputMode::TfIdf => {
                let weight = Weight::as_keras("idf_weights", vec![self.depth()]);
                let weight = weight.not_trained().not_cast().of(Dtype::Float32);
                vec![Weight { array: Some("idf_weights"), ..weight }]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match self.mode {
            OutputMode::TfIdf => Dtype::Float32,
            // Keras: encodings are int64 too, though the graph says float32.
            _ if self.invert && !self.numbers => Dtype::String,
            _ => Dtype::Int64,
        }
    }

    /// The number of one token.
    pub(crate) fn number(&self, token: &[u8]) -> candle_core::Result<i64> {
        if self.mask.as_deref() == Some(token) {
            // Keras: encodings leave out what is masked.
            return Ok(if self.mode == OutputMode::Int { 0 } else { i64::MAX });
        }
        if let Some(place) = self.places.get(token) {
            return Ok(*place);
        }
        let start = i64::try_from(self.oov_start())?;
        let indices = i64::try_from(self.oov_indices)?;
        let text = || shown(&String::from_utf8_lossy(token));
        match self.oov_indices {
            0 => bail!("{} is not in the vocabulary, and num_oov_indices is 0", text()),
            1 => Ok(start),
            _ if self.numbers && !self.hashed => {
                match std::str::from_utf8(token).ok().and_then(|text| text.parse::<i64>().ok()) {
                    Some(number) => Ok(start + number.rem_euclid(indices)),
                    None => bail!("{} is no whole number", text()),
                }
            }
            _ => Ok(start + bucket(token, indices.cast_unsigned(), self.salt)),
        }
    }

    /// Encodes the numbers of tokens, `weights` being the layer's.
    pub(crate) fn encoded(&self, numbers: &[i64], dims: &[usize], weights: &[Tensor]) -> candle_core::Result<Value> {
        let counts = encode(numbers, dims, self.mode, self.depth(), Dtype::Int64, None)?;
        if self.mode != OutputMode::TfIdf {
            return Ok(counts);
        }
        let Some(weights) = weights.first() else { bail!("the weights of the tokens were not given") };
        let counts = counts.tensor.to_dtype(DType::F32)?.to_device(weights.device())?;
        Ok(Value::new(counts.broadcast_mul(&weights.to_dtype(DType::F32)?)?, Dtype::Float32))
    }

    /// The tokens of numbers.
    fn inverted(&self, input: &Value) -> candle_core::Result<Value> {
        let numbers = cast(input, Dtype::Int64)?.tensor.flatten_all()?.to_vec1::<i64>()?;
        let unknown = self.oov.clone().unwrap_or_default();
        let start = self.start();
        let token = |number: i64| {
            let place = usize::try_from(number).ok();
            match (&self.mask, place) {
                (Some(mask), Some(0)) => mask.clone(),
                (_, place) => {
                    let token = place.and_then(|place| self.tokens.get(place.checked_sub(start)?));
                    token.unwrap_or(&unknown).clone()
                }
            }
        };
        let tokens: Vec<Vec<u8>> = numbers.into_iter().map(token).collect();
        let dims = input.tensor.dims();
        if !self.numbers {
            return Value::from_strings(tokens, dims);
        }
        let number = |token: &Vec<u8>| std::str::from_utf8(token).ok()?.parse::<i64>().ok();
        let Some(numbers) = tokens.iter().map(number).collect::<Option<Vec<i64>>>() else {
            bail!("a token is no number")
        };
        Ok(Value::new(Tensor::from_vec(numbers, dims, &Device::Cpu)?, Dtype::Int64))
    }

    fn run(&self, input: &Value, weights: &[Tensor]) -> candle_core::Result<Value> {
        if self.invert {
            return self.inverted(input);
        }
        let numbers: Vec<i64> = if self.numbers {
            let numbers = cast(input, Dtype::Int64)?.tensor.flatten_all()?.to_vec1::<i64>()?;
            numbers
                .into_iter()
                .map(|number| self.number(number.to_string().as_bytes()))
                .collect::<candle_core::Result<_>>()?
        } else {
            input.texts()?.into_iter().map(|text| self.number(text)).collect::<candle_core::Result<_>>()?
        };
        self.encoded(&numbers, input.tensor.dims(), weights)
    }
}

/// A token of a configuration as text.
fn token(value: &Json, numbers: bool) -> Option<Vec<u8>> {
    match numbers {
        true => value.as_i64().map(|number| number.to_string().into_bytes()),
        false => value.as_str().map(|text| text.as_bytes().to_vec()),
    }
}

fn special(fields: &mut Fields<'_>, key: &'static str, numbers: bool, default: Option<&[u8]>) -> Option<Vec<u8>> {
    if !fields.holds(key) {
        return default.map(<[u8]>::to_vec);
    }
    let value = fields.take(key)?;
    let read = token(value, numbers);
    if read.is_none() {
        fields.invalid(key, value, if numbers { "a whole number" } else { "a text" });
    }
    read
}

/// The lines of a text where Python's `splitlines` ends them.
fn lines(text: &str) -> Vec<&str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((at, end)) = rest.char_indices().find(|(_, c)| ends(*c)) else {
            lines.push(rest);
            break;
        };
        let (line, after) = rest.split_at(at);
        lines.push(line);
        rest = match after.strip_prefix("\r\n") {
            Some(after) => after,
            None => after.strip_prefix(end).unwrap_or_default(),
        };
    }
    lines
}

macro_rules! lookup_layer {
    ($($name:ident, $kind:ident;)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name(Lookup);

        impl KerasLayer for $name {
            fn read(fields: &mut Fields<'_>) -> Self {
                Self(Lookup::read(fields, Kind::$kind))
            }

            fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
                Ok(self.0.weights())
            }

            fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
                self.0.output(given)
            }

            fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
                Ok(vec![self.0.run(call.input()?, call.weights)?])
            }

            fn casts_itself(&self) -> bool {
                true
            }
        }
    )*};
}
lookup_layer! {
    IndexLookup, Index;
    IntegerLookup, Integer;
    StringLookup, String;
}

impl Lookup {
    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        let strings = !self.numbers && !self.invert;
        if strings != (input.dtype == Dtype::String) {
            let expected = if strings { "strings" } else { "numbers" };
            return Err(cannot(format!("expected {expected}, found {}", input.dtype)));
        }
        Ok(vec![self.mode.spec(&input.shape, self.depth(), self.dtype())])
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn lines_end_where_python_ends_them() {
        for (text, expected) in [
            ("", vec![]),
            ("\n", vec![""]),
            ("a\n\nb", vec!["a", "", "b"]),
            ("a\r\nb\rc\n", vec!["a", "b", "c"]),
            ("a\u{85}b\u{2028}c\u{1c}d\u{b}e\tf", vec!["a", "b", "c", "d", "e\tf"]),
        ] {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }
}
