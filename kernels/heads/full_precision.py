"""Attention's heads in float32 and float64, BLOCK_ROWS queries of a head at a time."""

from functools import cache

import numpy as np
from numba import from_dtype, get_num_threads, prange, types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from npgpt.kernels.codegen.function_pointers import address_of, kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.layout import head, queries_keys_values
from npgpt.kernels.heads.softmax import causal_softmax, causal_softmax_backward, dot
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.philox import drop_row
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_at, gemm_for

BLOCK_ROWS = 96  # twice the columns of a tile of gemm in AVX-512


def forward_full_precision(qkv, out, stats, words):
    """Fills out (B, T, C) and stats (B, 2 NH, T); words: what drop_words gives."""
    forward_heads, one_head = compiled_forward(qkv.dtype)
    addresses = address_of(gemm_for(qkv.dtype)), address_of(one_head)
    forward_heads(*addresses, words, qkv, out, stats, *workspace(qkv, 1))


def backward_full_precision(dout, out, qkv, stats, dqkv, words):
    """Fills dqkv (B, T, 3C)."""
    backward_heads, one_head = compiled_backward(qkv.dtype)
    addresses = address_of(gemm_for(qkv.dtype)), address_of(one_head)
    backward_heads(*addresses, words, dout, out, qkv, stats, dqkv, *workspace(qkv, 2))


def workspace(qkv, n_scores):
    """For each thread: gemm's scratch, and n_scores (BLOCK_ROWS, T).

    Rows of T are an odd number of cache lines apart, in float32. Were it a power of two, those of
    a tile would compete for the same few sets of L1.
    """
    n_threads, T_padded = get_num_threads(), (qkv.shape[1] // 16 + 1 | 1) * 16
    shapes = (SCRATCH_SIZE,), (n_scores, BLOCK_ROWS, T_padded)
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
    return qkv, out, real[:, :, ::1], real[:, ::1], real[:, :, :, ::1]


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


def forward_head_at(address, like):
    """The forward_head at an address, for matrices of the dtype of like."""
    return address


def backward_head_at(address, like):
    """As forward_head_at, the backward_head."""
    return address


@overload(forward_head_at)
def _(address, like):
    at = kernel_at(head_signature(forward_arrays(as_dtype(like.dtype))))
    return lambda address, like: at(address)


@overload(backward_head_at)
def _(address, like):
    at = kernel_at(head_signature(backward_arrays(as_dtype(like.dtype))))
    return lambda address, like: at(address)


def forward_heads(gemm, address, words, qkv, out, stats, scratch, scores):
    """Fills out (B, T, C) and stats (B, 2 NH, T), by gemm and the head's kernel at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = forward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            work = scratch[thread], scores[thread]
            one_head(gemm, bh, words, qkv[b], out[b], stats[b], *work)
        restore_denormals(mode)


def forward_head(address, bh, words, qkv, out, stats, scratch, scores):
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
        att = scores[0, : t1 - t0, :t1]
        gemm(q[t0:t1], k[:t1].T, att, no_init, scratch)
        for t in range(t0, t1):
            row = scores[0, t - t0, :t1]  # of att, but known to be contiguous
            stats[h, t], stats[NH + h, t] = causal_softmax(row, t + 1, scale)
            if words.size:
                drop_row(row, bh * T + t, 0, words)
        gemm(att, v[:t1], y[t0:t1], no_init, scratch)


def backward_heads(gemm, address, words, dout, out, qkv, stats, dqkv, scratch, scores):
    """Fills dqkv (B, T, 3C), by the gemm and the head's kernel at addresses."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        one_head = backward_head_at(address, qkv)
        B, NH = len(stats), stats.shape[1] // 2
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b = bh // NH
            work = scratch[thread], scores[thread]
            one_head(gemm, bh, words, dout[b], out[b], qkv[b], stats[b], dqkv[b], *work)
        restore_denormals(mode)


def backward_head(address, bh, words, dout, out, qkv, stats, dqkv, scratch, scores):
    """Head bh of all sequences': its three ranges of channels of dqkv (T, 3C)."""
    gemm = gemm_at(address, qkv)
    NH, T = len(stats) // 2, stats.shape[1]
    h = bh % NH
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    dq, dk, dv = queries_keys_values(dqkv, h, hs)
    dk[:] = 0
    dv[:] = 0
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
        gemm(att.T, dy[t0:t1], dv[:t1], dv[:t1], scratch)
        gemm(datt, k[:t1], dq[t0:t1], no_init, scratch)
        gemm(datt.T, q[t0:t1], dk[:t1], dk[:t1], scratch)
