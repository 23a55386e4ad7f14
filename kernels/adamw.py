"""AdamW in one pass over memory: the twin of npgpt/layers/adamw.py."""

import math

import numpy as np
from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals

BLOCK = 1 << 15  # elements that one thread takes at a time


def adamw_update(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, scale=1.0):
    """Step t = 1, 2, ... of p (N,) against scale times g (N,); p, m and v (N,) change in place."""
    # p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps), with one root and one division
    root = math.sqrt(1 - beta2**t)
    rate, eps, decay = lr * root / (1 - beta1**t), eps * root, 1 - lr * weight_decay
    numbers = np.array([scale, beta1, 1 - beta1, beta2, 1 - beta2, rate, eps, decay], p.dtype)
    update_blocks(p, g, m, v, numbers)


def gradient_norm(g):
    """g (N,) -> the square root of the sum of its squares, a float."""
    quarter = g.size // 4
    quarters, rest = g[: 4 * quarter].reshape(4, quarter), g[4 * quarter :]
    squares = np.empty(-(-quarter // BLOCK), g.dtype)
    square_blocks(quarters, squares)
    return math.sqrt(squares.sum(dtype=np.float64) + np.square(rest).sum(dtype=np.float64))


@jit(parallel=True)
def update_blocks(p, g, m, v, numbers):
    """Changes p, m and v (N,)."""
    for block in prange((p.size + BLOCK - 1) // BLOCK):
        mode = flush_denormals()
        scale, beta1, rest1, beta2, rest2, rate, eps, decay = (
            numbers[0], numbers[1], numbers[2], numbers[3],
            numbers[4], numbers[5], numbers[6], numbers[7],
        )  # fmt: skip
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        pi, gi, mi, vi = p[span], g[span], m[span], v[span]
        for i in range(pi.size):
            gradient = scale * gi[i]
            mi[i] = beta1 * mi[i] + rest1 * gradient
            vi[i] = beta2 * vi[i] + rest2 * gradient * gradient
            pi[i] = decay * pi[i] - rate * mi[i] / (np.sqrt(vi[i]) + eps)
        restore_denormals(mode)


@jit(parallel=True)
def square_blocks(g, squares):
    """Fills squares with the sums of the squares of blocks of the columns of g (4, N).

    g is read as four streams: a core's memory bandwidth is a third higher so.
    """
    for block in prange(squares.size):
        mode = flush_denormals()
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        g0, g1, g2, g3 = g[0, span], g[1, span], g[2, span], g[3, span]
        total = g.dtype.type(0)
        for i in range(g0.size):
            total += g0[i] * g0[i] + g1[i] * g1[i] + g2[i] * g2[i] + g3[i] * g3[i]
        squares[block] = total
        restore_denormals(mode)
