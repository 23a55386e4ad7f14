"""Precisions: how the kernels multiply matrices. A table of them, and the one in use now.

A precision is how many bf16 numbers (the upper halves of a float32) stand for each element of an
operand. Sums, and all that is not a matrix product, are float32 in each of them.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from npgpt.errors import ArgumentError

# Of `npgpt test`. logits: largest absolute difference; loss and losses: absolute difference, in the
# first step and in all the later ones; grads: relative L2 norm, |grad - expected| / |expected|, and
# each element's difference over the largest: among millions of elements a wrong one hardly shows in
# the norm.
FP32_TOLERANCES = {"logits": 1e-3, "loss": 1e-4, "grads": 1e-4, "losses": 1e-3}
BF16_TOLERANCES = {"logits": 3e-1, "loss": 1e-2, "grads": 5e-2, "losses": 3e-2}


class Precision(NamedTuple):
    """How operands are multiplied: bf16 terms an element (0: float32 as it is), and what for."""

    bf16_terms: int
    help: str
    tolerances: dict[str, float]


PRECISIONS = {
    "fp32": Precision(0, "float32", FP32_TOLERANCES),
    "bf16x3": Precision(
        2,
        "operands are the sum of two bf16, and three products are added: nearly float32; without"
        " AMX tiles, where that would be slower, it is float32",
        FP32_TOLERANCES,
    ),
    "bf16": Precision(1, "operands are rounded to bf16, 8 bits of float32's 24", BF16_TOLERANCES),
}
NEEDS_BF16_HARDWARE = (
    "needs a CPU with AMX tiles or AVX-512's bf16 instructions, and this one has neither: use fp32"
)
PRECISION_HELP = "how matrices are multiplied: " + "; ".join(
    f"{name}: {precision.help}" for name, precision in PRECISIONS.items()
)

_bf16_terms: ContextVar[int] = ContextVar("bf16_terms", default=0)


def find_precision(name):
    """The Precision of this name, or ArgumentError."""
    if name not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    return PRECISIONS[name]


def bf16_terms():
    """How many bf16 stand for an element of an operand here and now; 0: float32 as it is."""
    return _bf16_terms.get()


@contextmanager
def multiplying_in(n_terms):
    """Inside, the kernels multiply float32 matrices with so many bf16 terms an element."""
    token = _bf16_terms.set(n_terms)
    try:
        yield
    finally:
        _bf16_terms.reset(token)


@contextmanager
def at_least_bf16x3():
    """Inside, bf16x3 takes the place of bf16."""
    with multiplying_in(2 if bf16_terms() == 1 else bf16_terms()):
        yield
