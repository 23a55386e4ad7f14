"""Token and position embedding: out[b, t] = wte[tokens[b, t]] + wpe[t]."""

import numpy as np

from npgpt.layers.grads import write_grads


def encoder_forward(tokens, wte, wpe):
    """Embed tokens (B, T), integers, with wte (V, C) and wpe (maxT, C) -> out (B, T, C), cache."""
    B, T = tokens.shape
    return wte[tokens] + wpe[:T], (tokens, wte, wpe)


def encoder_backward(dout, cache, out=None, add=False):
    """dout (B, T, C) -> dwte (V, C), dwpe (maxT, C); tokens are integers and have no gradient.

    Given out=(dwte, dwpe), both are written there or, with add, added to what is there.
    """
    tokens, wte, wpe = cache
    B, T = tokens.shape
    dwte = np.zeros_like(wte)  # (V, C)
    # `dwte[tokens] += dout` would keep only the last of a token's occurrences; add.at sums them.
    np.add.at(dwte, tokens, dout)
    dwpe = np.zeros_like(wpe)  # (maxT, C)
    dwpe[:T] = dout.sum(0)
    return write_grads((dwte, dwpe), out, add)
