//! A subject against a case: the outputs, and every recorded layer twice.

use crate::array::Array;
use crate::case::{Case, Layer, Recorded};
use crate::compare::compare;
use crate::number::{Dtype, keras_name};
use crate::subject::{Failure, LayerCall, Subject, Trace};
use crate::text;
use crate::tolerance::{Rule, Tolerance};
use crate::truth::Truth;
use crate::verdict::{Check, How, Verdict};

/// Judges `subject`, made from the case's file `file`.
///
/// Three kinds of check, in the order in which the layers ran, the outputs last:
/// each recorded layer call *isolated*, fed Keras's own recorded inputs (which layer is wrong?); the same call *cumulative*, as our own chain made it (where does it begin?); and the outputs of the whole (what does the user get?).
///
/// A wrong number of outputs, an error of the subject, a mask where Keras has none and none where Keras has one are failures. A recorded layer the subject can't tell of is unchecked, which is reported and is not a pass.
pub fn check(case: &Case, file: &str, subject: &dyn Subject) -> Verdict {
    let inputs = case.input_arrays();
    let mut verdict = Verdict::new(case, file);
    check_layers(case, subject, &inputs, &mut verdict);
    judge_outputs(case, subject.run(&inputs), &mut verdict);
    verdict
}

/// As [`check`], but of the outputs alone: what the user gets, for the price of one run.
pub fn check_outputs(case: &Case, file: &str, subject: &dyn Subject) -> Verdict {
    let mut verdict = Verdict::new(case, file);
    judge_outputs(case, subject.run(&case.input_arrays()), &mut verdict);
    verdict
}

fn judge_outputs(case: &Case, ours: Result<Vec<Array>, Failure>, verdict: &mut Verdict) {
    let check = |tensor: &str, tolerance, result| Check {
        layer: "output".to_owned(),
        class: case.class.clone(),
        how: How::Output,
        call: 0,
        tensor: tensor.to_owned(),
        rule: case.rule,
        tolerance,
        result,
        ours: None,
        truth: None,
        hint: None,
    };
    let ours = match ours.map_err(told).and_then(|ours| counted(ours, case.outputs.len())) {
        Ok(ours) => ours,
        Err(told) => return verdict.checks.push(check("outputs", Tolerance::EXACT, Err(told))),
    };
    for (i, ours) in ours.into_iter().enumerate() {
        let (name, tolerance) = (format!("output_{i}"), case.tolerance_of(i));
        verdict.checks.push(match case.output(i) {
            None => check(&name, tolerance, Err("Keras's output is missing".to_owned())),
            Some(keras) => Check {
                truth: case.truth(i).and_then(|truth| Truth::of(i, &ours, keras, truth)),
                ..check(&name, tolerance, Ok(compare(&ours, keras, tolerance))).of(ours)
            },
        });
    }
}

fn check_layers(case: &Case, subject: &dyn Subject, inputs: &[Array], verdict: &mut Verdict) {
    verdict
        .unchecked
        .extend(case.undeclared().iter().map(|call| format!("{call} (recorded, but not among case.json's layers)")));
    if case.layers.is_empty() {
        return;
    }
    let trace = subject.trace(inputs).unwrap_or_else(|failure| {
        verdict.checks.push(Check {
            layer: "trace".to_owned(),
            class: case.class.clone(),
            how: How::Cumulative,
            call: 0,
            tensor: "trace".to_owned(),
            rule: None,
            tolerance: Tolerance::EXACT,
            result: Err(told(failure)),
            ours: None,
            truth: None,
            hint: None,
        });
        Trace::default()
    });
    for layer in &case.layers {
        for call in 0..layer.calls {
            let Some(keras) = case.recorded(&layer.path, call) else { continue };
            let mut judge = |how, rule, ours| LayerCheck { layer, call, how, rule }.judge(ours, &keras, verdict);
            let isolated = subject.call_layer(&layer.path, call, &keras.inputs, &keras.input_masks);
            judge(How::Isolated, layer.rule, isolated.map_err(told));
            judge(How::Cumulative, layer.cumulative, Ok(trace.get(&layer.path, call).cloned()));
        }
    }
}

/// One layer call judged one way.
struct LayerCheck<'a> {
    layer: &'a Layer,
    call: usize,
    how: How,
    rule: Rule,
}

impl LayerCheck<'_> {
    fn judge(&self, ours: Result<Option<LayerCall>, String>, keras: &Recorded, verdict: &mut Verdict) {
        let ours = match ours {
            Ok(Some(ours)) => ours,
            Ok(None) => return verdict.unchecked.push(self.unchecked("")),
            Err(told) => return verdict.checks.push(self.failed("outputs", told)),
        };
        let outputs = match counted(ours.outputs, keras.outputs.len()) {
            Ok(outputs) => outputs,
            Err(told) => return verdict.checks.push(self.failed("outputs", told)),
        };
        for (k, ((ours, output), truth)) in outputs.into_iter().zip(&keras.outputs).zip(&keras.truths).enumerate() {
            let tolerance = self.rule.tolerance_of(output);
            let result = Ok(compare(&ours, output, tolerance));
            // The truth is that of the whole chain.
            let truth = truth.as_ref().filter(|_| self.how == How::Cumulative);
            let truth = truth.and_then(|truth| Truth::of(k, &ours, output, truth));
            let name = format!("out_{k}");
            verdict.checks.push(Check { tolerance, result, truth, ..self.failed(&name, String::new()) }.of(ours));
        }
        let follows_masks = !ours.masks.is_empty();
        let mut masks = ours.masks.into_iter();
        for (k, keras) in keras.masks.iter().enumerate() {
            let name = format!("mask_{k}");
            match (masks.next().flatten(), keras) {
                (Some(ours), Some(keras)) => verdict.checks.push(match as_mask(ours) {
                    Ok(ours) => Check {
                        rule: Some(Rule::Copy),
                        result: Ok(compare(&ours, keras, Tolerance::EXACT)),
                        ..self.failed(&name, String::new()).of(ours)
                    },
                    Err(told) => self.failed(&name, told),
                }),
                (None, Some(_)) if !follows_masks => verdict.unchecked.push(self.unchecked(&name)),
                (None, Some(_)) => verdict.checks.push(self.failed(&name, "expected a mask, found none".to_owned())),
                (Some(_), None) => verdict.checks.push(self.failed(&name, "expected no mask, found one".to_owned())),
                (None, None) => {}
            }
        }
    }

    fn failed(&self, tensor: &str, told: String) -> Check {
        Check {
            layer: self.layer.path.clone(),
            class: self.layer.class.clone(),
            how: self.how,
            call: self.call,
            tensor: tensor.to_owned(),
            rule: Some(self.rule),
            tolerance: Tolerance::EXACT,
            result: Err(told),
            ours: None,
            truth: None,
            hint: None,
        }
    }

    fn unchecked(&self, tensor: &str) -> String {
        let call = if self.layer.calls > 1 { format!(", call {}", self.call) } else { String::new() };
        let tensor = if tensor.is_empty() { String::new() } else { format!(", {tensor}") };
        format!("{} ({}{call}{tensor})", text::name(&self.layer.path), self.how)
    }
}

impl Check {
    /// The same check with what we gave.
    fn of(self, ours: Array) -> Check {
        Check { ours: Some(ours), ..self }
    }
}

/// As many outputs as Keras gave.
fn counted(ours: Vec<Array>, keras: usize) -> Result<Vec<Array>, String> {
    if ours.len() == keras { Ok(ours) } else { Err(format!("outputs: expected {keras}, found {}", ours.len())) }
}

/// A mask is bool in Keras; candle can only store it as U8.
fn as_mask(ours: Array) -> Result<Array, String> {
    let dtype = keras_name(ours.dtype());
    ours.with_dtype(Dtype::BOOL).map_err(|error| format!("no mask in {dtype}: {error}"))
}

fn told(failure: Failure) -> String {
    let mut told = failure.to_string();
    let mut source = failure.source();
    while let Some(cause) = source {
        let cause_told = cause.to_string();
        // Many errors repeat their cause in their own words.
        if !told.contains(&cause_told) {
            told.push_str(": ");
            told.push_str(&cause_told);
        }
        source = cause.source();
    }
    text::shown(&told, 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Puppet, Recording, array};

    /// The case as recorded, judged with an honest puppet that was then tampered with.
    fn judged(tamper: impl Fn(&mut Puppet)) -> Verdict {
        let case = Recording::new().open().unwrap();
        let mut puppet = Puppet::honest(&case);
        tamper(&mut puppet);
        Verdict { case: "case".to_owned(), ..check(&case, "model.keras", &puppet) }
    }

    fn failures(verdict: &Verdict) -> Vec<String> {
        verdict.failures().map(|check| check.to_string().lines().next().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_honest_subject_passes_every_check_in_order() {
        let verdict = judged(|_| {});
        assert!(verdict.is_ok());
        assert_eq!((verdict.passed(), verdict.failed(), verdict.unchecked.len()), (11, 0, 0));
        let order: Vec<_> =
            verdict.checks.iter().map(|c| format!("{} {} {} {}", c.layer, c.call, c.how, c.tensor)).collect();
        assert_eq!(
            order,
            [
                "embedding 0 isolated out_0",
                "embedding 0 isolated mask_0",
                "embedding 0 cumulative out_0",
                "embedding 0 cumulative mask_0",
                "block/dense 0 isolated out_0",
                "block/dense 0 isolated mask_0",
                "block/dense 0 cumulative out_0",
                "block/dense 0 cumulative mask_0",
                "block/dense 1 isolated out_0",
                "block/dense 1 cumulative out_0",
                "output 0 output output_0",
            ]
        );
        assert_eq!(
            verdict.to_string(),
            "case (model.keras): ok: 11 passed, 0 failed, 0 unchecked; worst 0, allowed 2e-6, truth ratio 1.00"
        );
        assert_eq!(verdict.reason(), None);
    }

    #[test]
    fn each_rule_is_used_where_it_belongs() {
        let verdict = judged(|_| {});
        let tolerances = |how| -> Vec<_> {
            let outputs = verdict.checks.iter().filter(|check| check.how == how && !check.tensor.starts_with("mask"));
            outputs.map(|check| check.tolerance.atol).collect()
        };
        assert_eq!(tolerances(How::Isolated), [0.0, 1e-6 * 4.0, 1e-6]);
        assert_eq!(tolerances(How::Cumulative), [0.0, 1e-5 * 4.0, 1e-5]);
        assert_eq!(tolerances(How::Output), [1e-6]);
    }

    #[test]
    fn whatever_is_wrong_fails() {
        type Tamper = fn(&mut Puppet);
        let cases: [(&str, Tamper, &[&str]); 13] = [
            (
                "a number of the output",
                |p| p.outputs[0] = array(&[-1.0f32, 0.0, 1.0, 0.501], &[2, 2]),
                &["output_0 (Functional, output): 1 of 4 numbers differs"],
            ),
            (
                "NaN in the output",
                |p| p.outputs[0] = array(&[f32::NAN; 4], &[2, 2]),
                &["output_0 (Functional, output): 4 of 4 numbers differ"],
            ),
            (
                "the output's shape",
                |p| p.outputs[0] = array(&[0f32; 4], &[4]),
                &["output_0 (Functional, output): shape: expected [2, 2], found [4]"],
            ),
            ("no output", |p| p.outputs.clear(), &["outputs (Functional, output): outputs: expected 1, found 0"]),
            (
                "an output too many",
                |p| p.outputs.push(array(&[1f32], &[1])),
                &["outputs (Functional, output): outputs: expected 1, found 2"],
            ),
            (
                "one ulp in a copy",
                |p| {
                    p.change("embedding", 0, |made| {
                        made.outputs[0] = array(&[0.5f32.next_up(), 0.25, 1.0, -1.0], &[2, 2])
                    })
                },
                &[
                    "embedding (Embedding, isolated): 1 of 4 numbers differs",
                    "embedding (Embedding, cumulative): 1 of 4 numbers differs",
                ],
            ),
            (
                "a contraction beyond its own, within the chain's",
                |p| {
                    p.change("block/dense", 1, |made| made.outputs[0] = array(&[-1.0f32, 0.0, 1.0, 0.500_005], &[2, 2]))
                },
                &["block/dense (Dense, isolated, call 1): 1 of 4 numbers differs"],
            ),
            (
                "a missing mask",
                |p| p.change("embedding", 0, |made| made.masks = vec![None]),
                &[
                    "embedding (Embedding, isolated, mask_0): expected a mask, found none",
                    "embedding (Embedding, cumulative, mask_0): expected a mask, found none",
                ],
            ),
            (
                "a mask Keras does not have",
                |p| p.change("block/dense", 1, |made| made.masks = vec![Some(array(&[true, true], &[2]))]),
                &[
                    "block/dense (Dense, isolated, call 1, mask_0): expected no mask, found one",
                    "block/dense (Dense, cumulative, call 1, mask_0): expected no mask, found one",
                ],
            ),
            (
                "a wrong mask",
                |p| p.change("embedding", 0, |made| made.masks = vec![Some(array(&[1u8, 1], &[2]))]),
                &[
                    "embedding (Embedding, isolated, mask_0): 1 of 2 numbers differs",
                    "embedding (Embedding, cumulative, mask_0): 1 of 2 numbers differs",
                ],
            ),
            (
                "a mask of floats",
                |p| {
                    drop(
                        p.alone.get_mut(&("embedding".to_owned(), 0)).unwrap().masks[0]
                            .replace(array(&[1f32, 0.0], &[2])),
                    )
                },
                &["embedding (Embedding, isolated, mask_0): no mask in float32: dtype: expected bool, found float32"],
            ),
            (
                "a layer's output too few",
                |p| p.change("block/dense", 0, |made| made.outputs.clear()),
                &[
                    "block/dense (Dense, isolated, outputs): outputs: expected 1, found 0",
                    "block/dense (Dense, cumulative, outputs): outputs: expected 1, found 0",
                ],
            ),
            (
                "a subject that fails",
                |p| p.fails = Some("no\x1b[2J kernel"),
                &[
                    "trace (Functional, cumulative, trace): no\\u{1b}[2J kernel",
                    "embedding (Embedding, isolated, outputs): no\\u{1b}[2J kernel",
                    "block/dense (Dense, isolated, outputs): no\\u{1b}[2J kernel",
                    "block/dense (Dense, isolated, call 1, outputs): no\\u{1b}[2J kernel",
                    "outputs (Functional, output): no\\u{1b}[2J kernel",
                ],
            ),
        ];
        for (what, tamper, says) in cases {
            let verdict = judged(tamper);
            assert!(!verdict.is_ok(), "{what}");
            assert_eq!(failures(&verdict), says, "{what}");
            assert!(verdict.reason().unwrap().starts_with(says[0]), "{what}");
        }
    }

    #[test]
    fn what_the_subject_cannot_tell_is_unchecked_and_not_passed() {
        let verdict = judged(|puppet| (puppet.trace, puppet.alone) = Default::default());
        assert!(verdict.is_ok());
        assert_eq!((verdict.passed(), verdict.failed()), (1, 0));
        assert_eq!(
            verdict.unchecked,
            [
                "embedding (isolated)",
                "embedding (cumulative)",
                "block/dense (isolated, call 0)",
                "block/dense (cumulative, call 0)",
                "block/dense (isolated, call 1)",
                "block/dense (cumulative, call 1)",
            ]
        );
        // A subject that follows no masks: its numbers are judged, the masks are not.
        let verdict = judged(|puppet| puppet.change("embedding", 0, |made| made.masks.clear()));
        assert!(verdict.is_ok());
        assert_eq!(verdict.unchecked, ["embedding (isolated, mask_0)", "embedding (cumulative, mask_0)"]);
        // Masks as candle stores them are masks.
        let verdict =
            judged(|puppet| puppet.change("embedding", 0, |made| made.masks = vec![Some(array(&[1u8, 0], &[2]))]));
        assert!(verdict.is_ok() && verdict.unchecked.is_empty());
    }

    #[test]
    fn a_recorded_layer_without_a_rule_is_unchecked() {
        let mut recording = Recording::new();
        recording.json["layers"] = serde_json::json!([]);
        let case = recording.open().unwrap();
        let verdict = check(&case, "model.keras", &Puppet::honest(&case));
        assert_eq!(verdict.unchecked.len(), 3);
        assert_eq!(verdict.unchecked[2], "layers/embedding/0 (recorded, but not among case.json's layers)");
    }

    #[test]
    fn an_empty_output_is_no_proof() {
        let mut recording = Recording::new();
        recording.json["outputs"][0]["shape"] = serde_json::json!([0, 2]);
        recording.tensors.insert("output_0".into(), array::<f32>(&[], &[0, 2]));
        recording.tensors.remove("truth_0");
        let case = recording.open().unwrap();
        let verdict = check(&case, "model.keras", &Puppet::honest(&case));
        assert!(!verdict.is_ok());
        assert!(!Verdict { checks: vec![], ..verdict }.is_ok());
    }

    #[test]
    fn a_failing_verdict_says_all_that_is_needed() {
        let verdict = judged(|puppet| {
            puppet.outputs[0] = array(&[-1.0f32, 0.0, 1.0, f32::NAN], &[2, 2]);
            puppet.change("block/dense", 1, |made| made.outputs[0] = array(&[-1.0f32, 0.0, 1.125, 0.5], &[2, 2]));
        });
        let expected = "\
case (model.keras): FAIL: 8 passed, 3 failed, 0 unchecked; worst inf, allowed 1.5e-6, truth ratio inf
case › block/dense (Dense, isolated, call 1): 1 of 4 numbers differs
  worst at [1, 0]: ours 1.125, keras 1   |d| 1.2e-1, 1.2e-1 relative, 1048576 ulp
  allowed 1e-6 + 1e-6·|keras| (contraction)
case › block/dense (Dense, cumulative, call 1): 1 of 4 numbers differs
  worst at [1, 0]: ours 1.125, keras 1   |d| 1.2e-1, 1.2e-1 relative, 1048576 ulp
  allowed 1e-5 + 1e-6·|keras| (deep)
case › output_0 (Functional, output): 1 of 4 numbers differs
  worst at [1, 1]: ours NaN, keras 0.5
  allowed 1e-6 + 1e-6·|keras|";
        assert_eq!(verdict.to_string(), expected);
    }
}
