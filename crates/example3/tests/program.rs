//! The program gives what Keras recorded.

use std::process::Command;

use kandle::parity::{Array, Case, compare};

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reference_outputs/example3/2x3");

#[test]
fn the_program_answers_as_keras_does() {
    let model = format!("{CASE}/model.keras");
    let case = Case::open(CASE).unwrap();
    let ids = case.input_arrays()[0].to_tensor(&candle_core::Device::Cpu).unwrap();
    let ids = ids.to_dtype(candle_core::DType::I64).unwrap().to_vec2::<i64>().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_example3")).args([&model, &format!("{ids:?}")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("first answer after "));
    let made: Vec<Vec<Vec<f32>>> = serde_json::from_slice(&done.stdout).unwrap();
    let keras = case.output(0).unwrap();
    let bytes = made.iter().flatten().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let ours = Array::new(keras.dtype(), keras.shape().to_vec(), bytes).unwrap();
    let comparison = compare(&ours, keras, case.tolerance_of(0));
    assert!(comparison.passed(), "{comparison}");

    for wrong in
        [vec![], vec![model.as_str()], vec![&model, "[1, 2]"], vec![&model, "[[1.5]]"], vec!["none.keras", "[[1]]"]]
    {
        let done = Command::new(env!("CARGO_BIN_EXE_example3")).args(&wrong).output().unwrap();
        assert!(!done.status.success() && done.stdout.is_empty(), "{wrong:?}");
        assert!(String::from_utf8_lossy(&done.stderr).starts_with("error: "), "{wrong:?}");
    }
}
