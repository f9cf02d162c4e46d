//! Finds a layer's weights in a file as Keras finds them: by the rules of its containers, never by looking for a fit.

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Archive, Array, Arrays, ErrorKind, Problem};

use crate::{LayerWeights, Weight, WeightMap, weights::LegacyGroup};

/// Where the array of each weight of `map` lies: for each layer, its arrays in the order of its weights, or what is wrong.
pub(crate) fn locate<'a>(archive: &'a Archive, map: &WeightMap) -> Located<'a> {
    if archive.weights_are_legacy() {
        return by_name(archive, map);
    }
    Located {
        layers: map.layers.iter().map(|layer| by_number(archive.arrays(), layer)).collect(),
        copies: map.layers.iter().flat_map(|layer| second_time(archive.arrays(), layer)).collect(),
    }
}

/// What was found in a file.
pub(crate) struct Located<'a> {
    /// For each layer, its arrays in the order of its weights.
    pub layers: Vec<Result<Vec<Array<'a>>, Vec<Problem>>>,
    /// Arrays that are there a second time: in legacy files those of layers that are part of several, in a weight store
    /// those of wrappers that count a weight of the layer inside among their own.
    pub copies: Vec<Array<'a>>,
}

/// The arrays of a weight store that are copies of the layer's weights.
fn second_time<'a>(arrays: &'a Arrays, layer: &LayerWeights) -> Vec<Array<'a>> {
    let copies = layer.weights.iter().filter_map(|weight| weight.copy.as_ref());
    copies.filter_map(|copy| arrays.array(&format!("{}/{copy}", layer.group))).collect()
}

/// `layers/dense/vars/0`, `…/1`: the weights of an object are numbered in the order Keras creates them.
fn by_number<'a>(arrays: &'a Arrays, layer: &LayerWeights) -> Result<Vec<Array<'a>>, Vec<Problem>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all(layer.weights.iter().map(|weight| {
        let count = counts.entry(weight.owner.as_str()).or_default();
        let number = *count;
        *count += usize::from(weight.part.is_none_or(|(part, parts)| part + 1 == parts) && weight.array.is_none());
        let group = match weight.owner.as_str() {
            "" => layer.group.clone(),
            owner => format!("{}/{owner}", layer.group),
        };
        let path = match weight.array {
            Some(name) => format!("{group}/vars/{name}"),
            None => format!("{group}/vars/{number}"),
        };
        arrays.array(&path).ok_or_else(|| {
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

/// `model_weights/<layer>/<weight name>`: the attribute `weight_names` of the group gives order and paths, first of all
/// weights that were trained, then of the others, of all that the layer holds. The last part of each name is checked: it
/// is what the weight is called.
///
/// Source: keras/src/legacy/saving/legacy_h5_format.py (`_legacy_weights`).
fn by_name<'a>(archive: &'a Archive, map: &WeightMap) -> Located<'a> {
    let mut layers: Vec<Result<Vec<Option<Array<'a>>>, Vec<Problem>>> =
        map.layers.iter().map(|layer| Ok(vec![None; layer.weights.len()])).collect();
    let mut copies = Vec::new();
    for group in &map.legacy {
        // Keras: of a frozen layer everything is untrained, and keeps its order.
        let members = || {
            let of = |entry: &usize| Some((*entry, map.layers.get(*entry)?));
            group.entries.iter().filter_map(of).flat_map(|(entry, layer)| {
                layer.weights.iter().enumerate().map(move |(number, weight)| Member { entry, number, layer, weight })
            })
        };
        let trained = |member: &Member<'_>| member.weight.trainable && member.layer.trainable;
        let order: Vec<Member<'_>> =
            members().filter(trained).chain(members().filter(|member| !trained(member))).collect();
        match in_group(archive, group, &order) {
            Ok(found) => {
                for (member, array) in order.iter().zip(found) {
                    if let Some(Ok(layer)) = layers.get_mut(member.entry)
                        && let Some(place) = layer.get_mut(member.number)
                    {
                        match place {
                            Some(_) => copies.push(array),
                            None => *place = Some(array),
                        }
                    }
                }
            }
            Err(mut problems) => {
                for entry in &group.entries {
                    if let Some(layer) = layers.get_mut(*entry) {
                        // Said once for all that lies in the group.
                        *layer = Err(std::mem::take(&mut problems));
                    }
                }
            }
        }
    }
    let complete = |layer: Result<Vec<Option<Array<'a>>>, Vec<Problem>>| {
        layer.map(|arrays| arrays.into_iter().flatten().collect())
    };
    Located { layers: layers.into_iter().map(complete).collect(), copies }
}

/// One weight in a group of a legacy file.
struct Member<'a> {
    entry: usize,
    number: usize,
    layer: &'a LayerWeights,
    weight: &'a Weight,
}

/// The arrays of a group of a legacy file for the weights `members`.
fn in_group<'a>(
    archive: &'a Archive,
    legacy: &LegacyGroup,
    members: &[Member<'_>],
) -> Result<Vec<Array<'a>>, Vec<Problem>> {
    let arrays = archive.arrays();
    let group = format!("{}{}", archive.legacy_root(), legacy.name);
    let at = match members.first() {
        Some(member) if member.layer.layer == legacy.name => place(member.layer),
        _ => format!("layer \"{}\"", kandle_format::shown(&legacy.name)),
    };
    let fail = |what: String| vec![Problem::new(ErrorKind::Weights, &at, what)];
    let names = arrays.text_list_attribute(&group, "weight_names").map_err(|error| fail(error.to_string()))?;
    let Some(names) = names else {
        return Err(fail(format!("missing: no group {}{}", arrays.place(&group), near_group(archive, &legacy.name))));
    };
    let called =
        |name: &str| name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let found: Vec<String> = names.iter().map(|name| called(name)).collect();
    // An array that candle has in parts is listed once.
    let whole = |member: &&Member<'_>| member.weight.part.is_none_or(|(part, _)| part == 0);
    let expected: Vec<&str> = members.iter().filter(whole).map(|member| member.weight.keras).collect();
    let names = match found == expected {
        true => Some(names.clone()),
        false => by_their_names(&names, &found, &expected),
    };
    let Some(names) = names else {
        let what =
            format!("expected the weights {}, found {} in {}", listed(&expected), listed(&found), arrays.place(&group));
        return Err(fail(what));
    };
    let mut names = names.iter();
    let mut current = None;
    all(members.iter().map(|member| {
        if whole(&member) {
            current = names.next();
        }
        let name = current.map(String::as_str).unwrap_or_default();
        let path = format!("{group}/{name}");
        arrays.array(&path).ok_or_else(|| {
            let what =
                format!("{}: missing: weight_names lists {}, which is not there", called(name), arrays.place(&path));
            Problem::new(ErrorKind::Weights, &at, what)
        })
    }))
}

/// `names` in the order of `expected`, where the file has the same weights in another order and no two of one name. The order
/// of a quantized layer's weights depends on whether it was quantized before it was saved, or loaded so.
fn by_their_names(names: &[String], found: &[String], expected: &[&str]) -> Option<Vec<String>> {
    let unique: BTreeSet<&String> = found.iter().collect();
    if unique.len() != found.len() || found.len() != expected.len() {
        return None;
    }
    let place = |expected: &&str| names.get(found.iter().position(|found| found == expected)?).cloned();
    expected.iter().map(place).collect()
}

/// The arrays of `archive` that belong to the model but are not `used`. Those of `incomplete` layers are left out: what is
/// wrong there was said already.
pub(crate) fn left_over<'a>(archive: &'a Archive, used: &BTreeSet<&str>, incomplete: &[&LayerWeights]) -> Vec<&'a str> {
    let legacy = archive.weights_are_legacy();
    let model = if legacy { archive.legacy_root() } else { "layers/" };
    let own = |layer: &LayerWeights| match legacy {
        true => format!("{model}{}/", layer.layer.split('/').next().unwrap_or_default()),
        false => format!("{}/", layer.group),
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

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| kandle_format::shown(name.as_ref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// How many names are compared with a missing one: a file can miss many and hold many others.
const CANDIDATES: usize = 200;

fn near(arrays: &Arrays, path: &str) -> String {
    offered(kandle_format::nearest(path, arrays.paths().filter(|other| other.starts_with("layers/")).take(CANDIDATES)))
}

fn near_group(archive: &Archive, layer: &str) -> String {
    let root = archive.legacy_root();
    let groups = archive.arrays().paths().filter_map(|path| path.strip_prefix(root)?.split('/').next());
    offered(kandle_format::nearest(layer, groups.take(CANDIDATES)))
}

fn offered(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", the nearest is {}", kandle_format::shown(near)))
}
