//! Bounding boxes in Keras's formats, and what becomes of them when their images are resized.
//!
//! Source: keras/src/layers/preprocessing/image_preprocessing/bounding_boxes/bounding_box.py and resizing.py.

use candle_core::{Result, Tensor, bail};
use kandle_format::Dtype;

use super::resizing::Fit;
use crate::{Fields, Value, activation::clip};

/// How the four numbers of a box are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Corners {
    Xyxy,
    Yxyx,
    Xywh,
    CenterXywh,
    CenterYxhw,
}

/// A format of boxes; a relative one counts in heights and widths of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    corners: Corners,
    relative: bool,
}

impl Format {
    /// The setting `bounding_box_format`; capitals do not matter.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let value = fields.take("bounding_box_format")?;
        let name = value.as_str().map(str::to_lowercase).unwrap_or_default();
        let (relative, corners) = match name.strip_prefix("rel_") {
            Some(name) => (true, name),
            None => (false, name.as_str()),
        };
        let corners = match (corners, relative) {
            ("xyxy", _) => Corners::Xyxy,
            ("yxyx", _) => Corners::Yxyx,
            ("xywh", _) => Corners::Xywh,
            ("center_xywh", _) => Corners::CenterXywh,
            ("center_yxhw", false) => Corners::CenterYxhw,
            _ => {
                let expected = "xyxy, yxyx, xywh or center_xywh, or one of these after rel_, or center_yxhw";
                fields.invalid("bounding_box_format", value, expected);
                return None;
            }
        };
        Some(Self { corners, relative })
    }

    /// Left, top, right and bottom, in pixels, of boxes in an image of `size`.
    fn to_corners(self, boxes: &Tensor, size: [f32; 2]) -> Result<[Tensor; 4]> {
        let [a, b, c, d] = columns(boxes)?;
        let around = |centre: Tensor, length: &Tensor| -> Result<[Tensor; 2]> {
            let half = (length / 2.0)?;
            Ok([(&centre - &half)?, (&centre + &half)?])
        };
        let [x1, y1, x2, y2] = match self.corners {
            Corners::Xyxy => [a, b, c, d],
            Corners::Yxyx => [b, a, d, c],
            Corners::Xywh => [a.clone(), b.clone(), (a + c)?, (b + d)?],
            Corners::CenterXywh => {
                let ([x1, x2], [y1, y2]) = (around(a, &c)?, around(b, &d)?);
                [x1, y1, x2, y2]
            }
            Corners::CenterYxhw => {
                let ([y1, y2], [x1, x2]) = (around(a, &c)?, around(b, &d)?);
                [x1, y1, x2, y2]
            }
        };
        if !self.relative {
            return Ok([x1, y1, x2, y2]);
        }
        let [height, width] = size;
        Ok([times(&x1, width)?, times(&y1, height)?, times(&x2, width)?, times(&y2, height)?])
    }

    /// The way back.
    fn of_corners(self, [x1, y1, x2, y2]: [Tensor; 4], size: [f32; 2]) -> Result<Tensor> {
        let (w, h) = ((&x2 - &x1)?, (&y2 - &y1)?);
        let centre = |low: &Tensor, length: &Tensor| low + (length / 2.0)?;
        // Each column with whether it counts along the height.
        let [height, width] = [true, false];
        let columns = match self.corners {
            Corners::Xyxy => [(x1, width), (y1, height), (x2, width), (y2, height)],
            Corners::Yxyx => [(y1, height), (x1, width), (y2, height), (x2, width)],
            Corners::Xywh => [(x1, width), (y1, height), (w, width), (h, height)],
            Corners::CenterXywh => [(centre(&x1, &w)?, width), (centre(&y1, &h)?, height), (w, width), (h, height)],
            Corners::CenterYxhw => [(centre(&y1, &h)?, height), (centre(&x1, &w)?, width), (h, height), (w, width)],
        };
        let scaled = |(column, vertical): (Tensor, bool)| {
            let [of_height, of_width] = size;
            let over = if vertical { of_height } else { of_width };
            if self.relative { column.broadcast_div(&number(&column, over)?) } else { Ok(column) }
        };
        let columns = columns.into_iter().map(scaled).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&columns, columns.first().map_or(0, |column| column.rank() - 1))
    }
}

/// Boxes, and which of them have an area.
pub(super) struct Moved {
    /// `(…, 4)`.
    pub(super) boxes: Tensor,
    /// `(…)`, U8.
    has_area: Tensor,
}

impl Moved {
    fn new(boxes: Tensor, corners: &[Tensor; 4]) -> Result<Self> {
        let [x1, y1, x2, y2] = corners;
        let area = ((x2 - x1)? * (y2 - y1)?)?;
        Ok(Self { boxes, has_area: area.gt(&area.zeros_like()?)?.squeeze(area.rank() - 1)? })
    }

    /// The labels of the boxes. Keras: −1 where a box has no area left.
    pub(super) fn labels(&self, labels: &Value) -> Result<Value> {
        let signed =
            !matches!(labels.dtype, Dtype::Bool | Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64);
        if !signed || labels.tensor.dims() != self.has_area.dims() {
            bail!("labels of boxes: {} of shape {:?} is not supported", labels.dtype, labels.tensor.dims())
        }
        let none =
            Tensor::full(-1.0, labels.tensor.shape(), labels.tensor.device())?.to_dtype(labels.tensor.dtype())?;
        Ok(labels.with_tensor(self.has_area.where_cond(&labels.tensor, &none)?))
    }
}

/// Boxes `(…, 4)` of images of the size `from` (height, width) after the middle of these is cut out, `to` in size, or
/// resized to it where `from` is too small. What lies outside is cut off.
pub(super) fn cropped(boxes: &Tensor, format: Format, from: [usize; 2], to: [usize; 2]) -> Result<Moved> {
    let [from_height, from_width] = from;
    let [height, width] = to;
    let is_cut = from_height >= height && from_width >= width;
    let scaled = |size: usize, by: usize, over: usize| (size as f64 * by as f64 / over as f64) as usize;
    let cut = match is_cut {
        true => to,
        false => [
            scaled(from_width, height, width).min(from_height).max(1),
            scaled(from_height, width, height).min(from_width).max(1),
        ],
    };
    let [cut_height, cut_width] = cut;
    let start = |from: usize, cut: usize| from.saturating_sub(cut) / 2;
    let moved = |place: &Tensor, start: usize, cut: usize, to: usize| -> Result<Tensor> {
        let (low, high) = (start as f32, (start + cut) as f32);
        let place = clip(place, low.into(), high.into())?.broadcast_sub(&number(place, low)?)?;
        let place = match is_cut {
            true => place,
            false => times(&place.broadcast_div(&number(&place, cut as f32)?)?, to as f32)?,
        };
        clip(&place, 0.0, to as f64)
    };
    let (row, column) = (start(from_height, cut_height), start(from_width, cut_width));
    let [x1, y1, x2, y2] = format.to_corners(boxes, from.map(|size| size as f32))?;
    let corners = [
        moved(&x1, column, cut_width, width)?,
        moved(&y1, row, cut_height, height)?,
        moved(&x2, column, cut_width, width)?,
        moved(&y2, row, cut_height, height)?,
    ];
    Moved::new(format.of_corners(corners.clone(), to.map(|size| size as f32))?, &corners)
}

/// Boxes `(…, 4)` of images of the size `from` (height, width) after these are resized to `to`. What lies outside is cut
/// off, and boxes of only 0 or only −1, which stand for none, become 0.
pub(super) fn resized(boxes: &Tensor, format: Format, fit: Fit, from: [usize; 2], to: [usize; 2]) -> Result<Moved> {
    let last = boxes.rank() - 1;
    let all = |same: f64| boxes.eq(&number(boxes, same as f32)?.broadcast_as(boxes.shape())?)?.min_keepdim(last);
    let none = (all(-1.0)? + all(0.0)?)?;
    let [from_height, from_width] = from.map(|size| size as f32);
    let [height, width] = to.map(|size| size as f32);
    // Along x and y: what a place is multiplied with, and what is added.
    let [(scale_x, add_x), (scale_y, add_y)] = match fit {
        Fit::Stretch => [(width / from_width, 0.0), (height / from_height, 0.0)],
        Fit::Pad => {
            let scale = (height / from_height).min(width / from_width);
            let offset = |to: f32, from: f32| ((to - from * scale) / 2.0).floor();
            [(scale, offset(width, from_width)), (scale, offset(height, from_height))]
        }
        Fit::Crop => {
            let (source, target) = (from_width / from_height, width / height);
            let wide = source > target;
            let new_width = if wide { height * source } else { width };
            let new_height = if wide { height } else { width / source };
            let cut = |new: f32, to: f32| -((new - to) / 2.0).floor();
            [(new_width / from_width, cut(new_width, width)), (new_height / from_height, cut(new_height, height))]
        }
    };
    let [x1, y1, x2, y2] = format.to_corners(boxes, [from_height, from_width])?;
    let moved = |place: &Tensor, scale: f32, add: f32, most: f32| -> Result<Tensor> {
        clip(&times(place, scale)?.broadcast_add(&number(place, add)?)?, 0.0, most.into())
    };
    let corners = [
        moved(&x1, scale_x, add_x, width)?,
        moved(&y1, scale_y, add_y, height)?,
        moved(&x2, scale_x, add_x, width)?,
        moved(&y2, scale_y, add_y, height)?,
    ];
    let none = none.ne(&none.zeros_like()?)?;
    let kept = |corner: Tensor| none.where_cond(&corner.zeros_like()?, &corner);
    let [x1, y1, x2, y2] = corners.clone();
    Moved::new(format.of_corners([kept(x1)?, kept(y1)?, kept(x2)?, kept(y2)?], [height, width])?, &corners)
}

fn columns(boxes: &Tensor) -> Result<[Tensor; 4]> {
    let last = boxes.rank().saturating_sub(1);
    let size = boxes.dim(last)?;
    if size != 4 {
        bail!("boxes: expected four numbers each, found {size}")
    }
    let column = |at: usize| boxes.narrow(last, at, 1)?.contiguous();
    Ok([column(0)?, column(1)?, column(2)?, column(3)?])
}

fn number(like: &Tensor, number: f32) -> Result<Tensor> {
    Tensor::new(number, like.device())
}

fn times(xs: &Tensor, by: f32) -> Result<Tensor> {
    xs.broadcast_mul(&number(xs, by)?)
}
