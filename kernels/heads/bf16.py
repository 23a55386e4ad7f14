"""The heads of attention.py on the CPU's units for bf16.

A head's keys and values, which every block of ROWS queries multiplies, are packed once. Going back,
the keys too are taken ROWS at a time: all that a block is made into stays in the caches.
"""

from functools import cache

import numpy as np
from numba import get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.rows import (
    causal_softmax,
    causal_softmax_backward,
    dot,
    head,
    queries_keys_values,
    turn,
)
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.products import amx
from npgpt.kernels.products.gemm_bf16 import DOTS, TILES, multiply_panels, panel_size
from npgpt.kernels.products.pack_bf16 import ACROSS, NR, pack

ROWS = 96  # twice the columns of a panel of b, three times the k of a square

# The types of the kernels' arrays, those for all heads; a single head's have an axis less.
GIVEN, MADE = (types.Array(types.float32, 3, "A", readonly=given) for given in (True, False))
FLOATS, PAIRS = types.float32[:, :, ::1], types.uint32[:, :, ::1]
FORWARD = GIVEN, MADE, FLOATS, PAIRS, PAIRS, FLOATS, FLOATS
BACKWARD = GIVEN, GIVEN, GIVEN, FLOATS, MADE, PAIRS, PAIRS, FLOATS, FLOATS, FLOATS
ONE_FORWARD, ONE_BACKWARD = (
    types.void(types.intp, types.intp, *(array.copy(ndim=2) for array in arrays))
    for arrays in (FORWARD, BACKWARD)
)
forward_at, backward_at = kernel_at(ONE_FORWARD), kernel_at(ONE_BACKWARD)


def forward_bf16(qkv, out, logsums, parts):
    """Fills out (B, T, C) and logsums (B, NH, T), of `parts` bf16 an element of a factor."""
    _, NH, T = logsums.shape
    long, wide = whole(T), whole(out.shape[2] // NH)
    room = (
        pairs(2, long * wide // 2 * parts), pairs(2, ROWS * wide // 2 * parts),
        floats(ROWS, long), floats(ROWS, wide),
    )  # fmt: skip
    forward_heads, one_head = compiled_forward(amx.granted())
    forward_heads(address_of(one_head), parts, qkv, out, logsums, *room)


def backward_bf16(dout, out, qkv, logsums, dqkv, parts):
    """Fills dqkv (B, T, 3C)."""
    _, NH, T = logsums.shape
    long, wide = whole(T), whole(out.shape[2] // NH)
    room = (
        pairs(3, long * wide // 2 * parts), pairs(6, ROWS * wide // 2 * parts),
        floats(2 * ROWS, ROWS), floats(2 * wide, long), floats(ROWS, wide),
    )  # fmt: skip
    backward_heads, one_head = compiled_backward(amx.granted())
    backward_heads(address_of(one_head), parts, dout, out, qkv, logsums, dqkv, *room)


def whole(n):
    """n, rounded up to whole blocks."""
    return -(-n // ROWS) * ROWS


def pairs(rows, columns):
    """Room for packed factors, for each thread."""
    return empty((get_num_threads(), rows, columns), np.uint32)


def floats(rows, columns):
    """Room for each thread: rows an odd number of cache lines apart, as in attention.py's rooms."""
    return empty((get_num_threads(), rows, (columns // 16 | 1) * 16), np.float32)


@cache
def compiled_forward(on_tiles):
    """The compiled kernel for all heads, and that for one whose address it is given.

    Were the one a part of the other, it would take seconds more to compile.
    """
    signature = types.void(types.intp, types.intp, *FORWARD)
    one = jit(forward_on_tiles if on_tiles else forward_by_dots, signature=ONE_FORWARD)
    return jit(forward_heads, parallel=True, signature=signature), one


@cache
def compiled_backward(on_tiles):
    """As compiled_forward."""
    signature = types.void(types.intp, types.intp, *BACKWARD)
    one = jit(backward_on_tiles if on_tiles else backward_by_dots, signature=ONE_BACKWARD)
    return jit(backward_heads, parallel=True, signature=signature), one


def forward_heads(address, parts, qkv, out, logsums, sides, blocks, scores, sums):
    """Fills out (B, T, C) and logsums (B, NH, T)."""
    threads = len(scores)
    for thread in prange(threads):
        one_head = forward_at(address)
        B, NH, _ = logsums.shape
        room = sides[thread], blocks[thread], scores[thread], sums[thread]
        for unit in range(B * NH * thread // threads, B * NH * (thread + 1) // threads):
            b = unit // NH
            one_head(unit % NH, parts, qkv[b], out[b], logsums[b], *room)


def forward_on_tiles(h, parts, qkv, out, logsums, sides, blocks, scores, sums):
    """Head h of a sequence."""
    forward_head(TILES, h, parts, qkv, out, logsums, sides, blocks, scores, sums)


def forward_by_dots(h, parts, qkv, out, logsums, sides, blocks, scores, sums):
    """forward_on_tiles without tiles."""
    forward_head(DOTS, h, parts, qkv, out, logsums, sides, blocks, scores, sums)


@jit
def forward_head(units, h, parts, qkv, out, logsums, sides, blocks, scores, sums):
    """Head h of a sequence: its channels of out (T, C), its row of logsums (NH, T)."""
    NH, T = logsums.shape
    hs = out.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y = head(out, h, hs)
    keys, values = sides
    queries, weights = blocks
    size = right_size(ROWS, hs, parts)
    pack_right(k.T, keys, parts)
    for s0 in range(0, T, ROWS):
        pack_right(v[s0 : s0 + ROWS], values[s0 // ROWS * size :], parts)
    for t0 in range(0, T, ROWS):
        t1 = min(t0 + ROWS, T)
        n = t1 - t0
        pack_left(q[t0:t1], queries, parts)
        multiply(units, queries, keys, hs, parts, scores[:n, :t1], False)
        for t in range(t0, t1):
            logsums[h, t] = causal_softmax(scores[t - t0, :t1], t + 1, scale)
        for s0 in range(0, t1, ROWS):
            s1 = min(s0 + ROWS, t1)
            pack_left(scores[:n, s0:s1], weights, parts)
            block = values[s0 // ROWS * size :]
            multiply(units, weights, block, s1 - s0, parts, sums[:n, :hs], s0 > 0)
        for t in range(t0, t1):
            for c in range(hs):
                y[t, c] = sums[t - t0, c]


@jit
def pack_left(x, panels, parts):
    """panels of a left factor x (M, K)"""
    pack(x, panels, False, parts, 1)


@jit
def pack_right(x, panels, parts):
    """panels of a right factor x (K, N)"""
    pack(x.T, panels, True, parts, ACROSS)


@jit
def right_size(K, N, parts):
    """Pairs in the panels of a right factor (K, N)."""
    return (N + NR - 1) // NR * ACROSS * panel_size(K, parts)


@jit
def multiply(units, left, right, K, parts, c, add):
    """c (M, N) = or, with add, += left (M, K) @ right (K, N), packed.

    What c is a part of has room for whole panels, 16 rows by 48 columns; beyond c come products of
    zeros.
    """
    M, N = c.shape
    steps, size = (K + 31) // 32, right_size(K, NR, parts)
    nothing = c[:0]  # to start from, and to fetch
    for n in range(0, N, NR):
        panel = right[n // NR * size :]
        start = c if add else nothing
        multiply_panels(units, left, 0, panel, steps, parts, c, start, 0, M, n, nothing)


def backward_heads(
    address, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, narrow
):
    """Fills dqkv (B, T, 3C)."""
    threads = len(scores)
    for thread in prange(threads):
        one_head = backward_at(address)
        B, NH, _ = logsums.shape
        room = sides[thread], blocks[thread], scores[thread], sums[thread], narrow[thread]
        for unit in range(B * NH * thread // threads, B * NH * (thread + 1) // threads):
            b = unit // NH
            given = dout[b], out[b], qkv[b], logsums[b]
            one_head(unit % NH, parts, *given, dqkv[b], *room)


def backward_on_tiles(h, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, narrow):
    """Head h of a sequence."""
    backward_head(
        TILES, h, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, narrow
    )


def backward_by_dots(h, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, narrow):
    """backward_on_tiles without tiles."""
    backward_head(
        DOTS, h, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, narrow
    )


@jit
def backward_head(units, h, parts, dout, out, qkv, logsums, dqkv, sides, blocks, scores, sums, dq):
    """Head h of a sequence: its three ranges of channels of dqkv (T, 3C)."""
    NH, T = logsums.shape
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    keysT, valuesT, keys = sides
    queries, queriesT, dys, dysT, dattleft, block = blocks
    att, datt = scores[:ROWS], scores[ROWS:]
    dkT, dvT = sums[: len(sums) // 2], sums[len(sums) // 2 :]
    dkT[:] = 0
    dvT[:] = 0
    totals = np.empty(ROWS, qkv.dtype)
    size, sizeT = right_size(ROWS, hs, parts), right_size(hs, ROWS, parts)
    pack_right(k.T, keysT, parts)
    pack_right(v.T, valuesT, parts)
    for s0 in range(0, T, ROWS):
        pack_right(k[s0 : s0 + ROWS], keys[s0 // ROWS * size :], parts)
    for t0 in range(0, T, ROWS):
        t1 = min(t0 + ROWS, T)
        n = t1 - t0
        pack_left(q[t0:t1], queries, parts)
        pack_left(q[t0:t1].T, queriesT, parts)
        pack_left(dy[t0:t1], dys, parts)
        pack_left(dy[t0:t1].T, dysT, parts)
        for t in range(n):
            totals[t] = dot(y[t0 + t], dy[t0 + t])
        for s0 in range(0, t1, ROWS):
            s1 = min(s0 + ROWS, t1)
            m, i = s1 - s0, s0 // ROWS
            multiply(units, queries, keysT[i * sizeT :], hs, parts, att[:n, :m], False)
            multiply(units, dys, valuesT[i * sizeT :], hs, parts, datt[:n, :m], False)
            for t in range(n):
                row, drow, past = att[t, :ROWS], datt[t, :ROWS], t0 + t + 1 - s0
                causal_softmax_backward(row, drow, past, scale, logsums[h, t0 + t], totals[t])
            pack_right(att[:n, :m], block, parts)
            multiply(units, dysT, block, n, parts, dvT[:hs, s0:s1], True)
            pack_right(datt[:n, :m], block, parts)
            multiply(units, queriesT, block, n, parts, dkT[:hs, s0:s1], True)
            pack_left(datt[:n, :m], dattleft, parts)
            multiply(units, dattleft, keys[i * size :], m, parts, dq[:n, :hs], s0 > 0)
        for t in range(t0, t1):
            for c in range(hs):
                dqkv[t, h * hs + c] = dq[t - t0, c]
    turn(dkT, head(dqkv, NH + h, hs))
    turn(dvT, head(dqkv, 2 * NH + h, hs))
