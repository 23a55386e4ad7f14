"""Causal attention, a block of a head's rows at a time: the twin of npgpt/layers/attention.py.

A block's scores, (ROWS, T), are all that exists of att at any time. In place of att the cache has
each row's log of the sum of its exponentials, from which the backward pass makes att again. After
Dao et al. 2022; a CPU's cache has room for whole rows, so they need no running softmax.
"""

import numpy as np
from numba import prange

from npgpt.kernels.buffers import empty
from npgpt.kernels.exponential import exp
from npgpt.kernels.gemm import gemm
from npgpt.kernels.jit import jit

ROWS = 144  # three times the columns of a tile of gemm, in float32 and AVX-512


def attention_forward(qkv, NH):
    """Attend within qkv (B, T, 3C), its matmul's output, in NH heads -> out (B, T, C), cache."""
    B, T, C3 = qkv.shape
    out = empty((B, T, C3 // 3), qkv.dtype)  # (B, T, C)
    logsums = np.empty((B, NH, T), qkv.dtype)
    forward_heads(qkv, out, logsums)
    return out, (qkv, logsums)


def attention_backward(dout, cache):
    """dout (B, T, C) -> dqkv (B, T, 3C)."""
    qkv, logsums = cache
    dqkv = empty(qkv.shape, qkv.dtype)  # (B, T, 3C)
    backward_heads(dout, qkv, logsums, dqkv)
    return dqkv


@jit
def head(x, i, hs):
    """The i-th hs channels of x (T, channels)."""
    return x[:, i * hs : (i + 1) * hs]


@jit
def turn(x, out):
    """out (T, hs) = x (hs, T), transposed."""
    for t in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[t, c] = x[c, t]


# hs is 64 in every GPT-2, and a tile of gemm 48 columns wide. So the products whose result is as
# wide as a head are made transposed, in yT, dqT, dkT and dvT, where hs counts the rows.


@jit(parallel=True)
def forward_heads(qkv, out, logsums):
    """Fills out (B, T, C) and logsums (B, NH, T)."""
    B, NH, T = logsums.shape
    hs = out.shape[2] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    for unit in prange(B * NH):
        b, h = unit // NH, unit % NH
        q, k, v = head(qkv[b], h, hs), head(qkv[b], NH + h, hs), head(qkv[b], 2 * NH + h, hs)
        y = head(out[b], h, hs)
        scores, yT = np.empty((ROWS, T), qkv.dtype), np.empty((hs, ROWS), qkv.dtype)
        for t0 in range(0, T, ROWS):
            t1 = min(t0 + ROWS, T)
            att = scores[: t1 - t0, :t1]
            gemm(q[t0:t1], k[:t1].T, att, 0.0)
            for t in range(t0, t1):
                row = att[t - t0]
                past = row[: t + 1]
                highest = past[0]
                for s in range(past.size):
                    highest = max(highest, past[s])
                total = real(0)
                for s in range(past.size):
                    past[s] = exp((past[s] - highest) * scale)
                    total += past[s]
                for s in range(past.size):
                    past[s] /= total
                row[t + 1 :] = 0  # the future
                logsums[b, h, t] = highest * scale + np.log(total)
            gemm(v[:t1].T, att.T, yT[:, : t1 - t0], 0.0)
            turn(yT, y[t0:t1])


@jit(parallel=True)
def backward_heads(dout, qkv, logsums, dqkv):
    """Fills dqkv (B, T, 3C)."""
    B, NH, T = logsums.shape
    hs = dout.shape[2] // NH
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    for unit in prange(B * NH):
        b, h = unit // NH, unit % NH
        q, k, v = head(qkv[b], h, hs), head(qkv[b], NH + h, hs), head(qkv[b], 2 * NH + h, hs)
        dy = head(dout[b], h, hs)
        scores, dscores = np.empty((ROWS, T), qkv.dtype), np.empty((ROWS, T), qkv.dtype)
        dqT = np.empty((hs, ROWS), qkv.dtype)
        dkT, dvT = np.zeros((hs, T), qkv.dtype), np.zeros((hs, T), qkv.dtype)
        for t0 in range(0, T, ROWS):
            t1 = min(t0 + ROWS, T)
            att, datt = scores[: t1 - t0, :t1], dscores[: t1 - t0, :t1]
            gemm(q[t0:t1], k[:t1].T, att, 0.0)
            gemm(dy[t0:t1], v[:t1].T, datt, 0.0)
            for t in range(t0, t1):
                row, drow = att[t - t0], datt[t - t0]
                past, dpast = row[: t + 1], drow[: t + 1]
                total = real(0)
                for s in range(past.size):
                    past[s] = exp(past[s] * scale - logsums[b, h, t])
                    total += past[s] * dpast[s]
                for s in range(past.size):
                    dpast[s] = past[s] * (dpast[s] - total) * scale
                row[t + 1 :] = 0
                drow[t + 1 :] = 0
            gemm(dy[t0:t1].T, att, dvT[:, :t1], 1.0)
            gemm(k[:t1].T, datt.T, dqT[:, : t1 - t0], 0.0)
            gemm(q[t0:t1].T, datt, dkT[:, :t1], 1.0)
            turn(dqT, head(dqkv[b], h, hs)[t0:t1])
        turn(dkT, head(dqkv[b], NH + h, hs))
        turn(dvT, head(dqkv[b], 2 * NH + h, hs))
