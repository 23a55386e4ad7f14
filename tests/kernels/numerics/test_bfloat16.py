"""bf16 weights: rounded to the nearest, read by gemv_rows, and sampled with."""

import numpy as np
import pytest

from npgpt import GPT2, GPT2Config, Parameters, layers
from npgpt.core.parameters import MATRICES
from npgpt.kernels.numerics.bfloat16 import BLOCK, as_float, to_bf16
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows

pytestmark = pytest.mark.slow

CONFIG = GPT2Config(block_size=9, vocab_size=13, n_layer=2, n_head=3, n_embd=12)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def floats(*bits):
    return np.array(bits, np.uint32).view(np.float32)


def test_each_element_becomes_the_nearest_bf16(rng):
    x = rng.standard_normal((3, BLOCK // 2 + 5)) * 10.0 ** rng.integers(-30, 30, (3, 1))
    x = x.astype(np.float32)
    bits = to_bf16(x)
    assert bits.shape == x.shape and bits.dtype == np.uint16
    error = np.abs(widened(bits).astype(float) - x)
    for neighbour in (-1, 1):
        beside = widened((bits.astype(int) + neighbour).astype(np.uint16))
        assert (error <= np.abs(beside.astype(float) - x)).all()
    assert error.any()


@pytest.mark.parametrize(
    ("bits", "half"),
    [
        (0x3F808000, 0x3F80),  # halfway between two: the even one, here below
        (0x3F818000, 0x3F82),  # and here above
        (0x3F808001, 0x3F81),
        (0x80000000, 0x8000),  # -0
        (0x7F7FFFFF, 0x7F80),  # the largest float32 is infinite
        (0xFF800000, 0xFF80),  # -inf
        (0x00000001, 0x0000),
    ],
)
def test_ties_and_the_ends_of_the_range(bits, half):
    assert to_bf16(floats(bits))[0] == half


def test_nan_stays_nan():
    assert np.isnan(widened(to_bf16(floats(0x7FC00000, 0xFFFFFFFF, 0x7F800001)))).all()


def test_a_number_is_itself_or_what_its_bits_stand_for():
    assert as_float(np.float32(1.5)) == 1.5
    assert as_float(np.uint16(0x3FC0)) == 1.5


@pytest.mark.parametrize("M", [1, 3, DOT_MAX_ROWS, DOT_MAX_ROWS + 1, GEMV_MAX_ROWS])
@pytest.mark.parametrize("N, K", [(1, 1), (7, 50), (64, 48), (9, 600)])
def test_few_rows_take_weights_in_bf16(M, N, K, rng):
    x, b = rng.standard_normal((M, K)).astype("f4"), rng.standard_normal(N).astype("f4")
    w, out = to_bf16(rng.standard_normal((N, K)).astype("f4")), np.empty((M, N), np.float32)
    few_rows(x, w, out, b)
    expected, _ = layers.matmul_forward(x.astype(float), widened(w).astype(float), b.astype(float))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def speaking():
    """A model that says many things."""
    params = Parameters.init(CONFIG, seed=3)
    for name in MATRICES:
        getattr(params, name)[...] *= 25
    params.lnfw[:] = np.random.default_rng(3).standard_normal(CONFIG.n_embd)
    return params


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("B, T", [(1, 1), (1, 30), (3, 2)])
def test_sampling_in_bf16_says_nearly_what_float32_says(B, T, cache, rng):
    tokens = rng.integers(0, 13, (B, T))
    exact, in_bf16 = (
        GPT2(CONFIG, params=speaking(), weight_format=name).generate(
            tokens, 9, temperature=0, cache=cache
        )
        for name in ("fp32", "bf16")
    )
    assert (exact == in_bf16)[:, T:].mean() > 0.8
    assert len(np.unique(exact[:, T:])) > 2
