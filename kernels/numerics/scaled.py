"""Weights in a format of fewer bits, and what they are multiplied by."""

from typing import NamedTuple

import numpy as np

TINY = np.finfo(np.float32).tiny


class Scaled(NamedTuple):
    """Values and what they are multiplied by: weights (..., N, K).

    Of int8, values (..., N, K) and scale (..., N); of int4, values (..., N, K / 2) and scale (...,
    N, K / 32). Floats have a scale (..., 0).
    """

    values: np.ndarray
    scale: np.ndarray


def each_part(function, *weights):
    """function(*weights) of arrays; of Scaled, a Scaled of it of their values and their scales."""
    if isinstance(weights[0], Scaled):
        return Scaled(*map(function, *weights))
    return function(*weights)
