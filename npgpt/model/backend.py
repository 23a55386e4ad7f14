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
from npgpt.model.weights import find_weights


class NumpyBackend:
    """The textbook: NumPy's own threads, float32 or float64 as the parameters are."""

    name = "numpy"

    def __init__(self):
        from npgpt import layers

        self.layers = layers

    def check(self, precision, weights):
        """Raise ArgumentError unless it can compute in this precision, with weights so stored."""
        for what, name in (("precision", precision), ("weights", weights)):
            if name != "fp32":
                raise ArgumentError(f"{what} {name} needs the backend numba, not {self.name}")

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """Inside, about so many flops are done, matrices multiplied in this precision."""
        yield

    def decoder(self, params, stored):
        """A Decoder of Parameters; stored: as round_weights gives it."""
        return Decoder(params, self.layers)

    def free_memory(self):
        """Return to the operating system what is kept from step to step."""


class NumbaBackend(NumpyBackend):
    """The compiled kernels, on as many threads as the work is worth."""

    name = "numba"

    def __init__(self):
        from npgpt import kernels

        self.layers = kernels

    def check(self, precision, weights):
        """Raise ArgumentError unless this machine can multiply in this precision."""
        from npgpt.kernels.precision import has_bf16_hardware

        if PRECISIONS[precision].bf16_terms and not has_bf16_hardware():
            raise ArgumentError(f"precision {precision} {NEEDS_BF16_HARDWARE}")

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """Inside, kernels have threads for so many flops, and multiply in this precision."""
        with threads(flops), multiplying_in(PRECISIONS[precision].bf16_terms):
            yield

    def decoder(self, params, stored):
        """A Decoder that takes few positions through all blocks in one kernel."""
        from npgpt.model.fused_decoder import FusedDecoder

        return FusedDecoder(params, self.layers, stored)

    def free_memory(self):
        """Return to the operating system the buffers that the kernels keep, for all models."""
        from npgpt.kernels import buffers

        buffers.free()


BACKENDS = {"numpy": NumpyBackend, "numba": NumbaBackend}


def make_backend(name, precision="fp32", weights="fp32"):
    """The backend of this name, or ArgumentError where it cannot compute as it is asked to."""
    if name not in BACKENDS:
        raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    find_precision(precision)
    find_weights(weights)
    backend = BACKENDS[name]()
    backend.check(precision, weights)
    return backend
