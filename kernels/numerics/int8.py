"""Weights in 8 bits, a quarter of float32's memory to read: integers, and for each row a scale."""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit

LARGEST = 127  # 127 and -127 are the ends of a row: 0 stays 0, and signs are treated alike
TINY = np.finfo(np.float32).tiny


class Scaled(NamedTuple):
    """values (..., N, K) and scale (..., N), by which rows are multiplied; (..., 0): by 1."""

    values: np.ndarray
    scale: np.ndarray


def to_int8(x):
    """x (..., N, K), float32 and contiguous -> the nearest Scaled of int8, each row by its own."""
    values, scale = np.empty(x.shape, np.int8), np.empty(x.shape[:-1], np.float32)
    K = x.shape[-1]
    round_rows(x.reshape(-1, K), values.reshape(-1, K), scale.reshape(-1), get_num_threads())
    return Scaled(values, scale)


@jit(parallel=True)
def round_rows(x, values, scale, parts):
    """Fills values (N, K) and scale (N,); each thread has rows of its own."""
    N = len(x)
    for part in prange(parts):
        for i in range(N * part // parts, N * (part + 1) // parts):
            scale[i] = round_row(x[i], values[i])


@jit
def round_row(x, values):
    """Fills values (K,) -> their scale; where x (K,) is not finite, the scale is not either."""
    bits = x.view(np.uint32)  # without the sign they are in the order of numbers, and nan is last
    most = np.uint32(0)
    for k in range(bits.size):
        most = max(most, np.uint32(bits[k] & np.uint32(0x7FFFFFFF)))
    scale = np.uint32(most).view(np.float32) / np.float32(LARGEST)
    if TINY <= scale < np.inf:
        inverse = np.float32(1) / scale
        for k in range(x.size):
            values[k] = np.int8(np.rint(x[k] * inverse))
    else:
        values[:] = 0
    return scale
