"""What is fetched while a product is made is what will be packed next, and all of it."""

import numpy as np
import pytest

from npgpt.kernels.fetch import LINE, lines


def fetched(x, calls, count):
    """The cache lines of x's memory that so many calls ask for, counted from its first element."""
    places = set()
    for call in range(calls):
        first, apart = lines(x, call, count)
        places |= {(first + apart * i) // LINE for i in range(count)}
    return places


def needed(x):
    offsets = sum(
        np.arange(n).reshape(shape) * (stride // 4)
        for n, stride, shape in zip(x.shape, x.strides, [(-1, 1), (1, -1)], strict=True)
    )
    return set((offsets // LINE).ravel().tolist())


@pytest.mark.parametrize("n, K, count", [(48, 768, 384), (64, 256, 256), (16, 384, 384)])
@pytest.mark.parametrize("columns", [False, True])
def test_enough_calls_fetch_all_of_it_and_nothing_else(n, K, count, columns):
    x = np.zeros((K, 5 * n) if columns else (n, 3 * K), np.float32)
    x = x[:, :n].T if columns else x[:, :K]
    enough = n // LINE * (K // count) if columns else n
    assert fetched(x, enough, count) == needed(x)
    assert fetched(x, enough + 3, count) == needed(x)
    assert fetched(x, enough - 1, count) < needed(x)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 40), (40, 3)])
def test_there_may_be_little_of_it_or_nothing(shape):
    for x in (np.zeros(shape, np.float32), np.zeros(shape[::-1], np.float32).T):
        assert fetched(x, 100, 16) >= (needed(x) if x.size else {0})
