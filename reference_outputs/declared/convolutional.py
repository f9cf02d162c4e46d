"""Convolutions, plain, transposed, depthwise and separable."""

from keras import layers

from .case import ALL_FILES, Cases, records

FED = {1: (2, 7, 4), 2: (2, 7, 5, 4), 3: (2, 5, 4, 5, 2)}


@records(layers.Conv1D)
def conv1d(case: Cases) -> None:
    for name, says, options, fed in [
        ("same_stride", "Padding split evenly: with a stride the odd one goes to the end.", {"strides": 2}, (2, 6, 4)),
        ("valid", "A convolution, with its kernel turned round, in place of a correlation.", {"padding": "valid"}, (2, 7, 4)),
        ("causal", "Padding at the end as well.", {"padding": "causal", "dilation_rate": 2}, (2, 7, 4)),
        ("groups", "Groups taken in turn instead of in blocks.", {"groups": 2, "activation": "relu"}, (2, 7, 4)),
        ("no_bias", "A bias expected where there is none.", {"use_bias": False, "padding": "valid", "strides": 3}, (2, 8, 4)),
    ]:
        case(name, says, lambda options=options: layers.Conv1D(6, 3, **{"padding": "same"} | options), fed)
    case(
        "channels_first",
        "The axes of the input swapped the wrong way.",
        lambda: layers.Conv1D(3, 2, padding="same", data_format="channels_first"),
        (2, 4, 7),
        truth=False,
    )


@records(layers.Conv2D)
def conv2d(case: Cases) -> None:
    for name, says, options in [
        ("same_stride", "Padding split evenly, or alike on both axes.", {"strides": 2, "kernel_size": (2, 3)}),
        ("valid", "A kernel turned round, or its axes swapped.", {"padding": "valid", "kernel_size": (3, 2)}),
        ("dilation", "Padding reckoned without the dilation.", {"dilation_rate": (2, 1)}),
        ("groups", "Groups taken in turn instead of in blocks.", {"groups": 2, "activation": "tanh"}),
        ("strides_differ", "The strides of the two axes swapped.", {"strides": (1, 3), "padding": "valid"}),
        ("activation_object", "An activation given as a layer ignored.", {"activation": "leaky"}),
    ]:

        def build(options=options):
            given = {"kernel_size": 3, "padding": "same"} | options
            if given.get("activation") == "leaky":
                given["activation"] = layers.LeakyReLU(0.1)
            return layers.Conv2D(4, **given)

        case(name, says, build, FED[2], files=ALL_FILES if name == "same_stride" else ("model.keras",))
    case(
        "object_in_float32",
        "An activation layer's own dtype policy ignored.",
        lambda: layers.Conv2D(3, 2, dtype="mixed_bfloat16", activation=layers.ReLU(0.5, dtype="float32")),
        FED[2],
        computed_in="bfloat16",
        because="what the activation gets was computed in bfloat16",
        truth=False,
    )
    case(
        "channels_first",
        "The channels looked for on the last axis.",
        lambda: layers.Conv2D(3, (2, 3), strides=2, padding="valid", data_format="channels_first"),
        (2, 4, 7, 5),
        truth=False,
    )


@records(layers.Conv3D)
def conv3d(case: Cases) -> None:
    for name, says, options in [
        ("same_stride", "Padding split evenly on one of three axes.", {"strides": 2, "kernel_size": (2, 3, 3)}),
        ("valid", "Two of the kernel's axes swapped.", {"padding": "valid", "kernel_size": (3, 2, 1)}),
        ("dilation", "Padding reckoned without the dilation.", {"dilation_rate": (2, 1, 1), "activation": "relu"}),
        ("groups", "Groups taken in turn instead of in blocks.", {"groups": 2, "use_bias": False}),
    ]:
        given = {"kernel_size": 2, "padding": "same"} | options
        case(name, says, lambda given=given: layers.Conv3D(4, **given), FED[3])


TRANSPOSED = [
    ("same_stride", "Cut at the wrong end to reach steps times stride.", {"strides": 2, "padding": "same"}),
    ("valid", "The kernel not turned round.", {"padding": "valid"}),
    ("output_padding", "The padding added at the front.", {"strides": 2, "padding": "same", "output_padding": 0}),
    ("valid_long_stride", "A stride longer than the kernel: zeros at the end forgotten.", {"strides": 4, "padding": "valid"}),
    ("activation", "The bias added before the overlapping parts are.", {"padding": "same", "activation": "tanh"}),
]


def transposed(case: Cases, layer: type, rank: int) -> None:
    # TensorFlow on the CPU has no transposed convolution with dilation.
    small = {1: (2, 4, 2), 2: (2, 4, 3, 2), 3: (1, 3, 2, 3, 2)}[rank]
    for name, says, options in TRANSPOSED:
        kernel = 3 if rank < 3 else 2
        if rank == 3 and name == "valid_long_stride":
            options = options | {"strides": 3}
        if rank == 3 and name == "output_padding":
            options, kernel = options | {"output_padding": 1}, 3
        case(name, says, lambda options=options, kernel=kernel: layer(3, kernel, **options), small)


@records(layers.Conv1DTranspose)
def conv1d_transpose(case: Cases) -> None:
    transposed(case, layers.Conv1DTranspose, 1)
    case("no_bias", "A bias expected where there is none.", lambda: layers.Conv1DTranspose(2, 2, strides=3, padding="same", use_bias=False), (2, 4, 3))


@records(layers.Conv2DTranspose)
def conv2d_transpose(case: Cases) -> None:
    transposed(case, layers.Conv2DTranspose, 2)
    case(
        "strides_differ",
        "The strides or the kernel's axes swapped.",
        lambda: layers.Conv2DTranspose(2, (2, 3), strides=(3, 1), padding="same"),
        (2, 3, 4, 3),
    )


@records(layers.Conv3DTranspose)
def conv3d_transpose(case: Cases) -> None:
    transposed(case, layers.Conv3DTranspose, 3)


DEPTHWISE = [
    ("same_stride", "Padding split evenly.", {"strides": 2}),
    ("multiplier", "Output channels ordered by multiplier first.", {"depth_multiplier": 2, "padding": "valid"}),
    ("dilation", "Padding reckoned without the dilation.", {"dilation_rate": 2, "activation": "relu"}),
    ("no_bias", "A bias expected where there is none.", {"use_bias": False, "kernel_size": 2}),
]


@records(layers.DepthwiseConv1D)
def depthwise_conv1d(case: Cases) -> None:
    for name, says, options in DEPTHWISE:
        given = {"kernel_size": 3, "padding": "same"} | options
        case(name, says, lambda given=given: layers.DepthwiseConv1D(**given), (2, 6, 3))


@records(layers.DepthwiseConv2D)
def depthwise_conv2d(case: Cases) -> None:
    for name, says, options in DEPTHWISE:
        given = {"kernel_size": (3, 2), "padding": "same"} | options
        case(name, says, lambda given=given: layers.DepthwiseConv2D(**given), (2, 6, 5, 3))


@records(layers.SeparableConv1D)
def separable_conv1d(case: Cases) -> None:
    for name, says, options in DEPTHWISE:
        given = {"kernel_size": 3, "padding": "same"} | options
        case(name, says, lambda given=given: layers.SeparableConv1D(4, **given), (2, 6, 3))


@records(layers.SeparableConv2D)
def separable_conv2d(case: Cases) -> None:
    for name, says, options in DEPTHWISE:
        given = {"kernel_size": (3, 2), "padding": "same"} | options
        files = ALL_FILES if name == "multiplier" else ("model.keras",)
        case(name, says, lambda given=given: layers.SeparableConv2D(4, **given), (2, 6, 5, 3), files=files)
