"""The product of two matrices on all threads, in the current precision."""

from functools import cache

import numpy as np
from numba import get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products import blas
from npgpt.kernels.products.gemm import (
    SCRATCH_SIZE,
    gemm_at,
    gemm_by,
    gemm_signature,
    multiply_at,
    multiply_for,
)
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.kernels.products.precision import current_n_terms
from npgpt.kernels.products.shared_pack_bf16 import product_shared_pack

SHARED_PACK_MIN_ROWS = 256  # of x, a thread; with more, in bf16, threads share what they pack of y


def product(x, y, out, b=None, add=False):
    """out (M, N) = or, with add, += x (M, K) @ y (K, N); or that plus b (N,), without add."""
    assert x.shape[1] == y.shape[0] and out.shape == (len(x), y.shape[1]), "shapes"
    assert out.shape[1] == 1 or out.strides[1] == out.itemsize, "rows of out are contiguous"
    assert b is None or (b.shape == (out.shape[1],) and not add), "b (N,), and not with add"
    n_terms = current_n_terms(out.dtype)
    if not n_terms and blas.way() == "blas":
        blas.product_blas(x, y, out, b, add)
        return
    init = out if add else np.empty((0, 0), out.dtype)
    if b is not None:
        init = np.broadcast_to(np.ascontiguousarray(b), out.shape)
    scratch = empty((get_num_threads(), SCRATCH_SIZE), out.dtype)
    if n_terms and len(out) > SHARED_PACK_MIN_ROWS * len(scratch):
        product_shared_pack(x, y, out, init, scratch, n_terms)
    elif n_terms:
        kernel = product_for(out.dtype, bf16_product_on_threads)
        kernel(address_of(gemm_bf16_for(n_terms)), x, y, out, init, scratch)
    else:
        kernel = product_for(out.dtype, product_on_threads)
        kernel(address_of(multiply_for(out.dtype)), x, y, out, init, scratch)


@cache
def product_for(dtype, kernel):
    """One of the two functions below, compiled once for all the layouts of its matrices."""
    *matrices, scratch = gemm_signature(dtype).args
    signature = types.void(types.intp, *matrices, scratch.dtype[:, ::1])
    return jit(kernel, parallel=True, signature=signature)


def product_on_threads(address, x, y, out, init, scratch):
    """Each thread makes its share of out by the multiply_panels at the address."""
    for thread in prange(len(scratch)):
        mode = flush_denormals()
        m0, m1, n0, n1 = share(out, thread, len(scratch))
        multiply = multiply_at(address, out)
        part, part_init = out[m0:m1, n0:n1], init[m0:m1, n0:n1]
        gemm_by(multiply, x[m0:m1], y[:, n0:n1], part, part_init, scratch[thread])
        restore_denormals(mode)


def bf16_product_on_threads(address, x, y, out, init, scratch):
    """Each thread makes its share of out by the gemm at the address."""
    for thread in prange(len(scratch)):
        mode = flush_denormals()
        m0, m1, n0, n1 = share(out, thread, len(scratch))
        gemm = gemm_at(address, out)
        gemm(x[m0:m1], y[:, n0:n1], out[m0:m1, n0:n1], init[m0:m1, n0:n1], scratch[thread])
        restore_denormals(mode)


@jit
def share(out, thread, n_threads):
    """A thread's rows of out (M, N), from m0 to m1, and columns, from n0 to n1: m0, m1, n0, n1."""
    M, N = out.shape
    lo, hi = max(M, N) * thread // n_threads, max(M, N) * (thread + 1) // n_threads
    return (lo, hi, 0, N) if M > N else (0, M, lo, hi)
