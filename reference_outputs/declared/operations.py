"""Every operation of keras.ops at least once, those that Keras's own tests leave out three times; ops.py has the hard numbers."""

import numpy as np
from keras import activations, ops
from keras.src.activations.activations import Mish
from keras.src.ops import numpy as classes

from .case import generator, normal
from .ops import graph, square

WORDS = np.array([[5, -3, 0, 12], [127, 1, -128, 6]], "int32")
SHIFTS = np.array([[1, 2, 3, 0], [2, 5, 1, 4]], "int32")
PARTS = np.array([[-0.9, -0.25, 0.0, 0.5, 0.99]], "float32")
ODD = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 2.5, -2.5, 1e-8]], "float32")


def above_one(rng: np.random.Generator) -> np.ndarray:
    return 1 + normal(rng, 2, 5) ** 2


def positive(rng: np.random.Generator) -> np.ndarray:
    return np.abs(normal(rng, 2, 5)) + np.float32(0.1)


def row(rng: np.random.Generator) -> np.ndarray:
    return 2 * normal(rng, 2, 6)


def image(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 1, (2, 7, 6, 3)).astype("float32")


def weights(*shape: int) -> np.ndarray:
    return normal(generator(f"weights {shape}"), *shape)


def fixed_image(rng: np.random.Generator) -> np.ndarray:
    return normal(rng, 1, 5, 4, 2)


graph(
    "trigonometry",
    "One function taken for another, or an angle in degrees.",
    lambda x, p, a: [
        *(f(x) for f in (ops.tan, ops.sinh, ops.cosh, ops.arctan, ops.arcsinh, ops.sinc, ops.deg2rad, ops.rad2deg)),
        *(f(p) for f in (ops.arcsin, ops.arccos, ops.arctanh, ops.erfinv, ops.erf, ops.erfc, ops.cbrt, ops.exp2)),
        *(f(a) for f in (ops.arccosh, ops.log, ops.log2, ops.log10, ops.sqrt, ops.reciprocal, ops.rsqrt, ops.cos)),
        ops.arctanh(p * 0.5),
        ops.arctanh(p - p),
        ops.erfinv(p * 0.5),
        ops.erfinv(p - p),
        ops.arccosh(a * 30),
        ops.arccosh(a / a),
    ],
    row,
    PARTS,
    above_one,
)
graph(
    "trigonometry_special",
    "NaN, an infinity, or a number outside of what the function takes.",
    lambda x: [
        *(f(x) for f in (ops.arcsin, ops.arccos, ops.arccosh, ops.arctanh, ops.arctan, ops.arcsinh, ops.sinh, ops.cosh)),
        *(f(x) for f in (ops.cbrt, ops.exp2, ops.expm1, ops.log2, ops.log10, ops.log1p, ops.sqrt, ops.reciprocal, ops.rsqrt)),
        *(f(x) for f in (ops.erf, ops.erfc)),
        ops.erfinv(x[:, :7]),
    ],
    ODD,
    truth=False,  # the erf of an infinite float64 is NaN on TensorFlow
)
graph(
    "curves_of_integers",
    "Integers kept where Keras goes to float32.",
    lambda i: [f(i) for f in (ops.sin, ops.sinh, ops.arctan, ops.exp, ops.expm1, ops.exp2, ops.cbrt, ops.deg2rad, ops.sqrt, ops.square, ops.absolute, ops.negative, ops.sign)],
    SHIFTS,
    truth=False,  # integers give float32 also there
)
graph(
    "activations",
    "A parameter other than Keras's, or the function of the same name with other defaults.",
    lambda x: [
        *(f(x) for f in (ops.relu, ops.relu6, ops.selu, ops.silu, Mish(), ops.softplus, ops.softsign, ops.sparse_plus)),
        *(f(x) for f in (ops.sparse_sigmoid, ops.squareplus, ops.sparsemax, ops.hard_sigmoid, ops.hard_silu, ops.hard_tanh)),
        *(f(x) for f in (ops.log_sigmoid, ops.tanh_shrink, ops.hard_shrink, ops.soft_shrink, ops.gelu, ops.celu, ops.elu)),
        Mish()(x * 10),
        Mish()(-x),
        ops.celu(x, alpha=0.4),
        ops.elu(x, alpha=1.7),
        ops.gelu(x, approximate=False),
        ops.glu(x),
        ops.glu(x, axis=1),
        ops.hard_shrink(x, threshold=1.25),
        ops.soft_shrink(x, threshold=1.25),
        ops.leaky_relu(x, negative_slope=0.05),
        ops.squareplus(x, b=1.5),
        ops.threshold(x, 0.5, -7.0),
        ops.sparsemax(x, axis=1),
        ops.log_softmax(x, axis=1),
        activations.relu(x, negative_slope=0.25),
        activations.relu(x, max_value=1.5),
        activations.relu(x, threshold=0.75, max_value=2.0, negative_slope=0.5),
    ],
    row,
)
graph(
    "bits",
    "A shift that takes the sign along, or one that fills with zeros.",
    lambda x, y: [
        *(f(x, y) for f in (ops.bitwise_and, ops.bitwise_or, ops.bitwise_xor, ops.bitwise_left_shift, ops.bitwise_right_shift)),
        *(f(x, y) for f in (ops.left_shift, ops.right_shift)),
        *(f(y, y) for f in (ops.left_shift, ops.right_shift)),
        *(f(x) for f in (ops.bitwise_invert, ops.bitwise_not)),
        *(classes.BitwiseNot()(xs) for xs in (x, y)),
        *(classes.LeftShift()(xs, ys) for xs, ys in ((x, y), (y, y), (-x, y))),
        *(classes.RightShift()(xs, ys) for xs, ys in ((x, y), (y, y), (-x, y))),
        ops.gcd(x, y),
        ops.lcm(x, y),
    ],
    WORDS,
    SHIFTS,
)
graph(
    "other_names",
    "A class of another name left out.",
    lambda x, i: [
        *(classes.Abs()(xs) for xs in (x, i, -x)),
        *(classes.Conj()(xs) for xs in (x, i, -x)),
        *(classes.Conjugate()(xs) for xs in (x, i, -x)),
        *(ops.conj(xs) for xs in (x, i)),
        *(ops.real(xs) for xs in (x, i, x[:, ::2])),
        *(ops.imag(xs) for xs in (x, x[:, ::2])),
        *(ops.empty_like(xs) for xs in (x, x[:, :2])),
        *(ops.ndim(xs) for xs in (x, i)),
        *(ops.fabs(xs) for xs in (x, i)),
        ops.angle(x),
        *(ops.stop_gradient(xs) for xs in (x, i, x[:, :2])),
        *(ops.convert_to_tensor(xs) for xs in (x, i)),
        ops.convert_to_tensor(i, dtype="float32"),
        ops.copy(x),
        ops.full((2, 3), x[0, 0]),
    ],
    row,
    WORDS,
    truth=False,  # a cast to float32 stays one
)
graph(
    "casts",
    "A float rounded where it is cut, one out of range that wraps, or bool as any bit.",
    lambda x, i: [
        *(ops.cast(ops.abs(x), dtype) for dtype in ("uint8", "uint16")),
        *(ops.cast(x, dtype) for dtype in ("int8", "int32", "int64", "bool", "float16")),
        ops.cast(ops.cast(x, "bfloat16"), "float32"),
        *(ops.cast(i, dtype) for dtype in ("int8", "uint8", "bool", "float32")),
        *(ops.saturate_cast(x * 100, dtype) for dtype in ("int8", "uint8", "int16")),
        *(ops.saturate_cast(i * 300, dtype) for dtype in ("int8", "uint8", "uint16")),
    ],
    np.array([[1.9, -1.9, 0.5, 100.7, 0.0, 2.5]], "float32") * np.array([[1], [0.5]], "float32"),
    np.array([[3, 0, 100, 70000, 255, 1]], "int32"),
    without_jax="JAX casts floats out of range by another rule",
    truth=False,  # the halves of a float64 are others
)
graph(
    "pairs",
    "The sides swapped, NaN taken for a number, or a sum that overflows.",
    lambda x, y: [
        *(f(x, y) for f in (ops.arctan2, ops.hypot, ops.logaddexp, ops.logaddexp2, ops.fmax, ops.fmin, ops.fmod, ops.heaviside)),
        *(f(x, y) for f in (ops.divide_no_nan, ops.isclose, ops.less_equal, ops.logical_xor, ops.greater_equal, ops.equal)),
        *(ops.equal(x, ys) for ys in (0.0, x)),
        ops.ldexp(x, ops.cast(ops.round(y), "int32")),
        ops.allclose(x, y, rtol=0.5, atol=10.0),
        ops.divide_no_nan(x, x - x),
        ops.maximum(x, y),
        ops.average(x, axis=1, weights=ops.abs(y) + 1),
    ],
    row,
    row,
)
graph(
    "pairs_special",
    "NaN, an infinity, or a zero on one side.",
    lambda x, y: [
        *(f(x, y) for f in (ops.fmax, ops.fmin, ops.logaddexp, ops.logaddexp2, ops.hypot, ops.isclose, ops.heaviside, ops.divide_no_nan)),
        *(f(x) for f in (ops.isnan, ops.isinf, ops.isfinite, ops.isposinf, ops.isneginf, ops.isreal, ops.signbit, ops.nan_to_num)),
        ops.nan_to_num(x, nan=5.0, posinf=9.0, neginf=-9.0),
        ops.isclose(x, y, equal_nan=True),
        ops.clip(x, -1.0, 2.0),
        ops.count_nonzero(x, axis=1),
    ],
    ODD,
    np.array([[np.nan, np.inf, np.inf, 0.0, 1.0, np.nan, -2.5, 1e-8]], "float32"),
    without_jax="the hypotenuse of an infinity is infinite on JAX, and NaN on TensorFlow",
    truth=False,  # the largest float64 is another number
)
graph(
    "moved",
    "An axis counted from the wrong end, or rows for columns.",
    lambda x: [
        ops.swapaxes(x, 1, -1),
        ops.moveaxis(x, 1, 2),
        ops.rot90(x, k=3, axes=(1, 2)),
        ops.fliplr(x),
        ops.flipud(x),
        ops.tril(x, k=-1),
        ops.triu(x, k=1),
        ops.diagonal(x, offset=1, axis1=1, axis2=2),
        ops.diag(x[0, 0]),
        ops.diag(x[0], k=-1),
        ops.diagflat(x[0], k=1),
        ops.trace(x, offset=-1, axis1=1, axis2=2),
        ops.diff(x, axis=1),
        ops.diff(x, n=2, axis=-1),
        ops.ptp(x, axis=2),
        ops.ravel(x),
        ops.tile(x, (1, 2, 1)),
        ops.repeat(x, 3, axis=1),
        ops.broadcast_to(x, (3, 2, 3, 4)),
        ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect"),
        ops.pad(x, ((0, 0), (1, 0), (2, 0)), constant_values=-1.5),
        ops.size(x),
        classes.Amax(axis=1)(x),
        classes.Amin(axis=(1, 2), keepdims=True)(x),
        ops.zeros_like(x, dtype="int32"),
        ops.ones_like(x),
        ops.full_like(x, 2.5),
        ops.cumprod(x, axis=-1),
        ops.cumsum(x, axis=1),
    ],
    square,
    without_jax="JAX takes no list of axes for rot90",
)
graph(
    "pieces",
    "Pieces in another order, or a cut at the wrong place.",
    lambda x, y: [
        *ops.unstack(x, axis=1),
        *ops.unstack(x, num=4, axis=-1),
        *ops.unstack(x[0], axis=0),
        *ops.array_split(x, 3, axis=2),
        *ops.hsplit(x, 3),
        *ops.vsplit(x[0], [1]),
        *ops.dsplit(x, 2),
        ops.hstack([x, y]),
        ops.vstack([x, y]),
        ops.dstack([x, y]),
        ops.append(x, y, axis=1),
        ops.append(x, y),
        *ops.meshgrid(x[0, 0], y[0, :, 1], indexing="ij"),
        *ops.meshgrid(x[0, 0], y[0, :, 1]),
        ops.outer(x, y[0]),
        ops.extract_sequences(ops.reshape(x, (2, 12)), 5, 3),
        ops.select([x > 0.5, x < -0.5], [x, y], default=9.0),
    ],
    square,
    square,
)
graph(
    "slices",
    "A slice whose start is its end, or written over the wrong place.",
    lambda x, y: [
        ops.slice(x, (0, 1, 2), (2, 2, 2)),
        ops.slice(x, (1, 0, 0), (1, 3, 1)),
        ops.slice(x, np.array([0, 2, 1], "int32"), (2, 1, 3)),
        ops.slice_update(x, (0, 1, 2), y[:, :2, :2]),
        ops.scatter(np.array([[1], [3], [1]], "int32"), x[0], (5, 4)),
        ops.scatter_update(x[0], np.array([[2, 1], [0, 3]], "int32"), y[0, 0, :2]),
        ops.take(x, np.array([2, 0, -1], "int32"), axis=1),
        ops.take_along_axis(x, np.array([[[1, 0, 3, 2]]], "int32"), axis=2),
    ],
    square,
    square,
)
graph(
    "segments",
    "A segment that is empty, or numbers of an unsorted segment lost.",
    lambda x, n: [
        *(f(x, n, num_segments=4) for f in (ops.segment_sum, ops.segment_max, ops.segment_min, ops.segment_prod)),
        *(f(x, n, num_segments=6) for f in (ops.segment_min, ops.segment_prod)),
        *(f(x * 2, n, num_segments=4) for f in (ops.segment_min, ops.segment_prod)),
    ],
    lambda rng: normal(rng, 6, 3),
    np.array([0, 3, 1, 0, 3, 1], "int32"),
    without_jax="JAX gives another number for a segment that is empty",
    truth=False,  # and so does float64
)
graph(
    "counted",
    "An edge taken to the other side, or a number beyond the last.",
    lambda i, x: [
        ops.bincount(i, minlength=4),
        ops.bincount(i),
        ops.bincount(i[:, 1:], minlength=9),
        ops.digitize(x, np.array([-1.0, 0.0, 1.5], "float32")),
        ops.searchsorted(np.array([-1.0, 0.0, 1.5, 1.5], "float32"), x[0]),
        ops.searchsorted(np.array([-1.0, 0.0, 1.5, 1.5], "float32"), x[0], side="right"),
        ops.isin(i, np.array([0, 5], "int32")),
        ops.isin(i, np.array([0, 5], "int32"), invert=True),
        ops.multi_hot(i, 8),
        ops.in_top_k(np.array([1, 3], "int32"), x[:, :4], k=2),
        ops.logical_or(x > 0, i[:, :1] > 2),
        ops.argmin(x, axis=1),
    ],
    np.array([[0, 5, 5], [1, 7, 0]], "int32"),
    np.array([[-1.0, 1.5, 0.25, -0.0, 3.0], [1.75, 0.5, -2.0, 2.0, 1.5]], "float32"),
    without_jax="JAX plans no count without a least number of bins",
    truth=False,  # in_top_k takes no float64
)
graph(
    "sums_of_products",
    "An axis summed that stays.",
    lambda x, y, v: [
        ops.inner(x, y[0]),
        ops.vdot(x, y),
        ops.tensordot(x, y, axes=[[2], [2]]),
        ops.kron(x[0], y[1]),
        ops.cross(v, ops.roll(v, 1, axis=1)),
        ops.cdist(v, v * v),
        ops.norm(x, axis=-1),
        ops.norm(x, ord=1, axis=(1, 2)),
        ops.norm(x, ord=np.inf, axis=1),
        ops.normalize(x, axis=1, order=2),
        ops.prod(v, axis=0),
        ops.logsumexp(x, axis=(1, 2)),
    ],
    square,
    square,
    lambda rng: normal(rng, 3, 3),
    without_jax="JAX takes no list of axes for norm",
)
graph(
    "convolutions",
    "A margin on the other side, or a kernel with its channels exchanged.",
    lambda x, k=weights(3, 2, 2, 3), d=weights(3, 3, 2, 2), p=weights(1, 1, 4, 3): [
        ops.conv(x, k, strides=2, padding="same"),
        ops.conv(x, k, padding="same", dilation_rate=2),
        ops.depthwise_conv(x, d, padding="same"),
        ops.separable_conv(x, d, p, padding="valid"),
    ],
    fixed_image,
    truth=False,  # the kernels in the graph stay float32
)
graph(
    "windows",
    "What lies outside counted.",
    lambda x: [
        ops.max_pool(x, 2, strides=1, padding="same"),
        ops.average_pool(x, (3, 2), strides=2, padding="same"),
        ops.space_to_depth(x[:, :4], 2),
        ops.depth_to_space(ops.concatenate([x, x + 1.0], axis=-1), 2),
    ],
    fixed_image,
    without_jax="JAX takes no list of strides for pooling",
)
graph(
    "normalizations",
    "A variance of n - 1, or a scale along another axis.",
    lambda x, g: [
        ops.batch_normalization(x, g[0], ops.abs(g[1]) + 0.5, axis=-1, offset=g[0], scale=g[1]),
        ops.layer_normalization(x, g[0], g[1], axis=-1),
        ops.rms_normalization(x, g[0], axis=-1),
        *ops.moments(x, axes=(0, 1), keepdims=True),
    ],
    square,
    lambda rng: normal(rng, 2, 4),
)
graph(
    "attention",
    "A score without its scale, a later key seen, or heads that are not repeated.",
    lambda q, k: [
        ops.dot_product_attention(q, k, k),
        ops.dot_product_attention(q, k, k, scale=0.3, is_causal=True),
        ops.dot_product_attention(q, k, k * 2.0, mask=np.array([[[[True, False, True, True, False]] * 3]])),
    ],
    lambda rng: normal(rng, 2, 3, 2, 4),
    lambda rng: normal(rng, 2, 5, 2, 4),
)
graph(
    "losses",
    "Logits taken for probabilities, or a probability that is not cut off.",
    lambda t, x, c: [
        ops.categorical_crossentropy(t, ops.softmax(x)),
        ops.categorical_crossentropy(t, x, from_logits=True),
        ops.sparse_categorical_crossentropy(c, x, from_logits=True),
        ops.binary_crossentropy(t, ops.sigmoid(x)),
        ops.binary_crossentropy(t, x, from_logits=True),
    ],
    np.eye(4, dtype="float32")[[1, 3]],
    lambda rng: normal(rng, 2, 4),
    np.array([1, 3], "int32"),
)
graph(
    "patterns",
    "An axis that is split in the other order.",
    lambda x: [
        ops.rearrange(x[0], "(h p) (w q) c -> h w (p q c)", p=2, q=3),
        ops.rearrange(x[1], "h w c -> c (w h)"),
        ops.rearrange(x[0, 1], "(w q) c -> q w c", q=2),
    ],
    lambda rng: normal(rng, 2, 4, 6, 3),
)
graph(
    "colours",
    "Weights of another standard, or a hue that does not turn round.",
    lambda x, y: [
        *(f(xs) for f in (ops.image.rgb_to_grayscale, ops.image.rgb_to_hsv, ops.image.hsv_to_rgb) for xs in (x, x[:, 1:, ::2], y)),
    ],
    image,
    np.array([[[[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]], [[1, 0, 0], [0, 1, 0.5], [0.25, 0.5, 1]]]], "float32"),
)
graph(
    "cropped_and_padded",
    "A margin counted from the other side.",
    lambda x: [
        ops.image.crop_images(x, 1, 2, target_height=4, target_width=3),
        ops.image.crop_images(x, 1, 2, 3, 1),
        ops.image.crop_images(x, bottom_cropping=2, right_cropping=0, target_height=3, target_width=5),
        ops.image.pad_images(x, 1, 2, 3, 1),
        ops.image.pad_images(x, 1, 0, target_height=9, target_width=8),
        ops.image.pad_images(x, bottom_padding=1, right_padding=2, target_height=10, target_width=11),
        *(ops.image.extract_patches(x, size, strides=strides, padding=padding) for size, strides, padding in ((3, None, "valid"), ((2, 3), 2, "same"), ((3, 2), (1, 2), "valid"))),
    ],
    image,
)
graph(
    "resized",
    "Pixels counted from their corners, or a small image not smoothed.",
    lambda x: [
        *(ops.image.resize(x, (4, 9), interpolation=interpolation) for interpolation in ("nearest", "bilinear", "lanczos3")),
        ops.image.resize(x, (3, 3), interpolation="bilinear", antialias=True),
        ops.image.resize(x, (8, 3), crop_to_aspect_ratio=True),
        ops.image.resize(x, (8, 3), pad_to_aspect_ratio=True, fill_value=0.5),
    ],
    image,
    truth=False,  # TensorFlow reads the places in float32 in float64 too
)
graph(
    "filtered",
    "An edge that is mirrored at the wrong pixel, or directions exchanged.",
    lambda x: [
        *(ops.image.gaussian_blur(x, kernel_size=size, sigma=sigma) for size, sigma in (((3, 3), (1.0, 1.0)), ((5, 3), (0.5, 2.0)), ((1, 3), (1.0, 0.7)))),
        *(ops.image.sobel_edges(xs) for xs in (x, x[:, :3], x * 2)),
    ],
    image,
    without_jax="JAX and TensorFlow blur differently by a kernel that is no square",
)
graph(
    "displaced",
    "Rows for columns, or an edge that is filled otherwise.",
    lambda x, m: [
        ops.image.affine_transform(x, m),
        ops.image.affine_transform(x, m, interpolation="nearest", fill_mode="reflect"),
        ops.image.affine_transform(x, m, fill_mode="constant", fill_value=0.5),
        *(
            ops.image.map_coordinates(x[0, :, :, 0], np.array([[0.0, 2.3, 5.5, -1.2], [1.0, 3.75, 2.5, 6.5]], "float32"), order=order, fill_mode=mode)
            for order, mode in ((0, "nearest"), (1, "constant"), (1, "reflect"))
        ),
    ],
    image,
    np.array([[1.05, 0.1, -0.3, -0.08, 0.95, 0.4, 0, 0], [0.9, 0.0, 0.2, 0.15, 1.1, -0.6, 0.01, 0.0]], "float32"),
    without_jax="JAX reads other places beyond the edge",
    truth=False,  # TensorFlow reads the places in float32 in float64 too
)
graph(
    "factors",
    "A row left where it was, or a sign of the order of rows lost.",
    lambda x, y: [
        *(part for xs in (x[0], y[0], x[1]) for part in ops.lu_factor(xs)),
        *(part for xs in (y, x @ y) for part in ops.slogdet(xs)),
    ],
    lambda rng: normal(rng, 2, 4, 4) + 2 * np.eye(4, dtype="float32")[[1, 0, 3, 2]],
    lambda rng: normal(rng, 2, 4, 4) + 2 * np.eye(4, dtype="float32"),
    without_jax="JAX gives the swaps of rows, TensorFlow their order",
)
CORNERS = np.array([[[0, 0], [5, 0], [0, 6], [5, 6]], [[1, 0], [4, 1], [0, 5], [5, 5]]], "float32")
graph(
    "images_alike",
    "A window of another width, or points taken for rows and columns.",
    lambda x, y, p, q: [
        ops.image.ssim(x, y, filter_size=3),
        ops.image.ssim(x, x * 0.5 + y * 0.5, max_val=1.0, filter_size=5, filter_sigma=0.8),
        ops.image.perspective_transform(x, p, q, fill_value=0.25),
        ops.image.perspective_transform(y, q, p),
    ],
    image,
    image,
    CORNERS,
    CORNERS + np.array([[[0.3, 0.2], [-0.4, 0.5], [0.1, -0.6], [0.45, 0.35]]], "float32"),
    truth=False,  # the places that are read are computed in float32
)
