"""Weights in fewer bits: the formats that a model's matrices can be rounded to, for inference.

A rounded model computes with the rounded weights everywhere. Prompts and evaluation read them from
float32 parameters that have been rounded, a few tokens at a time read the smaller format itself: it
takes a half or a quarter of the memory traffic, which is what a token's time goes into.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.parameters import MULTIPLIED
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError


def round_to_bf16(w):
    """w (..., N, K) float32, rounded in place to the nearest bf16 -> its bits, uint16."""
    from npgpt.kernels.halves import to_halves

    stored = to_halves(w)
    np.left_shift(stored, 16, out=w.view(np.uint32), dtype=np.uint32)
    return stored


def round_to_int8(w):
    """w (..., N, K) float32, rounded in place to 8 bits and a scale a row -> these, Scaled."""
    from npgpt.kernels.int8 import to_int8

    stored = to_int8(w)
    np.multiply(stored.values, stored.scale[..., None], out=w)
    return stored


class WeightFormat(NamedTuple):
    """A format of weights: what its rounding does to an array in place and gives to keep."""

    help: str
    round: Callable[[np.ndarray], Any] | None


WEIGHTS = {
    "fp32": WeightFormat("float32, as they are", None),
    "bf16": WeightFormat("the nearest bf16, half to read", round_to_bf16),
    "int8": WeightFormat("8 bits and a scale a row, a quarter to read", round_to_int8),
}
WEIGHTS_HELP = "the format of the matrices: " + "; ".join(
    f"{name}: {format.help}" for name, format in WEIGHTS.items()
)


def find_weights(name):
    """The WeightFormat of this name, or ArgumentError."""
    if name not in WEIGHTS:
        raise ArgumentError(f"weights must be one of {', '.join(WEIGHTS)}, not {name!r}")
    return WEIGHTS[name]


def round_weights(params, name):
    """Round the matrices of Parameters in place -> {name: what is kept in that format}.

    Empty for fp32. Raises ArgumentError where params are not float32.
    """
    rounding = find_weights(name).round
    if rounding is None:
        return {}
    if params.flat.dtype != np.float32:
        raise ArgumentError(
            f"weights {name} are rounded from float32, not from {params.flat.dtype}"
        )
    with threads():
        return {matrix: rounding(getattr(params, matrix)) for matrix in MULTIPLIED}
