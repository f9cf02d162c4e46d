//! Padding masks as programs keep them, and the pairs that attention makes of them.

use candle_core::{Device, Tensor};

use crate::{Failure, dims::Dims, memory::Numbers};

#[derive(Debug, Default)]
pub(crate) enum Mask {
    #[default]
    Absent,
    Bytes(Dims, Vec<u8>),
    Tensor(Tensor),
}

/// Batch, steps, and a byte for each of them.
type OfSteps<'a> = (usize, usize, &'a [u8]);

impl Mask {
    /// A tensor's numbers become bytes.
    pub(crate) fn as_bytes(&mut self) -> Result<(), Failure> {
        if let Self::Tensor(tensor) = self {
            let bytes = tensor.ne(&tensor.zeros_like()?)?.flatten_all()?.to_vec1::<u8>()?;
            *self = Self::Bytes(Dims::new(tensor.dims())?, bytes);
        }
        Ok(())
    }

    /// As the model takes it.
    pub(crate) fn tensor(&self) -> candle_core::Result<Option<Tensor>> {
        Ok(match self {
            Self::Absent => None,
            Self::Bytes(dims, bytes) => Some(Tensor::from_slice(bytes, dims.as_slice(), &Device::Cpu)?),
            Self::Tensor(tensor) => Some(tensor.clone()),
        })
    }

    /// As a mask of steps; none where there is no mask.
    fn of_steps(&self) -> Result<Option<OfSteps<'_>>, Failure> {
        match self {
            Self::Absent => Ok(None),
            Self::Bytes(dims, bytes) => match dims.as_slice() {
                [batch, steps] => Ok(Some((*batch, *steps, bytes))),
                _ => Err(Failure::unforeseen("a mask of other axes than batch and time")),
            },
            Self::Tensor(_) => Err(Failure::unforeseen("a mask that is a tensor")),
        }
    }
}

/// `(batch, queries, keys)`, 1 for each pair of query and key that counts, else 0, of the masks of query, value and key as bytes.
/// Where no mask says how many queries or keys there are, one number stands for all.
///
/// # Errors
/// Where masks do not fit together.
pub(crate) fn pairs_of<'a>(
    masks: impl Iterator<Item = Option<&'a Mask>>,
    numbers: &mut Numbers,
) -> Result<Dims, Failure> {
    let found = masks.map(|mask| mask.map_or(Ok(None), Mask::of_steps)).collect::<Result<Vec<_>, _>>()?;
    let (of_query, of_keys) = found.split_first().ok_or_else(|| Failure::unforeseen("no masks"))?;
    let (batch, _, _) = found.iter().flatten().next().copied().unwrap_or((1, 1, &[]));
    let queries = of_query.map_or(1, |(_, steps, _)| steps);
    let keys = of_keys.iter().flatten().map(|(_, steps, _)| *steps).max().unwrap_or(1);
    let fits = |expected: usize| move |(rows, steps, _): &OfSteps<'_>| *rows == batch && *steps == expected;
    if !of_query.iter().all(fits(queries)) || !of_keys.iter().flatten().all(fits(keys)) {
        return Err(Failure::unforeseen("masks of other sizes"));
    }
    let count = batch * queries * keys;
    numbers.grow(count);
    for (at, number) in numbers[..count].iter_mut().enumerate() {
        let (key, query, row) = (at % keys, at / keys % queries, at / (keys * queries));
        let counts = |steps: usize, step: usize| move |(_, _, mask): &OfSteps<'_>| mask[row * steps + step] != 0;
        let both = of_query.iter().all(counts(queries, query)) && of_keys.iter().flatten().all(counts(keys, key));
        *number = f32::from(u8::from(both));
    }
    Dims::new(&[batch, queries, keys])
}
