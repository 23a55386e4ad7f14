"""Products of a few rows with a weight matrix that is read once, for sampling.

Up to DOT_MAX_ROWS rows are bound by memory bandwidth alone. With more, up to GEMV_MAX_ROWS, each
weight is multiplied so often that tiles in registers are worth it, as gemm has them; but gemm would
pack all of the weights, which takes longer than to multiply them.
"""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import VECTOR
from npgpt.kernels.memory.prefetch import prefetch_for_read
from npgpt.kernels.numerics.bfloat16 import as_float
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.int8 import Scaled
from npgpt.kernels.products.gemm import KC, pack
from npgpt.kernels.products.tile import MR, tile

CACHE_LINE = 64  # bytes
CHUNK = 64  # of k, that tiles take at a time, while the same part of the next rows is fetched
DOT_MAX_ROWS = 8
GEMV_MAX_ROWS = 64  # up to which this is faster than gemm


def few_rows(x, w, out, b=None):
    """out (M, N) = x (M, K), contiguous, @ w.T plus, if there is one, b (N,); M <= GEMV_MAX_ROWS.

    w (N, K), contiguous, can also be of uint16, the bits of bf16, or Scaled. No precision rounds
    the operands.
    """
    none = np.empty(0, x.dtype)
    values, scale = w if isinstance(w, Scaled) else (w, none)
    kernel = gemv_rows if len(x) <= DOT_MAX_ROWS else gemv_tiles
    kernel(x, values, scale, none if b is None else b, out, get_num_threads())


@jit(parallel=True)
def gemv_rows(x, w, scale, b, out, n_threads):
    """out (M, N) = x (M, K) @ w.T, w (N, K) read once, times scale (N,), plus b (N,).

    w can be of float, of bf16 or of int8; scale and b may be empty. Each thread has rows of w of
    its own.
    """
    N = len(w)
    for thread in prange(n_threads):
        mode = flush_denormals()
        lo, hi = N * thread // n_threads, N * (thread + 1) // n_threads
        dot_rows(x, w[lo:hi], out[:, lo:hi])
        scale_and_add(out, lo, hi, scale, b)
        restore_denormals(mode)


@jit(parallel=True, makes_arrays=True)
def gemv_tiles(x, w, scale, b, out, n_threads):
    """As gemv_rows, for more rows of x than DOT_MAX_ROWS."""
    (M, K), N = x.shape, len(w)
    P = 3 * VECTOR // x.itemsize  # columns of a panel
    panels = np.empty(((M + P - 1) // P, K, P), x.dtype)
    pack(x, panels)
    for thread in prange(n_threads):
        mode = flush_denormals()
        lo, hi = N * thread // n_threads, N * (thread + 1) // n_threads
        tile_rows(panels, w[lo:hi], out[:, lo:hi])
        scale_and_add(out, lo, hi, scale, b)
        restore_denormals(mode)


@jit
def scale_and_add(out, lo, hi, scale, b):
    """Multiply the columns lo to hi of out (M, N) by scale (N,) and add b (N,), if there are."""
    if scale.size:
        for i in range(len(out)):
            for j in range(lo, hi):
                out[i, j] *= scale[j]
    if b.size:
        for i in range(len(out)):
            for j in range(lo, hi):
                out[i, j] += b[j]


@jit
def dot_rows(x, w, out):
    """out (M, N) = x (M, K) @ w.T, w (N, K), also in bf16 or int8; all sums in the same order.

    w is read as four streams, a quarter of it apart: a core's memory bandwidth is a third higher
    so.
    """
    M, N = out.shape
    quarter, last = (N + 3) // 4, N - 1
    for j in range(quarter):
        j1, j2, j3 = min(j + quarter, last), min(j + 2 * quarter, last), min(j + 3 * quarter, last)
        w0, w1, w2, w3 = w[j], w[j1], w[j2], w[j3]
        for i in range(M):
            xi = x[i]
            s0 = s1 = s2 = s3 = x.dtype.type(0)
            for k in range(xi.size):
                s0 += as_float(w0[k]) * xi[k]
                s1 += as_float(w1[k]) * xi[k]
                s2 += as_float(w2[k]) * xi[k]
                s3 += as_float(w3[k]) * xi[k]
            out[i, j], out[i, j1], out[i, j2], out[i, j3] = s0, s1, s2, s3


@jit(makes_arrays=True)
def tile_rows(panels, w, out):
    """As dot_rows, with the panels of x (M, K), as gemm's pack makes them."""
    (M, N), K = out.shape, w.shape[1]
    n_panels, _, P = panels.shape
    W = P // 3
    rows, sums = np.empty((MR, KC), out.dtype), np.empty((n_panels, MR, P), out.dtype)
    for j in range(0, N, MR):
        for k0 in range(0, K, CHUNK):
            k1 = min(k0 + CHUNK, K)
            for i in range(MR):
                wi, row = w[min(j + i, N - 1), k0:k1], rows[i, : k1 - k0]
                for k in range(wi.size):
                    row[k] = as_float(wi[k])
                if j + MR + i < N:
                    for k in range(k0, k1, CACHE_LINE // w.itemsize):
                        prefetch_for_read(w, j + MR + i, k)
            for p in range(n_panels):
                panel, c = panels[p, k0:k1], sums[p]
                init = c if k0 else c[:0]
                if M - p * P <= W:
                    tile(rows.T, panel, k1 - k0, c, init, 0, 0, 1)
                elif M - p * P <= 2 * W:
                    tile(rows.T, panel, k1 - k0, c, init, 0, 0, 2)
                else:
                    tile(rows.T, panel, k1 - k0, c, init, 0, 0, 3)
        for p in range(n_panels):
            for m in range(p * P, min(p * P + P, M)):
                for i in range(min(MR, N - j)):
                    out[m, j + i] = sums[p, i, m - p * P]


@jit
def weighted_sum(weights, x, out):
    """out (K,) = weights (N,) @ x (N, K), which is read as four streams, as in dot_rows."""
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
