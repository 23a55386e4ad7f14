"""Attention's heads on bf16 hardware.

A head's keys and values are packed once, for all blocks of BLOCK_ROWS queries. In the backward
pass keys are taken BLOCK_ROWS at a time too, so that all of a block's results stay in the caches.
"""

from functools import cache

import numpy as np
from numba import get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.layout import head, queries_keys_values, transpose_into
from npgpt.kernels.heads.softmax import causal_softmax, causal_softmax_backward, dot
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.philox import drop_row
from npgpt.kernels.products import amx
from npgpt.kernels.products.gemm_bf16 import AMX, AVX512, multiply_packed, panel_size
from npgpt.kernels.products.pack_bf16 import NR, PANEL_TILES, TILE_K, pack

BLOCK_ROWS = 96  # twice the columns of a panel of b, three times the k of a tile

# The types of the kernels' arrays, those for all heads; a single head's have an axis less.
READ, WRITTEN = (types.Array(types.float32, 3, "A", readonly=read) for read in (True, False))
FLOATS, PAIRS, WORDS = types.float32[:, :, ::1], types.uint32[:, :, ::1], types.uint64[::1]
FORWARD = READ, WRITTEN, FLOATS, PAIRS, PAIRS, FLOATS, FLOATS
BACKWARD = READ, READ, READ, FLOATS, WRITTEN, PAIRS, PAIRS, FLOATS, FLOATS, FLOATS
ONE_FORWARD, ONE_BACKWARD = (
    types.void(types.intp, types.intp, WORDS, *(array.copy(ndim=2) for array in arrays))
    for arrays in (FORWARD, BACKWARD)
)
forward_at, backward_at = kernel_at(ONE_FORWARD), kernel_at(ONE_BACKWARD)


def forward_bf16(qkv, out, stats, words, n_terms):
    """Fills out (B, T, C) and stats (B, 2 NH, T), of n_terms bf16 an element of an operand.

    words: what drop_words gives.
    """
    NH, T = stats.shape[1] // 2, stats.shape[2]
    T_padded, hs_padded = padded(T), padded(out.shape[2] // NH)
    workspace = (
        pairs(2, T_padded * hs_padded // 2 * n_terms),
        pairs(2, BLOCK_ROWS * hs_padded // 2 * n_terms),
        floats(BLOCK_ROWS, T_padded),
        floats(BLOCK_ROWS, hs_padded),
    )
    forward_heads, one_head = compiled_forward(amx.available())
    forward_heads(address_of(one_head), n_terms, words, qkv, out, stats, *workspace)


def backward_bf16(dout, out, qkv, stats, dqkv, words, n_terms):
    """Fills dqkv (B, T, 3C)."""
    NH, T = stats.shape[1] // 2, stats.shape[2]
    T_padded, hs_padded = padded(T), padded(out.shape[2] // NH)
    workspace = (
        pairs(3, T_padded * hs_padded // 2 * n_terms),
        pairs(6, BLOCK_ROWS * hs_padded // 2 * n_terms),
        floats(2 * BLOCK_ROWS + 1, BLOCK_ROWS),
        floats(2 * hs_padded, T_padded),
        floats(BLOCK_ROWS, hs_padded),
    )
    backward_heads, one_head = compiled_backward(amx.available())
    backward_heads(address_of(one_head), n_terms, words, dout, out, qkv, stats, dqkv, *workspace)


def padded(n):
    """n, rounded up to whole blocks."""
    return -(-n // BLOCK_ROWS) * BLOCK_ROWS


def pairs(rows, columns):
    """Workspace for packed operands, for each thread."""
    return empty((get_num_threads(), rows, columns), np.uint32)


def floats(rows, columns):
    """Workspace for each thread: rows an odd number of cache lines apart (full_precision.py)."""
    return empty((get_num_threads(), rows, (columns // 16 | 1) * 16), np.float32)


@cache
def compiled_forward(use_amx):
    """The compiled kernel for all heads, and that for one, which the first calls by its address.

    Inlined, the one would add seconds to the other's compilation.
    """
    signature = types.void(types.intp, types.intp, WORDS, *FORWARD)
    one = jit(forward_head_amx if use_amx else forward_head_avx512, signature=ONE_FORWARD)
    return jit(forward_heads, parallel=True, signature=signature), one


@cache
def compiled_backward(use_amx):
    """As compiled_forward."""
    signature = types.void(types.intp, types.intp, WORDS, *BACKWARD)
    one = jit(backward_head_amx if use_amx else backward_head_avx512, signature=ONE_BACKWARD)
    return jit(backward_heads, parallel=True, signature=signature), one


def forward_heads(
    address, n_terms, words, qkv, out, stats, packed_kv, packed_blocks, scores, y_block
):
    """Fills out (B, T, C) and stats (B, 2 NH, T)."""
    n_threads = len(scores)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = forward_at(address)
        B, NH = len(stats), stats.shape[1] // 2
        work = packed_kv[thread], packed_blocks[thread], scores[thread], y_block[thread]
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            one_head(bh, n_terms, words, qkv[b], out[b], stats[b], *work)
        restore_denormals(mode)


def forward_head_amx(
    bh, n_terms, words, qkv, out, stats, packed_kv, packed_blocks, scores, y_block
):
    """Head bh of all sequences'."""
    workspace = packed_kv, packed_blocks, scores, y_block
    forward_head(AMX, bh, n_terms, words, qkv, out, stats, workspace)


def forward_head_avx512(
    bh, n_terms, words, qkv, out, stats, packed_kv, packed_blocks, scores, y_block
):
    """forward_head_amx without AMX."""
    workspace = packed_kv, packed_blocks, scores, y_block
    forward_head(AVX512, bh, n_terms, words, qkv, out, stats, workspace)


@jit
def forward_head(hardware, bh, n_terms, words, qkv, out, stats, workspace):
    """Head bh of all sequences': its channels of out (T, C), its two rows of stats (2 NH, T)."""
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = out.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y = head(out, h, hs)
    packed_kv, packed_blocks, scores, y_block = workspace
    packed_k, packed_v = packed_kv
    packed_q, packed_att = packed_blocks
    size = packed_size(BLOCK_ROWS, hs, n_terms)
    pack_right(k.T, packed_k, n_terms)
    for s0 in range(0, T, BLOCK_ROWS):
        pack_right(v[s0 : s0 + BLOCK_ROWS], packed_v[s0 // BLOCK_ROWS * size :], n_terms)
    for t0 in range(0, T, BLOCK_ROWS):
        t1 = min(t0 + BLOCK_ROWS, T)
        n = t1 - t0
        pack_left(q[t0:t1], packed_q, n_terms)
        multiply(hardware, packed_q, packed_k, hs, n_terms, scores[:n, :t1], False)
        for t in range(t0, t1):
            highest, total = causal_softmax(scores[t - t0, :t1], t + 1, scale)
            stats[h, t], stats[NH + h, t] = highest, total
            if words.size:
                drop_row(scores[t - t0, :t1], bh * T + t, 0, words)
        for s0 in range(0, t1, BLOCK_ROWS):
            s1 = min(s0 + BLOCK_ROWS, t1)
            pack_left(scores[:n, s0:s1], packed_att, n_terms)
            v_block = packed_v[s0 // BLOCK_ROWS * size :]
            multiply(hardware, packed_att, v_block, s1 - s0, n_terms, y_block[:n, :hs], s0 > 0)
        for t in range(t0, t1):
            for c in range(hs):
                y[t, c] = y_block[t - t0, c]


@jit
def pack_left(x, panels, n_terms):
    """The panels of a left operand x (M, K)."""
    pack(x, panels, False, n_terms, 1)


@jit
def pack_right(x, panels, n_terms):
    """The panels of a right operand x (K, N)."""
    pack(x.T, panels, True, n_terms, PANEL_TILES)


@jit
def packed_size(K, N, n_terms):
    """The number of pairs in the panels of a right operand (K, N)."""
    return (N + NR - 1) // NR * PANEL_TILES * panel_size(K, n_terms)


@jit
def multiply(hardware, left, right, K, n_terms, c, add):
    """c (M, N) = or, with add, += left (M, K) @ right (K, N), packed.

    The array that c is a part of has space for whole panels, 16 rows by 48 columns: beyond c, the
    products of the padding are written, zeros.
    """
    M, N = c.shape
    k_tiles, size = (K + TILE_K - 1) // TILE_K, packed_size(K, NR, n_terms)
    no_init = no_prefetch = c[:0]
    for n in range(0, N, NR):
        panel = right[n // NR * size :]
        init = c if add else no_init
        multiply_packed(hardware, left, 0, panel, k_tiles, n_terms, c, init, 0, M, n, no_prefetch)


def backward_heads(
    address, n_terms, words, dout, out, qkv, stats, dqkv,
    packed_kv, packed_blocks, scores, grads, dq,
):  # fmt: skip
    """Fills dqkv (B, T, 3C)."""
    n_threads = len(scores)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = backward_at(address)
        B, NH = len(stats), stats.shape[1] // 2
        work = packed_kv[thread], packed_blocks[thread], scores[thread], grads[thread], dq[thread]
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            given = dout[b], out[b], qkv[b], stats[b]
            one_head(bh, n_terms, words, *given, dqkv[b], *work)
        restore_denormals(mode)


def backward_head_amx(
    bh, n_terms, words, dout, out, qkv, stats, dqkv, packed_kv, packed_blocks, scores, grads, dq
):
    """Head bh of all sequences'."""
    workspace = packed_kv, packed_blocks, scores, grads, dq
    backward_head(AMX, bh, n_terms, words, dout, out, qkv, stats, dqkv, workspace)


def backward_head_avx512(
    bh, n_terms, words, dout, out, qkv, stats, dqkv, packed_kv, packed_blocks, scores, grads, dq
):
    """backward_head_amx without AMX."""
    workspace = packed_kv, packed_blocks, scores, grads, dq
    backward_head(AVX512, bh, n_terms, words, dout, out, qkv, stats, dqkv, workspace)


@jit
def backward_head(hardware, bh, n_terms, words, dout, out, qkv, stats, dqkv, workspace):
    """Head bh of all sequences': its three ranges of channels of dqkv (T, 3C)."""
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    packed_kv, packed_blocks, scores, grads, dq = workspace
    packed_kT, packed_vT, packed_k = packed_kv
    packed_q, packed_qT, packed_dy, packed_dyT, packed_datt, packed_right = packed_blocks
    att, datt = scores[:BLOCK_ROWS], scores[BLOCK_ROWS : 2 * BLOCK_ROWS]
    dot_outs = scores[2 * BLOCK_ROWS]
    dkT, dvT = grads[: len(grads) // 2], grads[len(grads) // 2 :]
    dkT[:] = 0
    dvT[:] = 0
    size, sizeT = packed_size(BLOCK_ROWS, hs, n_terms), packed_size(hs, BLOCK_ROWS, n_terms)
    pack_right(k.T, packed_kT, n_terms)
    pack_right(v.T, packed_vT, n_terms)
    for s0 in range(0, T, BLOCK_ROWS):
        pack_right(k[s0 : s0 + BLOCK_ROWS], packed_k[s0 // BLOCK_ROWS * size :], n_terms)
    for t0 in range(0, T, BLOCK_ROWS):
        t1 = min(t0 + BLOCK_ROWS, T)
        n = t1 - t0
        pack_left(q[t0:t1], packed_q, n_terms)
        pack_left(q[t0:t1].T, packed_qT, n_terms)
        pack_left(dy[t0:t1], packed_dy, n_terms)
        pack_left(dy[t0:t1].T, packed_dyT, n_terms)
        for t in range(n):
            dot_outs[t] = dot(y[t0 + t], dy[t0 + t])
        for s0 in range(0, t1, BLOCK_ROWS):
            s1 = min(s0 + BLOCK_ROWS, t1)
            m, i = s1 - s0, s0 // BLOCK_ROWS
            multiply(hardware, packed_q, packed_kT[i * sizeT :], hs, n_terms, att[:n, :m], False)
            multiply(hardware, packed_dy, packed_vT[i * sizeT :], hs, n_terms, datt[:n, :m], False)
            for t in range(n):
                row, drow, n_past = att[t, :BLOCK_ROWS], datt[t, :BLOCK_ROWS], t0 + t + 1 - s0
                highest, total = stats[h, t0 + t], stats[NH + h, t0 + t]
                if words.size:  # y is that of the weights after dropout; s0 is a multiple of 4
                    drop_row(drow, bh * T + t0 + t, s0 // 4, words)
                causal_softmax_backward(row, drow, n_past, scale, highest, total, dot_outs[t])
                if words.size:
                    drop_row(row, bh * T + t0 + t, s0 // 4, words)
            pack_right(att[:n, :m], packed_right, n_terms)
            multiply(hardware, packed_dyT, packed_right, n, n_terms, dvT[:hs, s0:s1], True)
            pack_right(datt[:n, :m], packed_right, n_terms)
            multiply(hardware, packed_qT, packed_right, n, n_terms, dkT[:hs, s0:s1], True)
            pack_left(datt[:n, :m], packed_datt, n_terms)
            multiply(hardware, packed_datt, packed_k[i * size :], m, n_terms, dq[:n, :hs], s0 > 0)
        for t in range(t0, t1):
            for c in range(hs):
                dqkv[t, h * hs + c] = dq[t - t0, c]
    transpose_into(dkT, head(dqkv, NH + h, hs))
    transpose_into(dvT, head(dqkv, 2 * NH + h, hs))
