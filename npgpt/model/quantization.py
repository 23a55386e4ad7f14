"""Weight quantization for inference: the formats that a model's matrices can be held in.

A quantized model computes with the rounded weights everywhere. Single tokens and short prompts read
the format itself: a half, a quarter or less than a fifth of the memory traffic, which dominates the
time per token. What has more positions widens one matrix after the other to float32.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import (
    BLOCK_NAMES,
    QUANTIZABLE,
    TENSOR_NAMES,
    Parameters,
    parameter_shapes,
)
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError


def quantize_to_bf16(w):
    """w (..., N, K), float32 -> the bits of the nearest bf16, Scaled of uint16 without scales."""
    from npgpt.kernels.numerics.bfloat16 import to_bf16
    from npgpt.kernels.numerics.scaled import Scaled

    return Scaled(to_bf16(w), np.empty((*w.shape[:-2], 0), np.float32))


def quantize_to_int8(w):
    """w (..., N, K), float32 -> int8 with one scale per row, Scaled."""
    from npgpt.kernels.numerics.int8 import to_int8

    return to_int8(w)


def quantize_to_int4(w):
    """w (..., N, K), float32 -> int4 with a scale per 32, Scaled."""
    from npgpt.kernels.numerics.int4 import to_int4

    return to_int4(w)


class WeightFormat(NamedTuple):
    """A weight format: quantize(w) returns w (..., N, K), float32, in that format, Scaled.

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


Block = namedtuple("Block", BLOCK_NAMES)  # type: ignore[misc]


class QuantizedParameters:
    """The parameters of a quantized model: sixteen tensors by name, and `blocks`, as of Parameters.

    The matrices, but for wpe, are Scaled: values of uint16 (the bits of bf16), int8 or int4, and
    their scales. `to_float32` makes Parameters of them. There is no `flat`, and no tensor can be
    assigned.
    """

    def __init__(self, config: GPT2Config, weight_format: str):
        """Parameters without tensors, to be filled through `slots`.

        Raises ArgumentError where a model of this config cannot be in this format.
        """
        multiple_of, n_embd = find_weight_format(weight_format).multiple_of, config.n_embd
        if n_embd % multiple_of:
            raise ArgumentError(
                f"weight_format {weight_format} needs n_embd to be a multiple of {multiple_of}, not"
                f" {n_embd}"
            )
        self.config, self.weight_format = config, weight_format
        self.wte_padding = None  # as of Parameters

    def __getattr__(self, name):
        raise AttributeError(
            f"QuantizedParameters have no {name}; their to_float32() makes Parameters"
        )

    def __setattr__(self, name, value):
        if name in ("flat", *TENSOR_NAMES):
            raise ArgumentError(f"{name} of QuantizedParameters cannot be assigned")
        super().__setattr__(name, value)

    def __getstate__(self):
        """Pickle and copy all but the blocks: copied, they would not be views of the tensors."""
        return {name: value for name, value in vars(self).items() if name != "blocks"}

    def slots(self) -> Iterator[tuple[str, Any, np.ndarray]]:
        """As Parameters.slots, of new float32 arrays: each is quantized when the next is asked for.

        So only one of them is in memory. All slots must be asked for.
        """
        for name, shape in parameter_shapes(self.config).items():
            stacked = name in BLOCK_NAMES
            for layer in range(self.config.n_layer) if stacked else [...]:
                slot = np.empty(shape[1:] if stacked else shape, np.float32)
                yield name, layer, slot
                self._store(name, layer, self._quantize(name, slot))

    def _quantize(self, name, w):
        if name not in QUANTIZABLE:
            return w
        format = find_weight_format(self.weight_format)
        quantize = format.quantize_wte if name == "wte" else None
        with threads():
            return (quantize or format.quantize)(w)

    def _store(self, name, layer, w):
        tensors = vars(self)
        if layer is ...:
            tensors[name] = w
            return
        if layer == 0:
            new = [np.empty((self.config.n_layer, *a.shape), a.dtype) for a in arrays_of(w)]
            tensors[name] = new[0] if isinstance(w, np.ndarray) else type(w)(*new)
        for whole, part in zip(arrays_of(tensors[name]), arrays_of(w), strict=True):
            whole[layer] = part

    @cached_property
    def blocks(self) -> list[Any]:
        """Each layer's slices of the twelve stacked tensors, under the same names."""
        return [
            Block(*(layer_of(getattr(self, name), i) for name in BLOCK_NAMES))
            for i in range(self.config.n_layer)
        ]

    def to_float32(self) -> Parameters:
        """Parameters of the numbers that the weights are rounded to."""
        from npgpt.kernels.products.weights import widened

        params = Parameters(self.config, wte_padding=self.wte_padding)
        for name, layer, view in params.slots():
            tensor = layer_of(getattr(self, name), layer)
            if name in QUANTIZABLE:
                with threads():
                    tensor = widened(tensor)
            view[...] = tensor
        return params


def arrays_of(tensor):
    """The arrays of a tensor: itself, or the values and scales of Scaled."""
    return [tensor] if isinstance(tensor, np.ndarray) else [*tensor]


def layer_of(tensor, layer):
    """A layer's slice of a stacked tensor, an array or Scaled; ... is all of it."""
    return tensor[layer] if isinstance(tensor, np.ndarray) else tensor.layer(layer)


def float_parameters(params):
    """Parameters as they are; of QuantizedParameters, their float32 Parameters."""
    return params if isinstance(params, Parameters) else params.to_float32()


def params_factory(weight_format):
    """Return a function that makes parameters of a config, to be filled through their `slots`.

    Raises ArgumentError for an unknown format.
    """
    if find_weight_format(weight_format).quantize is None:
        return Parameters
    return partial(QuantizedParameters, weight_format=weight_format)


def quantize_weights(params, weight_format):
    """Parameters in a weight format -> QuantizedParameters, a copy; for fp32 they themselves.

    QuantizedParameters that are in this format already are returned as they are. Raises
    ArgumentError where they are in another one, and for Parameters that are not float32 or of a
    size that the format cannot have.
    """
    current = getattr(params, "weight_format", "fp32")
    find_weight_format(weight_format)
    if weight_format == current:
        return params
    if current != "fp32":
        raise ArgumentError(
            f"params are in weight_format {current}: pass weight_format={current!r}, or"
            " params.to_float32()"
        )
    if params.flat.dtype != np.float32:
        raise ArgumentError(
            f"weight_format {weight_format} needs float32 parameters, not {params.flat.dtype}"
        )
    quantized = QuantizedParameters(params.config, weight_format)
    quantized.wte_padding = params.wte_padding
    for name, layer, slot in quantized.slots():
        slot[...] = getattr(params, name)[layer]
    return quantized
