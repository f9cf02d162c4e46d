"""What the scripts that run inside an old environment share; plain enough for Python 2.7.

    python keras2.py WRITER OUT [MODEL ... | --float64]

For each model OUT/<model>/ gets the files that this Keras wrote, io.npz with
input_i and output_i, and facts.json; or failed.txt. --float64 then adds truth.npz.
"""

from __future__ import print_function

import json
import os
import platform
import sys
import traceback
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np

MODELS = []


class Recipe(object):
    def __init__(self, name, says, build, files, rules, truth, fill, computed_in, because, refused):
        self.name, self.says, self.build, self.files, self.rules = name, says, build, files, rules
        self.truth, self.fill, self.computed_in, self.because = truth, fill, computed_in, because
        self.refused = refused


def recipe(
    name, says, when=True, files=None, rules=None, truth=True, fill=True, computed_in=None, because=None, refused=None
):
    """Declares a model: a function of a seeded generator that gives a model and its inputs.

    rules: of the outputs, where they aren't `deep`. fill: set seeded weights. when: this Keras has its layers.
    refused: why its files must be refused.
    """

    def declare(build):
        if when:
            MODELS.append(Recipe(name, says, build, files, rules, truth, fill, computed_in, because, refused))
        return build

    return declare


def generator(seed):
    return np.random.RandomState(zlib.crc32(seed.encode("utf-8")) & 0xFFFFFFFF)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def value_for(rng, name, shape):
    """Weights that keep activations near 1; no bias is near 0, no variance negative, no two numbers are the same."""
    if "variance" in name or "running_std" in name:
        return rng.uniform(0.5, 2.0, shape)
    if len(shape) == 0:
        return rng.uniform(0.5, 1.5)
    if len(shape) == 1:
        return rng.uniform(0.1, 0.5, shape) * rng.choice([-1.0, 1.0], shape)
    if "embedding" in name:
        return rng.standard_normal(shape)
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))


def unique(variables):
    found = []
    for variable in variables:
        if not any(variable is other for other in found):
            found.append(variable)
    return found


def gap(ours, theirs):
    largest = 0.0
    for a, b in zip(ours, theirs):
        if a.shape != b.shape:
            return "shapes %s and %s" % (a.shape, b.shape)
        if a.dtype.kind in "OSU":
            if a.tolist() != b.tolist():
                return "other texts"
            continue
        a, b = a.astype("float64"), b.astype("float64")
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return "not finite in other places"
        both = np.isfinite(a)
        largest = max(largest, float(np.abs(a[both] - b[both]).max()) if both.any() else 0.0)
    return largest


def as_text(array):
    """Texts as unicode arrays, so that an .npz holds them without pickles."""
    if array.dtype.kind in "OS":
        return np.array([t.decode("utf-8") if isinstance(t, bytes) else t for t in array.ravel().tolist()]).reshape(array.shape)
    return array


class Engine(object):
    """What differs between the generations of Keras."""

    def clear(self):
        raise NotImplementedError

    def variables(self, model):
        """(name, shape, dtype, variable) of each variable once."""
        raise NotImplementedError

    def assign(self, pairs):
        raise NotImplementedError

    def values(self, variables):
        raise NotImplementedError

    def run(self, model, inputs):
        raise NotImplementedError

    def save(self, model, path):
        raise NotImplementedError

    def load(self, path, twin):
        """The model in a file; `twin` builds it anew for a file of weights."""
        raise NotImplementedError

    def prepare_float64(self):
        pass

    def facts(self, model):
        raise NotImplementedError

    def files(self, name):
        raise NotImplementedError


def fill(engine, name, model):
    rng = generator(name + " weights")
    pairs = []
    for name, shape, dtype, variable in engine.variables(model):
        if "float" in dtype:
            pairs.append((variable, np.asarray(value_for(rng, name, shape)).astype("float32").astype(dtype)))
    engine.assign(pairs)


def in_float64(engine, out):
    """In a process of its own whose floatx is float64, since old versions read it once: the outputs of what was recorded."""
    engine.prepare_float64()
    for recipe in MODELS:
        folder = os.path.join(out, recipe.name)
        if not os.path.isfile(os.path.join(folder, "values.npz")):
            continue
        with np.load(os.path.join(folder, "values.npz")) as file:
            values = [file["value_%d" % i] for i in range(len(file.files))]
        try:
            engine.clear()
            model, inputs = recipe.build(generator(recipe.name))
            found = engine.variables(model)
            if len(found) != len(values):
                raise ValueError("%d variables in float64, %d before" % (len(found), len(values)))
            engine.assign([(v[3], x.astype(v[2])) for v, x in zip(found, values)])
            outputs = engine.run(model, [x.astype("float64") if x.dtype == "float32" else x for x in inputs])
            np.savez(os.path.join(folder, "truth.npz"), **dict(("truth_%d" % i, as_text(y)) for i, y in enumerate(outputs)))
        except Exception as problem:
            if os.environ.get("WRITERS_TRACE"):
                traceback.print_exc()
            with open(os.path.join(folder, "truth.failed"), "w") as file:
                file.write("%s: %s" % (type(problem).__name__, str(problem)[:500]))
        os.remove(os.path.join(folder, "values.npz"))


def record(engine, recipe, out):
    if not os.path.isdir(out):
        os.makedirs(out)
    engine.clear()
    built = recipe.build(generator(recipe.name))
    if isinstance(built, dict):  # a model saved by other means than these
        built["save"](out)
        inputs, outputs, model, files = built["inputs"], built["outputs"], built["model"], built["files"]
        facts = engine.facts(model)
        reloaded = {}
    else:
        model, inputs = built
        if recipe.fill:
            fill(engine, recipe.name, model)
        outputs = engine.run(model, inputs)
        facts = engine.facts(model)
        values = engine.values([v[3] for v in engine.variables(model)])
        files, reloaded = [], {}
        for file in recipe.files or engine.files(recipe.name):
            try:
                engine.save(model, os.path.join(out, file))
            except Exception as problem:
                traceback.print_exc()
                if os.path.isfile(os.path.join(out, file)):
                    os.remove(os.path.join(out, file))
                reloaded[file] = "not saved: %s: %s" % (type(problem).__name__, str(problem)[:300])
                continue
            files.append(file)

        def twin():
            return recipe.build(generator(recipe.name))[0]

        for file in files:
            if file == "weights.h5":
                continue
            try:
                engine.clear()
                again = engine.run(engine.load(os.path.join(out, file), twin), inputs)
                reloaded[file] = gap(outputs, again)
            except Exception as problem:
                reloaded[file] = "%s: %s" % (type(problem).__name__, str(problem)[:300])
        if recipe.truth and any(y.dtype == "float32" for y in outputs):
            np.savez(os.path.join(out, "values.npz"), **dict(("value_%d" % i, x) for i, x in enumerate(values)))
    tensors = {}
    for i, x in enumerate(inputs):
        tensors["input_%d" % i] = as_text(np.asarray(x))
    for i, y in enumerate(outputs):
        tensors["output_%d" % i] = as_text(np.asarray(y))
    np.savez(os.path.join(out, "io.npz"), **tensors)
    facts.update(
        says=recipe.says, files=files, rules=recipe.rules, computed_in=recipe.computed_in, because=recipe.because,
        refused=recipe.refused, reloaded=reloaded,
    )
    facts.setdefault("versions", {}).update(numpy=np.__version__, python=platform.python_version())
    with open(os.path.join(out, "facts.json"), "w") as file:
        json.dump(facts, file, indent=1, sort_keys=True)
    scales = ["%.3g" % np.abs(y[np.isfinite(y)]).max() if y.dtype.kind == "f" and y.size else str(y.dtype) for y in outputs]
    print(recipe.name, "scales", scales, "reloaded", reloaded, [(f, os.path.getsize(os.path.join(out, f))) for f in files])


def main(engine):
    out, names = sys.argv[2], sys.argv[3:]
    if names == ["--float64"]:
        return in_float64(engine, out)
    for one in MODELS:
        if names and one.name not in names:
            continue
        folder = os.path.join(out, one.name)
        try:
            record(engine, one, folder)
        except Exception as problem:
            if not os.path.isdir(folder):
                os.makedirs(folder)
            with open(os.path.join(folder, "failed.txt"), "w") as file:
                file.write("%s: %s" % (type(problem).__name__, str(problem)[:500]))
            if os.environ.get("WRITERS_TRACE"):
                traceback.print_exc()
            print(one.name, "FAILED", type(problem).__name__, str(problem)[:300])
        sys.stdout.flush()
