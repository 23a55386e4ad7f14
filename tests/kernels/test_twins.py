"""Every compiled twin against its textbook: same results, interchangeable caches, repeatable."""

import numba
import numpy as np
import pytest
from helpers import computing_in

from npgpt import kernels, layers
from npgpt.gradcheck import gradcheck
from npgpt.kernels.decode.blocks import decode_blocks
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows
from npgpt.layers.dropout import Drop

PAIRS = ["encoder", "layernorm", "matmul", "attention", "gelu", "crossentropy", "dropout"]
SINGLES = ["adamw_update", "attention_step", "gradient_norm", "muon_update", "residual_add"]
SHAPES = [  # B, T, C
    (1, 1, 1), (2, 5, 7), (3, 67, 48), (1, 145, 33), (1, 300, 64), (1, 40, 520), (4, 64, 768)
]  # fmt: skip
DTYPES = [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def count(request):
    """Run on this many of Numba's threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(request.param, before))
    yield request.param
    numba.set_num_threads(before)


def arguments(name, shape, dtype, rng):
    """The arguments of a layer's forward, and the shape of its output."""
    B, T, C = shape
    V, OC, NH = 2 * C + 5, 3 * C + 1, {7: 7, 48: 3, 33: 1, 520: 2}.get(C, max(1, C // 64))

    def normal(*shape):
        return (rng.standard_normal(shape) * 2 + 0.5).astype(dtype)

    tokens, targets = rng.integers(0, V, (B, T)), rng.integers(-1, V, (B, T))
    targets[0, 0] = 1
    return {
        "encoder": ((tokens % 4, normal(V, C), normal(T + 2, C)), shape),
        "layernorm": ((normal(*shape), normal(C), normal(C)), shape),
        "matmul": ((normal(*shape), normal(OC, C), normal(OC)), (B, T, OC)),
        "attention": ((normal(B, T, 3 * C), NH), shape),
        "gelu": ((normal(*shape),), shape),
        "crossentropy": ((normal(*shape), normal(V, C) / C**0.5, targets), ()),
        "dropout": ((normal(*shape), Drop(0.3, 2**63 + 5, 7)), shape),
    }[name]


def as_list(gradients):
    return list(gradients) if isinstance(gradients, tuple) else [gradients]


def run(own, name, shape, dtype, seed=0, **options):
    """A layer's output, cache, a random dout and the gradients."""
    rng = np.random.default_rng(seed)
    args, out_shape = arguments(name, shape, dtype, rng)
    out, cache = getattr(own, f"{name}_forward")(*args)
    assert np.shape(out) == out_shape
    dout = rng.standard_normal(out_shape).astype(dtype)[()]
    return out, cache, dout, as_list(getattr(own, f"{name}_backward")(dout, cache, **options))


def test_there_are_twins_under_the_same_names_and_each_is_tested():
    assert set(kernels.__all__) == set(layers.__all__)
    tested = {f"{name}_{way}" for name in PAIRS for way in ("forward", "backward")} | {*SINGLES}
    assert set(layers.__all__) == tested
    for name in tested:
        assert getattr(kernels, name) is not getattr(layers, name)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_twin_equals_its_textbook(name, shape, dtype, count):
    rtol = 3e-5 if dtype == np.float32 else 1e-13
    out, cache, dout, gradients = run(kernels, name, shape, dtype)
    book_out, book_cache, _, expected = run(layers, name, shape, dtype)
    assert_close(out, book_out, rtol)
    for gradient, book in zip(gradients, expected, strict=True):
        assert_close(gradient, book, rtol)
    if name != "attention":  # the one layer whose twin keeps less
        backward = getattr(kernels, f"{name}_backward")
        for gradient, book in zip(as_list(backward(dout, book_cache)), expected, strict=True):
            assert_close(gradient, book, rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "layernorm", "matmul", "crossentropy"])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("own", [layers, kernels], ids=["textbook", "twin"])
def test_gradients_of_parameters_go_where_they_are_told(own, name, add):
    *_, gradients = run(own, name, (2, 5, 7), np.float64)
    parameters = gradients if name == "encoder" else gradients[1:]
    there = [np.full_like(gradient, 3.0) for gradient in parameters]
    *_, written = run(own, name, (2, 5, 7), np.float64, out=tuple(there), add=add)
    for gradient, target in zip(parameters, there, strict=True):
        assert any(target is array for array in written)
        np.testing.assert_allclose(target, gradient + 3.0 * add, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_with_dropout_equals_its_textbook(shape, dtype, count, rng):
    rtol = 3e-5 if dtype == np.float32 else 1e-13
    (qkv, NH), _ = arguments("attention", shape, dtype, rng)
    dout, drop = rng.standard_normal(shape).astype(dtype), Drop(0.3, 2**63 + 5, 7, 2)
    results = []
    for own in (kernels, layers):
        out, cache = own.attention_forward(qkv, NH, drop)
        results.append([out, own.attention_backward(dout, cache)])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, rtol)
    if shape[1] > 1:
        without, _ = kernels.attention_forward(qkv, NH)
        assert np.abs(without - results[0][0]).max() > 0.1


@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 4, 5, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_its_textbook_bit_for_bit(shape, dtype, count, rng):
    x = rng.standard_normal(shape).astype(dtype)
    for drop in (Drop(0.2, 0, 0), Drop(0.75, 2**64 - 1, 2**32 - 1), Drop(1 - 2**-32, 3, 1, 7)):
        out, _ = kernels.dropout_forward(x, drop)
        np.testing.assert_array_equal(out, layers.dropout_forward(x, drop)[0])


def test_a_twin_that_is_wrong_is_found(monkeypatch):
    right = kernels.layernorm_backward

    def wrong(dout, cache):
        dx, dw, db = right(dout, cache)
        return dx + np.float32(2e-4) * abs(dx).max(), dw, db

    monkeypatch.setattr(kernels, "layernorm_backward", wrong)
    with pytest.raises(AssertionError):
        test_twin_equals_its_textbook("layernorm", (2, 5, 7), np.float32, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 7, 100_003])
def test_single_functions_equal_their_textbook(dtype, N, count, rng):
    rtol = 2e-6 if dtype == np.float32 else 1e-13
    p, g, m = rng.standard_normal((3, N)).astype(dtype)
    own, book = [p.copy(), m.copy(), m**2], [p.copy(), m.copy(), m**2]
    settings = (3, 1e-2, 0.9, 0.999, 1e-8, 0.1, 0.5)
    for layer_set, (pi, mi, vi) in ((kernels, own), (layers, book)):
        layer_set.adamw_update(pi, g, mi, vi, *settings)
    for actual, expected in zip(own, book, strict=True):
        assert_close(actual, expected, rtol)
    norm = kernels.gradient_norm(g)
    assert norm == pytest.approx(layers.gradient_norm(g), rel=rtol)
    assert norm == pytest.approx(np.linalg.norm(g.astype(np.float64)), rel=rtol)
    assert_close(kernels.residual_add(p, g), layers.residual_add(p, g), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 7, 5), (3, 64, 64), (5, 192, 48)])
def test_muon_equals_its_textbook(dtype, shape, count, rng):
    p, g, m = rng.standard_normal((3, *shape)).astype(dtype)
    own, book = [p.copy(), m.copy()], [p.copy(), m.copy()]
    for layer_set, (pi, mi) in ((kernels, own), (layers, book)):
        layer_set.muon_update(pi, g, mi, 0.5, 0.9, 0.1, 0.5)
    assert_close(own[1], book[1], 2e-6 if dtype == np.float32 else 1e-13)
    assert_close(own[0] - p, book[0] - p, 2e-4 if dtype == np.float32 else 1e-11)


def test_muon_repeats_bit_for_bit_on_any_number_of_threads(rng):
    p, g, m = rng.standard_normal((3, 5, 96, 48)).astype(np.float32)
    results = []
    for threads in (1, 2, 1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, before))
        pi, mi = p.copy(), m.copy()
        kernels.muon_update(pi, g, mi, 0.5, 0.9, 0.1)
        numba.set_num_threads(before)
        results.append([pi, mi])
    for again in results[1:]:
        np.testing.assert_array_equal(again, results[0])


@pytest.mark.slow
def test_muon_in_bf16_is_as_close_as_bf16(coarse, rng):
    p, g = rng.standard_normal((2, 3, 128, 96)).astype(np.float32)
    with computing_in(coarse):
        kernels.muon_update(own := p.copy(), g, np.zeros_like(p), 1.0, 0.9, 0.0)
    layers.muon_update(book := p.copy(), g, np.zeros_like(p), 1.0, 0.9, 0.0)
    error = np.linalg.norm(own - book) / np.linalg.norm(book - p)
    assert error < (3e-2 if coarse == "bf16" else 1e-3)
    assert error > 1e-5  # it is not float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "NH", "hs"), [(1, 1, 1), (2, 3, 16), (1, 2, 64), (3, 5, 9), (1, 2, 40)]
)
@pytest.mark.parametrize(
    ("N", "at"),
    [
        (1, 0),
        (1, 1),
        (1, 144),
        (2, 6),
        (DOT_MAX_ROWS, 0),
        (DOT_MAX_ROWS + 1, 0),
        (200, 0),
        (DOT_MAX_ROWS + 1, 5),
    ],
)
def test_attention_step_equals_its_textbook(dtype, B, NH, hs, N, at, count, rng):
    rtol = 3e-5 if dtype == np.float32 else 1e-13
    qkv = rng.standard_normal((B, N, 3 * NH * hs)).astype(dtype)
    kv = rng.standard_normal((2, B, NH, at + N + 3, hs)).astype(dtype)
    book_kv = kv.copy()
    expected = layers.attention_step(qkv, book_kv, at)
    assert_close(kernels.attention_step(qkv, kv, at), expected, rtol)
    np.testing.assert_array_equal(kv, book_kv)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("M", [1, 3, 4, 6, 12, 13, 16, 17, 32, 33, 48, 49, 64])
@pytest.mark.parametrize("N", [1, 2, 5, 16, 1001])
@pytest.mark.parametrize("K", [1, 195])
def test_few_rows_equal_their_textbook_on_any_number_of_threads(dtype, M, N, K, rng):
    assert DOT_MAX_ROWS == 12 and GEMV_MAX_ROWS == 64  # as M is chosen
    x, w = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((N, K)).astype(dtype)
    b, results = rng.standard_normal(N).astype(dtype), []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, before))
        results.append(np.empty((2, M, N), dtype))
        for out, bias in zip(results[-1], (b, None), strict=True):
            few_rows(x, w, out, bias)
        numba.set_num_threads(before)
    for out, again, bias in zip(*results, (b, None), strict=True):
        np.testing.assert_array_equal(out, again)
        assert_close(
            out, layers.matmul_forward(x, w, bias)[0], 1e-6 if dtype == np.float32 else 1e-13
        )


@pytest.mark.slow
def test_steps_take_what_is_not_contiguous_or_not_writable(rng):
    def odd(*shape):
        array = rng.standard_normal((*shape, 2))[..., 0]
        array.flags.writeable = False
        return array

    x, w, b, qkv = odd(1, 2, 8), odd(5, 8), odd(5), odd(1, 2, 24)
    for weights in (w, np.ascontiguousarray(w)):
        expected, _ = layers.matmul_forward(x, weights, b)
        np.testing.assert_allclose(kernels.matmul_forward(x, weights, b)[0], expected)
    kv = np.zeros((2, 1, 4, 2, 2))
    expected = layers.attention_step(qkv, kv.copy(), 0)
    np.testing.assert_allclose(kernels.attention_step(qkv, kv, 0), expected)


@pytest.mark.parametrize(
    "kv",
    [
        np.zeros((2, 1, 2, 1, 8), np.float32)[..., ::2],
        np.zeros((2, 1, 2, 1, 4), np.float64),
        np.zeros((2, 2, 2, 1, 4), np.float32),  # of another batch
        np.zeros((2, 1, 2, 0, 4), np.float32),  # without a row for the position
        np.zeros((2, 1, 3, 1, 4), np.float32),  # of more heads
    ],
)
def test_a_step_takes_no_cache_that_is_not_of_its_kind(kv):
    with pytest.raises(AssertionError, match="kv_cache"):
        kernels.attention_step(np.ones((1, 1, 24), np.float32), kv, 0)
    with pytest.raises(AssertionError, match="kv_cache"):
        decode_blocks(np.ones((1, 1, 8), np.float32), None, kv[None], 0)


@pytest.mark.parametrize("M", [1, DOT_MAX_ROWS + 1])  # one that reads w where it is, one that packs
@pytest.mark.parametrize("w, b", [((5, 4), None), ((5, 3), (4,)), ((5, 3), (1,))])
def test_a_product_takes_no_other_shapes(M, w, b):
    b = None if b is None else np.ones(b)
    with pytest.raises(AssertionError):
        kernels.matmul_forward(np.ones((1, M, 3)), np.ones(w), b)


def test_an_embedding_needs_as_many_positions():
    tokens, wte = np.zeros((1, 3), int), np.ones((2, 4))
    with pytest.raises(AssertionError, match="wpe"):
        kernels.encoder_forward(tokens, wte, np.ones((2, 4)))


@pytest.mark.parametrize("N", [1, DOT_MAX_ROWS + 1])
def test_nan_goes_through_a_step(N):
    qkv, kv = np.ones((1, N, 24), np.float32), np.zeros((2, 1, 2, N, 4), np.float32)
    qkv[0, 0, 1] = np.nan
    assert np.isnan(kernels.attention_step(qkv, kv, 0)).any()
    assert np.isnan(kernels.matmul_forward(qkv, np.ones((5, 24), np.float32))[0][0, 0]).all()


def test_gelu_s_derivative_is_as_close_as_float32_can_be():
    x = np.concatenate([np.linspace(-20, 20, 100_001), [-1e4, -300, 300, 1e4]]).astype(np.float32)
    slope = kernels.gelu_backward(np.ones_like(x), x)
    expected = layers.gelu_backward(np.ones(x.size), x.astype(np.float64))
    assert (abs(slope - expected) < 3e-7).all()


def assert_close(actual, expected, rtol):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * max(1, abs(expected).max()))


@pytest.mark.parametrize("name", PAIRS)
def test_twin_repeats_bit_for_bit_on_any_number_of_threads(name):
    results = []
    for threads in (1, 2, 1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, before))
        out, _, _, gradients = run(kernels, name, (3, 150, 48), np.float32)
        numba.set_num_threads(before)
        results.append([out, *gradients])
    for again in results[1:]:
        for array, first in zip(again, results[0], strict=True):
            np.testing.assert_array_equal(array, first)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_twins_take_what_is_not_contiguous_or_not_writable(name, rng):
    args, shape = arguments(name, (2, 5, 8), np.float64, rng)
    expected, book_cache = getattr(layers, f"{name}_forward")(*args)
    odd = []
    for argument in args:
        if isinstance(argument, np.ndarray):
            argument = np.repeat(argument, 2, axis=-1)[..., ::2]
            argument.flags.writeable = False
        odd.append(argument)
    out, cache = getattr(kernels, f"{name}_forward")(*odd)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    dout = np.repeat(rng.standard_normal(shape), 2, axis=-1)[..., ::2] if shape else 1.0
    wanted = as_list(getattr(layers, f"{name}_backward")(dout, book_cache))
    gradients = as_list(getattr(kernels, f"{name}_backward")(dout, cache))
    for gradient, book in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, book, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["attention", "gelu", "crossentropy", "matmul"])
def test_nan_goes_through(name, rng):
    args, _ = arguments(name, (2, 5, 8), np.float32, rng)
    args[0].reshape(-1)[0] = np.nan
    out, cache = getattr(kernels, f"{name}_forward")(*args)
    assert np.isnan(out).any()
    dout = np.ones_like(out)[()]
    gradients = as_list(getattr(kernels, f"{name}_backward")(dout, cache))
    assert any(np.isnan(gradient).any() for gradient in gradients)


@pytest.mark.parametrize("size", [1e2, 1e5, 1e9, 1e11])
def test_attention_with_large_scores_is_as_exact_as_its_textbook(size, rng):
    B, T, NH, hs = 1, 130, 2, 64
    C = NH * hs
    qkv = rng.standard_normal((B, T, 3 * C)).astype(np.float32)
    qkv[..., : 2 * C] *= np.float32((size / hs**0.5) ** 0.5)  # q and k
    dout = rng.standard_normal((B, T, C)).astype(np.float32)
    _, cache = layers.attention_forward(qkv.astype(np.float64), NH)
    expected = layers.attention_backward(dout.astype(np.float64), cache)
    errors = []
    for own in (layers, kernels):
        _, cache = own.attention_forward(qkv, NH)
        errors.append(np.abs(own.attention_backward(dout, cache) - expected).max())
    # The sum in softmax's gradient is taken from out and dout, which costs a rounding of dq and dk.
    assert errors[1] < 4 * errors[0] + 1e-6 * np.abs(qkv).max()
