//! Cells at both ends of spatial axes, as cropping and padding have them in their settings.

use kandle_format::json::Value;

use crate::Fields;

/// How many cells before and after an axis.
pub(super) type Margin = (usize, usize);

/// The margins of `axes` spatial axes: one number for all, one pair or number an axis, or for a single axis its pair.
pub(super) fn read(fields: &mut Fields<'_>, key: &'static str, axes: usize, default: Margin) -> Vec<Margin> {
    let Some(value) = fields.take(key) else { return vec![default; axes] };
    let margins = match (value, axes) {
        (Value::Array(_), 1) => margin(value).map(|margin| vec![margin]),
        (Value::Array(items), _) if items.len() == axes => items.iter().map(margin).collect(),
        (Value::Array(_), _) => None,
        (one, _) => margin(one).map(|margin| vec![margin; axes]),
    };
    margins.unwrap_or_else(|| {
        fields.invalid(key, value, "a whole number, or a pair of them for each spatial axis");
        vec![default; axes]
    })
}

fn margin(value: &Value) -> Option<Margin> {
    let cells = |value: &Value| usize::try_from(value.as_u64()?).ok();
    match value {
        Value::Array(pair) => match pair.as_slice() {
            [before, after] => Some((cells(before)?, cells(after)?)),
            _ => None,
        },
        one => cells(one).map(|both| (both, both)),
    }
}

/// The margins of every axis of an image, the batch axis included.
pub(super) fn of_all_axes(spatial: &[Margin], channels_first: bool) -> Vec<Margin> {
    let outer: &[Margin] = if channels_first { &[(0, 0), (0, 0)] } else { &[(0, 0)] };
    let inner: &[Margin] = if channels_first { &[] } else { &[(0, 0)] };
    [outer, spatial, inner].concat()
}
