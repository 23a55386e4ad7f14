"""GEMM in bf16 for many rows: b is packed once for all threads, a block of its columns at a time.

In gemm_bf16.py each thread packs all of b for itself, and again for every block of its rows: of
products with thousands of rows that was a quarter of their time.
"""

from functools import cache

import numpy as np
from numba import prange, types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products import amx
from npgpt.kernels.products.gemm import fill, gemm_signature
from npgpt.kernels.products.gemm_bf16 import (
    AMX,
    AVX512,
    KC,
    block_rows,
    multiply_block,
    panel_size,
)
from npgpt.kernels.products.pack_bf16 import NR, PANEL_TILES, TILE_ROWS, pack

NC = 64 * NR  # columns packed at a time, KC x NC: 4.5 MiB, read from L3 in order

# The types of the kernels' arguments.
OPERAND, _, RESULT, INIT, SCRATCH = gemm_signature(np.dtype("f4")).args
PACKED = types.uint32[::1]
PACK = types.void(OPERAND, PACKED, types.intp)
MULTIPLY = types.void(OPERAND, OPERAND, PACKED, RESULT, INIT, SCRATCH, types.intp)
pack_at, multiply_at = kernel_at(PACK), kernel_at(MULTIPLY)


def product_shared_pack(a, b, c, c_init, scratch, n_terms):
    """c (M, N) = c_init + a (M, K) @ b (K, N), of n_terms bf16 an element; a scratch per thread.

    c_init is c, a bias in every row, or empty, as in gemm.
    """
    packed_b = empty((NC * KC // 2,), np.uint32)
    pack_columns, multiply_blocks, multiply_shared = kernels_for(amx.available())
    addresses = address_of(pack_columns), address_of(multiply_blocks)
    multiply_shared(*addresses, a, b, c, c_init, packed_b, scratch, n_terms)


@cache
def kernels_for(use_amx):
    """The compiled pack_columns, multiply_blocks and multiply_shared.

    The last calls the other two by their addresses: inlined, they would add seconds to its
    compilation.
    """
    matrices = OPERAND, OPERAND, RESULT, INIT, PACKED, SCRATCH.dtype[:, ::1]
    whole = types.void(types.intp, types.intp, *matrices, types.intp)
    return (
        jit(pack_columns, signature=PACK),
        jit(multiply_blocks_amx if use_amx else multiply_blocks_avx512, signature=MULTIPLY),
        jit(multiply_shared, parallel=True, signature=whole),
    )


def multiply_shared(pack_address, multiply_address, a, b, c, c_init, packed_b, scratch, n_terms):
    """All threads pack some columns of b, wait, and multiply their own rows of a by all of them."""
    pack_columns, multiply_blocks = pack_at(pack_address), multiply_at(multiply_address)
    (M, K), N, n_threads = a.shape, b.shape[1], len(scratch)
    if K == 0:
        fill(c, c_init)
    for k0 in range(0, K, KC // n_terms):
        k1 = min(k0 + KC // n_terms, K)
        size = panel_size(k1 - k0, n_terms) * PANEL_TILES
        init = c if k0 else c_init
        for n0 in range(0, N, NC):
            n1 = min(n0 + NC, N)
            for thread in prange(n_threads):
                mode = flush_denormals()
                lo, hi = thread_range(n1 - n0, NR, thread, n_threads)
                pack_columns(b[k0:k1, n0 + lo : n0 + hi], packed_b[lo // NR * size :], n_terms)
                restore_denormals(mode)
            for thread in prange(n_threads):  # when all columns are packed
                mode = flush_denormals()
                lo, hi = thread_range(M, TILE_ROWS, thread, n_threads)
                own = c[lo:hi, n0:n1], init[lo:hi, n0:n1], scratch[thread]
                # the next call's rows: of the next k or, for the next columns of b, these again
                next_a = a[lo:hi, k1 : k1 + KC // n_terms] if n1 == N else a[lo:hi, k0:k1]
                multiply_blocks(a[lo:hi, k0:k1], next_a, packed_b, *own, n_terms)
                restore_denormals(mode)


@jit
def thread_range(n, size, thread, n_threads):
    """The range of 0 to n that is a thread's, in whole groups of this size."""
    groups = (n + size - 1) // size
    return groups * thread // n_threads * size, min(groups * (thread + 1) // n_threads * size, n)


def pack_columns(b, packed_b, n_terms):
    """Fills packed_b with the panels of b (K, N)."""
    pack(b.T, packed_b, True, n_terms, PANEL_TILES)


def multiply_blocks_amx(a, next_a, packed_b, c, c_init, scratch, n_terms):
    """c (M, N) = c_init + a (M, K) @ packed_b; next_a is the next call's a, to be prefetched."""
    multiply_blocks(a, next_a, packed_b, c, c_init, scratch, n_terms, AMX)


def multiply_blocks_avx512(a, next_a, packed_b, c, c_init, scratch, n_terms):
    """multiply_blocks_amx without AMX."""
    multiply_blocks(a, next_a, packed_b, c, c_init, scratch, n_terms, AVX512)


@jit
def multiply_blocks(a, next_a, packed_b, c, c_init, scratch, n_terms, hardware):
    """c (M, N) = c_init + a (M, K) @ packed_b, a block of a after the other."""
    (M, K), N = a.shape, c.shape[1]
    workspace, size = scratch.view(np.uint32), panel_size(K, n_terms) * PANEL_TILES
    rows = block_rows(M, K, n_terms, workspace)
    for m0 in range(0, M, rows):
        m1 = min(m0 + rows, M)
        pack(a[m0:m1], workspace, False, n_terms, 1)
        next_block = a[m1 : m1 + rows] if m1 < M else next_a[:rows]
        for n in range(0, N, NR):
            # Each panel prefetches its share of the next block.
            share = next_block[rows * n // N : rows * (n + NR) // N]
            panel = packed_b[n // NR * size :]
            multiply_block(workspace, panel, K, c, c_init, m0, m1, n, n_terms, hardware, share)
