"""What the machine is and what it allows: its memory, and matrix products by NumPy's BLAS."""

import platform
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

UNITS = "avx2", "avx512f", "avx512_bf16", "amx_bf16"  # /proc/cpuinfo's names of what kernels use
ADAMW_BYTES = 28  # a parameter: p, g, m and v are read, p, m and v are written


def describe():
    """The CPU, the cores that are used and the versions of what was measured."""
    import npgpt

    cpuinfo = Path("/proc/cpuinfo")
    return {
        "cpu": cpu(cpuinfo.read_text() if cpuinfo.exists() else ""),
        "threads": npgpt.get_threads(),
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "torch") if find_spec(name)},
    }


def cpu(cpuinfo):
    """The CPU's name and those of UNITS that it has, from what /proc/cpuinfo says."""
    lines = cpuinfo.splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    units = [unit for unit in UNITS if unit in flags]
    return " ".join([names[0] if names else platform.processor(), *units])


def median_time(function, setup=tuple, times=7):
    """Seconds of function(*setup()), the median after two calls that do not count."""
    time.sleep(0.3)  # the threads of another pool, NumPy's or Numba's, spin on for a while
    seconds = []
    for _ in range(times + 2):
        arguments = setup()
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[2:])[times // 2]


def memory_speed(count=1 << 26):
    """Bytes a second when all threads do x += y on memory that no cache holds.

    As in AdamW, what is written has been read: a line that is only written is read all the same.
    """
    from numba import prange

    from npgpt.kernels.codegen.jit import jit
    from npgpt.threads import threads

    x, y = np.ones(count, np.float32), np.ones(count, np.float32)

    @jit(parallel=True)
    def add(x, y):
        for i in prange(x.size):
            x[i] += y[i]

    with threads():
        return 12 * count / median_time(lambda: add(x, y))


def products(B, T, L=12, C=768, V=50257):
    """M, K, N and how often, of every product of a step but attention's; its operands' layout.

    Each matmul layer has three: out = x @ w.T, dx = dout @ w, dw = dout.T @ x.
    """
    for inputs, outputs, count in (
        (C, 3 * C, L),
        (C, C, L),
        (C, 4 * C, L),
        (4 * C, C, L),
        (C, V, 1),
    ):
        yield "x @ w.T", B * T, inputs, outputs, count
        yield "dout @ w", B * T, outputs, inputs, count
        yield "dout.T @ x", outputs, B * T, inputs, count


def operands(kind, M, K, N):
    """Random operands in the layout that a step has them in, and a place for the product."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    x = normal(K, M).T if kind == "dout.T @ x" else normal(M, K)
    y = normal(N, K).T if kind == "x @ w.T" else normal(K, N)
    return x, y, np.empty((M, N), np.float32)


def sgemm_seconds(B, T):
    """What the products of a step take with NumPy's matmul, one after the other."""
    total = 0.0
    for kind, M, K, N, count in products(B, T):
        x, y, out = operands(kind, M, K, N)
        total += count * median_time(lambda: np.matmul(x, y, out=out))  # noqa: B023
    return total


def main():
    """Print the limits of a step as JSON: for bench.step, in a process of its own."""
    import json

    from npgpt import GPT2Config
    from npgpt.parameters import count_parameters

    B, T = int(sys.argv[1]), int(sys.argv[2])
    speed = memory_speed()
    adamw = ADAMW_BYTES * count_parameters(GPT2Config()) / speed
    print(json.dumps({"sgemm": sgemm_seconds(B, T), "adamw": adamw, "memory": speed}))


if __name__ == "__main__":
    main()
