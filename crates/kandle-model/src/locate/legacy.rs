//! Finds weights in legacy files: a group for each layer of the outermost model, with the names of its weights in order.
//!
//! `model_weights/<layer>/<weight name>`: the attribute `weight_names` of the group gives order and paths, first of all
//! weights that were trained, then of the others, of all that the layer holds. The last part of each name is checked: it is
//! what the weight is called.
//!
//! Source: keras/src/legacy/saving/legacy_h5_format.py (`_legacy_weights`, `load_weights_from_hdf5_group`); for older files
//! tf_keras/src/saving/legacy/hdf5_format.py (`preprocess_weights_for_loading`).

use std::collections::BTreeSet;

use kandle_format::{Archive, Arrays, ErrorKind, Problem, keras_major};

use super::{CANDIDATES, Located, all, keras_1, offered, place};
use crate::{
    LayerWeights, Layout, Weight, WeightMap,
    source::{Form, Source},
    weights::{LegacyGroup, LegacyMember},
};

/// Finds the arrays of every layer.
pub(super) fn locate<'a>(archive: &'a Archive, map: &WeightMap) -> Located<'a> {
    let mut layers: Vec<Result<Vec<Option<Source<'a>>>, Vec<Problem>>> =
        map.layers.iter().map(|layer| Ok(vec![None; layer.weights.len()])).collect();
    let mut copies = Vec::new();
    let groups = match names_of_groups(archive, map) {
        Ok(groups) => groups,
        Err(problem) => {
            let layers = layers
                .iter()
                .enumerate()
                .map(|(number, _)| Err(if number == 0 { vec![problem.clone()] } else { Vec::new() }));
            return Located { layers: layers.collect(), copies };
        }
    };
    for (group, name) in map.legacy.iter().zip(groups) {
        let order = in_order(map, group);
        match in_group(archive, group, &name, &order) {
            Ok(found) => {
                for (member, source) in order.iter().zip(found) {
                    if let Some(Ok(layer)) = layers.get_mut(member.entry)
                        && let Some(place) = layer.get_mut(member.number)
                    {
                        match place {
                            Some(_) => copies.extend(source.arrays().copied()),
                            None => *place = Some(source),
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
    let complete = |(layer, weights): (Result<Vec<Option<Source<'a>>>, Vec<Problem>>, &LayerWeights)| {
        layer.map(|sources| of_cudnn(weights, sources.into_iter().flatten().collect()))
    };
    Located { layers: layers.into_iter().zip(&map.layers).map(complete).collect(), copies }
}

/// The name of the group in the file for each group of `map`.
///
/// Keras: a file of weights alone is read in the order of its layers, whatever they are called; a whole model has its own
/// names.
fn names_of_groups(archive: &Archive, map: &WeightMap) -> Result<Vec<String>, Problem> {
    let own = || map.legacy.iter().map(|group| group.name.clone()).collect::<Vec<String>>();
    let (arrays, root) = (archive.arrays(), archive.legacy_root());
    let problem = |what: String| Problem::new(ErrorKind::Weights, arrays.place(root.trim_end_matches('/')), what);
    let listed = arrays.text_list_attribute(root.trim_end_matches('/'), "layer_names");
    let Some(listed) = listed.map_err(|error| problem(error.to_string()))? else { return Ok(own()) };
    let mut with_weights = Vec::new();
    for name in listed {
        let names = arrays.text_list_attribute(&format!("{root}{name}"), "weight_names");
        if names.map_err(|error| problem(error.to_string()))?.is_some_and(|names| !names.is_empty()) {
            with_weights.push(name);
        }
    }
    if map.legacy.iter().any(|group| group.is_unnamed) {
        // Keras: names are of no meaning where it opens a file, the order is; here those that are known must fit too.
        let fits = |(group, name): (&LegacyGroup, &String)| group.is_unnamed || group.name == *name;
        let fit = !archive.weights_are_its_own() || map.legacy.iter().zip(&with_weights).all(fits);
        return Ok(if fit && with_weights.len() == map.legacy.len() { with_weights } else { own() });
    }
    let known: BTreeSet<&String> = with_weights.iter().collect();
    if map.legacy.iter().all(|group| known.contains(&group.name)) {
        let in_order = map.legacy.iter().map(|group| &group.name).eq(&with_weights);
        if !in_order && !archive.weights_are_its_own() && known.len() == map.legacy.len() {
            let what = "the layers have the names of the model's, but another order: Keras would read them in this order, whatever their names. If the names are right, save the whole model";
            return Err(problem(what.to_owned()));
        }
        return Ok(own());
    }
    Ok(if with_weights.len() == map.legacy.len() && !archive.weights_are_its_own() { with_weights } else { own() })
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
                let mut wanted: Vec<(usize, &Weight)> = wanted.collect();
                if map.before_tensorflow {
                    // Keras: a frozen layer gave what it would train first, which is of note where a model is inside it.
                    wanted.sort_by_key(|(_, weight)| !weight.trainable);
                }
                let member = |(number, weight)| Member { entry: first.entry, number, layer, weight };
                found.extend(wanted.into_iter().map(member));
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

/// What wrappers and cells call what is inside them.
const PLACES: &[&str] = &["layer", "cell", "forward_layer", "backward_layer"];

/// One weight in a group of a legacy file.
pub(super) struct Member<'a> {
    pub entry: usize,
    pub number: usize,
    pub layer: &'a LayerWeights,
    pub weight: &'a Weight,
}

impl Member<'_> {
    /// Whether a legacy file's `name` begins with the name of the weight's layer, behind those of models around it.
    pub(super) fn is_of_layer(&self, name: &str, keras_1: bool) -> bool {
        let own = self.name_of_layer();
        if keras_1 {
            return name.strip_prefix(own).is_some_and(|rest| rest.starts_with('_'));
        }
        name.split('/').rev().skip(1).any(|part| part == own)
    }

    /// The name of the layer that has the weight: one inside a model inside a wrapper, where it is there.
    pub(super) fn name_of_layer(&self) -> &str {
        let within = self.weight.owner.contains("layers/").then(|| self.weight.candle.rsplit('.').skip(1));
        let named = within.into_iter().flatten().find(|part| !PLACES.contains(part));
        named.unwrap_or_else(|| self.layer.layer.rsplit('/').next().unwrap_or_default())
    }

    /// Whether the weight may be called `name` in a legacy file.
    fn is_called(&self, name: &str, keras_1: bool) -> bool {
        let name = &called(name);
        let keras = self.weight.keras;
        if keras_1 {
            return keras_1::is_called(name, keras);
        }
        // TensorFlow 1 numbers names that it has had before: `kernel_1`.
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        let plain = name.rsplit_once('_').filter(|(_, rest)| is_number(rest)).map_or(name.as_str(), |(plain, _)| plain);
        // Keras 3 calls the kernel of a depthwise convolution otherwise.
        let old =
            if self.layer.class.starts_with("DepthwiseConv") && keras == "kernel" { "depthwise_kernel" } else { keras };
        [name.as_str(), plain].iter().any(|name| *name == keras || *name == old)
    }
}

/// What a weight is called: the last part of its name, without the number that TensorFlow adds.
pub(super) fn called(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
}

/// Where the weights `members` come from, all of which lie in the group `name`.
fn in_group<'a>(
    archive: &'a Archive,
    legacy: &LegacyGroup,
    name: &str,
    members: &[Member<'_>],
) -> Result<Vec<Source<'a>>, Vec<Problem>> {
    let arrays = archive.arrays();
    let group = format!("{}{name}", archive.legacy_root());
    let at = match members.first() {
        Some(member) if member.layer.layer == legacy.name => place(member.layer),
        _ => format!("layer \"{}\"", kandle_format::shown(&legacy.name)),
    };
    let fail = |what: String| vec![Problem::new(ErrorKind::Weights, &at, what)];
    let names = arrays.text_list_attribute(&group, "weight_names").map_err(|error| fail(error.to_string()))?;
    let Some(names) = names else {
        return Err(fail(format!("missing: no group {}{}", arrays.place(&group), near_group(archive, &legacy.name))));
    };
    let keras_1 = keras_major(archive.legacy_weights_version()) < 2;
    // An array that candle has in parts is listed once.
    let whole = |member: &&Member<'_>| member.weight.part.is_none_or(|(part, _)| part == 0);
    let once: Vec<&Member<'_>> = members.iter().filter(whole).collect();
    let wanted = wanted_names(&names, &once, keras_1);
    let Some(wanted) = wanted else {
        let found: Vec<String> = names.iter().map(|name| called(name)).collect();
        let expected: Vec<&str> = once.iter().map(|member| member.weight.keras).collect();
        let what =
            format!("expected the weights {}, found {} in {}", listed(&expected), listed(&found), arrays.place(&group));
        return Err(fail(what));
    };
    let theano = is_of_theano(archive, &names, keras_1);
    let mut wanted = wanted.iter();
    let mut current: Option<Source<'a>> = None;
    all(members.iter().map(|member| {
        let problem = |what: String| Problem::new(ErrorKind::Weights, &at, what);
        if whole(&member) {
            let parts = wanted.next().map(Vec::as_slice).unwrap_or_default();
            let source = source_of(arrays, &group, parts).map_err(problem)?;
            current = Some(
                in_form(source, member, keras_1, theano)
                    .map_err(|what| Problem::new(ErrorKind::Unsupported, &at, what))?,
            );
        }
        current.clone().ok_or_else(|| problem(format!("{}: missing", member.weight.keras)))
    }))
}

/// For each weight of `members` the names of its arrays: one, or as many as are joined to it.
fn wanted_names(names: &[String], members: &[&Member<'_>], keras_1: bool) -> Option<Vec<Vec<String>>> {
    let one = |names: Vec<String>| names.into_iter().map(|name| vec![name]).collect();
    if keras_1 && keras_1::has_gates(names) {
        return keras_1::by_layer(names, members).or_else(|| keras_1::wanted_names(names, members));
    }
    let pairs = || names.iter().zip(members);
    let in_order = names.len() == members.len() && pairs().all(|(name, member)| member.is_called(name, keras_1));
    let of_other_layers = pairs().any(|(name, member)| !member.is_of_layer(name, keras_1));
    if (of_other_layers || !in_order)
        && let Some(names) = by_names_of_layers(names, members, keras_1)
    {
        return Some(one(names));
    }
    if in_order {
        return Some(one(names.to_vec()));
    }
    by_their_names(names, members).map(one)
}

fn source_of<'a>(arrays: &'a Arrays, group: &str, names: &[String]) -> Result<Source<'a>, String> {
    let mut found = Vec::new();
    for name in names {
        let path = format!("{group}/{name}");
        let missing =
            || format!("{}: missing: weight_names lists {}, which is not there", called(name), arrays.place(&path));
        found.push(arrays.array(&path).ok_or_else(missing)?);
    }
    let mut found = found.into_iter();
    let first = found.next().ok_or("a weight without a name")?;
    Ok(Source::joined(first, found.collect()))
}

/// Whether the weights of `archive` were written by Keras on Theano.
pub(crate) fn is_written_on_theano(archive: &Archive) -> bool {
    if !archive.weights_are_legacy() {
        return false;
    }
    let (arrays, root) = (archive.arrays(), archive.legacy_root());
    let keras_1 = keras_major(archive.legacy_weights_version()) < 2;
    let groups =
        arrays.text_list_attribute(root.trim_end_matches('/'), "layer_names").ok().flatten().unwrap_or_default();
    let names = |group: &String| arrays.text_list_attribute(&format!("{root}{group}"), "weight_names").ok().flatten();
    let all: Vec<String> = groups.iter().filter_map(names).flatten().collect();
    is_of_theano(archive, &all, keras_1)
}

/// Whether the weights were written by Keras on Theano, which flips the kernels of convolutions.
///
/// Keras: version 1 does not say so, but TensorFlow's names end in `:0`, and Theano's do not.
fn is_of_theano(archive: &Archive, names: &[String], keras_1: bool) -> bool {
    match archive.legacy_weights_backend() {
        Some(backend) => backend == "theano",
        // A file without weights may be of either.
        None => keras_1 && (names.is_empty() || names.iter().any(|name| !name.contains(':'))),
    }
}

/// The numbers of `source` in the order of Keras 2 and 3.
fn in_form<'a>(source: Source<'a>, member: &Member<'_>, keras_1: bool, theano: bool) -> Result<Source<'a>, String> {
    let (weight, class) = (member.weight, member.layer.class.as_str());
    let found = source.shape();
    let mut axes: Vec<usize> = (0..found.len()).collect();
    if keras_1
        && let Some(old) = weight.old_axes.iter().find(|old| {
            let shape: Option<Vec<usize>> = old.iter().map(|axis| found.get(*axis).copied()).collect();
            let rest: usize =
                (0..found.len()).filter(|axis| !old.contains(axis)).filter_map(|axis| found.get(axis)).product();
            shape.as_deref() == Some(&weight.shape) && rest == 1
        })
    {
        axes = old.to_vec();
    }
    let convolves = weight.layout == Layout::ConvKernel || (class.starts_with("ConvLSTM") && weight.shape.len() > 2);
    let flipped = if theano && convolves { axes.len().saturating_sub(2) } else { 0 };
    if theano && (matches!(weight.layout, Layout::DepthwiseKernel { .. }) || class.starts_with("Separable")) {
        return Err("a depthwise convolution of Keras on Theano is not supported".to_owned());
    }
    let as_it_is = flipped == 0 && axes.iter().copied().eq(0..found.len());
    Ok(if as_it_is { source } else { source.in_form(Form::Moved { axes, flipped }) })
}

/// The sources of a layer's weights, where the file has them as cuDNN does and the layer is a plain one.
///
/// Keras: such a file is known by its bias, which is twice as long.
fn of_cudnn<'a>(layer: &LayerWeights, sources: Vec<Source<'a>>) -> Vec<Source<'a>> {
    let is_doubled = |weight: &Weight, source: &Source<'a>| {
        let expected = weight.file_shape();
        let numbers: usize = expected.iter().product();
        let doubled = if expected.len() == 1 { numbers.saturating_mul(2) } else { numbers };
        weight.keras == "bias" && weight.candle.starts_with("bias_") && !weight.flat && source.shape() == [doubled]
    };
    let pairs = || layer.weights.iter().zip(&sources);
    let owners: BTreeSet<&str> = pairs()
        .filter(|(weight, source)| source.shape() != weight.file_shape() && is_doubled(weight, source))
        .map(|(weight, _)| weight.owner.as_str())
        .collect();
    if owners.is_empty() {
        return sources;
    }
    let converted = |(weight, source): (&Weight, Source<'a>)| {
        if !owners.contains(weight.owner.as_str()) {
            return source;
        }
        let gates = if weight.layout == Layout::ResetGateFirst { 3 } else { 4 };
        match weight.keras {
            "bias" if weight.part.is_some() => source.in_form(Form::CudnnRows),
            "bias" => source.in_form(Form::CudnnSum),
            "kernel" => source.in_form(Form::CudnnKernel { gates, square: false }),
            "recurrent_kernel" => source.in_form(Form::CudnnKernel { gates, square: true }),
            _ => source,
        }
    };
    layer.weights.iter().zip(sources).map(converted).collect()
}

/// `names` in the order of `members`, where each names one of their layers.
///
/// Keras: the order depends on which models were frozen, and before Keras became part of TensorFlow that was not in the file.
fn by_names_of_layers(names: &[String], members: &[&Member<'_>], keras_1: bool) -> Option<Vec<String>> {
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for member in members {
        let fits = |name: &&String| member.is_of_layer(name, keras_1) && member.is_called(name, keras_1);
        let mut fitting = names.iter().filter(fits);
        let name = fitting.next().filter(|_| fitting.next().is_none())?;
        if !taken.insert(name) {
            return None;
        }
        found.push(name.clone());
    }
    (found.len() == names.len()).then_some(found)
}

/// `names` in the order of `members`, where the file has the same weights in another order and no two of one name. The order of
/// a quantized layer's weights depends on whether it was quantized before it was saved, or loaded so.
fn by_their_names(names: &[String], members: &[&Member<'_>]) -> Option<Vec<String>> {
    let found: Vec<String> = names.iter().map(|name| called(name)).collect();
    let unique: BTreeSet<&String> = found.iter().collect();
    if unique.len() != found.len() || found.len() != members.len() {
        return None;
    }
    let place = |member: &&Member<'_>| names.get(found.iter().position(|found| found == member.weight.keras)?).cloned();
    members.iter().map(place).collect()
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| kandle_format::shown(name.as_ref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn near_group(archive: &Archive, layer: &str) -> String {
    let root = archive.legacy_root();
    let groups = archive.arrays().paths().filter_map(|path| path.strip_prefix(root)?.split('/').next());
    offered(kandle_format::nearest(layer, groups.take(CANDIDATES)))
}
