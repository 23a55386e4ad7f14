"""GELU in GPT-2's tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

Hendrycks and Gimpel 2016, section 2.
"""

import math

import numpy as np

SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_forward(x):
    """x of any shape -> out of the same shape, cache."""
    tanh = np.tanh(SCALE * (x + CUBIC * x * x * x))
    return 0.5 * x * (1 + tanh), x


def gelu_backward(dout, cache):
    """dout, of the shape of x -> dx."""
    x = cache
    tanh = np.tanh(SCALE * (x + CUBIC * x * x * x))
    dtanh = (1 - tanh * tanh) * SCALE * (1 + 3 * CUBIC * x * x)  # d tanh(...) / dx
    return dout * 0.5 * (1 + tanh + x * dtanh)
