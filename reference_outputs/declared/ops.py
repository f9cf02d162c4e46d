"""Operations of keras.ops as nodes of a model: their rules, and the numbers at which they are hard."""

import keras
import numpy as np
from keras import ops

from .case import Cases, inputs_for, normal


A = np.array([[np.nan, 1.0, np.inf, -np.inf, -0.0, 0.0, 2.5, -2.5]], "float32")
B = np.array([[1.0, np.nan, np.inf, 1.0, 0.0, -0.0, 0.5, 3.5]], "float32")
SEVENS = np.array([[7, -7, 7, -7, 0, 6, -6, 1]], "int32")
TWOS = np.array([[2, 2, -2, -2, 3, 3, 3, -5]], "int32")


def graph(name: str, says: str, build, *arrays: np.ndarray, **options: object) -> None:
    """A model of operations only: `build` takes its inputs to its outputs."""

    @Cases("ops/graph").model(name, says, **options)
    def _(rng):
        given = [xs(rng) if callable(xs) else xs for xs in arrays]
        inputs = inputs_for(*given)
        return keras.Model(inputs, build(*inputs)), given


def square(rng: np.random.Generator) -> np.ndarray:
    return normal(rng, 2, 3, 4)


def pieces(x, y):
    return [
        x[:, 1:],
        x[:, ::-1, 0],
        x[..., None, -1],
        x[:, -2:, ::2],
        ops.reshape(y, (-1, 6, 2)),
        ops.transpose(x, (0, 2, 1)),
        ops.expand_dims(y, 1),
        ops.squeeze(x[:, :1], axis=1),
    ]


graph("indexing", "A negative step, a new axis, or an index counted from the end.", pieces, square, square)
graph(
    "joining",
    "An axis counted from the wrong end, or pieces of unequal length.",
    lambda x, y: [
        ops.concatenate([x, y], axis=1),
        ops.stack([x, y], axis=-1),
        *ops.split(x, 2, axis=-1),
        *ops.split(y, [1], axis=1),
        ops.where(ops.greater(x, y), x, y),
        ops.flip(x, axis=1),
        ops.roll(y, 1, axis=-1),
    ],
    square,
    square,
)
graph(
    "arithmetic",
    "The sides of an operation whose constant stands first swapped.",
    lambda x, y: [x + y, x - 2, 2 - x, x * y, x / 3, 3 / (ops.abs(x) + 1), -x, ops.abs(y), x**2, ops.square(x) - x],
    square,
    square,
)
graph(
    "comparison",
    "A comparison turned round.",
    lambda x, y: [x < y, x >= 0.0, ops.equal(x, y), x != y, ops.logical_and(x > 0, y > 0), ops.logical_not(x > 0)],
    square,
    square,
)
graph(
    "reductions",
    "keepdims forgotten, a negative axis, or the deviation of a sample.",
    lambda x, y: [
        ops.sum(x, axis=1),
        ops.mean(x, axis=(1, 2), keepdims=True),
        ops.max(x, axis=-1),
        ops.min(y, axis=1, keepdims=True),
        ops.var(x, axis=-1),
        ops.std(x, axis=1),
        ops.prod(y, axis=-1),
        ops.argmax(x, axis=-1),
        ops.any(x > 1, axis=-1),
        ops.all(x > -1, axis=1),
    ],
    square,
    square,
)
graph(
    "products",
    "An axis summed that stays, or a batch multiplied out.",
    lambda x, y: [
        ops.einsum("bij,bkj->bik", x, y),
        ops.matmul(x, ops.transpose(y, (0, 2, 1))),
        ops.einsum("bij->bj", x),
        ops.dot(x, np.arange(8, dtype="float32").reshape(4, 2)),
    ],
    square,
    square,
)
graph(
    "curves",
    "A softmax over another axis, or a fast approximation.",
    lambda x: [ops.exp(x), ops.tanh(x), ops.sigmoid(x), ops.softmax(x, axis=1), ops.log_softmax(x), ops.gelu(x), ops.logsumexp(x, axis=-1)],
    square,
)
graph(
    "round_special",
    "A half rounded away from 0: Keras rounds to even; NaN, infinities or the sign of 0 lost.",
    lambda x: [ops.round(x), ops.floor(x), ops.ceil(x), ops.sign(x), ops.trunc(x)],
    np.array([[2.5, -2.5, 0.5, -0.5, 1.5, -0.0, np.nan, np.inf, -np.inf, 3.7]], "float32"),
)
graph(
    "maximum_special",
    "A NaN on one side of a maximum swallowed.",
    lambda x, y: [ops.maximum(x, y), ops.minimum(x, y), ops.where(x > y, x, y)],
    A,
    B,
)
graph(
    "extremes_special",
    "A NaN swallowed by a maximum over an axis.",
    lambda x: [ops.max(x, axis=-1), ops.min(x, axis=-1)],
    np.array([[1, np.nan, 3], [np.inf, 2, -np.inf]], "float32"),
)
graph(
    "cumsum_special",
    "An infinity or a NaN in the sums before it.",
    lambda x: [ops.cumsum(x, axis=-1), ops.cumsum(x, axis=1)],
    np.array([[[1, 2, -np.inf], [0.5, np.nan, 3]], [[np.inf, 2, -np.inf], [-np.inf, -np.inf, 1]]], "float32"),
)
graph(
    "argmax_ties",
    "The last of equal numbers taken instead of the first.",
    lambda x: [ops.argmax(x, axis=-1), ops.argmin(x, axis=-1), ops.argsort(x, axis=-1), ops.sort(x, axis=-1), *ops.top_k(x, 2)],
    np.array([[1, 3, 3, 0, 0], [2, 2, 2, 2, 2], [-1, -3, 5, 5, -3]], "float32"),
)
graph(
    "softmax_special",
    "An infinity among the numbers of a softmax.",
    lambda x: [ops.softmax(x), ops.softmax(x * 100)],
    np.array([[1, -np.inf, 3], [80, 81, -80], [-np.inf, -np.inf, 0]], "float32"),
)
graph(
    "division_int",
    "An integer quotient cut towards 0, and the sign of the remainder.",
    lambda x, y: [x // y, x % y, ops.divide(x, y), ops.floor_divide(x, y), ops.mod(x, y)],
    SEVENS,
    TWOS,
    truth=False,  # integers divided give float32 also there
)
graph(
    "division_float",
    "A remainder with the sign of the dividend.",
    lambda x, y: [ops.floor_divide(x, y), ops.mod(x, y)],
    SEVENS.astype("float32") / 2,
    TWOS.astype("float32"),
)
graph(
    "power_int",
    "A power in floats, or an overflow that is none.",
    lambda x: [ops.power(x, 2), x**3, x * x + 2**30, ops.sum(x, axis=-1)],
    np.array([[3, -2, 0, 46340], [65536, 65537, -1, 7]], "int32"),
)
graph(
    "promotion",
    "An integer with a float, a bool or a bare number of Python.",
    lambda i, f, b, u: [i + f, i * 2, i + 0.5, ops.add(b, i), ops.add(u, b), u + i, u * f, ops.divide(u, 2), ops.mean(i, axis=-1), ops.cast(f, "int32"), ops.cast(i, "bool"), ops.where(b, i, f)],
    np.array([[5, -3, 0]], "int32"),
    np.array([[1.75, -1.75, 2.5]], "float32"),
    np.array([[True, False, True]]),
    np.array([[250, 3, 0]], "uint8"),
    truth=False,  # integers divided give float32 also there
)
graph(
    "one_hot",
    "An id outside: Keras gives a row of zeros.",
    lambda x: [ops.one_hot(x, 4), ops.one_hot(x, 4, axis=1, dtype="int32")],
    np.array([[0, 3, 1], [-1, 4, 2]], "int32"),
)
graph(
    "constants",
    "A constant array in the graph lost, or laid out wrong.",
    lambda x: [x + np.arange(12, dtype="float32").reshape(3, 4), ops.matmul(x, np.eye(4, 2, dtype="float32") * 3), ops.concatenate([x, ops.zeros_like(x)], axis=1)],
    square,
)


HOLES = np.array([[3.5, np.nan, -1, np.inf, 2, 2], [np.nan] * 6, [-np.inf, 0.5, -0.0, 5, 5, 1]], "float32")
COUNTS = np.array([[3, 0, 1, 7, 2, 2], [5, 5, 5, 5, 5, 5], [0, 1, 0, 9, 9, 1]], "int32")

graph(
    "nan_reductions",
    "A row of nothing but NaN, an infinity, or the mean of all numbers and not of those that are there.",
    lambda x, i: [
        ops.nansum(x, axis=1),
        ops.nanprod(x[:, 4:], axis=0),
        ops.nanmax(x, axis=-1, keepdims=True),
        ops.nanmin(x, axis=-1),
        ops.nanmean(x, axis=0),
        ops.nanvar(x, axis=1),
        ops.nanstd(x, axis=0, keepdims=True),
        ops.nanargmax(x, axis=1),
        ops.nanargmin(x, axis=1),
        ops.nancumsum(x[:, 4:], axis=1),
        ops.nancumprod(x[:, 4:], axis=0),
        ops.nansum(i, axis=1),
        ops.nanmean(i, axis=0),
        ops.nanmax(i > 4, axis=1),
    ],
    HOLES,
    COUNTS,
    truth=False,  # the mean of integers is float32 also there
)
graph(
    "quantiles",
    "The axis of the parts behind the others, NaN swallowed, a method honoured where Keras computes all as linear.",
    lambda x, y: [
        ops.median(y, axis=1),
        ops.median(x, axis=-1, keepdims=True),
        ops.quantile(y, np.array([0.1, 0.75], "float32"), axis=1, method="lower"),
        ops.quantile(y, 0.3),
        ops.percentile(y, 30, axis=(0, 2), method="nearest", keepdims=True),
        ops.percentile(y, [12.5, 60], axis=1, method="midpoint"),
        ops.percentile(y, 40.0, axis=2, method="higher"),
        ops.nanmedian(x, axis=1),
        ops.nanquantile(x, 0.4, axis=0),
        ops.nanpercentile(x, 70.0, axis=0, method="lower", keepdims=True),
    ],
    HOLES[:, [0, 1, 2, 4, 5]],
    square,
    truth=False,  # a part of 0.3 is another number in float64
    without_jax="JAX takes no list of parts",
)
graph(
    "spaces",
    "An end that is not reached, or an axis in front.",
    lambda x, y: [
        ops.linspace(x, y, num=5),
        ops.linspace(x, 4, num=4, endpoint=False, axis=-1),
        ops.logspace(x, 2, num=4, base=2.5),
        ops.vander(x[0], 4),
        ops.vander(x[0], increasing=True),
        ops.i0(x),
        ops.trapezoid(x, dx=0.5),
        ops.trapezoid(y, x=[0, 1.0, 3]),
    ],
    np.array([[0.5, -3, 2]], "float32"),
    np.array([[2.25, 9, -7]], "float32"),
)
graph(
    "found",
    "The order they came in, the first of several, what fills up, or an index taken apart from the wrong end.",
    lambda x, i: [
        *ops.nonzero(i - 5),
        *ops.unique(i, return_index=True, return_inverse=True, return_counts=True),
        *ops.unique(x, return_counts=True),
        *ops.unique(i, axis=0, return_inverse=True, size=4, fill_value=-1),
        *ops.unravel_index(ops.reshape(i, (-1,)), (2, 5)),
    ],
    np.array([[2.5, -1, 2.5, 0, 3.75, -1]], "float32"),
    COUNTS,
)
graph(
    "views",
    "Bytes in the other order, or a cast.",
    lambda x, i: [
        ops.view(x, "int32"),
        ops.view(x, "uint8"),
        ops.view(i, "float16"),
        ops.view(ops.cast(i, "int16"), "float32"),
        ops.array(x),
        ops.array(x[:, 4:], dtype="int32"),
        ops.empty_like(i),
        ops.imag(x),
    ],
    HOLES[2:],
    COUNTS[:1],
    truth=False,  # the bytes of a float64 are others
)
graph(
    "blocks",
    "The kernel's axes before the channels, or blocks that overlap written over one another.",
    lambda x, y: [
        ops.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2)),
        ops.fold(y, (4, 5), (2, 3), padding=(1, 0)),
        ops.fold(ops.unfold(x, 2), (5, 6), 2),
    ],
    lambda rng: normal(rng, 2, 3, 5, 6),
    lambda rng: normal(rng, 2, 12, 15),
)
graph(
    "correlations",
    "A filter flipped, a wrong side cut off, or a spread without its root.",
    lambda x, y: [
        ops.correlate(x[0], y[0, :4], mode="same"),
        ops.correlate(x[0], y[0, :3], mode="full"),
        ops.correlate(x[0], y[0, :2]),
        ops.corrcoef(x),
        ops.psnr(x, y, 4.0),
    ],
    lambda rng: normal(rng, 3, 7),
    lambda rng: normal(rng, 3, 7),
)


def matrices(rng: np.random.Generator) -> np.ndarray:
    return normal(rng, 2, 4, 4) + 3 * np.eye(4, dtype="float32")[[1, 0, 2, 3]]


def definite(rng: np.random.Generator) -> np.ndarray:
    xs = normal(rng, 2, 4, 4)
    return xs @ xs.transpose(0, 2, 1) + np.eye(4, dtype="float32")


graph(
    "inverses",
    "A sign of the order of rows lost, or the other triangle.",
    lambda x, y, b: [
        ops.inv(x),
        ops.det(x),
        *ops.slogdet(x),
        ops.logdet(y),
        ops.cholesky(y),
        ops.cholesky(y, upper=True),
        ops.solve(x, b),
        ops.solve_triangular(y, b, lower=True),
        ops.solve_triangular(y, b),
    ],
    matrices,
    definite,
    lambda rng: normal(rng, 2, 4, 3),
)
graph(
    "half_matrices",
    "The other triangle, or a factor transposed.",
    lambda y, b: [ops.cholesky_inverse(y), ops.cholesky_inverse(y, upper=True), ops.solve_triangular(y, b), ops.solve(y, b), *ops.lu_factor(y[0, ::-1])],
    definite,
    lambda rng: normal(rng, 2, 4),
    without_jax="JAX takes one matrix, no vectors, and counts pivots otherwise",
)
graph(
    "singular",
    "Signs of another reflection, a limit that is not Keras's, or rows for columns.",
    lambda x, y, b: [
        *ops.qr(x),
        *ops.qr(x, mode="complete"),
        ops.svd(x, compute_uv=False),
        ops.pinv(y),
        ops.pinv(x, rcond=0.5),
        ops.matrix_rank(x),
        ops.matrix_rank(x, tol=2.0),
        ops.lstsq(y[0], b[0]),
        ops.lstsq(y[0], b[0, :, 0]),
    ],
    lambda rng: normal(rng, 2, 5, 3),
    lambda rng: normal(rng, 2, 3, 5),
    lambda rng: normal(rng, 1, 3, 2),
)
graph(
    "fourier",
    "The way back without its factor, the middle frequency twice, or a frame that starts too late.",
    lambda x, y: [
        *ops.fft((x, y)),
        *ops.fft2((x, y)),
        *ops.ifft2((x, y)),
        *ops.rfft(x),
        *ops.rfft(x, 9),
        ops.irfft((x, y)),
        ops.irfft((x, y), 7),
    ],
    lambda rng: normal(rng, 2, 3, 6),
    lambda rng: normal(rng, 2, 3, 6),
)
graph(
    "frames",
    "A window that is not periodic, or a margin that is kept.",
    lambda x, y, z: [
        *ops.stft(x, 6, 3, 8),
        *ops.stft(x, 6, 2, 9, window="hamming", center=False),
        *ops.stft(x, 4, 4, 4, window=None),
        ops.istft((y, z), 6, 3, 8),
    ],
    lambda rng: normal(rng, 2, 20),
    lambda rng: normal(rng, 2, 6, 5),
    lambda rng: normal(rng, 2, 6, 5),
)
graph(
    "ctc",
    "A label that repeats without a blank between, or steps beyond the length.",
    lambda t, x, a, b: [ops.ctc_loss(t, x, a, b), ops.ctc_loss(t, x, a, b, mask_index=4), *ops.ctc_decode(x, b), *ops.ctc_decode(x, b, merge_repeated=False, mask_index=3)],
    np.array([[1, 2, 2], [3, 3, 3], [2, 1, 1]], "int32"),
    lambda rng: 2 * normal(rng, 3, 9, 5),
    np.array([3, 3, 1], "int32"),
    np.array([8, 9, 4], "int32"),
    truth=False,  # computed in float32, whatever comes in
)
POINTS = np.array([[[0, 0], [5, 0], [0, 6], [5, 6]], [[1, 0], [4, 1], [0, 5], [5, 5]]], "float32")
graph(
    "images",
    "Points taken for rows and columns, an edge that is not filled, or a bell of another width.",
    lambda x, y, p, q: [
        ops.image.perspective_transform(x, p, q, fill_value=0.5),
        ops.image.scale_and_translate(x, (2, 5, 9, 3), np.array([0.7, 1.6], "float32"), np.array([0.3, -0.8], "float32"), (1, 2), "linear"),
        ops.image.scale_and_translate(x, (2, 7, 4, 3), np.array([0.6], "float32"), np.array([0.25], "float32"), (2,), "lanczos3"),
        ops.image.scale_and_translate(x, (2, 7, 8, 3), np.array([1.4], "float32"), np.array([0.25], "float32"), (2,), "cubic", antialias=False),
        ops.image.ssim(x, y, max_val=2.0, filter_size=5, k1=0.02),
    ],
    lambda rng: normal(rng, 2, 7, 6, 3),
    lambda rng: normal(rng, 2, 7, 6, 3),
    POINTS,
    POINTS + np.array([[[0.3, 0.2], [-0.4, 0.5], [0.1, -0.6], [0.45, 0.35]]], "float32"),
    truth=False,  # the places that are read are computed in float32
)
graph("ndim", "The number of elements.", lambda x: ops.ndim(x), square)
graph(
    "as_tensorflow",
    "What another backend or a textbook would give: infinities kept, the next float32, indices taken apart from the last axis.",
    lambda x, i, y: [
        ops.nancumsum(x[:, :3], axis=1),
        ops.nancumprod(x[:, :4], axis=1),
        ops.nextafter(x, 1.0),
        ops.geomspace(y, -64.0, num=4),
        *ops.unravel_index(i, (2, 5)),
        ops.argpartition(i[0], 2),
        ops.argpartition(y, 1, axis=0),
        *ops.unique(i, sorted=False, return_index=True),
        ops.linspace(1, y, num=6, dtype="int32"),
        *ops.stft(ops.abs(y), 5, 2, 6, window="hamming"),
        ops.istft(ops.stft(y, 4, 2, 4), 4, 2, 4, length=5, window="hamming"),
        ops.i0(x),
    ],
    HOLES,
    COUNTS,
    np.array([-1, -2, -8, -3, -0.5, -7], "float32"),
    truth=False,  # numbers that are next to each other in float32
    without_jax="JAX gives each of these otherwise",
)
