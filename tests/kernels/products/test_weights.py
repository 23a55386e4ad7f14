"""Weights in each format, widened to float32: the numbers they stand for, bit for bit."""

import numba
import numpy as np
import pytest

from npgpt.kernels.products.weights import widened
from npgpt.model.quantization import quantize_to_bf16, quantize_to_int4, quantize_to_int8

pytestmark = pytest.mark.slow

QUANTIZE = {"bf16": quantize_to_bf16, "int8": quantize_to_int8, "int4": quantize_to_int4}


def by_hand(w):
    """The numbers of weights in a format, float32, by NumPy."""
    if w.values.dtype == np.uint16:
        return (w.values.astype(np.uint32) << 16).view(np.float32)
    if w.values.dtype == np.int8:
        return w.values * w.scale[..., None]
    halves = [(w.values & 15).astype(int), (w.values >> 4).astype(int)]
    groups = [half.reshape(*half.shape[:-1], -1, 16) for half in halves]
    integers = np.concatenate(groups, axis=-1)  # (..., N, K / 32, 32)
    integers -= 16 * (integers > 7)
    numbers = integers.astype(np.float32) * w.scale[..., None]
    return numbers.reshape(*numbers.shape[:-2], -1)


@pytest.mark.parametrize("name", QUANTIZE)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 32), (7, 96), (3, 5, 64), (1, 1, 320)])
def test_widened_weights_are_the_numbers_they_stand_for(name, threads, shape, rng):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("needs two threads")
    w = QUANTIZE[name](rng.standard_normal(shape, np.float32))
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        numbers = widened(w)
    finally:
        numba.set_num_threads(before)
    assert numbers.dtype == np.float32 and numbers.shape == shape
    np.testing.assert_array_equal(numbers, by_hand(w))


@pytest.mark.parametrize("name", ["bf16", "int8"])
@pytest.mark.parametrize("K", [1, 15, 17, 50])
def test_rows_need_not_be_whole_vectors(name, K, rng):
    w = QUANTIZE[name](rng.standard_normal((3, K), np.float32))
    np.testing.assert_array_equal(widened(w), by_hand(w))


@pytest.mark.parametrize("name", QUANTIZE)
def test_what_is_tiny_or_not_finite_stays_so(name, rng):
    x = rng.standard_normal((4, 64), np.float32)
    x[0] *= 1e-36
    x[1, 5], x[2, 7] = np.inf, np.nan
    w = QUANTIZE[name](x)
    with np.errstate(invalid="ignore"):
        numbers, expected = widened(w), by_hand(w)
    np.testing.assert_array_equal(numbers, expected)
    assert np.isfinite(numbers[[0, 3]]).all() and not np.isfinite(numbers[[1, 2]]).all(-1).any()


@pytest.mark.parametrize("name", QUANTIZE)
def test_rows_of_weights_are_these_rows(name, rng):
    w, row_ids = QUANTIZE[name](rng.standard_normal((9, 64), np.float32)), np.array([8, 0, 3, 3])
    np.testing.assert_array_equal(widened(w.rows(row_ids)), widened(w)[row_ids])


@pytest.mark.parametrize("name", QUANTIZE)
def test_a_layer_of_weights_is_this_layer(name, rng):
    w = QUANTIZE[name](rng.standard_normal((3, 5, 64), np.float32))
    np.testing.assert_array_equal(widened(w.layer(2)), widened(w)[2])
    np.testing.assert_array_equal(widened(w.layer(...)), widened(w))
