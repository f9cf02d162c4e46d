//! Settings of Keras 1 and 2 that leave a question open, asked of recorded files with that one thing changed.

use kandle::{ModelConfig, Plan};
use serde_json::{Value as Json, json};

use crate::files::*;

/// What planning the recorded model `file` fails with once Keras `version` wrote it and `edit` changed it.
fn asked(file: &str, version: &str, edit: impl Fn(&mut Json)) -> String {
    let archive = open(recorded(&format!("written_by/{file}"))).unwrap();
    let mut config = archive.config_json().unwrap().clone();
    config["keras_version"] = version.into();
    config["backend"] = archive.backend().unwrap_or("tensorflow").into();
    let plan = |config: &Json| Plan::new(&ModelConfig::from_json(&config.to_string()).unwrap());
    assert!(plan(&config).is_ok() || version != archive.keras_version().unwrap(), "{file} as it was recorded");
    edit(&mut config);
    plan(&config).expect_err("this must be refused").to_string()
}

/// The settings of the layer with the class `class` in `config`, or in its layers.
fn settings<'a>(config: &'a mut Json, class: &str) -> &'a mut Json {
    let layers = if config["config"].is_array() { &mut config["config"] } else { &mut config["config"]["layers"] };
    let layer = layers.as_array_mut().unwrap().iter_mut().find(|layer| layer["class_name"] == class);
    &mut layer.unwrap_or_else(|| panic!("no {class}"))["config"]
}

#[test]
fn questions_that_a_file_leaves_open_are_asked() {
    const ENLARGED: &str = "tf-1.15/enlarged/model.h5";
    const IMAGES: &str = "keras-1.2.2/images/model.h5";
    check(&[
        Case {
            is: "images enlarged by TensorFlow 1.14 or 1.15",
            error: || {
                asked(ENLARGED, "2.2.4-tf", |config| {
                    settings(config, "InputLayer").as_object_mut().unwrap().remove("ragged");
                })
            },
            says: "2 problems\n  model.json › layers[1]: interpolation = \"bilinear\" of Keras 2.2.4-tf: was it TensorFlow 1.15 or later, or before? They differ, and the file does not say. Save the model with TensorFlow 2.2 or later\n  model.json › layers[2]: interpolation = \"bilinear\" of Keras 2.2.4-tf: was it TensorFlow 1.15 or later, or before? They differ, and the file does not say. Save the model with TensorFlow 2.2 or later",
        },
        Case {
            is: "an order of axes that other layers don't agree on",
            error: || asked(IMAGES, "1.2.2", |config| settings(config, "MaxPooling2D")["dim_ordering"] = "th".into()),
            says: "2 problems\n  model.json › layers[0]: dim_ordering is not in the file, and the other layers name 2 orders: which one is it, \"tf\" (channels last) or \"th\"? Save the model with a later version of Keras\n  model.json › layers[4]: dim_ordering is not in the file, and the other layers name 2 orders: which one is it, \"tf\" (channels last) or \"th\"? Save the model with a later version of Keras",
        },
        Case {
            is: "a word of Keras 3 in a file of Keras 2",
            error: || {
                asked(ENLARGED, "2.2.4-tf", |config| {
                    let settings = settings(config, "InputLayer").as_object_mut().unwrap();
                    let shape = settings.remove("batch_input_shape").unwrap();
                    settings.insert("batch_shape".to_owned(), shape);
                })
            },
            says: "model.json › layers[0]: batch_shape is a word of Keras 3, in a file that says it is of Keras 2.2.4-tf: which of both is right?",
        },
        Case {
            is: "a version that is none",
            error: || asked(ENLARGED, "later", |_| {}),
            says: "model.json: written by Keras later, only files of Keras 1 to 3 are supported",
        },
        Case {
            is: "an activation of Keras 3 in a file of Keras 2",
            error: || {
                asked("keras-2.2.4/images/model.h5", "2.2.4", |config| {
                    settings(config, "Conv2D")["activation"] = "hard_silu".into();
                })
            },
            says: "layer \"conv2d_1\" (Conv2D): activation = \"hard_silu\" is not of Keras 2.2.4, but a function of the program that wrote the file, which does not say what it computes",
        },
        Case {
            is: "a running_std that was a deviation once",
            error: || asked(IMAGES, "1.0.5", |_| {}),
            says: "model.json › layers[2]: written by Keras 1.0.5: until 1.0.5 running_std was a deviation, later a variance. Save the model with Keras 1.0.6 or later",
        },
        Case {
            is: "an einsum, whose operands Keras loses",
            error: || {
                asked("tf-2.4/operators_shapes/model.h5", "2.4.0", |config| {
                    settings(config, "TFOpLambda")["function"] = json!("linalg.einsum");
                })
            },
            says: "layer \"tf.compat.v1.shape\" (TFOpLambda): tf.linalg.einsum: its operands are not in the file: Keras saves the equation alone",
        },
        Case {
            is: "a where that takes rows",
            error: || {
                asked("tf-2.4/operators_shapes/model.h5", "2.4.0", |config| {
                    settings(config, "TFOpLambda")["function"] = json!("compat.v1.where");
                })
            },
            says: "layer \"tf.compat.v1.shape\" (TFOpLambda): tf.compat.v1.where: this function of TensorFlow is not supported",
        },
        Case {
            is: "an operation of TensorFlow that is not known",
            error: || {
                asked("tf-2.4/operators_shapes/model.h5", "2.4.0", |config| {
                    settings(config, "TFOpLambda")["function"] = json!("math.bessel_i0");
                })
            },
            says: "layer \"tf.compat.v1.shape\" (TFOpLambda): tf.math.bessel_i0: this function of TensorFlow is not supported",
        },
    ]);
}
