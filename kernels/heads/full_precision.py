"""Attention's heads in float32 and float64, BLOCK_ROWS queries of a head at a time.

A head's keys and values are packed once, for all blocks.
"""

from functools import cache

import numpy as np
from numba import from_dtype, get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of, kernel_like
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.layout import head, queries_keys_values
from npgpt.kernels.heads.softmax import causal_softmax, causal_softmax_backward, dot
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.philox import drop_row
from npgpt.kernels.products.gemm import (
    ROWS_SIZE,
    multiply_at,
    multiply_for,
    new_panels,
    pack_panels,
    panels_size,
)

BLOCK_ROWS = 32  # the scores of a block of rows and up to 128 keys stay in L1, backward too


def forward_full_precision(qkv, out, stats, words):
    """Fills out (B, T, C) and stats (B, 2 NH, T); words: what drop_words gives."""
    forward_heads, one_head = compiled_forward(qkv.dtype)
    addresses = address_of(multiply_for(qkv.dtype)), address_of(one_head)
    work = workspace(qkv, stats, n_panels=2, n_scores=1)
    forward_heads(*addresses, words, qkv, out, stats, *work)


def backward_full_precision(dout, out, qkv, stats, dqkv, words):
    """Fills dqkv (B, T, 3C)."""
    backward_heads, one_head = compiled_backward(qkv.dtype)
    addresses = address_of(multiply_for(qkv.dtype)), address_of(one_head)
    work = workspace(qkv, stats, n_panels=5, n_scores=2)
    backward_heads(*addresses, words, dout, out, qkv, stats, dqkv, *work)


def workspace(qkv, stats, n_panels, n_scores):
    """For each thread: multiply_panels' scratch, n_panels sets of panels, n_scores (BLOCK_ROWS, T).

    Rows of T are an odd number of cache lines apart, in float32. Were it a power of two, those of
    a tile would compete for the same few sets of L1.
    """
    n_threads, (_, T, C3) = get_num_threads(), qkv.shape
    hs, T_padded = 2 * C3 // 3 // stats.shape[1], (T // 16 + 1 | 1) * 16
    size = max(panels_size(hs, T), panels_size(T, hs))
    shapes = (ROWS_SIZE,), (n_panels, size), (n_scores, BLOCK_ROWS, T_padded)
    return [empty((n_threads, *shape), qkv.dtype) for shape in shapes]


@cache
def compiled_forward(dtype):
    """The compiled kernel for all heads, and that for one, which the first calls by its address.

    In the first one's code LLVM would optimise the other once more, for seconds.
    """
    arrays = forward_arrays(dtype)
    one = jit(forward_head, signature=head_signature(arrays))
    return jit(forward_heads, parallel=True, signature=heads_signature(arrays)), one


@cache
def compiled_backward(dtype):
    """As compiled_forward."""
    arrays = backward_arrays(dtype)
    one = jit(backward_head, signature=head_signature(arrays))
    return jit(backward_heads, parallel=True, signature=heads_signature(arrays)), one


def forward_arrays(dtype):
    """The types of the arrays of forward_heads."""
    real = from_dtype(dtype)
    qkv, out = (types.Array(real, 3, "A", readonly=read) for read in (True, False))
    return qkv, out, real[:, :, ::1], real[:, ::1], real[:, :, ::1], real[:, :, :, ::1]


def backward_arrays(dtype):
    """As forward_arrays, of backward_heads."""
    read, written, stats, *work = forward_arrays(dtype)
    return read, read, read, stats, written, *work


def heads_signature(arrays):
    """The signature of a kernel for all heads, given the types of its arrays."""
    return types.void(types.intp, types.intp, types.uint64[::1], *arrays)


def head_signature(arrays):
    """As heads_signature, of a kernel for a single head, whose arrays have an axis less."""
    return heads_signature([array.copy(ndim=array.ndim - 1) for array in arrays])


forward_head_at = kernel_like(lambda dtype: head_signature(forward_arrays(dtype)))
backward_head_at = kernel_like(lambda dtype: head_signature(backward_arrays(dtype)))


def forward_heads(multiply, address, words, qkv, out, stats, scratch, panels, scores):
    """Fills out (B, T, C) and stats (B, 2 NH, T), by two kernels at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = forward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            work = scratch[thread], panels[thread], scores[thread]
            one_head(multiply, bh, words, qkv[b], out[b], stats[b], *work)
        restore_denormals(mode)


def forward_head(address, bh, words, qkv, out, stats, scratch, panels, scores):
    """Head bh of all sequences': its channels of out (T, C), its two rows of stats (2 NH, T)."""
    multiply = multiply_at(address, qkv)
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = out.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y = head(out, h, hs)
    k_transposed, v_panels = new_panels(panels[0], hs, T), new_panels(panels[1], T, hs)
    pack_panels(k.T, k_transposed)
    pack_panels(v, v_panels)
    no_init = q[:0]
    for t0 in range(0, T, BLOCK_ROWS):
        t1 = min(t0 + BLOCK_ROWS, T)
        att = scores[0, : t1 - t0, :t1]
        multiply(q[t0:t1], k_transposed, att, no_init, scratch)
        for t in range(t0, t1):
            row = scores[0, t - t0, :t1]  # of att, but known to be contiguous
            stats[h, t], stats[NH + h, t] = causal_softmax(row, t + 1, scale)
            if words.size:
                drop_row(row, bh * T + t, 0, words)
        multiply(att, v_panels, y[t0:t1], no_init, scratch)


def backward_heads(multiply, address, words, dout, out, qkv, stats, dqkv, scratch, panels, scores):
    """Fills dqkv (B, T, 3C), by two kernels at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = backward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            work = scratch[thread], panels[thread], scores[thread]
            one_head(multiply, bh, words, dout[b], out[b], qkv[b], stats[b], dqkv[b], *work)
        restore_denormals(mode)


def backward_head(address, bh, words, dout, out, qkv, stats, dqkv, scratch, panels, scores):
    """Head bh of all sequences': its three ranges of channels of dqkv (T, 3C)."""
    multiply = multiply_at(address, qkv)
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    dq, dk, dv = queries_keys_values(dqkv, h, hs)
    k_transposed, v_transposed = new_panels(panels[0], hs, T), new_panels(panels[1], hs, T)
    pack_panels(k.T, k_transposed)
    pack_panels(v.T, v_transposed)
    k_panels = new_panels(panels[2], T, hs)
    pack_panels(k, k_panels)
    no_init = q[:0]
    for block in range((T - 1) // BLOCK_ROWS, -1, -1):  # the first one fills all of dk and dv
        t0, t1 = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, T)
        att, datt = scores[0, : t1 - t0, :t1], scores[1, : t1 - t0, :t1]
        multiply(q[t0:t1], k_transposed, att, no_init, scratch)
        multiply(dy[t0:t1], v_transposed, datt, no_init, scratch)
        for t in range(t0, t1):
            row, drow = scores[0, t - t0, :t1], scores[1, t - t0, :t1]
            highest, total = stats[h, t], stats[NH + h, t]
            if words.size:  # y is that of the weights after dropout
                drop_row(drow, bh * T + t, 0, words)
            causal_softmax_backward(row, drow, t + 1, scale, highest, total, dot(y[t], dy[t]))
            if words.size:
                drop_row(row, bh * T + t, 0, words)
        multiply(datt, k_panels, dq[t0:t1], no_init, scratch)
        q_panels = new_panels(panels[3], t1 - t0, hs)
        dy_panels = new_panels(panels[4], t1 - t0, hs)
        pack_panels(q[t0:t1], q_panels)
        pack_panels(dy[t0:t1], dy_panels)
        multiply(att.T, dy_panels, dv[:t1], no_init if t1 == T else dv[:t1], scratch)
        multiply(datt.T, q_panels, dk[:t1], no_init if t1 == T else dk[:t1], scratch)
