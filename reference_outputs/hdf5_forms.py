#!/usr/bin/env python3
"""Writes hdf5_forms.zip: one small model's weights in every form that HDF5 has for them.

Each file in it holds the weights of core/Dense/rank2 (a Dense of 6 features and 5 units):
the kernel is 0, 1, 2, …, the bias 100, 101, …, which every dtype here holds exactly.
`*.weights.h5` are weight stores, `*.legacy.h5` legacy weights by the names of the
layers, `sharded*` a map with its files. tests/refusals/forms.rs loads all of them
and expects the same bits, but of those called refused. Files of HDF5's newer format hold the time they were
made, so they differ from run to run.
"""

import ctypes
import json
import pathlib
import tempfile
import zipfile

import h5py
import numpy as np

ZIP = pathlib.Path(__file__).resolve().with_suffix(".zip")
SCRATCH = tempfile.TemporaryDirectory()
HERE = pathlib.Path(SCRATCH.name)
KERNEL = np.arange(30, dtype=np.float32).reshape(6, 5)
BIAS = np.arange(100, 105, dtype=np.float32)


def bfloat16(numbers):
    """The upper halves of float32, which for these numbers is all of them."""
    return (numbers.view("<u4") >> 16).astype("<u2")


def store(name, write=None, **options):
    """A weight store whose arrays `write(group, name, numbers)` writes."""
    with h5py.File(HERE / f"{name}.weights.h5", "w", **options) as file:
        weights = file.create_group("layers/dense/vars")
        for key, numbers in (("0", KERNEL), ("1", BIAS)):
            if write is None:
                weights[key] = numbers
            else:
                write(weights, key, numbers)


def created(**how):
    """A writer that gives `how` to create_dataset; chunks are those of the kernel, and of the bias no larger than it is."""

    def write(group, name, numbers):
        here = dict(how)
        if numbers.ndim == 1:
            here["chunks"] = (min(here["chunks"][0], 5),)
            here["maxshape"] = here.get("maxshape", (5,))[:1]
        group.create_dataset(name, data=numbers, **here)

    return write


def opaque(tagged):
    """bfloat16 as Keras writes it: two opaque bytes, in Keras 3's stores with an attribute that says what they are."""

    def write(group, name, numbers):
        data = bfloat16(numbers)
        kind = h5py.h5t.create(h5py.h5t.OPAQUE, 2)
        kind.set_tag(b"")
        space = h5py.h5s.create_simple(data.shape)
        dataset = h5py.h5d.create(group.id, name.encode(), kind, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data, kind)
        if tagged:
            group[name].attrs["dtype"] = "bfloat16"

    return write


def laid_out(layout=None, early=False, chunk=None):
    """A writer through HDF5's own functions, for what create_dataset has no words for."""

    def write(group, name, numbers):
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if layout is not None:
            creation.set_layout(layout)
        if chunk is not None:
            creation.set_chunk(chunk[: numbers.ndim])
        if early:
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space = h5py.h5s.create_simple(numbers.shape)
        dataset = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, creation)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, numbers)

    return write


def superblock_1(name):
    """The second version of the superblock, which HDF5 writes where the width of its chunk trees is not the usual one."""
    library = next((pathlib.Path(h5py.__file__).parent.parent / "h5py.libs").glob("libhdf5-*.so*"))
    set_istore_k = ctypes.CDLL(str(library)).H5Pset_istore_k
    set_istore_k.argtypes = [ctypes.c_int64, ctypes.c_uint]
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    assert set_istore_k(creation.id, 16) >= 0
    path = HERE / f"{name}.weights.h5"
    file = h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, creation))
    for key, numbers in (("0", KERNEL), ("1", BIAS)):
        file.create_dataset(f"layers/dense/vars/{key}", data=numbers, chunks=(4, 3)[: numbers.ndim])
    file.close()
    assert path.read_bytes()[8] == 1


def crowded(group, name, numbers):
    """Among so many attributes and neighbours that HDF5 stores them apart from the group."""
    group[name] = numbers
    if name == "0":
        for number in range(20):
            group.file.create_group(f"layers/other_{number}/vars").attrs["name"] = "other"
            group.attrs[f"attribute_{number}"] = number
        group.attrs["name"] = "dense"


def legacy(name, root="", texts=None, empty=None, config=None, **options):
    """Legacy weights; `texts(group, name, list)` writes the lists of names, `empty` is the list of no names."""

    def plain(group, key, names):
        group.attrs[key] = names if names else np.zeros(0)

    texts = texts or plain
    with h5py.File(HERE / f"{name}.legacy.h5", "w", **options) as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["backend"] = "tensorflow"
        if config is not None:
            file.attrs["model_config"] = config
        group = file.require_group(root) if root else file
        texts(group, "layer_names", ["input_layer", "dense"])
        group.create_group("input_layer")
        if empty is None:
            texts(group["input_layer"], "weight_names", [])
        else:
            group["input_layer"].attrs["weight_names"] = empty
        dense = group.create_group("dense")
        texts(dense, "weight_names", ["dense/kernel:0", "dense/bias:0"])
        dense["dense/kernel:0"] = KERNEL
        dense["dense/bias:0"] = BIAS


def fixed(group, key, names):
    group.attrs[key] = np.array([name.encode() for name in names], "S16")


def variable(group, key, names):
    group.attrs.create(key, names, (len(names),), h5py.string_dtype("ascii"))


def chunked(group, key, names):
    """As Keras splits a list that is too long for one attribute."""
    for number, name in enumerate(names or [None]):
        group.attrs[f"{key}{number}"] = np.zeros(0) if name is None else np.array([name.encode()])


def architecture(padding):
    """The configuration that core/Dense/rank2 has, made long."""
    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 6], "dtype": "float32", "name": "input_layer"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 5, "activation": "linear", "trainable": True}},
    ]
    return json.dumps({"class_name": "Sequential", "config": {"name": "x" * padding, "layers": layers}})


def sharded(name, map, files):
    for number, arrays in enumerate(files):
        with h5py.File(HERE / f"{name}_{number:05}.weights.h5", "w") as file:
            file.create_group("vars")
            for key, numbers in arrays.items():
                file[f"layers/dense/vars/{key}"] = numbers
    text = {"metadata": {"total_size": 140.0}, "weight_map": map}
    (HERE / f"{name}.weights.json").write_text(json.dumps(text, indent=4))


def main():
    # Superblocks, and the groups and headers that go with them.
    store("superblock_0", libver="earliest")
    superblock_1("superblock_1")
    store("superblock_2", libver=("v108", "v108"))
    store("superblock_3", libver="latest")
    store("user_block", userblock_size=512)
    store("user_block_new", userblock_size=1024, libver="latest")
    for libver, version in (("earliest", ""), ("latest", "_new")):
        store(f"crowded{version}", crowded, libver=libver)
        store(f"creation_order{version}", libver=libver, track_order=True)
    # Layouts. The newer format has an index of its own for each way that chunks can grow.
    store("compact", laid_out(h5py.h5d.COMPACT))
    store("compact_new", laid_out(h5py.h5d.COMPACT), libver="latest")
    for libver, version in (("earliest", ""), ("latest", "_new")):
        store(f"one_chunk{version}", created(chunks=(6, 5)), libver=libver)
        store(f"chunked{version}", created(chunks=(4, 3)), libver=libver)
        store(f"growing{version}", created(chunks=(4, 3), maxshape=(None, 5)), libver=libver)
        store(f"growing_both{version}", created(chunks=(4, 3), maxshape=(None, None)), libver=libver)
        for filters in (
            {"compression": "gzip"},
            {"compression": "lzf"},
            {"shuffle": True},
            {"fletcher32": True},
            {"compression": "gzip", "shuffle": True},
            {"compression": "gzip", "shuffle": True, "fletcher32": True},
            {"compression": "lzf", "shuffle": True, "fletcher32": True},
        ):
            name = "_".join(key if value is True else value for key, value in sorted(filters.items()))
            store(f"{name}{version}", created(chunks=(4, 3), **filters), libver=libver)
        gzip = {"compression": "gzip", "shuffle": True}
        store(f"gzip_one_chunk{version}", created(chunks=(6, 5), **gzip), libver=libver)
        store(f"gzip_growing{version}", created(chunks=(4, 3), maxshape=(None, 5), **gzip), libver=libver)
        store(f"gzip_growing_both{version}", created(chunks=(4, 3), maxshape=(None, None), **gzip), libver=libver)
    store("early", laid_out(chunk=(1, 5), early=True), libver="latest")
    # Many chunks: trees of several levels, pages of an index.
    for libver, version in (("earliest", ""), ("latest", "_new")):
        store(f"many_chunks{version}", created(chunks=(1, 1)), libver=libver)
        store(f"many_growing_both{version}", created(chunks=(1, 1), maxshape=(None, None)), libver=libver)
    # Dtypes.
    for dtype in ("<f2", ">f2", ">f4", "<f8", ">f8"):
        name = f"float{int(dtype[2]) * 8}{'_big' if dtype[0] == '>' else ''}"
        store(name, lambda group, key, numbers: group.create_dataset(key, data=numbers.astype(dtype)))
        how = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        chunks = lambda numbers: (4, 3)[: numbers.ndim]
        store(
            f"{name}_gzip",
            lambda group, key, numbers: group.create_dataset(
                key, data=numbers.astype(dtype), chunks=chunks(numbers), **how
            ),
        )
    store("bfloat16", opaque(True))
    store("bfloat16_untagged", opaque(False))
    # Legacy weights: every way that a list of names has been written.
    legacy("plain")
    legacy("fixed", texts=fixed)
    legacy("variable", texts=variable)
    legacy("chunked", texts=chunked)
    legacy("new", libver="latest")
    legacy("creation_order", libver="latest", track_order=True)
    legacy("no_names", empty=np.zeros(0, "S1"))
    legacy("in_a_group", root="model_weights")
    # Longer than an object header holds.
    legacy("long_config", root="model_weights", config=architecture(100_000))
    legacy("long_config_new", root="model_weights", config=architecture(100_000), libver="latest")
    fixed_text = np.bytes_(architecture(70_000))
    legacy("long_fixed_config_new", root="model_weights", config=fixed_text, libver="latest")
    # One model in several files.
    here = "/layers/dense/vars"
    sharded("sharded", {here: ["sharded_00000.weights.h5", "sharded_00001.weights.h5"]}, [{"0": KERNEL}, {"1": BIAS}])
    sharded("sharded_whole", {here: "sharded_whole_00000.weights.h5"}, [{"0": KERNEL, "1": BIAS}])
    # What is refused: filters that lose numbers, or that Keras and h5py's defaults do not use.
    store("refused_scale_offset", created(chunks=(4, 3), scaleoffset=3))
    store("refused_szip", created(chunks=(4, 3), compression="szip", compression_opts=("nn", 4)))
    # As TensorFlow 2.12 and 2.13 called the layers of a model, and of a model in it.
    with h5py.File(HERE / "tensorflow_2_12.weights.h5", "w") as file:
        layers = file.create_group("_layer_checkpoint_dependencies")
        layers["dense/vars/0"], layers["dense/vars/1"] = KERNEL, BIAS
        layers["functional/_layer_checkpoint_dependencies/dense/vars/0"] = KERNEL
    # Dtypes and shapes that are no float's, read as they are.
    with h5py.File(HERE / "arrays.weights.h5", "w") as file:
        weights = file.create_group("layers/all/vars")
        weights["bool"] = np.array([[True, False, True]])
        weights["scalar"] = np.float32(7)
        weights["scalar_bool"] = np.bool_(True)
        weights["empty"] = np.zeros((0, 5), np.float32)
        weights["empty_middle"] = np.zeros((2, 0, 3), "<i8")
        weights.create_dataset("empty_chunked", (0, 5), "<f4", chunks=(4, 5), maxshape=(None, 5), compression="gzip")
        weights["one"] = np.array([1.5], "<f8")
        for kind in "iu":
            for size in (1, 2, 4, 8):
                for order in "<>":
                    numbers = np.array([0, 1, 2, 100], f"{order}{kind}{size}")
                    weights[f"{'big' if order == '>' else 'little'}_{kind}{size}"] = numbers
    # They are mostly zeros.
    with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(HERE.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
