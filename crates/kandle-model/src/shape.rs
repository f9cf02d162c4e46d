use std::fmt;

use kandle_format::Dtype;

/// The axes of a tensor, batch first; an axis whose size only a call knows is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(pub Vec<Option<usize>>);

impl Shape {
    /// The number of axes, the batch axis included.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The size of the last axis, where there is one and it is known.
    #[must_use]
    pub fn last(&self) -> Option<usize> {
        self.0.last().copied().flatten()
    }

    /// The same shape with `size` as its last axis.
    #[must_use]
    pub fn with_last(mut self, size: Option<usize>) -> Self {
        if let Some(last) = self.0.last_mut() {
            *last = size;
        }
        self
    }

    /// The product of all axes but the batch axis; `None` where one is unknown or the product overflows.
    #[must_use]
    pub fn features(&self) -> Option<usize> {
        self.0.iter().skip(1).try_fold(1_usize, |product, axis| product.checked_mul((*axis)?))
    }
}

/// As Keras prints it: `(None, 3, 128)`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> =
            self.0.iter().map(|axis| axis.map_or_else(|| "None".to_owned(), |axis| axis.to_string())).collect();
        match axes.as_slice() {
            [only] => write!(f, "({only},)"),
            axes => write!(f, "({})", axes.join(", ")),
        }
    }
}

/// What is known of a tensor before there are numbers: its shape and its dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The axes, batch first.
    pub shape: Shape,
    /// Keras's dtype.
    pub dtype: Dtype,
}

impl Spec {
    /// The same dtype with another shape.
    #[must_use]
    pub fn with_shape(&self, shape: Shape) -> Self {
        Self { shape, dtype: self.dtype }
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn a_shape_prints_as_keras_prints_it() {
        for (axes, text) in
            [(vec![], "()"), (vec![None], "(None,)"), (vec![None, Some(3), Some(128)], "(None, 3, 128)")]
        {
            assert_eq!(Shape(axes).to_string(), text);
        }
    }

    #[test]
    fn the_features_are_known_if_every_axis_is() {
        assert_eq!(Shape(vec![None, Some(3), Some(4)]).features(), Some(12));
        assert_eq!(Shape(vec![None]).features(), Some(1));
        assert_eq!(Shape(vec![Some(2), None]).features(), None);
        assert_eq!(Shape(vec![None, Some(usize::MAX), Some(2)]).features(), None);
    }
}
