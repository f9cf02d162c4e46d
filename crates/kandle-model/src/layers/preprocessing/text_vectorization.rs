//! `keras.layers.TextVectorization`: texts standardized, split, joined to n-grams and looked up in a vocabulary.
//!
//! Shapes: texts `(batch,)` or `(batch, 1)`; numbers `(batch, longest)` or `(batch, output_sequence_length)`, int64, or
//! encoded `(batch, vocabulary)`. 0 pads, 1 is what is unknown. With vocabulary `["the", "cat"]`, `["The cat!", "a"]` are
//! `[[2, 3], [1, 0]]`.
//!
//! Source: keras/src/layers/preprocessing/text_vectorization.py.

use candle_core::{Device, Tensor, bail};
use kandle_format::{Dtype, Problem, json::Value as Json};

use crate::{
    Call, Fields, Given, KerasLayer, Shape, Spec, Value, Weight,
    layers::{cannot, one},
};

use super::{
    encode::OutputMode,
    index_lookup::{Kind, Lookup},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Nothing,
    Whitespace,
    Character,
}

#[derive(Debug)]
pub(crate) struct TextVectorization {
    lower: bool,
    strip: bool,
    split: Split,
    /// The sizes of n-grams; `None` for the tokens themselves.
    ngrams: Option<Vec<usize>>,
    length: Option<usize>,
    lookup: Lookup,
}

impl KerasLayer for TextVectorization {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.only("ragged", &false.into());
        let (lower, strip) = match fields.holds("standardize") {
            false => (true, true),
            true => setting(
                fields,
                "standardize",
                (false, false),
                &[
                    ("lower_and_strip_punctuation", (true, true)),
                    ("lower", (true, false)),
                    ("strip_punctuation", (false, true)),
                ],
            ),
        };
        let split = match fields.holds("split") {
            false => Split::Whitespace,
            true => setting(
                fields,
                "split",
                Split::Nothing,
                &[("whitespace", Split::Whitespace), ("character", Split::Character)],
            ),
        };
        let ngrams = fields.take("ngrams");
        let sizes = ngrams.and_then(|value| match value {
            Json::Array(items) => items.iter().map(size).collect(),
            one => size(one).map(|most| (1..=most).collect::<Vec<usize>>()),
        });
        if let (Some(value), None) = (ngrams, &sizes) {
            fields.invalid("ngrams", value, "sizes of at least 1");
        }
        let length = fields.optional_size("output_sequence_length");
        let lookup = Lookup::read(fields, Kind::Vectorization);
        if lookup.mode == OutputMode::OneHot && split != Split::Nothing {
            fields.refuse("output_mode one_hot makes a ragged tensor of texts that are split, which is not supported");
        }
        if length.is_some() && lookup.mode != OutputMode::Int {
            fields.wrong("output_sequence_length is for output_mode int");
        }
        Self { lower, strip, split, ngrams: sizes, length, lookup }
    }

    fn weights(&self, _: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        // Keras saves them twice: with the layer, and with the look-up inside it.
        let weights = self.lookup.weights();
        let inside = |weight: &Weight| Weight {
            owner: "_lookup_layer".to_owned(),
            candle: format!("lookup_layer.{}", weight.candle),
            ..weight.clone()
        };
        Ok(weights.iter().cloned().chain(weights.iter().map(inside)).collect())
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if input.dtype != Dtype::String {
            return Err(cannot(format!("expected strings, found {}", input.dtype)));
        }
        let Shape(mut axes) = input.shape.clone();
        if self.split != Split::Nothing {
            if axes.len() > 1 {
                axes.pop();
            }
            if axes.len() != 1 {
                return Err(cannot(format!("expected texts of (batch,) or (batch, 1), found {}", input.shape)));
            }
            axes.push(None);
        } else if self.ngrams.is_some()
            && let Some(last) = axes.last_mut()
        {
            *last = None;
        }
        if self.lookup.mode == OutputMode::Int {
            if let (Some(length), Some(last)) = (self.length, axes.last_mut()) {
                *last = Some(length);
            }
            return Ok(vec![Spec { shape: Shape(axes), dtype: Dtype::Int64 }]);
        }
        Ok(vec![self.lookup.mode.spec(&Shape(axes), self.lookup.depth(), self.lookup.dtype())])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let texts: Vec<Vec<u8>> = input.texts()?.into_iter().map(|text| self.standardized(text)).collect();
        // Rows of tokens: those of one text each, or where texts are tokens already, those along the last axis.
        let mut dims = input.tensor.dims().to_vec();
        let rows: Vec<Vec<Vec<u8>>> = if self.split == Split::Nothing {
            let size = dims.pop().unwrap_or(1);
            let mut texts = texts.into_iter();
            (0..dims.iter().product::<usize>()).map(|_| texts.by_ref().take(size).collect()).collect()
        } else {
            if dims.len() > 1 && dims.pop() != Some(1) {
                bail!("expected texts of (batch,) or (batch, 1), found {:?}", input.tensor.dims())
            }
            texts.iter().map(|text| self.split(text)).collect()
        };
        let number = |row: Vec<Vec<u8>>| {
            self.joined(row).iter().map(|token| self.lookup.number(token)).collect::<candle_core::Result<Vec<i64>>>()
        };
        let mut rows = rows.into_iter().map(number).collect::<candle_core::Result<Vec<_>>>()?;
        let encodes = self.lookup.mode != OutputMode::Int;
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        // In an encoding, no token takes no place.
        let (length, padding) = if encodes { (longest.max(1), i64::MAX) } else { (self.length.unwrap_or(longest), 0) };
        rows.iter_mut().for_each(|row| row.resize(length, padding));
        dims.push(length);
        let numbers = rows.concat();
        if encodes {
            return Ok(vec![self.lookup.encoded(&numbers, &dims, call.weights)?]);
        }
        Ok(vec![Value::new(Tensor::from_vec(numbers, dims, &Device::Cpu)?, Dtype::Int64)])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl TextVectorization {
    /// Keras: only ASCII letters are lowered, and only ASCII punctuation is dropped.
    fn standardized(&self, text: &[u8]) -> Vec<u8> {
        let text = text.iter().filter(|byte| !self.strip || !byte.is_ascii_punctuation());
        text.map(|byte| if self.lower { byte.to_ascii_lowercase() } else { *byte }).collect()
    }

    fn split(&self, text: &[u8]) -> Vec<Vec<u8>> {
        match self.split {
            Split::Nothing => vec![text.to_vec()],
            Split::Whitespace => {
                let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
                text.split(space).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
            }
            Split::Character => String::from_utf8_lossy(text).chars().map(|c| c.to_string().into_bytes()).collect(),
        }
    }

    /// The n-grams of a row, all of one size before those of the next.
    fn joined(&self, row: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        match &self.ngrams {
            None => row,
            Some(sizes) => sizes.iter().flat_map(|size| row.windows(*size).map(|tokens| tokens.join(&b' '))).collect(),
        }
    }
}

fn size(value: &Json) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok().filter(|size| *size > 0)
}

/// A setting that is one of `choices`, or null for `nothing`.
fn setting<T: Copy>(fields: &mut Fields<'_>, key: &'static str, nothing: T, choices: &[(&str, T)]) -> T {
    let Some(value) = fields.take(key) else { return nothing };
    match choices.iter().find(|choice| value.as_str() == Some(choice.0)) {
        Some(choice) => choice.1,
        None => {
            let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
            fields.unsupported(key, value, &names.join(", "));
            nothing
        }
    }
}
