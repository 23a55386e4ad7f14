"""Causal multi-head attention: att = softmax(q k^T / sqrt(hs)), out = att v, no row seeing ahead.

Vaswani et al. 2017, section 3.2. The heads share the channels: head h has q, k and v at
[h*hs, (h+1)*hs) of the first, second and third C channels of its input, hs = C / NH.
"""

import numpy as np

from npgpt.layers.dropout import dropout_backward, dropout_forward


def split_heads(qkv, NH):
    """qkv (B, T, 3C) -> its q, k and v, each a view (B, NH, T, hs)."""
    B, T, C3 = qkv.shape
    return qkv.reshape(B, T, 3, NH, C3 // 3 // NH).transpose(2, 0, 3, 1, 4)


def attend(q, k, v, *drop):
    """Attend from the last N of T positions: q (B, NH, N, hs), k, v (B, NH, T, hs) -> y, att.

    Given a Drop, y is that of att after dropout.
    """
    N, (T, hs) = q.shape[-2], k.shape[-2:]
    preatt = q @ k.swapaxes(-1, -2) * hs**-0.5  # (B, NH, N, T): score of query t for key u
    preatt[..., np.triu(np.ones((N, T), dtype=bool), T - N + 1)] = -np.inf  # u > t is the future
    preatt -= preatt.max(-1, keepdims=True)  # softmax is shift-invariant; this avoids overflow
    att = np.exp(preatt, out=preatt)  # (B, NH, N, T)
    att /= att.sum(-1, keepdims=True)
    kept = dropout_forward(att, *drop)[0] if drop else att
    return kept @ v, att  # (B, NH, N, hs), (B, NH, N, T)


def attention_forward(qkv, NH, *drop):
    """Self-attention of qkv (B, T, 3C) with NH heads -> out (B, T, C), cache.

    Given a Drop, it drops out weights, att.
    """
    B, T, C3 = qkv.shape
    y, att = attend(*split_heads(qkv, NH), *drop)
    return y.swapaxes(1, 2).reshape(B, T, C3 // 3), (qkv, att, *drop)


def attention_step(qkv, kv_cache, pos):
    """Attend from N new positions to all up to them: qkv (B, N, 3C) -> out (B, N, C).

    kv_cache (2, B, NH, maxT, hs) holds the keys and values of the first `pos` positions; those of
    the N new ones are written to it.
    """
    B, N, C3 = qkv.shape
    q, k, v = split_heads(qkv, kv_cache.shape[2])  # (B, NH, N, hs)
    kv_cache[..., pos : pos + N, :] = k, v
    y, _ = attend(q, *kv_cache[..., : pos + N, :])
    return y.swapaxes(1, 2).reshape(B, N, C3 // 3)


def attention_backward(dout, cache):
    """dout (B, T, C) -> dqkv (B, T, 3C)."""
    qkv, att, *drop = cache
    B, NH, T, _ = att.shape
    q, k, v = split_heads(qkv, NH)  # (B, NH, T, hs)
    scale = q.shape[-1] ** -0.5
    dqkv = np.empty_like(qkv)  # (B, T, 3C)
    dq, dk, dv = split_heads(dqkv, NH)  # (B, NH, T, hs), views of dqkv
    dy = dout.reshape(B, T, NH, -1).swapaxes(1, 2)  # (B, NH, T, hs)
    # y = att @ v, or kept @ v with kept = dropout(att)
    kept = dropout_forward(att, *drop)[0] if drop else att
    datt = dy @ v.swapaxes(-1, -2)  # (B, NH, T, T)
    dv[:] = kept.swapaxes(-1, -2) @ dy
    datt = dropout_backward(datt, *drop) if drop else datt
    # att = softmax(preatt), row by row; where att is 0, behind the mask, so is the gradient
    dpreatt = att * (datt - (att * datt).sum(-1, keepdims=True))  # (B, NH, T, T)
    # preatt = q @ k^T * scale
    dq[:] = dpreatt @ k * scale
    dk[:] = dpreatt.swapaxes(-1, -2) @ q * scale
    return dqkv
