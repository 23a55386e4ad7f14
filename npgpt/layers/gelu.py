"""GELU in GPT-2's tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

Hendrycks and Gimpel 2016, section 2.
"""

import math

import numpy as np

SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_forward(x):
    """x of any shape -> out of the same shape, cache."""
    return 0.5 * x * (1 + inner_tanh(x)), x


def gelu_backward(dout, cache):
    """dout, of the shape of x -> dx."""
    x = cache
    tanh = inner_tanh(x)
    slope = (1 - tanh * tanh) * SCALE * (1 + 3 * CUBIC * x * x)  # d tanh / dx
    return dout * 0.5 * (1 + tanh + x * slope)


def inner_tanh(x):
    """tanh(sqrt(2/pi) * (x + 0.044715 x^3)), the same for both passes."""
    u = x * x  # in place from here on: a new array for each operation costs more than the operation
    u *= CUBIC
    u += 1
    u *= x
    u *= SCALE
    return np.tanh(u, out=u)
