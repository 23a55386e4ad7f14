"""Token and position embedding, by rows or by columns: the twin of npgpt/layers/encoder.py."""

import numpy as np
from numba import get_num_threads, prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals


def encoder_forward(tokens, wte, wpe):
    """Embed tokens (B, T), integers, with wte (V, C) and wpe (maxT, C) -> out (B, T, C), cache."""
    assert tokens.shape[1] <= len(wpe) and wpe.shape[1] == wte.shape[1], "the shape of wpe"
    out = empty((*tokens.shape, wte.shape[1]), wte.dtype)  # (B, T, C)
    embed(tokens, wte, wpe, out)
    return out, (tokens, wte, wpe)


def encoder_backward(dout, cache, out=None, add=False):
    """dout (B, T, C) -> dwte (V, C), dwpe (maxT, C); tokens are integers and have no gradient.

    Given out=(dwte, dwpe), both are written there or, with add, added to what is there.
    """
    tokens, wte, wpe = cache
    dwte, dwpe = out or (np.empty_like(wte), np.empty_like(wpe))
    scatter(tokens, dout, dwte, dwpe, add, get_num_threads())
    return dwte, dwpe


@jit(parallel=True)
def embed(tokens, wte, wpe, out):
    """Fills out (B, T, C)."""
    B, T, C = out.shape
    for i in prange(B * T):
        mode = flush_denormals()
        b, t = i // T, i % T
        token = tokens[b, t]
        for c in range(C):
            out[b, t, c] = wte[token, c] + wpe[t, c]
        restore_denormals(mode)


@jit(parallel=True)
def scatter(tokens, dout, dwte, dwpe, add, n_threads):
    """Fills or adds to dwte (V, C) and dwpe (maxT, C); each thread has columns of its own."""
    B, T, C = dout.shape
    for thread in prange(n_threads):
        mode = flush_denormals()
        columns = slice(C * thread // n_threads, C * (thread + 1) // n_threads)
        if not add:
            dwte[:, columns] = 0
            dwpe[:, columns] = 0
        for b in range(B):
            for t in range(T):
                d = dout[b, t, columns]
                token, position = dwte[tokens[b, t], columns], dwpe[t, columns]
                for c in range(len(d)):
                    token[c] += d[c]
                    position[c] += d[c]
        restore_denormals(mode)
