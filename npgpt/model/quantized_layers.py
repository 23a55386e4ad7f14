"""The layer functions of a quantized model: they take matrices in a weight format."""

import numpy as np

from npgpt.kernels.numerics.scaled import each_part
from npgpt.kernels.products.weights import widened


class QuantizedLayers:
    """Layer functions that widen each matrix to float32 when they compute with it.

    All others are those of `layers`, by default npgpt.kernels.
    """

    def __init__(self, layers=None):
        if layers is None:
            from npgpt import kernels as layers
        self._layers = layers

    def __getattr__(self, name):
        return getattr(self._layers, name)

    def __reduce__(self):
        """Pickle and copy all but npgpt's own layers, which are a module."""
        own = type(self)()._layers
        return type(self), () if self._layers is own else (self._layers,)

    def encoder_forward(self, tokens, wte, wpe):
        """Only the rows of these tokens are widened."""
        numbers = np.arange(tokens.size).reshape(tokens.shape)
        rows = widened(each_part(lambda part: part[tokens.reshape(-1)], wte))  # (B*T, C)
        out, _ = self._layers.encoder_forward(numbers, rows, wpe)
        return out, (tokens, wte, wpe)

    def encoder_backward(self, dout, cache, out=None, add=False):
        tokens, wte, wpe = cache
        return self._layers.encoder_backward(dout, (tokens, widened(wte), wpe), out, add)

    def matmul_forward(self, x, w, b=None):
        out, _ = self._layers.matmul_forward(x, widened(w), b)
        return out, (x, w, b)

    def matmul_backward(self, dout, cache, out=None, add=False):
        x, w, b = cache
        return self._layers.matmul_backward(dout, (x, widened(w), b), out, add)

    def crossentropy_forward(self, x, w, targets):
        return self._layers.crossentropy_forward(x, widened(w), targets)
