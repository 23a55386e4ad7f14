"""Layer normalisation, a row at a time: the twin of npgpt/layers/layernorm.py."""

import numpy as np

from npgpt.kernels.jit import jit
from npgpt.layers.layernorm import EPS


def layernorm_forward(x, w, b):
    """x (B, T, C), w and b (C,) -> out (B, T, C), cache."""
    out = np.empty(x.shape, x.dtype)  # (B, T, C)
    mean, rstd = np.empty((2, *x.shape[:-1], 1), x.dtype)  # each (B, T, 1)
    C = x.shape[-1]
    eps = x.dtype.type(EPS)  # an argument: a compiled kernel would keep the value it has seen
    rows = (out.reshape(-1, C), mean.reshape(-1), rstd.reshape(-1))
    forward_rows(x.reshape(-1, C), w, b, eps, *rows)
    return out, (x, w, mean, rstd)


def layernorm_backward(dout, cache):
    """dout (B, T, C) -> dx (B, T, C), dw (C,), db (C,)."""
    x, w, mean, rstd = cache
    C = x.shape[-1]
    dx = np.empty(x.shape, x.dtype)  # (B, T, C)
    dw, db = np.zeros((2, C), x.dtype)  # each (C,)
    backward_rows(
        dout.reshape(-1, C), x.reshape(-1, C), w, mean.reshape(-1), rstd.reshape(-1),
        dx.reshape(-1, C), dw, db,
    )  # fmt: skip
    return dx, dw, db


# Explicit loops: an expression a row, `x[i] - m`, makes an array, and so written these kernels take
# five to ten times as long. `real` keeps the dtype of x: a plain 0.0 is a float64.


@jit
def forward_rows(x, w, b, eps, out, mean, rstd):
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


@jit
def backward_rows(dout, x, w, mean, rstd, dx, dw, db):
    """dout and x (N, C), w (C,), mean and rstd (N,): fills dx (N, C), adds to dw and db (C,)."""
    N, C = x.shape
    real = x.dtype.type
    for i in range(N):
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
