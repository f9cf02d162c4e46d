"""How a case is declared: what it is called, what it would show, which model and which inputs.

A layer is one function under `@records(layers.X)`, which declares the layer's cases.
How far two right implementations of it may be apart is in record.py.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers
from record import RULES_OF_LAYERS

Recipe = Callable[[np.random.Generator], tuple[keras.Model, list[np.ndarray]]]
Stack = layers.Layer | Sequence[layers.Layer]
Fed = tuple[int, ...] | np.ndarray | Callable[[np.random.Generator], np.ndarray]

ALL_FILES = ("model.keras", "model.h5", "model.weights.h5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One folder. Of cases with the same `model` in the same folder, one holds the model files for all."""

    name: str
    says: str  # the plausible mistake it would show
    recipe: Recipe
    model: str
    files: tuple[str, ...] = ("model.keras",)
    fill: bool = True  # set the weights from the seeded generator
    refused: str | None = None  # the class or key for which the file must be refused
    without_jax: str | None = None  # why there is nothing to compare with
    truth: bool = True  # the model can be computed in float64
    looser: float = 1.0  # times the table's tolerance
    computed_in: str | None = None  # the dtype whose tolerance holds, where it is not that of the outputs
    because: str | None = None  # why the tolerance is looser than the table's

    @property
    def family(self) -> str:
        head = self.name.split("/")[0]
        return "examples" if head.startswith("example") else head

    @property
    def folder(self) -> str:
        """What holds the case and its siblings, with the stroke behind it: `core/Dense/`."""
        return self.name[: self.name.rfind("/") + 1]


CASES: dict[str, Case] = {}


def case(name: str, says: str, *, model: str | None = None, **options: object) -> Callable[[Recipe], Recipe]:
    """Declares a case, whose recipe returns a model and its inputs."""

    def declare(recipe: Recipe) -> Recipe:
        if name in CASES:
            raise ValueError(f"case {name} is declared twice")
        CASES[name] = Case(name=name, says=says, recipe=recipe, model=model or name, **options)
        return recipe

    return declare


class Cases:
    """Declares the cases of one folder, `core/Dense`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def model(self, name: str, says: str, *, model: str | None = None, **options: object) -> Callable[[Recipe], Recipe]:
        """A case whose recipe returns a model of its own. `model`: the case whose model it shares."""
        return case(f"{self.folder}/{name}", says, model=model and f"{self.folder}/{model}", **options)

    def __call__(
        self,
        name: str,
        says: str,
        build: Callable[[], Stack],
        *fed: Fed,
        shape: tuple[int | None, ...] | None = None,
        call: Callable[..., object] | None = None,
        **options: object,
    ) -> None:
        """A stack of layers, or one layer of several inputs, and what it is fed.

        `shape`: as declared, where it is not that of the numbers fed. `call`: how
        the layer is called with its inputs, where it is not with one or a list.
        """

        @self.model(name, says, **options)
        def _(rng):
            built, arrays = build(), [given(rng, one) for one in fed]
            if call is None and len(arrays) == 1:
                stack = [built] if isinstance(built, layers.Layer) else built
                declared = arrays[0].shape[1:] if shape is None else shape
                return sequential(*stack, shape=declared, dtype=dtype_of(arrays[0])), arrays
            inputs = inputs_for(*arrays)
            outputs = call(built, *inputs) if call else built(inputs)
            return keras.Model(inputs, outputs), arrays


def records(layer: type) -> Callable[[Callable[[Cases], None]], None]:
    """Declares a layer's cases, in the folder `family/Class`."""
    if layer.__name__ not in RULES_OF_LAYERS:
        raise TypeError(f"record.py has no rule for {layer.__name__}")

    def declare(cases_of: Callable[[Cases], None]) -> None:
        package, family = layer.__module__.split(".")[2:4]  # keras.src.layers.core.dense, keras.src.applications.convnext
        family = family if package == "layers" else package
        cases_of(Cases(f"{family}/{layer.__name__}"))

    return declare


# ----------------------------------------------------------------------------
# Numbers, weights and models
# ----------------------------------------------------------------------------


def generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(seed.encode()))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype("float32")


def given(rng: np.random.Generator, fed: Fed) -> np.ndarray:
    """What is fed: an array, a function that draws one, or the shape of normal numbers."""
    if isinstance(fed, np.ndarray):
        return fed
    return fed(rng) if callable(fed) else normal(rng, *fed)


def ids(rng: np.random.Generator, shape: tuple[int, int], vocabulary: int) -> np.ndarray:
    """Seeded ids; the first is 0 and the last is the largest."""
    drawn = rng.integers(0, vocabulary, shape).astype("int32")
    drawn[0, 0], drawn[-1, -1] = 0, vocabulary - 1
    return drawn


def masked_ids(steps: int = 5) -> np.ndarray:
    """Ids below 10, 0 of which is masked: on the right, the left, in the middle, nowhere and everywhere."""
    rows = [[3, 1, 4, 1, 0, 0], [0, 0, 5, 9, 2, 6], [5, 3, 0, 5, 8, 9], [7, 9, 3, 2, 3, 8], [0, 0, 0, 0, 0, 0]]
    return np.array(rows, "int32")[:, :steps]


def masked(width: int = 3) -> layers.Layer:
    """Takes masked_ids to numbers with a mask; those masked are not 0."""
    return layers.Embedding(10, width, mask_zero=True)


def fill_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Weights that keep activations near 1; no bias is near 0, no variance negative."""
    for weight in model.weights:
        if not keras.backend.is_float_dtype(weight.dtype):
            continue
        if weight.name in ("moving_variance", "variance"):
            value = rng.uniform(0.5, 2.0, weight.shape)
        elif len(weight.shape) == 1:
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


def dtype_of(xs: np.ndarray) -> str:
    return "string" if xs.dtype.kind in "OSU" else str(xs.dtype)


def inputs_for(*arrays: np.ndarray) -> list[keras.KerasTensor]:
    return [keras.Input(xs.shape[1:], dtype=dtype_of(xs)) for xs in arrays]


def train_one_step(model: keras.Model, xs: np.ndarray) -> None:
    """Leaves an optimizer with state in the files."""
    model.compile(optimizer="adam", loss="mse")
    model.train_on_batch(xs, np.zeros(model(xs).shape, "float32"))
