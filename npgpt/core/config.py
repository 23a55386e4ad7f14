"""The sizes of a GPT-2."""

from dataclasses import dataclass, fields
from numbers import Integral

from npgpt.errors import ArgumentError


def is_integer(value):
    """Whether value is a Python or NumPy integer, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class GPT2Config:
    """The five numbers that make a GPT-2. The defaults are the 124M model's.

    Raises ArgumentError where a size is not an integer of at least 1 or n_embd % n_head is not 0.
    """

    block_size: int = 1024  # maxT: the longest context, the rows of wpe
    vocab_size: int = 50257  # V: the rows of wte, without any padding
    n_layer: int = 12  # L
    n_head: int = 12  # NH
    n_embd: int = 768  # C

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_integer(value) or value < 1:
                raise ArgumentError(f"{field.name} must be an integer of at least 1, not {value!r}")
            object.__setattr__(self, field.name, int(value))  # NumPy's integers overflow
        if self.n_embd % self.n_head:
            raise ArgumentError(
                f"n_embd must be divisible by n_head: {self.n_embd} by {self.n_head} is not"
            )


PUBLISHED = {
    "124M": GPT2Config(n_layer=12, n_head=12, n_embd=768),
    "355M": GPT2Config(n_layer=24, n_head=16, n_embd=1024),
    "774M": GPT2Config(n_layer=36, n_head=20, n_embd=1280),
    "1558M": GPT2Config(n_layer=48, n_head=25, n_embd=1600),
}
