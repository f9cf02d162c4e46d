//! What the tests of this folder share.

use candle_core::{Device, Result, Tensor, Var};

/// Numbers of at most ±1.6 that float32 holds exactly: `((37 · i + 11 · seed) mod 101 − 50) / 32`.
///
/// The tables in the tests are what Keras makes of these same numbers.
pub(crate) fn numbers(dims: &[usize], seed: usize) -> Tensor {
    let count = dims.iter().product::<usize>();
    let number = |index: usize| ((index * 37 + seed * 11) % 101) as f32 / 32.0 - 50.0 / 32.0;
    Tensor::from_vec((0..count).map(number).collect::<Vec<f32>>(), dims, &Device::Cpu).unwrap()
}

/// Asserts shape and numbers, which differ from Keras's by at most `limit` times the largest of them.
pub(crate) fn assert_close(what: &str, ours: &Tensor, dims: &[usize], keras: &[f32], limit: f32) {
    assert_eq!(ours.dims(), dims, "{what}");
    let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(
        !keras.is_empty() && ours.len() == keras.len(),
        "{what}: {} numbers, Keras has {}",
        ours.len(),
        keras.len()
    );
    let largest = keras.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    for (at, (ours, keras)) in ours.iter().zip(keras).enumerate() {
        assert!((ours - keras).abs() <= limit * largest, "{what}: number {at} is {ours}, Keras has {keras}");
    }
}

/// Asserts that a gradient reaches every operand, and agrees with what a small step in each direction of `numbers` does.
pub(crate) fn assert_differentiable(what: &str, operands: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let wide = |dims: &[usize], seed: usize| numbers(dims, seed).to_dtype(candle_core::DType::F64).unwrap();
    let at = |index: usize, step: f64| {
        let xs = operands.iter().enumerate().map(|(seed, dims)| {
            let xs = wide(dims, seed);
            if seed == index { (xs + (wide(dims, 7) * step).unwrap()).unwrap() } else { xs }
        });
        let ys = f(&xs.collect::<Vec<Tensor>>()).unwrap().to_dtype(candle_core::DType::F64).unwrap();
        // Weighed, so that no two cells of the result are alike to the gradient.
        (&ys * wide(ys.dims(), 5)).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let vars: Vec<Var> =
        operands.iter().enumerate().map(|(seed, dims)| Var::from_tensor(&wide(dims, seed)).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let ys = f(&tensors).unwrap().to_dtype(candle_core::DType::F64).unwrap();
    let gradients = (&ys * wide(ys.dims(), 5)).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, (var, dims)) in vars.iter().zip(operands).enumerate() {
        let Some(gradient) = gradients.get(var.as_tensor()) else { panic!("{what}: no gradient for operand {index}") };
        let slope = (gradient * wide(dims, 7)).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        const STEP: f64 = 1e-3;
        let measured = (at(index, STEP) - at(index, -STEP)) / (2.0 * STEP);
        assert!(
            (slope - measured).abs() <= 1e-3 * measured.abs().max(1.0),
            "{what}: operand {index} has slope {slope}, measured {measured}"
        );
    }
}
