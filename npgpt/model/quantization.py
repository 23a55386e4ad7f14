"""Weight quantization for inference: the formats that a model's matrices can be rounded to.

A quantized model computes with the rounded weights everywhere. Prompts and evaluation read them
from float32 parameters that hold the rounded values; decoding reads the smaller format itself: a
half, a quarter or less than a fifth of the memory traffic, which dominates the time per token.
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
    with np.errstate(invalid="ignore"):  # where a row is not finite: 0 times inf
        np.multiply(quantized.values, quantized.scale[..., None], out=w)
    return quantized


def quantize_to_int4(w):
    """Quantize w (..., N, K) float32 to int4 with a scale per 32, in place -> Scaled."""
    from npgpt.kernels.numerics.int4 import to_int4, widen

    quantized = to_int4(w)
    widen(quantized, w)
    return quantized


class WeightFormat(NamedTuple):
    """A weight format: quantize(w) rounds w in place and returns its quantized copy.

    quantize_wte: the same for wte, where that is not quantized like the other matrices.
    multiple_of: what n_embd must be a multiple of. backends: those that compute with it.
    """

    help: str
    quantize: Callable[[np.ndarray], Any] | None
    quantize_wte: Callable[[np.ndarray], Any] | None = None
    multiple_of: int = 1
    backends: tuple[str, ...] = ("numba",)


WEIGHT_FORMATS = {
    "fp32": WeightFormat("float32, unchanged", None, backends=("numpy", "numba")),
    "bf16": WeightFormat("bf16, half the memory traffic", quantize_to_bf16),
    "int8": WeightFormat(
        "int8 with one scale per row, a quarter of the memory traffic", quantize_to_int8
    ),
    "int4": WeightFormat(
        "int4 with one scale per 32 weights, wte in int8, less than a fifth of the memory traffic",
        quantize_to_int4, quantize_wte=quantize_to_int8, multiple_of=32,
    ),
}  # fmt: skip
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
    params are not float32, or are of a size that the format cannot have.
    """
    format = find_weight_format(name)
    if format.quantize is None:
        return {}
    dtype, n_embd = params.flat.dtype, params.config.n_embd
    if dtype != np.float32:
        raise ArgumentError(f"weight_format {name} needs float32 parameters, not {dtype}")
    if n_embd % format.multiple_of:
        raise ArgumentError(
            f"weight_format {name} needs n_embd to be a multiple of {format.multiple_of}, not"
            f" {n_embd}"
        )
    functions = dict.fromkeys(QUANTIZABLE, format.quantize)
    functions["wte"] = format.quantize_wte or format.quantize
    with threads():
        return {matrix: quantize(getattr(params, matrix)) for matrix, quantize in functions.items()}
