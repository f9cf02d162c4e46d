"""Layers that keras.applications adds for its own models."""

from keras import layers
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from .case import Cases, masked, masked_ids, records

# Legacy files cannot hold them: Keras finds a class of keras.applications by its module, which they don't name.
FILES = ("model.keras", "model.weights.h5")


@records(LayerScale)
def layer_scale(case: Cases) -> None:
    case("image", "The initial value in place of the trained one.", lambda: LayerScale(1e-6, 3), (2, 4, 3, 3), files=FILES)
    case("rank2", "Something other than the last axis scaled.", lambda: LayerScale(0.5, 4), (4, 4))
    case("half", "Computed in float32.", lambda: LayerScale(1e-6, 5, dtype="mixed_float16"), (2, 3, 5))
    case(
        "mask",
        "The mask carried on, though the layer does not support masks.",
        lambda: [masked(4), LayerScale(1e-6, 4), layers.LSTM(3)],
        masked_ids(),
    )


@records(StochasticDepth)
def stochastic_depth(case: Cases) -> None:
    case("image", "A path dropped, or divided by the probability that it stays.", lambda: StochasticDepth(0.4), (4, 3, 3, 2))
    case("always", "A rate of 1 divided by.", lambda: StochasticDepth(1.0), (3, 2))
    case(
        "mask",
        "The mask dropped, as Keras warns.",
        lambda: [masked(4), StochasticDepth(0.4), layers.LSTM(3)],
        masked_ids(),
    )


@records(CustomScaleLayer)
def custom_scale_layer(case: Cases) -> None:
    case("image", "The wrong one of the two scaled.", lambda: CustomScaleLayer(0.17), (2, 3, 3, 2), (2, 3, 3, 2), files=FILES)
    case("one", "A whole number as the scale.", lambda: CustomScaleLayer(1), (3, 4), (3, 4))
    case(
        "half",
        "The scale not rounded to float16, or the product not.",
        lambda: CustomScaleLayer(0.17, dtype="mixed_float16"),
        (4, 8),
        (4, 8),
    )
