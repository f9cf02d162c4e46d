use kandle_format::{Arrays, Dtype, Error, ErrorKind, Problem, Result, json::Value};

use crate::{Arguments, Fields, Given, Layout, Policy, Shape, Spec, fields::Context, registry, run::planned_inputs};

/// One weight of a layer: how Keras calls and shapes it, and how candle does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weight {
    /// Keras's name: `kernel`.
    pub keras: &'static str,
    /// Keras's shape.
    pub shape: Vec<usize>,
    /// candle-nn's name: `weight`.
    pub candle: String,
    /// How candle orders the same numbers.
    pub layout: Layout,
    /// The object inside the layer that has it, as the weight store spells its path: `cell`; empty for the layer itself.
    pub owner: String,
    /// The same in a store that counts a layer with weights twice, where it is another.
    pub(crate) owner_named_twice: Option<String>,
    /// The dtype in the file; `None` for the layer's variable dtype.
    pub dtype: Option<Dtype>,
    /// Whether Keras trains it while its layer is trainable.
    pub trainable: bool,
    /// Whether Keras casts it to the layer's compute dtype.
    pub autocast: bool,
    /// Which part along the first axis of an array in the file it is, and of how many, where candle has several variables
    /// for one of Keras's. The parts follow one another; `shape` is that of the part.
    pub part: Option<(usize, usize)>,
    /// Whether the parts follow one another along the array's first axis, instead of having an axis of their own.
    pub flat: bool,
    /// The orders in which Keras 1 may have its axes, where they are others; the first that fits is the one.
    pub(crate) old_axes: &'static [&'static [usize]],
    /// The name of the array in the file, where it is not the number of the weight.
    pub array: Option<&'static str>,
    /// The dtype it is cast to; `None` for the compute dtype of the layer it is in.
    pub compute: Option<Dtype>,
    /// Where a weight store holds the same array a second time, from the layer's group on: `vars/0`.
    pub copy: Option<String>,
}

impl Weight {
    /// A weight that is trained, cast, the layer's own, and of the layer's variable dtype.
    #[must_use]
    pub fn new(keras: &'static str, shape: Vec<usize>, candle: impl Into<String>, layout: Layout) -> Self {
        let (candle, owner) = (candle.into(), String::new());
        let (dtype, trainable, autocast, part, array, compute, copy) = (None, true, true, None, None, None, None);
        let (flat, old_axes): (_, &[&[usize]]) = (false, &[]);
        Self {
            keras,
            shape,
            candle,
            layout,
            owner,
            owner_named_twice: None,
            dtype,
            trainable,
            autocast,
            part,
            flat,
            old_axes,
            array,
            compute,
            copy,
        }
    }

    /// A weight under Keras's own name and in Keras's layout, where candle-nn has no such layer.
    #[must_use]
    pub fn as_keras(keras: &'static str, shape: Vec<usize>) -> Self {
        Self::new(keras, shape, keras, Layout::AsIs)
    }

    /// The same weight, which Keras never trains.
    #[must_use]
    pub fn not_trained(self) -> Self {
        Self { trainable: false, ..self }
    }

    /// The same weight, which Keras leaves in its own dtype (`autocast=False`).
    #[must_use]
    pub fn not_cast(self) -> Self {
        Self { autocast: false, ..self }
    }

    /// The same weight, stored as `dtype` whatever the policy.
    #[must_use]
    pub fn of(self, dtype: Dtype) -> Self {
        Self { dtype: Some(dtype), ..self }
    }

    /// The same weight as part `part` of `parts` of one array in the file.
    #[must_use]
    pub fn part(self, part: usize, parts: usize) -> Self {
        Self { part: Some((part, parts)), ..self }
    }

    /// The same weight, whose array has its parts one after the other along its first axis.
    #[must_use]
    pub(crate) fn flat(self) -> Self {
        Self { flat: true, ..self }
    }

    /// The same weight, whose axes Keras 1 has in one of the orders `axes`.
    #[must_use]
    pub(crate) fn with_old_axes(self, axes: &'static [&'static [usize]]) -> Self {
        Self { old_axes: axes, ..self }
    }

    /// The same weight as another layer has it that holds its layer under `owner` in the file and `prefix` in the `VarMap`.
    #[must_use]
    pub(crate) fn inside(mut self, owner: &str, prefix: &str, trainable: bool, policy: &Policy) -> Self {
        let joined = |a: &str, b: &str, by: &str| match (a, b) {
            ("", b) => b.to_owned(),
            (a, "") => a.to_owned(),
            (a, b) => format!("{a}{by}{b}"),
        };
        self.owner = joined(owner, &self.owner, "/");
        self.owner_named_twice = self.owner_named_twice.map(|twice| joined(owner, &twice, "/"));
        self.candle = joined(prefix, &self.candle, ".");
        self.copy = self.copy.map(|copy| joined(owner, &copy, "/"));
        self.trainable &= trainable;
        self.dtype = self.dtype.or(Some(policy.variable));
        self.compute = self.compute.or(Some(policy.compute));
        self
    }

    /// The shape of the array in the file.
    #[must_use]
    pub fn file_shape(&self) -> Vec<usize> {
        match self.part {
            Some((_, parts)) if self.flat => match self.shape.split_first() {
                Some((first, rest)) => [&[first.saturating_mul(parts)], rest].concat(),
                None => vec![parts],
            },
            // Keras: one array of (parts, …), a part of which has no such axis.
            Some((_, parts)) => [&[parts], self.shape.as_slice()].concat(),
            None => self.shape.clone(),
        }
    }

    /// The shape in the `VarMap`.
    #[must_use]
    pub fn candle_shape(&self) -> Vec<usize> {
        self.layout.candle_shape(&self.shape)
    }
}

/// The weights of one layer: where they lie in a Keras file and where they go in a `VarMap`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LayerWeights {
    /// The layer's path in the model: `dense`. Legacy files have a group of this name.
    pub layer: String,
    /// Keras's class: `Dense`.
    pub class: String,
    /// The layer's group in a weight store: `layers/dense`. Its number counts the class, so it is not the layer's name.
    pub group: String,
    /// The same in a store that counts a layer with weights twice; see [`kandle_format::Arrays::names_layers_twice`].
    pub(crate) group_named_twice: String,
    /// What the names in the `VarMap` start with: `dense` for `dense.weight`.
    pub prefix: String,
    /// Whether the layer and all that it is in are trainable.
    pub trainable: bool,
    /// The weights, in the order of the file.
    pub weights: Vec<Weight>,
}

impl LayerWeights {
    /// The layer's group in the weight store `arrays`.
    pub(crate) fn group_in(&self, arrays: &Arrays) -> &str {
        if arrays.names_layers_twice() { &self.group_named_twice } else { &self.group }
    }

    /// The name of `weight` in a `VarMap`: `dense.weight`.
    #[must_use]
    pub fn name(&self, weight: &Weight) -> String {
        self.prefixed(&weight.candle)
    }

    /// What PyTorch has beside `weight` and Keras does not, which holds zeros: an LSTM's second bias.
    #[must_use]
    pub fn zeros_beside(&self, weight: &Weight) -> Option<String> {
        let name = weight.candle.replace("bias_ih_l", "bias_hh_l");
        (!self.weights.iter().any(|other| other.candle == name)).then(|| self.prefixed(&name))
    }

    fn prefixed(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// Which weights of a Keras file go where in a `VarMap`: the one list that loading, checking and listing use.
///
/// A [`Plan`](crate::Plan) has it from the configuration. For a bare `.weights.h5` the caller says it, layer by layer,
/// with [`FileLayer`]: the kind of a layer is never guessed from shapes.
#[derive(Debug, Clone, Default)]
pub struct WeightMap {
    pub(crate) layers: Vec<LayerWeights>,
    /// The groups of a legacy file: a layer of the outermost model each, with the entries of `layers` that lie in it. A
    /// layer that is shared lies in several.
    pub(crate) legacy: Vec<LegacyGroup>,
    pub(crate) kept: Vec<String>,
    /// Whether a legacy file of it has the order of Keras before it became part of TensorFlow.
    pub(crate) before_tensorflow: bool,
}

impl WeightMap {
    /// The map that the caller spells out.
    ///
    /// ```
    /// use kandle_model::{FileLayer, WeightMap};
    /// use serde_json::json;
    ///
    /// let map = WeightMap::new(&[
    ///     FileLayer::at("layers/embedding").is("Embedding", json!({"input_dim": 1000, "output_dim": 128})).fills("embedding"),
    ///     FileLayer::at("layers/dense").is("Dense", json!({"units": 64})).of(&[128]).fills("dense"),
    /// ])?;
    /// assert_eq!(map.names().collect::<Vec<_>>(), ["embedding.weight", "dense.weight", "dense.bias"]);
    /// # Ok::<(), kandle_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// Everything that is wrong with the layers' classes and settings, together.
    pub fn new(layers: &[FileLayer]) -> Result<Self> {
        let mut problems = Vec::new();
        let mut map = Self::default();
        for layer in layers {
            match layer.weights() {
                Ok(weights) => map.layers.push(weights),
                Err(found) => problems.extend(found),
            }
        }
        Error::check(problems)?;
        Ok(map)
    }

    /// The layers that have weights, in the order of the file.
    #[must_use]
    pub fn layers(&self) -> &[LayerWeights] {
        &self.layers
    }

    /// The names in the `VarMap`, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.layers.iter().flat_map(|layer| layer.weights.iter().map(|weight| layer.name(weight)))
    }

    /// Fills the variables under `prefix` from `layer`, instead of those under the layer's own name.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where no such layer has weights.
    pub fn rename(mut self, layer: &str, prefix: &str) -> Result<Self> {
        let known: Vec<String> = self.layers.iter().map(|known| known.layer.clone()).collect();
        match self.layers.iter_mut().find(|known| known.layer == layer) {
            Some(found) => prefix.clone_into(&mut found.prefix),
            None => {
                let near = kandle_format::nearest(layer, known.iter().map(String::as_str));
                let what = format!(
                    "no layer of this name has weights{}",
                    near.map_or(String::new(), |near| format!(", the nearest is {near:?}"))
                );
                return Err(Error::new(ErrorKind::Missing, format!("layer {layer:?}"), what));
            }
        }
        Ok(self)
    }

    /// Leaves the variables under `prefix` as they are: they belong to the caller's own layers, and the file has no
    /// weights for them.
    #[must_use]
    pub fn keep(mut self, prefix: &str) -> Self {
        self.kept.push(prefix.to_owned());
        self
    }

    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.kept.iter().any(|prefix| {
            name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// The weights of one layer of the outermost model, as a legacy file has them: all in one group.
#[derive(Debug, Clone)]
pub(crate) struct LegacyGroup {
    /// The layer's name, and the group's.
    pub name: String,
    /// Whether the file's configuration has no name for it, so that the group's is not known.
    pub is_unnamed: bool,
    /// Whether the model that it is named after, if it is one, is trainable.
    pub trainable: bool,
    /// What lies in it, in the order of the model.
    pub members: Vec<LegacyMember>,
}

/// A layer with weights in a group of a legacy file.
#[derive(Debug, Clone)]
pub(crate) struct LegacyMember {
    /// Its entry in [`WeightMap::layers`].
    pub entry: usize,
    /// Whether it is trainable, taken by itself.
    pub trainable: bool,
    /// The models around it, from the outside, but for the one that the group is named after: what tells them apart, and
    /// whether they are trainable.
    pub around: Vec<(String, bool)>,
}

/// One layer of a bare weights file, as the caller knows it.
#[derive(Debug, Clone)]
pub struct FileLayer {
    group: String,
    class: String,
    config: Value,
    input: Vec<usize>,
    prefix: String,
}

impl FileLayer {
    /// The layer whose group in the file is `group`: `layers/dense`, as `kandle inspect` lists them.
    #[must_use]
    pub fn at(group: &str) -> Self {
        let group = group.trim_matches('/').to_owned();
        let prefix = group.rsplit('/').next().unwrap_or_default().to_owned();
        Self { group, class: String::new(), config: Value::Object(Default::default()), input: Vec::new(), prefix }
    }

    /// Its Keras class and settings, in Keras's words; what is not given has Keras's default.
    #[must_use]
    pub fn is(mut self, class: &str, config: Value) -> Self {
        class.clone_into(&mut self.class);
        self.config = config;
        self
    }

    /// The shape of one sample of its input, without the batch axis: `&[128]`. An Embedding needs none.
    #[must_use]
    pub fn of(mut self, sample: &[usize]) -> Self {
        self.input = sample.to_vec();
        self
    }

    /// What the names in the `VarMap` start with; the last part of the group where this is not called.
    #[must_use]
    pub fn fills(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    fn weights(&self) -> std::result::Result<LayerWeights, Vec<Problem>> {
        let at = format!("{} ({})", self.group, self.class);
        let fail = |kind, what: String| vec![Problem::new(kind, &at, what)];
        let Some(registered) = registry::find(&self.class) else {
            return Err(fail(ErrorKind::Unsupported, "this layer class is not supported".to_owned()));
        };
        let Some(config) = self.config.as_object() else {
            return Err(fail(ErrorKind::Invalid, "the settings are not a JSON object".to_owned()));
        };
        let mut fields = Fields::new(config, &at, Context::default());
        let trainable = fields.common();
        let layer = registered.read(&mut fields);
        let policy = fields.policy().clone();
        let problems = fields.finish();
        if !problems.is_empty() {
            return Err(problems);
        }
        let axes = std::iter::once(None).chain(self.input.iter().copied().map(Some)).collect();
        let inputs = planned_inputs(&policy, &[Spec { shape: Shape(axes), dtype: Dtype::Float32 }]);
        let arguments = Arguments::of_first(layer.parameters(), 1);
        let given = Given { arguments: &arguments, tensors: &inputs, policy: &policy };
        let weights = layer.weights(given).map_err(|what| fail(ErrorKind::Invalid, what))?;
        let weights = weights.into_iter().map(|weight| weight.inside("", "", true, &policy)).collect();
        Ok(LayerWeights {
            layer: self.prefix.clone(),
            class: self.class.clone(),
            group: self.group.clone(),
            group_named_twice: self.group.clone(),
            prefix: self.prefix.clone(),
            trainable,
            weights,
        })
    }
}
