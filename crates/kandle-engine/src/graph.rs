//! A model's calls as nodes over slots: chains of primitives where layers have them, calls of the model where not.

use kandle_format::Dtype;
use kandle_model::{Argument, Model, PlannedLayer, Primitive, Shape, Step, primitive::Merging};

use crate::{choose::numbers_of, kernel::map::Map};

/// The nodes of a model, in the order they run.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// How many slots there are. The first ones are the plan's.
    pub(crate) slots: usize,
    /// The shapes of the plan's slots.
    pub(crate) shapes: Vec<Option<Shape>>,
    /// How many masks there are.
    pub(crate) masks: usize,
    /// The slots of the outputs, and the masks that hang on them.
    pub(crate) outputs: Vec<(usize, Option<usize>)>,
}

/// What reads some slots and fills others.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) work: Work,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
    /// The mask that hangs on each input when it is read.
    pub(crate) masks: Vec<Option<usize>>,
    /// The masks that it makes, one for each output.
    pub(crate) made: Vec<Option<usize>>,
    /// The layers that it stands for, by path.
    pub(crate) layers: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A kernel.
    Primitive {
        primitive: Primitive,
        /// Whether the last input is added to what it gives.
        adds: bool,
        /// What is then done with every number.
        map: Option<Map>,
    },
    /// Makes the mask `ids != 0`.
    Mask,
    /// Step so and so of the plan, as the model does it.
    Call(usize),
}

impl Work {
    fn of(primitive: Primitive) -> Self {
        Self::Primitive { primitive, adds: false, map: None }
    }
}

impl Graph {
    /// How often each slot is read, the outputs counted too.
    pub(crate) fn reads(&self) -> Vec<usize> {
        let mut reads = vec![0; self.slots];
        let slots = self.nodes.iter().flat_map(|node| &node.inputs);
        for slot in slots.chain(self.outputs.iter().map(|(slot, _)| slot)) {
            reads[*slot] += 1;
        }
        reads
    }

    /// The nodes of `model`, whose steps are those `primitives`; none for one that is run as it is: with inputs that may be left out, or masks that hang on
    /// several slots at once and are changed.
    ///
    /// # Errors
    /// What candle reports of the weights.
    pub(crate) fn of<E>(
        model: &Model,
        primitives: impl Fn(usize) -> Result<Option<Vec<Primitive>>, E>,
    ) -> Result<Option<Self>, E> {
        let plan = model.plan();
        if plan.inputs().iter().any(|input| input.optional) {
            return Ok(None);
        }
        let shapes = (0..plan.slot_count()).map(|slot| plan.slot(slot).map(|spec| spec.shape.clone())).collect();
        let mut graph = Self { nodes: vec![], slots: plan.slot_count(), shapes, masks: 0, outputs: vec![] };
        // The mask that hangs on each slot at this point.
        let mut hanging: Vec<Option<usize>> = vec![None; plan.slot_count()];
        for (number, step) in plan.steps().iter().enumerate() {
            let Some(layer) = plan.layers().get(step.layer) else { return Ok(None) };
            if layer.keeps_states() || is_set_on_the_same(model, step) {
                return Ok(None);
            }
            let masks: Vec<Option<usize>> = step.inputs.iter().map(|slot| hanging[*slot]).collect();
            let has: Vec<bool> = masks.iter().map(Option::is_some).collect();
            let masked = has.contains(&true);
            // A mask that the graph gives for all of a layer is read as one, and is no operand.
            let given = mask_given(step);
            let operands = step.inputs.len() - usize::from(given.is_some());
            let chain = primitives(number)?.filter(|chain| takes(chain, operands) && chain.iter().all(has_kernel));
            let chain = chain.filter(|chain| {
                let merged = matches!(chain.as_slice(), [Primitive::Merge(how)] if *how != Merging::Multiply);
                let plain = !masked && given.is_none();
                plain || goes_with_masks(chain, &layer.class, operands) || (merged && !model.merges_masks(number, &has))
            });
            let of_first = (operands == 1).then(|| masks.first().copied().flatten()).flatten();
            let computes = layer.masking() == kandle_model::Masking::Computes;
            let passes = layer.masking() == kandle_model::Masking::Passes;
            match chain {
                Some(chain) => {
                    // The mask that is given, or the one that came with the input.
                    let of_first = match given {
                        Some(input) => {
                            let mask = graph.mask();
                            let (inputs, made) = (vec![step.inputs[input]], vec![Some(mask)]);
                            let layers = vec![layer.path.clone()];
                            let masks = vec![None];
                            graph.nodes.push(Node { work: Work::Mask, inputs, outputs: vec![], masks, made, layers });
                            Some(mask)
                        }
                        None => of_first,
                    };
                    let mask = match chain.first() {
                        Some(Primitive::Rows { .. }) if computes => {
                            let mask = graph.mask();
                            let (inputs, made) = (step.inputs.clone(), vec![Some(mask)]);
                            let layers = vec![layer.path.clone()];
                            graph.nodes.push(Node {
                                work: Work::Mask,
                                inputs,
                                outputs: vec![],
                                masks: vec![],
                                made,
                                layers,
                            });
                            Some(mask)
                        }
                        Some(Primitive::Recurrent(recurrent)) if computes => of_first.filter(|_| recurrent.sequences),
                        Some(Primitive::Bidirectional { forward, .. }) if computes => {
                            of_first.filter(|_| forward.sequences)
                        }
                        // A mask hangs on a tensor, so on what is the same tensor.
                        _ => of_first.filter(|_| passes || plan.same_as(step.outputs[0]) != step.outputs[0]),
                    };
                    let (mut inputs, last) = (step.inputs.clone(), chain.len().saturating_sub(1));
                    inputs.truncate(operands);
                    let mut masks = vec![of_first];
                    for (place, primitive) in chain.into_iter().enumerate() {
                        let output = if place == last { step.outputs[0] } else { graph.slot() };
                        let outputs = vec![output];
                        graph.nodes.push(Node {
                            work: Work::of(primitive),
                            inputs: std::mem::replace(&mut inputs, outputs.clone()),
                            outputs,
                            masks: std::mem::replace(&mut masks, vec![None]),
                            made: vec![None],
                            layers: vec![layer.path.clone()],
                        });
                    }
                    hanging[step.outputs[0]] = mask;
                }
                None => {
                    // Whether there is a mask shows when it runs.
                    let may = masked || computes || may_make_masks(layer);
                    let made: Vec<Option<usize>> = step.outputs.iter().map(|_| may.then(|| graph.mask())).collect();
                    for (slot, mask) in step.outputs.iter().zip(&made) {
                        hanging[*slot] = *mask;
                    }
                    let (inputs, outputs) = (step.inputs.clone(), step.outputs.clone());
                    let layers = vec![layer.path.clone()];
                    graph.nodes.push(Node { work: Work::Call(number), inputs, outputs, masks, made, layers });
                }
            }
            for slot in model.erased_masks(number) {
                let same = plan.same_as(slot);
                for (other, mask) in hanging.iter_mut().enumerate() {
                    if plan.same_as(other) == same {
                        *mask = None;
                    }
                }
            }
        }
        graph.outputs = plan.outputs().iter().map(|slot| (*slot, hanging[*slot])).collect();
        Ok(Some(graph))
    }

    /// Whether these slots are planned to hold tensors of one shape.
    pub(crate) fn are_of_one_shape(&self, slots: &[usize]) -> bool {
        let mut shapes = slots.iter().map(|slot| self.shapes.get(*slot).and_then(Option::as_ref));
        match shapes.next() {
            Some(Some(first)) => shapes.all(|shape| shape == Some(first)),
            _ => false,
        }
    }

    /// The steps of the plan that the model is called for.
    pub(crate) fn calls(&self) -> Vec<usize> {
        let call = |node: &Node| match node.work {
            Work::Call(step) => Some(step),
            _ => None,
        };
        self.nodes.iter().filter_map(call).collect()
    }

    /// About how many numbers the kernels of all nodes hold.
    pub(crate) fn numbers(&self) -> usize {
        let of = |node: &Node| match &node.work {
            Work::Primitive { primitive, .. } => numbers_of(primitive),
            _ => 0,
        };
        self.nodes.iter().map(of).sum()
    }

    pub(crate) fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn mask(&mut self) -> usize {
        self.masks += 1;
        self.masks - 1
    }
}

/// The place among a step's tensors of a mask that the graph gives, behind the one tensor that the layer is called on.
fn mask_given(step: &Step) -> Option<usize> {
    match step.arguments.get("mask") {
        Some(Argument::Tensor(1)) if step.inputs.len() == 2 => Some(1),
        _ => None,
    }
}

/// Whether the step puts a mask on what is the same tensor in other slots too.
fn is_set_on_the_same(model: &Model, step: &Step) -> bool {
    let given = matches!(step.arguments.get("mask"), Some(Argument::Tensor(_) | Argument::List(_)));
    given && step.outputs.iter().any(|slot| model.plan().same_as(*slot) != *slot)
}

/// Whether a chain takes `count` tensors: a mask that is given in the graph is one too.
fn takes(chain: &[Primitive], count: usize) -> bool {
    match chain.first() {
        Some(Primitive::Merge(_) | Primitive::Join { .. } | Primitive::Attention(_)) => count > 0,
        Some(_) => count == 1,
        None => false,
    }
}

/// Whether a layer may give a mask though none went in and it has no rule for them: a wrapper, and layers of the user's own.
fn may_make_masks(layer: &PlannedLayer) -> bool {
    let of_keras = kandle_model::layers().any(|known| known.class == layer.class);
    !layer.is_operation() && (!of_keras || layer.class == "TimeDistributed")
}

/// Whether a chain gives the same for an input that carries a mask, or knows what to do with it.
fn goes_with_masks(chain: &[Primitive], class: &str, operands: usize) -> bool {
    if operands != 1 {
        return false;
    }
    match chain {
        [Primitive::Recurrent(_) | Primitive::Bidirectional { .. }] => true,
        [Primitive::PoolAll { .. }] | [Primitive::Merge(_)] | [Primitive::Join { .. }] => false,
        _ => class != "Softmax",
    }
}

/// Whether there is a kernel for it, with Keras's numbers in every case.
fn has_kernel(primitive: &Primitive) -> bool {
    match primitive {
        Primitive::Map(curve) => Map::of(curve).is_some(),
        // What is no number has an order of its own there.
        Primitive::Merge(how) => !matches!(how, Merging::Maximum | Merging::Minimum),
        // TensorFlow has other rules for what is no number along three axes.
        Primitive::Pool { largest: true, windows, .. } => windows.len() < 3,
        Primitive::Convolution(convolution) => {
            let multiplier = convolution.kernel.dims().last().copied().unwrap_or(0);
            convolution.kernel.dtype() == candle_core::DType::F32 && (!convolution.depthwise || multiplier == 1)
        }
        // Without either it does not say how long a row is.
        Primitive::Normalize { gamma, beta, .. } => gamma.is_some() || beta.is_some(),
        Primitive::Recurrent(recurrent) => has_loops(recurrent),
        Primitive::Bidirectional { forward, backward, .. } => has_loops(forward) && has_loops(backward),
        _ => true,
    }
}

fn has_loops(layer: &kandle_model::primitive::Recurrent) -> bool {
    Map::of_function(layer.activation).is_some() && Map::of_function(layer.recurrent_activation).is_some()
}

/// Whether the model's slot holds float32.
pub(crate) fn is_float32(model: &Model, slot: usize) -> bool {
    model.plan().slot(slot).is_none_or(|spec| spec.dtype == Dtype::Float32)
}
