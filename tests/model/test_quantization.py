"""Weights in fewer bits: what they are rounded to, that all passes compute with them, sampling."""

import copy
import pickle
import tracemalloc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters, inside, kernels, layers, trace
from npgpt.core.parameters import QUANTIZABLE, TENSOR_NAMES, count_parameters
from npgpt.formats.llmc import read_checkpoint
from npgpt.formats.registry import write_model
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS
from npgpt.kernels.products.weights import widened
from npgpt.model.quantization import (
    WEIGHT_FORMATS,
    arrays_of,
    find_weight_format,
    quantize_weights,
)

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
def test_decoding_with_other_weights_than_the_prompts_is_caught(weights, monkeypatch):
    """For prompts and evaluation, weights that are apart by about what they were rounded by."""
    model, rng = make(weights), np.random.default_rng(0)
    right = logits_apart(model)

    def apart(w):
        exact = widened(w)
        return exact * (1 + 2**-9 * rng.standard_normal(exact.shape, np.float32))

    monkeypatch.setattr("npgpt.model.quantized_layers.widened", apart)
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
    for name, view in model.params.to_float32().items():
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
    params = exact()
    assert quantize_weights(params, "fp32") is params


@pytest.mark.parametrize("weights", ROUNDED)
def test_rounding_twice_is_rounding_once(weights):
    once = make(weights).params.to_float32()
    twice = make(weights, copy.deepcopy(once)).params.to_float32()
    np.testing.assert_allclose(twice.flat, once.flat, rtol=3e-7)
    if weights == "bf16":
        np.testing.assert_array_equal(twice.flat, once.flat)


@pytest.mark.parametrize("weights", ROUNDED)
@pytest.mark.parametrize("B, T", [(1, 3), (2, 40)])
def test_loss_and_logits_are_those_of_a_float32_model_with_these_params(weights, B, T, rng):
    tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, B, T))
    model = make(weights)
    same = make(params=model.params.to_float32())
    assert model.loss(tokens, targets) == same.loss(tokens, targets)
    np.testing.assert_array_equal(model.forward(tokens), same.forward(tokens))
    assert model.loss(tokens, targets) != make().loss(tokens, targets)


@pytest.mark.parametrize("weights", ROUNDED)
@pytest.mark.parametrize("recompute", [False, True, "blocks"])
def test_gradients_are_those_of_a_float32_model_with_these_params(weights, recompute, rng):
    model = make(weights, recompute=recompute)
    same = make(params=model.params.to_float32(), recompute=recompute)
    for add in (False, True):
        batch = rng.integers(0, CONFIG.vocab_size, (2, 2, 40))
        for each in (model, same):
            each.forward_backward(*batch, add=add, dropout=0.2, seed=5)
    np.testing.assert_array_equal(model.grads.flat, same.grads.flat)


@pytest.mark.parametrize("weights", ROUNDED)
def test_updates_are_refused(weights, rng):
    model = make(weights)
    model.forward_backward(*rng.integers(0, CONFIG.vocab_size, (2, 2, 8)))
    before = model.params.to_float32()
    message = f"a model in weight_format {weights} cannot be updated"
    with pytest.raises(ArgumentError, match=message):
        model.update(1e-3)
    np.testing.assert_array_equal(model.params.to_float32().flat, before.flat)


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


@pytest.mark.parametrize("weights", ROUNDED)
def test_the_float32_weights_are_neither_changed_nor_kept(weights):
    params = exact()
    model, kept = make(weights, params), weakref.ref(params.flat.base)
    np.testing.assert_array_equal(params.flat, exact().flat)
    del params
    assert kept() is None
    held = sum(a.nbytes for name in QUANTIZABLE for a in arrays_of(getattr(model.params, name)))
    floats = 4 * sum(getattr(exact(), name).size for name in QUANTIZABLE)
    assert held < floats * {"bf16": 0.51, "int8": 0.28, "int4": 0.2}[weights]


@pytest.mark.parametrize("weights", ROUNDED)
@pytest.mark.parametrize("where", ["m.bin", "folder"])
def test_what_is_loaded_in_a_format_is_what_is_quantized(weights, where, tmp_path):
    if where == "folder":
        pytest.importorskip("safetensors")
    write_model(tmp_path / where, exact())
    loaded = GPT2.from_pretrained(tmp_path / where, weight_format=weights)
    for name in TENSOR_NAMES:
        for ours, theirs in zip(
            arrays_of(getattr(loaded.params, name)),
            arrays_of(getattr(make(weights).params, name)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("weights", ROUNDED)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_quantized_model_says_the_same(copied, weights):
    model, tokens = make(weights), np.arange(70)[None]
    before = model.forward(tokens)
    other = copied(model)
    np.testing.assert_array_equal(other.forward(tokens), before)
    for name in ("qkvw", "fcprojw"):
        held, block = (getattr(p, name).values for p in (other.params, other.params.blocks[1]))
        assert np.shares_memory(held, block)
        assert not np.shares_memory(held, getattr(model.params, name).values)


def test_a_quantized_model_computes_with_layers_of_ones_own():
    model, seen = make("int8"), []

    def gelu_forward(x):
        seen.append(x.shape)
        return layers.gelu_forward(x)

    before, own = model.forward([[1, 2, 3]]), model.layers
    model.layers = SimpleNamespace(**{**vars(layers), "gelu_forward": gelu_forward})
    np.testing.assert_allclose(model.forward([[1, 2, 3]]), before, rtol=1e-4, atol=1e-4)
    assert len(seen) == CONFIG.n_layer
    model.layers = own
    assert model.layers is kernels
    np.testing.assert_array_equal(model.forward([[1, 2, 3]]), before)


def test_what_quantized_params_lack_is_said(tmp_path):
    params = make("int8").params
    for needs in (lambda: params.flat, lambda: write_model(tmp_path / "m.bin", params)):
        with pytest.raises(AttributeError, match=r"no (flat|items); their to_float32\(\) makes"):
            needs()
    assert not any(tmp_path.iterdir())
    write_model(tmp_path / "m.bin", params.to_float32())


def test_quantized_params_are_for_a_model_in_their_format():
    params = make("int8").params
    assert make("int8", params).params is params
    for name in ("fp32", "bf16"):
        with pytest.raises(
            ArgumentError, match="params are in weight_format int8: pass weight_format='int8', or"
        ):
            make(name, params)


def test_tensors_of_quantized_params_cannot_be_assigned():
    params = make("int8").params
    with pytest.raises(AttributeError):
        params.blocks[0].qkvw = exact().blocks[0].qkvw
    for name in ("wte", "lnfw", "flat"):
        with pytest.raises(
            ArgumentError, match=f"{name} of QuantizedParameters cannot be assigned"
        ):
            setattr(params, name, getattr(exact(), name))


@pytest.mark.parametrize("version", [1, 3, 5])
def test_a_files_padding_stays(version, tmp_path):
    path, params = tmp_path / "m.bin", exact()
    rows = -CONFIG.vocab_size % 128
    params.wte_padding = np.random.default_rng(0).integers(-9, 9, (rows, CONFIG.n_embd)) / 8
    write_model(path, params, version=version)
    loaded = GPT2.from_checkpoint(path, weight_format="int8")
    quantized = GPT2(CONFIG, params=read_checkpoint(path), weight_format="int8")
    for p in (loaded.params, loaded.params.to_float32(), quantized.params):
        if version == 1:
            assert p.wte_padding is None
        else:
            np.testing.assert_array_equal(p.wte_padding, params.wte_padding)


@pytest.mark.parametrize("where", ["m.bin", "folder"])
def test_the_float32_model_is_never_in_memory(where, tmp_path):
    if where == "folder":
        pytest.importorskip("safetensors")
    config = GPT2Config(block_size=8, vocab_size=500, n_layer=12, n_head=2, n_embd=256)
    write_model(tmp_path / where, Parameters(config))
    make("int4")  # compiles what quantizes
    tracemalloc.start()
    GPT2.from_pretrained(tmp_path / where, weight_format="int4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.35 * 4 * count_parameters(config)


@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_options_are_checked_before_the_file_is_read(backend, tmp_path):
    with pytest.raises(ArgumentError, match="backend"):
        GPT2.from_pretrained(tmp_path / "missing.bin", backend=backend, weight_format="int8")


@pytest.mark.parametrize("weights", ROUNDED)
def test_what_is_inside_is_what_is_inside_a_float32_model(weights):
    model, tokens = make(weights), np.arange(9)[None]
    same = make(params=model.params.to_float32())
    for see in (
        lambda m: inside.look(m, tokens).residual,
        lambda m: inside.logit_lens(m, inside.look(m, tokens).residual).probs,
        lambda m: inside.tensor_norms(m.params)["fcw"],
        lambda m: trace(m, tokens, tokens).blocks[1].dqkvw,
    ):
        np.testing.assert_array_equal(see(model), see(same))
    assert inside.layer_times(model, tokens, tokens, rounds=1)
