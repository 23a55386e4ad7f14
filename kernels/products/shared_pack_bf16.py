"""gemm_bf16 for many rows: b is packed once for all threads, a strip of it at a time.

Each thread would pack all of b for itself, and again for every block of its rows: of products with
thousands of rows that was a quarter of their time.
"""

from functools import cache

import numpy as np
from numba import prange, types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.products import amx
from npgpt.kernels.products.gemm import fill, gemm_signature
from npgpt.kernels.products.gemm_bf16 import (
    DOTS,
    KC,
    TILES,
    multiply_block,
    panel_size,
    rows_at_once,
)
from npgpt.kernels.products.pack_bf16 import ACROSS, NR, SIDE, pack

NC = 64 * NR  # of a strip, KC x NC: 4.5 MiB, which is read from the third-level cache, in order

FACTOR, _, RESULT, START, SCRATCH = gemm_signature(np.dtype("f4")).args
STRIP = types.uint32[::1]
PACKING = types.void(FACTOR, STRIP, types.intp)
MULTIPLYING = types.void(FACTOR, FACTOR, STRIP, RESULT, START, SCRATCH, types.intp)
packing_at, multiplying_at = kernel_at(PACKING), kernel_at(MULTIPLYING)


def product_in_strips(a, b, c, start, scratch, parts):
    """c (M, N) = start + a (M, K) @ b (K, N), of `parts` bf16 an element; scratch a row a thread.

    start is c, a bias in every row, or empty, as in gemm.
    """
    strip = empty((NC * KC // 2,), np.uint32)
    pack_columns, multiply_rows, multiply_strips = kernels_for(amx.granted())
    addresses = address_of(pack_columns), address_of(multiply_rows)
    multiply_strips(*addresses, a, b, c, start, strip, scratch, parts)


@cache
def kernels_for(on_tiles):
    """The compiled pack_columns, multiply_rows and multiply_strips.

    The last is given the addresses of the other two: were they a part of it, it would take seconds
    more to compile.
    """
    matrices = FACTOR, FACTOR, RESULT, START, STRIP, SCRATCH.dtype[:, ::1]
    whole = types.void(types.intp, types.intp, *matrices, types.intp)
    return (
        jit(pack_columns, signature=PACKING),
        jit(rows_on_tiles if on_tiles else rows_by_dots, signature=MULTIPLYING),
        jit(multiply_strips, parallel=True, signature=whole),
    )


def multiply_strips(packing, multiplying, a, b, c, start, strip, scratch, parts):
    """Of each strip, every thread packs some panels, and then multiplies some rows of a by it."""
    pack_columns, multiply_rows = packing_at(packing), multiplying_at(multiplying)
    (M, K), N, threads = a.shape, b.shape[1], len(scratch)
    if K == 0:
        fill(c, start)
    for k0 in range(0, K, KC // parts):
        k1 = min(k0 + KC // parts, K)
        size = panel_size(k1 - k0, parts) * ACROSS
        begun = c if k0 else start
        for n0 in range(0, N, NC):
            n1 = min(n0 + NC, N)
            for thread in prange(threads):
                lo, hi = share(n1 - n0, NR, thread, threads)
                pack_columns(b[k0:k1, n0 + lo : n0 + hi], strip[lo // NR * size :], parts)
            for thread in prange(threads):  # when all of the strip is there
                lo, hi = share(M, SIDE, thread, threads)
                own = c[lo:hi, n0:n1], begun[lo:hi, n0:n1], scratch[thread]
                coming = a[lo:hi, k1 : k1 + KC // parts] if n1 == N else a[lo:hi, k0:k1]
                multiply_rows(a[lo:hi, k0:k1], coming, strip, *own, parts)


@jit
def share(n, size, thread, threads):
    """From where to where a thread has n things that are whole in groups of this size."""
    groups = (n + size - 1) // size
    return groups * thread // threads * size, min(groups * (thread + 1) // threads * size, n)


def pack_columns(b, strip, parts):
    """Fills strip with the panels of b (K, N)."""
    pack(b.T, strip, True, parts, ACROSS)


def rows_on_tiles(a, coming, strip, c, start, scratch, parts):
    """c (M, N) = start + a (M, K) @ the strip; coming is the next call's a, which dots fetches."""
    multiply_blocks(a, coming, strip, c, start, scratch, parts, TILES)


def rows_by_dots(a, coming, strip, c, start, scratch, parts):
    """rows_on_tiles without tiles."""
    multiply_blocks(a, coming, strip, c, start, scratch, parts, DOTS)


@jit
def multiply_blocks(a, coming, strip, c, start, scratch, parts, units):
    """c (M, N) = start + a (M, K) @ the strip, a block of a after the other."""
    (M, K), N = a.shape, c.shape[1]
    room, size = scratch.view(np.uint32), panel_size(K, parts) * ACROSS
    rows = rows_at_once(M, K, parts, room)
    for m0 in range(0, M, rows):
        m1 = min(m0 + rows, M)
        pack(a[m0:m1], room, False, parts, 1)
        block = a[m1 : m1 + rows] if m1 < M else coming[:rows]  # the next one
        for n in range(0, N, NR):
            some = block[rows * n // N : rows * (n + NR) // N]  # fetched during this panel
            panel = strip[n // NR * size :]
            multiply_block(room, panel, K, c, start, m0, m1, n, parts, units, some)
