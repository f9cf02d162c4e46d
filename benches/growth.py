# /// script
# requires-python = ">=3.11"
# dependencies = ["keras==3.15.1", "tensorflow-cpu", "jax", "safetensors", "onnxruntime", "tf2onnx", "onnx"]
# ///
"""How time grows with the batch, the length of sequences and the vocabulary, side by side in one run.

    python benches/growth.py [--seconds 0.5] [--rounds 1] [--kandle PROGRAM] [--write]

The models are made here, with Keras's initial weights, and what Keras computes with them is recorded first; everything is
then measured as compare.py does it, on one thread. The plain copy is of the outputs, into memory that is there already:
no runtime can give them in less, but for those that stay in a cache. `--write` puts the table and the plot into
docs/performance.md and docs/growth.svg.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile

import compare

RUNTIMES = ["kandle engine", "ONNX Runtime", "Keras on JAX", "tf.function", compare.COPY]
COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#aaaaaa"]


def example3(vocabulary=1000):
    import keras
    layers = keras.layers
    return keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(vocabulary, 128), layers.Dense(64, activation="relu")])


def mnist():
    import keras
    layers = keras.layers
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10, activation="softmax")])


def lstm():
    import keras
    layers = keras.layers
    return keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(2000, 64), layers.LSTM(64), layers.Dense(2, activation="softmax")])


def transformer():
    import keras
    layers = keras.layers
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(4000, 128)(tokens)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 32)(y, y)])
        y = layers.Dense(512, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(128)(y)])
    return keras.Model(tokens, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


# Of each curve the name, what grows, and for each size the model and the shape of its input.
CURVES = [
    ("example3", "rows × ids", {f"{rows} × {ids}": (example3, (rows, ids)) for rows, ids in [(1, 3), (8, 16), (32, 128), (256, 128), (1024, 512)]}),
    ("example3, 32 × 128 ids", "vocabulary", {str(size): (lambda size=size: example3(size), (32, 128)) for size in (1000, 10_000, 100_000)}),
    ("MNIST network", "images", {str(rows): (mnist, (rows, 28, 28, 1)) for rows in (1, 8, 32, 128)}),
    ("LSTM, 16 rows", "steps", {str(steps): (lstm, (16, steps)) for steps in (20, 80, 320)}),
    ("transformer, 1 row", "tokens", {str(tokens): (transformer, (1, tokens)) for tokens in (16, 64, 256)}),
]


def record(make, shape, folder):
    """A case of this model on inputs of this shape, as Keras computes it on TensorFlow."""
    import keras
    import numpy as np
    from safetensors.numpy import save_file
    keras.utils.set_random_seed(1)
    model = make()
    generator = np.random.default_rng(1)
    words = [layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    x = generator.integers(0, words[0], shape, dtype="int32") if words else generator.standard_normal(shape, dtype="float32")
    y = np.asarray(model(x, training=False))
    os.makedirs(folder, exist_ok=True)
    model.save(os.path.join(folder, "model.keras"))
    save_file({"input_0": x, "output_0": y}, os.path.join(folder, "io.safetensors"))
    def told(name, array):
        return {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
    # Sums of a few hundred numbers, in orders of their own.
    case = {"format": 1, "class": type(model).__name__, "family": "models", "compute_dtype": "float32", "files": ["model.keras"],
            "inputs": [told("input_0", x)], "outputs": [told("output_0", y)], "tolerance": {"rtol": 1e-5, "atol": 2e-5 * float(np.abs(y).max())}}
    with open(os.path.join(folder, "case.json"), "w") as stream:
        json.dump(case, stream)


def table(found):
    lines = ["| model | grows | | " + " | ".join(RUNTIMES) + " | best other / engine |", "|---" * (len(RUNTIMES) + 4) + "|"]
    for (model, grows, size), times in found.items():
        others = [times[r] for r in RUNTIMES[1:-1] if r in times]
        cells = [compare.number(times[r]) if r in times else "" for r in RUNTIMES]
        lines.append(f"| {model} | {grows} | {size} | " + " | ".join(cells) + f" | {min(others) / times['kandle engine']:.2f} |")
    return "\n".join(lines)


def plot(found):
    """Milliseconds over size, both logarithmic, a panel for each curve."""
    width, height, left, top = 240, 170, 56, 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(CURVES) * (width + left) + 20} {height + top + 60}" font-family="sans-serif" font-size="11">',
           "<style>text{fill:#333}path{fill:none;stroke-width:2}.axis{stroke:#999;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"]
    for i, (runtime, colour) in enumerate(zip(RUNTIMES, COLOURS)):
        out.append(f'<path d="M{left + i * 130} 12h18" stroke="{colour}"/><text x="{left + i * 130 + 24}" y="16">{runtime}</text>')
    for panel, (model, grows, sizes) in enumerate(CURVES):
        rows = [(size, found[model, grows, size]) for size in sizes if (model, grows, size) in found]
        times = [t for _, of in rows for t in of.values()]
        if not times:
            continue
        x0, low, high = left + panel * (width + left), math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
        def y_of(ms):
            return top + height * (1 - (math.log10(ms) - low) / max(high - low, 1))
        def x_of(i):
            return x0 + width * (i + 0.5) / len(rows)
        out.append(f'<text x="{x0}" y="{top - 10}">{model}: ms over {grows}</text><path class="axis" d="M{x0} {top}V{top + height}H{x0 + width}"/>')
        for power in range(low, high + 1):
            out.append(f'<text x="{x0 - 4}" y="{y_of(10.0 ** power) + 4:.1f}" text-anchor="end">{10.0 ** power:g}</text>')
        for i, (size, _) in enumerate(rows):
            out.append(f'<text x="{x_of(i):.1f}" y="{top + height + 16}" text-anchor="middle" font-size="9">{size.replace(" × ", "×")}</text>')
        for runtime, colour in zip(RUNTIMES, COLOURS):
            points = [f"{x_of(i):.1f} {y_of(of[runtime]):.1f}" for i, (_, of) in enumerate(rows) if runtime in of]
            if points:
                out.append(f'<path d="M{"L".join(points)}" stroke="{colour}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kandle", default=os.path.join(compare.ROOT, "target", "release", "kandle"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    found, versions = {}, {}
    for model, grows, sizes in CURVES:
        for size, (make, shape) in sizes.items():
            name = "-".join([make.__name__.strip("<>"), grows, size, *map(str, shape)]).replace(" ", "")
            folder = os.path.join(tempfile.gettempdir(), "kandle-growth", name)
            if not os.path.exists(os.path.join(folder, "case.json")):
                record(make, shape, folder)
            rows, failed = {}, set()
            for _ in range(arguments.rounds):
                for runtime in [runtime for runtime in RUNTIMES if runtime not in failed]:
                    row, reason = compare.measure(runtime, folder, 1, arguments)
                    if row is None:
                        failed.add(runtime)
                        print(f"{name}: {runtime}: {reason}", file=sys.stderr)
                    else:
                        rows.setdefault(runtime, []).append(row["median_ms"])
                        versions.setdefault(runtime, row)
            found[model, grows, size] = {runtime: statistics.median(times) for runtime, times in rows.items()}
            print(table({(model, grows, size): found[model, grows, size]}).splitlines()[-1], flush=True)
    text = compare.conditions(arguments, {"all": versions}) + " One thread.\n\n" + table(found)
    print("\n" + text)
    if arguments.write:
        compare.write("growth", text, "growth.svg", plot(found))


if __name__ == "__main__":
    main()
