//! Finds a layer's weights in a file as Keras finds them: by the rules of its containers, never by looking for a fit.

use std::collections::BTreeSet;

use kandle_format::{Archive, Array, Container, ErrorKind, Hdf5File, Problem};

use crate::LayerWeights;

/// The arrays of one layer, in the order of its weights; or the problems.
pub(crate) fn locate<'a>(archive: &'a Archive, layer: &LayerWeights) -> Result<Vec<Array<'a>>, Vec<Problem>> {
    match archive.container() {
        Container::Legacy => by_name(archive.arrays(), layer),
        _ => by_number(archive.arrays(), layer),
    }
}

/// `layers/dense/vars/0`, `…/1`: a layer's weights are numbered in the order Keras creates them.
fn by_number<'a>(arrays: &'a Hdf5File, layer: &LayerWeights) -> Result<Vec<Array<'a>>, Vec<Problem>> {
    let missing = |(index, weight): (usize, &crate::Weight)| {
        let path = format!("{}/vars/{index}", layer.group);
        arrays.array(&path).ok_or_else(|| {
            let what = format!(
                "{}: missing: expected {:?} in {}{}",
                weight.keras,
                weight.shape,
                arrays.place(&path),
                near(arrays, &path)
            );
            Problem::new(ErrorKind::Weights, place(layer), what)
        })
    };
    all(layer.weights.iter().enumerate().map(missing))
}

/// `model_weights/<layer>/<weight name>`: the attribute `weight_names` of the layer's group gives order and paths.
/// The last part of each name is checked: it is what the weight is called.
fn by_name<'a>(arrays: &'a Hdf5File, layer: &LayerWeights) -> Result<Vec<Array<'a>>, Vec<Problem>> {
    let group = format!("model_weights/{}", layer.layer);
    let fail = |what: String| vec![Problem::new(ErrorKind::Weights, place(layer), what)];
    let names = arrays.text_list_attribute(&group, "weight_names").map_err(|error| fail(error.to_string()))?;
    let Some(names) = names else {
        return Err(fail(format!("missing: no group {}{}", arrays.place(&group), near_group(arrays, &layer.layer))));
    };
    let called =
        |name: &str| name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let found: Vec<String> = names.iter().map(|name| called(name)).collect();
    let expected: Vec<&str> = layer.weights.iter().map(|weight| weight.keras).collect();
    // Keras: .keras and .weights.h5 hold the kernel with LoRA merged into it, legacy files hold the parts.
    if found.iter().any(|name| name.starts_with("lora_")) {
        let what = "LoRA weights that are not merged into the layer's own are not supported: save the model as .keras, which merges them";
        return Err(vec![Problem::new(ErrorKind::Unsupported, place(layer), what)]);
    }
    if found != expected {
        let what =
            format!("expected the weights {}, found {} in {}", listed(&expected), listed(&found), arrays.place(&group));
        return Err(fail(what));
    }
    all(names.iter().map(|name| {
        let path = format!("{group}/{name}");
        arrays.array(&path).ok_or_else(|| {
            let what =
                format!("{}: missing: weight_names lists {}, which is not there", called(name), arrays.place(&path));
            Problem::new(ErrorKind::Weights, place(layer), what)
        })
    }))
}

/// The arrays of `archive` that belong to the model but are not `used`. Those of `incomplete` layers are left out: what is
/// wrong there was said already.
pub(crate) fn left_over<'a>(archive: &'a Archive, used: &BTreeSet<&str>, incomplete: &[&LayerWeights]) -> Vec<&'a str> {
    let (model, own): (_, fn(&LayerWeights) -> String) = match archive.container() {
        Container::Legacy => ("model_weights/", |layer| format!("model_weights/{}/", layer.layer)),
        _ => ("layers/", |layer| format!("{}/", layer.group)),
    };
    let said: Vec<String> = incomplete.iter().map(|layer| own(layer)).collect();
    let paths = archive.arrays().paths().filter(|path| path.starts_with(model) && !used.contains(path));
    paths.filter(|path| !said.iter().any(|group| path.starts_with(group))).collect()
}

/// The groups of `archive` that are no part of the model's weights, with the number of arrays in each: the optimizer's
/// state.
pub(crate) fn ignored(archive: &Archive) -> Vec<(String, usize)> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for path in archive.arrays().paths() {
        let group = path.split('/').next().unwrap_or_default();
        if matches!(group, "layers" | "model_weights") {
            continue;
        }
        match groups.iter_mut().find(|known| known.0 == group) {
            Some(known) => known.1 += 1,
            None => groups.push((group.to_owned(), 1)),
        }
    }
    groups
}

pub(crate) fn place(layer: &LayerWeights) -> String {
    format!("layer \"{}\" ({})", kandle_format::shown(&layer.layer), layer.class)
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

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| kandle_format::shown(name.as_ref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// How many names are compared with a missing one: a file can miss many and hold many others.
const CANDIDATES: usize = 200;

fn near(arrays: &Hdf5File, path: &str) -> String {
    offered(kandle_format::nearest(path, arrays.paths().filter(|other| other.starts_with("layers/")).take(CANDIDATES)))
}

fn near_group(arrays: &Hdf5File, layer: &str) -> String {
    let groups = arrays.paths().filter_map(|path| path.strip_prefix("model_weights/")?.split('/').next());
    offered(kandle_format::nearest(layer, groups.take(CANDIDATES)))
}

fn offered(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", the nearest is {}", kandle_format::shown(near)))
}
