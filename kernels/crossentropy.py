"""The classifier, a row of the logits at a time: the twin of npgpt/layers/crossentropy.py."""

import numpy as np
from numba import prange

from npgpt.kernels.buffers import empty
from npgpt.kernels.exponential import exp, largest
from npgpt.kernels.jit import jit
from npgpt.kernels.matmul import product
from npgpt.layers.crossentropy import IGNORED


def crossentropy_forward(x, wte, targets):
    """x (B, T, C), wte (V, C), targets (B, T) integers -> loss (a scalar), cache.

    A target of -1 does not count: it adds nothing to the loss and has no gradient. One at least
    has to count.
    """
    V, C = wte.shape
    probs = empty((targets.size, V), x.dtype)  # (B*T, V)
    product(x.reshape(-1, C), wte.T, probs)
    counted = np.flatnonzero(targets != IGNORED)  # (n,): the positions that have a target
    target = targets.reshape(-1)[counted]  # (n,)
    losses = np.zeros(targets.size, x.dtype)  # (B*T,)
    softmax_rows(probs, targets.reshape(-1), losses)
    return losses[counted].mean(), (x, wte, probs, counted, target)


def crossentropy_backward(dloss, cache, out=None, add=False):
    """dloss, a scalar, usually 1 -> dx (B, T, C), dwte (V, C).

    Given out=(dwte,), it is written there or, with add, added to what is there. The cache is used
    up: probs become the gradient of the logits where they are.
    """
    x, wte, probs, counted, target = cache
    weight = np.zeros(len(probs), probs.dtype)  # (B*T,)
    weight[counted] = dloss / len(counted)
    scale_rows(probs, weight)
    dlogits = probs  # (B*T, V)
    dlogits[counted, target] -= weight[counted]
    dx = empty(x.shape, x.dtype)  # (B, T, C)
    (dwte,) = out or (empty(wte.shape, wte.dtype),)
    product(dlogits, wte, dx.reshape(-1, x.shape[-1]))
    product(dlogits.T, x.reshape(-1, x.shape[-1]), dwte, add=add)
    return dx, dwte


@jit(parallel=True)
def softmax_rows(logits, targets, losses):
    """logits (N, V) become their softmax; fills losses (N,) where there is a target."""
    N, V = logits.shape
    real = logits.dtype.type
    for i in prange(N):
        row = logits[i]
        highest = largest(row)
        target_logit = row[targets[i]] if targets[i] >= 0 else highest
        total = real(0)
        for v in range(V):
            row[v] = exp(row[v] - highest)
            total += row[v]
        for v in range(V):
            row[v] /= total
        losses[i] = np.log(total) - (target_logit - highest)


@jit(parallel=True)
def scale_rows(x, weight):
    """x (N, V) *= weight (N, 1)."""
    N, V = x.shape
    for i in prange(N):
        row = x[i]
        for v in range(V):
            row[v] *= weight[i]
