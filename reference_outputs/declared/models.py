"""Whole models: stacks, graphs, models in models, masks, precisions and quantized weights."""

import keras
import ml_dtypes  # noqa: F401 (teaches numpy the name bfloat16)
import numpy as np
from keras import layers, ops

from .case import ALL_FILES, Cases, fill_weights, generator, inputs_for, masked, masked_ids, normal, sequential, train_one_step

stack = Cases("models/Sequential")


@stack.model("stack", "A step left out or done twice in a longer stack.", files=ALL_FILES)
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


@stack.model("compiled", "An optimizer's slots, of the kernel's shape, taken for weights.", files=ALL_FILES)
def _(rng):
    model = sequential(layers.Dense(4, activation="relu"), layers.Dense(2), shape=(3,))
    xs = normal(rng, 5, 3)
    train_one_step(model, xs)
    return model, [xs]


@stack.model("nested", "The layers of a model in a model flattened into one list.", files=ALL_FILES)
def _(rng):
    inner = sequential(layers.Dense(4, activation="tanh"), shape=(3,), name="inner")
    return sequential(inner, layers.Dense(2), shape=(3,)), [normal(rng, 2, 3)]


@stack.model("nested_frozen", "A frozen layer within a model within: its weights come last in the legacy file.", files=ALL_FILES)
def _(rng):
    frozen = layers.Dense(3, trainable=False, name="frozen")
    inner = sequential(frozen, layers.BatchNormalization(), layers.Dense(3), shape=(3,), name="inner")
    return sequential(layers.Dense(3), inner, layers.Dense(3), shape=(3,)), [normal(rng, 2, 3)]


@stack.model("conv_net", "Padding, pooling and flattening that fit each other and are wrong together.")
def _(rng):
    model = sequential(
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.DepthwiseConv2D(3, padding="same", strides=2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
        shape=(7, 6, 3),
    )
    return model, [(rng.random((2, 7, 6, 3)) * 255).astype("float32")]


# ----------------------------------------------------------------------------
# Graphs
# ----------------------------------------------------------------------------

graph = Cases("models/Functional")


@graph.model("two_inputs", "A graph run as if it were a stack, or its inputs swapped.", files=ALL_FILES)
def _(rng):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    return keras.Model([left, right], layers.Subtract()([right, left])), [normal(rng, 2, 3), normal(rng, 2, 3)]


@graph.model("residual", "A branch taken from behind the layer instead of before it.")
def _(rng):
    xs = keras.Input((4,))
    hidden = layers.Dense(4, activation="relu", name="b")(xs)
    return keras.Model(xs, layers.Add()([xs, layers.Dense(4, name="a")(hidden), hidden])), [normal(rng, 3, 4)]


@graph.model("shared", "A layer called twice given two sets of weights, or one answer.")
def _(rng):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    dense = layers.Dense(3, activation="tanh")
    return keras.Model([left, right], [dense(left), dense(dense(right))]), [normal(rng, 2, 3), normal(rng, 2, 3)]


def two_deep() -> keras.Model:
    """A Sequential within a Functional within a Functional, called twice on either floor.

    Keras can't load a model that is called on two floors: it makes two of it.
    """
    inner = sequential(layers.Dense(3, activation="tanh", name="dense"), layers.Dense(3, name="second"), shape=(3,), name="inner")
    middle_in = keras.Input((3,), name="middle_in")
    hidden = layers.Dense(3, name="dense")(inner(middle_in))
    middle = keras.Model(middle_in, layers.Add()([inner(hidden), middle_in]), name="middle")
    xs, ys = keras.Input((3,), name="xs"), keras.Input((3,), name="ys")
    return keras.Model([xs, ys], layers.Concatenate()([middle(xs), middle(ys)]))


@graph.model("two_deep_twice", "Models in models called twice: their weights counted twice, or their paths mistaken.", files=ALL_FILES)
def _(rng):
    return two_deep(), [normal(rng, 2, 3), normal(rng, 2, 3)]


# One layer in both can't be loaded by Keras, which makes two of it.
@graph.model("called_thrice", "An output that is a call of a model within taken for another of its calls.", files=ALL_FILES)
def _(rng):
    inner_in, xs, ys = keras.Input((3,)), keras.Input((3,)), keras.Input((3,))
    inner = keras.Model(inner_in, layers.Dense(3, activation="tanh")(inner_in), name="inner")
    stack = sequential(layers.Dense(3), shape=(3,), name="stack")
    first, second, third = inner(xs), inner(ys), inner(stack(xs))
    return keras.Model([xs, ys], [second, layers.Dense(2)(first), third, stack(first)]), [normal(rng, 2, 3), normal(rng, 2, 3)]


@graph.model("called_twice", "The first call of a model within taken for its second where the second is no output.", files=ALL_FILES)
def _(rng):
    inner_in, xs, ys = keras.Input((3,)), keras.Input((3,)), keras.Input((3,))
    inner = keras.Model(inner_in, layers.Dense(3, activation="tanh")(inner_in), name="inner")
    first, second = inner(xs), inner(ys)
    return keras.Model([xs, ys], [first, layers.Dense(2)(second)]), [normal(rng, 2, 3), normal(rng, 2, 3)]


@graph.model("same_name_within", "A layer of the outer model with the name of one of the inner model.", files=ALL_FILES)
def _(rng):
    inner = sequential(layers.Dense(3, name="first"), layers.Dense(3, name="same"), shape=(3,), name="inner")
    xs = keras.Input((3,), name="xs")
    outer = layers.Dense(3, activation="tanh", name="same")
    return keras.Model(xs, layers.Add()([outer(xs), inner(xs)])), [normal(rng, 2, 3)]


@graph.model("dict_inputs", "Inputs by name given in another order than that of the names.")
def _(rng):
    inputs = {"width": keras.Input((2,), name="w"), "age": keras.Input((3,), name="z"), "height": keras.Input((2,), name="a")}
    joined = layers.Concatenate()([inputs["width"], inputs["age"], inputs["height"]])
    return keras.Model(inputs, layers.Dense(2)(joined)), [normal(rng, 2, 3), normal(rng, 2, 2), normal(rng, 2, 2)]


@graph.model("dict_outputs", "Outputs by name given in another order than that of the names.")
def _(rng):
    xs = keras.Input((3,))
    outputs = {"second": layers.Dense(2, name="p")(xs), "first": layers.Dense(3, name="q")(xs), "both": [xs, layers.ReLU()(xs)]}
    return keras.Model(xs, outputs), [normal(rng, 2, 3)]


@graph.model("nested_structures", "A model within that takes and gives several tensors.")
def _(rng):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    inner = keras.Model({"a": a, "b": b}, [layers.Dense(2)(b), layers.Dense(2)(a)], name="inner")
    x, y = keras.Input((2,), name="x"), keras.Input((3,), name="y")
    first, second = inner({"b": x, "a": y})
    return keras.Model([x, y], layers.Subtract()([first, second])), [normal(rng, 2, 2), normal(rng, 2, 3)]


@graph.model("same_tensor_twice", "One tensor given twice, or an input given back as it is.")
def _(rng):
    xs = keras.Input((3,))
    return keras.Model(xs, [layers.Multiply()([xs, xs]), xs, layers.Dot(axes=1)([xs, xs])]), [normal(rng, 2, 3)]


@graph.model("optional_input", "An input that may be left out refused.")
def _(rng):
    xs, ys = keras.Input((3,), name="xs"), keras.Input((3,), name="ys", optional=True)
    return keras.Model([xs, ys], layers.Add()([xs, ys])), [normal(rng, 2, 3), normal(rng, 2, 3)]


@graph.model("operations", "Operations among layers: their constants, axes and order.")
def _(rng):
    xs = keras.Input((4, 3))
    scaled = layers.Dense(3)(xs) * 0.5 + ops.cast(ops.arange(3), "float32")
    gate = ops.sigmoid(ops.mean(scaled, axis=1, keepdims=True))
    picked = ops.where(scaled > 0.25, scaled, 0.1 * xs) * gate
    joined = ops.concatenate([picked[:, :2], picked[:, ::-1]], axis=1)
    scores = ops.softmax(ops.einsum("bik,bjk->bij", joined, joined) / 3**0.5)
    return keras.Model(xs, layers.LayerNormalization()(ops.matmul(scores, joined))), [normal(rng, 2, 4, 3)]


@graph.model("integers", "Positions reckoned within the graph, and ids among floats.")
def _(rng):
    tokens = keras.Input((4,), dtype="int32")
    positions = ops.cumsum(ops.ones_like(tokens), axis=1) - 1
    embedded = layers.Embedding(9, 3)(tokens) + layers.Embedding(4, 3)(positions)
    is_word = ops.expand_dims(ops.cast(ops.not_equal(tokens, 0), "float32"), -1)
    return keras.Model(tokens, ops.sum(embedded * is_word, axis=1)), [np.array([[1, 8, 0, 3], [0, 0, 2, 2]], "int32")]


# ----------------------------------------------------------------------------
# Masks on their way
# ----------------------------------------------------------------------------


def masked_model(name: str, says: str, build) -> None:
    """Fed a row padded on the right, the left and in the middle; `_all` also one masked throughout."""

    def model() -> keras.Model:
        tokens = keras.Input((6,), dtype="int32")
        return keras.Model(tokens, build(layers.Embedding(10, 4, mask_zero=True)(tokens)))

    @graph.model(f"mask_{name}", says)
    def _(rng):
        return model(), [masked_ids(6)[:4]]

    @graph.model(f"mask_{name}_all", says + " A row masked throughout.", model=f"mask_{name}")
    def _(rng):
        return model(), [masked_ids(6)[[4, 0]]]


def recurrent_stack(xs):
    hidden = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(xs)
    hidden = layers.Dropout(0.2)(layers.LayerNormalization()(hidden))
    return layers.Dense(2)(layers.GRU(3)(hidden))


def heads() -> layers.Layer:
    return layers.MultiHeadAttention(num_heads=2, key_dim=2)


def post_norm(xs):
    for _ in range(2):
        xs = layers.LayerNormalization()(layers.Add()([xs, heads()(xs, xs)]))
        hidden = layers.Dense(4)(layers.Dense(6, activation="gelu")(xs))
        xs = layers.LayerNormalization()(layers.Add()([xs, hidden]))
    return xs


def pre_norm(xs):
    normed = layers.LayerNormalization()(xs)
    xs = xs + heads()(normed, normed, use_causal_mask=True)
    xs = layers.Add()([xs, layers.Dense(4, activation="relu")(layers.RMSNormalization()(xs))])
    return [layers.GlobalAveragePooling1D(keepdims=True)(xs), heads()(xs, xs)]


def two_attentions(xs):
    return heads()(layers.Add()([xs, heads()(xs, xs)]), xs)


masked_model("recurrent", "A mask lost between two recurrent layers.", recurrent_stack)
masked_model("post_norm", "A mask that attention takes from its input for all who come later.", post_norm)
masked_model("pre_norm", "A mask lost in a sum of tensors, which is an operation and no layer.", pre_norm)
masked_model("two_attentions", "A mask cleared by the first attention, or kept for the second.", two_attentions)


@graph.model("nested_on_a_constant", "A model within that is called on a constant: what depends on it alone is the same in every run.")
def _(rng):
    tokens, positions = keras.Input((6,), dtype="int32", name="tokens"), keras.Input((6,), dtype="int32", name="positions")
    mixed = layers.Dense(8, activation="gelu", name="mix")(layers.Embedding(6, 8, name="position")(positions))
    summed = layers.Add(name="sum")([layers.Embedding(20, 8, name="token")(tokens), mixed])
    inner = keras.Model([tokens, positions], summed, name="embedder")
    ids = keras.Input((6,), dtype="int32", name="ids")
    norm = layers.LayerNormalization(name="norm")(inner([ids, ops.arange(6, dtype="int32")[None]]))
    model = keras.Model(ids, layers.Dense(3, name="head")(norm))
    # Keras plans one row where a layer merges with a constant of one.
    return model, [rng.integers(0, 20, (1, 6), dtype="int32")]


@graph.model("mask_nested", "A mask lost at the door of a model within.")
def _(rng):
    inner_in = keras.Input((5, 3))
    inner = keras.Model(inner_in, layers.LSTM(2, return_sequences=True)(layers.Dense(3)(inner_in)), name="inner")
    tokens = keras.Input((5,), dtype="int32")
    return keras.Model(tokens, layers.GRU(2)(inner(masked()(tokens)))), [masked_ids()]


def masked_twice() -> tuple[np.ndarray, np.ndarray]:
    return np.array([[1, 1, 0, 0], [0, 1, 1, 1]], "bool"), np.array([[1, 0, 1, 1], [1, 1, 0, 0]], "bool")


@graph.model("mask_of_one_tensor", "A mask taken from what Dropout gives back, and left on what it was given: they are one tensor.")
def _(rng):
    tokens, ys = keras.Input((5,), dtype="int32"), keras.Input((5, 4))
    xs = masked(4)(tokens)
    attended = layers.Dense(4)(heads()(*[layers.Activation("linear")(layers.Dropout(0.3)(xs))] * 2))
    later = layers.Dense(3)(layers.Dense(4)(attended))
    merged = layers.Multiply()([xs, ops.sum(later, axis=-1, keepdims=True) * ys])
    return keras.Model([tokens, ys], merged), [masked_ids(), normal(rng, 5, 5, 4)]


@graph.model("mask_given", "A mask given to a model within forgotten when the same tensor is read later.")
def _(rng):
    xs, mask = keras.Input((4, 3)), keras.Input((4,), dtype="bool")
    inner_in = keras.Input((4, 3))
    inner = keras.Model(inner_in, layers.LSTM(2, return_sequences=True)(inner_in), name="inner")
    hidden = layers.Dense(3)(xs)
    first = layers.Dense(2)(inner(layers.Dropout(0.2)(hidden), mask=mask))
    return keras.Model([xs, mask], [first, layers.GlobalAveragePooling1D()(hidden)]), [normal(rng, 2, 4, 3), masked_twice()[0]]


another_tensor = "JAX gives back another tensor than TensorFlow does, where nothing moves"


@graph.model("mask_through_operation", "A mask lost in an operation that gives back the tensor it got.", truth=False, without_jax=another_tensor)
def _(rng):
    tokens = keras.Input((5,), dtype="int32")
    xs = masked()(tokens)
    same = [ops.cast(xs, "float32"), ops.moveaxis(xs, 1, 1)]
    other = [ops.cast(xs, "float64"), ops.stop_gradient(xs), ops.transpose(xs, (0, 1, 2))]
    return keras.Model(tokens, [layers.GlobalAveragePooling1D()(ys) for ys in same + other]), [masked_ids()[:4]]


# ----------------------------------------------------------------------------
# Precisions
# ----------------------------------------------------------------------------

precision = Cases("models/Precision")


def small_net(policy: str) -> list[layers.Layer]:
    return [
        layers.Conv1D(4, 2, padding="same", dtype=policy),
        layers.BatchNormalization(dtype=policy),
        layers.Activation("gelu", dtype=policy),
        layers.LayerNormalization(dtype=policy),
        # The orthogonal initializer needs a decomposition that TensorFlow lacks in bfloat16.
        layers.LSTM(3, return_sequences=True, recurrent_initializer="glorot_uniform", dtype=policy),
        layers.MaxPooling1D(2, dtype=policy),
        layers.Flatten(dtype=policy),
        layers.Dense(3, activation="softmax", dtype=policy),
    ]


for policy in ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]:

    @precision.model(f"net_{policy}", "Computed in single precision, or weights kept in another.")
    def _(rng, policy=policy):
        dtype = "float32" if policy.startswith("mixed") else policy
        return sequential(*small_net(policy), shape=(6, 3), dtype=dtype), [normal(rng, 2, 6, 3).astype(np.dtype(dtype))]

    @precision.model(f"dense_{policy}", "Rounded at another place.")
    def _(rng, policy=policy):
        return sequential(layers.Dense(3, dtype=policy), shape=(4,)), [normal(rng, 2, 4)]


@precision.model(
    "mixed_to_float32",
    "The last layer in single precision behind others in half.",
    computed_in="float16",
    because="all but the last layer compute in float16",
)
def _(rng):
    model = sequential(
        layers.Dense(6, activation="relu", dtype="mixed_float16"),
        layers.Dense(4, activation="tanh", dtype="mixed_float16"),
        layers.Dense(2, dtype="float32"),
        shape=(4,),
    )
    return model, [normal(rng, 3, 4)]


@precision.model("mixed_attention", "A mask's large negative number that half precision has not.")
def _(rng):
    tokens = keras.Input((5,), dtype="int32")
    xs = layers.Embedding(10, 4, mask_zero=True, dtype="mixed_float16")(tokens)
    xs = layers.MultiHeadAttention(2, 2, dtype="mixed_float16")(xs, xs)
    return keras.Model(tokens, layers.Activation("softmax", dtype="mixed_float16")(xs)), [masked_ids()]


def by_path(default: str | None, **policies: str | keras.DTypePolicy) -> keras.dtype_policies.DTypePolicyMap:
    """One map, as each layer has it; `_` stands for what a Python name has not."""
    entries = {path: keras.dtype_policies.get(policy) for path, policy in policies.items()}
    return keras.dtype_policies.DTypePolicyMap(default, entries)


@precision.model(
    "policy_map",
    "A layer's policy found by a prefix, by its place among models, or not at all.",
    files=("model.keras", "model.weights.h5"),
    computed_in="float16",
    because="some of it computes in float16",
)
def _(rng):
    def policies(**more: str) -> keras.dtype_policies.DTypePolicyMap:
        patterns = {r"dense_\d": "mixed_float16", ".*norm": "float64"}
        return by_path("float32", dense="float16", **{"inner/within": "float16"}, **patterns, **more)

    inner = sequential(layers.Dense(3, name="within", dtype=policies()), shape=(3,), name="inner")
    xs = keras.Input((3,))
    outputs = [
        layers.Dense(2, name="dense", dtype=policies())(xs),
        layers.Dense(2, name="dense_1", dtype=policies())(xs),
        layers.Dense(2, name="dense_12", dtype=policies())(xs),
        layers.LayerNormalization(name="my_norm", dtype=policies())(xs),
        layers.LSTM(2, name="lstm", dtype=by_path("mixed_float16", dense="float32"))(layers.RepeatVector(2)(xs)),
        inner(xs),
    ]
    return keras.Model(xs, outputs), [normal(rng, 4, 3)]


half_inside = {"computed_in": "float16", "because": "some of it computes in float16"}


@precision.model("within_wrappers", "A wrapper's dtype imposed on what casts to its own, or the other way round.", truth=False, **half_inside)
def _(rng):
    xs, state = keras.Input((4, 3)), keras.Input((2,))
    inner = sequential(layers.Dense(2), layers.LayerNormalization(), shape=(3,), name="inner")
    model = keras.Model(
        [xs, state],
        [
            layers.TimeDistributed(layers.LSTM(2), dtype="float16")(keras.ops.expand_dims(xs, -1)),
            layers.TimeDistributed(inner, dtype="mixed_float16")(xs),
            layers.TimeDistributed(layers.Dense(2, dtype="mixed_float16"), dtype="float32")(xs),
            layers.TimeDistributed(layers.Dense(2), dtype="float64")(xs),
            *layers.Bidirectional(layers.GRU(2, return_state=True), dtype="mixed_float16")(xs, initial_state=[state, state]),
            *layers.Bidirectional(layers.SimpleRNN(2, return_state=True), merge_mode="ave", dtype="float16")(xs),
        ],
    )
    return model, [normal(rng, 2, 4, 3), normal(rng, 2, 2)]


one_dtype = "JAX's loop wants states of one dtype"


@precision.model("within_stack", "All cells of a stack computed in one dtype.", truth=False, without_jax=one_dtype, **half_inside)
def _(rng):
    cells = [layers.LSTMCell(2, dtype="float16"), layers.GRUCell(2, dtype="float64"), layers.SimpleRNNCell(2)]
    return sequential(layers.RNN(cells, return_sequences=True, dtype="mixed_float16"), shape=(4, 3)), [normal(rng, 2, 4, 3)]


# ----------------------------------------------------------------------------
# Quantized weights
# ----------------------------------------------------------------------------

quantized = Cases("models/Quantized")


def declare_quantized(name: str, mode: str, build, fed, files=("model.keras",), **options: object) -> None:
    @quantized.model(f"{name}_{mode}", "Bytes of a quantized kernel taken for numbers, or scaled along another axis.", fill=False, files=files, **options)
    def _(rng):
        model, xs = build(), fed(rng)
        fill_weights(model, generator(f"models/Quantized/{name} weights"))
        model.quantize(mode)
        return model, [xs]


def reversible() -> keras.Model:
    tokens = keras.Input((3,), dtype="int32")
    layer = layers.ReversibleEmbedding(7, 8)
    return keras.Model(tokens, layer(layers.Dense(8)(layer(tokens)), reverse=True))


for mode in ["int8", "int4", "float8"]:
    declare_quantized("dense", mode, lambda: sequential(layers.Dense(4), shape=(8,)), lambda rng: normal(rng, 2, 8), ("model.keras", "model.weights.h5") if mode == "int8" else ("model.keras",))
    declare_quantized("dense_relu", mode, lambda: sequential(layers.Dense(5, activation="relu", use_bias=False), shape=(3, 7)), lambda rng: normal(rng, 2, 3, 7))
    declare_quantized(
        "einsum_dense",
        mode,
        lambda: sequential(layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), shape=(3, 8)),
        lambda rng: normal(rng, 2, 3, 8),
    )
# Each step of what quantizes the inputs is rounded to bfloat16.
declare_quantized("dense_bfloat16", "int8", lambda: sequential(layers.Dense(6, dtype="mixed_bfloat16"), shape=(9,)), lambda rng: 3 * normal(rng, 8, 9))
declare_quantized(
    "einsum_dense_bfloat16",
    "int8",
    lambda: sequential(layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", dtype="mixed_bfloat16"), shape=(4, 9)),
    lambda rng: 3 * normal(rng, 2, 4, 9),
)
for mode in ["int8", "int4"]:
    declare_quantized(
        "embedding",
        mode,
        lambda: sequential(layers.Embedding(6, 5), shape=(3,), dtype="int32"),
        lambda rng: np.array([[0, 5, 1], [2, 2, 4]], "int32"),
        without_jax="JAX multiplies by the scale's reciprocal",
    )
    declare_quantized("reversible_embedding", mode, reversible, lambda rng: np.array([[0, 5, 1], [2, 2, 4]], "int32"))


# ----------------------------------------------------------------------------
# FeatureSpace
# ----------------------------------------------------------------------------


@Cases("models/FeatureSpace").model(
    "encoder",
    "A FeatureSpace's encoder as a model.",
    without_jax="texts and lookups are TensorFlow's alone",
    truth=False,  # a vocabulary is neither in the config nor among the weights
)
def _(rng):
    import tensorflow as tf

    data = {
        "age": np.array([[20.0], [35.0], [61.0]], "float32"),
        "height": np.array([[1.5], [1.8], [1.9]], "float32"),
        "kind": np.array([[1], [2], [1]], "int32"),
    }
    kinds = keras.utils.FeatureSpace
    features = {
        "age": kinds.float_discretized(num_bins=3),
        "height": kinds.float_normalized(),
        "kind": kinds.integer_categorical(num_oov_indices=0),
    }
    space = kinds(features=features, output_mode="concat")
    space.adapt(tf.data.Dataset.from_tensor_slices({name: xs[:, 0] for name, xs in data.items()}))
    return keras.Model(space.get_inputs(), space.get_encoded_features()), [data[name] for name in sorted(data)]
