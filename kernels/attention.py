"""Causal attention, a block of a head's rows at a time: the twin of npgpt/layers/attention.py.

A block's scores, (ROWS, T), are all that exists of att at any time. In place of att the cache has
out and each row's log of the sum of its exponentials, from which the backward pass makes att again
(with scores in the thousands that is good to 1e-4 in float32). After Dao et al. 2022; a CPU's cache
has room for whole rows, so they need no running softmax. In bf16 attention_bf16.py makes the heads.
"""

from functools import cache

import numpy as np
from numba import from_dtype, get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.bf16 import backward_bf16, forward_bf16
from npgpt.kernels.heads.rows import (
    causal_softmax,
    causal_softmax_backward,
    dot,
    head,
    queries_keys_values,
    softmax,
    turn,
)
from npgpt.kernels.matmul import FEW, dots
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.products.gemm import SCRATCH, gemm_at, gemm_for
from npgpt.kernels.products.precision import bf16_parts
from npgpt.layers.attention import split_heads

ROWS = 96  # twice the columns of a tile of gemm in AVX-512


def attention_forward(qkv, NH):
    """Attend within qkv (B, T, 3C), its matmul's output, in NH heads -> out (B, T, C), cache."""
    B, T, C3 = qkv.shape
    out = empty((B, T, C3 // 3), qkv.dtype)  # (B, T, C)
    logsums = np.empty((B, NH, T), qkv.dtype)
    parts = bf16_parts(qkv.dtype)
    if parts:
        forward_bf16(qkv, out, logsums, parts)
    else:
        forward, _ = heads_for(qkv.dtype)
        forward(address_of(gemm_for(qkv.dtype)), qkv, out, logsums, *rooms(qkv, NH, 1, 0))
    return out, (qkv, logsums, out)


def attention_backward(dout, cache):
    """dout (B, T, C) -> dqkv (B, T, 3C)."""
    qkv, logsums, out = cache
    dqkv = empty(qkv.shape, qkv.dtype)  # (B, T, 3C)
    parts = bf16_parts(qkv.dtype)
    if parts:
        backward_bf16(dout, out, qkv, logsums, dqkv, parts)
    else:
        _, backward = heads_for(qkv.dtype)
        room = rooms(qkv, logsums.shape[1], 2, 2)
        backward(address_of(gemm_for(qkv.dtype)), dout, out, qkv, logsums, dqkv, *room)
    return dqkv


def attention_step(qkv, kv, at):
    """Attend from new positions to them and all before: qkv (B, N, 3C) -> out (B, N, C).

    kv (2, B, NH, maxT, hs) holds the keys and values of the first `at` positions, and from then on
    those of the N new ones as well.
    """
    B, N, C3 = qkv.shape
    if at == 0 and N > FEW:  # a prompt, before which there is nothing
        kv[..., :N, :] = split_heads(qkv, kv.shape[2])[1:]
        return attention_forward(qkv, kv.shape[2])[0]
    out = empty((B, N, C3 // 3), qkv.dtype)  # (B, N, C)
    scores = np.empty((get_num_threads(), at + N), qkv.dtype)
    step_heads(np.ascontiguousarray(qkv), kv, at, out, scores)
    return out


def rooms(qkv, NH, scores, sums):
    """Room for each thread: gemm's, so many (ROWS, T), so many (hs, T), and one (hs, ROWS).

    Rows of T are an odd number of cache lines apart, in float32. Were it a power of two, those of
    a tile would compete for the same few places of the first-level cache.
    """
    threads, (_, T, C3) = get_num_threads(), qkv.shape
    hs = C3 // 3 // NH
    wide = (T // 16 + 1 | 1) * 16
    shapes = (SCRATCH,), (scores, ROWS, wide), (sums, hs, wide), (hs, ROWS)
    return [empty((threads, *shape), qkv.dtype) for shape in shapes]


# hs is 64 in every GPT-2, and a tile of gemm 48 columns wide. So the products whose result is as
# wide as a head are made transposed, in yT, dqT, dkT and dvT, where hs counts the rows.


@cache
def heads_for(dtype):
    """The compiled forward_heads and backward_heads."""
    real, address = from_dtype(dtype), types.intp
    given, made = types.Array(real, 3, "A", readonly=True), types.Array(real, 3, "A")
    logsums = real[:, :, ::1]
    room = real[:, ::1], real[:, :, :, ::1], real[:, :, :, ::1], real[:, :, ::1]
    forward = types.void(address, given, made, logsums, *room)
    backward = types.void(address, given, given, given, logsums, made, *room)
    return (
        jit(forward_heads, parallel=True, signature=forward),
        jit(backward_heads, parallel=True, signature=backward),
    )


def forward_heads(address, qkv, out, logsums, scratch, scores, sums, narrow):
    """Fills out (B, T, C) and logsums (B, NH, T)."""
    threads = len(scratch)
    for thread in prange(threads):
        gemm = gemm_at(address, qkv)
        B, NH, _ = logsums.shape
        for unit in range(B * NH * thread // threads, B * NH * (thread + 1) // threads):
            room = scratch[thread], scores[thread, 0], narrow[thread]
            b = unit // NH
            forward_head(gemm, qkv[b], out[b], logsums[b], unit % NH, *room)


@jit
def forward_head(gemm, qkv, out, logsums, h, scratch, scores, yT):
    """Head h of a sequence: its channels of out (T, C), its row of logsums (NH, T)."""
    NH, T = logsums.shape
    hs = out.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y = head(out, h, hs)
    nothing = q[:0]  # to start a product from: zeros
    for t0 in range(0, T, ROWS):
        t1 = min(t0 + ROWS, T)
        att = scores[: t1 - t0, :t1]
        gemm(q[t0:t1], k[:t1].T, att, nothing, scratch)
        for t in range(t0, t1):
            row = scores[t - t0, :t1]  # of att, but known to be dense
            logsums[h, t] = causal_softmax(row, t + 1, scale)
        gemm(v[:t1].T, att.T, yT[:, : t1 - t0], nothing, scratch)
        turn(yT, y[t0:t1])


@jit(parallel=True)
def step_heads(qkv, kv, at, out, scores):
    """Fills out (B, N, C), and N rows of each head of kv (2, B, NH, maxT, hs)."""
    threads = len(scores)
    for thread in prange(threads):
        _, B, NH, _, _ = kv.shape
        for unit in range(B * NH * thread // threads, B * NH * (thread + 1) // threads):
            b, h = unit // NH, unit % NH
            step_head(qkv[b], kv[0, b, h], kv[1, b, h], at, out[b], h, scores[thread])


@jit
def step_head(qkv, k, v, at, out, h, scores):
    """Head h of a sequence: N rows of its k and v (maxT, hs), its channels of out (N, C).

    scores (at + N,) is room.
    """
    hs, C = k.shape[1], out.shape[1]
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    for t in range(at, at + len(qkv)):
        new = qkv[t - at, h * hs :]  # its q at 0, its k at C, its v at 2C
        for c in range(hs):
            k[t, c] = new[C + c]
            v[t, c] = new[2 * C + c]
        row = scores[: t + 1]
        dots(new[:hs].reshape(1, hs), k[: t + 1], row.reshape(1, t + 1))
        softmax(row, scale)
        weigh_rows(row, v[: t + 1], out[t - at, h * hs : (h + 1) * hs])


@jit
def weigh_rows(weights, x, out):
    """out (K,) = weights (N,) @ x (N, K), which is read in four places at a time, as in dots."""
    out[:] = 0
    quarter = len(x) // 4
    for j in range(quarter):
        j1, j2, j3 = j + quarter, j + 2 * quarter, j + 3 * quarter
        p0, p1, p2, p3 = weights[j], weights[j1], weights[j2], weights[j3]
        x0, x1, x2, x3 = x[j], x[j1], x[j2], x[j3]
        for k in range(out.size):
            out[k] += p0 * x0[k] + p1 * x1[k] + p2 * x2[k] + p3 * x3[k]
    for j in range(4 * quarter, len(x)):
        xj = x[j]
        for k in range(out.size):
            out[k] += weights[j] * xj[k]


def backward_heads(address, dout, out, qkv, logsums, dqkv, scratch, scores, sums, narrow):
    """Fills dqkv (B, T, 3C)."""
    threads = len(scratch)
    for thread in prange(threads):
        gemm = gemm_at(address, qkv)
        B, NH, _ = logsums.shape
        for unit in range(B * NH * thread // threads, B * NH * (thread + 1) // threads):
            b = unit // NH
            room = scratch[thread], scores[thread], sums[thread], narrow[thread]
            given = dout[b], out[b], qkv[b], logsums[b]
            backward_head(gemm, *given, dqkv[b], unit % NH, *room)


@jit
def backward_head(gemm, dout, out, qkv, logsums, dqkv, h, scratch, scores, sums, dqT):
    """Head h of a sequence: its three ranges of channels of dqkv (T, 3C)."""
    NH, T = logsums.shape
    hs = dout.shape[1] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    q, k, v = queries_keys_values(qkv, h, hs)
    y, dy = head(out, h, hs), head(dout, h, hs)
    dkT, dvT = sums[0], sums[1]
    dkT[:] = 0
    dvT[:] = 0
    nothing = q[:0]  # to start a product from: zeros
    for t0 in range(0, T, ROWS):
        t1 = min(t0 + ROWS, T)
        att, datt = scores[0, : t1 - t0, :t1], scores[1, : t1 - t0, :t1]
        gemm(q[t0:t1], k[:t1].T, att, nothing, scratch)
        gemm(dy[t0:t1], v[:t1].T, datt, nothing, scratch)
        for t in range(t0, t1):
            row, drow = scores[0, t - t0, :t1], scores[1, t - t0, :t1]
            total = dot(y[t], dy[t])
            causal_softmax_backward(row, drow, t + 1, scale, logsums[h, t], total)
        gemm(dy[t0:t1].T, att, dvT[:, :t1], dvT[:, :t1], scratch)
        gemm(k[:t1].T, datt.T, dqT[:, : t1 - t0], nothing, scratch)
        gemm(q[t0:t1].T, datt, dkT[:, :t1], dkT[:, :t1], scratch)
        turn(dqT, head(dqkv, h, hs)[t0:t1])
    turn(dkT, head(dqkv, NH + h, hs))
    turn(dvT, head(dqkv, 2 * NH + h, hs))
