//! Opens a model that holds a layer of the user's own: `cargo run --example custom_layer`.
//!
//! What a Python class computes is not in the file, so it is written again here, once, and registered under the name that
//! Keras saved the class under. The model was made by
//!
//! ```python
//! @keras.saving.register_keras_serializable(package="package")
//! class Scale(keras.layers.Layer):
//!     def __init__(self, factor, **kwargs):
//!         super().__init__(**kwargs)
//!         self.factor = factor
//!
//!     def build(self, shape):
//!         self.offset = self.add_weight(shape=(shape[-1],), name="offset")
//!
//!     def call(self, xs):
//!         return xs * self.factor + self.offset
//!
//!     def get_config(self):
//!         return {**super().get_config(), "factor": self.factor}
//! ```

use std::error::Error;

use candle_core::Device;
use kandle::{
    Call, Fields, Given, Judged, KerasLayer, Model, Problem, Registry, Spec, Value, Weight,
    parity::{Case, check},
};

/// `xs · factor + offset`. Shapes: xs `(batch, …, features)`, offset `(features,)`, result as xs.
#[derive(Debug)]
struct Scale {
    factor: f64,
}

impl KerasLayer for Scale {
    // Every key of `get_config` is read; a key that nobody reads would fail the load.
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { factor: fields.number("factor", 1.0) }
    }

    // In the order of `add_weight`. The variable is called `scale.offset`, after the layer's name.
    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        Ok(vec![Weight::as_keras("offset", vec![given.features()?])])
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = given.input().map_err(|what| Problem::new(kandle::ErrorKind::Invalid, "", what))?;
        Ok(vec![input.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let xs = call.input()?;
        let ys = (&xs.tensor * self.factor)?.broadcast_add(call.weight(0)?)?;
        Ok(vec![xs.with_tensor(ys)])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let case = Case::open("reference_outputs/custom/scale")?;
    let file = case.path.join("model.keras");

    // Without the layer, the file is refused, and the reason says what to do.
    if let Err(error) = Model::load(&file, &Device::Cpu) {
        println!("{error}");
    }

    let custom = Registry::new().layer::<Scale>("package>Scale");
    let model = Model::load_with(&file, &custom, &Device::Cpu)?;
    let verdict = check(&case, "model.keras", &Judged(&model));
    println!("{verdict}");
    if verdict.is_ok() { Ok(()) } else { Err("not what Keras recorded".into()) }
}
