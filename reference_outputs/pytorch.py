#!/usr/bin/env python3
"""Runs in PyTorch what `kandle convert` writes, and records what PyTorch computes beside what Keras recorded.

    pytorch.py KANDLE      record; KANDLE is the program
    pytorch.py KANDLE --check   write nothing; exit 1 if anything differs

The modules are those of docs/pytorch.md: its Python is run as it stands there. Each loads
the converted model.safetensors of the case it is named after, strictly, and must give
Keras's recorded outputs within the case's tolerance. In the case's folder pytorch.safetensors
has PyTorch's outputs (`torch_i`), pytorch.json the versions, the differences and a digest
of each tensor that was loaded. Needs Python 3.11, torch, numpy and safetensors; no Keras.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import safetensors
import safetensors.numpy
import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
DOC = HERE.parent / "docs" / "pytorch.md"

# The modules of the page, and the cases they are. PyTorchModel runs itself, on a file of this name.
MODULES = {"PyTorchModel": "example3/2x3"} | {
    name: f"pytorch/{name}"
    for name in ("Convolutions", "Causal", "Transposed", "Volumes", "Signals", "Cnn", "Normalized", "Lstm", "Gru", "BothWays")
}


def python_of_page() -> str:
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.DOTALL | re.MULTILINE))


def digests(path: pathlib.Path) -> list[dict]:
    tensors = safetensors.numpy.load_file(path)
    return [
        {"name": n, "shape": list(t.shape), "dtype": str(t.dtype), "crc32": zlib.crc32(t.tobytes())}
        for n, t in sorted(tensors.items())
    ]


def judged(case: str, outputs: list[np.ndarray]) -> float:
    """The largest difference from Keras; an error where it is over the tolerance."""
    facts = json.loads((HERE / case / "case.json").read_text())
    recorded = safetensors.numpy.load_file(HERE / case / "io.safetensors")
    worst = 0.0
    if len(outputs) != len(facts["outputs"]):
        sys.exit(f"{case}: {len(outputs)} outputs, recorded {len(facts['outputs'])}")
    for i, (ours, declared) in enumerate(zip(outputs, facts["outputs"])):
        keras, tolerance = recorded[f"output_{i}"], declared.get("tolerance", facts.get("tolerance"))
        if ours.shape != keras.shape or ours.dtype != keras.dtype or not ours.size:
            sys.exit(f"{case}: output_{i}: {ours.dtype} {ours.shape}, recorded {keras.dtype} {keras.shape}")
        gap = np.abs(ours.astype("float64") - keras.astype("float64"))
        # Written so that NaN is not allowed.
        if not (gap <= tolerance["atol"] + tolerance["rtol"] * np.abs(keras)).all():
            sys.exit(f"{case}: output_{i} is {gap.max():.3g} from Keras, allowed {tolerance}")
        worst = max(worst, float(gap.max()))
    return worst


def record(kandle: str, module: str, case: str, page: dict, code: str) -> dict[str, bytes]:
    model_file = HERE / case / "model.keras"
    with tempfile.TemporaryDirectory() as temporary:
        converted = pathlib.Path(temporary) / "model.safetensors"
        subprocess.run([kandle, "convert", model_file, converted], check=True, stdout=subprocess.DEVNULL)
        tensors = digests(converted)
        model = page[module]().eval()
        model.load_state_dict(load_file(converted), strict=True)
    inputs = safetensors.numpy.load_file(HERE / case / "io.safetensors")
    count = sum(re.fullmatch(r"input_\d+", name) is not None for name in inputs)
    given = [torch.from_numpy(inputs[f"input_{i}"].copy()) for i in range(count)]
    with torch.no_grad():
        output = model(*given)
    outputs = [output.contiguous().numpy()]
    worst = judged(case, outputs)
    facts = {
        "module": module,
        "max_abs_from_keras": float(f"{worst:.6g}"),
        "tensors": tensors,
        # That docs/pytorch.md says what was run.
        "page_crc32": zlib.crc32(code.encode()),
        "versions": {
            "torch": torch.__version__.split("+")[0],
            "safetensors": safetensors.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    print(f"{case}: {len(tensors)} tensors, {worst:.3g} from Keras")
    return {
        "pytorch.safetensors": safetensors.numpy.save({f"torch_{i}": y for i, y in enumerate(outputs)}),
        "pytorch.json": (json.dumps(facts, indent=1) + "\n").encode(),
    }


def run_page(kandle: str, code: str) -> dict:
    """The names that the page's Python defines, run where its first block finds its model.safetensors."""
    page: dict = {}
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as temporary:
        converted = pathlib.Path(temporary) / "model.safetensors"
        model_file = HERE / MODULES["PyTorchModel"] / "model.keras"
        subprocess.run([kandle, "convert", model_file, converted], check=True, stdout=subprocess.DEVNULL)
        os.chdir(temporary)
        try:
            exec(compile(code, str(DOC), "exec"), page)
        finally:
            os.chdir(before)
    judged(MODULES["PyTorchModel"], [page["ys"].numpy()])
    return page


def table(recorded: dict[str, dict[str, bytes]]) -> str:
    """What the page says was checked."""
    rows, versions = [], {}
    for case, files in recorded.items():
        facts = json.loads(files["pytorch.json"])
        tolerance = json.loads((HERE / case / "case.json").read_text())["tolerance"]
        versions = facts["versions"]
        rows.append(f"| `{facts['module']}` | {case} | {facts['max_abs_from_keras']:.1e} | {tolerance['atol']:.1e} |")
    head = f"PyTorch {versions['torch']} (CPU), against Keras 3.15.1 on TensorFlow 2.21.0:\n\n"
    return head + "\n".join(["| module | case | largest difference | allowed |", "|---|---|---|---|", *rows, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kandle", metavar="KANDLE", help="the program: target/release/kandle")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything differs")
    options = parser.parse_args()
    kandle = str(pathlib.Path(options.kandle).resolve())
    torch.manual_seed(0)
    code = python_of_page()
    page = run_page(kandle, code)
    recorded = {case: record(kandle, module, case, page, code) for module, case in MODULES.items()}
    text = DOC.read_text()
    marks = "<!-- checked -->\n", "<!-- /checked -->"
    before, rest = text.split(marks[0])
    _, after = rest.split(marks[1])
    new = {DOC: (before + marks[0] + table(recorded) + marks[1] + after).encode()}
    new |= {HERE / case / file: data for case, files in recorded.items() for file, data in files.items()}
    changed = [path for path, data in new.items() if not path.is_file() or path.read_bytes() != data]
    for path in changed:
        print(f"{path.relative_to(HERE.parent)}: changed")
        if not options.check:
            beside = path.with_name(f".{path.name}.new")
            beside.write_bytes(new[path])
            os.replace(beside, path)
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
