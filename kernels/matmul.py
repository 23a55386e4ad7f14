"""The linear layer, on all threads: the twin of npgpt/layers/matmul.py."""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, few_rows
from npgpt.kernels.products.product import product


def matmul_forward(x, w, b=None):
    """Map x (B, T, C) with w (OC, C) and, if there is one, b (OC,) -> out (B, T, OC), cache.

    For up to DOT_MAX_ROWS positions, which read w more than they compute, no precision rounds the
    operands.
    """
    *BT, C = x.shape
    OC = len(w)
    out = empty((*BT, OC), x.dtype)  # (B, T, OC)
    x2, out2 = x.reshape(-1, C), out.reshape(-1, OC)  # (B*T, C), (B*T, OC)
    if len(x2) <= DOT_MAX_ROWS and w.flags.c_contiguous and w.dtype == x.dtype:
        few_rows(np.ascontiguousarray(x2), w, out2, b)
    else:
        product(x2, w.T, out2, b=b)
    return out, (x, w, b)


def matmul_backward(dout, cache, out=None, add=False):
    """dout (B, T, OC) -> dx (B, T, C), dw (OC, C), db (OC,) or None without a bias.

    Given out=(dw, db), both are written there or, with add, added to what is there.
    """
    x, w, b = cache
    OC, C = w.shape
    dout, x2 = dout.reshape(-1, OC), x.reshape(-1, C)  # (B*T, OC), (B*T, C)
    dx = empty(x.shape, x.dtype)  # (B, T, C)
    dw, db = out or (empty(w.shape, w.dtype), None if b is None else np.empty_like(b))
    product(dout, w, dx.reshape(-1, C))
    product(dout.T, x2, dw, add=add)
    if b is not None:
        sum_rows(dout, db, add, get_num_threads())
    return dx, dw, db


@jit(parallel=True)
def sum_rows(x, out, add, n_threads):
    """out (C,) = or += the sum of the rows of x (N, C); each thread has columns of its own."""
    N, C = x.shape
    for thread in prange(n_threads):
        mode = flush_denormals()
        lo, hi = C * thread // n_threads, C * (thread + 1) // n_threads
        total = out[lo:hi]
        if not add:
            total[:] = 0
        for i in range(N):
            row = x[i, lo:hi]
            for c in range(len(row)):
                total[c] += row[c]
        restore_denormals(mode)
