"""Layers that move numbers without changing them."""

from keras import layers

from .case import ALL_FILES, Cases, records


@records(layers.Flatten)
def flatten(case: Cases) -> None:
    for name, says, fed, declared in [
        ("rank1", "A batch of single numbers becomes (batch, 1).", (3,), ()),
        ("rank2", "Nothing to flatten.", (3, 4), (4,)),
        ("rank3", "The batch flattened too.", (3, 2, 4), (2, 4)),
        ("rank4", "The batch flattened too.", (2, 2, 3, 4), (2, 3, 4)),
        ("unknown_axis", "An axis unknown until now.", (2, 3, 4), (None, 4)),
    ]:
        case(name, says, layers.Flatten, fed, shape=declared, files=ALL_FILES)
    case(
        "channels_first",
        "The channels not moved last before flattening.",
        lambda: layers.Flatten(data_format="channels_first"),
        (2, 3, 4, 5),
        files=ALL_FILES,
    )


@records(layers.Reshape)
def reshape(case: Cases) -> None:
    for name, says, target, fed, declared in [
        ("plain", "The batch taken for a part of the target.", (2, 3), (2, 6), (6,)),
        ("minus_one", "-1 not solved for.", (2, -1, 2), (2, 3, 4), (3, 4)),
        ("to_rank1", "A target of one axis.", (6,), (2, 2, 3), (2, 3)),
        ("unknown_axis", "-1 solved for when the axis is not known yet.", (-1, 2), (2, 3, 4), (None, 4)),
    ]:
        case(name, says, lambda target=target: layers.Reshape(target), fed, shape=declared, files=ALL_FILES)


def cut(case: Cases, layer: type, rank: int, amounts: list[object]) -> None:
    fed = {1: (2, 6, 2), 2: (2, 6, 5, 2), 3: (2, 5, 4, 6, 2)}[rank]
    names = ["number", "each_axis", "each_side"][-len(amounts) :] if rank > 1 else ["number", "each_side"]
    says = {
        "number": "One end only.",
        "each_axis": "Two axes swapped.",
        "each_side": "The two ends swapped.",
    }
    for name, amount in zip(names, amounts, strict=True):
        case(name, says[name], lambda amount=amount: layer(amount), fed)
    first = (2, 2) + fed[1:-1]
    case("channels_first", "The channels cut or padded.", lambda: layer(amounts[-1], data_format="channels_first"), first)


@records(layers.Cropping1D)
def cropping1d(case: Cases) -> None:
    case("number", "One end only.", lambda: layers.Cropping1D(2), (2, 6, 2))
    case("each_side", "The two ends swapped.", lambda: layers.Cropping1D((1, 3)), (2, 6, 2))
    case("nothing_at_the_end", "A cut of 0 at the end taken for all.", lambda: layers.Cropping1D((2, 0)), (2, 6, 2))


@records(layers.Cropping2D)
def cropping2d(case: Cases) -> None:
    cut(case, layers.Cropping2D, 2, [1, (2, 1), ((0, 2), (1, 0))])


@records(layers.Cropping3D)
def cropping3d(case: Cases) -> None:
    cut(case, layers.Cropping3D, 3, [1, (2, 1, 0), ((0, 2), (1, 0), (1, 2))])


@records(layers.ZeroPadding1D)
def zero_padding1d(case: Cases) -> None:
    case("number", "One end only.", lambda: layers.ZeroPadding1D(2), (2, 3, 2))
    case("each_side", "The two ends swapped.", lambda: layers.ZeroPadding1D((1, 3)), (2, 3, 2))
    case(
        "channels_first",
        "The channels padded.",
        lambda: layers.ZeroPadding1D((0, 2), data_format="channels_first"),
        (2, 2, 3),
    )


@records(layers.ZeroPadding2D)
def zero_padding2d(case: Cases) -> None:
    cut(case, layers.ZeroPadding2D, 2, [1, (2, 1), ((0, 2), (1, 0))])


@records(layers.ZeroPadding3D)
def zero_padding3d(case: Cases) -> None:
    cut(case, layers.ZeroPadding3D, 3, [1, (2, 1, 0), ((0, 2), (1, 0), (1, 2))])


@records(layers.UpSampling1D)
def up_sampling1d(case: Cases) -> None:
    case("two", "The whole repeated instead of each step.", layers.UpSampling1D, (2, 3, 2))
    case("three", "The size taken for 2.", lambda: layers.UpSampling1D(3), (2, 2, 3))
    case("one", "A size of 1.", lambda: layers.UpSampling1D(1), (2, 2, 3))


@records(layers.UpSampling2D)
def up_sampling2d(case: Cases) -> None:
    for name in ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"]:
        says = "Corners aligned, or another window."
        build = lambda name=name: layers.UpSampling2D((2, 3), interpolation=name)  # noqa: E731
        table = "TensorFlow reads its cubic from a table of 1024 steps, JAX computes it" if name == "bicubic" else None
        case(name, says, build, (2, 4, 5, 2), truth=False, because=table, looser=2500.0 if table else 1.0)
    case(
        "channels_first",
        "The channels stretched.",
        lambda: layers.UpSampling2D(2, data_format="channels_first", interpolation="bilinear"),
        (2, 3, 4, 2),
        truth=False,
    )


@records(layers.UpSampling3D)
def up_sampling3d(case: Cases) -> None:
    case("two", "The whole repeated instead of each number.", layers.UpSampling3D, (2, 2, 3, 2, 2))
    case("axes_differ", "Two axes swapped.", lambda: layers.UpSampling3D((1, 2, 3)), (2, 2, 3, 2, 2))
    case(
        "channels_first",
        "The channels stretched.",
        lambda: layers.UpSampling3D((1, 3, 2), data_format="channels_first"),
        (2, 2, 2, 3, 2),
    )


@records(layers.Permute)
def permute(case: Cases) -> None:
    case("swap", "Axes counted from 0: Keras counts from 1, behind the batch.", lambda: layers.Permute((2, 1)), (2, 3, 4))
    case("cycle", "The inverse of the permutation.", lambda: layers.Permute((3, 1, 2)), (2, 3, 4, 5))
    case("identity", "Anything done at all.", lambda: layers.Permute((1, 2)), (2, 3, 4))


@records(layers.RepeatVector)
def repeat_vector(case: Cases) -> None:
    case("three", "Repeated along the last axis.", lambda: layers.RepeatVector(3), (2, 4))
    case("one", "An axis of length 1 left out.", lambda: layers.RepeatVector(1), (2, 4))
    case("wide", "A vector of one number.", lambda: layers.RepeatVector(5), (3, 1))
