//! What layers compute, in the few words that an engine has kernels for.
//!
//! [`KerasLayer::forward`](crate::KerasLayer::forward) says what a layer means, and
//! [`KerasLayer::primitives`](crate::KerasLayer::primitives) the same as a chain of these, with the weights already in the layout
//! that each one states. All numbers are float32, images are channels last, and every primitive takes one tensor unless it says
//! otherwise.

use candle_core::{Result, Tensor};
use kandle_format::Bytes;

pub use crate::math::{
    resize::{Neighbours, Position},
    window::{Geometry, Padding, Window},
};
use crate::{Function, Given, Spec, math::convolution::transposed_axis};

/// One step of what a layer computes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Primitive {
    /// What goes in comes out.
    Identity,
    /// Rows of `table` `(vocabulary, features)` for ids of any shape: `(…)` becomes `(…, features)`. Ids below 0 count from
    /// the end where `from_the_end`; all others must be of the vocabulary.
    Rows {
        /// The rows.
        table: Table,
        /// Whether negative ids count from the end.
        from_the_end: bool,
    },
    /// `xs · kernel + bias` over the last axis.
    Product {
        /// `(features, units)`.
        kernel: Tensor,
        /// `(units,)`.
        bias: Option<Tensor>,
    },
    /// A convolution of `(batch, spatial…, channels)`.
    Convolution(Convolution),
    /// A transposed convolution of `(batch, spatial…, channels)`.
    Transposed(Transposed),
    /// `xs · scale + shift`, each `(channels,)` for the last axis or a single number.
    Affine {
        /// The factor.
        scale: Option<Tensor>,
        /// The summand.
        shift: Option<Tensor>,
    },
    /// `(xs − mean) / √(variance + epsilon) · gamma + beta` over the last axis; without the mean, `xs / √(mean(xs²) + epsilon)`.
    Normalize {
        /// Whether the mean is taken off.
        centered: bool,
        /// What is added to the variance.
        epsilon: f64,
        /// `(features,)`.
        gamma: Option<Tensor>,
        /// `(features,)`.
        beta: Option<Tensor>,
    },
    /// `(xs − mean) / √(variance + epsilon) · gamma + beta` for `(batch, …, channels)`, with the mean and the variance of each
    /// sample and group of channels.
    NormalizeGroups {
        /// How many groups there are, of channels that lie one behind the other; none for one each.
        groups: Option<usize>,
        /// What is added to the variance.
        epsilon: f64,
        /// `(channels,)`.
        gamma: Option<Tensor>,
        /// `(channels,)`.
        beta: Option<Tensor>,
    },
    /// A function of every number by itself.
    Map(Curve),
    /// `x` where positive, else `alpha · x`.
    Slopes {
        /// `(channels,)` for the last axis, or a single number.
        alpha: Tensor,
    },
    /// The softmax along the last axis.
    Softmax,
    /// The largest number, or the mean, of each window of `(batch, spatial…, channels)`. Cells of the padding count for neither.
    Pool {
        /// The largest, not the mean.
        largest: bool,
        /// One for each spatial axis.
        windows: Vec<Window>,
        /// Where the windows lie.
        padding: Padding,
    },
    /// The largest number, or the mean, over all spatial axes of `(batch, spatial…, channels)`: `(batch, channels)`, or
    /// `(batch, 1…, channels)` where they are kept.
    PoolAll {
        /// The largest, not the mean.
        largest: bool,
        /// Whether the spatial axes stay, of size 1.
        keeps_axes: bool,
    },
    /// Several tensors number by number, shapes broadcast as numpy does.
    Merge(Merging),
    /// Products of the matrices of two tensors, `(…, rows, depth) · (…, depth, columns)`, with the same axes before the last two.
    MatMul,
    /// Several tensors one behind the other along an axis.
    Join {
        /// The axis.
        axis: usize,
    },
    /// The same numbers as `(batch, axes…)`; the one axis that takes what is left is `None`.
    Reshape(Vec<Option<usize>>),
    /// Axis `n` of what comes out is axis `order[n]` of what goes in, the batch axis first.
    Permute(Vec<usize>),
    /// Zeros before and after each axis, the batch axis included.
    Pad(Vec<(usize, usize)>),
    /// Without what is this far before and after each axis, the batch axis included.
    Crop(Vec<(usize, usize)>),
    /// Each cell of the axes behind the batch so often in a row, the channels included.
    Repeat(Vec<usize>),
    /// `(batch, height, width, channels)` so many times as high and wide, each cell of the result between four, as
    /// [`Neighbours`] has it: along the width first.
    Interpolate {
        /// How many times as high, and as wide.
        times: [usize; 2],
        /// Where cells are taken to be.
        at: Position,
    },
    /// A recurrent layer over `(batch, time, features)`, with the mask of its input.
    Recurrent(Recurrent),
    /// A recurrent layer in both directions.
    Bidirectional {
        /// The first in what is joined.
        forward: Recurrent,
        /// The other one. Where sequences come out, its steps are put into the order of time.
        backward: Recurrent,
        /// What becomes of the two; along the last axis for `None`.
        merge: Option<Merging>,
    },
    /// Attention of a query `(batch, steps, features)` to a key and a value.
    Attention(Attention),
    /// The same without heads and projections.
    PlainAttention(PlainAttention),
}

impl Primitive {
    /// Whether what comes out at each place of all axes but the last depends on nothing but the row of numbers there.
    #[must_use]
    pub fn is_by_row(&self) -> bool {
        use Primitive::{Affine, Identity, Map, Normalize, Product, Slopes, Softmax};
        matches!(self, Identity | Product { .. } | Affine { .. } | Slopes { .. } | Normalize { .. } | Map(_) | Softmax)
    }
}

/// Rows of float32, `(rows, features)`.
#[derive(Debug, Clone)]
pub enum Table {
    /// That were read.
    Read(Tensor),
    /// That are still in the file.
    InFile(StoredRows),
}

/// Rows of float32 where they lie in a file.
#[derive(Debug, Clone)]
pub struct StoredRows {
    bytes: Bytes,
    rows: usize,
    features: usize,
}

impl Table {
    /// How many rows there are, and how many features.
    ///
    /// # Errors
    /// Where it is a tensor of other axes.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Read(table) => table.dims2(),
            Self::InFile(StoredRows { rows, features, .. }) => Ok((*rows, *features)),
        }
    }

    /// All numbers, row-major.
    ///
    /// # Errors
    /// What candle reports.
    pub fn numbers(&self) -> Result<Vec<f32>> {
        match self {
            Self::Read(table) => table.flatten_all()?.to_vec1(),
            Self::InFile(stored) => {
                let mut numbers = vec![0.0; stored.rows * stored.features];
                stored.read_into(&mut numbers);
                Ok(numbers)
            }
        }
    }
}

impl StoredRows {
    /// Rows of `bytes`, which are `(rows, features)` numbers, little-endian; none where they are not so many.
    pub(crate) fn new(bytes: Bytes, rows: usize, features: usize) -> Option<Self> {
        let count = rows.checked_mul(features)?.checked_mul(size_of::<f32>())?;
        (bytes.as_slice().len() == count).then_some(Self { bytes, rows, features })
    }

    /// Copies all numbers, row-major, as many as there is room for. What was copied of the file's memory may be given to others.
    pub fn read_into(&self, numbers: &mut [f32]) {
        /// Numbers that are in memory twice.
        const AT_ONCE: usize = 1 << 20;
        for (to, from) in numbers.chunks_mut(AT_ONCE).zip(self.numbers().chunks(AT_ONCE)) {
            to.iter_mut().zip(from).for_each(|(to, bytes)| *to = f32::from_le_bytes(*bytes));
            if let Some(copied) = self.bytes.of(from.as_flattened()) {
                copied.let_go();
            }
        }
    }

    /// All numbers, row-major, each in four bytes, little-endian: read from the file where they are looked at.
    #[must_use]
    pub fn numbers(&self) -> &[[u8; 4]] {
        self.bytes.as_slice().as_chunks().0
    }
}

/// A convolution, never flipped, as Keras has it.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// `(spatial…, channels / groups, filters)`; for `depthwise` `(spatial…, channels, 1)`.
    pub kernel: Tensor,
    /// One number for each output channel.
    pub bias: Option<Tensor>,
    /// One for each spatial axis.
    pub windows: Vec<Window>,
    /// Where the windows lie.
    pub padding: Padding,
    /// Zeros before and after each spatial axis, within which windows then lie, whatever `padding` says.
    pub margins: Option<Vec<(usize, usize)>>,
    /// In how many groups the channels are.
    pub groups: usize,
    /// Whether each channel has filters of its own.
    pub depthwise: bool,
}

impl Convolution {
    /// Whether it is a product over the channels: every window sees one cell, and every cell has one.
    #[must_use]
    pub fn is_by_row(&self) -> bool {
        let one = |window: &Window| window.kernel == 1 && window.stride == 1;
        let inside = self.margins.as_ref().is_none_or(|margins| margins.iter().all(|margin| *margin == (0, 0)));
        !self.depthwise && self.groups == 1 && inside && self.windows.iter().all(one)
    }
}

/// Each cell of the input, times a kernel, is added to a window of the output.
#[derive(Debug, Clone)]
pub struct Transposed {
    /// `(channels, spatial… · filters)`: the taps of a window in row-major order, and the filters of each.
    pub kernel: Tensor,
    /// `(filters,)`.
    pub bias: Option<Tensor>,
    /// The windows of the output, one for each spatial axis.
    pub windows: Vec<Window>,
    /// What is kept of the sums.
    pub padding: Padding,
    /// How many cells longer than the shortest the output is, for each axis; the longest without it.
    pub output_padding: Option<Vec<usize>>,
}

impl Transposed {
    /// How long axis `axis` comes out where `size` cells go in, and how far in the sums it begins.
    ///
    /// # Errors
    /// Where there is no such axis, or nothing comes out.
    pub fn axis(&self, axis: usize, size: usize) -> std::result::Result<(usize, usize), String> {
        let window = *self.windows.get(axis).ok_or_else(|| format!("there is no axis {axis}"))?;
        let extra = self.output_padding.as_ref().and_then(|extra| extra.get(axis)).copied();
        transposed_axis(size, window, self.padding, extra)
    }
}

/// How several tensors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the operation it is named for")]
pub enum Merging {
    Add,
    Subtract,
    Multiply,
    Divide,
    Average,
    Maximum,
    Minimum,
}

/// A function of a single number.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Curve {
    /// One of Keras's activation functions; none that look at other numbers than their own.
    Function(Function),
    /// `max(x, 0)`, at most `most`. NaN stays NaN.
    Relu {
        /// The bound above; none for infinity.
        most: f32,
    },
    /// `x` where positive, else `slope · x`.
    LeakyRelu {
        /// The slope.
        slope: f32,
    },
    /// `x` where positive, else `alpha · (eˣ − 1)`.
    Elu {
        /// The factor.
        alpha: f32,
    },
}

/// What happens at each step of a recurrent layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// Input gate, forget gate, candidate, output gate: `c' = f · c + i · g`, `h' = o · act(c')`.
    Lstm,
    /// Update gate, reset gate, candidate: `h' = z · h + (1 − z) · g`. The reset gate meets the product of the state where
    /// `reset_after`, else the state.
    Gru {
        /// Where the reset gate stands.
        reset_after: bool,
    },
    /// `h' = act(x + h)`.
    Simple,
}

/// A recurrent layer that begins with states of zeros.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// The cell.
    pub gates: Gates,
    /// `(features, gates · units)`, gates in Keras's order; none where the input is the product with it already.
    pub kernel: Option<Tensor>,
    /// `(units, gates · units)`.
    pub recurrent_kernel: Tensor,
    /// `(gates · units,)`, added to the product of the input.
    pub bias: Option<Tensor>,
    /// `(gates · units,)`, added to the product of the state.
    pub recurrent_bias: Option<Tensor>,
    /// The function of the candidate, and of an LSTM's carry.
    pub activation: Function,
    /// The function of the gates.
    pub recurrent_activation: Function,
    /// Whether steps are taken from the last to the first. Sequences come out in the order in which steps were taken.
    pub backwards: bool,
    /// Whether all steps come out, `(batch, time, units)`, or the last, `(batch, units)`.
    pub sequences: bool,
    /// Whether a masked step gives zeros, or what the step before gave.
    pub zeros_where_masked: bool,
}

impl Recurrent {
    /// A cell without weights, which says nothing of the steps.
    pub(crate) fn of(gates: Gates, activation: Function, recurrent_activation: Function) -> Result<Self> {
        let none = Tensor::zeros((0, 0), candle_core::DType::F32, &candle_core::Device::Cpu)?;
        Ok(Self {
            gates,
            kernel: None,
            recurrent_kernel: none,
            bias: None,
            recurrent_bias: None,
            activation,
            recurrent_activation,
            backwards: false,
            sequences: false,
            zeros_where_masked: false,
        })
    }
}

/// Attention with heads.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Which of the call's tensors are query, value and key.
    pub inputs: [usize; 3],
    /// Which of them says which pairs count, of axes that broadcast to `(batch, heads, query steps, key steps)`; one with fewer
    /// axes has none for heads, and none for the batch. 0 stands for a pair that does not.
    pub mask: Option<usize>,
    /// Whether the padding masks of its inputs say in that way too which pairs count. Where not, it is another computation with
    /// them.
    pub takes_padding: bool,
    /// `(features, heads · size)`, and its bias.
    pub query: (Tensor, Option<Tensor>),
    /// `(features, key heads · size)`, and its bias.
    pub key: (Tensor, Option<Tensor>),
    /// `(features, key heads · value size)`, and its bias.
    pub value: (Tensor, Option<Tensor>),
    /// `(heads · value size, units)`, and its bias.
    pub output: (Tensor, Option<Tensor>),
    /// Heads of the query, and of key and value, each of which serves as many in a row.
    pub heads: (usize, usize),
    /// What products of query and key are multiplied with.
    pub scale: f64,
    /// Whether each step sees itself and those before it only.
    pub causal: bool,
    /// What a pair that does not count has in place of its product, before the softmax.
    pub forbidden: f32,
    /// Whether such a pair has the weight 0 after the softmax, also where all pairs of a step are such.
    pub zeroed: bool,
}

/// Attention of a query `(batch, queries, features)` to a value `(batch, keys, width)` by a key `(batch, keys, features)`:
/// `(batch, queries, width)`. The weights are the softmax of the scores.
#[derive(Debug, Clone)]
pub struct PlainAttention {
    /// Which of the call's tensors are query, value and key.
    pub inputs: [usize; 3],
    /// How well a query and a key score.
    pub score: Score,
    /// Whether each step sees itself and those before it only: 1e9 is taken from the scores of others.
    pub causal: bool,
}

/// What a query and a key give.
#[derive(Debug, Clone)]
pub enum Score {
    /// Their product times `scale`.
    Product {
        /// The factor.
        scale: f32,
    },
    /// `factor · Σ weights · tanh(scale · (query + key))`, over the features.
    Tanh {
        /// What their sum is multiplied with.
        scale: f32,
        /// `(features,)`; none for 1.
        weights: Option<Tensor>,
        /// The factor.
        factor: f32,
    },
}

/// A planned call of a layer and the layer's weights, as [`Call`](crate::Call) has them.
#[derive(Debug, Clone, Copy)]
pub struct Lowered<'a> {
    /// What the layer is called with.
    pub given: Given<'a, Spec>,
    /// The layer's weights.
    pub weights: &'a [Tensor],
}

impl Lowered<'_> {
    /// Weight number `index` of the declared ones.
    ///
    /// # Errors
    /// Where it was not given.
    pub fn weight(&self, index: usize) -> Result<&Tensor> {
        match self.weights.get(index) {
            Some(weight) => Ok(weight),
            None => candle_core::bail!("weight {index} of {} was not given", self.weights.len()),
        }
    }

    /// Weight number `index` where the layer has it.
    ///
    /// # Errors
    /// As [`weight`](Self::weight).
    pub fn weight_if(&self, has: bool, index: usize) -> Result<Option<Tensor>> {
        if has { self.weight(index).cloned().map(Some) } else { Ok(None) }
    }

    /// Whether the call has no tensors but one, and perhaps its mask.
    #[must_use]
    pub fn is_called_on_one(&self) -> bool {
        let masks = self.given.tensors("mask").len();
        self.given.inputs().len() == 1 && self.given.all().len() == 1 + masks
    }

    /// How many axes the one input has.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.given.input().map_or(0, |input| input.shape.rank())
    }
}
