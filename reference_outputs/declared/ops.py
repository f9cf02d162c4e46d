"""Operations of keras.ops as nodes of a model: their rules, and the numbers at which they are hard."""

import keras
import numpy as np
from keras import ops

from .case import RULES_OF_OPS, Cases, inputs_for, normal

RULES_OF_OPS |= dict.fromkeys(
    # Numbers moved, chosen, counted, or correctly rounded once.
    """Add Subtract Multiply Divide TrueDivide Negative Absolute Abs Square Sqrt Reciprocal Maximum Minimum Sign Floor Ceil
    Round Trunc FloorDivide Mod NotEqual Equal Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot
    LogicalXor IsNan IsFinite IsInf Where GetItem Reshape Transpose Concatenate Stack Split Squeeze ExpandDims Cast Any
    All Argmax Argmin Max Min Amax Amin Sort Argsort OneHot Flip Roll Tile Repeat BroadcastTo Take TakeAlongAxis Pad
    ZerosLike OnesLike Clip Relu SwapAxes Moveaxis Tril Triu Unstack Shape Ravel TopK Copy StopGradient Arange
    Identity ArraySplit FullLike Full ConvertToTensor""".split(),
    "copy",
) | dict.fromkeys(
    """Exp Log Log1p Expm1 Tanh Sigmoid Softmax LogSoftmax Gelu Mean Var Std Rsqrt Sin Cos Logsumexp Silu Softplus
    LeakyRelu Elu Normalize Average Arctan2 Erf HardSigmoid Cumsum Power""".split(),
    "elementwise",
) | dict.fromkeys("Matmul Einsum Dot Tensordot Sum Prod Norm Cumprod Conv".split(), "contraction")


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
