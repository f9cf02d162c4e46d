//! Finds a layer's weights in a file as Keras finds them: by the rules of its containers, never by looking for a fit.

mod keras_1;
mod legacy;

pub(crate) use legacy::is_written_on_theano;

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Archive, Array, Arrays, ErrorKind, Problem};

use crate::{LayerWeights, WeightMap, source::Source};

/// Where the array of each weight of `map` lies: for each layer, its arrays in the order of its weights, or what is wrong.
pub(crate) fn locate<'a>(archive: &'a Archive, map: &WeightMap) -> Located<'a> {
    if archive.weights_are_legacy() {
        return legacy::locate(archive, map);
    }
    Located {
        layers: map.layers.iter().map(|layer| by_number(archive.arrays(), layer)).collect(),
        copies: map.layers.iter().flat_map(|layer| second_time(archive.arrays(), layer)).collect(),
    }
}

/// What was found in a file.
pub(crate) struct Located<'a> {
    /// For each layer, where its weights come from, in their order.
    pub layers: Vec<Result<Vec<Source<'a>>, Vec<Problem>>>,
    /// Arrays that are there a second time: in legacy files those of layers that are part of several, in a weight store
    /// those of wrappers that count a weight of the layer inside among their own.
    pub copies: Vec<Array<'a>>,
}

/// The arrays of a weight store that are copies of the layer's weights.
fn second_time<'a>(arrays: &'a Arrays, layer: &LayerWeights) -> Vec<Array<'a>> {
    let copies = layer.weights.iter().filter_map(|weight| weight.copy.as_ref());
    copies.filter_map(|copy| arrays.array(&format!("{}/{copy}", layer.group_in(arrays)))).collect()
}

/// `layers/dense/vars/0`, `…/1`: the weights of an object are numbered in the order Keras creates them.
fn by_number<'a>(arrays: &'a Arrays, layer: &LayerWeights) -> Result<Vec<Source<'a>>, Vec<Problem>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all(layer.weights.iter().map(|weight| {
        let twice = weight.owner_named_twice.as_deref().filter(|_| arrays.names_layers_twice());
        let owner = twice.unwrap_or(&weight.owner);
        let count = counts.entry(owner).or_default();
        let number = *count;
        *count += usize::from(weight.part.is_none_or(|(part, parts)| part + 1 == parts) && weight.array.is_none());
        let group = match owner {
            "" => layer.group_in(arrays).to_owned(),
            owner => format!("{}/{owner}", layer.group_in(arrays)),
        };
        let path = match weight.array {
            Some(name) => format!("{group}/vars/{name}"),
            None => format!("{group}/vars/{number}"),
        };
        arrays.array(&path).map(Source::of).ok_or_else(|| {
            let what = format!(
                "{}: missing: expected {:?} in {}{}",
                weight.keras,
                weight.file_shape(),
                arrays.place(&path),
                near(arrays, &path)
            );
            Problem::new(ErrorKind::Weights, place(layer), what)
        })
    }))
}

/// The arrays of `archive` that belong to the model but are not `used`. Those of `incomplete` layers are left out: what is
/// wrong there was said already.
pub(crate) fn left_over<'a>(archive: &'a Archive, used: &BTreeSet<&str>, incomplete: &[&LayerWeights]) -> Vec<&'a str> {
    let legacy = archive.weights_are_legacy();
    let model = if legacy { archive.legacy_root() } else { "layers/" };
    let own = |layer: &LayerWeights| match legacy {
        true => format!("{model}{}/", layer.layer.split('/').next().unwrap_or_default()),
        false => format!("{}/", layer.group_in(archive.arrays())),
    };
    let said: Vec<String> = incomplete.iter().copied().map(own).collect();
    let paths = archive.arrays().paths().filter(|path| path.starts_with(model) && !used.contains(path));
    paths.filter(|path| !said.iter().any(|group| path.starts_with(group))).collect()
}

/// The groups of `archive` that are no part of the model's weights, with the number of arrays in each: the optimizer's
/// state.
pub(crate) fn ignored(archive: &Archive) -> Vec<(String, usize)> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    let model = if archive.weights_are_legacy() { archive.legacy_root() } else { "layers/" };
    for path in archive.arrays().paths().filter(|path| !path.starts_with(model)) {
        let group = path.split('/').next().unwrap_or_default();
        match groups.iter_mut().find(|known| known.0 == group) {
            Some(known) => known.1 += 1,
            None => groups.push((group.to_owned(), 1)),
        }
    }
    groups
}

pub(crate) fn place(layer: &LayerWeights) -> String {
    format!("layer \"{}\" ({})", kandle_format::shown(&layer.layer), kandle_format::shown(&layer.class))
}

/// All of `results`, or every problem among them.
fn all<T>(results: impl Iterator<Item = Result<T, Problem>>) -> Result<Vec<T>, Vec<Problem>> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(item) => found.push(item),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// How many names are compared with a missing one: a file can miss many and hold many others.
const CANDIDATES: usize = 200;

fn near(arrays: &Arrays, path: &str) -> String {
    offered(kandle_format::nearest(path, arrays.paths().filter(|other| other.starts_with("layers/")).take(CANDIDATES)))
}

fn offered(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", the nearest is {}", kandle_format::shown(near)))
}
