//! Computes what depends on constants of the graph alone, once: a position's embedding in a model that was called on a constant.

use candle_core::{Device, Tensor};
use kandle_format::Dtype;
use kandle_model::{Model, Primitive, Value};

use crate::{
    Failure, choose,
    dims::Dims,
    graph::{Graph, Node, Work},
    kernel::{Data, Operand, Run, Scratch},
    memory::Store,
    program::viewed,
    threads::Threads,
};

/// What nodes give that read nothing but constants, and neither take nor make masks, become constants too.
///
/// A node that cannot be computed stays: what is wrong is then said by the run.
pub(crate) fn fold(graph: &mut Graph, model: &Model) {
    let (mut constants, mut kept) = (std::mem::take(&mut graph.constants), Vec::with_capacity(graph.nodes.len()));
    for node in std::mem::take(&mut graph.nodes) {
        let value_of = |slot: &usize| constants.iter().find(|(of, _)| of == slot).map(|(_, value)| value.clone());
        let masked = node.masks.iter().chain(&node.made).any(Option::is_some);
        let inputs: Option<Vec<Value>> = node.inputs.iter().map(value_of).collect();
        match inputs.filter(|inputs| !inputs.is_empty() && !masked).map(|inputs| computed(&node, &inputs, model)) {
            Some(Ok(values)) => constants.extend(node.outputs.iter().copied().zip(values)),
            _ => kept.push(node),
        }
    }
    graph.nodes = kept;
    let reads = graph.reads();
    constants.retain(|(slot, _)| reads[*slot] > 0);
    graph.constants = constants;
}

/// What a node gives for these inputs.
fn computed(node: &Node, inputs: &[Value], model: &Model) -> Result<Vec<Value>, Failure> {
    match &node.work {
        Work::Primitive { primitive, .. } => Ok(vec![Value::new(by_kernel(primitive, inputs)?, Dtype::Float32)]),
        Work::Call => {
            let layer = model.plan().steps().get(node.step).and_then(|step| model.plan().layers().get(step.layer));
            // The weights of a file are not read before it is known who is called.
            match layer.filter(|layer| model.plan().weights_of(layer).is_none()) {
                Some(_) => Ok(model.run_step(node.step, inputs)?),
                None => Err(Failure::unforeseen("a layer with weights and no kernel")),
            }
        }
        Work::Kernel(..) | Work::Mask | Work::Pairs => Err(Failure::unforeseen("a mask")),
    }
}

fn by_kernel(primitive: &Primitive, inputs: &[Value]) -> Result<Tensor, Failure> {
    if let (Primitive::Reshape(axes), [only]) = (primitive, inputs) {
        let dims = viewed(Dims::new(only.tensor.dims())?, axes)?;
        return Ok(only.tensor.reshape(dims.as_slice())?);
    }
    let mut store = Store::default();
    let kernel = choose::kernel_of(primitive, None, None, false, None, &mut store)?;
    let kernel = kernel.ok_or_else(|| Failure::unforeseen("no kernel"))?;
    let dims = inputs.iter().map(|input| Dims::new(input.tensor.dims())).collect::<Result<Vec<_>, _>>()?;
    // Ids come as integers, all else as floats.
    let (mut floats, mut ids) = (Vec::new(), Vec::new());
    for input in inputs {
        let flat = input.tensor.flatten_all()?;
        let is_float = input.dtype == Dtype::Float32;
        if input.dtype.is_float() && !is_float {
            return Err(Failure::unforeseen("a constant of another dtype"));
        }
        floats.push(if is_float { flat.to_vec1::<f32>()? } else { vec![] });
        ids.push(if is_float { vec![] } else { flat.to_dtype(candle_core::DType::I64)?.to_vec1::<i64>()? });
    }
    let operand = |number: usize| Operand {
        dims: dims[number],
        data: match inputs[number].dtype {
            Dtype::Float32 => Data::F32(&floats[number]),
            _ => Data::I64(&ids[number]),
        },
    };
    let made = kernel.dims(&dims)?;
    let mut out = vec![0.0; made.count()];
    let operands: Vec<Operand<'_>> = (0..inputs.len()).map(operand).collect();
    kernel.run(Run {
        inputs: &operands,
        out: &mut out,
        dims: made,
        in_place: false,
        mask: None,
        scratch: &mut Scratch::default(),
        threads: &Threads::default(),
    })?;
    Ok(Tensor::from_vec(out, made.as_slice(), &Device::Cpu)?)
}
