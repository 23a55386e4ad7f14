"""Attention on bf16 hardware, against the textbook in float64."""

import numba
import numpy as np
import pytest
from helpers import computing_in

from npgpt import kernels, layers
from npgpt.kernels.heads.bf16 import BLOCK_ROWS
from npgpt.layers.dropout import Drop

pytestmark = pytest.mark.slow

BOUNDS = {"bf16x3": (1e-7, 2e-5), "bf16": (5e-4, 1e-2)}  # of the relative error in the L2 norm
SHAPES = [  # B, T, NH, hs
    (1, 1, 1, 64),
    (2, 5, 3, 16),
    (1, BLOCK_ROWS, 2, 64),
    (2, BLOCK_ROWS + 1, 2, 20),
    (1, 2 * BLOCK_ROWS + 3, 1, 100),
    (1, 3 * BLOCK_ROWS - 7, 5, 48),
    (1, 2 * BLOCK_ROWS, 1, BLOCK_ROWS),
    (1, BLOCK_ROWS + 1, 1, 200),
]


def operands(rng, B, T, NH, hs):
    qkv = rng.standard_normal((B, T, 3 * NH * hs), np.float32)
    return qkv, rng.standard_normal((B, T, NH * hs), np.float32)


def both_ways(backend, qkv, dout, NH, *drop):
    out, cache = backend.attention_forward(qkv, NH, *drop)
    return out, backend.attention_backward(dout, cache)


@pytest.mark.parametrize("B, T, NH, hs", SHAPES)
@pytest.mark.parametrize("drop", [(), (Drop(0.3, 5, 9),)], ids=["all", "dropout"])
def test_it_is_near_the_textbook(B, T, NH, hs, drop, coarse, rng):
    least, most = BOUNDS[coarse]
    qkv, dout = operands(rng, B, T, NH, hs)
    exact = both_ways(layers, qkv.astype(float), dout.astype(float), NH, *drop)
    with computing_in(coarse):
        results = both_ways(kernels, qkv, dout, NH, *drop)
    for result, wanted in zip(results, exact, strict=True):
        assert least < np.linalg.norm(result - wanted) / np.linalg.norm(wanted) < most


@pytest.mark.parametrize("B, T, NH, hs", SHAPES)
def test_it_stays_within_its_room(B, T, NH, hs, coarse, monkeypatch, rng):
    guard, workspaces = 1000, []

    def guarded(shape, dtype):
        size = int(np.prod(shape))
        workspaces.append(np.full(size + guard, 7, dtype))
        return workspaces[-1][:size].reshape(shape)

    monkeypatch.setattr("npgpt.kernels.heads.bf16.empty", guarded)
    qkv, dout = operands(rng, B, T, NH, hs)
    with computing_in(coarse):
        both_ways(kernels, qkv, dout, NH)
    assert len(workspaces) == 9
    assert all(
        (workspace[-guard:] == 7).all() and (workspace[:-guard] != 7).any()
        for workspace in workspaces
    )


def test_the_past_knows_nothing_of_the_future(coarse, rng):
    T, t = 2 * BLOCK_ROWS, BLOCK_ROWS + 30
    qkv, dout = operands(rng, 1, T, 2, 64)
    dout[:, t:] = 0
    with computing_in(coarse):
        out, dqkv = both_ways(kernels, qkv, dout, 2)
        qkv[:, t:] = rng.standard_normal((1, T - t, qkv.shape[2]))
        other_out, other_dqkv = both_ways(kernels, qkv, dout, 2)
    np.testing.assert_array_equal(out[:, :t], other_out[:, :t])
    np.testing.assert_array_equal(dqkv[:, :t], other_dqkv[:, :t])
    assert (dqkv[:, t:] == 0).all() and (out[:, t:] != other_out[:, t:]).any()


def test_a_number_that_is_none_goes_through(coarse, rng):
    qkv, dout = operands(rng, 1, BLOCK_ROWS + 1, 1, 16)
    qkv[0, BLOCK_ROWS, 0] = np.nan
    with computing_in(coarse):
        out, dqkv = both_ways(kernels, qkv, dout, 1)
    assert np.isnan(out[0, BLOCK_ROWS]).all() and np.isfinite(out[0, :BLOCK_ROWS]).all()
    assert np.isnan(dqkv).any()


@pytest.mark.usefixtures("hardware")
def test_it_is_the_same_on_any_number_of_threads(rng, numba_threads):
    qkv, dout = operands(rng, 1, BLOCK_ROWS + 30, 3, 64)
    results = []
    for count in (1, 2):
        numba_threads(count)
        assert numba.get_num_threads() == count
        with computing_in("bf16"):
            results.append(both_ways(kernels, qkv, dout, 3))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
