//! Opens a model that holds a layer of the user's own: `cargo run --example custom_layer`.
//!
//! What a Python class computes is not in the file, so it is written again here, once, and registered under the name that
//! Keras saved the class under. The model was made by
//!
//! ```python
//! @keras.saving.register_keras_serializable(package="package")
//! class Name(keras.layers.Layer):
//!     def call(self, xs):
//!         return xs + 1.0
//! ```

use std::error::Error;

use candle_core::Device;
use kandle::{
    Call, Fields, Given, Judged, KerasLayer, Model, Problem, Registry, Spec, Value,
    parity::{Case, check},
};

/// `xs + 1`, of any shape.
#[derive(Debug)]
struct Name;

impl KerasLayer for Name {
    // Every key of `get_config` is read here (`fields.number("factor", 1.0)`); a key that nobody reads fails the load.
    fn read(_: &mut Fields<'_>) -> Self {
        Self
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = given.input().map_err(|what| Problem::new(kandle::ErrorKind::Invalid, "", what))?;
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let xs = call.input()?;
        Ok(vec![xs.with_tensor((&xs.tensor + 1.0)?)])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let case = Case::open("reference_outputs/refused/custom")?;
    let file = case.path.join("model.keras");

    // Without the layer, the file is refused, and the reason says what to do.
    if let Err(error) = Model::load(&file, &Device::Cpu) {
        println!("{error}");
    }

    let custom = Registry::new().layer::<Name>("package>Name");
    let model = Model::load_with(&file, &custom, &Device::Cpu)?;
    let verdict = check(&case, "model.keras", &Judged(&model));
    println!("{verdict}");
    if verdict.is_ok() { Ok(()) } else { Err("not what Keras recorded".into()) }
}
