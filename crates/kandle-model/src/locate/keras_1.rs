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
    name == old || name.strip_suffix(old).is_some_and(|rest| rest.ends_with('_'))
}

/// Whether some cell in the group has an array for each gate.
pub(super) fn has_gates(names: &[String]) -> bool {
    names.iter().any(|name| matches!(called(name).rsplit_once("_W_"), Some((_, "i" | "z"))))
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
            let (rest, gate) = name.split(':').next()?.rsplit_once('_')?;
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
    gates.iter().any(|gate| name.ends_with(&format!("_{array}_{gate}")))
}
