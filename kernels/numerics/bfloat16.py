"""bf16, the upper half of a float32, as an array of uint16: half the memory to read."""

import numpy as np
from numba import prange, types
from numba.extending import overload

from npgpt.kernels.codegen.jit import jit

BLOCK = 1 << 15  # elements that one thread rounds at a time


def to_bf16(x):
    """x of any shape, float32 and contiguous -> the bits of each element's nearest bf16, uint16."""
    bits = np.empty(x.shape, np.uint16)
    round_blocks(x.reshape(-1), bits.reshape(-1))
    return bits


@jit(parallel=True)
def round_blocks(x, bits):
    """Fills bits (N,)."""
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        xi, hi = x[span], bits[span]
        for i in range(xi.size):
            hi[i] = bf16_bits(xi[i])


@jit
def round_row(x, bits):
    """Fills bits (N,), on the thread that calls it: for one that is not the kernels'."""
    for i in range(x.size):
        bits[i] = bf16_bits(x[i])


@jit
def bf16_bits(x):
    """The bits of the bf16 nearest to a float32; ties go to the even one; nan stays nan."""
    bits = np.float32(x).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    up = (bits + np.uint32(0x7FFF) + even) >> np.uint32(16)
    return up if bits & np.uint32(0x7FFFFFFF) <= np.uint32(0x7F800000) else np.uint32(0x7FC0)


@jit
def bf16_value(bits):
    """The float32 that the bits of a bf16 are the upper half of."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


def as_float(x):
    """The float32 that an int8, or the bits of a bf16 in a uint16, stand for; another as it is."""
    if isinstance(x, np.int8):
        return np.float32(x)
    return bf16_value(x) if isinstance(x, np.uint16) else x


@overload(as_float)
def _(x):
    if x == types.uint16:
        return lambda x: bf16_value(x)
    if x == types.int8:
        return lambda x: np.float32(x)
    return lambda x: x
