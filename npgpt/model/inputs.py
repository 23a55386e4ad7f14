"""Tokens and targets, checked before they reach layers, which check nothing."""

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED


def checked_ids(name, ids, vocab_size, lowest=0, longest=None):
    """ids (B, T), integers from lowest to vocab_size - 1, T up to longest if given -> int64 (B, T).

    Raises ArgumentError, naming the argument, where they are not.
    """
    try:
        ids = np.asarray(ids)
    except ValueError:  # lists of different lengths
        ids = np.asarray(ids, dtype=object)
    if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ArgumentError(
            f"{name} must be integers of shape (B, T), not {ids.dtype} of shape {ids.shape}"
        )
    if longest is not None and ids.shape[1] > longest:
        raise ArgumentError(f"{name} can be {longest} long, the block_size, not {ids.shape[1]}")
    if ids.min() < lowest or ids.max() >= vocab_size:
        raise ArgumentError(
            f"{name} must be from {lowest} to {vocab_size - 1},"
            f" but run from {ids.min()} to {ids.max()}"
        )
    return ids.astype(np.int64)


def checked_batch(tokens, targets, config):
    """tokens and targets (B, T) for a model of this GPT2Config -> both as int64 (B, T)."""
    tokens = checked_ids("tokens", tokens, config.vocab_size, longest=config.block_size)
    targets = checked_ids("targets", targets, config.vocab_size, IGNORED, config.block_size)
    if targets.shape != tokens.shape:
        raise ArgumentError(f"targets must be {tokens.shape} as tokens are, not {targets.shape}")
    if (targets == IGNORED).all():
        raise ArgumentError("targets are all -1: at least one has to count")
    return tokens, targets
