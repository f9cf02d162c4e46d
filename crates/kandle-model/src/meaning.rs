//! What the settings of a layer mean to inference: what is read of them, and nothing else.

use kandle_format::{LayerConfig, ModelConfig};

use crate::{Fields, KerasLayer, PlannedLayer, Policy, dialect, fields::Context, registry::class_of};

impl PlannedLayer {
    /// What inference makes of the layer's settings, as a text: two layers of the same class with the same text compute the
    /// same from the same weights.
    #[must_use]
    pub fn meaning(&self) -> String {
        meaning(&self.policy, self.layer.as_ref())
    }
}

/// What inference would make of the settings of `layer` in `model`, as [`PlannedLayer::meaning`] has it; `None` where they
/// are refused, or where they need a file beside the configuration.
#[must_use]
pub fn meaning_of(layer: &LayerConfig, model: &ModelConfig) -> Option<String> {
    let mut layer = layer.clone();
    if dialect::is_legacy(model.keras_major()) {
        dialect::layer(&mut layer, model.keras_version.as_deref()).ok()?;
    }
    let class = class_of(&layer, &layer.at, None).ok()?;
    let context = Context { keras_version: model.keras_version.as_deref(), legacy: model.legacy, ..Context::default() };
    let mut fields = Fields::new(&layer.config, &layer.at, context);
    fields.common();
    let read = class.read(&mut fields);
    let policy = fields.policy().clone();
    fields.finish().is_empty().then(|| meaning(&policy, read.as_ref()))
}

fn meaning(policy: &Policy, layer: &dyn KerasLayer) -> String {
    // Whether gradients reach the weights of a layer inside this one changes no number.
    format!("{policy:?} {layer:?}").replace("trainable: false", "trainable: true")
}
