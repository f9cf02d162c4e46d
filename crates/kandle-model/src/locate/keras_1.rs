//! What weights are called in files of Keras 1: `dense_1_W`, and for each gate of a cell an array of its own, `lstm_1_W_i`.
//!
//! Source: keras/layers/*.py of Keras 1.2; keras/engine/saving.py of Keras 2.2 (`preprocess_weights_for_loading`).

use std::collections::BTreeMap;

use super::legacy::{Member, called};

/// The gates of cells in Keras 2's order, with what the arrays of a cell have between them.
const GATES: [&[&str]; 2] = [&["i", "f", "c", "o"], &["z", "r", "h"]];

/// Keras 1's names for what Keras 3 calls otherwise.
const NAMES: &[(&str, &str)] = &[
    ("kernel", "W"),
    ("recurrent_kernel", "U"),
    ("bias", "b"),
    ("embeddings", "W"),
    ("moving_mean", "running_mean"),
    ("moving_variance", "running_std"),
    ("alpha", "alphas"),
];

fn old_name(keras: &str) -> &str {
    NAMES.iter().find(|(new, _)| *new == keras).map_or(keras, |(_, old)| old)
}

/// Whether Keras 1 may call the weight `keras` of a layer `name`.
pub(super) fn is_called(name: &str, keras: &str) -> bool {
    let old = old_name(keras);
    [name, plain(name)]
        .iter()
        .any(|name| *name == old || name.strip_suffix(old).is_some_and(|rest| rest.ends_with('_')))
}

/// `name` without the number that TensorFlow adds to one that it has had before: `dense_1_W_1`.
fn plain(name: &str) -> &str {
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once('_').filter(|(_, rest)| is_number(rest)).map_or(name, |(plain, _)| plain)
}

/// Whether some cell in the group has an array for each gate.
pub(super) fn has_gates(names: &[String]) -> bool {
    names.iter().any(|name| matches!(plain(&called(name)).rsplit_once("_W_"), Some((_, "i" | "z"))))
}

/// As [`wanted_names`], layer by layer, where each name begins with that of one layer.
///
/// Keras: the order of the layers depends on which models were frozen, which is not in the file.
pub(super) fn by_layer(names: &[String], members: &[&Member<'_>]) -> Option<Vec<Vec<String>>> {
    let mut of_layers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for name in names {
        let fitting = members.iter().filter(|member| member.is_of_layer(name, true));
        let longest = fitting.clone().map(|member| member.name_of_layer().len()).max()?;
        let mut entries = fitting.filter(|member| member.name_of_layer().len() == longest).map(|member| member.entry);
        let entry = entries.next()?;
        if entries.any(|other| other != entry) {
            return None;
        }
        of_layers.entry(entry).or_default().push(name.clone());
    }
    let mut found = vec![Vec::new(); members.len()];
    for (entry, names) in of_layers {
        let of_layer = || members.iter().zip(0_usize..).filter(|(member, _)| member.entry == entry);
        let own: Vec<&Member<'_>> = of_layer().map(|(member, _)| *member).collect();
        for ((_, place), wanted) in of_layer().zip(wanted_names(&names, &own)?) {
            *found.get_mut(place)? = wanted;
        }
    }
    found.iter().all(|names| !names.is_empty()).then_some(found)
}

/// For each weight of `members` the names of its arrays, where some of them are cells with an array for each gate.
pub(super) fn wanted_names(names: &[String], members: &[&Member<'_>]) -> Option<Vec<Vec<String>>> {
    let (mut names, mut members) = (names.iter(), members.iter().peekable());
    let mut found = Vec::new();
    while let Some(member) = members.next() {
        let name = names.next()?;
        let Some(gates) =
            GATES.iter().find(|gates| ends_with_gate(name, "W", gates)).filter(|_| member.weight.keras == "kernel")
        else {
            if !is_called(&called(name), member.weight.keras) {
                return None;
            }
            found.push(vec![name.clone()]);
            continue;
        };
        // The cell's other weights follow, the arrays of its gates in turns.
        let mut own = vec![member.weight.keras];
        while let Some(next) = members.next_if(|next| {
            (next.entry, &next.weight.owner) == (member.entry, &member.weight.owner) && next.weight.keras != "kernel"
        }) {
            own.push(next.weight.keras);
        }
        let mut by_ending: BTreeMap<String, String> = BTreeMap::new();
        let others = names.by_ref().take(own.len() * gates.len() - 1);
        for name in std::iter::once(name).chain(others) {
            let whole = called(name);
            let (rest, gate) = plain(&whole).rsplit_once('_')?;
            let (_, array) = rest.rsplit_once('_')?;
            by_ending.insert(format!("{array}_{gate}"), name.clone());
        }
        for keras in own {
            let array = old_name(keras);
            let of_gates = gates.iter().map(|gate| by_ending.get(&format!("{array}_{gate}")).cloned());
            found.push(of_gates.collect::<Option<Vec<String>>>()?);
        }
    }
    names.next().is_none().then_some(found)
}

fn ends_with_gate(name: &str, array: &str, gates: &[&str]) -> bool {
    let name = called(name);
    gates.iter().any(|gate| plain(&name).ends_with(&format!("_{array}_{gate}")))
}
