//! What Keras 1 and 2 computed otherwise on Theano.
//!
//! Source: keras/backend/theano_backend.py of Keras 1.2 and 2.2 (`conv2d`, `pool2d`, `resize_images`).

use kandle_format::{ErrorKind, ModelConfig, Problem, json::Value as Json, shown};

/// The layers of a model of Keras 1 or 2 that another backend than Theano computes otherwise.
pub(crate) fn differs_on_theano(config: &ModelConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for layer in &config.layers {
        let value = Json::from(layer.config.clone());
        let mut found: Vec<&'static str> = reason(&layer.class, &value).into_iter().collect();
        walk(&value, &mut found);
        if let Some(what) = found.first() {
            let at = format!("layer \"{}\" ({})", shown(&layer.name), shown(&layer.class));
            problems.push(Problem::new(
                ErrorKind::Unsupported,
                at,
                format!("{what} of Keras on Theano is not supported"),
            ));
        }
    }
    problems
}

fn walk(value: &Json, found: &mut Vec<&'static str>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| walk(item, found)),
        Json::Object(map) => {
            if let (Some(class), Some(config)) = (map.get("class_name").and_then(Json::as_str), map.get("config")) {
                found.extend(reason(class, config));
            }
            map.values().for_each(|item| walk(item, found));
        }
        _ => {}
    }
}

/// What of a layer differs.
fn reason(class: &str, config: &Json) -> Option<&'static str> {
    let says =
        |keys: &[&str], wanted: &str| keys.iter().any(|key| config.get(*key).and_then(Json::as_str) == Some(wanted));
    let any = |keys: &[&str], is: fn(u64) -> bool| {
        keys.iter().filter_map(|key| config.get(*key)).any(|value| match value {
            Json::Array(items) => items.iter().filter_map(Json::as_u64).any(is),
            value => value.as_u64().is_some_and(is),
        })
    };
    let same = says(&["border_mode", "padding"], "same");
    if class.contains("Transpose") || class.starts_with("Deconv") {
        return Some("a transposed convolution");
    }
    if class == "UpSampling2D" && says(&["interpolation"], "bilinear") {
        return Some("bilinear interpolation");
    }
    if same && class.contains("Pooling") {
        return Some("pooling with padding = same");
    }
    // Keras: half a kernel is added at both ends there, and what is too much is cut off at the last one.
    let sizes = ["nb_row", "nb_col", "filter_length", "kernel_dim1", "kernel_dim2", "kernel_dim3", "kernel_size"];
    let uneven =
        any(&sizes, |size| size % 2 == 0) || any(&["subsample", "subsample_length", "strides"], |step| step > 1);
    (same && class.contains("Conv") && uneven)
        .then_some("a convolution with padding = same and an even kernel or strides above 1")
}
