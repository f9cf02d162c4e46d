"""Models for Keras 2: standalone 2.0 to 2.3 (also on Theano), tf.keras and tf_keras. Runs inside an old environment; see inside.py."""

from __future__ import print_function

import importlib
import inspect
import os
import sys

from inside import Engine, fill, gap, generator, main, normal, recipe, unique

import numpy as np

WRITER = sys.argv[1]
if WRITER.startswith("keras-"):
    API = "keras"
    os.environ["KERAS_BACKEND"] = "theano" if WRITER.endswith("theano") else "tensorflow"
    os.environ["THEANO_FLAGS"] = "device=cpu,base_compiledir=%s/theano,floatX=%s" % (os.environ["HOME"], "float64" if "--float64" in sys.argv else "float32")
    import keras
else:
    import tensorflow as tf

    if WRITER.startswith("tf-"):
        API, keras = "tf", tf.keras
    else:
        API = "tf_keras"
        import tf_keras as keras

K, layers, models = keras.backend, keras.layers, keras.models
THEANO = API == "keras" and K.backend() == "theano"
TF = None if THEANO else importlib.import_module("tensorflow")
TF_VERSION = (0, 0) if THEANO else tuple(int(n) for n in TF.__version__.split(".")[:2])
EAGER = API != "keras" and TF_VERSION >= (2, 0)
NEW = EAGER and TF_VERSION >= (2, 4)  # KerasTensors, operators as layers, MultiHeadAttention
V3_FILES = EAGER and TF_VERSION >= (2, 12)  # writes the .keras container
Input, Model, Sequential = layers.Input, models.Model, models.Sequential

if TF is not None and TF_VERSION < (2, 0):
    TF.logging.set_verbosity(TF.logging.ERROR)
    PRUNED = TF.ConfigProto(graph_options=TF.GraphOptions(place_pruned_graph=True))  # CuDNN's operations have no place here


def has(*names):
    return all(hasattr(layers, name) for name in names)


def takes(layer, argument):
    for base in layer.__mro__:
        if "__init__" in base.__dict__:
            get = getattr(inspect, "getfullargspec", getattr(inspect, "getargspec", None))
            try:
                # Standalone Keras hides its signatures behind those of Keras 1.
                if argument in get(getattr(base.__init__, "_original_function", base.__init__)).args:
                    return True
            except TypeError:
                pass
    return False


def constant(values):
    return TF.constant(values, K.floatx())


def flat(values):
    return list(values) if isinstance(values, (list, tuple)) else [values]


def normalized(x, scale, offset, mean=None, variance=None, epsilon=0.001, data_format="NHWC", is_training=True, name=None):
    assert data_format == "NHWC"
    if mean is None or is_training:
        mean, variance = TF.nn.moments(x, [0, 1, 2])
    return (x - mean) / TF.sqrt(variance + epsilon) * scale + offset, mean, variance


class Keras2(Engine):
    def clear(self):
        if hasattr(K, "clear_session"):
            K.clear_session()
            if TF is not None and TF_VERSION < (2, 0):
                K.set_session(TF.Session(config=PRUNED)) if API == "keras" else TF.compat.v1.keras.backend.set_session(TF.Session(config=PRUNED))
        elif hasattr(K, "reset_uids"):
            K.reset_uids()

    def variables(self, model):
        found = [v for v in unique(model.weights) if hasattr(v, "name")]
        return [(v.name, K.int_shape(v) if not THEANO else v.get_value().shape, str(K.dtype(v)).replace("_ref", ""), v) for v in found]

    def assign(self, pairs):
        K.batch_set_value(pairs)

    def values(self, variables):
        return K.batch_get_value(variables)

    def run(self, model, inputs):
        if EAGER:
            tensors = [TF.constant(x) for x in inputs]
            found = model(tensors[0] if len(tensors) == 1 else tensors, training=False)
            return [y.numpy() for y in TF.nest.flatten(found)]
        return flat(model.predict(inputs[0] if len(inputs) == 1 else inputs))

    def save(self, model, path):
        if path.endswith("model.json"):
            with open(path, "w") as file:
                file.write(model.to_json())
        elif path.endswith("weights.h5"):
            model.save_weights(path)
        elif path.endswith(".keras") and TF_VERSION == (2, 12) and "/hdf5/" not in path:
            # Keras: without being asked, 2.12 writes HDF5 into a .keras.
            model.save(path, save_format="keras_v3")
        else:
            model.save(path)

    def load(self, path, twin):
        if path.endswith("model.json"):
            with open(path) as file:
                model = models.model_from_json(file.read())
            model.load_weights(path.replace("model.json", "weights.h5"))
            return model
        if path.endswith("weights.h5"):
            model = twin()
            model.load_weights(path)
            return model
        return models.load_model(path, compile=False)

    def prepare_float64(self):
        if TF is not None and TF_VERSION < (2, 0):
            # Keras: the fused normalization of TensorFlow 1 has no float64.
            from tensorflow.python.ops import nn

            places = [TF.nn, nn] + ([TF.compat.v1.nn] if hasattr(TF, "compat") and hasattr(TF.compat, "v1") else [])
            for place in places:
                place.fused_batch_norm = normalized

    def facts(self, model):
        version = getattr(keras, "__version__", None) or importlib.import_module("keras").__version__
        if THEANO:
            import theano

            versions = {"theano": theano.__version__}
        else:
            versions = {"tensorflow": TF.__version__}
        policy = getattr(model.layers[-1], "compute_dtype", None) or getattr(model.layers[-1], "_compute_dtype", None)
        return {
            "class": "Sequential" if isinstance(model, Sequential) else "Functional",
            "inputs": [t.name.split(":")[0] for t in model.inputs] if not hasattr(model, "input_names") else list(model.input_names),
            "outputs": list(model.output_names),
            "keras_version": version,
            "backend": K.backend(),
            "versions": versions,
            "compute_dtype": policy or K.floatx(),
        }

    def files(self, name):
        pair = ["model.json", "weights.h5"]
        if (WRITER, name) == ("tf-2.13", "nested"):
            return ["model.keras", "model.h5"]
        if V3_FILES and name == "example3":
            return ["model.keras", "model.h5", "model.weights.h5"]
        if V3_FILES and name != "hdf5":
            return ["model.keras"]
        if name == "example3":
            return ["model.h5"] + pair
        if name == "nested" and WRITER == "keras-2.0.8":
            return pair
        return ["model.h5"]


ENGINE = Keras2()


# ----------------------------------------------------------------------------
# Models that every Keras 2 can write
# ----------------------------------------------------------------------------


@recipe("example3", "An embedding, a dense layer and an activation, from the oldest shapes of a Sequential on.")
def _(rng):
    model = Sequential(
        [
            layers.Embedding(50, 16, input_length=3) if not V3_FILES else layers.Embedding(50, 16, input_shape=(3,)),
            layers.Dense(8),
            layers.Activation("relu"),
        ]
    )
    fill(ENGINE, "example3", model)
    ids = np.array([[1, 2, 3], [4, 5, 6]], "int32")
    if WRITER in ("keras-2.2.4", "tf-2.8", "tf-2.13"):  # leaves an optimizer with state in the file
        model.compile(optimizer="adam", loss="mse")
        model.train_on_batch(ids, np.zeros((2, 3, 8), "float32"))
    return model, [ids]


@recipe("hdf5", "An HDF5 file that is called model.keras, as Keras wrote it up to 2.12.", when=not V3_FILES or TF_VERSION == (2, 12), files=["model.keras"])
def _(rng):
    model = Sequential([layers.Dense(4, activation="tanh", input_shape=(3,)), layers.Dense(2)])
    return model, [normal(rng, 2, 3)]


@recipe("images", "A padding on the wrong side, a kernel flipped or its axes swapped, epsilon or slope of another version.")
def _(rng):
    model = Sequential()
    model.add(layers.ZeroPadding2D(((1, 0), (0, 2)), input_shape=(8, 7, 3)))
    model.add(layers.Conv2D(4, (3, 2), strides=(2, 2), padding="same"))
    model.add(layers.BatchNormalization())
    model.add(layers.LeakyReLU(0.2))
    if has("DepthwiseConv2D"):
        model.add(layers.DepthwiseConv2D((3, 3), depth_multiplier=2, padding="same", activation="tanh"))
    model.add(layers.ThresholdedReLU(0.05) if has("ThresholdedReLU") else layers.ReLU(threshold=0.05))
    model.add(layers.SeparableConv2D(4, (3, 3), padding="same", depth_multiplier=2, activation="elu"))
    model.add(layers.Conv2DTranspose(3, (3, 2), strides=(2, 2), padding="same", activation="softplus"))
    model.add(layers.AveragePooling2D((3, 3), strides=(1, 1), padding="same"))
    model.add(layers.UpSampling2D((1, 2)))
    model.add(layers.MaxPooling2D((3, 2), strides=(2, 2), padding="same"))
    model.add(layers.Conv2D(3, (2, 2), dilation_rate=(1, 2)))
    model.add(layers.Flatten())
    model.add(layers.Dense(4, activation="softmax"))
    return model, [normal(rng, 2, 8, 7, 3)]


@recipe("channels_first", "A flattening that moves the channels in a version that left them, or a wrong axis of normalization.", when=API == "keras" or NEW)
def _(rng):
    first = {"data_format": "channels_first"}
    pooled = [] if EAGER else [layers.MaxPooling2D((2, 2), **first), layers.ZeroPadding2D((1, 0), **first)]
    # The CPU convolves no channels that come first in TensorFlow 2: there, what else knows the order.
    head = [layers.ZeroPadding2D((1, 0), **first), layers.UpSampling2D((1, 2), **first)] if EAGER else [layers.Conv2D(4, (3, 2), activation="relu", **first)]
    head[0] = layers.ZeroPadding2D((1, 0), input_shape=(3, 6, 5), **first) if EAGER else layers.Conv2D(4, (3, 2), activation="relu", input_shape=(3, 6, 5), **first)
    model = Sequential(head + pooled + [layers.BatchNormalization(axis=1), layers.Flatten(), layers.Dense(4)])
    return model, [normal(rng, 2, 3, 6, 5)]


IDS = np.array([[3, 1, 4, 1, 0, 0, 0, 0], [0, 0, 5, 9, 2, 6, 0, 3], [2, 7, 0, 1, 8, 2, 8, 1], [0, 0, 0, 0, 0, 0, 0, 0]], "int32")


@recipe("sequences", "The hard_sigmoid of another version, a GRU that resets before or after, masked steps taken for steps.")
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
    c = layers.GlobalAveragePooling1D()(layers.AveragePooling1D(3, strides=2, padding="same")(y))
    return Model(ids, [x, layers.concatenate([a, b, c])]), [IDS]


@recipe("nested", "Weights of nested models in another order than Keras's: those of a frozen layer and statistics last.")
def _(rng):
    i = Input((5,))
    h = layers.Dense(5, activation="relu", name="one/frozen", trainable=False)(i)
    inner = Model(i, layers.Dense(5, name="last")(layers.BatchNormalization()(h)), name="inner")
    block = Sequential([layers.Dense(5, input_shape=(5,)), layers.BatchNormalization(), layers.Dense(5, activation="tanh")], name="block")
    x = Input((5,))
    y = layers.Activation("tanh")(layers.Dense(5)(x))
    a = inner(y)
    b = inner(x)
    return Model(x, [layers.Dense(3)(block(layers.add([a, b]))), a]), [normal(rng, 3, 5)]


@recipe(
    "shared",
    "A layer of two models: stored twice in an old file, once in a new one and counted in another way than by Keras 3.",
    refused="is shared with a model inside" if WRITER == "tf-2.8" else None,
)
def _(rng):
    shared = layers.Dense(5, name="shared/dense")
    i = Input((5,))
    inner = Model(i, layers.Dense(4, name="last")(shared(layers.Dense(5, activation="relu", name="first")(i))), name="inner")
    x = Input((5,))
    return Model(x, layers.Dense(3)(inner(layers.Activation("tanh")(shared(x))))), [normal(rng, 3, 5)]


@recipe("frozen", "Weights of a nested model that was frozen as a whole, whose flag some versions don't save: they come last.")
def _(rng):
    frozen = Sequential([layers.Dense(5, input_shape=(5,)), layers.BatchNormalization(), layers.Dense(5, activation="tanh")], name="frozen")
    frozen.trainable = False
    i = Input((5,))
    wrapper = Model(i, layers.Dense(5, name="after")(frozen(layers.BatchNormalization()(i))), name="wrapper")
    x = Input((5,))
    return Model(x, wrapper(wrapper(x))), [normal(rng, 3, 5)]


@recipe("wrapped", "A Sequential inside a Sequential or a wrapper: it may have no name in the file, its layers others in the store, and the wrapper's flag no effect.")
def _(rng):
    step = Sequential([layers.Dense(4, activation="tanh", input_shape=(4,)), layers.BatchNormalization(), layers.Dense(4)])
    wrapped = layers.TimeDistributed(step)
    wrapped.trainable = False
    first = Sequential([layers.BatchNormalization(input_shape=(3, 4)), wrapped, layers.TimeDistributed(layers.Dense(4))])
    return Sequential([first, layers.Dense(4), layers.SimpleRNN(4)]), [normal(rng, 2, 3, 4)]


@recipe("ports", "Outputs or inputs in the order of the layers, a merge of another kind, states of a decoder that start at zero.")
def _(rng):
    a, b, s = Input((6,), name="a"), Input((6,), name="b"), Input((4, 3), name="s")
    joined = layers.concatenate([b, a])
    product = layers.multiply([layers.add([a, b]), layers.average([a, b])])
    dotted = layers.dot([product, layers.maximum([a, b])], axes=1, normalize=True)
    grid = layers.Reshape((2, -1))(joined)
    grid = layers.Permute((2, 1))(grid)
    grid = layers.PReLU(shared_axes=[1])(grid)
    repeated = layers.RepeatVector(3)(layers.ELU(0.7)(a))
    if hasattr(layers, "subtract"):
        repeated = layers.subtract([layers.RepeatVector(3)(b), repeated])
    repeated = layers.Cropping1D((1, 0))(repeated)
    encoded, h, c = layers.LSTM(4, return_state=True)(s)
    decoded = layers.LSTM(4, return_sequences=True)(repeated, initial_state=[h, c])
    model = Model([s, b, a], [decoded, dotted, grid, encoded])
    return model, [normal(rng, 2, 4, 3), normal(rng, 2, 6), normal(rng, 2, 6)]


@recipe("functions", "An activation's constant or branch of another version: hard_sigmoid is 0.2x+0.5 cut off here.")
def _(rng):
    x = Input((6,))
    names = ["elu", "selu", "softplus", "softsign", "hard_sigmoid", "sigmoid", "exponential", "swish", "gelu", "relu", "tanh", "linear"]
    outputs = []
    for name in names:
        try:
            outputs.append(layers.Activation(name)(x))
        except ValueError:
            print("no activation", name)
    if has("Softmax"):
        outputs.append(layers.Softmax(axis=1)(layers.Reshape((3, 2))(x)))
    if has("ReLU"):
        outputs.append(layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.3)(x) if takes(layers.ReLU, "threshold") else layers.ReLU(1.0)(x))
    return Model(x, outputs), [normal(rng, 3, 6) * 1.5]


@recipe("masks", "Masks that a merge joins with OR, or drops: Keras 2 joins them with AND.")
def _(rng):
    first, second, floats = Input((6,), dtype="int32"), Input((6,), dtype="int32"), Input((6, 3))
    a = layers.Embedding(10, 3, mask_zero=True)(first)
    b = layers.Embedding(10, 3, mask_zero=True)(second)
    masked = layers.Masking(0.5)(floats)
    outputs = [
        layers.LSTM(2)(layers.add([a, b])),
        layers.LSTM(2)(layers.concatenate([a, b])),
        layers.LSTM(2, return_sequences=True)(layers.concatenate([a, b], axis=1)),
        layers.GRU(2)(layers.multiply([a, masked])),
        layers.SimpleRNN(2)(layers.average([masked, b])),
        layers.SimpleRNN(3, go_backwards=True, return_sequences=True)(masked),
    ]
    pool = layers.GlobalAveragePooling1D()
    if getattr(pool, "supports_masking", False):
        outputs.append(pool(masked))
    ids = [np.array(rows, "int32") for rows in ([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], [[2, 0, 6, 1, 0, 3], [4, 4, 0, 2, 7, 0], [0, 0, 1, 2, 3, 4]])]
    xs = normal(rng, 3, 6, 3)
    xs[0, 3:], xs[1, 0], xs[1, 4], xs[2, 2, 0] = 0.5, 0.5, 0.5, 0.5
    return Model([first, second, floats], outputs), [ids[0], ids[1], xs]


@recipe("directions", "A backward direction that isn't turned round again, merged in another way, or cells stacked in another order.")
def _(rng):
    ids = Input((6,), dtype="int32")
    x = layers.Embedding(10, 3, mask_zero=True)(ids)
    outputs = [layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode=mode)(x) for mode in ("sum", "mul")]
    outputs += [layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode="ave")(x)]
    outputs += flat(layers.Bidirectional(layers.GRU(2), merge_mode=None)(x))
    if has("RNN", "LSTMCell", "GRUCell"):
        outputs.append(layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)], return_sequences=True)(x))
    return Model(ids, outputs), [np.array([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], "int32")]


@recipe("enlarged", "An image enlarged from the corners of its pixels, as TensorFlow did up to 1.14, or from their centres.", when=takes(layers.UpSampling2D, "interpolation") and not THEANO)
def _(rng):
    i = Input((3, 4, 2))
    return Model(i, [layers.UpSampling2D(2, interpolation="bilinear")(i), layers.UpSampling2D((3, 1), interpolation="bilinear")(i), layers.UpSampling2D((2, 3))(i)]), [normal(rng, 2, 3, 4, 2)]


@recipe("time_major", "Steps and sequences of a batch exchanged, in the numbers or in the mask.", when=EAGER)
def _(rng):
    ids = Input((4,), dtype="int32")  # (time, batch)
    x = layers.Embedding(10, 3, mask_zero=True)(ids)
    x = layers.LSTM(4, return_sequences=True, time_major=True)(x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True, time_major=True))(x)
    outputs = [x, layers.SimpleRNN(3, time_major=True)(x), layers.GRU(2, go_backwards=True, unroll=False, time_major=True)(x)]
    outputs += flat(layers.LSTM(2, return_sequences=True, return_state=True, time_major=True)(x))
    return Model(ids, outputs), [np.array([[3, 0, 1, 4], [1, 0, 5, 0], [4, 2, 0, 0], [1, 6, 3, 0], [0, 9, 0, 0], [5, 0, 2, 0]], "int32")]


@recipe("stacked_states", "The states of stacked cells, which the last cell's came first of up to 2.2.2.", when=API == "keras" and has("RNN", "LSTMCell", "GRUCell"))
def _(rng):
    ids, h, c, g = Input((6,), dtype="int32"), Input((3,)), Input((3,)), Input((3,))
    x = layers.Embedding(10, 3, mask_zero=True)(ids)
    cells = [layers.GRUCell(3), layers.LSTMCell(3)]
    outputs = flat(layers.RNN(cells, return_sequences=True, return_state=True)(x, initial_state=[h, c, g]))
    outputs += flat(layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)], return_state=True)(outputs[0]))
    ids_of_batch = np.array([[3, 1, 4, 0, 0, 0], [0, 5, 9, 2, 0, 6], [5, 3, 7, 5, 8, 9]], "int32")
    return Model([ids, h, c, g], outputs), [ids_of_batch] + [normal(rng, 3, 3) for _ in range(3)]


@recipe("volumes", "A third axis swapped, a convolution of its own at each place read as one, the gates of a ConvLSTM2D.", truth=True)
def _(rng):
    cube, frames, line = Input((5, 4, 4, 2)), Input((3, 4, 4, 2)), Input((6, 3))
    x = layers.Conv3D(3, (2, 3, 2), strides=(2, 1, 1), padding="same", activation="relu")(cube)
    if has("Conv3DTranspose") and not THEANO:
        x = layers.Conv3DTranspose(2, (2, 3, 2), strides=(1, 2, 1))(x)
    x = layers.AveragePooling3D((2, 2, 2), padding="same")(x)
    y = layers.ConvLSTM2D(2, (2, 3), padding="same", return_sequences=False)(frames)
    z = layers.Conv1D(4, 3, strides=2, padding="same")(line)
    if has("LocallyConnected1D"):
        y = layers.LocallyConnected2D(2, (3, 2), activation="tanh")(y)
        z = layers.LocallyConnected1D(3, 2)(z)
    w = layers.GlobalMaxPooling3D()(cube) if K.floatx() == "float64" and TF is not None else layers.Flatten()(layers.MaxPooling3D((5, 4, 4))(cube))
    return Model([cube, frames, line], [x, w, y, z]), [normal(rng, 2, 5, 4, 4, 2), normal(rng, 2, 3, 4, 4, 2), normal(rng, 2, 6, 3)]


# ----------------------------------------------------------------------------
# CuDNN: built and saved without a GPU, run as the plain layers that Keras loads it into
# ----------------------------------------------------------------------------

CUDNN = layers if has("CuDNNLSTM") else None
if CUDNN is None and API == "tf" and TF_VERSION < (2, 0):
    CUDNN = TF.compat.v1.keras.layers


def cudnn_model(fast):
    plain = not fast
    lstm = (lambda units, **o: layers.LSTM(units, recurrent_activation="sigmoid", **o)) if plain else CUDNN.CuDNNLSTM
    gru = (lambda units, **o: layers.GRU(units, recurrent_activation="sigmoid", reset_after=True, **o)) if plain else CUDNN.CuDNNGRU
    x = Input((5, 3))
    y = lstm(4, return_sequences=True, name="lstm")(x)
    y = layers.Bidirectional(gru(3, return_sequences=True, name="gru"), name="both")(y)
    y = layers.Bidirectional(lstm(2, return_sequences=True, name="lstm_2"), name="both_2")(y)
    return Model(x, gru(4, name="gru_2")(y))


def recorded_cudnn(rng, files):
    model = cudnn_model(fast=True)
    fill(ENGINE, "cudnn", model)
    inputs = [normal(rng, 2, 5, 3)]
    folder = {}

    def save(out):
        for file in files:
            # A model.json is that of the plain layers, for the weights of the fast ones.
            ENGINE.save(cudnn_model(fast=False) if file == "model.json" else model, os.path.join(out, file))
        twin = cudnn_model(fast=False)
        twin.load_weights(os.path.join(out, files[-1]))
        folder["outputs"] = ENGINE.run(twin, inputs)

    class Built(dict):
        def __getitem__(self, key):
            return folder[key] if key == "outputs" else dict.__getitem__(self, key)

    return Built(save=save, inputs=inputs, model=model, files=files)


WITH_CUDNN = not THEANO and not EAGER and CUDNN is not None and takes(layers.GRU, "reset_after")


@recipe("cudnn", "The gates, biases and transposed kernels of the CuDNN layers, which their plain twins store in another way.", when=WITH_CUDNN)
def _(rng):
    return recorded_cudnn(rng, ["model.h5"])


@recipe("cudnn_weights", "Weights saved by CuDNN layers, in a model of plain layers.", when=WITH_CUDNN)
def _(rng):
    return recorded_cudnn(rng, ["model.json", "weights.h5"])


# ----------------------------------------------------------------------------
# tf.keras from 2.4 on
# ----------------------------------------------------------------------------


@recipe("operators_arithmetic", "Operands swapped (1-x, 2/x), a power or comparison of another kind.", when=NEW)
def _(rng):
    x, y = Input((3, 4)), Input((3, 4))
    outputs = [
        x * 2 + 1, 1 - x, x / (y * y + 1.5), x @ TF.transpose(y, [0, 2, 1]), x**2, -x, 2 / (x * x + 1), x - y, abs(y), 2.0**x,
        x % 0.7, x // 0.7,
        TF.where(x > 0, x, y), TF.cast(x >= y, K.floatx()) - TF.cast(y < 0.2, K.floatx()), TF.maximum(x, 0.1), TF.minimum(x, y),
        # tf.keras 2.4 has no & of its own.
        TF.logical_and(x > 0, y > 0) if TF_VERSION < (2, 5) else (x > 0) & (y > 0),
        TF.logical_not(TF.logical_or(x > 0, y <= 0)) if TF_VERSION < (2, 5) else ~((x > 0) | (y <= 0)),
        TF.not_equal(TF.cast(x * 2, "int32"), 0),
        x + constant([0.5, -1.0, 2.0, 0.25]), TF.subtract(constant([[1.0], [2.0], [-1.0]]), x),
    ]
    return Model([x, y], outputs), [normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)]


@recipe("operators_functions", "A function of tf.math or tf.nn with another constant, axis or default.", when=NEW)
def _(rng):
    x = Input((3, 4))
    p = TF.math.square(x) + 0.5
    outputs = [
        TF.nn.relu(x), TF.nn.relu6(x * 4), TF.nn.gelu(x), TF.nn.softmax(x), TF.nn.softmax(x, axis=1), TF.nn.leaky_relu(x), TF.nn.elu(x), TF.nn.selu(x),
        TF.nn.leaky_relu(x, alpha=0.1), TF.sigmoid(x), TF.tanh(x), TF.exp(x), TF.math.log(p), TF.sqrt(p), TF.math.rsqrt(p), TF.math.sin(x), TF.math.erf(x),
        TF.reduce_mean(x, axis=1), TF.reduce_sum(x, axis=[1, 2]), TF.reduce_max(x, axis=-1, keepdims=True), TF.math.reduce_min(x, axis=1), TF.math.reduce_std(x, axis=2),
        TF.clip_by_value(x, -0.5, 0.7), TF.math.l2_normalize(x, axis=-1), TF.math.softplus(x), TF.nn.silu(x) if hasattr(TF.nn, "silu") else TF.nn.swish(x), TF.round(x * 3), TF.math.pow(p, 1.5), TF.math.squared_difference(x, p),
        TF.argmax(x, axis=-1), TF.math.cumsum(x, axis=1), TF.math.floor(x), TF.sign(x), TF.math.reduce_logsumexp(x, axis=1), TF.nn.log_softmax(x),
    ]
    return Model(x, outputs), [normal(rng, 2, 3, 4)]


@recipe("operators_shapes", "A slice, a reshape, a transposition or a concatenation of another axis.", when=NEW)
def _(rng):
    x, y = Input((4, 6)), Input((4, 6))
    p, q, r = TF.split(x, 3, axis=-1)
    u = TF.unstack(y, axis=1)
    # Keras: a .keras of Keras 2 can hold no ellipsis.
    outputs = [
        TF.concat([x, y], axis=1), TF.concat([y, x], -1), TF.stack([x, y], axis=2), q - r, u[2] * 2, TF.split(y, [1, 3], axis=1)[1],
        TF.reshape(x, [-1, 3, 8]), TF.transpose(x, perm=[0, 2, 1]), TF.expand_dims(x, 1), TF.squeeze(TF.reduce_sum(x, 2, keepdims=True), axis=-1),
        x[:, 1:-1], x[:, :, 0] if V3_FILES else x[..., 0], x[:, ::2], x[:, TF.newaxis, 1], x[:, -1], x[:, :, ::-1], x[:, 1:3, 2:] if V3_FILES else x[..., 1:3, 2:],
        TF.reshape(x, [TF.shape(x)[0], 24]), TF.pad(x, [[0, 0], [1, 2], [0, 1]]), TF.tile(x, [1, 2, 1]), TF.gather(x, [2, 0], axis=1), TF.reverse(x, axis=[1]), TF.repeat(x, 2, axis=1),
        TF.ones_like(x), TF.zeros_like(y[:, 0]), TF.broadcast_to(x[:, :1], TF.shape(x)),
    ]
    return Model([x, y], outputs), [normal(rng, 2, 4, 6), normal(rng, 2, 4, 6)]


@recipe("operators_products", "A product with the wrong operand transposed, an image resized at other places.", when=NEW)
def _(rng):
    x, y, image, ids = Input((3, 4)), Input((5, 4)), Input((4, 4, 2)), Input((3,), dtype="int32")
    kernel = normal(rng, 4, 3).astype(K.floatx())
    outputs = [
        TF.matmul(x, y, transpose_b=True), TF.matmul(x, kernel), TF.tensordot(x, constant(kernel), axes=1),
        TF.one_hot(ids, 5), TF.image.resize(image, [6, 3]), TF.image.resize(image, (3, 3), method="nearest"), TF.cast(ids, K.floatx()) * 0.5,
        TF.gather(x, ids, axis=1, batch_dims=1), TF.nn.max_pool2d(image, 2, 2, "SAME"), TF.nn.avg_pool2d(image, 3, 1, "SAME"),
        TF.nn.conv2d(image, constant(normal(rng, 2, 3, 2, 2)), strides=1, padding="SAME"), TF.nn.bias_add(x, constant([0.1, 0.2, 0.3, -0.4])),
        TF.nn.moments(x, axes=[1])[1], TF.linalg.matmul(x, x, transpose_a=True), TF.math.top_k(x, 2)[0],
    ]
    return Model([x, y, image, ids], outputs), [normal(rng, 2, 3, 4), normal(rng, 2, 5, 4), normal(rng, 2, 4, 4, 2), np.array([[0, 2, 1], [1, 1, 0]], "int32")]


@recipe("operators_more", "A function of TensorFlow with a default, an axis or a dtype of keras.ops: float32 quotients of integers, an image resized and cast back.", when=NEW)
def _(rng):
    x, y, image, ids = Input((3, 4)), Input((3, 4)), Input((4, 4, 4)), Input((3,), dtype="int32")
    pixels = Input((4, 4, 1), dtype="uint8")
    kernels = normal(rng, 2, 4, 3).astype(K.floatx()), normal(rng, 2, 3, 4, 2).astype(K.floatx())
    outputs = [
        TF.sort(x), TF.argsort(y, axis=1), TF.roll(x, [1, -1], [1, 2]), TF.add_n([x, y, x]), TF.math.reciprocal(y), TF.atan2(x, y),
        TF.norm(x, axis=-1), TF.math.reduce_euclidean_norm(y, axis=[1], keepdims=True), TF.math.count_nonzero(x > 0, axis=1), TF.slice(x, [0, 1, 0], [-1, 2, 3]),
        TF.zeros_like(x, dtype="int32"), TF.ones_like(y[:, 0], dtype="int64"), TF.fill(TF.shape(x), 2.5), TF.zeros((TF.shape(x)[0], 2)), TF.ones(TF.shape(y), K.floatx()) - y,
        TF.range(TF.shape(x)[1]), TF.range(start=7, limit=TF.shape(x)[2], delta=-2), ids / 3, ids % 2, TF.bitwise.bitwise_and(ids, 6), TF.bitwise.bitwise_xor(ids, ids + 1),
        TF.nn.conv1d(x, kernels[0], stride=1, padding="SAME"), TF.nn.depthwise_conv2d(image, kernels[1], [1, 1, 1, 1], "VALID"),
        TF.image.flip_left_right(image), TF.image.flip_up_down(image), TF.nn.depth_to_space(image, 2), TF.nn.space_to_depth(image, 2),
        TF.image.resize(pixels, [3, 6]), TF.image.resize(pixels, [3, 6], method="nearest"), TF.image.resize(image, [2, 2], method="gaussian", antialias=True),
    ]
    inputs = [normal(rng, 2, 3, 4), normal(rng, 2, 3, 4), normal(rng, 2, 4, 4, 4), np.array([[0, 7, -5], [1, 4, 3]], "int32"), rng.randint(0, 256, (2, 4, 4, 1)).astype("uint8")]
    return Model([x, y, image, ids, pixels], outputs), inputs


@recipe("operators_block", "Operators between layers with weights: an attention written by hand and its residual sum.", when=NEW)
def _(rng):
    x = Input((4, 6))
    q, k, v = layers.Dense(6, use_bias=False)(x), layers.Dense(6)(x), layers.Dense(6)(x)
    scores = TF.matmul(q, k, transpose_b=True) / TF.math.sqrt(TF.cast(TF.shape(k)[-1], K.floatx()))
    y = layers.LayerNormalization()(x + TF.nn.softmax(scores, axis=-1) @ v)
    scale = layers.Dense(6, activation="sigmoid")(TF.reduce_mean(y, axis=1))
    return Model(x, layers.Dense(3)(y * scale[:, None, :])), [normal(rng, 2, 4, 6)]


@recipe("masks_ended", "A mask that goes on after a layer which ended it in this version, or the mask of a step's parts taken for that of the steps.", when=NEW)
def _(rng):
    ids, parts = Input((6,), dtype="int32"), Input((3, 4), dtype="int32")
    x = layers.Embedding(10, 3, mask_zero=True)(ids)
    Rescaling = getattr(layers, "Rescaling", None) or layers.experimental.preprocessing.Rescaling
    ends = [layers.ReLU(), Rescaling(2.0)]
    if TF_VERSION >= (2, 12):
        ends += [layers.Identity(), layers.Normalization(mean=0.5, variance=2.0)]
    outputs = [layers.GlobalAveragePooling1D()(layer(x)) for layer in ends] + [layers.LSTM(2)(layers.Dense(3)(x))]
    steps = layers.TimeDistributed(layers.Embedding(10, 3, mask_zero=True))(parts)
    outputs.append(layers.LSTM(2)(layers.TimeDistributed(layers.GRU(3))(steps)))
    numbers = np.array([[1, 0, 3, 4, 0, 0], [9, 8, 7, 0, 2, 6]], "int32")
    return Model([ids, parts], outputs), [numbers, np.array([[[1, 0, 2, 0], [0, 0, 0, 0], [3, 3, 0, 1]], [[0, 5, 6, 7], [8, 0, 0, 0], [0, 0, 0, 0]]], "int32")]


@recipe("small_epsilon", "An epsilon that TensorFlow's fused normalization raises up to 2.11, and later doesn't; a mask that MultiHeadAttention ends before 2.10.", when=NEW, truth=False, fill=False)
def _(rng):
    x, volume, ids = Input((3, 4, 2)), Input((2, 3, 2, 2)), Input((4,), dtype="int32")
    y = layers.Embedding(10, 3, mask_zero=True)(ids)
    outputs = [layers.BatchNormalization(epsilon=1e-7)(x), layers.BatchNormalization(epsilon=1e-7)(volume), layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3)(y, y))]
    model = Model([x, volume, ids], outputs)
    fill(ENGINE, "small_epsilon", model)
    small = [v for v in unique(model.weights) if "variance" in v.name]
    K.batch_set_value([(v, rng.uniform(0.0, 2e-5, K.int_shape(v)).astype(K.floatx())) for v in small])
    return model, [normal(rng, 2, 3, 4, 2), normal(rng, 2, 2, 3, 2, 2), np.array([[1, 0, 3, 0], [9, 8, 0, 2]], "int32")]


@recipe("several_axes", "Statistics or weights along several axes in another order; integers normalized to whole numbers; pixels cast back.", when=NEW)
def _(rng):
    x, ids, pixels = Input((3, 4, 2)), Input((3, 4), dtype="int32"), Input((3, 2, 2), dtype="uint8")
    outputs = [
        layers.LayerNormalization(axis=[3, 1])(x),
        layers.LayerNormalization(axis=[1, 2, 3], epsilon=0.1)(x),
        layers.BatchNormalization(axis=[1, 3])(x),
        layers.BatchNormalization(axis=[1], scale=False)(x),
        layers.LayerNormalization()(ids),
        layers.UpSampling2D((2, 3), interpolation="bilinear")(pixels),
    ]
    return Model([x, ids, pixels], outputs), [normal(rng, 2, 3, 4, 2), rng.randint(-5, 9, (2, 3, 4)).astype("int32"), rng.randint(0, 256, (2, 3, 2, 2)).astype("uint8")]


@recipe("attention", "Queries and values swapped, scores not scaled, masks of another operand, a normalization over fewer axes.", when=NEW)
def _(rng):
    ids, other, x = Input((4,), dtype="int32"), Input((5,), dtype="int32"), Input((4, 6))
    a, b = layers.Embedding(10, 6, mask_zero=True)(ids), layers.Embedding(10, 6, mask_zero=True)(other)
    dense = getattr(layers, "EinsumDense", None) or layers.experimental.EinsumDense
    outputs = [
        layers.MultiHeadAttention(2, 3, value_dim=4)(x, x),
        layers.Attention(use_scale=True)([a, b]),
        layers.AdditiveAttention()([a, b]),
        layers.LayerNormalization()(x),
        dense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de")(x),
    ]
    if has("GroupNormalization"):
        outputs += [layers.GroupNormalization(3)(x), layers.UnitNormalization()(x), layers.LayerNormalization(axis=[1, 2])(x)]
    ids_a, ids_b = np.array([[3, 1, 4, 0], [0, 5, 9, 2]], "int32"), np.array([[2, 0, 6, 1, 0], [4, 4, 8, 2, 7]], "int32")
    return Model([ids, other, x], outputs), [ids_a, ids_b, normal(rng, 2, 4, 6)]


# In float32 -1e9 swallows the scores of a row that is masked as a whole, in float64 it doesn't.
@recipe("attention_masked", "A MultiHeadAttention that obeys the masks of its inputs before Keras 2.10, or doesn't after.", when=NEW, truth=TF_VERSION < (2, 10))
def _(rng):
    ids, other = Input((4,), dtype="int32"), Input((5,), dtype="int32")
    a, b = layers.Embedding(10, 6, mask_zero=True)(ids), layers.Embedding(10, 6, mask_zero=True)(other)
    ids_a, ids_b = np.array([[3, 1, 4, 0], [0, 5, 9, 2]], "int32"), np.array([[2, 0, 6, 1, 0], [4, 4, 8, 2, 7]], "int32")
    return Model([ids, other], layers.MultiHeadAttention(2, 3)(a, b)), [ids_a, ids_b]


@recipe("half", "Layers of a mixed_float16 policy computed in float32, or their weights read as halves.", when=NEW, truth=False, computed_in="float16", because="float16")
def _(rng):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = Sequential([layers.Dense(8, activation="relu", input_shape=(6,)), layers.BatchNormalization(), layers.Dense(6), layers.LayerNormalization(), layers.Dense(3, dtype="float32")])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return model, [normal(rng, 3, 6)]


@recipe("double", "Weights of float64 read as float32.", when=NEW)
def _(rng):
    x = Input((6,), dtype="float64")
    y = layers.Dense(4, activation="tanh", dtype="float64")(x)
    return Model(x, layers.Dense(3, dtype="float64")(y)), [rng.standard_normal((3, 6))]


def preprocessing(name):
    found = getattr(layers, name, None)
    return found or getattr(getattr(layers.experimental, "preprocessing", None), name, None) if NEW else None


@recipe("preprocessing_images", "An image resized or cut at other places, statistics read as weights in another order, random layers that act.", when=NEW, fill=False)
def _(rng):
    P = preprocessing
    # Keras: Normalization's weights are set by adapt.
    normalization = P("Normalization")(axis=-1)
    normalization.adapt(normal(rng, 20, 6, 6, 3) * 2 + 1)
    model = Sequential([Input((8, 8, 3)), P("RandomFlip")(), P("RandomCrop")(7, 7) if (2, 7) <= TF_VERSION < (2, 9) else P("RandomTranslation")(0.1, 0.1), P("RandomRotation")(0.2), P("Rescaling")(2.0, offset=-0.5), P("CenterCrop")(6, 6), P("Resizing")(5, 4), normalization, P("RandomZoom")(0.2)])
    return model, [rng.uniform(0, 1, (2, 8, 8, 3)).astype("float32")]


@recipe("training_only", "A layer that acts in training acts, or an added loss or metric takes part.", when=NEW)
def _(rng):
    x = Input((6, 6, 2))
    y = preprocessing("RandomWidth")(0.3)(preprocessing("RandomHeight")(0.3)(x))
    y = layers.experimental.SyncBatchNormalization()(layers.Conv2D(3, 2)(y))
    y = layers.GlobalAveragePooling2D()(y)
    model = Model(x, layers.Dense(2)(y))
    model.add_loss(TF.reduce_mean(y))
    model.add_metric(TF.reduce_sum(y), name="sum", aggregation="mean")
    return model, [normal(rng, 2, 6, 6, 2)]


@recipe("preprocessing_numbers", "Bins, categories or integers of a vocabulary off by one.", when=NEW, rules=["copy", "copy", "elementwise"], fill=False)
def _(rng):
    P = preprocessing
    x, ids, values = Input((3,)), Input((3,), dtype="int64"), Input((2,))
    boundaries = [-0.5, 0.0, 0.7]
    bins = P("Discretization")(boundaries) if TF_VERSION < (2, 6) else P("Discretization")(bin_boundaries=boundaries)
    encoding = P("CategoryEncoding")(max_tokens=6, output_mode="binary") if TF_VERSION < (2, 6) else P("CategoryEncoding")(num_tokens=6, output_mode="multi_hot")
    normalization = P("Normalization")(axis=-1)
    normalization.adapt(normal(rng, 20, 2) * 3 - 1)
    return Model([x, ids, values], [bins(x), encoding(ids), normalization(values)]), [normal(rng, 4, 3), np.array([[1, 2, 2], [0, 5, 1], [3, 3, 3], [4, 0, 5]], "int64"), normal(rng, 4, 2)]


@recipe("preprocessing_integers", "Integers of a vocabulary off by one: how many stand for none and for unknown.", when=NEW, rules=["copy"], fill=False)
def _(rng):
    ids = Input((3,), dtype="int64")
    return Model(ids, preprocessing("IntegerLookup")(vocabulary=[12, 36, 1138, 42])(ids)), [np.array([[12, 42, 7], [36, 1138, 0]], "int64")]


@recipe("preprocessing_strings", "Texts of a vocabulary off by one: how many stand for none and for unknown.", when=NEW, rules=["copy"], fill=False)
def _(rng):
    words = Input((3,), dtype="string")
    return Model(words, preprocessing("StringLookup")(vocabulary=["a", "c", "zwölf", "b"])(words)), [np.array([["a", "b", "d"], ["zwölf", "c", ""]], dtype=object)]


@recipe("preprocessing_text", "A text split or stripped at other places.", when=NEW, rules=["copy"], fill=False)
def _(rng):
    words = Input((1,), dtype="string")
    vocabulary = ["the", "cat", "sat", "on", "mat"]
    if TF_VERSION < (2, 6):
        layer = preprocessing("TextVectorization")(output_sequence_length=6)
        layer.set_vocabulary(vocabulary)
    else:
        layer = preprocessing("TextVectorization")(output_sequence_length=6, vocabulary=vocabulary)
    return Model(words, layer(words)), [np.array([["The cat, sat on THE mat!"], ["a dog sat"]], dtype=object)]


# ----------------------------------------------------------------------------


@recipe("chunked", "An attribute of more than 64 KB, which HDF5 takes only in pieces: layer_names0, layer_names1.", when=WRITER in ("keras-2.2.4", "chunked"), truth=False, files=["model.h5"])
def _(rng):
    # Keras pads every name to the length of the longest: one of 6000 letters makes 11 of them too long.
    model = Sequential(name="s")
    for i in range(12):
        name = "dense_%d" % i + "x" * 6000 * (i == 4)
        model.add(layers.Activation("linear", name=name, input_shape=(3,)) if i == 0 else layers.Dense(3, name=name) if i % 5 == 0 else layers.Activation("linear", name=name))
    return model, [normal(rng, 2, 3)]


if __name__ == "__main__":
    main(ENGINE)
