#!/usr/bin/env python3
"""Records what Keras computes, one folder per case, for the Rust side to be compared with.

    record.py [NAME ...]   record all cases, or those named (a folder name takes all below it)
    record.py --list       print the names
    record.py --check      record into a temporary folder; exit 1 if anything differs

A case is a function under `@case(...)` that returns a model and its inputs. Its
weights come from a seeded generator, its outputs from the model reloaded from
model.keras on TensorFlow, the same numbers from JAX (`jax_i`) and in float64
(`truth_i`). A file is rewritten only when what it says has changed.
"""

import argparse
import contextlib
import dataclasses
import decimal
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

REPLAY = "--replay"  # how this script calls itself to compute under JAX
os.environ["KERAS_BACKEND"] = "jax" if REPLAY in sys.argv else "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import absl.logging
import h5py
import keras
import numpy as np
import safetensors.numpy
from keras import layers
from keras.src.backend import get_keras_mask

Tensors = dict[str, np.ndarray]
Recipe = Callable[[np.random.Generator], tuple[keras.Model, list[np.ndarray]]]

absl.logging.set_verbosity("error")
HERE = pathlib.Path(__file__).resolve().parent
MODEL_FILES = ("model.keras", "model.h5", "model.weights.h5")


class Disagreement(Exception):
    """Two computations that must agree within the tolerance don't."""


# ----------------------------------------------------------------------------
# Declaring a case
# ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One folder. Cases with the same `model` share their model files byte for byte."""

    name: str
    says: str
    recipe: Recipe
    model: str
    files: tuple[str, ...]
    fill: bool
    special: bool
    refused: str | None

    @property
    def family(self) -> str:
        head = self.name.split("/")[0]
        return "examples" if head.startswith("example") else head


CASES: dict[str, Case] = {}


def case(
    name: str,
    says: str,
    *,
    model: str | None = None,
    files: tuple[str, ...] = MODEL_FILES,
    fill: bool = True,
    special: bool = False,
    refused: str | None = None,
) -> Callable[[Recipe], Recipe]:
    """Declares a case.

    `says`: the plausible mistake it would show. `fill`: set the weights from the
    seeded generator. `special`: NaN and infinities are allowed, and the case is
    skipped where TensorFlow and JAX disagree about them. `refused`: the class or
    key for which the file must be refused.
    """

    def declare(recipe: Recipe) -> Recipe:
        if name in CASES:
            raise ValueError(f"case {name} is declared twice")
        CASES[name] = Case(name, says, recipe, model or name, files, fill, special, refused)
        return recipe

    return declare


def generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(seed.encode()))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype("float32")


def ids(rng: np.random.Generator, shape: tuple[int, int], vocabulary: int) -> np.ndarray:
    """Seeded ids; the first is 0 and the last is the largest."""
    drawn = rng.integers(0, vocabulary, shape).astype("int32")
    drawn[0, 0], drawn[-1, -1] = 0, vocabulary - 1
    return drawn


def fill_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Weights that keep activations near 1; no bias is near 0."""
    for weight in model.weights:
        if len(weight.shape) == 1:
            value = rng.uniform(0.1, 0.5, weight.shape) * rng.choice([-1.0, 1.0], weight.shape)
        elif weight.name == "embeddings":
            value = rng.standard_normal(weight.shape)
        else:
            value = rng.standard_normal(weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
        weight.assign(value.astype("float32"))


def sequential(
    *stack: layers.Layer, shape: tuple[int | None, ...], dtype: str = "float32", name: str | None = None
) -> keras.Sequential:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stack], name=name)


def train_one_step(model: keras.Model, xs: np.ndarray) -> None:
    """Leaves an optimizer with state in the files."""
    model.compile(optimizer="adam", loss="mse")
    model.train_on_batch(xs, np.zeros(model(xs).shape, "float32"))


# ----------------------------------------------------------------------------
# The cases
# ----------------------------------------------------------------------------


def example1() -> keras.Model:
    uniform = keras.initializers.RandomUniform(-0.05, 0.05, seed=1)
    embedding = layers.Embedding(1000, 128, embeddings_initializer=uniform, name="embedding")
    return sequential(embedding, shape=(None,), dtype="int32", name="example1")


def example2() -> keras.Model:
    gaussian = keras.initializers.RandomNormal(0.0, 0.05, seed=2)
    embedding = layers.Embedding(1000, 128, embeddings_initializer=gaussian, name="embedding")
    return sequential(embedding, shape=(None,), dtype="int32", name="example2")


def example3() -> keras.Model:
    return sequential(
        layers.Embedding(1000, 128, name="embedding"),
        layers.Dense(64, activation="relu", name="dense"),
        shape=(None,),
        dtype="int32",
        name="example3",
    )


EXAMPLES = {
    "example1": (example1, "An id looked up one row off, or a table read transposed."),
    "example2": (example2, "As example1, with a table drawn from a normal distribution."),
    "example3": (example3, "A kernel left untransposed, a bias forgotten, or relu left out."),
}


def declare_examples() -> None:
    for name, (build, says) in EXAMPLES.items():
        fill = name == "example3"

        @case(f"{name}/2x3", says, model=name, fill=fill)
        def _(rng, build=build):
            return build(), [np.array([[1, 2, 3], [4, 5, 6]], "int32")]

        @case(f"{name}/4x16", says + " Holds the ids 0 and 999.", model=name, fill=fill)
        def _(rng, build=build):
            return build(), [ids(rng, (4, 16), 1000)]


declare_examples()


@case(
    "example3_separate/4x16",
    "Relu as a layer of its own, and an optimizer in the file that must not be taken for weights.",
)
def _(rng):
    model = sequential(
        layers.Embedding(50, 128, name="embedding"),
        layers.Dense(64, name="dense"),
        layers.ReLU(name="re_lu"),
        shape=(None,),
        dtype="int32",
        name="example3_separate",
    )
    xs = ids(rng, (4, 16), 50)
    train_one_step(model, xs)
    return model, [xs]


DENSE = {
    "rank2": ("The plain product with its bias.", (3, 6), lambda: layers.Dense(5)),
    "rank3": ("The product taken over another axis than the last.", (2, 3, 6), lambda: layers.Dense(5)),
    "rank4": ("An input of rank 4 refused or flattened.", (2, 3, 4, 6), lambda: layers.Dense(5)),
    "square": ("A square kernel loaded transposed: the shape fits.", (3, 7), lambda: layers.Dense(7)),
    "no_bias": ("A bias expected where there is none.", (3, 6), lambda: layers.Dense(5, use_bias=False)),
    "softmax": ("Softmax over another axis than the last.", (2, 3, 6), lambda: layers.Dense(5, activation="softmax")),
    "gelu": (
        "Keras's gelu by name is the erf form, not the tanh approximation.",
        (3, 6),
        lambda: layers.Dense(5, activation="gelu"),
    ),
    "leaky_relu_object": (
        "An activation given as a layer: its negative_slope (0.1) ignored.",
        (3, 6),
        lambda: layers.Dense(5, activation=layers.LeakyReLU(0.1)),
    ),
    "relu_object": (
        "An activation given as a layer: its max_value (0.75) ignored.",
        (3, 6),
        lambda: layers.Dense(5, activation=layers.ReLU(max_value=0.75)),
    ),
    "frozen": (
        "A frozen layer's weights skipped, as if only trainable ones were saved.",
        (3, 6),
        lambda: layers.Dense(5, trainable=False),
    ),
}


def declare_dense() -> None:
    for name, (says, shape, build) in DENSE.items():

        @case(f"core/Dense/{name}", says)
        def _(rng, shape=shape, build=build):
            return sequential(build(), shape=shape[1:]), [normal(rng, *shape)]


declare_dense()


@case("core/Dense/int32_input", "An integer input multiplied in integers, or refused.")
def _(rng):
    model = sequential(layers.Dense(5), shape=(6,), dtype="int32")
    return model, [rng.integers(-4, 5, (3, 6)).astype("int32")]


@case(
    "core/Dense/names_against_order",
    "Weights found by the layer's name: the file's groups count in the order of the layers.",
)
def _(rng):
    first, second = layers.Dense(4, name="dense_1"), layers.Dense(4, name="dense")
    return sequential(first, second, shape=(4,)), [normal(rng, 3, 4)]


@case("core/Dense/twelve", "Group names sorted as text: dense_10 comes before dense_2.")
def _(rng):
    return sequential(*[layers.Dense(4) for _ in range(12)], shape=(4,)), [normal(rng, 3, 4)]


@case("core/Dense/frozen_first", "A frozen layer before a trainable one: weights given to the wrong layer.")
def _(rng):
    frozen = layers.Dense(4, trainable=False)
    return sequential(frozen, layers.Dense(4), shape=(4,)), [normal(rng, 3, 4)]


@case("core/Embedding/float_ids", "Ids given as floats rounded to nearest: Keras truncates towards zero.")
def _(rng):
    model = sequential(layers.Embedding(6, 4), shape=(4,), dtype="float32")
    return model, [np.array([[1.9, 0.5, 2.0, 4.999], [-0.9, 3.5, 2.5, 0.0]], "float32")]


@case("core/Embedding/mask_zero", "A mask lost on its way, or applied to the numbers.")
def _(rng):
    model = sequential(
        layers.Embedding(10, 4, mask_zero=True),
        layers.Dense(3),
        layers.Dropout(0.5),
        layers.Flatten(),
        shape=(5,),
        dtype="int32",
    )
    return model, [np.array([[3, 1, 4, 0, 0], [0, 5, 0, 9, 2], [0, 0, 0, 0, 0]], "int32")]


@case("core/Embedding/uint8_ids", "Ids of 8 bits: 200 read as -56.")
def _(rng):
    model = sequential(layers.Embedding(256, 4), shape=(3,), dtype="uint8")
    return model, [np.array([[0, 200, 255], [127, 128, 1]], "uint8")]


@case(
    "core/Embedding/built_by_call",
    "A model built by being called: its batch is fixed, and its ids pass through a float32 input layer.",
)
def _(rng):
    model = keras.Sequential([layers.Embedding(20, 4), layers.Dense(3)])
    xs = ids(rng, (2, 5), 20)
    model(xs)
    return model, [xs]


ACTIVATIONS = {
    "relu": "A negative number passed through.",
    "leaky_relu": "A slope of 0.3 or 0.01: by name it is 0.2.",
    "relu6": "The upper limit 6 forgotten.",
    "softmax": "Not normalised over the last axis.",
    "celu": "The negative branch without expm1.",
    "elu": "The negative branch without expm1.",
    "selu": "Scale and alpha swapped or rounded.",
    "softplus": "log1p(exp(x)) cut off too early.",
    "softsign": "x / (1 + x) without the absolute value.",
    "squareplus": "b = 4 forgotten.",
    "soft_shrink": "The threshold 0.5 not subtracted.",
    "sparse_plus": "The quadratic middle between -1 and 1 left out.",
    "silu": "The sigmoid without its factor x.",
    "gelu": "The tanh approximation in place of erf.",
    "glu": "The halves of the last axis swapped.",
    "tanh": "A fast approximation of tanh.",
    "tanh_shrink": "tanh(x) - x.",
    "sigmoid": "A fast approximation of the exponential.",
    "sparse_sigmoid": "Taken for hard_sigmoid.",
    "exponential": "A fast approximation of the exponential.",
    "hard_sigmoid": "Keras 2's slope 0.2: since Keras 3 it is relu6(x + 3) / 6.",
    "hard_silu": "Built on Keras 2's hard_sigmoid.",
    "hard_tanh": "Limits other than -1 and 1.",
    "hard_shrink": "The threshold 0.5 kept at the boundary.",
    "linear": "Anything done at all.",
    "mish": "softplus without tanh.",
    "log_softmax": "log(softmax(x)), which loses the small ones.",
    "log_sigmoid": "log(sigmoid(x)), which loses the large negatives.",
    "sparsemax": "The threshold taken over the wrong number of entries.",
}
OVER_AN_AXIS = ("softmax", "log_softmax", "glu", "sparsemax")
CORNERS = [0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 2.5, -0.0, 0.0, 1e-6]
LARGE = np.array([[20, -20, 80, -80, 10, -10, 40, -40], [88, 88, 87, 88, 86, 88, 88, 88]], "float32")
SPECIAL = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-30, 88.0, -104.0, 2.5]], "float32")


def curve(rng: np.random.Generator) -> np.ndarray:
    """Three rows of eight: the corners of piecewise activations among numbers up to 4."""
    drawn = np.clip(rng.normal(0.0, 3.0, 24 - len(CORNERS)), -4.0, 4.0)
    return rng.permutation(np.concatenate([CORNERS, drawn])).reshape(3, 8).astype("float32")


def declare_pointwise(name: str, says: str, build: Callable[[], layers.Layer], special: bool) -> None:
    """A layer without weights: ordinary numbers, large ones, NaN and infinities."""

    def model() -> keras.Model:
        return sequential(build(), shape=(8,))

    @case(name, says)
    def _(rng):
        return model(), [curve(rng)]

    @case(f"{name}_large", "An overflow on the way to a finite number.", model=name)
    def _(rng):
        return model(), [LARGE]

    if special:

        @case(f"{name}_special", "NaN swallowed by a maximum, or infinity times zero.", model=name, special=True)
        def _(rng):
            return model(), [SPECIAL]


RELU = {
    "default": ("A negative number passed through.", {}),
    "max_value": ("The upper limit forgotten.", {"max_value": 6.0}),
    "max_value_other": ("An upper limit taken only where it is 6.", {"max_value": 2.25}),
    "negative_slope": ("The slope forgotten.", {"negative_slope": 0.1}),
    "threshold": ("The threshold subtracted, or kept at the boundary.", {"threshold": 1.0}),
    "all_three": (
        "The slope applied to x instead of x - threshold.",
        {"max_value": 6.0, "negative_slope": 0.1, "threshold": 1.0},
    ),
}


LEAKY_RELU = {
    "default": ("The slope of the activation named leaky_relu, 0.2, instead of the layer's 0.3.", {}),
    "small": ("The slope forgotten.", {"negative_slope": 0.05}),
    "zero": ("A slope of zero taken for none given.", {"negative_slope": 0.0}),
}


def declare_activations() -> None:
    for name, says in ACTIVATIONS.items():
        declare_pointwise(
            f"activations/Activation/{name}",
            says,
            lambda name=name: layers.Activation(name),
            special=name not in OVER_AN_AXIS,
        )
    for name, (says, options) in RELU.items():
        declare_pointwise(
            f"activations/ReLU/{name}", says, lambda options=options: layers.ReLU(**options), special=True
        )
    for name, (says, options) in LEAKY_RELU.items():
        declare_pointwise(
            f"activations/LeakyReLU/{name}", says, lambda options=options: layers.LeakyReLU(**options), special=True
        )


declare_activations()

SHAPES = {
    "reshaping/Flatten/rank1": ("A batch of single numbers becomes (batch, 1).", (3,), (), layers.Flatten),
    "reshaping/Flatten/rank2": ("Nothing to flatten.", (3, 4), (4,), layers.Flatten),
    "reshaping/Flatten/rank3": ("The batch flattened too.", (3, 2, 4), (2, 4), layers.Flatten),
    "reshaping/Flatten/rank4": ("The batch flattened too.", (2, 2, 3, 4), (2, 3, 4), layers.Flatten),
    "reshaping/Flatten/unknown_axis": ("An axis unknown until now.", (2, 3, 4), (None, 4), layers.Flatten),
    "reshaping/Flatten/channels_first": (
        "The channels not moved last before flattening.",
        (2, 3, 4, 5),
        (3, 4, 5),
        lambda: layers.Flatten(data_format="channels_first"),
    ),
    "reshaping/Reshape/plain": (
        "The batch taken for a part of the target.",
        (2, 6),
        (6,),
        lambda: layers.Reshape((2, 3)),
    ),
    "reshaping/Reshape/minus_one": ("-1 not solved for.", (2, 3, 4), (3, 4), lambda: layers.Reshape((2, -1, 2))),
    "reshaping/Reshape/to_rank1": ("A target of one axis.", (2, 2, 3), (2, 3), lambda: layers.Reshape((6,))),
    "reshaping/Reshape/unknown_axis": (
        "-1 solved for when the axis is not known yet.",
        (2, 3, 4),
        (None, 4),
        lambda: layers.Reshape((-1, 2)),
    ),
    "regularization/Dropout/half": (
        "Numbers dropped or scaled at inference.",
        (3, 8),
        (8,),
        lambda: layers.Dropout(0.5),
    ),
}


def declare_shapes() -> None:
    for name, (says, fed, declared, build) in SHAPES.items():

        @case(name, says)
        def _(rng, fed=fed, declared=declared, build=build):
            return sequential(build(), shape=declared), [normal(rng, *fed)]


declare_shapes()


@case("models/Sequential/stack", "A step left out or done twice in a longer stack.")
def _(rng):
    model = sequential(
        layers.Dense(8, activation="tanh"),
        layers.Dropout(0.3),
        layers.Reshape((2, 4)),
        layers.Dense(3, activation="selu"),
        layers.Flatten(),
        layers.Dense(4),
        layers.Activation("softmax"),
        shape=(6,),
    )
    return model, [normal(rng, 3, 6)]


@case("models/Sequential/compiled", "An optimizer's slots, of the kernel's shape, taken for weights.")
def _(rng):
    model = sequential(layers.Dense(4, activation="relu"), layers.Dense(2), shape=(3,))
    xs = normal(rng, 5, 3)
    train_one_step(model, xs)
    return model, [xs]


@keras.saving.register_keras_serializable(package="package")
class Name(layers.Layer):
    """A layer that no reader can know."""

    def call(self, xs: object) -> object:
        return xs + 1.0


@case("refused/lambda", "Python code in the file, run or skipped.", files=("model.keras",), refused="Lambda")
def _(rng):
    double = eval("lambda x: x * 2")  # so that the code in the file names no path
    return sequential(layers.Lambda(double), shape=(3,)), [normal(rng, 2, 3)]


@case("refused/functional", "A graph run as if it were a stack.", refused="Functional")
def _(rng):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    return keras.Model([left, right], layers.Add()([left, right])), [normal(rng, 2, 3), normal(rng, 2, 3)]


@case("refused/mixed_float16", "Half precision computed in single.", refused="mixed_float16")
def _(rng):
    return sequential(layers.Dense(3, dtype="mixed_float16"), shape=(4,)), [normal(rng, 2, 4)]


@case("refused/conv", "Only the first of several unsupported layers named.", refused="Conv2D")
def _(rng):
    model = sequential(layers.Conv2D(2, 2), layers.Reshape((3, 6)), layers.LSTM(3), layers.Dense(2), shape=(4, 4, 1))
    return model, [normal(rng, 2, 4, 4, 1)]


@case(
    "refused/quantized",
    "Bytes of a quantized kernel taken for numbers.",
    files=("model.keras", "model.weights.h5"),
    fill=False,
    refused="quantization",
)
def _(rng):
    model = sequential(layers.Dense(4), shape=(8,))
    fill_weights(model, rng)
    model.quantize("int8")
    return model, [normal(rng, 2, 8)]


@case("refused/custom", "A layer of the user's own skipped.", refused="package>Name")
def _(rng):
    return sequential(Name(), shape=(3,)), [normal(rng, 2, 3)]


@case("refused/nested", "The layers of a model in a model flattened into one list.", refused="Sequential")
def _(rng):
    inner = sequential(layers.Dense(4, activation="tanh"), shape=(3,), name="inner")
    return sequential(inner, layers.Dense(2), shape=(3,)), [normal(rng, 2, 3)]


# ----------------------------------------------------------------------------
# Running a model
# ----------------------------------------------------------------------------


def load(path: pathlib.Path) -> keras.Model:
    # Keras: a legacy file compiled with loss="mse" can only be loaded with compile=False.
    return keras.saving.load_model(path, compile=False, safe_mode=False)


def outputs_of(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    given = inputs[0] if len(inputs) == 1 else inputs
    return [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(model(given, training=False))]


class LayerCalls:
    """While entered, notes what every layer inside a model is given and gives back."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self.layers: dict[str, layers.Layer] = {}
        self.counts: dict[str, int] = {}
        self._running: list[layers.Layer] = []

    def __enter__(self) -> "LayerCalls":
        self._call = original = layers.Layer.__call__

        def noted(layer, *args, **kwargs):
            # A layer inside a plain layer (an activation given as a layer) is that layer's affair.
            inside_models = self._running and all(isinstance(outer, keras.Model) for outer in self._running)
            prefix = self._note_inputs(layer, args) if inside_models else None
            self._running.append(layer)
            try:
                results = original(layer, *args, **kwargs)
            finally:
                self._running.pop()
            if prefix:
                self._note(prefix, "out", "mask", results)
            return results

        layers.Layer.__call__ = noted
        return self

    def __exit__(self, *_) -> None:
        layers.Layer.__call__ = self._call

    def _note_inputs(self, layer: layers.Layer, args: tuple) -> str:
        path = "/".join(step.name for step in [*self._running[1:], layer])
        count = self.counts.get(path, 0)
        self.counts[path] = count + 1
        self.layers[path] = layer
        prefix = f"layers/{path}/{count}"
        self._note(prefix, "in", "in_mask", args)
        return prefix

    def _note(self, prefix: str, kind: str, mask_kind: str, values: object) -> None:
        for k, tensor in enumerate(keras.tree.flatten(values)):
            self.tensors[f"{prefix}/{kind}_{k}"] = keras.ops.convert_to_numpy(tensor)
            mask = get_keras_mask(tensor)
            if mask is not None:
                self.tensors[f"{prefix}/{mask_kind}_{k}"] = keras.ops.convert_to_numpy(mask)


def widened(config: object) -> object:
    """A layer's config with every float32 dtype and policy turned into float64."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" and config["config"] == {"name": "float32"}:
            return {**config, "config": {"name": "float64"}}
        return {k: "float64" if k == "dtype" and v == "float32" else widened(v) for k, v in config.items()}
    return [widened(v) for v in config] if isinstance(config, list) else config


@contextlib.contextmanager
def exact_constants() -> Iterator[None]:
    """TensorFlow rounds the constants of two activations to float32 also in float64."""
    import tensorflow as tf

    def leaky_relu(x, alpha):
        return tf.where(x > 0, x, x * tf.constant(alpha, x.dtype))

    def gelu(x, approximate):
        assert not approximate
        return 0.5 * x * tf.math.erfc(-x / tf.sqrt(tf.constant(2.0, x.dtype)))

    before = tf.nn.leaky_relu, tf.nn.gelu
    tf.nn.leaky_relu, tf.nn.gelu = leaky_relu, gelu
    try:
        yield
    finally:
        tf.nn.leaky_relu, tf.nn.gelu = before


def truth_of(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The same model, weights and inputs in float64."""
    wide = type(model).from_config(widened(model.get_config()))
    wide.set_weights([w.astype("float64") for w in model.get_weights()])
    with exact_constants():
        outputs = outputs_of(wide, [x.astype("float64") if x.dtype == "float32" else x for x in inputs])
    if any(y.dtype != "float64" for y in outputs):
        raise TypeError("the truth is not float64 throughout")
    return outputs


def replay(stage: pathlib.Path, names: list[str]) -> None:
    """Under JAX: each case's outputs from its model.keras, into jax.safetensors."""
    for name in names:
        inputs = safetensors.numpy.load_file(stage / name / "inputs.safetensors")
        keras.backend.clear_session()
        outputs = outputs_of(load(stage / name / "model.keras"), [inputs[f"input_{i}"] for i in range(len(inputs))])
        (stage / name / "jax.safetensors").write_bytes(packed(numbered("jax", outputs)))


# ----------------------------------------------------------------------------
# Tolerances
# ----------------------------------------------------------------------------

RULES = {  # atol as a part of the largest output, rtol
    "copy": (0.0, 0.0),
    "elementwise": (5e-7, 1e-6),
    "contraction": (1e-6, 1e-6),
    "deep": (1e-5, 1e-6),
}
COPIES = (layers.Embedding, layers.Reshape, layers.Flatten, layers.Dropout)
COPYING_ACTIVATIONS = ("relu", "relu6", "linear", "hard_tanh", "hard_shrink")


def rule_of(layer: layers.Layer) -> str:
    if isinstance(layer, COPIES):
        return "copy"
    if isinstance(layer, (layers.ReLU, layers.LeakyReLU)):
        return "elementwise" if layer.negative_slope else "copy"
    if isinstance(layer, layers.Activation):
        return "copy" if layer.activation.__name__ in COPYING_ACTIVATIONS else "elementwise"
    if isinstance(layer, layers.Dense):
        return "contraction"
    raise TypeError(f"no tolerance rule for {type(layer).__name__}")


def chained(before: str, rule: str) -> str:
    """The rule for a chain: the second layer that rounds makes it deep."""
    if before == "copy":
        return rule
    return before if rule == "copy" else "deep"


def rounded(value: float, mode: str = decimal.ROUND_HALF_EVEN) -> float:
    """Six significant digits."""
    return float(decimal.Context(prec=6, rounding=mode).create_decimal(value))


def scale_of(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)].astype("float64"))
    return float(finite.max(initial=0.0))


def tolerance_for(rule: str, output: np.ndarray) -> dict[str, float]:
    part, rtol = RULES[rule]
    if rule != "copy" and not np.issubdtype(output.dtype, np.floating):
        raise TypeError(f"an output of {output.dtype} must be a copy")
    return {"atol": rounded(part * scale_of(output), decimal.ROUND_CEILING), "rtol": rtol}


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference where both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    return scale_of(np.where(both, a, 0).astype("float64") - np.where(both, b, 0).astype("float64"))


def insist_on_agreement(other: np.ndarray, keras_: np.ndarray, tolerance: dict[str, float], what: str) -> None:
    """What Keras's other backend, or exact arithmetic, gives must pass its own case."""
    odd = ~np.isfinite(keras_) | ~np.isfinite(other)
    if not np.array_equal(other[odd], keras_[odd], equal_nan=True):
        raise Disagreement(f"{what}: {other[odd].tolist()} where TensorFlow gives {keras_[odd].tolist()}")
    ours, theirs = (np.where(odd, 0, a).astype("float64") for a in (other, keras_))
    if (np.abs(ours - theirs) > tolerance["atol"] + tolerance["rtol"] * np.abs(theirs)).any():
        raise Disagreement(f"{what} is {gap(other, keras_):.2g} from TensorFlow, allowed {tolerance}")


# ----------------------------------------------------------------------------
# Recording
# ----------------------------------------------------------------------------


def numbered(kind: str, arrays: list[np.ndarray]) -> Tensors:
    return {f"{kind}_{i}": array for i, array in enumerate(arrays)}


def packed(tensors: Tensors) -> bytes:
    return safetensors.numpy.save({k: np.array(tensors[k], order="C") for k in sorted(tensors)})


def described(names: list[str], arrays: list[np.ndarray]) -> list[dict]:
    return [{"name": n, "shape": list(a.shape), "dtype": str(a.dtype)} for n, a in zip(names, arrays, strict=True)]


@dataclasses.dataclass
class Recording:
    """A case as far as TensorFlow alone can tell it."""

    case: Case
    facts: dict
    tensors: Tensors
    rule: str


def save_model(case: Case, folder: pathlib.Path) -> list[np.ndarray]:
    """Builds the case's model, saves its files into the folder and returns its inputs."""
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
    return inputs


def insist_on_files(case: Case, folder: pathlib.Path, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Keras itself must get the same outputs, bit for bit, from each of the files."""
    weights_only = load(folder / "model.keras")
    fill_weights(weights_only, generator("overwritten by the file"))
    weights_only.load_weights(folder / "model.weights.h5")
    for file, model in (("model.h5", load(folder / "model.h5")), ("model.weights.h5", weights_only)):
        for a, b in zip(outputs_of(model, inputs), outputs, strict=True):
            if a.tobytes() != b.tobytes():
                raise Disagreement(f"{file} and model.keras give different outputs")


def record(case: Case, folder: pathlib.Path) -> Recording:
    folder.mkdir(parents=True)
    inputs = save_model(case, folder)
    keras.backend.clear_session()
    model = load(folder / "model.keras")
    with LayerCalls() as calls:
        outputs = outputs_of(model, inputs)
    tensors = numbered("input", inputs) | numbered("output", outputs)
    (folder / "inputs.safetensors").write_bytes(packed(numbered("input", inputs)))

    steps, rule = [], "copy"
    if case.refused:
        rule = "deep"
    else:
        insist_on_files(case, folder, inputs, outputs)
        tensors |= calls.tensors
        if all(y.dtype == "float32" for y in outputs):
            tensors |= numbered("truth", truth_of(model, inputs))
        for path, layer in calls.layers.items():
            rule = chained(rule, rule_of(layer))
            steps.append(
                {
                    "path": path,
                    "class": type(layer).__name__,
                    "calls": calls.counts[path],
                    "rule": rule_of(layer),
                    "cumulative": rule,
                }
            )

    layer_class = case.name.split("/")[1] if case.family not in ("examples", "refused") else type(model).__name__
    facts = {"format": 1, "class": layer_class, "family": case.family, "says": case.says}
    if case.refused:
        facts["expect"] = f"refused: {case.refused}"
    facts |= {
        "files": list(case.files),
        "inputs": described([t._keras_history.operation.name for t in model.inputs], inputs),
        "outputs": described([t._keras_history.operation.name for t in model.outputs], outputs),
        "compute_dtype": model.layers[-1].compute_dtype,
        "layers": steps,
    }
    return Recording(case, facts, tensors, rule)


def provenance() -> dict:
    versions = {
        p: importlib.metadata.version(d)
        for p, d in (("tensorflow", "tensorflow-cpu"), ("jax", "jax"), ("numpy", "numpy"))
    }
    return {
        "keras_version": keras.__version__,
        "backend": "tensorflow",
        "versions": versions | {"python": platform.python_version()},
        "flags": {"TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")},
    }


def completed(recording: Recording, folder: pathlib.Path) -> dict[str, bytes]:
    """io.safetensors and case.json, once JAX has answered too."""
    tensors, facts = dict(recording.tensors), dict(recording.facts)
    outputs = [tensors[f"output_{i}"] for i in range(len(facts["outputs"]))]
    tolerances = [tolerance_for(recording.rule, y) for y in outputs]
    steps = facts.pop("layers")
    facts["rule"] = recording.rule
    if len(outputs) == 1:
        facts["tolerance"] = tolerances[0]
    else:
        facts["outputs"] = [o | {"tolerance": t} for o, t in zip(facts["outputs"], tolerances, strict=True)]
    if not recording.case.refused:
        tensors |= safetensors.numpy.load_file(folder / "jax.safetensors")
        noise = {"scale": rounded(max(map(scale_of, outputs)))}
        for kind in ("jax", "truth"):
            gaps = []
            for i, (output, tolerance) in enumerate(zip(outputs, tolerances, strict=True)):
                if (other := tensors.get(f"{kind}_{i}")) is not None:
                    insist_on_agreement(other, output, tolerance, f"{kind}_{i}")
                    gaps.append(gap(other, output))
            noise[f"tf_vs_{kind}_max_abs"] = rounded(max(gaps)) if gaps else None
        facts |= {"noise": noise, "layers": steps}
    facts |= provenance()
    return {"io.safetensors": packed(tensors), "case.json": (json.dumps(facts, indent=1) + "\n").encode()}


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
    return {n: meaning_of_hdf5(b) if n.endswith(".h5") else told(json.loads(b)) for n, b in members.items()}


def settled(case: Case, file: str, fresh: bytes, out: pathlib.Path) -> bytes:
    """The committed bytes, of this case or of one that shares its model, if they still say the same."""
    for other in CASES.values():
        committed = out / other.name / file
        if other.model == case.model and committed.is_file():
            old = committed.read_bytes()
            if meaning_of(file, old) == meaning_of(file, fresh):
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


def compare(folder: pathlib.Path, files: dict[str, bytes]) -> str:
    """`same`, `new` or `changed: …`, for files that would be written into the folder."""
    if not folder.is_dir():
        return "new"
    found = [f"{p.name} is left over" for p in sorted(folder.iterdir()) if p.is_file() and p.name not in files]
    for file, new in files.items():
        path = folder / file
        if not path.is_file():
            found.append(f"{file} is new")
        elif (old := path.read_bytes()) != new:
            found += differences(file, old, new)
    return f"changed: {', '.join(found)}" if found else "same"


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for file, data in files.items():
        if not (folder / file).is_file() or (folder / file).read_bytes() != data:
            beside = folder / f".{file}.new"
            beside.write_bytes(data)
            os.replace(beside, folder / file)


# ----------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------


def model_files(case: Case, folder: pathlib.Path, out: pathlib.Path, done: dict[str, bytes]) -> dict[str, bytes]:
    """The case's model files; cases that share a model get the very same bytes."""
    files = {}
    for file in case.files:
        key = f"{case.model}/{file}"
        if key not in done:
            done[key] = settled(case, file, (folder / file).read_bytes(), out)
        files[file] = done[key]
    return files


def recorded(cases: list[Case], out: pathlib.Path) -> Iterator[tuple[Case, dict[str, bytes] | None]]:
    """Each case's files; None where a special case is skipped."""
    done: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as temporary:
        stage = pathlib.Path(temporary)
        recordings = [record(case, stage / case.name) for case in cases]
        replayed = [r.case.name for r in recordings if not r.case.refused]
        if replayed:
            subprocess.run([sys.executable, __file__, REPLAY, temporary, *replayed], check=True)
        for recording in recordings:
            case, folder = recording.case, stage / recording.case.name
            try:
                yield case, model_files(case, folder, out, done) | completed(recording, folder)
            except Disagreement as problem:
                if not case.special:
                    raise Disagreement(f"{case.name}: {problem}") from problem
                print(f"{case.name}: skipped: {problem}")
                yield case, None


def run(cases: list[Case], out: pathlib.Path, keep: bool) -> bool:
    """Records the cases; true if nothing differs from what is in `out`."""
    unchanged = True
    for case, files in list(recorded(cases, out)):  # nothing is written unless all could be recorded
        if files is None:
            continue
        verdict = compare(out / case.name, files)
        unchanged &= verdict == "same"
        print(f"{case.name}: {verdict}")
        if keep:
            write(out / case.name, files)
    return unchanged


def undeclared(out: pathlib.Path) -> list[str]:
    """Case folders that no declaration records."""
    found = (path.parent.relative_to(out).as_posix() for path in out.rglob("case.json"))
    return sorted(name for name in found if name not in CASES)


def chosen(names: list[str]) -> list[Case]:
    if not names:
        return list(CASES.values())
    unknown = [n for n in names if not any(c == n or c.startswith(n.rstrip("/") + "/") for c in CASES)]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}")
    return [c for c in CASES.values() if any(c.name == n or c.name.startswith(n.rstrip("/") + "/") for n in names)]


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
    unchanged = run(cases, options.out, keep=not options.check)
    for name in undeclared(options.out):
        unchanged = False
        print(f"{name}: undeclared")
    return 1 if options.check and not unchanged else 0


if __name__ == "__main__":
    sys.exit(main())
