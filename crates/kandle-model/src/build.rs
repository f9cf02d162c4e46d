//! Builds the plan of a model: reads every layer once, here, then follows the calls, in `follow`.

mod follow;

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Dtype, Error, ErrorKind, LayerConfig, ModelConfig, Problem, Result, shown};

use crate::{
    Input, KerasLayer, ModelCall, Plan, Policy, Spec, dialect,
    fields::{Context, Fields, MANY_POLICIES},
    graph::{Graph, History},
    plan::{GroupNames, place, read_input, shape},
    registry::class_of,
    weights::LegacyMember,
};

/// The newest version of Keras whose files are read.
const NEWEST: u32 = 3;

/// A model, the outermost or one inside it, with its layers read.
struct Scope {
    at: String,
    path: String,
    class: String,
    /// The number of the first layer read in it.
    first: usize,
    members: Vec<Member>,
    body: Body,
    calls: Vec<ModelCall>,
}

impl Scope {
    /// The InputLayers it is fed at, in the order it is fed; `None` for a Sequential model without one.
    ///
    /// # Errors
    /// A text where it is fed at a layer.
    fn inputs(&self) -> std::result::Result<Vec<Option<Input>>, &'static str> {
        let input = |history: History| match self.members.get(history.layer) {
            Some(Member::Input(input)) => Ok(Some(input.clone())),
            _ => Err("an input that is no InputLayer is not supported"),
        };
        match &self.body {
            Body::Functional(graph) => graph.inputs.leaves().into_iter().map(input).collect(),
            Body::Sequential => Ok(vec![match self.members.first() {
                Some(Member::Input(input)) => Some(input.clone()),
                _ => None,
            }]),
        }
    }
}

/// What a layer of a model is.
#[derive(Clone)]
enum Member {
    Input(Input),
    /// A layer, by its number among the definitions.
    Layer(usize),
    /// A model, by its number among the scopes.
    Model(usize),
}

enum Body {
    Sequential,
    Functional(Graph),
}

/// A layer that was read.
struct Definition {
    path: String,
    class: String,
    group: String,
    /// Whether it and all that it is in are trainable.
    trainable: bool,
    /// Whether it is, taken by itself.
    own_trainable: bool,
    policy: Policy,
    /// Whether a map gives what is within it other policies, or itself another where it builds nothing.
    policy_may_differ: bool,
    layer: Box<dyn KerasLayer>,
    /// Its weights, known from its first call on.
    weights: Option<Vec<crate::Weight>>,
    calls: usize,
}

impl Definition {
    fn at(&self) -> String {
        place(&self.path, &self.class)
    }
}

/// Where in the outermost model a layer is read.
#[derive(Clone, Copy)]
struct Within<'a> {
    /// The path of the model it is in, with a slash behind it: `encoder/`.
    path: &'a str,
    /// The group of that model in the weight store, with a slash behind it.
    group: &'a str,
    trainable: bool,
    /// Whether that model is a Sequential.
    sequential: bool,
    /// The legacy group that the layer's weights lie in, but for the outermost model's own layers.
    legacy: Option<usize>,
    /// The models around the layer in that group, from the outside: the group in the weight store tells them apart, and
    /// whether they are trainable. The one that the group is named after is left out.
    around: &'a [(String, bool)],
}

/// Whether the version that `config` names is one whose files are read. A file of Keras 1 may name none.
fn is_known(config: &ModelConfig) -> bool {
    let named =
        config.keras_version.as_deref().is_none_or(|version| version.starts_with(|first: char| first.is_ascii_digit()));
    named && (1..=NEWEST).contains(&config.keras_major())
}

pub(crate) struct Builder<'a> {
    context: Context<'a>,
    scopes: Vec<Scope>,
    definitions: Vec<Definition>,
    shared: BTreeMap<u64, Member>,
    legacy: Vec<LegacyMembers>,
    problems: Vec<Problem>,
    plan: Plan,
}

/// The layers whose weights lie in one group of a legacy file.
struct LegacyMembers {
    name: String,
    is_unnamed: bool,
    /// Whether the model that it is named after, if it is one, is trainable.
    trainable: bool,
    members: Vec<LegacyMember>,
}

impl<'a> Builder<'a> {
    pub(crate) fn build(config: &ModelConfig, context: Context<'a>) -> Result<Plan> {
        let mut builder = Self {
            context,
            scopes: Vec::new(),
            definitions: Vec::new(),
            shared: BTreeMap::new(),
            legacy: Vec::new(),
            problems: Vec::new(),
            plan: Plan { name: config.name.clone(), ..Plan::default() },
        };
        if !is_known(config) {
            let version = config.keras_version.as_deref().map_or_else(|| "1".to_owned(), shown);
            let what = format!("written by Keras {version}, only files of Keras 1 to {NEWEST} are supported");
            return Err(Error::new(ErrorKind::Unsupported, &config.at, what));
        }
        let sequential = config.class == "Sequential";
        let outermost = Within { path: "", group: "", trainable: true, sequential, legacy: None, around: &[] };
        let root = builder.read_model(config, outermost);
        Error::check(std::mem::take(&mut builder.problems))?;
        let Some(root) = root else {
            return Err(Error::new(ErrorKind::Invalid, &config.at, "the model could not be read"));
        };
        builder.follow(root, &config.at)
    }

    fn refuse(&mut self, at: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Unsupported, at, what.into()));
    }

    fn invalid(&mut self, at: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(ErrorKind::Invalid, at, what.into()));
    }

    /// Reads a model and all that is in it. Everything wrong is noted, for all layers.
    fn read_model(&mut self, config: &ModelConfig, within: Within<'_>) -> Option<usize> {
        let config = match dialect::model(config, &mut self.problems) {
            Ok(config) => config,
            Err(error) => {
                self.problems.extend(error.problems().cloned());
                return None;
            }
        };
        let config = config.as_ref();
        let sequential = config.class == "Sequential";
        let functional = !sequential && config.config.contains_key("output_layers");
        if let Some(custom) = config.registered_name.as_deref().filter(|name| name.contains('>')) {
            let what = "is a user's own model class, whose Python code is not in the file: if it was made from inputs and outputs, save keras.Model(model.inputs, model.outputs)";
            self.refuse(&config.at, format!("{} {what}", shown(custom)));
        } else if !sequential && !functional {
            let what =
                format!("a model of class {} is not supported (only Sequential and Functional)", shown(&config.class));
            self.refuse(&config.at, what);
        }
        let first = self.definitions.len();
        let mut names = BTreeSet::new();
        let mut groups = GroupNames::default();
        let mut members = Vec::new();
        for (index, layer) in config.layers.iter().enumerate() {
            let path = format!("{}{}", within.path, layer.name);
            let at = place(&path, &layer.class);
            if !names.insert(layer.name.as_str()) {
                self.invalid(&at, "a second layer of this name: names are unique in a Keras model");
            }
            if layer.class == "InputLayer" && (index == 0 || !sequential) {
                if !sequential {
                    groups.next("InputLayer");
                }
                match read_input(layer, &at, self.context) {
                    Ok(input) => members.push(Member::Input(input)),
                    Err(found) => {
                        self.problems.extend(found);
                        members.push(Member::Input(Input::unknown()));
                    }
                }
                continue;
            }
            members.extend(self.read_member(layer, &path, &at, &mut groups, within));
        }
        let body = if functional {
            // A graph over layers that could not be read would not fit.
            if members.len() != config.layers.len() {
                return None;
            }
            match Graph::new(config) {
                Ok(graph) => Body::Functional(graph),
                Err(what) => {
                    self.invalid(&config.at, what);
                    return None;
                }
            }
        } else {
            if !matches!(members.first(), Some(Member::Input(_))) {
                // Keras: a Sequential model without an InputLayer takes its input from what it was built on, as float32.
                if let Some(shape) = config.config.get("build_input_shape").and_then(shape) {
                    let spec = Spec { shape, dtype: Dtype::Float32 };
                    let input = Input { name: "input_layer".to_owned(), spec, slot: 0, optional: false };
                    members.insert(0, Member::Input(input));
                }
            }
            Body::Sequential
        };
        let (at, path, class) = (config.at.clone(), within.path.to_owned(), config.class.clone());
        self.scopes.push(Scope { at, path, class, first, members, body, calls: Vec::new() });
        Some(self.scopes.len() - 1)
    }

    /// Reads a layer of a model, or a model there; what was read before under the same mark is the same.
    fn read_member(
        &mut self,
        layer: &LayerConfig,
        path: &str,
        at: &str,
        groups: &mut GroupNames,
        within: Within<'_>,
    ) -> Option<Member> {
        let class = match class_of(layer, at, self.context.custom) {
            Ok(class) => Some(class),
            Err(_) if layer.model(self.context.keras_version).is_some() => None,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        // Keras: operations own nothing and take no number. What was saved before is not saved again; but it takes its number,
        // in Keras 3.
        let operation = class.is_some_and(|class| class.is_operation());
        let known = layer.shared_object_id.is_some_and(|id| self.shared.contains_key(&id));
        let legacy = dialect::is_legacy(kandle_format::keras_major(self.context.keras_version));
        let name = if operation || (known && legacy) { String::new() } else { groups.next(&layer.class) };
        if let Some(known) = layer.shared_object_id.and_then(|id| self.shared.get(&id)).cloned() {
            if let (Member::Layer(definition), Some(_)) = (&known, within.legacy) {
                self.in_legacy(*definition, &layer.name, within);
            }
            return Some(known);
        }
        let group = format!("{}layers/{name}", within.group);
        let member = match class {
            Some(class) => {
                let context = Context { group: &group, ..self.context };
                let mut fields = Fields::new(&layer.config, at, context);
                let own_trainable = fields.common();
                let trainable = own_trainable && within.trainable;
                if within.sequential && self.context.legacy && fields.policy_is_by_path() {
                    fields.refuse(MANY_POLICIES);
                }
                let read = class.read(&mut fields);
                if fields.policy().quantization.is_some() && !read.quantizes() {
                    fields.refuse("a quantized dtype policy is not supported for this layer");
                }
                let (policy, policy_may_differ) = (fields.policy().clone(), fields.policy_may_differ());
                let problems = fields.finish();
                if !problems.is_empty() {
                    self.problems.extend(problems);
                    return None;
                }
                let (path, class) = (path.to_owned(), layer.class.clone());
                let (weights, calls) = (None, 0);
                let definition = Definition {
                    path,
                    class,
                    group,
                    trainable,
                    own_trainable,
                    policy,
                    policy_may_differ,
                    layer: read,
                    weights,
                    calls,
                };
                self.definitions.push(definition);
                let number = self.definitions.len() - 1;
                if !operation {
                    self.in_legacy(number, &layer.name, within);
                }
                Member::Layer(number)
            }
            None => {
                let model = match layer.model(self.context.keras_version)? {
                    Ok(mut model) => {
                        at.clone_into(&mut model.at);
                        model
                    }
                    Err(error) => {
                        self.problems.extend(error.problems().cloned());
                        return None;
                    }
                };
                let own_trainable = model.config.get("trainable").and_then(|flag| flag.as_bool()).unwrap_or(true);
                let trainable = within.trainable && own_trainable;
                let mut around = within.around.to_vec();
                let legacy = match within.legacy {
                    Some(legacy) => {
                        around.push((group.clone(), own_trainable));
                        Some(legacy)
                    }
                    None => {
                        let (name, is_unnamed, trainable) = (layer.name.clone(), layer.is_unnamed(), own_trainable);
                        self.legacy.push(LegacyMembers { name, is_unnamed, trainable, members: Vec::new() });
                        self.legacy.len().checked_sub(1)
                    }
                };
                let (path, group) = (format!("{path}/"), format!("{group}/"));
                let sequential = model.class == "Sequential";
                let inside = Within { path: &path, group: &group, trainable, sequential, legacy, around: &around };
                Member::Model(self.read_model(&model, inside)?)
            }
        };
        if let Some(id) = layer.shared_object_id {
            self.shared.insert(id, member.clone());
        }
        Some(member)
    }

    /// Notes in which group of a legacy file a layer's weights lie.
    fn in_legacy(&mut self, definition: usize, name: &str, within: Within<'_>) {
        let trainable = self.definitions.get(definition).is_none_or(|definition| definition.own_trainable);
        let member = LegacyMember { entry: definition, trainable, around: within.around.to_vec() };
        match within.legacy.and_then(|group| self.legacy.get_mut(group)) {
            Some(group) => group.members.push(member),
            None => {
                let (name, members) = (name.to_owned(), vec![member]);
                self.legacy.push(LegacyMembers { name, is_unnamed: false, trainable: true, members });
            }
        }
    }
}
