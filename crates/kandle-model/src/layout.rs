use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// How candle orders the numbers of a weight that Keras stores in its own order.
///
/// Every layout is a bijection: [`to_keras`](Self::to_keras) undoes [`to_candle`](Self::to_candle) bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// The same order: embeddings `(vocabulary, features)`, biases `(units,)`.
    AsIs,
    /// The two axes exchanged: a Dense kernel is `(in, out)` in Keras and `(out, in)` in candle.
    Transposed,
    /// The gates of a GRU, the last axis of Keras's kernels and biases: Keras has update, reset, candidate; candle has reset,
    /// update, candidate. The axes of a kernel are exchanged too.
    ResetGateFirst,
    /// The gates of a cell as cuDNN has them: Keras 2 stores the numbers of each gate's block of columns `(rows, units)` in
    /// the order in which cuDNN reads them as `(units, rows)`. In candle the gates follow one another, `(gates · units, rows)`;
    /// of three, the first two exchanged.
    Cudnn {
        /// How many gates there are: 4 for LSTM, 3 for GRU.
        gates: usize,
    },
    /// The last two axes first, exchanged: a convolution's kernel is `(spatial…, in, out)` in Keras and
    /// `(out, in, spatial…)` in candle, a transposed one's `(spatial…, out, in)` and `(in, out, spatial…)`.
    ConvKernel,
    /// A depthwise convolution's kernel is `(spatial…, channels, multiplier)` in Keras; in candle it is that of a
    /// convolution with as many groups as channels, `(channels · multiplier, 1, spatial…)`.
    DepthwiseKernel {
        /// How many filters each channel has.
        multiplier: usize,
    },
}

impl Layout {
    /// The shape candle has where Keras has `keras`.
    #[must_use]
    pub fn candle_shape(self, keras: &[usize]) -> Vec<usize> {
        match self {
            Self::AsIs => keras.to_vec(),
            Self::Transposed | Self::ResetGateFirst | Self::Cudnn { .. } => keras.iter().rev().copied().collect(),
            Self::ConvKernel => match keras {
                [spatial @ .., inner, outer] => [&[*outer, *inner], spatial].concat(),
                _ => keras.to_vec(),
            },
            Self::DepthwiseKernel { .. } => match keras {
                [spatial @ .., channels, multiplier] => [&[channels.saturating_mul(*multiplier), 1], spatial].concat(),
                _ => keras.to_vec(),
            },
        }
    }

    /// The shape Keras has where candle has `candle`.
    #[must_use]
    pub fn keras_shape(self, candle: &[usize]) -> Vec<usize> {
        match (self, candle) {
            // Exchanging two axes is its own inverse.
            (Self::AsIs | Self::Transposed | Self::ResetGateFirst | Self::Cudnn { .. }, _) => self.candle_shape(candle),
            (Self::ConvKernel, [outer, inner, spatial @ ..]) => [spatial, &[*inner, *outer]].concat(),
            (Self::DepthwiseKernel { multiplier }, [filters, 1, spatial @ ..]) => {
                [spatial, &[filters / multiplier.max(1), multiplier]].concat()
            }
            _ => candle.to_vec(),
        }
    }

    /// The numbers of a weight of Keras's shape `keras_shape` in candle's order, read by `read` from where they lie, row-major.
    ///
    /// The two orders that large weights have take no copy between the file and the result.
    pub(crate) fn read_in_candle_order<S: Copy + Sync, T: Copy + Default + Send + Sync>(
        self,
        from: &[S],
        keras_shape: &[usize],
        read: impl Fn(S) -> T + Sync,
    ) -> Vec<T> {
        match (self, keras_shape) {
            (Self::AsIs, _) => read_as_is(from, read),
            (Self::Transposed, [rows, columns]) => transposed_as(from, *rows, *columns, read),
            _ => self.to_candle(from.iter().copied().map(read).collect(), keras_shape),
        }
    }

    /// The numbers of a weight of Keras's shape `keras_shape`, row-major, in candle's order.
    #[must_use]
    pub fn to_candle<T: Copy + Default + Send + Sync>(self, numbers: Vec<T>, keras_shape: &[usize]) -> Vec<T> {
        match self {
            Self::AsIs => numbers,
            Self::Transposed => transposed(&numbers, keras_shape),
            Self::ResetGateFirst => thirds_exchanged(transposed(&numbers, keras_shape)),
            Self::Cudnn { gates } => {
                let blocks = blocks_apart(&numbers, keras_shape, gates);
                if gates == 3 { thirds_exchanged(blocks) } else { blocks }
            }
            Self::ConvKernel => {
                let [taps, inner, outer] = kernel_axes(keras_shape);
                let by_filter = transposed(&numbers, &[taps.saturating_mul(inner), outer]);
                by_filter
                    .chunks(taps.saturating_mul(inner).max(1))
                    .flat_map(|filter| transposed(filter, &[taps, inner]))
                    .collect()
            }
            Self::DepthwiseKernel { .. } => {
                let [taps, channels, multiplier] = kernel_axes(keras_shape);
                transposed(&numbers, &[taps, channels.saturating_mul(multiplier)])
            }
        }
    }

    /// As [`to_candle`](Self::to_candle), for numbers of `size` bytes each.
    pub(crate) fn bytes_to_candle(self, bytes: &[u8], size: usize, keras_shape: &[usize]) -> Vec<u8> {
        macro_rules! of {
            ($size:literal) => {
                self.to_candle(bytes.as_chunks::<$size>().0.to_vec(), keras_shape).concat()
            };
        }
        match size {
            8 => of!(8),
            4 => of!(4),
            2 => of!(2),
            _ => self.to_candle(bytes.to_vec(), keras_shape),
        }
    }

    /// The numbers of a weight in candle's order, back in Keras's order, row-major.
    #[must_use]
    pub fn to_keras<T: Copy + Default + Send + Sync>(self, numbers: Vec<T>, keras_shape: &[usize]) -> Vec<T> {
        match self {
            Self::AsIs => numbers,
            Self::Transposed => transposed(&numbers, &self.candle_shape(keras_shape)),
            Self::ResetGateFirst => transposed(&thirds_exchanged(numbers), &self.candle_shape(keras_shape)),
            Self::Cudnn { gates } => {
                let blocks = if gates == 3 { thirds_exchanged(numbers) } else { numbers };
                let [rows, columns] = keras_shape else { return blocks };
                // As many blocks as rows, in each of which a gate has its columns.
                blocks_apart(&blocks, &[gates, rows.saturating_mul(columns / gates.max(1))], *rows)
            }
            Self::ConvKernel => {
                let [taps, inner, outer] = kernel_axes(keras_shape);
                let filters = numbers.chunks(taps.saturating_mul(inner).max(1));
                let by_filter: Vec<T> = filters.flat_map(|filter| transposed(filter, &[inner, taps])).collect();
                transposed(&by_filter, &[outer, taps.saturating_mul(inner)])
            }
            Self::DepthwiseKernel { .. } => {
                let [taps, channels, multiplier] = kernel_axes(keras_shape);
                transposed(&numbers, &[channels.saturating_mul(multiplier), taps])
            }
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AsIs => "as is",
            Self::Transposed => "transposed",
            Self::ResetGateFirst => "reset gate first",
            Self::Cudnn { .. } => "cuDNN's gates",
            Self::ConvKernel => "filters first",
            Self::DepthwiseKernel { .. } => "channels first",
        })
    }
}

/// The columns of a matrix of `shape` in `count` blocks, one block after the other, each row by row.
fn blocks_apart<T: Copy>(numbers: &[T], shape: &[usize], count: usize) -> Vec<T> {
    let [_, columns] = shape else { return numbers.to_vec() };
    let width = columns / count.max(1);
    if width == 0 {
        return numbers.to_vec();
    }
    let block =
        |number: usize| numbers.chunks(*columns).flat_map(move |row| row.chunks(width).nth(number).unwrap_or_default());
    (0..count).flat_map(block).copied().collect()
}

/// The numbers of `from`, each through `read`.
fn read_as_is<S: Copy + Sync, T: Copy + Default + Send + Sync>(from: &[S], read: impl Fn(S) -> T + Sync) -> Vec<T> {
    // Zeros, as the system gives them, so that nothing is written twice.
    let mut out = vec![T::default(); from.len()];
    in_parts(&mut out, 1, |first, out| {
        let from = from.get(first..).unwrap_or_default();
        out.iter_mut().zip(from).for_each(|(out, from)| *out = read(*from));
    });
    out
}

/// The first third of the numbers exchanged with the second.
fn thirds_exchanged<T: Copy + Default + Send + Sync>(numbers: Vec<T>) -> Vec<T> {
    let (first, rest) = numbers.split_at(numbers.len() / 3);
    let (second, third) = rest.split_at(first.len());
    [second, first, third].concat()
}

/// The taps of a kernel of Keras's shape `(spatial…, a, b)` as one axis, and the other two.
fn kernel_axes(keras_shape: &[usize]) -> [usize; 3] {
    match keras_shape {
        [spatial @ .., a, b] => [spatial.iter().fold(1, |product, size| product.saturating_mul(*size)), *a, *b],
        _ => [0, 0, 0],
    }
}

/// The transpose of a row-major matrix of `shape` (rows, columns). Anything but a matrix stays as it is.
fn transposed<T: Copy + Default + Send + Sync>(numbers: &[T], shape: &[usize]) -> Vec<T> {
    match shape {
        [rows, columns] => transposed_as(numbers, *rows, *columns, |number| number),
        _ => numbers.to_vec(),
    }
}

/// The transpose of the row-major matrix `from`, each number through `read`.
fn transposed_as<S: Copy + Sync, T: Copy + Default + Send + Sync>(
    from: &[S],
    rows: usize,
    columns: usize,
    read: impl Fn(S) -> T + Sync,
) -> Vec<T> {
    /// What lies in the nearest cache, as the filters of a convolution do, is transposed before a tile is cleared.
    const SMALL: usize = 4096;
    let mut out = vec![T::default(); from.len()];
    if rows.checked_mul(columns) != Some(from.len()) || from.is_empty() {
        return out;
    }
    if from.len() <= SMALL || rows == 1 || columns == 1 {
        for (column, out) in out.chunks_exact_mut(rows).enumerate() {
            let column = from.iter().skip(column).step_by(columns);
            out.iter_mut().zip(column).for_each(|(out, from)| *out = read(*from));
        }
    } else {
        in_parts(&mut out, rows, |first, out| transpose(from, rows, columns, first, out, &read));
    }
    out
}

/// The columns of `from`, a row-major matrix, from column `first` on, each number through `read`: as many as `out` has rows.
///
/// In tiles: some numbers of each of some rows are taken as they lie there, and written as so many runs. Following a column
/// down instead would come to cache lines that displace one another, where rows are a power of two long, before the next
/// column needs them again. The tile is wide because every row is in another page of memory, and finding that takes longer
/// than reading a line of it: measured, 32 by 128 takes 1.2 ns a number, 128 by 16 takes 2, a copy 0.3.
fn transpose<S: Copy, T: Copy + Default + Send + Sync>(
    from: &[S],
    rows: usize,
    columns: usize,
    first: usize,
    out: &mut [T],
    read: &impl Fn(S) -> T,
) {
    const TALL: usize = 32;
    const WIDE: usize = 128;
    let mut tile = [[T::default(); WIDE]; TALL];
    for (block, from) in from.chunks(columns * TALL).enumerate() {
        let (above, height) = (block * TALL, from.len() / columns);
        for (group, out) in out.chunks_mut(rows * WIDE).enumerate() {
            let start = first + group * WIDE;
            let width = out.len() / rows;
            for (tile, row) in tile.iter_mut().zip(from.chunks_exact(columns)) {
                let part = row.get(start..start + width).unwrap_or_default();
                tile.iter_mut().zip(part).for_each(|(to, from)| *to = read(*from));
            }
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                // There are no more columns than the tile is wide, which the compiler cannot see.
                let column = column % WIDE;
                let out = out.get_mut(above..above + height).unwrap_or_default();
                for (to, row) in out.iter_mut().zip(&tile) {
                    if let Some(number) = row.get(column) {
                        *to = *number;
                    }
                }
            }
        }
    }
}

/// Runs `work` on parts of `out`, each a number of whole `unit`s, with the number of the part's first unit. The parts of a
/// large `out` are taken by as many threads as there are cores.
fn in_parts<T: Send>(out: &mut [T], unit: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    /// A thread takes as long to begin as to copy some hundred KiB.
    const WORTH_BYTES: usize = 4 << 20;
    /// So that a thread that is held up does not hold up the others.
    const PARTS_A_THREAD: usize = 4;
    let units = out.len() / unit.max(1);
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if size_of_val(out) < WORTH_BYTES { 1 } else { cores() };
    if threads < 2 || units < 2 {
        return work(0, out);
    }
    let each = units.div_ceil(threads * PARTS_A_THREAD);
    let parts = Mutex::new(out.chunks_mut(each * unit).enumerate());
    let take_parts = || {
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some((number, part)) = next() {
            work(number * each, part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where there is no further thread to be had, this one does its work.
            if std::thread::Builder::new().spawn_scoped(scope, take_parts).is_err() {
                break;
            }
        }
        take_parts();
    });
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn a_kernel_is_transposed_and_comes_back_bit_for_bit() {
        let keras: Vec<u32> = (0..130 * 37_u32).map(|bits: u32| bits.wrapping_mul(0x0123_4567)).collect();
        for (layout, shape, candle_shape) in [
            (Layout::AsIs, [130, 37], [130, 37]),
            (Layout::Transposed, [130, 37], [37, 130]),
            (Layout::Transposed, [37, 130], [130, 37]),
        ] {
            let candle = layout.to_candle(keras.clone(), &shape);
            assert_eq!(layout.candle_shape(&shape), candle_shape);
            assert_eq!(layout.keras_shape(&candle_shape), shape);
            assert_eq!(layout.to_keras(candle, &shape), keras, "{layout}");
        }
        assert_eq!(Layout::Transposed.to_candle(vec![1, 2, 3, 4, 5, 6], &[2, 3]), [1, 4, 2, 5, 3, 6]);
    }

    /// What is large enough for several threads, in sizes that fill no tile and no part evenly.
    #[test]
    fn large_weights_are_read_as_small_ones_are() {
        for shape in [[1101, 1303], [1, 1_200_000], [1_200_000, 1], [1024, 2048]] {
            let [rows, columns] = shape;
            let numbers: Vec<u32> = (0..rows * columns).map(|number| u32::try_from(number).unwrap()).collect();
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
            let read = |layout: Layout| layout.read_in_candle_order(bytes.as_chunks().0, &shape, u32::from_be_bytes);
            assert!(read(Layout::AsIs) == numbers, "{shape:?}");
            let transposed = read(Layout::Transposed);
            assert!(
                (0..numbers.len()).all(|at| transposed[at] == numbers[at % rows * columns + at / rows]),
                "{shape:?}"
            );
            assert!(Layout::Transposed.to_keras(transposed, &shape) == numbers, "{shape:?}");
        }
        assert!(Layout::Transposed.read_in_candle_order(&[0_u8; 0], &[0, 3], |byte| byte).is_empty());
    }

    #[test]
    fn the_gates_of_a_gru_are_reordered_and_come_back_bit_for_bit() {
        // Columns z z r r h h of two rows become rows r r z z h h.
        let (kernel, candle) = ([0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15], [2, 12, 3, 13, 0, 10, 1, 11, 4, 14, 5, 15]);
        assert_eq!(Layout::ResetGateFirst.to_candle(kernel.to_vec(), &[2, 6]), candle);
        assert_eq!(Layout::ResetGateFirst.to_candle(vec![0, 1, 2, 3, 4, 5], &[6]), [2, 3, 0, 1, 4, 5]);
        for shape in [vec![2, 6], vec![130, 111], vec![1, 3], vec![6], vec![0], vec![0, 3]] {
            let keras: Vec<usize> = (0..shape.iter().product()).collect();
            let candle = Layout::ResetGateFirst.to_candle(keras.clone(), &shape);
            assert_eq!(Layout::ResetGateFirst.keras_shape(&Layout::ResetGateFirst.candle_shape(&shape)), shape);
            assert_eq!(Layout::ResetGateFirst.to_keras(candle, &shape), keras, "{shape:?}");
        }
    }

    #[test]
    fn the_gates_of_cudnn_are_set_apart_and_come_back_bit_for_bit() {
        // Two rows of gates i f c o of one unit; and of z r h of two units.
        let (lstm, gru) = ([0, 1, 2, 3, 10, 11, 12, 13], [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
        assert_eq!(Layout::Cudnn { gates: 4 }.to_candle(lstm.to_vec(), &[2, 4]), [0, 10, 1, 11, 2, 12, 3, 13]);
        assert_eq!(
            Layout::Cudnn { gates: 3 }.to_candle(gru.to_vec(), &[2, 6]),
            [2, 3, 12, 13, 0, 1, 10, 11, 4, 5, 14, 15]
        );
        for (gates, shape) in [(4, [7, 20]), (3, [5, 6]), (4, [1, 4]), (3, [9, 3])] {
            let keras: Vec<usize> = (0..shape.iter().product()).collect();
            let layout = Layout::Cudnn { gates };
            assert_eq!(layout.keras_shape(&layout.candle_shape(&shape)), shape);
            assert_eq!(layout.to_keras(layout.to_candle(keras.clone(), &shape), &shape), keras, "{gates} {shape:?}");
        }
    }

    #[test]
    fn the_kernel_of_a_convolution_comes_back_bit_for_bit() {
        // Number 100·tap + 10·a + b stands at (tap, a, b) of a kernel with two taps.
        let keras = [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121];
        let depthwise = Layout::DepthwiseKernel { multiplier: 2 };
        for (layout, keras_shape, candle_shape, candle) in [
            (Layout::ConvKernel, [1, 2, 3, 2], [2, 3, 1, 2], [0, 100, 10, 110, 20, 120, 1, 101, 11, 111, 21, 121]),
            (depthwise, [1, 2, 3, 2], [6, 1, 1, 2], [0, 100, 1, 101, 10, 110, 11, 111, 20, 120, 21, 121]),
        ] {
            assert_eq!(layout.candle_shape(&keras_shape), candle_shape, "{layout}");
            assert_eq!(layout.keras_shape(&candle_shape), keras_shape, "{layout}");
            assert_eq!(layout.to_candle(keras.to_vec(), &keras_shape), candle, "{layout}");
            assert_eq!(layout.to_keras(candle.to_vec(), &keras_shape), keras, "{layout}");
        }
        for (shape, multiplier) in [(vec![130, 7, 70], 70), (vec![3, 5, 1, 129], 129), (vec![2, 3, 4, 65, 3], 3)] {
            let keras: Vec<usize> = (0..shape.iter().product()).collect();
            for layout in [Layout::ConvKernel, Layout::DepthwiseKernel { multiplier }] {
                let candle = layout.to_candle(keras.clone(), &shape);
                assert_eq!(layout.keras_shape(&layout.candle_shape(&shape)), shape, "{layout}");
                assert_eq!(layout.to_keras(candle, &shape), keras, "{layout}");
            }
        }
        assert!(Layout::ConvKernel.to_candle(Vec::<u8>::new(), &[3, 0, 2]).is_empty());
    }
}
