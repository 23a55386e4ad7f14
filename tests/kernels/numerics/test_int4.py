"""Weights in int4: the best integers and scale of each group, read by few_rows, sampled with."""

import itertools

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters, evaluate, write_checkpoint
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.kernels.numerics.int4 import GROUP, LEAST, to_int4
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows
from npgpt.kernels.products.weights import widened

pytestmark = pytest.mark.slow

CONFIG = GPT2Config(block_size=16, vocab_size=257, n_layer=2, n_head=2, n_embd=64)


def by_hand(w):
    """The numbers that values and scale stand for, in float64 by NumPy."""
    low, high = (w.values & 15).astype(int), (w.values >> 4).astype(int)
    halves = [half.reshape(*half.shape[:-1], -1, GROUP // 2) for half in (low, high)]
    integers = np.concatenate(halves, axis=-1)
    integers -= 16 * (integers > 7)
    return (integers * w.scale[..., None].astype(float)).reshape(*w.values.shape[:-1], -1)


def least_error(x):
    """The least squared error that 16 levels, -8 to 7 times a scale, can have for x (32,)."""
    candidates = np.linspace(-12, 12, 4001)
    integers = np.clip(np.rint(x * candidates[:, None] / np.abs(x).max()), -8, 7)
    squares = (integers**2).sum(-1)
    products = (integers * x).sum(-1)[squares > 0]
    return (x**2).sum() - (products**2 / squares[squares > 0]).max()


@pytest.mark.parametrize("shape", [(1, 32), (5, 64), (2, 3, 96), (700, 32)])
def test_what_is_read_is_what_is_kept(shape, rng):
    x = rng.standard_normal(shape) * 10.0 ** rng.integers(-20, 20, (*shape[:-1], 1))
    w = to_int4(x.astype(np.float32))
    assert w.values.shape == (*shape[:-1], shape[-1] // 2) and w.values.dtype == np.uint8
    assert w.scale.shape == (*shape[:-1], shape[-1] // GROUP) and w.scale.dtype == np.float32
    np.testing.assert_allclose(widened(w), by_hand(w), rtol=1e-6)
    assert (np.abs(widened(w) - x) <= 0.16 * np.abs(x).max(-1, keepdims=True)).all()


@pytest.mark.parametrize("x", [np.ones((2, 48), np.float32), np.ones((2, 32))])
def test_other_rows_and_dtypes_are_refused(x):
    with pytest.raises(AssertionError, match="float32, a multiple of 32"):
        to_int4(x)


def test_the_error_is_nearly_the_least_that_can_be(rng):
    x = rng.standard_normal((300, GROUP)).astype(np.float32)
    errors = ((widened(to_int4(x)) - x) ** 2).sum(-1)
    least = np.array([least_error(row.astype(float)) for row in x])
    assert (errors > 0.999 * least).all()  # or least_error would not be the least
    assert np.sqrt(errors.sum() / least.sum()) < 1.02


def test_what_has_been_rounded_is_kept(rng):
    x = rng.standard_normal((300, 64)).astype(np.float32)
    once = widened(to_int4(x))
    np.testing.assert_allclose(widened(to_int4(once)), once, rtol=1e-6)


def test_zeros_and_tiny_numbers_become_zeros():
    x = np.zeros((3, GROUP), np.float32)
    x[1, 3], x[2, 5] = np.finfo(np.float32).smallest_subnormal, -LEAST / 2
    assert not widened(to_int4(x)).any()


def test_every_pair_of_integers_can_be_kept():
    pairs = np.array(list(itertools.product(range(-8, 8), repeat=2)), np.float32)  # (256, 2)
    x = np.full((256, GROUP), -8, np.float32)  # of scale 1
    x[:, 1], x[:, 1 + GROUP // 2] = pairs.T
    np.testing.assert_array_equal(widened(to_int4(x)), x)


@pytest.mark.parametrize("M", [2, DOT_MAX_ROWS + 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_what_is_not_finite_makes_a_result_that_is_not(bad, M, rng):
    x, w = rng.standard_normal((M, 64)).astype("f4"), rng.standard_normal((5, 64)).astype("f4")
    w[3, 17], out = bad, np.empty((M, 5), np.float32)
    with np.errstate(invalid="ignore"):  # inf - inf: said where kernels are not compiled
        few_rows(x, to_int4(w), out)
    assert not np.isfinite(out[..., 3]).any()
    assert np.isfinite(np.delete(out, 3, axis=-1)).all()


@pytest.mark.parametrize("M", [1, 3, 6, DOT_MAX_ROWS, DOT_MAX_ROWS + 1, GEMV_MAX_ROWS])
@pytest.mark.parametrize("N, K", [(1, 32), (7, 64), (64, 96), (9, 608)])
@pytest.mark.parametrize("with_b", [True, False])
def test_few_rows_take_weights_in_int4(M, N, K, with_b, rng):
    x, b = rng.standard_normal((M, K)).astype("f4"), rng.standard_normal(N).astype("f4")
    w, out = to_int4(rng.standard_normal((N, K)).astype("f4")), np.empty((M, N), np.float32)
    few_rows(x, w, out, b if with_b else None)
    expected = x.astype(float) @ by_hand(w).T + with_b * b
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("n_embd", [48, 16])
def test_a_size_that_groups_do_not_divide_is_refused(n_embd):
    config = GPT2Config(block_size=16, vocab_size=257, n_layer=1, n_head=2, n_embd=n_embd)
    params = Parameters.init(config)
    before = params.flat.copy()
    message = f"weight_format int4 needs n_embd to be a multiple of 32, not {n_embd}"
    with pytest.raises(ArgumentError, match=message):
        GPT2(config, params=params, weight_format="int4")
    np.testing.assert_array_equal(params.flat, before)


def test_the_program_says_what_int4_costs(tmp_path, capsys, rng):
    params = Parameters.init(CONFIG, seed=3)
    params.flat *= 10
    model, tokens = str(tmp_path / "model.bin"), str(tmp_path / "tokens.bin")
    write_checkpoint(model, params)
    write_tokenizer(model, {"name": "bytes"})
    write_tokens(tokens, rng.integers(0, 257, 400).astype(np.uint16))

    def loss(*words):
        assert evaluate.main(["--model", model, "--tokens", tokens, *words]) == 0
        return float(capsys.readouterr().out.split("loss ")[1].split()[0].strip(","))

    exact, in_int8, in_int4 = (loss("--weight-format", name) for name in ("fp32", "int8", "int4"))
    assert 1e-3 < abs(in_int8 - exact) < abs(in_int4 - exact)
