"""Time the textbook's attention and the kernel's in turn, and show what each keeps.

    python doc/attention/measure.py [--rounds 9]

The attention of one block of GPT-2 124M (C = 768, NH = 12) in float32, B = 1, on one thread. A
round times the textbook's forward pass, the kernel's, and the two backward passes, one after the
other, in CPU time, which does not count what other programs do in between. What is printed are
medians over the rounds, and of the ratios of a round the median and the range.
"""

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}  # before NumPy

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt import kernels, layers
from npgpt.core.threads import threads

C, NH = 768, 12


def timed(f, *arguments):
    """-> milliseconds of f(*arguments), and its result."""
    start = time.process_time()
    result = f(*arguments)
    return 1e3 * (time.process_time() - start), result


def one_round(qkv, dout):
    """-> milliseconds: textbook and kernel forward, textbook and kernel backward; kept bytes."""
    forward, backward, kept = [], [], []
    caches = []
    for backend in (layers, kernels):
        spent, (_, cache) = timed(backend.attention_forward, qkv, NH)
        forward.append(spent)
        caches.append(cache)
        kept.append(cache[1].nbytes)
    for backend, cache in zip((layers, kernels), caches, strict=True):
        spent, _ = timed(backend.attention_backward, dout, cache)
        backward.append(spent)
    return forward, backward, kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print("| T | pass | textbook, ms | kernel, ms | ratio | textbook keeps | kernel keeps |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for T, calls in ((64, 20), (256, 5), (1024, 1)):
        qkv = rng.standard_normal((1, T, 3 * C), dtype=np.float32)  # (B, T, 3C)
        dout = rng.standard_normal((1, T, C), dtype=np.float32)  # (B, T, C)
        found = [one_round(qkv, dout) for _ in range(calls * rounds + 2)][2:]
        for i, name in enumerate(("forward", "backward")):
            book, own = (statistics.median(r[i][j] for r in found) for j in (0, 1))
            groups = [found[g : g + calls] for g in range(0, len(found), calls)]
            ratios = [
                statistics.median(r[i][0] for r in g) / statistics.median(r[i][1] for r in g)
                for g in groups
            ]
            kept = " | ".join(f"{size:,}" for size in found[0][2])
            print(
                f"| {T} | {name} | {book:.2f} | {own:.2f} | {statistics.median(ratios):.1f}"
                f" ({min(ratios):.1f} to {max(ratios):.1f}) | {kept} |"
            )


if __name__ == "__main__":
    with threads():
        main()
