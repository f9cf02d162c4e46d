//! Recurrent layers: one product for the inputs of all steps, then for each step one for the state, and all gates at once.

#![allow(unsafe_code, reason = "gates that are no whole number of vectors are read and written through masks")]

use candle_core::Tensor;
use kandle_model::primitive::{self, Gates, Merging};
use rten_simd::{
    Isa, SimdOp, SimdUnaryOp,
    ops::{BitOps, NumOps},
};
use rten_vecmath::{Sigmoid, Tanh};

use super::{
    Kernel, MaskOf, Run,
    map::Map,
    merge::merge,
    numbers,
    tile::{Columns, MOST_ROWS, Matrix, Packed, Target, multiply},
};
use crate::{Failure, dims::Dims, memory::Store, threads::Threads};

/// One direction of a recurrent layer.
#[derive(Debug)]
pub(crate) struct Direction {
    gates: Gates,
    units: usize,
    /// None where the input is the product with it, the bias added.
    kernel: Option<Packed>,
    /// Numbers of a step of the input, and, where it is the product, which of them is the first of this direction.
    features: usize,
    first: usize,
    /// Of the state; of a GRU whose reset gate stands before it, the first two gates.
    recurrent: Packed,
    /// Of a GRU whose reset gate stands before it, the candidate.
    candidate: Option<Packed>,
    bias: Vec<f32>,
    recurrent_bias: Option<Vec<f32>>,
    activation: Map,
    recurrent_activation: Map,
    backwards: bool,
    sequences: bool,
    zeros_where_masked: bool,
}

impl Direction {
    /// `layer` with its weights packed; none where it has functions that there are no loops for.
    ///
    /// # Errors
    /// What candle reports.
    pub(crate) fn new(layer: &primitive::Recurrent, store: &mut Store) -> candle_core::Result<Option<Self>> {
        let maps = Map::of_function(layer.activation).zip(Map::of_function(layer.recurrent_activation));
        let Some((activation, recurrent_activation)) = maps else { return Ok(None) };
        let mut packed = |kernel: &Tensor| -> candle_core::Result<Packed> {
            let (depth, columns) = kernel.dims2()?;
            Ok(Packed::new(store, depth, &[Columns::all(&numbers(&kernel.contiguous()?)?, columns)]))
        };
        let units = layer.recurrent_kernel.dim(0)?;
        let (recurrent, candidate) = match layer.gates {
            Gates::Gru { reset_after: false } => {
                let candidate = layer.recurrent_kernel.narrow(1, 2 * units, units)?;
                (packed(&layer.recurrent_kernel.narrow(1, 0, 2 * units)?)?, Some(packed(&candidate)?))
            }
            _ => (packed(&layer.recurrent_kernel)?, None),
        };
        let columns = layer.recurrent_kernel.dim(1)?;
        let kernel = layer.kernel.as_ref().map(packed).transpose()?;
        let features = kernel.as_ref().map_or(columns, Packed::depth);
        let bias = layer.bias.as_ref().map_or_else(|| Ok(vec![0.0; columns]), numbers)?;
        Ok(Some(Self {
            gates: layer.gates,
            units,
            kernel,
            features,
            first: 0,
            recurrent,
            candidate,
            bias,
            recurrent_bias: layer.recurrent_bias.as_ref().map(numbers).transpose()?,
            activation,
            recurrent_activation,
            backwards: layer.backwards,
            sequences: layer.sequences,
            zeros_where_masked: layer.zeros_where_masked,
        }))
    }

    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        match super::only(inputs)?.as_slice() {
            [batch, time, features] if *features == self.features && *time > 0 => match self.sequences {
                true => Dims::new(&[*batch, *time, self.units]),
                false => Dims::new(&[*batch, self.units]),
            },
            _ => Err(Failure::unforeseen("sequences of another shape")),
        }
    }

    fn bytes(&self) -> usize {
        let candidate = self.candidate.as_ref().map_or(0, Packed::bytes);
        let kernel = self.kernel.as_ref().map_or(0, Packed::bytes);
        kernel + self.recurrent.bytes() + candidate + self.bias.len() * size_of::<f32>()
    }

    fn operations(&self, dims: Dims) -> usize {
        let rows = dims.as_slice().iter().take(2).product::<usize>();
        2 * rows * (self.kernel.as_ref().map_or(0, Packed::depth) + self.units) * self.columns()
    }

    /// Numbers that a step of the input contributes to the gates.
    fn columns(&self) -> usize {
        self.recurrent.columns() + self.candidate.as_ref().map_or(0, Packed::columns)
    }

    /// The same on columns of its own from `first` on, of `features`.
    fn reading(self, first: usize, features: usize) -> Self {
        if self.kernel.is_some() { self } else { Self { first, features, ..self } }
    }

    /// Numbers of memory that it needs: of the projected inputs, of the product of the state, and of both states.
    fn room(&self, dims: Dims) -> [usize; 4] {
        let (batch, columns) = (dims.as_slice().first().copied().unwrap_or(0), self.columns());
        let rows = dims.as_slice().iter().take(2).product::<usize>();
        [
            if self.kernel.is_some() { rows * columns } else { 0 },
            batch * columns,
            batch * self.units,
            batch * self.units,
        ]
    }

    /// Steps through `xs` `(batch, time, features)`. Row `r` of step `t` goes to `out` from `r · row + t · step` on, of the last
    /// step to `r · row` where only that comes out.
    fn run(
        &self,
        (xs, dims): (&[f32], Dims),
        mask: Option<MaskOf<'_>>,
        out: &mut [f32],
        (row_stride, step_stride): (usize, usize),
        [projected, product, state, carry]: [&mut [f32]; 4],
        threads: &Threads,
    ) -> Result<(), Failure> {
        let [batch, time, features] = dims.as_slice() else { return Err(Failure::unforeseen("no sequences")) };
        let (batch, time, features) = (*batch, *time, *features);
        let columns = self.columns();
        if let Some(mask) = mask
            && mask.dims.as_slice() != [batch, time]
        {
            return Err(Failure::unforeseen("a mask of another shape"));
        }
        if let Some(kernel) = &self.kernel {
            let matrix = Matrix { numbers: xs, rows: batch * time, stride: features, depth: features };
            let operations = 2 * batch * time * features * columns;
            threads.rows(projected, columns, MOST_ROWS, operations, |range, out| {
                let target = Target { out, stride: columns, bias: Some(&self.bias), more: None, relu: None };
                multiply(&matrix, range, kernel, target);
            });
        }
        let (projected, stride) = if self.kernel.is_some() { (&*projected, columns) } else { (xs, features) };
        state.fill(0.0);
        carry.fill(0.0);
        for number in 0..time {
            let step = if self.backwards { time - 1 - number } else { number };
            let states = Matrix { numbers: state, rows: batch, stride: self.units, depth: self.units };
            let width = self.recurrent.columns();
            let target = Target {
                out: &mut product[..batch * width],
                stride: width,
                bias: self.recurrent_bias.as_deref(),
                more: None,
                relu: None,
            };
            multiply(&states, 0..batch, &self.recurrent, target);
            if let Some(kernel) = &self.candidate {
                // The reset gate meets the state before the product: its place in `carry`, which a GRU has no other use for.
                for row in 0..batch {
                    let inputs = &projected[(row * time + step) * stride + self.first..][..columns];
                    let inner = &mut product[row * width..][..width];
                    merge(Merging::Add, inner, &inputs[..width]);
                    self.recurrent_activation.apply(inner);
                    let (_, reset) = inner.split_at(self.units);
                    let kept = &mut carry[row * self.units..][..self.units];
                    kept.copy_from_slice(reset);
                    merge(Merging::Multiply, kept, &state[row * self.units..][..self.units]);
                }
                let kept = Matrix { numbers: carry, rows: batch, stride: self.units, depth: self.units };
                // Behind the gates of all rows.
                let target = Target {
                    out: &mut product[batch * width..][..batch * self.units],
                    stride: self.units,
                    bias: None,
                    more: None,
                    relu: None,
                };
                multiply(&kept, 0..batch, kernel, target);
            }
            for row in 0..batch {
                let counts = mask.is_none_or(|mask| mask.bytes[row * time + step] != 0);
                let at = row * row_stride + if self.sequences { number * step_stride } else { 0 };
                let state = &mut state[row * self.units..][..self.units];
                if counts {
                    let inputs = &projected[(row * time + step) * stride + self.first..][..columns];
                    let carry = &mut carry[row * self.units..][..self.units];
                    let (of_gates, behind) = product.split_at_mut(batch * width);
                    let inner = &mut of_gates[row * width..][..width];
                    let candidate = behind.get(row * self.units..(row + 1) * self.units).unwrap_or_default();
                    self.step(inputs, inner, candidate, state, carry);
                }
                if self.sequences || number + 1 == time {
                    let out = &mut out[at..at + self.units];
                    // The state is what the last step that counted gave.
                    if counts || !self.zeros_where_masked { out.copy_from_slice(state) } else { out.fill(0.0) }
                }
            }
        }
        Ok(())
    }

    /// The new state of one row: `inputs` and `inner` are what input and state contribute to the gates.
    fn step(&self, inputs: &[f32], inner: &mut [f32], candidate: &[f32], state: &mut [f32], carry: &mut [f32]) {
        let usual = self.activation == Map::Tanh && self.recurrent_activation == Map::Sigmoid;
        let units = self.units;
        match self.gates {
            Gates::Simple => {
                merge(Merging::Add, inner, inputs);
                self.activation.apply(inner);
                state.copy_from_slice(inner);
            }
            Gates::Lstm if usual => Lstm { inputs, inner, state, carry }.dispatch(),
            Gates::Lstm => {
                merge(Merging::Add, inner, inputs);
                let (open, rest) = inner.split_at_mut(2 * units);
                let (new, last) = rest.split_at_mut(units);
                self.recurrent_activation.apply(open);
                self.activation.apply(new);
                self.recurrent_activation.apply(last);
                let (input, forget) = open.split_at(units);
                merge(Merging::Multiply, carry, forget);
                merge(Merging::Multiply, new, input);
                merge(Merging::Add, carry, new);
                state.copy_from_slice(carry);
                self.activation.apply(state);
                merge(Merging::Multiply, state, last);
            }
            Gates::Gru { reset_after: true } if usual => Gru { inputs, inner, state }.dispatch(),
            Gates::Gru { reset_after: true } => {
                let (open, new) = inner.split_at_mut(2 * units);
                merge(Merging::Add, open, &inputs[..2 * units]);
                self.recurrent_activation.apply(open);
                let (update, reset) = open.split_at(units);
                merge(Merging::Multiply, new, reset);
                merge(Merging::Add, new, &inputs[2 * units..]);
                self.activation.apply(new);
                blend(update, new, state);
            }
            Gates::Gru { reset_after: false } => {
                // The gates are open already, and `candidate` is the product behind the reset gate.
                let (update, new) = inner.split_at_mut(units);
                new.copy_from_slice(candidate);
                merge(Merging::Add, new, &inputs[2 * units..]);
                self.activation.apply(new);
                blend(update, new, state);
            }
        }
    }
}

/// `z · h + (1 − z) · g`.
fn blend(update: &[f32], new: &[f32], state: &mut [f32]) {
    for ((update, new), state) in update.iter().zip(new).zip(state) {
        *state = update * *state + (1.0 - update) * new;
    }
}

/// An LSTM's gates with tanh and sigmoid, without leaving registers.
struct Lstm<'a> {
    inputs: &'a [f32],
    inner: &'a [f32],
    state: &'a mut [f32],
    carry: &'a mut [f32],
}

impl SimdOp for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, units) = (ops.len(), self.state.len());
        assert!(self.inputs.len() == 4 * units && self.inner.len() == 4 * units && self.carry.len() == units);
        for at in (0..units).step_by(lanes) {
            let mask = ops.first_n_mask((units - at).min(lanes));
            // Safety: the lanes of the mask are within the units, of each gate too.
            let gate = |number: usize| unsafe {
                let at = number * units + at;
                let inputs = ops.load_ptr_mask(self.inputs.as_ptr().add(at), mask);
                ops.add(inputs, ops.load_ptr_mask(self.inner.as_ptr().add(at), mask))
            };
            let (input, forget) = (Sigmoid {}.eval(isa, gate(0)), Sigmoid {}.eval(isa, gate(1)));
            let (new, last) = (Tanh {}.eval(isa, gate(2)), Sigmoid {}.eval(isa, gate(3)));
            // Safety: as above.
            unsafe {
                let carry = ops.load_ptr_mask(self.carry.as_ptr().add(at), mask);
                let carry = ops.mul_add(input, new, ops.mul(forget, carry));
                ops.store_ptr_mask(carry, self.carry.as_mut_ptr().add(at), mask);
                ops.store_ptr_mask(ops.mul(last, Tanh {}.eval(isa, carry)), self.state.as_mut_ptr().add(at), mask);
            }
        }
    }
}

/// A GRU's gates with tanh and sigmoid, the reset gate after the product.
struct Gru<'a> {
    inputs: &'a [f32],
    inner: &'a [f32],
    state: &'a mut [f32],
}

impl SimdOp for Gru<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (lanes, units) = (ops.len(), self.state.len());
        assert!(self.inputs.len() == 3 * units && self.inner.len() == 3 * units);
        for at in (0..units).step_by(lanes) {
            let mask = ops.first_n_mask((units - at).min(lanes));
            // Safety: the lanes of the mask are within the units, of each gate too.
            unsafe {
                let inputs = |number: usize| ops.load_ptr_mask(self.inputs.as_ptr().add(number * units + at), mask);
                let inner = |number: usize| ops.load_ptr_mask(self.inner.as_ptr().add(number * units + at), mask);
                let update = Sigmoid {}.eval(isa, ops.add(inputs(0), inner(0)));
                let reset = Sigmoid {}.eval(isa, ops.add(inputs(1), inner(1)));
                let new = Tanh {}.eval(isa, ops.add(inputs(2), ops.mul(reset, inner(2))));
                let state = ops.load_ptr_mask(self.state.as_ptr().add(at), mask);
                let rest = ops.mul(ops.sub(ops.one(), update), new);
                ops.store_ptr_mask(ops.mul_add(update, state, rest), self.state.as_mut_ptr().add(at), mask);
            }
        }
    }
}

/// A layer in one direction.
#[derive(Debug)]
pub(crate) struct Recurrent(pub(crate) Direction);

impl Kernel for Recurrent {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        self.0.dims(inputs)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (xs, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let units = self.0.units;
        let strides = (run.out.len() / dims.as_slice().first().copied().unwrap_or(1).max(1), units);
        let room = run.scratch.buffers(self.0.room(dims));
        self.0.run((xs, dims), run.mask, run.out, strides, room, run.threads)
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// A layer in both directions.
#[derive(Debug)]
pub(crate) struct Bidirectional {
    forward: Direction,
    backward: Direction,
    /// Along the last axis for `None`.
    merge: Option<Merging>,
}

impl Bidirectional {
    /// The two directions; where the input is the product with both their kernels, it has the columns of `forward` first.
    pub(crate) fn new(forward: Direction, backward: Direction, merge: Option<Merging>) -> Self {
        let (of_forward, of_both) = (forward.columns(), forward.columns() + backward.columns());
        Self { forward: forward.reading(0, of_both), backward: backward.reading(of_forward, of_both), merge }
    }
}

impl Kernel for Bidirectional {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let (one, other) = (self.forward.dims(inputs)?, self.backward.dims(inputs)?);
        match self.merge {
            None if one.rank() == other.rank() => Ok(one.with_last(one.last()? + other.last()?)),
            Some(_) if one == other => Ok(one),
            _ => Err(Failure::unforeseen("directions of several shapes")),
        }
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (xs, dims) = (run.floats(0)?, run.operand(0)?.dims);
        let [batch, time, _] = dims.as_slice() else { return Err(Failure::unforeseen("no sequences")) };
        let (batch, time) = (*batch, *time);
        let steps = if self.forward.sequences { time } else { 1 };
        let (one, other) = (self.forward.units, self.backward.units);
        // Each direction writes for itself, so that both may run at once.
        let (buffers, [scratch, more]) = run.scratch.with_two([batch * steps * one, batch * steps * other, 0, 0]);
        let [first, second, ..] = buffers;
        let (mut of_first, mut of_second) = (Ok(()), Ok(()));
        let (mask, threads) = (run.mask, run.threads);
        let (alone, also_alone) = (Threads::default(), Threads::default());
        threads.both(
            self.forward.operations(dims) + self.backward.operations(dims),
            || {
                let room = scratch.buffers(self.forward.room(dims));
                of_first = self.forward.run((xs, dims), mask, first, (steps * one, one), room, &alone);
            },
            || {
                let room = more.buffers(self.backward.room(dims));
                of_second = self.backward.run((xs, dims), mask, second, (steps * other, other), room, &also_alone);
            },
        );
        of_first.and(of_second)?;
        let columns = run.dims.last()?;
        for row in 0..batch {
            for step in 0..steps {
                let out = &mut run.out[(row * steps + step) * columns..][..columns];
                let forward = &first[(row * steps + step) * one..][..one];
                // In the order of time.
                let backward = &second[(row * steps + steps - 1 - step) * other..][..other];
                out[..one].copy_from_slice(forward);
                match self.merge {
                    None => out[one..].copy_from_slice(backward),
                    Some(how) => merge(how, out, backward),
                }
            }
        }
        if self.merge == Some(Merging::Average) {
            run.out.iter_mut().for_each(|x| *x /= 2.0);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.forward.bytes() + self.backward.bytes()
    }
}
