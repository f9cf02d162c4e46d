use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use std::{path::Path, time::Duration};

use candle_core::{CpuStorage, Device, Storage, Tensor};
use kandle_format::{Archive, Dtype, Error, ErrorKind, Limits};
use kandle_model::{InFile, Input, Model, Plan, Shape, Value};

use crate::{
    Compiled, Failure, Instruction,
    dims::Dims,
    graph::Graph,
    kernel::{Data, Operand},
    passes,
    program::{Feed, Out, Program, Workspace},
    threads::Threads,
};

mod parts;

/// An error in words. Not through `bail!`, which may add a backtrace to them.
macro_rules! wrong {
    ($($words:tt)*) => {
        Err(candle_core::Error::Msg(format!($($words)*)))
    };
}

/// How an engine is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many threads work on one run, the caller's included. They are only woken where the work pays for it, and watch for more
    /// for 200 µs before they sleep again.
    pub threads: usize,
    /// The largest table, in bytes, that layers behind an embedding are folded into, unless it is smaller than their weights; each
    /// convolution over an embedding has one of its own.
    pub table_bytes: usize,
    /// Whether the tables of embeddings that nothing is folded into stay in the file that an engine is made of: it is ready sooner
    /// and takes less memory, and the file must not be written to for as long as the engine lives. A program that saves another
    /// model to the same path as Keras does it, in place, would change the numbers, or end this process (`SIGBUS`).
    pub tables_in_file: bool,
}

impl Default for Options {
    /// One thread for each core, tables of 64 MiB, and none that stay in the file.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, table_bytes: 64 << 20, tables_in_file: false }
    }
}

impl Options {
    /// The same with `threads` threads, the caller's included.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// The same with the tables of embeddings in the file, or not: see [`tables_in_file`](Self::tables_in_file).
    #[must_use]
    pub fn tables_in_file(self, tables_in_file: bool) -> Self {
        Self { tables_in_file, ..self }
    }

    /// The same with tables of at most `bytes`.
    #[must_use]
    pub fn table_bytes(self, bytes: usize) -> Self {
        Self { table_bytes: bytes, ..self }
    }
}

/// A model compiled for the CPU: the same numbers as the [`Model`] gives, fast, on memory that is kept from run to run.
///
/// Where weights of the model change, compile it again: kernels hold theirs packed, layers without a kernel read the model's.
/// Many threads may run it at once; each run has memory of its own.
pub struct Engine {
    /// The model; of a file, with the weights of those layers alone that it is called for.
    model: Model,
    file: Option<File>,
    program: Option<Program>,
    threads: Threads,
    idle: Mutex<Vec<Workspace>>,
    handed_over: AtomicUsize,
    /// Why the last of them was.
    reason: Mutex<Option<String>>,
}

/// The file of an engine that was not made of a model, and all of that where it was asked for after all.
#[derive(Debug)]
struct File {
    archive: Arc<Archive>,
    plan: Arc<Plan>,
    whole: OnceLock<Model>,
}

/// Inputs, or outputs, as many as are kept track of without asking for memory.
const FEW: usize = 4;
/// A tensor that is fed to an engine, row-major, where it lies.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    shape: &'a [usize],
    data: Data<'a>,
}

impl<'a> View<'a> {
    /// Float32 numbers.
    #[must_use]
    pub fn f32(shape: &'a [usize], numbers: &'a [f32]) -> Self {
        Self { shape, data: Data::F32(numbers) }
    }

    /// Int32 numbers, for an input of integers.
    #[must_use]
    pub fn i32(shape: &'a [usize], numbers: &'a [i32]) -> Self {
        Self { shape, data: Data::I32(numbers) }
    }

    /// Int64 numbers, for an input of integers.
    #[must_use]
    pub fn i64(shape: &'a [usize], numbers: &'a [i64]) -> Self {
        Self { shape, data: Data::I64(numbers) }
    }

    /// The same as a value that the model takes.
    ///
    /// # Errors
    /// Where there are more or fewer numbers than the shape has.
    pub fn value(&self) -> candle_core::Result<Value> {
        let (tensor, dtype) = match self.data {
            Data::F32(numbers) => (Tensor::from_slice(numbers, self.shape, &Device::Cpu)?, Dtype::Float32),
            Data::I32(numbers) => (Tensor::from_slice(numbers, self.shape, &Device::Cpu)?, Dtype::Int32),
            Data::I64(numbers) => (Tensor::from_slice(numbers, self.shape, &Device::Cpu)?, Dtype::Int64),
        };
        Ok(Value::new(tensor, dtype))
    }
}

impl<'a> View<'a> {
    /// As a program takes it.
    fn feed(&self) -> Result<Feed<'a>, Failure> {
        let dtype = match self.data {
            Data::F32(_) => Dtype::Float32,
            Data::I32(_) => Dtype::Int32,
            Data::I64(_) => Dtype::Int64,
        };
        Ok(Feed { operand: Some(Operand { dims: Dims::new(self.shape)?, data: self.data }), value: None, dtype })
    }
}

/// Models that can be compiled.
pub trait Compile {
    /// The engine of this model.
    ///
    /// # Errors
    /// What candle reports of the weights, and where the system gives no threads. A model that is not on the CPU is an error.
    fn compile(&self, options: &Options) -> candle_core::Result<Engine>;
}

impl Compile for Model {
    fn compile(&self, options: &Options) -> candle_core::Result<Engine> {
        Engine::new(self, options)
    }
}

/// Plans that can be compiled on a file.
pub trait CompileFile {
    /// The engine of this plan on the weights of `archive`, without a [`Model`] and its variables in between: weights are read
    /// layer by layer and packed. All are read, or it is an error.
    ///
    /// The file stays open, and has to stay as it is, for what the engine leaves to the model, and for
    /// [`Options::tables_in_file`].
    ///
    /// # Errors
    /// As [`Plan::load`], and where the system gives no threads.
    fn compile(self, archive: &Arc<Archive>, options: &Options) -> kandle_format::Result<Engine>;
}

impl CompileFile for Plan {
    fn compile(self, archive: &Arc<Archive>, options: &Options) -> kandle_format::Result<Engine> {
        Engine::on_file(Arc::new(self), archive, options)
    }
}

impl Engine {
    /// Opens, plans and compiles the model at `path`, as [`CompileFile::compile`] does it.
    ///
    /// # Errors
    /// As [`Archive::open`], [`Plan::new`] and [`CompileFile::compile`].
    pub fn load(path: impl AsRef<Path>, options: &Options) -> kandle_format::Result<Self> {
        let archive = Arc::new(Archive::open(path, &Limits::default())?);
        let plan = Plan::new(&archive.config()?).map_err(|error| error.in_file(archive.name()))?;
        plan.compile(&archive, options)
    }

    fn on_file(plan: Arc<Plan>, archive: &Arc<Archive>, options: &Options) -> kandle_format::Result<Self> {
        let in_file = InFile::new(&plan, archive)?;
        let failed = |error: candle_core::Error| {
            Error::new(ErrorKind::Invalid, "", error.to_string()).in_file(archive.name()).caused_by(error)
        };
        let empty = in_file.with_weights_of(&[])?;
        let mut graph = Graph::of(&empty, |step| in_file.primitives(step))?;
        if let Some(graph) = &mut graph {
            passes::apply(graph, &empty, options).map_err(failed)?;
        }
        let model = in_file.with_weights_of(&graph.as_ref().map(Graph::calls).unwrap_or_default())?;
        let file = File { archive: Arc::clone(archive), plan: Arc::clone(&plan), whole: OnceLock::new() };
        if graph.is_none() {
            // There is nothing to compile: all weights are the model's.
            let _ = file.whole.set(in_file.model()?.detached());
        }
        Self::of(model, Some(file), graph, options).map_err(failed)
    }

    fn new(model: &Model, options: &Options) -> candle_core::Result<Self> {
        if !model.device().is_cpu() {
            return wrong!("an engine runs on the CPU: the model's weights are on {:?}", model.device().location());
        }
        let model = model.detached();
        let mut graph = Graph::of(&model, |step| model.primitives(step))?;
        if let Some(graph) = &mut graph {
            passes::apply(graph, &model, options)?;
        }
        Self::of(model, None, graph, options)
    }

    fn of(model: Model, file: Option<File>, graph: Option<Graph>, options: &Options) -> candle_core::Result<Self> {
        let program = match graph {
            Some(graph) => Program::new(graph, &model, options)?,
            None => None,
        };
        let threads = Threads::new(options.threads).map_err(candle_core::Error::wrap)?;
        Ok(Self {
            model,
            file,
            program,
            threads,
            idle: Mutex::default(),
            handed_over: AtomicUsize::new(0),
            reason: Mutex::default(),
        })
    }

    /// The plan that it runs.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.model.plan()
    }

    /// The model that it gives the numbers of. That of an engine made of a file is read from there when it is first asked for.
    ///
    /// # Errors
    /// As [`Plan::load`], where it is read.
    pub fn model(&self) -> candle_core::Result<&Model> {
        let Some(File { archive, plan, whole }) = &self.file else { return Ok(&self.model) };
        if let Some(whole) = whole.get() {
            return Ok(whole);
        }
        let model = InFile::new(plan, archive).and_then(|in_file| in_file.model()).map_err(candle_core::Error::wrap)?;
        Ok(whole.get_or_init(|| model.detached()))
    }

    /// What became of the model.
    #[must_use]
    pub fn compiled(&self) -> Compiled {
        let shown = self.program.iter().flat_map(|program| &program.shown);
        let instructions: Vec<Instruction> = shown
            .map(|(work, layers, bytes)| Instruction { work: work.clone(), layers: layers.clone(), bytes: *bytes })
            .collect();
        Compiled { instructions, calls: self.program.as_ref().map_or(0, Program::calls) }
    }

    /// The bytes of memory that it keeps for runs, those of weights not counted.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Program::bytes_of).sum()
    }

    /// How many runs met what the program was not made for, and were handed over to the model; and why the last of them was.
    #[must_use]
    pub fn handed_over(&self) -> (usize, Option<String>) {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.handed_over.load(Ordering::Relaxed), reason)
    }

    /// Runs it, and says how long each instruction of [`compiled`](Self::compiled) took; nothing where the run was handed over to
    /// the model.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn profile(&self, inputs: &[Value]) -> candle_core::Result<Vec<Duration>> {
        let mut spent = Vec::new();
        let known = self.program.as_ref().filter(|_| inputs.len() == self.model.plan().inputs().len());
        let Some(program) = known else { return self.model()?.run(inputs).map(|_| spent) };
        match self.run_program(program, inputs, Some(&mut spent)) {
            Ok(_) => Ok(spent),
            Err(_) => self.model()?.run(inputs).map(|_| Vec::new()),
        }
    }

    fn hand_over(&self, failure: &Failure) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
    }

    /// Runs a model of one input and one output, as [`Model::forward`].
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let mut outputs = self.run(&[Value::of(xs)?])?;
        match (outputs.pop(), outputs.len()) {
            (Some(only), 0) => Ok(only.tensor),
            _ => wrong!("the model has {} outputs: call run", self.model.plan().outputs().len()),
        }
    }

    /// Runs it as [`Model::run`]: one value for each input in, one for each output out.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run(&self, inputs: &[Value]) -> candle_core::Result<Vec<Value>> {
        let masked = inputs.iter().any(|input| input.mask.is_some());
        let known = self.program.as_ref().filter(|_| !masked && inputs.len() == self.model.plan().inputs().len());
        let Some(program) = known else { return self.model()?.run(inputs) };
        match self.run_program(program, inputs, None) {
            Ok(outputs) => Ok(outputs),
            // The model says what is wrong, with the layer's name; or it knows what to do.
            Err(failure) => {
                self.hand_over(&failure);
                self.model()?.run(inputs)
            }
        }
    }

    fn run_program(
        &self,
        program: &Program,
        inputs: &[Value],
        spent: Option<&mut Vec<Duration>>,
    ) -> Result<Vec<Value>, Failure> {
        let fed = inputs.iter().enumerate().map(|(number, value)| {
            let value = self.model.feed(number, value)?;
            Ok(Value { tensor: value.tensor.contiguous()?, ..value })
        });
        let fed = fed.collect::<candle_core::Result<Vec<Value>>>()?;
        let guards: Vec<_> = fed.iter().map(|value| value.tensor.storage_and_layout()).collect();
        let mut feeds = Vec::with_capacity(fed.len());
        for (value, (storage, layout)) in fed.iter().zip(&guards) {
            let (from, count) = (layout.start_offset(), layout.shape().elem_count());
            let data = match (&**storage, value.dtype) {
                (Storage::Cpu(CpuStorage::F32(numbers)), Dtype::Float32) => Some(Data::F32(&numbers[from..][..count])),
                (Storage::Cpu(CpuStorage::I32(numbers)), _) => Some(Data::I32(&numbers[from..][..count])),
                (Storage::Cpu(CpuStorage::I64(numbers)), Dtype::Int64) => Some(Data::I64(&numbers[from..][..count])),
                _ => None,
            };
            let dims = Dims::new(layout.dims())?;
            let operand = data.map(|data| Operand { dims, data });
            feeds.push(Feed { operand, value: Some(value), dtype: value.dtype });
        }
        let operands: Option<Vec<Operand<'_>>> = feeds.iter().map(|feed| feed.operand).collect();
        let outputs = self.model.plan().outputs().len();
        let mut outs: Vec<Out<'_>> = (0..outputs).map(|_| Out::Made(Vec::new(), Dims::default())).collect();
        self.on_kept_memory(program, |workspace| {
            if spent.is_none()
                && let Some(operands) = operands
                && let Some(parts) = self.parts(program, workspace, &operands)
            {
                let dims = &parts.outputs[..outputs];
                let mut made: Vec<Vec<f32>> = dims.iter().map(|dims| vec![0.0; dims.count()]).collect();
                let mut outs: Vec<&mut [f32]> = made.iter_mut().map(Vec::as_mut_slice).collect();
                self.run_parts(program, workspace, &operands, &mut outs, &parts)?;
                let value = |(numbers, dims): (Vec<f32>, &Dims)| {
                    let tensor = Tensor::from_vec(numbers, dims.as_slice(), &Device::Cpu)?;
                    Ok(Value::new(tensor, Dtype::Float32))
                };
                return made.into_iter().zip(dims).map(value).collect();
            }
            program.run(&self.model, &self.threads, workspace, &feeds, &mut outs, spent)?;
            outs.drain(..)
                .enumerate()
                .map(|(number, out)| {
                    let value = match out {
                        Out::Made(numbers, dims) => {
                            Value::new(Tensor::from_vec(numbers, dims.as_slice(), &Device::Cpu)?, Dtype::Float32)
                        }
                        Out::Value(value) => value,
                        Out::Into(_) => return Err(Failure::unforeseen("an output of the caller's")),
                    };
                    Ok(value.with_mask(program.mask_of(number, workspace)?))
                })
                .collect()
        })
    }

    /// Runs it on numbers where they lie, into memory of the caller's: one view for each input, and one slice for each
    /// output, as long as it. After the first run of a shape no memory is asked for on one thread, unless a layer has no kernel or
    /// an input is cast.
    ///
    /// Inputs are cast and checked as the model does it. Not cast are float32 for float32, int32 for int32, int64 for int64, and
    /// int64 for int32 where every layer has a kernel.
    ///
    /// # Errors
    /// As [`Model::run`], and where an output is no float32 or a slice has another length.
    pub fn run_into(&self, inputs: &[View<'_>], outputs: &mut [&mut [f32]]) -> candle_core::Result<()> {
        let plan = self.model.plan();
        if inputs.len() != plan.inputs().len() || outputs.len() != plan.outputs().len() {
            let (wanted, given) = ((plan.inputs().len(), plan.outputs().len()), (inputs.len(), outputs.len()));
            return wrong!("expected {} inputs and {} outputs, found {} and {}", wanted.0, wanted.1, given.0, given.1);
        }
        for view in inputs {
            if view.shape.iter().product::<usize>() != view.data.len() {
                return wrong!("expected as many numbers as the shape {:?} has, found {}", view.shape, view.data.len());
            }
        }
        let values = || inputs.iter().map(View::value).collect::<candle_core::Result<Vec<_>>>();
        let pairs = || plan.inputs().iter().zip(inputs);
        let made = match &self.program {
            Some(program) if pairs().all(|(input, view)| self.takes(program, input, view)) => {
                match self.run_views(program, inputs, outputs) {
                    Ok(()) => return Ok(()),
                    Err(failure) => {
                        self.hand_over(&failure);
                        self.model()?.run(&values()?)?
                    }
                }
            }
            _ => self.run(&values()?)?,
        };
        for (number, (value, out)) in made.iter().zip(outputs).enumerate() {
            if value.dtype != Dtype::Float32 {
                return wrong!("output {number} is of {}: run_into takes float32 only, call run", value.dtype);
            }
            let numbers = value.tensor.flatten_all()?.to_vec1::<f32>()?;
            if numbers.len() != out.len() {
                let dims = value.tensor.dims();
                return wrong!(
                    "output {number} has {} numbers, of shape {dims:?}: found room for {}",
                    numbers.len(),
                    out.len()
                );
            }
            out.copy_from_slice(&numbers);
        }
        Ok(())
    }

    fn run_views(&self, program: &Program, views: &[View<'_>], outputs: &mut [&mut [f32]]) -> Result<(), Failure> {
        self.on_kept_memory(program, |workspace| {
            if views.len() <= FEW && outputs.len() <= FEW {
                let mut operands = [Operand { dims: Dims::default(), data: Data::F32(&[]) }; FEW];
                for (operand, view) in operands.iter_mut().zip(views) {
                    *operand = Operand { dims: Dims::new(view.shape)?, data: view.data };
                }
                if let Some(parts) = self.parts(program, workspace, &operands[..views.len()]) {
                    return self.run_parts(program, workspace, &operands[..views.len()], outputs, &parts);
                }
                let mut feeds: [Feed<'_>; FEW] = std::array::from_fn(|_| Feed::default());
                for (feed, view) in feeds.iter_mut().zip(views) {
                    *feed = view.feed()?;
                }
                let (count, mut outs) = (outputs.len(), std::array::from_fn::<Out<'_>, FEW, _>(|_| Out::Into(&mut [])));
                for (place, out) in outs.iter_mut().zip(outputs) {
                    *place = Out::Into(out);
                }
                let (feeds, outs) = (&feeds[..views.len()], &mut outs[..count]);
                return program.run(&self.model, &self.threads, workspace, feeds, outs, None);
            }
            let feeds = views.iter().map(View::feed).collect::<Result<Vec<_>, _>>()?;
            let mut outs: Vec<Out<'_>> = outputs.iter_mut().map(|out| Out::Into(out)).collect();
            program.run(&self.model, &self.threads, workspace, &feeds, &mut outs, None)
        })
    }

    /// Whether the program may read the view where it lies: nothing is cast, and it has the input's shape.
    fn takes(&self, program: &Program, input: &Input, view: &View<'_>) -> bool {
        let (wanted, Shape(axes)) = (input.spec.dtype, &input.spec.shape);
        let dtype = match view.data {
            Data::F32(_) => wanted == Dtype::Float32,
            Data::I32(_) => wanted == Dtype::Int32,
            // Kernels take ids of either width; layers without one would see that these are wider.
            Data::I64(numbers) => {
                let fits = |number: &i64| i32::try_from(*number).is_ok();
                wanted == Dtype::Int64 || (wanted == Dtype::Int32 && program.calls() == 0 && numbers.iter().all(fits))
            }
        };
        let checks = self.model.plan().checks_sizes();
        let fits = |(size, axis): (&usize, &Option<usize>)| !checks || axis.is_none_or(|axis| axis == *size);
        dtype && axes.len() == view.shape.len() && view.shape.iter().zip(axes).skip(1).all(fits)
    }

    /// Runs `work` on memory that no other run uses.
    fn on_kept_memory<T>(
        &self,
        program: &Program,
        work: impl FnOnce(&mut Workspace) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = match kept {
            Some(workspace) => workspace,
            None => program.workspace()?,
        };
        let done = work(&mut workspace);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        done
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let compiled = self.compiled();
        let (all, calls) = (compiled.instructions.len(), compiled.calls);
        write!(f, "Engine({:?}, {all} instructions, {calls} of them calls of the model)", self.model.plan().name())
    }
}
