//! Opens a model that holds a layer of the user's own: `cargo run --example custom_layer`, or, for another recorded case,
//! `cargo run --example custom_layer -- CASE`.
//!
//! What a Python class computes is not in the file, so it is written again here, once, and registered under the name that
//! Keras saved the class under. Two such classes are known here, one of a file of today, and one of a file of Keras 2.2, which
//! has the bare name of the class:
//!
//! ```python
//! @keras.saving.register_keras_serializable(package="package")
//! class Name(keras.layers.Layer):
//!     def call(self, xs):
//!         return xs + 1.0
//!
//! class SqueezeLayer(keras.layers.Layer):
//!     def call(self, xs):
//!         return K.squeeze(xs, axis=self.axis)
//! ```

use std::error::Error;

use candle_core::Device;
use kandle::{
    Call, ErrorKind, Fields, Given, Judged, KerasLayer, Model, Problem, Registry, Shape, Spec, Value,
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
        Ok(vec![input(given)?.clone()])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let xs = call.input()?;
        Ok(vec![xs.with_tensor((&xs.tensor + 1.0)?)])
    }
}

/// An axis of size 1 is taken away: `(batch, …, 1, …)` becomes `(batch, …, …)`.
#[derive(Debug)]
struct Squeeze {
    axis: i64,
}

impl Squeeze {
    /// The axis among `rank`, counted from the end where it is negative.
    fn place(&self, rank: usize) -> Option<usize> {
        let rank = i64::try_from(rank).ok()?;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        usize::try_from(axis).ok().filter(|_| axis < rank)
    }
}

impl KerasLayer for Squeeze {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self { axis: fields.integer("axis", -1) }
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let input = input(given)?;
        let Shape(mut axes) = input.shape.clone();
        match self.place(axes.len()).filter(|axis| axes.get(*axis) == Some(&Some(1))) {
            Some(axis) => axes.remove(axis),
            None => return Err(Problem::new(ErrorKind::Invalid, "", format!("axis {} is not of size 1", self.axis))),
        };
        Ok(vec![Spec { shape: Shape(axes), dtype: input.dtype }])
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        let xs = call.input()?;
        let axis = self.place(xs.tensor.rank()).ok_or_else(|| candle_core::Error::msg("no such axis"))?;
        Ok(vec![xs.with_tensor(xs.tensor.squeeze(axis)?)])
    }
}

/// The one input of a layer.
fn input<'a>(given: Given<'a, Spec>) -> Result<&'a Spec, Problem> {
    given.input().map_err(|what| Problem::new(ErrorKind::Invalid, "", what))
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "reference_outputs/refused/custom".to_owned());
    let case = Case::open(path)?;
    let name = case.files.first().ok_or("a case without files")?;
    let file = case.path.join(name);

    // Without the layer, the file is refused, and the reason says what to do.
    if let Err(error) = Model::load(&file, &Device::Cpu) {
        println!("{error}");
    }

    let custom = Registry::new().layer::<Name>("package>Name").layer::<Squeeze>("SqueezeLayer");
    let model = Model::load_with(&file, &custom, &Device::Cpu)?;
    let verdict = check(&case, name, &Judged(&model));
    println!("{verdict}");
    if verdict.is_ok() { Ok(()) } else { Err("not what Keras recorded".into()) }
}
