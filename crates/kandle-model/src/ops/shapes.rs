//! Shapes: broadcasting, axes and reductions, where some sizes are not known.
//!
//! Source: keras/src/ops/operation_utils.py.

use candle_core::bail;
use kandle_format::Problem;

use super::invalid;
use crate::Shape;

/// The shape that `a` and `b` are stretched to together, by numpy's rules.
///
/// Keras: an unknown size meets a known one other than 1 and is taken to be it.
pub(crate) fn broadcast(Shape(a): &Shape, Shape(b): &Shape) -> Result<Shape, Problem> {
    let rank = a.len().max(b.len());
    let padded = |axes: &[Option<usize>]| [vec![Some(1); rank - axes.len()], axes.to_vec()].concat();
    let joined = |(a, b): (Option<usize>, Option<usize>)| match (a, b) {
        (Some(1), other) | (other, Some(1)) => Ok(other),
        (None, other) | (other, None) => Ok(other),
        (Some(one), Some(other)) if one == other => Ok(Some(one)),
        (Some(one), Some(other)) => Err((one, other)),
    };
    padded(a).into_iter().zip(padded(b)).map(joined).collect::<Result<Vec<_>, _>>().map(Shape).map_err(|_| {
        invalid(format!("operands of shapes {} and {} do not broadcast", Shape(a.clone()), Shape(b.clone())))
    })
}

/// The shape that tensors of `a` and `b` are stretched to together.
pub(crate) fn broadcast_dims(a: &[usize], b: &[usize]) -> candle_core::Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let padded = |axes: &[usize]| [vec![1; rank - axes.len()], axes.to_vec()].concat();
    let mut dims = Vec::with_capacity(rank);
    for (one, other) in padded(a).into_iter().zip(padded(b)) {
        match (one, other) {
            (1, size) | (size, 1) => dims.push(size),
            (one, other) if one == other => dims.push(one),
            _ => bail!("operands of shapes {a:?} and {b:?} do not broadcast"),
        }
    }
    Ok(dims)
}

/// The axis that `axis` means among `rank`, where negative ones count from the last.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let count = i64::try_from(rank).unwrap_or(i64::MAX);
    let found = if axis < 0 { axis.checked_add(count) } else { Some(axis) };
    found
        .filter(|found| (0..count).contains(found))
        .and_then(|found| usize::try_from(found).ok())
        .ok_or_else(|| format!("axis {axis} does not exist: there are {rank}"))
}

/// The axes that `axes` mean among `rank`, each once. `None` is all of them.
pub(crate) fn axes(axes: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
    let Some(axes) = axes else { return Ok((0..rank).collect()) };
    let mut found: Vec<usize> = axes.iter().map(|one| axis(*one, rank)).collect::<Result<_, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(format!("axes {axes:?} name an axis twice"));
    }
    Ok(found)
}

/// The shape without the axes that are reduced, or with 1 in their place.
pub(crate) fn reduced(Shape(sizes): &Shape, over: &[usize], keepdims: bool) -> Shape {
    let kept = sizes.iter().enumerate().filter_map(|(axis, size)| match over.contains(&axis) {
        true => keepdims.then_some(Some(1)),
        false => Some(*size),
    });
    Shape(kept.collect())
}

/// The number of elements, if every size is known.
pub(crate) fn elements(Shape(sizes): &Shape) -> Option<usize> {
    sizes.iter().try_fold(1_usize, |product, size| product.checked_mul((*size)?))
}

#[cfg(test)]
mod tests {
    use super::{axes, axis, broadcast};
    use crate::Shape;

    #[test]
    fn an_unknown_size_is_taken_to_be_the_known_one() {
        let shape = |axes: &[Option<usize>]| Shape(axes.to_vec());
        let joined = broadcast(&shape(&[None, Some(1), Some(3)]), &shape(&[Some(4), None]));
        assert_eq!(joined.unwrap(), shape(&[None, Some(4), Some(3)]));
        assert!(broadcast(&shape(&[Some(2)]), &shape(&[Some(3)])).is_err());
    }

    #[test]
    fn axes_count_from_either_end() {
        assert_eq!(axis(-1, 3), Ok(2));
        assert!(axis(3, 3).is_err());
        assert!(axis(i64::MIN, 3).is_err());
        assert_eq!(axes(Some(&[-1, 0]), 3), Ok(vec![0, 2]));
        assert!(axes(Some(&[-1, 2]), 3).is_err());
    }
}
