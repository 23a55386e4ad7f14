"""The tensors that explanations are made from, by name, and what an explanation consists of."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.explore.passes import Tensors, parameter


class Numbers:
    """Tensors of both passes and parameters, by name; labels make names of positions and tokens."""

    def __init__(self, model, tokens, tensors: Tensors, labels, targets=None):
        self.model, self.tokens, self.tensors, self.labels = model, tokens, tensors, labels
        self.targets = targets

    def __getitem__(self, name: str) -> Any:
        found = None
        if isinstance(name, str):
            found = self.tensors.get(name)
            found = parameter(self.model, name) if found is None else found
        if found is None:
            raise ArgumentError(f"there is no tensor {name!r:.40} here")
        return found

    def at(self, t):
        """A position as it is written: 3 “the”."""
        return f"{t} “{self.labels(self.tokens[t])}”"

    @property
    def head_size(self):
        return self.model.config.n_embd // self.model.config.n_head

    @property
    def scale(self):
        return 1 / math.sqrt(self.head_size)

    def qkv(self, block, which, h):
        """The queries, keys or values of a head (T, hs): which is 0, 1 or 2."""
        return self.heads(f"qkv.{block}", h, which)

    def heads(self, name, h, which=0):
        """Head h's channels (T, hs) of a tensor; of qkv those of q, k or v."""
        start = which * self.model.config.n_embd + h * self.head_size
        return self[name][:, start : start + self.head_size]


class Formula(NamedTuple):
    """A formula in words of the code, its inputs, the products that it sums, and what follows.

    sum: (labels, left, right), the label of product i being labels(i); value(total) makes the
    number of the sum of the products, and of nothing else where there is no sum.
    """

    text: str
    inputs: dict[str, Any]
    sum: tuple[Callable[[int], str], Any, Any] | None
    value: Callable[[Any], Any]


def summed(text, label, left, right, extra=0.0, inputs=None):
    """A Formula that is a sum of products and of `extra`."""
    return Formula(text, inputs or {}, (label, left, right), lambda total: total + extra)


def plain(text, inputs, value):
    """A Formula without a sum."""
    return Formula(text, inputs, None, lambda total: value)


def double(array):
    """An array in float64."""
    return np.asarray(array, np.float64)
