"""Pooling: over windows, over everything, and to a given size."""

import numpy as np
from keras import layers

from .case import Cases, masked, masked_ids, normal, records

FED = {1: (2, 7, 3), 2: (2, 7, 5, 2), 3: (2, 5, 4, 5, 2)}


# Keras: on TensorFlow a window of nothing but NaN gives the dtype's lowest number, another one in float64.
NAN_SKIPPED = {"without_jax": "TensorFlow skips NaN, and JAX does not", "truth": False}


def negative(rank: int):
    return lambda rng: -np.abs(normal(rng, *FED[rank])) - np.float32(0.5)


def odd(rank: int, largest: bool = False):
    """Numbers with NaN, both infinities and both zeros among them, alone in a window of two and with others."""

    def drawn(rng: np.random.Generator) -> np.ndarray:
        xs = normal(rng, *FED[rank])
        if largest and rank == 3:
            # Keras: what TensorFlow makes here of NaN, and of nothing but -inf, differs from one processor to another.
            xs[0, 4], xs[1, 2], xs[1, 0], xs[1, 1] = np.inf, -np.inf, -0.0, 0.0
            return xs
        xs[0, :3], xs[0, 4], xs[1, 2:4], xs[1, 0], xs[1, 1] = np.nan, np.inf, -np.inf, -0.0, 0.0
        return xs

    return drawn


def windows(case: Cases, layer: type, rank: int, largest: bool) -> None:
    says = "Padding filled with 0, which is larger than all here." if largest else "Padding counted among the numbers averaged."
    exact = {"truth": rank < 3}  # TensorFlow pools three axes in single precision only
    case("same_stride", says, lambda: layer(2, strides=2, padding="same"), negative(rank), **exact)
    case("valid", "A window at the end cut short instead of left out.", lambda: layer(3, strides=2), FED[rank], **exact)
    case("overlapping", "The stride of the pool's size by default: here it is 1.", lambda: layer(3, strides=1, padding="same"), FED[rank], **exact)
    if rank > 1:
        size, strides = ((3, 2), (1, 3)) if rank == 2 else ((1, 2, 3), (2, 1, 1))
        case("axes_differ", "Two axes swapped.", lambda: layer(size, strides=strides, padding="same"), FED[rank], **exact)
    case(
        "channels_first",
        "Pooled over the channels.",
        lambda: layer(2, data_format="channels_first"),
        (2, 3) + FED[rank][1:-1],
        **exact,
    )
    alone = NAN_SKIPPED if largest else exact
    case("special", "NaN or an infinity swallowed.", lambda: layer(2, padding="same"), odd(rank, largest), **alone)


@records(layers.MaxPooling1D)
def max_pooling1d(case: Cases) -> None:
    windows(case, layers.MaxPooling1D, 1, largest=True)


@records(layers.MaxPooling2D)
def max_pooling2d(case: Cases) -> None:
    windows(case, layers.MaxPooling2D, 2, largest=True)


@records(layers.MaxPooling3D)
def max_pooling3d(case: Cases) -> None:
    windows(case, layers.MaxPooling3D, 3, largest=True)


@records(layers.AveragePooling1D)
def average_pooling1d(case: Cases) -> None:
    windows(case, layers.AveragePooling1D, 1, largest=False)


@records(layers.AveragePooling2D)
def average_pooling2d(case: Cases) -> None:
    windows(case, layers.AveragePooling2D, 2, largest=False)


@records(layers.AveragePooling3D)
def average_pooling3d(case: Cases) -> None:
    windows(case, layers.AveragePooling3D, 3, largest=False)


def over_everything(case: Cases, layer: type, rank: int) -> None:
    case("default", "Pooled over the channels or the batch.", layer, negative(rank))
    case("keepdims", "The axes pooled over left out.", lambda: layer(keepdims=True), FED[rank])
    case(
        "channels_first",
        "Pooled over the last axes only from the channels on.",
        lambda: layer(data_format="channels_first"),
        (2, 3) + FED[rank][1:-1],
    )
    case("special", "NaN or an infinity swallowed.", layer, odd(rank))


@records(layers.GlobalMaxPooling1D)
def global_max_pooling1d(case: Cases) -> None:
    over_everything(case, layers.GlobalMaxPooling1D, 1)
    case("mask", "A mask heeded: Keras ignores it here.", lambda: [masked(), layers.GlobalMaxPooling1D()], masked_ids())


@records(layers.GlobalMaxPooling2D)
def global_max_pooling2d(case: Cases) -> None:
    over_everything(case, layers.GlobalMaxPooling2D, 2)


@records(layers.GlobalMaxPooling3D)
def global_max_pooling3d(case: Cases) -> None:
    over_everything(case, layers.GlobalMaxPooling3D, 3)


@records(layers.GlobalAveragePooling1D)
def global_average_pooling1d(case: Cases) -> None:
    over_everything(case, layers.GlobalAveragePooling1D, 1)
    says = "Divided by all steps instead of those not masked; a row masked throughout divides 0 by 0."
    case("mask", says, lambda: [masked(), layers.GlobalAveragePooling1D()], masked_ids()[:4])
    case("mask_all", says, lambda: [masked(), layers.GlobalAveragePooling1D()], masked_ids())
    case(
        "mask_keepdims",
        "The mask's axis squeezed away.",
        lambda: [masked(), layers.GlobalAveragePooling1D(keepdims=True)],
        masked_ids()[:4],
    )
    case(
        "mask_given",
        "A mask given as an argument ignored.",
        layers.GlobalAveragePooling1D,
        (3, 4, 2),
        np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]], "bool"),
        call=lambda layer, xs, mask: layer(xs, mask=mask),
    )


@records(layers.GlobalAveragePooling2D)
def global_average_pooling2d(case: Cases) -> None:
    over_everything(case, layers.GlobalAveragePooling2D, 2)
    ints = lambda rng: rng.integers(-90, 91, FED[2]).astype("int32")  # noqa: E731
    says = "The mean of integers rounded to the compute dtype: it is float32."
    case("ints_in_half", says, lambda: layers.GlobalAveragePooling2D(dtype="mixed_bfloat16"), ints, truth=False)


@records(layers.GlobalAveragePooling3D)
def global_average_pooling3d(case: Cases) -> None:
    over_everything(case, layers.GlobalAveragePooling3D, 3)


def to_a_size(case: Cases, layer: type, rank: int) -> None:
    sizes = {1: (3, 7, 4), 2: ((3, 2), (7, 5), (4, 3)), 3: ((2, 2, 3), (5, 4, 5), (3, 3, 2))}[rank]
    for name, says, size in [
        ("uneven", "Windows of one size: they overlap and differ where the size is no divisor.", sizes[0]),
        ("same_size", "Every window of one number.", sizes[1]),
        ("large", "Windows begin at floor and end at ceil.", sizes[2]),
    ]:
        without_jax = "Keras on JAX gives NaN where the size stays" if name == "same_size" else None
        case(name, says, lambda size=size: layer(size), FED[rank], truth=rank < 3, without_jax=without_jax)
    case(
        "channels_first",
        "The channels looked for on the last axis.",
        lambda: layer(sizes[0], data_format="channels_first"),
        (2, 2) + FED[rank][1:-1],
        truth=rank < 3,
    )
    alone = NAN_SKIPPED if "Max" in layer.__name__ else {"truth": rank < 3}
    case("special", "NaN or an infinity swallowed.", lambda: layer(sizes[0]), odd(rank, "Max" in layer.__name__), **alone)


@records(layers.AdaptiveAveragePooling1D)
def adaptive_average_pooling1d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveAveragePooling1D, 1)


@records(layers.AdaptiveAveragePooling2D)
def adaptive_average_pooling2d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveAveragePooling2D, 2)


@records(layers.AdaptiveAveragePooling3D)
def adaptive_average_pooling3d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveAveragePooling3D, 3)


@records(layers.AdaptiveMaxPooling1D)
def adaptive_max_pooling1d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveMaxPooling1D, 1)


@records(layers.AdaptiveMaxPooling2D)
def adaptive_max_pooling2d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveMaxPooling2D, 2)


@records(layers.AdaptiveMaxPooling3D)
def adaptive_max_pooling3d(case: Cases) -> None:
    to_a_size(case, layers.AdaptiveMaxPooling3D, 3)
