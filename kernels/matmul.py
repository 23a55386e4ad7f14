"""The linear layer, each thread making a part of the result: the twin of npgpt/layers/matmul.py."""

from functools import cache

import numpy as np
from numba import get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.bfloat16 import number
from npgpt.kernels.numerics.int8 import Scaled
from npgpt.kernels.products.gemm import SCRATCH, gemm_at, gemm_signature
from npgpt.kernels.products.precision import bf16_parts, current_gemm
from npgpt.kernels.products.shared_pack_bf16 import product_in_strips

FEW = 8  # rows of x up to which few_rows is faster than gemm, which would pack all of w for them
MANY = 256  # rows of x for each thread; with more, in bf16, all threads share what they pack of y


def matmul_forward(x, w, b=None):
    """Map x (B, T, C) with w (OC, C) and, if there is one, b (OC,) -> out (B, T, OC), cache.

    For up to FEW positions, which read w more than they compute, factors are not rounded in any
    precision; there w can be of uint16, the bits of bf16, or Scaled.
    """
    *BT, C = x.shape
    nothing = np.empty(0, x.dtype)
    values, scale = w if isinstance(w, Scaled) else (w, nothing)
    OC = len(values)
    out = empty((*BT, OC), x.dtype)  # (B, T, OC)
    x2, out2 = x.reshape(-1, C), out.reshape(-1, OC)  # (B*T, C), (B*T, OC)
    if len(x2) <= FEW and values.flags.c_contiguous:
        bias = nothing if b is None else b
        few_rows(np.ascontiguousarray(x2), values, scale, bias, out2, get_num_threads())
    else:
        assert values.dtype == x.dtype, "w of fewer bits is for FEW positions"
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


def product(x, y, out, b=None, add=False):
    """out (M, N) = or, with add, += x (M, K) @ y (K, N); or that plus b (N,), without add."""
    assert x.shape[1] == y.shape[0] and out.shape == (len(x), y.shape[1]), "shapes"
    assert out.shape[1] == 1 or out.strides[1] == out.itemsize, "rows of out are dense"
    assert b is None or not add, "add or b"
    start = out if add else np.empty((0, 0), out.dtype)
    if b is not None:
        start = np.broadcast_to(np.ascontiguousarray(b), out.shape)
    scratch = empty((get_num_threads(), SCRATCH), out.dtype)
    parts = bf16_parts(out.dtype)
    if parts and len(out) > MANY * len(scratch):
        product_in_strips(x, y, out, start, scratch, parts)
    else:
        address = address_of(current_gemm(out.dtype))
        product_for(out.dtype)(address, x, y, out, start, scratch)


@cache
def product_for(dtype):
    """The compiled product_parts, one for all the layouts that its matrices can have."""
    *matrices, room = gemm_signature(dtype).args
    signature = types.void(types.intp, *matrices, room.dtype[:, ::1])
    return jit(product_parts, parallel=True, signature=signature)


def product_parts(address, x, y, out, start, scratch):
    M, N = out.shape
    parts = len(scratch)  # one a thread
    by_rows = M > N  # each thread makes some of the rows of out, or of its columns
    for part in prange(parts):
        gemm = gemm_at(address, out)
        lo, hi = max(M, N) * part // parts, max(M, N) * (part + 1) // parts
        m0, m1 = (lo, hi) if by_rows else (0, M)
        n0, n1 = (0, N) if by_rows else (lo, hi)
        gemm(x[m0:m1], y[:, n0:n1], out[m0:m1, n0:n1], start[m0:m1, n0:n1], scratch[part])


@jit(parallel=True)
def few_rows(x, w, scale, b, out, parts):
    """out (M, N) = x (M, K) @ w.T, w (N, K) read once, times scale (N,), plus b (N,).

    scale and b may be empty. Each thread has rows of w of its own.
    """
    N = len(w)
    for part in prange(parts):
        lo, hi = N * part // parts, N * (part + 1) // parts
        dots(x, w[lo:hi], out[:, lo:hi])
        if scale.size:
            for i in range(len(x)):
                for j in range(lo, hi):
                    out[i, j] *= scale[j]
        if b.size:
            for i in range(len(x)):
                for j in range(lo, hi):
                    out[i, j] += b[j]


@jit
def dots(x, w, out):
    """out (M, N) = x (M, K) @ w.T, w (N, K), also in bf16 or int8; all sums in the same order.

    w is read in four places at a time, a quarter of it apart: memory gives a core a third more so.
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
                s0 += number(w0[k]) * xi[k]
                s1 += number(w1[k]) * xi[k]
                s2 += number(w2[k]) * xi[k]
                s3 += number(w3[k]) * xi[k]
            out[i, j], out[i, j1], out[i, j2], out[i, j3] = s0, s1, s2, s3


@jit(parallel=True)
def sum_rows(x, out, add, parts):
    """out (C,) = or += the sum of the rows of x (N, C); each thread has columns of its own."""
    N, C = x.shape
    for part in prange(parts):
        lo, hi = C * part // parts, C * (part + 1) // parts
        total = out[lo:hi]
        if not add:
            total[:] = 0
        for i in range(N):
            row = x[i, lo:hi]
            for c in range(len(row)):
                total[c] += row[c]
