"""The gradient check finds what is wrong with a backward pass and accepts what is right."""

import numpy as np
import pytest

import npgpt
from npgpt import ArgumentError, Parameters, layers
from npgpt import gradcheck as program
from npgpt.checks.gradcheck import Report, gradcheck, gradcheck_gpt2, layer_cases, tiny_gpt2
from npgpt.gradcheck import main
from npgpt.layers import attention
from npgpt.model import passes

CASES = {case[0]: case for case in layer_cases(layers, np.random.default_rng(0))}


def test_the_program_offers_what_notebooks_take_from_it():
    from npgpt import gradcheck as program
    from npgpt.checks import gradcheck as library

    for name in ("gradcheck", "gradcheck_gpt2", "Report", "Row"):
        assert getattr(program, name) is getattr(library, name)
        assert name in program.__all__


def failed(report):
    """The arguments whose gradient is NOT OK."""
    return [row.argument for row in report.rows if not row.ok]


def test_embedding_backward_that_overwrites_is_caught():
    def overwriting(dout, cache):
        tokens, wte, wpe = cache
        _, dwpe = layers.encoder_backward(dout, cache)
        dwte = np.zeros_like(wte)
        dwte[tokens] = dout
        return dwte, dwpe

    _, forward, _, arguments = CASES["encoder"]
    assert failed(gradcheck(forward, overwriting, *arguments)) == ["dwte"]


def test_layernorm_backward_without_its_third_term_is_caught():
    def two_terms(dout, cache):
        x, w, mean, rstd = cache
        _, dw, db = layers.layernorm_backward(dout, cache)
        dxhat = dout * w
        return rstd * (dxhat - dxhat.mean(-1, keepdims=True)), dw, db

    _, forward, _, arguments = CASES["layernorm"]
    assert failed(gradcheck(forward, two_terms, *arguments)) == ["dx"]


def test_attention_backward_without_the_mask_is_caught(rng):
    def unmasked(dout, cache):
        qkv, att = cache
        q, k, _ = attention.split_heads(qkv, att.shape[1])
        att = np.exp(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5)
        return layers.attention_backward(dout, (qkv, att / att.sum(-1, keepdims=True)))

    _, forward, _, arguments = CASES["attention"]
    assert failed(gradcheck(forward, unmasked, *arguments)) == ["dqkv"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dout, drop: dout,
        lambda dout, drop: layers.dropout_backward(dout, drop._replace(site=drop.site + 1)),
        lambda dout, drop: layers.dropout_backward(dout, drop) * (1 - drop.rate),
    ],
    ids=["without it", "of another site", "unscaled"],
)
def test_dropout_backward_with_other_elements_than_forward_is_caught(wrong):
    _, forward, backward, arguments = CASES["dropout"]
    assert failed(gradcheck(forward, wrong, *arguments)) == ["dx"]
    assert gradcheck(forward, backward, *arguments)


def test_a_small_error_in_one_element_is_caught_and_located():
    def nearly(dout, cache):
        dx, dw, db = layers.matmul_backward(dout, cache)
        dw[2, 3] *= 1 + 1e-4
        return dx, dw, db

    _, forward, _, arguments = CASES["matmul"]
    report = gradcheck(forward, nearly, *arguments)
    assert failed(report) == ["dw"]
    assert "NOT OK at [2, 3]" in str(report)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_transposed_gradient_is_caught_whatever_the_arguments_were_drawn_from(seed):
    """Were dout equal to x, dw would be x.T @ x, and transposed the same."""

    def transposed(dout, cache):
        dx, dw, db = layers.matmul_backward(dout, cache)
        return dx, dw.T, db

    rng = np.random.default_rng(seed)
    x, w, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 4)), rng.standard_normal(4)
    report = gradcheck(layers.matmul_forward, transposed, x, w, b, seed=seed)
    assert failed(report) == ["dw"]


def test_nan_and_wrong_shapes_are_caught():
    _, forward, _, (x,) = CASES["gelu"]
    assert failed(gradcheck(forward, lambda dout, cache: dout * np.nan, x)) == ["dx"]
    report = gradcheck(forward, lambda dout, cache: layers.gelu_backward(dout, cache)[0], x)
    assert failed(report) == ["dx"]
    assert "backward returned shape (5, 6)" in str(report)


def test_what_changes_its_input_is_not_believed(rng):
    x = rng.standard_normal((2, 3))

    def doubled(dout, cache):  # in place: it must not double what it is checked with
        dout *= 2
        return dout

    assert failed(gradcheck(lambda x: (x + 0, None), doubled, x)) == ["dx"]
    assert gradcheck(lambda x: (x * 2, None), doubled, x)

    def centred(x):
        x -= x.mean()
        return x, None

    with pytest.raises(ArgumentError, match="changes one of forward's arguments"):
        gradcheck(centred, lambda dout, cache: dout - dout.mean(), x)


def test_a_missing_gradient_is_refused():
    _, forward, backward, arguments = CASES["matmul"]
    with pytest.raises(ArgumentError, match="2 gradients for 3 arrays of floats: x, w, b"):
        gradcheck(forward, lambda *a: backward(*a)[:2], *arguments)
    with pytest.raises(ArgumentError, match="at least one array of floats"):
        gradcheck(forward, backward, 1, 2)


def test_float32_arguments_are_checked_in_float64_and_stay_what_they_were(rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    before = x.copy()
    assert gradcheck(layers.gelu_forward, layers.gelu_backward, x)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, before)


def test_whole_gpt2_is_checked_in_all_sixteen_gradients(rng):
    model = tiny_gpt2("numpy", rng)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, 5))
    report = gradcheck_gpt2(model, tokens, targets)
    assert report, report
    assert len(report.rows) == 16


@pytest.mark.slow
@pytest.mark.parametrize("place", ["encoder_drop", "attproj_drop", "fcproj_drop"])
def test_whole_gpt2_that_forgets_a_dropout_in_its_backward_pass_is_caught(rng, monkeypatch, place):
    params = Parameters(npgpt.GPT2Config(3, 5, 1, 2, 4), dtype=np.float64)
    params.flat[:] = rng.standard_normal(params.flat.size) * 0.5
    model = npgpt.GPT2(params.config, params=params, backend="numpy")
    tokens, targets = rng.integers(0, 5, (2, 2, 3))
    kind = passes.BodyCache if place == "encoder_drop" else passes.BlockCache

    class Forgetful(kind):
        def __getattribute__(self, name):
            return None if name == place else super().__getattribute__(name)

    monkeypatch.setattr(passes, kind.__name__, Forgetful)
    assert gradcheck_gpt2(model, tokens, targets)
    assert "dwpe" in failed(gradcheck_gpt2(model, tokens, targets, dropout=0.3))


@pytest.mark.slow
def test_whole_gpt2_without_a_residual_is_caught(rng, monkeypatch):
    model = tiny_gpt2("numpy", rng)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, 3))
    right = passes.block_backward
    monkeypatch.setattr(passes, "block_backward", lambda dx, *a: right(dx, *a) - dx)
    wrong = failed(gradcheck_gpt2(model, tokens, targets))
    assert "dwpe" in wrong
    assert "dlnfw" not in wrong


@pytest.mark.slow
def test_whole_gpt2_that_forgets_the_heads_part_of_wte_is_caught(rng, monkeypatch):
    model = tiny_gpt2("numpy", rng)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, 3))
    right = layers.crossentropy_backward

    def without_dwte(dloss, cache, out, add):
        dx, dwte = right(dloss, cache)
        out[0][:] = 0
        return dx, dwte

    monkeypatch.setattr(layers, "crossentropy_backward", without_dwte)
    assert failed(gradcheck_gpt2(model, tokens, targets)) == ["dwte"]


def test_whole_gpt2_with_a_wrong_attention_is_caught(rng, monkeypatch):
    model = tiny_gpt2("numpy", rng)
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, 3))
    right = layers.attention_backward
    monkeypatch.setattr(layers, "attention_backward", lambda *a: right(*a) * 0.999)
    wrong = failed(gradcheck_gpt2(model, tokens, targets))
    assert "dqkvw" in wrong  # it comes after attention in the backward pass
    assert "dfcprojw" in wrong  # it does so in the first layer
    assert "dlnfw" not in wrong  # it comes before


@pytest.mark.slow
def test_the_program_shows_a_row_for_each_layer_and_argument(capsys):
    assert main(["--backend", "numpy"]) == 0  # numba: .ci/run
    rows = capsys.readouterr().out.splitlines()
    for name, _, _, _ in layer_cases(layers, np.random.default_rng(0)):
        assert any(row.startswith(name) and row.endswith("OK") for row in rows)
    for name in ("whole GPT-2", "with dropout"):
        assert sum(row.startswith(name) for row in rows) == 16
    assert rows[-1] == "overall okay: True"


def test_the_program_ends_with_1_where_a_gradient_is_wrong(monkeypatch, capsys):
    right = layers.gelu_backward
    monkeypatch.setattr(layers, "gelu_backward", lambda *a: right(*a) + 1e-3)
    monkeypatch.setattr(program, "gradcheck_gpt2", lambda *a, **k: Report([]))  # takes long
    assert main(["--backend", "numpy"]) == 1
    out = capsys.readouterr().out
    assert "NOT OK" in out
    assert out.endswith("overall okay: False\n")


def test_the_program_refuses_a_bad_seed(capsys):
    assert main(["--seed", "-1"]) == 2
    assert capsys.readouterr().err == "error: --seed must be at least 0, not -1\n"


@pytest.mark.parametrize("returned", [np.zeros((2, 3)), [np.zeros(3), None], (np.zeros(3),)])
def test_a_forward_pass_without_its_cache_is_told(returned):
    with pytest.raises(ArgumentError, match=r"forward must return a tuple \(out, cache\), not"):
        gradcheck(lambda x: returned, lambda dout, cache: dout, np.zeros((2, 3)))
