"""The matrix product in full precision: any shape and layout, and nothing beside its output."""

import numpy as np
import pytest

from npgpt.kernels.products.product import product


@pytest.mark.parametrize("layout", ["xy", "Xy", "xY", "XY"])  # a capital letter: transposed
@pytest.mark.parametrize("M", [1, 8, 13, 300])
@pytest.mark.parametrize("K", [1, 17, 256, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("N", [1, 48, 50, 56, 64, pytest.param(1600, marks=pytest.mark.slow)])
def test_product_of_any_shape_and_layout(layout, M, K, N, rng):
    x, y = rng.standard_normal((M, K)), rng.standard_normal((K, N))
    expected = x @ y
    x = np.asfortranarray(x) if "X" in layout else x
    y = np.asfortranarray(y) if "Y" in layout else y
    out = np.full((M, N + 2), 7.0)
    product(x, y, out[:, 1:-1])
    np.testing.assert_allclose(out[:, 1:-1], expected, atol=1e-12)
    product(x, y, out[:, 1:-1], b=np.arange(N, dtype=np.float64))
    np.testing.assert_allclose(out[:, 1:-1], expected + np.arange(N), atol=1e-11)
    product(x, y, out[:, 1:-1], add=True)
    np.testing.assert_allclose(out[:, 1:-1], 2 * expected + np.arange(N), atol=1e-11)
    assert (out[:, [0, -1]] == 7).all()  # nothing is written beside


def test_a_product_without_terms_is_what_it_starts_from():
    x, y, b, out = np.empty((3, 0)), np.empty((0, 4)), np.arange(4.0), np.ones((3, 4))
    product(x, y, out, add=True)
    assert (out == 1).all()
    product(x, y, out, b=b)
    assert (out == b).all()
    product(x, y, out)
    assert (out == 0).all()
