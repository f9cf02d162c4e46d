//! What a plan says of every tensor before there are numbers is what Keras wrote beside its graph.

use std::path::{Path, PathBuf};

use kandle::{
    Archive, Limits, Plan,
    json::Value,
    load_recorded,
    parity::{Case, find_cases},
    value,
};

/// Every tensor a call of a Functional model reads stands in the file with its shape and dtype; compares them with the
/// plan's. Returns how many were compared, and what differs.
fn compare(file: &Path) -> (usize, Vec<String>) {
    let Ok(archive) = Archive::open(file, &Limits::default()) else { return (0, Vec::new()) };
    let Ok(config) = archive.config() else { return (0, Vec::new()) };
    let Ok(plan) = Plan::new(&config) else { return (0, Vec::new()) };
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut check = |tensor: &Value| {
        let history = &tensor["keras_history"];
        let name = history[0].as_str().unwrap();
        let index = |at: usize| usize::try_from(history[at].as_u64().unwrap()).unwrap();
        let layer = |number: usize| &plan.layers()[number].path;
        let step = plan.steps().iter().find(|step| layer(step.layer) == name && step.call == index(1));
        let input = plan.inputs().iter().find(|input| input.name == name).map(|input| input.slot);
        // The outputs of a model inside the model are those of its last layers, under their own names.
        let Some(slot) = input.or(step.and_then(|step| step.outputs.get(index(2)).copied())) else { return };
        let spec = plan.slot(slot).unwrap();
        let shape: Vec<Option<usize>> = serde_json::from_value(tensor["shape"].clone()).unwrap();
        compared += 1;
        if spec.shape.0 != shape || tensor["dtype"] != spec.dtype.name() {
            let keras = format!("{shape:?} {}", tensor["dtype"]);
            wrong.push(format!("{}: {history}: ours {:?} {}, keras {keras}", file.display(), spec.shape.0, spec.dtype));
        }
    };
    for layer in &config.layers {
        layer.inbound_nodes.iter().for_each(|node| tensors(node, &mut check));
    }
    (compared, wrong)
}

/// Calls `check` with the description of every tensor in `value`.
fn tensors(value: &Value, check: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(object) if object.get("class_name").is_some_and(|class| class == "__keras_tensor__") => {
            check(&object["config"]);
        }
        Value::Object(object) => object.values().for_each(|value| tensors(value, check)),
        Value::Array(items) => items.iter().for_each(|value| tensors(value, check)),
        _ => {}
    }
}

/// Runs a case and compares what comes out of every call with what was planned.
fn run(folder: &Path) -> (usize, Vec<String>) {
    let Ok(case) = Case::open(folder) else { return (0, Vec::new()) };
    let Ok(model) = load_recorded(&case, "model.keras") else { return (0, Vec::new()) };
    let inputs: Result<Vec<_>, _> = case.input_arrays().iter().map(value).collect();
    // A model takes other batch sizes than the one in its file, which its plan does not know.
    let mut batches = model.plan().inputs().iter().zip(case.input_arrays()).map(|(input, array)| {
        input.spec.shape.0.first().copied().flatten().is_none_or(|batch| array.shape().first() == Some(&batch))
    });
    if !batches.all(|same| same) {
        return (0, Vec::new());
    }
    let Ok(trace) = model.trace(&inputs.unwrap()) else { return (0, Vec::new()) };
    let (mut compared, mut wrong) = (0, Vec::new());
    for (call, step) in trace.calls.iter().zip(model.plan().steps()) {
        for (value, slot) in call.outputs.iter().zip(&step.outputs) {
            let spec = model.plan().slot(*slot).unwrap();
            compared += 1;
            let dims = value.tensor.dims();
            let same = dims.len() == spec.shape.rank()
                && dims.iter().zip(&spec.shape.0).all(|(size, axis)| axis.is_none_or(|axis| axis == *size));
            if (!same || value.dtype != spec.dtype) && !PLANNED_OTHERWISE.iter().any(|(class, _)| *class == call.class)
            {
                let (at, found) = (folder.display(), value.dtype);
                let planned = format!("{:?} {}", spec.shape.0, spec.dtype);
                wrong.push(format!("{at}: {} ({}): planned {planned}, found {dims:?} {found}", call.layer, call.class));
            }
        }
    }
    (compared, wrong)
}

/// The classes whose rule for what comes out is not what comes out in Keras either, and how.
const PLANNED_OTHERWISE: [(&str, &str); 9] = [
    ("MultiHot", "the dtype of the ids is planned, floats come out; an axis too many goes where there is only one"),
    ("SearchSorted", "int64 is planned where the length is not known, and int32 comes out"),
    ("Squeeze", "an axis of unknown size is planned to stay, and goes when its size is 1"),
    ("Linspace", "floats are planned also where integers are asked for"),
    ("Corrcoef", "the shape of the numbers is planned, and a square of their rows comes out"),
    ("Slogdet", "one number is planned for all matrices, and one for each comes out"),
    ("LuFactor", "the order of rows is planned in the dtype of the numbers, and comes out as int32"),
    ("Ndim", "a tensor of as many numbers as there are axes is planned, and their count comes out"),
    ("RandomCrop", "the size to crop to is planned, and at inference nothing is cropped"),
];

/// Checks the recorded cases and, where they are, those from Keras's own test suite.
fn check_all(check: impl Fn(&Path) -> (usize, Vec<String>)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("reference_outputs"), root.join("../shared/cases/suite")];
    let folders = folders.iter().filter(|folder| folder.is_dir());
    let cases: Vec<PathBuf> = folders.flat_map(|folder| find_cases(folder).unwrap()).collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in cases {
        let found = check(&case);
        compared += found.0;
        wrong.extend(found.1);
    }
    assert!(compared > 100, "only {compared} tensors");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn shapes_and_dtypes_are_those_keras_recorded() {
    check_all(|case| compare(&case.join("model.keras")));
}

#[test]
fn what_comes_out_is_what_was_planned() {
    check_all(run);
}
