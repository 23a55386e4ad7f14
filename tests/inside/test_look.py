"""What is seen inside a model, against loops, the model's own results and the textbook's layers."""

import math
import sys

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, layers
from npgpt.data.tokenizer import CharsTokenizer, get_tokenizer
from npgpt.inside import early_logits, layer_times, logit_lens, look, tensor_norms, token_labels

TIMES = sys.modules["npgpt.inside.layer_times"]  # the name there is the function


@pytest.fixture(params=["numpy", "numba"])
def model(request, params):
    return GPT2(params.config, params=params, backend=request.param)


@pytest.fixture
def seen(model, state):
    return look(model, state.x[:, :9])


def test_every_row_of_attention_adds_up_to_1_and_sees_nothing_of_the_future(model, seen):
    c = model.config
    assert seen.att.shape == (c.n_layer, 4, c.n_head, 9, 9)
    np.testing.assert_allclose(seen.att.sum(-1), 1, atol=1e-6)
    assert (seen.att[..., np.triu(np.ones((9, 9), bool), 1)] == 0).all()
    assert (seen.att[..., np.tril(np.ones((9, 9), bool))] > 0).all()


def test_attention_and_stream_are_those_of_the_layers_one_by_one(model, seen, state):
    x, _ = layers.encoder_forward(state.x[:, :9], model.params.wte, model.params.wpe)
    stream = [x]
    for p, att in zip(model.params.blocks, seen.att, strict=True):
        ln1, _ = layers.layernorm_forward(x, p.ln1w, p.ln1b)
        qkv, _ = layers.matmul_forward(ln1, p.qkvw, p.qkvb)
        atty, (_, expected) = layers.attention_forward(qkv, model.config.n_head)
        np.testing.assert_array_equal(att, expected)
        x = x + layers.matmul_forward(atty, p.attprojw, p.attprojb)[0]
        stream.append(x)
        ln2, _ = layers.layernorm_forward(x, p.ln2w, p.ln2b)
        act, _ = layers.gelu_forward(layers.matmul_forward(ln2, p.fcw, p.fcb)[0])
        x = x + layers.matmul_forward(act, p.fcprojw, p.fcprojb)[0]
        stream.append(x)
    np.testing.assert_array_equal(seen.residual, stream)
    assert seen.places == ["embedding", "attention 0", "mlp 0", "attention 1", "mlp 1"]
    np.testing.assert_array_equal(seen.tokens, state.x[:, :9])


def test_a_change_of_the_last_token_shows_at_its_position_alone(model, seen):
    tokens = seen.tokens.copy()
    tokens[:, -1] = (tokens[:, -1] + 1) % model.config.vocab_size
    other = look(model, tokens)
    np.testing.assert_array_equal(other.residual[:, :, :-1], seen.residual[:, :, :-1])
    assert (other.residual[:, :, -1] != seen.residual[:, :, -1]).any(-1).all()


def test_norms_are_those_of_explicit_loops(seen):
    P, B, T, C = seen.residual.shape
    for i in range(P):
        for b in range(B):
            for t in range(T):
                squares = sum(float(seen.residual[i, b, t, c]) ** 2 for c in range(C))
                assert seen.norms[i, b, t] == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_the_lens_of_the_last_place_is_the_models_own_output(model, seen):
    logits = model.forward(seen.tokens)
    np.testing.assert_allclose(early_logits(model, seen.residual[-1]), logits, atol=2e-5)
    probs = np.exp(logits.astype(np.float64))
    probs /= probs.sum(-1, keepdims=True)
    lens = logit_lens(model, seen.residual)
    assert lens.tokens.shape == lens.probs.shape == seen.residual.shape[:3]
    np.testing.assert_array_equal(lens.tokens[-1], logits.argmax(-1))
    np.testing.assert_allclose(lens.probs[-1], probs.max(-1), rtol=1e-4)
    assert (lens.tokens[0] != lens.tokens[-1]).any()  # the places do not all say the same


def test_the_lens_at_the_embedding_has_seen_no_other_position(model, seen):
    lens = logit_lens(model, seen.residual)
    alone = logit_lens(model, look(model, seen.tokens[:, :1]).residual)
    np.testing.assert_allclose(alone.probs[0], lens.probs[0, :, :1], rtol=1e-4)


def test_tensor_norms_are_those_of_the_gradients(model, state):
    model.forward_backward(state.x, state.y)
    norms = tensor_norms(model.grads)
    assert list(norms) == [name for name, _ in model.grads.items()]
    squares = 0.0
    for name, norm in norms.items():
        view = getattr(model.grads, name).astype(np.float64)
        parts = [view] if np.ndim(norm) == 0 else list(view)
        for part, number in zip(parts, np.atleast_1d(norm), strict=True):
            assert number == pytest.approx(math.sqrt((part * part).sum()), rel=1e-5)
        squares += np.sum(np.square(norm))
    assert math.sqrt(squares) == pytest.approx(model.gradient_norm(), rel=1e-5)
    assert {name for name, norm in norms.items() if np.ndim(norm) == 0} == {
        "wte", "wpe", "lnfw", "lnfb"
    }  # fmt: skip


def test_looking_takes_what_forward_takes(model):
    with pytest.raises(ArgumentError, match="tokens must be from 0 to 250"):
        look(model, [[251]])
    with pytest.raises(ArgumentError, match="tokens can be 40 long, the block_size, not 41"):
        look(model, [[0] * 41])


def test_labels_show_what_would_not_be_seen():
    tokenizer = CharsTokenizer("ab \n\t\x1b$é")
    assert token_labels(range(8), tokenizer) == ["a", "b", "␣", "↵", "→", r"\x1b", "$", "é"]
    assert token_labels([tokenizer.eot], tokenizer) == ["<eot>"]
    assert token_labels(np.array([7, 12])) == ["7", "12"]
    assert token_labels([0xC3], get_tokenizer("bytes")) == ["\ufffd"]  # half of an é


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for the layers: each call of one takes a second."""
    now = [0.0]

    def tick():
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(TIMES.time, "perf_counter", tick)
    monkeypatch.setattr(TIMES, "PAUSE", 0)


def test_times_add_up_a_layers_calls_in_each_pass(clock, monkeypatch, rng):
    monkeypatch.setattr("npgpt.model.passes.HEAD_ROWS", 4)
    config = GPT2Config(block_size=6, vocab_size=9, n_layer=3, n_head=2, n_embd=8)
    model = GPT2(config)
    tokens, targets = rng.integers(0, 9, (2, 2, 6))
    times = layer_times(model, tokens, targets, rounds=2)
    assert list(times) == ["numpy", "numba"]
    calls = {  # half a second each: of three blocks, and of three chunks of the head
        "encoder": (1, 1), "layernorm": (7, 7), "matmul": (12, 12), "attention": (3, 3),
        "residual": (6, 6), "gelu": (3, 3), "crossentropy": (3, 3),
    }  # fmt: skip
    for seconds in times.values():
        assert seconds == {name: (0.5 * f, 0.5 * b) for name, (f, b) in calls.items()}
    assert model.grads is None and model.layers is GPT2(config).layers


def test_times_are_the_medians_without_the_first(monkeypatch, model, state):
    monkeypatch.setattr(TIMES, "PAUSE", 0)
    rounds = iter([(9, 99), (5, 1), (2, 2), (4, 30)])
    left = []

    def step(self, tokens, targets):
        if not left:
            left.extend(2 * [{"gelu": next(rounds)}])
        return left.pop()

    monkeypatch.setattr(TIMES.TimedModel, "step", step)
    times = layer_times(model, state.x, state.y, rounds=3)
    assert times == {"numpy": {"gelu": (4, 2)}, "numba": {"gelu": (4, 2)}}


def test_no_rounds_are_refused(model, state):
    with pytest.raises(ArgumentError, match="rounds must be at least 1, not 0"):
        layer_times(model, state.x, state.y, rounds=0)
