//! `keras.layers.ContrastLimitedAdaptiveHistogramEqualization`: each tile's histogram made even, no bin counting more than
//! the limit, and blended between tiles.
//!
//! Shapes: any images; the same dtype comes out. Pixels are whole numbers from 0 to 255 to it: what a pixel becomes depends
//! on which of the 256 it is, and no gradient passes.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/clahe.py. All is float32, in Keras's order.

use candle_core::{DType, Tensor, bail};
use kandle_format::{Dtype, Problem, json};

use crate::{
    Call, Fields, Given, KerasLayer, Spec, Value,
    numeric::{cast, storage},
};

use super::{Common, Takes, batched, unbatched};

const BINS: usize = 256;

#[derive(Debug)]
pub(in super::super) struct ContrastLimitedAdaptiveHistogramEqualization {
    common: Common,
    range: [f64; 2],
    clip_limit: f64,
    grid: [usize; 2],
}

impl KerasLayer for ContrastLimitedAdaptiveHistogramEqualization {
    fn read(fields: &mut Fields<'_>) -> Self {
        let takes = Takes { dicts: true, boxes: false, labels: false };
        let (range, clip_limit) = (value_range(fields), fields.number("clip_limit", 4.0));
        let grid = match fields.sizes("tile_grid_size", 2, 8).as_slice() {
            [rows, columns] => [*rows, *columns],
            _ => [8, 8],
        };
        Self { common: Common::read(fields, takes), range, clip_limit, grid }
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        self.common.output(given, |input| Ok(input.clone()), |input| Ok(input.clone()))
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        self.common.forward(call, |input| self.equalized(input), |input| Ok(input.clone()))
    }

    fn casts_itself(&self) -> bool {
        true
    }
}

impl ContrastLimitedAdaptiveHistogramEqualization {
    fn equalized(&self, input: &Value) -> candle_core::Result<Value> {
        let images = batched(&input.tensor, self.common.channels_first)?;
        let (batch, height, width, channels) = images.dims4()?;
        let mut pixels = images.to_dtype(DType::F32)?.permute((0, 3, 1, 2))?.flatten_all()?.to_vec1::<f32>()?;
        let [low, high] = self.range.map(|end| end as f32);
        let whole = (low, high) == (0.0, 255.0);
        if !whole {
            pixels.iter_mut().for_each(|pixel| *pixel = (*pixel - low) / (high - low) * 255.0 + 0.0);
        }
        // What TensorFlow casts to int32 here may be anything.
        if let Some(pixel) = pixels.iter().find(|pixel| !(-2_147_483_648.0..2_147_483_648.0).contains(*pixel)) {
            bail!("a pixel of {pixel} is in no histogram")
        }
        let tiles = Tiles::new(height, width, self.grid)?;
        let mut ys = Vec::new();
        for plane in pixels.chunks_exact((height * width).max(1)) {
            // Truncated, and beyond 0 and 255 those.
            let levels: Vec<u8> = plane.iter().map(|pixel| *pixel as u8).collect();
            ys.extend(tiles.equalized(&levels, self.clip_limit));
        }
        if !whole {
            ys.iter_mut().for_each(|y| *y = (*y - 0.0) / 255.0 * (high - low) + low);
        }
        let ys = Tensor::from_vec(ys, (batch, channels, height, width), &candle_core::Device::Cpu)?;
        let ys = ys.permute((0, 2, 3, 1))?.contiguous()?.to_device(input.tensor.device())?;
        let ys = unbatched(&ys, input.tensor.rank(), self.common.channels_first)?;
        let ys = Value::new(ys, Dtype::Float32);
        // Keras: integers by truncation.
        if input.dtype.is_float() {
            Ok(input.with_tensor(ys.tensor.to_dtype(storage(input.dtype)?)?))
        } else {
            cast(&ys, input.dtype)
        }
    }
}

/// How an image is cut into tiles; the last ones may reach beyond it, where it is mirrored.
struct Tiles {
    size: [usize; 2],
    tile: [usize; 2],
    grid: [usize; 2],
}

impl Tiles {
    fn new(height: usize, width: usize, grid: [usize; 2]) -> candle_core::Result<Self> {
        let tile = [height.div_ceil(grid[0]), width.div_ceil(grid[1])];
        for (size, (tile, grid)) in [height, width].into_iter().zip(tile.into_iter().zip(grid)) {
            // TensorFlow mirrors each pixel once at most.
            if tile.checked_mul(grid).is_none_or(|padded| padded > 2 * size) {
                bail!("an image of {height} × {width} is too small for {grid} tiles along an axis")
            }
        }
        Ok(Self { size: [height, width], tile, grid })
    }

    /// The level at a place of the mirrored image.
    fn level(&self, levels: &[u8], row: usize, column: usize) -> usize {
        let mirrored = |at: usize, size: usize| if at < size { at } else { 2 * size - 1 - at };
        let [height, width] = self.size;
        levels.get(mirrored(row, height) * width + mirrored(column, width)).copied().map_or(0, usize::from)
    }

    /// What each level becomes in the tile at `row` and `column` of the grid.
    fn table(&self, levels: &[u8], row: usize, column: usize, clip_limit: f64) -> Vec<f32> {
        let [tile_height, tile_width] = self.tile;
        let area = tile_height * tile_width;
        let mut counts = [0.0_f32; BINS];
        for y in row * tile_height..(row + 1) * tile_height {
            for x in column * tile_width..(column + 1) * tile_width {
                if let Some(count) = counts.get_mut(self.level(levels, y, x)) {
                    *count += 1.0;
                }
            }
        }
        if clip_limit > 0.0 {
            let limit = (clip_limit * area as f64 / 256.0) as f32;
            let excess: f32 = counts.iter().map(|count| count - count.clamp(0.0, limit)).sum();
            let each = excess / 256.0;
            counts.iter_mut().for_each(|count| *count = count.clamp(0.0, limit) + each);
        }
        let mut sum = 0.0;
        let sums: Vec<f32> = counts
            .iter()
            .map(|count| {
                sum += count;
                sum
            })
            .collect();
        let least = sums.iter().copied().fold(f32::INFINITY, f32::min);
        let span = area as f32 - least;
        let span = if span == 0.0 { 1.0 } else { span };
        sums.into_iter().map(|sum| ((sum - least) * 255.0 / span).clamp(0.0, 255.0)).collect()
    }

    fn equalized(&self, levels: &[u8], clip_limit: f64) -> Vec<f32> {
        let [rows, columns] = self.grid;
        let tables: Vec<Vec<f32>> =
            (0..rows * columns).map(|tile| self.table(levels, tile / columns, tile % columns, clip_limit)).collect();
        let value = |row: usize, column: usize, level: usize| {
            tables.get(row * columns + column).and_then(|table| table.get(level)).copied().unwrap_or(0.0)
        };
        let [height, width] = self.size;
        let down: Vec<Between> = (0..height).map(|y| Between::new(y, self.tile[0], rows)).collect();
        let across: Vec<Between> = (0..width).map(|x| Between::new(x, self.tile[1], columns)).collect();
        let mut ys = Vec::with_capacity(levels.len());
        for (y, vertical) in down.iter().enumerate() {
            for (x, horizontal) in across.iter().enumerate() {
                let level = self.level(levels, y, x);
                let (wy, wx) = (vertical.weight, horizontal.weight);
                let row = |row: usize| {
                    value(row, horizontal.first, level) * (1.0 - wx) + value(row, horizontal.second, level) * wx
                };
                ys.push(row(vertical.first) * (1.0 - wy) + row(vertical.second) * wy);
            }
        }
        ys
    }
}

/// The two tiles a pixel lies between, and how near it is to the second.
struct Between {
    first: usize,
    second: usize,
    weight: f32,
}

impl Between {
    fn new(at: usize, tile: usize, tiles: usize) -> Self {
        let place = (at as f32 - tile as f32 / 2.0) / tile as f32 + 1.0;
        let below = place.floor();
        // Keras: the first and the last tile stand once more around the grid.
        let of_grid = |place: f32| (place.max(1.0) as usize - 1).min(tiles - 1);
        Self { first: of_grid(below), second: of_grid(below + 1.0), weight: place - below }
    }
}

/// The setting `value_range`: two numbers.
pub(super) fn value_range(fields: &mut Fields<'_>) -> [f64; 2] {
    let Some(value) = fields.take("value_range") else { return [0.0, 255.0] };
    let numbers = value.as_array().map(|items| items.iter().filter_map(json::number).collect::<Vec<f64>>());
    match numbers.as_deref() {
        Some([low, high]) => [*low, *high],
        _ => {
            fields.invalid("value_range", value, "two numbers");
            [0.0, 255.0]
        }
    }
}
