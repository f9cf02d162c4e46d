use std::fmt;

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
}

impl Layout {
    /// The shape candle has where Keras has `keras`.
    #[must_use]
    pub fn candle_shape(self, keras: &[usize]) -> Vec<usize> {
        match self {
            Self::AsIs => keras.to_vec(),
            Self::Transposed | Self::ResetGateFirst => keras.iter().rev().copied().collect(),
        }
    }

    /// The shape Keras has where candle has `candle`.
    #[must_use]
    pub fn keras_shape(self, candle: &[usize]) -> Vec<usize> {
        // Exchanging two axes is its own inverse.
        self.candle_shape(candle)
    }

    /// The numbers of a weight of Keras's shape `keras_shape`, row-major, in candle's order.
    #[must_use]
    pub fn to_candle<T: Copy>(self, numbers: Vec<T>, keras_shape: &[usize]) -> Vec<T> {
        match self {
            Self::AsIs => numbers,
            Self::Transposed => transposed(&numbers, keras_shape),
            Self::ResetGateFirst => thirds_exchanged(transposed(&numbers, keras_shape)),
        }
    }

    /// The numbers of a weight in candle's order, back in Keras's order, row-major.
    #[must_use]
    pub fn to_keras<T: Copy>(self, numbers: Vec<T>, keras_shape: &[usize]) -> Vec<T> {
        match self {
            Self::AsIs => numbers,
            Self::Transposed => transposed(&numbers, &self.candle_shape(keras_shape)),
            Self::ResetGateFirst => transposed(&thirds_exchanged(numbers), &self.candle_shape(keras_shape)),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AsIs => "as is",
            Self::Transposed => "transposed",
            Self::ResetGateFirst => "reset gate first",
        })
    }
}

/// The first third of the numbers exchanged with the second.
fn thirds_exchanged<T: Copy>(numbers: Vec<T>) -> Vec<T> {
    let (first, rest) = numbers.split_at(numbers.len() / 3);
    let (second, third) = rest.split_at(first.len());
    [second, first, third].concat()
}

/// The transpose of a row-major matrix of `shape` (rows, columns), some rows at a time so that both sides stay in the cache.
/// Anything but a matrix stays as it is.
fn transposed<T: Copy>(numbers: &[T], shape: &[usize]) -> Vec<T> {
    const BLOCK: usize = 64;
    let (Some(first), [rows, columns]) = (numbers.first(), shape) else { return numbers.to_vec() };
    let mut out = vec![*first; numbers.len()];
    for (block, some_rows) in numbers.chunks(columns * BLOCK).enumerate() {
        for (column, out) in out.chunks_exact_mut(*rows).enumerate() {
            let place = out.iter_mut().skip(block * BLOCK);
            place.zip(some_rows.iter().skip(column).step_by(*columns)).for_each(|(out, number)| *out = *number);
        }
    }
    out
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
}
