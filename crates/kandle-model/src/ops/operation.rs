//! The form that every operation has: a line of a table that says what it takes, what comes out, and what it computes.

use candle_core::{Device, Tensor};
use kandle_format::{Dtype, ErrorKind, Problem, json::Value as Json};

use super::{Known, Operand, Setting, Settings, invalid};
use crate::{
    Argument, Call, Fields, Given, KerasLayer, Lowered, Primitive, Shape, Spec, Value,
    numeric::{self, storage},
};

/// The rule of what comes out.
pub(crate) type Output = fn(&Node<'_, Spec>) -> Result<Vec<Spec>, Problem>;
/// The computation.
pub(crate) type Forward = fn(&Node<'_, Value>) -> candle_core::Result<Vec<Value>>;

/// A class of `keras.ops`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// Keras's name of the class.
    pub(crate) class: &'static str,
    parameters: &'static [&'static str],
    settings: &'static [(&'static str, Setting)],
    output: Output,
    forward: Forward,
    gives_back: fn(&Node<'_, Spec>) -> bool,
}

/// A line of a table: `class`, whose `call` takes `parameters` (`*` before the last that takes all others).
pub(crate) const fn operation(
    class: &'static str,
    parameters: &'static [&'static str],
    output: Output,
    forward: Forward,
) -> Operation {
    Operation { class, parameters, settings: &[], output, forward, gives_back: |_| false }
}

impl Operation {
    /// The same with the keys of its configuration: what the constructor of the class takes.
    pub(crate) const fn with(self, settings: &'static [(&'static str, Setting)]) -> Self {
        Self { settings, ..self }
    }

    /// The same, where TensorFlow gives back the tensor `x` itself if `gives_back` holds.
    pub(crate) const fn giving_back(self, gives_back: fn(&Node<'_, Spec>) -> bool) -> Self {
        Self { gives_back, ..self }
    }

    /// Reads an operation of this class.
    pub(crate) fn read(&'static self, fields: &mut Fields<'_>) -> Box<dyn KerasLayer> {
        Box::new(Op { operation: self, settings: Settings::read(fields, self.settings) })
    }
}

/// An operation of a model: its class and its settings.
#[derive(Debug)]
struct Op {
    operation: &'static Operation,
    settings: Settings,
}

impl KerasLayer for Op {
    fn read(fields: &mut Fields<'_>) -> Self {
        static NOTHING: Operation = operation("", &[], |_| Ok(Vec::new()), |_| Ok(Vec::new()));
        fields.refuse("an operation is not read as a layer");
        Self { operation: &NOTHING, settings: Settings::default() }
    }

    fn parameters(&self) -> &'static [&'static str] {
        self.operation.parameters
    }

    fn output(&self, given: Given<'_, Spec>) -> Result<Vec<Spec>, Problem> {
        let outputs = (self.operation.output)(&Node { settings: &self.settings, given })?;
        outputs.iter().try_for_each(|output| within_limit(&output.shape))?;
        Ok(outputs)
    }

    fn forward(&self, call: Call<'_>) -> candle_core::Result<Vec<Value>> {
        (self.operation.forward)(&Node { settings: &self.settings, given: call.given })
    }

    fn primitives(&self, lowered: Lowered<'_>) -> candle_core::Result<Option<Vec<Primitive>>> {
        super::lowered::primitives(self.operation.class, &Node { settings: &self.settings, given: lowered.given })
    }

    fn gives_back_its_input(&self, given: Given<'_, Spec>) -> bool {
        (self.operation.gives_back)(&Node { settings: &self.settings, given })
    }

    fn is_operation(&self) -> bool {
        true
    }

    fn looks_behind(&self) -> Option<&'static str> {
        let crossentropy = self.operation.class.ends_with("Crossentropy");
        (crossentropy && !self.settings.flag("from_logits")).then_some("output")
    }
}

/// A few numbers in a file may ask for much memory: an output of more elements than this is refused.
pub(super) const MOST_ELEMENTS: usize = 1 << 32;
/// The most elements of an operand that [`probe`] makes up.
const MOST_PROBED: usize = 1 << 20;

fn within_limit(Shape(axes): &Shape) -> Result<(), Problem> {
    let size = axes.iter().flatten().filter(|size| **size > 0).try_fold(1_usize, |size, axis| size.checked_mul(*axis));
    match size.filter(|size| *size <= MOST_ELEMENTS) {
        Some(_) => Ok(()),
        None => {
            let what =
                format!("an output of shape {}, more than the limit of {MOST_ELEMENTS} elements", Shape(axes.clone()));
            Err(Problem::new(ErrorKind::Limit, "", what))
        }
    }
}

/// One call of an operation: its settings and what it is called on. `T` is [`Spec`] when it is planned, [`Value`] when it
/// runs.
#[derive(Debug)]
pub(crate) struct Node<'a, T> {
    /// The operation's settings.
    pub(crate) settings: &'a Settings,
    /// The call as layers see it.
    pub(crate) given: Given<'a, T>,
}

impl<'a, T: Known> Node<'a, T> {
    fn find(&self, name: &str) -> Result<Option<Operand<'a, T>>, String> {
        let Some(argument) = self.given.argument(name) else { return Ok(None) };
        Operand::of(argument, self.given).map(Some).map_err(|what| format!("{name}: {what}"))
    }

    fn find_list(&self, name: &str) -> Result<Vec<Operand<'a, T>>, String> {
        let one = |argument: &Argument| Operand::of(argument, self.given).map_err(|what| format!("{name}: {what}"));
        let name = name.trim_start_matches('*');
        let argument = self.given.argument(name).or_else(|| self.given.argument(&format!("*{name}")));
        match argument {
            Some(Argument::List(items)) => items.iter().map(one).collect(),
            Some(Argument::Constant(Json::Array(items))) => {
                items.iter().map(|item| one(&Argument::Constant(item.clone()))).collect()
            }
            Some(other) => Ok(vec![one(other)?]),
            None => Err(format!("{name} is missing")),
        }
    }
}

impl<'a> Node<'a, Spec> {
    /// The argument `name`, if it is given and not null.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Operand<'a, Spec>>, Problem> {
        self.find(name).map_err(invalid)
    }

    /// The argument `name`.
    pub(crate) fn operand(&self, name: &str) -> Result<Operand<'a, Spec>, Problem> {
        self.optional(name)?.ok_or_else(|| invalid(format!("{name} is missing")))
    }

    /// The arguments that the list `name` holds; a single one as a list of one.
    pub(crate) fn operands(&self, name: &str) -> Result<Vec<Operand<'a, Spec>>, Problem> {
        self.find_list(name).map_err(invalid)
    }

    /// What is known of the argument `name` once it is a tensor.
    pub(crate) fn spec(&self, name: &str) -> Result<Spec, Problem> {
        let operand = self.operand(name)?;
        Ok(Spec { shape: operand.shape(), dtype: operand.dtype() })
    }
}

impl<'a> Node<'a, Value> {
    /// Where the operation runs.
    pub(crate) fn device(&self) -> Device {
        self.given.all().first().map_or(Device::Cpu, |value| value.tensor.device().clone())
    }

    /// The argument `name`, if it is given and not null.
    pub(crate) fn optional(&self, name: &str) -> candle_core::Result<Option<Operand<'a, Value>>> {
        self.find(name).map_err(candle_core::Error::msg)
    }

    /// The argument `name`.
    pub(crate) fn operand(&self, name: &str) -> candle_core::Result<Operand<'a, Value>> {
        self.optional(name)?.ok_or_else(|| candle_core::Error::Msg(format!("{name} is missing")))
    }

    /// The arguments that the list `name` holds; a single one as a list of one.
    pub(crate) fn operands(&self, name: &str) -> candle_core::Result<Vec<Operand<'a, Value>>> {
        self.find_list(name).map_err(candle_core::Error::msg)
    }

    /// The argument `name` as a tensor.
    pub(crate) fn value(&self, name: &str) -> candle_core::Result<Value> {
        self.operand(name)?.value(&self.device())
    }
}

/// The rule of an operation whose output is easier computed than said: it is run on zeros, with unknown axes of 2 and then
/// of 3 entries, and axes that differ are unknown.
pub(crate) fn probe(node: &Node<'_, Spec>, forward: Forward) -> Result<Vec<Spec>, Problem> {
    let run = |unknown: usize| -> Result<Vec<Value>, Problem> {
        let zeros = |spec: &Spec| -> Result<Value, Problem> {
            let Shape(axes) = &spec.shape;
            let dims: Vec<usize> = axes.iter().map(|axis| axis.unwrap_or(unknown)).collect();
            let size = dims.iter().try_fold(1_usize, |size, axis| size.checked_mul(*axis));
            if size.is_none_or(|size| size > MOST_PROBED) {
                let what = format!("an operand of shape {}, more than the limit of {MOST_PROBED} elements", spec.shape);
                return Err(Problem::new(ErrorKind::Limit, "", what));
            }
            let tensor = storage(spec.dtype).and_then(|dtype| Tensor::zeros(dims, dtype, &Device::Cpu));
            Ok(Value::new(tensor.map_err(|error| invalid(error.to_string()))?, spec.dtype))
        };
        let tensors = node.given.all().iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
        let given = Given { arguments: node.given.arguments, tensors: &tensors, policy: node.given.policy };
        forward(&Node { settings: node.settings, given }).map_err(|error| invalid(crate::run::said(&error)))
    };
    let (two, three) = (run(2)?, run(3)?);
    let joined = |(a, b): (Value, Value)| {
        let axes = a.tensor.dims().iter().zip(b.tensor.dims());
        let shape = Shape(axes.map(|(a, b)| (a == b).then_some(*a)).collect());
        Spec { shape, dtype: a.dtype }
    };
    Ok(two.into_iter().zip(three).map(joined).collect())
}

/// One output.
pub(crate) fn one(shape: Shape, dtype: Dtype) -> Result<Vec<Spec>, Problem> {
    Ok(vec![Spec { shape, dtype }])
}

/// `value` as `dtype`, as `tf.cast` does it: integers wrap around.
pub(crate) fn convert(value: &Value, dtype: Dtype) -> candle_core::Result<Value> {
    if value.dtype == dtype {
        return Ok(value.with_tensor(value.tensor.clone()));
    }
    let integer = |dtype: Dtype| !dtype.is_float() && dtype != Dtype::Bool && dtype != Dtype::String;
    if integer(dtype) && (integer(value.dtype) || value.dtype == Dtype::Bool) {
        return super::integers::Integers::of(value)?.value(dtype, value.tensor.device());
    }
    numeric::cast(&value.with_tensor(value.tensor.clone()), dtype)
}

/// The numbers of `value` as `dtype`, in the floats that it is computed in: half precision is rounded to, and computed in
/// float32.
pub(crate) fn floats(value: &Value, dtype: Dtype) -> candle_core::Result<Tensor> {
    let arithmetic = if dtype == Dtype::Float64 { candle_core::DType::F64 } else { candle_core::DType::F32 };
    convert(value, dtype)?.tensor.to_dtype(arithmetic)
}

/// What was computed in floats, rounded to `dtype`.
pub(crate) fn rounded(tensor: &Tensor, dtype: Dtype) -> candle_core::Result<Value> {
    Ok(Value::new(tensor.to_dtype(storage(dtype)?)?, dtype))
}
