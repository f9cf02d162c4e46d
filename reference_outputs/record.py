#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "keras>=3.6",
#     "tensorflow-cpu>=2.18",
#     "jax>=0.4",
#     "h5py>=3.11",
#     "numpy>=1.26",
#     "safetensors>=0.4",
# ]
# ///
"""Records what Keras computes with a model, layer by layer, for kandle to be compared with.

    python record.py my_model.keras                        writes my_model.case/ beside it
    python record.py my_model.keras --out cases/my_model   copies the model there, cases beside it
    python record.py model.json --weights weights.h5       an architecture and its weights
    kandle verify cases/my_model

Inputs are made from the model's own signature: several rows, odd lengths, padded
rows where something masks, the ids 0 and the last, other sizes, extremes. Or give
your own with --input. Keras runs in inference mode on TensorFlow (on JAX where that
is all there is); the case holds every layer's inputs, outputs and masks, the same
model in float64, and Keras's answers on JAX.

The file stands alone: copy it to where your model is.
"""

import argparse
import contextlib
import dataclasses
import decimal
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator

REPLAY = "--replay"  # how this script calls itself to compute under JAX
if REPLAY in sys.argv or importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "jax"
else:
    os.environ["KERAS_BACKEND"] = "tensorflow"
if __name__ == "__main__":
    # One thread, so that sums are added in the same order every time.
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")



@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps what libraries write on stderr themselves, past Python, from the user."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with silence() if __name__ == "__main__" else contextlib.nullcontext():
    import h5py
    import keras
    import numpy as np
    import safetensors.numpy
    from keras import layers

    keras.ops.convert_to_tensor(0.0)  # the backend says what it has to say now

with contextlib.suppress(ImportError):
    import absl.logging

    absl.logging.set_verbosity("error")

Tensors = dict[str, np.ndarray]


class Problem(Exception):
    """What stops a recording, told in one line."""


class Disagreement(Exception):
    """Two computations that must agree within the tolerance don't."""


# ----------------------------------------------------------------------------
# The rule of a layer: how far two right implementations of it may be apart
# ----------------------------------------------------------------------------

COPYING = ("linear", "relu", "relu6", "hard_tanh", "hard_shrink")  # activations that move or round once


def rule_of_function(function: Callable) -> str:
    """The rule of an activation: a function, or a layer used as one."""
    if isinstance(function, keras.Operation):
        return rule_of(function)
    return "copy" if getattr(function, "__name__", "") in COPYING else "elementwise"


def rule_of_slope(layer: layers.Layer) -> str:
    return "elementwise" if layer.negative_slope else "copy"


def rule_of_lookup(layer: layers.Layer) -> str:
    mode = layer._output_mode if isinstance(layer, layers.TextVectorization) else layer.output_mode
    return "elementwise" if mode == "tf_idf" else "copy"


def rule_of_interpolation(layer: layers.Layer) -> str:
    return "copy" if layer.interpolation == "nearest" else "elementwise"


def rule_of_wrapped(layer: layers.Layer) -> str:
    return "deep" if isinstance(layer.layer, keras.Model) else rule_of(layer.layer)


def rule_of_all(*operations: keras.Operation) -> str:
    """The rule of a layer that runs others within it: `deep` where more than one of them rounds."""
    rounding = [rule for rule in map(rule_of, operations) if rule != "copy"]
    return "copy" if not rounding else rounding[0] if len(rounding) == 1 else "deep"


RULES_OF_LAYERS: dict[str, str | Callable[[keras.Operation], str]] = {
    "Activation": lambda layer: rule_of_function(layer.activation),
    "ReLU": rule_of_slope,
    "LeakyReLU": rule_of_slope,
    "IntegerLookup": rule_of_lookup,
    "StringLookup": rule_of_lookup,
    "IndexLookup": rule_of_lookup,
    "TextVectorization": rule_of_lookup,
    "Resizing": rule_of_interpolation,
    "UpSampling2D": rule_of_interpolation,
    "Pipeline": lambda layer: rule_of_all(*layer.layers),
    "RNN": lambda layer: rule_of(layer.cell),
    "Bidirectional": lambda layer: rule_of(layer.forward_layer),
    "TimeDistributed": rule_of_wrapped,
}
for rule, classes in {
    # Numbers moved, chosen or correctly rounded once.
    "copy": """Embedding Identity Masking InputLayer StochasticDepth Add Subtract Multiply Maximum Minimum Concatenate
        MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
        AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Discretization CategoryEncoding Hashing
        HashedCrossing TFDConcat TFDIdentity Equalization MaxNumBoundingBoxes Dropout SpatialDropout1D SpatialDropout2D
        SpatialDropout3D RandomFlip RandomTranslation RandomRotation RandomZoom RandomBrightness RandomContrast
        RandomColorDegeneration RandomColorJitter RandomElasticTransform RandomErasing RandomGaussianBlur RandomGrayscale
        RandomHue RandomInvert RandomPerspective RandomPosterization RandomSaturation RandomSharpness RandomShear
        Solarization AugMix RandAugment CutMix MixUp AlphaDropout GaussianDropout GaussianNoise ActivityRegularization Flatten Reshape Cropping1D
        Cropping2D Cropping3D ZeroPadding1D ZeroPadding2D ZeroPadding3D UpSampling1D UpSampling3D Permute RepeatVector""",
    # One function of each number, or a mean and a variance.
    "elementwise": """ELU PReLU Softmax LayerScale CustomScaleLayer Average BatchNormalization LayerNormalization
        GroupNormalization RMSNormalization UnitNormalization AveragePooling1D AveragePooling2D AveragePooling3D
        GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D AdaptiveAveragePooling1D
        AdaptiveAveragePooling2D AdaptiveAveragePooling3D Rescaling Normalization CenterCrop RandomCrop AutoContrast
        ContrastLimitedAdaptiveHistogramEqualization""",
    # One layer of products summed.
    "contraction": """Attention AdditiveAttention MultiHeadAttention GroupQueryAttention GroupedQueryAttention Conv1D
        Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D
        SeparableConv2D Dense EinsumDense ReversibleEmbedding Dot SpectralNormalization SimpleRNN LSTM GRU SimpleRNNCell
        LSTMCell GRUCell ConvLSTM1D ConvLSTM2D ConvLSTM3D""",
    # Many steps, each of which rounds.
    "deep": "MelSpectrogram STFTSpectrogram StackedRNNCells",
}.items():
    RULES_OF_LAYERS |= dict.fromkeys(classes.split(), rule)

RULES_OF_OPS: dict[str, str] = {}  # of operations that are no layers, by class
for rule, classes in {
    "copy": """Abs Absolute Add All AllClose Amax Amin Any Append Arange Argmax Argmin Argpartition Argsort Array
        ArraySplit Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift
        BitwiseXor BroadcastTo Cast Ceil Clip Concatenate Conj Conjugate ConvertToTensor Copy CountNonzero
        CropImages DepthToSpace Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan Dsplit Dstack EmptyLike
        Equal ExpandDims ExtractPatches ExtractSequences Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod
        Full FullLike Gcd GetItem Greater GreaterEqual HardShrink HardTanh Heaviside Hsplit Hstack Identity Imag
        InTopK IsFinite IsIn IsInf IsNan Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Lcm Ldexp LeftShift
        Less LessEqual LogicalAnd LogicalNot LogicalOr LogicalXor MatrixRank Max MaxPool Maximum Meshgrid Min
        Minimum Mod Moveaxis MultiHot Multiply NanToNum Nanargmax Nanargmin Nanmax Nanmin Ndim Negative Nextafter
        Nonzero NotEqual OneHot OnesLike Outer Pad PadImages Ptp Ravel ReLU Real Rearrange Relu Relu6 Repeat Reshape
        RightShift Roll Rot90 Round SaturateCast Scatter ScatterUpdate SearchSorted SegmentMax SegmentMin Select
        Shape Sign Signbit Size Slice SliceUpdate SoftShrink Sort SpaceToDepth Split Sqrt Square Squeeze Stack
        StopGradient Subtract SwapAxes Swapaxes Take TakeAlongAxis Threshold Tile TopK Transpose Tril Triu Trunc
        Unfold Unique UnravelIndex Unstack View Vsplit Vstack Where ZerosLike""",
    "elementwise": """AffineTransform Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Average AveragePool BatchNorm
        BinaryCrossentropy CategoricalCrossentropy Cbrt Celu Cos Cosh Cross Cumsum Deg2rad Elu Erf Erfc Erfinv Exp
        Exp2 Expm1 Fold GaussianBlur Gelu Glu HSVToRGB HardSigmoid HardSilu Hypot I0 Kron LayerNorm LeakyRelu
        Linspace Log Log10 Log1p Log2 LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logsumexp MapCoordinates Mean
        Median Mish Moments Nancumsum Nanmean Nanmedian Nanpercentile Nanquantile Nanstd Nanvar Normalize Percentile
        Power Quantile RGBToGrayscale RGBToHSV RMSNorm Rad2deg Reciprocal Resize Rsqrt Selu Sigmoid Silu Sin Sinc
        Sinh SobelEdges Softmax Softplus Softsign SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax
        Squareplus Std Tan Tanh TanhShrink Trapezoid TrueDivide Var""",
    "contraction": """CDist CTCDecode CTCLoss Conv Corrcoef Correlate Cumprod DepthwiseConv Dot DotProductAttention Einsum FFT
        FFT2 IFFT2 IRFFT ISTFT Inner Matmul Nancumprod Nanprod Nansum Norm PSNR Prod RFFT STFT ScaleAndTranslate
        SegmentProd SegmentSum SeparableConv Sum Tensordot Trace Vander Vdot""",
    "deep": """Cholesky CholeskyInverse Det Geomspace Inv Logdet Logspace Lstsq LuFactor PerspectiveTransform Pinv Qr SSIM
        SVD Slogdet Solve SolveTriangular""",
}.items():
    RULES_OF_OPS |= dict.fromkeys(classes.split(), rule)

UNKNOWN = "deep"  # the rule of a layer that is nobody's but its author's


def rule_of(operation: keras.Operation) -> str:
    """The rule of a layer or operation. A subclass of the user's own is not the layer of Keras's of that name."""
    own = not type(operation).__module__.startswith(("keras.", "declared."))
    table = RULES_OF_LAYERS if isinstance(operation, layers.Layer) else RULES_OF_OPS
    rule = UNKNOWN if own else table.get(type(operation).__name__, UNKNOWN)
    return rule if isinstance(rule, str) else rule(operation)


def is_known(operation: keras.Operation) -> bool:
    table = RULES_OF_LAYERS if isinstance(operation, layers.Layer) else RULES_OF_OPS
    return type(operation).__name__ in table


def chained(before: str, rule: str) -> str:
    """The rule for a chain: the second layer that rounds makes it deep."""
    if before == "copy":
        return rule
    return before if rule == "copy" else "deep"


# ----------------------------------------------------------------------------
# Running a model
# ----------------------------------------------------------------------------


def load(path: pathlib.Path, weights: pathlib.Path | None = None, unsafe: bool = True) -> keras.Model:
    """The model of a .keras, a legacy .h5 or an architecture in JSON, with the weights of another file where one is given."""
    if unsafe:
        keras.config.enable_unsafe_deserialization()
    # Keras: a legacy file compiled with loss="mse" can only be loaded with compile=False.
    if path.suffix == ".json":
        model = keras.models.model_from_json(path.read_text())
    else:
        model = keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    if weights is not None:
        model.load_weights(weights)
    return model


def is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "OSU"


def arranged(model: keras.Model, inputs: list[object]) -> object:
    """Inputs in the order of `model.inputs` as the model takes them: alone, in a list, a dict …"""
    if isinstance(model, keras.src.models.Functional):
        return keras.tree.pack_sequence_as(model._inputs_struct, inputs)
    (given,) = inputs
    return given


def outputs_of(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    results = model(arranged(model, list(inputs)), training=False)
    return [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(results)]


def is_tensor(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def mask_of(tensor: object) -> object:
    return getattr(tensor, "_keras_mask", None)


class Calls:
    """While entered, notes which operations run inside a model, what every layer is given and gives back, and whose it is."""

    def __init__(self, inputs: Iterable[object] = ()) -> None:
        self.tensors: Tensors = {}
        self.steps: list[tuple[str, keras.Operation]] = []
        self.sources: dict[str, list[str]] = {}  # of each call of a layer, by `path/call`
        self._running: list[keras.Operation] = []
        self._made: dict[int, tuple[object, list[str]]] = {}  # by identity, which holds while the tensor is kept
        for i, tensor in enumerate(inputs):
            self._made[id(tensor)] = (tensor, [f"input_{i}"])

    def __enter__(self) -> "Calls":
        self._originals = keras.Operation.__call__, layers.Layer.__call__

        def noting(original):
            def noted(operation, *args, **kwargs):
                if operation in self._running:  # Layer.__call__ ends in Operation.__call__
                    return original(operation, *args, **kwargs)
                # What runs inside a plain layer (a cell, an activation given as a layer) is that layer's affair.
                inside_models = self._running and all(isinstance(outer, keras.Model) for outer in self._running)
                is_leaf = not isinstance(operation, (keras.Model, layers.InputLayer))
                prefix = self._started(operation, args, kwargs) if inside_models and is_leaf else None
                behind = self.from_(args, kwargs) if inside_models else []
                self._running.append(operation)
                try:
                    results = original(operation, *args, **kwargs)
                finally:
                    self._running.pop()
                if prefix:
                    self._note(prefix, "out", "mask", results)
                    self.sources[prefix.removeprefix("layers/")] = behind
                if inside_models and not isinstance(operation, keras.Model):
                    own = [prefix.removeprefix("layers/")] if prefix else behind
                    given = {id(tensor) for tensor in filter(is_tensor, keras.tree.flatten((args, kwargs)))}
                    for tensor in filter(is_tensor, keras.tree.flatten(results)):
                        if prefix or id(tensor) not in given:
                            self._made[id(tensor)] = (tensor, own)
                return results

            return noted

        keras.Operation.__call__, layers.Layer.__call__ = map(noting, self._originals)
        return self

    def __exit__(self, *_) -> None:
        keras.Operation.__call__, layers.Layer.__call__ = self._originals

    def from_(self, *values: object) -> list[str]:
        """The calls that made these tensors, each once: of an operation that is no layer, what fed it."""
        found = []
        for tensor in filter(is_tensor, keras.tree.flatten(values)):
            _, sources = self._made.get(id(tensor), (None, []))
            found += [source for source in sources if source not in found]
        return found

    def _started(self, operation: keras.Operation, args: tuple, kwargs: dict) -> str | None:
        path = "/".join(step.name for step in [*self._running[1:], operation])
        call = sum(path == before for before, _ in self.steps)
        self.steps.append((path, operation))
        if not isinstance(operation, layers.Layer):
            return None
        prefix = f"layers/{path}/{call}"
        if isinstance(self._running[-1], keras.Sequential):
            # Keras: within, a Sequential hands the masks that tensors carry on as arguments; its config has no arguments.
            kwargs = {name: value for name, value in kwargs.items() if not name.endswith("mask")}
        self._note(prefix, "in", "in_mask", (args, dict(sorted(kwargs.items()))))
        return prefix

    def _note(self, prefix: str, kind: str, mask_kind: str, values: object) -> None:
        for k, tensor in enumerate(filter(is_tensor, keras.tree.flatten(values))):
            self.tensors[f"{prefix}/{kind}_{k}"] = keras.ops.convert_to_numpy(tensor)
            mask = mask_of(tensor)
            if mask is not None:
                self.tensors[f"{prefix}/{mask_kind}_{k}"] = keras.ops.convert_to_numpy(mask)

    def chain(self) -> tuple[list[dict], str]:
        """Each layer with its own rule and the one it has behind all that ran before; the rule of the whole."""
        found: dict[str, dict] = {}
        rule = "copy"
        for path, operation in self.steps:
            rule = chained(rule, own := rule_of(operation))
            if isinstance(operation, layers.Layer):
                calls = found.get(path, {"calls": 0})["calls"] + 1
                name = type(operation).__name__
                found[path] = {"path": path, "class": name, "calls": calls, "rule": own, "cumulative": rule}
        for path, layer in found.items():
            layer["from"] = [self.sources[f"{path}/{call}"] for call in range(layer["calls"])]
        return list(found.values()), rule


@dataclasses.dataclass
class Run:
    """One run of a model: its outputs and what made each, and everything inside."""

    outputs: list[np.ndarray]
    sources: list[list[str]]
    calls: Calls

    def of_layers(self, kind: str) -> Tensors:
        """What the layers gave, as `layers/<path>/<call>/<kind>_<k>`."""
        return {
            f"{place}/{kind}_{name.removeprefix('out_')}": tensor
            for (place, name), tensor in ((key.rsplit("/", 1), t) for key, t in self.calls.tensors.items())
            if name.startswith("out_")
        }


def run(model: keras.Model, arrays: list[np.ndarray]) -> Run:
    # Keras does not mix tensors and texts; arrays it makes tensors of itself.
    inputs = list(arrays) if any(map(is_text, arrays)) else [keras.ops.convert_to_tensor(array) for array in arrays]
    with Calls(inputs) as calls:
        results = keras.tree.flatten(model(arranged(model, inputs), training=False))
        sources = [calls.from_(result) for result in results]
    return Run([keras.ops.convert_to_numpy(t) for t in results], sources, calls)


# ----------------------------------------------------------------------------
# The float64 truth and the second backend
# ----------------------------------------------------------------------------


def widened(config: object) -> object:
    """A layer's config with every float32 dtype and policy turned into float64."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" and config["config"] == {"name": "float32"}:
            return {**config, "config": {"name": "float64"}}
        return {k: "float64" if k == "dtype" and v == "float32" else widened(v) for k, v in config.items()}
    return [widened(v) for v in config] if isinstance(config, list) else config


@contextlib.contextmanager
def exact_constants() -> Iterator[None]:
    """TensorFlow rounds the constants of two activations to float32 also in float64."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    def leaky_relu(x, alpha):
        return tf.where(x > 0, x, x * tf.constant(alpha, x.dtype))

    def gelu(x, approximate):
        if approximate:
            root = tf.sqrt(tf.constant(2.0 / np.pi, x.dtype))
            return 0.5 * x * (1.0 + tf.tanh(root * (x + tf.constant(0.044715, x.dtype) * x**3)))
        return 0.5 * x * tf.math.erfc(-x / tf.sqrt(tf.constant(2.0, x.dtype)))

    before = tf.nn.leaky_relu, tf.nn.gelu
    tf.nn.leaky_relu, tf.nn.gelu = leaky_relu, gelu
    try:
        yield
    finally:
        tf.nn.leaky_relu, tf.nn.gelu = before


def every_layer(model: keras.Model) -> list[layers.Layer]:
    return [model, *model._flatten_layers()]


def is_single_precision(model: keras.Model) -> bool:
    return not any(
        getattr(layer, "quantization_mode", None) or layer.compute_dtype in ("float16", "bfloat16", "float64")
        for layer in every_layer(model)
    )


def in_float64(model: keras.Model) -> keras.Model:
    """The same model and weights in float64."""
    wide = type(model).from_config(widened(model.get_config()))
    wide.set_weights([w.astype("float64") if w.dtype == "float32" else w for w in model.get_weights()])
    for layer in wide._flatten_layers():
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return wide


def truth_of(model: keras.Model, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> tuple[Tensors, Run]:
    """The same model, weights and inputs in float64, for every output in float32."""
    with exact_constants():
        exact = run(in_float64(model), [x.astype("float64") if x.dtype == "float32" else x for x in inputs])
    pairs = enumerate(zip(exact.outputs, outputs, strict=True))
    found = {f"truth_{i}": x for i, (x, y) in pairs if y.dtype == "float32"}
    if any(x.dtype != "float64" for x in found.values()):
        raise Disagreement("the truth is not float64 throughout")
    return found, exact


# ----------------------------------------------------------------------------
# Tolerances
# ----------------------------------------------------------------------------

RULES = {  # atol as a part of the largest output, rtol
    "copy": (0.0, 0.0),
    "elementwise": (5e-7, 1e-6),
    "contraction": (1e-6, 1e-6),
    "deep": (1e-5, 1e-6),
}
HALVES = {"float16": (5e-3, 5e-3), "bfloat16": (4e-2, 4e-2)}  # for every rule but copy


def rounded(value: float, mode: str = decimal.ROUND_HALF_EVEN) -> float:
    """Six significant digits."""
    return float(decimal.Context(prec=6, rounding=mode).create_decimal(value))


def is_float(array: np.ndarray) -> bool:
    return not is_text(array) and keras.backend.is_float_dtype(str(array.dtype))


def scale_of(array: np.ndarray) -> float:
    if is_text(array):
        return 0.0
    finite = np.abs(array[np.isfinite(array)].astype("float64"))
    return float(finite.max(initial=0.0))


def tolerance_for(rule: str, output: np.ndarray, computed_in: str | None = None, looser: float = 1.0) -> dict[str, float]:
    """The table's tolerance; `computed_in`: the dtype whose tolerance holds, where it is not that of the output."""
    if not is_float(output):
        rule = "copy"
    dtype = computed_in or str(output.dtype)
    part, rtol = HALVES[dtype] if dtype in HALVES and rule != "copy" else RULES[rule]
    atol = rounded(looser * part * scale_of(output), decimal.ROUND_CEILING)
    return {"atol": atol, "rtol": looser * rtol}


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference where both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    return scale_of(np.where(both, a, 0).astype("float64") - np.where(both, b, 0).astype("float64"))


# ----------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------


def numbered(kind: str, arrays: list[np.ndarray]) -> Tensors:
    return {f"{kind}_{i}": array for i, array in enumerate(arrays)}


def stored(name: str, array: np.ndarray) -> Tensors:
    """A tensor as io.safetensors has it: texts as their bytes, one after another, and where each begins and the last ends."""
    if not is_text(array):
        return {name: np.array(array, order="C")}
    texts = [text.encode() if isinstance(text, str) else text for text in array.flatten().tolist()]
    offsets = np.cumsum([0, *map(len, texts)], dtype="int64")
    return {name: np.frombuffer(b"".join(texts), "uint8"), f"{name}.offsets": offsets}


def packed(tensors: Tensors) -> bytes:
    flat = {k: v for name in tensors for k, v in stored(name, tensors[name]).items()}
    return safetensors.numpy.save({k: flat[k] for k in sorted(flat)})


def described(names: list[str], arrays: list[np.ndarray]) -> list[dict]:
    dtypes = ["string" if is_text(a) else str(a.dtype) for a in arrays]
    return [{"name": n, "shape": list(a.shape), "dtype": d} for n, a, d in zip(names, arrays, dtypes, strict=True)]


FOR_TRAINING = ("optimizer", "optimizer_weights", "metrics", "_metrics")


def digest_of(path: pathlib.Path) -> str:
    """The digest of the weights in a file: equal where every array has the same path, dtype, shape and bits.

    SHA-256 over the arrays, sorted by path: for each the path, a zero byte, numpy's name of the little-endian dtype, a zero
    byte, the shape, a zero byte, and the numbers. The vocabularies of a .keras stand among them.
    """
    entries: list[tuple[str, str, tuple[int, ...], bytes]] = []

    def add(file: h5py.File) -> None:
        def visit(name: str, node: object) -> None:
            if isinstance(node, h5py.Dataset):
                little = node.dtype.newbyteorder("<")
                entries.append((name, little.str, node.shape, np.asarray(node[()]).astype(little).tobytes()))

        file.visititems(visit)

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
                add(file)
            for name in archive.namelist():
                if name.startswith("assets/") and not name.endswith("/"):
                    entries.append((name, "|u1", (len(data := archive.read(name)),), data))
    else:
        with h5py.File(path) as file:
            add(file)
            if "model_weights" in file:
                root = "model_weights/"
                entries[:] = [(name[len(root) :], *rest) for name, *rest in entries if name.startswith(root)]
    digest = hashlib.sha256()
    for name, dtype, shape, data in sorted(entries, key=lambda entry: entry[0].encode()):
        if name.split("/")[0] not in FOR_TRAINING:
            digest.update(b"\0".join([name.encode(), dtype.encode(), ",".join(map(str, shape)).encode(), data]))
    return f"sha256:{digest.hexdigest()}"


def write(path: pathlib.Path, data: bytes) -> None:
    """Beside, then renamed: what was there before is whole, or this is."""
    if path.is_file() and path.read_bytes() == data:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    os.replace(beside, path)


def as_json(facts: dict) -> bytes:
    return (json.dumps(facts, indent=1) + "\n").encode()


def provenance() -> dict:
    versions = {}
    for name, packages in {"tensorflow": ("tensorflow-cpu", "tensorflow"), "jax": ("jax",), "numpy": ("numpy",)}.items():
        for package in packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(package)
                break
    return {
        "keras_version": keras.__version__,
        "backend": keras.backend.backend(),
        "versions": versions | {"python": platform.python_version()},
        "flags": {"TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")},
    }


# ----------------------------------------------------------------------------
# Inputs
# ----------------------------------------------------------------------------

PASSED_THROUGH = (  # layers and operations behind which an input is still what it was
    "Identity Dropout Reshape Flatten Permute RepeatVector ExpandDims Squeeze Cast GetItem StopGradient Transpose Copy"
).split()
WORDS = ("the", "a", "house", "is", "red", "and", "not", "blue", "very", "old")


def graph_of(model: keras.Model) -> keras.Model:
    """The Functional model that a Sequential one keeps within."""
    return model if isinstance(model, keras.src.models.Functional) else getattr(model, "_functional", model)


def consumers(model: keras.Model, index: int, depth: int = 0) -> Iterator[keras.Operation]:
    """The operations that input number `index` reaches as it is, into nested models too."""
    graph = graph_of(model)
    tensors, seen = [graph.inputs[index]], set()
    nodes = [node for operation in graph.operations for node in operation._inbound_nodes]
    while tensors:
        tensor = tensors.pop()
        for node in nodes:
            given = [k for k, other in enumerate(node.input_tensors) if other is tensor]
            if not given or (id(node), id(tensor)) in seen:
                continue
            seen.add((id(node), id(tensor)))
            operation = node.operation
            if isinstance(operation, keras.Model) and hasattr(graph_of(operation), "operations") and depth < 20:
                for k in given:
                    if k < len(graph_of(operation).inputs):
                        yield from consumers(operation, k, depth + 1)
            elif type(operation).__name__ in PASSED_THROUGH:
                tensors += node.output_tensors
            else:
                yield getattr(operation, "layer", operation) if isinstance(operation, layers.TimeDistributed) else operation


@dataclasses.dataclass
class Input:
    """An input of the model, and what its numbers mean as far as the layers behind it tell."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    behind: list[keras.Operation]
    model: keras.Model

    def first(self, *classes: str) -> keras.Operation | None:
        return next((operation for operation in self.behind if type(operation).__name__ in classes), None)

    @property
    def ids(self) -> int | None:
        """How many ids there are, where it takes ids."""
        if embedding := self.first("Embedding", "ReversibleEmbedding"):
            return embedding.input_dim
        if encoding := self.first("CategoryEncoding"):
            return encoding.num_tokens
        if "int" in self.dtype and self.dtype != "uint8":
            # Behind something we do not follow: no more than any Embedding has.
            known = [x.input_dim for x in every_layer(self.model) if hasattr(x, "input_dim") and hasattr(x, "mask_zero")]
            return min(known, default=10)
        return None

    @property
    def is_padded(self) -> bool:
        return any(getattr(operation, "mask_zero", False) for operation in self.behind)

    def sized(self, rows: int, length: int) -> tuple[int, ...]:
        """The shape with free axes filled, each by another length, the same for the same axis of other inputs."""
        batch, *rest = self.shape
        return (batch or rows, *(axis or length + 2 * k for k, axis in enumerate(rest)))


def inputs_of(model: keras.Model) -> list[Input]:
    found = []
    for i, tensor in enumerate(model.inputs):
        name = tensor._keras_history.operation.name
        found.append(Input(name, tuple(tensor.shape), str(tensor.dtype), list(consumers(model, i)), model))
    return found


def padded_rows(array: np.ndarray, empty: object, empty_row: bool) -> np.ndarray:
    """Rows that end early, begin late, have a hole, are whole, and, where asked, are all padding: as many as there are rows."""
    if array.ndim < 2 or array.shape[1] < 2:
        return array
    array, steps = array.copy(), array.shape[1]
    part = max(1, steps // 3)
    parts = [slice(steps - part, None), slice(0, part), slice(part, part + 1), slice(0, 0), slice(0, None if empty_row else 0)]
    for row, steps_of_row in enumerate(parts[: len(array)]):
        array[row, steps_of_row] = empty
    return array


def made(given: Input, shape: tuple[int, ...], rng: np.random.Generator, extreme: bool, empty_row: bool) -> np.ndarray:
    """Numbers that the input may get, or the extremes of them; where something masks, with a row that is all padding or not."""
    count = int(np.prod(shape))
    cycle = lambda values: np.resize(np.array(values), count).reshape(shape)
    if given.dtype == "string":
        return texts(given, shape, rng, extreme)
    if given.dtype == "bool" or (len(shape) == 2 and "mask" in given.name and given.dtype in ("int32", "int64")):
        flags = np.ones(shape, bool) if extreme else rng.random(shape) < 0.7
        return flags.astype(given.dtype)
    if lookup := given.first("IntegerLookup"):
        known = [int(word) for word in lookup.get_vocabulary(include_special_tokens=False)] or [1, 2, 3]
        values = [*known, max(known) + 7, -5, 0]
        return cycle(values[::-1] if extreme else rng.permutation(values)).astype(given.dtype)
    if given.first("Hashing", "HashedCrossing") and "int" in given.dtype:
        return (cycle([0, -1, 2**31 - 1]) if extreme else rng.integers(0, 1000, shape)).astype(given.dtype)
    if (ids := given.ids) is not None and ("int" in given.dtype or given.first("Embedding", "ReversibleEmbedding")):
        if extreme:
            drawn = cycle([ids - 1, 0, ids - 1, ids // 2])
        else:
            drawn = rng.integers(min(1, ids - 1), ids, shape)
            drawn.flat[0], drawn.flat[-1] = ids - 1, 0
        array = drawn.astype(given.dtype)
        return padded_rows(array, 0, empty_row) if given.is_padded and not extreme else array
    if given.dtype == "uint8":
        return (cycle([0, 255, 128]) if extreme else rng.integers(0, 256, shape)).astype("uint8")
    if "int" in given.dtype:
        return (cycle([0, 9]) if extreme else rng.integers(0, 10, shape)).astype(given.dtype)
    numbers = rng.standard_normal(shape)
    if extreme:
        # Rows of large, of tiny and of no numbers.
        numbers *= np.resize([30.0, 1e-4, 0.0], shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
    if (rescaling := given.first("Rescaling")) is not None and np.all(np.abs(rescaling.scale) < 0.1):
        return (cycle([0, 255, 1, 254]) if extreme else rng.integers(0, 256, shape)).astype(given.dtype)
    if normalization := given.first("Normalization"):
        mean, variance = (np.asarray(x) for x in (normalization.mean, normalization.variance))
        if mean is not None and mean.shape:
            with contextlib.suppress(ValueError):
                numbers = mean + np.sqrt(variance) * numbers
    if discretization := given.first("Discretization"):
        edges = [float(x) for x in discretization.bin_boundaries or [0.0]]
        values = [edges[0] - 1, *edges, *((a + b) / 2 for a, b in zip(edges, edges[1:])), edges[-1] + 1]
        numbers = cycle(values if extreme else rng.permutation(values))
    if "mask" in given.name and len(shape) == 2:
        numbers = (rng.random(shape) < 0.7) | (np.arange(shape[1]) == 0)
    array = numbers.astype(given.dtype)
    if masking := given.first("Masking"):
        return padded_rows(array, masking.mask_value, empty_row) if not extreme else array
    return array


def texts(given: Input, shape: tuple[int, ...], rng: np.random.Generator, extreme: bool) -> np.ndarray:
    """Words of the vocabulary and others; for TextVectorization sentences of them."""
    words = list(WORDS)
    if lookup := given.first("StringLookup", "TextVectorization"):
        words = [str(word) for word in lookup.get_vocabulary(include_special_tokens=False)][:50] or words
    count = int(np.prod(shape))
    if given.first("TextVectorization"):
        sentence = lambda: " ".join(rng.choice([*words, "unheard-of", "Upper,"], rng.integers(1, 9)))
        made_up = ["", "!?", " ".join(words[:30]), "Ünïcode"] if extreme else [sentence() for _ in range(count)]
    else:
        made_up = ["", "Ünïcode", words[0].upper()] if extreme else list(rng.permutation([*words, "unheard-of"]))
    return np.resize(np.array(made_up, dtype=object), count).reshape(shape)


# ----------------------------------------------------------------------------
# A model's cases
# ----------------------------------------------------------------------------

SETS = {  # rows, the lengths that are tried for free axes
    "ordinary": (5, (7, 33, 65, 224)),
    "other": (2, (12, 48, 96, 256)),
    "extreme": (3, (5, 32, 64, 224)),
}
PART_OF_LIMIT = {"truth": "each layer's truth", "jax": "each layer on JAX"}


@dataclasses.dataclass
class Options:
    """What was asked for."""

    model: pathlib.Path
    weights: pathlib.Path | None
    out: pathlib.Path
    is_beside: bool  # the cases lie beside the model, which stays where it is
    given: pathlib.Path | None
    layers: list[str]
    limit: int
    seed: int
    perturb: bool
    unsafe: bool


def say(text: str) -> None:
    print(text, flush=True)


def read_given(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name: .npz, .safetensors, .json; a .npy has one without."""
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".npy":
        return {"": np.load(path)}
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        return {name: np.array(x) for name, x in value.items()} if isinstance(value, dict) else {"": np.array(value)}
    raise Problem(f"{path}: expected .npz, .npy, .safetensors or .json")


def arrays_given(path: pathlib.Path, signature: list[Input]) -> list[np.ndarray]:
    """The user's own arrays, in the order of the model's inputs and of its dtypes."""
    found = read_given(path)
    names = [given.name for given in signature]
    if list(found) == [""] and len(names) == 1:
        found = {names[0]: found[""]}
    if missing := [name for name in names if name not in found]:
        raise Problem(f"{path}: no array named {', '.join(missing)}; the model's inputs are {', '.join(names)}")
    if unknown := [name for name in found if name not in names]:
        raise Problem(f"{path}: {', '.join(map(repr, unknown))} is no input; the model's are {', '.join(names)}")
    arrays = []
    for given in signature:
        array = found[given.name]
        if given.dtype == "string":
            array = np.array([str(x) for x in array.flatten()], dtype=object).reshape(array.shape)
        else:
            array = array.astype(given.dtype)
        if array.ndim != len(given.shape) or any(axis not in (None, size) for axis, size in zip(given.shape[1:], array.shape[1:])):
            raise Problem(f"{path}: {given.name}: expected {given.shape}, found {array.shape}")
        arrays.append(array)
    return arrays


def arrays_made(model: keras.Model, name: str, signature: list[Input], seed: int) -> tuple[list[np.ndarray], Run]:
    """The numbers of a set, and the run that shows that the model takes them."""
    rows, lengths = SETS[name]
    problem: Exception | None = None
    has_free_axes = any(None in given.shape[1:] for given in signature)
    for length in lengths if has_free_axes else lengths[:1]:
        # What is not finite shows nothing: a mean over no steps, or numbers that are too large for the model.
        for empty_row, smaller in ((True, 1), (False, 1), (False, 10), (False, 100), (False, 1000)):
            rng = np.random.default_rng(zlib.crc32(f"{name} {seed}".encode()))
            arrays = [made(given, given.sized(rows, length), rng, name == "extreme", empty_row) for given in signature]
            arrays = [(x / smaller).astype(x.dtype) if is_float(x) else x for x in arrays]
            try:
                ran = run(model, arrays)
            except Exception as error:  # noqa: BLE001 (Keras raises what it likes)
                problem = error
                break
            if all(np.isfinite(y).all() for y in ran.outputs if is_float(y)):
                return arrays, ran
            problem = Problem("the outputs are not finite")
    raise Problem(f"{name}: Keras does not run it: {one_line(problem)}")


def one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:300] or type(problem).__name__


def is_same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one, other))


def answers_of_jax(options: Options, sets: dict[str, list[np.ndarray]]) -> tuple[dict[str, Tensors], str | None]:
    """What JAX gives for each set, or why there is nothing."""
    if keras.backend.backend() == "jax":
        return {}, "TensorFlow is not installed, so that JAX is the only backend"
    if importlib.util.find_spec("jax") is None:
        return {}, "jax is not installed"
    if any(is_text(array) for arrays in sets.values() for array in arrays):
        return {}, "JAX has no texts"
    with tempfile.TemporaryDirectory() as temporary:
        stage = pathlib.Path(temporary)
        for name, arrays in sets.items():
            (stage / f"{name}.inputs").write_bytes(packed(numbered("input", arrays)))
        command = [sys.executable, __file__, str(options.model), REPLAY, temporary]
        command += ["--weights", str(options.weights)] if options.weights else []
        command += ["--unsafe"] if options.unsafe else []
        command += [part for module in CUSTOM for part in ("--custom", str(module))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return {}, one_line((done.stderr.strip().splitlines() or ["it stopped"])[-1])
        return {name: safetensors.numpy.load_file(stage / f"{name}.jax") for name in sets}, None


def replay(model: keras.Model, stage: pathlib.Path) -> None:
    """Under JAX: what the model gives for the inputs of each set."""
    for path in sorted(stage.glob("*.inputs")):
        inputs = safetensors.numpy.load_file(path)
        reset(model)
        ran = run(model, [inputs[f"input_{i}"] for i in range(len(inputs))])
        outputs = {name: array for name, array in numbered("jax", ran.outputs).items() if not is_text(array)}
        beside = {name: array for name, array in ran.of_layers("jax").items() if not is_text(array)}
        path.with_suffix(".jax").write_bytes(packed(outputs | beside))


def reset(model: keras.Model) -> None:
    """A stateful layer begins anew."""
    for layer in every_layer(model):
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
            layer.reset_states()
        elif getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()


def perturb(model: keras.Model, seed: int) -> int:
    """Moves weights that are all 0 or all 1, which hide mistakes; how many there were."""
    rng, moved = np.random.default_rng(seed), 0
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if keras.backend.is_float_dtype(str(weight.dtype)) and value.size and np.ptp(value) == 0 and value.flat[0] in (0, 1):
            step = rng.uniform(0.1, 0.4, value.shape)
            is_spread = value.flat[0] == 1 or "variance" in weight.name
            weight.assign(value + step * (1.0 if is_spread else rng.choice([-1.0, 1.0], value.shape)))
            moved += 1
    return moved


def untrained(model: keras.Model) -> list[str]:
    """The weights that are all 0 or all 1, as they are before training."""
    found = []
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if keras.backend.is_float_dtype(str(weight.dtype)) and value.size > 1 and np.ptp(value) == 0 and value.flat[0] in (0, 1):
            found.append(getattr(weight, "path", weight.name))
    return found


def within(tensors: Tensors, sizes: dict[str, int], calls: list[str], limit: int) -> tuple[set[str], set[str], int]:
    """What of the layers is kept: the kinds of tensors beside, the calls, and how many bytes these take."""
    of_calls = {call: 0 for call in calls}
    beside = {kind: 0 for kind in PART_OF_LIMIT}
    rest = 0
    for key, size in sizes.items():
        if not key.startswith("layers/"):
            rest += size
        elif (kind := key.rsplit("/", 1)[1].rsplit("_", 1)[0]) in beside:
            beside[kind] += size
        else:
            of_calls[key.removeprefix("layers/").rsplit("/", 1)[0]] += size
    total = rest + sum(of_calls.values()) + sum(beside.values())
    kinds = set(beside)
    for kind in ("jax", "truth"):
        if total > limit:
            total -= beside[kind]
            kinds.discard(kind)
    kept = list(of_calls)
    if total > limit:
        # Evenly along the depth, so that what is wrong lies between two that are known.
        for every in range(2, len(kept) + 1):
            chosen = kept[every - 1 :: every]
            if (total := rest + sum(of_calls[call] for call in chosen)) <= limit:
                kept = chosen
                break
        else:
            kept, total = [], rest
    return kinds, set(kept), total


def record_set(name: str, arrays: list[np.ndarray], ran: Run, model: keras.Model, wide: keras.Model | None) -> dict:
    """What TensorFlow and float64 give for a set: tensors, and why there is no truth."""
    tensors = numbered("input", arrays) | numbered("output", ran.outputs) | ran.calls.tensors
    found = {"tensors": tensors, "arrays": arrays, "ran": ran, "without_truth": None}
    if wide is None:
        return found
    try:
        with exact_constants():
            reset(wide)
            exact = run(wide, [x.astype("float64") if x.dtype == "float32" else x for x in arrays])
        truths = {f"truth_{i}": x for i, (x, y) in enumerate(zip(exact.outputs, ran.outputs)) if y.dtype == "float32"}
        if any(x.dtype != "float64" for x in truths.values()):
            raise Disagreement("something in it computes in float32 whatever it is told")
        tensors |= truths
        tensors |= of_float32(exact.of_layers("truth"), ran, "float64")
    except Exception as error:  # noqa: BLE001
        found["without_truth"] = one_line(error)
    return found


def of_float32(tensors: Tensors, ran: Run, dtype: str) -> Tensors:
    """Those of `layers/<path>/<call>/<kind>_<k>` that are in `dtype` and whose `out_k` is in float32."""
    kept = {}
    for key, tensor in tensors.items():
        place, name = key.rsplit("/", 1)
        out = ran.calls.tensors.get(f"{place}/out_{name.rsplit('_', 1)[1]}")
        if out is not None and out.dtype == "float32" and tensor.dtype == dtype and out.shape == tensor.shape:
            kept[key] = tensor
    return kept


NOISE = 10.0  # times the table's tolerance: what is further apart is no rounding


def excess(rule: str, output: np.ndarray, other: np.ndarray) -> float:
    """How far two of Keras's own answers are apart, as a part of what the table allows."""
    tolerance = tolerance_for(rule if rule != "copy" else "elementwise", output)
    both = np.isfinite(output) & np.isfinite(other)
    ours = np.where(both, output, 0).astype("float64")
    allowed = tolerance["atol"] + tolerance["rtol"] * np.abs(ours)
    apart = np.abs(ours - np.where(both, other, 0))
    worst = float(np.max(apart / np.where(allowed > 0, allowed, 1.0), initial=0.0))
    return worst if np.array_equal(np.isfinite(output), np.isfinite(other)) else np.inf


def loosened(rule: str, found: dict) -> tuple[float, str | None]:
    """By how much the table's tolerance is widened where Keras's own answers are further apart, and why.

    What is too far apart for rounding is another function: it is left out, and nothing is widened for it.
    """
    looser, because, tensors = 1.0, None, found["tensors"]
    for kind, who, missing in (("jax", "JAX", "without_jax"), ("truth", "the same model in float64", "without_truth")):
        pairs = [(y, tensors[f"{kind}_{i}"]) for i, y in enumerate(found["ran"].outputs) if f"{kind}_{i}" in tensors]
        pairs = [(y, other) for y, other in pairs if is_float(y)]
        worst = max((excess(rule, y, other) for y, other in pairs if y.shape == other.shape), default=0.0)
        if worst > NOISE or any(y.shape != other.shape for y, other in pairs):
            apart = max((gap(y, other) for y, other in pairs if y.shape == other.shape), default=np.inf)
            found[missing] = f"{who} gives something else, {apart:.1e} away"
            for key in [key for key in tensors if key.rsplit("/", 1)[-1].startswith(f"{kind}_")]:
                del tensors[key]
        elif 2 * worst > looser:
            looser = rounded(2 * worst, decimal.ROUND_CEILING)
            because = f"Keras and {who} are {max(gap(y, other) for y, other in pairs):.1e} apart; twice that is allowed"
    return looser, because


def finished(name: str, found: dict, model: keras.Model, options: Options, facts: dict) -> dict[str, bytes]:
    """case.json and io.safetensors of a set."""
    tensors, ran = found["tensors"], found["ran"]
    steps, rule = ran.calls.chain()
    looser, because = loosened(rule, found)
    if options.layers:
        chosen = lambda path: any(pathlib.PurePath(path).match(pattern) for pattern in options.layers)
        steps = [step for step in steps if chosen(step["path"])]
    calls = [f"{step['path']}/{call}" for step in steps for call in range(step["calls"])]
    prefixes = tuple(f"layers/{call}/" for call in calls)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("layers/") or k.startswith(prefixes)}
    sizes = {k: sum(part.nbytes for part in stored(k, v).values()) for k, v in tensors.items()}
    kinds, kept, total = within(tensors, sizes, calls, options.limit)
    # Of a layer all calls or none: its number of calls is what is counted.
    whole = [s for s in steps if all(f"{s['path']}/{call}" in kept for call in range(s["calls"]))]
    kept = {f"{s['path']}/{call}" for s in whole for call in range(s["calls"])}

    def is_kept(key: str) -> bool:
        if not key.startswith("layers/"):
            return True
        place, last = key.removeprefix("layers/").rsplit("/", 1)
        kind = last.rsplit("_", 1)[0]
        return place in kept and (kind not in PART_OF_LIMIT or kind in kinds)

    tensors = {key: tensor for key, tensor in tensors.items() if is_kept(key)}
    rule_of_case = rule if because is None or rule != "copy" else "elementwise"
    tolerances = [tolerance_for(rule_of_case, y, computed_in(model, y), looser) for y in ran.outputs]
    names = [t._keras_history.operation.name for t in model.outputs]
    outputs = [
        said | {"tolerance": tolerance, "from": sources}
        for said, tolerance, sources in zip(described(names, ran.outputs), tolerances, ran.sources, strict=True)
    ]
    noise = {"scale": rounded(max(map(scale_of, ran.outputs), default=0.0))}
    for kind in ("jax", "truth"):
        gaps = [gap(other, y) for i, y in enumerate(ran.outputs) if (other := tensors.get(f"{kind}_{i}")) is not None and is_float(y)]
        noise[f"tf_vs_{kind}_max_abs"] = rounded(max(gaps)) if gaps else None
    for key in ("without_truth", "without_jax"):
        if found.get(key):
            noise[key] = found[key]
    case = facts | {"says": SAYS[name]}
    case |= {
        "inputs": described([t._keras_history.operation.name for t in model.inputs], found["arrays"]),
        "outputs": outputs,
        "compute_dtype": graph_of(model).layers[-1].compute_dtype,
        "rule": rule_of_case,
    }
    if because:
        case["because"] = because
    case |= {"noise": noise, "layers": whole}
    if left_out := len(calls) - len(kept):
        case |= {"left_out": left_out, "limit_bytes": options.limit}
    case |= provenance() | {"seed": options.seed}
    found |= {"left_out": left_out, "kinds": kinds, "total": total, "noise": noise, "because": because, "calls": len(kept)}
    return {"io.safetensors": packed(tensors), "case.json": as_json(case)}


SAYS = {
    "ordinary": "Several rows, odd lengths, padded rows and the first and last id.",
    "other": "Another number of rows and other lengths.",
    "extreme": "Large, tiny and no numbers; the outermost ids.",
    "given": "The inputs that were given.",
}


def computed_in(model: keras.Model, output: np.ndarray) -> str | None:
    """The coarsest dtype that anything in the model computes in, where the output itself is finer."""
    if not is_float(output):
        return None
    dtypes = {layer.compute_dtype for layer in every_layer(model)}
    return next((dtype for dtype in ("bfloat16", "float16") if dtype in dtypes), None)


# ----------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------

CUSTOM: list[pathlib.Path] = []


def version_in(path: pathlib.Path) -> str | None:
    """The version of Keras that wrote the file, as far as it says."""
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text()).get("keras_version")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("metadata.json")).get("keras_version")
        with h5py.File(path) as file:
            version = file.attrs.get("keras_version")
            return version.decode() if isinstance(version, bytes) else version
    except (OSError, KeyError, ValueError):
        return None


def opened(options: Options) -> keras.Model:
    path = options.model
    for file in filter(None, (path, options.weights, options.given)):
        if not file.is_file():
            raise Problem(f"{file}: no such file")
    written_by = version_in(path)
    try:
        model = load(path, options.weights, options.unsafe)
    except Exception as error:
        hint = ""
        told = str(error)
        if "Lambda" in told and "unsafe" in told.lower() or "safe_mode" in told:
            hint = "; --unsafe runs the Python code in it, if you trust the file (kandle never does)"
        elif written_by and written_by != keras.__version__ and "custom_objects" not in told:
            hint = f"; install the version that wrote it: pip install keras=={written_by}"
        elif "custom" in told.lower() or "register" in told.lower() or "Could not locate" in told:
            hint = "; --custom my_layers.py imports the module that defines your own classes"
        elif path.suffix == ".json" and options.weights is None:
            hint = "; give the weights with --weights"
        by = f" (written by Keras {written_by}, this is {keras.__version__})" if written_by else ""
        raise Problem(f"{path}: Keras cannot open it{by}: {one_line(error)}{hint}") from error
    if path.suffix == ".json" and options.weights is None:
        raise Problem(f"{path}: an architecture without weights; give them with --weights FILE")
    if not hasattr(graph_of(model), "operations") or not getattr(model, "inputs", None):
        raise Problem(f"{path}: {type(model).__name__} is neither Sequential nor Functional: its graph is in Python code alone")
    if written_by and written_by.split(".")[0] != keras.__version__.split(".")[0]:
        say(
            f"warning: Keras {written_by} wrote it and this is Keras {keras.__version__}. kandle gives a file the meaning of the\n"
            "  version that wrote it, so numbers may differ where the two do (hard_sigmoid, masks, epsilon …). Rather save the\n"
            "  model as .keras first, and record that file."
        )
    return model


def files_of(options: Options, stage: pathlib.Path, model: keras.Model) -> tuple[str, dict[str, pathlib.Path]]:
    """The model's file as its cases name it, and the files to lie in the folder of the cases."""
    if options.perturb:
        moved = perturb(model, options.seed)
        say(f"perturbed: {moved} weights that were all 0 or all 1, in a copy of the model")
        model.save(stage / "perturbed.keras")
        options.model, options.weights = stage / "perturbed.keras", None
        return "../perturbed.keras", {"perturbed.keras": options.model}
    if options.weights is None:
        if options.is_beside:
            return f"../../{options.model.name}", {}
        return f"../{options.model.name}", {options.model.name: options.model}
    if options.model.suffix == ".json":
        return "../model.json", {"model.json": options.model, "weights.h5": options.weights}
    return "../model.weights.h5", {"model.keras": options.model, "model.weights.h5": options.weights}


def record(options: Options) -> None:
    keras.utils.set_random_seed(options.seed)
    model = opened(options)
    with tempfile.TemporaryDirectory() as temporary:
        stage = pathlib.Path(temporary)
        file, beside = files_of(options, stage, model)
        if options.perturb:
            model = load(options.model)
        elif names := untrained(model):
            shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            say(f"warning: {len(names)} weights are all 0 or all 1 ({shown}), where a mistake does not show; --perturb records a copy with others")
        if own := sorted({type(layer).__name__ for layer in every_layer(model)[1:] if not isinstance(layer, keras.Model) and not is_known(layer)}):
            say(f"no rule for {', '.join(own)}: judged as `{UNKNOWN}`")
        signature = inputs_of(model)
        for given in signature:
            meaning = f", ids below {given.ids}" if given.ids is not None else ""
            say(f"input {given.name}: {given.dtype} {list(given.shape)}{meaning}")
        sets: dict[str, tuple[list[np.ndarray], Run]] = {}
        for name in ["given"] if options.given else SETS:
            reset(model)
            if options.given:
                arrays = arrays_given(options.given, signature)
                sets[name] = arrays, run(model, arrays)
                continue
            try:
                arrays, ran = arrays_made(model, name, signature, options.seed)
            except Problem as problem:
                if name == "ordinary":
                    raise
                say(f"{name}: left out, {problem}")
                continue
            if not any(is_same(arrays, others) for others, _ in sets.values()):
                reset(model)
                sets[name] = arrays, run(model, arrays)
        wide, without_truth = None, None
        if not is_single_precision(model):
            without_truth = "it does not compute in float32 throughout"
        else:
            try:
                wide = in_float64(model)
            except Exception as error:  # noqa: BLE001
                without_truth = one_line(error)
        found = {name: record_set(name, arrays, ran, model, wide) for name, (arrays, ran) in sets.items()}
        answers, without_jax = answers_of_jax(options, {name: arrays for name, (arrays, _) in sets.items()})
        digested = options.weights or options.model
        facts = {
            "format": 1,
            "class": type(model).__name__,
            "family": "recorded",
            "files": [file],
            "digests": {file: digest_of(digested)},
        }
        for name, of_set in found.items():
            of_set["without_truth"] = of_set["without_truth"] or without_truth
            of_set["without_jax"] = without_jax
            ran = of_set["ran"]
            for key, array in answers.get(name, {}).items():
                if key.startswith("layers/"):
                    of_set["tensors"] |= of_float32({key: array}, ran, "float32")
                elif str(ran.outputs[int(key.rsplit("_", 1)[1])].dtype) == str(array.dtype):
                    of_set["tensors"][key] = array
        written = {name: finished(name, of_set, model, options, facts) for name, of_set in found.items()}
        options.out.mkdir(parents=True, exist_ok=True)
        for target, source in beside.items():
            if not (options.out / target).exists() or not (options.out / target).samefile(source):
                write(options.out / target, source.read_bytes())
        for name in SAYS:
            if name not in written and (options.out / name / "case.json").is_file() and (name != "given" or options.given):
                shutil.rmtree(options.out / name)  # recorded earlier, of what no longer holds
        for name, files in written.items():
            (options.out / name).mkdir(exist_ok=True)
            for file_, data in files.items():
                write(options.out / name / file_, data)
    tell(options, found, written)


def tell(options: Options, found: dict[str, dict], written: dict[str, dict[str, bytes]]) -> None:
    for name, of_set in found.items():
        noise, size = of_set["noise"], sum(map(len, written[name].values()))
        parts = [f"{of_set['calls']} calls of layers", f"largest output {noise['scale']:.3g}"]
        for kind, who in (("jax", "JAX"), ("truth", "float64")):
            if (apart := noise[f"tf_vs_{kind}_max_abs"]) is not None:
                parts.append(f"{apart:.1e} from {who}")
        say(f"{options.out / name}: {', '.join(parts)}, {size / 1e6:.2f} MB")
        for key, what in (("without_truth", "no float64 truth"), ("without_jax", "nothing from JAX")):
            if noise.get(key):
                say(f"  {what}: {noise[key]}")
        if of_set["because"]:
            say(f"  the tolerance is wider than the table's: {of_set['because']}")
        for kind, what in PART_OF_LIMIT.items():
            if kind not in of_set["kinds"] and any(f"/{kind}_" in key for key in of_set["tensors"]):
                say(f"  without {what}: the limit is {options.limit / 1e6:.0f} MB")
        if of_set["left_out"]:
            say(
                f"  {of_set['left_out']} calls of layers are left out, evenly along the depth: record the part between the last\n"
                "  that is right and the first that is wrong with --layers 'PATTERN', or all with a larger --limit"
            )
    say(f"next:\n  kandle verify {options.out} --layers\n  kandle verify {options.out} --html report.html")


def bytes_of(text: str) -> int:
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "b": 1}
    number = text.lower().rstrip("kmgib")
    unit = text.lower()[len(number) :] or "b"
    if unit not in units:
        raise argparse.ArgumentTypeError(f"expected a size such as 64MB, found {text}")
    return int(float(number) * units[unit])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: pathlib.Path(text).expanduser()
    parser.add_argument("model", type=path, help=".keras, legacy .h5, or the text of model.to_json()")
    parser.add_argument("--weights", type=path, metavar="FILE", help="the weights, where they are in another file")
    parser.add_argument("--out", type=path, metavar="DIR", help="where the cases go, with a copy of the model (default: MODEL.case beside it, without)")
    parser.add_argument("--input", type=path, metavar="FILE", help="your own arrays by the names of the inputs: .npz, .npy, .safetensors, .json")
    parser.add_argument("--custom", type=path, action="append", default=[], metavar="FILE.py", help="a module with layers of your own, imported first")
    parser.add_argument("--layers", action="append", default=[], metavar="PATTERN", help="record these layers only, as 'conv5*'; may be repeated")
    parser.add_argument("--limit", type=bytes_of, default=16 * 10**6, metavar="SIZE", help="of each case, default 16MB; past it, layers are left out")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs that are made, default 0")
    parser.add_argument("--perturb", action="store_true", help="record a copy of the model whose zero biases and the like are moved")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the file (Lambda)")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument(REPLAY, type=path, metavar="STAGE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        for module in given.custom:
            CUSTOM.append(module.resolve())
            spec = importlib.util.spec_from_file_location(module.stem, module)
            if spec is None or spec.loader is None or not module.is_file():
                raise Problem(f"{module}: no Python module")
            sys.modules[module.stem] = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(module.resolve().parent))
            spec.loader.exec_module(sys.modules[module.stem])
        if given.replay:
            replay(load(given.model, given.weights, given.unsafe), given.replay)
            return 0
        is_beside = given.out is None and given.weights is None and not given.perturb
        out = given.out or given.model.with_suffix(".case")
        record(
            Options(
                given.model, given.weights, out, is_beside, given.input, given.layers, given.limit, given.seed, given.perturb, given.unsafe
            )
        )
    except Problem as problem:
        if given.traceback:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
