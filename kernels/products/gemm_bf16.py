"""The product of gemm.py on the CPU's units for bf16, the upper half of a float32; sums in float32.

`gemm_bf16` rounds the elements of a and b to bf16. `gemm_bf16x3` splits each into two of them, high
and low, and adds three products, high @ high + high @ low + low @ high: nearly what float32 gives.

Both factors are packed (pack_bf16.py). A panel of a is 16 rows and K, one square for every 32 k; a
panel of b is 48 columns and K, three for every 32 k. A block of a stays in the second-level cache
while panel after panel of b is packed and multiplied: on AMX tiles, by `tiles`, or without them, in
one part alone, by AVX-512's instructions for bf16, by `dots` (avx512_bf16.py).
"""

from functools import cache

import numpy as np
from numba import types
from numba.extending import overload

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.products import amx
from npgpt.kernels.products.amx import (
    SHAPES,
    begin,
    end,
    fetch_to_write,
    load,
    multiply,
    store,
    zero,
)
from npgpt.kernels.products.avx512_bf16 import dots
from npgpt.kernels.products.gemm import SCRATCH, fill, gemm_signature
from npgpt.kernels.products.pack_bf16 import ACROSS, NR, SIDE, SQUARE, pack

KC = 768  # of a panel of b, 72 KiB, and of a block of a: both stay in a second-level cache of 2 MiB
EDGE = SIDE * NR  # elements of a tile that c has only a part of
assert SCRATCH % SIDE == 0  # where panels begin, in pairs: at a cache line, as the tiles want it
ONE, TWO = np.int64(1), np.int64(2)  # parts: of one type, where 1 and 2 would be compiled for each
TILES, DOTS = None, ()  # which units: of different types, so that a kernel has the code of one only


def gemm_bf16_for(split):
    """gemm_bf16 or, with split, gemm_bf16x3, compiled: it takes the place of gemm_for's."""
    if amx.granted():
        return compiled(gemm_bf16x3 if split else gemm_bf16)
    assert not split, "bf16x3 takes tiles"
    return compiled(gemm_bf16_dots)


@cache
def compiled(gemm):
    return jit(gemm, signature=gemm_signature(np.dtype("f4")))


def gemm_bf16(a, b, c, start, scratch):
    """As gemm, with a and b rounded to bf16."""
    gemm_parts(a, b, c, start, scratch.view(np.uint32), ONE, TILES)


def gemm_bf16x3(a, b, c, start, scratch):
    """As gemm, with a and b each the sum of two bf16."""
    gemm_parts(a, b, c, start, scratch.view(np.uint32), TWO, TILES)


def gemm_bf16_dots(a, b, c, start, scratch):
    """gemm_bf16 without tiles."""
    gemm_parts(a, b, c, start, scratch.view(np.uint32), ONE, DOTS)


@jit
def gemm_parts(a, b, c, start, scratch, parts, units):
    """c (M, N) = start + a (M, K) @ b (K, N), of `parts` bf16 an element."""
    M, K = a.shape
    N = b.shape[1]
    bpanel = scratch[: NR * KC // 2]
    room = scratch[NR * KC // 2 :]
    if K == 0:
        fill(c, start)
    for k0 in range(0, K, KC // parts):
        k1 = min(k0 + KC // parts, K)
        begun = c if k0 else start
        rows = rows_at_once(M, k1 - k0, parts, room)
        for m0 in range(0, M, rows):
            m1 = min(m0 + rows, M)
            pack(a[m0:m1, k0:k1], room, False, parts, 1)
            for n in range(0, N, NR):
                pack(b[k0:k1, n : n + NR].T, bpanel, True, parts, ACROSS)
                coming = b[k0:k1, n + NR : n + 2 * NR].T
                multiply_block(room, bpanel, k1 - k0, c, begun, m0, m1, n, parts, units, coming)


@jit
def rows_at_once(M, K, parts, room):
    """The rows of each of the equal blocks of a (M, K) for which there is room."""
    panels, size = max(1, (M + SIDE - 1) // SIDE), panel_size(K, parts)
    blocks = -(-panels // ((room.size - EDGE) // size))
    return -(-panels // blocks) * SIDE


@jit
def panel_size(K, parts):
    """Pairs in a panel of 16 rows and K."""
    return (K + 31) // 32 * SQUARE * parts


@jit
def multiply_block(room, bpanel, K, c, start, m0, m1, n, parts, units, coming):
    """c[m0:m1, n : n + 48], or what of it c has, = start's + the block of a in room @ a panel of b.

    coming is what will be packed next; dots fetches it. A tile that c has only a part of is made at
    the end of room.
    """
    steps, size = (K + 31) // 32, panel_size(K, parts)
    whole = m0 + (m1 - m0) // SIDE * SIDE if n + NR <= c.shape[1] else m0
    multiply_panels(units, room, 0, bpanel, steps, parts, c, start, m0, whole, n, coming)
    edge = room[-EDGE:].view(np.float32).reshape(SIDE, NR)
    for m in range(whole, m1, SIDE):
        at = (m - m0) // SIDE * size
        if start.size:
            copy(start[m : m + SIDE, n : n + NR], edge)
        begun = edge if start.size else edge[:0]
        nothing = coming[:0]
        multiply_panels(units, room, at, bpanel, steps, parts, edge, begun, 0, SIDE, 0, nothing)
        copy(edge, c[m : m + SIDE, n : n + NR])


def multiply_panels(units, a, at, b, steps, parts, c, start, m0, m1, n, coming):
    """Call tiles or dots."""
    if units is TILES:
        tiles(a, at, b, steps, parts, c, start, m0, m1, n)
    else:
        dots(a, at, b, steps, c, start, m0, m1, n, coming)


@overload(multiply_panels)
def _(units, a, at, b, steps, parts, c, start, m0, m1, n, coming):
    def on_tiles(units, a, at, b, steps, parts, c, start, m0, m1, n, coming):
        tiles(a, at, b, steps, parts, c, start, m0, m1, n)

    def by_dots(units, a, at, b, steps, parts, c, start, m0, m1, n, coming):
        dots(a, at, b, steps, c, start, m0, m1, n, coming)

    return on_tiles if units == types.none else by_dots


@jit
def copy(x, out):
    """Fills as much of out as x has, both of up to 16 x 48."""
    for i in range(min(len(x), len(out))):
        for j in range(min(x.shape[1], out.shape[1])):
            out[i, j] = x[i, j]


@jit
def tiles(a, at, b, steps, parts, c, start, m0, m1, n):
    """c[m0:m1, n : n + 48] = start's + the panels of a from a[at] on @ panel b, 16 rows at a time.

    A tile of c is in the CPU's tiles 0 to 2, by way of 3 and 4. With all eight of them in use, for
    32 x 32 of c, a product would take a quarter less loads, but twice the time while another
    program runs on the core's other hyperthread.
    """
    row, start_row = c.strides[0] // c.itemsize, start.strides[0] // c.itemsize
    begin(SHAPES)
    for m in range(m0, m1, SIDE):
        if start.size:
            corner = start_row * m + n
            load(0, start, corner, start_row)
            load(1, start, corner + SIDE, start_row)
            load(2, start, corner + 2 * SIDE, start_row)
        else:
            zero(0)
            zero(1)
            zero(2)
        for step in range(steps):
            if step < SIDE // 2:  # the tile below comes next
                for j in range(n, n + NR, SIDE):
                    fetch_to_write(c, m + SIDE + 2 * step, j)
                    fetch_to_write(c, m + SIDE + 2 * step + 1, j)
            for product in range(2 * parts - 1):  # high @ high, high @ low, low @ high
                ai = at + SQUARE * (step + steps * (product // 2))
                bi = ACROSS * SQUARE * (step + steps * (product % 2))
                load(3, a, ai, SIDE)
                load(4, b, bi, SIDE)
                multiply(0, 3, 4)
                load(4, b, bi + SQUARE, SIDE)
                multiply(1, 3, 4)
                load(4, b, bi + 2 * SQUARE, SIDE)
                multiply(2, 3, 4)
        corner = row * m + n
        store(0, c, corner, row)
        store(1, c, corner + SIDE, row)
        store(2, c, corner + 2 * SIDE, row)
        at += SQUARE * steps * parts
    end()
