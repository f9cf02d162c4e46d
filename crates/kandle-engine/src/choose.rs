//! Which kernel a primitive has, and what it is called where programs are shown.

use candle_core::Tensor;
use kandle_model::{
    Model, Primitive,
    primitive::{self, Padding, Table},
};

use crate::{
    graph::{Node, Work},
    kernel::{
        Kernel,
        attention::Attention,
        convolution::{Convolution, Placed},
        depthwise::Depthwise,
        groups::GroupNormalize,
        interpolate::Interpolate,
        map::{Affine, Map, Slopes},
        matmul::MatMul,
        merge::Merge,
        moves::{Join, Margins, Permute, Repeat},
        normalize::{Normalize, Softmax},
        numbers,
        plain_attention::PlainAttention,
        pool::{Pool, PoolAll},
        product::Product,
        recurrent::{Bidirectional, Direction, Recurrent},
        rows::{Kept, Rows},
        tile::PANEL_COLUMNS,
        transposed::Transposed,
        winograd::{self, Winograd},
        with_numbers,
    },
    memory::Store,
};

/// The kernel of a primitive, its weights times `scale`, which products and convolutions alone have. `spatial` is how many cells
/// its first input has along each spatial axis, where that is known.
///
/// # Errors
/// What candle reports of the weights.
pub(crate) fn kernel_of(
    primitive: &Primitive,
    scale: Option<&[f32]>,
    spatial: Option<&[usize]>,
    adds: bool,
    map: Option<Map>,
    store: &mut Store,
) -> candle_core::Result<Option<Box<dyn Kernel>>> {
    let optional = |tensor: &Option<Tensor>| tensor.as_ref().map(numbers).transpose();
    Ok(Some(match primitive {
        Primitive::Rows { table, from_the_end } => {
            let (vocabulary, features) = table.dims()?;
            let table = match table {
                Table::InFile(stored) if store.leaves_tables => Kept::InFile(stored.clone()),
                Table::InFile(stored) => {
                    let mut kept = store.zeros(vocabulary * features);
                    stored.read_into(&mut kept);
                    Kept::Here(kept)
                }
                Table::Read(table) => {
                    let mut kept = store.zeros(vocabulary * features);
                    with_numbers(table, |numbers| kept.copy_from_slice(numbers))?;
                    Kept::Here(kept)
                }
            };
            Box::new(Rows { table, features, vocabulary, from_the_end: *from_the_end })
        }
        Primitive::Product { kernel, bias } => {
            let (features, units) = kernel.dims2()?;
            let bias = optional(bias)?;
            let product = with_numbers(kernel, |kernel| Product::new(store, (kernel, scale, bias), features, units))?;
            Box::new(Product { adds, map, ..product })
        }
        Primitive::Convolution(convolution) => {
            let dims = convolution.kernel.dims();
            let (inner, filters) = match dims {
                [.., inner, filters] => (*inner, *filters),
                _ => return Ok(None),
            };
            let (kernel, bias) = (&convolution.kernel, optional(&convolution.bias)?);
            let (windows, placed) =
                (convolution.windows.clone(), placed(convolution.padding, convolution.margins.as_ref()));
            if convolution.depthwise {
                let bias = bias.unwrap_or_else(|| vec![0.0; inner]);
                Box::new(Depthwise { kernel: numbers(kernel)?, channels: inner, bias, windows, placed, map })
            } else if convolution.is_by_row() {
                let product =
                    with_numbers(kernel, |kernel| Product::new(store, (kernel, scale, bias), inner, filters))?;
                Box::new(Product { adds, map, ..product })
            } else if is_by_patches(convolution, spatial) {
                let (sizes, form) = ((inner, filters), (windows, placed));
                let mut made = with_numbers(kernel, |kernel| Winograd::new(store, (kernel, scale, bias), sizes, form))?;
                (made.adds, made.map) = (adds, map);
                Box::new(made)
            } else {
                let sizes = (inner, filters, convolution.groups);
                let made = with_numbers(kernel, |kernel| {
                    Convolution::new(store, (kernel, scale, bias), sizes, (windows, placed))
                })?;
                Box::new(Convolution { adds, map, ..made })
            }
        }
        Primitive::Affine { scale, shift } => Box::new(Affine::new(optional(scale)?, optional(shift)?, map)),
        Primitive::Normalize { centered, epsilon, gamma, beta } => {
            let beta = optional(beta)?;
            let gamma = match (optional(gamma)?, &beta) {
                (Some(gamma), _) => gamma,
                (None, Some(beta)) => vec![1.0; beta.len()],
                (None, None) => return Ok(None),
            };
            Box::new(Normalize { centered: *centered, epsilon: *epsilon as f32, gamma, beta, map })
        }
        Primitive::NormalizeGroups { groups, epsilon, gamma, beta } => {
            let (gamma, beta) = (optional(gamma)?, optional(beta)?);
            Box::new(GroupNormalize { groups: *groups, epsilon: *epsilon, gamma, beta, map })
        }
        Primitive::Map(curve) => match Map::of(curve) {
            Some(map) => Box::new(map),
            None => return Ok(None),
        },
        Primitive::Slopes { alpha } => Box::new(Slopes { alpha: numbers(alpha)? }),
        Primitive::Softmax => Box::new(Softmax),
        Primitive::Pool { largest, windows, padding } => {
            Box::new(Pool { largest: *largest, windows: windows.clone(), placed: Placed::By(*padding) })
        }
        Primitive::PoolAll { largest, keeps_axes } => Box::new(PoolAll { largest: *largest, keeps_axes: *keeps_axes }),
        Primitive::Merge(how) => Box::new(Merge { how: *how, map }),
        Primitive::MatMul => Box::<MatMul>::default(),
        Primitive::Join { axis } => Box::new(Join { axis: *axis }),
        Primitive::Permute(order) => Box::new(Permute { order: order.clone() }),
        Primitive::Pad(margins) => Box::new(Margins { margins: margins.clone(), crops: false }),
        Primitive::Crop(margins) => Box::new(Margins { margins: margins.clone(), crops: true }),
        Primitive::Repeat(times) => Box::new(Repeat { times: times.clone() }),
        Primitive::Recurrent(recurrent) => match Direction::new(recurrent, store)? {
            Some(direction) => Box::new(Recurrent(direction)),
            None => return Ok(None),
        },
        Primitive::Bidirectional { forward, backward, merge } => {
            match (Direction::new(forward, store)?, Direction::new(backward, store)?) {
                (Some(forward), Some(backward)) => Box::new(Bidirectional::new(forward, backward, *merge)),
                _ => return Ok(None),
            }
        }
        Primitive::Transposed(transposed) => Box::new(Transposed::new(transposed, map, store)?),
        Primitive::Interpolate { times, at } => Box::new(Interpolate { times: *times, at: *at }),
        Primitive::Attention(attention) => Box::new(Attention::new(attention, adds, store)?),
        Primitive::PlainAttention(attention) => Box::new(PlainAttention::new(attention)?),
        _ => return Ok(None),
    }))
}

/// About how many numbers the kernel of a primitive holds.
pub(crate) fn numbers_of(primitive: &Primitive) -> usize {
    // Columns come in whole panels.
    let padded = |kernel: &Tensor| {
        let columns = kernel.dims().last().copied().unwrap_or(1);
        kernel.elem_count() / columns.max(1) * columns.next_multiple_of(PANEL_COLUMNS)
    };
    let of_layer =
        |layer: &primitive::Recurrent| layer.kernel.as_ref().map_or(0, padded) + padded(&layer.recurrent_kernel);
    match primitive {
        Primitive::Rows { table, .. } => table.dims().map_or(0, |(rows, features)| rows * features),
        Primitive::Product { kernel, .. } | Primitive::Transposed(primitive::Transposed { kernel, .. }) => {
            padded(kernel)
        }
        Primitive::Convolution(convolution) if !convolution.depthwise => padded(&convolution.kernel),
        Primitive::Recurrent(layer) => of_layer(layer),
        Primitive::Bidirectional { forward, backward, .. } => of_layer(forward) + of_layer(backward),
        Primitive::Attention(attention) => {
            let all = [&attention.query, &attention.key, &attention.value, &attention.output];
            all.iter().map(|(kernel, _)| padded(kernel)).sum()
        }
        _ => 0,
    }
}

/// Where the windows of a convolution lie.
pub(crate) fn placed(padding: Padding, margins: Option<&Vec<(usize, usize)>>) -> Placed {
    margins.map_or(Placed::By(padding), |margins| Placed::Within(margins.clone()))
}

fn is_by_patches(convolution: &primitive::Convolution, spatial: Option<&[usize]>) -> bool {
    winograd::pays(convolution, &placed(convolution.padding, convolution.margins.as_ref()), spatial)
}

/// What a node is called where it is shown. `spatial` as for [`kernel_of`].
pub(crate) fn shown(node: &Node, model: &Model, spatial: Option<&[usize]>) -> String {
    match &node.work {
        Work::Kernel(_, name) => name.clone(),
        Work::Mask => "mask".to_owned(),
        Work::Pairs => "mask of pairs".to_owned(),
        Work::Call => {
            let layer = model.plan().steps().get(node.step).and_then(|step| model.plan().layers().get(step.layer));
            format!("model: {}", layer.map_or("", |layer| layer.class.as_str()))
        }
        Work::Primitive { primitive, adds, map, .. } => {
            let name = match primitive {
                Primitive::Rows { .. } => "rows",
                Primitive::Product { .. } => "product",
                Primitive::Convolution(convolution) if convolution.depthwise => "depthwise convolution",
                Primitive::Convolution(convolution) if is_by_patches(convolution, spatial) => "convolution by patches",
                Primitive::Convolution(_) => "convolution",
                Primitive::Transposed(_) => "transposed convolution",
                Primitive::Interpolate { .. } => "interpolate",
                Primitive::Affine { .. } => "affine",
                Primitive::Normalize { .. } => "normalize",
                Primitive::NormalizeGroups { .. } => "normalize groups",
                Primitive::Map(_) => "map",
                Primitive::Slopes { .. } => "slopes",
                Primitive::Softmax => "softmax",
                Primitive::Pool { .. } => "pool",
                Primitive::PoolAll { .. } => "pool all",
                Primitive::Merge(_) => "merge",
                Primitive::MatMul => "product of tensors",
                Primitive::Join { .. } => "join",
                Primitive::Reshape(_) => "view",
                Primitive::Permute(_) => "permute",
                Primitive::Pad(_) => "pad",
                Primitive::Crop(_) => "crop",
                Primitive::Repeat(_) => "repeat",
                Primitive::Recurrent(_) => "recurrent",
                Primitive::Bidirectional { .. } => "bidirectional",
                Primitive::Attention(_) => "attention",
                Primitive::PlainAttention(_) => "plain attention",
                _ => "kernel",
            };
            // Those of what is one tensor are one.
            let name = match primitive {
                Primitive::Attention(attention) => {
                    let mut inputs = attention.inputs.to_vec();
                    inputs.sort_unstable();
                    inputs.dedup();
                    &format!("{name} in {} products", inputs.len() + 1)
                }
                _ => name,
            };
            let adds = if *adds { " + sum" } else { "" };
            let map = map.map_or_else(String::new, |map| format!(" + {}", map.name()));
            format!("{name}{adds}{map}")
        }
    }
}
