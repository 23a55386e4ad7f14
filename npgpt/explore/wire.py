"""What goes to the page: JSON in which an array is its shape and its float32 in base64.

Of a Causal array only what is not zero by the causal mask goes there.
"""

import base64
import json
import math

import numpy as np


class Causal(np.ndarray):
    """An array (..., T, T) that is zero above the diagonal of its last two axes."""


def below_diagonal(T):
    """Where a causal array (..., T, T) can be other than zero, as a mask (T, T)."""
    return np.tril(np.ones((T, T), bool))


def packed(array):
    """An array as a dict that JSON can hold; NaN and infinities stay what they are."""
    causal = isinstance(array, Causal)
    content = array[..., below_diagonal(array.shape[-1])] if causal else array
    text = base64.b64encode(np.ascontiguousarray(content, "<f4")).decode("ascii")
    return {"shape": array.shape, "f32": text} | ({"causal": True} if causal else {})


def unpacked(value):
    """The array of a dict that `packed` has made."""
    content, shape = np.frombuffer(base64.b64decode(value["f32"]), "<f4"), value["shape"]
    if not value.get("causal"):
        return content.reshape(shape)
    array = np.zeros(shape, "<f4")
    array[..., below_diagonal(shape[-1])] = content.reshape(*shape[:-2], -1)
    return array


def plain(value):
    """A number of NumPy's as Python's, an array packed."""
    return packed(value) if isinstance(value, np.ndarray) else value.item()


def finite(number):
    """The number as a float, or None where it is NaN or infinite, which JSON cannot say."""
    return float(number) if math.isfinite(number) else None


def to_json(value):
    """The JSON text of an answer."""
    return json.dumps(value, default=plain, allow_nan=False)
