"""The sizes of a GPT-2: what is published, and what is no size."""

import numpy as np
import pytest

from npgpt import PUBLISHED, ArgumentError, GPT2Config
from npgpt.core.parameters import count_parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("124M", 124_439_808),
        ("355M", 354_823_168),
        ("774M", 774_030_080),
        ("1558M", 1_557_611_200),
    ],
)
def test_published_sizes_have_their_number_of_parameters(name, count):
    assert count_parameters(PUBLISHED[name]) == count


@pytest.mark.parametrize("field", ["block_size", "vocab_size", "n_layer", "n_head", "n_embd"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "12", None, True])
def test_what_is_no_size_is_refused(field, value):
    with pytest.raises(ArgumentError, match=f"{field} must be an integer of at least 1, not"):
        GPT2Config(**{field: value})


def test_numpys_integers_are_sizes():
    config = GPT2Config(n_embd=np.int32(1 << 20), n_head=np.int64(16))
    assert config == GPT2Config(n_embd=1 << 20, n_head=16)
    assert count_parameters(config) > 2**40


def test_n_head_has_to_divide_n_embd():
    with pytest.raises(ArgumentError, match="n_embd must be divisible by n_head: 48 by 5 is not"):
        GPT2Config(n_embd=48, n_head=5)
