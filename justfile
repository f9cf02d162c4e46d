set positional-arguments

# What CI runs.
check:
    .ci/run

# Every test; `just test example3` for some of the recorded cases.
test *filter:
    cargo test {{ if filter == "" { "" } else { "--test parity " + filter } }}

# The example: a real Keras file, compared with Keras.
infer *arguments:
    cargo run --example infer -- "$@"

# Every recorded case through the released program.
verify +paths="reference_outputs":
    cargo run --release --package kandle-cli -- verify "$@"

# How far Keras and kandle are from the same models in float64: the tables of docs/tolerances.md.
truth *folder:
    cargo run --quiet --example truth -- "$@"

# Records cases of a model of your own with real Keras: `just record my_model.keras --out cases/my_model`.
record +arguments:
    python reference_outputs/record.py "$@"

# Records the cases of reference_outputs again with real Keras (see CONTRIBUTING.md) and says what changed.
record-declared *names:
    python reference_outputs/record_declared.py "$@"

# Tests record.py with the Keras that is installed.
test-record:
    python reference_outputs/test_record.py

# Counts the instructions of a run of some recorded cases, and says which have become more; `just count --write` keeps them.
count *arguments:
    cd benches && cargo build --release --bin count
    python benches/count.py "$@"

# Times recorded cases under kandle and other runtimes, side by side: `just bench cases/my_model/ordinary`. Python has to
# have what benches/compare.py names at its top.
bench +cases:
    cargo build --release --package kandle-cli
    cd benches && cargo build --release --package kandle-bench-tract
    # candle-onnx wants protoc.
    ! command -v protoc || (cd benches && cargo build --release --package kandle-bench-candle-onnx)
    python benches/compare.py "$@"

# How time grows with the batch, the length and the vocabulary: the second table of docs/performance.md with `--write`.
growth *arguments:
    cargo build --release --package kandle-cli
    python benches/growth.py "$@"

# The documentation, warnings denied.
docs:
    RUSTDOCFLAGS="--deny warnings" cargo doc --no-deps --workspace
