"""The three models that the project began with."""

import keras
import numpy as np
from keras import layers

from .case import ALL_FILES, case, ids, sequential, train_one_step


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

        @case(f"{name}/2x3", says, model=name, fill=fill, files=ALL_FILES)
        def _(rng, build=build):
            return build(), [np.array([[1, 2, 3], [4, 5, 6]], "int32")]

        @case(f"{name}/4x16", says + " Holds the ids 0 and 999.", model=name, fill=fill, files=ALL_FILES)
        def _(rng, build=build):
            return build(), [ids(rng, (4, 16), 1000)]


declare_examples()


@case(
    "example3_separate/4x16",
    "Relu as a layer of its own, and an optimizer in the file that must not be taken for weights.",
    files=ALL_FILES,
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
