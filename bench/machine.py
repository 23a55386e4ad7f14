"""What the machine is and what it allows: its memory, and matrix products by NumPy's BLAS."""

import platform
import re
import statistics
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.tables import precision_of
from npgpt.core.precision import PRECISIONS

# LLVM's names of what the kernels use, the widest last; and what multiplies bf16 by each.
EXTENSIONS = "avx2", "avx512f", "avx512bf16", "amx-bf16"
BF16_HARDWARE = {"amx-bf16": "AMX", "avx512bf16": "AVX-512 BF16"}
PACKAGES = {  # module -> the package that brings it
    "numpy": "numpy", "numba": "numba", "torch": "torch", "transformers": "transformers",
    "ctranslate2": "ctranslate2", "llama_cpp": "llama-cpp-python",
}  # fmt: skip
ADAMW_BYTES = 28  # a parameter: p, g, m and v are read, p, m and v are written


def describe():
    """The CPU, its extensions, the threads that compute and the versions of what is measured."""
    import npgpt
    from npgpt.kernels.codegen.vectors import cpu_features
    from npgpt.kernels.products import blas

    path, features = Path("/proc/cpuinfo"), cpu_features()
    cpuinfo = path.read_text() if path.exists() else ""
    hidden = "avx512f" in cpuinfo and "avx512f" not in features
    extensions = [name for name in EXTENSIONS if name in features]
    return {
        "cpu": cpu_name(cpuinfo) + " as if it had no AVX-512" * hidden,
        "extensions": " ".join(extensions),
        "bf16": BF16_HARDWARE.get(extensions[-1] if extensions else None, "none"),
        "threads": npgpt.get_threads(),
        "products": blas.way(),
        "system": platform.system(),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for module, name in PACKAGES.items() if find_spec(module)},
        },
    }


def supported(systems):
    """Those of the systems, by name, in whose precision this CPU multiplies."""
    from npgpt.kernels.products.precision import has_bf16_hardware

    here = PRECISIONS if has_bf16_hardware() else ["fp32"]
    return [name for name in systems if precision_of(name) in here]


def cpu_name(cpuinfo):
    """The CPU's name, from what /proc/cpuinfo says where there is one."""
    lines = cpuinfo.splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory():
    """The largest resident size of this process so far, in bytes.

    On Linux getrusage's also counts the process that this one was forked from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def time_calls(function, setup=tuple, times=7):
    """Seconds of each function(*setup()), after two calls that do not count."""
    time.sleep(0.3)  # the threads of another pool, NumPy's or Numba's, spin on for a while
    seconds = []
    for _ in range(times + 2):
        arguments = setup()
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def median_time(function, setup=tuple, times=7):
    """Seconds of function(*setup()), the median."""
    return statistics.median(time_calls(function, setup, times))


def memory_speed(count=1 << 26):
    """Bytes a second when all threads do x += y on memory that no cache holds.

    As in AdamW, what is written has been read: a line that is only written is read all the same.
    """
    from numba import prange

    from npgpt.core.threads import threads
    from npgpt.kernels.codegen.jit import jit

    x, y = np.ones(count, np.float32), np.ones(count, np.float32)

    @jit(parallel=True)
    def add(x, y):
        for i in prange(x.size):
            x[i] += y[i]

    with threads():
        return 12 * count / median_time(lambda: add(x, y))


def products(B, T, config):
    """Layout, M, K, N and how often, of every product of a step but attention's.

    Each matmul layer has three: out = x @ w.T, dx = dout @ w, dw = dout.T @ x.
    """
    L, C, V = config.n_layer, config.n_embd, config.vocab_size
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


def sgemm_seconds(B, T, config):
    """What the products of a step take with NumPy's matmul, one after the other."""
    total = 0.0
    for kind, M, K, N, count in products(B, T, config):
        x, y, out = operands(kind, M, K, N)
        total += count * median_time(lambda: np.matmul(x, y, out=out))  # noqa: B023
    return total


def main():
    """Print a step's limits as JSON: for bench.step, in a process of its own."""
    import json

    from bench.sizes import SIZES
    from npgpt.core.parameters import count_parameters

    config, B, T = SIZES[sys.argv[1]].config, int(sys.argv[2]), int(sys.argv[3])
    speed = memory_speed()
    adamw = ADAMW_BYTES * count_parameters(config) / speed
    print(json.dumps({"sgemm": sgemm_seconds(B, T, config), "adamw": adamw, "memory": speed}))


if __name__ == "__main__":
    main()
