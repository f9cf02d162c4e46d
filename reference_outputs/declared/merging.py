"""Layers that merge several inputs into one."""

import keras
import numpy as np
from keras import layers

from .case import Cases, inputs_for, masked_ids, normal, records

A = np.array([[np.nan, 1.0, np.inf, -np.inf, -0.0, 0.0, np.inf, 3.0]], "float32")
B = np.array([[1.0, np.nan, -np.inf, -np.inf, 0.0, -0.0, 0.0, -3.0]], "float32")


def merging(case: Cases, layer: type, many: bool = True) -> None:
    case("two", "The second taken from or before the first.", layer, (2, 3, 4), (2, 3, 4))
    if many:
        case("three", "Only two of three merged, or divided by 2.", layer, (2, 3), (2, 3), (2, 3))
    case("broadcast", "Axes of length 1 not stretched.", layer, (2, 1, 4), (2, 3, 1))
    case("ranks_differ", "The lower rank stretched from the left: Keras adds axes behind the batch.", layer, (2, 4), (2, 3, 4))
    case("special", "NaN swallowed, or the sign of 0 lost.", layer, A, B)

    @case.model("masks", "The masks of all inputs joined by and: where one has none, by Keras's own rule.")
    def _(rng):
        ids, plain = masked_ids(), normal(rng, 5, 5, 3)
        first, second, third = inputs_for(ids, ids[::-1], plain)
        table = layers.Embedding(10, 3, mask_zero=True)
        both = layer()([table(first), table(second)])
        one = layer()([table(first), third])
        return keras.Model([first, second, third], [both, one]), [ids, np.ascontiguousarray(ids[::-1]), plain]

    ints = np.array([[7, -7, 2**30], [1, 0, -5]], "int32")
    case(
        "int32",
        "Integers turned to floats, or not.",
        lambda: layer(dtype="int32"),
        ints,
        np.array([[2, 2, 2**30], [3, -1, -2]], "int32"),
        )


@records(layers.Add)
def add(case: Cases) -> None:
    merging(case, layers.Add)


@records(layers.Subtract)
def subtract(case: Cases) -> None:
    merging(case, layers.Subtract, many=False)


@records(layers.Multiply)
def multiply(case: Cases) -> None:
    merging(case, layers.Multiply)


@records(layers.Average)
def average(case: Cases) -> None:
    merging(case, layers.Average)


@records(layers.Maximum)
def maximum(case: Cases) -> None:
    merging(case, layers.Maximum)


@records(layers.Minimum)
def minimum(case: Cases) -> None:
    merging(case, layers.Minimum)


@records(layers.Concatenate)
def concatenate(case: Cases) -> None:
    case("last", "The inputs in another order.", layers.Concatenate, (2, 3, 1), (2, 3, 2), (2, 3, 3))
    case("axis_1", "Joined along the last axis.", lambda: layers.Concatenate(axis=1), (2, 1, 4), (2, 3, 4))

    for axis in (1, -1):

        @case.model(f"mask_{'last' if axis < 0 else axis}", "Masks joined as the numbers are, or by and.")
        def _(rng, axis=axis):
            ids, plain = masked_ids(), normal(rng, 5, 5, 3)
            first, second, third = inputs_for(ids, ids[::-1], plain)
            table = layers.Embedding(10, 3, mask_zero=True)
            both = layers.Concatenate(axis=axis)([table(first), table(second)])
            one = layers.Concatenate(axis=axis)([table(first), third])
            return keras.Model([first, second, third], [both, one]), [ids, np.ascontiguousarray(ids[::-1]), plain]


@records(layers.Dot)
def dot(case: Cases) -> None:
    for name, says, options, fed in [
        ("vectors", "The batch multiplied too.", {"axes": 1}, [(3, 4), (3, 4)]),
        ("last_with_first", "The axes swapped.", {"axes": (2, 1)}, [(2, 3, 4), (2, 4, 5)]),
        ("both_1", "One of two matrices transposed.", {"axes": 1}, [(2, 3, 4), (2, 3, 5)]),
        ("normalize", "Numbers multiplied as they are.", {"axes": -1, "normalize": True}, [(2, 3, 4), (2, 5, 4)]),
        ("ranks_differ", "A vector with a matrix.", {"axes": (1, 2)}, [(2, 4), (2, 3, 4)]),
    ]:
        case(name, says, lambda options=options: layers.Dot(**options), *fed)
