"""The matrix product in full precision: any shape and layout, and nothing beside its output."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, computing_in

import npgpt
from npgpt.errors import ArgumentError
from npgpt.kernels.products import blas
from npgpt.kernels.products.gemm import (
    A_PANELS,
    KC,
    ROWS_SIZE,
    multiply_for,
    new_panels,
    pack,
    pack_panels,
    panels_size,
)
from npgpt.kernels.products.product import product
from npgpt.kernels.products.tile import MR


@pytest.fixture(params=blas.WAYS)
def way(request, monkeypatch):
    """Products by NumPy's BLAS, and by the kernel."""
    monkeypatch.setenv(blas.VARIABLE, request.param)
    called = []
    right = blas.product_blas
    monkeypatch.setattr(blas, "product_blas", lambda *of: called.append(1) or right(*of))
    yield request.param
    assert bool(called) == (request.param == "blas")


@pytest.mark.parametrize("layout", ["xy", "Xy", "xY", "XY"])  # a capital letter: transposed
@pytest.mark.parametrize("M", [1, 8, 13, 300])
@pytest.mark.parametrize("K", [1, 17, 256, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("N", [1, 48, 50, 56, 64, pytest.param(1600, marks=pytest.mark.slow)])
def test_product_of_any_shape_and_layout(layout, M, K, N, rng, way):
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_in_the_workspace_does_not_matter(dtype, rng, monkeypatch):
    """Panels that are filled in part keep in the rest what was there, which no result may use."""
    module = sys.modules[product.__module__]
    monkeypatch.setattr(module, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
    for M, K, N in ((13, 17, 50), (8, 9, 16), (65, 300, 65), (3, 5, 7)):
        x, y = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
        for left in (x, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
            for right in (y, np.asfortranarray(y), np.repeat(y, 2, 1)[:, ::2]):
                out = np.empty((M, N), dtype)
                product(left, right, out)
                np.testing.assert_allclose(out, x @ y, atol=1e-4)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("n", [1, MR, 2 * MR + 3, 6 * MR + 5])
def test_a_panel_has_the_rows_and_the_rest_is_left(n, layout, rng):
    P, K = 3 * MR, MR + 1
    x, panels = layout(rng.standard_normal((n, K))), np.full((-(-n // P), K, P), 7.0)
    pack(x, panels)
    rows = panels.transpose(0, 2, 1).reshape(-1, K)
    np.testing.assert_array_equal(rows[:n], x)
    assert (rows[n:] == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("M", "K", "N"),
    [
        (1, 1, 1),
        (2 * MR, 20, 48),
        (3 * MR + 1, 300, 130),
        (A_PANELS * MR, 300, 130),
        ((2 * A_PANELS + 1) * MR + 1, 300, 130),
    ],
)
def test_panels_serve_for_fewer_rows_and_columns_too(M, K, N, dtype, rng):
    b = rng.standard_normal((K, N)).astype(dtype)
    flat = np.empty(panels_size(K, N), dtype)
    panels = new_panels(flat, K, N)
    assert panels.shape[2] == min(K, KC) and panels.size <= flat.size
    pack_panels(b, panels)
    scratch, multiply = np.full(ROWS_SIZE + 9, 7.0, dtype), multiply_for(np.dtype(dtype))
    for k, n in ((K, N), (-(-K // 2), -(-N // 3))):
        a = rng.standard_normal((M, k)).astype(dtype)
        for left in (a, np.asfortranarray(a)):
            out = np.ones((M, n), dtype)
            multiply(left, panels, out, out, scratch[:ROWS_SIZE])
            np.testing.assert_allclose(out, 1 + a @ b[:k, :n], atol=1e-3)
            assert (scratch[ROWS_SIZE:] == 7).all()


def test_a_product_without_terms_is_what_it_starts_from(way):
    x, y, b, out = np.empty((3, 0)), np.empty((0, 4)), np.arange(4.0), np.ones((3, 4))
    product(x, y, out, add=True)
    assert (out == 1).all()
    product(x, y, out, b=b)
    assert (out == b).all()
    product(x, y, out)
    assert (out == 0).all()


def test_blas_adds_in_blocks_of_rows(rng, monkeypatch):
    monkeypatch.setattr(blas, "ADD_ELEMENTS", 700)
    monkeypatch.setattr(blas, "ADD_MIN_ROWS", 3)
    for M, N in ((25, 100), (1, 900), (7, 350), (0, 5), (5, 0)):
        x, y, out = rng.standard_normal((M, 9)), rng.standard_normal((9, N)), np.ones((M, N))
        blas.product_blas(x, y, out, add=True)
        np.testing.assert_allclose(out, 1 + x @ y, atol=1e-12)


def test_infinities_are_no_warning_in_either_way(way):
    x, out = np.full((4, 4), np.inf, np.float32), np.zeros((4, 4), np.float32)
    product(x, np.zeros_like(x), out)
    assert np.isnan(out).all()
    product(x, np.zeros_like(x), out, add=True)
    assert np.isnan(out).all()


@pytest.mark.slow
def test_bf16_is_not_for_blas(monkeypatch, bf16_hardware, rng):
    monkeypatch.setenv(blas.VARIABLE, "blas")
    monkeypatch.setattr(blas, "product_blas", None)
    x, out = rng.standard_normal((9, 9), np.float32), np.zeros((9, 9), np.float32)
    with computing_in("bf16"):
        product(x, x, out)
    np.testing.assert_allclose(out, x @ x, atol=0.1)


@pytest.mark.parametrize(
    ("system", "machine", "way"),
    [
        ("Darwin", "arm64", "blas"), ("Darwin", "x86_64", "kernel"), ("Linux", "x86_64", "kernel"),
        ("Linux", "aarch64", "kernel"), ("Windows", "AMD64", "kernel"),
    ],
)  # fmt: skip
def test_a_platform_has_its_way_and_the_environment_another(system, machine, way, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    for word in (None, ""):
        if word is None:
            monkeypatch.delenv(blas.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(blas.VARIABLE, word)
        assert blas.way() == way
    for word in blas.WAYS:
        monkeypatch.setenv(blas.VARIABLE, word)
        assert blas.way() == word


def test_another_word_is_refused_before_a_model_is_made(monkeypatch):
    monkeypatch.setenv(blas.VARIABLE, "mkl")
    with pytest.raises(ArgumentError, match="^NPGPT_PRODUCTS must be blas or kernel, not 'mkl'$"):
        npgpt.GPT2(npgpt.GPT2Config(8, 9, 1, 1, 16))
    npgpt.GPT2(npgpt.GPT2Config(8, 9, 1, 1, 16), backend="numpy")  # has no such products


def test_training_by_blas_is_training_by_the_kernel(rng, monkeypatch):
    tokens, targets = rng.integers(0, 99, (2, 4, 32))
    losses = {}
    for word in blas.WAYS:
        monkeypatch.setenv(blas.VARIABLE, word)
        model = npgpt.GPT2(npgpt.GPT2Config(32, 99, 2, 2, 48))
        losses[word] = []
        for _ in range(3):
            for add in (False, True):
                loss = model.forward_backward(tokens, targets, dloss=0.5, add=add)
            losses[word].append(loss)
            model.update(1e-2)
    assert losses["blas"][0] - losses["blas"][-1] > 0.1
    np.testing.assert_allclose(losses["blas"], losses["kernel"], atol=1e-5)


def test_the_check_against_pytorch_passes_by_blas():
    def check(word):
        return subprocess.run(
            [sys.executable, "-m", "npgpt.test_gpt2", "--backend", "numba"], cwd=ROOT, text=True,
            env={**os.environ, blas.VARIABLE: word}, capture_output=True,
        )  # fmt: skip

    assert check("blas").returncode == 0
    done = check("fast")
    assert done.returncode == 2
    assert done.stderr == "error: NPGPT_PRODUCTS must be blas or kernel, not 'fast'\n"
