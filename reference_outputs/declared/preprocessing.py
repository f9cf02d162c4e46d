"""Preprocessing: numbers, categories, texts, sound and images."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers
from keras.src.layers.preprocessing.feature_space import TFDConcat, TFDIdentity
from keras.src.layers.preprocessing.index_lookup import IndexLookup

from .case import Cases, inputs_for, normal, records

TEXTS_ARE_TENSORFLOWS = {"without_jax": "texts and lookups are TensorFlow's alone"}


def words(*rows: list[str]) -> np.ndarray:
    return np.array(rows, dtype=object)


# ----------------------------------------------------------------------------
# Numbers
# ----------------------------------------------------------------------------


@records(layers.Rescaling)
def rescaling(case: Cases) -> None:
    case("scale", "The offset added before the scale.", lambda: layers.Rescaling(1 / 127.5, offset=-1), (2, 3, 2))
    bytes_ = np.array([[0, 1, 127, 255]], "uint8")
    case("uint8", "A product of integers.", lambda: layers.Rescaling(1 / 255), bytes_)
    case("each_channel", "One scale for all channels.", lambda: layers.Rescaling([1.5, -2.0, 0.1], [0.5, 0.0, 3.0]), (2, 2, 3))


@records(layers.Normalization)
def normalization(case: Cases) -> None:
    xs = lambda rng: 3 * normal(rng, 2, 3, 4) + np.float32(2)  # noqa: E731
    for name, says, options in [
        ("last", "The variance taken for the deviation.", {}),
        ("axis_1", "The statistics laid along the last axis.", {"axis": 1}),
        ("two_axes", "The statistics laid along one axis only.", {"axis": (1, 2)}),
        ("all", "axis = None: one mean for all.", {"axis": None}),
        ("invert", "The direction ignored.", {"invert": True}),
        ("given", "A mean in the config instead of in the weights.", {"mean": [1.0, 2.0, -1.0, 0.5], "variance": [4.0, 0.25, 1.0, 0.0]}),
        ("given_invert", "A mean in the config, and the direction.", {"mean": 2.0, "variance": 4.0, "axis": None, "invert": True}),
    ]:
        case(name, says, lambda options=options: layers.Normalization(**options), xs)

    @case.model("adapted", "The statistics learnt from data lost.", fill=False)
    def _(rng):
        layer = layers.Normalization()
        layer.adapt(normal(rng, 20, 3) * 5 + np.float32(1))
        return keras.Sequential([keras.Input((3,)), layer]), [normal(rng, 2, 3)]


# ----------------------------------------------------------------------------
# Categories
# ----------------------------------------------------------------------------


@records(layers.Discretization)
def discretization(case: Cases) -> None:
    xs = np.array([[-1.0, 0.0, 0.5, 0.49999], [1.5, 2.0, 1e30, -1e30]], "float32")
    for mode in ["int", "one_hot", "multi_hot", "count"]:
        fed = xs[:, :1] if mode == "one_hot" else xs
        says = "A number on a boundary belongs to the bin above."
        build = lambda mode=mode: layers.Discretization([0.0, 0.5, 2.0], output_mode=mode)  # noqa: E731
        case(mode, says, build, fed)
    case("special", "The bin of NaN and the infinities.", lambda: layers.Discretization([0.0, 0.5, 2.0]), np.array([[np.nan, np.inf, -np.inf, -0.0]], "float32"))
    ints = np.array([[-1, 0, 1, 5]], "int32")
    case("int32", "Integers binned.", lambda: layers.Discretization([0.0, 1.0, 4.0]), ints)


@records(layers.CategoryEncoding)
def category_encoding(case: Cases) -> None:
    ids = np.array([[0, 3, 3], [1, 1, 1], [2, 0, 1]], "int32")
    case("multi_hot", "An id counted twice.", lambda: layers.CategoryEncoding(4), ids)
    case("count", "An id counted once.", lambda: layers.CategoryEncoding(4, output_mode="count"), ids)
    case("one_hot", "An axis of length 1 kept.", lambda: layers.CategoryEncoding(4, output_mode="one_hot"), ids[:, 1:2])
    case("one_hot_wide", "An axis added or not.", lambda: layers.CategoryEncoding(5, output_mode="one_hot"), ids)
    case(
        "count_weights",
        "The weights ignored.",
        lambda: layers.CategoryEncoding(4, output_mode="count"),
        ids,
        (3, 3),
        call=lambda layer, xs, weights: layer(xs, count_weights=weights),
    )


INTS = np.array([[0, 1, 42], [-7, 2**40, 13]], "int64")
NAMES = words(["omar", "stringer", ""], ["marlo", "wire", "Ä"])


@records(layers.Hashing)
def hashing(case: Cases) -> None:
    for name, says, options in [
        ("plain", "Another hash than FarmHash of the digits.", {}),
        ("salt", "Another hash than SipHash with the two keys.", {"salt": [133, 137]}),
        ("salt_number", "One key for both.", {"salt": 17}),
        ("salt_negative", "A negative number refused: it stands for its 64 bits.", {"salt": [1, -2]}),
        ("mask", "Bin 0 given to others than the mask.", {"mask_value": "omar"}),
        ("one_hot", "Each value encoded, or all.", {"output_mode": "multi_hot"}),
    ]:
        build = lambda options=options: layers.Hashing(5, **options)  # noqa: E731
        case(f"strings_{name}", says, build, NAMES, **TEXTS_ARE_TENSORFLOWS)
        if "mask_value" in options:
            build = lambda: layers.Hashing(5, mask_value=42)  # noqa: E731
        case(f"ints_{name}", says, build, INTS, **TEXTS_ARE_TENSORFLOWS)


@records(layers.HashedCrossing)
def hashed_crossing(case: Cases) -> None:
    first, second = words(["A"], ["B"], ["A"]), np.array([[101], [101], [102]], "int64")
    case("int", "The two joined otherwise than by _X_.", lambda: layers.HashedCrossing(7), first, second, **TEXTS_ARE_TENSORFLOWS)
    case("one_hot", "An axis added.", lambda: layers.HashedCrossing(7, output_mode="one_hot"), first, second, **TEXTS_ARE_TENSORFLOWS)
    case("ints", "Numbers joined as bytes.", lambda: layers.HashedCrossing(5), second, second + 1, **TEXTS_ARE_TENSORFLOWS)


TF_IDF = "tf_idf"  # the weights stay in single precision also where the layer computes in double: no truth


@records(layers.IntegerLookup)
def integer_lookup(case: Cases) -> None:
    for name, says, options in [
        ("int", "The index of what is not in the vocabulary: 0 is its own.", {}),
        ("mask", "The mask's index.", {"mask_token": 0}),
        ("three_oov", "Unknown integers spread by their remainder.", {"num_oov_indices": 3}),
        ("no_oov", "-1 for what is unknown.", {"num_oov_indices": 0, "vocabulary": [0, 1, 42, -7, 2**40, 13]}),
        ("multi_hot", "The mask's column kept.", {"output_mode": "multi_hot", "mask_token": 0}),
        ("count", "Counted once.", {"output_mode": "count"}),
        ("tf_idf", "The count not multiplied by the weight.", {"output_mode": "tf_idf", "idf_weights": [0.5, 0.25, 1.5]}),
        ("invert", "The index of the unknown token.", {"invert": True}),
        ("max_tokens", "The columns padded, or not.", {"output_mode": "count", "max_tokens": 7, "pad_to_max_tokens": True}),
    ]:
        given = {"vocabulary": [42, -7, 13]} | options
        fed = np.array([[0, 1, 2], [3, 2, 7]], "int64") if name == "invert" else INTS
        case(name, says, lambda given=given: layers.IntegerLookup(**given), fed, truth=name != TF_IDF, **TEXTS_ARE_TENSORFLOWS)


@records(layers.StringLookup)
def string_lookup(case: Cases) -> None:
    for name, says, options in [
        ("int", "The index of what is not in the vocabulary: 0 is its own.", {}),
        ("mask", "The mask's index.", {"mask_token": ""}),
        ("three_oov", "Unknown texts spread by their hash.", {"num_oov_indices": 3}),
        ("no_oov", "-1 for what is unknown.", {"num_oov_indices": 0, "vocabulary": ["omar", "", "stringer", "marlo", "wire", "Ä"]}),
        ("one_hot", "A wrong column.", {"output_mode": "one_hot"}),
        ("multi_hot", "The mask's column kept.", {"output_mode": "multi_hot", "mask_token": ""}),
        ("count", "Counted once.", {"output_mode": "count"}),
        ("tf_idf", "The count not multiplied by the weight.", {"output_mode": "tf_idf", "idf_weights": [0.5, 0.25, 1.5]}),
        ("invert", "The unknown token's own name.", {"invert": True, "oov_token": "[?]"}),
    ]:
        given = {"vocabulary": ["stringer", "Ä", "omar"]} | options
        fed = np.array([[0, 1, 2], [3, 2, 1]], "int64") if name == "invert" else NAMES
        fed = fed[:, :1] if name == "one_hot" else fed
        case(name, says, lambda given=given: layers.StringLookup(**given), fed, truth=name != TF_IDF, **TEXTS_ARE_TENSORFLOWS)

    @case.model("adapted", "A vocabulary kept in the file's assets instead of in its config.", **TEXTS_ARE_TENSORFLOWS)
    def _(rng):
        layer = layers.StringLookup()
        layer.adapt(words(["b", "a"], ["a", "c"], ["a", "b"]))
        return keras.Sequential([keras.Input((2,), dtype="string"), layer]), [words(["a", "z"], ["c", "b"])]


@records(IndexLookup)
def index_lookup(case: Cases) -> None:
    given = {"max_tokens": None, "num_oov_indices": 1, "mask_token": None, "vocabulary_dtype": "int64", "oov_token": -1}
    for name, says, options in [
        ("int", "A class of Keras's own inside refused.", {}),
        ("mask", "The mask's index.", {"mask_token": 0}),
        ("count", "Counted once.", {"output_mode": "count"}),
    ]:
        build = lambda options=options: IndexLookup(vocabulary=[42, -7, 13], **given | options)  # noqa: E731
        case(name, says, build, INTS, **TEXTS_ARE_TENSORFLOWS)


LINES = words(["The quick, brown FOX!"], ["the  fox's den"], [""], ["Ünder the Über-fox."])


@records(layers.TextVectorization)
def text_vectorization(case: Cases) -> None:
    vocabulary = ["the", "fox", "quick", "the fox", "foxs", "über-fox", "überfox"]
    for name, says, options in [
        ("int", "Punctuation kept, or letters outside ASCII left large.", {}),
        ("length", "Not cut or padded to its length.", {"output_sequence_length": 3}),
        ("lower", "Punctuation stripped.", {"standardize": "lower"}),
        ("strip", "Made small.", {"standardize": "strip_punctuation", "vocabulary": ["The", "fox", "FOX"]}),
        ("as_it_is", "Anything done to the text.", {"standardize": None, "split": None, "vocabulary": ["the  fox's den"]}),
        ("characters", "Bytes taken for characters.", {"split": "character", "vocabulary": ["t", "h", "e", "ü", "ä"]}),
        ("ngrams", "The pairs in another place than behind all the words.", {"ngrams": 2}),
        ("ngrams_given", "The words themselves kept.", {"ngrams": (2,)}),
        ("multi_hot", "Padding counted.", {"output_mode": "multi_hot"}),
        ("count", "Counted once.", {"output_mode": "count"}),
        ("tf_idf", "The count not multiplied by the weight.", {"output_mode": "tf_idf", "idf_weights": [0.5, 0.25, 1.5, 1, 2, 3, 4]}),
    ]:
        given = {"vocabulary": vocabulary} | options
        case(name, says, lambda given=given: layers.TextVectorization(**given), LINES, truth=name != TF_IDF, **TEXTS_ARE_TENSORFLOWS)

    @case.model(
        "adapted_then_dense",
        "A vocabulary kept in the file's assets; texts at the front of a model.",
        truth=False,  # such a vocabulary is neither in the config nor among the weights
        **TEXTS_ARE_TENSORFLOWS,
    )
    def _(rng):
        layer = layers.TextVectorization(output_mode="multi_hot")
        layer.adapt(LINES)
        return keras.Sequential([keras.Input((1,), dtype="string"), layer, layers.Dense(2)]), [LINES]


@records(TFDConcat)
def tfd_concat(case: Cases) -> None:
    case("last", "The inputs in another order.", lambda: TFDConcat(axis=-1), (2, 1), (2, 3))
    case("axis_1", "Joined along the last axis.", lambda: TFDConcat(axis=1), (2, 1, 3), (2, 2, 3))
    case("ints", "Integers turned to floats, or not.", lambda: TFDConcat(axis=-1), np.array([[1], [2]], "int32"), (2, 2))


@records(TFDIdentity)
def tfd_identity(case: Cases) -> None:
    case("plain", "Anything done at all.", lambda: TFDIdentity(dtype="float32"), (2, 3))
    case("rank1", "An axis added.", lambda: TFDIdentity(), (3,))
    case("int32", "Integers turned to floats, or not.", lambda: TFDIdentity(), np.array([[3, -4]], "int32"))


# ----------------------------------------------------------------------------
# Sound
# ----------------------------------------------------------------------------


@records(layers.MelSpectrogram)
def mel_spectrogram(case: Cases) -> None:
    common = {"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 5, "sampling_rate": 800, "min_freq": 20}
    for name, says, options in [
        ("power", "The filters' edges, or the window.", {"power_to_db": False}),
        ("decibels", "Decibels cut at top_db below the largest.", {}),
        ("magnitude", "The square of the magnitude.", {"power_to_db": False, "mag_exp": 1.0, "window": "hamming", "max_freq": 300.0}),
    ]:
        case(name, says, lambda options=options: layers.MelSpectrogram(**common | options), (2, 200), truth=False)


@records(layers.STFTSpectrogram)
def stft_spectrogram(case: Cases) -> None:
    common = {"frame_length": 16, "frame_step": 8, "fft_length": 16}
    for name, says, options in [
        ("magnitude", "The window not scaled.", {"mode": "magnitude"}),
        ("log", "The least magnitude, or the logarithm's base.", {"mode": "log"}),
        ("real", "The imaginary part.", {"mode": "real", "scaling": "spectrum"}),
        ("imag_same", "The sign of the imaginary part; padding.", {"mode": "imag", "padding": "same"}),
        ("phase_dims", "Two axes swapped.", {"mode": "psd", "window": None, "scaling": None, "expand_dims": True, "periodic": True}),
    ]:
        case(name, says, lambda options=options: layers.STFTSpectrogram(**common | options), (2, 40, 2))


# ----------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------


def image(*shape: int, dtype: str = "float32", largest: float = 255.0) -> Callable[[np.random.Generator], np.ndarray]:
    def drawn(rng: np.random.Generator) -> np.ndarray:
        return (rng.random(shape) * largest).astype(dtype)

    return drawn


@records(layers.Resizing)
def resizing(case: Cases) -> None:
    fed = image(2, 5, 4, 2)
    for name in ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"]:
        odd = {}
        if name == "bicubic":
            odd = {"because": "TensorFlow reads its cubic from a table of 1024 steps, JAX computes it", "looser": 10000.0}
        for size, height, width in [("up", 7, 9), ("down", 3, 2)]:
            if name.startswith("lanczos5") and size == "up":
                continue
            without_jax = "Keras on JAX smooths when it makes an image smaller" if size == "down" else None
            case(
                f"{name}_{size}",
                "Corners aligned, pixels not taken at their middle, or another window.",
                lambda name=name, height=height, width=width: layers.Resizing(height, width, interpolation=name),
                fed,
                truth=False,
                without_jax=without_jax,
                **odd,
            )
    for name, says, options, kwargs in [
        ("antialias", "antialias ignored.", {"antialias": True}, {}),
        ("crop", "Cropped after the resizing.", {"crop_to_aspect_ratio": True}, {"without_jax": "smoothing"}),
        ("pad", "Padded at the end.", {"pad_to_aspect_ratio": True, "fill_value": 7.0}, {"without_jax": "smoothing"}),
        ("channels_first", "The channels resized.", {"data_format": "channels_first"}, {"without_jax": "smoothing"}),
    ]:
        build = lambda options=options: layers.Resizing(3, 6, **options)  # noqa: E731
        case(name, says, build, image(2, 2, 6, 4) if name == "channels_first" else fed, truth=False, **kwargs)
    case(
        "uint8",
        "Bytes resized as bytes.",
        lambda: layers.Resizing(7, 3),
        image(2, 4, 4, 3, dtype="uint8"),
        truth=False,
        without_jax="smoothing",
    )


@records(layers.CenterCrop)
def center_crop(case: Cases) -> None:
    case("odd", "The odd row cut at the wrong end.", lambda: layers.CenterCrop(2, 3), image(2, 5, 4, 2))
    case("same", "Anything done at all.", lambda: layers.CenterCrop(4, 3), image(2, 4, 3, 2))
    case("too_large", "An image that is too small: Keras resizes it.", lambda: layers.CenterCrop(6, 5), image(2, 5, 4, 2), truth=False, without_jax="smoothing")
    case("channels_first", "The channels cut.", lambda: layers.CenterCrop(2, 2, data_format="channels_first"), image(2, 3, 5, 4))
    case("uint8", "Bytes cut as bytes.", lambda: layers.CenterCrop(2, 2), image(2, 5, 4, 2, dtype="uint8"))


@records(layers.RandomCrop)
def random_crop(case: Cases) -> None:
    case("center", "A random place at inference: it is the middle.", lambda: layers.RandomCrop(3, 2, seed=1), image(2, 6, 4, 2), truth=False, without_jax="smoothing")
    case("same", "Anything done at all.", lambda: layers.RandomCrop(4, 3), image(2, 4, 3, 2), truth=False)
    case("too_large", "An image that is too small: Keras resizes it.", lambda: layers.RandomCrop(6, 6), image(2, 4, 5, 2), truth=False, without_jax="smoothing")


def equalizing(case: Cases, layer: type, **options: object) -> None:
    case("plain", "The least or largest number left out.", lambda: layer(**options), image(2, 6, 5, 3), truth=False)
    case("unit_range", "Numbers taken to lie between 0 and 255.", lambda: layer(value_range=(0, 1), **options), image(2, 5, 4, 3, largest=1.0), truth=False)
    case("uint8", "Bytes reckoned as bytes.", lambda: layer(**options), image(2, 5, 4, 3, dtype="uint8"), truth=False)


@records(layers.AutoContrast)
def auto_contrast(case: Cases) -> None:
    equalizing(case, layers.AutoContrast)


@records(layers.Equalization)
def equalization(case: Cases) -> None:
    # Keras: the layer gives its symbolic input back, a cycle in a graph unless the input is converted before.
    for dtype in ["float16", "bfloat16", "float64"]:
        says = "An image changed at inference."
        case(dtype, says, lambda dtype=dtype: layers.Equalization(dtype=dtype), image(2, 6, 5, 3))


@records(layers.ContrastLimitedAdaptiveHistogramEqualization)
def clahe(case: Cases) -> None:
    equalizing(case, layers.ContrastLimitedAdaptiveHistogramEqualization, tile_grid_size=(2, 2))


@records(layers.MaxNumBoundingBoxes)
def max_num_bounding_boxes(case: Cases) -> None:
    case("plain", "Anything done to an image.", lambda: layers.MaxNumBoundingBoxes(4), image(2, 4, 3, 3))
    case("uint8", "Bytes left bytes, or not.", lambda: layers.MaxNumBoundingBoxes(4), image(2, 4, 3, 3, dtype="uint8"))
    case("fill", "Anything done to an image.", lambda: layers.MaxNumBoundingBoxes(2, fill_value=0), image(1, 3, 3, 1))


AT_REST: dict[type, dict] = {  # what does nothing at inference
    layers.RandomFlip: {"mode": "horizontal", "seed": 1},
    layers.RandomTranslation: {"height_factor": 0.3, "width_factor": 0.3},
    layers.RandomRotation: {"factor": 0.3, "fill_mode": "constant"},
    layers.RandomZoom: {"height_factor": 0.5, "width_factor": 0.5},
    layers.RandomBrightness: {"factor": 0.5},
    layers.RandomContrast: {"factor": 0.5},
    layers.RandomColorDegeneration: {"factor": 0.5},
    layers.RandomColorJitter: {"brightness_factor": 0.5, "contrast_factor": 0.5, "saturation_factor": 0.5, "hue_factor": 0.5},
    layers.RandomElasticTransform: {"factor": 1.0, "scale": 1.0},
    layers.RandomErasing: {"factor": 1.0},
    layers.RandomGaussianBlur: {"factor": 1.0, "kernel_size": 3},
    layers.RandomGrayscale: {"factor": 1.0},
    layers.RandomHue: {"factor": 0.5},
    layers.RandomInvert: {"factor": 1.0},
    layers.RandomPerspective: {"factor": 1.0},
    layers.RandomPosterization: {"factor": 4},
    layers.RandomSaturation: {"factor": 0.5},
    layers.RandomSharpness: {"factor": 0.5},
    layers.RandomShear: {"x_factor": (0.1, 0.3), "y_factor": (0.1, 0.3)},  # Keras can't load one with a single number
    layers.Solarization: {"addition_factor": 0.3, "threshold_factor": 0.4},
    layers.AugMix: {},
    layers.RandAugment: {},
    layers.CutMix: {},
    layers.MixUp: {},
}


def at_rest(layer: type, options: dict) -> None:
    @records(layer)
    def declare(case: Cases) -> None:
        says = "An image changed at inference."
        case("plain", says, lambda: layer(**options), image(2, 4, 3, 3))
        case("uint8", "Bytes left bytes, or not.", lambda: layer(**options), image(2, 3, 4, 3, dtype="uint8"))
        beyond = lambda rng: normal(rng, 2, 3, 3, 3) * 400  # noqa: E731
        case("beyond", "Numbers outside the range of values cut off.", lambda: layer(**options), beyond)


for layer, options in AT_REST.items():
    at_rest(layer, options)


@records(layers.Pipeline)
def pipeline(case: Cases) -> None:
    flips = lambda: [layers.RandomFlip(seed=1), layers.RandomContrast(0.5)]  # noqa: E731
    case("at_rest", "An image changed at inference.", lambda: layers.Pipeline(flips()), image(2, 4, 3, 3))
    case("rescaling", "Only the first of its layers run.", lambda: layers.Pipeline([*flips(), layers.Rescaling(1 / 255, -0.5)]), image(2, 4, 3, 3))
    case("equalization", "An image changed at inference.", lambda: layers.Pipeline([layers.Equalization()]), image(2, 4, 3, 3, dtype="uint8"))
    case("crop", "Only the last of its layers run.", lambda: layers.Pipeline([layers.CenterCrop(3, 2), layers.Rescaling(2.0)]), image(2, 5, 4, 3))
    # Keras: layers whose shapes it cannot plan for a dict take one inside a Pipeline.
    for name, build in [
        ("resizing", lambda: layers.Resizing(4, 7)),
        ("center_crop", lambda: layers.CenterCrop(3, 2)),
        ("random_crop", lambda: layers.RandomCrop(3, 2, seed=1)),
        ("color_degeneration", lambda: layers.RandomColorDegeneration(0.5)),
    ]:

        @case.model(f"{name}_of_dict", "A dict refused, or only its images changed.", truth=False, without_jax="smoothing")
        def _(rng, build=build):
            masks = rng.integers(0, 5, (2, 6, 5, 1)).astype("float32")
            arrays = [image(2, 6, 5, 3)(rng), np.array([3.0, 1.0], "float32"), masks]
            inputs = dict(zip(["images", "labels", "segmentation_masks"], inputs_for(*arrays), strict=True))
            return keras.Model(inputs, layers.Pipeline([build()])(inputs)), arrays

    # The last box ends up outside, so that its label is -1, and a box of zeros stands for none.
    boxes = np.array([[[1, 2, 4, 5], [0.5, 1, 2.5, 3.5], [0, 0, 0, 0], [9, 9, 11, 12]]], "float32")
    labels = np.array([[3, 0, 1, 2]], "int32")
    for name, build in [
        ("resizing", lambda: layers.Resizing(4, 7, bounding_box_format="xyxy")),
        ("resizing_crop", lambda: layers.Resizing(3, 7, crop_to_aspect_ratio=True, bounding_box_format="rel_xyxy")),
        ("center_crop", lambda: layers.CenterCrop(3, 2, bounding_box_format="xywh")),
        ("center_crop_small", lambda: layers.CenterCrop(9, 4, bounding_box_format="center_xywh")),
    ]:

        @case.model(f"{name}_of_boxes", "Boxes left where they were, or the label of one that is gone kept.", truth=False, without_jax="smoothing")
        def _(rng, build=build):
            arrays = [boxes, labels, image(1, 6, 5, 3)(rng)]
            of_boxes, of_labels, images = inputs_for(*arrays)
            inputs = {"images": images, "bounding_boxes": {"boxes": of_boxes, "labels": of_labels}}
            return keras.Model(inputs, layers.Pipeline([build()])(inputs)), arrays
