"""Models for Keras 1.2, whose layers have other names and weights; on TensorFlow, and on Theano with channels first.

Runs inside an old environment; see inside.py.
"""

from __future__ import print_function

import os
import sys

from inside import Engine, fill, main, normal, recipe, unique

import numpy as np

WRITER = sys.argv[1]
THEANO = WRITER.endswith("theano")
os.environ["KERAS_BACKEND"] = "theano" if THEANO else "tensorflow"
os.environ["THEANO_FLAGS"] = "device=cpu,base_compiledir=%s/theano,floatX=%s" % (os.environ["HOME"], "float64" if "--float64" in sys.argv else "float32")

import keras
from keras import backend as K
from keras import layers, models
from keras.layers.advanced_activations import ELU, LeakyReLU, ParametricSoftplus, PReLU, SReLU, ThresholdedReLU
from keras.layers.wrappers import Bidirectional, TimeDistributed

Input, Model, Sequential, Merge, merge = layers.Input, models.Model, models.Sequential, layers.Merge, layers.merge
FIRST = K.image_dim_ordering() == "th"


def flat(values):
    return list(values) if isinstance(values, (list, tuple)) else [values]


class Keras1(Engine):
    def clear(self):
        if hasattr(K, "clear_session"):
            K.clear_session()
        if hasattr(K, "reset_uids"):
            K.reset_uids()

    def variables(self, model):
        found = unique(model.weights)
        return [(v.name, K.get_value(v).shape, str(K.dtype(v)).replace("_ref", ""), v) for v in found]

    def assign(self, pairs):
        K.batch_set_value(pairs)

    def values(self, variables):
        return K.batch_get_value(variables)

    def run(self, model, inputs):
        return flat(model.predict(inputs[0] if len(inputs) == 1 else inputs))

    def save(self, model, path):
        if path.endswith("model.json"):
            with open(path, "w") as file:
                file.write(model.to_json())
        elif path.endswith("weights.h5"):
            model.save_weights(path)
        else:
            model.save(path)

    def load(self, path, twin):
        if path.endswith("model.json"):
            with open(path) as file:
                model = models.model_from_json(file.read())
            model.load_weights(path.replace("model.json", "weights.h5"))
            return model
        return models.load_model(path)

    def facts(self, model):
        if THEANO:
            import theano

            versions = {"theano": theano.__version__}
        else:
            import tensorflow

            versions = {"tensorflow": tensorflow.__version__}
        return {
            "class": "Sequential" if isinstance(model, Sequential) else "Functional",
            "inputs": list(model.input_names),
            "outputs": list(model.output_names),
            "keras_version": keras.__version__,
            "backend": K.backend(),
            "versions": versions,
            "compute_dtype": K.floatx(),
        }

    def files(self, name):
        return ["model.h5", "model.json", "weights.h5"] if name == "example3" else ["model.h5"]


ENGINE = Keras1()


def image(rng, rows, columns, channels, *batch):
    shape = (channels, rows, columns) if FIRST else (rows, columns, channels)
    return normal(rng, *(batch + shape)) if batch else shape


@recipe("example3", "An embedding, a dense layer and an activation as Keras 1 wrote them: W and b, output_dim, a Sequential that is a list.")
def _(rng):
    model = Sequential()
    model.add(layers.Embedding(50, 16, input_length=3))
    model.add(layers.Dense(8))
    model.add(layers.Activation("relu"))
    fill(ENGINE, "example3", model)
    model.compile(optimizer="adam", loss="mse")
    ids = np.array([[1, 2, 3], [4, 5, 6]], "int32")
    model.train_on_batch(ids, np.zeros((2, 3, 8), "float32"))
    return model, [ids]


@recipe("images", "A kernel flipped (Theano convolves) or its axes swapped, the variance that is called running_std, the channels at the other end.")
def _(rng):
    model = Sequential()
    model.add(layers.ZeroPadding2D((1, 2), input_shape=image(rng, 8, 7, 3)))
    model.add(layers.Convolution2D(4, 3, 2, subsample=(2, 2), border_mode="valid" if THEANO else "same"))
    model.add(layers.BatchNormalization(axis=1 if FIRST else -1))
    model.add(LeakyReLU(0.2))
    model.add(layers.UpSampling2D((1, 2)))
    model.add(layers.AtrousConvolution2D(3, 2, 1, atrous_rate=(2, 2), activation="tanh"))
    model.add(ThresholdedReLU(0.05))
    if not THEANO:
        model.add(layers.SeparableConvolution2D(6, 3, 2, depth_multiplier=2, border_mode="same", activation="relu"))
    model.add(layers.AveragePooling2D((2, 2), strides=(1, 1)))
    model.add(layers.MaxPooling2D((1, 2) if THEANO else (2, 2), strides=(1, 1)))
    model.add(layers.Flatten())
    model.add(layers.Dense(4, activation="softmax"))
    return model, [image(rng, 8, 7, 3, 2)]


@recipe("same", "The padding of a `same` convolution with an even kernel, which the backends of Keras 1 put at different ends.")
def _(rng):
    model = Sequential()
    model.add(layers.Convolution2D(3, 3, 3, border_mode="same", activation="relu", input_shape=image(rng, 5, 4, 2)))
    model.add(layers.Convolution2D(2, 3, 5, border_mode="same", bias=False))
    return model, [image(rng, 5, 4, 2, 2)]


@recipe("deconvolution", "A Deconvolution2D's kernel with its axes swapped, or an output cut at the other end.", when=not THEANO)
def _(rng):
    model = Sequential()
    model.add(layers.Deconvolution2D(3, 3, 2, output_shape=(2, 8, 6, 3), subsample=(2, 2), border_mode="same", input_shape=(4, 3, 2)))
    model.add(layers.Deconvolution2D(2, 2, 3, output_shape=(2, 9, 8, 2), border_mode="valid"))
    return model, [normal(rng, 2, 4, 3, 2)]


IDS = np.array([[3, 1, 4, 1, 0, 0, 0, 0], [0, 0, 5, 9, 2, 6, 0, 3], [2, 7, 0, 1, 8, 2, 8, 1], [0, 0, 0, 0, 0, 0, 0, 0]], "int32")


@recipe("sequences", "Gates of 12 or 9 arrays in another order, the hard_sigmoid of another version, masked steps taken for steps.")
def _(rng):
    ids = Input((8,), dtype="int32")
    x = layers.Embedding(12, 5, mask_zero=True)(ids)
    x = layers.LSTM(4, return_sequences=True)(x)
    x = Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = TimeDistributed(layers.Dense(4, activation="tanh"))(x)
    a = layers.SimpleRNN(3)(x)
    y = layers.Embedding(12, 4)(ids)
    y = layers.Convolution1D(4, 3, border_mode="same", activation="relu")(y)
    b = layers.GlobalMaxPooling1D()(y)
    y = layers.AtrousConvolution1D(3, 2, atrous_rate=2)(layers.MaxPooling1D(2, stride=1)(y))
    return Model(ids, [x, merge([a, b, layers.GlobalAveragePooling1D()(y)], mode="concat")]), [IDS]


@recipe("fused", "The gates of an LSTM or GRU made for a GPU, whose arrays are one each, in another order.")
def _(rng):
    model = Sequential()
    model.add(layers.LSTM(4, return_sequences=True, consume_less="gpu", input_shape=(5, 3)))
    model.add(layers.GRU(3, return_sequences=True, consume_less="gpu", go_backwards=True))
    model.add(layers.LSTM(2, consume_less="mem", inner_activation="sigmoid"))
    return model, [normal(rng, 2, 5, 3)]


@recipe("merges", "A merge of another mode or axis; each is a Merge layer with branches or a call of merge().")
def _(rng):
    a, b = Input((6,)), Input((6,))
    outputs = [merge([a, b], mode=mode) for mode in ("sum", "mul", "concat", "ave", "max")]
    outputs += [merge([a, b], mode="dot", dot_axes=1), merge([a, b], mode="cos", dot_axes=1)]
    c, d = layers.Reshape((2, 3))(a), layers.Reshape((2, 3))(b)
    outputs += [merge([c, d], mode="concat", concat_axis=1), merge([c, d], mode="dot", dot_axes=[2, 2])]
    return Model([a, b], outputs), [normal(rng, 2, 6), normal(rng, 2, 6)]


@recipe("branches", "A Sequential that starts with a Merge of other Sequentials, whose layers come first.")
def _(rng):
    left, right = Sequential(), Sequential()
    left.add(layers.Dense(4, input_dim=5, activation="tanh"))
    right.add(layers.Dense(4, input_dim=3))
    right.add(PReLU())
    model = Sequential()
    model.add(Merge([left, right], mode="mul"))
    model.add(layers.Dense(3))
    return model, [normal(rng, 2, 5), normal(rng, 2, 3)]


@recipe("branches_masked", "A mask that a Sequential does not hand to the Merge of which it is a branch.")
def _(rng):
    left, right = Sequential(), Sequential()
    left.add(layers.Embedding(10, 4, mask_zero=True, input_length=5))
    right.add(layers.Masking(0.5, input_shape=(5, 4)))
    model = Sequential()
    model.add(Merge([left, right], mode="sum"))
    model.add(layers.LSTM(3))
    xs = normal(rng, 2, 5, 4)
    xs[0, 3:], xs[1, 1] = 0.5, 0.5
    return model, [np.array([[3, 1, 0, 0, 0], [0, 5, 9, 0, 2]], "int32"), xs]


@recipe("wrapped", "A Sequential inside a Sequential or a wrapper, which has no name in the file.")
def _(rng):
    step = Sequential([layers.Dense(4, activation="tanh", input_shape=(4,)), layers.BatchNormalization(), layers.Dense(4)])
    frozen = TimeDistributed(layers.Dense(4), trainable=False)
    first = Sequential([layers.BatchNormalization(input_shape=(3, 4)), TimeDistributed(step), frozen])
    return Sequential([first, layers.Dense(4), layers.BatchNormalization()]), [normal(rng, 2, 3, 4)]


@recipe("steps_masked", "A mask that TimeDistributed hands to the layer inside, as it did from Keras 2.2 on.")
def _(rng):
    xs = normal(rng, 2, 3, 2, 4)
    xs[0, 2], xs[1, 0, 1] = 0.5, 0.5
    return Sequential([layers.Masking(0.5, input_shape=(3, 2, 4)), TimeDistributed(layers.SimpleRNN(4))]), [xs]


@recipe("old_layers", "A layer that only Keras 1 has computed by another formula.")
def _(rng):
    x, s = Input((5,)), Input((6, 4))
    outputs = [
        layers.MaxoutDense(3, nb_feature=2)(x),
        layers.Highway(activation="tanh")(x),
        layers.Dense(3, bias=False, activation="softsign")(x),
        ELU(0.7)(x),
        layers.TimeDistributedDense(3)(s),
        layers.LocallyConnected1D(3, 2, subsample_length=2, activation="relu")(s),
        layers.Cropping1D((1, 2))(s),
        layers.RepeatVector(2)(layers.Activation("hard_sigmoid")(x)),
        layers.Permute((2, 1))(s),
    ]
    return Model([x, s], outputs), [normal(rng, 2, 5), normal(rng, 2, 6, 4)]


@recipe("old_activations", "A learned activation of Keras 1 by another formula, or its parameters in another order.")
def _(rng):
    x = Input((5,))
    return Model(x, [SReLU()(x), ParametricSoftplus()(x), PReLU()(x)]), [normal(rng, 3, 5) * 2]


@recipe("volumes", "A third axis swapped or a kernel flipped, a convolution of its own at each place read as one.")
def _(rng):
    shape = (2, 5, 4, 4) if FIRST else (5, 4, 4, 2)
    cube, plane = Input(shape), Input(image(rng, 5, 4, 2))
    x = layers.Convolution3D(3, 2, 3, 2, subsample=(1, 1, 2), activation="relu")(cube)
    x = layers.AveragePooling3D((2, 1, 1))(x)
    y = layers.LocallyConnected2D(2, 3, 2, activation="tanh")(plane)
    return Model([cube, plane], [x, y]), [normal(rng, 2, *shape), image(rng, 5, 4, 2, 2)]


@recipe("nested", "Weights of a nested model in another order than Keras's: frozen ones and statistics last, shared ones twice.")
def _(rng):
    shared = layers.Dense(5, name="shared")
    i = Input((5,))
    h = layers.Dense(5, activation="relu", name="frozen", trainable=False)(i)
    h = shared(layers.BatchNormalization()(h))
    inner = Model(i, layers.Dense(5, name="last")(h), name="inner")
    block = Sequential([layers.Dense(5, input_shape=(5,)), layers.BatchNormalization(), layers.Dense(5, activation="tanh")], name="block")
    x = Input((5,))
    y = layers.Activation("tanh")(shared(x))
    a, b = inner(y), inner(x)
    return Model(x, [layers.Dense(3)(block(merge([a, b], mode="sum"))), a]), [normal(rng, 3, 5)]


@recipe("masks", "Masks that a merge drops or joins with another rule, or steps equal to the masking value taken for steps.")
def _(rng):
    first, second, floats = Input((6,), dtype="int32"), Input((6,), dtype="int32"), Input((6, 3))
    a = layers.Embedding(10, 3, mask_zero=True)(first)
    b = layers.Embedding(10, 3, mask_zero=True)(second)
    masked = layers.Masking(0.5)(floats)
    outputs = [
        layers.LSTM(2)(merge([a, b], mode="sum")),
        layers.GRU(2)(merge([a, b], mode="concat")),
        layers.SimpleRNN(3, go_backwards=True, return_sequences=True)(masked),
        Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode="ave")(masked),
    ]
    ids = [np.array(rows, "int32") for rows in ([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], [[2, 0, 6, 1, 0, 3], [4, 4, 0, 2, 7, 0], [0, 0, 1, 2, 3, 4]])]
    xs = normal(rng, 3, 6, 3)
    xs[0, 3:], xs[1, 0], xs[1, 4], xs[2, 2, 0] = 0.5, 0.5, 0.5, 0.5
    return Model([first, second, floats], outputs), [ids[0], ids[1], xs]


if __name__ == "__main__":
    main(ENGINE)
