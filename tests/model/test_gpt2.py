"""The model: shapes, training, and what it refuses."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters
from npgpt.core.parameters import BLOCK_NAMES

CONFIG = GPT2Config(block_size=9, vocab_size=13, n_layer=2, n_head=3, n_embd=12)


@pytest.fixture(params=["numpy", "numba"])
def model(request):
    return GPT2(CONFIG, seed=1, backend=request.param)


@pytest.mark.parametrize("B", [1, 2, 5])
@pytest.mark.parametrize("T", [1, 2, 7, 9])
def test_any_batch_up_to_block_size_works(model, B, T, rng):
    tokens, targets = rng.integers(0, 13, (2, B, T))
    assert model.forward(tokens).shape == (B, T, 13)
    loss = model.forward_backward(tokens, targets)
    assert loss == pytest.approx(np.log(13), abs=0.1)
    assert np.isfinite(model.grads.flat).all()
    assert (model.grads.wpe[T:] == 0).all()
    assert (model.grads.wpe[:T] != 0).all()


def test_loss_is_the_cross_entropy_of_the_logits(model, rng):
    tokens, targets = rng.integers(0, 13, (2, 3, 4))
    logits = model.forward(tokens).astype(np.float64)
    of_target = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    expected = (np.log(np.exp(logits).sum(-1)) - of_target).mean()
    assert model.loss(tokens, targets) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_written_anew_by_each_backward(model, rng):
    tokens, targets = rng.integers(0, 13, (2, 2, 5))
    model.forward_backward(tokens, targets)
    first = model.grads.flat.copy()
    model.forward_backward(tokens, targets)
    np.testing.assert_array_equal(model.grads.flat, first)


def test_training_learns_a_batch_by_heart(model, rng):
    tokens, targets = rng.integers(0, 13, (2, 2, 6))
    first = model.loss(tokens, targets)
    for _ in range(150):
        model.forward_backward(tokens, targets)
        model.update(lr=1e-2)
    assert model.loss(tokens, targets) < 0.05 < first


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_repeats_bit_for_bit(backend, rng):
    tokens, targets = rng.integers(0, 13, (2, 2, 6))
    runs = []
    for _ in range(2):
        model = GPT2(CONFIG, seed=5, backend=backend)
        for _ in range(3):
            model.forward_backward(tokens, targets)
            model.update(lr=1e-2, weight_decay=0.1)
        runs.append(model.params.flat)
    np.testing.assert_array_equal(*runs)


def test_backends_agree(rng):
    tokens, targets = rng.integers(0, 13, (2, 3, 8))
    grads = []
    for backend in ("numpy", "numba"):
        model = GPT2(CONFIG, seed=1, backend=backend)
        model.forward_backward(tokens, targets)
        grads.append(model.grads.flat)
    np.testing.assert_allclose(*grads, atol=1e-6)


@pytest.mark.slow
def test_a_float64_model_computes_in_float64(rng):
    params = Parameters.init(CONFIG, dtype=np.float64)
    model = GPT2(CONFIG, params=params)
    tokens, targets = rng.integers(0, 13, (2, 2, 3))
    assert model.forward(tokens).dtype == np.float64
    model.forward_backward(tokens, targets)
    model.update(1e-3)
    assert model.grads.flat.dtype == model.optimizer.m.flat.dtype == np.float64


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[13]], "tokens must be from 0 to 12, but run from 13 to 13"),
        ([[-1]], "tokens must be from 0 to 12, but run from -1 to -1"),
        ([[0] * 10], "tokens can be 9 long, the block_size, not 10"),
        ([1, 2], r"tokens must be integers of shape \(B, T\), not int64 of shape \(2,\)"),
        ([[0.5]], "tokens must be integers"),
        ([[]], "tokens must be integers"),
        ([[1, 2], [3]], "tokens must be integers"),
    ],
)
def test_bad_tokens_are_refused(model, tokens, message):
    with pytest.raises(ArgumentError, match=message):
        model.forward(tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.loss([[1]], [[1, 2]]), "targets must be"),
        (lambda m: m.loss([[1]], [[-1]]), "targets are all -1"),
        (lambda m: m.loss([[1]], [[-2]]), "targets must be from -1 to 12"),
        (lambda m: m.forward_backward([[1]], [[1, 2]]), "targets must be"),
        (
            lambda m: m.forward_backward([[1]], [[1]], add=True),
            "add=True needs gradients to add to",
        ),
        (lambda m: m.update(1e-3), "call forward_backward.. before update"),
        (lambda m: GPT2(GPT2Config(), params=m.params), "params must be of the model's GPT2Config"),
        (lambda m: GPT2(CONFIG, backend="torch"), "backend must be one of numpy, numba"),
    ],
)
def test_bad_calls_are_refused(model, call, message):
    with pytest.raises(ArgumentError, match=message):
        call(model)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64])
def test_tokens_may_be_of_any_integer_dtype(model, dtype):
    tokens = np.array([[1, 2, 3]], dtype)
    expected = model.generate([[1, 2, 3]], 4, temperature=0)
    np.testing.assert_array_equal(model.generate(tokens, 4, temperature=0), expected)
    assert model.loss(tokens, tokens) == model.loss([[1, 2, 3]], [[1, 2, 3]])


@pytest.fixture
def batches(rng):
    """Four micro-batches and the one batch that they make; one position has no target."""
    tokens, targets = rng.integers(0, 13, (2, 8, 9))
    return [(tokens[i : i + 2], targets[i : i + 2]) for i in range(0, 8, 2)], (tokens, targets)


def test_micro_batches_add_up_to_their_batch(model, batches):
    parts, whole = batches
    expected = model.forward_backward(*whole)
    grads = model.grads.flat.copy()
    model.grads.flat[:] = np.nan  # nothing is left of what was there
    losses = [model.forward_backward(*part, dloss=1 / 4, add=i > 0) for i, part in enumerate(parts)]
    assert np.mean(losses) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(model.grads.flat, grads, atol=1e-6)


def test_recomputing_changes_nothing(model, batches):
    _, (tokens, targets) = batches
    loss = model.forward_backward(tokens, targets)
    grads = model.grads.flat.copy()
    for recompute in (True, "blocks"):
        model.recompute = recompute
        model.grads.flat[:] = np.nan  # nothing is left of what was there
        assert model.forward_backward(tokens, targets) == loss
        np.testing.assert_array_equal(model.grads.flat, grads)


@pytest.mark.parametrize("recompute, products", [(False, 4), (True, 4), ("blocks", 7)])
def test_a_block_is_recomputed_without_its_last_product(recompute, products, batches):
    model, widths = GPT2(CONFIG, recompute=recompute), []
    right = model.layers.matmul_forward

    def matmul_forward(x, w, b=None):
        widths.append(w.shape)
        return right(x, w, b)

    model.layers = SimpleNamespace(**{**vars(model.layers), "matmul_forward": matmul_forward})
    model.forward_backward(*batches[1])
    C = CONFIG.n_embd
    assert len(widths) == products * CONFIG.n_layer
    assert widths.count((C, 4 * C)) == CONFIG.n_layer


def test_what_cannot_be_recomputed_is_refused():
    with pytest.raises(ArgumentError, match="must be one of False, True, 'blocks', not 'block'"):
        GPT2(GPT2Config(8, 13, 1, 2, 8), recompute="block")


def test_the_head_in_chunks_equals_the_head_at_once(model, batches, monkeypatch):
    _, (tokens, targets) = batches
    targets[0, 1] = targets[3] = -1  # with 5 rows at a time, some chunks have no target at all
    loss = model.forward_backward(tokens, targets)
    grads = model.grads.flat.copy()
    assert model.loss(tokens, targets) == loss
    monkeypatch.setattr("npgpt.model.passes.HEAD_ROWS", 5)
    assert model.forward_backward(tokens, targets) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(model.grads.flat, grads, atol=1e-6)


def test_clipping_scales_the_gradients_to_the_norm(rng):
    tokens, targets = rng.integers(0, 13, (2, 2, 6))
    for backend in ("numpy", "numba"):
        model, same = (GPT2(CONFIG, seed=5, backend=backend) for _ in range(2))
        model.forward_backward(tokens, targets)
        norm = np.linalg.norm(model.grads.flat.astype(np.float64))
        assert model.update(1e-2, clip=norm / 3) == pytest.approx(norm, rel=1e-6)
        same.forward_backward(tokens, targets)
        same.grads.flat[:] /= 3
        assert same.update(1e-2, clip=norm) == pytest.approx(norm / 3, rel=1e-6)
        np.testing.assert_allclose(model.params.flat, same.params.flat, atol=1e-7)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_trains_on_as_the_model_does_and_apart_from_it(model, copied):
    x = np.arange(6).reshape(2, 3) % model.config.vocab_size
    model.forward_backward(x, x)
    model.update(1e-2)
    other = copied(model)
    assert other.layers is model.layers
    for each in (other, model):  # first the copy: it must not change the model
        each.forward_backward(x, x)
        each.update(1e-2)
    np.testing.assert_array_equal(other.params.flat, model.params.flat)
    assert other.optimizer.updates == model.optimizer.updates == 2
    assert not np.shares_memory(other.params.flat, model.params.flat)
    assert np.shares_memory(other.params.wte, other.params.flat)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_block_is_said_to_be_done_when_its_gradients_are_final(backend, rng):
    config = GPT2Config(block_size=8, vocab_size=30, n_layer=3, n_head=2, n_embd=16)
    model = GPT2(config, backend=backend)
    x, y = rng.integers(0, 30, (2, 2, 8))
    model.forward_backward(x, y)
    seen = []

    def block_done(layer):
        grads = model.grads.blocks[layer]
        seen.append((layer, {name: getattr(grads, name).copy() for name in BLOCK_NAMES}))

    model.forward_backward(y, x, add=True, block_done=block_done)
    assert [layer for layer, _ in seen] == [2, 1, 0]
    for layer, found in seen:
        for name in BLOCK_NAMES:
            np.testing.assert_array_equal(found[name], getattr(model.grads.blocks[layer], name))
