/// Which of Keras's files this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// `.keras`: configuration and weights, in a zip or as the same files in a folder.
    Keras,
    /// Weights alone, grouped by class and number: `.weights.h5`, or `.weights.json` with the files it names.
    Weights,
    /// Legacy whole-model `.h5`: configuration and weights, grouped by layer name.
    Legacy,
    /// Legacy `.h5` of weights alone, grouped by layer name.
    LegacyWeights,
    /// The text that `model.to_json()` gives: a configuration alone.
    Architecture,
}

impl Container {
    /// In words, as `kandle inspect` says it.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Keras => "a .keras file: configuration and weights",
            Self::Weights => "a weight store (.weights.h5): weights without a configuration",
            Self::Legacy => "a legacy .h5 file: configuration and weights",
            Self::LegacyWeights => "a legacy .h5 file of weights alone, without a configuration",
            Self::Architecture => "an architecture, the text of model.to_json(): a configuration without weights",
        }
    }

    /// Whether there is a configuration in such a file.
    #[must_use]
    pub fn has_config(self) -> bool {
        matches!(self, Self::Keras | Self::Legacy | Self::Architecture)
    }
}
