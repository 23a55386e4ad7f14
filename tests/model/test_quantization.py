"""Weights in fewer bits: what they are rounded to, that all passes compute with them, sampling."""

import copy

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters
from npgpt.core.parameters import QUANTIZABLE
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS
from npgpt.model.quantization import WEIGHT_FORMATS, find_weight_format, quantize_weights

pytestmark = pytest.mark.slow

CONFIG = GPT2Config(block_size=128, vocab_size=97, n_layer=2, n_head=2, n_embd=64)
PROMPTS = (1, 12, 13, 64, 65)  # tokens: up to GEMV_MAX_ROWS are read in the smaller format itself
SEEDS = (0, 1, 2)
ROUNDED = [name for name, format in WEIGHT_FORMATS.items() if format.quantize]


def exact(seed=3):
    """Parameters of a model that says many things."""
    params = Parameters.init(CONFIG, seed=seed)
    for name in ("wpe", *QUANTIZABLE):
        getattr(params, name)[...] *= 25
    params.lnfw[:] = np.random.default_rng(seed).standard_normal(CONFIG.n_embd)
    return params


def make(weight_format="fp32", params=None, **options):
    return GPT2(CONFIG, params=params or exact(), weight_format=weight_format, **options)


def texts(model, seed, cache):
    """What it says, greedily, after prompts of each length: arrays of tokens."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, CONFIG.vocab_size, (1, count)) for count in PROMPTS]
    return [model.generate(prompt, 16, temperature=0, cache=cache) for prompt in prompts]


def differing(model, seeds=SEEDS):
    """How many of the texts are others without the cache than with it."""
    pairs = [
        pair
        for seed in seeds
        for pair in zip(texts(model, seed, True), texts(model, seed, False), strict=True)
    ]
    return sum(not np.array_equal(a, b) for a, b in pairs)


def logits_apart(model):
    """How far the logits of a token that is decoded are from those of `forward`, of the largest."""
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (1, 20))
    kv = np.empty((2, 2, 1, 2, 20, 32), np.float32)
    decoder = model.decoder()
    with model.computing(1.0):
        decoder.step(tokens[:, :-1], kv, 0)
        decoded = decoder.step(tokens[:, -1:], kv, 19)
    expected = model.forward(tokens)[:, -1]
    return np.abs(decoded - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
def test_what_is_decoded_has_the_logits_of_forward(weights):
    assert logits_apart(make(weights)) < 1e-5


def test_the_prompts_lie_on_both_sides_of_few():
    assert {count <= GEMV_MAX_ROWS for count in PROMPTS} == {True, False}
    for most in (DOT_MAX_ROWS, GEMV_MAX_ROWS):
        assert most in PROMPTS and most + 1 in PROMPTS


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
def test_a_greedy_text_is_the_same_with_and_without_the_cache(weights):
    model = make(weights)
    assert differing(model) == 0
    said = np.concatenate([text[0, -16:] for text in texts(model, 0, True)])
    assert len(np.unique(said)) > 10  # and it is no text that says nothing


@pytest.mark.parametrize("weights", ROUNDED)
def test_decoding_with_other_weights_than_the_prompts_is_caught(weights):
    """As it was: float32 weights for prompts and evaluation, rounded copies for single tokens."""
    model = make(weights)
    right = logits_apart(model)
    model.params.flat[:] = exact().flat
    assert differing(model) >= 1
    assert logits_apart(model) > 100 * right


@pytest.mark.parametrize("weights", ROUNDED)
def test_a_rounded_model_says_something_else_than_an_exact_one(weights):
    one, other = make(weights), make()
    assert any(
        not np.array_equal(a, b)
        for seed in SEEDS
        for a, b in zip(texts(one, seed, True), texts(other, seed, True), strict=True)
    )


@pytest.mark.parametrize("weights", ROUNDED)
def test_the_params_hold_what_they_are_rounded_to(weights):
    before, model = exact(), make(weights)
    for name, view in model.params.items():
        w, old = view.astype(np.float64), getattr(before, name).astype(np.float64)
        if name not in QUANTIZABLE:
            np.testing.assert_array_equal(w, old)
            continue
        assert not np.array_equal(w, old), name
        if weights == "bf16":
            assert not (view.view(np.uint32) & 0xFFFF).any()
            assert (np.abs(w - old) <= np.abs(old) * 2**-8).all()
        elif weights == "int8" or name == "wte":
            scale = np.abs(w).max(-1, keepdims=True) / 127
            steps = w / scale
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
            assert (np.abs(w - old) <= 0.5001 * scale).all()
        else:
            groups, old = w.reshape(-1, 32), old.reshape(-1, 32)
            assert all(len(np.unique(group)) <= 16 for group in groups)
            assert 0.07 < np.sqrt(((groups - old) ** 2).mean() / (old**2).mean()) < 0.09


def test_weights_in_float32_are_left_alone():
    np.testing.assert_array_equal(make("fp32").params.flat, exact().flat)
    assert quantize_weights(exact(), "fp32") == {}


@pytest.mark.parametrize("weights", ROUNDED)
def test_rounding_twice_is_rounding_once(weights):
    once = make(weights).params
    twice = GPT2(CONFIG, params=copy.deepcopy(once), weight_format=weights).params
    np.testing.assert_allclose(twice.flat, once.flat, rtol=3e-7)
    if weights == "bf16":
        np.testing.assert_array_equal(twice.flat, once.flat)


@pytest.mark.parametrize("weights", ROUNDED)
@pytest.mark.parametrize("B, T", [(1, 3), (2, 40)])
def test_loss_and_logits_are_those_of_a_float32_model_with_these_params(weights, B, T, rng):
    tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, B, T))
    model = make(weights)
    same = make(params=copy.deepcopy(model.params))
    assert model.loss(tokens, targets) == same.loss(tokens, targets)
    np.testing.assert_array_equal(model.forward(tokens), same.forward(tokens))
    assert model.loss(tokens, targets) != make().loss(tokens, targets)


@pytest.mark.parametrize("weights", ROUNDED)
def test_gradients_can_be_had_and_updates_not(weights, rng):
    model = make(weights)
    model.forward_backward(*rng.integers(0, CONFIG.vocab_size, (2, 2, 8)))
    assert np.isfinite(model.gradient_norm())
    before = model.params.flat.copy()
    message = f"a model in weight_format {weights} cannot be updated"
    with pytest.raises(ArgumentError, match=message):
        model.update(1e-3)
    np.testing.assert_array_equal(model.params.flat, before)


@pytest.mark.parametrize("weights", ROUNDED)
def test_what_cannot_be_rounded_is_refused(weights):
    with pytest.raises(ArgumentError, match=f"weight_format {weights} needs backend numba"):
        make(weights, backend="numpy")
    params = Parameters.init(CONFIG, dtype=np.float64)
    before = params.flat.copy()
    with pytest.raises(ArgumentError, match=f"{weights} needs float32 parameters, not"):
        GPT2(CONFIG, params=params, weight_format=weights)
    np.testing.assert_array_equal(params.flat, before)


@pytest.mark.parametrize("name", ["int2", "", None, "INT8"])
def test_an_unknown_format_is_refused(name):
    for ask in (find_weight_format, make):
        with pytest.raises(
            ArgumentError, match="weight_format must be one of fp32, bf16, int8, int4, not "
        ):
            ask(name)


@pytest.mark.slow
def test_a_greedy_text_is_the_same_with_and_without_the_cache_in_coarse_precisions(coarse):
    model = make(precision=coarse)
    assert differing(model) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("bf16_hardware")
@pytest.mark.parametrize("weights", ROUNDED)
def test_weights_and_precision_go_together(weights):
    assert differing(make(weights, precision="bf16"), seeds=[0]) == 0
