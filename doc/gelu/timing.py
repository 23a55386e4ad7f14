"""Time GELU on one core: the textbook in chunks of several sizes, and kernels with three exps.

    python doc/gelu/timing.py

What is in one table is measured in turn; each number is the median of the rounds, of the core's
time. A fault is a page of memory that the operating system has had to clear at its first touch.
"""

import resource
import statistics
import time

import numba
import numpy as np

from npgpt import kernels, layers
from npgpt.kernels.codegen.jit import SETTINGS
from npgpt.kernels.numerics.exponential import exp
from npgpt.layers import gelu as textbook
from npgpt.layers.gelu import CUBIC, SCALE

S, A, ONE, HALF = np.float32(SCALE), np.float32(CUBIC), np.float32(1), np.float32(0.5)
CHUNKS = [1 << k for k in (8, 10, 12, 13, 14, 15, 16, 18, 20, 22)]


@numba.njit(**SETTINGS)
def with_tanh(x, out):
    for i in range(x.size):
        z = x[i]
        out[i] = HALF * z * (ONE + np.tanh(S * (z + A * z * z * z)))


@numba.njit(**SETTINGS)
def with_library_exp(x, out):
    for i in range(x.size):
        z = x[i]
        out[i] = z / (ONE + np.exp(np.float32(-2) * S * (z + A * z * z * z)))


@numba.njit(**SETTINGS)
def with_polynomial(x, out):
    for i in range(x.size):
        z = x[i]
        out[i] = z / (ONE + exp(np.float32(-2) * S * (z + A * z * z * z)))


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def medians(functions, rounds):
    """name -> function, called in turn -> name -> (milliseconds, faults)."""
    seen = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            before, start = faults(), time.thread_time()
            function()
            seen[name].append((1e3 * (time.thread_time() - start), faults() - before))
    return {
        name: [statistics.median(column) for column in zip(*values[1:], strict=True)]
        for name, values in seen.items()
    }


def in_chunks(chunk, function, *arguments):
    def call():
        before, textbook.CHUNK = textbook.CHUNK, chunk
        function(*arguments)
        textbook.CHUNK = before

    return call


def main():
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    for shape, rounds in (((4, 64, 3072), 25), ((4, 1024, 3072), 5)):
        x, dout = rng.standard_normal((2, *shape), dtype=np.float32)
        flat, out = x.reshape(-1), np.empty(x.size, np.float32)
        print(f"\n{shape}: {x.size} numbers, nanoseconds a number (faults)")
        functions = {"whole": in_chunks(x.size, layers.gelu_forward, x)}
        for chunk in CHUNKS:
            functions[f"chunks of {chunk}"] = in_chunks(chunk, layers.gelu_forward, x)
        functions |= {
            "backward, whole": in_chunks(x.size, layers.gelu_backward, dout, x),
            "backward, textbook": lambda: layers.gelu_backward(dout, x),  # noqa: B023
            "backward, kernel": lambda: kernels.gelu_backward(dout, x),  # noqa: B023
            "forward, textbook": lambda: layers.gelu_forward(x),  # noqa: B023
            "forward, kernel": lambda: kernels.gelu_forward(x),  # noqa: B023
            "loop with tanh": lambda: with_tanh(flat, out),  # noqa: B023
            "loop with the library's exp": lambda: with_library_exp(flat, out),  # noqa: B023
            "loop with the polynomial": lambda: with_polynomial(flat, out),  # noqa: B023
        }
        for name, (ms, count) in medians(functions, rounds).items():
            print(f"  {name:<30} {1e6 * ms / x.size:6.2f}  ({count:.0f})")


if __name__ == "__main__":
    main()
