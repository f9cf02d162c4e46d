#!/usr/bin/env python3
"""Writes hostile/: HDF5 files that Keras does not write and mutation does not find.

Each is the weight store of core/Dense/rank2 (a Dense of 6 features and 5 units)
with one thing in it that is unusual or meant to harm. tests/refusals.rs says of
each what must become of it. The kernel is 0, 1, 2, …, the bias 100, 101, ….
Files of HDF5's newer format hold the time they were made, so they differ from
run to run.
"""

import pathlib
import struct

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent / "hostile"
KERNEL = np.arange(30, dtype=np.float32).reshape(6, 5)
BIAS = np.arange(100, 105, dtype=np.float32)


def store(name, kernel=None, **options):
    """A store whose kernel is what `kernel(vars group)` makes of it."""
    path = HERE / f"{name}.weights.h5"
    with h5py.File(path, "w", **options) as file:
        weights = file.create_group("layers/dense/vars")
        if kernel is None:
            weights["0"] = KERNEL
        else:
            kernel(weights)
        weights["1"] = BIAS
    return path


def patch(path, old, new):
    """Replaces the one place where the bytes `old` stand in a file."""
    data = path.read_bytes()
    assert data.count(old) == 1, (path, data.count(old))
    path.write_bytes(data.replace(old, new))


def lookup3(data):
    """The checksum of HDF5's newer structures: Bob Jenkins's hashlittle with 0 to start from."""
    rot = lambda x, k: (x << k | x >> (32 - k)) & 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    words = struct.unpack(f"<{-(-max(len(data), 1) // 12) * 3}I", data.ljust(-(-max(len(data), 1) // 12) * 12, b"\0"))
    for i in range(0, len(words), 3):
        a, b, c = ((x + w) & 0xFFFFFFFF for x, w in zip((a, b, c), words[i : i + 3]))
        if i + 3 < len(words):
            for k in (4, 6, 8, 16, 19, 4):
                a = ((a - c) ^ rot(c, k)) & 0xFFFFFFFF
                c = (c + b) & 0xFFFFFFFF
                a, b, c = b, c, a
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - rot(b, k)) & 0xFFFFFFFF
        a, b, c = b, c, a
    return b


def soft_link(weights):
    weights["kernel"] = KERNEL
    weights["0"] = h5py.SoftLink("/layers/dense/vars/kernel")


def external_link(weights):
    weights["0"] = h5py.ExternalLink("user_block.weights.h5", "/layers/dense/vars/0")


def hard_link_cycle(weights):
    weights["0"] = KERNEL
    weights["again"] = weights.file["layers"]
    weights["and_again"] = weights.file["layers"]


def diamond(weights):
    """Forty groups, each linked twice from the one before: 2**40 ways to the last."""
    weights["0"] = KERNEL
    above = weights.file
    for _ in range(40):
        below = above.create_group("left")
        above["right"] = below
        above = below


def virtual(weights):
    layout = h5py.VirtualLayout(shape=(6, 5), dtype="<f4")
    layout[:] = h5py.VirtualSource("user_block.weights.h5", "layers/dense/vars/0", shape=(6, 5))
    weights.create_virtual_dataset("0", layout)


def external_storage(weights):
    weights.create_dataset("0", (6, 5), "<f4", external=[("case.json", 0, 120)])


def shape_bomb(weights):
    weights.create_dataset("0", (1 << 20, 1 << 20), "<f4", chunks=(1024, 1024))


def gzip_shuffle(weights):
    weights.create_dataset("0", data=KERNEL, chunks=(4, 3), compression="gzip", shuffle=True, fletcher32=True)


def chunk_missing(weights):
    weights.create_dataset("0", (6, 5), "<f4", chunks=(3, 5))[:3] = KERNEL[:3]


def chunks(weights):
    weights.create_dataset("0", data=KERNEL, chunks=(3, 5))


def never_written(weights):
    weights.create_dataset("0", (6, 5), "<f4")


def compound(weights):
    weights.create_dataset("0", (6, 5), np.dtype([("real", "<f4"), ("imag", "<f4")]))


def text(weights):
    weights.create_dataset("0", (6, 5), h5py.string_dtype())


def bottomless_type(weights):
    """A list of lists of lists of …: as deep as an object header holds."""
    kind = h5py.h5t.IEEE_F32LE
    for _ in range(8000):
        kind = h5py.h5t.vlen_create(kind)
    h5py.h5d.create(weights.id, b"0", kind, h5py.h5s.create_simple((6, 5)))


def implicit(weights):
    """Chunks whose addresses are counted out from the shape: no entry of the file bounds how many there are."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1, 5))
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple((6, 5))
    dataset = h5py.h5d.create(weights.id, b"0", h5py.h5t.IEEE_F32LE, space, creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, KERNEL)


def main():
    HERE.mkdir(exist_ok=True)
    for kernel in (
        soft_link, external_link, hard_link_cycle, external_storage, shape_bomb, gzip_shuffle,
        chunk_missing, never_written,
    ):
        store(kernel.__name__, kernel)
    store("diamond", diamond, libver="latest")
    store("compound", compound, libver="latest")
    store("text", text, libver="latest")
    store("soft_link_new", soft_link, libver="latest")
    store("virtual", virtual, libver="latest")
    store("implicit", implicit, libver="latest")
    store("big_endian", lambda weights: weights.create_dataset("0", data=KERNEL.astype(">f4")))
    store("float16", lambda weights: weights.create_dataset("0", data=KERNEL.astype("<f2")))
    store("user_block", userblock_size=512)
    store("superblock_3", libver="latest")
    store("bottomless_type", bottomless_type, libver="latest")
    # A shape of 2**40 rows in a header whose checksum is right.
    path = store("implicit_bomb", implicit, libver="latest")
    data = bytearray(path.read_bytes())
    start = struct.pack("<BBBBQQQQ", 2, 2, 1, 1, 6, 5, 6, 5)
    at = data.index(start)
    header = data.rindex(b"OHDR", 0, at)
    flags = data[header + 5]
    prefix = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    end = header + prefix + width + int.from_bytes(data[header + prefix :][:width], "little")
    assert lookup3(bytes(data[header:end])) == int.from_bytes(data[end : end + 4], "little")
    data[at + 4 : at + 36] = struct.pack("<QQQQ", 1 << 40, 5, 1 << 40, 5)
    data[end : end + 4] = struct.pack("<I", lookup3(bytes(data[header:end])))
    path.write_bytes(data)
    # Both chunks say that they are the first: the second half of the kernel is nowhere.
    path = store("chunk_twice", chunks)
    key = lambda row: struct.pack("<IIQQQ", 60, 0, row, 0, 0)
    patch(path, key(3), key(0))
    # Forty nodes, each with the next one as both its children: 2**40 ways to the index's only leaf.
    path = HERE / "chunk_tree_diamond.weights.h5"
    data = bytearray((HERE / "chunk_twice.weights.h5").read_bytes())
    leaf = data.index(b"TREE\x01\x00\x02\x00")
    layout = data.index(struct.pack("<BBBQ", 3, 2, 3, leaf)) + 3
    data[layout : layout + 8] = struct.pack("<Q", len(data))
    nowhere, key = b"\xff" * 8, bytes(32)
    for level in range(40, 0, -1):
        below = struct.pack("<Q", leaf if level == 1 else len(data) + 136)
        data += b"TREE" + bytes([1, level, 2, 0]) + 2 * nowhere + key + below + key + below + key
    path.write_bytes(data)


if __name__ == "__main__":
    main()
