"""Layer normalisation, a row at a time: the twin of npgpt/layers/layernorm.py."""

import numpy as np
from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.layers.layernorm import EPS

GROUP = 16  # rows that one thread takes at a time; the same for any number of threads


def layernorm_forward(x, w, b):
    """x (B, T, C), w and b (C,) -> out (B, T, C), cache."""
    out = empty(x.shape, x.dtype)  # (B, T, C)
    mean, rstd = np.empty((2, *x.shape[:-1], 1), x.dtype)  # each (B, T, 1)
    C = x.shape[-1]
    rows = (out.reshape(-1, C), mean.reshape(-1), rstd.reshape(-1))
    forward = forward_group if mean.size <= GROUP else forward_groups  # one group needs one thread
    forward(x.reshape(-1, C), w, b, x.dtype.type(EPS), *rows)
    return out, (x, w, mean, rstd)


def layernorm_backward(dout, cache, out=None, add=False):
    """dout (B, T, C) -> dx (B, T, C), dw (C,), db (C,).

    Given out=(dw, db), both are written there or, with add, added to what is there.
    """
    x, w, mean, rstd = cache
    C = x.shape[-1]
    dx = empty(x.shape, x.dtype)  # (B, T, C)
    dw, db = out or (np.empty_like(w), np.empty_like(w))
    rows = (dout.reshape(-1, C), x.reshape(-1, C), w, mean.reshape(-1), rstd.reshape(-1))
    partial_sums = np.zeros((-(-mean.size // GROUP), 2, C), x.dtype)  # of dw and db, by group
    backward_rows(*rows, dx.reshape(-1, C), partial_sums)
    add_partial_sums(partial_sums, dw, db, add)
    return dx, dw, db


# Loops over single elements: written as row expressions, every intermediate row is allocated, and
# the kernel takes five times as long. `real` is the dtype of x: a plain 0.0 is a float64.


@jit(parallel=True)
def forward_groups(x, w, b, eps, out, mean, rstd):
    """x (N, C), w and b (C,): fills out (N, C), mean and rstd (N,)."""
    for group in prange((len(x) + GROUP - 1) // GROUP):
        mode = flush_denormals()
        rows = slice(group * GROUP, (group + 1) * GROUP)
        forward_group(x[rows], w, b, eps, out[rows], mean[rows], rstd[rows])
        restore_denormals(mode)


@jit
def forward_group(x, w, b, eps, out, mean, rstd):
    """x (N, C), w and b (C,): fills out (N, C), mean and rstd (N,)."""
    N, C = x.shape
    real = x.dtype.type
    for i in range(N):
        total = real(0)
        for c in range(C):
            total += x[i, c]
        m = total / real(C)
        squares = real(0)
        for c in range(C):
            squares += (x[i, c] - m) * (x[i, c] - m)
        r = real(1) / np.sqrt(squares / real(C) + eps)
        for c in range(C):
            out[i, c] = (x[i, c] - m) * r * w[c] + b[c]
        mean[i] = m
        rstd[i] = r


@jit(parallel=True)
def backward_rows(dout, x, w, mean, rstd, dx, partial_sums):
    """dout and x (N, C), w (C,), mean and rstd (N,): fills dx (N, C), partial_sums (G, 2, C)."""
    N, C = x.shape
    real = x.dtype.type
    for group in prange(len(partial_sums)):
        mode = flush_denormals()
        dw, db = partial_sums[group, 0], partial_sums[group, 1]
        for i in range(group * GROUP, min((group + 1) * GROUP, N)):
            dxhat_sum = real(0)
            dxhat_xhat_sum = real(0)
            for c in range(C):
                xhat = (x[i, c] - mean[i]) * rstd[i]
                dxhat = dout[i, c] * w[c]
                dxhat_sum += dxhat
                dxhat_xhat_sum += dxhat * xhat
            dxhat_mean = dxhat_sum / real(C)
            dxhat_xhat_mean = dxhat_xhat_sum / real(C)
            for c in range(C):
                xhat = (x[i, c] - mean[i]) * rstd[i]
                dxhat = dout[i, c] * w[c]
                dx[i, c] = (dxhat - dxhat_mean - xhat * dxhat_xhat_mean) * rstd[i]
                dw[c] += dout[i, c] * xhat
                db[c] += dout[i, c]
        restore_denormals(mode)


@jit
def add_partial_sums(partial_sums, dw, db, add):
    """dw and db (C,) = or += the groups' partial sums (G, 2, C), in the order of the groups."""
    if not add:
        dw[:] = 0
        db[:] = 0
    for group in range(len(partial_sums)):
        for c in range(dw.size):
            dw[c] += partial_sums[group, 0, c]
            db[c] += partial_sums[group, 1, c]
