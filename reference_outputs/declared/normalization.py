"""Normalisations."""

import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, masked, masked_ids, normal, records

INTS = lambda *shape: lambda rng: rng.integers(-5, 6, shape).astype("int32")  # noqa: E731
SAYS_INTS = "Integers refused, or floats given back: Keras casts its result to the input's dtype first."
SCALED = lambda *shape: lambda rng: 3 * normal(rng, *shape) + np.float32(2)  # noqa: E731


@records(layers.BatchNormalization)
def batch_normalization(case: Cases) -> None:
    for name, says, options, fed in [
        ("default", "The batch's own statistics used, or the moving ones swapped.", {}, (3, 4)),
        ("axis_1", "The last axis normalised where the config says the first.", {"axis": 1}, (2, 3, 4, 5)),
        ("no_scale", "beta taken for gamma.", {"scale": False}, (2, 3, 4)),
        ("no_center", "gamma taken for beta.", {"center": False}, (2, 3, 4)),
        ("bare", "Weights expected where there are only statistics.", {"scale": False, "center": False}, (2, 3, 4)),
        ("epsilon", "An epsilon of 1e-3, or added to the root.", {"epsilon": 0.3}, (3, 4)),
        ("frozen", "A frozen layer's statistics skipped.", {"trainable": False}, (3, 4)),
    ]:
        files = ALL_FILES if name in ("default", "bare") else ("model.keras",)
        case(name, says, lambda options=options: layers.BatchNormalization(**options), SCALED(*fed), files=files)
    case("mask", "A mask lost, or applied.", lambda: [masked(), layers.BatchNormalization()], masked_ids())
    case("special", "NaN or an infinity made finite.", layers.BatchNormalization, np.array([[np.nan, np.inf, -np.inf, -0.0]], "float32"))


@records(layers.LayerNormalization)
def layer_normalization(case: Cases) -> None:
    for name, says, options in [
        ("default", "The variance divided by n - 1.", {}),
        ("axis_list", "Only the last of two axes normalised.", {"axis": [1, 2]}),
        ("axis_1", "The weights laid along the last axis.", {"axis": 1}),
        ("no_scale", "beta taken for gamma.", {"scale": False}),
        ("no_center", "gamma taken for beta.", {"center": False}),
        ("rms_scaling", "The mean taken off.", {"rms_scaling": True}),
        ("epsilon", "Another epsilon than the config's.", {"epsilon": 0.5}),
    ]:
        case(name, says, lambda options=options: layers.LayerNormalization(**options), SCALED(2, 3, 4))
    case("ints", SAYS_INTS, layers.LayerNormalization, INTS(2, 3, 4))
    case("mask", "A mask lost, or applied.", lambda: [masked(), layers.LayerNormalization()], masked_ids())


@records(layers.GroupNormalization)
def group_normalization(case: Cases) -> None:
    for name, says, options, fed in [
        ("two", "Channels dealt to the groups in turn.", {"groups": 2}, (2, 3, 5, 4)),
        ("instance", "groups = -1: every channel a group of its own.", {"groups": -1}, (2, 3, 4)),
        ("one", "One group: over all axes but the batch.", {"groups": 1, "epsilon": 0.1}, (2, 3, 4)),
        ("axis_1", "Channels on the first axis.", {"groups": 2, "axis": 1}, (2, 4, 3, 5)),
        ("no_scale", "beta taken for gamma.", {"groups": 2, "scale": False}, (2, 3, 4)),
    ]:
        case(name, says, lambda options=options: layers.GroupNormalization(**options), SCALED(*fed))
    case("ints", SAYS_INTS, lambda: layers.GroupNormalization(2), INTS(2, 3, 4))


@records(layers.RMSNormalization)
def rms_normalization(case: Cases) -> None:
    for name, says, options in [
        ("default", "The mean taken off.", {}),
        ("axis_list", "Only the last of two axes normalised.", {"axis": [1, 2]}),
        ("epsilon", "An epsilon added to the root.", {"epsilon": 0.5}),
    ]:
        case(name, says, lambda options=options: layers.RMSNormalization(**options), SCALED(2, 3, 4))
    case("ints", "Integers refused, or floats given back.", layers.RMSNormalization, INTS(2, 3, 4))


@records(layers.UnitNormalization)
def unit_normalization(case: Cases) -> None:
    case("default", "Divided by the sum of absolute numbers.", layers.UnitNormalization, SCALED(2, 3, 4))
    case("axis_list", "Only the last of two axes normalised.", lambda: layers.UnitNormalization(axis=[1, 2]), SCALED(2, 3, 4))
    zeros = np.array([[0, 0, 0], [1e-8, 0, 0], [3, -4, 0]], "float32")
    case("zeros", "A division by 0: Keras's least square is 1e-12.", layers.UnitNormalization, zeros)
    case("mask", "A mask lost, or applied.", lambda: [masked(), layers.UnitNormalization()], masked_ids())


@records(layers.SpectralNormalization)
def spectral_normalization(case: Cases) -> None:
    for name, says, build, fed in [
        ("dense", "The kernel normalised at inference: it is only in training.", lambda: layers.Dense(3, activation="tanh"), (3, 4)),
        ("conv", "The wrapped layer's weights counted behind vector_u.", lambda: layers.Conv2D(2, 2), (2, 4, 3, 2)),
        ("embedding", "An Embedding has embeddings in place of a kernel.", lambda: layers.Embedding(5, 3), np.array([[0, 4], [2, 2]], "int32")),
    ]:
        case(name, says, lambda build=build: layers.SpectralNormalization(build(), power_iterations=2), fed)
