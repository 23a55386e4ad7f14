"""Places in a tensor, in words."""

import numpy as np

from npgpt.core.parameters import TENSOR_NAMES
from npgpt.tracing.names import BLOCK_SHAPES, SHAPES, STEPS, split_name


def axes_of(name):
    """The letters of a tensor's axes."""
    base = split_name(name)[0].removeprefix("d")
    if base == "wpe":
        return ("t", "channel")
    letters = {**SHAPES, **BLOCK_SHAPES}.get(base)
    if letters is None:
        return ("row", "column")
    axes = letters.replace("3C", "channel").replace("4C", "channel").replace("C", "channel")
    axes = axes.replace("NH T T", "head t u").replace("B", "b").replace("T", "t").split()
    return tuple(axes)


def time_axis(name):
    """The axis of the positions, or None."""
    axes = axes_of(name)
    return axes.index("t") if "t" in axes else None


def is_of_norms(name):
    """Whether a tensor is the sixteen norms after an update."""
    base = split_name(name)[0]
    return base in STEPS and base != "step_loss"


def index_in_words(name, index):
    """[1, 2], or [4] (qkvw) of the sixteen norms after an update; "" of a single number."""
    if not index:
        return ""
    return f"{list(index)} ({TENSOR_NAMES[index[0]]})" if is_of_norms(name) else f"{list(index)}"


def region(name, wrong):
    """Where the wrong elements of a tensor are, in words: "" if in all places along every axis."""
    if is_of_norms(name):
        return "" if wrong.all() else ", ".join(np.array(TENSOR_NAMES)[wrong])
    words = []
    for axis, letter in zip(range(wrong.ndim), axes_of(name), strict=False):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        (at,) = np.nonzero(wrong.any(others))
        n, first, last = wrong.shape[axis], at[0], at[-1]
        if len(at) == n:
            continue
        if first == last:
            words.append(f"{letter} = {first}")
        elif len(at) == last - first + 1:
            words.append(f"{letter} = {first} to {last}")
        else:
            words.append(f"{len(at)} of {n} along {letter}")
    return ", ".join(words)
