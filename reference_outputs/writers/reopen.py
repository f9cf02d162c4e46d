"""Opens recorded files with a Keras of today and says how far its outputs are away.

    python reopen.py keras|tf_keras FOUND.json FOLDER ...    (each with io.npz and facts.json)
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"

import importlib

import numpy as np
import tensorflow as tf
from inside import gap

library = importlib.import_module(sys.argv[1])


def opened(path: pathlib.Path):
    if path.name == "model.json":
        model = library.models.model_from_json(path.read_text())
        model.load_weights(path.with_name("weights.h5"))
        return model
    return library.models.load_model(path, compile=False)


def main() -> None:
    found = {}
    for folder in map(pathlib.Path, sys.argv[3:]):
        files = json.loads((folder / "facts.json").read_text())["files"]
        with np.load(folder / "io.npz") as arrays:
            inputs = [arrays[f"input_{i}"] for i in range(sum(k.startswith("input_") for k in arrays.files))]
            outputs = [arrays[f"output_{i}"] for i in range(sum(k.startswith("output_") for k in arrays.files))]
        found[folder.name] = {}
        for file in files:
            if file.endswith("weights.h5") or file == "model.weights.json":
                continue
            library.backend.clear_session()
            try:
                model = opened(folder / file)
                tensors = [tf.constant(x) for x in inputs]
                answer = model(tensors[0] if len(tensors) == 1 else tensors, training=False)
                answers = [np.asarray(y) for y in tf.nest.flatten(answer)]
                if len(answers) != len(outputs):
                    raise ValueError(f"{len(answers)} outputs where {len(outputs)} were recorded")
                found[folder.name][file] = gap(outputs, answers)
            except Exception as problem:
                found[folder.name][file] = f"{type(problem).__name__}: {problem}"
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))


main()
