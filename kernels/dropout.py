"""Dropout, a row at a time: the twin of npgpt/layers/dropout.py, with the same random numbers."""

import math

from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.philox import drop_row, drop_words


def dropout_forward(x, drop):
    """x (..., C) -> out of the same shape, cache: each element 0, or x times drop.scale."""
    out = empty(x.shape, x.dtype)
    C = x.shape[-1]
    drop_rows(x.reshape(-1, C), out.reshape(-1, C), drop_words(math.prod(x.shape[1:-1]), drop))
    return out, drop


def dropout_backward(dout, cache):
    """dout, of the shape of x -> dx: what was dropped has no gradient, the rest is scaled alike."""
    dx, _ = dropout_forward(dout, cache)
    return dx


@jit(parallel=True)
def drop_rows(x, out, words):
    """Fills out (N, C)."""
    for i in prange(len(x)):
        mode = flush_denormals()
        row = out[i]
        for c in range(len(row)):
            row[c] = x[i, c]
        drop_row(row, i, 0, words)
        restore_denormals(mode)
