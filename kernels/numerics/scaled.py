"""Weights in a format of fewer bits, and what they are multiplied by."""

from typing import NamedTuple

import numpy as np

TINY = np.finfo(np.float32).tiny


class Scaled(NamedTuple):
    """Values and what they are multiplied by: weights (..., N, K).

    Of int8, values (..., N, K) and scale (..., N); of int4, values (..., N, K / 2) and scale (...,
    N, K / 32). Floats and the bits of bf16, uint16, have a scale (..., 0).
    """

    values: np.ndarray
    scale: np.ndarray

    def layer(self, i):
        """The i-th of stacked weights (L, N, K); ... is all of them."""
        return Scaled(self.values[i], self.scale[i])

    def rows(self, i):
        """The rows i (n,) of weights (N, K), in the same format (n, K)."""
        return Scaled(self.values[i], self.scale[i] if self.scale.size else self.scale)
