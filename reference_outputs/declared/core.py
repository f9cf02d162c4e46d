"""Dense, Embedding and their neighbours."""

import keras
import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, ids, masked, masked_ids, normal, records


@records(layers.Dense)
def dense(case: Cases) -> None:
    for name, says, build, fed in [
        ("rank2", "The plain product with its bias.", lambda: layers.Dense(5), (3, 6)),
        ("rank3", "The product taken over another axis than the last.", lambda: layers.Dense(5), (2, 3, 6)),
        ("rank4", "An input of rank 4 refused or flattened.", lambda: layers.Dense(5), (2, 3, 4, 6)),
        ("square", "A square kernel loaded transposed: the shape fits.", lambda: layers.Dense(7), (3, 7)),
        ("no_bias", "A bias expected where there is none.", lambda: layers.Dense(5, use_bias=False), (3, 6)),
        (
            "softmax",
            "Softmax over another axis than the last.",
            lambda: layers.Dense(5, activation="softmax"),
            (2, 3, 6),
        ),
        (
            "gelu",
            "Keras's gelu by name is the erf form, not the tanh approximation.",
            lambda: layers.Dense(5, activation="gelu"),
            (3, 6),
        ),
        (
            "leaky_relu_object",
            "An activation given as a layer: its negative_slope (0.1) ignored.",
            lambda: layers.Dense(5, activation=layers.LeakyReLU(0.1)),
            (3, 6),
        ),
        (
            "relu_object",
            "An activation given as a layer: its max_value (0.75) ignored.",
            lambda: layers.Dense(5, activation=layers.ReLU(max_value=0.75)),
            (3, 6),
        ),
        (
            "frozen",
            "A frozen layer's weights skipped, as if only trainable ones were saved.",
            lambda: layers.Dense(5, trainable=False),
            (3, 6),
        ),
    ]:
        case(name, says, build, fed, files=ALL_FILES)
    case(
        "softmax_object_axis",
        "An activation layer run on rows instead of on the whole result: its axis is another one.",
        lambda: layers.Dense(5, activation=layers.Softmax(axis=1)),
        (2, 3, 6),
    )
    case(
        "object_in_float32",
        "An activation layer's own dtype policy ignored: the result is its float32, of what the layer rounded.",
        lambda: layers.Dense(5, dtype="mixed_float16", activation=layers.LeakyReLU(0.1, dtype="float32")),
        (3, 6),
        computed_in="float16",
        because="what the activation gets was computed in float16",
        truth=False,
    )
    case(
        "int32_input",
        "An integer input multiplied in integers, or refused.",
        lambda: layers.Dense(5),
        lambda rng: rng.integers(-4, 5, (3, 6)).astype("int32"),
        files=ALL_FILES,
    )
    case(
        "names_against_order",
        "Weights found by the layer's name: the file's groups count in the order of the layers.",
        lambda: [layers.Dense(4, name="dense_1"), layers.Dense(4, name="dense")],
        (3, 4),
        files=ALL_FILES,
    )
    case(
        "twelve",
        "Group names sorted as text: dense_10 comes before dense_2.",
        lambda: [layers.Dense(4) for _ in range(12)],
        (3, 4),
        files=ALL_FILES,
    )
    case(
        "frozen_first",
        "A frozen layer before a trainable one: weights given to the wrong layer.",
        lambda: [layers.Dense(4, trainable=False), layers.Dense(4)],
        (3, 4),
        files=ALL_FILES,
    )


@records(layers.Embedding)
def embedding(case: Cases) -> None:
    case(
        "float_ids",
        "Ids given as floats rounded to nearest: Keras truncates towards zero.",
        lambda: layers.Embedding(6, 4),
        np.array([[1.9, 0.5, 2.0, 4.999], [-0.9, 3.5, 2.5, 0.0]], "float32"),
        files=ALL_FILES,
    )
    case(
        "mask_zero",
        "A mask lost on its way, or applied to the numbers.",
        lambda: [
            layers.Embedding(10, 4, mask_zero=True),
            layers.Dense(3),
            layers.Dropout(0.5),
            layers.Flatten(),
        ],
        np.array([[3, 1, 4, 0, 0], [0, 5, 0, 9, 2], [0, 0, 0, 0, 0]], "int32"),
        files=ALL_FILES,
    )
    case(
        "uint8_ids",
        "Ids of 8 bits: 200 read as -56.",
        lambda: layers.Embedding(256, 4),
        np.array([[0, 200, 255], [127, 128, 1]], "uint8"),
        files=ALL_FILES,
    )

    @case.model(
        "built_by_call",
        "A model built by being called: its batch is fixed, and its ids pass through a float32 input layer.",
        files=ALL_FILES,
    )
    def _(rng):
        model = keras.Sequential([layers.Embedding(20, 4), layers.Dense(3)])
        xs = ids(rng, (2, 5), 20)
        model(xs)
        return model, [xs]


@records(layers.EinsumDense)
def einsum_dense(case: Cases) -> None:
    # Keras: on TensorFlow ops.add adds what has one axis beyond size 1, if that is the size of the last axis or the second,
    # along this axis (BiasAdd), whatever axis the equation means. So in bias_inside "e" is neither as long as "d" nor as "b".
    for name, says, options, fed in [
        ("sequence", "The steps summed away.", {"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"}, (2, 3, 4)),
        ("ellipsis", "An ellipsis of two axes.", {"equation": "...x,xy->...y", "output_shape": 5, "bias_axes": "y"}, (2, 2, 3, 4)),
        ("two_bias_axes", "The bias laid along one axis only.", {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"}, (2, 3, 4)),
        ("bias_inside", "The bias laid along the last axis.", {"equation": "abc,cde->abed", "output_shape": (None, 3, 2), "bias_axes": "e", "activation": "relu"}, (2, 4, 4)),
        ("two_summed", "Only one of two axes summed.", {"equation": "abcd,cde->abe", "output_shape": (None, 5)}, (2, 3, 2, 4)),
        ("square", "A square kernel transposed: the shape fits.", {"equation": "ab,cb->ac", "output_shape": 4}, (3, 4)),
    ]:
        case(name, says, lambda options=options: layers.EinsumDense(**options), fed)


@records(layers.ReversibleEmbedding)
def reversible_embedding(case: Cases) -> None:
    tokens = np.array([[3, 1, 0], [0, 5, 6]], "int32")
    for name, says, options in [
        ("tied", "The table not transposed on the way back.", {}),
        ("untied", "The way back taken through the first table.", {"tie_weights": False}),
        ("soft_cap", "tanh(logits / cap) not multiplied by the cap.", {"logit_soft_cap": 1.5, "mask_zero": True}),
    ]:

        @case.model(name, says)
        def _(rng, options=options):
            ids_in, features = keras.Input((3,), dtype="int32"), keras.Input((3, 4))
            layer = layers.ReversibleEmbedding(7, 4, **options)
            embedded = layer(ids_in)
            outputs = [embedded, layer(features, reverse=True), layer(layers.Dense(4)(embedded), reverse=True)]
            return keras.Model([ids_in, features], outputs), [tokens, normal(rng, 2, 3, 4)]


@records(layers.Identity)
def identity(case: Cases) -> None:
    case("plain", "Anything done at all.", layers.Identity, (2, 3))
    case("mask", "A mask lost on its way.", lambda: [masked(), layers.Identity(), layers.GlobalAveragePooling1D()], masked_ids()[:4])
    case("special", "NaN, an infinity or the sign of 0 lost.", layers.Identity, np.array([[np.nan, np.inf, -np.inf, -0.0]], "float32"))


@records(layers.Masking)
def masking(case: Cases) -> None:
    steps = np.array([[[1, 2], [0, 0], [0, 3]], [[0, 0], [0, 0], [0, 0]], [[-1, -1], [5, -1], [-1, -1]]], "float32")
    case("zero", "A step masked where only some of its numbers are 0.", lambda: [layers.Masking(), layers.LSTM(2)], steps)
    case(
        "minus_one",
        "A mask_value other than 0; masked steps are set to 0.",
        lambda: [layers.Masking(mask_value=-1.0), layers.Dense(2), layers.GlobalAveragePooling1D(keepdims=True)],
        np.concatenate([steps[2:], steps[:1]]),
    )
    case("numbers", "Masked steps left as they are: Keras sets them to 0.", lambda: layers.Masking(-1.0), steps)


@records(layers.InputLayer)
def input_layer(case: Cases) -> None:
    for name, says, dtype in [
        ("float32", "An input's name or order.", "float32"),
        ("bool", "A bool taken for a number.", "bool"),
        ("int64", "An integer of 64 bits cut.", "int64"),
    ]:

        @case.model(name, says)
        def _(rng, dtype=dtype):
            second, first = keras.Input((2,), name="second", dtype=dtype), keras.Input((2,), name="first", dtype=dtype)
            arrays = [(normal(rng, 3, 2) * 2).astype(dtype), (normal(rng, 3, 2) * 2).astype(dtype)]
            if dtype == "int64":
                arrays[0][0, 0] = 2**40
            return keras.Model([second, first], [layers.Identity(dtype=dtype)(first), layers.Identity(dtype=dtype)(second)]), arrays
