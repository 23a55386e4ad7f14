"""Edits as the page describes them -> edits of npgpt.inside, by the tensors they go behind.

{"off": "head", "block": 1, "head": 3}, {"off": "mlp", "block": 1}, or {"patch": "residual3.1",
"position": 4, "text": "...", "from": 6}: there comes what another text has at its position 6.
"""

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.inside.edits import head, replace, scale
from npgpt.tracing.names import split_name

PATCHES = ("encoded", "residual2", "residual3", "attproj", "fcproj")
MOST = 256


def edits_of(session, tokens, edits):
    """The edits of a text's pass, {tensor: (forward, backward)}."""
    if not isinstance(edits, list | tuple) or len(edits) > MOST:
        raise ArgumentError(f"edits must be a list of at most {MOST}, not {edits!r:.60}")
    found: dict[str, list] = {}
    for edit in edits:
        name, pair = one(session, tokens, edit)
        found.setdefault(name, []).append(pair)
    return {name: chained(pairs) for name, pairs in found.items()}


def one(session, tokens, edit):
    """The tensor that an edit goes behind, and the edit's two functions."""
    model = session.model
    match edit:
        case {"off": "head", "block": block, "head": h, **rest} if not rest:
            check_below("block", block, model.config.n_layer)
            check_below("head", h, model.config.n_head)
            return f"atty.{block}", scale(0, head(model, h))
        case {"off": "mlp", "block": block, **rest} if not rest:
            check_below("block", block, model.config.n_layer)
            return f"fcproj.{block}", scale(0)
        case {"patch": str(name), "position": p, "text": text, "from": q, **rest} if not rest:
            base, block = split_name(name)
            if base not in PATCHES or (base == "encoded") != (block is None):
                raise ArgumentError(
                    f"what is replaced must be one of {', '.join(PATCHES)}, not {name!r}"
                )
            if block is not None:
                check_below("block", block, model.config.n_layer)
            check_below("position", p, len(tokens))
            other = session.encode(text)
            check_below("position in the other text", q, len(other))
            values = session.forward(other, ())[name][q]  # (C,)
            here = (np.arange(len(tokens)) == p)[:, None]  # (T, 1)
            return name, replace(values, here)
    raise ArgumentError(f"an edit must switch off a head or an mlp, or patch, not {edit!r:.80}")


def chained(pairs):
    """Edits one after the other, as one."""

    def forward(x):
        caches = []
        for first, _ in pairs:
            x, cache = first(x)
            caches.append(cache)
        return x, caches

    def backward(dout, caches):
        for (_, second), cache in zip(reversed(pairs), reversed(caches), strict=True):
            dout = second(dout, cache)
        return dout

    return forward, backward


def check_below(what, value, size):
    """Raise ArgumentError unless value is an integer from 0 to size - 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
        raise ArgumentError(f"the {what} must be from 0 to {size - 1}, not {value!r}")
