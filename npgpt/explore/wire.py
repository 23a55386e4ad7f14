"""What goes to the page: JSON in which an array is its shape and its float32 in base64."""

import base64
import json
import math

import numpy as np


def packed(array):
    """An array as a dict that JSON can hold; NaN and infinities stay what they are."""
    content = np.ascontiguousarray(array, "<f4")
    return {"shape": content.shape, "f32": base64.b64encode(content).decode("ascii")}


def unpacked(value):
    """The array of a dict that `packed` has made."""
    return np.frombuffer(base64.b64decode(value["f32"]), "<f4").reshape(value["shape"])


def plain(value):
    """A number of NumPy's as Python's, an array packed."""
    return packed(value) if isinstance(value, np.ndarray) else value.item()


def finite(number):
    """The number as a float, or None where it is NaN or infinite, which JSON cannot say."""
    return float(number) if math.isfinite(number) else None


def to_json(value):
    """The JSON text of an answer."""
    return json.dumps(value, default=plain, allow_nan=False)
