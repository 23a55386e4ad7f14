"""bf16, the upper half of a float32, as an array of uint16: half the memory to read."""

import numpy as np
from numba import prange, types
from numba.extending import overload

from npgpt.kernels.codegen.jit import jit

BLOCK = 1 << 15


def to_halves(x):
    """x of any shape, float32 and contiguous -> the nearest bf16 of each element, as uint16."""
    halves = np.empty(x.shape, np.uint16)
    round_blocks(x.reshape(-1), halves.reshape(-1))
    return halves


@jit(parallel=True)
def round_blocks(x, halves):
    """Fills halves (N,)."""
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        xi, hi = x[part], halves[part]
        for i in range(xi.size):
            hi[i] = nearest(xi[i])


@jit
def nearest(x):
    """The bits of the bf16 nearest to a float32; of two, the even one; nan stays nan."""
    bits = np.float32(x).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    up = (bits + np.uint32(0x7FFF) + even) >> np.uint32(16)
    return up if bits & np.uint32(0x7FFFFFFF) <= np.uint32(0x7F800000) else np.uint32(0x7FC0)


@jit
def widened(half):
    """The float32 that a bf16 is the upper half of."""
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


def number(x):
    """The float32 that x, of int8 or the bits of bf16 in uint16, stands for; another as it is."""
    if isinstance(x, np.int8):
        return np.float32(x)
    return widened(x) if isinstance(x, np.uint16) else x


@overload(number)
def _(x):
    if x == types.uint16:
        return lambda x: widened(x)
    if x == types.int8:
        return lambda x: np.float32(x)
    return lambda x: x
