use std::collections::BTreeMap;

use kandle_format::{ErrorKind, LayerConfig, Problem, shown};

use crate::{
    Fields, KerasLayer,
    dialect::TensorFlowFunction,
    layers::FAMILIES,
    ops::{OPERATIONS, Operation},
};

/// A layer class that is reproduced.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// Keras's name of the class.
    pub class: &'static str,
    /// The folder Keras has it in.
    pub family: Family,
    how: Read,
}

impl Registered {
    /// Reads a layer of this class.
    pub(crate) fn read(&self, fields: &mut Fields<'_>) -> Box<dyn KerasLayer> {
        self.how.read(fields)
    }
}

/// Keras's folders of layers; `Applications` is `keras.applications`, `Legacy` are layers that only Keras 1 and 2 have, `Ops`
/// is `keras.ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the folder it prints")]
pub enum Family {
    Core,
    Activations,
    Convolutional,
    Pooling,
    Normalization,
    Merging,
    Reshaping,
    Regularization,
    Rnn,
    Attention,
    Preprocessing,
    Applications,
    Legacy,
    Ops,
}

impl Family {
    /// The folder's name: `core`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Activations => "activations",
            Self::Convolutional => "convolutional",
            Self::Pooling => "pooling",
            Self::Normalization => "normalization",
            Self::Merging => "merging",
            Self::Reshaping => "reshaping",
            Self::Regularization => "regularization",
            Self::Rnn => "rnn",
            Self::Attention => "attention",
            Self::Preprocessing => "preprocessing",
            Self::Applications => "applications",
            Self::Legacy => "legacy",
            Self::Ops => "ops",
        }
    }
}

/// A line of a registry: the class `class` is read as `L`.
pub(crate) const fn layer<L: KerasLayer + 'static>(class: &'static str, family: Family) -> Registered {
    Registered { class, family, how: Read::Layer(|fields| Box::new(L::read(fields))) }
}

/// Every layer class that is reproduced, in the order of the README.
pub fn layers() -> impl Iterator<Item = &'static Registered> {
    FAMILIES.iter().copied().flatten()
}

/// Every operation of `keras.ops` that is reproduced as a node of a graph.
pub fn operations() -> impl Iterator<Item = Registered> {
    let registered = |operation: &'static Operation| Registered {
        class: operation.class,
        family: Family::Ops,
        how: Read::Operation(operation),
    };
    OPERATIONS.iter().copied().flatten().map(registered)
}

pub(crate) fn find(class: &str) -> Option<&'static Registered> {
    layers().find(|layer| layer.class == class)
}

fn find_operation(class: &str) -> Option<Registered> {
    operations().find(|operation| operation.class == class)
}

type ReadLayer = fn(&mut Fields<'_>) -> Box<dyn KerasLayer>;

/// How a class is read: by a function of its own, or as a line of a table of operations.
#[derive(Debug, Clone, Copy)]
enum Read {
    Layer(ReadLayer),
    Operation(&'static Operation),
}

impl Read {
    fn read(self, fields: &mut Fields<'_>) -> Box<dyn KerasLayer> {
        match self {
            Self::Layer(read) => read(fields),
            Self::Operation(operation) => operation.read(fields),
        }
    }
}

/// Layers of the user's own, by the name Keras registered their Python class under.
///
/// What a Python class computes is not in the file. A model that holds such layers is opened with an implementation for
/// each, see `examples/custom_layer.rs`.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    layers: BTreeMap<String, ReadLayer>,
    other_functions: bool,
}

impl Registry {
    /// An empty registry: Keras's own layers only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads layers registered as `name` with `L`: `package>Name` for a class under
    /// `@keras.saving.register_keras_serializable(package="package")`, or the bare class name that old files have.
    #[must_use]
    pub fn layer<L: KerasLayer + 'static>(mut self, name: &str) -> Self {
        self.layers.insert(name.to_owned(), |fields| Box::new(L::read(fields)));
        self
    }

    /// Also reads activations that go by the name of another in other versions or programs: `hard_sigmoid of Keras 2` and
    /// `of Keras 3`, `gelu by tanh` and `by erf`. No file has these names; they are for asking what a model would give if its
    /// file meant the other.
    #[must_use]
    pub fn with_other_functions(self) -> Self {
        Self { other_functions: true, ..self }
    }

    pub(crate) fn has_other_functions(&self) -> bool {
        self.other_functions
    }

    fn find(&self, layer: &LayerConfig) -> Option<ReadLayer> {
        let registered = layer.registered_name.as_deref().and_then(|name| self.layers.get(name));
        registered.or_else(|| self.layers.get(&layer.class)).copied()
    }
}

/// How a layer of a file is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    read: Read,
    operation: bool,
    custom: bool,
}

impl Class {
    pub(crate) fn read(&self, fields: &mut Fields<'_>) -> Box<dyn KerasLayer> {
        self.read.read(fields)
    }

    pub(crate) fn is_operation(&self) -> bool {
        self.operation
    }

    /// Whether it is a layer of the user's own.
    pub(crate) fn is_custom(&self) -> bool {
        self.custom
    }
}

/// The class of the layer at `at`, if it is reproduced or the user's own.
pub(crate) fn class_of(layer: &LayerConfig, at: &str, custom: Option<&Registry>) -> Result<Class, Problem> {
    let refuse = |what: String| Err(Problem::new(ErrorKind::Unsupported, at, what));
    if let Some(read) = custom.and_then(|custom| custom.find(layer)) {
        return Ok(Class { read: Read::Layer(read), operation: false, custom: true });
    }
    // A legacy file has the registered name as the class.
    let names = layer.registered_name.as_deref().into_iter().chain([layer.class.as_str()]);
    if let Some(name) = names.into_iter().find(|name| name.contains('>')) {
        let name = shown(name);
        return refuse(format!(
            "{name} is a user's own layer class, whose Python code is not in the file: register a layer for it"
        ));
    }
    if matches!(layer.class.as_str(), "TFOpLambda" | "SlicingOpLambda") {
        let read: ReadLayer = |fields| Box::new(TensorFlowFunction::read(fields));
        return Ok(Class { read: Read::Layer(read), operation: true, custom: false });
    }
    if layer.class == "TensorFlowOpLayer" {
        let what = "a TensorFlowOpLayer holds a node of TensorFlow's own graph, which is not reproduced: TensorFlow 2.4 and later save the function by name";
        return refuse(what.to_owned());
    }
    if layer.class == "Lambda" {
        let what = "a Lambda layer holds Python code, which is never run: build the model with a built-in layer instead, and save it again";
        return refuse(what.to_owned());
    }
    let module = layer.module.as_deref();
    let operation = match module {
        Some(module) => {
            ["keras.src.ops.", "keras.ops", "keras.src.activations."].iter().any(|ops| module.starts_with(ops))
        }
        // Legacy files name no module. A layer's settings always hold whether it is trainable, an operation's never.
        None => !layer.config.contains_key("trainable") && find_operation(&layer.class).is_some(),
    };
    if operation {
        return match find_operation(&layer.class) {
            Some(found) => Ok(Class { read: found.how, operation, custom: false }),
            None => refuse("this operation of keras.ops is not supported".to_owned()),
        };
    }
    // Keras: the classes of keras.applications have no public name, so that only their module says whose they are.
    let found = find(&layer.class).filter(|found| found.family != Family::Applications || module.is_some());
    let foreign = module.filter(|module| !matches!(module.split('.').next(), Some("keras" | "tf_keras")));
    match (found, foreign) {
        (_, Some(module)) => refuse(format!("this class is not Keras's own: it comes from {}", shown(module))),
        (Some(found), None) => Ok(Class { read: found.how, operation, custom: false }),
        (None, None) => {
            refuse("this layer class is not supported: if it is your own, register a layer for it".to_owned())
        }
    }
}
