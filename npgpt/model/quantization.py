"""Weight quantization for inference: the formats that a model's matrices can be rounded to.

A quantized model computes with the rounded weights everywhere. Prompts and evaluation read them
from float32 parameters that hold the rounded values; decoding reads the smaller format itself: a
half or a quarter of the memory traffic, which dominates the time per token.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.parameters import QUANTIZABLE
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError


def quantize_to_bf16(w):
    """Round w (..., N, K) float32 to bf16 in place -> its bits, uint16 (..., N, K)."""
    from npgpt.kernels.numerics.bfloat16 import to_bf16

    quantized = to_bf16(w)
    np.left_shift(quantized, 16, out=w.view(np.uint32), dtype=np.uint32)
    return quantized


def quantize_to_int8(w):
    """Quantize w (..., N, K) float32 to int8 with one scale per row, in place -> Scaled."""
    from npgpt.kernels.numerics.int8 import to_int8

    quantized = to_int8(w)
    np.multiply(quantized.values, quantized.scale[..., None], out=w)
    return quantized


class WeightFormat(NamedTuple):
    """A weight format: quantize(w) rounds w in place and returns its quantized copy.

    backends: those that compute with it.
    """

    help: str
    quantize: Callable[[np.ndarray], Any] | None
    backends: tuple[str, ...] = ("numba",)


WEIGHT_FORMATS = {
    "fp32": WeightFormat("float32, unchanged", None, ("numpy", "numba")),
    "bf16": WeightFormat("bf16, half the memory traffic", quantize_to_bf16),
    "int8": WeightFormat(
        "int8 with one scale per row, a quarter of the memory traffic", quantize_to_int8
    ),
}
WEIGHT_FORMAT_HELP = (
    "format that the weight matrices are quantized to: "
    + "; ".join(f"{name}: {format.help}" for name, format in WEIGHT_FORMATS.items())
    + "; default: fp32"
)


def find_weight_format(name):
    """Return the WeightFormat of this name; raises ArgumentError if there is none."""
    if name not in WEIGHT_FORMATS:
        known = ", ".join(WEIGHT_FORMATS)
        raise ArgumentError(f"weight_format must be one of {known}, not {name!r}")
    return WEIGHT_FORMATS[name]


def quantize_weights(params, name):
    """Quantize the matrices of Parameters in place -> {name: uint16 bits or Scaled}.

    The kernels' few_rows accepts these as w. Empty for fp32. Raises ArgumentError where
    params are not float32.
    """
    quantize = find_weight_format(name).quantize
    if quantize is None:
        return {}
    dtype = params.flat.dtype
    if dtype != np.float32:
        raise ArgumentError(f"weight_format {name} needs float32 parameters, not {dtype}")
    with threads():
        return {matrix: quantize(getattr(params, matrix)) for matrix in QUANTIZABLE}
