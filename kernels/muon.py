"""Muon, each matrix by one thread: the twin of npgpt/layers/muon.py.

The matrices of small models are too small for two threads to share: they would wait for each other
after every product.
"""

from functools import cache

import numpy as np
from numba import from_dtype, get_num_threads, prange, types

from npgpt.kernels.codegen.function_pointers import address_of
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products.gemm import SCRATCH_SIZE, gemm_at, gemm_for
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.kernels.products.precision import current_n_terms
from npgpt.layers.muon import EPS, ITERATIONS, A, B, C


def muon_update(p, g, m, lr, momentum, weight_decay, scale=1.0):
    """A step of the N matrices p (N, rows, cols) against scale times g; p and m change in place.

    The products are in the current precision.
    """
    _, rows, cols = p.shape
    n, n_threads = min(rows, cols), get_num_threads()
    n_terms = current_n_terms(p.dtype)
    gemm = gemm_bf16_for(n_terms) if n_terms else gemm_for(p.dtype)
    rate, decay = lr * max(1, rows / cols) ** 0.5, 1 - lr * weight_decay
    numbers = np.array([scale, momentum, 1 - momentum, rate, decay], p.dtype)
    workspace = (
        empty((n_threads, SCRATCH_SIZE), p.dtype),
        empty((n_threads, 2, rows, cols), p.dtype),
        empty((n_threads, 2, n, n), p.dtype),
    )
    kernel_for(p.dtype)(address_of(gemm), p, g, m, numbers, *workspace)


@cache
def kernel_for(dtype):
    """The compiled update_matrices."""
    real = from_dtype(dtype)
    stack = real[:, :, ::1]
    work = real[:, ::1], real[:, :, :, ::1], real[:, :, :, ::1]
    signature = types.void(types.intp, stack, stack, stack, real[::1], *work)
    return jit(update_matrices, parallel=True, signature=signature)


def update_matrices(address, p, g, m, numbers, scratch, xs, grams):
    """Changes p and m (N, rows, cols), by the gemm at the address."""
    n_threads = len(scratch)
    for thread in prange(n_threads):
        mode = flush_denormals()
        gemm = gemm_at(address, p)
        work = scratch[thread], xs[thread], grams[thread]
        for i in range(len(p) * thread // n_threads, len(p) * (thread + 1) // n_threads):
            update_matrix(gemm, p[i], g[i], m[i], numbers, *work)
        restore_denormals(mode)


@jit(makes_arrays=True)
def update_matrix(gemm, p, g, m, numbers, scratch, xs, grams):
    """Changes p and m (rows, cols); xs (2, rows, cols) and grams (2, n, n) are workspace."""
    scale, momentum, rest, rate, decay = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    rows, cols = p.shape
    x, squares = xs[0], p.dtype.type(0)
    for i in range(rows):
        squares_of_row = p.dtype.type(0)
        for j in range(cols):
            gradient = scale * g[i, j]
            m[i, j] = momentum * m[i, j] + rest * gradient
            x[i, j] = momentum * m[i, j] + rest * gradient
            squares_of_row += x[i, j] * x[i, j]
        squares += squares_of_row
    factor = p.dtype.type(1) / (np.sqrt(squares) + p.dtype.type(EPS))
    for i in range(rows):
        for j in range(cols):
            x[i, j] *= factor
    step = orthogonalize(gemm, xs, grams, scratch)
    for i in range(rows):
        for j in range(cols):
            p[i, j] = decay * p[i, j] - rate * step[i, j]


@jit(makes_arrays=True)
def orthogonalize(gemm, xs, grams, scratch):
    """The matrix xs[0], of norm 1, orthogonalized, in one of xs (2, rows, cols)."""
    x, next_x = xs[0], xs[1]
    gram, polynomial = grams[0], grams[1]
    real = x.dtype.type
    a, b, c = real(A), real(B), real(C)
    no_init = gram[:0]
    tall = len(x) > x.shape[1]
    for _ in range(ITERATIONS):
        if tall:  # (x^T x)^i on the right does what (x x^T)^i does on the left
            gemm(x.T, x, gram, no_init, scratch)
        else:
            gemm(x, x.T, gram, no_init, scratch)
        gemm(gram, gram, polynomial, no_init, scratch)
        for i in range(len(gram)):
            for j in range(len(gram)):
                polynomial[i, j] = b * gram[i, j] + c * polynomial[i, j]
            polynomial[i, i] += a
        if tall:
            gemm(x, polynomial, next_x, no_init, scratch)
        else:
            gemm(polynomial, x, next_x, no_init, scratch)
        x, next_x = next_x, x
    return x
