//! Mistakes in how weights are read.

use candle_core::{Result, Tensor};
use kandle_model::Weight;
use kandle_parity::Array;

use super::{Made, Mistake, OwnWeight, Target};

/// The mistakes in the weights of the layer, the plainest first.
pub(super) fn mistakes<'a>(target: &'a Target<'a>) -> Vec<Mistake<'a>> {
    let own = target.reference.weights(&target.layer.path);
    let mut found = Vec::new();
    let mut add = |says: String, numbers: Vec<(String, Tensor)>| {
        let made = move || {
            let other = |weight: &Weight| {
                let key = key_of(weight);
                numbers.iter().find(|(name, _)| *name == key).map(|(_, numbers)| numbers.clone())
            };
            target.reference.changed(&target.layer.path, &|_| {}, &other)
        };
        found.push(Mistake { says, made: Made::Model(Box::new(made)) });
    };
    let several =
        |own: &OwnWeight, all: &[OwnWeight]| all.iter().filter(|o| o.weight.keras == own.weight.keras).count() > 1;
    let named = |weight: &OwnWeight| match (several(weight, &own), weight.weight.owner.is_empty()) {
        (true, false) => format!("{} of {}", weight.weight.keras, weight.weight.owner),
        _ => weight.weight.keras.to_owned(),
    };
    for weight in own.iter().filter(|weight| !weight.weight.keras.contains("bias")) {
        for (says, numbers) in read_otherwise(weight) {
            add(format!("{} were {says}", named(weight)), vec![(key_of(&weight.weight), numbers)]);
        }
    }
    let zeros = |weight: &OwnWeight| Some((key_of(&weight.weight), weight.numbers.zeros_like().ok()?));
    let biases: Vec<&OwnWeight> = own.iter().filter(|weight| weight.weight.keras.ends_with("bias")).collect();
    let recurrent: Vec<_> = biases.iter().filter(|bias| matches!(bias.weight.part, Some((1, _)))).collect();
    if !recurrent.is_empty() {
        add("the recurrent bias were missing".to_owned(), recurrent.iter().filter_map(|bias| zeros(bias)).collect());
    }
    if biases.len() > 1 {
        for bias in biases.iter().filter(|bias| bias.weight.part.is_none()) {
            add(format!("{} were missing", named(bias)), zeros(bias).into_iter().collect());
        }
    }
    if !biases.is_empty() {
        add("bias were missing".to_owned(), biases.iter().filter_map(|bias| zeros(bias)).collect());
    }
    for (says, numbers) in gates(&own) {
        add(format!("gates were in the order {says}"), numbers);
    }
    let find = |name: &str| own.iter().find(|weight| weight.weight.keras == name);
    for (one, other) in [("moving_mean", "moving_variance")] {
        if let (Some(one), Some(other)) = (find(one), find(other)) {
            let exchanged =
                vec![(key_of(&one.weight), other.numbers.clone()), (key_of(&other.weight), one.numbers.clone())];
            add(format!("{} and {} were swapped", one.weight.keras, other.weight.keras), exchanged);
        }
    }
    if let (Some(mean), Some(variance)) = (find("moving_mean"), find("moving_variance"))
        && let Some((batch_mean, batch_variance)) = target.keras.inputs.first().and_then(|xs| statistics(xs).ok())
    {
        let of_batch = vec![(key_of(&mean.weight), batch_mean), (key_of(&variance.weight), batch_variance)];
        add("the statistics were those of the batch".to_owned(), of_batch);
    }
    found
}

/// What tells a weight from the others of its layer.
fn key_of(weight: &Weight) -> String {
    format!("{} {} {:?}", weight.owner, weight.keras, weight.part)
}

/// The numbers of a kernel read in another order, and how to say it.
fn read_otherwise(own: &OwnWeight) -> Vec<(String, Tensor)> {
    let numbers = &own.numbers;
    let mut found = Vec::new();
    let mut add = |says: &str, other: Result<Tensor>| {
        if let Ok(other) = other.and_then(|other| other.contiguous())
            && other.dims() == numbers.dims()
        {
            found.push((says.to_owned(), other));
        }
    };
    let dims = numbers.dims().to_vec();
    match dims.as_slice() {
        // Whoever forgets to transpose reads the numbers in the order in which they lie: square or not.
        [inner, outer] if own.weight.keras != "embeddings" => {
            add("transposed", numbers.reshape((*outer, *inner)).and_then(|other| other.t()));
        }
        [spatial @ .., inner, outer] if !spatial.is_empty() && own.weight.keras.contains("kernel") => {
            let axes: Vec<usize> = (0..spatial.len()).collect();
            if let [height, width] = spatial
                && height == width
            {
                add("read with height and width swapped", numbers.permute((1, 0, 2, 3)));
            }
            add("flipped", flipped(numbers, &axes));
            if inner == outer {
                add("read with its last two axes swapped", numbers.transpose(spatial.len(), spatial.len() + 1));
            }
            // As candle and PyTorch have it, with Keras's numbers in it untransposed.
            let shape = [&[*outer, *inner], spatial].concat();
            let back: Vec<usize> = (2..dims.len()).chain([1, 0]).collect();
            add("transposed", numbers.reshape(shape).and_then(|other| other.permute(back)));
        }
        _ => {}
    }
    found
}

/// The tensor turned round along `axes`.
pub(super) fn flipped(tensor: &Tensor, axes: &[usize]) -> Result<Tensor> {
    axes.iter().try_fold(tensor.clone(), |tensor, axis| tensor.contiguous()?.flip(&[*axis]))
}

/// The gates of a recurrent layer taken for one another: the order in which they were read, and the weights that makes.
fn gates(own: &[OwnWeight]) -> Vec<(String, Vec<(String, Tensor)>)> {
    let Some(recurrent) = own.iter().find(|weight| weight.weight.keras == "recurrent_kernel") else {
        return Vec::new();
    };
    let [.., units, columns] = recurrent.numbers.dims() else { return Vec::new() };
    let names: &[&str] = match columns.checked_div(*units) {
        Some(4) => &["i", "f", "c", "o"],
        Some(3) => &["z", "r", "h"],
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for order in orders(names.len()).into_iter().skip(1) {
        let others: Option<Vec<(String, Tensor)>> =
            own.iter().map(|weight| Some((key_of(&weight.weight), regated(&weight.numbers, &order)?))).collect();
        let read: Vec<&str> = order.iter().filter_map(|gate| names.get(*gate).copied()).collect();
        found.extend(others.map(|others| (read.join(", "), others)));
    }
    found
}

/// Every order of `count` things, that in which they are first.
fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |orders, _| {
        let longer = |order: Vec<usize>| {
            let left: Vec<usize> = (0..count).filter(|thing| !order.contains(thing)).collect();
            left.into_iter().map(move |thing| [order.as_slice(), &[thing]].concat()).collect::<Vec<_>>()
        };
        orders.into_iter().flat_map(longer).collect()
    })
}

/// The blocks of the last axis where block k is taken for that of gate `order[k]`.
fn regated(numbers: &Tensor, order: &[usize]) -> Option<Tensor> {
    let axis = numbers.rank().checked_sub(1)?;
    let size = numbers.dims().last()?.checked_div(order.len())?;
    let block = |gate: usize| {
        let place = order.iter().position(|taken| *taken == gate)?;
        numbers.narrow(axis, place * size, size).ok()
    };
    let blocks: Option<Vec<Tensor>> = (0..order.len()).map(block).collect();
    Tensor::cat(&blocks?, axis).ok()
}

/// Mean and variance of each channel, the last axis.
fn statistics(xs: &Array) -> Result<(Tensor, Tensor)> {
    let xs = xs.to_tensor(&candle_core::Device::Cpu)?;
    let channels = xs.dim(candle_core::D::Minus1)?;
    let xs = xs.reshape(((), channels))?;
    let mean = xs.mean(0)?;
    let variance = xs.broadcast_sub(&mean)?.sqr()?.mean(0)?;
    Ok((mean, variance))
}
