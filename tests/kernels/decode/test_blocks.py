"""All blocks in one kernel: as the textbook has them, in every format that weights can have."""

import numba
import numpy as np
import pytest

from npgpt import GPT2, GPT2Config, Parameters, layers
from npgpt.core.parameters import BLOCK_NAMES, MATRICES
from npgpt.kernels.decode.blocks import decode_blocks
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS
from npgpt.kernels.products.weights import widened
from npgpt.model.decoder import Decoder, block_step
from npgpt.model.fused_decoder import FewRows
from npgpt.model.quantization import float_parameters

L, NH, V, C = 3, 4, 29, 32
CONFIG = GPT2Config(block_size=2 * GEMV_MAX_ROWS, vocab_size=V, n_layer=L, n_head=NH, n_embd=C)
KINDS = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8, "int4": np.uint8}


def model_in(weight_format, dtype=np.float32):
    """A model whose every parameter counts."""
    rng = np.random.default_rng(5)
    params = Parameters.init(CONFIG, seed=3, dtype=dtype)
    params.flat += 0.3 * rng.standard_normal(params.flat.shape).astype(dtype)
    return GPT2(CONFIG, params=params, weight_format=weight_format)


@pytest.fixture(
    params=["fp32", *(pytest.param(n, marks=pytest.mark.slow) for n in ("bf16", "int8", "int4"))]
)
def weight_format(request):
    return request.param


def test_matrices_alone_are_read_in_the_format(weight_format):
    model = model_in(weight_format)
    blocks = model.decoder().stacked_blocks
    for name in BLOCK_NAMES:
        if name in MATRICES:
            assert getattr(blocks, name).values.dtype == KINDS[weight_format]
        else:
            assert getattr(blocks, name) is getattr(model.params, name)


@pytest.mark.parametrize(
    "B, N",
    [
        (1, 1),
        (3, 2),
        (1, DOT_MAX_ROWS),
        (DOT_MAX_ROWS + 1, 1),
        (1, GEMV_MAX_ROWS),
        (GEMV_MAX_ROWS, 1),
        (GEMV_MAX_ROWS + 1, 1),
    ],
)
def test_positions_one_after_the_other_are_the_textbooks(B, N, weight_format, rng):
    model, unrounded = model_in(weight_format), model_in("fp32")
    textbook, wrong = (Decoder(float_parameters(m.params), layers) for m in (model, unrounded))
    decoder = model.decoder()
    kvs = np.zeros((3, L, 2, B, NH, 2 * N, C // NH), np.float32)
    for at in (0, N):
        tokens = rng.integers(0, V, (B, N))
        here = [kv[..., : at + N, :] for kv in kvs]
        made = decoder.step(tokens, here[0], at)
        expected = textbook.step(tokens, here[1], at)
        np.testing.assert_allclose(made, expected, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(kvs[0], kvs[1], rtol=2e-4, atol=2e-4)
        if weight_format != "fp32":
            other = wrong.step(tokens, here[2], at)
            assert np.abs(made - other).max() > 1e-2


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@pytest.mark.parametrize("B", [1, 5, DOT_MAX_ROWS + 1, GEMV_MAX_ROWS])
def test_one_thread_and_two_give_the_same_bits(B, weight_format, rng):
    model, tokens = model_in(weight_format), rng.integers(0, V, (B, 1))
    kvs, logits = np.zeros((2, L, 2, B, NH, 1, C // NH), np.float32), []
    before = numba.get_num_threads()
    try:
        for count, kv in enumerate(kvs, 1):
            numba.set_num_threads(count)
            logits.append(model.decoder().step(tokens, kv, 0))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*logits)
    np.testing.assert_array_equal(*kvs)


@pytest.mark.parametrize(
    "B, T, way",
    [
        (1, DOT_MAX_ROWS, "one kernel"),
        (DOT_MAX_ROWS, 1, "one kernel"),
        (1, DOT_MAX_ROWS + 1, "few rows"),
        (GEMV_MAX_ROWS, 1, "few rows"),
        (1, GEMV_MAX_ROWS + 1, "layers"),
        (GEMV_MAX_ROWS + 1, 1, "layers"),
    ],
)
def test_how_positions_are_computed(B, T, way, weight_format, monkeypatch, rng):
    model, seen, whole = model_in(weight_format), [], []

    def one_kernel(*args):
        seen.append("one kernel")
        return decode_blocks(*args)

    def one_block(x, p, kv, pos, layers):
        seen.append("few rows" if isinstance(layers, FewRows) else "layers")
        return block_step(x, p, kv, pos, layers)

    monkeypatch.setattr("npgpt.model.fused_decoder.decode_blocks", one_kernel)

    def widen(w):
        whole.append(w.values.shape)
        return widened(w)

    monkeypatch.setattr("npgpt.model.decoder.block_step", one_block)
    monkeypatch.setattr("npgpt.model.quantized_layers.widened", widen)
    model.generate(rng.integers(0, V, (B, T)), 1)
    assert seen == [way] * (1 if way == "one kernel" else L)
    if weight_format != "fp32":
        matrices = 0 if way != "layers" else 4 * L + (B > GEMV_MAX_ROWS)
        assert len(whole) == 1 + matrices and whole[0][0] == B * T  # the rows of the tokens


def test_what_it_is_given_stays_as_it_is(rng):
    model = model_in("fp32")
    blocks = model.decoder().stacked_blocks
    x = rng.standard_normal((2, 1, C)).astype("f4")
    before, weights = x.copy(), model.params.flat.copy()
    out = decode_blocks(x, blocks, np.zeros((L, 2, 2, NH, 4, C // NH), "f4"), 0)
    assert out.shape == x.shape and np.abs(out - x).max() > 0.1
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model.params.flat, weights)
