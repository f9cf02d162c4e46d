"""Models whose weights `kandle convert` writes for PyTorch; pytorch.py runs them there. Names are those of docs/pytorch.md."""

from collections.abc import Sequence

from keras import layers

from .case import Cases, ids

case = Cases("pytorch")


def named(*stack: tuple[str, layers.Layer]) -> Sequence[layers.Layer]:
    """The layers under the names that a PyTorch module has for them."""
    for name, layer in stack:
        layer.name = name
    return [layer for _, layer in stack]


case(
    "Convolutions",
    "A kernel's axes in another order, or padding split evenly where Keras puts the odd one at the end.",
    lambda: named(
        ("conv1", layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")),
        ("conv2", layers.Conv2D(6, 3, padding="valid", dilation_rate=2, groups=2)),
        ("conv3", layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)),
    ),
    (2, 16, 17, 3),
)
case(
    "Causal",
    "Padding at the end.",
    lambda: named(("conv", layers.Conv1D(5, 3, padding="causal", dilation_rate=2))),
    (2, 9, 4),
)
case(
    "Transposed",
    "The result cut at the wrong end.",
    lambda: named(
        ("up1", layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
        ("up2", layers.Conv2DTranspose(3, 4, strides=2, padding="same", use_bias=False)),
        ("up3", layers.Conv2DTranspose(2, 3, padding="valid")),
    ),
    (2, 3, 4, 3),
)
case(
    "Volumes",
    "A group of neighbouring channels taken for channels far apart, or the three axes of a kernel swapped.",
    lambda: named(
        ("conv", layers.Conv3D(4, (1, 2, 3), padding="valid")),
        ("norm", layers.GroupNormalization(groups=2)),
        ("up", layers.Conv3DTranspose(2, 2, padding="valid")),
    ),
    (2, 3, 4, 5, 3),
)
case(
    "Signals",
    "Filters of a depthwise kernel ordered by filter, not by channel.",
    lambda: named(
        ("conv", layers.DepthwiseConv1D(3, padding="valid", depth_multiplier=2)),
        ("up", layers.Conv1DTranspose(4, 3, strides=2, padding="valid")),
        ("norm", layers.RMSNormalization()),
    ),
    (2, 7, 3),
)
case(
    "Normalized",
    "PyTorch's epsilon, a hundredth of Keras's.",
    lambda: named(
        ("dense", layers.Dense(6)),
        ("batch", layers.BatchNormalization()),
        ("layer", layers.LayerNormalization()),
    ),
    (4, 5),
)
case(
    "Lstm",
    "A second bias that is not zero, or gates in another order.",
    lambda: named(
        ("embedding", layers.Embedding(20, 6)),
        ("lstm1", layers.LSTM(5, return_sequences=True)),
        ("lstm2", layers.LSTM(4)),
    ),
    lambda rng: ids(rng, (3, 7), 20),
)
case(
    "Gru",
    "The update gate taken for the reset gate.",
    lambda: named(("gru1", layers.GRU(5, return_sequences=True)), ("gru2", layers.GRU(4))),
    (3, 7, 6),
)
case(
    "BothWays",
    "The backward steps left reversed, or the last backward step taken for the first.",
    lambda: named(
        ("lstm", layers.Bidirectional(layers.LSTM(5, return_sequences=True))),
        ("gru", layers.Bidirectional(layers.GRU(4))),
    ),
    (3, 7, 6),
)
case(
    "Cnn",
    "Channels flattened first, as PyTorch has them: the head's columns then mean other places.",
    lambda: named(
        ("conv", layers.Conv2D(4, 3, padding="same", use_bias=False)),
        ("norm", layers.BatchNormalization()),
        ("act", layers.ReLU()),
        ("pool", layers.MaxPooling2D()),
        ("flatten", layers.Flatten()),
        ("head", layers.Dense(3, activation="softmax")),
    ),
    (2, 6, 8, 3),
)
