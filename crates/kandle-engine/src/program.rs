//! What an engine runs: kernels in order, and where everything they read and write lies.
//!
//! [`choose`](crate::choose) says which kernels, [`placing`](crate::placing) where numbers lie; here they are put together and run.

use std::time::{Duration, Instant};

use candle_core::{CpuStorage, Device, Storage, Tensor};
use kandle_format::Dtype;
use kandle_model::{Model, Primitive, Value};

use crate::{
    Failure, Options,
    choose::{kernel_of, shown},
    dims::Dims,
    graph::{Graph, Node, Work},
    kernel::{Data, Kernel, MaskOf, Operand, Run, Scratch},
    masks::{Mask, pairs_of},
    memory::{Numbers, Store},
    placing::{Place, Placing},
    threads::Threads,
};

/// A slot, and the mask that hangs on it.
type WithMask = (usize, Option<usize>);

/// One step of a program.
#[derive(Debug)]
pub(crate) enum Step {
    Kernel {
        kernel: Box<dyn Kernel>,
        inputs: Vec<usize>,
        output: usize,
        in_place: bool,
        mask: Option<usize>,
    },
    /// The same numbers in another shape: `(batch, axes…)`.
    View {
        input: usize,
        output: usize,
        axes: Vec<Option<usize>>,
    },
    Mask {
        ids: usize,
        mask: usize,
    },
    /// Which pairs count: of the masks of query, value and key.
    Pairs {
        masks: Vec<Option<usize>>,
        output: usize,
    },
    Call {
        step: usize,
        inputs: Vec<WithMask>,
        outputs: Vec<WithMask>,
        same: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    /// The nodes that the steps were made of, for whoever wants to see them.
    pub(crate) shown: Vec<(String, Vec<String>, usize)>,
    places: Vec<Place>,
    /// For each slot whether calls of the model read it: then it is a value too.
    is_value: Vec<bool>,
    /// For each step the values that nobody reads after it.
    spent: Vec<Vec<usize>>,
    constants: Vec<(usize, Value)>,
    inputs: Vec<usize>,
    outputs: Vec<(usize, Option<usize>)>,
    registers: usize,
    ids: usize,
    masks: usize,
    /// Bytes of weights that every run reads, where each row of the batch is computed of itself alone.
    by_rows: Option<usize>,
}

/// Memory that is kept from run to run.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    registers: Vec<Numbers>,
    ids: Vec<Vec<i64>>,
    dims: Vec<Dims>,
    values: Vec<Option<Value>>,
    masks: Vec<Mask>,
    scratch: Scratch,
    /// The shapes of the inputs that were measured last, and what they took.
    measured: Measured,
}

/// What the tensors of a run take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// The shapes of the inputs.
    inputs: Vec<Dims>,
    /// Those of the outputs.
    pub(crate) outputs: Vec<Dims>,
    /// The bytes of all that the largest step reads and writes.
    pub(crate) most: usize,
    /// Those of all steps.
    pub(crate) all: usize,
}

/// What is fed to an input.
pub(crate) struct Feed<'a> {
    pub(crate) operand: Option<Operand<'a>>,
    /// The same as the model takes it, where that is there already.
    pub(crate) value: Option<&'a Value>,
    pub(crate) dtype: Dtype,
}

impl Default for Feed<'_> {
    /// Nothing yet.
    fn default() -> Self {
        Self { operand: None, value: None, dtype: Dtype::Float32 }
    }
}

/// Where an output goes.
pub(crate) enum Out<'a> {
    /// Memory of the caller's, which must be as long as the output.
    Into(&'a mut [f32]),
    /// Memory that is made.
    Made(Vec<f32>, Dims),
    /// What is no float32, or has a mask.
    Value(Value),
}

impl Step {
    /// The step of node `number`, with its outputs placed, and the bytes of its weights.
    fn of(
        graph: &mut Graph,
        number: usize,
        model: &Model,
        placing: &mut Placing<'_>,
        store: &mut Store,
    ) -> candle_core::Result<Option<(Self, usize)>> {
        // What is packed need not be there any longer.
        let work = std::mem::replace(&mut graph.nodes[number].work, Work::Mask);
        let node: &Node = &graph.nodes[number];
        Ok(Some(match work {
            Work::Primitive { primitive: Primitive::Reshape(axes), .. } => {
                let (input, output) = (node.inputs[0], node.outputs[0]);
                placing.view(input, output);
                (Self::View { input, output, axes }, 0)
            }
            Work::Kernel(kernel, _) => {
                let in_place = placing.place(number, node, kernel.works_in_place());
                let (bytes, output) = (kernel.bytes(), node.outputs[0]);
                (Self::Kernel { kernel, inputs: node.inputs.clone(), output, in_place, mask: None }, bytes)
            }
            Work::Primitive { primitive, scale, adds, map } => {
                let spatial = graph.spatial(node.inputs[0]);
                let Some(kernel) = kernel_of(&primitive, scale.as_deref(), spatial.as_deref(), adds, map, store)?
                else {
                    return Ok(None);
                };
                // What stretches has another place than what it is made of.
                let stretches = matches!(primitive, Primitive::Merge(_)) && !graph.are_of_one_shape(&node.inputs);
                let in_place = placing.place(number, node, kernel.works_in_place() && !stretches);
                let reads_mask = matches!(
                    primitive,
                    Primitive::Recurrent(_)
                        | Primitive::Bidirectional { .. }
                        | Primitive::PoolAll { largest: false, .. }
                );
                let mask = node.masks.first().copied().flatten().filter(|_| reads_mask);
                let (bytes, output) = (kernel.bytes(), node.outputs[0]);
                (Self::Kernel { kernel, inputs: node.inputs.clone(), output, in_place, mask }, bytes)
            }
            Work::Mask => match node.made.first() {
                Some(Some(mask)) => (Self::Mask { ids: node.inputs[0], mask: *mask }, 0),
                _ => return Ok(None),
            },
            Work::Pairs => {
                let output = node.outputs[0];
                placing.place_made(output);
                (Self::Pairs { masks: node.masks.clone(), output }, 0)
            }
            Work::Call => {
                placing.place_values(node);
                let (plan, of_plan) = (model.plan(), &model.plan().steps()[node.step]);
                let same = match (of_plan.inputs.as_slice(), of_plan.outputs.as_slice()) {
                    ([_], [output]) => plan.same_as(*output) != *output,
                    _ => false,
                };
                let inputs = node.inputs.iter().copied().zip(node.masks.iter().copied()).collect();
                let outputs = node.outputs.iter().copied().zip(node.made.iter().copied()).collect();
                (Self::Call { step: node.step, inputs, outputs, same }, 0)
            }
        }))
    }
}

impl Program {
    /// Chooses kernels, packs weights, and decides where everything lies; none where a node has no kernel after all.
    ///
    /// # Errors
    /// What candle reports of the weights.
    pub(crate) fn new(mut graph: Graph, model: &Model, options: &Options) -> candle_core::Result<Option<Self>> {
        let mut placing = Placing::new(&graph, model);
        let mut store = Store::new(graph.numbers(), options.tables_in_file);
        let (mut steps, mut names, mut spent) = (vec![], vec![], vec![]);
        for number in 0..graph.nodes.len() {
            let spatial = graph.nodes[number].inputs.first().and_then(|slot| graph.spatial(*slot));
            let name = shown(&graph.nodes[number], model, spatial.as_deref());
            let made = Step::of(&mut graph, number, model, &mut placing, &mut store)?;
            let Some((step, bytes)) = made else { return Ok(None) };
            let node = &graph.nodes[number];
            let mut layers = node.layers.clone();
            layers.dedup();
            names.push((name, layers, bytes));
            steps.push(step);
            spent.push(placing.spent_by(number, node));
            placing.give_back(number, node);
        }
        let apart = |step: &Step| match step {
            Step::Kernel { kernel, .. } => kernel.keeps_rows_apart(),
            Step::View { .. } | Step::Mask { .. } | Step::Pairs { .. } => true,
            Step::Call { .. } => false,
        };
        // A constant has no rows of the batch, and masks of outputs would have to be put together.
        let plain = graph.constants.is_empty() && graph.outputs.iter().all(|(_, mask)| mask.is_none());
        let read = |step: &Step| match step {
            Step::Kernel { kernel, .. } => kernel.bytes_read(),
            _ => 0,
        };
        Ok(Some(Self {
            by_rows: (plain && steps.iter().all(apart)).then(|| steps.iter().map(read).sum()),
            steps,
            shown: names,
            spent,
            constants: graph.constants,
            inputs: model.plan().inputs().iter().map(|input| input.slot).collect(),
            outputs: graph.outputs,
            masks: graph.masks,
            registers: placing.registers,
            ids: placing.ids,
            is_value: placing.is_value,
            places: placing.places,
        }))
    }

    /// How many steps are calls of the model.
    pub(crate) fn calls(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Call { .. })).count()
    }

    /// Memory for runs, with what is constant in it.
    pub(crate) fn workspace(&self) -> Result<Workspace, Failure> {
        let mut workspace = Workspace {
            registers: (0..self.registers).map(|_| Numbers::default()).collect(),
            ids: vec![Vec::new(); self.ids],
            dims: vec![Dims::default(); self.places.len()],
            values: vec![None; self.places.len()],
            masks: (0..self.masks).map(|_| Mask::Absent).collect(),
            scratch: Scratch::default(),
            measured: Default::default(),
        };
        for (slot, value) in &self.constants {
            if let Place::Register(register) = self.places[*slot] {
                let numbers = value.tensor.flatten_all()?.to_vec1::<f32>()?;
                workspace.registers[register].grow(numbers.len());
                workspace.registers[register][..numbers.len()].copy_from_slice(&numbers);
            }
            if let Place::Ids(number) = self.places[*slot] {
                let flat = value.tensor.flatten_all()?;
                workspace.ids[number] = flat.to_dtype(candle_core::DType::I64)?.to_vec1::<i64>()?;
            }
            workspace.dims[*slot] = Dims::new(value.tensor.dims())?;
            workspace.values[*slot] = Some(value.clone());
        }
        Ok(workspace)
    }

    /// Bytes of weights that every run reads, where the rows of a batch may be run apart from each other.
    pub(crate) fn runs_by_rows(&self) -> Option<usize> {
        self.by_rows
    }

    /// Whether a step reads what another has written.
    pub(crate) fn is_chain(&self) -> bool {
        self.steps.len() > 1
    }

    /// What the tensors of a run on inputs of these shapes take.
    ///
    /// # Errors
    /// Where they do not fit.
    pub(crate) fn measure<'a>(&self, workspace: &'a mut Workspace, inputs: &[Dims]) -> Result<&'a Measured, Failure> {
        if workspace.measured.inputs == inputs {
            return Ok(&workspace.measured);
        }
        for (slot, dims) in self.inputs.iter().zip(inputs) {
            workspace.dims[*slot] = *dims;
        }
        let mut found = Measured::default();
        for step in &self.steps {
            match step {
                Step::Kernel { kernel, inputs, output, .. } => {
                    let dims: Vec<Dims> = inputs.iter().map(|slot| workspace.dims[*slot]).collect();
                    let made = kernel.dims(&dims)?;
                    workspace.dims[*output] = made;
                    let numbers = dims.iter().map(|dims| dims.count()).sum::<usize>() + made.count();
                    found.most = found.most.max(numbers * size_of::<f32>());
                    found.all += numbers * size_of::<f32>();
                }
                Step::View { input, output, axes } => {
                    workspace.dims[*output] = viewed(workspace.dims[*input], axes)?;
                }
                Step::Mask { .. } | Step::Pairs { .. } | Step::Call { .. } => {}
            }
        }
        found.inputs = inputs.to_vec();
        found.outputs = self.outputs.iter().map(|(slot, _)| workspace.dims[*slot]).collect();
        workspace.measured = found;
        Ok(&workspace.measured)
    }

    /// Runs on what is fed, one for each input, and fills `outs`, one for each output.
    ///
    /// # Errors
    /// What was not foreseen, and what a call of the model reports.
    pub(crate) fn run(
        &self,
        model: &Model,
        threads: &Threads,
        workspace: &mut Workspace,
        feeds: &[Feed<'_>],
        outs: &mut [Out<'_>],
        mut spent: Option<&mut Vec<Duration>>,
    ) -> Result<(), Failure> {
        for (slot, feed) in self.inputs.iter().zip(feeds) {
            if let Some(operand) = feed.operand {
                workspace.dims[*slot] = operand.dims;
            }
        }
        for (number, step) in self.steps.iter().enumerate() {
            let begun = spent.as_ref().map(|_| Instant::now());
            match step {
                Step::Kernel { kernel, inputs, output, in_place, mask } => {
                    self.run_kernel(
                        kernel.as_ref(),
                        (inputs, *output, *in_place, *mask),
                        threads,
                        workspace,
                        feeds,
                        outs,
                    )?;
                }
                Step::View { input, output, axes } => {
                    workspace.dims[*output] = viewed(workspace.dims[*input], axes)?;
                }
                Step::Mask { ids, mask } => {
                    let mut bytes = match std::mem::take(&mut workspace.masks[*mask]) {
                        Mask::Bytes(_, bytes) => bytes,
                        _ => Vec::new(),
                    };
                    let operand = self.operand(*ids, workspace, feeds, outs)?;
                    bytes.clear();
                    match operand.data {
                        Data::F32(ids) => bytes.extend(ids.iter().map(|id| u8::from(*id != 0.0))),
                        Data::I32(ids) => bytes.extend(ids.iter().map(|id| u8::from(*id != 0))),
                        Data::I64(ids) => bytes.extend(ids.iter().map(|id| u8::from(*id != 0))),
                    }
                    let dims = operand.dims;
                    workspace.masks[*mask] = Mask::Bytes(dims, bytes);
                }
                Step::Pairs { masks, output } => self.fill_pairs(masks, *output, workspace)?,
                Step::Call { step, inputs, outputs, same } => {
                    self.call(model, *step, (inputs, outputs, *same), workspace, feeds, outs)?;
                }
            }
            for slot in &self.spent[number] {
                workspace.values[*slot] = None;
            }
            if let (Some(spent), Some(begun)) = (spent.as_deref_mut(), begun) {
                spent.push(begun.elapsed());
            }
        }
        for (number, (slot, _)) in self.outputs.iter().enumerate() {
            if self.places[*slot] == Place::Output(number) {
                continue;
            }
            let made = workspace.values[*slot].clone();
            let of_input = self.inputs.iter().position(|input| input == slot);
            match (made, of_input.and_then(|input| feeds[input].value)) {
                (Some(value), _) => give_value(&mut outs[number], value)?,
                (None, Some(value)) => give_value(&mut outs[number], value.clone())?,
                (None, None) => {
                    let Operand { dims, data } = self.operand(*slot, workspace, feeds, outs)?;
                    let numbers = data.floats()?.to_vec();
                    give(&mut outs[number], dims, &numbers)?;
                }
            }
        }
        Ok(())
    }

    /// The mask of output number `output` of the last run.
    pub(crate) fn mask_of(&self, output: usize, workspace: &Workspace) -> candle_core::Result<Option<Tensor>> {
        match self.outputs.get(output) {
            Some((_, Some(mask))) => workspace.masks[*mask].tensor(),
            _ => Ok(None),
        }
    }

    /// How many bytes a workspace holds.
    pub(crate) fn bytes_of(workspace: &Workspace) -> usize {
        let registers = workspace.registers.iter().map(|register| size_of_val::<[f32]>(register)).sum::<usize>();
        registers + workspace.scratch.bytes()
    }

    /// Fills a slot with the pairs of query and key that count.
    fn fill_pairs(&self, masks: &[Option<usize>], output: usize, workspace: &mut Workspace) -> Result<(), Failure> {
        let Place::Register(register) = self.places[output] else { return Ok(()) };
        for mask in masks.iter().flatten() {
            workspace.masks[*mask].as_bytes()?;
        }
        let masks = masks.iter().map(|mask| mask.map(|mask| &workspace.masks[mask]));
        workspace.dims[output] = pairs_of(masks, &mut workspace.registers[register])?;
        Ok(())
    }

    fn run_kernel(
        &self,
        kernel: &dyn Kernel,
        (inputs, output, in_place, mask): (&[usize], usize, bool, Option<usize>),
        threads: &Threads,
        workspace: &mut Workspace,
        feeds: &[Feed<'_>],
        outs: &mut [Out<'_>],
    ) -> Result<(), Failure> {
        const FEW: usize = 8;
        let mut few = [Dims::default(); FEW];
        let many: Vec<Dims>;
        let dims = match few.get_mut(..inputs.len()) {
            Some(few) => {
                few.iter_mut().zip(inputs).for_each(|(dims, slot)| *dims = workspace.dims[*slot]);
                &*few
            }
            None => {
                many = inputs.iter().map(|slot| workspace.dims[*slot]).collect();
                &many
            }
        };
        let made = kernel.dims(dims)?;
        let count = made.count();
        if let Some(mask) = mask {
            workspace.masks[mask].as_bytes()?;
        }
        // The memory of the output is taken out for as long as the kernel runs.
        let mut scratch = std::mem::take(&mut workspace.scratch);
        let mut taken = Out::Into(&mut []);
        let mut register = Numbers::default();
        match self.places[output] {
            Place::Register(number) => {
                register = std::mem::take(&mut workspace.registers[number]);
                register.grow(count);
            }
            Place::Output(number) => {
                if let Out::Made(numbers, dims) = &mut outs[number] {
                    (*numbers, *dims) = (vec![0.0; count], made);
                }
                std::mem::swap(&mut taken, &mut outs[number]);
            }
            _ => return Err(Failure::unforeseen("a kernel without a place to write to")),
        }
        let out: Result<&mut [f32], Failure> = match &mut taken {
            _ if matches!(self.places[output], Place::Register(_)) => Ok(&mut register[..count]),
            Out::Into(numbers) if numbers.len() == count => Ok(numbers),
            Out::Made(numbers, _) => Ok(numbers),
            _ => Err(Failure::unforeseen("an output of another size")),
        };
        let ran = out.and_then(|out| {
            let mask = match mask.map(|mask| &workspace.masks[mask]) {
                None | Some(Mask::Absent) => None,
                Some(Mask::Bytes(dims, bytes)) => Some(MaskOf { dims: *dims, bytes }),
                Some(Mask::Tensor(_)) => return Err(Failure::unforeseen("a mask that is a tensor")),
            };
            let operand = |(place, slot): (usize, &usize)| match in_place && place == 0 {
                true => Ok(Operand { dims: workspace.dims[*slot], data: Data::F32(&[]) }),
                false => self.operand(*slot, workspace, feeds, outs),
            };
            let mut few = [Operand { dims: Dims::default(), data: Data::F32(&[]) }; FEW];
            let many: Vec<Operand<'_>>;
            let inputs = match few.get_mut(..inputs.len()) {
                Some(few) => {
                    for (place, slot) in inputs.iter().enumerate() {
                        few[place] = operand((place, slot))?;
                    }
                    &*few
                }
                None => {
                    many = inputs.iter().enumerate().map(operand).collect::<Result<_, _>>()?;
                    &many
                }
            };
            kernel.run(Run { inputs, out, dims: made, in_place, mask, scratch: &mut scratch, threads })
        });
        workspace.scratch = scratch;
        match self.places[output] {
            Place::Register(number) => workspace.registers[number] = register,
            Place::Output(number) => outs[number] = taken,
            _ => {}
        }
        workspace.dims[output] = made;
        ran?;
        if self.is_value[output] {
            let Operand { dims, data } = self.operand(output, workspace, feeds, outs)?;
            let tensor = Tensor::from_slice(data.floats()?, dims.as_slice(), &Device::Cpu)?;
            workspace.values[output] = Some(Value::new(tensor, Dtype::Float32));
        }
        Ok(())
    }

    /// What lies in a slot.
    fn operand<'a>(
        &self,
        slot: usize,
        workspace: &'a Workspace,
        feeds: &'a [Feed<'_>],
        outs: &'a [Out<'_>],
    ) -> Result<Operand<'a>, Failure> {
        let dims = workspace.dims[slot];
        let numbers = match self.places[slot] {
            Place::Ids(number) => return Ok(Operand { dims, data: Data::I64(&workspace.ids[number]) }),
            Place::Input(number) => {
                let fed = feeds.get(number).and_then(|feed| feed.operand);
                let fed = fed.ok_or_else(|| Failure::unforeseen("an input of another dtype"))?;
                return Ok(Operand { dims, data: fed.data });
            }
            Place::Register(register) => workspace.registers[register].get(..dims.count()),
            Place::Output(number) => match &outs[number] {
                Out::Into(numbers) => Some(&**numbers),
                Out::Made(numbers, _) => Some(numbers.as_slice()),
                Out::Value(_) => None,
            },
            Place::Nowhere => None,
        };
        let numbers = numbers.ok_or_else(|| Failure::unforeseen("a slot that holds no float32"))?;
        Ok(Operand { dims, data: Data::F32(numbers) })
    }

    /// Calls the model for one step of its plan.
    fn call(
        &self,
        model: &Model,
        step: usize,
        (inputs, outputs, same): (&[WithMask], &[WithMask], bool),
        workspace: &mut Workspace,
        feeds: &[Feed<'_>],
        outs: &[Out<'_>],
    ) -> Result<(), Failure> {
        let mut given = Vec::with_capacity(inputs.len());
        for (slot, mask) in inputs {
            let fed = self.inputs.iter().position(|input| input == slot).and_then(|input| feeds.get(input));
            let value = match (&workspace.values[*slot], fed) {
                (Some(value), _) => value.clone(),
                (None, Some(Feed { value: Some(value), .. })) => (*value).clone(),
                (None, fed) => {
                    let Operand { dims, data } = self.operand(*slot, workspace, feeds, outs)?;
                    let tensor = match data {
                        Data::F32(numbers) => Tensor::from_slice(numbers, dims.as_slice(), &Device::Cpu),
                        Data::I32(numbers) => Tensor::from_slice(numbers, dims.as_slice(), &Device::Cpu),
                        Data::I64(numbers) => Tensor::from_slice(numbers, dims.as_slice(), &Device::Cpu),
                    };
                    // Not kept: the next run has other numbers there.
                    Value::new(tensor?, fed.map_or(Dtype::Float32, |feed| feed.dtype))
                }
            };
            let mask = mask.map(|mask| workspace.masks[mask].tensor()).transpose()?.flatten();
            given.push(value.with_mask(mask));
        }
        let made = model.run_step(step, &given)?;
        if made.len() != outputs.len() {
            return Err(Failure::unforeseen("another number of outputs"));
        }
        for ((slot, mask), value) in outputs.iter().zip(made) {
            if let Ok(dims) = Dims::new(value.tensor.dims()) {
                workspace.dims[*slot] = dims;
            }
            if let Place::Register(register) = self.places[*slot] {
                let register = &mut workspace.registers[register];
                let tensor = value.tensor.contiguous()?;
                let (storage, layout) = tensor.storage_and_layout();
                let Storage::Cpu(CpuStorage::F32(numbers)) = &*storage else {
                    return Err(Failure::unforeseen("a layer that gives no float32"));
                };
                let numbers = &numbers[layout.start_offset()..][..layout.shape().elem_count()];
                register.grow(numbers.len());
                register[..numbers.len()].copy_from_slice(numbers);
            }
            if let Place::Ids(number) = self.places[*slot] {
                let flat = value.tensor.flatten_all()?;
                workspace.ids[number] = flat.to_dtype(candle_core::DType::I64)?.to_vec1::<i64>()?;
            }
            if let Some(mask) = mask {
                // A mask hangs on a tensor, so on what is the same tensor.
                let found =
                    value.mask.clone().or_else(|| given.first().filter(|_| same).and_then(|value| value.mask.clone()));
                workspace.masks[*mask] = found.map_or(Mask::Absent, Mask::Tensor);
            }
            workspace.values[*slot] = Some(value.with_mask(None));
        }
        Ok(())
    }
}

/// The shape `(batch, axes…)` of as many numbers.
pub(crate) fn viewed(dims: Dims, axes: &[Option<usize>]) -> Result<Dims, Failure> {
    let Some((batch, rest)) = dims.as_slice().split_first() else {
        return Err(Failure::unforeseen("a scalar cannot be reshaped"));
    };
    let features: usize = rest.iter().product();
    let known: usize = axes.iter().flatten().product();
    let fits = if axes.contains(&None) { known > 0 && features.is_multiple_of(known) } else { known == features };
    if !fits {
        return Err(Failure::unforeseen("a shape that does not fit"));
    }
    axes.iter().try_fold(Dims::new(&[*batch])?, |dims, axis| dims.and(axis.unwrap_or(features / known.max(1))))
}

fn give_value(out: &mut Out<'_>, value: Value) -> Result<(), Failure> {
    match out {
        Out::Made(..) | Out::Value(_) => *out = Out::Value(value.with_mask(None)),
        Out::Into(_) if value.dtype != Dtype::Float32 => {
            return Err(Failure::unforeseen("an output that is no float32"));
        }
        Out::Into(_) => {
            let dims = Dims::new(value.tensor.dims())?;
            give(out, dims, &value.tensor.flatten_all()?.to_vec1::<f32>()?)?;
        }
    }
    Ok(())
}

fn give(out: &mut Out<'_>, dims: Dims, numbers: &[f32]) -> Result<(), Failure> {
    match out {
        Out::Into(place) if place.len() == numbers.len() => place.copy_from_slice(numbers),
        Out::Into(_) => return Err(Failure::unforeseen("an output of another size")),
        Out::Made(made, of) => (*made, *of) = (numbers.to_vec(), dims),
        Out::Value(_) => return Err(Failure::unforeseen("an output that is a value")),
    }
    Ok(())
}
