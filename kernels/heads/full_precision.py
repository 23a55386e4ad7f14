"""Attention's heads in float32 and float64, BLOCK_ROWS queries of a head at a time.

hs is 64 in every GPT-2, and a tile of gemm 48 columns wide. So the products whose result is as wide
as a head are made transposed, in yT, dqT, dkT and dvT, where hs counts the rows.
"""

from functools import cache

import numpy as np
from numba import from_dtype, get_num_threads, prange, types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.layout import head, queries_keys_values, transpose_into
from npgpt.kernels.heads.softmax import causal_softmax, causal_softmax_backward, dot
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.philox import drop_row
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_at, gemm_for

BLOCK_ROWS = 96  # twice the columns of a tile of gemm in AVX-512


def forward_full_precision(qkv, out, stats, words):
    """Fills out (B, T, C) and stats (B, 2 NH, T); words: what drop_words gives."""
    head, _ = head_kernels(qkv.dtype)
    forward, _ = kernels_for(qkv.dtype)
    addresses = address_of(gemm_for(qkv.dtype)), address_of(head)
    forward(*addresses, qkv, out, stats, words, *workspace(qkv, stats.shape[1] // 2, 1, 0))


def backward_full_precision(dout, out, qkv, stats, dqkv, words):
    """Fills dqkv (B, T, 3C)."""
    _, head = head_kernels(qkv.dtype)
    _, backward = kernels_for(qkv.dtype)
    addresses = address_of(gemm_for(qkv.dtype)), address_of(head)
    work = workspace(qkv, stats.shape[1] // 2, 2, 2)
    backward(*addresses, dout, out, qkv, stats, dqkv, words, *work)


def workspace(qkv, NH, n_scores, n_grads):
    """For each thread: gemm's scratch, n_scores (BLOCK_ROWS, T), n_grads (hs, T), (hs, BLOCK_ROWS).

    Rows of T are an odd number of cache lines apart, in float32. Were it a power of two, those of
    a tile would compete for the same few sets of L1.
    """
    n_threads, (_, T, C3) = get_num_threads(), qkv.shape
    hs = C3 // 3 // NH
    T_padded = (T // 16 + 1 | 1) * 16
    shapes = (SCRATCH_SIZE,), (n_scores, BLOCK_ROWS, T_padded), (n_grads, hs, T_padded)
    return [empty((n_threads, *shape), qkv.dtype) for shape in (*shapes, (hs, BLOCK_ROWS))]


@cache
def kernels_for(dtype):
    """The compiled forward_heads and backward_heads."""
    real, address = from_dtype(dtype), types.intp
    read, written = types.Array(real, 3, "A", readonly=True), types.Array(real, 3, "A")
    given = real[:, :, ::1], types.uint64[::1]  # stats and words
    work = real[:, ::1], real[:, :, :, ::1], real[:, :, :, ::1], real[:, :, ::1]
    forward = types.void(address, address, read, written, *given, *work)
    backward = types.void(address, address, read, read, read, given[0], written, given[1], *work)
    return (
        jit(forward_heads, parallel=True, signature=forward),
        jit(backward_heads, parallel=True, signature=backward),
    )


@cache
def head_kernels(dtype):
    """The compiled forward_head and backward_head, which the others call by their addresses.

    In their callers' code LLVM would optimise them once more, for seconds.
    """
    forward, backward = head_signatures(dtype)
    return jit(forward_head, signature=forward), jit(backward_head, signature=backward)


def head_signatures(dtype):
    """The signatures of forward_head and of backward_head."""
    real = from_dtype(dtype)
    read, written = types.Array(real, 2, "A", readonly=True), types.Array(real, 2, "A")
    stats, bh, words, matrix = real[:, ::1], types.intp, types.uint64[::1], real[:, ::1]
    scratch, stack = real[::1], real[:, :, ::1]
    return (
        types.void(types.intp, read, written, stats, bh, words, scratch, matrix, matrix),
        types.void(
            types.intp, read, read, read, stats, written, bh, words, scratch, stack, stack, matrix
        ),
    )


def forward_head_at(address, like):
    """The forward_head at an address, for matrices of the dtype of like."""
    return address


def backward_head_at(address, like):
    """As forward_head_at, the backward_head."""
    return address


@overload(forward_head_at)
def _(address, like):
    at = kernel_at(head_signatures(as_dtype(like.dtype))[0])
    return lambda address, like: at(address)


@overload(backward_head_at)
def _(address, like):
    at = kernel_at(head_signatures(as_dtype(like.dtype))[1])
    return lambda address, like: at(address)


def forward_heads(gemm, address, qkv, out, stats, words, scratch, scores, grads, yT):
    """Fills out (B, T, C) and stats (B, 2 NH, T), by gemm and the head's kernel at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = forward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            work = scratch[thread], scores[thread, 0], yT[thread]
            b = bh // NH
            one_head(gemm, qkv[b], out[b], stats[b], bh, words, *work)
        restore_denormals(mode)


def forward_head(address, qkv, out, stats, bh, words, scratch, scores, yT):
    """Head bh of all sequences': its channels of out (T, C), its two rows of stats (2 NH, T)."""
    gemm = gemm_at(address, qkv)
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = out.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y = head(out, h, hs)
    no_init = q[:0]
    for t0 in range(0, T, BLOCK_ROWS):
        t1 = min(t0 + BLOCK_ROWS, T)
        att = scores[: t1 - t0, :t1]
        gemm(q[t0:t1], k[:t1].T, att, no_init, scratch)
        for t in range(t0, t1):
            row = scores[t - t0, :t1]  # of att, but known to be contiguous
            stats[h, t], stats[NH + h, t] = causal_softmax(row, t + 1, scale)
            if words.size:
                drop_row(row, bh * T + t, 0, words)
        gemm(v[:t1].T, att.T, yT[:, : t1 - t0], no_init, scratch)
        transpose_into(yT, y[t0:t1])


def backward_heads(gemm, address, dout, out, qkv, stats, dqkv, words, scratch, scores, grads, dqT):
    """Fills dqkv (B, T, 3C), by the gemm and the head's kernel at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = backward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            work = scratch[thread], scores[thread], grads[thread], dqT[thread]
            given = dout[b], out[b], qkv[b], stats[b]
            one_head(gemm, *given, dqkv[b], bh, words, *work)
        restore_denormals(mode)


def backward_head(address, dout, out, qkv, stats, dqkv, bh, words, scratch, scores, grads, dqT):
    """Head bh of all sequences': its three ranges of channels of dqkv (T, 3C)."""
    gemm = gemm_at(address, qkv)
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    dkT, dvT = grads[0], grads[1]
    dkT[:] = 0
    dvT[:] = 0
    no_init = q[:0]
    for t0 in range(0, T, BLOCK_ROWS):
        t1 = min(t0 + BLOCK_ROWS, T)
        att, datt = scores[0, : t1 - t0, :t1], scores[1, : t1 - t0, :t1]
        gemm(q[t0:t1], k[:t1].T, att, no_init, scratch)
        gemm(dy[t0:t1], v[:t1].T, datt, no_init, scratch)
        for t in range(t0, t1):
            row, drow = scores[0, t - t0, :t1], scores[1, t - t0, :t1]
            highest, total = stats[h, t], stats[NH + h, t]
            if words.size:  # y is that of the weights after dropout
                drop_row(drow, bh * T + t, 0, words)
            causal_softmax_backward(row, drow, t + 1, scale, highest, total, dot(y[t], dy[t]))
            if words.size:
                drop_row(row, bh * T + t, 0, words)
        gemm(dy[t0:t1].T, att, dvT[:, :t1], dvT[:, :t1], scratch)
        gemm(k[:t1].T, datt.T, dqT[:, : t1 - t0], no_init, scratch)
        gemm(q[t0:t1].T, datt, dkT[:, :t1], dkT[:, :t1], scratch)
        transpose_into(dqT, head(dqkv, h, hs)[t0:t1])
    transpose_into(dkT, head(dqkv, NH + h, hs))
    transpose_into(dvT, head(dqkv, 2 * NH + h, hs))
