//! A port by hand before the judge: a closure that runs it, and macros that fail a test with the verdict.

use std::cell::RefCell;

use candle_core::{DType, Device, Result, Tensor};

use crate::array::Array;
use crate::case::Case;
use crate::check::check;
use crate::compare::{Comparison, compare};
use crate::number::Dtype;
use crate::subject::{Failure, Subject, Trace};
use crate::text;
use crate::tolerance::Tolerance;
use crate::verdict::Verdict;

/// A port in a closure: tensors in, in the order of `model.inputs`, tensors out, in that of Keras's outputs.
///
/// Inputs come as candle has them: ids of any integer dtype as I64, bools as U8 of 0 and 1. The closure may record what its
/// layers give, `trace.record("dense", &ys)?`, in Keras's order of axes, and each is then compared. Where the case has a
/// dtype that candle has not (bool, int8, uint16, uint64), or ids of another width, outputs are compared as Keras's.
///
/// ```no_run
/// use kandle_parity::{Case, Port};
/// # struct Linear; impl Linear { fn forward(&self, xs: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> { Ok(xs.clone()) } }
///
/// # let dense = Linear;
/// let port = Port::new(|inputs: &[candle_core::Tensor], trace: &mut kandle_parity::Trace| {
///     let ys = dense.forward(&inputs[0])?;
///     trace.record("dense", &ys)?;
///     Ok(vec![ys])
/// });
/// let verdict = port.check(&Case::open("cases/my_model/ordinary")?);
/// assert!(verdict.is_ok(), "{verdict}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Port<F> {
    run: RefCell<F>,
    case: Option<Case>,
}

impl<F: FnMut(&[Tensor], &mut Trace) -> Result<Vec<Tensor>>> Port<F> {
    /// The port that `run` runs.
    pub fn new(run: F) -> Self {
        Self { run: RefCell::new(run), case: None }
    }

    /// The verdict on the port, compared with `case`.
    ///
    /// A layer that it recorded and the case does not have is a failure, which names those that there are.
    pub fn check(self, case: &Case) -> Verdict {
        let port = Self { case: Some(case.clone()), ..self };
        check(case, case.files.first().map_or("", String::as_str), &port)
    }

    fn called(&self, inputs: &[Array]) -> std::result::Result<(Vec<Array>, Trace), Failure> {
        let inputs = inputs.iter().map(fed).collect::<std::result::Result<Vec<_>, Failure>>()?;
        let mut trace = Trace::default();
        let mut run = self.run.try_borrow_mut()?;
        let outputs = run(&inputs, &mut trace)?;
        let outputs = outputs.iter().map(Array::try_from).collect::<Result<Vec<_>>>()?;
        Ok((outputs, trace))
    }
}

impl<F: FnMut(&[Tensor], &mut Trace) -> Result<Vec<Tensor>>> Subject for Port<F> {
    fn run(&self, inputs: &[Array]) -> std::result::Result<Vec<Array>, Failure> {
        let (outputs, _) = self.called(inputs)?;
        let Some(case) = &self.case else { return Ok(outputs) };
        Ok(outputs.into_iter().enumerate().map(|(i, output)| as_keras(output, case.output(i))).collect())
    }

    fn trace(&self, inputs: &[Array]) -> std::result::Result<Trace, Failure> {
        let (_, noted) = self.called(inputs)?;
        let Some(case) = &self.case else { return Ok(noted) };
        let mut trace = Trace::default();
        for (path, call, made) in noted.iter() {
            let Some(keras) = case.recorded(path, call) else { return Err(unknown(case, path, call).into()) };
            let mut made = made.clone();
            let outputs = made.outputs.into_iter().enumerate();
            made.outputs = outputs.map(|(k, output)| as_keras(output, keras.outputs.get(k))).collect();
            trace.insert(path, call, made);
        }
        Ok(trace)
    }
}

/// An input as candle takes it.
fn fed(array: &Array) -> std::result::Result<Tensor, Failure> {
    if array.dtype() == Dtype::STRING {
        return Err("an input of texts, which no candle tensor holds: implement Subject for the port".into());
    }
    let tensor = array.to_tensor(&Device::Cpu)?;
    let is_number = !matches!(array.dtype(), Dtype::BOOL | Dtype::U8);
    // candle looks ids up by I64 and U32; a negative one would be another as U32.
    Ok(if tensor.dtype().is_int() && is_number { tensor.to_dtype(DType::I64)? } else { tensor })
}

/// What we gave in Keras's dtype, where candle has none such: integers and bools, never floats.
fn as_keras(ours: Array, keras: Option<&Array>) -> Array {
    let is_whole = |dtype: Dtype| !crate::number::is_float(dtype) && dtype != Dtype::STRING;
    match keras.map(Array::dtype) {
        Some(dtype) if dtype != ours.dtype() && is_whole(dtype) && is_whole(ours.dtype()) => {
            ours.clone().with_dtype(dtype).unwrap_or(ours)
        }
        _ => ours,
    }
}

/// A path that the case does not have, or a call of it.
fn unknown(case: &Case, path: &str, call: usize) -> String {
    match case.layers.iter().find(|layer| layer.path == path) {
        Some(layer) => {
            format!("the trace has call {call} of \"{}\", which Keras calls {} times", text::name(path), layer.calls)
        }
        None => {
            let known: Vec<String> = case.layers.iter().map(|layer| text::name(&layer.path)).collect();
            format!(
                "the trace names \"{}\", which is no recorded layer; the case has {}",
                text::name(path),
                known.join(", ")
            )
        }
    }
}

/// A tensor to be compared: candle's, or one that was recorded.
pub trait Comparable {
    /// The tensor as the judge has it.
    ///
    /// # Errors
    /// As [`Array::try_from`].
    fn array(&self) -> Result<Array>;
}

impl Comparable for Array {
    fn array(&self) -> Result<Array> {
        Ok(self.clone())
    }
}

impl Comparable for Tensor {
    fn array(&self) -> Result<Array> {
        Array::try_from(self)
    }
}

/// Compares two tensors, ours and Keras's, and says in full what differs: what [`assert_parity!`](crate::assert_parity) fails
/// with.
///
/// # Errors
/// What differs, in a text of several lines.
pub fn parity(
    ours: &impl Comparable,
    keras: &impl Comparable,
    tolerance: impl FnOnce(&Array) -> Tolerance,
) -> std::result::Result<Comparison, String> {
    let (ours, keras) = match (ours.array(), keras.array()) {
        (Ok(ours), Ok(keras)) => (ours, keras),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    let tolerance = tolerance(&keras);
    let comparison = compare(&ours, &keras, tolerance);
    if comparison.passed() { Ok(comparison) } else { Err(comparison.to_string()) }
}

/// Judges a port by every case in or below `folder`, and says in full what differs: what
/// [`assert_case!`](crate::assert_case) fails with. `explain` may add hints to a verdict, `|_, _| {}` adds none.
///
/// # Errors
/// Cases that cannot be read, none at all, and every verdict that is not ok.
pub fn port_parity(
    folder: impl AsRef<std::path::Path>,
    mut run: impl FnMut(&[Tensor], &mut Trace) -> Result<Vec<Tensor>>,
    explain: impl Fn(&Case, &mut Verdict),
) -> std::result::Result<Vec<Verdict>, String> {
    let folders = crate::find::find_cases(folder).map_err(|error| error.to_string())?;
    let (mut verdicts, mut failures) = (vec![], vec![]);
    for folder in folders {
        let case = Case::open(folder).map_err(|error| error.to_string())?;
        let mut verdict = Port::new(&mut run).check(&case);
        if !verdict.is_ok() {
            explain(&case, &mut verdict);
            failures.push(format!("{verdict}\n\n{}", verdict.table(&case)));
        }
        verdicts.push(verdict);
    }
    if failures.is_empty() { Ok(verdicts) } else { Err(failures.join("\n")) }
}

/// Fails unless two tensors are as near as allowed, ours first and Keras's second, by a [`Rule`](crate::Rule) or by
/// `atol` and `rtol`: `|ours − keras| ≤ atol + rtol·|keras|` at every number.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// use kandle_parity::{Rule, assert_parity};
///
/// let (ours, keras) = (Tensor::new(&[0.5f32, -1.25], &Device::Cpu)?, Tensor::new(&[0.5f32, -1.2500001], &Device::Cpu)?);
/// assert_parity!(ours, keras, Rule::Contraction);
/// assert_parity!(ours, keras, atol = 1e-6, rtol = 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! assert_parity {
    ($ours:expr, $keras:expr, atol = $atol:expr, rtol = $rtol:expr $(,)?) => {
        if let Err(told) = $crate::parity(&$ours, &$keras, |_| $crate::Tolerance { atol: $atol, rtol: $rtol }) {
            ::std::panic!("{} is not {}: {told}", stringify!($ours), stringify!($keras));
        }
    };
    ($ours:expr, $keras:expr, $rule:expr $(,)?) => {
        if let Err(told) = $crate::parity(&$ours, &$keras, |keras| $rule.tolerance_of(keras)) {
            ::std::panic!("{} is not {}: {told}", stringify!($ours), stringify!($keras));
        }
    };
}

/// Fails unless a port gives what Keras recorded, in every case in or below a folder: the three lines of a port's test.
///
/// ```no_run
/// # struct Dense; impl Dense { fn forward(&self, xs: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> { Ok(xs.clone()) } }
/// # let dense = Dense;
/// kandle_parity::assert_case!("cases/my_model", |inputs: &[_], trace: &mut _| {
///     let ys = dense.forward(&inputs[0])?;
///     trace.record("dense", &ys)?;
///     Ok(vec![ys])
/// });
/// ```
#[macro_export]
macro_rules! assert_case {
    ($folder:expr, $port:expr $(,)?) => {
        if let Err(told) = $crate::port_parity($folder, $port, |_, _| {}) {
            ::std::panic!("the port differs from Keras\n{told}");
        }
    };
}

impl<F> std::fmt::Debug for Port<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Recording;
    use crate::tolerance::Rule;

    fn tensor(array: &Array) -> Tensor {
        array.to_tensor(&Device::Cpu).unwrap()
    }

    /// A port that gives what Keras recorded, but for what `change` makes of it.
    fn judged(change: impl Fn(&str, Tensor, &mut Trace) -> Result<Tensor>) -> Verdict {
        let case = Recording::new().open().unwrap();
        let dense = |call: usize| tensor(&case.recorded("block/dense", call).unwrap().outputs[0]);
        Port::new(|inputs: &[Tensor], trace: &mut Trace| {
            assert_eq!((inputs.len(), inputs[0].dtype()), (1, DType::I64));
            for call in 0..2 {
                let ys = change("block/dense", dense(call), trace)?;
                trace.record("block/dense", &ys)?;
            }
            Ok(vec![change("output", tensor(case.output(0).unwrap()), trace)?])
        })
        .check(&case)
    }

    #[test]
    fn a_port_is_judged_by_the_layers_it_names() {
        let verdict = judged(|_, tensor, _| Ok(tensor));
        assert!(verdict.is_ok(), "{verdict}");
        assert_eq!((verdict.passed(), verdict.failed()), (3, 0));
        // What it does not name is neither passed nor failed.
        assert!(verdict.unchecked.contains(&"embedding (cumulative)".to_owned()), "{:?}", verdict.unchecked);
        let verdict = judged(|path, tensor, _| if path == "block/dense" { tensor + 1.0 } else { Ok(tensor) });
        let first = verdict.failures().next().unwrap();
        assert_eq!((first.layer.as_str(), first.call), ("block/dense", 0));
        let verdict = judged(|path, tensor, _| if path == "output" { tensor + 1.0 } else { Ok(tensor) });
        assert_eq!(verdict.failed(), 1);
    }

    #[test]
    fn what_no_layer_is_called_is_told() {
        let says = |verdict: &Verdict| verdict.reason().unwrap();
        let verdict = judged(|_, tensor, trace| {
            trace.record("dens", &tensor)?;
            Ok(tensor)
        });
        assert!(
            says(&verdict).contains("names \"dens\", which is no recorded layer; the case has embedding, block/dense")
        );
        let verdict = judged(|_, tensor, trace| {
            trace.record("block/dense", &tensor)?;
            Ok(tensor)
        });
        assert!(says(&verdict).contains("call 2 of \"block/dense\", which Keras calls 2 times"), "{}", says(&verdict));
        let verdict = judged(|_, _, _| candle_core::bail!("out of order"));
        assert!(says(&verdict).contains("out of order"), "{}", says(&verdict));
        let verdict = judged(|_, tensor, _| tensor.to_dtype(DType::F64));
        assert!(says(&verdict).contains("dtype: expected float32, found float64"), "{}", says(&verdict));
    }

    #[test]
    fn whole_numbers_are_compared_in_the_dtype_of_keras() {
        let bools = Array::from_slice(&[true, false], &[2]).unwrap();
        let ours = Array::from_slice(&[1u8, 0], &[2]).unwrap();
        assert_eq!(as_keras(ours, Some(&bools)), bools);
        let floats = Array::from_slice(&[1f32, 0.0], &[2]).unwrap();
        assert_eq!(as_keras(floats.clone(), Some(&bools)), floats);
        let beyond = Array::from_slice(&[300i64, 0], &[2]).unwrap();
        let small = Array::from_slice(&[44i8, 0], &[2]).unwrap();
        assert_eq!(as_keras(beyond.clone(), Some(&small)), beyond);
    }

    #[test]
    fn the_macros_fail_with_the_verdict() {
        let tensor = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).unwrap();
        let (ours, keras) = (tensor(&[1.0, 0.412_303_45]), tensor(&[1.0, 0.412_31]));
        crate::assert_parity!(ours, ours, Rule::Copy);
        crate::assert_parity!(ours, keras, atol = 1e-5, rtol = 0.0);
        let told = parity(&ours, &keras, |keras| Rule::Contraction.tolerance_of(keras)).unwrap_err();
        assert!(told.starts_with("1 of 2 numbers differs\n  worst at [1]: ours 0.41230345, keras 0.41231"), "{told}");
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            crate::assert_parity!(ours, keras, Rule::Contraction)
        }));
        let told = told.unwrap_err();
        assert!(told.downcast_ref::<String>().unwrap().starts_with("ours is not keras: 1 of 2 numbers differs"));
        let recording = Recording::new();
        let output = tensor(
            recording.tensors["output_0"]
                .to_tensor(&Device::Cpu)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap()
                .as_slice(),
        );
        recording.write();
        let run = |off: f64| {
            let output = output.clone();
            move |_: &[Tensor], _: &mut Trace| Ok(vec![(output.reshape((2, 2))? + off)?])
        };
        crate::assert_case!(recording.folder.path(), run(0.0));
        let told = port_parity(recording.folder.path(), run(1.0), |_, _| {}).unwrap_err();
        assert!(told.contains("output_0 (Functional, output): 4 of 4 numbers differ"), "{told}");
        assert!(told.contains("first divergence: output_0"), "{told}");
        let none = tempfile::tempdir().unwrap();
        assert!(port_parity(none.path(), run(0.0), |_, _| {}).unwrap_err().contains("found none"));
    }
}
