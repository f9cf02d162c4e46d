#!/usr/bin/env python3
"""The figures of docs/tolerances.md: what rounding does to Embedding -> Dense -> ReLU, and what mistakes do.

Everything is a part of S, the largest output of the recorded case example3/4x16.
"""

import io
import math
import pathlib
import zipfile

import h5py
import numpy as np
import safetensors.numpy

HERE = pathlib.Path(__file__).resolve().parent


def rounded(numbers: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to the nearest with `bits` of its 23 bits behind the point."""
    dropped = 23 - bits
    raised = numbers.astype("float32").view("uint32") + np.uint32(1 << (dropped - 1))
    return (raised & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view("float32").astype("float64")


def main() -> None:
    tensors = safetensors.numpy.load_file(HERE / "example3/4x16/io.safetensors")
    keras, truth = tensors["output_0"].astype("float64"), tensors["truth_0"]
    scale = np.abs(keras).max()
    with zipfile.ZipFile(HERE / "example3/2x3/model.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    table, kernel, bias = (
        weights[f"layers/{path}"][()] for path in ("embedding/vars/0", "dense/vars/0", "dense/vars/1")
    )
    xs = table[tensors["input_0"]]

    def summed(order) -> np.ndarray:
        """The layer in float32, the products added one after another."""
        total = np.zeros(keras.shape, "float32")
        for i in order:
            total = total + xs[..., i : i + 1] * kernel[i]
        return np.maximum(total + bias, 0).astype("float64")

    def layer(xs=xs, kernel=kernel, bias=bias) -> np.ndarray:
        return np.maximum(xs.astype("float64") @ kernel.astype("float64") + bias, 0)

    def told(what: str, number: float) -> None:
        print(f"{what:<58} {number:.1e}")

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return np.abs(a - b).max() / scale

    forwards, backwards = summed(range(len(kernel))), summed(reversed(range(len(kernel))))
    error, there = np.abs(keras - truth), truth != 0
    print(f"S = {scale:.3f}, {keras.size} numbers")
    told("Keras from the truth", apart(keras, truth))
    told("TensorFlow from JAX", apart(keras, tensors["jax_0"].astype("float64")))
    told("added from the first product on, from the truth", apart(forwards, truth))
    told("added from the last product on, from the truth", apart(backwards, truth))
    told("the two orders from each other", apart(forwards, backwards))
    told("part of the numbers that the order changes", (forwards != backwards).mean())
    relative = error[there] / np.abs(truth[there])
    worst = np.argmax(relative)
    told("the largest error relative to its own number", relative.max())
    told("  which is", truth[there][worst])
    told("float16 numbers and weights", apart(layer(rounded(xs, 10), rounded(kernel, 10)), truth))
    told("bfloat16 numbers and weights", apart(layer(rounded(xs, 7), rounded(kernel, 7)), truth))
    told("the bias missing", apart(layer(bias=0 * bias), truth))
    grid = np.linspace(-4, 4, 8001)
    exact = 0.5 * grid * (1 + np.vectorize(math.erf)(grid / math.sqrt(2)))
    tanh = 0.5 * grid * (1 + np.tanh(math.sqrt(2 / math.pi) * (grid + 0.044715 * grid**3)))
    told("gelu by tanh, from -4 to 4, over its largest", np.abs(exact - tanh).max() / exact.max())
    for one, other in ((1e-3, 1e-5), (1e-5, 1e-6), (1e-6, 1e-7)):
        told(f"epsilon {one:g} for {other:g}, at a variance of 1", abs((1 + one) ** -0.5 - (1 + other) ** -0.5))


if __name__ == "__main__":
    main()
