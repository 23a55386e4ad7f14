"""Weights in 4 bits, two to a byte: integers from -8 to 7, with one scale for every 32 of a row.

Of each group of 32, byte i holds number i in its lower half and number 16 + i in its upper half, so
that 16 bytes become two vectors of 16 numbers.
"""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.scaled import TINY, Scaled

GROUP = 32
HALF = GROUP // 2
# Of a group's largest number: below LEAST all become zeros, for 2**-28 times the scale, as it is
# used, would be a denormal; above MOST its inverse would be one.
LEAST, MOST = 2.0**32 * TINY, 2.0**126
# What the largest number of a group may become before it is rounded and cut off at -8 and 7: the
# one with the least squared error is taken. More of them make the error less than 1 % smaller.
CANDIDATES = -8.0, -7.0, 7.0, -9.0, -8.5, -7.5, 7.5


def to_int4(x):
    """x (..., N, K), float32 -> a Scaled of uint8 (..., N, K / 2).

    Its scale is (..., N, K / 32), so K must be a multiple of 32. Where a number is not finite, or
    above 2**126, the scale of its group is nan.
    """
    *outer, K = x.shape
    assert x.dtype == np.float32 and K % GROUP == 0, "float32, a multiple of 32 numbers a row"
    values = np.empty((*outer, K // 2), np.uint8)
    scale = np.empty((*outer, K // GROUP), np.float32)
    quantize_groups(*as_groups(x, values, scale), get_num_threads())
    return Scaled(values, scale)


def as_groups(x, values, scale):
    return x.reshape(-1, GROUP), values.reshape(-1, HALF), scale.reshape(-1)


@jit(parallel=True)
def quantize_groups(x, values, scale, n_threads):
    """Fills values (N, 16) and scale (N,) for x (N, 32); each thread has groups of its own."""
    N = len(x)
    for thread in prange(n_threads):
        mode = flush_denormals()
        for i in range(N * thread // n_threads, N * (thread + 1) // n_threads):
            scale[i] = quantize_group(x[i], values[i])
        restore_denormals(mode)


@jit
def quantize_group(x, values):
    """Fills values (16,) for x (32,) -> their scale, as to_int4 has it."""
    largest = np.float32(0)
    for k in range(GROUP):
        if not abs(x[k]) <= abs(largest):
            largest = x[k]
            if np.isnan(largest):
                break
    values[:] = 0
    if abs(largest) < LEAST:
        return np.float32(0)
    if not abs(largest) <= MOST:
        return np.float32(np.nan)
    inverse, best, multiplier, scale = np.float32(1) / largest, np.float32(-1), 0.0, 0.0
    for candidate in CANDIDATES:
        xq = qq = np.float32(0)
        for k in range(GROUP):
            relative = x[k] * inverse
            q = to_integer(relative * np.float32(candidate))
            xq += relative * q
            qq += q * q
        # The best scale for these integers is xq / qq: the squared error is then the sum of x**2,
        # less xq**2 / qq.
        if xq * xq / qq > best:
            best, multiplier, scale = xq * xq / qq, candidate, xq / qq
    for i in range(HALF):
        low = np.int32(to_integer(x[i] * inverse * np.float32(multiplier)))
        high = np.int32(to_integer(x[HALF + i] * inverse * np.float32(multiplier)))
        values[i] = np.uint8((low & 15) | (high & 15) << 4)
    return np.float32(scale) * largest


@jit
def to_integer(x):
    """The nearest of the integers from -8 to 7, as a float."""
    return min(max(np.rint(x), np.float32(-8)), np.float32(7))


@jit
def widen_group(values, scale, out):
    """Fills out (32,) from values (16,) and their scale."""
    for i in range(HALF):
        pair = np.int32(values[i])
        out[i] = np.float32(((pair & 15) ^ 8) - 8) * scale  # the highest of the 4 bits is the sign
        out[HALF + i] = np.float32(((pair >> 4) ^ 8) - 8) * scale
