"""The cache lines that calls prefetch are all of a matrix, and no others."""

import numpy as np
import pytest

from npgpt.kernels.memory.prefetch import prefetch_range


def prefetched(x, calls, count):
    """The cache lines of x's memory that so many calls prefetch, counted from its first element."""
    places = set()
    for call in range(calls):
        first, stride = prefetch_range(x, call, count)
        places |= {(first + stride * i) * x.itemsize // 64 for i in range(count)}
    return places


def needed(x):
    """The cache lines that x lies in."""
    rows, columns = (np.arange(n) * stride for n, stride in zip(x.shape, x.strides, strict=True))
    return set(((rows[:, None] + columns) // 64).ravel().tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, K, count", [(48, 768, 384), (64, 256, 256), (16, 384, 384)])
def test_enough_calls_prefetch_all_of_it_and_nothing_else(n, K, count, dtype):
    rows, columns = np.zeros((n, 3 * K), dtype)[:, :K], np.zeros((K, 4 * n), dtype)[:, :n].T
    across = n * rows.itemsize // 64
    for x, enough in ((rows, n), (columns, across * K // count)):
        assert prefetched(x, enough, count) == prefetched(x, enough + 3, count) == needed(x)
        assert prefetched(x, enough - 1, count) < needed(x)


def test_of_a_row_that_is_too_long_it_prefetches_the_first_part():
    x = np.zeros((3, 1024), np.float32)
    assert prefetched(x, 1, 5) == set(range(5)) < needed(x[:1])


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (17, 33)])
def test_little_of_it_is_prefetched_whole(shape):
    for x in (np.zeros(shape, np.float32), np.zeros(shape[::-1], np.float32).T):
        assert prefetched(x, 100, 16) >= needed(x)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_there_may_be_nothing(shape):
    assert prefetched(np.zeros(shape, np.float32), 100, 16) == {0}
