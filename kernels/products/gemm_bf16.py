"""GEMM on bf16 hardware: operands of one or two bf16 terms, sums in float32.

`gemm_bf16` rounds the elements of a and b to bf16. `gemm_bf16x3` makes each the sum of two terms,
high and low, and adds three products, high @ high + high @ low + low @ high: nearly as exact as
float32.

Both operands are packed (pack_bf16.py). A panel of a is 16 rows and K, one tile for every 32 k; a
panel of b is 48 columns and K, three for every 32 k. A block of a stays in L2 while panel after
panel of b is packed and multiplied: on AMX tiles, by `multiply_amx`, or without them, of one term
only, by AVX-512's dot products of bf16, `multiply_avx512` (avx512_bf16.py).
"""

from functools import cache

import numpy as np
from numba import types
from numba.extending import overload

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.prefetch import prefetch_for_write
from npgpt.kernels.products import amx
from npgpt.kernels.products.amx import (
    TILE_CONFIG,
    configure,
    load,
    multiply,
    release,
    store,
    zero,
)
from npgpt.kernels.products.avx512_bf16 import multiply_avx512
from npgpt.kernels.products.gemm import SCRATCH_SIZE, fill, gemm_signature
from npgpt.kernels.products.pack_bf16 import NR, PANEL_TILES, TILE_K, TILE_PAIRS, TILE_ROWS, pack

KC = 768  # of a panel of b, 72 KiB, and of a block of a: both stay in an L2 of 2 MiB
EDGE_SIZE = TILE_ROWS * NR  # elements of a 16 x 48 of which c has only a part
assert SCRATCH_SIZE % TILE_ROWS == 0  # so that panels begin at a cache line, as tiles want them
ONE_TERM, TWO_TERMS = np.int64(1), np.int64(2)  # of one type: 1 and 2 would each be compiled
AMX, AVX512 = None, ()  # the hardware, as types: a kernel has the code of one only


def gemm_bf16_for(n_terms):
    """gemm_bf16 or, for two terms, gemm_bf16x3, compiled; called as gemm_for's is."""
    if amx.available():
        return compiled(gemm_bf16x3 if n_terms == 2 else gemm_bf16)
    assert n_terms == 1, "bf16x3 takes AMX tiles"
    return compiled(gemm_bf16_avx512)


@cache
def compiled(gemm):
    return jit(gemm, signature=gemm_signature(np.dtype("f4")))


def gemm_bf16(a, b, c, c_init, scratch):
    """As gemm, with a and b rounded to bf16."""
    gemm_terms(a, b, c, c_init, scratch.view(np.uint32), ONE_TERM, AMX)


def gemm_bf16x3(a, b, c, c_init, scratch):
    """As gemm, with a and b each the sum of two bf16 terms."""
    gemm_terms(a, b, c, c_init, scratch.view(np.uint32), TWO_TERMS, AMX)


def gemm_bf16_avx512(a, b, c, c_init, scratch):
    """gemm_bf16 without AMX."""
    gemm_terms(a, b, c, c_init, scratch.view(np.uint32), ONE_TERM, AVX512)


@jit
def gemm_terms(a, b, c, c_init, scratch, n_terms, hardware):
    """c (M, N) = c_init + a (M, K) @ b (K, N), of n_terms bf16 an element."""
    M, K = a.shape
    N = b.shape[1]
    packed_b = scratch[: NR * KC // 2]
    workspace = scratch[NR * KC // 2 :]
    if K == 0:
        fill(c, c_init)
    for k0 in range(0, K, KC // n_terms):
        k1 = min(k0 + KC // n_terms, K)
        init = c if k0 else c_init
        rows = block_rows(M, k1 - k0, n_terms, workspace)
        for m0 in range(0, M, rows):
            m1 = min(m0 + rows, M)
            pack(a[m0:m1, k0:k1], workspace, False, n_terms, 1)
            for n in range(0, N, NR):
                pack(b[k0:k1, n : n + NR].T, packed_b, True, n_terms, PANEL_TILES)
                next_b = b[k0:k1, n + NR : n + 2 * NR].T
                multiply_block(
                    workspace, packed_b, k1 - k0, c, init, m0, m1, n, n_terms, hardware, next_b
                )


@jit
def block_rows(M, K, n_terms, workspace):
    """The rows of each block, when a (M, K) is cut into equal blocks that fit the workspace."""
    panels, size = max(1, (M + TILE_ROWS - 1) // TILE_ROWS), panel_size(K, n_terms)
    blocks = -(-panels // ((workspace.size - EDGE_SIZE) // size))
    return -(-panels // blocks) * TILE_ROWS


@jit
def panel_size(K, n_terms):
    """The number of pairs in a panel of 16 rows and K."""
    return (K + TILE_K - 1) // TILE_K * TILE_PAIRS * n_terms


@jit
def multiply_block(workspace, packed_b, K, c, c_init, m0, m1, n, n_terms, hardware, next_operand):
    """c[m0:m1, n : n + 48], clipped to c, = c_init's + the packed block of a @ a panel of b.

    The block of a is at the start of the workspace. Where c has only a part of 16 x 48, they are
    made at its end. next_operand is what will be packed next: multiply_avx512 prefetches it.
    """
    k_tiles, size = (K + TILE_K - 1) // TILE_K, panel_size(K, n_terms)
    whole = m0 + (m1 - m0) // TILE_ROWS * TILE_ROWS if n + NR <= c.shape[1] else m0
    if whole > m0:
        multiply_packed(
            hardware, workspace, 0, packed_b, k_tiles, n_terms,
            c, c_init, m0, whole, n, next_operand,
        )  # fmt: skip
    edge = workspace[-EDGE_SIZE:].view(np.float32).reshape(TILE_ROWS, NR)
    for m in range(whole, m1, TILE_ROWS):
        offset = (m - m0) // TILE_ROWS * size
        if c_init.size:
            copy_overlap(c_init[m : m + TILE_ROWS, n : n + NR], edge)
        init = edge if c_init.size else edge[:0]
        no_prefetch = next_operand[:0]
        multiply_packed(
            hardware, workspace, offset, packed_b, k_tiles, n_terms,
            edge, init, 0, TILE_ROWS, 0, no_prefetch,
        )  # fmt: skip
        copy_overlap(edge, c[m : m + TILE_ROWS, n : n + NR])


def multiply_packed(
    hardware, a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n, next_operand
):  # fmt: skip
    """Call multiply_amx or multiply_avx512."""
    if hardware is AMX:
        multiply_amx(a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n)
    else:
        multiply_avx512(a, a_offset, b, k_tiles, c, c_init, m0, m1, n, next_operand)


@overload(multiply_packed)
def _(hardware, a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n, next_operand):
    def on_amx(hardware, a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n, next_operand):
        multiply_amx(a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n)

    def on_avx512(hardware, a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n, next_operand):
        multiply_avx512(a, a_offset, b, k_tiles, c, c_init, m0, m1, n, next_operand)

    return on_amx if hardware == types.none else on_avx512


@jit
def copy_overlap(x, out):
    """Copy x to out, as much as both have."""
    for i in range(min(len(x), len(out))):
        for j in range(min(x.shape[1], out.shape[1])):
            out[i, j] = x[i, j]


@jit
def multiply_amx(a, a_offset, b, k_tiles, n_terms, c, c_init, m0, m1, n):
    """c[m0:m1, n : n + 48] = c_init's + the panels of a from a[a_offset] on @ the panel b.

    Rows are made 16 at a time, in tiles 0 to 2; 3 and 4 hold the operands. With all eight tiles,
    for 32 x 32 of c, a product would need a quarter less loads, but take twice the time while
    another program runs on the core's other hyperthread.
    """
    row, init_row = c.strides[0] // c.itemsize, c_init.strides[0] // c_init.itemsize
    configure(TILE_CONFIG)
    for m in range(m0, m1, TILE_ROWS):
        if c_init.size:
            corner = init_row * m + n
            load(0, c_init, corner, init_row)
            load(1, c_init, corner + TILE_ROWS, init_row)
            load(2, c_init, corner + 2 * TILE_ROWS, init_row)
        else:
            zero(0)
            zero(1)
            zero(2)
        for step in range(k_tiles):
            if step < TILE_ROWS // 2:  # prefetch two rows of the next 16
                for j in range(n, n + NR, TILE_ROWS):
                    prefetch_for_write(c, m + TILE_ROWS + 2 * step, j)
                    prefetch_for_write(c, m + TILE_ROWS + 2 * step + 1, j)
            for product in range(2 * n_terms - 1):  # high @ high, high @ low, low @ high
                ai = a_offset + TILE_PAIRS * (step + k_tiles * (product // 2))
                bi = PANEL_TILES * TILE_PAIRS * (step + k_tiles * (product % 2))
                load(3, a, ai, TILE_ROWS)
                load(4, b, bi, TILE_ROWS)
                multiply(0, 3, 4)
                load(4, b, bi + TILE_PAIRS, TILE_ROWS)
                multiply(1, 3, 4)
                load(4, b, bi + 2 * TILE_PAIRS, TILE_ROWS)
                multiply(2, 3, 4)
        corner = row * m + n
        store(0, c, corner, row)
        store(1, c, corner + TILE_ROWS, row)
        store(2, c, corner + 2 * TILE_ROWS, row)
        a_offset += TILE_PAIRS * k_tiles * n_terms
    release()
