"""GELU in GPT-2's tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

Hendrycks and Gimpel 2016, section 2. Both passes go in pieces that stay in the cache: on whole
arrays, the memory for each operation's result costs three times the operation.
"""

import math

import numpy as np

SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715
CHUNK = 1 << 15


def gelu_forward(x):
    """x of any shape -> out of the same shape, cache."""
    out = np.empty(x.size, x.dtype)
    flat = x.reshape(-1)
    for i in range(0, x.size, CHUNK):
        xi = flat[i : i + CHUNK]
        tanh = np.tanh(SCALE * (xi + CUBIC * xi * xi * xi))
        out[i : i + CHUNK] = 0.5 * xi * (1 + tanh)
    return out.reshape(x.shape), x


def gelu_backward(dout, cache):
    """dout, of the shape of x -> dx."""
    x = cache
    dx = np.empty(x.size, x.dtype)
    flat, dflat = x.reshape(-1), dout.reshape(-1)
    for i in range(0, x.size, CHUNK):
        xi = flat[i : i + CHUNK]
        tanh = np.tanh(SCALE * (xi + CUBIC * xi * xi * xi))
        slope = (1 - tanh * tanh) * SCALE * (1 + 3 * CUBIC * xi * xi)  # d tanh / dx
        dx[i : i + CHUNK] = dflat[i : i + CHUNK] * 0.5 * (1 + tanh + xi * slope)
    return dx.reshape(x.shape)
