"""Weight quantization for inference: the formats that a model's matrices can be rounded to.

A quantized model computes with the rounded weights everywhere. Prompts and evaluation read them
from float32 parameters that hold the rounded values; a few tokens at a time read the smaller format
itself: a half or a quarter of the memory traffic, which is most of a token's time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.parameters import QUANTIZABLE
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError


def quantize_to_bf16(w):
    """Round w (..., N, K) float32 in place to the nearest bf16 -> its bits, uint16."""
    from npgpt.kernels.numerics.bfloat16 import to_bf16

    quantized = to_bf16(w)
    np.left_shift(quantized, 16, out=w.view(np.uint32), dtype=np.uint32)
    return quantized


def quantize_to_int8(w):
    """Round w (..., N, K) float32 in place to 8 bits with one scale per row -> these, Scaled."""
    from npgpt.kernels.numerics.int8 import to_int8

    quantized = to_int8(w)
    np.multiply(quantized.values, quantized.scale[..., None], out=w)
    return quantized


class WeightFormat(NamedTuple):
    """A format of weights: its help, and what rounds an array in place and returns it in it."""

    help: str
    quantize: Callable[[np.ndarray], Any] | None


WEIGHT_FORMATS = {
    "fp32": WeightFormat("float32, as they are", None),
    "bf16": WeightFormat("the nearest bf16: half the memory traffic", quantize_to_bf16),
    "int8": WeightFormat(
        "8 bits with one scale per row: a quarter of the memory traffic", quantize_to_int8
    ),
}
WEIGHT_FORMAT_HELP = (
    "what the weight matrices are rounded to: "
    + "; ".join(f"{name}: {format.help}" for name, format in WEIGHT_FORMATS.items())
    + "; default: fp32"
)


def find_weight_format(name):
    """The WeightFormat of this name, or ArgumentError."""
    if name not in WEIGHT_FORMATS:
        known = ", ".join(WEIGHT_FORMATS)
        raise ArgumentError(f"weight_format must be one of {known}, not {name!r}")
    return WEIGHT_FORMATS[name]


def quantize_weights(params, name):
    """Round the matrices of Parameters in place -> {name: the matrix in that format}.

    Empty for fp32. Raises ArgumentError where params are not float32.
    """
    quantize = find_weight_format(name).quantize
    if quantize is None:
        return {}
    dtype = params.flat.dtype
    if dtype != np.float32:
        raise ArgumentError(f"weight_format {name} is rounded from float32, not from {dtype}")
    with threads():
        return {matrix: quantize(getattr(params, matrix)) for matrix in QUANTIZABLE}
