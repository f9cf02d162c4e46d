//! The axes of sequences, images and volumes: batch, one to three spatial axes, and channels, which come last or first.

use candle_core::{Result, Tensor, bail};
use kandle_format::Problem;

use crate::{Shape, Spec, layers::cannot};

/// The axes of a planned tensor, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) batch: Option<usize>,
    pub(crate) spatial: Vec<Option<usize>>,
    pub(crate) channels: Option<usize>,
}

impl Image {
    /// Takes apart a shape with `axes` spatial axes.
    pub(crate) fn of(spec: &Spec, axes: usize, channels_first: bool) -> std::result::Result<Self, Problem> {
        let apart = match (channels_first, spec.shape.0.as_slice()) {
            (false, [batch, spatial @ .., channels]) => Some((*batch, spatial, *channels)),
            (true, [batch, channels, spatial @ ..]) => Some((*batch, spatial, *channels)),
            _ => None,
        };
        match apart {
            Some((batch, spatial, channels)) if spatial.len() == axes => {
                Ok(Self { batch, spatial: spatial.to_vec(), channels })
            }
            _ => Err(cannot(format!("expected an input of rank {}, found {}", axes + 2, spec.shape))),
        }
    }

    /// The shape of these axes.
    pub(crate) fn shape(self, channels_first: bool) -> Shape {
        let mut axes = vec![self.batch];
        if channels_first {
            axes.push(self.channels);
        }
        axes.extend(self.spatial);
        if !channels_first {
            axes.push(self.channels);
        }
        Shape(axes)
    }
}

/// `xs` with its channels last.
pub(crate) fn to_channels_last(xs: &Tensor, channels_first: bool) -> Result<Tensor> {
    if !channels_first {
        return Ok(xs.clone());
    }
    match xs.rank() {
        0..=2 => bail!("expected batch, channels and spatial axes, found {:?}", xs.dims()),
        rank => xs.permute([0].into_iter().chain(2..rank).chain([1]).collect::<Vec<usize>>())?.contiguous(),
    }
}

/// `ys`, which has its channels last, with them first where Keras has them there.
pub(crate) fn from_channels_last(ys: &Tensor, channels_first: bool) -> Result<Tensor> {
    if !channels_first {
        return Ok(ys.clone());
    }
    match ys.rank() {
        0..=2 => bail!("expected batch, spatial axes and channels, found {:?}", ys.dims()),
        rank => ys.permute([0, rank - 1].into_iter().chain(1..rank - 1).collect::<Vec<usize>>())?.contiguous(),
    }
}

/// `xs` with each cell of `axis` `times` times in a row.
pub(crate) fn repeat(xs: &Tensor, axis: usize, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(xs.clone());
    }
    if xs.dims().iter().try_fold(times, |product, size| product.checked_mul(*size)).is_none() {
        bail!("{:?} repeated {times} times is too large", xs.dims());
    }
    let (mut wide, mut long) = (xs.dims().to_vec(), xs.dims().to_vec());
    wide.insert(axis + 1, times);
    if let Some(size) = long.get_mut(axis) {
        *size *= times;
    }
    xs.unsqueeze(axis + 1)?.broadcast_as(wide)?.contiguous()?.reshape(long)
}
