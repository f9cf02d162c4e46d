//! Finds a layer's weights in a file as Keras finds them: by the rules of its containers, never by looking for a fit.

use std::collections::{BTreeMap, BTreeSet};

use kandle_format::{Archive, Array, Arrays, ErrorKind, Problem};

use crate::{
    LayerWeights, Weight, WeightMap,
    weights::{LegacyGroup, LegacyMember},
};

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
        let order = in_order(map, group);
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
                for member in &group.members {
                    if let Some(layer) = layers.get_mut(member.entry) {
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

/// The weights of a group of a legacy file, in its order: first what is trained, then what is not.
///
/// Keras: of a frozen model everything counts as not trained, and so does all that is in it. Before Keras became part of
/// TensorFlow, the layers of a frozen model gave what they would train first; and the outermost model's own flag did
/// nothing.
fn in_order<'a>(map: &'a WeightMap, group: &'a LegacyGroup) -> Vec<Member<'a>> {
    if !group.trainable && !map.before_tensorflow {
        return as_they_are(map, &group.members);
    }
    let trained = trained_or_not(map, &group.members, 0, true);
    let rest = trained_or_not(map, &group.members, 0, false);
    let mut order = Vec::new();
    for member in trained.into_iter().chain(rest) {
        // Keras: a layer that several models in the group share is there once.
        let before = |known: &Member<'_>| (known.entry, known.number) == (member.entry, member.number);
        if map.before_tensorflow || !order.iter().any(before) {
            order.push(member);
        }
    }
    order
}

/// The weights of `members` that are trained, or those that are not; `depth` models are around them all.
fn trained_or_not<'a>(map: &'a WeightMap, members: &'a [LegacyMember], depth: usize, trained: bool) -> Vec<Member<'a>> {
    let mut found = Vec::new();
    for block in members.chunk_by(|a, b| a.around.get(depth).is_some() && a.around.get(depth) == b.around.get(depth)) {
        let Some(first) = block.first() else { continue };
        match first.around.get(depth) {
            None => {
                let Some(layer) = map.layers.get(first.entry) else { continue };
                let of_layer = layer.weights.iter().enumerate();
                let wanted = of_layer.filter(|(_, weight)| (weight.trainable && first.trainable) == trained);
                found.extend(wanted.map(|(number, weight)| Member { entry: first.entry, number, layer, weight }));
            }
            Some((_, true)) => found.extend(trained_or_not(map, block, depth + 1, trained)),
            Some((_, false)) if trained => {}
            Some((_, false)) if map.before_tensorflow => {
                found.extend(trained_or_not(map, block, depth + 1, true));
                found.extend(trained_or_not(map, block, depth + 1, false));
            }
            Some((_, false)) => found.extend(as_they_are(map, block)),
        }
    }
    found
}

/// All weights of `members`, layer by layer.
fn as_they_are<'a>(map: &'a WeightMap, members: &'a [LegacyMember]) -> Vec<Member<'a>> {
    let of = |member: &'a LegacyMember| Some((member.entry, map.layers.get(member.entry)?));
    let weights = members.iter().filter_map(of).flat_map(|(entry, layer)| {
        layer.weights.iter().enumerate().map(move |(number, weight)| Member { entry, number, layer, weight })
    });
    weights.collect()
}

/// One weight in a group of a legacy file.
struct Member<'a> {
    entry: usize,
    number: usize,
    layer: &'a LayerWeights,
    weight: &'a Weight,
}

impl Member<'_> {
    /// Whether a legacy file's `name` begins with the name of the weight's layer, behind those of models around it.
    fn is_of_layer(&self, name: &str) -> bool {
        let own = self.layer.layer.rsplit('/').next().unwrap_or_default();
        name.split('/').rev().skip(1).any(|part| part == own)
    }

    /// Whether the weight may be called `name` in a legacy file.
    fn is_called(&self, name: &str) -> bool {
        let name = &called(name);
        // TensorFlow 1 numbers names that it has had before: `kernel_1`.
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        let plain = name.rsplit_once('_').filter(|(_, rest)| is_number(rest)).map_or(name.as_str(), |(plain, _)| plain);
        let keras = self.weight.keras;
        // Keras 3 calls the kernel of a depthwise convolution otherwise.
        let old =
            if self.layer.class.starts_with("DepthwiseConv") && keras == "kernel" { "depthwise_kernel" } else { keras };
        [name.as_str(), plain].iter().any(|name| *name == keras || *name == old)
    }
}

/// What a weight is called: the last part of its name, without the number that TensorFlow adds.
fn called(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
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
    let found: Vec<String> = names.iter().map(|name| called(name)).collect();
    // An array that candle has in parts is listed once.
    let whole = |member: &&Member<'_>| member.weight.part.is_none_or(|(part, _)| part == 0);
    let listed_once: Vec<&Member<'_>> = members.iter().filter(whole).collect();
    let expected: Vec<&str> = listed_once.iter().map(|member| member.weight.keras).collect();
    let in_order = names.len() == expected.len() && names.iter().zip(&listed_once).all(|(name, it)| it.is_called(name));
    let of_other_layers = names.iter().zip(&listed_once).any(|(name, member)| !member.is_of_layer(name));
    let by_layers = if of_other_layers || !in_order { by_names_of_layers(&names, &listed_once) } else { None };
    let names = match by_layers {
        Some(names) => Some(names),
        None if in_order => Some(names.clone()),
        None => by_their_names(&names, &found, &expected),
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

/// `names` in the order of `members`, where each names one of their layers.
///
/// Keras: the order depends on which models were frozen, and before Keras became part of TensorFlow that was not in the file.
fn by_names_of_layers(names: &[String], members: &[&Member<'_>]) -> Option<Vec<String>> {
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for member in members {
        let mut fitting = names.iter().filter(|name| member.is_of_layer(name) && member.is_called(name));
        let name = fitting.next().filter(|_| fitting.next().is_none())?;
        if !taken.insert(name) {
            return None;
        }
        found.push(name.clone());
    }
    (found.len() == names.len()).then_some(found)
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
