"""Activations: each with ordinary numbers, large ones, NaN and infinities."""

from collections.abc import Callable

import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, records

ACTIVATIONS = {
    "relu": "A negative number passed through.",
    "leaky_relu": "A slope of 0.3 or 0.01: by name it is 0.2.",
    "relu6": "The upper limit 6 forgotten.",
    "softmax": "Not normalised over the last axis.",
    "celu": "The negative branch without expm1.",
    "elu": "The negative branch without expm1.",
    "selu": "Scale and alpha swapped or rounded.",
    "softplus": "log1p(exp(x)) cut off too early.",
    "softsign": "x / (1 + x) without the absolute value.",
    "squareplus": "b = 4 forgotten.",
    "soft_shrink": "The threshold 0.5 not subtracted.",
    "sparse_plus": "The quadratic middle between -1 and 1 left out.",
    "silu": "The sigmoid without its factor x.",
    "gelu": "The tanh approximation in place of erf.",
    "glu": "The halves of the last axis swapped.",
    "tanh": "A fast approximation of tanh.",
    "tanh_shrink": "tanh(x) - x.",
    "sigmoid": "A fast approximation of the exponential.",
    "sparse_sigmoid": "Taken for hard_sigmoid.",
    "exponential": "A fast approximation of the exponential.",
    "hard_sigmoid": "Keras 2's slope 0.2: since Keras 3 it is relu6(x + 3) / 6.",
    "hard_silu": "Built on Keras 2's hard_sigmoid.",
    "hard_tanh": "Limits other than -1 and 1.",
    "hard_shrink": "The threshold 0.5 kept at the boundary.",
    "linear": "Anything done at all.",
    "mish": "softplus without tanh.",
    "log_softmax": "log(softmax(x)), which loses the small ones.",
    "log_sigmoid": "log(sigmoid(x)), which loses the large negatives.",
    "sparsemax": "The threshold taken over the wrong number of entries.",
}
CORNERS = [0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 2.5, -0.0, 0.0, 1e-6]
INTS = np.array([[-7, -1, 0, 1, 3, 9]], "int32")
LARGE = np.array([[20, -20, 80, -80, 10, -10, 40, -40], [88, 88, 87, 88, 86, 88, 88, 88]], "float32")
SPECIAL = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-30, 88.0, -104.0, 2.5]], "float32")
ROWS = np.array(  # for what looks at a whole axis
    [
        [np.nan, 1.0, 2.0, -3.0, 0.5, 0.0, -1.0, 4.0],
        [np.inf, 1.0, 2.0, -3.0, 0.5, 0.0, -1.0, 4.0],
        [-np.inf, 1.0, -np.inf, -3.0, 0.5, 0.0, -1.0, 4.0],
        [-np.inf] * 8,
        [2.0, 2.0, -1.0, 2.0, 0.0, -0.0, 2.0, -1.0],
    ],
    "float32",
)
SPECIAL_ROWS = {
    "log_softmax": ROWS,
    "glu": ROWS,
    # Keras: where TensorFlow runs on oneDNN, and there alone, NaN or inf makes NaN of itself and 0 of all beside it.
    "softmax": ROWS[2:],
    "sparsemax": ROWS[1:],  # where NaN is sorted to differs from one backend to the other
}


def curve(rng: np.random.Generator) -> np.ndarray:
    """Three rows of eight: the corners of piecewise activations among numbers up to 4."""
    drawn = np.clip(rng.normal(0.0, 3.0, 24 - len(CORNERS)), -4.0, 4.0)
    return rng.permutation(np.concatenate([CORNERS, drawn])).reshape(3, 8).astype("float32")


def pointwise(
    case: Cases,
    name: str,
    says: str,
    build: Callable[[], layers.Layer],
    special: np.ndarray = SPECIAL,
    files: tuple[str, ...] = ALL_FILES,
) -> None:
    """A layer without weights: ordinary numbers, large ones, NaN and infinities."""
    case(name, says, build, curve, files=files)
    case(f"{name}_large", "An overflow on the way to a finite number.", build, LARGE, model=name)
    odd = "NaN swallowed by a maximum, or infinity times zero."
    case(f"{name}_special", odd, build, special, model=name)


@records(layers.Activation)
def activation(case: Cases) -> None:
    for name, says in ACTIVATIONS.items():
        files = ALL_FILES if name in ("relu", "leaky_relu", "gelu", "softmax") else ("model.keras",)
        special = SPECIAL_ROWS.get(name, SPECIAL)
        pointwise(case, name, says, lambda name=name: layers.Activation(name), special, files)
    for name in ["linear", "relu", "relu6", "leaky_relu", "tanh", "exponential"]:
        says = "Integers refused, or floats where they stay integers."
        without_jax = "Keras on JAX gives float32" if name == "relu6" else None
        case(f"{name}_ints", says, lambda name=name: layers.Activation(name), INTS, truth=False, without_jax=without_jax)


@records(layers.ReLU)
def relu(case: Cases) -> None:
    for name, says, options in [
        ("default", "A negative number passed through.", {}),
        ("max_value", "The upper limit forgotten.", {"max_value": 6.0}),
        ("max_value_other", "An upper limit taken only where it is 6.", {"max_value": 2.25}),
        ("negative_slope", "The slope forgotten.", {"negative_slope": 0.1}),
        ("threshold", "The threshold subtracted, or kept at the boundary.", {"threshold": 1.0}),
        (
            "all_three",
            "The slope applied to x instead of x - threshold.",
            {"max_value": 6.0, "negative_slope": 0.1, "threshold": 1.0},
        ),
    ]:
        pointwise(case, name, says, lambda options=options: layers.ReLU(**options))
    says = "Integers refused; a threshold that is no whole number is cut off before it is compared."
    case("ints", says, lambda: layers.ReLU(max_value=5.5, threshold=1.5), INTS, truth=False)
    case("ints_slope", "Integers left integers.", lambda: layers.ReLU(negative_slope=0.25), INTS, truth=False)


@records(layers.LeakyReLU)
def leaky_relu(case: Cases) -> None:
    for name, says, options in [
        ("default", "The slope of the activation named leaky_relu, 0.2, instead of the layer's 0.3.", {}),
        ("small", "The slope forgotten.", {"negative_slope": 0.05}),
        ("zero", "A slope of zero taken for none given.", {"negative_slope": 0.0}),
    ]:
        pointwise(case, name, says, lambda options=options: layers.LeakyReLU(**options))
    case("ints", "Integers refused, or left integers.", layers.LeakyReLU, INTS, truth=False)


@records(layers.ELU)
def elu(case: Cases) -> None:
    pointwise(case, "default", "The negative branch without expm1.", layers.ELU, files=("model.keras",))
    pointwise(case, "alpha", "alpha ignored.", lambda: layers.ELU(alpha=0.3), files=("model.keras",))


@records(layers.PReLU)
def prelu(case: Cases) -> None:
    case("each", "One slope for all.", layers.PReLU, (2, 3, 4))
    case("shared_first", "Slopes shared along another axis.", lambda: layers.PReLU(shared_axes=[1]), (2, 3, 4))
    case("shared_two", "Slopes shared along another axis.", lambda: layers.PReLU(shared_axes=[1, 2]), (2, 3, 4, 2))
    case("special", "NaN swallowed.", layers.PReLU, SPECIAL)


@records(layers.Softmax)
def softmax(case: Cases) -> None:
    case("last", "Normalised over all axes.", layers.Softmax, (2, 3, 4))
    case("axis_1", "Normalised over the last axis.", lambda: layers.Softmax(axis=1), (2, 3, 4))
    case("axis_list", "Two axes normalised one after the other.", lambda: layers.Softmax(axis=[1, 2]), (2, 3, 4))
    case("large", "An overflow of the exponential.", layers.Softmax, LARGE)
    case("special", "A row of nothing but -inf: it is NaN.", layers.Softmax, SPECIAL_ROWS["softmax"])
    says = "NaN swallowed by a maximum, or infinity by the difference."
    case("special_axis_list", says, lambda: layers.Softmax(axis=[1, 2]), ROWS.reshape(5, 2, 4))
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], "bool")
    case(
        "mask",
        "Masked numbers given a part; a row masked throughout.",
        layers.Softmax,
        (3, 4),
        mask,
        call=lambda layer, xs, mask: layer(xs, mask=mask),
    )
    case(
        "mask_axis_list",
        "The mask ignored where there are two axes.",
        lambda: layers.Softmax(axis=[1, 2]),
        (3, 4, 2),
        np.stack([mask, ~mask], -1),
        call=lambda layer, xs, mask: layer(xs, mask=mask),
    )
