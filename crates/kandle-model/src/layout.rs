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
}

impl Layout {
    /// The shape candle has where Keras has `keras`.
    #[must_use]
    pub fn candle_shape(self, keras: &[usize]) -> Vec<usize> {
        match self {
            Self::AsIs => keras.to_vec(),
            Self::Transposed => keras.iter().rev().copied().collect(),
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
        }
    }

    /// The numbers of a weight in candle's order, back in Keras's order, row-major.
    #[must_use]
    pub fn to_keras<T: Copy>(self, numbers: Vec<T>, keras_shape: &[usize]) -> Vec<T> {
        match self {
            Self::AsIs => numbers,
            Self::Transposed => transposed(&numbers, &self.candle_shape(keras_shape)),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AsIs => "as is",
            Self::Transposed => "transposed",
        })
    }
}

/// The transpose of a row-major matrix of `shape` (rows, columns), some rows at a time so that both sides stay in the cache.
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
}
