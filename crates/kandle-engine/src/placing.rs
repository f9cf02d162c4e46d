//! Where the numbers of slots lie: decided once, by who reads what last.
//!
//! What is no longer read gives its memory to what comes next. How large it is shows when the program runs, and is kept from
//! run to run.

use kandle_model::{Model, Primitive};

use crate::graph::{Graph, Node, Work, is_float32};

/// Where the numbers of a slot lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: nobody reads them.
    Nowhere,
    /// In what was fed.
    Input(usize),
    /// In kept memory.
    Register(usize),
    /// In the memory of an output.
    Output(usize),
    /// In kept memory of integers: what a call of the model gave, for a kernel that looks up ids.
    Ids(usize),
}

/// The places of all slots, as they are found node after node.
pub(crate) struct Placing<'a> {
    model: &'a Model,
    pub(crate) places: Vec<Place>,
    /// Slots that calls of the model read or give: they are values too.
    pub(crate) is_value: Vec<bool>,
    pub(crate) registers: usize,
    pub(crate) ids: usize,
    /// Registers that nobody uses.
    free: Vec<usize>,
    /// The slot whose numbers each slot shows: its own, but for views.
    base: Vec<usize>,
    /// The number of the node that reads each slot last; beyond all nodes for outputs.
    last_read: Vec<usize>,
    by_kernel: Vec<bool>,
    by_call: Vec<bool>,
    is_constant: Vec<bool>,
}

impl<'a> Placing<'a> {
    /// Inputs, constants and outputs placed.
    pub(crate) fn new(graph: &Graph, model: &'a Model) -> Self {
        let slots = graph.slots;
        let none = || vec![false; slots];
        let mut placing = Self {
            model,
            places: vec![Place::Nowhere; slots],
            is_value: none(),
            registers: 0,
            ids: 0,
            free: vec![],
            base: (0..slots).collect(),
            last_read: vec![0; slots],
            by_kernel: none(),
            by_call: none(),
            is_constant: none(),
        };
        placing.find_readers(graph);
        for (number, input) in model.plan().inputs().iter().enumerate() {
            placing.places[input.slot] = Place::Input(number);
        }
        for (slot, _) in &graph.constants {
            (placing.is_value[*slot], placing.is_constant[*slot]) = (true, true);
            if placing.by_kernel[*slot] {
                placing.places[*slot] = placing.kept(*slot);
            }
        }
        placing.place_outputs(graph);
        placing
    }

    /// Who reads what, and who last.
    fn find_readers(&mut self, graph: &Graph) {
        for node in &graph.nodes {
            match (&node.work, node.inputs.as_slice(), node.outputs.as_slice()) {
                (Work::Primitive { primitive: Primitive::Reshape(_), .. }, [input], [output]) => {
                    self.base[*output] = self.base[*input];
                }
                (Work::Call, _, outputs) => {
                    for slot in outputs {
                        (self.by_call[*slot], self.is_value[*slot]) = (true, true);
                    }
                }
                _ => {}
            }
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            for slot in &node.inputs {
                let base = self.base[*slot];
                (self.last_read[*slot], self.last_read[base]) = (number, number);
                match node.work {
                    Work::Call => self.is_value[*slot] = true,
                    _ => (self.by_kernel[*slot], self.by_kernel[base]) = (true, true),
                }
            }
        }
        for (slot, _) in &graph.outputs {
            let base = self.base[*slot];
            (self.last_read[*slot], self.last_read[base]) = (graph.nodes.len(), graph.nodes.len());
        }
    }

    /// An output that a kernel gives and that no other output shows is written where the caller wants it.
    fn place_outputs(&mut self, graph: &Graph) {
        for (number, (slot, _)) in graph.outputs.iter().enumerate() {
            let same = graph.outputs.iter().filter(|(other, _)| self.base[*other] == self.base[*slot]).count();
            let by_kernel = |node: &&Node| matches!(node.work, Work::Primitive { .. }) && node.outputs.contains(slot);
            let made = self.base[*slot] == *slot && graph.nodes.iter().any(|node| by_kernel(&node));
            if same == 1 && made && self.places[*slot] == Place::Nowhere {
                self.places[*slot] = Place::Output(number);
            }
        }
    }

    /// Kept memory for a slot that a call of the model gives, or a constant, and kernels read.
    fn kept(&mut self, slot: usize) -> Place {
        if is_float32(self.model, slot) {
            return Place::Register(self.register());
        }
        self.ids += 1;
        Place::Ids(self.ids - 1)
    }

    fn register(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.registers += 1;
            self.registers - 1
        })
    }

    /// `output` shows the numbers of `input`.
    pub(crate) fn view(&mut self, input: usize, output: usize) {
        self.places[output] = self.places[self.base[input]];
    }

    /// Places what a kernel gives: where its first input lies, if it can work there, nobody reads that any more, and it is in
    /// kept memory. Whether it is so.
    pub(crate) fn place(&mut self, number: usize, node: &Node, may_be_in_place: bool) -> bool {
        let (first, output) = (self.base[node.inputs[0]], node.outputs[0]);
        if self.places[output] != Place::Nowhere {
            return false;
        }
        let alone = node.inputs.iter().filter(|slot| self.base[**slot] == first).count() == 1;
        let last = self.last_read[first] == number && !self.is_constant[first];
        match self.places[first] {
            Place::Register(_) if may_be_in_place && alone && last => {
                self.places[output] = self.places[first];
                true
            }
            _ => {
                self.places[output] = Place::Register(self.register());
                false
            }
        }
    }

    /// Places what is made of masks.
    pub(crate) fn place_made(&mut self, slot: usize) {
        self.places[slot] = Place::Register(self.register());
    }

    /// Places what a call of the model gives, where kernels read it.
    pub(crate) fn place_values(&mut self, node: &Node) {
        for slot in &node.outputs {
            if self.by_kernel[*slot] {
                self.places[*slot] = self.kept(*slot);
            }
        }
    }

    /// The values that nobody reads after node `number`.
    pub(crate) fn spent_by(&self, number: usize, node: &Node) -> Vec<usize> {
        node.inputs.iter().copied().filter(|slot| self.last_read[*slot] == number && self.by_call[*slot]).collect()
    }

    /// What nobody reads after node `number` gives its memory back, but for what was worked on in place.
    pub(crate) fn give_back(&mut self, number: usize, node: &Node) {
        let kept = node.outputs.first().map(|slot| self.places[*slot]);
        let mut gone: Vec<usize> = node.inputs.iter().map(|slot| self.base[*slot]).collect();
        // What nobody reads at all.
        gone.extend(
            node.outputs.iter().copied().filter(|slot| self.last_read[*slot] == 0 && self.base[*slot] == *slot),
        );
        gone.sort_unstable();
        gone.dedup();
        for slot in gone.into_iter().filter(|slot| self.last_read[*slot] <= number && !self.is_constant[*slot]) {
            match self.places[slot] {
                Place::Register(register) if kept != Some(self.places[slot]) => self.free.push(register),
                _ => {}
            }
        }
    }
}
