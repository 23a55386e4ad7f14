"""Causal attention, a block of a head's rows at a time: the twin of npgpt/layers/attention.py.

Only a block's scores exist at any time, never all of att. In its place the cache has out and stats,
each row's highest score and the sum of its exponentials, from which the backward pass recomputes
att as exactly as the forward pass has computed it. Their usual sum, highest + log(sum), would lose
the second where scores are large. After Dao et al. 2022, but without a running softmax: a CPU's
caches hold whole rows. The heads themselves are in heads/.
"""

import numpy as np
from numba import get_num_threads

from npgpt.kernels.heads.bf16 import backward_bf16, forward_bf16
from npgpt.kernels.heads.full_precision import backward_full_precision, forward_full_precision
from npgpt.kernels.heads.step import check_cache, step_heads
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.philox import drop_words
from npgpt.kernels.products.gemv import DOT_MAX_ROWS
from npgpt.kernels.products.precision import current_n_terms
from npgpt.layers.attention import split_heads


def attention_forward(qkv, NH, *drop):
    """Attend within qkv (B, T, 3C), its matmul's output, in NH heads -> out (B, T, C), cache.

    Given a Drop, it drops out attention's weights.
    """
    B, T, C3 = qkv.shape
    out = empty((B, T, C3 // 3), qkv.dtype)  # (B, T, C)
    stats = np.empty((B, 2 * NH, T), qkv.dtype)
    words, n_terms = drop_words(NH * T, *drop), current_n_terms(qkv.dtype)
    if n_terms:
        forward_bf16(qkv, out, stats, words, n_terms)
    else:
        forward_full_precision(qkv, out, stats, words)
    return out, (qkv, stats, out, *drop)


def attention_backward(dout, cache):
    """dout (B, T, C) -> dqkv (B, T, 3C)."""
    qkv, stats, out, *drop = cache
    dqkv = empty(qkv.shape, qkv.dtype)  # (B, T, 3C)
    rows = stats[0].size // 2  # of att, NH T of a sequence
    words, n_terms = drop_words(rows, *drop), current_n_terms(qkv.dtype)
    if n_terms:
        backward_bf16(dout, out, qkv, stats, dqkv, words, n_terms)
    else:
        backward_full_precision(dout, out, qkv, stats, dqkv, words)
    return dqkv


def attention_step(qkv, kv_cache, pos):
    """Attend from new positions to them and all before: qkv (B, N, 3C) -> out (B, N, C).

    kv_cache (2, B, NH, maxT, hs), of qkv's dtype and with contiguous rows, holds the keys and
    values of the first `pos` positions; those of the N new ones are written to it.
    """
    B, N, C3 = qkv.shape
    check_cache(kv_cache, qkv, C3 // 3, pos)
    if pos == 0 and N > DOT_MAX_ROWS:  # a prompt, before which there is nothing
        kv_cache[..., :N, :] = split_heads(qkv, kv_cache.shape[2])[1:]
        return attention_forward(qkv, kv_cache.shape[2])[0]
    out = empty((B, N, C3 // 3), qkv.dtype)  # (B, N, C)
    scores = np.empty((get_num_threads(), pos + N), qkv.dtype)
    step_heads(np.ascontiguousarray(qkv), kv_cache, pos, out, scores)
    return out
