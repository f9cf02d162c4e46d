//! A model's calls as nodes over slots: chains of primitives where layers have them, calls of the model where not.

use kandle_format::Dtype;
use kandle_model::{Argument, Masking, Model, PlannedLayer, Primitive, Shape, Step, Value, primitive::Merging};

use crate::{
    choose::numbers_of,
    kernel::{Kernel, map::Map},
};

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
    /// Slots that are filled once, with what.
    pub(crate) constants: Vec<(usize, Value)>,
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
    /// The step of the plan that it came of.
    pub(crate) step: usize,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A kernel.
    Primitive {
        primitive: Primitive,
        /// A factor for each channel of what it gives, that goes into its weights when they are packed.
        scale: Option<Vec<f32>>,
        /// Whether the last input is added to what it gives.
        adds: bool,
        /// What is then done with every number.
        map: Option<Map>,
    },
    /// A kernel that a pass has made, and what it is called.
    Kernel(Box<dyn Kernel>, String),
    /// Makes the mask `ids != 0`.
    Mask,
    /// Makes the pairs of query and key that count, `(batch, queries, keys)`, of the masks of query, value and key.
    Pairs,
    /// Its step of the plan, as the model does it.
    Call,
}

impl Work {
    pub(crate) fn of(primitive: Primitive) -> Self {
        Self::Primitive { primitive, scale: None, adds: false, map: None }
    }

    /// Whether it is rows of a table, and nothing is done with them.
    pub(crate) fn is_plain_rows(&self) -> bool {
        matches!(self, Self::Primitive { primitive: Primitive::Rows { .. }, scale: None, adds: false, map: None })
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

    /// The nodes of `model`, whose steps are those `primitives`; none for one that is run as it is: with inputs that may be left
    /// out, or masks that hang on several slots at once and are changed.
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
        let (slots, constants) = (plan.slot_count(), plan.constants().to_vec());
        let mut graph = Self { nodes: vec![], slots, shapes, masks: 0, constants, outputs: vec![] };
        // The mask that hangs on each slot at this point.
        let mut hanging: Vec<Option<usize>> = vec![None; plan.slot_count()];
        for (number, step) in plan.steps().iter().enumerate() {
            let Some(layer) = plan.layers().get(step.layer) else { return Ok(None) };
            if layer.keeps_states() || is_set_on_the_same(model, step) {
                return Ok(None);
            }
            let masks = step.inputs.iter().map(|slot| hanging[*slot]).collect();
            let called = Called { model, number, step, layer, masks, given: mask_given(step) };
            match primitives(number)?.filter(|chain| called.is_given_by(chain)) {
                Some(chain) => hanging[step.outputs[0]] = graph.push_chain(&called, chain),
                None => {
                    let made = graph.push_call(&called);
                    step.outputs.iter().zip(made).for_each(|(slot, mask)| hanging[*slot] = mask);
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

    /// The nodes of a step that kernels do, and the mask that hangs on what it gives.
    fn push_chain(&mut self, called: &Called<'_>, mut chain: Vec<Primitive>) -> Option<usize> {
        let (step, path, number) = (called.step, &called.layer.path, called.number);
        let computes = called.layer.masking() == Masking::Computes;
        let passes = called.layer.masking() == Masking::Passes;
        // The mask that is given, or the one that came with the input.
        let of_first = match called.given {
            Some(input) => Some(self.push_mask(step.inputs[input], path, number)),
            None => called.masks.first().copied().flatten().filter(|_| called.operands() == 1),
        };
        let mask = match chain.first() {
            Some(Primitive::Rows { .. }) if computes => Some(self.push_mask(step.inputs[0], path, number)),
            Some(Primitive::Recurrent(recurrent)) if computes => of_first.filter(|_| recurrent.sequences),
            Some(Primitive::Bidirectional { forward, .. }) if computes => of_first.filter(|_| forward.sequences),
            Some(Primitive::Merge(_)) if computes => called.one_mask().filter(|_| called.merges_masks()),
            Some(Primitive::Attention(_)) => called.masks.first().copied().flatten().filter(|_| passes),
            // A mask hangs on a tensor, so on what is the same tensor.
            _ => of_first.filter(|_| passes || called.model.plan().same_as(step.outputs[0]) != step.outputs[0]),
        };
        let (mut inputs, last) = (step.inputs[..called.operands()].to_vec(), chain.len().saturating_sub(1));
        if let ([Primitive::Attention(attention)], true) = (chain.as_mut_slice(), called.is_masked() && passes) {
            attention.mask = Some(inputs.len());
            inputs.push(self.push_pairs(attention.inputs, called));
        }
        let mut masks = vec![of_first];
        for (place, primitive) in chain.into_iter().enumerate() {
            let outputs = vec![if place == last { step.outputs[0] } else { self.slot() }];
            self.nodes.push(Node {
                work: Work::of(primitive),
                inputs: std::mem::replace(&mut inputs, outputs.clone()),
                outputs,
                masks: std::mem::replace(&mut masks, vec![None]),
                made: vec![None],
                layers: vec![path.clone()],
                step: number,
            });
        }
        mask
    }

    /// The node of a step that the model does, and the masks that may hang on what it gives: whether there is one shows when it
    /// runs.
    fn push_call(&mut self, called: &Called<'_>) -> Vec<Option<usize>> {
        let (step, layer) = (called.step, called.layer);
        let may = called.is_masked() || layer.masking() == Masking::Computes || may_make_masks(layer);
        let made: Vec<Option<usize>> = step.outputs.iter().map(|_| may.then(|| self.mask())).collect();
        self.nodes.push(Node {
            work: Work::Call,
            inputs: step.inputs.clone(),
            outputs: step.outputs.clone(),
            masks: called.masks.clone(),
            made: made.clone(),
            layers: vec![layer.path.clone()],
            step: called.number,
        });
        made
    }

    /// The mask of the ids in a slot, or of the numbers that are given as a mask.
    fn push_mask(&mut self, slot: usize, path: &str, step: usize) -> usize {
        let mask = self.mask();
        let (inputs, made, layers) = (vec![slot], vec![Some(mask)], vec![path.to_owned()]);
        self.nodes.push(Node { work: Work::Mask, inputs, outputs: vec![], masks: vec![None], made, layers, step });
        mask
    }

    /// The slot of the pairs that count for attention to these inputs of a step.
    fn push_pairs(&mut self, [query, value, key]: [usize; 3], called: &Called<'_>) -> usize {
        let slot = self.slot();
        let of = |input: usize| called.masks.get(input).copied().flatten();
        let (masks, layers) = (vec![of(query), of(value), of(key)], vec![called.layer.path.clone()]);
        let (outputs, made, step) = (vec![slot], vec![None], called.number);
        self.nodes.push(Node { work: Work::Pairs, inputs: vec![], outputs, masks, made, layers, step });
        slot
    }

    /// Whether these slots are planned to hold tensors of one shape.
    pub(crate) fn are_of_one_shape(&self, slots: &[usize]) -> bool {
        let mut shapes = slots.iter().map(|slot| self.shapes.get(*slot).and_then(Option::as_ref));
        match shapes.next() {
            Some(Some(first)) => shapes.all(|shape| shape == Some(first)),
            _ => false,
        }
    }

    /// How many cells a slot has along the axes between batch and channels, where that is known.
    pub(crate) fn spatial(&self, slot: usize) -> Option<Vec<usize>> {
        match self.shapes.get(slot)?.as_ref()?.0.as_slice() {
            [_, spatial @ .., _] => spatial.iter().copied().collect(),
            _ => None,
        }
    }

    /// The steps of the plan that the model is called for.
    pub(crate) fn calls(&self) -> Vec<usize> {
        let call = |node: &Node| match node.work {
            Work::Call => Some(node.step),
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

/// A step of the plan, and what hangs on its inputs.
struct Called<'a> {
    model: &'a Model,
    number: usize,
    step: &'a Step,
    layer: &'a PlannedLayer,
    /// The mask of each input.
    masks: Vec<Option<usize>>,
    /// The input that is a mask for all of the layer: it is read as one, and is no operand.
    given: Option<usize>,
}

impl Called<'_> {
    fn operands(&self) -> usize {
        self.step.inputs.len() - usize::from(self.given.is_some())
    }

    fn is_masked(&self) -> bool {
        self.masks.iter().any(Option::is_some)
    }

    /// The mask that all inputs have, as those of a residual do.
    fn one_mask(&self) -> Option<usize> {
        let first = self.masks.first().copied().flatten();
        first.filter(|_| self.masks.iter().all(|mask| *mask == first))
    }

    /// Whether a layer that merges its inputs gives a mask.
    fn merges_masks(&self) -> bool {
        let has: Vec<bool> = self.masks.iter().map(Option::is_some).collect();
        self.model.merges_masks(self.number, &has)
    }

    /// Whether kernels for this chain give what the layer does, with the masks that it has.
    fn is_given_by(&self, chain: &[Primitive]) -> bool {
        if !takes(chain, self.operands()) || !chain.iter().all(has_kernel) {
            return false;
        }
        if let Some(input) = self.given {
            // What is fed as it is has to be of numbers that kernels read.
            let fed = self.model.plan().inputs().iter().find(|fed| fed.slot == self.step.inputs[input]);
            let numbers = [Dtype::Float32, Dtype::Int32, Dtype::Int64];
            return fed.is_none_or(|input| numbers.contains(&input.spec.dtype)) && self.goes_with_masks(chain);
        }
        match chain {
            _ if !self.is_masked() => true,
            // In these a mask leaves single numbers out.
            [Primitive::Merge(Merging::Multiply | Merging::Maximum | Merging::Minimum)] => false,
            [Primitive::PlainAttention(_)] => false,
            [Primitive::Merge(_)] => !self.merges_masks() || self.one_mask().is_some(),
            [Primitive::Attention(attention)] => {
                let ends = self.layer.masking() != Masking::Passes;
                attention.mask.is_none() && attention.inputs[0] == 0 && (ends || attention.takes_padding)
            }
            chain => self.goes_with_masks(chain),
        }
    }

    /// Whether a chain gives the same for an input that carries a mask, or knows what to do with it.
    fn goes_with_masks(&self, chain: &[Primitive]) -> bool {
        let merges = matches!(chain, [Primitive::Merge(_) | Primitive::Join { .. }]);
        self.operands() == 1 && !merges && self.layer.class != "Softmax"
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
        Some(Primitive::Merge(_) | Primitive::Join { .. }) => count > 0,
        Some(Primitive::Attention(_) | Primitive::PlainAttention(_)) => count > 0,
        Some(Primitive::MatMul) => count == 2,
        Some(_) => count == 1,
        None => false,
    }
}

/// Whether a layer may give a mask though none went in and it has no rule for them: a wrapper, and layers of the user's own.
fn may_make_masks(layer: &PlannedLayer) -> bool {
    let of_keras = kandle_model::layers().any(|known| known.class == layer.class);
    !layer.is_operation() && (!of_keras || layer.class == "TimeDistributed")
}

/// Whether there is a kernel for it, with Keras's numbers in every case.
fn has_kernel(primitive: &Primitive) -> bool {
    match primitive {
        Primitive::Map(curve) => Map::of(curve).is_some(),
        // Of a channel as many as it has filters: see `primitive::Convolution`.
        Primitive::Convolution(convolution) => {
            let filters = convolution.kernel.dims().last().copied().unwrap_or(0);
            convolution.kernel.dtype() == candle_core::DType::F32 && (!convolution.depthwise || filters == 1)
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
