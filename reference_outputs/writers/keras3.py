"""Models for Keras 3, from 3.0 on, in the forms of file that the version has. Runs inside an environment of its own; see inside.py."""

import inspect
import os
import sys

from inside import Engine, fill, main, normal, recipe, unique

import numpy as np

os.environ["KERAS_BACKEND"] = "tensorflow"
WRITER = sys.argv[1]

import keras
import tensorflow as tf
from keras import layers, ops

VERSION = tuple(int(n) for n in keras.__version__.split(".")[:2])
SHARDS = "max_shard_size" in inspect.signature(keras.Model.save_weights).parameters
FOLDERS = "zipped" in inspect.signature(keras.Model.save).parameters
Input, Model, Sequential = keras.Input, keras.Model, keras.Sequential


class Keras3(Engine):
    def clear(self):
        keras.backend.clear_session()
        keras.utils.set_random_seed(1)

    def variables(self, model):
        return [(v.path, tuple(v.shape), keras.backend.standardize_dtype(v.dtype), v) for v in unique(model.weights)]

    def assign(self, pairs):
        for variable, value in pairs:
            variable.assign(value)

    def values(self, variables):
        return [np.asarray(v) for v in variables]

    def run(self, model, inputs):
        tensors = [tf.constant(x) for x in inputs]
        found = model(tensors[0] if len(tensors) == 1 else tensors, training=False)
        return [np.asarray(y) for y in tf.nest.flatten(found)]

    def save(self, model, path):
        name = os.path.basename(path)
        if name == "model.weights.json":
            # About a third of the bytes in each file, whatever group they belong to.
            sizes = [v.size * v.dtype.itemsize for v in self.values(model.weights)]
            model.save_weights(path, max_shard_size=max(sum(sizes) * 0.4, max(sizes) + 1) / 1024**3)
        elif name == "model":
            model.save(path, zipped=False)
        elif name.endswith(".weights.h5"):
            model.save_weights(path)
        else:
            model.save(path)

    def load(self, path, twin):
        if os.path.basename(path) in ("model.weights.json", "model.weights.h5"):
            model = twin()
            for variable in model.weights:
                if "float" in keras.backend.standardize_dtype(variable.dtype):
                    variable.assign(np.zeros(variable.shape))
            model.load_weights(path)
            return model
        return keras.saving.load_model(path, compile=False)

    def facts(self, model):
        return {
            "class": "Sequential" if isinstance(model, Sequential) else "Functional",
            "inputs": [t._keras_history.operation.name for t in model.inputs],
            "outputs": [t._keras_history.operation.name for t in model.outputs],
            "keras_version": keras.__version__,
            "backend": keras.backend.backend(),
            "versions": {"tensorflow": tf.__version__},
            "compute_dtype": model.layers[-1].compute_dtype,
        }

    def files(self, name):
        found = ["model.keras"]
        if (WRITER, name) in (("keras-3.3.3", "nested"), ("keras-3.6.0", "sequences")):
            found.append("model.h5")
        if name == "example3" and VERSION != (3, 13):
            found += ["model.h5"] * (VERSION < (3, 15)) + ["model.weights.h5"] + ["model.weights.json"] * SHARDS + ["model"] * FOLDERS
        return found


ENGINE = Keras3()


@recipe("example3", "An embedding, a dense layer and an activation, in every form of file that the version writes.")
def _(rng):
    model = Sequential([Input((3,)), layers.Embedding(50, 16), layers.Dense(8), layers.Activation("relu")])
    fill(ENGINE, "example3", model)
    ids = np.array([[1, 2, 3], [4, 5, 6]], "int32")
    if VERSION in ((3, 0), (3, 10)):  # leaves an optimizer with state in the file
        model.compile(optimizer="adam", loss="mse")
        model.train_on_batch(ids, np.zeros((2, 3, 8), "float32"))
    return model, [ids]


@recipe("images", "A padding on the wrong side, a kernel whose axes are swapped, epsilon or slope of another version.")
def _(rng):
    model = Sequential([
        Input((8, 7, 3)),
        layers.ZeroPadding2D(((1, 0), (0, 2))),
        layers.Conv2D(4, (3, 2), strides=(2, 2), padding="same"),
        layers.BatchNormalization(),
        layers.LeakyReLU(0.2),
        layers.DepthwiseConv2D((3, 3), depth_multiplier=2, padding="same", activation="tanh"),
        layers.SeparableConv2D(4, (3, 3), padding="same", depth_multiplier=2, activation="elu"),
        layers.Conv2DTranspose(3, (3, 2), strides=(2, 2), padding="same", activation="hard_sigmoid"),
        layers.AveragePooling2D((3, 3), strides=(1, 1), padding="same"),
        layers.UpSampling2D((1, 2)),
        layers.MaxPooling2D((3, 2), strides=(2, 2), padding="same"),
        layers.Conv2D(3, (2, 2), dilation_rate=(1, 2)),
        layers.Flatten(),
        layers.Dense(4, activation=layers.LeakyReLU(0.1) if VERSION >= (3, 3) else "gelu"),
    ])
    return model, [normal(rng, 2, 8, 7, 3)]


IDS = np.array([[3, 1, 4, 1, 0, 0, 0, 0], [0, 0, 5, 9, 2, 6, 0, 3], [2, 7, 0, 1, 8, 2, 8, 1], [0, 0, 0, 0, 0, 0, 0, 0]], "int32")


@recipe("sequences", "Masked steps taken for steps, a cell's weights looked for at another place.")
def _(rng):
    ids = Input((8,), dtype="int32")
    x = layers.Embedding(12, 5, mask_zero=True)(ids)
    x = layers.LSTM(4, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="tanh"))(x)
    a = layers.SimpleRNN(3)(x)
    y = layers.Embedding(12, 4)(ids)
    y = layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")(y)
    b = layers.GlobalMaxPooling1D()(y)
    return Model(ids, [x, layers.concatenate([a, b])]), [IDS]


@recipe("cells", "Cells stacked in another order, or their weights looked for at another place.")
def _(rng):
    return Sequential([Input((4, 3)), layers.RNN([layers.LSTMCell(3), layers.GRUCell(2), layers.LSTMCell(2)])]), [normal(rng, 2, 4, 3)]


@recipe("split", "One list of weights in two files, of which a map may name one.", when=SHARDS, files=["model.keras", "model.weights.json"])
def _(rng):
    return Sequential([Input((4, 3)), layers.LSTM(3, return_sequences=True), layers.GRU(3, return_sequences=True), layers.Dense(4), layers.BatchNormalization(), layers.LSTM(2)]), [normal(rng, 2, 4, 3)]


@recipe("nested", "Frozen layers, statistics and a model that is called twice, whose weights are stored once.")
def _(rng):
    i = Input((5,))
    h = layers.Dense(5, activation="relu", name="one", trainable=False)(i)
    inner = Model(i, layers.Dense(5, name="last")(layers.BatchNormalization()(h)), name="inner")
    frozen = Sequential([Input((5,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(5, activation="tanh")], name="frozen")
    frozen.trainable = False
    i = Input((5,))
    wrapper = Model(i, layers.Dense(5, name="after")(frozen(layers.BatchNormalization()(i))), name="wrapper")
    x = Input((5,))
    y = layers.Activation("tanh")(layers.Dense(5)(x))
    a, b = inner(y), inner(x)
    return Model(x, [layers.Dense(3)(wrapper(layers.add([a, b]))), a]), [normal(rng, 3, 5)]


@recipe("shared", "A layer of two models that is stored once and counted twice.")
def _(rng):
    shared = layers.Dense(5, name="shared")
    i = Input((5,))
    inner = Model(i, layers.Dense(4, name="last")(shared(layers.Dense(5, activation="relu", name="first")(i))), name="inner")
    x = Input((5,))
    return Model(x, layers.Dense(3)(inner(layers.Activation("tanh")(shared(x))))), [normal(rng, 3, 5)]


@recipe("ports", "Outputs or inputs in the order of the layers, states of a decoder that start at zero.")
def _(rng):
    a, b, s = Input((6,), name="a"), Input((6,), name="b"), Input((4, 3), name="s")
    joined = layers.concatenate([b, a])
    product = layers.multiply([layers.add([a, b]), layers.average([a, b])])
    dotted = layers.dot([product, layers.maximum([a, b])], axes=1, normalize=True)
    grid = layers.PReLU(shared_axes=[1])(layers.Permute((2, 1))(layers.Reshape((2, -1))(joined)))
    repeated = layers.subtract([layers.RepeatVector(3)(b), layers.RepeatVector(3)(layers.ELU(0.7)(a))])
    repeated = layers.Cropping1D((1, 0))(repeated)
    encoded, h, c = layers.LSTM(4, return_state=True)(s)
    decoded = layers.LSTM(4, return_sequences=True)(repeated, initial_state=[h, c])
    return Model([s, b, a], [decoded, dotted, grid, encoded]), [normal(rng, 2, 4, 3), normal(rng, 2, 6), normal(rng, 2, 6)]


@recipe("masks", "Masks that a merge joins with AND, as Keras 2 did, or drops.")
def _(rng):
    first, second, floats = Input((6,), dtype="int32"), Input((6,), dtype="int32"), Input((6, 3))
    a = layers.Embedding(10, 3, mask_zero=True)(first)
    b = layers.Embedding(10, 3, mask_zero=True)(second)
    masked = layers.Masking(0.5)(floats)
    outputs = [
        layers.LSTM(2)(layers.add([a, b])),
        layers.GRU(2)(layers.multiply([a, masked])),
        layers.SimpleRNN(2)(layers.average([masked, b])),
        layers.GlobalAveragePooling1D()(masked),
    ]
    ids = [np.array(rows, "int32") for rows in ([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], [[2, 0, 6, 1, 0, 3], [4, 4, 0, 2, 7, 0], [0, 0, 1, 2, 3, 4]])]
    xs = normal(rng, 3, 6, 3)
    xs[0, 3:], xs[1, 0], xs[1, 4], xs[2, 2, 0] = 0.5, 0.5, 0.5, 0.5
    return Model([first, second, floats], outputs), [ids[0], ids[1], xs]


@recipe("masks_concatenated", "Masks of concatenated tensors, joined over the features and set side by side over time.")
def _(rng):
    first, second = Input((6,), dtype="int32"), Input((6,), dtype="int32")
    a = layers.Embedding(10, 3, mask_zero=True)(first)
    b = layers.Embedding(10, 3, mask_zero=True)(second)
    outputs = [layers.LSTM(2)(layers.concatenate([a, b])), layers.LSTM(2, return_sequences=True)(layers.concatenate([a, b], axis=1))]
    ids = [np.array(rows, "int32") for rows in ([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], [[2, 0, 6, 1, 0, 3], [4, 4, 0, 2, 7, 0], [0, 0, 1, 2, 3, 4]])]
    return Model([first, second], outputs), ids


# In float32 -1e9 swallows the scores of a row that is masked as a whole, in float64 it doesn't.
@recipe("attention", "Queries and values swapped, masks of another operand, a normalization over fewer axes, names of another version.", truth=VERSION >= (3, 10))
def _(rng):
    ids, other, x = Input((4,), dtype="int32"), Input((5,), dtype="int32"), Input((3, 6))
    a, b = layers.Embedding(10, 6, mask_zero=True)(ids), layers.Embedding(10, 6, mask_zero=True)(other)
    outputs = [
        layers.MultiHeadAttention(2, 3, value_dim=4)(a, b),
        layers.MultiHeadAttention(2, 3)(b, b, use_causal_mask=True),
        # Keras: up to 3.10 an Attention fails on masks.
        layers.Attention(use_scale=True)([a, b] if VERSION >= (3, 13) else [x, x]),
        layers.AdditiveAttention()([x, x]),
        layers.LayerNormalization(axis=[1, 2])(a),
        layers.GroupNormalization(3)(b),
        layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de")(b),
    ]
    if hasattr(layers, "GroupQueryAttention"):
        outputs.append(layers.GroupQueryAttention(4, 4, 2)(x, x))
    ids_a, ids_b = np.array([[3, 1, 4, 0], [0, 5, 9, 2]], "int32"), np.array([[2, 0, 6, 1, 0], [4, 4, 8, 2, 7]], "int32")
    return Model([ids, other, x], outputs), [ids_a, ids_b, normal(rng, 2, 3, 6)]


@recipe("operators", "Operands swapped, a slice, an axis or a default of another version's operation.")
def _(rng):
    x, y = Input((3, 4)), Input((3, 4))
    p = ops.square(x) + 0.5
    outputs = [
        x * 2 + 1, 1 - x, 2 / p, x @ ops.transpose(y, (0, 2, 1)), x**2, -x, ops.where(x > 0, x, y), ops.cast(x >= y, "int32"),
        x[:, 1:], x[..., 0] if VERSION >= (3, 3) else x[:, :, 0], x[:, ::2], x[:, None, 1], ops.concatenate([x, y], axis=1), ops.stack([x, y], axis=2), ops.split(x, 2, axis=-1)[1],
        ops.mean(x, axis=1), ops.sum(x, axis=(1, 2)), ops.max(x, axis=-1, keepdims=True), ops.std(x, axis=2), ops.clip(x, -0.5, 0.7),
        ops.gelu(x), ops.softmax(x, axis=1), ops.leaky_relu(x), ops.silu(y), ops.einsum("bij,bkj->bki", x, y), ops.take(x, [2, 0], axis=1),
        ops.pad(x, ((0, 0), (1, 2), (0, 1))), ops.tile(x, (1, 2, 1)), ops.expand_dims(x, 1), ops.log(p), ops.rsqrt(p), ops.argmax(x, axis=-1),
    ]
    return Model([x, y], outputs), [normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)]


@recipe("half", "Layers of a mixed_float16 policy computed in float32, or their weights read as halves.", truth=False, computed_in="float16", because="float16")
def _(rng):
    policy = {"dtype": "mixed_float16"}
    return Sequential([Input((6,)), layers.Dense(8, activation="relu", **policy), layers.BatchNormalization(**policy), layers.Dense(6, **policy), layers.LayerNormalization(**policy), layers.Dense(3)]), [normal(rng, 3, 6)]


def quantized(mode):
    model = Sequential([Input((3,), dtype="int32"), layers.Embedding(10, 6), layers.Dense(5, activation="relu"), layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d"), layers.Dense(3)])
    fill(ENGINE, "quantized", model)
    for layer in model.layers:
        if mode != "int4" or isinstance(layer, layers.Dense):
            try:
                layer.quantize(mode)
            except (NotImplementedError, AttributeError) as problem:  # layers that this version can't quantize
                print("not quantized:", layer.name, type(problem).__name__)
    return model, [np.array([[1, 2, 9], [0, 5, 3]], "int32")]


QUANTIZES = hasattr(layers.Dense, "quantize")


# A step of an int8 activation is 1/127 of its row's largest: where a value lies between two, so may two right implementations.
@recipe("int8", "Scales that multiply where they divide, or activations that aren't rounded to int8.", when=QUANTIZES, truth=False, fill=False)
def _(rng):
    return quantized("int8")


@recipe("int4", "Nibbles packed along the other axis: before 3.15 along the inputs.", when=QUANTIZES and (3, 11) <= VERSION, truth=False, fill=False, refused="int4 as Keras 3.13" if VERSION < (3, 14) else None)
def _(rng):
    return quantized("int4")


@recipe("low_rank", "The low-rank matrices of a layer that are merged into its kernel when it is saved, added again.", when=hasattr(layers.Dense, "enable_lora"), truth=False)
def _(rng):
    model = Sequential([Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    model.layers[0].enable_lora(2)
    return model, [normal(rng, 3, 6)]


@recipe("preprocessing", "Statistics read in another order, a vocabulary off by one, an image resized or cut at other places.", fill=False)
def _(rng):
    image, ids = Input((8, 8, 3)), Input((3,), dtype="int64")
    normalization = layers.Normalization(axis=-1)
    normalization.adapt(normal(rng, 20, 6, 6, 3) * 2 + 1)
    x = layers.Rescaling(2.0, offset=-0.5)(layers.RandomFlip()(image))
    x = normalization(layers.Resizing(5, 4)(layers.CenterCrop(6, 6)(x)))
    lookup = layers.IntegerLookup(vocabulary=[12, 36, 1138, 42])
    bins = layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.7])(image)
    return Model([image, ids], [x, lookup(ids), bins]), [normal(rng, 2, 8, 8, 3), np.array([[12, 42, 7], [36, 1138, 0]], "int64")]


@recipe("texts", "A vocabulary kept in assets that is off by one, or texts split at other places.", fill=False, rules=["copy", "copy"])
def _(rng):
    words, text = Input((3,), dtype="string"), Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "c", "zwölf", "b"])
    vectors = layers.TextVectorization(output_sequence_length=6, vocabulary=["the", "cat", "sat", "on", "mat"])
    arrays = [np.array([["a", "b", "d"], ["zwölf", "c", ""]], dtype=object), np.array([["The cat, sat on THE mat!"], ["a dog sat"]], dtype=object)]
    return Model([words, text], [lookup(words), vectors(text)]), arrays


if __name__ == "__main__":
    main(ENGINE)
