#!/usr/bin/env python3
"""Records what Keras computes, one folder per case, for the Rust side to be compared with.

    record_declared.py [NAME ...]   record all cases, or those named (a folder name takes all below it)
    record_declared.py --list       print the names
    record_declared.py --check      record into a temporary folder; exit 1 if anything differs

The cases are declared in declared/, one module per family of layers: a case is a
model and its inputs. Its weights come from a seeded generator, its outputs from
the model reloaded from model.keras on TensorFlow, the same numbers from JAX
(`jax_i`) and in float64 (`truth_i`). A file is rewritten only when what it says
has changed. Of cases side by side with the same model one holds its files.
"""

import argparse
import dataclasses
import functools
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib

from record import (  # the backend is chosen there, before Keras is imported
    REPLAY,
    RULES,  # noqa: F401 (read by writers/)
    Disagreement,
    Run,
    Tensors,
    as_json,
    chained,
    described,
    digest_of,
    gap,
    is_single_precision,
    load,
    numbered,
    outputs_of,
    packed,
    provenance,
    rounded,
    rule_of,
    run,
    scale_of,
    tolerance_for,
    truth_of,
    write,
)

import h5py
import keras
import numpy as np
import safetensors.numpy
from declared.case import CASES, Case, fill_weights, generator
from keras import layers

import declared  # noqa: F401 (declares the cases)

HERE = pathlib.Path(__file__).resolve().parent


def rules_of_outputs(model: keras.Model) -> list[str | None]:
    """For each output of a graph of operations alone the rule of what it is computed by; None in other models."""
    has_layers = any(not isinstance(layer, layers.InputLayer) for layer in model.layers)
    if has_layers or not isinstance(model, keras.src.models.Functional):
        return [None] * len(model.outputs)

    def behind(tensor: keras.KerasTensor, found: dict[int, keras.Operation]) -> dict[int, keras.Operation]:
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if id(node) not in found and not isinstance(operation, layers.InputLayer):
            found[id(node)] = operation
            for given in node.input_tensors:
                behind(given, found)
        return found

    rules = []
    for output in model.outputs:
        rules.append(functools.reduce(chained, map(rule_of, behind(output, {}).values()), "copy"))
    return rules


def replay(stage: pathlib.Path, names: list[str]) -> None:
    """Under JAX: each case's outputs from its model.keras, into jax.safetensors."""
    for name in names:
        inputs = safetensors.numpy.load_file(stage / name / "inputs.safetensors")
        keras.backend.clear_session()
        try:
            arrays = [inputs[f"input_{i}"] for i in range(len(inputs))]
            answers = run(load(stage / name / "model.keras"), arrays)
        except Exception as problem:
            (stage / name / "jax.failed").write_text(str(problem))
            continue
        beside = answers.of_layers("jax") if name in IN_DEPTH else {}
        (stage / name / "jax.safetensors").write_bytes(packed(numbered("jax", answers.outputs) | beside))


IN_DEPTH = ("example3/2x3", "models/Functional/mask_post_norm_all", "models/Sequential/stack")  # with each layer's truth


def insist_on_agreement(other: np.ndarray, keras_: np.ndarray, tolerance: dict[str, float], what: str) -> None:
    """What Keras's other backend, or exact arithmetic, gives must pass its own case."""
    if other.shape != keras_.shape:
        raise Disagreement(f"{what}: shape {other.shape} where TensorFlow gives {keras_.shape}")
    odd = ~np.isfinite(keras_) | ~np.isfinite(other)
    if not np.array_equal(other[odd], keras_[odd], equal_nan=True):
        raise Disagreement(f"{what}: {other[odd].tolist()} where TensorFlow gives {keras_[odd].tolist()}")
    ours, theirs = (np.where(odd, 0, a).astype("float64") for a in (other, keras_))
    if (np.abs(ours - theirs) > tolerance["atol"] + tolerance["rtol"] * np.abs(theirs)).any():
        raise Disagreement(f"{what} is {gap(other, keras_):.2g} from TensorFlow, allowed {tolerance}")


# ----------------------------------------------------------------------------
# Recording
# ----------------------------------------------------------------------------


@dataclasses.dataclass
class Recording:
    """A case as far as TensorFlow alone can tell it."""

    case: Case
    facts: dict
    tensors: Tensors
    rule: str
    rules: list[str | None]  # of each output, where it is known


AS_WRITTEN = ("core", "examples", "models")  # the families whose .keras files are kept as Keras writes them, with stored members


def deflate(path: pathlib.Path) -> None:
    """Compresses the members of a .keras, which Keras stores: most of a small one is the empty space of HDF5."""
    packed_again = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed_again, "w") as compressed:
        for member in archive.infolist():
            compressed.writestr(member, archive.read(member), zipfile.ZIP_DEFLATED, compresslevel=9)
    path.write_bytes(packed_again.getvalue())


def save_model(case: Case, folder: pathlib.Path) -> list[np.ndarray]:
    """Builds the case's model, saves its files into the folder and returns its inputs.

    A .keras is deflated, but for those AS_WRITTEN.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(zlib.crc32(case.model.encode()))
    model, inputs = case.recipe(generator(case.name))
    if case.fill:
        fill_weights(model, generator(case.model + " weights"))
    for file in case.files:
        if file == "model.weights.h5":
            model.save_weights(folder / file)
        else:
            model.save(folder / file)
    if case.family not in AS_WRITTEN:
        deflate(folder / "model.keras")
    return inputs


def owner_of(case: Case) -> Case:
    """The case whose folder holds the model files: among siblings with the same model the one it is named after, or the first."""
    siblings = [c for c in CASES.values() if c.model == case.model and c.folder == case.folder]
    return next((c for c in siblings if c.name == case.model), siblings[0])


def paths_of_files(case: Case) -> list[str]:
    """The model files as case.json names them: `../2x3/model.keras` where a sibling has them."""
    owner = owner_of(case)
    if owner is case:
        return list(case.files)
    if not set(case.files) <= set(owner.files):
        raise Disagreement(f"{owner.name} has not all of {', '.join(case.files)}")
    return [f"../{owner.name.removeprefix(case.folder)}/{file}" for file in case.files]


def digests_of(case: Case, folder: pathlib.Path) -> dict[str, str]:
    return {path: digest_of(folder / file) for path, file in zip(paths_of_files(case), case.files, strict=True)}


def insist_on_files(case: Case, folder: pathlib.Path, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Keras itself must get the same outputs, bit for bit, from each of the files."""
    for file in case.files:
        if file == "model.weights.h5":
            model = load(folder / "model.keras")
            fill_weights(model, generator("overwritten by the file"))
            model.load_weights(folder / file)
        else:
            model = load(folder / file)
        if packed(numbered("output", outputs_of(model, inputs))) != packed(numbered("output", outputs)):
            raise Disagreement(f"{file} and model.keras give different outputs")


def record(case: Case, folder: pathlib.Path) -> Recording:
    folder.mkdir(parents=True)
    inputs = save_model(case, folder)
    keras.backend.clear_session()
    model = load(folder / "model.keras")
    ran = run(model, inputs)
    outputs, calls = ran.outputs, ran.calls
    tensors = numbered("input", inputs) | numbered("output", outputs)
    (folder / "inputs.safetensors").write_bytes(packed(numbered("input", inputs)))

    steps, rule, rules = [], "deep", [None] * len(outputs)
    if not case.refused:
        steps, rule = calls.chain()
        rules = rules_of_outputs(model)
        insist_on_files(case, folder, inputs, outputs)
        tensors |= calls.tensors
        if case.truth and is_single_precision(model) and any(y.dtype == "float32" for y in outputs):
            truths, exact = truth_of(model, inputs, outputs)
            tensors |= truths
            if case.name in IN_DEPTH:
                tensors |= of_float32(exact.of_layers("truth"), ran)

    layer_class = case.name.split("/")[1] if case.family not in ("examples", "pytorch", "refused") else type(model).__name__
    facts = {"format": 1, "class": layer_class, "family": case.family, "says": case.says}
    if case.refused:
        facts["expect"] = f"refused: {case.refused}"
    facts |= {
        "files": paths_of_files(case),
        "digests": digests_of(case, folder),
        "inputs": described([t._keras_history.operation.name for t in model.inputs], inputs),
        "outputs": [
            declared_ | ({} if case.refused else {"from": sources})
            for declared_, sources in zip(
                described([t._keras_history.operation.name for t in model.outputs], outputs), ran.sources, strict=True
            )
        ],
        "compute_dtype": model.layers[-1].compute_dtype,
        "layers": steps,
    }
    return Recording(case, facts, tensors, rule, rules)


def tolerance_of(case: Case, rule: str, output: np.ndarray) -> dict[str, float]:
    return tolerance_for(rule, output, case.computed_in, case.looser)


def of_float32(tensors: Tensors, ran: Run) -> Tensors:
    """Those of `layers/<path>/<call>/<kind>_<k>` whose `out_k` is in float32."""
    recorded = ran.calls.tensors
    out = lambda key: key.rsplit("/", 1)[0] + "/out_" + key.rsplit("_", 1)[1]
    return {key: tensor for key, tensor in tensors.items() if recorded[out(key)].dtype == "float32"}


def answers_of_jax(recording: Recording, folder: pathlib.Path, outputs: list[np.ndarray]) -> Tensors:
    """What JAX gave; an output in 64 bits, which JAX leaves in 32, is not compared."""
    if recording.case.without_jax or recording.case.refused:
        return {}
    if (failed := folder / "jax.failed").is_file():
        raise Disagreement(f"JAX: {failed.read_text()}")
    answers = safetensors.numpy.load_file(folder / "jax.safetensors")
    for i, output in enumerate(outputs):
        if output.dtype != answers[f"jax_{i}"].dtype:
            other = answers.pop(f"jax_{i}").dtype
            if output.dtype.itemsize < 8:
                raise Disagreement(f"jax_{i}: {other} where TensorFlow gives {output.dtype}")
    return answers


def completed(recording: Recording, folder: pathlib.Path) -> dict[str, bytes]:
    """io.safetensors and case.json, once JAX has answered too."""
    case, tensors, facts = recording.case, dict(recording.tensors), dict(recording.facts)
    outputs = [tensors[f"output_{i}"] for i in range(len(facts["outputs"]))]
    rules = [rule or recording.rule for rule in recording.rules]
    tolerances = [tolerance_of(case, rule, y) for rule, y in zip(rules, outputs, strict=True)]
    steps = facts.pop("layers")
    facts["rule"] = recording.rule
    if len(outputs) == 1:
        facts["tolerance"] = tolerances[0]
    else:
        facts["outputs"] = [o | {"tolerance": t} for o, t in zip(facts["outputs"], tolerances, strict=True)]
    if case.because:
        facts["because"] = case.because
    if not case.refused:
        tensors |= answers_of_jax(recording, folder, outputs)
        noise = {"scale": rounded(max(map(scale_of, outputs)))}
        for kind in ("jax", "truth"):
            gaps = []
            for i, (output, tolerance) in enumerate(zip(outputs, tolerances, strict=True)):
                if (other := tensors.get(f"{kind}_{i}")) is not None:
                    # A number rounded once, which must be Keras's to the bit, is a rounding from the truth.
                    once = rules[i] == "copy" and kind == "truth"
                    allowed = tolerance_of(case, "elementwise", output) if once else tolerance
                    insist_on_agreement(other, output, allowed, f"{kind}_{i}")
                    gaps.append(gap(other, output))
            noise[f"tf_vs_{kind}_max_abs"] = rounded(max(gaps)) if gaps else None
        if case.without_jax:
            noise["without_jax"] = case.without_jax
        facts |= {"noise": noise, "layers": steps}
    facts |= provenance()
    return {"io.safetensors": packed(tensors), "case.json": as_json(facts)}


# ----------------------------------------------------------------------------
# What has changed
# ----------------------------------------------------------------------------

UNTOLD = ("shared_object_id", "date_saved")  # addresses and times: no part of what a file says


def told(value: object) -> object:
    if isinstance(value, dict):
        return {k: told(v) for k, v in value.items() if k not in UNTOLD}
    return [told(v) for v in value] if isinstance(value, list) else value


def meaning_of_attribute(value: object) -> object:
    text = value.decode() if isinstance(value, bytes) else value
    if isinstance(text, str):
        return told(json.loads(text)) if text.startswith("{") else text
    return np.asarray(value).dtype.str, np.asarray(value).tolist()


def meaning_of_hdf5(data: bytes) -> dict:
    """Every object's attributes and, bit for bit, every dataset."""
    found = {}

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        attributes = {k: meaning_of_attribute(v) for k, v in node.attrs.items()}
        is_data = isinstance(node, h5py.Dataset)
        found[name] = (attributes, (node.dtype.str, node.shape, node[()].tobytes()) if is_data else None)

    with h5py.File(io.BytesIO(data)) as file:
        visit("", file)
        file.visititems(visit)
    return found


def meaning_of(file: str, data: bytes) -> object:
    if file.endswith(".h5"):
        return meaning_of_hdf5(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    read = {".h5": meaning_of_hdf5, ".json": lambda data: told(json.loads(data))}
    return {name: read.get(pathlib.Path(name).suffix, bytes)(data) for name, data in members.items()}


def settled(case: Case, file: str, fresh: bytes, out: pathlib.Path) -> bytes:
    """The committed bytes, if they still say the same."""
    committed = out / case.name / file
    if committed.is_file() and meaning_of(file, old := committed.read_bytes()) == meaning_of(file, fresh):
        return old
    return fresh


def differences(file: str, old: bytes, new: bytes) -> list[str]:
    if file != "io.safetensors":
        return [file]
    before, after = safetensors.numpy.load(old), safetensors.numpy.load(new)
    found, inner = [], 0
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            text = f"{key} {'is new' if a is None else 'is gone' if b is None else 'has another shape or dtype'}"
        elif a.tobytes() != b.tobytes():
            text = f"{key} max |d| {gap(a, b):.2g}"
        else:
            continue
        if key.startswith("layers/"):
            inner += 1
        else:
            found.append(text)
    return found + ([f"{inner} tensors of layers"] if inner else []) or [file]


OF_PYTORCH = ("pytorch.safetensors", "pytorch.json")  # what pytorch.py records beside


def compare(folder: pathlib.Path, files: dict[str, bytes]) -> str:
    """`same`, `new` or `changed: …`, for files that would be written into the folder."""
    if not folder.is_dir():
        return "new"
    found = [f"{p.name} is left over" for p in sorted(folder.iterdir()) if p.is_file() and p.name not in (*files, *OF_PYTORCH)]
    for file, new in files.items():
        path = folder / file
        if not path.is_file():
            found.append(f"{file} is new")
        elif (old := path.read_bytes()) != new:
            found += differences(file, old, new)
    return f"changed: {', '.join(found)}" if found else "same"


def write_all(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in (*files, *OF_PYTORCH):
            path.unlink()
    for file, data in files.items():
        write(folder / file, data)


# ----------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------


def model_files(case: Case, stage: pathlib.Path, out: pathlib.Path) -> dict[str, bytes]:
    """The model files that belong into the case's folder: none where they are those of another."""
    fresh = {file: (stage / case.name / file).read_bytes() for file in case.files}
    if (owner := owner_of(case)) is case:
        return {file: settled(case, file, data, out) for file, data in fresh.items()}
    for file, data in fresh.items():
        theirs = stage / owner.name / file
        if not theirs.is_file() or meaning_of(file, theirs.read_bytes()) != meaning_of(file, data):
            raise Disagreement(f"{file} is not that of {owner.name}, whose model it says it shares")
    return {}


def recorded(cases: list[Case], out: pathlib.Path) -> tuple[list[tuple[Case, dict[str, bytes]]], list[str]]:
    """Each case's files, and what could not be recorded."""
    finished, problems = [], []
    with tempfile.TemporaryDirectory() as temporary:
        stage = pathlib.Path(temporary)
        recordings = []
        for case in cases:
            try:
                recordings.append(record(case, stage / case.name))
            except Exception as problem:
                problems.append(f"{case.name}: {type(problem).__name__}: {' '.join(str(problem).split())[:300]}")
        replayed = [r.case.name for r in recordings if not r.case.refused and not r.case.without_jax]
        if replayed:
            subprocess.run([sys.executable, __file__, REPLAY, temporary, *replayed], check=True)
        for recording in recordings:
            case, folder = recording.case, stage / recording.case.name
            try:
                finished.append((case, model_files(case, stage, out) | completed(recording, folder)))
            except Disagreement as problem:
                problems.append(f"{case.name}: {str(problem)[:300]}")
    return finished, problems


def record_all(cases: list[Case], out: pathlib.Path, keep: bool) -> bool:
    """Records the cases; true if all could be recorded and nothing differs from what is in `out`."""
    finished, problems = recorded(cases, out)
    unchanged = not problems
    for case, files in finished:
        verdict = compare(out / case.name, files)
        unchanged &= verdict == "same"
        print(f"{case.name}: {verdict}")
        if keep:
            write_all(out / case.name, files)
    print("".join(f"{problem}\n" for problem in problems), end="")
    return unchanged


def undeclared(out: pathlib.Path) -> list[str]:
    """Case folders that no declaration records. Those in written_by/ are writers/record_writers.py's, those in by_record/ are record.py's own."""
    found = (path.parent.relative_to(out).as_posix() for path in out.rglob("case.json"))
    return sorted(name for name in found if name not in CASES and not name.startswith(("written_by/", "by_record/")))


def chosen(names: list[str]) -> list[Case]:
    """The cases named, and those whose model files they share."""
    if not names:
        return list(CASES.values())
    unknown = [n for n in names if not any(c == n or c.startswith(n.rstrip("/") + "/") for c in CASES)]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}")
    named = [c for c in CASES.values() if any(c.name == n or c.name.startswith(n.rstrip("/") + "/") for n in names)]
    wanted = {c.name for case in named for c in (case, owner_of(case))}
    return [c for c in CASES.values() if c.name in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything differs")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, metavar="DIR")
    parser.add_argument(REPLAY, type=pathlib.Path, metavar="STAGE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        replay(options.replay, options.names)
        return 0
    cases = chosen(options.names)
    if options.list:
        print("\n".join(c.name for c in cases))
        return 0
    unchanged = record_all(cases, options.out, keep=not options.check)
    for name in undeclared(options.out):
        unchanged = False
        print(f"{name}: undeclared")
    return 1 if options.check and not unchanged else 0


if __name__ == "__main__":
    sys.exit(main())
