//! Kernels: loops over slices, with weights packed once. One file a kind.

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod depthwise;
pub(crate) mod groups;
pub(crate) mod interpolate;
pub(crate) mod map;
pub(crate) mod matmul;
pub(crate) mod merge;
pub(crate) mod moves;
pub(crate) mod normalize;
pub(crate) mod plain_attention;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod recurrent;
pub(crate) mod rows;
mod stream;
pub(crate) mod tap_rows;
pub(crate) mod tile;
pub(crate) mod transposed;
pub(crate) mod winograd;

use std::fmt::Debug;

use crate::{Failure, dims::Dims, memory::Numbers, threads::Threads};

/// The numbers of a tensor, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    F32(&'a [f32]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Data<'a> {
    /// # Errors
    /// For integers.
    pub(crate) fn floats(self) -> Result<&'a [f32], Failure> {
        match self {
            Self::F32(numbers) => Ok(numbers),
            _ => Err(Failure::unforeseen("integers where floats were planned")),
        }
    }

    /// Numbers `range`.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Option<Self> {
        match self {
            Self::F32(numbers) => numbers.get(range).map(Self::F32),
            Self::I32(numbers) => numbers.get(range).map(Self::I32),
            Self::I64(numbers) => numbers.get(range).map(Self::I64),
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::I32(numbers) => numbers.len(),
            Self::I64(numbers) => numbers.len(),
        }
    }
}

/// A tensor that a kernel reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) dims: Dims,
    pub(crate) data: Data<'a>,
}

impl Operand<'_> {
    /// Rows `range` of the batch.
    pub(crate) fn rows(self, range: &std::ops::Range<usize>) -> Option<Self> {
        let batch = *self.dims.as_slice().first()?;
        let row = self.dims.count().checked_div(batch)?;
        let data = self.data.part(range.start * row..range.end * row)?;
        Some(Self { dims: self.dims.with_first(range.len()), data })
    }
}

/// A mask `(batch, time)`, 1 where the step counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskOf<'a> {
    pub(crate) dims: Dims,
    pub(crate) bytes: &'a [u8],
}

/// One call of a kernel.
pub(crate) struct Run<'a> {
    /// What it reads. The first is without numbers where the kernel works in place: they are in `out`.
    pub(crate) inputs: &'a [Operand<'a>],
    /// Where the result goes: as many numbers as its dims have. What is in there before is of no meaning.
    pub(crate) out: &'a mut [f32],
    /// The shape of the result, as [`Kernel::dims`] said.
    pub(crate) dims: Dims,
    /// Whether the first input is in `out`.
    pub(crate) in_place: bool,
    /// The mask of the first input.
    pub(crate) mask: Option<MaskOf<'a>>,
    /// Memory that is kept from call to call.
    pub(crate) scratch: &'a mut Scratch,
    /// Who may help.
    pub(crate) threads: &'a Threads,
}

impl<'a> Run<'a> {
    /// Input number `number`, of floats.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn floats(&self, number: usize) -> Result<&'a [f32], Failure> {
        self.operand(number)?.data.floats()
    }

    /// Input number `number`.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn operand(&self, number: usize) -> Result<Operand<'a>, Failure> {
        self.inputs.get(number).copied().ok_or_else(|| Failure::unforeseen("an operand is missing"))
    }
}

/// Buffers that a kernel can have at once.
const MOST_BUFFERS: usize = 6;

/// Memory of a kernel that is kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    buffers: [Numbers; MOST_BUFFERS],
    /// Memory of parts that run at once.
    more: Vec<Scratch>,
}

impl Scratch {
    /// Buffers of these sizes; what is in them is of no meaning.
    pub(crate) fn buffers<const COUNT: usize>(&mut self, sizes: [usize; COUNT]) -> [&mut [f32]; COUNT] {
        of_sizes(&mut self.buffers, sizes)
    }

    /// Buffers, and the memory of two parts that run at once.
    pub(crate) fn with_two<const COUNT: usize>(
        &mut self,
        sizes: [usize; COUNT],
    ) -> ([&mut [f32]; COUNT], [&mut Self; 2]) {
        self.more.resize_with(self.more.len().max(2), Self::default);
        match self.more.as_mut_slice() {
            [one, other, ..] => (of_sizes(&mut self.buffers, sizes), [one, other]),
            _ => unreachable!("there are two"),
        }
    }

    /// How many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        let more = self.more.iter().map(Self::bytes).sum::<usize>();
        self.buffers.iter().map(|buffer| size_of_val::<[f32]>(buffer)).sum::<usize>() + more
    }
}

fn of_sizes<const COUNT: usize>(buffers: &mut [Numbers; MOST_BUFFERS], sizes: [usize; COUNT]) -> [&mut [f32]; COUNT] {
    const { assert!(COUNT <= MOST_BUFFERS, "more buffers than there are") };
    let mut buffers = buffers.iter_mut();
    sizes.map(|size| {
        let buffer: &mut Numbers = match buffers.next() {
            Some(buffer) => buffer,
            None => unreachable!("there are enough"),
        };
        buffer.grow(size);
        &mut buffer[..size]
    })
}

/// What turns some tensors of float32 into one.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// The shape of what comes out.
    ///
    /// # Errors
    /// Where the shapes are not those that it was planned for.
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure>;

    /// Computes it.
    ///
    /// # Errors
    /// For numbers that Keras would not take, or that were not foreseen.
    fn run(&self, run: Run<'_>) -> Result<(), Failure>;

    /// Whether it may work where its first input lies.
    fn works_in_place(&self) -> bool {
        false
    }

    /// The memory of its weights.
    fn bytes(&self) -> usize {
        0
    }

    /// Of these the bytes that every run reads.
    fn bytes_read(&self) -> usize {
        self.bytes()
    }

    /// Whether each row of the batch comes of the same row of every input alone.
    fn keeps_rows_apart(&self) -> bool {
        true
    }
}

/// The numbers of a weight.
///
/// # Errors
/// What candle reports.
pub(crate) fn numbers(tensor: &candle_core::Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}

/// What `work` makes of the numbers of a weight, which are not copied where they lie row-major.
///
/// # Errors
/// What candle reports.
pub(crate) fn with_numbers<T>(tensor: &candle_core::Tensor, work: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    use candle_core::{CpuStorage, Storage};

    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let part = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) if part.end <= all.len() => Ok(work(&all[part])),
        _ => Ok(work(&numbers(&tensor)?)),
    }
}

/// Whether all numbers are finite.
pub(crate) fn all_are_finite(numbers: &[f32]) -> bool {
    numbers.chunks(64).all(|numbers| numbers.iter().fold(true, |all, x| all & x.is_finite()))
}

/// The only input's shape, for what comes out as it went in.
///
/// # Errors
/// Where there are others.
pub(crate) fn only(inputs: &[Dims]) -> Result<Dims, Failure> {
    match inputs {
        [dims, ..] => Ok(*dims),
        [] => Err(Failure::unforeseen("an operand is missing")),
    }
}

/// `dims`, where a second input that is added, if there is one, has that shape too.
///
/// # Errors
/// Where it has another.
pub(crate) fn same_as_added(adds: bool, inputs: &[Dims], dims: Dims) -> Result<Dims, Failure> {
    if adds && inputs.get(1) != Some(&dims) {
        return Err(Failure::unforeseen("a summand of another shape"));
    }
    Ok(dims)
}
