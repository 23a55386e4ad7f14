"""Weight quantization for inference: the formats that a model's matrices can be held in.

A quantized model computes with the rounded weights everywhere. Single tokens and short prompts read
the format itself: a half, a quarter or less than a fifth of the memory traffic, which dominates the
time per token. What has more positions widens one matrix after the other to float32.
"""

from collections.abc import Callable
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import BLOCK_NAMES, QUANTIZABLE, Parameters, parameter_shapes
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError


def quantize_to_bf16(w):
    """w (..., N, K), float32 -> the bits of the nearest bf16, uint16 (..., N, K)."""
    from npgpt.kernels.numerics.bfloat16 import to_bf16

    return to_bf16(w)


def quantize_to_int8(w):
    """w (..., N, K), float32 -> int8 with one scale per row, Scaled."""
    from npgpt.kernels.numerics.int8 import to_int8

    return to_int8(w)


def quantize_to_int4(w):
    """w (..., N, K), float32 -> int4 with a scale per 32, Scaled."""
    from npgpt.kernels.numerics.int4 import to_int4

    return to_int4(w)


class WeightFormat(NamedTuple):
    """A weight format: quantize(w) returns w in that format, uint16 bits or Scaled.

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
    "bf16": WeightFormat("bf16, half the memory", quantize_to_bf16),
    "int8": WeightFormat(
        "int8 with one scale per row, a quarter of the memory", quantize_to_int8
    ),
    "int4": WeightFormat(
        "int4 with one scale per 32 weights, wte in int8, less than a fifth of the memory",
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


class QuantizedParameters:
    """The parameters of a quantized model: sixteen tensors by name, and `blocks`, as of Parameters.

    The matrices, but for wpe, are in the weight format: uint16, the bits of bf16, or Scaled, of
    int8 or int4. There is no `flat`. The tensors are filled by `slots`.
    """

    def __init__(self, config: GPT2Config, weight_format: str):
        """Raises ArgumentError where a model of this config cannot be in this format."""
        multiple_of, n_embd = find_weight_format(weight_format).multiple_of, config.n_embd
        if n_embd % multiple_of:
            raise ArgumentError(
                f"weight_format {weight_format} needs n_embd to be a multiple of {multiple_of}, not"
                f" {n_embd}"
            )
        self.config, self.weight_format = config, weight_format

    def __getattr__(self, name):
        raise AttributeError(
            f"a quantized model's parameters have no {name}: widened() makes float32 Parameters"
        )

    def __getstate__(self):
        """Pickle and copy all but the blocks: copied, they would not be views of the tensors."""
        return {name: value for name, value in vars(self).items() if name != "blocks"}

    def slots(self):
        """As Parameters.slots, of new float32 arrays: each is quantized when the next is asked for.

        So no more than one of them is in memory.
        """
        for name, shape in parameter_shapes(self.config).items():
            stacked = name in BLOCK_NAMES
            for layer in range(self.config.n_layer) if stacked else [...]:
                slot = np.empty(shape[1:] if stacked else shape, np.float32)
                yield name, layer, slot
                self._store(name, layer, self._quantize(name, slot))

    def _quantize(self, name, w):
        format = find_weight_format(self.weight_format)
        quantize = format.quantize_wte if name == "wte" else None
        with threads():
            return (quantize or format.quantize)(w) if name in QUANTIZABLE else w

    def _store(self, name, layer, w):
        from npgpt.kernels.numerics.scaled import each_part

        if layer is ...:
            setattr(self, name, w)
            return
        if layer == 0:
            L = self.config.n_layer
            setattr(self, name, each_part(lambda part: np.empty((L, *part.shape), part.dtype), w))
        each_part(lambda whole, part: np.copyto(whole[layer], part), getattr(self, name), w)

    @cached_property
    def blocks(self):
        """Each layer's slices of the twelve stacked tensors, under the same names."""
        from npgpt.kernels.numerics.scaled import each_part

        return [
            SimpleNamespace(
                **{
                    name: each_part(lambda part, layer=layer: part[layer], getattr(self, name))
                    for name in BLOCK_NAMES
                }
            )
            for layer in range(self.config.n_layer)
        ]

    def widened(self) -> Parameters:
        """The numbers of all tensors as float32 Parameters: what the weights are rounded to."""
        from npgpt.kernels.products.weights import widened

        params = Parameters(self.config)
        with threads():
            for name, view in params.items():
                tensor = getattr(self, name)
                view[...] = widened(tensor) if name in QUANTIZABLE else tensor
        return params


def parameters_in(weight_format):
    """What makes the parameters of a config whose slots are to be filled: a function of the config.

    Raises ArgumentError for an unknown format.
    """
    if find_weight_format(weight_format).quantize is None:
        return Parameters
    return partial(QuantizedParameters, weight_format=weight_format)


def quantize_weights(params, weight_format):
    """Parameters in a weight format -> QuantizedParameters; those that are in it are returned.

    Nothing of them is changed or kept, so that their memory can be freed. Raises ArgumentError
    where they are not float32, or are of a size that the format cannot have.
    """
    there = getattr(params, "weight_format", "fp32")
    if find_weight_format(weight_format) is find_weight_format(there):
        return params
    if there != "fp32":
        raise ArgumentError(
            f"params are in weight_format {there} and cannot be in {weight_format}: use"
            " params.widened(), which is float32"
        )
    if params.flat.dtype != np.float32:
        raise ArgumentError(
            f"weight_format {weight_format} needs float32 parameters, not {params.flat.dtype}"
        )
    quantized = QuantizedParameters(params.config, weight_format)
    for name, layer, slot in quantized.slots():
        slot[...] = getattr(params, name)[layer]
    return quantized
