"""Backends: the layers that a model computes with, how they compute, and how they decode.

Layer functions are npgpt.layers, the NumPy reference, or npgpt.kernels, its compiled counterpart.
"""

from contextlib import contextmanager

from npgpt.core.precision import PRECISIONS, find_precision, use_bf16_terms
from npgpt.core.threads import threads
from npgpt.errors import ArgumentError
from npgpt.model.decoder import Decoder
from npgpt.model.quantization import find_weight_format


class NumpyBackend:
    """The NumPy reference: NumPy's own threads, in the dtype of the parameters."""

    name = "numpy"

    def __init__(self):
        from npgpt import layers

        self.layers = layers

    def __reduce__(self):
        """Pickle and copy all but npgpt's own layers, which are modules."""
        own = type(self)().layers
        return type(self), (), None if self.layers is own else {"layers": self.layers}

    def check(self, precision, weight_format):
        """Raise ArgumentError unless this precision and weight format are supported."""
        for what, name, backends in (
            ("precision", precision, find_precision(precision).backends),
            ("weight_format", weight_format, find_weight_format(weight_format).backends),
        ):
            if self.name not in backends:
                raise ArgumentError(
                    f"{what} {name} needs backend {' or '.join(backends)}, not {self.name}"
                )

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """Context for about `flops` operations in all, with matrix products in this precision.

        GPT2.computing, in contrast, counts flops per parameter.
        """
        yield

    def decoder(self, params, layers):
        """A Decoder of Parameters, or of QuantizedParameters with layers that take them."""
        return Decoder(params, layers)

    def prepare_training(self, dtype, precision):
        """Start compiling what a training step needs; NumPy needs nothing."""

    def free_memory(self):
        """Free the buffers kept between steps, for all models; NumPy keeps none."""


class NumbaBackend(NumpyBackend):
    """The compiled kernels, on as many threads as the work is worth."""

    name = "numba"

    def __init__(self):
        from npgpt import kernels

        self.layers = kernels

    def check(self, precision, weight_format):
        """As NumpyBackend's; also raises unless this machine has the hardware for the precision.

        And for an environment in which NPGPT_PRODUCTS is neither blas nor kernel.
        """
        super().check(precision, weight_format)
        from npgpt.kernels.products import blas
        from npgpt.kernels.products.precision import has_bf16_hardware

        blas.way()
        needs = PRECISIONS[precision].needs
        if needs and not has_bf16_hardware():
            raise ArgumentError(
                f"precision {precision} needs {needs}, which this one lacks: use fp32"
            )

    @contextmanager
    def computing(self, flops, precision="fp32"):
        """As NumpyBackend's, with as many threads as `flops` operations are worth."""
        with threads(flops), use_bf16_terms(PRECISIONS[precision].n_terms):
            yield

    def decoder(self, params, layers):
        """A Decoder that runs a few positions through all blocks in one kernel call."""
        from npgpt.model.fused_decoder import FusedDecoder

        return FusedDecoder(params, layers)

    def prepare_training(self, dtype, precision):
        """Let a second process help this one with compiling, on a machine's first step."""
        from npgpt.model import second_compiler

        second_compiler.start(dtype, precision)

    def free_memory(self):
        """Return to the operating system the buffers that the kernels keep, for all models."""
        from npgpt.kernels.memory import buffers

        buffers.free()


BACKENDS = {"numpy": NumpyBackend, "numba": NumbaBackend}


def make_backend(name, precision="fp32", weight_format="fp32"):
    """Create the named backend; raises ArgumentError if it does not support the options."""
    if name not in BACKENDS:
        raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    backend = BACKENDS[name]()
    backend.check(precision, weight_format)
    return backend
