"""Products by NumPy's BLAS, on CPUs where it has what gemm.py does not use: which, and how.

Apple's chips have matrix units that Apple's own library, Accelerate, uses; NumPy's wheels for macOS
14 and later call it. npgpt has not been timed on a Mac: `python -m bench.products --choose` times
both on any CPU.

The library computes on threads of its own, as many as its own environment variables say
(VECLIB_MAXIMUM_THREADS, OPENBLAS_NUM_THREADS), whatever npgpt.set_threads says. Where they spin
when they have nothing to do, as OpenBLAS's do, they keep Numba's threads from the cores, and a step
takes up to twice as long.
"""

import os
import platform

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.kernels.memory.buffers import empty

VARIABLE = "NPGPT_PRODUCTS"  # the environment's variable
WAYS = "blas", "kernel"
# (system, machine) -> how products are computed there; everywhere else by the kernel
PLATFORMS = {
    ("Darwin", "arm64"): "blas",
}
ADD_ELEMENTS = 1 << 20  # of a product that is added to another one, at a time: 4 MiB of float32
ADD_MIN_ROWS = 64


def default_way():
    """How products are computed where the environment does not say it."""
    return PLATFORMS.get((platform.system(), platform.machine()), "kernel")


def way():
    """How products in float32 and float64 are computed, one of WAYS.

    Raises ArgumentError where the environment has another word.
    """
    word = os.environ.get(VARIABLE) or default_way()
    if word not in WAYS:
        raise ArgumentError(f"{VARIABLE} must be {' or '.join(WAYS)}, not {word!r}")
    return word


def product_blas(x, y, out, b=None, add=False):
    """As product in product.py, in the dtype of the matrices.

    A matmul cannot add to what is there, so a sum is made of blocks of rows, which stay in a cache.
    """
    # The kernel does not warn of infinities either; and Accelerate leaves flags of errors that
    # there were none of (numpy/numpy#28687).
    with np.errstate(all="ignore"):
        if not add:
            np.matmul(x, y, out=out)
            if b is not None:
                out += b
            return
        M, N = out.shape
        rows = min(M, max(ADD_MIN_ROWS, ADD_ELEMENTS // max(N, 1)))
        block = empty((rows, N), out.dtype)
        for m in range(0, M, max(rows, 1)):
            part = out[m : m + rows]
            part += np.matmul(x[m : m + rows], y, out=block[: len(part)])
