#!/usr/bin/env python3
"""Records models written by old Keras versions, one folder per case: written_by/<writer>/<model>/.

    record_writers.py [WRITER ...]   record the models of all writers of table.py, or of those named
    record_writers.py --check        write nothing; exit 1 if anything differs

Each writer has a virtual environment of its own below --envs, made where it isn't
there; its script runs inside. Expected outputs are those of the writer itself, in
float64 too where it can (`truth_i`). What Keras of today makes of the files is
noted under `reopened`, and in `noise` where it is the same.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
from table import WRITERS, Writer

HERE = pathlib.Path(__file__).resolve().parent
CASES = HERE.parent
sys.path.append(str(CASES))
spec = importlib.util.spec_from_file_location("record_of_today", CASES / "record_declared.py")
today = sys.modules["record_of_today"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(today)

PYTHONS = pathlib.Path("~/.pyenv/versions").expanduser()
OF_TODAY = "tf_keras-2.21"  # the writer whose environment opens the files again; Keras 3 does in this one
OWN = ("io.npz", "facts.json", "truth.npz", "truth.failed", "values.npz", "failed.txt")


# ----------------------------------------------------------------------------
# Environments
# ----------------------------------------------------------------------------


def environment(writer: Writer, envs: pathlib.Path) -> pathlib.Path:
    """The writer's Python, with what it needs installed."""
    folder = envs / writer.name
    python = folder / "bin/python"
    if (folder / "ok").is_file():
        return python
    base = PYTHONS / writer.python / "bin/python"
    if writer.python.startswith("2."):
        subprocess.run([base, "-m", "pip", "install", "-q", "virtualenv"], check=True)
    subprocess.run([base, "-m", "virtualenv" if writer.python.startswith("2.") else "venv", folder], check=True)
    if writer.python.startswith(("3.6", "3.7", "3.8")):
        subprocess.run([python, "-m", "pip", "install", "-q", "-U", "pip", "wheel", "setuptools<60"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--prefer-binary", *writer.pins.split()], check=True)
    (folder / "ok").write_text("")
    return python


def home(folder: pathlib.Path, floatx: str, writer: Writer) -> dict[str, str]:
    """The variables under which Keras reads its settings from the folder, not from anyone's home."""
    (folder / ".keras").mkdir(parents=True, exist_ok=True)
    settings = {"floatx": floatx, "epsilon": 1e-07, "backend": writer.backend, "image_data_format": "channels_last"}
    settings |= {"image_dim_ordering": "th" if writer.backend == "theano" else "tf"}
    (folder / ".keras/keras.json").write_text(json.dumps(settings))
    # TensorFlow sets TF2_BEHAVIOR when it is imported here, which versions before 2 obey.
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("TF", "KERAS", "JAX", "XLA", "PYTHON"))}
    return ours | {"HOME": str(folder), "KERAS_HOME": str(folder / ".keras"), "PYTHONDONTWRITEBYTECODE": "1"}


def run_inside(writer: Writer, envs: pathlib.Path, stage: pathlib.Path, models: list[str]) -> None:
    python = environment(writer, envs)
    stage.mkdir(parents=True, exist_ok=True)
    for floatx, what in (("float32", models), ("float64", ["--float64"])):
        with tempfile.TemporaryDirectory() as temporary, (stage / f"{floatx}.log").open("w") as log:
            variables = home(pathlib.Path(temporary), floatx, writer) | {"PYTHONHASHSEED": "0"}
            command = [python, HERE / writer.script, writer.name, stage, *what]
            subprocess.run(command, env=variables, stdout=log, stderr=subprocess.STDOUT, check=True)


def reopened(library: str, python: pathlib.Path, folders: list[pathlib.Path]) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        found = pathlib.Path(temporary) / "found.json"
        command = [python, HERE / "reopen.py", library, found, *folders]
        variables = home(pathlib.Path(temporary), "float32", WRITERS[OF_TODAY]) | {"PYTHONHASHSEED": "0"}
        subprocess.run(command, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return json.loads(found.read_text())


# ----------------------------------------------------------------------------
# Cases
# ----------------------------------------------------------------------------


def arrays_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return {k: file[k].astype("S") if file[k].dtype.kind == "S" else file[k] for k in file.files}


def untrained(value: object) -> object:
    """What a file says but for the optimizer's numbers, whose last digits differ from run to run."""
    if not isinstance(value, dict):
        return value
    kept = {k: untrained(v) for k, v in value.items()}
    return {k: (v[0], v[1] and v[1][:2]) if str(k).startswith("optimizer") else v for k, v in kept.items()}


def meaning(file: str, data: bytes) -> object:
    if file.endswith(".json"):
        return today.told(json.loads(data))
    if data.startswith(b"\x89HDF"):
        return untrained(today.meaning_of_hdf5(data))
    return untrained(today.meaning_of(file, data)) if data.startswith(b"PK") else data


AS_WRITTEN = ("tf-2.13", "keras-3.0.5")  # the writers whose example3/model.keras keeps its stored members


def deflated(path: pathlib.Path, writer: Writer, model: str) -> None:
    if (model != "example3" or writer.name not in AS_WRITTEN) and zipfile.is_zipfile(path):
        today.deflate(path)


def settled_text(text: str, stage: pathlib.Path) -> str:
    """The beginning of a message, without colours and what differs from run to run."""
    text = re.sub(r"\x1b\[[0-9;]*m|0x[0-9a-f]+", "", text).replace(str(stage), "…")
    return " ".join(re.sub(r"/\S*/(site-packages/)", r"\1", text).split())[:120]


def case_files(writer: Writer, stage: pathlib.Path, others: dict[str, dict]) -> dict[str, bytes]:
    """What belongs into the folder of the case whose recording is in `stage`."""
    facts = json.loads((stage / "facts.json").read_text())
    arrays, truths = arrays_of(stage / "io.npz"), arrays_of(stage / "truth.npz")
    inputs = [arrays[f"input_{i}"] for i in range(len(facts["inputs"]))]
    outputs = [arrays[f"output_{i}"] for i in range(len(facts["outputs"]))]
    if not facts["files"]:
        raise today.Disagreement(f"no file could be written: {facts['reloaded']}")
    rules = facts["rules"] or ["deep"] * len(outputs)
    tolerances = [today.tolerance_for(rule, y, facts["computed_in"]) for rule, y in zip(rules, outputs, strict=True)]
    noise = {"scale": today.rounded(max(map(today.scale_of, outputs)))}
    gaps = []
    for i, (y, tolerance) in enumerate(zip(outputs, tolerances, strict=True)):
        if y.dtype == "float32" and (truth := truths.get(f"truth_{i}")) is not None and truth.dtype == "float64":
            today.insist_on_agreement(truth, y, tolerance, f"truth_{i}")
            arrays[f"truth_{i}"] = truth
            gaps.append(today.gap(truth, y))
    if gaps:
        noise["tf_vs_truth_max_abs"] = today.rounded(max(gaps))
    allowed = max(t["atol"] + t["rtol"] * today.scale_of(y) for t, y in zip(tolerances, outputs, strict=True))
    said, opened = [facts["says"]], {}
    for who, of_files in (("reloaded", facts["reloaded"]), *others.items()):
        name = writer.writer if who == "reloaded" else who
        numbers = [x for x in of_files.values() if isinstance(x, float)]
        if numbers and max(numbers) <= allowed:
            noise[f"{who.split()[0]}_max_abs"] = today.rounded(max(numbers))
        for file, found in of_files.items():
            if isinstance(found, str):
                opened.setdefault(name, {})[file] = settled_text(found, stage)
            elif found > allowed:
                opened.setdefault(name, {})[file] = f"something else, {found:.2g} away"
                said.append(f"{name} opens {file} and computes something else.")
            else:
                opened.setdefault(name, {})[file] = "the same"
    case = {
        "format": 1,
        "class": facts["class"],
        "family": "written_by",
        "says": " ".join(said),
        "writer": writer.writer,
        "model": stage.name,
        "files": facts["files"],
        "inputs": today.described(facts["inputs"], inputs),
        "outputs": today.described(facts["outputs"], outputs),
        "compute_dtype": facts["compute_dtype"],
        "rule": "deep" if "deep" in rules else max(rules, key=list(today.RULES).index),
    }
    if len(outputs) == 1:
        case["tolerance"] = tolerances[0]
    else:
        case["outputs"] = [o | {"tolerance": t} for o, t in zip(case["outputs"], tolerances, strict=True)]
    if facts["because"]:
        case["because"] = facts["because"]
    if facts["refused"]:
        case["expect"] = f"refused: {facts['refused']}"
    case |= {"noise": noise, "reopened": opened}
    case |= {key: facts[key] for key in ("keras_version", "backend", "versions")}
    files = {"io.safetensors": today.packed(arrays), "case.json": today.as_json(case)}
    for path in sorted(stage.rglob("*")):
        if path.is_file() and path.name not in OWN:
            deflated(path, writer, stage.name)
            files[path.relative_to(stage).as_posix()] = path.read_bytes()
    return files


def settled(folder: pathlib.Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files, in the bytes committed where those say the same."""
    found = {}
    for file, fresh in files.items():
        path = folder / file
        old = path.read_bytes() if path.is_file() and file not in ("io.safetensors", "case.json") else None
        found[file] = old if old is not None and meaning(file, old) == meaning(file, fresh) else fresh
    return found


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for file, data in files.items():
        path = folder / file
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def recorded(writer: Writer, envs: pathlib.Path, stage: pathlib.Path) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Each model's files, and what could not be recorded."""
    if not (stage / "float64.log").is_file():
        run_inside(writer, envs, stage, writer.models.split())
    problems, folders = [], []
    for model in writer.models.split():
        folder = stage / model
        if (folder / "facts.json").is_file():
            folders.append(folder)
        else:
            why = (folder / "failed.txt").read_text() if (folder / "failed.txt").is_file() else "has no such model"
            problems.append(f"{writer.name}/{model}: {' '.join(why.split())[:300]}")
    of_today = {
        "keras 3.15.1": reopened("keras", pathlib.Path(sys.executable), folders),
        "tf_keras 2.21.0": reopened("tf_keras", environment(WRITERS[OF_TODAY], envs), folders),
    }
    finished = {}
    for folder in folders:
        others = {who: found.get(folder.name, {}) for who, found in of_today.items() if who != writer.writer}
        try:
            finished[folder.name] = case_files(writer, folder, others)
        except today.Disagreement as problem:
            problems.append(f"{writer.name}/{folder.name}: {problem}")
    return finished, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="WRITER")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything differs")
    parser.add_argument("--envs", type=pathlib.Path, default=CASES.parent / "target/writers", metavar="DIR", help="where the environments are")
    parser.add_argument("--stage", type=pathlib.Path, metavar="DIR", help="keep what the writers wrote, and use what is there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(WRITERS):
        sys.exit(f"no such writer: {', '.join(sorted(unknown))}")
    unchanged = True
    for writer in [WRITERS[name] for name in options.names or WRITERS]:
        out = CASES / "written_by" / writer.name
        with tempfile.TemporaryDirectory() as temporary:
            finished, problems = recorded(writer, options.envs.resolve(), (options.stage or pathlib.Path(temporary)) / writer.name)
        for model, fresh in finished.items():
            files = settled(out / model, fresh)
            verdict = today.compare(out / model, files)
            unchanged &= verdict == "same"
            print(f"{writer.name}/{model}: {verdict}")
            if not options.check:
                write(out / model, files)
        problems += [f"{writer.name}/{p.name} is left over" for p in sorted(out.glob("*")) if p.name not in finished]
        unchanged &= not problems
        print("".join(f"{problem}\n" for problem in problems), end="", flush=True)
    return 1 if options.check and not unchanged else 0


if __name__ == "__main__":
    sys.exit(main())
