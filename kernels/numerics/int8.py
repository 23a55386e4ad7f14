"""Weights in int8, a quarter of float32's memory to read: quantized symmetrically, row by row."""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.scaled import TINY, Scaled

QMAX = 127  # a row's range is -127 to 127: 0 stays 0, and signs are treated alike


def to_int8(x):
    """x (..., N, K), float32 -> the nearest Scaled of int8, one scale for each row.

    Where a row is not finite, its scale is not finite either.
    """
    assert x.dtype == np.float32, "float32"
    values, scale = np.empty(x.shape, np.int8), np.empty(x.shape[:-1], np.float32)
    K = x.shape[-1]
    quantize_rows(x.reshape(-1, K), values.reshape(-1, K), scale.reshape(-1), get_num_threads())
    return Scaled(values, scale)


@jit(parallel=True)
def quantize_rows(x, values, scale, n_threads):
    """Fills values (N, K) and scale (N,); each thread has rows of its own."""
    N = len(x)
    for thread in prange(n_threads):
        mode = flush_denormals()
        for i in range(N * thread // n_threads, N * (thread + 1) // n_threads):
            scale[i] = quantize_row(x[i], values[i])
        restore_denormals(mode)


@jit
def quantize_row(x, values):
    """Fills values (K,) -> their scale; where x (K,) is not finite, the scale is not either."""
    bits = x.view(np.uint32)  # without the sign they are in the order of numbers, and nan is last
    largest = np.uint32(0)
    for k in range(bits.size):
        largest = max(largest, np.uint32(bits[k] & np.uint32(0x7FFFFFFF)))
    scale = np.uint32(largest).view(np.float32) / np.float32(QMAX)
    if TINY <= scale < np.inf:
        inverse = np.float32(1) / scale
        for k in range(x.size):
            values[k] = np.int8(np.rint(x[k] * inverse))
    else:
        values[:] = 0
    return scale
