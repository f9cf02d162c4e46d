# /// script
# requires-python = ">=3.11"
# dependencies = ["keras==3.15.1", "tensorflow-cpu", "jax", "safetensors", "onnxruntime", "tf2onnx", "onnx"]
# ///
"""Times recorded cases under kandle and under other runtimes, side by side in one run.

    python benches/compare.py CASE... [--threads 1 2] [--seconds 1] [--rounds 3] [--kandle PROGRAM] [--write]

CASE is the folder of a recorded case (`python reference_outputs/record.py my_model.keras --out cases/my_model` makes
some). Each measurement is a process of its own, pinned to as many processors as it has threads; the runtimes take turns,
round after round, so that a machine that slows down slows all of them. What a runtime gives is compared with the recorded
outputs first. tract and candle-onnx run on one thread, through the programs of benches/tract and benches/candle-onnx (`cargo
build --release -p kandle-bench-tract` in benches/; candle-onnx needs protoc to be built). `--write` puts the tables and the
plot into docs/performance.md and docs/performance.svg.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

RUNTIMES = ["kandle engine", "kandle model", "ONNX Runtime", "tract", "candle-onnx", "Keras on JAX", "tf.function", "model.predict"]
# No runtime, but how fast one could be: the recorded outputs, copied into memory that is there already.
COPY = "plain copy"
# Packages of benches/ with a program each, called as benches/peer says.
PROGRAMS = {"tract": ("kandle-bench-tract", "tract-onnx"), "candle-onnx": ("kandle-bench-candle-onnx", "candle-onnx")}
LOADS = ("From the file, which the system has read before, to being ready to run, imports not counted (the engine compiles, ONNX Runtime and tract read the exported ONNX file, "
         "the others load the .keras file and compile at the first call, which is not counted), and the most memory that the process held:")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read_case(folder):
    from safetensors.numpy import load_file
    with open(os.path.join(folder, "case.json")) as stream:
        case = json.load(stream)
    tensors = load_file(os.path.join(folder, "io.safetensors"))
    inputs = [tensors[f"input_{i}"] for i in range(len(case["inputs"]))]
    outputs = [tensors[f"output_{i}"] for i in range(len(case["outputs"]))]
    return case, inputs, outputs


def check(case, ours, keras):
    """The recorded tolerance, at every number."""
    import numpy as np
    for i, (a, b) in enumerate(zip(ours, keras, strict=True)):
        allowed = case["outputs"][i].get("tolerance", case["tolerance"])
        distance = np.abs(a.astype("float64") - b.astype("float64"))
        if a.shape != b.shape or not (distance <= allowed["atol"] + allowed["rtol"] * np.abs(b)).all():
            raise SystemExit(f"output {i} is not what was recorded: {distance.max():.2e} apart")


def timed(run, seconds):
    """Median milliseconds of a call, several calls at a time where one is short."""
    run()
    begun = time.perf_counter()
    run()
    together = max(1, int(50e-6 / max(time.perf_counter() - begun, 1e-9)))
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begun = time.perf_counter()
        for _ in range(together):
            run()
        times.append((time.perf_counter() - begun) / together)
    return statistics.median(times) * 1e3


def onnx_file(folder):
    return os.path.join(tempfile.gettempdir(), "kandle-onnx-" + os.path.abspath(folder).replace(os.sep, "_") + ".onnx")


def exported(folder):
    """The ONNX file of a case's model, made once, and the names of its inputs in the model's order."""
    path = onnx_file(folder)
    if not os.path.exists(path + ".json"):
        import keras
        model = keras.saving.load_model(os.path.join(folder, "model.keras"), compile=False)
        _, inputs, _ = read_case(folder)
        model(inputs[0] if len(inputs) == 1 else inputs)
        model.export(path + ".part", format="onnx", verbose=False)
        without_erfc(path + ".part")
        os.rename(path + ".part", path)
        with open(path + ".json", "w") as stream:
            json.dump([tensor.name for tensor in model.inputs], stream)
    with open(path + ".json") as stream:
        return path, json.load(stream)


def of_program(runtime, folder, seconds):
    """One measurement by a program of benches/, a process of its own."""
    import numpy as np
    import onnx
    case, _, outputs = read_case(folder)
    path, order = exported(folder)
    names = [entry.name for entry in onnx.load(path, load_external_data=False).graph.input]
    # A single input may have another name there.
    wanted = [order.index(name.split(":")[0]) for name in names] if len(names) > 1 else [0]
    package, peer = PROGRAMS[runtime]
    program = os.path.join(ROOT, "benches", "target", "release", package)
    if not os.path.exists(program):
        raise SystemExit(f"{package} is not built")
    command = [program, path, os.path.join(folder, "io.safetensors"), str(seconds), *(f"input_{i}" for i in wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit((done.stderr.strip().splitlines() or ["nothing was said"])[0])
    made, parts, at = np.fromfile(path + ".out", dtype="float32"), [], 0
    for keras in outputs:
        parts.append(made[at:at + keras.size].reshape(keras.shape))
        at += keras.size
    check(case, parts, outputs)
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(json.dumps({**json.loads(done.stdout.splitlines()[-1]), "peak_rss_mb": peak, "version": locked(peer)}))


def locked(package):
    """The version of a package that benches/ is built with."""
    import tomllib
    with open(os.path.join(ROOT, "benches", "Cargo.lock"), "rb") as stream:
        return next(entry["version"] for entry in tomllib.load(stream)["package"] if entry["name"] == package)


def without_erfc(path):
    """TensorFlow's gelu comes out with an operator that ONNX has not: 1 - Erf in its place."""
    import onnx
    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Erfc":
            inner, one = node.output[0] + "_erf", node.output[0] + "_one"
            model.graph.initializer.append(onnx.helper.make_tensor(one, onnx.TensorProto.FLOAT, [], [1.0]))
            nodes += [onnx.helper.make_node("Erf", list(node.input), [inner]), onnx.helper.make_node("Sub", [one, inner], list(node.output))]
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def one(runtime, folder, threads, seconds):
    """Times one runtime in this process and prints what was found."""
    if runtime in PROGRAMS:
        return of_program(runtime, folder, seconds)
    os.environ["KERAS_BACKEND"] = "jax" if runtime == "Keras on JAX" else "tensorflow"
    case, inputs, outputs = read_case(folder)
    import numpy as np
    if runtime == COPY:
        into, load, version = [np.zeros_like(y) for y in outputs], 0.0, np.__version__
        def run():
            for to, y in zip(into, outputs):
                np.copyto(to, y)
            return into
    elif runtime == "ONNX Runtime":
        path, order = exported(folder)
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        begun = time.perf_counter()
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        load = time.perf_counter() - begun
        names = [entry.name for entry in session.get_inputs()]
        if len(names) > 1:
            names = [next(name for name in names if name.split(":")[0] == wanted) for wanted in order]
        kinds = {"tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(float)": "float32"}
        wanted = {entry.name: kinds[entry.type] for entry in session.get_inputs()}
        feed = {name: np.ascontiguousarray(x.astype(wanted[name])) for name, x in zip(names, inputs)}
        def run():
            return session.run(None, feed)
        version = ort.__version__
    else:
        if runtime == "Keras on JAX":
            import jax
        else:
            import tensorflow as tf
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        import keras
        begun = time.perf_counter()
        model = keras.saving.load_model(os.path.join(folder, "model.keras"), compile=False)
        load = time.perf_counter() - begun
        nested = keras.tree.pack_sequence_as(model._inputs_struct, list(inputs)) if hasattr(model, "_inputs_struct") else inputs[0]
        version = keras.__version__
        if runtime == "model.predict":
            def run():
                return keras.tree.flatten(model.predict(nested, batch_size=len(inputs[0]), verbose=0))
        elif runtime == "tf.function":
            function = tf.function(lambda x: model(x, training=False))
            def run():
                return [y.numpy() for y in keras.tree.flatten(function(nested))]
            version = tf.__version__
        else:
            fixed = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
            function = jax.jit(lambda state, x: model.stateless_call(*state, x, training=False)[0])
            def run():
                return [np.asarray(y) for y in keras.tree.flatten(function(fixed, nested))]
            version = jax.__version__
    check(case, run(), outputs)
    print(json.dumps({"median_ms": timed(run, seconds), "load_s": load, "peak_rss_mb": peak_memory(), "version": version}))


def peak_memory():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) / 1e3 for line in stream if line.startswith("VmHWM"))


def measure(runtime, folder, threads, arguments):
    """One measurement in a process of its own; the reason where there is none."""
    processors = sorted(os.sched_getaffinity(0))[-threads:]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
    for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        environment[key] = str(threads)
    environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
    if runtime.startswith("kandle"):
        command = [arguments.kandle, "bench", folder, "--with", runtime.split()[1], "--threads", str(threads), "--seconds", str(arguments.seconds)]
    else:
        command = [sys.executable, os.path.abspath(__file__), "--one", runtime, folder, "--threads", str(threads), "--seconds", str(arguments.seconds)]
    command = ["taskset", "-c", ",".join(map(str, processors)), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def prepare(folder, arguments):
    """Exports the model, whose memory is nobody's, and reads the files, so that no runtime waits for a disk that others do not."""
    if any(runtime in ("ONNX Runtime", *PROGRAMS) for runtime in arguments.runtimes):
        # Where it cannot be exported, the measurement says so.
        subprocess.run([sys.executable, os.path.abspath(__file__), "--export", folder], capture_output=True, check=False)
    for file in (os.path.join(folder, "model.keras"), onnx_file(folder)):
        if os.path.exists(file):
            with open(file, "rb") as stream:
                while stream.read(1 << 24):
                    pass


def number(ms):
    return f"{ms:.5f}" if ms < 0.01 else f"{ms:.4f}" if ms < 1 else f"{ms:.2f}"


def name(folder):
    return "/".join(os.path.abspath(folder).split(os.sep)[-2:])


def table(rows):
    lines = ["| case | threads | " + " | ".join(RUNTIMES) + " | best other / engine |", "|---" * (len(RUNTIMES) + 3) + "|"]
    for (folder, threads), found in rows.items():
        cells = [number(found[r]["median_ms"]) if r in found else "" for r in RUNTIMES]
        others = [found[r]["median_ms"] for r in RUNTIMES[2:] if r in found]
        ratio = f"{min(others) / found['kandle engine']['median_ms']:.2f}" if others and "kandle engine" in found else ""
        lines.append(f"| {name(folder)} | {threads} | " + " | ".join(cells) + f" | {ratio} |")
    return "\n".join(lines)


def loads(rows):
    """From the file to being ready, and the most memory of the process, with the first number of threads of each case."""
    names = [runtime for runtime in RUNTIMES if runtime not in ("kandle model", "candle-onnx", "model.predict")]
    lines = ["| case | " + " | ".join(f"{name}, ms" for name in names) + " | " + " | ".join(f"{name}, MB" for name in names) + " |",
             "|---" * (2 * len(names) + 1) + "|"]
    seen = set()
    for (folder, _), found in rows.items():
        if folder in seen:
            continue
        seen.add(folder)
        ms = [number(found[r]["load_s"] * 1e3) if r in found else "" for r in names]
        mb = [f"{found[r]['peak_rss_mb']:.0f}" if r in found else "" for r in names]
        lines.append(f"| {name(folder)} | " + " | ".join(ms + mb) + " |")
    return "\n".join(lines)


def plot(rows):
    """Bars of how many times as long the best of the others takes, on a logarithmic axis."""
    import math
    bars = []
    for (folder, threads), found in rows.items():
        others = [found[r]["median_ms"] for r in RUNTIMES[2:] if r in found]
        if others and "kandle engine" in found:
            bars.append((f"{name(folder)}, {threads}", min(others) / found["kandle engine"]["median_ms"]))
    height, left, width = 18, 230, 420
    def place(ratio):
        return left + width * (math.log10(max(ratio, 0.1)) + 1) / 3.2
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height * len(bars) + 40}" font-family="sans-serif" font-size="11">',
           "<style>text{fill:#333}rect{fill:#4477aa}line{stroke:#999}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"]
    for i, (label, ratio) in enumerate(bars):
        y = height * i + 10
        low, high = sorted((place(1), place(ratio)))
        out.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{label}</text><rect x="{low:.1f}" y="{y}" width="{max(high - low, 1):.1f}" height="{height - 5}"/><text x="{high + 4:.1f}" y="{y + 11}">{ratio:.2f}</text>')
    out.append(f'<line x1="{place(1):.1f}" x2="{place(1):.1f}" y1="4" y2="{height * len(bars) + 12}"/><text x="{place(1):.1f}" y="{height * len(bars) + 28}" text-anchor="middle">as fast as the best of the others</text></svg>')
    return "\n".join(out) + "\n"


def conditions(arguments, rows):
    with open("/proc/cpuinfo") as stream:
        processor = next((line.split(":")[1].strip() for line in stream if line.startswith("model name")), platform.machine())
    versions = sorted({f"{r} {found[r]['version']}" for found in rows.values() for r in found if "version" in found[r]})
    date = time.strftime("%Y-%m-%d")
    rounds = "one round" if arguments.rounds == 1 else f"{arguments.rounds} rounds"
    return f"Median milliseconds of {rounds} of {arguments.seconds:g} s (tf.function and model.predict one), {date}, {processor} ({os.cpu_count()} processors, shared with others); {', '.join(versions)}."


def write(part, text, file, picture):
    """Puts a part into docs/performance.md and its picture beside it."""
    page, mark = os.path.join(ROOT, "docs", "performance.md"), f"<!-- {part} -->\n"
    with open(page) as stream:
        before, _, after = stream.read().split(mark)
    with open(page + ".part", "w") as stream:
        stream.write(f"{before}{mark}{text}\n{mark}{after}")
    os.replace(page + ".part", page)
    with open(os.path.join(ROOT, "docs", file), "w") as stream:
        stream.write(picture)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, choices=RUNTIMES)
    parser.add_argument("--kandle", default=os.path.join(ROOT, "target", "release", "kandle"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=[*RUNTIMES, COPY], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        return exported(arguments.cases[0])
    if arguments.one:
        return one(arguments.one, arguments.cases[0], arguments.threads[0], arguments.seconds)
    rows = {}
    for folder in arguments.cases:
        prepare(folder, arguments)
        for threads in arguments.threads:
            found, failed = {}, {}
            for turn in range(arguments.rounds):
                for runtime in arguments.runtimes:
                    # Those that are never the fastest, or know one thread only, are timed once.
                    elsewhere = runtime in ("kandle model", *PROGRAMS, "model.predict") and threads != arguments.threads[0]
                    if runtime in failed or elsewhere or (turn > 0 and runtime in ("tf.function", "model.predict")):
                        continue
                    row, failed_for = measure(runtime, folder, threads, arguments)
                    if row is None:
                        failed[runtime] = failed_for
                        print(f"{name(folder)}: {runtime}: {failed_for}", file=sys.stderr)
                    else:
                        found.setdefault(runtime, []).append(row)
            rows[folder, threads] = {r: {**of[0], **{key: statistics.median(row[key] for row in of) for key in ("median_ms", "load_s")}} for r, of in found.items()}
            print(table({(folder, threads): rows[folder, threads]}).splitlines()[-1], flush=True)
    text = conditions(arguments, rows) + "\n\n" + table(rows) + "\n\n" + LOADS + "\n\n" + loads(rows)
    print("\n" + text)
    if arguments.write:
        write("bench", text, "performance.svg", plot(rows))


if __name__ == "__main__":
    main()
