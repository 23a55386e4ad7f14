"""The product of two matrices on all threads, in the current precision."""

from functools import cache

import numpy as np
from numba import get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products import blas
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_at, gemm_for, gemm_signature
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.kernels.products.precision import current_n_terms
from npgpt.kernels.products.shared_pack_bf16 import product_shared_pack

SHARED_PACK_MIN_ROWS = 256  # of x, a thread; with more, in bf16, threads share what they pack of y


def product(x, y, out, b=None, add=False):
    """out (M, N) = or, with add, += x (M, K) @ y (K, N); or that plus b (N,), without add."""
    assert x.shape[1] == y.shape[0] and out.shape == (len(x), y.shape[1]), "shapes"
    assert out.shape[1] == 1 or out.strides[1] == out.itemsize, "rows of out are contiguous"
    assert b is None or not add, "add or b"
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
    else:
        gemm = gemm_bf16_for(n_terms) if n_terms else gemm_for(out.dtype)
        product_for(out.dtype)(address_of(gemm), x, y, out, init, scratch)


@cache
def product_for(dtype):
    """The compiled product_on_threads, one for all the layouts that its matrices can have."""
    *matrices, scratch = gemm_signature(dtype).args
    signature = types.void(types.intp, *matrices, scratch.dtype[:, ::1])
    return jit(product_on_threads, parallel=True, signature=signature)


def product_on_threads(address, x, y, out, init, scratch):
    """Each thread makes some of the rows of out, or of its columns, by the gemm at the address."""
    M, N = out.shape
    n_threads = len(scratch)
    by_rows = M > N
    for thread in prange(n_threads):
        mode = flush_denormals()
        gemm = gemm_at(address, out)
        lo, hi = max(M, N) * thread // n_threads, max(M, N) * (thread + 1) // n_threads
        m0, m1 = (lo, hi) if by_rows else (0, M)
        n0, n1 = (0, N) if by_rows else (lo, hi)
        gemm(x[m0:m1], y[:, n0:n1], out[m0:m1, n0:n1], init[m0:m1, n0:n1], scratch[thread])
        restore_denormals(mode)
