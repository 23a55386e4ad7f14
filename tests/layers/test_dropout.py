"""Dropout's random numbers by their known answers, and what they decide."""

import numpy as np
import pytest

from npgpt.kernels.numerics import philox as twin
from npgpt.layers.dropout import Drop, dropout_backward, dropout_forward, kept, philox

# Random123's tests/kat_vectors, its lines "philox4x32 10": counter, key, result
KNOWN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""
VECTORS = [[int(word, 16) for word in line.split()] for line in KNOWN.strip().splitlines()]


@pytest.mark.parametrize("words", VECTORS)
def test_the_random_numbers_are_those_of_the_paper_s_authors(words):
    counter, (k0, k1), expected = words[:4], words[4:6], words[6:]
    assert [int(word) for word in philox(counter, k0 + (k1 << 32))] == expected
    assert [int(word) for word in twin.philox(*map(np.uint64, words[:6]))] == expected


def test_a_counter_of_arrays_is_each_of_its_numbers():
    row = np.arange(3)[:, None]
    words = philox((np.arange(5), row, 7, 0), 9)
    for i in range(3):
        for j in range(5):
            assert [int(w[i, j]) for w in words] == [int(w) for w in philox((j, i, 7, 0), 9)]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_the_rate_says_and_the_mean_stays(rate):
    n = 1 << 20
    x = np.ones((1024, 1024))
    out, _ = dropout_forward(x, Drop(rate, 5, 1))
    error = (rate * (1 - rate) / n) ** 0.5  # the standard error of the fraction
    assert abs((out == 0).mean() - rate) < 4 * error
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-8)
    assert abs(out.mean() - 1) < 4 * error / (1 - rate)


def test_neighbours_are_dropped_independently():
    mask = kept(1000, 1003, Drop(0.5, 1, 0)) * 2.0 - 1  # +-1: products have mean 0
    for rows, columns in ((1, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 1)):
        product = mask[rows:, columns:] * mask[: len(mask) - rows, : 1003 - columns]
        assert abs(product.mean()) < 4e-3  # four standard errors


def test_another_key_or_site_is_another_mask():
    drop = Drop(0.5, 1, 0)
    base = kept(64, 64, drop)
    np.testing.assert_array_equal(kept(64, 64, drop), base)
    for other in (Drop(0.5, 2, 0), Drop(0.5, 1 + 2**32, 0), Drop(0.5, 1, 1)):
        assert 0.4 < (kept(64, 64, other) == base).mean() < 0.6
    np.testing.assert_array_equal(
        kept(64, 64, Drop(0.3, 1, 0)) | base, kept(64, 64, Drop(0.3, 1, 0))
    )


@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 9), (6, 2, 3, 3)])
def test_parts_drop_what_the_whole_drops(shape, rng):
    x, drop = rng.standard_normal(shape), Drop(0.4, 11, 2)
    whole, _ = dropout_forward(x, drop)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        part, _ = dropout_forward(x[start:stop], drop._replace(before=start))
        np.testing.assert_array_equal(part, whole[start:stop])
    assert (dropout_forward(x[4:], drop)[0] != whole[4:]).any()


def test_the_gradient_goes_where_the_forward_pass_went(rng):
    x, dout = rng.standard_normal((2, 3, 5, 7))
    drop = Drop(0.4, 11, 2)
    out, cache = dropout_forward(x, drop)
    dx = dropout_backward(dout, cache)
    np.testing.assert_allclose(dx, np.where(out == 0, 0, dout / 0.6), rtol=1e-8)
    assert 0 < np.count_nonzero(dx) < dx.size
