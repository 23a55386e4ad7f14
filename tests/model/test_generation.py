"""Generation: with the cache as without it, what is drawn how often, and what is refused."""

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters
from npgpt.model.generation import (
    apply_repetition_penalty,
    filtered_weights,
    sample_tokens,
    stream_tokens,
)

CONFIG = GPT2Config(block_size=9, vocab_size=13, n_layer=2, n_head=3, n_embd=12)


def make(backend, dtype=np.float32, config=CONFIG):
    """A model that says many things, where a new one repeats the token, since its head is wte."""
    params = Parameters.init(config, seed=3, dtype=dtype)
    for name in ("wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw"):
        getattr(params, name)[...] *= 25
    params.lnfw[:] = np.random.default_rng(3).standard_normal(config.n_embd)
    return GPT2(config, backend=backend, params=params)


@pytest.fixture(params=["numpy", "numba"])
def model(request):
    return make(request.param)


def greedy_by_forward(model, tokens, count):
    """What greedy generation has to give: `forward` over the window, cut to half when it is full.

    Of the 9 that fit, 5 are left.
    """
    context, out = tokens, tokens
    for _ in range(count):
        if context.shape[1] > 9:
            context = context[:, -5:]
        new = model.forward(context)[:, -1].argmax(-1)[:, None]
        context, out = (np.concatenate([a, new], axis=1) for a in (context, out))
    return out


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("numpy", np.float64),
        ("numba", np.float32),
        pytest.param("numba", np.float64, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("T", [1, 4, 9, 10, 23])
@pytest.mark.parametrize("B", [1, 3])
def test_greedy_tokens_are_those_of_forward_with_and_without_the_cache(backend, dtype, T, B, rng):
    model, tokens = make(backend, dtype), rng.integers(0, 13, (B, T))
    expected = greedy_by_forward(model, tokens, 22)  # slides three times
    for cache in (True, False):
        out = model.generate(tokens, 22, temperature=0, cache=cache)
        np.testing.assert_array_equal(out, expected)
    assert len(np.unique(expected[:, T:])) > 2


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.slow)])
def test_drawn_tokens_are_the_same_without_the_cache(backend, rng):
    model, tokens = make(backend, np.float64), rng.integers(0, 13, (2, 3))
    options = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 3}
    expected = model.generate(tokens, 20, **options)
    np.testing.assert_array_equal(model.generate(tokens, 20, cache=False, **options), expected)


def test_a_token_costs_one_position_but_when_the_window_slides(model, monkeypatch):
    counts = []

    def counted(tokens, *args, whole=model.layers.encoder_forward):
        counts.append(tokens.shape[1])
        return whole(tokens, *args)

    monkeypatch.setattr(model.layers, "encoder_forward", counted)
    model.generate([[1, 2, 3]], 10)
    assert counts == [3, 1, 1, 1, 1, 1, 1, 5, 1, 1]
    counts.clear()
    model.generate([[1, 2, 3]], 10, cache=False)
    assert counts == [3, 4, 5, 6, 7, 8, 9, 5, 6, 7]


@pytest.mark.parametrize("longest", [1, 2])
def test_the_shortest_windows_work(longest):
    config = GPT2Config(block_size=longest, vocab_size=5, n_layer=1, n_head=1, n_embd=4)
    model = make("numpy", config=config)
    out = model.generate([[1, 2, 3]], 7, temperature=0)
    for end in range(3, 10):
        last = model.forward(out[:, end - 1 : end])[:, -1].argmax(-1)
        assert out[0, end] == last or longest == 2


def test_generation_is_seeded(model):
    start = np.array([[0]])
    one, same, other = (model.generate(start, 20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_samples_of_one_prompt_differ(model):
    a, b = model.generate([[1, 2], [1, 2]], 20, seed=0)
    assert (a != b).any()


def test_generation_of_no_tokens_returns_the_prompt(model):
    np.testing.assert_array_equal(model.generate([[1, 2]], 0), [[1, 2]])


def test_a_stream_is_what_generate_returns_token_by_token(model):
    tokens = np.array([[1, 2], [3, 4]])
    expected = model.generate(tokens, 12, seed=5)
    steps = stream_tokens(model, tokens, 12, seed=5)
    first = next(steps)
    assert first.shape == (2,)
    np.testing.assert_array_equal(np.stack([first, *steps], axis=1), expected[:, 2:])


def test_rows_that_have_drawn_stop_go_on_with_it_until_all_have(model):
    tokens = np.arange(6)[:, None]
    free = model.generate(tokens, 60, seed=2)[:, 1:]
    stop = free[0, 3]
    firsts = [list(row).index(stop) for row in free]
    out = model.generate(tokens, 60, seed=2, stop=stop)[:, 1:]
    assert out.shape[1] < 60
    ends = [list(row).index(stop) for row in out]
    assert out.shape[1] == max(ends) + 1
    for row, end in zip(out, ends, strict=True):
        assert (row[end:] == stop).all()
    early = min(firsts) + 1  # until then nothing has changed
    np.testing.assert_array_equal(out[:, :early], free[:, :early])


def test_one_row_ends_right_after_stop(model):
    free = model.generate([[1]], 30, seed=2)
    stop = free[0, 9]
    out = model.generate([[1]], 30, seed=2, stop=int(stop))
    end = 1 + list(free[0, 1:]).index(stop)
    np.testing.assert_array_equal(out, free[:, : end + 1])


PROBS = np.array([0.4, 0.1, 0.3, 0.05, 0.15])
LOGITS = np.log(PROBS)[None].astype(np.float32) - 3


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "kept"),
    [
        (1, None, None, [0, 1, 2, 3, 4]),
        (1, 1, None, [0]),
        (1, 3, None, [0, 2, 4]),
        (1, 99, None, [0, 1, 2, 3, 4]),
        (1, None, 0.39, [0]),
        (1, None, 0.41, [0, 2]),
        (1, None, 0.69, [0, 2]),
        (1, None, 0.71, [0, 2, 4]),
        (1, None, 0.96, [0, 1, 2, 3, 4]),
        (1, None, 1.0, [0, 1, 2, 3, 4]),
        (1, None, 1e-9, [0]),
        (1, 2, 0.58, [0, 2]),  # 0.4 of the 0.7 that top_k leaves is 0.571
        (1, 2, 0.56, [0]),
        (0.5, None, 0.87, [0, 2]),  # the squares: 0.16 and 0.09 of 0.285
        (0.5, None, 0.89, [0, 2, 4]),
    ],
)
def test_the_weights_are_the_softmax_of_what_is_kept(temperature, top_k, top_p, kept):
    expected = np.zeros(5)
    expected[kept] = PROBS[kept] ** (1 / temperature)
    weights = filtered_weights(np.tile(LOGITS, (2, 1)), temperature, top_k, top_p)
    np.testing.assert_allclose(
        weights / weights.sum(-1, keepdims=True), [expected / expected.sum()] * 2, atol=1e-6
    )


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_top_k_keeps_just_k_where_all_are_alike(top_k):
    assert (
        np.count_nonzero(filtered_weights(np.zeros((2, 7)), 1.0, top_k, None), -1).tolist()
        == [top_k] * 2
    )


def test_drawn_tokens_follow_the_weights(rng):
    logits = np.tile(LOGITS, (20000, 1))
    for options in ((1.0, None, None), (0.5, None, None), (1.0, 3, None), (1.0, None, 0.8)):
        weights = filtered_weights(LOGITS, *options)[0]
        tokens = sample_tokens(logits, *options, rng.random(20000))
        assert tokens.shape == (20000,)
        counts = np.bincount(tokens, minlength=5)
        np.testing.assert_allclose(counts / 20000, weights / weights.sum(), atol=0.015)
        assert (counts[weights == 0] == 0).all()


@pytest.mark.parametrize("point", [0.0, 0.5, 1 - 2**-53])
def test_what_weighs_nothing_is_never_drawn_at_either_end(point, rng):
    logits = rng.standard_normal((1000, 11)) * 5
    for options in ((1.0, 4, None), (1.0, None, 0.6), (0.01, None, None)):
        tokens = sample_tokens(logits, *options, np.full(1000, point))
        drawn = np.take_along_axis(filtered_weights(logits, *options), tokens[:, None], -1)
        assert (drawn > 0).all()


def test_a_sample_does_not_depend_on_how_many_are_drawn(model):
    four = model.generate([[1, 2, 3]] * 4, 12, seed=7)
    assert len(np.unique(four, axis=0)) > 1
    for B in (1, 2):
        np.testing.assert_array_equal(model.generate([[1, 2, 3]] * B, 12, seed=7), four[:B])


@pytest.mark.parametrize("options", [{"top_k": 2.5}, {"top_k": True}, {"max_new_tokens": 2.5}])
def test_a_count_that_is_no_integer_is_refused(model, options):
    with pytest.raises(ArgumentError, match=f"{[*options][0]} must be an integer of at least"):
        model.generate([[1]], **{"max_new_tokens": 3, **options})


def test_tiny_temperatures_take_the_likeliest(rng):
    logits = rng.standard_normal((50, 7)).astype(np.float32)
    for temperature in (0, 1e-300, 5e-324):
        tokens = sample_tokens(logits, temperature, None, None, rng.random(50))
        np.testing.assert_array_equal(tokens, logits.argmax(-1))


def test_the_penalty_divides_positive_and_multiplies_negative_logits_of_what_is_seen():
    logits = np.array([[2.0, -2.0, 2.0, -2.0, 0.0]])
    seen = np.array([[True, True, False, False, True]])
    np.testing.assert_array_equal(apply_repetition_penalty(logits, seen, 4), [[0.5, -8, 2, -2, 0]])
    np.testing.assert_array_equal(apply_repetition_penalty(logits, seen, 0.5), [[4, -1, 2, -2, 0]])
    np.testing.assert_array_equal(apply_repetition_penalty(logits, seen, 1), logits)


def test_with_a_high_penalty_every_token_comes_before_one_comes_again(model):
    model.params.lnfw[:], model.params.lnfb[:] = 0, 1  # the same logits, all positive, every time
    model.params.wte[:] = abs(model.params.wte)
    assert len(set(model.generate([[5]], 12, temperature=0)[0, 1:])) == 1
    out = model.generate([[5]], 12, temperature=0, repetition_penalty=1e9)
    assert sorted(out[0]) == list(range(13))


def test_a_diverged_model_does_not_generate(model):
    model.params.lnfw[0] = np.nan
    for temperature in (0, 1):
        with pytest.raises(ArgumentError, match="logits must be finite"):
            model.generate([[1]], 1, temperature=temperature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be finite and at least 0, not -1"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be an integer of at least 1, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"top_p": float("nan")}, "top_p must be"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a finite number above 0, not 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be"),
        ({"stop": 13}, "stop must be a token from 0 to 12, not 13"),
        ({"stop": -1}, "stop must be"),
        ({"stop": 1.5}, "stop must be"),
        ({"stop": "a"}, "stop must be"),
        ({"seed": -1}, "seed must be an integer of at least 0, or several, not -1"),
        ({"seed": "a"}, "seed must be"),
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0, not -1"),
        ({"tokens": [[13]]}, "tokens must be from 0 to 12"),
        ({"tokens": [[]]}, "tokens must be integers"),
        ({"tokens": [1, 2]}, "tokens must be integers"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_token(model, options, message):
    arguments = {"tokens": [[1]], "max_new_tokens": 1, **options}
    with pytest.raises(ArgumentError, match=message):
        model.generate(**arguments)
    with pytest.raises(ArgumentError, match=message):
        stream_tokens(model, **arguments)


@pytest.mark.reference
def test_what_is_kept_is_what_transformers_keeps(rng):
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = rng.standard_normal((40, 50)) * 3
    seen = rng.integers(0, 50, (40, 9))
    mask = np.zeros((40, 50), bool)
    np.put_along_axis(mask, seen, True, -1)
    for top_k, top_p, penalty in ((7, None, 1), (None, 0.8, 1), (9, 0.6, 1.3), (None, None, 0.8)):
        chain = [warpers.RepetitionPenaltyLogitsProcessor(float(penalty))] if penalty != 1 else []
        chain.append(warpers.TemperatureLogitsWarper(0.7))
        chain += [warpers.TopKLogitsWarper(top_k)] if top_k else []
        chain += [warpers.TopPLogitsWarper(top_p)] if top_p else []
        scores = torch.from_numpy(logits)
        for warper in chain:
            scores = warper(torch.from_numpy(seen), scores)
        expected = torch.softmax(scores, -1).numpy()
        weights = filtered_weights(
            apply_repetition_penalty(logits, mask, penalty), 0.7, top_k, top_p
        )
        np.testing.assert_allclose(weights / weights.sum(-1, keepdims=True), expected, atol=1e-12)
