"""Which numbers the kernels' matrix products multiply: float32, or bf16 where the CPU can."""

from contextlib import contextmanager
from contextvars import ContextVar

from npgpt.errors import ArgumentError

# fp32; bf16x3: each factor is the sum of two bf16, and three products are added (without tiles,
# where that would be slower, it is fp32); bf16: one is.
PRECISIONS = ("fp32", "bf16x3", "bf16")
# And int8, of the weights that sampling reads for each token; all else is as in fp32.
SAMPLING = (*PRECISIONS, "int8")

_current = ContextVar("precision", default="fp32")


def check_precision(name):
    """Raise ArgumentError unless name is one of SAMPLING that this machine has."""
    if name not in SAMPLING:
        raise ArgumentError(f"precision must be one of {', '.join(SAMPLING)}, not {name!r}")
    if name not in ("fp32", "int8") and not granted():
        raise ArgumentError(
            f"precision {name} takes a CPU with AMX tiles or AVX-512's instructions for bf16, and"
            " this one has neither: use fp32"
        )


def granted():
    """Whether there are units for bf16."""
    from npgpt.kernels import amx, dots_bf16

    return amx.granted() or dots_bf16.granted()


@contextmanager
def computing_in(name):
    """Inside, the kernels multiply matrices of float32 in this way."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def finer():
    """Inside, bf16x3 takes the place of bf16."""
    with computing_in("bf16x3" if current_precision() == "bf16" else current_precision()):
        yield


def current_precision():
    """The one that counts here."""
    return _current.get()
