"""Time ways to write an AdamW update in turn, beside the time of the bytes alone.

    python doc/adamw/measure.py [--rounds 9]

In float32 on one thread, in CPU time, which does not count what other programs do in between; all
take their turns in a round. What is printed are medians over the rounds, and of the ratio to the
kernel the median and the range.
"""

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}  # before NumPy

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from numba import prange

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt import kernels, layers
from npgpt.core.parameters import aligned_zeros
from npgpt.core.threads import threads
from npgpt.kernels.codegen.jit import jit

NUMBERS = (1, 1e-4, 0.9, 0.999, 1e-8, 0.1)  # t, lr, beta1, beta2, eps, weight_decay


def on_whole_buffers(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, scale=1.0):
    """The lines of the textbook, without its pieces."""
    g = scale * g
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    p *= 1 - lr * weight_decay
    p -= lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + eps)


@jit(parallel=True)
def move(p, g, m, v):
    """The reads and writes of an update, and next to no arithmetic."""
    for i in prange(p.size):
        m[i] += g[i]
        v[i] += g[i] * g[i]
        p[i] += m[i]


def seconds(f, *arguments):
    start = time.process_time()
    f(*arguments)
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    N = 1 << 25
    p, g, m, v = (aligned_zeros(N, np.float32) for _ in range(4))  # each (N,)
    for a in (p, g):
        rng.standard_normal(dtype=np.float32, out=a)
    m += 0  # memory of zeros has no pages of its own before it is written to
    v += 0
    small = [a[: 1 << 15].copy() for a in (p, g, m, v)]  # 512 KB in all: a core's own cache
    many = 1 << 10  # times

    def from_the_cache():
        for _ in range(many):
            kernels.adamw_update(*small, *NUMBERS)

    ways = {
        "NumPy, whole buffers": lambda: seconds(on_whole_buffers, p, g, m, v, *NUMBERS) / N,
        "textbook, in pieces": lambda: seconds(layers.adamw_update, p, g, m, v, *NUMBERS) / N,
        "kernel": lambda: seconds(kernels.adamw_update, p, g, m, v, *NUMBERS) / N,
        "kernel, from the cache": lambda: seconds(from_the_cache) / many / small[0].size,
        "28 bytes alone": lambda: seconds(move, p, g, m, v) / N,
    }
    found = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    print("| way | ns a parameter | GB/s | time / kernel's |\n| --- | --- | --- | --- |")
    for name in ways:
        own = 1e9 * statistics.median(r[name] for r in found)
        ratios = sorted(r[name] / r["kernel"] for r in found)
        middle = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {own:.2f} | {28 / own:.1f} | {middle} |")


if __name__ == "__main__":
    with threads():
        main()
