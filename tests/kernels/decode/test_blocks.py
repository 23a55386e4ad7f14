"""All blocks in one kernel: as the textbook has them, in every precision that weights can have."""

from types import SimpleNamespace

import numba
import numpy as np
import pytest

from npgpt import GPT2, GPT2Config, Parameters, layers
from npgpt.core.parameters import BLOCK_NAMES, MATRICES
from npgpt.kernels.decode.blocks import decode_blocks
from npgpt.kernels.products.gemv import GEMV_MAX_ROWS
from npgpt.model.generation import forward_step, parameters_for_few

L, NH, V, C = 3, 4, 29, 32
CONFIG = GPT2Config(block_size=16, vocab_size=V, n_layer=L, n_head=NH, n_embd=C)
KINDS = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}


def model_in(precision, dtype=np.float32):
    """A model whose every parameter counts."""
    rng = np.random.default_rng(5)
    params = Parameters.init(CONFIG, seed=3, dtype=dtype)
    params.flat += 0.3 * rng.standard_normal(params.flat.shape).astype(dtype)
    return GPT2(CONFIG, params=params, precision=precision)


def exact(w):
    """What a matrix of parameters_for_few stands for."""
    values, scale = w if isinstance(w, tuple) else (w, np.empty((len(w), 0)))
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values * (scale[..., None] if scale.size else 1.0)


def textbook(few, params):
    """The same parameters for the textbook's layers."""
    whole = Parameters(CONFIG, params.flat.copy())
    for name in set(MATRICES) & set(BLOCK_NAMES):
        getattr(whole, name)[...] = exact(getattr(few.blocks, name))
    return SimpleNamespace(
        wte=params.wte, wpe=params.wpe, blocks=whole.blocks,
        lnfw=params.lnfw, lnfb=params.lnfb, head=exact(few.head),
    )  # fmt: skip


@pytest.fixture(params=KINDS)
def precision(request):
    if request.param == "bf16":
        request.getfixturevalue("bf16_hardware")
    return request.param


def test_matrices_alone_are_rounded(precision):
    model = model_in(precision)
    few = parameters_for_few(model)
    for name in BLOCK_NAMES:
        if name in MATRICES:
            assert getattr(few.blocks, name).values.dtype == KINDS[precision]
        else:
            assert getattr(few.blocks, name) is getattr(model.params, name)
    assert few.wte is model.params.wte and few.wpe is model.params.wpe
    assert (few.head is few.wte) == (precision == "fp32")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_model_of_float64_is_not_rounded(precision, request):
    if precision == "bf16":
        request.getfixturevalue("bf16_hardware")
    few = parameters_for_few(model_in(precision, np.float64))
    assert few.blocks.fcw.values.dtype == few.head.dtype == np.float64


@pytest.mark.parametrize("B, N", [(1, 1), (1, GEMV_MAX_ROWS), (3, 2), (GEMV_MAX_ROWS, 1)])
def test_positions_one_after_the_other_are_the_textbooks(B, N, precision, rng):
    model = model_in(precision)
    few = parameters_for_few(model)
    kvs = np.zeros((3, L, 2, B, NH, 2 * N, C // NH), np.float32)

    def logits(tokens, kv, at, p, layers):
        return forward_step(tokens, kv[..., : at + N, :], at, p, layers)

    for at in (0, N):
        tokens = rng.integers(0, V, (B, N))
        made = logits(tokens, kvs[0], at, few, model.layers)
        expected = logits(tokens, kvs[1], at, textbook(few, model.params), layers)
        np.testing.assert_allclose(made, expected, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(kvs[0], kvs[1], rtol=2e-4, atol=2e-4)
        if precision != "fp32":
            assert np.abs(made - logits(tokens, kvs[2], at, model.params, layers)).max() > 1e-2


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@pytest.mark.parametrize("B", [1, 5, GEMV_MAX_ROWS])
def test_one_thread_and_two_give_the_same_bits(B, precision, rng):
    model, tokens = model_in(precision), rng.integers(0, V, (B, 1))
    kvs, logits = np.zeros((2, L, 2, B, NH, 1, C // NH), np.float32), []
    before = numba.get_num_threads()
    try:
        for count, kv in enumerate(kvs, 1):
            numba.set_num_threads(count)
            few = parameters_for_few(model)
            logits.append(forward_step(tokens, kv, 0, few, model.layers))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*logits)
    np.testing.assert_array_equal(*kvs)


def test_it_is_taken_for_few_positions_alone(precision, monkeypatch, rng):
    """More are multiplied with the weights as they are, in any precision."""
    model, seen = model_in(precision), []

    def spied(tokens, kv, at, p, layers):
        seen.append((tokens.size, p is model.params))
        return forward_step(tokens, kv, at, p, layers)

    monkeypatch.setattr("npgpt.model.generation.forward_step", spied)
    for B, T in ((1, 1), (1, GEMV_MAX_ROWS), (1, GEMV_MAX_ROWS + 1), (GEMV_MAX_ROWS + 1, 1)):
        model.generate(rng.integers(0, V, (B, T)), 2)
    few, many = False, True
    assert seen == [
        (1, few), (1, few), (GEMV_MAX_ROWS, few), (1, few), (GEMV_MAX_ROWS + 1, many), (1, few),
        (GEMV_MAX_ROWS + 1, many), (GEMV_MAX_ROWS + 1, many),
    ]  # fmt: skip


def test_what_it_is_given_stays_as_it_is(rng):
    model = model_in("fp32")
    few = parameters_for_few(model)
    x = rng.standard_normal((2, 1, C)).astype("f4")
    before, weights = x.copy(), model.params.flat.copy()
    out = decode_blocks(x, few.blocks, np.zeros((L, 2, 2, NH, 4, C // NH), "f4"), 0)
    assert out.shape == x.shape and np.abs(out - x).max() > 0.1
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model.params.flat, weights)
