"""Edit a model while it computes: replace, scale or silence an activation on its way.

An edit is two functions like a layer's, forward(x) -> out, cache and backward(dout, cache) -> dx.
`npgpt.trace(model, tokens, targets, edits={"atty.1": scale(0, where)})` puts it behind the tensor
of that name. What is replaced has no gradient behind it; everything else has the right one.
"""

import numpy as np

from npgpt.errors import ArgumentError


def replace(values, where=True):
    """An edit that puts values there (activation patching): where is a mask, or all of it."""

    def forward(x):
        return np.where(checked(where, x), checked(values, x), x).astype(x.dtype), None

    def backward(dout, cache):
        return np.where(where, 0, dout).astype(dout.dtype)

    return forward, backward


def scale(factor, where=True):
    """An edit that multiplies by a factor; 0 is ablation. where is a mask, or all of it."""

    def forward(x):
        return np.where(checked(where, x), factor * x, x).astype(x.dtype), None

    def backward(dout, cache):
        return np.where(where, factor * dout, dout).astype(dout.dtype)

    return forward, backward


def head(model, h):
    """The mask of head h among the C channels of atty, (C,), for an edit's where."""
    config = model.config
    if not 0 <= h < config.n_head:
        raise ArgumentError(f"h must be from 0 to {config.n_head - 1}, not {h}")
    hs = config.n_embd // config.n_head
    return np.arange(config.n_embd) // hs == h


def checked(values, x):
    """values, which must broadcast to the shape of x."""
    values = np.asarray(values)
    try:
        if np.broadcast_shapes(values.shape, x.shape) == x.shape:
            return values
    except ValueError:
        pass
    raise ArgumentError(f"an edit's values of shape {values.shape} do not fit {x.shape}")
