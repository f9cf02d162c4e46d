//! Every recorded case, file by file: `cargo test --test parity example3`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use candle_nn::Module;
use example3::Example3;
use kandle::parity::{Array, Case, Failure, Outcome, Standing, Subject, Trace, check, find_cases};
use libtest_mimic::{Arguments, Failed, Trial};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference_outputs");

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("example3", example3_by_hand)];
    for folder in find_cases(CASES).expect("reference_outputs has cases") {
        let name = folder.strip_prefix(CASES).expect("a case below reference_outputs").display().to_string();
        let case = Case::open(&folder).unwrap_or_else(|error| panic!("{error}"));
        if case.expect.is_some() {
            trials.push(Trial::test(name, move || refused(&folder)));
            continue;
        }
        for file in case.files.clone() {
            let case = case.clone();
            trials.push(Trial::test(format!("{name}/{file}"), move || passes(&case, &file)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The model layer by layer, and its engine by what comes out.
fn passes(case: &Case, file: &str) -> Result<(), Failed> {
    for (outcome, sees_layers) in [(kandle::judge(case, file), true), (kandle::judge_engine(case, file), false)] {
        match outcome {
            Outcome::Judged(verdict) if verdict.is_ok() && (verdict.unchecked.is_empty() || !sees_layers) => {}
            Outcome::Judged(verdict) => return Err(verdict.to_string().into()),
            Outcome::Refused(reason) | Outcome::Broken(reason) => return Err(reason.into()),
        }
    }
    Ok(())
}

fn refused(folder: &Path) -> Result<(), Failed> {
    let report = kandle::verify(folder);
    if report.standing() == Standing::Expected { Ok(()) } else { Err(report.line().into()) }
}

/// The port of crates/example3 against the same cases as the model rebuilt from the configuration.
fn example3_by_hand() -> Result<(), Failed> {
    for (folder, shape) in [("example3/2x3", [2, 3, 64]), ("example3/4x16", [4, 16, 64])] {
        let folder: PathBuf = [CASES, folder].iter().collect();
        let case = Case::open(&folder)?;
        let whole = case.files.iter().filter(|file| !file.ends_with(".weights.h5"));
        for file in whole {
            let port = ByHand(Example3::load(folder.join(file), &Device::Cpu).map_err(|error| error.to_string())?);
            let outputs = port.run(&case.input_arrays()).map_err(|error| error.to_string())?;
            if outputs.iter().map(Array::shape).ne([&shape[..]]) {
                return Err(format!("expected the shape {shape:?}, found {outputs:?}").into());
            }
            let verdict = check(&case, file, &port);
            if !verdict.is_ok() {
                return Err(verdict.to_string().into());
            }
        }
    }
    Ok(())
}

struct ByHand(Example3);

impl Subject for ByHand {
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure> {
        let [ids] = inputs else { return Err("expected one input".into()) };
        let ids = ids.to_tensor(&Device::Cpu)?.to_dtype(DType::I64)?;
        Ok(vec![self.0.forward(&ids)?.try_into()?])
    }

    fn trace(&self, inputs: &[Array]) -> Result<Trace, Failure> {
        let mut trace = Trace::default();
        if let [only] = self.run(inputs)?.as_slice() {
            trace.record("dense", &only.to_tensor(&Device::Cpu)?)?;
        }
        Ok(trace)
    }
}
