"""Weights in int8: rounded to the nearest, read by gemv_rows, and sampled with."""

import copy

import numpy as np
import pytest

from npgpt import (
    GPT2,
    ArgumentError,
    GPT2Config,
    Parameters,
    evaluate,
    train_gpt2,
    write_checkpoint,
)
from npgpt.core.parameters import MATRICES
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.kernels.numerics.int8 import QMAX, to_int8
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows

pytestmark = pytest.mark.slow

CONFIG = GPT2Config(block_size=16, vocab_size=257, n_layer=2, n_head=3, n_embd=48)
ROUNDED = [name for name in MATRICES if name != "wpe"]


def widened(w):
    return w.values * w.scale[..., None].astype(float)


def by_hand(w):
    """to_int8 and back, in float64 by NumPy."""
    scale = np.abs(w.astype(float)).max(-1, keepdims=True) / QMAX
    return np.rint(w / scale) * scale


@pytest.fixture
def params():
    """Of a model that says many things."""
    params = Parameters.init(CONFIG, seed=3)
    for name in MATRICES:
        getattr(params, name)[...] *= 10
    return params


@pytest.fixture
def model_file(tmp_path, params):
    path = tmp_path / "model.bin"
    write_checkpoint(path, params)
    write_tokenizer(path, {"name": "bytes"})
    return str(path)


@pytest.mark.parametrize("shape", [(1, 1), (5, 64), (2, 3, 100), (700, 33)])
def test_each_row_is_rounded_to_the_nearest_of_its_own_scale(shape, rng):
    x = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, (*shape[:-1], 1))
    w = to_int8(x.astype(np.float32))
    assert w.values.shape == shape and w.values.dtype == np.int8
    assert w.scale.shape == shape[:-1] and w.scale.dtype == np.float32
    assert (np.abs(w.values).max(-1) == QMAX).all()
    assert (np.abs(widened(w) - x) <= 0.5001 * w.scale[..., None]).all()
    again = to_int8(widened(w).astype(np.float32))
    assert (again.values == w.values).all()


def test_zeros_stay_zeros():
    x = np.zeros((3, 40), np.float32)
    x[1, 3] = np.finfo(np.float32).smallest_subnormal  # it has no scale that a float32 could hold
    x[2, 5] = 1e-37  # of its scale, a float32 could not hold the inverse
    assert not to_int8(x).values.any()


@pytest.mark.parametrize("M", [2, DOT_MAX_ROWS + 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_makes_a_result_that_is_not(bad, M, rng):
    x, w = rng.standard_normal((M, 40)).astype("f4"), rng.standard_normal((5, 40)).astype("f4")
    w[3, 17], out = bad, np.empty((M, 5), np.float32)
    with np.errstate(invalid="ignore"):  # 0 times inf: said where kernels are not compiled
        few_rows(x, to_int8(w), out)
    assert not np.isfinite(out[..., 3]).any()
    assert np.isfinite(np.delete(out, 3, axis=-1)).all()


@pytest.mark.parametrize("M", [1, 3, DOT_MAX_ROWS, DOT_MAX_ROWS + 1, GEMV_MAX_ROWS])
@pytest.mark.parametrize("N, K", [(1, 1), (7, 50), (64, 48), (9, 600)])
@pytest.mark.parametrize("with_b", [True, False])
def test_few_rows_take_weights_in_int8(M, N, K, with_b, rng):
    x, b = rng.standard_normal((M, K)).astype("f4"), rng.standard_normal(N).astype("f4")
    w, out = to_int8(rng.standard_normal((N, K)).astype("f4")), np.empty((M, N), np.float32)
    few_rows(x, w, out, b if with_b else None)
    expected = x.astype(float) @ widened(w).T + with_b * b
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("B, T", [(1, 1), (1, 30), (3, 2)])
def test_sampling_in_int8_says_nearly_what_float32_says(B, T, params, rng):
    tokens = rng.integers(0, 257, (B, T))
    exact, in_int8 = (
        GPT2(CONFIG, params=copy.deepcopy(params), weight_format=name).generate(
            tokens, 9, temperature=0
        )
        for name in ("fp32", "int8")
    )
    assert (exact == in_int8)[:, T:].mean() > 0.5
    assert len(np.unique(exact[:, T:])) > 2


def test_it_needs_no_bf16_hardware(params, monkeypatch, rng):
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: False)
    tokens = rng.integers(0, 257, (1, 3))
    assert GPT2(CONFIG, params=params, weight_format="int8").generate(tokens, 5).shape == (1, 8)
    with pytest.raises(ArgumentError, match="precision bf16 needs a CPU with"):
        GPT2(CONFIG, params=params, precision="bf16")


def test_the_program_says_what_int8_costs(model_file, params, tmp_path, capsys, rng):
    tokens = str(tmp_path / "tokens.bin")
    write_tokens(tokens, rng.integers(0, 257, 400).astype(np.uint16))

    def loss(model, *words):
        assert evaluate.main(["--model", str(model), "--tokens", tokens, *words]) == 0
        return float(capsys.readouterr().out.split("loss ")[1].split()[0].strip(","))

    in_int8 = loss(model_file, "--weight-format", "int8")
    for name in ROUNDED:
        w = getattr(params, name)
        w[...] = by_hand(w)
    write_checkpoint(tmp_path / "rounded.bin", params)
    write_tokenizer(tmp_path / "rounded.bin", {"name": "bytes"})
    assert in_int8 == pytest.approx(loss(tmp_path / "rounded.bin"), abs=2e-4)
    assert abs(in_int8 - loss(model_file)) > 1e-3


def test_what_does_not_sample_refuses_it(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        train_gpt2.main(["--run", str(tmp_path / "run"), "--precision", "int8"])
    assert stopped.value.code == 2 and "int8" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="weight_format int8 needs backend numba"):
        GPT2(CONFIG, weight_format="int8", backend="numpy")
