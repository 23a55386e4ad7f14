"""Matmul precisions: the table of them, and the one in use in the current context.

A precision is the number of bf16 terms (0, 1 or 2) that represent each element of an operand; a
bf16 is the upper half of a float32. Sums, and all but matrix products, are float32 in all of them.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from npgpt.errors import ArgumentError

# Tolerances of `npgpt test`. logits: largest absolute difference. loss, losses: absolute difference
# before any update, and after updates. grads: both the relative L2 norm |grad - expected| /
# |expected| and the largest difference over the largest expected value, as the norm hardly shows a
# single wrong element among millions.
FP32_TOLERANCES = {"logits": 1e-3, "loss": 1e-4, "grads": 1e-4, "losses": 1e-3}
BF16_TOLERANCES = {"logits": 3e-1, "loss": 1e-2, "grads": 5e-2, "losses": 3e-2}


class Precision(NamedTuple):
    """A matmul precision: bf16 terms per operand element (0: plain float32), help, tolerances.

    backends: those that have it. needs: the hardware that it needs, "" for any.
    """

    n_terms: int
    help: str
    tolerances: dict[str, float]
    backends: tuple[str, ...] = ("numba",)
    needs: str = "a CPU with AMX tiles or AVX-512's bf16 instructions"


PRECISIONS = {
    "fp32": Precision(0, "float32", FP32_TOLERANCES, ("numpy", "numba"), needs=""),
    "bf16x3": Precision(
        2,
        "each operand is split into two bf16 and three products are summed, nearly float32 (on CPUs"
        " without AMX tiles: float32)",
        FP32_TOLERANCES,
    ),
    "bf16": Precision(
        1, "operands are rounded to bf16 (8 significand bits instead of 24)", BF16_TOLERANCES
    ),
}
PRECISION_HELP = "how matrices are multiplied: " + "; ".join(
    f"{name}: {precision.help}" for name, precision in PRECISIONS.items()
)

_bf16_terms: ContextVar[int] = ContextVar("bf16_terms", default=0)


def find_precision(name):
    """Return the Precision of this name; raises ArgumentError if there is none."""
    if name not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    return PRECISIONS[name]


def current_bf16_terms():
    """The bf16 terms per operand element in this context; 0: plain float32."""
    return _bf16_terms.get()


@contextmanager
def use_bf16_terms(n_terms):
    """Context in which kernels use n_terms bf16 terms per element of float32 operands."""
    token = _bf16_terms.set(n_terms)
    try:
        yield
    finally:
        _bf16_terms.reset(token)


@contextmanager
def at_least_bf16x3():
    """Context in which bf16 is raised to bf16x3; the other precisions stay."""
    with use_bf16_terms(2 if current_bf16_terms() == 1 else current_bf16_terms()):
        yield
