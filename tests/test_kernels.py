"""Every compiled twin against its textbook: same results, interchangeable caches, repeatable."""

import subprocess
import sys

import numba
import numpy as np
import pytest

from npgpt import kernels, layers
from npgpt.gradcheck import gradcheck
from npgpt.kernels.jit import jit

TWINS = [name for name in layers.__all__ if getattr(kernels, name) is not getattr(layers, name)]
FORWARDS = [name for name in TWINS if name.endswith("_forward")]
WAYS = ("forward", "backward")
SHAPES = [(1, 1, 1), (2, 5, 7), (3, 67, 48), (4, 64, 768)]


def arguments(name, shape, dtype, rng):
    B, T, C = shape
    x = (rng.standard_normal(shape) * 2 + 0.5).astype(dtype)
    w, b = rng.standard_normal((2, C)).astype(dtype)
    return {"layernorm_forward": (x, w, b)}[name]


def test_there_are_twins_under_the_same_names_and_each_is_tested():
    assert sorted(kernels.__all__) == sorted(layers.__all__)
    assert FORWARDS
    assert set(TWINS) == {name.replace("forward", way) for name in FORWARDS for way in WAYS}


@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twin_equals_its_textbook(name, shape, dtype, rng):
    rtol = 2e-5 if dtype == np.float32 else 1e-13
    backward = name.replace("_forward", "_backward")
    args = arguments(name, shape, dtype, rng)
    out, cache = getattr(kernels, name)(*args)
    book_out, book_cache = getattr(layers, name)(*args)
    assert_close(out, book_out, rtol)
    dout = rng.standard_normal(out.shape).astype(dtype)
    expected = getattr(layers, backward)(dout, book_cache)
    for own, read in ((kernels, book_cache), (layers, cache), (kernels, cache)):
        for gradient, book in zip(getattr(own, backward)(dout, read), expected, strict=True):
            assert_close(gradient, book, rtol)


def test_a_twin_that_is_wrong_is_found(monkeypatch, rng):
    right = kernels.layernorm_backward

    def wrong(dout, cache):
        dx, dw, db = right(dout, cache)
        return dx + np.float32(1e-4) * abs(dx).max(), dw, db

    monkeypatch.setattr(kernels, "layernorm_backward", wrong)
    with pytest.raises(AssertionError):
        test_twin_equals_its_textbook("layernorm_forward", (2, 5, 7), np.float32, rng)


def assert_close(actual, expected, rtol):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * max(1, abs(expected).max()))


@pytest.mark.parametrize("name", FORWARDS)
def test_twin_repeats_bit_for_bit(name, rng):
    args = arguments(name, (3, 67, 48), np.float32, rng)
    out, cache = getattr(kernels, name)(*args)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    backward = getattr(kernels, name.replace("_forward", "_backward"))
    first = [out, *backward(dout, cache)]
    for _ in range(5):
        out, cache = getattr(kernels, name)(*args)
        for again, before in zip([out, *backward(dout, cache)], first, strict=True):
            np.testing.assert_array_equal(again, before)


def test_layernorm_twin_passes_the_gradient_check(rng):
    x, (w, b) = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 5))
    assert gradcheck(kernels.layernorm_forward, kernels.layernorm_backward, x, w, b)


def test_layernorm_twin_takes_what_is_not_contiguous(rng):
    x = rng.standard_normal((3, 2, 4)).transpose(1, 0, 2)
    w, b = rng.standard_normal((2, 4))
    out, _ = kernels.layernorm_forward(x, w, b)
    np.testing.assert_allclose(out, layers.layernorm_forward(x, w, b)[0])


def test_a_diverged_run_shows():
    x = np.array([[[1.0, np.nan, 2.0]], [[1.0, 2.0, 3.0]]], dtype=np.float32)
    out, _ = kernels.layernorm_forward(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


def test_without_a_place_for_the_cache_a_kernel_is_compiled_all_the_same(monkeypatch):
    njit = numba.njit

    def no_place(cache=False, **settings):
        if cache:
            raise RuntimeError("no locator available")
        return njit(**settings)

    monkeypatch.setattr(numba, "njit", no_place)
    assert jit(lambda x: x + 1)(2) == 3


def test_importing_npgpt_does_not_load_numba():
    code = "import npgpt, sys; sys.exit('numba' in sys.modules or 'kernels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
