"""Measures the steps to a product in bf16 without tiles, in turn, on one core and at last on all.

python doc/amx/steps_dots.py [ROUNDS]
"""

import numpy as np
from numba import njit
from steps import show_in_turn

from npgpt.core.precision import PRECISIONS, use_bf16_terms
from npgpt.core.threads import threads
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.products import amx, avx512_bf16
from npgpt.kernels.products.avx512_bf16 import multiply_avx512
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_for
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.kernels.products.pack_bf16 import NR
from npgpt.kernels.products.product import product

M, K, N = 256, 768, 3072  # a step's widest layer, 256 positions of it
LAYERS = 12  # whose weights no cache holds all together


@njit
def packed(a, b, c, c_init, next_a):
    """All of c (M, N), each 48 columns of the same panel of b."""
    for n in range(0, N, NR):
        multiply_avx512(a, 0, b, K // 32, c, c_init, 0, M, n, next_a)


def main():
    if not avx512_bf16.available():
        print("this CPU has no AVX-512 instructions for bf16")
        return
    amx.available = lambda: False  # as on a CPU without tiles
    rng = np.random.default_rng(0)
    x = rng.standard_normal((M, K), dtype=np.float32)
    weights = rng.standard_normal((LAYERS, N, K), dtype=np.float32)
    c, scratch = empty((M, N), np.float32), empty((SCRATCH_SIZE,), np.float32)
    no_init = np.empty((0, 0), np.float32)  # and no next operand to prefetch
    a, b = empty((M * K // 2,), np.uint32), empty((NR * K // 2,), np.uint32)
    a[:] = b[:] = 0
    gemms = {"fp32": gemm_for(np.dtype("f4")), "bf16": gemm_bf16_for(1)}
    turn = 0

    def one_core(precision, count):
        nonlocal turn
        turn += 1
        gemms[precision](x, weights[turn % count].T, c, no_init, scratch)

    def everything(precision):
        nonlocal turn
        turn += 1
        with threads(), use_bf16_terms(PRECISIONS[precision].n_terms):
            product(x, weights[turn % LAYERS].T, c)

    cases = {
        "the dot products, of packed operands": (lambda: packed(a, b, c, no_init, no_init), 1),
        "and both operands packed, in the caches": (lambda: one_core("bf16", 1), 1),
        "the same, with w from memory": (lambda: one_core("bf16", LAYERS), 1),
        "in float32, in the caches": (lambda: one_core("fp32", 1), 1),
        "in float32, with w from memory": (lambda: one_core("fp32", LAYERS), 1),
        "all cores, bf16 without tiles": (lambda: everything("bf16"), 1),
        "all cores, float32": (lambda: everything("fp32"), 1),
    }
    show_in_turn(cases, 2e-9 * M * N * K)


if __name__ == "__main__":
    main()
