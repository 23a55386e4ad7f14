"""The classifier, a row of the logits at a time: the twin of npgpt/layers/crossentropy.py."""

import numpy as np
from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import LINE
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.exponential import exp, row_max
from npgpt.kernels.products.product import product
from npgpt.layers.crossentropy import IGNORED


def crossentropy_forward(x, wte, targets):
    """x (B, T, C), wte (V, C), targets (B, T) integers -> loss (a scalar), cache.

    A target of -1 is ignored: it adds nothing to the loss and has no gradient. At least one has to
    count.
    """
    (V, C), line = wte.shape, LINE // x.itemsize
    rows = empty((targets.size, -(-V // line) * line), x.dtype)  # of whole cache lines
    probs = rows[:, :V]  # (B*T, V)
    product(x.reshape(-1, C), wte.T, probs)
    counted = np.flatnonzero(targets != IGNORED)  # (n,): the positions that have a target
    target = targets.reshape(-1)[counted]  # (n,)
    losses = np.zeros(targets.size, x.dtype)  # (B*T,)
    softmax_rows(rows, V, targets.reshape(-1), losses)
    return losses[counted].mean(), (x, wte, rows, counted, target)


def crossentropy_backward(dloss, cache, out=None, add=False):
    """dloss, a scalar, usually 1 -> dx (B, T, C), dwte (V, C).

    Given out=(dwte,), it is written there or, with add, added to what is there. The cache is used
    up: probs become the gradient of the logits where they are, but for the weight of each row,
    which dx and a copy of x are multiplied by in its place.
    """
    x, wte, rows, counted, target = cache
    weight = np.zeros((len(rows), 1), rows.dtype)  # (B*T, 1)
    weight[counted] = dloss / len(counted)
    dlogits = rows[:, : len(wte)]  # (B*T, V), without the weight
    dlogits[counted, target] -= 1
    x2, dx = x.reshape(-1, x.shape[-1]), empty(x.shape, x.dtype)  # (B*T, C), (B, T, C)
    dx2 = dx.reshape(x2.shape)  # (B*T, C)
    (dwte,) = out or (empty(wte.shape, wte.dtype),)
    product(dlogits, wte, dx2)
    dx2 *= weight
    product(dlogits.T, weight * x2, dwte, add=add)
    return dx, dwte


@jit(parallel=True)
def softmax_rows(logits, V, targets, losses):
    """The first V of each row of logits (N, V or more) become its softmax; fills losses (N,)."""
    real = logits.dtype.type
    for i in prange(len(logits)):
        mode = flush_denormals()
        row = logits[i, :V]
        highest = row_max(row)
        target_logit = row[targets[i]] if targets[i] >= 0 else highest
        total = real(0)
        for v in range(V):
            row[v] = exp(row[v] - highest)
            total += row[v]
        for v in range(V):
            row[v] /= total
        losses[i] = np.log(total) - (target_logit - highest)
        restore_denormals(mode)
