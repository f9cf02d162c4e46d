"""Files that must be refused, by layer and key."""

import keras
from keras import layers

from .case import ALL_FILES, Cases, normal, sequential

case = Cases("refused")


@keras.saving.register_keras_serializable(package="package")
class Name(layers.Layer):
    """A layer that no reader can know."""

    __module__ = "__main__"  # as where a user's own script defines it

    def call(self, xs: object) -> object:
        return xs + 1.0


@case.model("lambda", "Python code in the file, run or skipped.", files=("model.keras",), refused="Lambda")
def _(rng):
    double = eval("lambda x: x * 2")  # so that the code in the file names no path
    return sequential(layers.Lambda(double), shape=(3,)), [normal(rng, 2, 3)]


@case.model("custom", "A layer of the user's own skipped.", files=ALL_FILES, refused="package>Name")
def _(rng):
    return sequential(Name(), shape=(3,)), [normal(rng, 2, 3)]


@case.model("nested_lambda", "Python code in a model within a model: its path is to be told.", files=ALL_FILES, refused="inner/lambda")
def _(rng):
    triple = eval("lambda x: x * 3")
    inner = sequential(layers.Dense(3), layers.Lambda(triple, name="lambda"), shape=(3,), name="inner")
    return sequential(inner, layers.Dense(2), shape=(3,)), [normal(rng, 2, 3)]


@case.model("stateful_twice", "The second call of a layer begun anew: Keras begins it where the first ended.", files=ALL_FILES, refused="stateful")
def _(rng):
    xs = keras.Input(batch_shape=(2, 4, 3))
    layer = layers.LSTM(2, stateful=True)
    return keras.Model(xs, [layer(xs), layer(xs)]), [normal(rng, 2, 4, 3)]


@case.model("policy_within", "A layer within a wrapper computed in a dtype that Keras does not compute it in.", refused="another dtype policy")
def _(rng):
    return sequential(layers.TimeDistributed(layers.LayerNormalization(), dtype="mixed_float16"), shape=(4, 3)), [normal(rng, 2, 4, 3)]


@case.model("policy_map", "One policy taken for all of an attention layer, where a map gives its parts others.", refused="DTypePolicyMap")
def _(rng):
    policies = keras.dtype_policies.DTypePolicyMap("float32", {"heads/query": keras.DTypePolicy("float16")})
    xs = keras.Input((4, 3))
    return keras.Model(xs, layers.MultiHeadAttention(2, 2, name="heads", dtype=policies)(xs, xs)), [normal(rng, 2, 4, 3)]


@case.model("several", "Only the first of several layers that can't be read named.", files=ALL_FILES, refused="Lambda")
def _(rng):
    half = eval("lambda x: x / 2")
    return sequential(Name(), layers.Dense(3), layers.Lambda(half), shape=(3,)), [normal(rng, 2, 3)]
