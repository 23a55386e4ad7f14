"""How one number was made: its formula, and the few numbers of one position that went into it.

An explanation computes the number again, from the tensors before it and in float64.
"""

import math
from typing import Any

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.explore.backward_formulas import BACKWARD
from npgpt.explore.forward_formulas import FORWARD
from npgpt.explore.numbers import Numbers
from npgpt.explore.wire import finite
from npgpt.tracing.names import split_name

TERMS = 8  # products of a sum that are shown, the largest first


def explain(numbers: Numbers, name: str, index: list[int]) -> dict[str, Any]:
    """The explanation of one number: tensor `name` at `index`.

    Returns: a dict with the formula, its inputs as pairs of name and value, the largest products of
    its sum, what the others add up to, the value computed from these, and the one that is stored.
    """
    array = numbers[name]
    check_index(name, index, array.shape)
    base, block = split_name(name)
    formulas = FORWARD | BACKWARD
    if base not in formulas:
        raise ArgumentError(f"{name} is a parameter: it was read from the model, or learnt")
    formula = formulas[base](numbers, block, *index)
    labels, left, right = formula.sum or (str, np.zeros(0), np.zeros(0))
    products = np.asarray(left, np.float64) * np.asarray(right, np.float64)
    order = np.argsort(-np.abs(products), kind="stable")
    value = formula.value(products.sum())
    stored = float(array[tuple(index)])
    same = math.isclose(value, stored, rel_tol=1e-3, abs_tol=1e-5 * scale_of(array))
    return {
        "name": name,
        "index": index,
        "formula": formula.text,
        "inputs": [[what, finite(number)] for what, number in formula.inputs.items()],
        "terms": [
            [labels(int(i)), *map(finite, (left[i], right[i], products[i]))] for i in order[:TERMS]
        ],
        "others": {
            "count": max(0, len(products) - TERMS),
            "sum": finite(products[order[TERMS:]].sum()),
        },
        "value": finite(value),
        "stored": finite(stored),
        "edited": not same and math.isfinite(value) and math.isfinite(stored),
    }


def scale_of(array):
    """The largest magnitude in an array, at least a tiny number."""
    return max(float(np.abs(array).max()), 1e-30)


def check_index(name, index, shape):
    """Raise ArgumentError unless index is that of one element of a tensor of this shape."""
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in index)
    if len(index) != len(shape) or not whole:
        raise ArgumentError(f"an index of {name} must be {len(shape)} integers, not {index}")
    for i, size in zip(index, shape, strict=True):
        if not 0 <= i < size:
            raise ArgumentError(f"an index of {name} must be below {list(shape)}, not {index}")
