//! Shapes of tensors while a program runs: no memory of their own.

use std::fmt;

use crate::Failure;

/// As many axes as a tensor may have here; a model with more of them runs on candle.
pub(crate) const MOST_AXES: usize = 6;

/// The sizes of the axes of a tensor, batch first.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dims {
    rank: usize,
    sizes: [usize; MOST_AXES],
}

impl Dims {
    /// # Errors
    /// For too many axes.
    pub(crate) fn new(sizes: &[usize]) -> Result<Self, Failure> {
        let mut dims = Self { rank: sizes.len(), ..Self::default() };
        match dims.sizes.get_mut(..sizes.len()) {
            Some(place) => place.copy_from_slice(sizes),
            None => return Err(Failure::unforeseen("a tensor of more than 6 axes")),
        }
        Ok(dims)
    }

    pub(crate) fn as_slice(&self) -> &[usize] {
        self.sizes.get(..self.rank).unwrap_or_default()
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    /// The number of elements.
    pub(crate) fn count(&self) -> usize {
        self.as_slice().iter().product()
    }

    /// The size of the last axis.
    ///
    /// # Errors
    /// For a scalar.
    pub(crate) fn last(&self) -> Result<usize, Failure> {
        self.as_slice().last().copied().ok_or_else(|| Failure::unforeseen("a scalar has no last axis"))
    }

    /// The same with `size` as the last axis.
    pub(crate) fn with_last(mut self, size: usize) -> Self {
        if let Some(last) = self.rank.checked_sub(1).and_then(|last| self.sizes.get_mut(last)) {
            *last = size;
        }
        self
    }

    /// The same with `size` as the first axis.
    pub(crate) fn with_first(mut self, size: usize) -> Self {
        if let Some(first) = self.sizes.get_mut(..self.rank).and_then(<[usize]>::first_mut) {
            *first = size;
        }
        self
    }

    /// The same with one axis more behind.
    ///
    /// # Errors
    /// For too many axes.
    pub(crate) fn and(mut self, size: usize) -> Result<Self, Failure> {
        match self.sizes.get_mut(self.rank) {
            Some(place) => *place = size,
            None => return Err(Failure::unforeseen("a tensor of more than 6 axes")),
        }
        self.rank += 1;
        Ok(self)
    }

    /// Batch, spatial sizes and channels of `(batch, spatial…, channels)`.
    ///
    /// # Errors
    /// Where there are not `axes` spatial axes.
    pub(crate) fn image(&self, axes: usize) -> Result<(usize, &[usize], usize), Failure> {
        match self.as_slice() {
            [batch, spatial @ .., channels] if spatial.len() == axes => Ok((*batch, spatial, *channels)),
            _ => Err(Failure::unforeseen("an image of another rank")),
        }
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
