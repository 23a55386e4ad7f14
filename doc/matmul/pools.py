"""Two pools of threads in one process: NumPy's matmul between Numba's kernels.

    python doc/matmul/pools.py

A chain of a matmul, a GELU and two additions, with NumPy's matmul and with npgpt's. The parts
are timed alone, each in a loop of its own, and then the chain. Milliseconds, medians.
"""

import statistics
import time

import numpy as np
from numba import get_num_threads

from npgpt import kernels

N, C, OC, CALLS = 256, 768, 3072, 50


def median(function):
    time.sleep(0.3)  # what another pool's threads have to spin, they have spun
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[CALLS // 10 :])


def main():
    rng = np.random.default_rng(0)
    x, w, other = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((N, C), (OC, C), (N, OC))
    )
    hidden = np.empty((N, OC), np.float32)

    def gelu():
        return kernels.gelu_forward(hidden)[0]

    def add():
        return kernels.residual_add(hidden, other)

    def chain(matmul):
        y = matmul()
        y, _ = kernels.gelu_forward(y)
        y = kernels.residual_add(y, other)
        return kernels.residual_add(y, other)

    matmuls = {
        "NumPy's": lambda: np.matmul(x, w.T, out=hidden),
        "npgpt's": lambda: kernels.matmul_forward(x, w)[0],
    }
    print(f"{get_num_threads()} threads; matmul, gelu, addition; sum with two additions; chain")
    for _ in range(3):
        for name, matmul in matmuls.items():
            parts = [median(part) for part in (matmul, gelu, add)]
            whole = median(lambda matmul=matmul: chain(matmul))
            alone = sum(parts) + parts[2]
            shown = ", ".join(f"{part:.2f}" for part in parts)
            print(f"{name} matmul: {shown}; {alone:.2f}; {whole:.2f} ({whole / alone:.1f} times)")


if __name__ == "__main__":
    main()
