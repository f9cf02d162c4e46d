//! Group normalisation: the mean and the variance of each sample and group of channels, over all cells.

use rten_simd::{Isa, SimdOp};

use super::{Kernel, Run, map::Map};
use crate::{Failure, dims::Dims, threads::MOVED};

/// Cells whose sums are taken in float32. Sums of these are taken in float64.
const BLOCK: usize = 64;

/// `(xs − mean) / √(variance + epsilon) · gamma + beta` for `(batch, …, channels)`.
#[derive(Debug)]
pub(crate) struct GroupNormalize {
    /// How many groups of channels; none for one each.
    pub(crate) groups: Option<usize>,
    pub(crate) epsilon: f64,
    /// `(channels,)`.
    pub(crate) gamma: Option<Vec<f32>>,
    /// `(channels,)`.
    pub(crate) beta: Option<Vec<f32>>,
    pub(crate) map: Option<Map>,
}

/// For each channel the sum over `cells`, or, with `means`, that of the squares of what they differ by.
struct Sums<'a> {
    cells: &'a [f32],
    means: Option<&'a [f32]>,
    sums: &'a mut [f32],
}

impl SimdOp for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        self.sums.fill(0.0);
        for cell in self.cells.chunks_exact(self.sums.len()) {
            let sums = self.sums.iter_mut().zip(cell);
            match self.means {
                None => sums.for_each(|(sum, x)| *sum += x),
                Some(means) => sums.zip(means).for_each(|((sum, x), mean)| *sum += (x - mean) * (x - mean)),
            }
        }
    }
}

/// Of each channel the mean is taken off, and the rest scaled and shifted.
struct Scaled<'a> {
    cells: &'a mut [f32],
    means: &'a [f32],
    factors: &'a [f32],
    beta: Option<&'a [f32]>,
}

impl SimdOp for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        for cell in self.cells.chunks_exact_mut(self.means.len()) {
            let channels = cell.iter_mut().zip(self.means).zip(self.factors);
            match self.beta {
                None => channels.for_each(|((x, mean), factor)| *x = (*x - mean) * factor),
                Some(beta) => {
                    channels.zip(beta).for_each(|(((x, mean), factor), beta)| *x = (*x - mean) * factor + beta);
                }
            }
        }
    }
}

/// Puts to each channel what `of` makes of the mean over its group, whose blocks have the sums `partial`, row by row.
fn over_groups(partial: &[f32], groups: usize, count: usize, to: &mut [f32], of: impl Fn(f64) -> f64) {
    let channels = to.len();
    let size = channels / groups;
    for (group, to) in to.chunks_exact_mut(size).enumerate() {
        let blocks = partial.chunks_exact(channels).flat_map(|block| &block[group * size..][..size]);
        let sum: f64 = blocks.map(|sum| f64::from(*sum)).sum();
        to.fill(of(sum / count as f64) as f32);
    }
}

impl GroupNormalize {
    /// How many groups so many channels make.
    fn groups_of(&self, channels: usize) -> Result<usize, Failure> {
        let groups = self.groups.unwrap_or(channels);
        match groups > 0 && channels.is_multiple_of(groups) {
            true => Ok(groups),
            false => Err(Failure::unforeseen("channels that cannot be divided into groups")),
        }
    }
}

impl Kernel for GroupNormalize {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        let channels = dims.last()?;
        let fits = |weight: &Option<Vec<f32>>| weight.as_ref().is_none_or(|weight| weight.len() == channels);
        if dims.rank() < 2 || !fits(&self.gamma) || !fits(&self.beta) {
            return Err(Failure::unforeseen("another number of channels"));
        }
        self.groups_of(channels)?;
        Ok(dims)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let (batch, channels) = (run.dims.as_slice()[0], run.dims.last()?);
        let from = if run.in_place { None } else { Some(run.floats(0)?) };
        if run.out.is_empty() {
            return Ok(());
        }
        let groups = self.groups_of(channels)?;
        let cells = run.out.len() / batch / channels;
        let (blocks, count) = (cells.div_ceil(BLOCK), cells * (channels / groups));
        let of_sample = cells * channels;
        let [partial, means, factors] =
            run.scratch.buffers([batch * blocks * channels, batch * channels, batch * channels]);
        let operations = MOVED * run.out.len();
        let sums = |partial: &mut [f32], read: &[f32], means: Option<&[f32]>| {
            run.threads.rows(partial, channels, 1, operations, |range, partial| {
                for (number, sums) in range.zip(partial.chunks_exact_mut(channels)) {
                    let (sample, block) = (number / blocks, number % blocks);
                    let cells = &read[sample * of_sample..][..of_sample];
                    let cells = &cells[block * BLOCK * channels..((block + 1) * BLOCK * channels).min(of_sample)];
                    let means = means.map(|means| &means[sample * channels..][..channels]);
                    Sums { cells, means, sums }.dispatch();
                }
            });
        };
        let samples = |partial: &[f32], to: &mut [f32], of: &dyn Fn(f64) -> f64| {
            for (partial, to) in partial.chunks_exact(blocks * channels).zip(to.chunks_exact_mut(channels)) {
                over_groups(partial, groups, count, to, of);
            }
        };
        sums(partial, from.unwrap_or(run.out), None);
        samples(partial, means, &|mean| mean);
        sums(partial, from.unwrap_or(run.out), Some(means));
        samples(partial, factors, &|variance| 1.0 / (variance + self.epsilon).sqrt());
        if let Some(gamma) = &self.gamma {
            for factors in factors.chunks_exact_mut(channels) {
                factors.iter_mut().zip(gamma).for_each(|(factor, gamma)| *factor *= gamma);
            }
        }
        let (means, factors, beta) = (&*means, &*factors, self.beta.as_deref());
        run.threads.rows(run.out, channels, 1, operations, |range, mut out| {
            if let Some(from) = from {
                out.copy_from_slice(&from[range.start * channels..range.end * channels]);
            }
            let mut cell = range.start;
            while cell < range.end {
                // As many as are of one sample.
                let (sample, end) = (cell / cells, ((cell / cells + 1) * cells).min(range.end));
                let (these, rest) = out.split_at_mut((end - cell) * channels);
                let of = |all| -> &[f32] { &<[f32]>::as_ref(all)[sample * channels..][..channels] };
                Scaled { cells: these, means: of(means), factors: of(factors), beta }.dispatch();
                if let Some(map) = self.map {
                    map.apply(these);
                }
                (out, cell) = (rest, end);
            }
        });
        Ok(())
    }

    fn works_in_place(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        [&self.gamma, &self.beta].into_iter().flatten().map(Vec::len).sum::<usize>() * size_of::<f32>()
    }
}
