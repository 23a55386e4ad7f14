"""Products of a few rows with a weight matrix that is read once, for sampling.

Up to DOT_MAX_ROWS rows, blocks of dot products read the weights where they are. With more, up to
GEMV_MAX_ROWS, tiles in registers are worth it, as gemm has them; but gemm would pack all of the
weights, which takes longer than to multiply them.
"""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import VECTOR
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.scaled import Scaled
from npgpt.kernels.products.dots import dot_rows
from npgpt.kernels.products.gemm import pack
from npgpt.kernels.products.tile import MR, tile_of_rows
from npgpt.kernels.products.weights import widen_part

CHUNK = 128  # of k, that tiles take at a time, while the same part of the next rows is fetched
DOT_MAX_ROWS = 12
GEMV_MAX_ROWS = 64  # up to which this is faster than gemm


def few_rows(x, w, out, b=None):
    """out (M, N) = x (M, K), contiguous, @ w.T plus, if there is one, b (N,); M <= GEMV_MAX_ROWS.

    w (N, K), contiguous, can also be Scaled, of bf16, int8 or int4, or the bits of bf16 alone. No
    precision rounds the operands.
    """
    none = np.empty(0, x.dtype)
    values, scale = w if isinstance(w, Scaled) else (w, none)
    K = values.shape[1] * (2 if values.dtype == np.uint8 else 1)  # int4: two numbers in a byte
    assert x.shape[1] == K and out.shape == (len(x), len(values)), "shapes"
    assert b is None or b.shape == (len(values),), "a number of b for each row of w"
    assert x.flags.c_contiguous and values.flags.c_contiguous and len(x) <= GEMV_MAX_ROWS, "x, w"
    assert out.dtype == x.dtype and (values.dtype == x.dtype or x.dtype == np.float32), "dtypes"
    kernel = gemv_rows if len(x) <= DOT_MAX_ROWS else gemv_tiles
    kernel(x, values, scale, none if b is None else b, out, get_num_threads())


@jit(parallel=True)
def gemv_rows(x, w, scale, b, out, n_threads):
    """out (M, N) = x (M, K) @ w.T, w (N, K) read once, plus b (N,), which may be empty.

    w can be of float, of bf16, of int8 with scale (N,), or of int4 with scale (N, K / 32). Each
    thread has rows of w of its own.
    """
    N = len(w)
    for thread in prange(n_threads):
        mode = flush_denormals()
        lo, hi = N * thread // n_threads, N * (thread + 1) // n_threads
        dot_rows(x, w[lo:hi], scale[lo:hi], out[:, lo:hi])
        scale_columns(out[:, lo:hi], scale[lo:hi])
        add_bias(out, lo, hi, b)
        restore_denormals(mode)


@jit(parallel=True, makes_arrays=True)
def gemv_tiles(x, w, scale, b, out, n_threads):
    """As gemv_rows, for more rows of x than DOT_MAX_ROWS."""
    (M, K), N = x.shape, len(w)
    P = 3 * VECTOR // x.itemsize  # columns of a panel
    panels = np.empty(((M + P - 1) // P, K, P), x.dtype)
    pack(x, panels)
    for thread in prange(n_threads):
        mode = flush_denormals()
        lo, hi = N * thread // n_threads, N * (thread + 1) // n_threads
        tile_rows(panels, w[lo:hi], scale[lo:hi], out[:, lo:hi])
        scale_columns(out[:, lo:hi], scale[lo:hi])
        add_bias(out, lo, hi, b)
        restore_denormals(mode)


@jit
def scale_columns(out, scale):
    """Multiply out (M, N) by the scale (N,) of int8, if it is one."""
    if scale.ndim == 1 and scale.size:
        for i in range(len(out)):
            for j in range(scale.size):
                out[i, j] *= scale[j]


@jit
def add_bias(out, lo, hi, b):
    """Add b (N,), if there is one, to the columns lo to hi of out (M, N)."""
    if b.size:
        for i in range(len(out)):
            for j in range(lo, hi):
                out[i, j] += b[j]


@jit(makes_arrays=True)
def tile_rows(panels, w, scale, out):
    """As dot_rows, with the panels of x (M, K), as gemm's pack makes them."""
    M, N = out.shape
    n_panels, K, P = panels.shape
    W = P // 3
    widened, sums = np.empty((MR, CHUNK), out.dtype), np.empty((n_panels, MR, P), out.dtype)
    per_element = K // w.shape[1]  # numbers
    for j in range(0, N, MR):
        for k0 in range(0, K, CHUNK):
            k1 = min(k0 + CHUNK, K)
            for i in range(MR):
                widen_part(w, scale, min(j + i, N - 1), k0, k1, widened[i])
            following = w[min(j + MR, N - 1) :, k0 // per_element :]
            for p in range(n_panels):
                panel, c = panels[p, k0:k1], sums[p]
                init = c if k0 else c[:0]
                if M - p * P <= W:
                    tile_of_rows(widened, panel, k1 - k0, c, init, 1, following)
                elif M - p * P <= 2 * W:
                    tile_of_rows(widened, panel, k1 - k0, c, init, 2, following)
                else:
                    tile_of_rows(widened, panel, k1 - k0, c, init, 3, following)
        for p in range(n_panels):
            for m in range(p * P, min(p * P + P, M)):
                for i in range(min(MR, N - j)):
                    out[m, j + i] = sums[p, i, m - p * P]
