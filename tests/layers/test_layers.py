"""The textbook layers: gradients by differences, and what each one must do in plain numbers."""

import math

import numpy as np
import pytest

from npgpt import layers
from npgpt.checks.gradcheck import gradcheck, layer_cases
from npgpt.layers import adamw, gelu

CASES = {case[0]: case for case in layer_cases(layers, np.random.default_rng(0))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_backward_matches_numeric_gradient(name, seed):
    cases = {case[0]: case for case in layer_cases(layers, np.random.default_rng(seed))}
    _, forward, backward, arguments = cases[name]
    report = gradcheck(forward, backward, *arguments)
    assert report, report


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (3, 1, 5)])
def test_backward_matches_numeric_gradient_at_odd_shapes(shape, rng):
    B, T, C = shape
    x = rng.standard_normal(shape)
    assert gradcheck(layers.layernorm_forward, layers.layernorm_backward, x, *rng.random((2, C)))
    w = rng.standard_normal((4, C))
    assert gradcheck(layers.matmul_forward, layers.matmul_backward, x, w)
    qkv = rng.standard_normal((B, T, 3 * C))
    assert gradcheck(layers.attention_forward, layers.attention_backward, qkv, C)
    targets = rng.integers(0, 4, (B, T))
    assert gradcheck(layers.crossentropy_forward, layers.crossentropy_backward, x, w, targets)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_nothing_given_is_changed(name, dtype):
    _, forward, backward, arguments = CASES[name]
    arguments = [
        a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in arguments
    ]
    before = [np.copy(a) for a in arguments]
    out, cache = forward(*arguments)
    gradients = backward(np.ones_like(out), cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert {out.dtype, *(g.dtype for g in gradients)} == {np.dtype(dtype)}
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_encoder_adds_position_and_accumulates_repeated_tokens():
    tokens = np.array([[2, 2, 0]])
    wte, wpe = np.arange(6.0).reshape(3, 2), np.array([[10.0, 20], [30, 40], [50, 60], [70, 80]])
    out, cache = layers.encoder_forward(tokens, wte, wpe)
    np.testing.assert_array_equal(out, [[[14, 25], [34, 45], [50, 61]]])
    dwte, dwpe = layers.encoder_backward(np.array([[[1.0, 2], [3, 4], [5, 6]]]), cache)
    np.testing.assert_array_equal(dwte, [[5, 6], [0, 0], [4, 6]])
    np.testing.assert_array_equal(dwpe, [[1, 2], [3, 4], [5, 6], [0, 0]])


def test_layernorm_gives_mean_b_and_standard_deviation_w(rng):
    x = rng.standard_normal((2, 3, 64)) * 9 + 4
    out, _ = layers.layernorm_forward(x, np.full(64, 2.0), np.full(64, 0.5))
    np.testing.assert_allclose(out.mean(-1), 0.5, atol=1e-12)
    np.testing.assert_allclose(out.std(-1), 2, rtol=1e-6)


def test_layernorm_of_a_constant_row_is_b():
    out, cache = layers.layernorm_forward(np.full((1, 1, 4), 3.0), np.ones(4), np.arange(4.0))
    np.testing.assert_array_equal(out[0, 0], np.arange(4))
    dx, _, _ = layers.layernorm_backward(np.ones((1, 1, 4)), cache)
    assert np.isfinite(dx).all()


def test_matmul_without_a_bias_has_no_gradient_for_it(rng):
    x, w = rng.standard_normal((2, 3, 4)), rng.standard_normal((5, 4))
    out, cache = layers.matmul_forward(x, w)
    np.testing.assert_allclose(out, np.einsum("btc,oc->bto", x, w))
    assert layers.matmul_backward(out, cache)[2] is None


def test_attention_equals_its_definition_row_by_row(rng):
    B, T, NH, hs = 2, 5, 3, 4
    qkv = rng.standard_normal((B, T, 3 * NH * hs))
    out, _ = layers.attention_forward(qkv, NH)
    for b, t, h in np.ndindex(B, T, NH):
        q, k, v = (
            qkv[b, :, part * NH * hs + h * hs :][: t + 1, :hs] for part in range(3)
        )  # up to t, never beyond
        weights = np.array([math.exp(q[t] @ k[s] / math.sqrt(hs)) for s in range(t + 1)])
        expected = weights / weights.sum() @ v
        np.testing.assert_allclose(out[b, t, h * hs : (h + 1) * hs], expected, rtol=1e-12)


def test_attention_sees_no_future(rng):
    qkv = rng.standard_normal((1, 6, 12))
    out, _ = layers.attention_forward(qkv, 2)
    qkv[:, 4:] += 100
    changed, _ = layers.attention_forward(qkv, 2)
    np.testing.assert_array_equal(out[:, :4], changed[:, :4])
    assert (out[:, 4:] != changed[:, 4:]).all()


@pytest.mark.parametrize("parts", [[7], [1] * 7, [3, 1, 2, 1]])
def test_attention_in_steps_is_attention_at_once(parts, rng):
    qkv = rng.standard_normal((2, 7, 3 * 12))
    expected, _ = layers.attention_forward(qkv, 3)
    kv = np.full((2, 2, 3, 9, 4), np.nan)  # with room for more than there will be
    at, out = 0, []
    for N in parts:
        out.append(layers.attention_step(qkv[:, at : at + N], kv, at))
        at += N
    np.testing.assert_allclose(np.concatenate(out, axis=1), expected, rtol=1e-12)
    assert np.isnan(kv[..., 7:, :]).all() and np.isfinite(kv[..., :7, :]).all()


def test_attention_survives_large_scores():
    qkv = np.full((1, 3, 6), 1e4, dtype=np.float32)
    out, cache = layers.attention_forward(qkv, 1)
    assert np.isfinite(out).all()
    assert np.isfinite(layers.attention_backward(out, cache)).all()


@pytest.mark.parametrize(("x", "expected"), [(0, 0), (1, 0.841192), (-1, -0.158808), (3, 2.996363)])
def test_gelu_has_the_values_of_its_tanh_form(x, expected):
    out, _ = layers.gelu_forward(np.array([float(x)]))
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_gelu_is_the_identity_far_right_and_zero_far_left():
    x = np.array([-1e4, 1e4], dtype=np.float32)
    out, cache = layers.gelu_forward(x)
    np.testing.assert_array_equal(out, [0, 1e4])
    np.testing.assert_array_equal(layers.gelu_backward(np.ones_like(x), cache), [0, 1])


def test_gelu_of_a_long_array_is_the_gelu_of_each_element(rng):
    x, dout = rng.standard_normal((2, 3, gelu.CHUNK + 5))  # pieces that end within a row
    out, cache = layers.gelu_forward(x)
    np.testing.assert_allclose(out[:, ::1000], layers.gelu_forward(x[:, ::1000])[0])
    dx = layers.gelu_backward(dout, cache)
    np.testing.assert_allclose(
        dx[:, ::1000], layers.gelu_backward(dout[:, ::1000], x[:, ::1000]), atol=1e-15
    )
    assert (out[-1, -1] != 0) and (dx[-1, -1] != 0)


def test_crossentropy_of_equal_logits_is_log_V():
    x, wte, targets = np.zeros((2, 3, 4)), np.ones((7, 4)), np.full((2, 3), 5)
    loss, _ = layers.crossentropy_forward(x, wte, targets)
    assert loss == pytest.approx(math.log(7))


def test_crossentropy_leaves_out_ignored_targets(rng):
    x, wte = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 3))
    targets = np.array([[1, -1, 2, -1], [-1, -1, 4, 0]])
    loss, cache = layers.crossentropy_forward(x, wte, targets)
    kept = targets != -1
    alone, alone_cache = layers.crossentropy_forward(x[kept][None], wte, targets[kept][None])
    assert loss == pytest.approx(alone)
    dx, dwte = layers.crossentropy_backward(1.0, cache)
    alone_dx, alone_dwte = layers.crossentropy_backward(1.0, alone_cache)
    np.testing.assert_allclose(dx[kept], alone_dx[0])
    np.testing.assert_array_equal(dx[~kept], 0)
    np.testing.assert_allclose(dwte, alone_dwte)


def test_crossentropy_survives_large_logits():
    x = np.array([[[1e4]]], dtype=np.float32)
    wte = np.array([[1], [-1], [0]], dtype=np.float32)
    loss, cache = layers.crossentropy_forward(x, wte, np.array([[1]]))
    assert loss == 2e4
    assert all(np.isfinite(g).all() for g in layers.crossentropy_backward(1.0, cache))


def test_adamw_equals_its_definition_for_three_steps():
    lr, beta1, beta2, eps, weight_decay = 0.1, 0.9, 0.99, 1e-8, 0.05
    p, m, v = np.array([2.0, -1.0]), np.zeros(2), np.zeros(2)
    expected, em, ev = [2.0, -1.0], [0.0, 0.0], [0.0, 0.0]
    for t, g in enumerate([[0.5, -3.0], [0.25, 1.0], [-1.0, 0.0]], start=1):
        layers.adamw_update(p, np.array(g), m, v, t, lr, beta1, beta2, eps, weight_decay)
        for i in range(2):
            em[i] = beta1 * em[i] + (1 - beta1) * g[i]
            ev[i] = beta2 * ev[i] + (1 - beta2) * g[i] ** 2
            mhat, vhat = em[i] / (1 - beta1**t), ev[i] / (1 - beta2**t)
            step = mhat / (math.sqrt(vhat) + eps) + weight_decay * expected[i]
            expected[i] -= lr * step
    np.testing.assert_allclose(p, expected, rtol=1e-12)
    np.testing.assert_allclose([m, v], [em, ev], rtol=1e-12)


def test_adamw_decay_is_decoupled_from_the_gradient():
    p, m, v = np.array([4.0]), np.zeros(1), np.zeros(1)
    layers.adamw_update(p, np.zeros(1), m, v, 1, 0.1, 0.9, 0.999, 1e-8, 0.5)
    np.testing.assert_allclose(p, 4 * (1 - 0.1 * 0.5))
    np.testing.assert_array_equal([m, v], 0)


def test_adamw_updates_every_piece_of_a_long_buffer(rng):
    g = rng.standard_normal(2 * adamw.CHUNK + 3, dtype=np.float32)
    p, m, v = np.zeros((3, g.size), np.float32)
    layers.adamw_update(p, g, m, v, 1, 0.1, 0.9, 0.999, 0.0, 0.0)
    np.testing.assert_allclose(p, -0.1 * np.sign(g), rtol=1e-5)  # the first step's size is lr
    assert p.dtype == np.float32
