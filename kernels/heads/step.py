"""Attention's heads for a few new positions, which attend to the keys and values that are kept."""

import numpy as np
from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.heads.softmax import softmax
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.products.dots import dot_rows, weighted_sum


def check_cache(kv, x, C, at):
    """Assert that kv (..., 2, B, NH, maxT, hs) has space for x (B, N, ...) of C channels at `at`.

    The kernels check nothing.
    """
    keys_and_values, B, NH, maxT, hs = kv.shape[-5:]
    assert kv.dtype == x.dtype and kv.strides[-1] == kv.itemsize, "kv_cache: dtype, contiguous rows"
    assert (keys_and_values, B, NH * hs) == (2, len(x), C) and at + x.shape[1] <= maxT, (
        "kv_cache: its shape"
    )


@jit(parallel=True)
def step_heads(qkv, kv, at, out, scores):
    """Fills out (B, N, C), and N rows of each head of kv (2, B, NH, maxT, hs).

    scores (n_threads, at + N) is workspace.
    """
    n_threads = len(scores)
    for thread in prange(n_threads):
        mode = flush_denormals()
        _, B, NH, _, _ = kv.shape
        for bh in range(B * NH * thread // n_threads, B * NH * (thread + 1) // n_threads):
            b, h = bh // NH, bh % NH
            step_head(qkv[b], kv[0, b, h], kv[1, b, h], at, out[b], h, scores[thread])
        restore_denormals(mode)


@jit
def step_head(qkv, k, v, at, out, h, scores):
    """Head h of a sequence: N rows of its k and v (maxT, hs), its channels of out (N, C)."""
    hs, C = k.shape[1], out.shape[1]
    real = qkv.dtype.type
    scale = real(1) / np.sqrt(real(hs))
    for t in range(at, at + len(qkv)):
        new = qkv[t - at, h * hs :]  # its q at 0, its k at C, its v at 2C
        for c in range(hs):
            k[t, c] = new[C + c]
            v[t, c] = new[2 * C + c]
        row = scores[: t + 1]
        dot_rows(new[:hs].reshape(1, hs), k[: t + 1], row[:0], row.reshape(1, t + 1))
        softmax(row, scale)
        weighted_sum(row, v[: t + 1], out[t - at, h * hs : (h + 1) * hs])
