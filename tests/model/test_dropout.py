"""Dropout in a whole model: exact with recompute, on both backends, and off where it has to be."""

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, layers
from npgpt.model.passes import Dropout, body_forward, make_dropout

CONFIG = GPT2Config(block_size=9, vocab_size=13, n_layer=2, n_head=2, n_embd=8)


@pytest.fixture
def batch(rng):
    return rng.integers(0, 13, (2, 3, 8))


def gradients(batch, backend="numpy", recompute=False, **options):
    """The loss and the gradients of a step with dropout 0.3."""
    model = GPT2(CONFIG, seed=1, backend=backend, recompute=recompute)
    loss = model.forward_backward(*batch, **{"dropout": 0.3, "seed": 5, **options})
    return loss, model.grads.flat


@pytest.mark.parametrize("recompute", [True, "blocks"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_recomputed_activations_are_dropped_out_alike(backend, recompute, batch):
    loss, grads = gradients(batch, backend)
    again, recomputed = gradients(batch, backend, recompute=recompute)
    assert loss == again
    np.testing.assert_array_equal(grads, recomputed)


def test_both_backends_drop_the_same(batch):
    one, other = gradients(batch), gradients(batch, "numba")
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)


def test_the_same_seed_drops_the_same_and_another_drops_others(batch):
    loss, _ = gradients(batch)
    assert gradients(batch)[0] == loss
    losses = {loss, *(gradients(batch, **other)[0] for other in OTHERS)}
    assert len(losses) == 1 + len(OTHERS)


OTHERS = [{"seed": 6}, {"seed": [5, 0, 1]}, {"seed": [5, 1, 0]}, {"dropout": 0.4}, {"dropout": 0.0}]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_parts_of_a_batch_drop_what_the_whole_drops(backend, batch):
    loss, grads = gradients(batch, backend)
    model = GPT2(CONFIG, seed=1, backend=backend)
    parts = [
        model.forward_backward(
            *batch[:, start:stop], (stop - start) / 3, start > 0, dropout=0.3, seed=5, before=start
        )
        for start, stop in ((0, 1), (1, 3))
    ]
    assert parts[0] / 3 + parts[1] * 2 / 3 == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(model.grads.flat, grads, atol=1e-6)


def test_every_place_drops_its_own(batch):
    _, cache = body_forward(batch[0], GPT2(CONFIG).params, layers, dropout=make_dropout(0.5, 1))
    drops = [cache.encoder_drop]
    for block in cache.blocks:
        drops += [block.att[2], block.attproj_drop, block.fcproj_drop]
    assert len({drop.site for drop in drops}) == 1 + 3 * CONFIG.n_layer
    assert len({(drop.rate, drop.key) for drop in drops}) == 1


def test_without_dropout_nothing_is_called(batch, monkeypatch):
    def called(x, drop):
        raise AssertionError("dropout_forward was called")

    monkeypatch.setattr(layers, "dropout_forward", called)
    model = GPT2(CONFIG, backend="numpy")
    model.forward_backward(*batch)
    model.loss(*batch)
    model.generate(batch[0], 2)
    with pytest.raises(AssertionError):
        model.forward_backward(*batch, dropout=0.1)
    assert make_dropout(0.0, 1) == Dropout()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, not -0.1"),
        ({"dropout": float("nan")}, "dropout must be at least 0 and below 1, not nan"),
        ({"seed": -1}, "seed must be an integer of at least 0, or several, not -1"),
        ({"seed": "a"}, "seed must be an integer of at least 0, or several, not 'a'"),
    ],
)
def test_what_cannot_be_is_refused(batch, options, message):
    with pytest.raises(ArgumentError, match=message):
        gradients(batch, **options)
