#!/usr/bin/env python3
"""Tests of record.py, with whatever Keras is installed: `python reference_outputs/test_record.py`.

Each model is recorded twice, which must give the same bytes, and judged by kandle where it is built: the program named by
KANDLE, else target/debug/kandle.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import safetensors.numpy
from keras import layers

HERE = pathlib.Path(__file__).resolve().parent
KANDLE = pathlib.Path(os.environ.get("KANDLE", HERE.parent / "target/debug/kandle"))

CUSTOM = """import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def text() -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    xs = layers.Embedding(50, 16, mask_zero=True)(ids)
    xs = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(xs)
    xs = layers.GlobalAveragePooling1D()(xs)
    return keras.Model(ids, layers.Dense(3, activation="softmax")(xs), name="text")


def images() -> keras.Model:
    pixels = keras.Input((None, None, 3))
    xs = layers.Rescaling(1 / 255)(pixels)
    xs = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(xs)
    xs = layers.ReLU()(layers.BatchNormalization()(xs))
    xs = layers.Add()([xs, layers.Conv2D(4, 3, padding="same", activation="gelu")(xs)])
    return keras.Model(pixels, layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(xs))), name="images")


def two_inputs() -> keras.Model:
    inner = keras.Sequential([layers.Dense(6, activation="tanh"), layers.Dense(5)], name="inner")
    shared = layers.Dense(4, name="shared")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    joined = layers.Concatenate()([inner(shared(a)), inner(shared(b)), a * 2 + b])
    return keras.Model([a, b], [joined, shared(b)], name="two_inputs")


def states() -> keras.Model:
    steps = keras.Input((None, 8))
    xs, h, c = layers.LSTM(6, return_sequences=True, return_state=True)(layers.Masking()(steps))
    return keras.Model(steps, [layers.MultiHeadAttention(2, 4)(xs, xs), h, c], name="states")


def words() -> keras.Model:
    word = keras.Input((1,), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=["cat", "dog", "bird"])(word)
    return keras.Model(word, layers.Flatten()(layers.Embedding(4, 3)(ids)), name="words")


def stateful() -> keras.Model:
    return keras.Sequential([keras.Input((5, 3), batch_size=2), layers.GRU(4, stateful=True), layers.Dense(2)])


def half() -> keras.Model:
    half = {"dtype": "mixed_float16"}
    return keras.Sequential([keras.Input((7,)), layers.Dense(8, activation="relu", **half), layers.Dense(2, **half)])


def quantized() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, activation="relu"), layers.Dense(2)])
    model.quantize("int8")
    return model


def dense() -> keras.Model:
    return keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="gelu"), layers.Dense(2)])


def of_ones_own() -> keras.Model:
    if "Twice" not in globals():
        exec(CUSTOM, globals())
    return keras.Sequential([keras.Input((5,)), globals()["Twice"](), layers.Dense(2)])


def saved(model: keras.Model, path: pathlib.Path) -> pathlib.Path:
    """The model with no weight that hides a mistake."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        value = np.asarray(weight)
        if str(weight.dtype) == "float32" and value.size and np.ptp(value) == 0:
            weight.assign(value + rng.uniform(0.1, 0.4, value.shape))
    model.save(path)
    return path


class Recording(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)

    def record(self, *arguments: object, code: int = 0) -> str:
        command = [sys.executable, "-W", "ignore", HERE / "record.py", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def twice(self, *arguments: object) -> dict[str, dict]:
        """Each set's case.json, after both recordings gave the same bytes and kandle its verdict."""
        folders = [self.folder / name for name in ("once", "again")]
        for folder in folders:
            self.record(*arguments, "--out", folder)
        once, again = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
        self.assertEqual(once.keys(), again.keys())
        self.assertEqual([str(path) for path in once if once[path] != again[path]], [])
        if KANDLE.is_file():
            done = subprocess.run([KANDLE, "verify", folders[0]], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return {p.parent.name: json.loads(p.read_text()) for p in folders[0].glob("*/case.json")}

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        return safetensors.numpy.load_file(self.folder / "once" / name / "io.safetensors")

    def test_text_with_a_mask(self) -> None:
        cases = self.twice(saved(text(), self.folder / "m.keras"))
        self.assertEqual(set(cases), {"ordinary", "other", "extreme"})
        found = self.tensors("ordinary")
        ids = found["input_0"]
        self.assertEqual((ids.min(), ids.max(), len(ids)), (0, 49, 5))
        self.assertTrue(any(row[0] == 0 and row[-1] != 0 for row in ids) and any(row[-1] == 0 and row[0] != 0 for row in ids))
        self.assertEqual(found["layers/bidirectional/0/in_mask_0"].tolist(), (ids != 0).tolist())
        for kind in ("truth_0", "jax_0", "layers/dense/0/truth_0", "layers/dense/0/jax_0"):
            self.assertIn(kind, found)
        self.assertEqual(self.tensors("extreme")["input_0"].max(), 49)
        (layer,) = (x for x in cases["ordinary"]["layers"] if x["path"] == "bidirectional")
        # Its mask is made of the ids.
        self.assertEqual(layer["from"], [["embedding/0", "input_0"]])

    def test_images(self) -> None:
        cases = self.twice(saved(images(), self.folder / "m.keras"))
        found = {x["path"]: x for x in cases["ordinary"]["layers"]}
        (name,) = (path for path in found if path.startswith("add"))
        self.assertEqual(len(found[name]["from"][0]), 2)
        shape = self.tensors("ordinary")["input_0"].shape
        self.assertTrue(shape[1] % 2 == 1 and shape[1] != shape[2], shape)

    def test_several_inputs_shared_and_nested_layers(self) -> None:
        cases = self.twice(saved(two_inputs(), self.folder / "m.keras"))
        found = {x["path"]: x for x in cases["ordinary"]["layers"]}
        sources = found["shared"]["from"]
        self.assertEqual((found["shared"]["calls"], sorted(sources)), (3, [["input_0"], ["input_1"], ["input_1"]]))
        (source,) = cases["ordinary"]["outputs"][1]["from"]
        self.assertEqual(sources[int(source.removeprefix("shared/"))], ["input_1"])
        self.assertTrue(any(path.startswith("inner/") for path in found))
        (joined,) = (x for path, x in found.items() if path.startswith("concatenate"))
        self.assertEqual(joined["from"][0][-2:], ["input_0", "input_1"])

    def test_states_and_several_outputs(self) -> None:
        self.assertEqual(len(self.twice(saved(states(), self.folder / "m.keras"))["other"]["outputs"]), 3)

    def test_texts(self) -> None:
        case = self.twice(saved(words(), self.folder / "m.keras"))["ordinary"]
        self.assertEqual((case["inputs"][0]["dtype"], case["noise"]["without_jax"]), ("string", "JAX has no texts"))

    def test_a_stateful_model_begins_anew(self) -> None:
        self.twice(saved(stateful(), self.folder / "m.keras"))

    def test_half_precision_has_no_truth(self) -> None:
        case = self.twice(saved(half(), self.folder / "m.keras"))["ordinary"]
        self.assertEqual(case["noise"]["without_truth"], "it does not compute in float32 throughout")

    def test_a_quantized_model(self) -> None:
        self.twice(saved(quantized(), self.folder / "m.keras"))

    def test_a_legacy_file(self) -> None:
        self.twice(saved(dense(), self.folder / "m.h5"))

    def test_an_architecture_and_its_weights(self) -> None:
        model = dense()
        saved(model, self.folder / "m.keras")
        (self.folder / "m.json").write_text(model.to_json())
        model.save_weights(self.folder / "w.weights.h5")
        case = self.twice("m.json", "--weights", "w.weights.h5")["ordinary"]
        self.assertEqual(case["files"], ["../model.json"])
        self.assertIn("an architecture without weights", self.record("m.json", code=1))

    def test_layers_of_ones_own(self) -> None:
        (self.folder / "mine.py").write_text(CUSTOM)
        saved(of_ones_own(), self.folder / "m.keras")
        told = self.record("m.keras", "--custom", "mine.py")
        self.assertIn("no rule for Twice: judged as `deep`", told)
        self.assertIn("--custom", self.record("m.keras", code=1))

    def test_ones_own_arrays(self) -> None:
        saved(dense(), self.folder / "m.keras")
        np.save(self.folder / "x.npy", np.arange(10, dtype="float64").reshape(2, 5))
        self.record("m.keras", "--input", "x.npy")
        found = safetensors.numpy.load_file(self.folder / "m.case/given/io.safetensors")
        self.assertEqual((found["input_0"].dtype, found["input_0"].tolist()), (np.float32, np.arange(10).reshape(2, 5).tolist()))
        np.save(self.folder / "x.npy", np.zeros((2, 4)))
        self.assertIn("expected (None, 5), found (2, 4)", self.record("m.keras", "--input", "x.npy", code=1))

    def test_zero_biases_are_told_and_moved_in_a_copy(self) -> None:
        dense().save(self.folder / "m.keras")
        before = (self.folder / "m.keras").read_bytes()
        self.assertIn("2 weights are all 0 or all 1", self.record("m.keras"))
        told = self.record("m.keras", "--perturb", "--out", "cases")
        self.assertIn("perturbed: 2 weights", told)
        self.assertEqual((self.folder / "m.keras").read_bytes(), before)
        self.assertTrue((self.folder / "cases/perturbed.keras").is_file())

    def test_what_is_past_the_limit_is_left_out_and_told(self) -> None:
        saved(text(), self.folder / "m.keras")
        told = self.record("m.keras", "--limit", "8kB")
        self.assertIn("calls of layers are left out", told)
        case = json.loads((self.folder / "m.case/ordinary/case.json").read_text())
        self.assertTrue(0 < case["left_out"] <= 4 and len(case["layers"]) + case["left_out"] == 4)
        self.record("m.keras", "--layers", "dense")
        case = json.loads((self.folder / "m.case/ordinary/case.json").read_text())
        self.assertEqual([x["path"] for x in case["layers"]], ["dense"])

    def test_a_failed_recording_leaves_the_old_one(self) -> None:
        saved(dense(), self.folder / "m.keras")
        self.record("m.keras")
        before = (self.folder / "m.case/ordinary/case.json").read_bytes()
        (self.folder / "m.keras").write_bytes(b"PK cut")
        self.assertTrue(self.record("m.keras", code=1).startswith("error: "))
        self.assertEqual((self.folder / "m.case/ordinary/case.json").read_bytes(), before)
        self.assertIn("no such file", self.record("none.keras", code=1))


if __name__ == "__main__":
    unittest.main()
