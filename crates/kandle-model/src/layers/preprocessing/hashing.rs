//! `keras.layers.Hashing`: strings and whole numbers into buckets, by FarmHash or, with a salt, by SipHash.
//!
//! Shapes: values `(batch, …)`, buckets `(batch, …)`, int64, or encoded. In 3 buckets, `["A", "B", "C"]` are `[1, 0, 1]`;
//! with `mask_value` "" they share buckets 1 and 2, and "" is 0.
//!
//! Source: keras/src/layers/preprocessing/hashing.py.

use kandle_format::{Dtype, Problem, json::Value as Json};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    layers::{cannot, one},
    numeric::cast,
};

use super::{
    encode::{OutputMode, encode},
    fingerprint::bucket,
};

#[derive(Debug)]
pub(crate) struct Hashing {
    bins: usize,
    mask: Option<Json>,
    salt: Option<[u64; 2]>,
    mode: OutputMode,
}

impl KerasLayer for Hashing {
    fn read(fields: &mut Fields<'_>) -> Self {
        let mode = OutputMode::read(
            fields,
            &[
                ("int", OutputMode::Int),
                ("one_hot", OutputMode::OneHot),
                ("multi_hot", OutputMode::MultiHot),
                ("count", OutputMode::Count),
            ],
        );
        let mask = fields.take("mask_value").cloned();
        if let Some(value) = mask.as_ref().filter(|value| !value.is_string() && !value.is_number()) {
            fields.invalid("mask_value", value, "a text or a number");
        }
        // Keras: without a dtype, buckets are int64 and encodings float32.
        let defaulted = !fields.holds("dtype") && mode == OutputMode::Int;
        if mode == OutputMode::Int && !defaulted && !matches!(fields.policy().compute, Dtype::Int32 | Dtype::Int64) {
            fields.wrong(format!("dtype {}: output_mode int needs int32 or int64", fields.policy().compute));
        }
        Self { bins: fields.size("num_bins"), mask, salt: salt(fields), mode }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = one(given)?;
        if let (Some(mask), true) = (&self.mask, self.bins > 1)
            && mask.is_string() != (input.dtype == Dtype::String)
        {
            return Err(cannot(format!("mask_value = {mask} does not compare with {}", input.dtype)));
        }
        Ok(vec![self.mode.spec(&input.shape, self.bins, self.dtype(given))])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let input = call.input()?;
        let mask = self.mask.as_ref().filter(|_| self.bins > 1);
        let buckets = (self.bins - usize::from(mask.is_some())) as u64;
        let shift = i64::from(mask.is_some());
        let hash = |text: &[u8]| bucket(text, buckets, self.salt) + shift;
        let numbers: Vec<i64> = if input.dtype == Dtype::String {
            let masked = mask.and_then(Json::as_str).map(str::as_bytes);
            input.texts()?.into_iter().map(|text| if masked == Some(text) { 0 } else { hash(text) }).collect()
        } else {
            let masked = masked(input, mask)?;
            // Keras: floats are truncated before they are hashed, bools spelled out.
            let texts: Vec<String> = match input.dtype {
                Dtype::Bool => bools(input)?.into_iter().map(|flag| flag.to_string()).collect(),
                _ => cast(input, Dtype::Int64)?
                    .tensor
                    .flatten_all()?
                    .to_vec1::<i64>()?
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            };
            let number = |(text, masked): (String, bool)| if masked { 0 } else { hash(text.as_bytes()) };
            texts.into_iter().zip(masked).map(number).collect()
        };
        Ok(vec![encode(&numbers, input.tensor.dims(), self.mode, self.bins, self.dtype(call.given), None)?])
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl Hashing {
    fn dtype<T>(&self, given: Given<'_, T>) -> Dtype {
        match (self.mode, given.policy().variable) {
            // The dtype is checked where it is given.
            (OutputMode::Int, Dtype::Int32) => Dtype::Int32,
            (OutputMode::Int, _) => Dtype::Int64,
            (_, dtype) => dtype,
        }
    }
}

fn bools(input: &Value) -> candle_core::Result<Vec<bool>> {
    Ok(input.tensor.flatten_all()?.to_vec1::<u8>()?.into_iter().map(|flag| flag != 0).collect())
}

/// Which numbers are the mask's, compared before floats are truncated.
fn masked(input: &Value, mask: Option<&Json>) -> candle_core::Result<Vec<bool>> {
    let count = input.tensor.elem_count();
    let Some(mask) = mask else { return Ok(vec![false; count]) };
    if input.dtype.is_float() {
        // Keras compares in the dtype of the input.
        let Some(mask) = mask.as_f64() else { candle_core::bail!("mask_value = {mask} is no number") };
        let mask = candle_core::Tensor::new(mask, input.tensor.device())?.to_dtype(input.tensor.dtype())?;
        return Ok(input
            .tensor
            .broadcast_eq(&mask)?
            .flatten_all()?
            .to_vec1::<u8>()?
            .iter()
            .map(|same| *same != 0)
            .collect());
    }
    let Some(mask) = mask.as_i64() else { candle_core::bail!("mask_value = {mask} is no whole number") };
    let numbers = cast(input, Dtype::Int64)?.tensor.flatten_all()?.to_vec1::<i64>()?;
    Ok(numbers.into_iter().map(|number| number == mask).collect())
}

/// The setting `salt`: two numbers, or one that stands for both.
pub(crate) fn salt(fields: &mut Fields<'_>) -> Option<[u64; 2]> {
    let value = fields.take("salt")?;
    // A negative number stands for the same 64 bits.
    let bits = |number: &Json| number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned));
    let pair = match value {
        Json::Array(items) => items.iter().map(bits).collect::<Option<Vec<u64>>>(),
        one => bits(one).map(|one| vec![one, one]),
    };
    match pair.as_deref() {
        Some([first, second]) => Some([*first, *second]),
        _ => {
            fields.invalid("salt", value, "one or two whole numbers");
            None
        }
    }
}
