"""The mean loss of a model on a stream of tokens."""

import math

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED


def mean_loss(model, tokens, B, T, batches=None):
    """The mean loss in nats of all tokens but the first, in batches of B windows of T, a float.

    tokens are Tokens or an array (N,). The last window may be shorter, so that each token counts
    once, whatever B is. With `batches`, only that many are computed, the first ones.
    """
    from tqdm import tqdm

    N = len(tokens) - 1  # targets
    if N < 1:
        raise ArgumentError(f"tokens must be at least 2, to predict one, not {len(tokens)}")
    starts = range(0, N, B * T)[:batches]
    total, counted = 0.0, 0
    for start in tqdm(starts, desc="loss", unit="batch", leave=False, disable=None):
        count = min(B * T, N - start)
        window = tokens[start : start + count + 1]  # (count + 1,)
        rows = math.ceil(count / T)
        x = np.zeros(rows * T, np.int64)
        y = np.full(rows * T, IGNORED, np.int64)  # what follows the last token does not count
        x[:count], y[:count] = window[:-1], window[1:]
        total += count * model.loss(x.reshape(rows, T), y.reshape(rows, T))
        counted += count
    return total / counted
