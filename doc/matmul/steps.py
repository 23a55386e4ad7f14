"""A matrix product on one core, from three loops to BLAS, each step measured.

    OPENBLAS_NUM_THREADS=1 python doc/matmul/steps.py

c = a @ b with a (256, 768) and b (768, 768) in float32. The steps are called in turn; each number
is the median of the rounds, of the core's time.
"""

import statistics
import time

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import SETTINGS
from npgpt.kernels.codegen.vectors import VECTOR, Matrix, integer, shuffle
from npgpt.kernels.products.gemm import KC, MR, SCRATCH_SIZE, gemm_for, pack
from npgpt.kernels.products.product import product

M, K, N, ROUNDS = 256, 768, 768, 31
ALONE = 1 << 17  # k of the tiles that are measured alone
LIMIT = "tiles alone"
NR = 3 * VECTOR // 4  # floats in the three vectors of a tile's row
jit = numba.njit(**SETTINGS)


@jit
def ijk(a, b, c):
    """Three loops: each number of c is the product of a row of a and a column of b."""
    for i in range(len(a)):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(len(b)):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@jit
def ikj(a, b, c):
    """The inner loop runs along rows of b and c, numbers that stand side by side."""
    c[:] = 0
    for i in range(len(a)):
        for k in range(len(b)):
            for j in range(b.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@jit
def blocked(a, b, c):
    """As ikj, with a block of b of 32 x 256 numbers, 32 KiB, that all rows of a use in turn."""
    c[:] = 0
    for n in range(0, b.shape[1], 256):
        for k0 in range(0, len(b), 32):
            for i in range(len(a)):
                for k in range(k0, k0 + 32):
                    row, out = b[k, n : n + 256], c[i, n : n + 256]
                    for j in range(256):
                        out[j] += a[i, k] * row[j]


@jit
def four_k(a, b, c):
    """As blocked, with four k at a time: c is read and written once for four rows of b."""
    c[:] = 0
    for n in range(0, b.shape[1], 256):
        for k0 in range(0, len(b), 32):
            for i in range(len(a)):
                out = c[i, n : n + 256]
                for k in range(k0, k0 + 32, 4):
                    a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                    b0, b1 = b[k, n : n + 256], b[k + 1, n : n + 256]
                    b2, b3 = b[k + 2, n : n + 256], b[k + 3, n : n + 256]
                    for j in range(256):
                        out[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]


@jit
def loops_tile(a, b, K, c, add):
    """The tile c (MR, NR) = or, with add, += a (K, MR), transposed, @ b (K, NR), in plain loops."""
    sums = np.zeros((MR, NR), np.float32)
    for k in range(K):
        for i in range(MR):
            for j in range(NR):
                sums[i, j] += a[k, i] * b[k, j]
    for i in range(MR):
        for j in range(NR):
            c[i, j] = c[i, j] + sums[i, j] if add else sums[i, j]


def tile_of(rows):
    """An intrinsic as loops_tile for a tile of so many rows, whose sums are in registers."""

    @intrinsic
    def tile(typing_context, a, b, K, c, add):
        def generate(context, builder, signature, arguments):
            a, b, c = (Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3))
            sums = emit_sums(builder, rows, a, b, arguments[2])
            where = {(i, j): c.pointer(integer(i), integer(j * c.lanes)) for i, j in sums}
            adds = cgutils.is_true(builder, arguments[4])
            with builder.if_else(adds) as (adding, writing):
                with adding:
                    for ij, pointer in where.items():
                        c.store(builder.fadd(c.load(pointer, c.lanes), sums[ij]), pointer)
                with writing:
                    for ij, pointer in where.items():
                        c.store(sums[ij], pointer)
            return context.get_dummy_value()

        return types.void(a, b, K, c, add), generate

    return tile


def emit_sums(builder, rows, a, b, K):
    """The instructions of a loop over k < K: sums[i, j] += a[k, i] * (vector j of b[k])."""
    W = b.lanes  # floats in a vector
    vector = ir.VectorType(b.element, W)
    kind = ir.FunctionType(vector, [vector] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{W}f32")
    before = builder.block
    loop, after = builder.append_basic_block("k"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(ir.IntType(64))
    sums = {(i, j): builder.phi(vector) for i in range(rows) for j in range(3)}
    bk = [b.load(b.pointer(k, integer(j * W)), W) for j in range(3)]
    totals = {}
    for i in range(rows):
        at = builder.add(builder.mul(a.strides[0], k), builder.mul(a.strides[1], integer(i)))
        x = builder.load(builder.gep(a.data, [at]))  # a[k, i]
        x = builder.insert_element(ir.Constant(vector, ir.Undefined), x, integer(0))
        x = shuffle(builder, x, x, [0] * W)  # the same in all places of a vector
        for j in range(3):
            totals[i, j] = builder.call(fma, [x, bk[j], sums[i, j]])
    following = builder.add(k, integer(1))
    builder.cbranch(builder.icmp_signed("<", following, K), loop, after)
    k.add_incoming(integer(0), before)
    k.add_incoming(following, loop)
    for ij, phi in sums.items():
        phi.add_incoming(ir.Constant(vector, [0.0] * W), before)
        phi.add_incoming(totals[ij], loop)
    builder.position_at_end(after)
    return totals


vector_tile = tile_of(MR)


@jit
def tiles(a, b, c):
    """Tiles in registers, a and b as they are."""
    K = len(b)
    for n in range(0, b.shape[1], NR):
        for m in range(0, len(a), MR):
            tile = c[m : m + MR, n : n + NR]
            vector_tile(a[m : m + MR].T, b[:, n : n + NR], K, tile, False)


def packed_product(tile, depth):
    """A product that packs blocks of `depth` rows of b, and calls tile on the packed panels."""

    @jit
    def run(a, b, c, apanels, bpanels):
        for k0 in range(0, len(b), depth):
            k1 = min(k0 + depth, len(b))
            pack(b[k0:k1].T, bpanels)  # (N / NR, depth, NR)
            for m in range(0, len(a), MR):
                pack(a[m : m + MR, k0:k1], apanels)  # (1, depth, MR)
                for n in range(0, b.shape[1], NR):
                    part = c[m : m + MR, n : n + NR]
                    tile(apanels[0], bpanels[n // NR], k1 - k0, part, k0 > 0)

    apanels = np.empty((1, depth, MR), np.float32)
    bpanels = np.empty((N // NR, depth, NR), np.float32)
    return lambda a, b, c: run(a, b, c, apanels, bpanels)


def tiles_alone(rows):
    """Tiles of so many rows, ALONE k in all, on the same two panels: what the registers allow."""
    tile = tile_of(rows)

    @jit
    def run(a, b, c):
        for _ in range(ALONE // KC):
            tile(a, b, KC, c, False)

    a, b = np.ones((KC, rows), np.float32), np.ones((KC, NR), np.float32)
    c = np.empty((rows, NR), np.float32)
    return lambda: run(a, b, c)


@jit
def read(x):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


def own_gemm():
    gemm, scratch = gemm_for(np.dtype(np.float32)), np.empty(SCRATCH_SIZE, np.float32)
    nothing = np.empty((0, 0), np.float32)  # to begin with
    return lambda a, b, c: gemm(a, b, c, nothing, scratch)


STEPS = {
    "three loops, i j k": ijk,
    "loops in the order i k j": ikj,
    "blocks of b": blocked,
    "four k at a time": four_k,
    "packed tiles, plain loops": packed_product(loops_tile, KC),
    "tiles in registers": tiles,
    "the same, packed": packed_product(vector_tile, K),
    "the same, in blocks of k": packed_product(vector_tile, KC),
    "npgpt's gemm": own_gemm(),
    "npgpt's product": product,
    "NumPy's BLAS": lambda a, b, c: np.matmul(a, b, out=c),
}


def measure(calls):
    """Name -> call -> name -> its seconds, the median; one after the other in each round."""
    seconds = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def measure_steps():
    """Name -> GFLOP/s of each step, and of its tile alone."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((M, K), (K, N)))
    expected = a.astype(np.float64) @ b
    calls = {}
    for name, function in STEPS.items():
        c = np.full((M, N), np.nan, np.float32)
        function(a, b, c)
        assert np.abs(c - expected).max() < 1e-4 * np.abs(expected).max(), name
        calls[name] = lambda function=function, c=c: function(a, b, c)
    calls[LIMIT] = tiles_alone(MR)
    work = {name: 2e-9 * M * K * N for name in STEPS} | {LIMIT: 2e-9 * ALONE * MR * NR}
    return {name: work[name] / seconds for name, seconds in measure(calls).items()}


def measure_tiles():
    """Rows of a tile -> GFLOP/s."""
    rows = (1, 2, 3, 4, 6, 8, 10)
    calls = {r: tiles_alone(r) for r in rows}
    return {r: 2e-9 * ALONE * r * NR / seconds for r, seconds in measure(calls).items()}


def main():
    numba.set_num_threads(1)
    speeds = measure_steps()
    for name, speed in speeds.items():
        print(f"{name:<28} {speed:8.2f} GFLOP/s")
    for rows, speed in measure_tiles().items():
        print(f"tiles of {rows:2} x 3 vectors alone {speed:7.2f} GFLOP/s")
    large = np.ones(1 << 26, np.float32)
    print(f"reading memory {1e-9 * large.nbytes / measure({'': lambda: read(large)})['']:.1f} GB/s")


if __name__ == "__main__":
    main()
