"""Time the logits' rows, textbook and kernel in turn, and the lm_head in parts of several sizes.

    python doc/crossentropy/measure.py [--rounds 9]

In float32 on one thread, in CPU time, which does not count what other programs do in between; all
variants take their turns in a round. What is printed are medians over the rounds, and of the ratios
of a round the median and the range.

The rows are those of GPT-2's vocabulary, V = 50,257, without the products. The lm_head in parts has
V = 8,192, C = 768 and 2,048 positions.
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

from npgpt import kernels
from npgpt.core.threads import threads
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.crossentropy import softmax_rows
from npgpt.kernels.numerics.exponential import row_max

rng = np.random.default_rng(0)


def timed(f, *arguments):
    """-> milliseconds of f(*arguments), and its result."""
    start = time.process_time()
    result = f(*arguments)
    return 1e3 * (time.process_time() - start), result


def textbook_forward(logits, targets):
    """The lines of the textbook between the products -> probs."""
    logits -= logits.max(-1, keepdims=True)
    counted = np.arange(len(logits))
    target_logits = logits[counted, targets]
    probs = np.exp(logits, out=logits)
    sums = probs.sum(-1, keepdims=True)
    probs /= sums
    return probs, (np.log(sums[counted, 0]) - target_logits).mean()


def kernel_forward(logits, targets):
    losses = np.zeros(len(logits), logits.dtype)
    softmax_rows(logits, logits.shape[1], targets, losses)
    return logits, losses.mean()


def textbook_backward(probs, weight, targets, x, dx):
    dlogits = probs * weight
    dlogits[np.arange(len(probs)), targets] -= weight[:, 0]
    return dlogits


def kernel_backward(probs, weight, targets, x, dx):
    """dlogits without their weight, by which dx and a copy of x are multiplied."""
    probs[np.arange(len(probs)), targets] -= 1
    dx *= weight
    np.multiply(weight, x)  # what dwte is made of
    return probs


@jit(parallel=True)
def maxima(logits, out):
    """One comparison after the other: logits (N, V) -> out (N,)."""
    for i in prange(out.size):
        row = logits[i]
        highest = row[0]
        for v in range(row.size):
            highest = max(highest, row[v])
        out[i] = highest


@jit(parallel=True)
def kernel_maxima(logits, out):
    """As the kernel finds them: logits (N, V) -> out (N,)."""
    for i in prange(out.size):
        out[i] = row_max(logits[i])


def rows(rounds, N=256, V=50257):
    print(f"rows ({N}, {V}): pass, textbook ms, kernel ms, ratio (range)")
    logits = 2 * rng.standard_normal((N, V), dtype=np.float32)  # (N, V)
    targets = rng.integers(0, V, N)  # (N,)
    weight = np.full((N, 1), 1 / N, np.float32)  # (N, 1)
    x, dx = rng.standard_normal((2, N, 768), dtype=np.float32)  # each (N, C)
    found, highest, kernel_highest = [], [], []
    for _ in range(rounds + 1):
        highest.append(timed(maxima, logits, np.empty(N, np.float32))[0])
        kernel_highest.append(timed(kernel_maxima, logits, np.empty(N, np.float32))[0])
        forward, backward, results = [], [], []
        for way, back in (
            (textbook_forward, textbook_backward),
            (kernel_forward, kernel_backward),
        ):
            spent, (probs, loss) = timed(way, logits.copy(), targets)
            forward.append(spent)
            spent, dlogits = timed(back, probs, weight, targets, x, dx)
            backward.append(spent)
            results.append((loss, dlogits))
        found.append((forward, backward))
        assert np.isclose(results[0][0], results[1][0], rtol=1e-5)
        assert np.allclose(results[0][1], weight * results[1][1], rtol=1e-4, atol=1e-9)
    for i, name in enumerate(("forward", "backward")):
        book, own = (statistics.median(r[i][j] for r in found[1:]) for j in (0, 1))
        ratios = sorted(r[i][0] / r[i][1] for r in found[1:])
        middle = statistics.median(ratios)
        print(
            f"  {name}  {book:.1f}  {own:.1f}  {middle:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )
    print(f"  maxima, one comparison after the other: {statistics.median(highest[1:]):.1f} ms")
    print(f"  maxima, as the kernel finds them: {statistics.median(kernel_highest[1:]):.1f} ms")


def in_parts(x, wte, targets, dwte, rows):
    for i in range(0, len(x), rows):
        part = slice(i, i + rows)
        _, cache = kernels.crossentropy_forward(x[part], wte, targets[part])
        kernels.crossentropy_backward(1.0, cache, (dwte,), add=i > 0)


def parts(rounds, N=2048, V=8192, C=768):
    print(
        f"lm_head, kernel, N {N}, V {V}, C {C}: rows a part, ms, time / that of one part, MB logits"
    )
    x = rng.standard_normal((N, C), dtype=np.float32)  # (N, C)
    wte = 0.1 * rng.standard_normal((V, C), dtype=np.float32)  # (V, C)
    targets, dwte = rng.integers(0, V, N), np.empty_like(wte)
    sizes = (16, 64, 256, 512, 1024, N)
    found = [[timed(in_parts, x, wte, targets, dwte, n)[0] for n in sizes] for _ in range(rounds)]
    for i, n in enumerate(sizes):
        spent = statistics.median(r[i] for r in found)
        ratios = sorted(r[i] / r[-1] for r in found)
        middle = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"  {n}  {spent:.0f}  {middle}  {4 * n * V / 1e6:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rows(rounds)
    parts(rounds)


if __name__ == "__main__":
    with threads():
        main()
