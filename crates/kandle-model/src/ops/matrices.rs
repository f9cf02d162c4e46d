//! Factors of one matrix, on the host in float64.

use candle_core::Result;

use super::singular::triples;

/// A matrix by rows.
pub(super) type Matrix = Vec<Vec<f64>>;

fn entry(matrix: &Matrix, row: usize, column: usize) -> f64 {
    matrix.get(row).and_then(|row| row.get(column)).copied().unwrap_or_default()
}

fn put(matrix: &mut Matrix, row: usize, column: usize, number: f64) {
    if let Some(place) = matrix.get_mut(row).and_then(|row| row.get_mut(column)) {
        *place = number;
    }
}

pub(super) fn identity(size: usize) -> Matrix {
    (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect()
}

/// Row `of` of `into` less `factor` times row `other`.
fn take_row(into: &mut Matrix, of: usize, other: usize, factor: f64) {
    let Some(other) = into.get(other).cloned() else { return };
    if let Some(row) = into.get_mut(of) {
        row.iter_mut().zip(other).for_each(|(number, other)| *number -= factor * other);
    }
}

/// The pivots of a square matrix by Gauss's elimination, the largest of each column, and the sign of their order. `beside`
/// goes through the same steps, and is the inverse times what it was where no pivot is 0; it may be nothing.
pub(super) fn eliminated(mut matrix: Matrix, beside: &mut Matrix) -> (Vec<f64>, f64) {
    let size = matrix.len();
    let (mut pivots, mut sign) = (Vec::with_capacity(size), 1.0);
    for at in 0..size {
        let own = pivot(&matrix, at);
        if own != at {
            matrix.swap(own, at);
            if beside.len() == size {
                beside.swap(own, at);
            }
            sign = -sign;
        }
        let pivot = entry(&matrix, at, at);
        pivots.push(pivot);
        if pivot == 0.0 {
            continue;
        }
        for row in at + 1..size {
            let factor = entry(&matrix, row, at) / pivot;
            if factor != 0.0 {
                take_row(&mut matrix, row, at, factor);
                take_row(beside, row, at, factor);
            }
        }
    }
    for at in (0..size).rev() {
        let pivot = entry(&matrix, at, at);
        if let Some(row) = beside.get_mut(at) {
            row.iter_mut().for_each(|number| *number /= pivot);
        }
        for row in 0..at {
            let factor = entry(&matrix, row, at);
            take_row(beside, row, at, factor);
        }
    }
    (pivots, sign)
}

/// Both triangles of a square matrix whose rows are brought into an order, by Gauss's elimination: below the diagonal what
/// was taken of each row, from it on what is left; and the place of each row. `None` where a pivot is 0.
pub(super) fn triangles(mut matrix: Matrix) -> Option<(Matrix, Vec<usize>)> {
    let size = matrix.len();
    let mut order: Vec<usize> = (0..size).collect();
    for at in 0..size {
        let own = pivot(&matrix, at);
        matrix.swap(own, at);
        order.swap(own, at);
        let pivot = entry(&matrix, at, at);
        if pivot == 0.0 {
            return None;
        }
        for row in at + 1..size {
            let factor = entry(&matrix, row, at) / pivot;
            put(&mut matrix, row, at, factor);
            for column in at + 1..size {
                let number = entry(&matrix, row, column) - factor * entry(&matrix, at, column);
                put(&mut matrix, row, column, number);
            }
        }
    }
    let mut places = vec![0; size];
    for (place, row) in order.into_iter().enumerate() {
        if let Some(own) = places.get_mut(row) {
            *own = place;
        }
    }
    Some((matrix, places))
}

/// The row from `at` on whose number in that column is the largest, of equal ones the first.
fn pivot(matrix: &Matrix, at: usize) -> usize {
    let size = |row: usize| entry(matrix, row, at).abs();
    (at..matrix.len()).fold(at, |best, row| if size(row) > size(best) { row } else { best })
}

/// The lower triangle L with L · Lᵀ = `matrix`, of which only the lower triangle is looked at; `None` where there is none.
pub(super) fn cholesky_of(matrix: &Matrix) -> Option<Matrix> {
    let size = matrix.len();
    let mut lower = vec![vec![0.0; size]; size];
    for row in 0..size {
        for column in 0..=row {
            let sum: f64 = (0..column).map(|at| entry(&lower, row, at) * entry(&lower, column, at)).sum();
            let rest = entry(matrix, row, column) - sum;
            let number = if row == column { rest.sqrt() } else { rest / entry(&lower, column, column) };
            if number.is_nan() || (row == column && number == 0.0) {
                return None;
            }
            put(&mut lower, row, column, number);
        }
    }
    Some(lower)
}

/// The Householder reflections of a matrix by rows: their product with `kept` columns, and the upper triangle.
///
/// Keras: the signs are those of Eigen, whose reflections turn a number of at least 0 into one of at most 0.
pub(super) fn reflections(mut matrix: Matrix, columns: usize, kept: usize) -> (Matrix, Matrix) {
    let rows = matrix.len();
    let mut vectors = Vec::new();
    for at in 0..rows.min(columns) {
        let own: Vec<f64> = (at..rows).map(|row| entry(&matrix, row, at)).collect();
        let (first, tail) = own.split_first().map(|(first, tail)| (*first, tail.to_vec())).unwrap_or_default();
        let rest: f64 = tail.iter().map(|number| number * number).sum();
        if rest <= f64::MIN_POSITIVE {
            continue;
        }
        let length = (first * first + rest).sqrt();
        let beta = if first >= 0.0 { -length } else { length };
        let vector: Vec<f64> = std::iter::repeat_n(0.0, at)
            .chain([1.0])
            .chain(tail.iter().map(|number| number / (first - beta)))
            .collect();
        let factor = (beta - first) / beta;
        reflect(&mut matrix, &vector, factor, columns);
        for row in at + 1..rows {
            put(&mut matrix, row, at, 0.0);
        }
        vectors.push((vector, factor));
    }
    let mut product: Matrix =
        (0..rows).map(|row| (0..kept).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    for (vector, factor) in vectors.iter().rev() {
        reflect(&mut product, vector, *factor, kept);
    }
    (product, matrix)
}

fn reflect(matrix: &mut Matrix, vector: &[f64], factor: f64, columns: usize) {
    for column in 0..columns {
        let dot: f64 = vector.iter().enumerate().map(|(row, number)| number * entry(matrix, row, column)).sum();
        for (row, number) in vector.iter().enumerate() {
            let before = entry(matrix, row, column);
            put(matrix, row, column, before - factor * dot * number);
        }
    }
}

/// The pseudoinverse by rows of a matrix of `rows` and `columns`: of singular values below the limit nothing.
pub(super) fn pseudoinverse(
    matrix: Matrix,
    (rows, columns): (usize, usize),
    counts: impl Fn(f64, f64) -> bool,
) -> Result<Matrix> {
    let wide = columns > rows;
    let transposed = |matrix: &Matrix, width: usize| -> Matrix {
        (0..width)
            .map(|column| matrix.iter().map(|row| row.get(column).copied().unwrap_or_default()).collect())
            .collect()
    };
    let tall = if wide { transposed(&matrix, columns) } else { matrix };
    let triples = triples(&tall, rows.min(columns))?;
    let largest = triples.first().map(|triple| triple.value).unwrap_or_default();
    let mut found = vec![vec![0.0; rows.max(columns)]; rows.min(columns)];
    for triple in triples.iter().filter(|triple| counts(triple.value, largest) && triple.value > 0.0) {
        for (row, right) in found.iter_mut().zip(&triple.right) {
            for (number, left) in row.iter_mut().zip(&triple.left) {
                *number += right / triple.value * left;
            }
        }
    }
    Ok(if wide { transposed(&found, columns) } else { found })
}
