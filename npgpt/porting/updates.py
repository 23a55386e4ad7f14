"""AdamW in float64, right or with a mistake, and the norms of what it makes."""

import math
from typing import NamedTuple

import numpy as np

from npgpt.core.parameters import BLOCK_NAMES, TENSOR_NAMES

EPS = 1e-8


class AdamW(NamedTuple):
    """AdamW as somebody has written it; with lr and decay alone, as it should be."""

    lr: float
    decay: float  # by which p shrinks, times lr
    l2: float = 0.0  # times p, is added to the gradient
    decayed: tuple = TENSOR_NAMES
    sign: float = 1.0
    betas: tuple = (0.9, 0.999)
    eps: float = EPS
    under_root: bool = False  # eps, not beside it
    corrections: tuple | None = (0, 1)  # which of the betas corrects m, and which v
    t_of: str = "updates"  # "one ahead" or "stuck" otherwise
    kept: tuple = (True, True)  # m, v: from update to update
    gradients: str = "new"  # "added up" or "old" otherwise

    def update(self, name, p, g, m, v, step):
        """Update one array of the tensor of this name -> m, v, p."""
        g = g + self.l2 * p
        m, v = m * self.kept[0], v * self.kept[1]
        beta1, beta2 = self.betas
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        t = {"updates": step, "one ahead": step + 1, "stuck": 1}[self.t_of]
        c1 = c2 = 1.0
        if self.corrections is not None:
            c1, c2 = (1 - self.betas[i] ** t for i in self.corrections)
        root = np.sqrt(v / c2 + self.eps) if self.under_root else np.sqrt(v / c2) + self.eps
        decay = self.decay if name in self.decayed else 0.0
        return m, v, p - self.lr * (self.sign * m / c1 / root + decay * p)


def parts_of(name, L):
    """The full names of one of the sixteen tensors: ln1w.0, ln1w.1, ..., or wte itself."""
    return [f"{name}.{i}" for i in range(L)] if name in BLOCK_NAMES else [name]


def norm(arrays):
    """The L2 norm of all numbers of some arrays."""
    return math.sqrt(sum(float((array**2).sum()) for array in arrays))


def norms_after_first(which, get, L, optimizer):
    """The sixteen norms of m, v or p (which: 0, 1, 2) after the first update.

    get(name) is the array of a parameter or, with a d in front, of its gradient.
    """
    return np.array([
        norm(
            optimizer.update(name, get(part), get(f"d{part}"), 0.0, 0.0, 1)[which]
            for part in parts_of(name, L)
        )
        for name in TENSOR_NAMES
    ])  # fmt: skip
