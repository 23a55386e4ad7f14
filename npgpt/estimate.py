"""How much memory a training step takes, before it is run."""

from typing import NamedTuple

from npgpt.errors import ArgumentError
from npgpt.gpt2 import HEAD_ROWS
from npgpt.parameters import count_parameters

PROGRAM = 170_000_000  # bytes of Python, NumPy, Numba and the compiled kernels


class Estimate(NamedTuple):
    """Bytes at the peak of a training step; print it for a line that names them."""

    parameters: int
    gradients: int
    moments: int
    activations: int
    logits: int
    program: int

    @property
    def total(self):
        return sum(self)

    def __str__(self):
        parts = ", ".join(
            f"{name} {size / 1e9:.2f}" for name, size in zip(self._fields, self, strict=True)
        )
        return f"{self.total / 1e9:.2f} GB: {parts}"


def estimate(config, B, T, recompute=False):
    """The memory of forward_backward and update at B, T with the kernels, in float32 -> Estimate.

    recompute is the option of GPT2. The peak of a process with one such model, all of whose batches
    are B, T and whose kernels are compiled already, is within a tenth of the total.
    """
    if B < 1:
        raise ArgumentError(f"B must be from 1, not {B}")
    if not 1 <= T <= config.block_size:
        raise ArgumentError(f"T must be from 1 to the block_size {config.block_size}, not {T}")
    weights = 4 * count_parameters(config)
    # What a layer keeps of each position, in multiples of C: x, qkv (3), atty, the x after them and
    # fch (4); without recompute also ln1, ln2 and act (4). What its backward pass has besides at a
    # time: dx, dact (4), dfch (4), dln2, dqkv (3), ..., and what it makes again.
    kept, passing = (10, 24) if recompute else (16, 18)
    units = config.n_layer * kept + passing
    rows = min(B * T, HEAD_ROWS)
    return Estimate(
        parameters=weights,
        gradients=weights,
        moments=2 * weights,
        activations=4 * B * T * config.n_embd * units,
        logits=4 * rows * config.vocab_size,
        program=PROGRAM,
    )
