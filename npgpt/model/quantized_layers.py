"""The layer functions of a quantized model: they take matrices in a weight format."""

import numpy as np

from npgpt.kernels.products.weights import widened


class QuantizedLayers:
    """Layer functions that widen each matrix to float32 when they compute with it.

    They call those of `layers`. encoder_forward passes on only the rows of wte that the tokens
    need, and tokens that number these rows; matmul_backward, as the cache, the arguments of the
    forward pass. All other functions are those of `layers` themselves.
    """

    def __init__(self, layers):
        self._layers = layers

    def __getattr__(self, name):
        return getattr(self._layers, name)

    def encoder_forward(self, tokens, wte, wpe):
        row_ids = np.arange(tokens.size).reshape(tokens.shape)
        rows = widened(wte.rows(tokens.reshape(-1)))  # (B*T, C)
        out, _ = self._layers.encoder_forward(row_ids, rows, wpe)
        return out, (tokens, wte, wpe)

    def encoder_backward(self, dout, cache, out, add=False):
        tokens, _, wpe = cache
        dwte, _ = out  # takes the place of wte, of which only the shape counts
        return self._layers.encoder_backward(dout, (tokens, dwte, wpe), out, add)

    def matmul_forward(self, x, w, b=None):
        out, _ = self._layers.matmul_forward(x, widened(w), b)
        return out, (x, w, b)

    def matmul_backward(self, dout, cache, out=None, add=False):
        x, w, b = cache
        return self._layers.matmul_backward(dout, (x, widened(w), b), out, add)

    def crossentropy_forward(self, x, w, targets):
        return self._layers.crossentropy_forward(x, widened(w), targets)
