"""Time the linear layer on one core: its three products, and the forward pass for few positions.

    OPENBLAS_NUM_THREADS=1 python doc/matmul/timing.py

The weights are (3072, 768), those of the first linear layer of GPT-2's MLP. NumPy and npgpt are
called in turn; each number is the median of the rounds, of the core's time.
"""

import statistics
import time

import numba
import numpy as np

from npgpt import layers
from npgpt.kernels.products.gemv import few_rows
from npgpt.kernels.products.product import product

C, OC, ROUNDS = 768, 3072, 15
WEIGHTS = 32  # sets of weights for few positions, 302 MB, so that no cache holds the next one


def medians(*calls):
    seconds = [[] for _ in calls]
    for i in range(ROUNDS + 1):
        for call, values in zip(calls, seconds, strict=True):
            start = time.thread_time()
            call(i)
            values.append(time.thread_time() - start)
    return [statistics.median(values[1:]) for values in seconds]


def main():
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    w = normal(OC, C)
    for N in (64, 256, 2048):
        x, dout = normal(N, C), normal(N, OC)
        for name, left, right in (
            ("x @ w.T", x, w.T),
            ("dout @ w", dout, w),
            ("dout.T @ x", dout.T, x),
        ):
            out = np.empty((len(left), right.shape[1]), np.float32)
            numpy, own = medians(
                lambda i, a=left, b=right, out=out: np.matmul(a, b, out=out),
                lambda i, a=left, b=right, out=out: product(a, b, out),
            )
            work = 2e-9 * N * C * OC
            print(
                f"N={N:<5} {name:<11} NumPy {work / numpy:6.1f}, npgpt {work / own:6.1f} GFLOP/s"
                f" (npgpt / NumPy: {numpy / own:.2f})"
            )
    weights = [normal(OC, C) for _ in range(WEIGHTS)]
    for N in (1, 4, 12, 16, 64):
        x, out = normal(N, C), np.empty((N, OC), np.float32)
        times = medians(
            lambda i, x=x: layers.matmul_forward(x, weights[i % WEIGHTS]),
            lambda i, x=x, out=out: product(x, weights[i % WEIGHTS].T, out),
            lambda i, x=x, out=out: few_rows(x, weights[i % WEIGHTS], out),
        )
        speeds = ", ".join(f"{1e-9 * w.nbytes / seconds:.1f}" for seconds in times)
        print(f"N={N}: NumPy, npgpt's product, few rows: {speeds} GB/s of weights")


if __name__ == "__main__":
    main()
