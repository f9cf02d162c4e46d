//! The example, run as a user runs it.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

fn infer(arguments: &[&str]) -> Output {
    example("infer", arguments)
}

/// `cargo test` builds examples beside the tests.
fn example(name: &str, arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().unwrap();
    let program: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is not built: run cargo build --examples", program.display());
    Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_arguments_example3_is_compared_with_keras() {
    let output = infer(&[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for expected in [
        "\"example3\" from Keras 3.15.1, loaded in",
        "dense.weight [64, 128] from layers/dense/vars/0 (float32), transposed",
        "[[1, 2, 3],\n [4, 5, 6]]",
        "output [2, 3, 64] in",
        "worst difference from Keras:",
        "5 passed, 0 failed, 0 unchecked",
    ] {
        assert!(said.contains(expected), "no {expected:?} in\n{said}");
    }
}

#[test]
fn any_supported_model_runs_on_what_is_given() {
    let output = infer(&["reference_outputs/models/Sequential/stack/model.h5", "[[1, 2, 3, 0.5, 6, 7]]"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("output [1, 4] in"));
}

#[test]
fn a_model_with_a_layer_of_ones_own_runs() {
    let output = example("custom_layer", &[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("register a layer for it") && said.contains("1 passed, 0 failed, 0 unchecked"), "{said}");
}

/// A published model of Keras 2.2 with four outputs and a layer of its authors' own, where it lies beside the project.
#[test]
fn a_published_model_with_a_layer_of_ones_own_runs() {
    let case = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/cases/real/crema");
    if !case.is_dir() {
        return;
    }
    let output = example("custom_layer", &[&case.display().to_string()]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("4 passed, 0 failed, 0 unchecked"), "{said}");
}

#[test]
fn what_cannot_be_run_says_why() {
    let refused = "error: reference_outputs/refused/several/model.h5: 2 problems\n  \
                   layer \"name\" (package>Name): package>Name is a user's own layer class, whose Python code is not in the \
                   file: \
                   register a layer for it\n  \
                   layer \"lambda\" (Lambda): a Lambda layer holds Python code, which is never run: build the model with a \
                   built-in layer instead, and save it again\n";
    let id = "error: layer \"embedding\" (Embedding): id 1000 at [0, 1] is not in the vocabulary: ids go from 0 to 999, or \
              from the end from -1 to -1000\n";
    for (arguments, expected) in [
        (&["reference_outputs/refused/several/model.h5", "[1]"][..], refused),
        (&["reference_outputs/example3/2x3/model.keras", "[[1, 1000]]"], id),
        (
            &["reference_outputs/example3/2x3/model.keras", "[[1], [2, 3]]"],
            "error: the lists of the input are not all of one length\n",
        ),
        (&["x"], "error: usage: infer [MODEL INPUT], INPUT a nested list in JSON: '[[1, 2, 3], [4, 5, 6]]'\n"),
    ] {
        let output = infer(arguments);
        assert!(!output.status.success());
        assert_eq!(text(&output.stderr), expected);
    }
}
