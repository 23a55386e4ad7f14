"""Products of a few rows with a weight matrix that is read once: bound by memory bandwidth."""

from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.bfloat16 import as_float
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals

GEMV_MAX_ROWS = 8  # up to which this is faster than gemm, which would pack all of w for them


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
        if scale.size:
            for i in range(len(x)):
                for j in range(lo, hi):
                    out[i, j] *= scale[j]
        if b.size:
            for i in range(len(x)):
                for j in range(lo, hi):
                    out[i, j] += b[j]
        restore_denormals(mode)


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
