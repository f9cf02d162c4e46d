//! Mistakes in what a layer is fed, and in what is made of its outputs.

use candle_core::{Device, Result};
use kandle_format::json::{Map, Value as Json};
use kandle_model::Weight;
use kandle_parity::{Array, Dtype, Recorded};
use serde_json::json;

use super::{Made, Mistake, Reference, Target, weights::flipped};

/// The mistakes around the layer, the plainest first.
pub(super) fn mistakes<'a>(target: &'a Target<'a>) -> Vec<Mistake<'a>> {
    let mut found = Vec::new();
    let mut add = |says: String, outputs: Box<dyn FnOnce() -> Option<Vec<Array>> + 'a>| {
        found.push(Mistake { says, made: Made::Around(outputs) });
    };
    let keras = &target.keras;
    let is_mask = |array: &Array| array.dtype() == Dtype::BOOL;
    if keras.input_masks.iter().any(Option::is_some) || keras.inputs.iter().any(is_mask) {
        type Masked = fn(&Array) -> Option<Array>;
        let ways: [(&str, Masked); 2] =
            [("the mask were ignored", |mask| filled(mask, 1)), ("the mask were inverted", inverted)];
        for (says, other) in ways {
            let outputs = move || {
                let given = |array: &Array| if is_mask(array) { other(array) } else { Some(array.clone()) };
                let inputs: Option<Vec<Array>> = keras.inputs.iter().map(given).collect();
                let masks: Option<Vec<_>> =
                    keras.input_masks.iter().map(|mask| mask.as_ref().map(other)).map(flat).collect();
                target.called(&inputs?, &masks?)
            };
            add(says.to_owned(), Box::new(outputs));
        }
    }
    if matches!(target.layer.class.as_str(), "Flatten" | "Reshape") {
        let outputs = move || target.called(&[channels_first(keras.inputs.first()?).ok()?], &[None]);
        add("the axes before it were channels first".to_owned(), Box::new(outputs));
    }
    if is_padded_on_both_sides(target) {
        add("the padding were on the other side".to_owned(), Box::new(move || padded_on_the_other_side(target)));
    }
    for before in fed_by(target) {
        let name = format!("\"{}\"", before.path);
        if before.class == "Flatten" || before.class == "Reshape" {
            let at = before.clone();
            let outputs = move || {
                let input = channels_first(at.recorded.inputs.first()?).ok()?;
                let made = Reference::call(&target.reference.model, &at.path, at.call, &[input], &[None])?;
                target.called(&at.in_place(keras, made.first()?), &keras.input_masks)
            };
            add(format!("the axes before {name} were channels first"), Box::new(outputs));
        }
        let has_activation = target.reference.settings(&before.path).and_then(|settings| settings.get("activation"));
        if has_activation.is_some_and(|given| *given != json!("linear") && before.class != "Activation") {
            let at = before.clone();
            let outputs = move || {
                let change = |settings: &mut Map<String, Json>| {
                    settings.insert("activation".to_owned(), json!("linear"));
                };
                let model = target.reference.changed(&at.path, &change, &|_: &Weight| None)?;
                let made = Reference::call(&model, &at.path, at.call, &at.recorded.inputs, &at.recorded.input_masks)?;
                target.called(&at.in_place(keras, made.first()?), &keras.input_masks)
            };
            add(format!("the activation of {name} before it were missing"), Box::new(outputs));
        }
        let same = |input: &Array| input.shape() == before.output.shape() && input.dtype() == before.output.dtype();
        if before.recorded.inputs.len() == 1 && before.recorded.inputs.first().is_some_and(same) {
            let at = before.clone();
            let outputs = move || target.called(&at.in_place(keras, at.recorded.inputs.first()?), &keras.input_masks);
            add(format!("{name} before it were left out"), Box::new(outputs));
        }
    }
    found
}

/// The option out of an option.
fn flat(mask: Option<Option<Array>>) -> Option<Option<Array>> {
    match mask {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

fn filled(mask: &Array, truth: u8) -> Option<Array> {
    Array::new(Dtype::BOOL, mask.shape().to_vec(), vec![truth; mask.len()]).ok()
}

fn inverted(mask: &Array) -> Option<Array> {
    Array::new(Dtype::BOOL, mask.shape().to_vec(), mask.bytes().iter().map(|truth| 1 - truth.min(&1)).collect()).ok()
}

/// The same numbers with their channels, the last axis, before the others, under the old shape.
fn channels_first(array: &Array) -> Result<Array> {
    let tensor = array.to_tensor(&Device::Cpu)?;
    let rank = tensor.rank();
    if rank < 3 {
        candle_core::bail!("nothing to permute")
    }
    let axes: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    Array::try_from(&tensor.permute(axes)?.contiguous()?.reshape(tensor.shape())?)
}

fn is_padded_on_both_sides(target: &Target<'_>) -> bool {
    let padding = target.settings().and_then(|settings| settings.get("padding")).and_then(Json::as_str);
    padding == Some("same") && !target.layer.class.contains("Transpose")
}

/// What is padded at the end padded at the beginning, and the other way: everything turned round, the kernels too.
fn padded_on_the_other_side(target: &Target<'_>) -> Option<Vec<Array>> {
    let input = target.keras.inputs.first()?.to_tensor(&Device::Cpu).ok()?;
    let first = target.settings()?.get("data_format").and_then(Json::as_str) == Some("channels_first");
    let axes: Vec<usize> = if first { (2..input.rank()).collect() } else { (1..input.rank() - 1).collect() };
    let own = target.reference.weights(&target.layer.path);
    let numbers = |weight: &Weight| {
        let own = own.iter().find(|own| own.weight.keras == weight.keras && weight.keras.contains("kernel"))?;
        let spatial: Vec<usize> = (0..own.numbers.rank().checked_sub(2)?).collect();
        flipped(&own.numbers, &spatial).ok()
    };
    let model = target.reference.changed(&target.layer.path, &|_| {}, &numbers)?;
    let turned = Array::try_from(&flipped(&input, &axes).ok()?).ok()?;
    let outputs = Reference::call(&model, &target.layer.path, target.call, &[turned], &[None])?;
    let back = |output: &Array| Array::try_from(&flipped(&output.to_tensor(&Device::Cpu).ok()?, &axes).ok()?).ok();
    outputs.iter().map(back).collect()
}

/// A call whose output the layer is fed.
#[derive(Clone)]
struct Before {
    path: String,
    class: String,
    call: usize,
    recorded: Recorded,
    output: Array,
}

impl Before {
    /// The layer's inputs with `other` where this call's output is.
    fn in_place(&self, keras: &Recorded, other: &Array) -> Vec<Array> {
        keras.inputs.iter().map(|input| if *input == self.output { other.clone() } else { input.clone() }).collect()
    }
}

/// The recorded calls whose output the layer is fed, the latest first: the same tensor, bit for bit.
fn fed_by(target: &Target<'_>) -> Vec<Before> {
    let mut found = Vec::new();
    for layer in &target.case.layers {
        for call in 0..layer.calls {
            if layer.path == target.layer.path && call == target.call {
                found.reverse();
                return found;
            }
            let Some(recorded) = target.case.recorded(&layer.path, call) else { continue };
            if let Some(output) =
                recorded.outputs.first().filter(|output| target.keras.inputs.contains(output)).cloned()
            {
                found.push(Before { path: layer.path.clone(), class: layer.class.clone(), call, recorded, output });
            }
        }
    }
    Vec::new()
}
