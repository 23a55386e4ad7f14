"""Backends: the layers that a model computes with, how they compute, and how they decode.

Layer functions are npgpt.layers, the textbook in NumPy, or npgpt.kernels, its compiled twin.
"""

from contextlib import contextmanager

from npgpt.core.precision import (
    NEEDS_BF16_HARDWARE,
    PRECISIONS,
    find_precision,
    multiplying_in,
)
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError
from npgpt.model.decoder import Decoder
from npgpt.model.quantization import find_weight_format


class NumpyBackend:
    """The textbook: NumPy's own threads, float32 or float64 as the parameters are."""

    name = "numpy"

    def __init__(self):
        from npgpt import layers

        self.layers = layers

    def check(self, precision, weight_format):
        """Raise ArgumentError unless this precision and weight format are supported."""
        for what, name in (("precision", precision), ("weight_format", weight_format)):
            if name != "fp32":
                raise ArgumentError(f"{what} {name} needs the backend numba, not {self.name}")

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """Context for about `flops` operations, with matrix products in this precision."""
        yield

    def decoder(self, params, quantized):
        """A Decoder of Parameters; quantized: what quantize_weights has made of them."""
        return Decoder(params, self.layers)

    def free_memory(self):
        """Return to the operating system what is kept from step to step."""


class NumbaBackend(NumpyBackend):
    """The compiled kernels, on as many threads as the work is worth."""

    name = "numba"

    def __init__(self):
        from npgpt import kernels

        self.layers = kernels

    def check(self, precision, weight_format):
        """Raise ArgumentError unless this machine can multiply in this precision."""
        from npgpt.kernels.products.precision import has_bf16_hardware

        if PRECISIONS[precision].bf16_terms and not has_bf16_hardware():
            raise ArgumentError(f"precision {precision} {NEEDS_BF16_HARDWARE}")

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """As NumpyBackend's: on as many threads as the flops are worth."""
        with threads(flops), multiplying_in(PRECISIONS[precision].bf16_terms):
            yield

    def decoder(self, params, quantized):
        """A Decoder that takes few positions through all blocks in one kernel call."""
        from npgpt.model.fused_decoder import FusedDecoder

        return FusedDecoder(params, self.layers, quantized)

    def free_memory(self):
        """Return to the operating system the buffers that the kernels keep, for all models."""
        from npgpt.kernels.memory import buffers

        buffers.free()


BACKENDS = {"numpy": NumpyBackend, "numba": NumbaBackend}


def make_backend(name, precision="fp32", weight_format="fp32"):
    """The backend of this name, or ArgumentError where it cannot compute as it is asked to."""
    if name not in BACKENDS:
        raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    find_precision(precision)
    find_weight_format(weight_format)
    backend = BACKENDS[name]()
    backend.check(precision, weight_format)
    return backend
