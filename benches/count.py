# /// script
# requires-python = ">=3.10"
# ///
"""Counts the instructions of a run of recorded cases, which say the same on a busy machine as on a quiet one.

    python benches/count.py [--write]

Needs valgrind and `cargo build --release --bin count` in benches/. What is counted is compared with benches/counts.json, which
`--write` writes; more than 3 % more is an error. valgrind shows programs a processor with AVX2 and without AVX-512, so these
are the instructions that such a one runs, and they are of the compiler's version too.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COUNTS = os.path.join(ROOT, "benches", "counts.json")
RUNS = 20
ALLOWED = 1.03
# A case for each kernel.
CASES = [
    "example3/2x3", "core/Dense/rank3", "core/Dense/gelu", "convolutional/Conv2D/valid", "convolutional/Conv2D/same_stride",
    "convolutional/Conv2DTranspose/same_stride", "convolutional/DepthwiseConv2D/same_stride", "pooling/MaxPooling2D/valid",
    "normalization/LayerNormalization/default", "normalization/GroupNormalization/two", "activations/Softmax/last", "rnn/LSTM/last", "rnn/GRU/last",
    "attention/MultiHeadAttention/key", "attention/Attention/dot", "reshaping/UpSampling2D/bilinear", "by_record/images/ordinary",
]


def count(case):
    program = os.path.join(ROOT, "benches", "target", "release", "count")
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=counted", f"--callgrind-out-file={out}",
                   program, str(RUNS), os.path.join(ROOT, "reference_outputs", case)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
        collected = re.search(r"Collected : (\d+)", done.stderr)
        return int(collected[1]) // RUNS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    known = {}
    if os.path.exists(COUNTS):
        with open(COUNTS) as stream:
            known = json.load(stream)
    counts, more = {}, []
    for case in CASES:
        counts[case] = count(case)
        before = known.get(case)
        beside = f", {counts[case] / before:.3f} of {before}" if before else ""
        print(f"{case}: {counts[case]} instructions a run{beside}", flush=True)
        if before and counts[case] > ALLOWED * before:
            more.append(case)
    if arguments.write:
        with open(COUNTS + ".part", "w") as stream:
            json.dump(counts, stream, indent=1)
            stream.write("\n")
        os.replace(COUNTS + ".part", COUNTS)
    elif more:
        sys.exit(f"more instructions than before: {', '.join(more)}")


if __name__ == "__main__":
    main()
