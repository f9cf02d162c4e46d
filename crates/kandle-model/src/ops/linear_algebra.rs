//! `keras.ops.linalg`: inverses, determinants, factors and solutions, of matrices in the last two axes.
//!
//! Factors are found on the host in float64; what comes out is written as a function of the operand whose value and
//! derivative are right, in candle's own operations.
//!
//! Source: keras/src/backend/tensorflow/linalg.py, tensorflow/core/kernels/linalg.

use candle_core::{D, DType, Device, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{
    Integers, Node, Operation, Setting, convert,
    elementwise::{X, floating_or_double},
    floats, host, invalid,
    matrices::{Matrix, cholesky_of, eliminated, identity, pseudoinverse, reflections, triangles},
    one, operation,
    reduction::sum_of,
    rounded,
    rounding::through,
    singular,
};
use crate::{Shape, Spec, Value, math::einsum::matmul, numeric::wide};

type Planned = std::result::Result<Vec<Spec>, Problem>;

/// Every matrix of `xs` through `f`, in float64: numbers that make up an array of shape `inner` each.
fn each(xs: &Tensor, inner: &[usize], mut f: impl FnMut(Matrix) -> Result<Vec<f64>>) -> Result<Tensor> {
    let rank = xs.rank();
    if rank < 2 {
        bail!("expected matrices, found an input of {:?}", xs.dims());
    }
    let (rows, columns) = (xs.dim(rank - 2)?, xs.dim(rank - 1)?);
    let outer: Vec<usize> = xs.dims().iter().take(rank - 2).copied().collect();
    let count: usize = outer.iter().product();
    let flat =
        xs.detach().contiguous()?.reshape((count, rows, columns))?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
    let mut numbers = Vec::new();
    for matrix in flat.to_vec3::<f64>()? {
        numbers.extend(f(matrix)?);
    }
    Tensor::from_vec(numbers, [outer.as_slice(), inner].concat(), &Device::Cpu)?.to_device(xs.device())
}

fn size_of(xs: &Tensor) -> Result<usize> {
    let size = xs.dim(D::Minus1)?;
    if xs.rank() < 2 || xs.dim(D::Minus2)? != size {
        bail!("expected square matrices, found an input of {:?}", xs.dims());
    }
    Ok(size)
}

fn finite(matrix: &Matrix) -> Result<()> {
    if matrix.iter().flatten().any(|number| !number.is_finite()) {
        bail!("a matrix with numbers that are not finite");
    }
    Ok(())
}

fn turned(xs: &Tensor) -> Result<Tensor> {
    xs.transpose(D::Minus2, D::Minus1)?.contiguous()
}

/// The inverse Y of X in float64, written as `2Y − Y · X · Y`: the same number, with the inverse's derivative.
pub(super) fn inverse(xs: &Tensor) -> Result<Tensor> {
    let size = size_of(xs)?;
    let found = each(xs, &[size, size], |matrix| {
        finite(&matrix)?;
        let mut beside = identity(size);
        let (pivots, _) = eliminated(matrix, &mut beside);
        if pivots.contains(&0.0) {
            bail!("a matrix that has no inverse");
        }
        Ok(beside.into_iter().flatten().collect())
    })?;
    let again = matmul(&matmul(&found, xs)?, &found)?;
    (&found * 2.0)? - again
}

/// `found` with the derivative of `like`, whose value does not count; without one where it is infinite.
fn with_derivative(found: &Tensor, like: &Tensor) -> Result<Tensor> {
    match like.detach().abs()?.sum_all()?.to_scalar::<f64>()?.is_finite() {
        true => found + (like - like.detach())?,
        false => Ok(found.clone()),
    }
}

/// Sign and logarithm of the determinants. Keras: a determinant of 0 has the sign 0.
fn signed(xs: &Tensor) -> Result<(Tensor, Tensor)> {
    let size = size_of(xs)?;
    let found = each(xs, &[2], |matrix| {
        if matrix.iter().flatten().any(|number| number.is_nan()) {
            return Ok(vec![f64::NAN, f64::NAN]);
        }
        finite(&matrix)?;
        let (pivots, sign) = eliminated(matrix, &mut Vec::new());
        let log: f64 = pivots.iter().map(|pivot| pivot.abs().ln()).sum();
        let sign = pivots.iter().fold(sign, |sign, pivot| sign * pivot.signum());
        Ok(vec![if pivots.contains(&0.0) { 0.0 } else { sign }, log])
    })?;
    let (sign, log) = (found.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, found.narrow(D::Minus1, 1, 1)?);
    let log = log.squeeze(D::Minus1)?;
    let whole = log.abs()?.lt(f64::INFINITY)?.to_dtype(DType::F64)?.flatten_all()?.min(0)?.to_scalar::<f64>();
    if size == 0 || whole.unwrap_or_default() == 0.0 {
        return Ok((sign, log));
    }
    let traces = (turned(&inverse(&xs.detach())?)? * xs)?.sum((D::Minus2, D::Minus1))?;
    Ok((sign, with_derivative(&log, &traces)?))
}

/// The matrices whose lower triangle is that of `xs`, mirrored.
fn mirrored(xs: &Tensor) -> Result<Tensor> {
    let size = size_of(xs)?;
    let (below, diagonal) =
        (triangle(size, xs.device(), |row, column| column < row)?, Tensor::eye(size, DType::U8, xs.device())?);
    let only = |mask: &Tensor| mask.broadcast_as(xs.shape())?.where_cond(xs, &xs.zeros_like()?);
    let lower = only(&below)?;
    (&lower + turned(&lower)?)? + only(&diagonal)?
}

fn triangle(size: usize, device: &Device, within: fn(usize, usize) -> bool) -> Result<Tensor> {
    let cells = (0..size * size).map(|at| u8::from(within(at / size, at % size))).collect::<Vec<u8>>();
    Tensor::from_vec(cells, (size, size), device)
}

/// The Cholesky factors in float64; NaN where a matrix has none. With Φ, which halves the diagonal of a lower triangle, the
/// derivative is `L · Φ(L⁻¹ · dX · L⁻ᵀ)`.
fn factors(xs: &Tensor) -> Result<Tensor> {
    let size = size_of(xs)?;
    let mut whole = true;
    let found = each(xs, &[size, size], |matrix| {
        let lower = cholesky_of(&matrix);
        whole &= lower.is_some();
        Ok(lower.unwrap_or_else(|| vec![vec![f64::NAN; size]; size]).into_iter().flatten().collect())
    })?;
    if !whole || size == 0 {
        return Ok(found);
    }
    let undone = inverse(&found)?;
    let xs = mirrored(xs)?;
    let apart = matmul(&matmul(&undone, &(&xs - xs.detach())?)?, &turned(&undone)?)?;
    let halved = triangle(size, xs.device(), |row, column| column <= row)?.to_dtype(DType::F64)?;
    let halved = (halved - (Tensor::eye(size, DType::F64, xs.device())? * 0.5)?)?;
    &found + matmul(&found, &apart.broadcast_mul(&halved)?)?
}

/// The triangle of `xs` that counts, zeros in place of the other.
fn half(xs: &Tensor, lower: bool) -> Result<Tensor> {
    let size = size_of(xs)?;
    let within = if lower { |row, column| column <= row } else { |row, column| row <= column };
    triangle(size, xs.device(), within)?.broadcast_as(xs.shape())?.where_cond(xs, &xs.zeros_like()?)
}

/// The operand `name` in float64, and its dtype.
fn matrices(node: &Node<'_, Value>, name: &str) -> Result<(Tensor, Dtype)> {
    let value = node.value(name)?;
    Ok((value.tensor.to_dtype(DType::F64)?.contiguous()?, value.dtype))
}

fn of_matrices(node: &Node<'_, Value>, name: &str, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Value>> {
    let (xs, dtype) = matrices(node, name)?;
    Ok(vec![rounded(&f(&xs)?, dtype)?])
}

/// The operand `name`, matrices of a dtype that TensorFlow has factors of.
fn planned_matrices(node: &Node<'_, Spec>, name: &str) -> std::result::Result<Spec, Problem> {
    let xs = node.spec(name)?;
    match (xs.shape.rank() > 1, xs.dtype) {
        (true, Dtype::Float32 | Dtype::Float64) => Ok(xs),
        (false, _) => Err(invalid(format!("expected matrices, found an input of {}", xs.shape))),
        (_, dtype) => {
            let what = format!("matrices of {dtype} are not supported (only float32 and float64)");
            Err(Problem::new(ErrorKind::Unsupported, "", what))
        }
    }
}

fn planned_square(node: &Node<'_, Spec>, name: &str) -> std::result::Result<Spec, Problem> {
    let xs = planned_matrices(node, name)?;
    match xs.shape.0.as_slice() {
        [.., Some(rows), Some(columns)] if rows != columns => {
            Err(invalid(format!("expected square matrices, found an input of {}", xs.shape)))
        }
        _ => Ok(xs),
    }
}

fn same(node: &Node<'_, Spec>, name: &str) -> Planned {
    planned_square(node, name).map(|spec| vec![spec])
}

fn outer(Shape(axes): &Shape) -> Shape {
    Shape(axes.iter().take(axes.len().saturating_sub(2)).copied().collect())
}

fn planned_number(node: &Node<'_, Spec>) -> Planned {
    let xs = planned_square(node, "x")?;
    one(outer(&xs.shape), xs.dtype)
}

/// Keras: the sign is planned without axes, whatever comes out.
fn planned_signed(node: &Node<'_, Spec>) -> Planned {
    let xs = planned_square(node, "x")?;
    Ok(vec![xs.with_shape(Shape(Vec::new())), xs.with_shape(outer(&xs.shape))])
}

/// Keras: the sides of an equation have the shape of the right one.
fn planned_solution(node: &Node<'_, Spec>) -> Planned {
    let (a, b) = (planned_square(node, "a")?, node.spec("b")?);
    let ranks = (a.shape.rank(), b.shape.rank());
    if a.dtype != b.dtype || !(ranks.1 == ranks.0 || ranks.1 + 1 == ranks.0) {
        return Err(invalid(format!("{} of {} and {} of {}", a.shape, a.dtype, b.shape, b.dtype)));
    }
    Ok(vec![b])
}

/// The solution y of `a · y = b` by the inverse of `a`; a `b` of one axis less is a vector each.
fn solution(node: &Node<'_, Value>, triangular: bool) -> Result<Vec<Value>> {
    let ((a, dtype), (b, _)) = (matrices(node, "a")?, matrices(node, "b")?);
    let vectors = b.rank() + 1 == a.rank();
    let b = if vectors { b.unsqueeze(D::Minus1)? } else { b };
    if !triangular && a.dims().iter().take(a.rank() - 2).ne(b.dims().iter().take(b.rank() - 2)) {
        bail!("matrices of {:?} and {:?}", a.dims(), b.dims());
    }
    let a = if triangular { half(&a, node.settings.flag("lower"))? } else { a };
    let found = matmul(&inverse(&a)?, &b)?;
    let found = if vectors { found.squeeze(D::Minus1)? } else { found };
    Ok(vec![rounded(&found, dtype)?])
}

fn known_sides(xs: &Spec) -> std::result::Result<(usize, usize), Problem> {
    match xs.shape.0.as_slice() {
        [.., Some(rows), Some(columns)] => Ok((*rows, *columns)),
        _ => Err(invalid(format!("expected matrices of known size, found an input of {}", xs.shape))),
    }
}

fn with_sides(xs: &Spec, sides: &[usize]) -> Spec {
    let Shape(outer) = outer(&xs.shape);
    xs.with_shape(Shape(outer.into_iter().chain(sides.iter().copied().map(Some)).collect()))
}

fn planned_reflections(node: &Node<'_, Spec>) -> Planned {
    let xs = planned_matrices(node, "x")?;
    let (rows, columns) = known_sides(&xs)?;
    let kept = if node.settings.text("mode") == "complete" { rows } else { rows.min(columns) };
    Ok(vec![with_sides(&xs, &[rows, kept]), with_sides(&xs, &[kept, columns])])
}

fn qr(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, dtype) = matrices(node, "x")?;
    let (rows, columns) = (xs.dim(D::Minus2)?, xs.dim(D::Minus1)?);
    let kept = if node.settings.text("mode") == "complete" { rows } else { rows.min(columns) };
    let part = |first: bool, sides: [usize; 2]| {
        let found = each(&xs, &sides, |matrix| {
            finite(&matrix)?;
            let (product, upper) = reflections(matrix, columns, kept);
            Ok(if first { product } else { upper.into_iter().take(kept).collect() }.into_iter().flatten().collect())
        })?;
        rounded(&found, dtype)
    };
    Ok(vec![part(true, [rows, kept])?, part(false, [kept, columns])?])
}

/// Keras: plans the places in the dtype of the matrix, and several matrices, of which TensorFlow has no places.
fn planned_triangles(node: &Node<'_, Spec>) -> Planned {
    let xs = planned_square(node, "x")?;
    match xs.shape.0.as_slice() {
        [rows, _] => Ok(vec![xs.clone(), xs.with_shape(Shape(vec![*rows]))]),
        _ => Err(invalid(format!("expected one matrix, found an input of {}", xs.shape))),
    }
}

fn both_triangles(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, dtype) = matrices(node, "x")?;
    let size = size_of(&xs)?;
    let mut order = Vec::new();
    let found = each(&xs, &[size, size], |matrix| {
        finite(&matrix)?;
        let Some((both, places)) = triangles(matrix) else { bail!("a matrix that has no inverse") };
        order = places.into_iter().map(i64::try_from).collect::<std::result::Result<Vec<i64>, _>>()?;
        Ok(both.into_iter().flatten().collect())
    })?;
    let places = Integers { numbers: order, dims: vec![size] }.value(Dtype::Int32, xs.device())?;
    Ok(vec![rounded(&found, dtype)?, places])
}

fn planned_values(node: &Node<'_, Spec>) -> Planned {
    let xs = planned_matrices(node, "x")?;
    if node.settings.flag("compute_uv") {
        let what =
            "compute_uv = true is not supported: the signs of singular vectors are those of TensorFlow's own steps";
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    let (rows, columns) = known_sides(&xs)?;
    Ok(vec![with_sides(&xs, &[rows.min(columns)])])
}

fn singular_values(xs: &Tensor) -> Result<Tensor> {
    let rank = xs.rank();
    singular::values(xs, rank - 2, rank - 1)
}

/// What is the smallest step of a dtype from 1 on.
fn step(dtype: Dtype) -> f64 {
    if dtype == Dtype::Float64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

fn limit<T>(node: &Node<'_, T>, key: &str) -> Option<f64> {
    node.settings.number(key)
}

fn pinv(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, dtype) = matrices(node, "x")?;
    let sides = (xs.dim(D::Minus2)?, xs.dim(D::Minus1)?);
    let share = limit(node, "rcond").unwrap_or(10.0 * sides.0.max(sides.1) as f64 * step(dtype));
    let found = each(&xs, &[sides.1, sides.0], |matrix| {
        Ok(pseudoinverse(matrix, sides, |value, largest| value > share * largest)?.into_iter().flatten().collect())
    })?;
    Ok(vec![rounded(&found, dtype)?])
}

fn rank(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (xs, dtype) = matrices(node, "x")?;
    let values = singular_values(&xs)?.detach();
    let sides = xs.dim(D::Minus2)?.max(xs.dim(D::Minus1)?) as f64;
    let above = match limit(node, "tol") {
        Some(tol) => values.gt(tol)?,
        None => values.broadcast_gt(&(values.max_keepdim(D::Minus1)? * (step(dtype) * sides))?)?,
    };
    let counts = above.to_dtype(DType::F64)?.sum(D::Minus1)?;
    Ok(vec![Integers::of_tensor(&counts)?.value(Dtype::Int32, xs.device())?])
}

fn planned_least_squares(node: &Node<'_, Spec>) -> Planned {
    let (a, b) = (planned_matrices(node, "a")?, node.spec("b")?);
    match (a.shape.0.as_slice(), b.shape.0.as_slice()) {
        ([rows, columns], [own, rest @ ..])
            if (rows == own || rows.is_none() || own.is_none()) && rest.len() < 2 && a.dtype == b.dtype =>
        {
            one(Shape([&[*columns], rest].concat()), a.dtype)
        }
        _ => Err(invalid(format!("{} of {} and {} of {}", a.shape, a.dtype, b.shape, b.dtype))),
    }
}

/// The smallest y for which `a · y` is nearest to `b`.
fn least_squares(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let ((a, dtype), (b, _)) = (matrices(node, "a")?, matrices(node, "b")?);
    let sides = a.dims2()?;
    let share = match limit(node, "rcond") {
        Some(share) if share < 0.0 => step(dtype),
        Some(share) => share,
        None => step(dtype) * sides.0.max(sides.1) as f64,
    };
    let inverse = each(&a, &[sides.1, sides.0], |matrix| {
        Ok(pseudoinverse(matrix, sides, |value, largest| value >= share * largest)?.into_iter().flatten().collect())
    })?;
    let found = match b.rank() {
        1 => inverse.matmul(&b.unsqueeze(1)?)?.squeeze(1)?,
        _ => inverse.matmul(&b)?,
    };
    Ok(vec![rounded(&found, dtype)?])
}

/// Keras: plans the shape of its operand.
fn planned_correlations(node: &Node<'_, Spec>) -> Planned {
    let xs = node.spec("x")?;
    if xs.shape.rank() != 2 || xs.dtype == Dtype::Uint64 {
        let what = format!("{} of {} (only two axes, and no uint64)", xs.shape, xs.dtype);
        return Err(Problem::new(ErrorKind::Unsupported, "", what));
    }
    one(xs.shape, floating_or_double(xs.dtype))
}

/// The correlations of every row with every row, from -1 to 1. Keras: int64 has a mean without its fraction.
fn correlations(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let value = node.value("x")?;
    let dtype = floating_or_double(value.dtype);
    let xs = floats(&convert(&value, dtype)?, dtype)?;
    let count = xs.dim(1)? as f64;
    let found = wide(&xs, |xs| {
        let mean = (sum_of(xs, &[1])? / count)?;
        let mean = if value.dtype == Dtype::Int64 { host::steps(&mean, f64::trunc)? } else { mean };
        let apart = xs.broadcast_sub(&mean)?;
        let covariance = (apart.matmul(&apart.t()?.contiguous()?)? / (count - 1.0))?;
        let squares = (apart.sqr()?.sum_keepdim(1)? / (count - 1.0))?;
        let spread = squares.sqrt()?;
        let found = covariance.broadcast_div(&spread.broadcast_mul(&spread.t()?)?)?;
        crate::activation::clip(&found, -1.0, 1.0)
    })?;
    Ok(vec![rounded(&through(&found, dtype)?, dtype)?])
}

const SIDES: &[&str] = &["a", "b"];
const UPPER: &[(&str, Setting)] = &[("upper", Setting::Flag(false))];

pub(super) static OPERATIONS: &[Operation] = &[
    operation("Inv", X, |node| same(node, "x"), |node| of_matrices(node, "x", inverse)),
    operation("Det", X, planned_number, |node| {
        of_matrices(node, "x", |xs| {
            let (sign, log) = signed(xs)?;
            sign * log.exp()?
        })
    }),
    operation("Slogdet", X, planned_signed, |node| {
        let (xs, dtype) = matrices(node, "x")?;
        let (sign, log) = signed(&xs)?;
        Ok(vec![rounded(&sign, dtype)?, rounded(&log, dtype)?])
    }),
    // Keras: by the Cholesky factors, so that only the lower triangle counts; NaN where there are none.
    operation("Logdet", X, planned_number, |node| {
        of_matrices(node, "x", |xs| {
            let diagonal = Tensor::eye(size_of(xs)?, DType::U8, xs.device())?.broadcast_as(xs.shape())?;
            let lower = factors(xs)?;
            let logs = diagonal.where_cond(&lower, &lower.ones_like()?)?.log()?;
            logs.sum((D::Minus2, D::Minus1))? * 2.0
        })
    }),
    operation(
        "Cholesky",
        X,
        |node| same(node, "x"),
        |node| {
            of_matrices(node, "x", |xs| {
                let lower = factors(xs)?;
                if lower.detach().ne(&lower.detach())?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()? > 0.0 {
                    bail!("a matrix that has no Cholesky factors");
                }
                if node.settings.flag("upper") { turned(&lower) } else { Ok(lower) }
            })
        },
    )
    .with(UPPER),
    operation(
        "CholeskyInverse",
        X,
        |node| same(node, "x"),
        |node| {
            of_matrices(node, "x", |xs| {
                let upper = node.settings.flag("upper");
                let undone = inverse(&half(xs, !upper)?)?;
                if upper { matmul(&undone, &turned(&undone)?) } else { matmul(&turned(&undone)?, &undone) }
            })
        },
    )
    .with(UPPER),
    operation("Solve", SIDES, planned_solution, |node| solution(node, false)),
    operation("SolveTriangular", SIDES, planned_solution, |node| solution(node, true))
        .with(&[("lower", Setting::Flag(false))]),
    operation("LuFactor", X, planned_triangles, both_triangles),
    operation("Qr", X, planned_reflections, qr).with(&[("mode", Setting::Choice(&["reduced", "complete"]))]),
    operation("SVD", X, planned_values, |node| of_matrices(node, "x", singular_values))
        .with(&[("full_matrices", Setting::Flag(true)), ("compute_uv", Setting::Flag(true))]),
    operation(
        "Pinv",
        X,
        |node| {
            let xs = planned_matrices(node, "x")?;
            let Shape(mut axes) = xs.shape.clone();
            if let [.., rows, columns] = axes.as_mut_slice() {
                std::mem::swap(rows, columns);
            }
            Ok(vec![xs.with_shape(Shape(axes))])
        },
        pinv,
    )
    .with(&[("rcond", Setting::Scalar)]),
    operation(
        "MatrixRank",
        X,
        |node| {
            let xs = planned_matrices(node, "x")?;
            one(outer(&xs.shape), Dtype::Int32)
        },
        rank,
    )
    .with(&[("tol", Setting::Scalar)]),
    operation("Lstsq", SIDES, planned_least_squares, least_squares).with(&[("rcond", Setting::Scalar)]),
    operation("Corrcoef", X, planned_correlations, correlations),
];

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{factors, inverse, signed};
    use crate::math::{
        einsum::matmul,
        testing::{assert_differentiable, numbers},
    };

    #[test]
    fn what_is_found_on_the_host_has_derivatives() {
        let shifted = |xs: &Tensor| xs.broadcast_add(&(Tensor::eye(3, DType::F64, &Device::Cpu)? * 3.0)?);
        assert_differentiable("inverse", &[&[2, 3, 3]], |xs| inverse(&shifted(&xs[0])?));
        assert_differentiable("logarithm", &[&[2, 3, 3]], |xs| signed(&shifted(&xs[0])?).map(|(_, log)| log));
        assert_differentiable("factors", &[&[2, 3, 3]], |xs| {
            factors(&shifted(&matmul(&xs[0], &xs[0].transpose(1, 2)?.contiguous()?)?)?)
        });
    }

    #[test]
    fn an_inverse_undoes_its_matrix() {
        let xs = numbers(&[3, 5, 5], 1).to_dtype(DType::F64).unwrap();
        let one = matmul(&inverse(&xs).unwrap(), &xs).unwrap();
        let apart = one.broadcast_sub(&Tensor::eye(5, DType::F64, &Device::Cpu).unwrap()).unwrap();
        assert!(apart.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-10);
        let singular = Tensor::new(&[[1.0, 2.0], [2.0, 4.0]], &Device::Cpu).unwrap();
        assert!(inverse(&singular).unwrap_err().to_string().contains("no inverse"));
    }
}
