//! What README says is true, every layer has recorded cases, and no tolerance is looser than the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kandle::{
    Archive, Family, Function, Judged, Limits, Plan, Registered,
    parity::{Case, Rule, Subject, find_cases},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn cases() -> Vec<Case> {
    let folders = find_cases(Path::new(ROOT).join("reference_outputs")).unwrap();
    folders.into_iter().map(|folder| Case::open(folder).unwrap()).collect()
}

/// What stands between the marks `<!-- name -->` and `<!-- /name -->` of the README.
fn readme(name: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0.to_owned()
}

#[test]
fn readme_lists_the_layers_of_the_registry() {
    let mut table = "| family | layers |\n|---|---|\n".to_owned();
    let families: BTreeSet<Family> = kandle::layers().map(|layer| layer.family).collect();
    for family in families {
        let of_family = kandle::layers().filter(|layer| layer.family == family);
        let classes: Vec<&str> = of_family.map(|layer| layer.class).collect();
        table.push_str(&format!("| {} | {} |\n", family.name(), classes.join(", ")));
    }
    assert_eq!(readme("layers"), table, "the table of the registry:\n{table}");
    let names: Vec<&str> = Function::names().collect();
    let list = format!("{}\n", names.join(", "));
    assert_eq!(readme("activations"), list, "the list of the registry:\n{list}");
}

/// README's figures are those of the recorded cases.
#[test]
fn we_are_at_most_twice_as_far_from_the_truth_as_keras() {
    let mut rows = "| recorded case | largest number | Keras's largest error |\n|---|---|---|\n".to_owned();
    let mut checked = 0;
    for case in cases().iter().filter(|case| case.expect.is_none()) {
        let Some(truth) = kandle::verify(&case.path).truth() else { continue };
        assert!(truth.truth_ratio <= 2.0, "{}: {truth:?}", case.path.display());
        checked += 1;
        let name = case.path.strip_prefix(Path::new(ROOT).join("reference_outputs")).unwrap().display().to_string();
        if ["example3/2x3", "example3/4x16", "models/Sequential/stack"].contains(&name.as_str()) {
            let scale = case.output(0).unwrap().scale();
            rows.push_str(&format!("| {name} | {scale:.1} | {:.1e} |\n", truth.keras_error));
        }
    }
    assert!(checked > 100, "only {checked} cases have a float64 truth");
    assert_eq!(readme("truth"), rows, "the rows as recorded:\n{rows}");
}

/// Cases from Keras's test suite whose `.weights.h5` is further away, as it is in Keras: saving merges the LoRA matrices into
/// a quantized kernel and quantizes the sum anew, and the truth was recorded from `model.keras`.
const SAVED_ROUNDED: [&str; 4] =
    ["models/Sequential/065", "models/Sequential/076", "models/Sequential/095", "models/Sequential/099"];

#[test]
fn the_same_holds_for_the_cases_from_keras() {
    let suite = Path::new(ROOT).join("../shared/cases/suite");
    if !suite.is_dir() {
        return;
    }
    let mut far = Vec::new();
    for folder in find_cases(&suite).unwrap() {
        let truth = kandle::verify(&folder).truth();
        if truth.is_some_and(|truth| truth.truth_ratio > 2.0) {
            far.push(folder.strip_prefix(&suite).unwrap().display().to_string());
        }
    }
    assert_eq!(far, SAVED_ROUNDED);
}

#[test]
fn every_layer_and_every_activation_has_a_recorded_case() {
    let cases = cases();
    let mut recorded: BTreeSet<&str> =
        cases.iter().flat_map(|case| case.layers.iter().map(|layer| layer.class.as_str())).collect();
    // Cells run within their layer, and have folders of their own.
    recorded.extend(cases.iter().map(|case| case.class.as_str()));
    // The name under which Keras exports the class GroupedQueryAttention, and which files hold.
    if recorded.contains("GroupedQueryAttention") {
        recorded.insert("GroupQueryAttention");
    }
    let written = written_by(&cases);
    let is_recorded = |layer: &Registered| match layer.family {
        Family::Legacy => written.contains(layer.class),
        _ => recorded.contains(layer.class),
    };
    let without: Vec<&str> = kandle::layers().filter(|layer| !is_recorded(layer)).map(|layer| layer.class).collect();
    assert_eq!(without, Vec::<&str>::new(), "classes that no case in reference_outputs records");
    let folder = |case: &Case| case.path.file_name().unwrap().to_string_lossy().into_owned();
    let names: BTreeSet<String> = cases.iter().filter(|case| case.class == "Activation").map(folder).collect();
    for function in Function::names().filter(|name| !["swish", "hard_swish"].contains(name)) {
        assert!(names.contains(function), "no case in reference_outputs records the activation {function}");
    }
}

/// The classes in models that older versions of Keras wrote.
fn written_by(cases: &[Case]) -> BTreeSet<String> {
    let mut classes = BTreeSet::new();
    for case in cases.iter().filter(|case| case.family == "written_by") {
        for file in &case.files {
            let archive = Archive::open(case.path.join(file), &Limits::default()).unwrap();
            let Ok(plan) = archive.config().and_then(|config| Plan::new(&config)) else { continue };
            classes.extend(plan.layers().iter().map(|layer| layer.class.clone()));
        }
    }
    classes
}

/// Three cases of its own for a class of which Keras's test suite gave none, but for what only old versions have.
#[test]
fn a_layer_without_cases_from_keras_has_three_of_its_own() {
    let suite = Path::new(ROOT).join("../shared/cases/suite");
    if !suite.is_dir() {
        return;
    }
    let classes = |cases: &[Case]| cases.iter().map(|case| case.class.clone()).collect::<Vec<String>>();
    let folders = find_cases(&suite).unwrap();
    let of_keras = classes(&folders.iter().map(|folder| Case::open(folder).unwrap()).collect::<Vec<Case>>());
    let own = classes(&cases());
    let current = kandle::layers().filter(|layer| layer.family != Family::Legacy);
    let few = current.map(|layer| layer.class).filter(|class| {
        let count = |classes: &[String]| classes.iter().filter(|other| other == class).count();
        // The model's own InputLayer is in every case; GroupQueryAttention is GroupedQueryAttention in a file.
        count(&of_keras) == 0 && count(&own) < 3 && !["InputLayer", "GroupQueryAttention"].contains(class)
    });
    assert_eq!(few.collect::<Vec<&str>>(), Vec::<&str>::new(), "classes with fewer than three cases");
}

/// How often the models of `cases` call each operation.
fn calls(cases: &[Case]) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for case in cases {
        let archive = Archive::open(case.path.join(&case.files[0]), &Limits::default()).unwrap();
        let Ok(plan) = archive.config().and_then(|config| Plan::new(&config)) else { continue };
        for step in plan.steps() {
            let layer = &plan.layers()[step.layer];
            if layer.is_operation() {
                *calls.entry(layer.class.clone()).or_default() += 1;
            }
        }
    }
    calls
}

#[test]
fn every_operation_is_called_in_a_recorded_case() {
    let calls = calls(&cases());
    let without: Vec<&str> =
        kandle::operations().map(|of| of.class).filter(|class| !calls.contains_key(*class)).collect();
    assert_eq!(without, Vec::<&str>::new(), "operations that no case in reference_outputs calls");
}

#[test]
fn an_operation_without_cases_from_keras_is_called_three_times() {
    let suite = Path::new(ROOT).join("../shared/cases/suite");
    if !suite.is_dir() {
        return;
    }
    let of_keras: Vec<Case> = find_cases(&suite).unwrap().iter().map(|folder| Case::open(folder).unwrap()).collect();
    let (of_keras, own) = (calls(&of_keras), calls(&cases()));
    let few = kandle::operations().map(|operation| operation.class);
    let few = few.filter(|class| !of_keras.contains_key(*class) && own.get(*class).is_none_or(|count| *count < 3));
    assert_eq!(few.collect::<Vec<&str>>(), Vec::<&str>::new(), "operations with fewer than three recorded calls");
}

#[test]
fn no_tolerance_is_looser_than_the_table() {
    let mut checked = 0;
    for case in cases().iter().filter(|case| case.expect.is_none()) {
        let rule: Rule = case.rule.unwrap_or_else(|| panic!("{}: no rule", case.path.display()));
        for index in 0..case.outputs.len() {
            let (given, table) = (case.tolerance_of(index), rule.tolerance_of(case.output(index).unwrap()));
            // Recorded with six significant digits, rounded upwards.
            let within = given.atol <= table.atol * 1.00001 && given.rtol <= table.rtol;
            assert!(within || case.because.is_some(), "{}: {given} against {table} ({rule})", case.path.display());
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} outputs");
}

#[test]
fn recorded_cases_stay_small() {
    let size = |folder: &Path| -> u64 {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap())
            .filter(|file| file.is_file())
            .map(|file| file.len())
            .sum()
    };
    let sizes: Vec<(u64, Case)> = cases().into_iter().map(|case| (size(&case.path), case)).collect();
    for (size, case) in &sizes {
        assert!(*size < 2 << 20, "{}: {size} bytes", case.path.display());
    }
    let all: u64 = sizes.iter().map(|(size, _)| size).sum();
    assert!(all < 20 << 20, "reference_outputs holds {all} bytes");
}

/// Cases of the larger or smaller of 0.0 and −0.0: TensorFlow takes the one or the other by the place in the tensor, within
/// a vector of the processor or behind the last whole one. And of sums of products that come to nothing (`frames`), whose
/// sign is that of the order they are added in.
const EITHER_ZERO: [&str; 8] = [
    "merging/Maximum/special",
    "merging/Minimum/special",
    "ops/graph/frames",
    "ops/graph/maximum_special",
    "ops/graph/pairs_special",
    "pooling/AdaptiveMaxPooling3D/special",
    "pooling/GlobalMaxPooling1D/special",
    "pooling/MaxPooling3D/special",
];

/// The judge counts 0.0 and −0.0 as equal. Where Keras has one rule for the sign, we follow it all the same.
#[test]
fn zeros_have_the_sign_that_keras_gives_them() {
    let (mut other, mut checked) = (Vec::new(), 0);
    for case in cases().iter().filter(|case| case.expect.is_none()) {
        let model = kandle::load_recorded(case, &case.files[0]).unwrap();
        let ours = Judged(&model).run(&case.input_arrays()).unwrap();
        let mut same = true;
        for (index, ours) in ours.iter().enumerate() {
            let keras = case.output(index).unwrap();
            for (ours, keras) in (0..keras.len()).map(|at| (ours.value(at), keras.value(at))) {
                if let (Some(ours), Some(keras)) = (ours, keras)
                    && ours == 0.0
                    && keras == 0.0
                {
                    checked += usize::from(keras.is_sign_negative());
                    same &= ours.is_sign_negative() == keras.is_sign_negative();
                }
            }
        }
        if !same {
            other
                .push(case.path.strip_prefix(Path::new(ROOT).join("reference_outputs")).unwrap().display().to_string());
        }
    }
    assert!(checked > 50, "Keras gives only {checked} negative zeros");
    assert_eq!(other, EITHER_ZERO);
}

#[test]
fn the_list_of_operations_is_that_of_the_registry() {
    let names: BTreeSet<&str> = kandle::operations().map(|operation| operation.class).collect();
    let text = fs::read_to_string(Path::new(ROOT).join("docs/operations.md")).unwrap();
    let (_, list) = text.split_once("\n\n## The list\n\n").unwrap();
    let names = names.into_iter().collect::<Vec<&str>>().join(", ");
    assert_eq!(list, format!("{names}\n"), "the list of the registry:\n{names}");
}
