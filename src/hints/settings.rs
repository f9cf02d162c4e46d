//! Mistakes in a layer's settings.

use kandle_format::json::{Map, Value as Json};
use kandle_model::{Model, Weight};
use serde_json::json;

use super::{Made, Mistake, Target};

const EPSILONS: [f64; 6] = [1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12];
const SLOPES: [f64; 4] = [0.2, 0.3, 0.01, 0.1];

/// The mistakes in the settings of the layer, the plainest first.
pub(super) fn mistakes<'a>(target: &'a Target<'a>) -> Vec<Mistake<'a>> {
    let Some(settings) = target.settings() else { return Vec::new() };
    let mut found = Vec::new();
    let mut set = |says: String, key: &'static str, value: Json| {
        let change = move |settings: &mut Map<String, Json>| {
            settings.insert(key.to_owned(), value.clone());
        };
        let made = move || target.reference.changed(&target.layer.path, &change, &|_| None);
        found.push(Mistake { says, made: Made::Model(Box::new(made)) });
    };
    for key in ["activation", "recurrent_activation"] {
        let Some(given) = settings.get(key) else { continue };
        let is_layer_of_its_own = target.layer.class == "Activation";
        for (says, value) in other_activations(given) {
            let of_key = if key == "activation" { says } else { format!("{key}: {says}") };
            set(of_key, key, value);
        }
        if name_of(given).is_some_and(|name| name != "linear") {
            let says = if is_layer_of_its_own { "it were left out".to_owned() } else { format!("{key} were missing") };
            set(says, key, json!("linear"));
        }
    }
    if let Some(epsilon) = settings.get("epsilon").and_then(Json::as_f64) {
        for other in EPSILONS.into_iter().filter(|other| (other - epsilon).abs() > 1e-3 * epsilon) {
            set(format!("epsilon were {other:e}"), "epsilon", json!(other));
        }
    }
    for key in ["negative_slope", "alpha"] {
        if let Some(slope) = settings.get(key).and_then(Json::as_f64).filter(|_| is_leaky(target)) {
            for other in SLOPES.into_iter().filter(|other| (other - slope).abs() > 1e-3 * slope) {
                set(format!("the slope were {other}"), key, json!(other));
            }
        }
    }
    found.extend(reset_after(target, settings));
    found
}

fn is_leaky(target: &Target<'_>) -> bool {
    ["LeakyReLU", "ReLU"].contains(&target.layer.class.as_str())
}

/// The name of an activation, as a name or a serialized function.
fn name_of(value: &Json) -> Option<&str> {
    value.as_str().or_else(|| value.get("config").and_then(Json::as_str))
}

/// What else may go by the name of an activation.
fn other_activations(value: &Json) -> Vec<(String, Json)> {
    let leaky = |slope: f64| {
        let config = json!({"name": "leaky", "negative_slope": slope, "trainable": true, "dtype": "float32"});
        json!({"module": "keras.layers", "class_name": "LeakyReLU", "config": config, "registered_name": null})
    };
    match name_of(value) {
        Some("hard_sigmoid") => [
            ("hard_sigmoid were that of Keras 2, 0.2x + 0.5", "hard_sigmoid of Keras 2"),
            ("hard_sigmoid were that of Keras 3, x/6 + 0.5", "hard_sigmoid of Keras 3"),
        ]
        .map(|(says, name)| (says.to_owned(), json!(name)))
        .to_vec(),
        Some("gelu") => vec![("gelu were the approximation by tanh".to_owned(), json!("gelu by tanh"))],
        Some("leaky_relu") => {
            [0.3, 0.01, 0.1].map(|slope| (format!("the slope of leaky_relu were {slope}"), leaky(slope))).to_vec()
        }
        _ => Vec::new(),
    }
}

/// The other form of GRU. Without `reset_after` there is one bias: the sum of the two; with it the second is 0.
fn reset_after<'a>(target: &'a Target<'a>, settings: &Map<String, Json>) -> Option<Mistake<'a>> {
    let given = match target.layer.class.as_str() {
        // Keras 3 writes it; where it is missing, the file is older and it is false.
        "GRU" | "GRUCell" => settings.get("reset_after").and_then(Json::as_bool).unwrap_or(false),
        _ => return None,
    };
    let made = move || -> Option<Model> {
        let own = target.reference.weights(&target.layer.path);
        let biases: Vec<_> = own.iter().filter(|own| own.weight.keras == "bias").collect();
        let numbers = |weight: &Weight| {
            if weight.keras != "bias" {
                return own.iter().find(|own| own.weight.keras == weight.keras).map(|own| own.numbers.clone());
            }
            match (given, biases.as_slice()) {
                (true, [input, recurrent]) => (&input.numbers + &recurrent.numbers).ok(),
                // Keras's two rows.
                (true, [both]) if both.numbers.rank() == 2 => both.numbers.sum(0).ok(),
                (false, [only]) => match weight.part {
                    Some((0, _)) => only.numbers.reshape(weight.shape.as_slice()).ok(),
                    Some(_) => only.numbers.zeros_like().and_then(|zeros| zeros.reshape(weight.shape.as_slice())).ok(),
                    None => {
                        let zeros = only.numbers.zeros_like().ok()?;
                        candle_core::Tensor::stack(&[&only.numbers, &zeros], 0).ok()
                    }
                },
                _ => None,
            }
        };
        let change = move |settings: &mut Map<String, Json>| {
            settings.insert("reset_after".to_owned(), json!(!given));
        };
        target.reference.changed(&target.layer.path, &change, &numbers)
    };
    Some(Mistake { says: format!("reset_after were {}", !given), made: Made::Model(Box::new(made)) })
}
