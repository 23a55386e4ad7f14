"""The tied lm_head, logits = x @ wte.T, fused with the mean cross-entropy of the targets.

loss = mean over the targets that are not ignored of (log sum_v exp(logits[v]) - logits[target]).
"""

import numpy as np

from npgpt.layers.grads import write_grads

IGNORED = -1


def crossentropy_forward(x, wte, targets):
    """x (B, T, C), wte (V, C), targets (B, T) integers -> loss (a scalar), cache.

    Targets of -1 are ignored: no loss, no gradient. At least one must not be.
    """
    logits = x.reshape(-1, x.shape[-1]) @ wte.T  # (B*T, V)
    logits -= logits.max(-1, keepdims=True)  # softmax is shift-invariant; this avoids overflow
    counted = np.flatnonzero(targets != IGNORED)  # (n,): the positions that have a target
    target = targets.reshape(-1)[counted]  # (n,)
    target_logits = logits[counted, target]  # (n,)
    probs = np.exp(logits, out=logits)  # (B*T, V)
    sums = probs.sum(-1, keepdims=True)  # (B*T, 1)
    probs /= sums
    loss = (np.log(sums[counted, 0]) - target_logits).mean()
    return loss, (x, wte, probs, counted, target)


def crossentropy_backward(dloss, cache, out=None, add=False):
    """dloss, a scalar, usually 1 -> dx (B, T, C), dwte (V, C).

    Given out=(dwte,), it is written there or, with add, added to what is there.
    """
    x, wte, probs, counted, target = cache
    # dlogits = (probs - onehot(target)) * weight, where a position without a target weighs nothing
    weight = np.zeros((len(probs), 1), probs.dtype)  # (B*T, 1)
    weight[counted] = dloss / len(counted)
    dlogits = probs * weight  # (B*T, V)
    dlogits[counted, target] -= weight[counted, 0]
    # logits = x @ wte.T
    dx = (dlogits @ wte).reshape(x.shape)  # (B, T, C)
    dwte = dlogits.T @ x.reshape(-1, x.shape[-1])  # (V, C)
    return dx, *write_grads((dwte,), out, add)
