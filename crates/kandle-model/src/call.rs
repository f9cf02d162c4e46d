use std::sync::Arc;

use candle_core::Tensor;
use kandle_format::{Dtype, Problem};

use crate::{Fields, Given, Lowered, Primitive, Spec, Weight, primitive::Table};

/// A tensor as Keras sees it.
///
/// candle has no bool, int8, uint16 or uint64: bool is U8 (0 or 1), int8 is I16, uint16 is U32, uint64 is I64. `dtype` is
/// what Keras would say. Strings are I64 numbers into [`strings`](Self::strings).
#[derive(Debug, Clone)]
pub struct Value {
    /// The numbers.
    pub tensor: Tensor,
    /// Keras's dtype.
    pub dtype: Dtype,
    /// The mask that travels beside the tensor, `(batch, time)` as a rule; U8, 1 where the entry counts.
    pub mask: Option<Tensor>,
    /// Where the dtype is string: the texts, as bytes, that the numbers of the tensor stand for.
    pub strings: Option<Arc<Vec<Vec<u8>>>>,
}

impl Value {
    /// A value without a mask.
    #[must_use]
    pub fn new(tensor: Tensor, dtype: Dtype) -> Self {
        Self { tensor, dtype, mask: None, strings: None }
    }

    /// A plain tensor, of the dtype that it has in candle.
    ///
    /// # Errors
    /// For dtypes that Keras has not.
    pub fn of(tensor: &Tensor) -> candle_core::Result<Self> {
        Ok(Self::new(tensor.clone(), crate::numeric::dtype_of(tensor)?))
    }

    /// A tensor of strings, row-major, on the CPU.
    ///
    /// # Errors
    /// Where `shape` has another number of elements than there are texts.
    pub fn from_strings(texts: Vec<Vec<u8>>, shape: &[usize]) -> candle_core::Result<Self> {
        let numbers = Tensor::arange(0, i64::try_from(texts.len())?, &candle_core::Device::Cpu)?.reshape(shape)?;
        Ok(Self { tensor: numbers, dtype: Dtype::String, mask: None, strings: Some(Arc::new(texts)) })
    }

    /// The texts of a tensor of strings, row-major.
    ///
    /// # Errors
    /// Where this is no tensor of strings.
    pub fn texts(&self) -> candle_core::Result<Vec<&[u8]>> {
        let Some(strings) = &self.strings else { candle_core::bail!("expected strings, found {}", self.dtype) };
        let text = |number: i64| {
            strings
                .get(usize::try_from(number)?)
                .map(Vec::as_slice)
                .ok_or_else(|| candle_core::Error::Msg(format!("string {number} of {} does not exist", strings.len())))
        };
        self.tensor.flatten_all()?.to_vec1::<i64>()?.into_iter().map(text).collect()
    }

    /// Other numbers of the same dtype, without a mask: what a layer gives back. Masks travel by the rules of
    /// [`KerasLayer::masking`].
    #[must_use]
    pub fn with_tensor(&self, tensor: Tensor) -> Self {
        Self { tensor, dtype: self.dtype, mask: None, strings: self.strings.clone() }
    }

    /// The same numbers with `mask` in place of the one they had.
    #[must_use]
    pub fn with_mask(self, mask: Option<Tensor>) -> Self {
        Self { mask, ..self }
    }
}

/// One call of a layer: what goes in, and the layer's weights in the order it declared them, in candle's layout.
///
/// Floats come in the layer's [arithmetic dtype](crate::Policy::arithmetic), weights too.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What the layer is called with.
    pub given: Given<'a, Value>,
    /// The layer's weights.
    pub weights: &'a [Tensor],
}

impl<'a> Call<'a> {
    /// The one tensor that a layer of one input is called on.
    pub fn input(&self) -> candle_core::Result<&'a Value> {
        self.given.input().map_err(candle_core::Error::msg)
    }

    /// Weight number `index` of the declared ones.
    pub fn weight(&self, index: usize) -> candle_core::Result<&'a Tensor> {
        match self.weights.get(index) {
            Some(weight) => Ok(weight),
            None => candle_core::bail!("weight {index} of {} was not given", self.weights.len()),
        }
    }
}

/// What becomes of the mask that came with a layer's first input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// It ends here (Keras's default, `supports_masking = False`).
    Drops,
    /// It goes on with the output.
    Passes,
    /// The layer has a rule of its own, [`KerasLayer::compute_mask`].
    Computes,
}

/// A Keras layer at inference, or an operation of `keras.ops`: one file, one line in the registry.
///
/// Reading is total: what cannot be honoured is noted in [`Fields`] and refused for the whole file at once, so the rest
/// of a layer never sees a configuration it does not reproduce.
pub trait KerasLayer: std::fmt::Debug + Send + Sync {
    /// Reads the layer's settings. Every key is honoured, or allowed at its default only, or named as training-only.
    fn read(fields: &mut Fields<'_>) -> Self
    where
        Self: Sized;

    /// The parameters of Keras's `call`, in its order, those that a graph may give; `training` needs no mention.
    fn parameters(&self) -> &'static [&'static str] {
        &["inputs"]
    }

    /// The weights, in the order Keras creates them, which is the order in the file.
    ///
    /// # Errors
    /// A text where the inputs do not determine the shapes.
    fn weights(&self, given: Given<'_, Spec>) -> Result<Vec<Weight>, String> {
        let _ = given;
        Ok(Vec::new())
    }

    /// What comes out, given what goes in. Floats are of the layer's [arithmetic dtype](crate::Policy::arithmetic).
    ///
    /// # Errors
    /// A problem without a place (the plan knows it) where Keras would not build, or this layer cannot.
    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem>;

    /// Runs the layer as Keras does with `training=False`, in differentiable candle operations. One value for each of
    /// Keras's flattened outputs.
    ///
    /// # Errors
    /// What candle reports, and inputs that Keras would not accept either.
    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>>;

    /// What [`forward`](Self::forward) computes, as a chain of primitives of which the first takes the layer's tensors and each
    /// other one what the one before gave; none where only `forward` says it. Asked only where everything is float32 (ids
    /// aside) and no mask but the one that comes with the input plays a part.
    ///
    /// # Errors
    /// What candle reports of the weights.
    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        let _ = lowered;
        Ok(None)
    }

    /// The one primitive of [`primitives`](Self::primitives) with `table` for the first weight, where a call reads rows of that
    /// weight for ids and does nothing else: the weight may then stay in the file.
    fn rows_of(&self, table: Table) -> Option<Primitive> {
        let _ = table;
        None
    }

    /// What becomes of masks.
    fn masking(&self) -> Masking {
        Masking::Drops
    }

    /// The masks of the outputs, where [`masking`](Self::masking) is [`Masking::Computes`] and the output has none yet.
    /// `previous` are the masks the layer got, one for each of its inputs.
    ///
    /// # Errors
    /// What candle reports.
    fn compute_mask(&self, call: Call<'_>, previous: &[Option<&Tensor>]) -> candle_core::Result<Vec<Option<Tensor>>> {
        let _ = (call, previous);
        Ok(Vec::new())
    }

    /// The parameters whose tensors lose their mask by this call, for everyone who reads them later.
    fn erases_masks_of(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether what comes out is the very tensor that went in, where nothing is cast on the way: a mask that is put on either
    /// later, or taken off it, is put on or taken off both.
    fn gives_back_its_input(&self, given: Given<'_, Spec>) -> bool {
        let _ = given;
        false
    }

    /// Whether it begins a call with the states that the call before ended with.
    fn keeps_states(&self) -> bool {
        false
    }

    /// Whether floats are cast to the compute dtype before the call, as Keras does unless a layer has `autocast=False`.
    fn autocasts(&self) -> bool {
        true
    }

    /// Whether the layer gets its inputs as they come, of whatever dtype, and says the dtypes of its outputs itself: for
    /// layers that cast by rules of their own. Half precision is then stored as such, not widened; weights are widened.
    fn casts_itself(&self) -> bool {
        self.is_operation()
    }

    /// Whether float32 comes out as it is of a layer that computes in half precision, for inputs of `inputs`: else it is what
    /// half precision was widened to, and is rounded.
    fn keeps_float32(&self, inputs: &[Dtype]) -> bool {
        let _ = inputs;
        false
    }

    /// Whether this is an operation of `keras.ops`, which has no dtype policy: what goes in is what it gets.
    fn is_operation(&self) -> bool {
        false
    }

    /// The parameter of probabilities that Keras computes from their logits, where a softmax or sigmoid made them.
    fn looks_behind(&self) -> Option<&'static str> {
        None
    }

    /// Whether the layer knows what to do with a quantized dtype policy.
    fn quantizes(&self) -> bool {
        false
    }
}
