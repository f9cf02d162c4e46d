"""Layers that do nothing at inference."""

import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, masked, masked_ids, records

ODD = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-38, 3e38]], "float32")


def untouched(case: Cases, build: object, shape: tuple[int, ...]) -> None:
    """Nothing may happen to any number, and a mask must come through."""
    says = "Noise added, or numbers dropped or scaled, at inference."
    case("plain", says, build, shape)
    if len(shape) == 3:
        case("mask", "A mask lost on its way.", lambda: [masked(), build()], masked_ids())
    else:
        case("other_sizes", says, build, (3,) + shape[1:-1] + (1,))
    odd = np.broadcast_to(ODD.reshape(1, 6, *[1] * (len(shape) - 2)), (1, 6, *[2] * (len(shape) - 2))).copy()
    case("special", "NaN, an infinity or the sign of 0 lost.", build, odd)


@records(layers.Dropout)
def dropout(case: Cases) -> None:
    case("half", "Numbers dropped or scaled at inference.", lambda: layers.Dropout(0.5), (3, 8), files=ALL_FILES)
    untouched(case, lambda: layers.Dropout(0.4, noise_shape=(None, 1, None), seed=7), (2, 3, 4))


@records(layers.SpatialDropout1D)
def spatial_dropout1d(case: Cases) -> None:
    untouched(case, lambda: layers.SpatialDropout1D(0.5), (2, 3, 4))


@records(layers.SpatialDropout2D)
def spatial_dropout2d(case: Cases) -> None:
    untouched(case, lambda: layers.SpatialDropout2D(0.5), (2, 3, 4, 2))


@records(layers.SpatialDropout3D)
def spatial_dropout3d(case: Cases) -> None:
    untouched(case, lambda: layers.SpatialDropout3D(0.5), (2, 3, 2, 2, 2))


@records(layers.AlphaDropout)
def alpha_dropout(case: Cases) -> None:
    untouched(case, lambda: layers.AlphaDropout(0.5), (2, 3, 4))


@records(layers.GaussianDropout)
def gaussian_dropout(case: Cases) -> None:
    untouched(case, lambda: layers.GaussianDropout(0.5), (2, 3, 4))


@records(layers.GaussianNoise)
def gaussian_noise(case: Cases) -> None:
    untouched(case, lambda: layers.GaussianNoise(0.7), (2, 3, 4))


@records(layers.ActivityRegularization)
def activity_regularization(case: Cases) -> None:
    untouched(case, lambda: layers.ActivityRegularization(l1=0.1, l2=0.2), (2, 3, 4))
