//! What is judged: anything that gives tensors for tensors.

use std::error::Error;

use candle_core::Tensor;

use crate::array::Array;

/// Why a [`Subject`] gave no numbers, in its own words.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A model under judgement: a port by hand, a loaded file, an engine.
///
/// Tensors are of Keras's dtypes: what candle had to store wider is brought back with [`Array::with_dtype`]. Only [`run`](Subject::run) is needed; without the others the recorded layers are reported as unchecked.
pub trait Subject {
    /// The outputs for these inputs, in the order of Keras's flattened outputs; inputs are in the order of `model.inputs`.
    ///
    /// # Errors
    /// Whatever stops the model; it counts as a failed check.
    fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Failure>;

    /// What each layer gave on the way, for the cumulative check; empty where the subject keeps no record.
    ///
    /// # Errors
    /// Whatever stops the model; it counts as a failed check.
    fn trace(&self, inputs: &[Array]) -> Result<Trace, Failure> {
        let _ = inputs;
        Ok(Trace::default())
    }

    /// One layer alone, for the isolated check: call number `call` (from 0) of the layer at `path`, fed Keras's own `inputs`, each with the mask that came with it. None where the subject has no such layer to call.
    ///
    /// # Errors
    /// Whatever stops the layer; it counts as a failed check.
    fn call_layer(
        &self,
        path: &str,
        call: usize,
        inputs: &[Array],
        masks: &[Option<Array>],
    ) -> Result<Option<LayerCall>, Failure> {
        let _ = (path, call, inputs, masks);
        Ok(None)
    }
}

/// What one call of a layer gave.
#[derive(Debug, Clone, Default)]
pub struct LayerCall {
    /// The outputs, in Keras's flattened order.
    pub outputs: Vec<Array>,
    /// The mask attached to each output: BOOL, or U8 of 0 and 1 as candle stores it. An output past the end has none. Left empty as a whole, the subject does not follow masks, and recorded ones are unchecked.
    pub masks: Vec<Option<Array>>,
}

/// What the layers gave while a model ran, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    calls: Vec<(String, usize, LayerCall)>,
}

impl Trace {
    /// Notes a layer's only output, without masks: `trace.record("dense", &ys)?` in a port by hand. A second record of a path is its second call.
    ///
    /// # Errors
    /// What [`Array::try_from`] says of the tensor.
    pub fn record(&mut self, path: &str, tensor: &Tensor) -> candle_core::Result<()> {
        let call = self.calls.iter().filter(|(known, ..)| known == path).count();
        self.insert(path, call, LayerCall { outputs: vec![Array::try_from(tensor)?], masks: vec![] });
        Ok(())
    }

    /// Notes call number `call` (from 0) of the layer at `path`; it replaces what was noted of it before.
    pub fn insert(&mut self, path: &str, call: usize, made: LayerCall) {
        match self.calls.iter_mut().find(|(known, number, _)| known == path && *number == call) {
            Some((.., earlier)) => *earlier = made,
            None => self.calls.push((path.to_owned(), call, made)),
        }
    }

    /// What was noted of call number `call` of the layer at `path`.
    pub fn get(&self, path: &str, call: usize) -> Option<&LayerCall> {
        self.calls.iter().find(|(known, number, _)| known == path && *number == call).map(|(.., made)| made)
    }

    /// All of it in the order noted: path, call, what the layer gave.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize, &LayerCall)> {
        self.calls.iter().map(|(path, call, made)| (path.as_str(), *call, made))
    }

    /// How many calls are noted.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_second_record_is_the_second_call() {
        let mut trace = Trace::default();
        for (path, number) in [("a", 1f32), ("b", 2.0), ("a", 3.0)] {
            trace.record(path, &Tensor::new(&[number], &Device::Cpu).unwrap()).unwrap();
        }
        let noted = |trace: &Trace| -> Vec<_> {
            trace.iter().map(|(path, call, made)| format!("{path} {call} {:?}", made.outputs)).collect()
        };
        assert_eq!(noted(&trace), ["a 0 [float32 [1] [1.0]]", "b 0 [float32 [1] [2.0]]", "a 1 [float32 [1] [3.0]]"]);
        trace.insert("b", 0, LayerCall::default());
        assert_eq!(noted(&trace), ["a 0 [float32 [1] [1.0]]", "b 0 []", "a 1 [float32 [1] [3.0]]"]);
        assert!(trace.get("b", 1).is_none() && trace.get("a", 1).is_some());
    }
}
