//! The rows of a model's summary, as `model.summary(expand_nested=True)` has them: its layers and the models inside it, what
//! comes out of them, how many numbers they hold, and what they are connected to.

use std::collections::BTreeMap;

use kandle::{Input, LayerConfig, LoadReport, ModelCall, Plan, PlannedLayer, PlannedModel, Spec, Step, shown};

use crate::terminal::total;

/// One row.
pub(crate) struct Row {
    /// The path: `dense`, or `encoder/dense` in a model inside the model.
    pub(crate) name: String,
    pub(crate) class: String,
    pub(crate) kind: Kind,
    /// The compute dtype of the layer's policy.
    pub(crate) dtype: Option<&'static str>,
    /// What comes out of the first call.
    pub(crate) outputs: Option<Vec<Spec>>,
    pub(crate) parameters: Option<usize>,
    /// How many of them are trained.
    pub(crate) trainable: Option<usize>,
    /// For each call, where what it reads comes from.
    pub(crate) connected: Option<Vec<Vec<Origin>>>,
    pub(crate) weights: Option<Vec<WeightRow>>,
}

/// What a row stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An InputLayer, of the model or of one inside it.
    Input,
    Layer,
    /// A model inside the model. Its layers have rows of their own, so its parameters are counted there too.
    Model,
}

/// One weight of a layer.
pub(crate) struct WeightRow {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: &'static str,
    pub(crate) layout: String,
    pub(crate) keras_name: &'static str,
    pub(crate) keras_shape: Vec<usize>,
    pub(crate) from: Option<String>,
    trainable: bool,
}

/// Where a tensor comes from: an output of a call of a layer or of a model; an input is output 0 of its InputLayer.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) layer: String,
    pub(crate) call: usize,
    pub(crate) output: usize,
}

impl Origin {
    /// As Keras prints it: `dense[0][0]`.
    fn text(&self) -> String {
        format!("{}[{}][{}]", shown(&self.layer), self.call, self.output)
    }
}

/// How many numbers an array of `shape` has. A file may declare any shape, so it stops at the largest number there is.
pub(crate) fn numbers(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product: usize, axis| product.saturating_mul(*axis))
}

impl Row {
    /// The shapes of the first call's outputs.
    pub(crate) fn output_shapes(&self) -> Option<String> {
        let shapes: Vec<String> = self.outputs.as_ref()?.iter().map(|output| output.shape.to_string()).collect();
        Some(match shapes.as_slice() {
            [only] => only.clone(),
            shapes => format!("[{}]", shapes.join(", ")),
        })
    }

    /// Where what its calls read comes from, the calls apart by semicolons.
    pub(crate) fn connected_to(&self) -> String {
        let call = |call: &Vec<Origin>| call.iter().map(Origin::text).collect::<Vec<_>>().join(", ");
        self.connected.iter().flatten().map(call).collect::<Vec<_>>().join("; ")
    }

    /// A layer of which only its configuration is known.
    pub(crate) fn unplanned(layer: &LayerConfig) -> Self {
        Self {
            name: layer.name.clone(),
            class: layer.class.clone(),
            kind: Kind::Layer,
            dtype: None,
            outputs: None,
            parameters: None,
            trainable: None,
            connected: None,
            weights: None,
        }
    }

    fn input(name: String, spec: Spec, connected: Vec<Vec<Origin>>) -> Self {
        Self {
            name,
            class: "InputLayer".to_owned(),
            kind: Kind::Input,
            dtype: None,
            outputs: Some(vec![spec]),
            parameters: Some(0),
            trainable: Some(0),
            connected: Some(connected),
            weights: Some(Vec::new()),
        }
    }
}

/// The rows of a plan: its inputs, then its layers in the order of the file, a model inside it before its layers.
pub(crate) fn rows(plan: &Plan, report: Option<&LoadReport>) -> Vec<Row> {
    let from = report.iter().flat_map(|report| &report.loaded);
    let from = from.map(|loaded| (loaded.name.as_str(), loaded.from.as_str())).collect();
    Summary { plan, from, graph: Graph::new(plan) }.rows()
}

struct Summary<'a> {
    plan: &'a Plan,
    /// Where in the file each loaded variable lies.
    from: BTreeMap<&'a str, &'a str>,
    graph: Graph<'a>,
}

impl Summary<'_> {
    fn rows(&self) -> Vec<Row> {
        let input = |input: &Input| Row::input(input.name.clone(), input.spec.clone(), Vec::new());
        let mut rows: Vec<Row> = self.plan.inputs().iter().map(input).collect();
        let mut models = self.plan.models().iter().peekable();
        for (number, layer) in self.plan.layers().iter().enumerate() {
            while let Some(model) = models.next_if(|model| model.first <= number) {
                self.push_model(model, &mut rows);
            }
            // What is fed to a model inside the model is among that model's rows.
            if layer.class != "InputLayer" {
                rows.push(self.layer(number, layer));
            }
        }
        for model in models {
            self.push_model(model, &mut rows);
        }
        for index in 0..rows.len() {
            let Some(model) = rows.get(index).filter(|row| row.kind == Kind::Model) else { continue };
            let within = format!("{}/", model.name);
            let inside = || rows.iter().filter(|row| row.kind == Kind::Layer && row.name.starts_with(&within));
            let sum = |of: fn(&Row) -> Option<usize>| inside().map(of).collect::<Option<Vec<_>>>().map(total);
            let (parameters, trainable) = (sum(|row| row.parameters), sum(|row| row.trainable));
            if let Some(model) = rows.get_mut(index) {
                (model.parameters, model.trainable) = (parameters, trainable);
            }
        }
        rows
    }

    fn specs(&self, slots: &[usize]) -> Vec<Spec> {
        slots.iter().filter_map(|slot| self.plan.slot(*slot).cloned()).collect()
    }

    /// A model inside the model, and its inputs.
    fn push_model(&self, model: &PlannedModel, rows: &mut Vec<Row>) {
        let origins = |slots: &[usize]| self.graph.origins(&model.path, slots);
        rows.push(Row {
            name: model.path.clone(),
            class: model.class.clone(),
            kind: Kind::Model,
            dtype: None,
            outputs: model.calls.first().map(|call| self.specs(&call.outputs)),
            parameters: None,
            trainable: None,
            connected: Some(model.calls.iter().map(|call| origins(&call.given)).collect()),
            weights: Some(Vec::new()),
        });
        for (number, input) in model.inputs.iter().enumerate() {
            let fed = |call: &ModelCall| match call.inputs.get(number) {
                // A step that casts what is fed, or adds the mask of the call.
                Some(slot) => match self.graph.feeds.get(slot) {
                    Some(step) => origins(&step.inputs),
                    None => origins(&[*slot]),
                },
                None => Vec::new(),
            };
            let path = format!("{}/{}", model.path, input.name);
            rows.push(Row::input(path, input.spec.clone(), model.calls.iter().map(fed).collect()));
        }
    }

    fn layer(&self, number: usize, layer: &PlannedLayer) -> Row {
        let calls = self.graph.calls.get(&number).map(Vec::as_slice).unwrap_or_default();
        let mut weights = Vec::new();
        if let Some(entry) = self.plan.weights_of(layer) {
            for weight in &entry.weights {
                let name = entry.name(weight);
                weights.push(WeightRow {
                    shape: weight.candle_shape(),
                    dtype: weight.dtype.map_or("float32", kandle::Dtype::name),
                    layout: weight.layout.to_string(),
                    keras_name: weight.keras,
                    keras_shape: weight.shape.clone(),
                    from: self.from.get(name.as_str()).map(|from| (*from).to_owned()),
                    trainable: layer.trainable && weight.trainable,
                    name,
                });
            }
        }
        let count = |weights: &mut dyn Iterator<Item = &WeightRow>| total(weights.map(|weight| numbers(&weight.shape)));
        Row {
            name: layer.path.clone(),
            class: layer.class.clone(),
            kind: Kind::Layer,
            dtype: (!layer.is_operation()).then(|| layer.policy.compute.name()),
            outputs: calls.first().map(|step| self.specs(&step.outputs)),
            parameters: Some(count(&mut weights.iter())),
            trainable: Some(count(&mut weights.iter().filter(|weight| weight.trainable))),
            connected: Some(calls.iter().map(|step| self.graph.origins(&layer.path, &step.inputs)).collect()),
            weights: Some(weights),
        }
    }
}

/// A tensor on its way into or out of a model inside the model: which, in which call, and its number there.
struct Passage<'a> {
    model: &'a PlannedModel,
    call: usize,
    number: usize,
}

/// Who gives and takes the slots of a plan.
struct Graph<'a> {
    /// The steps of each layer.
    calls: BTreeMap<usize, Vec<&'a Step>>,
    /// The steps that feed a model inside the model, by the slot they fill.
    feeds: BTreeMap<usize, &'a Step>,
    /// The layer or input that fills a slot; constants of the graph come from nowhere.
    made: BTreeMap<usize, Origin>,
    entered: BTreeMap<usize, Vec<Passage<'a>>>,
    left: BTreeMap<usize, Vec<Passage<'a>>>,
}

impl<'a> Graph<'a> {
    fn new(plan: &'a Plan) -> Self {
        let input = |input: &Input| (input.slot, Origin { layer: input.name.clone(), call: 0, output: 0 });
        let made = plan.inputs().iter().map(input).collect();
        let (entered, left) = (BTreeMap::new(), BTreeMap::new());
        let mut graph = Self { calls: BTreeMap::new(), feeds: BTreeMap::new(), made, entered, left };
        for step in plan.steps() {
            let Some(layer) = plan.layers().get(step.layer) else { continue };
            graph.calls.entry(step.layer).or_default().push(step);
            for (output, slot) in step.outputs.iter().enumerate() {
                graph.made.insert(*slot, Origin { layer: layer.path.clone(), call: step.call, output });
                if layer.class == "InputLayer" {
                    graph.feeds.insert(*slot, step);
                }
            }
        }
        for model in plan.models() {
            for (call, slots) in model.calls.iter().enumerate() {
                for (number, slot) in slots.inputs.iter().enumerate() {
                    graph.entered.entry(*slot).or_default().push(Passage { model, call, number });
                }
                for (number, slot) in slots.outputs.iter().enumerate() {
                    graph.left.entry(*slot).or_default().push(Passage { model, call, number });
                }
            }
        }
        graph
    }

    /// Where the slots come from that the layer or model at `reader` reads.
    fn origins(&self, reader: &str, slots: &[usize]) -> Vec<Origin> {
        slots.iter().filter_map(|slot| self.origin(reader, *slot)).collect()
    }

    /// Seen from inside a model it is that model's input, seen from outside it is that model's output.
    fn origin(&self, reader: &str, slot: usize) -> Option<Origin> {
        let inside = |passage: &&Passage<'_>| {
            reader.strip_prefix(passage.model.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let entered = self.entered.get(&slot).into_iter().flatten().filter(inside);
        if let Some(Passage { model, call, number }) = entered.max_by_key(|passage| passage.model.path.len())
            && let Some(input) = model.inputs.get(*number)
        {
            return Some(Origin { layer: format!("{}/{}", model.path, input.name), call: *call, output: 0 });
        }
        let left = self.left.get(&slot).into_iter().flatten().filter(|passage| !inside(passage));
        if let Some(Passage { model, call, number }) = left.min_by_key(|passage| passage.model.path.len()) {
            return Some(Origin { layer: model.path.clone(), call: *call, output: *number });
        }
        self.made.get(&slot).cloned()
    }
}
