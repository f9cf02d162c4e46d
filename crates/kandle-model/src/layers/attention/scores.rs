//! What attention layers share: masks of scores, and projections to heads.

use candle_core::{Device, Result, Tensor, bail};

use crate::{
    Policy, activation,
    numeric::{constant_like, rounded, wide},
};

/// 1 where both masks are, broadcast.
pub(super) fn both(a: Option<Tensor>, b: &Tensor) -> Result<Tensor> {
    match a {
        Some(a) => a.broadcast_mul(b),
        None => Ok(b.clone()),
    }
}

/// A mask as 0 and 1.
pub(super) fn truth(mask: &Tensor) -> Result<Tensor> {
    mask.ne(&mask.zeros_like()?)
}

/// The mask `(1, rows, columns)` of the pairs for which `allowed` holds.
fn pairs(rows: usize, columns: usize, device: &Device, allowed: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let allowed = &allowed;
    let flags = (0..rows).flat_map(|row| (0..columns).map(move |column| u8::from(allowed(row, column))));
    Tensor::from_vec(flags.collect::<Vec<u8>>(), (1, rows, columns), device)
}

/// Each step sees itself and those before it.
pub(super) fn causal(rows: usize, columns: usize, device: &Device) -> Result<Tensor> {
    pairs(rows, columns, device, |row, column| column <= row)
}

/// Each step sees those less than `window` steps away.
pub(super) fn sliding(rows: usize, columns: usize, window: usize, device: &Device) -> Result<Tensor> {
    pairs(rows, columns, device, |row, column| row.abs_diff(column) < window)
}

/// A mask with axes of size 1 before its last `kept`, until it has `rank` axes.
pub(super) fn expanded(mask: &Tensor, kept: usize, rank: usize) -> Result<Tensor> {
    let mut shape = mask.dims().to_vec();
    let missing = rank.saturating_sub(shape.len());
    // Keras: expand_dims at −(kept + 1), which is counted among the axes after it was added.
    let Some(at) = shape.len().checked_sub(kept).or(if missing == 0 { Some(0) } else { None }) else {
        bail!("expected a mask of at least {kept} axes, found {:?}", mask.dims())
    };
    shape.splice(at..at, std::iter::repeat_n(1, missing));
    mask.reshape(shape)
}

/// The softmax along the last axis.
pub(super) fn softmax(scores: &Tensor, policy: &Policy) -> Result<Tensor> {
    rounded(&wide(scores, |scores| activation::softmax(scores, scores.rank().saturating_sub(1)))?, policy)
}

/// `scores` where `mask` is 1, else `number`.
pub(super) fn filled(scores: &Tensor, mask: &Tensor, number: f64) -> Result<Tensor> {
    let mask = mask.broadcast_as(scores.shape())?.contiguous()?;
    mask.where_cond(scores, &constant_like(scores, number)?)
}

/// The products of the last `bound` axes of xs with the first of the kernel, and the bias.
pub(super) fn project(
    xs: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    bound: usize,
    policy: &Policy,
) -> Result<Tensor> {
    let outer = xs.dims().get(..xs.rank().saturating_sub(bound)).unwrap_or_default();
    let (summed, made) = kernel.dims().split_at_checked(bound).unwrap_or_default();
    if xs.dims().get(outer.len()..) != Some(summed) {
        bail!("an input of {:?} does not fit a kernel of {:?}", xs.dims(), kernel.dims())
    }
    let (rows, inner, columns): (usize, usize, usize) =
        (outer.iter().product(), summed.iter().product(), made.iter().product());
    let kernel = kernel.reshape((inner, columns))?;
    let mut ys = rounded(&xs.contiguous()?.reshape((rows, inner))?.matmul(&kernel)?, policy)?;
    if let Some(bias) = bias {
        ys = rounded(&ys.broadcast_add(&bias.reshape((1, columns))?)?, policy)?;
    }
    ys.reshape(outer.iter().chain(made).copied().collect::<Vec<usize>>())
}

/// `1 / √size` as the layer multiplies with it.
pub(super) fn scaled(xs: &Tensor, size: usize, policy: &Policy) -> Result<Tensor> {
    let scale = 1.0 / f64::from(u32::try_from(size)?).sqrt();
    let scale = rounded(&Tensor::full(scale, (), xs.device())?.to_dtype(xs.dtype())?, policy)?;
    rounded(&xs.broadcast_mul(&scale)?, policy)
}
