//! Convolutions of `(batch, spatial…, channels)`: products whose rows are patches, read where they lie.

use kandle_model::primitive::{Geometry, Padding, Window};

use super::{
    Kernel, Run,
    map::Map,
    product::apart,
    tile::{Columns, Line, MOST_ROWS, Packed, Rows, Target, multiply, multiply_by_columns},
};
use crate::{Failure, dims::Dims, memory::Store};

/// With fewer channels than this an image is copied with its padding around it: then all taps along the last axis are one
/// run of numbers.
const NARROW: usize = 32;
/// How many times as large as the image it may become by that.
const MOST_PADDED: usize = 8;

/// A convolution with a constant kernel, packed by group.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// One of `(taps · channels, filters)` for each group.
    pub(crate) kernels: Vec<Packed>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) windows: Vec<Window>,
    pub(crate) placed: Placed,
    /// Whether the last input is added before the map.
    pub(crate) adds: bool,
    pub(crate) map: Option<Map>,
    /// What a tap outside of the image sees.
    pub(crate) zeros: Vec<f32>,
}

/// Three spatial axes: the first ones are of size 1 where there are fewer.
pub(crate) type Three<T> = [T; 3];

/// One window that sees everything of an axis of size 1.
const WHOLE: (usize, Geometry, Window) =
    (1, Geometry { output: 1, before: 0, after: 0 }, Window { kernel: 1, stride: 1, dilation: 1 });

/// Sizes, geometries and windows of three axes.
///
/// # Errors
/// Where a window does not fit.
pub(crate) fn three(
    spatial: &[usize],
    windows: &[Window],
    placed: &Placed,
) -> Result<Three<(usize, Geometry, Window)>, Failure> {
    let mut axes = [WHOLE; 3];
    let skipped = 3_usize.checked_sub(windows.len()).ok_or_else(|| Failure::unforeseen("more than three axes"))?;
    for (number, ((axis, size), window)) in axes[skipped..].iter_mut().zip(spatial).zip(windows).enumerate() {
        let geometry = match placed {
            Placed::By(padding) => window.geometry(*size, *padding),
            Placed::Within(margins) => {
                let (before, after) = margins.get(number).copied().unwrap_or_default();
                let geometry = window.geometry(size + before + after, Padding::Valid);
                geometry.map(|geometry| Geometry { before, after, ..geometry })
            }
        };
        *axis = (*size, geometry.map_err(Failure::told)?, *window);
    }
    Ok(axes)
}

/// Where windows lie.
#[derive(Debug, Clone)]
pub(crate) enum Placed {
    /// As Keras's padding says.
    By(Padding),
    /// Within the axes and so many zeros before and after each.
    Within(Vec<(usize, usize)>),
}

/// `(batch, cells…, channels)` of what comes out.
///
/// # Errors
/// Where a window does not fit.
pub(crate) fn output(dims: Dims, windows: &[Window], placed: &Placed, channels: usize) -> Result<Dims, Failure> {
    let (batch, spatial, _) = dims.image(windows.len())?;
    let axes = three(spatial, windows, placed)?;
    let mut made = Dims::new(&[batch])?;
    for (_, geometry, _) in &axes[3 - windows.len()..] {
        made = made.and(geometry.output)?;
    }
    made.and(channels)
}

impl Convolution {
    /// `kernel` is `(spatial…, channels / groups, filters)`, row-major, and is scaled by `(filters,)`; `inner` the channels of a
    /// group.
    pub(crate) fn new(
        store: &mut Store,
        (kernel, scale, bias): (&[f32], Option<&[f32]>, Option<Vec<f32>>),
        (inner, filters, groups): (usize, usize, usize),
        (windows, placed): (Vec<Window>, Placed),
    ) -> Self {
        let taps: usize = windows.iter().map(|window| window.kernel).product();
        let of_group = filters / groups.max(1);
        let kernels = (0..groups).map(|group| {
            let scale = scale.map(|scale| &scale[group * of_group..][..of_group]);
            let columns = Columns { numbers: &kernel[group * of_group..], count: of_group, stride: filters, scale };
            Packed::new(store, taps * inner, &[columns])
        });
        let kernels = kernels.collect();
        let longest = windows.last().map_or(1, |window| window.kernel) * inner;
        Self { kernels, bias, windows, placed, adds: false, map: None, zeros: vec![0.0; longest] }
    }

    fn taps(&self) -> usize {
        self.windows.iter().map(|window| window.kernel).product()
    }

    fn inner(&self) -> usize {
        self.kernels.first().map_or(0, |kernel| kernel.depth() / self.taps().max(1))
    }

    fn filters(&self) -> usize {
        self.kernels.iter().map(Packed::columns).sum()
    }
}

/// The patches of an image as rows.
pub(crate) struct Patches<'a> {
    image: &'a [f32],
    channels: usize,
    axes: Three<(usize, Geometry, Window)>,
    /// The first channel that is seen, and how many numbers from there on are a run.
    from: usize,
    run: usize,
    /// Whether all taps along the last axis are one run.
    whole_runs: bool,
    /// Whether some windows reach beyond the image.
    pads: bool,
    zeros: &'a [f32],
    count: usize,
    /// How far each tap is from the first, where all are within the image.
    offsets: &'a [usize],
}

/// How many numbers each tap of a window is from the first one, without memory of their own where there are few.
pub(crate) struct Offsets {
    few: [usize; FEW],
    many: Vec<usize>,
    count: usize,
}

const FEW: usize = 128;

impl Offsets {
    /// Of `count` taps, of which `along` lie along the last axis: all of them, or the first of each run.
    pub(crate) fn new(axes: &Three<(usize, Geometry, Window)>, channels: usize, along: usize, count: usize) -> Self {
        let mut offsets = Self { few: [0; FEW], many: vec![0; if count > FEW { count } else { 0 }], count };
        let [(_, _, z), (height, _, y), (width, _, x)] = *axes;
        let all = if count > FEW { offsets.many.as_mut_slice() } else { &mut offsets.few[..count] };
        for (tap, offset) in all.iter_mut().enumerate() {
            let (dx, dy, dz) = (tap % along, tap / along % y.kernel, tap / along / y.kernel);
            *offset = ((dz * z.dilation * height + dy * y.dilation) * width + dx * x.dilation) * channels;
        }
        offsets
    }

    pub(crate) fn all(&self) -> &[usize] {
        if self.count > FEW { &self.many } else { &self.few[..self.count] }
    }
}

/// Cells of a line from which on it is worth tiles of its own.
const LONG: usize = MOST_ROWS / 2;

impl Rows for Patches<'_> {
    const IN_LINES: bool = false;

    fn count(&self) -> usize {
        self.count
    }

    fn taps(&self) -> usize {
        let [a, b, c] = self.axes.map(|(_, _, window)| window.kernel);
        if self.whole_runs { a * b } else { a * b * c }
    }

    fn run(&self) -> usize {
        self.run
    }

    fn line(&self, first: usize) -> Option<Line<'_>> {
        let [(depth, of_depth, z_window), (height, of_height, y_window), (width, of_width, x_window)] = self.axes;
        if self.pads || of_width.output < LONG {
            return None;
        }
        let (x, rest) = (first % of_width.output, first / of_width.output);
        let (y, rest) = (rest % of_height.output, rest / of_height.output);
        let (z, batch) = (rest % of_depth.output, rest / of_depth.output);
        let line = ((batch * depth + z * z_window.stride) * height + y * y_window.stride) * width;
        let numbers = self.image.get((line + x * x_window.stride) * self.channels + self.from..)?;
        Some(Line::new(numbers, of_width.output - x, x_window.stride * self.channels, self.offsets))
    }

    fn find<'a>(&'a self, first: usize, rows: usize, places: &mut [&'a [f32]]) {
        let [(depth, of_depth, z_window), (height, of_height, y_window), (width, of_width, x_window)] = self.axes;
        let mut x = first % of_width.output;
        let rest = first / of_width.output;
        let mut y = rest % of_height.output;
        let rest = rest / of_height.output;
        let (mut z, mut batch) = (rest % of_depth.output, rest / of_depth.output);
        let along = if self.whole_runs { 1 } else { x_window.kernel };
        for row in 0..rows {
            let (z0, y0, x0) = (
                (z * z_window.stride).wrapping_sub(of_depth.before),
                (y * y_window.stride).wrapping_sub(of_height.before),
                (x * x_window.stride).wrapping_sub(of_width.before),
            );
            // A tap before the image is beyond it once it has wrapped around.
            let within = |from: usize, window: Window, size: usize| {
                from < size && from + (window.kernel - 1) * window.dilation < size
            };
            if within(x0, x_window, width) && within(y0, y_window, height) && within(z0, z_window, depth) {
                let from = (((batch * depth + z0) * height + y0) * width + x0) * self.channels + self.from;
                for (tap, offset) in self.offsets.iter().enumerate() {
                    places[tap * rows + row] = &self.image[from + offset..from + offset + self.run];
                }
            } else {
                let mut tap = row;
                for dz in 0..z_window.kernel {
                    let at_z = z0.wrapping_add(dz * z_window.dilation);
                    for dy in 0..y_window.kernel {
                        let at_y = y0.wrapping_add(dy * y_window.dilation);
                        let inside = at_z < depth && at_y < height;
                        let line = ((batch * depth + at_z.min(depth)) * height + at_y.min(height)) * width;
                        for dx in 0..along {
                            let at_x = x0.wrapping_add(dx * x_window.dilation);
                            places[tap] = if inside && at_x < width {
                                let from = (line + at_x) * self.channels + self.from;
                                &self.image[from..from + self.run]
                            } else {
                                &self.zeros[..self.run]
                            };
                            tap += rows;
                        }
                    }
                }
            }
            x += 1;
            if x == of_width.output {
                (x, y) = (0, y + 1);
                if y == of_height.output {
                    (y, z) = (0, z + 1);
                    if z == of_depth.output {
                        (z, batch) = (0, batch + 1);
                    }
                }
            }
        }
    }
}

/// `image` with its padding around it, in `padded`, and the axes without any.
fn padded<'a>(
    image: &[f32],
    batch: usize,
    channels: usize,
    axes: &mut Three<(usize, Geometry, Window)>,
    padded: &'a mut [f32],
) -> &'a [f32] {
    let sizes = axes.map(|(size, geometry, _)| (size, geometry.before, size + geometry.before + geometry.after));
    let [(depth, front, deep), (height, above, high), (width, left, wide)] = sizes;
    padded.fill(0.0);
    for of_batch in 0..batch {
        for z in 0..depth {
            for y in 0..height {
                let from = ((of_batch * depth + z) * height + y) * width * channels;
                let to = (((of_batch * deep + z + front) * high + y + above) * wide + left) * channels;
                padded[to..to + width * channels].copy_from_slice(&image[from..from + width * channels]);
            }
        }
    }
    for (size, geometry, _) in axes {
        *size += geometry.before + geometry.after;
        (geometry.before, geometry.after) = (0, 0);
    }
    padded
}

impl Kernel for Convolution {
    fn dims(&self, inputs: &[Dims]) -> Result<Dims, Failure> {
        let dims = super::only(inputs)?;
        if dims.last()? != self.inner() * self.kernels.len() {
            return Err(Failure::unforeseen("another number of channels"));
        }
        super::same_as_added(self.adds, inputs, output(dims, &self.windows, &self.placed, self.filters())?)
    }

    fn run(&self, run: Run<'_>) -> Result<(), Failure> {
        let image = run.floats(0)?;
        let more = if self.adds { Some(run.floats(1)?) } else { None };
        let (batch, spatial, channels) = run.operand(0)?.dims.image(self.windows.len()).map(|(b, s, c)| {
            let mut sizes = [1; 3];
            sizes[..s.len()].copy_from_slice(s);
            (b, (sizes, s.len()), c)
        })?;
        let mut axes = three(&spatial.0[..spatial.1], &self.windows, &self.placed)?;
        let (inner, filters) = (self.inner(), self.filters());
        let count = run.out.len() / filters.max(1);
        let [.., (_, last, along)] = axes;
        let pads = axes.iter().any(|(_, geometry, _)| geometry.before + geometry.after > 0);
        let narrow = self.kernels.len() == 1 && channels < NARROW && along.kernel > 1 && along.dilation == 1;
        let sizes = axes.iter().map(|(size, geometry, _)| size + geometry.before + geometry.after);
        // A window that reaches far beyond the image would ask for much memory.
        let room = sizes.fold(1_usize, usize::saturating_mul).saturating_mul(batch * channels);
        let image = if narrow && last.before + last.after > 0 && pads && room <= MOST_PADDED * image.len() {
            let size = room / (batch * channels).max(1);
            let [buffer] = run.scratch.buffers([batch * size * channels]);
            padded(image, batch, channels, &mut axes, buffer)
        } else {
            image
        };
        let [.., (_, last, _)] = axes;
        let pads = axes.iter().any(|(_, geometry, _)| geometry.before + geometry.after > 0);
        let whole_runs =
            self.kernels.len() == 1 && along.dilation == 1 && last.before + last.after == 0 && along.kernel > 1;
        let length = if whole_runs { along.kernel * channels } else { inner };
        let (relu, map) = apart(self.map);
        let runs = if whole_runs { self.taps() / along.kernel } else { self.taps() };
        let offsets = Offsets::new(&axes, channels, if whole_runs { 1 } else { along.kernel }, runs);
        let offsets = offsets.all();
        let operations = 2 * count * filters * self.taps() * inner;
        let of_group = filters / self.kernels.len().max(1);
        let patches = |group: usize| Patches {
            image,
            channels,
            axes,
            from: group * inner,
            run: length,
            whole_runs,
            pads,
            zeros: &self.zeros,
            count,
            offsets,
        };
        if let [kernel] = self.kernels.as_slice() {
            let target = Target { out: &mut *run.out, stride: filters, bias: self.bias.as_deref(), more, relu };
            if multiply_by_columns(run.threads, &patches(0), kernel, target) {
                map.into_iter().for_each(|map| map.apply(run.out));
                return Ok(());
            }
        }
        run.threads.rows(run.out, filters, MOST_ROWS, operations, |range, out| {
            let step = if map.is_some() || self.kernels.len() > 1 { 4 * MOST_ROWS } else { range.len().max(1) };
            for from in range.clone().step_by(step) {
                let to = (from + step).min(range.end);
                let out = &mut out[(from - range.start) * filters..(to - range.start) * filters];
                let more = more.map(|more| &more[from * filters..to * filters]);
                for (group, kernel) in self.kernels.iter().enumerate() {
                    let first = group * of_group;
                    let target = Target {
                        out: &mut out[first..],
                        stride: filters,
                        bias: self.bias.as_ref().map(|bias| &bias[first..first + of_group]),
                        more: more.map(|more| &more[first..]),
                        relu,
                    };
                    multiply(&patches(group), from..to, kernel, target);
                }
                if let Some(map) = map {
                    map.apply(out);
                }
            }
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        let kernels = self.kernels.iter().map(Packed::bytes).sum::<usize>();
        kernels + self.bias.as_ref().map_or(0, |bias| bias.len() * size_of::<f32>())
    }
}
