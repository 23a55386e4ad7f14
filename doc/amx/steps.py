"""Measures each step of the tutorial, in turn, on one core and at last on all.

python doc/amx/steps.py [ROUNDS]
"""

import statistics
import sys
import time

import numpy as np
from numba import njit

from npgpt.core.precision import PRECISIONS, use_bf16_terms
from npgpt.core.threads import threads
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.memory.prefetch import prefetch_for_write
from npgpt.kernels.products import amx
from npgpt.kernels.products.amx import (
    configure,
    load,
    multiply,
    release,
    store,
    zero,
)
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_for
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.kernels.products.product import product

TILE_CONFIG = amx.TILE_CONFIG
M, K, N = 768, 768, 3072  # a step's widest layer, 768 positions of it
STEPS = K // 32  # multiplications from the first k to the last
K_TILES = 8  # of them, whose operands fit into L1


@njit
def multiply_alone(a, b, c, count):
    configure(TILE_CONFIG)
    for _ in range(count // 4):
        multiply(0, 4, 6)
        multiply(1, 4, 7)
        multiply(2, 5, 6)
        multiply(3, 5, 7)
    release()


@njit
def one_tile(a, b, c, count):
    """16 x 16 of c: two loads for each multiplication."""
    configure(TILE_CONFIG)
    for _ in range(count // K_TILES):
        for step in range(K_TILES):
            load(3, a, 256 * step, 16)
            load(4, b, 256 * step, 16)
            multiply(0, 3, 4)
    release()


@njit
def eight_tiles(a, b, c, count):
    """32 x 32 of c: four loads for four multiplications, and no tile is free."""
    configure(TILE_CONFIG)
    for _ in range(count // (4 * K_TILES)):
        for step in range(K_TILES):
            at = 512 * step
            load(4, a, at, 16)
            load(6, b, at, 16)
            multiply(0, 4, 6)
            load(7, b, at + 256, 16)
            multiply(1, 4, 7)
            load(5, a, at + 256, 16)
            multiply(2, 5, 6)
            multiply(3, 5, 7)
    release()


@njit
def five_tiles(a, b, c, count):
    """16 x 48 of c: four loads for three multiplications, and three tiles are never touched."""
    configure(TILE_CONFIG)
    for _ in range(count // (3 * K_TILES)):
        for step in range(K_TILES):
            at = 768 * step
            load(3, a, 256 * step, 16)
            load(4, b, at, 16)
            multiply(0, 3, 4)
            load(4, b, at + 256, 16)
            multiply(1, 3, 4)
            load(4, b, at + 512, 16)
            multiply(2, 3, 4)
    release()


def storing(prefetch):
    """five_tiles, of all of c (M, N), with each tile stored where it belongs."""

    @njit
    def run(a, b, c, count):
        configure(TILE_CONFIG)
        for n in range(0, N, 48):
            for m in range(0, M, 16):
                zero(0)
                zero(1)
                zero(2)
                for step in range(STEPS):
                    if prefetch and step < 8:
                        for j in range(n, n + 48, 16):
                            prefetch_for_write(c, m + 16 + 2 * step, j)
                            prefetch_for_write(c, m + 17 + 2 * step, j)
                    at = 768 * step
                    load(3, a, 16 * K // 2 * (m // 16) + 256 * step, 16)
                    load(4, b, at, 16)
                    multiply(0, 3, 4)
                    load(4, b, at + 256, 16)
                    multiply(1, 3, 4)
                    load(4, b, at + 512, 16)
                    multiply(2, 3, 4)
                store(0, c, N * m + n, N)
                store(1, c, N * m + n + 16, N)
                store(2, c, N * m + n + 32, N)
        release()

    return run


def show_in_turn(cases, work):
    """Print the GFLOP/s of each case: a function, and the part of so many GFLOP that it does."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    speeds = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, (run, part) in cases.items():
            start = time.perf_counter()
            run()
            if turn:  # the first compiles
                speeds[name].append(work / part / (time.perf_counter() - start))
    for name, values in speeds.items():
        print(
            f"{name:46} {statistics.median(values):6.0f}  ({min(values):.0f} to {max(values):.0f})"
        )


def main():
    if not amx.available():
        print("this CPU or system has no AMX tiles for bf16")
        return
    rng = np.random.default_rng(0)
    x = rng.standard_normal((M, K), dtype=np.float32)
    w = rng.standard_normal((N, K), dtype=np.float32)
    c, scratch = empty((M, N), np.float32), empty((SCRATCH_SIZE,), np.float32)
    nothing = np.empty((0, 0), np.float32)  # to begin with
    a, b = empty((M * K // 2,), np.uint32), empty((48 * K // 2 + (1 << 14),), np.uint32)
    a[:] = b[:] = 0
    whole = M * N * K // 8192  # multiplications, of 8,192 products each
    small = (a, b, c, whole // 8)
    plain, ahead = storing(prefetch=False), storing(prefetch=True)

    def everything(precision):
        with threads(), use_bf16_terms(PRECISIONS[precision].n_terms):
            product(x, w.T, c)

    gemms = {"fp32": gemm_for(np.dtype("f4")), "bf16": gemm_bf16_for(1)}

    def one_core(precision):
        gemms[precision](x, w.T, c, nothing, scratch)

    cases = {
        "the multiplication alone": (lambda: multiply_alone(*small), 8),
        "16 x 16 of c, in one tile": (lambda: one_tile(*small), 8),
        "32 x 32 in four, with the operands eight tiles": (lambda: eight_tiles(*small), 8),
        "16 x 48 in three, with the operands five tiles": (lambda: five_tiles(*small), 8),
        "the same for all of c, which is stored": (lambda: plain(a, b, c, whole), 1),
        "and prefetched before it is stored": (lambda: ahead(a, b, c, whole), 1),
        "and both operands packed: gemm_bf16": (lambda: one_core("bf16"), 1),
        "gemm, in float32": (lambda: one_core("fp32"), 1),
        "all cores, bf16": (lambda: everything("bf16"), 1),
        "all cores, bf16x3": (lambda: everything("bf16x3"), 1),
        "all cores, float32": (lambda: everything("fp32"), 1),
    }
    show_in_turn(cases, 2e-9 * M * N * K)


if __name__ == "__main__":
    main()
