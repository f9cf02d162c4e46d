//! Connectionist temporal classification. Source: `ctc_loss` and `ctc_decode` in keras/src/backend/tensorflow/nn.py,
//! tensorflow/python/ops/ctc_ops.py.

use candle_core::{D, DType, Result, Tensor, bail};
use kandle_format::{Dtype, ErrorKind, Problem};

use super::{Integers, Node, Operation, Setting, floats, invalid, one, operation, result_type, rounded};
use crate::{Shape, Spec, Value};

fn unsupported(what: &str) -> Problem {
    Problem::new(ErrorKind::Unsupported, "", what)
}

fn dtype_of(dtype: Dtype) -> Dtype {
    result_type(&[dtype.into(), Dtype::Float32.into()])
}

fn planned_loss(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let (target, output) = (node.spec("target")?, node.spec("output")?);
    match (target.shape.0.as_slice(), output.shape.0.as_slice()) {
        ([batch, _], [_, _, _]) if output.dtype.is_float() && !target.dtype.is_float() => {
            one(Shape(vec![*batch]), dtype_of(output.dtype))
        }
        _ => Err(invalid(format!("{} of {} for {} of {}", target.shape, target.dtype, output.shape, output.dtype))),
    }
}

/// What stands for the logarithm of 0: far from any other, and still a number.
const NEVER: f64 = -1e300;

/// `log(eᵃ + eᵇ + …)` over the first axis.
fn log_of_sum(xs: &Tensor) -> Result<Tensor> {
    let largest = xs.detach().max_keepdim(0)?;
    xs.broadcast_sub(&largest)?.exp()?.sum(0)?.log()? + largest.squeeze(0)?
}

/// Labels `(what it is called, class)`; of a label that is no class the class behind the last, whose probability is 1.
type Labels<'a> = &'a [(i64, u32)];

/// Minus the logarithm of the probability of the first `length` labels among the steps `(steps, classes)`: of all ways to
/// read them, where a label may last, and blanks may lie between labels, and must between equal ones.
///
/// Keras: ways to read other than all of them count too, at a chance of 1e-307.
fn loss_of(steps: &Tensor, labels: Labels<'_>, length: usize, blank: u32) -> Result<Tensor> {
    let certain = Tensor::zeros((steps.dim(0)?, 1), steps.dtype(), steps.device())?;
    let steps = Tensor::cat(&[steps.clone(), certain], 1)?;
    let states: Vec<u32> = std::iter::once(blank).chain(labels.iter().flat_map(|label| [label.1, blank])).collect();
    let count = states.len();
    let chances = steps.index_select(&Tensor::new(states.as_slice(), steps.device())?, 1)?;
    let never = |count: usize| Tensor::full(NEVER, count, steps.device());
    // From one label to the next that is another.
    let label = |state: usize| labels.get((state - 1) / 2).map(|label| label.0);
    let skip = |state: usize| state % 2 == 1 && state > 1 && label(state) != label(state - 2);
    let skips = (0..count).map(|state| if skip(state) { 0.0 } else { NEVER });
    let skips = Tensor::new(skips.collect::<Vec<f64>>(), steps.device())?;
    let begins = (0..count).map(|state| if state < 2 { 0.0 } else { NEVER }).collect::<Vec<f64>>();
    let mut reached = (chances.get(0)? + Tensor::new(begins, steps.device())?)?;
    for step in 1..chances.dim(0)? {
        let behind = |by: usize| -> Result<Tensor> {
            match count.checked_sub(by).filter(|rest| *rest > 0) {
                Some(rest) => Tensor::cat(&[never(by)?, reached.narrow(0, 0, rest)?], 0),
                None => never(count),
            }
        };
        let ways = Tensor::stack(&[reached.clone(), behind(1)?, (behind(2)? + &skips)?], 0)?;
        // Twice what never happens must not become an infinity.
        let ways = log_of_sum(&ways)?.maximum(&never(count)?)?;
        reached = (chances.get(step)? + ways)?;
    }
    let elsewhere = f64::from(1e-307_f64.ln() as f32);
    let ends = (0..count).map(|state| if state == 2 * length || state + 1 == 2 * length { 0.0 } else { elsewhere });
    log_of_sum(&(reached + Tensor::new(ends.collect::<Vec<f64>>(), steps.device())?)?)?.neg()
}

fn ctc_loss(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (target, output) = (Integers::of(&node.value("target")?)?, node.value("output")?);
    let own = |name: &str| -> Result<Vec<i64>> { Ok(Integers::of(&node.value(name)?)?.numbers) };
    let (of_target, of_output) = (own("target_length")?, own("output_length")?);
    let dtype = dtype_of(output.dtype);
    // Keras: computed in float32, float64 too.
    let scores = floats(&output, Dtype::Float32)?.to_dtype(DType::F64)?;
    let (batch, steps, classes) = scores.dims3()?;
    let largest = scores.detach().max_keepdim(D::Minus1)?;
    let scores = scores.broadcast_sub(&largest)?;
    let chances = scores.broadcast_sub(&scores.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let class_count = i64::try_from(classes)?;
    let blank = node.settings.integer("mask_index").unwrap_or_default();
    let blank = u32::try_from(if blank < 0 { blank + class_count } else { blank })?;
    let width = target.dims.last().copied().unwrap_or_default();
    if of_target.len() != batch || of_output.len() != batch || target.dims.first() != Some(&batch) || width == 0 {
        bail!("{} and {} lengths for {batch} sequences", of_target.len(), of_output.len());
    }
    let mut losses = Vec::new();
    for (index, (row, lengths)) in target.numbers.chunks(width).zip(of_target.iter().zip(&of_output)).enumerate() {
        let within = |length: i64, most: usize| usize::try_from(length).ok().filter(|length| *length <= most);
        let (Some(labels), Some(length)) = (within(*lengths.0, width), within(*lengths.1, steps)) else {
            bail!("lengths {lengths:?} of {width} labels and {steps} steps");
        };
        if length == 0 {
            bail!("a sequence without steps");
        }
        // Keras: the blank becomes class 0, and those before it come after; what a label is called after that counts.
        let first = i64::from(blank);
        let called = |label: i64| if blank > 0 && label < first { label + 1 } else { label };
        let class = |called: i64| match called {
            called if !(0..class_count).contains(&called) => class_count,
            0 => first,
            called if called <= first => called - 1,
            called => called,
        };
        let read = row.iter().map(|label| Ok((called(*label), u32::try_from(class(called(*label)))?)));
        let read = read.collect::<Result<Vec<(i64, u32)>>>()?;
        let loss = loss_of(&chances.get(index)?.narrow(0, 0, length)?.contiguous()?, &read, labels, blank)?;
        if loss.to_scalar::<f64>()? > -NEVER / 2.0 {
            bail!("labels {row:?} that {length} steps have no room for");
        }
        losses.push(loss);
    }
    Ok(vec![rounded(&Tensor::stack(&losses, 0)?.to_dtype(DType::F32)?, dtype)?])
}

fn planned_ctc(node: &Node<'_, Spec>) -> std::result::Result<Vec<Spec>, Problem> {
    let inputs = node.spec("inputs")?;
    if node.settings.text("strategy") != "greedy" {
        return Err(unsupported("strategy = beam_search is not supported (only greedy)"));
    }
    let dtype = dtype_of(inputs.dtype);
    match inputs.shape.0.as_slice() {
        [batch, steps, _] if inputs.dtype.is_float() => Ok(vec![
            Spec { shape: Shape(vec![Some(1), *batch, *steps]), dtype: Dtype::Int32 },
            Spec { shape: Shape(vec![*batch, Some(1)]), dtype },
        ]),
        _ => Err(invalid(format!("expected floats of rank 3, found {} of {}", inputs.shape, inputs.dtype))),
    }
}

/// The best class of every step, without what repeats and without the blank, then -1; and minus the sum of their scores.
fn ctc_decode(node: &Node<'_, Value>) -> Result<Vec<Value>> {
    let (value, lengths) = (node.value("inputs")?, Integers::of(&node.value("sequence_lengths")?)?.numbers);
    let dtype = dtype_of(value.dtype);
    let scores = floats(&value, dtype)?;
    let (batch, steps, classes) = scores.dims3()?;
    let last = i64::try_from(classes)? - 1;
    let blank = node.settings.integer("mask_index").unwrap_or(last);
    let blank = if blank < 0 { blank + last + 1 } else { blank };
    let numbers = scores.to_dtype(DType::F64)?.to_vec3::<f64>()?;
    if lengths.len() != batch || numbers.iter().flatten().flatten().any(|score| score.is_nan()) {
        bail!("{} lengths for {batch} sequences, or NaN among their scores", lengths.len());
    }
    let merged = node.settings.flag("merge_repeated");
    let (mut decoded, mut best) = (Vec::new(), Vec::new());
    for (sequence, length) in numbers.iter().zip(&lengths) {
        let Some(length) = usize::try_from(*length).ok().filter(|length| *length <= steps) else {
            bail!("a sequence of {length} of {steps} steps");
        };
        let (mut row, mut before) = (Vec::new(), -1);
        for (step, scores) in sequence.iter().enumerate() {
            let mut place = (0_i64, f64::NEG_INFINITY);
            for (class, score) in (0_i64..).zip(scores) {
                if *score > place.1 {
                    place = (class, *score);
                }
            }
            let counts = step < length;
            best.push(u32::try_from(place.0)?);
            if counts && place.0 != blank && !(merged && place.0 == before) {
                row.push(place.0);
            }
            before = place.0;
        }
        row.resize(steps, -1);
        decoded.extend(row);
    }
    let best = Tensor::from_vec(best, (batch, steps, 1), scores.device())?;
    let counts: Vec<u8> = lengths
        .iter()
        .flat_map(|length| (0..steps).map(move |step| u8::from(i64::try_from(step).is_ok_and(|step| step < *length))))
        .collect();
    let counts = Tensor::from_vec(counts, (batch, steps), scores.device())?;
    let own = scores.contiguous()?.gather(&best, 2)?.squeeze(2)?;
    let own = counts.where_cond(&own, &own.zeros_like()?)?;
    let sum = crate::numeric::wide(&own, |own| own.sum_keepdim(1)?.neg())?;
    let decoded = Integers { numbers: decoded, dims: vec![1, batch, steps] };
    Ok(vec![decoded.value(Dtype::Int32, scores.device())?, rounded(&sum, dtype)?])
}

pub(super) static OPERATIONS: &[Operation] = &[
    operation("CTCLoss", &["target", "output", "target_length", "output_length"], planned_loss, ctc_loss)
        .with(&[("mask_index", Setting::Integer(0))]),
    operation("CTCDecode", &["inputs", "sequence_lengths"], planned_ctc, ctc_decode).with(&[
        ("strategy", Setting::Choice(&["greedy", "beam_search"])),
        // Greedy decoding looks at one path.
        ("beam_width", Setting::Integer(100)),
        ("top_paths", Setting::Integer(1)),
        ("merge_repeated", Setting::Flag(true)),
        ("mask_index", Setting::IntegerOr(0)),
    ]),
];

#[cfg(test)]
mod tests {
    use super::loss_of;
    use crate::math::testing::assert_differentiable;

    #[test]
    fn every_step_has_its_part_in_the_loss() {
        assert_differentiable("loss", &[&[5, 4]], |steps| {
            loss_of(&steps[0], &[(1, 1), (1, 1), (2, 2)], 3, 0)?.reshape(1)
        });
    }
}
