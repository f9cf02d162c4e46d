//! Singular values, found on the host and made differentiable by the vectors that belong to them.

use candle_core::{DType, Device, Result, Tensor, bail};

/// Rotations stop when no two columns are further from a right angle than this, or after so many rounds.
const RIGHT_ANGLE: f64 = 1e-15;
const MOST_ROUNDS: usize = 60;

/// One matrix, by columns.
struct Columns(Vec<Vec<f64>>);

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Turns columns `p` and `q` by an angle of cosine `c` and sine `s`.
fn turn(columns: &mut [Vec<f64>], p: usize, q: usize, c: f64, s: f64) {
    let (Some(before), Some(after)) = (columns.get(p).cloned(), columns.get(q).cloned()) else { return };
    let turned = |a: f64, b: f64| move |pair: (&f64, &f64)| a * pair.0 + b * pair.1;
    if let Some(column) = columns.get_mut(p) {
        *column = before.iter().zip(&after).map(turned(c, -s)).collect();
    }
    if let Some(column) = columns.get_mut(q) {
        *column = before.iter().zip(&after).map(turned(s, c)).collect();
    }
}

impl Columns {
    /// One-sided Jacobi: turns pairs of columns until all stand at right angles. The lengths of what comes out are the
    /// singular values; the turns themselves, applied to the columns of the identity, are the right vectors.
    fn turned(mut self) -> Result<(Self, Self)> {
        let count = self.0.len();
        let unit = |row: usize| (0..count).map(|at| f64::from(u8::from(at == row))).collect();
        let mut right = Self((0..count).map(unit).collect());
        for _ in 0..MOST_ROUNDS {
            let mut largest = 0.0_f64;
            for p in 0..count {
                for q in p + 1..count {
                    let (Some(a), Some(b)) = (self.0.get(p), self.0.get(q)) else { continue };
                    let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
                    if ab == 0.0 || aa * bb == 0.0 {
                        continue;
                    }
                    let angle = ab.abs() / (aa * bb).sqrt();
                    largest = largest.max(angle);
                    if angle <= RIGHT_ANGLE {
                        continue;
                    }
                    let zeta = (bb - aa) / (2.0 * ab);
                    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                    turn(&mut self.0, p, q, cosine, cosine * tangent);
                    turn(&mut right.0, p, q, cosine, cosine * tangent);
                }
            }
            if largest <= RIGHT_ANGLE {
                return Ok((self, right));
            }
        }
        bail!("the singular values of a matrix did not settle")
    }
}

/// A singular value with the vectors that belong to it; where it is 0, the left one is 0 too.
pub(super) struct Triple {
    pub(super) value: f64,
    pub(super) left: Vec<f64>,
    pub(super) right: Vec<f64>,
}

/// The singular values of `matrix`, by rows of `width`, the largest first. Best of no more columns than rows.
///
/// # Errors
/// Where a number is not finite: TensorFlow's result is not defined then.
pub(super) fn triples(matrix: &[Vec<f64>], width: usize) -> Result<Vec<Triple>> {
    if matrix.iter().flatten().any(|number| !number.is_finite()) {
        bail!("the singular values of a matrix that is not finite");
    }
    let column = |at: usize| matrix.iter().filter_map(|row| row.get(at).copied()).collect();
    let (turned, vectors) = Columns((0..width).map(column).collect()).turned()?;
    let triple = |(column, right): (Vec<f64>, Vec<f64>)| {
        let value = dot(&column, &column).sqrt();
        let left = column.iter().map(|number| if value == 0.0 { 0.0 } else { number / value }).collect();
        Triple { value, left, right }
    };
    let mut triples: Vec<Triple> = turned.0.into_iter().zip(vectors.0).map(triple).collect();
    triples.sort_by(|a, b| b.value.total_cmp(&a.value));
    Ok(triples)
}

/// The singular values of the matrices that `rows` and `columns` of `xs` are, the largest first, in a last axis; all other
/// axes come before it.
///
/// With the vectors u and v of a value, it is uᵀ · x · v, and that is its derivative by x too.
///
/// # Errors
/// Where a number is not finite: TensorFlow's result is not defined then.
pub(super) fn values(xs: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let others: Vec<usize> = (0..xs.rank()).filter(|axis| *axis != rows && *axis != columns).collect();
    let order: Vec<usize> = others.iter().copied().chain([rows, columns]).collect();
    let matrices = xs.permute(order)?.contiguous()?;
    let outer: Vec<usize> = others.iter().map(|axis| xs.dim(*axis)).collect::<Result<_>>()?;
    let (height, width) = (xs.dim(rows)?, xs.dim(columns)?);
    // The shorter side is turned.
    let matrices =
        if width > height { matrices.transpose(xs.rank() - 2, xs.rank() - 1)?.contiguous()? } else { matrices };
    let (height, width) = (height.max(width), height.min(width));
    let count: usize = outer.iter().product();
    let flat = matrices.reshape((count, height, width))?;
    let numbers = flat.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec3::<f64>()?;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for matrix in &numbers {
        for triple in triples(matrix, width)? {
            left.extend(triple.left);
            right.extend(triple.right);
        }
    }
    let device = xs.device();
    let left = Tensor::from_vec(left, (count, width, height), device)?;
    let right = Tensor::from_vec(right, (count, width, width), device)?;
    let products = left.matmul(&flat.to_dtype(DType::F64)?)?;
    let values = (products * right)?.sum(2)?.to_dtype(xs.dtype())?;
    values.reshape([outer, vec![width]].concat())
}
