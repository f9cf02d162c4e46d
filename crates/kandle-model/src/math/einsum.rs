//! Sums of products: `einsum`, `matmul` and `tensordot`, of floats. Source: keras/src/ops/numpy.py, after NumPy.

use std::{collections::BTreeMap, fmt};

use candle_core::{Result, Tensor, bail};

/// The subscripts of `einsum`, read but not yet bound to operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Equation {
    text: String,
    inputs: Vec<Term>,
    /// None where the text has no `->`: then the ellipsis, and every letter that occurs once.
    output: Option<Term>,
}

/// The subscripts of one operand: letters, and more letters after an ellipsis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    before: Vec<char>,
    /// The letters after the ellipsis; none where there is no ellipsis.
    after: Option<Vec<char>>,
}

/// What an axis is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// An axis under the ellipsis, counted from the last.
    Ellipsis(usize),
    Letter(char),
}

/// The labels of each operand's axes, then those of the output.
type Bound = (Vec<Vec<Label>>, Vec<Label>);

impl Equation {
    /// Reads subscripts such as `"bij,bjk->bik"`; spaces mean nothing.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let packed: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (inputs, output) = match packed.split_once("->") {
            Some((inputs, output)) => (inputs, Some(output)),
            None => (packed.as_str(), None),
        };
        let inputs = inputs.split(',').map(Term::parse).collect::<Option<Vec<_>>>();
        let output = output.map(Term::parse);
        match (inputs, output) {
            (Some(inputs), None) => Ok(Self { text: text.to_owned(), inputs, output: None }),
            (Some(inputs), Some(Some(output))) => Ok(Self { text: text.to_owned(), inputs, output: Some(output) }),
            _ => Err(format!("{text:?} is not an equation of letters, commas, ellipses and one \"->\"")),
        }
    }

    /// Names the axes of operands of these ranks.
    fn bind(&self, ranks: &[usize]) -> std::result::Result<Bound, String> {
        if ranks.len() != self.inputs.len() {
            return Err(format!("{self} wants {} operands, found {}", self.inputs.len(), ranks.len()));
        }
        let inputs = self.inputs.iter().zip(ranks).enumerate().map(|(at, (term, rank))| {
            let hidden = rank.checked_sub(term.letters().count());
            match hidden.filter(|hidden| *hidden == 0 || term.after.is_some()) {
                Some(hidden) => Ok(term.labels(hidden)),
                None => Err(format!("{self}: operand {at} has {rank} axes")),
            }
        });
        let inputs = inputs.collect::<std::result::Result<Vec<Vec<Label>>, String>>()?;
        let hidden =
            inputs.iter().map(|labels| labels.iter().filter(|label| matches!(label, Label::Ellipsis(_))).count());
        let hidden = hidden.max().unwrap_or(0);
        let output = match &self.output {
            Some(output) if output.after.is_none() && hidden > 0 => {
                return Err(format!("{self}: the output has no ellipsis for the axes under the ellipsis"));
            }
            Some(output) => output.labels(hidden),
            None => {
                let count = |label: &Label| inputs.iter().flatten().filter(|other| *other == label).count();
                let letters = inputs.iter().flatten().filter(|label| matches!(label, Label::Letter(_)));
                let once: Vec<Label> = letters.copied().filter(|label| count(label) == 1).collect();
                // Keras: NumPy, JAX and the shape that Keras infers sort the letters; Keras's TensorFlow backend renames
                // them first, in the order they occur in, so that "ba" transposes everywhere but there.
                if !once.is_sorted() {
                    return Err(format!("{self}: without \"->\" Keras's backends order the output differently"));
                }
                (0..hidden).rev().map(Label::Ellipsis).chain(once).collect()
            }
        };
        for (at, label) in output.iter().enumerate() {
            if output.iter().skip(at + 1).any(|later| later == label) {
                return Err(format!("{self}: {label} is twice in the output"));
            }
            if !inputs.iter().flatten().any(|known| known == label) {
                return Err(format!("{self}: {label} of the output is in no operand"));
            }
        }
        Ok((inputs, output))
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let letters = |text: &str| {
            text.chars().map(|letter| letter.is_ascii_alphabetic().then_some(letter)).collect::<Option<Vec<char>>>()
        };
        Some(match text.split_once("...") {
            Some((before, after)) => Self { before: letters(before)?, after: Some(letters(after)?) },
            None => Self { before: letters(text)?, after: None },
        })
    }

    fn letters(&self) -> impl Iterator<Item = &char> {
        self.before.iter().chain(self.after.iter().flatten())
    }

    /// The labels, `hidden` of them under the ellipsis.
    fn labels(&self, hidden: usize) -> Vec<Label> {
        let letters = |letters: &[char]| letters.iter().copied().map(Label::Letter).collect::<Vec<Label>>();
        let Some(after) = &self.after else { return letters(&self.before) };
        [letters(&self.before), (0..hidden).rev().map(Label::Ellipsis).collect(), letters(after)].concat()
    }
}

impl fmt::Display for Equation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letter(letter) => write!(f, "{letter}"),
            Self::Ellipsis(_) => f.write_str("the ellipsis"),
        }
    }
}

/// The shape of the result, unknown where an axis is.
///
/// Axes of one letter are of one size (Keras: NumPy stretches an axis of 1 there, TensorFlow refuses it); axes under the
/// ellipsis broadcast.
///
/// # Errors
/// Where Keras would not compute it.
pub(crate) fn shape(
    equation: &Equation,
    operands: &[&[Option<usize>]],
) -> std::result::Result<Vec<Option<usize>>, String> {
    let ranks: Vec<usize> = operands.iter().map(|axes| axes.len()).collect();
    let (inputs, output) = equation.bind(&ranks)?;
    let mut sizes = BTreeMap::new();
    for (labels, axes) in inputs.iter().zip(operands) {
        for (label, axis) in labels.iter().zip(*axes) {
            let known = sizes.entry(*label).or_insert(*axis);
            let stretches = matches!(label, Label::Ellipsis(_));
            *known = match (*known, *axis) {
                (Some(known), Some(axis)) if known == axis || (stretches && axis == 1) => Some(known),
                (Some(1), axis) if stretches => axis,
                (None, Some(1)) if stretches => None,
                (Some(known), Some(axis)) => return Err(format!("{equation}: {label} is {known} and {axis}")),
                (known, axis) => known.or(axis),
            };
        }
    }
    Ok(output.iter().map(|label| sizes.get(label).copied().flatten()).collect())
}

/// The sum of products that `equation` says, of float operands.
///
/// # Errors
/// Where [`shape`] errs, or the operands differ in dtype.
pub(crate) fn einsum(equation: &Equation, operands: &[&Tensor]) -> Result<Tensor> {
    let axes: Vec<Vec<Option<usize>>> =
        operands.iter().map(|operand| operand.dims().iter().copied().map(Some).collect()).collect();
    let axes: Vec<&[Option<usize>]> = axes.iter().map(Vec::as_slice).collect();
    let sizes = shape(equation, &axes).map_err(candle_core::Error::msg)?;
    let ranks: Vec<usize> = operands.iter().map(|operand| operand.rank()).collect();
    let (inputs, output) = equation.bind(&ranks).map_err(candle_core::Error::msg)?;
    let mut terms = Vec::new();
    for (operand, labels) in operands.iter().zip(inputs) {
        let labelled = Labelled { tensor: (*operand).clone(), labels }.with_diagonals()?;
        terms.push(labelled.without_stretched(&output, &sizes)?);
    }
    // Where a label is needed after a term: in the output or in a later term.
    let needed = |terms: &[Labelled], label: &Label| {
        output.contains(label) || terms.iter().any(|term| term.labels.contains(label))
    };
    let mut terms = terms.as_slice();
    let mut product: Option<Labelled> = None;
    while let [term, later @ ..] = terms {
        let others: Vec<Label> = product.iter().flat_map(|product| product.labels.iter().copied()).collect();
        let term = term.summed(|label| needed(later, label) || others.contains(label))?;
        product = Some(match product {
            None => term,
            Some(product) => product.times(&term, |label| needed(later, label))?,
        });
        terms = later;
    }
    match product {
        Some(product) => product.ordered(&output),
        None => bail!("{equation} wants operands"),
    }
}

/// A tensor with the names of its axes.
#[derive(Debug, Clone)]
struct Labelled {
    tensor: Tensor,
    labels: Vec<Label>,
}

impl Labelled {
    /// Where a label occurs twice, only the cells where both axes have the same index.
    fn with_diagonals(self) -> Result<Self> {
        let Self { mut tensor, mut labels } = self;
        let twice = |labels: &[Label]| {
            let pairs = labels.iter().enumerate().flat_map(|(at, label)| {
                labels
                    .iter()
                    .enumerate()
                    .skip(at + 1)
                    .filter(move |(_, other)| *other == label)
                    .map(move |(to, _)| (at, to))
            });
            pairs.into_iter().next()
        };
        while let Some((first, second)) = twice(&labels) {
            let mut order: Vec<usize> = (0..labels.len()).filter(|at| *at != first && *at != second).collect();
            let mut dims: Vec<usize> = Vec::new();
            for axis in &order {
                dims.push(tensor.dim(*axis)?);
            }
            let size = tensor.dim(first)?;
            order.extend([first, second]);
            let rest = dims.len();
            dims.push(size * size);
            let flat = tensor.permute(order)?.contiguous()?.reshape(dims)?;
            tensor = super::window::strided(&flat, rest, 0, size + 1, size)?;
            let label = labels.remove(second);
            labels.remove(first);
            labels.push(label);
        }
        Ok(Self { tensor, labels })
    }

    /// Without the axes of 1 under the ellipsis that another operand stretches: leaving them out broadcasts them.
    fn without_stretched(self, output: &[Label], sizes: &[Option<usize>]) -> Result<Self> {
        let Self { mut tensor, mut labels } = self;
        for (label, size) in output.iter().zip(sizes) {
            let at = labels.iter().position(|known| known == label);
            if let (Label::Ellipsis(_), Some(at)) = (label, at)
                && *size != Some(1)
                && tensor.dim(at)? == 1
            {
                tensor = tensor.squeeze(at)?;
                labels.remove(at);
            }
        }
        Ok(Self { tensor, labels })
    }

    /// The sum over every axis that is not needed.
    fn summed(&self, needed: impl Fn(&Label) -> bool) -> Result<Self> {
        let axes = self.labels.iter().enumerate().filter(|(_, label)| !needed(label));
        let axes: Vec<usize> = axes.map(|(axis, _)| axis).collect();
        if axes.is_empty() {
            return Ok(self.clone());
        }
        let labels = self.labels.iter().copied().filter(needed).collect();
        Ok(Self { tensor: self.tensor.sum(axes)?, labels })
    }

    /// The product of two terms, summed over the labels they share and nobody needs.
    fn times(&self, other: &Self, needed: impl Fn(&Label) -> bool) -> Result<Self> {
        let shared = self.labels.iter().copied().filter(|label| other.labels.contains(label));
        let (batch, summed): (Vec<Label>, Vec<Label>) = shared.partition(|label| needed(label));
        let own = |term: &Self, other: &Self| -> Vec<Label> {
            term.labels.iter().copied().filter(|label| !other.labels.contains(label)).collect()
        };
        let (left, right) = (own(self, other), own(other, self));
        let labels = [batch.as_slice(), &left, &right].concat();
        let sizes = |term: &Self, labels: &[Label]| -> Result<Vec<usize>> {
            let axes = labels.iter().filter_map(|label| term.labels.iter().position(|known| known == label));
            axes.map(|axis| term.tensor.dim(axis)).collect()
        };
        let (rows, columns) = (sizes(self, &left)?, sizes(other, &right)?);
        let dims = [sizes(self, &batch)?.as_slice(), &rows, &columns].concat();
        let count = |labels: &[Label]| Ok::<usize, candle_core::Error>(sizes(self, labels)?.iter().product());
        let (outer, inner) = (count(&batch)?, count(&summed)?);
        let (rows, columns) = (rows.iter().product::<usize>(), columns.iter().product::<usize>());
        let tensor = if summed.is_empty() || (left.is_empty() && right.is_empty()) {
            let left = self.ordered(&[batch.as_slice(), &left, &summed].concat())?;
            let right = other.ordered(&[batch.as_slice(), &right, &summed].concat())?;
            let product =
                left.reshape((outer, rows, 1, inner))?.broadcast_mul(&right.reshape((outer, 1, columns, inner))?)?;
            product.sum(3)?
        } else {
            let left = self.ordered(&[batch.as_slice(), &left, &summed].concat())?.reshape((outer, rows, inner))?;
            let right =
                other.ordered(&[batch.as_slice(), &summed, &right].concat())?.reshape((outer, inner, columns))?;
            left.matmul(&right)?
        };
        Ok(Self { tensor: tensor.reshape(dims)?, labels })
    }

    /// The tensor with its axes in this order.
    fn ordered(&self, labels: &[Label]) -> Result<Tensor> {
        let order: Vec<usize> =
            labels.iter().filter_map(|label| self.labels.iter().position(|known| known == label)).collect();
        self.tensor.permute(order)?.contiguous()
    }
}

/// `numpy.matmul` of floats: the last two axes are multiplied as matrices, those before them broadcast, and a single axis
/// is a row on the left and a column on the right.
///
/// # Errors
/// Where the shapes do not fit together, or one is a scalar.
pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let axes = |tensor: &Tensor| tensor.dims().iter().copied().map(Some).collect::<Vec<Option<usize>>>();
    let dims = matmul_shape(&axes(a), &axes(b)).map_err(candle_core::Error::msg)?;
    let dims: Vec<usize> = dims.into_iter().flatten().collect();
    let a = if a.rank() == 1 { a.unsqueeze(0)? } else { a.clone() }.contiguous()?;
    let b = if b.rank() == 1 { b.unsqueeze(1)? } else { b.clone() }.contiguous()?;
    if b.rank() == 2 {
        // One product instead of one a matrix of the batch.
        let inner = b.dim(0)?;
        let rows = a.dims().iter().rev().skip(1).product::<usize>();
        return a.reshape((rows, inner))?.matmul(&b)?.reshape(dims);
    }
    a.broadcast_matmul(&b)?.reshape(dims)
}

/// The shape of [`matmul`]'s result, unknown where an axis is.
///
/// # Errors
/// Where the shapes do not fit together, or one is a scalar.
pub(crate) fn matmul_shape(
    a: &[Option<usize>],
    b: &[Option<usize>],
) -> std::result::Result<Vec<Option<usize>>, String> {
    let wrong = || format!("{a:?} and {b:?} cannot be multiplied as matrices");
    let (left, row, inner) = match a {
        [] => return Err(wrong()),
        [inner] => (&[][..], None, *inner),
        [batch @ .., row, inner] => (batch, Some(*row), *inner),
    };
    let (right, other, column) = match b {
        [] => return Err(wrong()),
        [inner] => (&[][..], *inner, None),
        [batch @ .., inner, column] => (batch, *inner, Some(*column)),
    };
    if inner.zip(other).is_some_and(|(inner, other)| inner != other) {
        return Err(wrong());
    }
    let rank = left.len().max(right.len());
    let padded = |axes: &[Option<usize>]| [vec![Some(1); rank - axes.len()], axes.to_vec()].concat();
    let batch = padded(left).into_iter().zip(padded(right)).map(|pair| match pair {
        (Some(1), axis) | (axis, Some(1)) => Ok(axis),
        (Some(left), Some(right)) if left != right => Err(wrong()),
        (left, right) => Ok(left.or(right)),
    });
    let batch = batch.collect::<std::result::Result<Vec<_>, String>>()?;
    Ok(batch.into_iter().chain(row).chain(column).collect())
}

/// `numpy.tensordot` of floats: the sum of products over the axes `of_a` of `a` and `of_b` of `b`, pair by pair; what is
/// left is the other axes of `a`, then those of `b`.
///
/// # Errors
/// Where an axis is missing or named twice, or the axes of a pair differ in size.
pub(crate) fn tensordot(a: &Tensor, b: &Tensor, of_a: &[usize], of_b: &[usize]) -> Result<Tensor> {
    let axes = |tensor: &Tensor| tensor.dims().iter().copied().map(Some).collect::<Vec<Option<usize>>>();
    let dims = tensordot_shape(&axes(a), &axes(b), of_a, of_b).map_err(candle_core::Error::msg)?;
    let dims: Vec<usize> = dims.into_iter().flatten().collect();
    let left: Vec<usize> = (0..a.rank()).filter(|axis| !of_a.contains(axis)).collect();
    let right: Vec<usize> = (0..b.rank()).filter(|axis| !of_b.contains(axis)).collect();
    let sizes = |tensor: &Tensor, axes: &[usize]| -> Result<usize> {
        axes.iter().try_fold(1, |product, axis| Ok(product * tensor.dim(*axis)?))
    };
    let (rows, inner, columns) = (sizes(a, &left)?, sizes(a, of_a)?, sizes(b, &right)?);
    let a = a.permute([&left, of_a].concat())?.contiguous()?.reshape((rows, inner))?;
    let b = b.permute([of_b, &right].concat())?.contiguous()?.reshape((inner, columns))?;
    a.matmul(&b)?.reshape(dims)
}

/// The shape of [`tensordot`]'s result, unknown where an axis is.
///
/// # Errors
/// As [`tensordot`].
pub(crate) fn tensordot_shape(
    a: &[Option<usize>],
    b: &[Option<usize>],
    of_a: &[usize],
    of_b: &[usize],
) -> std::result::Result<Vec<Option<usize>>, String> {
    let wrong = || format!("axes {of_a:?} of {a:?} and {of_b:?} of {b:?} cannot be summed over");
    let twice =
        |axes: &[usize]| axes.iter().enumerate().any(|(at, axis)| axes.iter().skip(at + 1).any(|other| other == axis));
    if of_a.len() != of_b.len() || twice(of_a) || twice(of_b) {
        return Err(wrong());
    }
    for (left, right) in of_a.iter().zip(of_b) {
        match (a.get(*left), b.get(*right)) {
            (Some(Some(left)), Some(Some(right))) if left != right => return Err(wrong()),
            (Some(_), Some(_)) => {}
            _ => return Err(wrong()),
        }
    }
    let rest = |axes: &[Option<usize>], without: &[usize]| -> Vec<Option<usize>> {
        axes.iter().enumerate().filter(|(axis, _)| !without.contains(axis)).map(|(_, size)| *size).collect()
    };
    Ok([rest(a, of_a), rest(b, of_b)].concat())
}

#[cfg(test)]
mod tests;
