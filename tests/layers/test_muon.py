"""Muon's textbook against plain versions in float64, by singular values and element by element."""

import numpy as np
import pytest

from npgpt import layers
from npgpt.layers import muon
from npgpt.layers.muon import muon_update, orthogonalize

SHAPES = [(1, 1), (5, 5), (12, 5), (5, 12), (1, 7), (48, 192)]


def plain(x, coefficients=(3.4445, -4.7750, 2.0315), iterations=5):
    """The same by what it does to singular values, taken apart from x by the SVD in float64."""
    a, b, c = coefficients
    u, s, vt = np.linalg.svd(x.astype(np.float64) / (np.linalg.norm(x) + 1e-7), full_matrices=False)
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return u @ np.diag(s) @ vt


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_its_polynomial_of_each_singular_value(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    before, out = x.copy(), orthogonalize(x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, plain(x), atol=2e-4 if dtype == np.float32 else 1e-10)
    np.testing.assert_array_equal(x, before)


def test_another_polynomial_is_noticed(rng):
    x = rng.standard_normal((5, 12))
    for other in ({"coefficients": (3.4445, -4.7750, 2.0)}, {"iterations": 4}):
        assert np.abs(orthogonalize(x) - plain(x, **other)).max() > 1e-2


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e15])
def test_all_singular_values_are_near_one_whatever_the_size(size, rng):
    x = size * rng.standard_normal((24, 96))
    values = np.linalg.svd(orthogonalize(x), compute_uv=False)
    if size == 1e-20:  # so far below EPS that there is no direction in it, only rounding
        assert values.max() < 1e-8
    else:
        assert 0.6 < values.min() and values.max() < 1.25


def test_a_step_is_that_of_nesterov_s_momentum_times_the_root_of_the_aspect(rng):
    for rows, cols, aspect in ((6, 4, 1.5), (4, 6, 1.0), (8, 2, 4.0)):
        p, m = rng.standard_normal((3, rows, cols)), np.zeros((3, rows, cols))
        expected, mean = p.copy(), np.zeros((3, rows, cols))
        for _ in range(4):
            g = rng.standard_normal((3, rows, cols))
            muon_update(p, g, m, 0.1, 0.8, 0.3, 0.25)
            mean = 0.8 * mean + 0.2 * 0.25 * g
            for i in range(3):
                step = plain(0.8 * mean[i] + 0.2 * 0.25 * g[i])
                expected[i] = expected[i] * (1 - 0.1 * 0.3) - 0.1 * aspect**0.5 * step
            np.testing.assert_allclose(m, mean, rtol=1e-12)
            np.testing.assert_allclose(p, expected, atol=1e-10)


def test_each_matrix_is_orthogonalized_by_itself(rng):
    p, g = rng.standard_normal((2, 4, 6, 6))
    g[1] *= 1000
    whole, m = p.copy(), np.zeros_like(p)
    muon_update(whole, g, m, 0.1, 0.9, 0.0)
    for i in range(4):
        alone = p[i : i + 1].copy()
        muon_update(alone, g[i : i + 1], np.zeros((1, 6, 6)), 0.1, 0.9, 0.0)
        np.testing.assert_array_equal(alone[0], whole[i])


def test_without_a_gradient_a_matrix_only_decays():
    for kind in (layers, muon):
        p, m = np.full((1, 3, 3), 2.0, np.float32), np.zeros((1, 3, 3), np.float32)
        kind.muon_update(p, np.zeros_like(p), m, 0.1, 0.9, 0.5)
        np.testing.assert_allclose(p, 2 * (1 - 0.1 * 0.5), rtol=1e-6)
        assert not m.any()
